//! E2e XML streams over TCP connections on loopback, as users see them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{net::Ipv4Addr, time::Duration};

use futures::{SinkExt, StreamExt as _};
use jingle_xmlstream::{
    Direction, E2eStream, Error, Limits, PeerIncompatible, StreamOptions, Timeouts, TransportError,
    stream::{accept, initiate},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_xmpp::{IqRequest, IqResponse, Stanza};
use xmpp_parsers::{
    disco::DiscoInfoQuery,
    iq::Iq,
    jid::Jid,
    message::{Lang, Message},
    minidom::Element,
    ping::Ping,
    presence::{Presence, Type as PresenceType},
    stanza_error::DefinedCondition as StanzaCondition,
    stream_error::DefinedCondition,
};

const ROMEO: &str = "romeo@montague.example/orchard";
const JULIET: &str = "juliet@capulet.example/balcony";

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn romeo() -> StreamOptions {
    StreamOptions::new().local(jid(ROMEO)).peer(jid(JULIET))
}

fn juliet() -> StreamOptions {
    StreamOptions::new().local(jid(JULIET)).peer(jid(ROMEO))
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
    ours.set_nodelay(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    (ours, theirs)
}

async fn streams_with(romeo: StreamOptions, juliet: StreamOptions) -> (E2eStream, E2eStream) {
    let (ours, theirs) = sockets().await;
    let (romeo, juliet) = tokio::join!(initiate(ours, romeo), accept(theirs, juliet));
    (romeo.unwrap(), juliet.unwrap())
}

async fn streams() -> (E2eStream, E2eStream) {
    streams_with(romeo(), juliet()).await
}

fn message(body: impl Into<String>) -> Stanza {
    Stanza::Message(Message::chat(None).with_body(Lang::new(), body.into()))
}

fn body(stanza: &Stanza) -> &str {
    match stanza {
        Stanza::Message(message) => message.bodies.values().next().unwrap(),
        other => panic!("not a message: {other:?}"),
    }
}

fn disco() -> IqRequest {
    IqRequest::Get(DiscoInfoQuery { node: None }.into())
}

fn is_sent(error: &Error, wanted: DefinedCondition) -> bool {
    matches!(error, Error::Stream(failure) if failure.direction == Direction::Sent && failure.condition == wanted)
}

fn is_received(error: &Error, wanted: DefinedCondition) -> bool {
    matches!(error, Error::Stream(failure) if failure.direction == Direction::Received && failure.condition == wanted)
}

#[tokio::test]
async fn messages_and_presence_go_both_ways_under_the_true_names() {
    let (mut romeo, mut juliet) = streams().await;
    romeo.send(message("Ah me!")).await.unwrap();
    let Stanza::Message(heard) = juliet.next().await.unwrap().unwrap() else { panic!("not a message") };
    assert_eq!(heard.from, Some(jid(ROMEO)));
    assert_eq!(heard.to, Some(jid(JULIET)));

    juliet.send(Stanza::Presence(Presence::new(PresenceType::None))).await.unwrap();
    let Stanza::Presence(seen) = romeo.next().await.unwrap().unwrap() else { panic!("no presence") };
    assert_eq!(seen.from, Some(jid(JULIET)));
    assert_eq!(romeo.info().id, juliet.info().id);
    assert_eq!(romeo.info().id.as_ref().unwrap().len(), 32);
}

#[tokio::test]
async fn without_addresses_the_header_tells_who_the_peer_is() {
    let (romeo, juliet) = streams_with(romeo(), StreamOptions::new()).await;
    assert_eq!(juliet.peer().jid(), Some(&jid(ROMEO)));
    assert_eq!(juliet.local(), None);
    assert_eq!(romeo.peer().jid(), Some(&jid(JULIET)));

    let (mut nobody, mut noone) = streams_with(StreamOptions::new(), StreamOptions::new()).await;
    nobody.send(message("who's there?")).await.unwrap();
    assert_eq!(body(&noone.next().await.unwrap().unwrap()), "who's there?");
}

#[tokio::test]
async fn a_message_is_sent_back_as_it_came_and_one_in_the_name_of_others_under_the_true_names() {
    let (mut romeo, mut juliet) = streams().await;
    let mut lie = Message::chat(jid("nurse@capulet.example")).with_body(Lang::new(), "hark".to_owned());
    lie.from = Some(jid("tybalt@capulet.example/street"));
    romeo.send(Stanza::Message(lie)).await.unwrap();
    let Stanza::Message(heard) = juliet.next().await.unwrap().unwrap() else { panic!("not a message") };
    assert_eq!((&heard.from, &heard.to), (&Some(jid(ROMEO)), &Some(jid(JULIET))));
    juliet.send(heard.into()).await.unwrap();
    let Stanza::Message(echo) = romeo.next().await.unwrap().unwrap() else { panic!("not a message") };
    assert_eq!((echo.from, echo.to), (Some(jid(JULIET)), Some(jid(ROMEO))));
    assert_eq!((romeo.violations(), juliet.violations()), (0, 0));
}

#[tokio::test]
async fn a_request_is_answered_by_the_user_and_a_ping_by_the_stream() {
    let (romeo, mut juliet) = streams().await;
    let answering = tokio::spawn(async move {
        let Stanza::Iq(Iq::Get { id, .. }) = juliet.next().await.unwrap().unwrap() else {
            panic!("no request")
        };
        let answer = Element::builder("query", "http://jabber.org/protocol/disco#info").build();
        juliet
            .send(Stanza::Iq(Iq::Result { from: None, to: None, id, payload: Some(answer) }))
            .await
            .unwrap();
        assert!(juliet.next().await.is_none(), "the ping is not the user's");
    });
    let IqResponse::Result(Some(answer)) = romeo.send_iq(disco()).await.unwrap() else { panic!("no result") };
    assert!(answer.is("query", "http://jabber.org/protocol/disco#info"));
    let pong = romeo.send_iq(IqRequest::Get(Ping.into())).await.unwrap();
    assert!(matches!(pong, IqResponse::Result(None)));
    romeo.close().await.unwrap();
    answering.await.unwrap();
}

#[tokio::test]
async fn an_unanswered_request_is_refused_in_time() {
    let mut timeouts = Timeouts::default();
    timeouts.iq_unanswered = Duration::from_millis(50);
    let (romeo, mut juliet) = streams_with(romeo(), juliet().timeouts(timeouts)).await;
    let response = romeo.send_iq(disco()).await.unwrap();
    let IqResponse::Error(error) = response else { panic!("not refused: {response:?}") };
    assert_eq!(error.defined_condition, StanzaCondition::ServiceUnavailable);
    assert!(matches!(juliet.next().await, Some(Ok(Stanza::Iq(Iq::Get { .. })))));
}

#[tokio::test]
async fn a_reply_that_never_comes_is_a_timeout() {
    let mut timeouts = Timeouts::default();
    timeouts.iq = Duration::from_millis(50);
    let (romeo, _juliet) = streams_with(romeo().timeouts(timeouts), juliet()).await;
    let error = romeo.send_iq(disco()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(jingle_xmlstream::Step::Iq, _)), "{error}");
}

/// Requests from both sides, while both sides flood each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_floods_do_not_hinder_each_other() {
    const MESSAGES: usize = 10_000;
    async fn one_side(stream: E2eStream) {
        let (sender, mut receiver) = stream.split();
        let (mut flooding, mut answering) = (sender.clone(), sender.clone());
        let flood = tokio::spawn(async move {
            for number in 0..MESSAGES {
                flooding.feed(message(number.to_string())).await.unwrap();
            }
            flooding.flush().await.unwrap();
        });
        let requests = tokio::spawn(async move {
            for _ in 0..100 {
                assert!(matches!(sender.send_iq(disco()).await.unwrap(), IqResponse::Result(None)));
            }
        });
        let (mut heard, mut answered) = (0, 0);
        while heard < MESSAGES || answered < 100 {
            match receiver.next().await.unwrap().unwrap() {
                Stanza::Iq(iq) => {
                    let reply = Iq::Result { from: None, to: None, id: iq.id().to_owned(), payload: None };
                    answering.send(Stanza::Iq(reply)).await.unwrap();
                    answered += 1;
                }
                other => {
                    assert_eq!(body(&other), heard.to_string());
                    heard += 1;
                }
            }
        }
        flood.await.unwrap();
        requests.await.unwrap();
    }
    let (romeo, juliet) = streams().await;
    tokio::join!(one_side(romeo), one_side(juliet));
}

#[tokio::test]
async fn either_side_closes_and_what_was_sent_before_arrives() {
    for initiator_closes in [true, false] {
        let (romeo, juliet) = streams().await;
        let (mut closing, mut other) = if initiator_closes { (romeo, juliet) } else { (juliet, romeo) };
        for number in 0..100 {
            closing.feed(message(number.to_string())).await.unwrap();
        }
        let closing = tokio::spawn(closing.close());
        for number in 0..100 {
            assert_eq!(body(&other.next().await.unwrap().unwrap()), number.to_string());
        }
        assert!(other.next().await.is_none());
        assert!(other.next().await.is_none(), "fused");
        let error = other.send(message("too late")).await.unwrap_err();
        assert!(matches!(error, Error::ApiMisuse(_)), "{error}");
        closing.await.unwrap().unwrap();
        other.close().await.unwrap();
    }
}

#[tokio::test]
async fn both_sides_close_at_once() {
    let (romeo, juliet) = streams().await;
    let (one, other) = tokio::join!(romeo.close(), juliet.close());
    one.unwrap();
    other.unwrap();
}

#[tokio::test]
async fn whoever_closed_its_sink_still_receives() {
    let (mut romeo, mut juliet) = streams().await;
    juliet.feed(message("one moment")).await.unwrap();
    SinkExt::close(&mut romeo).await.unwrap();
    assert_eq!(body(&romeo.next().await.unwrap().unwrap()), "one moment");
    // What comes behind his goodbye he can't acknowledge, though he receives it.
    let end = juliet.next().await;
    assert!(matches!(end, None | Some(Err(Error::Undelivered(_)))), "{end:?}");
    assert!(romeo.next().await.is_none());
    let (one, other) = tokio::join!(romeo.close(), juliet.close());
    one.unwrap();
    assert_eq!(other.is_ok(), end.is_none());
}

#[tokio::test]
async fn a_bytestream_carries_one_stream_after_another() {
    let (mut romeo, mut juliet) = streams().await;
    let mut ids = vec![romeo.info().id.clone().unwrap()];
    for round in 0..2 {
        // The first time the initiator closes and the responder follows, then the other way round.
        let (first, mut second) = if round == 0 { (romeo, juliet) } else { (juliet, romeo) };
        let first = tokio::spawn(first.finish());
        assert!(second.next().await.is_none());
        let second = second.finish().await.unwrap();
        let first = first.await.unwrap().unwrap();
        let (first, second) = tokio::join!(first.reopen(), second.reopen());
        (romeo, juliet) =
            if round == 0 { (first.unwrap(), second.unwrap()) } else { (second.unwrap(), first.unwrap()) };
        romeo.send(message("again")).await.unwrap();
        assert_eq!(body(&juliet.next().await.unwrap().unwrap()), "again");
        juliet.send(message("and back")).await.unwrap();
        assert_eq!(body(&romeo.next().await.unwrap().unwrap()), "and back");
        ids.push(romeo.info().id.clone().unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "each stream has an id of its own");
    romeo.close().await.unwrap();
}

/// The initiator's next header comes in one segment with its footer.
#[tokio::test]
async fn a_header_right_behind_the_footer_opens_the_next_stream() {
    let (mut raw, theirs) = sockets().await;
    let accepting = tokio::spawn(accept(theirs, StreamOptions::new()));
    let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    raw.write_all(format!("{header}</stream:stream>{header}<message><body>hi</body></message>").as_bytes())
        .await
        .unwrap();
    let mut stream = accepting.await.unwrap().unwrap();
    assert!(stream.next().await.is_none());
    let mut stream = stream.finish().await.unwrap().reopen().await.unwrap();
    assert_eq!(body(&stream.next().await.unwrap().unwrap()), "hi");
}

#[tokio::test]
async fn a_kept_bytestream_can_be_closed() {
    let (romeo, juliet) = streams().await;
    let (romeo, juliet) = tokio::join!(romeo.finish(), juliet.finish());
    romeo.unwrap().close().await;
    let error = juliet.unwrap().reopen().await.unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Closed)), "{error}");
}

#[tokio::test]
async fn a_dropped_handle_closes_in_good_order() {
    let (mut romeo, mut juliet) = streams().await;
    romeo.feed(message("farewell")).await.unwrap();
    let sender = romeo.sender();
    drop(romeo);
    assert_eq!(body(&juliet.next().await.unwrap().unwrap()), "farewell");
    // Requests are refused, now that nobody receives them.
    let response = juliet.send_iq(disco()).await.unwrap();
    assert!(matches!(response, IqResponse::Error(_)), "{response:?}");
    drop(sender);
    assert!(juliet.next().await.is_none());
    juliet.close().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_vanishes_is_an_error_behind_what_it_said() {
    let (mut raw, theirs) = sockets().await;
    let accepting = tokio::spawn(accept(theirs, juliet()));
    raw.write_all(
        b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
          xmlns:stream='http://etherx.jabber.org/streams'><message><body>last words</body></message>",
    )
    .await
    .unwrap();
    let mut juliet = accepting.await.unwrap().unwrap();
    let sender = juliet.sender();
    let request = tokio::spawn(async move { sender.send_iq(disco()).await });
    assert_eq!(body(&juliet.next().await.unwrap().unwrap()), "last words");
    raw.shutdown().await.unwrap();
    let error = juliet.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Closed)), "{error}");
    assert!(juliet.next().await.is_none());
    assert!(matches!(request.await.unwrap(), Err(Error::Transport(_))));
    assert!(matches!(juliet.close().await, Err(Error::Transport(TransportError::Closed))));
}

#[tokio::test]
async fn an_oversize_stanza_ends_the_stream_with_policy_violation_on_both_sides() {
    let mut limits = Limits::default();
    limits.stanza_bytes = 10_000;
    let (mut romeo, mut juliet) = streams_with(romeo(), juliet().limits(limits)).await;
    romeo.feed(message("small")).await.unwrap();
    romeo.feed(message("x".repeat(5_000_000))).await.unwrap();
    assert_eq!(body(&juliet.next().await.unwrap().unwrap()), "small");
    let error = juliet.next().await.unwrap().unwrap_err();
    assert!(is_sent(&error, DefinedCondition::PolicyViolation), "{error}");
    // Neither did both arrive, nor was the first one acknowledged in time.
    let error = romeo.next().await.unwrap().unwrap_err();
    let Error::Undelivered(undelivered) = &error else { panic!("{error}") };
    assert!(is_received(undelivered.cause().unwrap(), DefinedCondition::PolicyViolation), "{error}");
    assert!(matches!(romeo.send(message("more")).await, Err(Error::Undelivered(_))));
}

#[tokio::test]
async fn a_header_to_somebody_else_is_refused_on_both_sides() {
    let (ours, theirs) = sockets().await;
    let stranger = StreamOptions::new().local(jid("paris@verona.example/church"));
    let (romeo, stranger) = tokio::join!(initiate(ours, romeo()), accept(theirs, stranger));
    assert!(is_received(&romeo.unwrap_err(), DefinedCondition::HostUnknown));
    assert!(is_sent(&stranger.unwrap_err(), DefinedCondition::HostUnknown));
}

#[tokio::test]
async fn silence_instead_of_a_header_is_a_timeout() {
    let (ours, _theirs) = sockets().await;
    let mut timeouts = Timeouts::default();
    timeouts.stream_header = Duration::from_millis(50);
    let error = initiate(ours, romeo().timeouts(timeouts)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(jingle_xmlstream::Step::StreamHeader, _)), "{error}");
}

#[tokio::test]
async fn nothing_is_said_to_a_responder_that_requires_starttls() {
    let (ours, mut theirs) = sockets().await;
    let initiating = tokio::spawn(initiate(ours, romeo()));
    let answer = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         version='1.0'><stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
         </stream:features>";
    theirs.write_all(answer.as_bytes()).await.unwrap();
    let error = initiating.await.unwrap().unwrap_err();
    let Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(name)) = error else { panic!("{error}") };
    assert_eq!(name, "starttls");
    let mut heard = String::new();
    theirs.read_to_string(&mut heard).await.unwrap();
    let (_, heard) = heard.split_once("version='1.0'>").unwrap();
    assert!(heard.starts_with("<stream:error><unsupported-feature "), "{heard}");
    assert!(heard.ends_with("</stream:error></stream:stream>"), "{heard}");
}

#[tokio::test]
async fn a_peer_that_closes_the_connection_right_behind_its_footer_closed_in_good_order() {
    let (mut raw, theirs) = sockets().await;
    let header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    raw.write_all(header.as_bytes()).await.unwrap();
    let mut stream = accept(theirs, juliet()).await.unwrap();
    raw.write_all(b"</stream:stream>").await.unwrap();
    drop(raw);
    assert!(stream.next().await.is_none());
    stream.close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_attempt_closes_the_bytestream() {
    let (ours, mut theirs) = sockets().await;
    let attempt = timeout(Duration::from_millis(50), initiate(ours, romeo())).await;
    assert!(attempt.is_err());
    let mut sent = String::new();
    theirs.read_to_string(&mut sent).await.unwrap();
    assert!(sent.starts_with("<?xml version='1.0'?><stream:stream "), "{sent}");
}

#[tokio::test]
async fn a_stanza_that_is_no_xml_is_refused_and_the_stream_goes_on() {
    let (mut romeo, mut juliet) = streams().await;
    let error = romeo.send(message("\u{1}")).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(_)), "{error}");
    romeo.send(message("\u{1f339}<&>'\"\r\n")).await.unwrap();
    assert_eq!(body(&juliet.next().await.unwrap().unwrap()), "\u{1f339}<&>'\"\r\n");
}

/// The sender waits when the receiver does not receive, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_slows_the_sender_down() {
    const BODY: usize = 50_000;
    let (mut romeo, mut juliet) = streams().await;
    let numbered = |number: usize| message(format!("{number:0BODY$}"));
    let mut sent = 0;
    // The buffers of the system take some megabytes beside ours, but not a hundred.
    while sent < 2_000 && timeout(Duration::from_millis(500), romeo.feed(numbered(sent))).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 2_000, "nothing held the sender back");
    let closing = tokio::spawn(romeo.close());
    for number in 0..sent {
        let heard = juliet.next().await.unwrap().unwrap();
        assert_eq!(body(&heard).trim_start_matches('0').parse().unwrap_or(0), number);
    }
    assert!(juliet.next().await.is_none());
    closing.await.unwrap().unwrap();
}
