//! The record of a small negotiation, and many stanzas at once.

mod support;

use futures::StreamExt;
use mock_server::MockServer;
use support::{JULIET, PATIENCE, ROMEO, Raw, jid, login};
use tokio::time::timeout;
use tokio_xmpp::{Stanza, stanzastream::Event};
use xmpp_parsers::{
    iq::Iq,
    message::{Lang, Message},
    ping::Ping,
};

#[tokio::test]
async fn a_negotiation_reads_as_a_ladder() {
    let server = MockServer::start().await;
    let mut watch = server.subscribe();
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut juliet = Raw::login(&server, JULIET).await;
    let set =
        |to: &str, id: &str, payload: &str| format!("<iq type='set' to='{to}' id='{id}'>{payload}</iq>");
    let jingle = |action: &str, content: &str| {
        format!("<jingle xmlns='urn:xmpp:jingle:1' sid='s' action='{action}'>{content}</jingle>")
    };
    let acknowledge = |to: &str, id: &str| format!("<iq type='result' to='{to}' id='{id}'/>");

    romeo.send(&set(JULIET, "1", &jingle("session-initiate", ""))).await;
    juliet.until("</iq>").await;
    juliet.send(&acknowledge(ROMEO, "1")).await;
    romeo.until("id='1'").await;
    romeo
        .send(&set(JULIET, "2", "<data xmlns='http://jabber.org/protocol/ibb' seq='3' sid='i'>QUJD</data>"))
        .await;
    juliet.until("</iq>").await;
    juliet
        .send(&format!(
            "<iq type='error' to='{ROMEO}' id='2'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ))
        .await;
    romeo.until("</iq>").await;
    romeo.send(&set(JULIET, "3", &jingle("session-terminate", "<reason><failed-transport/></reason>"))).await;
    juliet.until("</iq>").await;

    let (romeo, juliet) = (jid(ROMEO), jid(JULIET));
    let expected = [
        "romeo@montague.lit/orchard -> juliet@capulet.lit/balcony  iq set jingle session-initiate",
        "juliet@capulet.lit/balcony -> romeo@montague.lit/orchard  iq result (session-initiate)",
        "romeo@montague.lit/orchard -> juliet@capulet.lit/balcony  iq set ibb data seq=3",
        "juliet@capulet.lit/balcony -> romeo@montague.lit/orchard  iq error item-not-found (ibb data seq=3)",
        "romeo@montague.lit/orchard -> juliet@capulet.lit/balcony  iq set jingle session-terminate failed-transport",
    ];
    assert_eq!(server.ladder(&romeo.to_bare(), &juliet.to_bare()), expected);
    for line in expected {
        assert_eq!(watch.recv().await.unwrap().to_string(), line);
    }
    server.clear_record();
    assert!(server.record().is_empty());
}

/// Enough to show a stall, few enough for a debug build; `ROUND_TRIPS=100000` in the environment for a real load.
fn round_trips() -> usize {
    std::env::var("ROUND_TRIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_round_trips_run_without_a_stall() {
    let server = MockServer::start().await;
    let (mut romeo, _) = login(&server, ROMEO).await;
    let (mut juliet, _) = login(&server, JULIET).await;
    let responder = tokio::spawn(async move {
        while let Some(event) = juliet.next().await {
            if let Event::Stanza(Stanza::Iq(Iq::Get { from, id, .. })) = event {
                let pong = Iq::Result { from: None, to: from, id, payload: None };
                juliet.send(Box::new(pong.into())).await;
            }
        }
    });
    let count = round_trips();
    let (mut sent, mut received) = (0, 0);
    let start = std::time::Instant::now();
    while received < count {
        while sent < count && sent - received < 32 {
            let ping = Iq::from_get(sent.to_string(), Ping).with_to(jid(JULIET).into());
            romeo.send(Box::new(ping.into())).await;
            sent += 1;
        }
        match timeout(PATIENCE, romeo.next()).await.expect("no stall").unwrap() {
            Event::Stanza(Stanza::Iq(Iq::Result { id, .. })) => {
                assert_eq!(id, received.to_string(), "answers in order");
                received += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("{count} round trips in {:?}", start.elapsed());
    responder.abort();
    assert_eq!(server.record().len(), (2 * count).min(100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_that_flood_each_other_before_reading_do_not_lock_up() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    let mut juliet = Raw::login(&server, JULIET).await;
    // Far more than the socket buffers hold.
    const MESSAGES: usize = 2_000;
    let body = "x".repeat(10_000);
    let flood = async |client: &mut Raw, to: &str| {
        for _ in 0..MESSAGES {
            client.send(&format!("<message to='{to}'><body>{body}</body></message>")).await;
        }
    };
    let both = async { tokio::join!(flood(&mut romeo, JULIET), flood(&mut juliet, ROMEO)) };
    timeout(PATIENCE, both).await.expect("both can write all of it");
    for _ in 0..MESSAGES {
        romeo.until("</message>").await;
        juliet.until("</message>").await;
    }
}

#[tokio::test]
async fn tokio_xmpp_gets_a_message_from_tokio_xmpp() {
    let server = MockServer::start().await;
    let (romeo, _) = login(&server, ROMEO).await;
    let (mut juliet, _) = login(&server, JULIET).await;
    let message = Message::chat(Some(jid(JULIET).into())).with_body(Lang::default(), "hello".to_owned());
    romeo.send(Box::new(message.into())).await;
    match timeout(PATIENCE, juliet.next()).await.expect("it comes").unwrap() {
        Event::Stanza(Stanza::Message(message)) => {
            assert_eq!(message.from, Some(jid(ROMEO).into()));
            assert_eq!(message.bodies[&Lang::default()], "hello");
        }
        other => panic!("{other:?}"),
    }
}
