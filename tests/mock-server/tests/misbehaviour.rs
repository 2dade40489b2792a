//! What the server does wrong when a test wants it to.

mod support;

use std::time::{Duration, Instant};

use mock_server::{MockServer, Outcome, Target, Verdict};
use support::{JULIET, ROMEO, Raw, jid};
use xmpp_parsers::{
    minidom::Element,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

async fn both(server: &MockServer) -> (Raw, Raw) {
    (Raw::login(server, ROMEO).await, Raw::login(server, JULIET).await)
}

fn say(body: &str) -> String {
    format!("<message to='{JULIET}' id='{body}'><body>{body}</body></message>")
}

#[tokio::test]
async fn an_intercept_replaces_drops_bounces_and_adds() {
    let server = MockServer::start().await;
    let (mut romeo, mut juliet) = both(&server).await;
    server.intercept(|route, stanza| {
        assert_eq!((route.from.as_str(), route.to.as_str()), (ROMEO, JULIET));
        let made = |body: &str| -> Element {
            format!("<message xmlns='jabber:client'><body>{body}</body></message>").parse().unwrap()
        };
        match stanza.attr("id") {
            Some("replace") => Verdict::Replace(made("replaced")),
            Some("drop") => Verdict::Drop,
            Some("bounce") => Verdict::Bounce(StanzaError::new(
                ErrorType::Cancel,
                DefinedCondition::ItemNotFound,
                "en",
                "no such thing",
            )),
            Some("reply") => Verdict::Reply(made("replied")),
            Some("also") => Verdict::Also(vec![made("one more"), made("and one")]),
            _ => Verdict::Deliver,
        }
    });
    for body in ["replace", "drop", "bounce", "reply", "also"] {
        romeo.send(&say(body)).await;
    }
    let bounce = romeo.until("</message>").await;
    assert!(
        bounce.contains("item-not-found") && bounce.contains(JULIET) && bounce.contains("bounce"),
        "{bounce}"
    );
    let reply = romeo.until("</message>").await;
    assert!(reply.contains("replied") && reply.contains("reply"), "{reply}");
    for body in ["replaced", "also", "one more", "and one"] {
        let message = juliet.until("</message>").await;
        assert!(message.contains(&format!("<body>{body}</body>")), "{message}");
    }

    let outcomes: Vec<_> =
        server.record().into_iter().filter(|r| r.to == jid(JULIET)).map(|r| r.outcome).collect();
    use Outcome::{Altered, Delivered, Dropped, Injected, Intercepted};
    assert_eq!(outcomes, [Altered, Dropped, Intercepted, Intercepted, Delivered, Injected, Injected]);
    let altered = &server.record()[0].element;
    assert_eq!(altered.get_child("body", "jabber:client").unwrap().text(), "replaced", "what was delivered");

    server.clear_intercepts();
    romeo.send(&say("drop")).await;
    assert!(juliet.until("</message>").await.contains("<body>drop</body>"));
}

#[tokio::test]
async fn a_test_can_play_a_service_of_the_domain() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    server.intercept(|route, stanza| match (route.to.as_str(), stanza.name()) {
        ("proxy.montague.lit", "iq") => Verdict::Reply(
            "<iq xmlns='jabber:client'><query xmlns='http://jabber.org/protocol/bytestreams'/></iq>"
                .parse()
                .unwrap(),
        ),
        _ => Verdict::Deliver,
    });
    romeo
        .send(
            "<iq type='get' id='p' to='proxy.montague.lit'>\
             <query xmlns='http://jabber.org/protocol/bytestreams'/></iq>",
        )
        .await;
    let answer = romeo.until("</iq>").await.replace('"', "'");
    for part in ["type='result'", "id='p'", "from='proxy.montague.lit'"] {
        assert!(answer.contains(part), "{answer}");
    }
}

#[tokio::test]
async fn an_intercept_may_call_the_server() {
    let server = MockServer::start().await;
    let (mut romeo, mut juliet) = both(&server).await;
    let handle = server.clone();
    server.intercept(move |route, _| {
        let spoofed = "<message xmlns='jabber:client' from='capulet.lit'/>".parse().unwrap();
        assert!(handle.inject(&route.to, spoofed));
        Verdict::Deliver
    });
    romeo.send(&say("hello")).await;
    assert!(juliet.until(">").await.contains("capulet.lit"));
    juliet.until("hello").await;
    server.clear_intercepts();
}

#[tokio::test]
async fn anything_can_be_injected() {
    let server = MockServer::start().await;
    let (_romeo, mut juliet) = both(&server).await;
    let spoofed: Element =
        "<iq xmlns='jabber:client' type='set' id='x' from='nurse@capulet.lit/hall'/>".parse().unwrap();
    assert!(server.inject(&jid(JULIET), spoofed));
    assert!(juliet.until(">").await.contains("nurse@capulet.lit/hall"));
    assert!(server.inject_raw(&jid(JULIET), "<<<not xml"));
    juliet.until("<<<not xml").await;
    let nobody = jid("nobody@capulet.lit/here");
    assert!(!server.inject_raw(&nobody, ""));
    assert!(!server.inject(&nobody, Element::bare("message", "jabber:client")));
}

#[tokio::test]
async fn a_cut_closes_the_connection_without_a_word_and_others_learn_of_it() {
    let server = MockServer::start().await;
    let (mut romeo, mut juliet) = both(&server).await;
    romeo.send("<presence/>").await;
    juliet.until("<presence").await;
    assert!(server.cut(&jid(ROMEO)));
    assert_eq!(server.online(), [jid(JULIET)]);
    assert!(!romeo.rest().await.contains("</stream:stream>"));
    juliet.until("unavailable").await;
    assert!(!server.cut(&jid(ROMEO)), "it is gone already");
}

#[tokio::test]
async fn a_delay_keeps_the_order_even_when_it_shrinks() {
    let server = MockServer::start().await;
    let (mut romeo, mut juliet) = both(&server).await;
    let start = Instant::now();
    server.delay(&jid(JULIET), Duration::from_millis(150), Duration::ZERO);
    server.delay(&jid(ROMEO), Duration::ZERO, Duration::from_millis(150));
    for n in 0..10 {
        romeo.send(&say(&n.to_string())).await;
    }
    romeo.everything_before_a_ping().await;
    assert!(start.elapsed() >= Duration::from_millis(150), "from Romeo");
    server.delay(Target::All, Duration::ZERO, Duration::ZERO);
    server.delay(&jid(JULIET), Duration::ZERO, Duration::ZERO);
    romeo.send(&say("last")).await;
    for body in (0..10).map(|n| n.to_string()).chain(["last".to_owned()]) {
        assert!(juliet.until("</message>").await.contains(&format!("<body>{body}</body>")));
    }
    assert!(start.elapsed() >= Duration::from_millis(300), "to Juliet");
}

#[tokio::test]
async fn a_rate_limit_holds_in_each_direction() {
    let server = MockServer::start().await;
    let (mut romeo, mut juliet) = both(&server).await;
    let long = format!("<message to='{JULIET}'><body>{}</body></message>", "x".repeat(30_000));

    server.rate_limit(&jid(ROMEO), None, Some(50_000));
    let start = Instant::now();
    romeo.send(&long).await;
    juliet.until("</message>").await;
    assert!(start.elapsed() >= Duration::from_millis(500), "from Romeo: {:?}", start.elapsed());

    server.rate_limit(&jid(ROMEO), None, None);
    server.rate_limit(Target::All, Some(50_000), None);
    server.rate_limit(&jid(JULIET).to_bare(), Some(100_000), None);
    let start = Instant::now();
    romeo.send(&long).await;
    juliet.until("</message>").await;
    assert!(start.elapsed() >= Duration::from_millis(300), "to Juliet: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_when_its_queue_is_full() {
    let server = MockServer::start().await;
    let (mut romeo, juliet) = both(&server).await;
    let mebibyte = vec![b' '; 1024 * 1024];
    let mut queued = 0;
    while server.inject_raw(&jid(JULIET), mebibyte.clone()) {
        queued += 1;
        assert!(queued < 80, "the queue has an end");
    }
    assert!(queued >= 64, "{queued} MiB were queued");
    server.wait_offline(&jid(JULIET)).await;
    romeo.everything_before_a_ping().await;
    drop(juliet);
}

#[tokio::test]
async fn a_panic_in_an_intercept_costs_only_the_senders_connection() {
    let server = MockServer::start().await;
    let (mut romeo, mut juliet) = both(&server).await;
    romeo.send("<presence/>").await;
    juliet.until("<presence").await;
    server.intercept(|route, _| match route.from.as_str() {
        ROMEO => panic!("this panic belongs to the test"),
        _ => Verdict::Deliver,
    });
    romeo.send(&say("hello")).await;
    romeo.rest().await;
    server.wait_offline(&jid(ROMEO)).await;
    juliet.everything_before_a_ping().await;
}
