//! Peers, strangers and servers that mean harm, and what must hold all the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use futures::{SinkExt, StreamExt, future};
use jingle_xmlstream::{
    Config, Error, Fingerprint, Identity, Reason, SecurityError, StreamOptions, Timeouts, Trust, stream,
};
use mock_server::Verdict;
use support::{
    JULIET, ROMEO, World, body, config, element, in_band, jid, message, milliseconds, plaintext_allowed,
    timeouts,
    wire::{JINGLE, XTLS, action},
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_xmpp::Event;
use xmpp_parsers::{message::Message, minidom::Element, stanza::Stanza};

const NURSE: &str = "nurse@capulet.lit/hall";

/// Like `within`, for what has to be quick.
async fn soon<T>(what: &str, step: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(12);
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| panic!("{what}: not within {limit:?}"))
}

fn quick_to_close() -> Config {
    config().timeouts(timeouts(|it| it.close = milliseconds(300)))
}

fn note_to(to: &str) -> Stanza {
    Message::chat(jid::<jid::Jid>(to)).with_body("".into(), "A word".into()).into()
}

/// As a client of the server sees it.
fn offer(from: &str, sid: &str) -> Element {
    element(&format!(
        "<iq xmlns='jabber:client' type='set' id='{sid}' from='{from}' to='{JULIET}'>\
         <jingle xmlns='{JINGLE}' action='session-initiate' sid='{sid}'>\
         <content creator='initiator' name='xmlstream'><description xmlns='{}'/>\
         <transport xmlns='{}' block-size='4096' sid='bytes-{sid}'/>\
         <security xmlns='{XTLS}'><fingerprint algo='sha-256'>{}</fingerprint></security>\
         </content></jingle></iq>",
        support::wire::XMLSTREAM,
        support::wire::JINGLE_IBB,
        "00".repeat(32),
    ))
}

// ---- the endpoint's own life ---------------------------------------------------------------------

#[tokio::test]
async fn an_endpoint_closes_in_time_while_the_server_is_away_and_much_waits_to_be_sent() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, quick_to_close()).await;
    world.server.refuse(true);
    world.server.cut(&jid(ROMEO));
    // What is sent before it notices goes into a dead socket.
    tokio::time::sleep(milliseconds(300)).await;
    let waiting: Vec<_> = (0..300)
        .map(|_| {
            let romeo = romeo.clone();
            tokio::spawn(async move { romeo.send_stanza(note_to(JULIET)).await })
        })
        .collect();
    tokio::time::sleep(milliseconds(300)).await;

    soon("closing the endpoint", romeo.close()).await;
    soon("what can't be sent", future::join_all(waiting)).await;
}

#[tokio::test]
async fn an_endpoint_that_is_dropped_while_the_server_is_away_does_not_log_in_when_it_is_back() {
    let world = World::start().await;
    let (romeo, events) = world.bot_with_events(ROMEO, quick_to_close()).await;
    world.server.refuse(true);
    world.server.cut(&jid(ROMEO));
    tokio::time::sleep(milliseconds(300)).await;
    drop((romeo, events));
    // Both deadlines of an orderly end.
    tokio::time::sleep(milliseconds(1000)).await;
    world.server.refuse(false);
    let back = tokio::time::timeout(Duration::from_secs(8), world.server.wait_online(&jid(ROMEO))).await;
    assert!(back.is_err(), "it logged in behind the back of its bot");
}

#[tokio::test]
async fn answers_that_the_server_does_not_take_do_not_pile_up() {
    const QUESTIONS: usize = 6_000;
    let world = World::start().await;
    let (_romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    world.server.rate_limit(&jid::<jid::Jid>(ROMEO), None, Some(1));
    let mut flood = String::new();
    let long = "x".repeat(4096);
    for number in 0..QUESTIONS {
        flood += &format!(
            "<iq xmlns='jabber:client' type='get' id='{number}{long}' from='{NURSE}' to='{ROMEO}'>\
             <query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
        );
    }
    flood +=
        &format!("<message xmlns='jabber:client' from='{NURSE}' to='{ROMEO}'><body>last</body></message>");
    assert!(world.server.inject_raw(&jid(ROMEO), flood));

    let last = async {
        loop {
            if let Some(Event::Stanza(Stanza::Message(last))) = events.next().await {
                return last;
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(15), last).await;
    assert!(read.is_err(), "{QUESTIONS} questions were read, and their answers wait in memory");
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_no_waker_behind() {
    struct Alarm(AtomicBool);
    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let world = World::start().await;
    let romeo = world.bot(ROMEO, config()).await;
    let mut alarms = Vec::new();
    for _ in 0..1000 {
        let alarm = Arc::new(Alarm(AtomicBool::new(false)));
        let waker = Waker::from(alarm.clone());
        let mut accepting = Box::pin(romeo.accept());
        assert!(accepting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        alarms.push(alarm);
    }
    let kept = alarms.iter().filter(|alarm| Arc::strong_count(alarm) > 1).count();
    assert!(kept <= 16, "{kept} wakers of futures that are gone are kept");
}

// ---- who may have how much -----------------------------------------------------------------------

#[tokio::test]
async fn strangers_who_ring_can_not_keep_us_from_calling() {
    let world = World::start().await;
    let juliet = world.bot(JULIET, config()).await;
    let romeo = world.bot(ROMEO, config()).await;
    for number in 0..40 {
        for resource in 0..8 {
            let from = format!("stranger{number}@mallory.lit/{resource}");
            world.server.inject(&jid(JULIET), offer(&from, &format!("s{number}-{resource}")));
        }
    }
    // All of them are answered before she calls.
    soon("the flood", async {
        let asked =
            juliet.send_iq(None, tokio_xmpp::IqRequest::Get(element("<ping xmlns='urn:xmpp:ping'/>")));
        asked.await.unwrap();
    })
    .await;
    let (called, accepted) = within(future::join(juliet.connect(&jid(ROMEO)), async {
        tokio::time::timeout(Duration::from_secs(10), async { romeo.accept().await.unwrap().accept().await })
            .await
    }))
    .await;
    called.unwrap();
    accepted.unwrap().unwrap();
}

#[tokio::test]
async fn deadlines_that_are_for_ever_are_no_panic() {
    let world = World::start().await;
    let for_ever = || {
        config().timeouts(timeouts(|it| {
            it.online = Duration::MAX;
            it.disco = Duration::MAX;
            it.jingle_ack = Duration::MAX;
            it.accept = Duration::MAX;
            it.decision = Duration::MAX;
            it.transport = Duration::MAX;
            it.tls = Duration::MAX;
            it.stream_header = Duration::MAX;
            it.block_ack = Duration::MAX;
            it.iq = Duration::MAX;
            it.iq_unanswered = Duration::MAX;
            it.keep_alive = Duration::MAX;
        }))
    };
    let (romeo, juliet) = world.pair_of(for_ever(), for_ever()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

// ---- secrets -------------------------------------------------------------------------------------

/// Everything that the server saw so far.
fn seen_by_the_server(world: &World) -> String {
    world.server.record().iter().map(|recorded| String::from(&*recorded.element)).collect()
}

#[tokio::test]
async fn whom_a_bot_trusts_is_nobody_elses_business() {
    let friend = Fingerprint::of(b"the certificate of a friend");
    for (romeos, juliets) in [
        (Trust::first_use(), Trust::pinned([friend.clone()])),
        (Trust::pinned([friend.clone()]), Trust::first_use()),
        (Trust::first_use(), Trust::first_use().pin_for(jid("romeo@montague.lit"), friend.clone())),
    ] {
        let world = World::start().await;
        let (romeo, juliet) = world.pair(romeos, juliets).await;
        let (connected, accepted) = support::attempt(&romeo, &juliet).await;
        assert!(connected.is_err() && accepted.is_err());
        world.wait_for_terminate().await;
        assert!(!seen_by_the_server(&world).contains(&friend.to_string()), "the pins were sent");
    }
}

#[tokio::test]
async fn the_certificate_that_was_known_before_is_not_told_to_an_impostor() {
    let world = World::start().await;
    let old = Identity::generate().unwrap();
    let known = old.fingerprint().to_string();
    let juliet = world.bot(JULIET, config()).await;
    let romeo = world.bot(ROMEO, in_band(Config::new(old, Trust::first_use()))).await;
    drop(support::streams(&romeo, &juliet).await);
    romeo.close().await;
    world.server.clear_record();
    let impostor = world.bot(ROMEO, config()).await;
    let (connected, accepted) = support::attempt(&impostor, &juliet).await;
    assert!(connected.is_err());
    assert_shape!(accepted, Err(Error::Security(SecurityError::KeyChanged { .. })));
    world.wait_for_terminate().await;
    assert!(!seen_by_the_server(&world).contains(&known), "what was known was sent");
}

impl World {
    async fn wait_for_terminate(&self) {
        let mut recorded = self.server.subscribe();
        within(async {
            while !self.server.record().iter().any(|it| it.name.contains("session-terminate")) {
                let _ = recorded.recv().await;
            }
        })
        .await;
    }
}

// ---- who is who ----------------------------------------------------------------------------------

/// An intercept's change in both directions: nobody says anything of encryption.
fn strip_security(stanza: &Element) -> Verdict {
    if !matches!(action(stanza), Some("session-initiate" | "session-accept")) {
        return Verdict::Deliver;
    }
    let mut stanza = stanza.clone();
    let jingle = stanza.get_child_mut("jingle", JINGLE).unwrap();
    jingle.get_child_mut("content", JINGLE).unwrap().remove_child("security", XTLS);
    Verdict::Replace(stanza)
}

#[tokio::test]
async fn a_peer_with_a_pin_is_never_talked_to_in_plaintext() {
    let world = World::start().await;
    let (romeos, juliets) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let romeos_trust = Trust::first_use().pin_for(jid("juliet@capulet.lit"), juliets.fingerprint().clone());
    let romeo = world.bot(ROMEO, plaintext_allowed(in_band(Config::new(romeos, romeos_trust)))).await;
    let juliet =
        world.bot(JULIET, plaintext_allowed(in_band(Config::new(juliets, Trust::first_use())))).await;
    world.server.intercept(|_, stanza| strip_security(stanza));

    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    assert!(connected.is_err(), "in plaintext, with a peer whose certificate is pinned");
    drop(accepted);
}

#[tokio::test]
async fn a_peer_whose_certificate_is_known_is_never_talked_to_in_plaintext() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(plaintext_allowed(config()), plaintext_allowed(config())).await;
    drop(support::streams(&romeo, &juliet).await);
    world.server.intercept(|_, stanza| strip_security(stanza));

    let accepting = tokio::spawn(async move { juliet.accept().await.unwrap().accept().await });
    let connected = within(romeo.connect(&jid(JULIET))).await;
    assert!(connected.is_err(), "in plaintext, with a peer that was encrypted before");
    accepting.abort();
}

#[tokio::test]
async fn a_server_can_not_connect_a_bot_to_itself_under_another_name() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, config()).await;
    let server = world.server.clone();
    // All that Romeo says to Juliet comes back as from Juliet, under names that do not clash.
    let names = std::sync::Mutex::new(Vec::<(String, String)>::new());
    world.server.intercept(move |route, stanza| {
        if route.to.to_string() != JULIET {
            return Verdict::Deliver;
        }
        let mut names = names.lock().unwrap();
        let sids = std::iter::successors(Some(vec![stanza]), |level| {
            let next: Vec<_> = level.iter().flat_map(|element| element.children()).collect();
            (!next.is_empty()).then_some(next)
        });
        for sid in sids.flatten().filter_map(|element| element.attr("sid")) {
            if !names.iter().any(|(one, other)| one == sid || other == sid) {
                names.push((sid.to_owned(), format!("~{}", &sid[1..])));
            }
        }
        let mut text = String::from(stanza);
        text = text.replace(JULIET, "<J>").replace(ROMEO, JULIET).replace("<J>", ROMEO);
        for (one, other) in names.iter() {
            text = text.replace(one, "<S>").replace(other, one).replace("<S>", other);
        }
        if stanza.has_child("jingle", JINGLE) && stanza.attr("type") == Some("set") {
            // Acknowledged at once: not a tie.
            let id = stanza.attr("id").unwrap();
            let ack =
                format!("<iq xmlns='jabber:client' type='result' id='{id}' from='{JULIET}' to='{ROMEO}'/>");
            server.inject(&jid(ROMEO), element(&ack));
        }
        server.inject(&jid(ROMEO), element(&text));
        Verdict::Drop
    });
    let (connected, accepted) = within(future::join(romeo.connect(&jid(JULIET)), async {
        let incoming = tokio::time::timeout(Duration::from_secs(10), romeo.accept()).await;
        incoming.expect("the reflection does not even ring").unwrap().accept().await
    }))
    .await;
    assert!(connected.is_err(), "{connected:?}");
    assert!(accepted.is_err(), "{accepted:?}");
}

#[tokio::test]
async fn a_forged_end_of_the_session_is_no_clean_end_of_the_stream() {
    for reason in ["success", "gone"] {
        let world = World::start().await;
        let (romeo, juliet) = world.usual_pair().await;
        let (_romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        let offer = world.recorded("iq set jingle session-initiate");
        let sid = offer.element.get_child("jingle", JINGLE).unwrap().attr("sid").unwrap().to_owned();
        let forged = format!(
            "<iq xmlns='jabber:client' type='set' id='forged' from='{ROMEO}' to='{JULIET}'>\
             <jingle xmlns='{JINGLE}' action='session-terminate' sid='{sid}'><reason><{reason}/></reason></jingle></iq>"
        );
        world.server.inject(&jid(JULIET), element(&forged));
        let end = within(juliets.next()).await.expect("the end of a stream that nobody closed is an error");
        assert_shape!(end.map_err(|error| error.reason()), Err(Reason::Success | Reason::Gone));
    }
}

// ---- deadlines -----------------------------------------------------------------------------------

fn over_tcp(close: Duration) -> StreamOptions {
    let mut timeouts = Timeouts::default();
    timeouts.close = close;
    StreamOptions::new().timeouts(timeouts)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_a_byte_at_a_time_can_not_hold_up_a_close_for_hours() {
    let (ours, mut theirs) = tokio::io::duplex(64);
    tokio::spawn(async move {
        theirs
            .write_all(b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'><stream:features/>")
            .await
            .unwrap();
        let mut byte = [0];
        while theirs.read(&mut byte).await.is_ok_and(|count| count > 0) {
            tokio::time::sleep(milliseconds(900)).await;
        }
    });
    let mut stream = stream::initiate(ours, over_tcp(milliseconds(1000))).await.unwrap();
    stream.feed(message(&"x".repeat(200_000))).await.unwrap();
    let start = tokio::time::Instant::now();
    let closed = stream.close().await;
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(600), "it took {taken:?}, and gave {closed:?}");
}

#[tokio::test]
async fn the_server_can_not_make_a_bot_hold_a_stanza_of_any_size() {
    const MEGABYTES: usize = 48;
    let world = World::start().await;
    let (_romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let text = "x".repeat(MEGABYTES << 20);
    let huge =
        format!("<message xmlns='jabber:client' from='{NURSE}' to='{ROMEO}'><body>{text}</body></message>");
    world.server.inject_raw(&jid(ROMEO), huge);
    let got = async {
        loop {
            match events.next().await {
                Some(Event::Stanza(stanza @ Stanza::Message(_))) => return body(&stanza).len(),
                Some(_) => {}
                None => return 0,
            }
        }
    };
    let got = tokio::time::timeout(Duration::from_secs(30), got).await;
    assert!(!got.is_ok_and(|length| length > 0), "a stanza of {MEGABYTES} MiB was kept");
}
