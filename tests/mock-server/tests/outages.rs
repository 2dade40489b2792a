//! Connections that are cut, sessions that are resumed (XEP-0198), and a server that dies and comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

mod support;

use std::time::Duration;

use mock_server::{MockServer, Verdict};
use support::{JULIET, PATIENCE, ROMEO, Raw, jid, login};
use tokio::time::timeout;

/// Longer than any test takes.
const FOR_LONG: Duration = Duration::from_secs(600);

async fn managed() -> MockServer {
    MockServer::builder().stream_management(FOR_LONG).start().await.unwrap()
}

fn message(to: &str, body: &str) -> String {
    format!("<message to='{to}'><body>{body}</body></message>")
}

/// What is between the first quotation marks behind this.
fn attribute(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!(" {name}='")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    rest.split('\'').next().unwrap().to_owned()
}

/// Enables stream management; the name under which the session can be resumed.
async fn enable(client: &mut Raw) -> String {
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    client.until("<enabled").await;
    let enabled = client.until("/>").await;
    assert_eq!(attribute(&enabled, "resume"), "true");
    attribute(&enabled, "id")
}

/// A connection that asks for a session instead of binding a resource; what the server says to that.
async fn resume(server: &MockServer, account: &str, id: &str, h: u32) -> (Raw, String) {
    let account = jid(account);
    let mut client = Raw::connect(server).await;
    client.open(account.domain().as_str()).await;
    client.auth_plain(account.node().unwrap().as_str(), mock_server::PASSWORD).await;
    client.until("<success").await;
    client.until(">").await;
    client.open(account.domain().as_str()).await;
    client.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='{h}' previd='{id}'/>")).await;
    let answer = client.until("/>").await;
    (client, answer)
}

#[tokio::test]
async fn a_session_that_was_cut_is_resumed_and_nothing_is_lost_or_repeated() {
    let server = managed().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut juliet = Raw::login(&server, JULIET).await;
    romeo.send("<presence/>").await;
    let id = enable(&mut juliet).await;
    for body in ["one", "two"] {
        romeo.send(&message(JULIET, body)).await;
        juliet.until("</message>").await;
    }
    juliet.send(&message(ROMEO, "three")).await;
    romeo.until("three").await;

    assert!(server.cut(&jid(JULIET)));
    juliet.rest().await;
    romeo.send(&message(JULIET, "four")).await;
    // Others don't notice.
    let noticed = romeo.everything_before_a_ping().await;
    assert!(!noticed.contains("unavailable"), "{noticed}");
    assert_eq!(server.online(), [jid(JULIET), jid(ROMEO)]);

    let (mut juliet, resumed) = resume(&server, JULIET, &id, 1).await;
    assert_eq!((attribute(&resumed, "h"), attribute(&resumed, "previd")), ("1".to_owned(), id));
    for body in ["two", "four"] {
        assert!(juliet.until("</message>").await.contains(body), "{body}");
    }
    juliet.send(&format!("<a xmlns='urn:xmpp:sm:3' h='3'/>{}", message(ROMEO, "five"))).await;
    romeo.until("five").await;
    juliet.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    juliet.until("<a ").await;
    assert_eq!(attribute(&format!(" {}", juliet.until("/>").await), "h"), "2");
}

#[tokio::test]
async fn what_is_not_known_is_not_resumed_and_a_resource_can_be_bound_instead() {
    let server = managed().await;
    let mut juliet = Raw::login(&server, JULIET).await;
    let id = enable(&mut juliet).await;
    for (account, id) in [(ROMEO, &*id), (JULIET, "nothing")] {
        let (mut client, answer) = resume(&server, account, id, 0).await;
        assert!(answer.contains("item-not-found"), "{answer}");
        client.until("</failed>").await;
        client.bind("another").await;
    }

    assert!(server.forget(&jid(JULIET)));
    let (_, answer) = resume(&server, JULIET, &id, 0).await;
    assert!(answer.contains("item-not-found"), "{answer}");
}

#[tokio::test]
async fn a_second_cut_ends_a_session_for_good() {
    let server = managed().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    romeo.send("<presence/>").await;
    let mut juliet = Raw::login(&server, JULIET).await;
    juliet.send("<presence/>").await;
    enable(&mut juliet).await;
    romeo.until(JULIET).await;

    server.cut(&jid(JULIET));
    juliet.rest().await;
    server.cut(&jid(JULIET));
    romeo.until("unavailable").await;
    server.wait_offline(&jid(JULIET)).await;
}

#[tokio::test]
async fn a_client_resumes_before_the_server_notices_that_it_was_gone() {
    let server = managed().await;
    let mut juliet = Raw::login(&server, JULIET).await;
    let id = enable(&mut juliet).await;
    let (mut again, resumed) = resume(&server, JULIET, &id, 0).await;
    assert!(resumed.contains("<resumed"), "{resumed}");
    juliet.rest().await;
    again.everything_before_a_ping().await;
}

#[tokio::test]
async fn tokio_xmpp_resumes_too() {
    use futures::StreamExt;
    use tokio_xmpp::stanzastream::{Event, StreamEvent};

    let server = managed().await;
    let (mut juliet, _) = login(&server, JULIET).await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    // The answer shows that stream management is on.
    let mut events = async || timeout(PATIENCE, juliet.next()).await.unwrap().unwrap();
    romeo.send(&message(JULIET, "one")).await;
    assert!(matches!(events().await, Event::Stanza(_)));
    server.cut(&jid(JULIET));
    romeo.send(&message(JULIET, "two")).await;
    assert!(matches!(events().await, Event::Stream(StreamEvent::Suspended)));
    assert!(matches!(events().await, Event::Stream(StreamEvent::Resumed)));
    assert!(matches!(events().await, Event::Stanza(_)));
}

#[tokio::test]
async fn a_stanza_passes_and_then_its_receiver_is_cut() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut juliet = Raw::login(&server, JULIET).await;
    server.intercept(|route, stanza| match stanza.name() {
        "message" => Verdict::CutAfter(route.to.clone()),
        _ => Verdict::Deliver,
    });
    romeo.send(&message(JULIET, "good night")).await;
    assert!(juliet.rest().await.contains("good night"));
    server.wait_offline(&jid(JULIET)).await;
    romeo.everything_before_a_ping().await;
}

#[tokio::test]
async fn nothing_passes_a_black_hole_until_it_is_gone() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut juliet = Raw::login(&server, JULIET).await;
    server.black_hole(&jid(JULIET), true);
    romeo.send(&message(JULIET, "Juliet?")).await;
    juliet.send(&message(ROMEO, "Romeo?")).await;
    let heard = romeo.everything_before_a_ping().await;
    assert!(!heard.contains("Romeo?"), "{heard}");
    assert_eq!(server.online(), [jid(JULIET), jid(ROMEO)]);

    server.black_hole(&jid(JULIET), false);
    juliet.until("Juliet?").await;
    romeo.until("Romeo?").await;
}

#[tokio::test]
async fn a_server_that_died_refuses_connections_and_comes_back_on_the_same_port_with_no_memory() {
    let server = managed().await;
    let mut juliet = Raw::login(&server, JULIET).await;
    let id = enable(&mut juliet).await;
    server.kill().await;
    juliet.rest().await;
    assert!(server.online().is_empty());
    tokio::net::TcpStream::connect(server.addr()).await.unwrap_err();

    server.restart().await.unwrap();
    let (mut juliet, answer) = resume(&server, JULIET, &id, 0).await;
    assert!(answer.contains("item-not-found"), "{answer}");
    juliet.until("</failed>").await;
    juliet.bind("balcony").await;
    server.wait_online(&jid(JULIET)).await;
    juliet.everything_before_a_ping().await;
}
