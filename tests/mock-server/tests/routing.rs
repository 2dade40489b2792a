//! Where stanzas go, and what the server answers itself.

mod support;

use mock_server::{MockServer, Outcome};
use support::{JULIET, ROMEO, Raw, jid};

#[tokio::test]
async fn stanzas_reach_a_full_jid_in_order_with_the_senders_true_address() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut juliet = Raw::login(&server, JULIET).await;
    for n in 0..50 {
        romeo
            .send(&format!(
                "<message to='{JULIET}' from='tybalt@capulet.lit/street'><body>{n}&lt;</body></message>"
            ))
            .await;
    }
    for n in 0..50 {
        let message = juliet.until("</message>").await;
        assert!(message.contains(&format!("<body>{n}&lt;</body>")), "{n}: {message}");
        assert!(message.contains(ROMEO) && !message.contains("tybalt"), "{message}");
    }
}

#[tokio::test]
async fn an_absent_full_jid_is_answered_for_with_service_unavailable() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    romeo.send(&format!("<iq type='get' id='1' to='{JULIET}'><ping xmlns='urn:xmpp:ping'/></iq>")).await;
    let error = romeo.until("</iq>").await;
    for part in ["type='error'", "id='1'", "service-unavailable", "cancel", &format!("from='{JULIET}'")] {
        assert!(error.replace('"', "'").contains(part), "{part} in {error}");
    }
    romeo.send(&format!("<message to='{JULIET}' id='2'><body>hello</body></message>")).await;
    let error = romeo.until("</message>").await;
    assert!(error.contains("service-unavailable") && error.contains(JULIET), "{error}");
    romeo.send("<message to='nobody@capulet.lit'><body>hello</body></message>").await;
    assert!(romeo.until("</message>").await.contains("service-unavailable"));

    let outcomes: Vec<_> = server.record().into_iter().map(|r| r.outcome).collect();
    assert_eq!(outcomes, [Outcome::Undeliverable, Outcome::Delivered].repeat(3));
}

#[tokio::test]
async fn errors_and_results_for_nobody_are_not_answered() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    romeo.send(&format!("<iq type='result' id='1' to='{JULIET}'/>")).await;
    romeo.send(&format!("<message type='error' to='{JULIET}'/><presence to='{JULIET}'/>")).await;
    let received = romeo.everything_before_a_ping().await;
    assert_eq!(received.matches("service-unavailable").count(), 0, "{received}");
}

#[tokio::test]
async fn a_message_to_an_account_reaches_all_of_its_resources() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut balcony = Raw::login(&server, JULIET).await;
    let mut chamber = Raw::login(&server, "juliet@capulet.lit/chamber").await;
    romeo.send("<message to='juliet@capulet.lit'><body>hello</body></message>").await;
    balcony.until("</message>").await;
    chamber.until("</message>").await;
}

#[tokio::test]
async fn presence_reaches_everybody_else_with_its_caps_and_a_newcomer_gets_theirs() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    romeo
        .send(
            "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://a' ver='zHyEOgxTrkpSdGcQKH8EFPLsriY='/>\
             </presence>",
        )
        .await;
    romeo.everything_before_a_ping().await;

    let mut juliet = Raw::login(&server, JULIET).await;
    juliet.send("<presence><show>away</show></presence>").await;
    let romeos = juliet.until("</presence>").await;
    assert!(romeos.contains("zHyEOgxTrkpSdGcQKH8EFPLsriY=") && romeos.contains(ROMEO), "{romeos}");
    let juliets = romeo.until("</presence>").await;
    assert!(juliets.contains("<show>away</show>") && juliets.contains(JULIET), "{juliets}");

    drop(juliet);
    let gone = romeo.until("/>").await;
    assert!(gone.contains("unavailable") && gone.contains(JULIET), "{gone}");
}

#[tokio::test]
async fn the_server_answers_for_its_domain_and_the_own_account() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    for (request, expected) in [
        (
            "<iq type='get' id='1' to='montague.lit'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
            "server",
        ),
        (
            "<iq type='get' id='2' to='montague.lit'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>",
            "disco#items",
        ),
        ("<iq type='get' id='3'><query xmlns='jabber:iq:roster'/></iq>", "jabber:iq:roster"),
        ("<iq type='get' id='4'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>", "registered"),
        (
            "<iq type='get' id='5' to='montague.lit'><query xmlns='jabber:iq:version'/></iq>",
            "service-unavailable",
        ),
        ("<iq type='get' id='6' to='@'><query xmlns='jabber:iq:version'/></iq>", "jid-malformed"),
        ("<iq type='get' to='montague.lit'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
    ] {
        romeo.send(request).await;
        let answer = romeo.until("</iq>").await;
        assert!(answer.contains(expected), "{request} was answered by {answer}");
    }
    romeo.everything_before_a_ping().await;
}

#[tokio::test]
async fn a_stanza_that_is_too_large_is_a_policy_violation() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    romeo.send(&format!("<message to='{ROMEO}'><body>{}</body></message>", "x".repeat(262_000))).await;
    romeo.until("</message>").await;
    romeo.send(&format!("<message to='{ROMEO}'><body>{}</body></message>", "x".repeat(600_000))).await;
    let end = romeo.rest().await;
    assert!(end.contains("policy-violation") && end.contains("262144"), "{end}");
    assert!(server.online().is_empty());
}

#[tokio::test]
async fn garbage_costs_a_client_only_its_own_connection() {
    let server = MockServer::start().await;
    let mut juliet = Raw::login(&server, JULIET).await;
    for (garbage, condition) in [
        ("<message></iq>", "not-well-formed"),
        ("\u{1}\u{2}", "not-well-formed"),
        ("<!DOCTYPE a>", "stream:error"),
        ("<foo xmlns='bar'/>", "unsupported-stanza-type"),
        (&*"<message>".repeat(5000), "policy-violation"),
    ] {
        let mut romeo = Raw::login(&server, ROMEO).await;
        romeo.send(garbage).await;
        let end = romeo.rest().await;
        assert!(end.contains(condition), "{garbage:.20} ended in {end}");
        server.wait_offline(&jid(ROMEO)).await;
    }
    let mut stranger = Raw::connect(&server).await;
    stranger.send("\x16\x03\x01\x02\x00\x01").await;
    stranger.rest().await;
    juliet.everything_before_a_ping().await;
}
