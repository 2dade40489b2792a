//! Somebody else behind a client's name.

mod support;

use mock_server::{MockServer, PASSWORD};
use support::{JULIET, ROMEO, Raw, jid};

const AS_JULIET: &str = "juliet@capulet.lit/balcony (impostor)";

/// Romeo, Juliet, and who they take each other for.
struct Stage {
    server: MockServer,
    romeo: Raw,
    juliet: Raw,
    as_romeo: Raw,
    as_juliet: Raw,
}

impl Stage {
    async fn set() -> Self {
        let server = MockServer::start().await;
        let (romeo, juliet) = (Raw::login(&server, ROMEO).await, Raw::login(&server, JULIET).await);
        let (as_romeo, as_juliet) = (server.impersonate(&jid(ROMEO)), server.impersonate(&jid(JULIET)));
        assert_eq!(as_juliet.as_str(), AS_JULIET);
        let as_romeo = Raw::login(&server, as_romeo.as_str()).await;
        let as_juliet = Raw::login(&server, as_juliet.as_str()).await;
        Self { server, romeo, juliet, as_romeo, as_juliet }
    }
}

fn say(to: &str, body: &str) -> String {
    format!("<message to='{to}' id='{body}'><body>{body}</body></message>")
}

/// Reads one message, and sees between whom it was as far as the client knows.
async fn hear(client: &mut Raw, from: &str, to: &str, body: &str) {
    let message = client.until("</message>").await;
    for part in [format!("from='{from}'"), format!("to='{to}'"), format!("<body>{body}</body>")] {
        assert!(message.contains(&part), "{part} is not in {message}");
    }
    assert!(!message.contains("impostor"), "{message}");
}

#[tokio::test]
async fn each_takes_the_impostor_for_the_other() {
    let Stage { server, mut romeo, mut juliet, mut as_romeo, mut as_juliet } = Stage::set().await;
    romeo.send(&say(JULIET, "one")).await;
    hear(&mut as_juliet, ROMEO, JULIET, "one").await;
    as_romeo.send(&say(JULIET, "two")).await;
    hear(&mut juliet, ROMEO, JULIET, "two").await;
    juliet.send(&say(ROMEO, "three")).await;
    hear(&mut as_romeo, JULIET, ROMEO, "three").await;
    as_juliet.send(&say(ROMEO, "four")).await;
    hear(&mut romeo, JULIET, ROMEO, "four").await;
    // To all resources, too.
    romeo.send(&say("juliet@capulet.lit", "five")).await;
    hear(&mut as_juliet, ROMEO, "juliet@capulet.lit", "five").await;
    assert!(!juliet.everything_before_a_ping().await.contains("<message"));

    // The record tells them apart.
    let ladder = server.ladder(&jid(ROMEO), &jid(JULIET));
    assert_eq!(ladder.len(), 5, "{ladder:#?}");
    assert!(ladder.iter().all(|line| line.matches(" (impostor)").count() == 1), "{ladder:#?}");
}

#[tokio::test]
async fn an_impostor_passes_for_its_victim_with_the_server_too() {
    let mut stage = Stage::set().await;
    let answer = stage.as_juliet.everything_before_a_ping().await;
    assert!(!answer.contains("impostor"), "{answer}");

    let mut another = Raw::connect(&stage.server).await;
    another.open("capulet.lit").await;
    another.auth_plain("juliet", PASSWORD).await;
    another.until("<success").await;
    another.until(">").await;
    another.open("capulet.lit").await;
    let bound = another.bind("balcony (impostor)").await;
    assert!(bound.contains(&format!("<jid>{JULIET}</jid>")), "{bound}");
    // Juliet herself is still there, and her first impostor is not.
    assert!(stage.as_juliet.rest().await.contains("conflict"));
    stage.juliet.everything_before_a_ping().await;
}

#[tokio::test]
async fn presence_goes_between_the_impostors_and_their_victims() {
    let Stage { server: _server, mut romeo, mut juliet, as_romeo: _as_romeo, mut as_juliet } =
        Stage::set().await;
    romeo.send("<presence><status>genuine</status></presence>").await;
    assert!(as_juliet.until("</presence>").await.contains("genuine"));
    assert!(!juliet.everything_before_a_ping().await.contains("<presence"));
    as_juliet.send("<presence><status>false</status></presence>").await;
    let presence = romeo.until("</presence>").await;
    assert!(presence.contains("false") && presence.contains(&format!("from='{JULIET}'")), "{presence}");
    assert!(!juliet.everything_before_a_ping().await.contains("<presence"));
}

#[tokio::test]
async fn when_it_is_over_the_clients_reach_each_other_again() {
    let Stage { server, mut romeo, mut juliet, mut as_juliet, .. } = Stage::set().await;
    romeo.send("<presence/>").await;
    as_juliet.send("<presence/>").await;
    romeo.until("<presence").await;
    assert!(server.end_impersonation(&jid(ROMEO)));
    assert!(server.end_impersonation(&jid(JULIET)));
    assert!(!server.end_impersonation(&jid(JULIET)));
    as_juliet.rest().await;
    romeo.send(&say(JULIET, "parting")).await;
    hear(&mut juliet, ROMEO, JULIET, "parting").await;
    let heard = romeo.everything_before_a_ping().await;
    assert!(!heard.contains("unavailable"), "Juliet has been there all the time: {heard}");

    let mut again = Raw::connect(&server).await;
    again.open("capulet.lit").await;
    again.auth_plain("juliet", PASSWORD).await;
    again.until("<success").await;
    again.until(">").await;
    again.open("capulet.lit").await;
    again
        .send(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>balcony (impostor)</resource></bind></iq>",
        )
        .await;
    assert!(again.rest().await.contains("not-authorized"));
}
