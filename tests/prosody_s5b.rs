//! SOCKS5 bytestreams (XEP-0260) between two bots on a real Prosody, directly and through its proxy.
//!
//! Without `prosody` in PATH nothing is tested, and says so; with CI=true that is a failure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/prosody.rs"]
mod server;
mod support;

use std::time::{Duration, Instant};

use futures::{Sink, SinkExt, Stream, StreamExt};
use jingle_xmlstream::{
    CandidateType, Candidates, Config, E2eStream, Error, Events, Proxies, S5bConfig, Start, StreamEvent,
};
use server::{Backend, Kind, Prosody, Verona, bot_with_events};
use support::{JULIET, ROMEO, body, jid, message, s5b, s5b_config, streams, talk, timeouts, within};
use tokio_xmpp::Event;
use xmpp_parsers::stanza::Stanza;

const PROXY: &str = "proxy.montague.lit";

fn with(change: impl FnOnce(&mut S5bConfig)) -> Config {
    s5b_config().s5b(s5b(change))
}

fn only(candidates: Candidates) -> Config {
    with(|s5b| s5b.candidates = candidates)
}

/// What carries a stream: `ibb`, `direct` or `proxy`.
fn carrier(stream: &E2eStream) -> &'static str {
    let transport = stream.transport().unwrap();
    transport.candidate().map_or(transport.method(), CandidateType::name)
}

/// Both talk, over this, and end it in good order.
async fn assert_both_talk_over(expected: &str, verona: &Verona) {
    let begun = Instant::now();
    let (mut romeos, mut juliets) = verona.streams().await;
    println!("{expected}: connected in {:?}", begun.elapsed());
    assert_eq!((carrier(&romeos), carrier(&juliets)), (expected, expected));
    talk(&mut romeos, &mut juliets).await;
    close_in_turn(romeos, juliets).await;
}

/// One closes, the other is told and closes as well.
async fn close_in_turn(first: E2eStream, mut second: E2eStream) {
    let ending = async {
        tokio::join!(first.close(), async {
            assert!(second.next().await.is_none());
            second.close().await
        })
    };
    let (one, other) = within(ending).await;
    one.unwrap();
    other.unwrap();
}

async fn send_all(
    sender: &mut (impl Sink<Stanza, Error = Error> + Unpin),
    texts: impl Iterator<Item = String>,
) {
    for text in texts {
        within(sender.feed(message(&text))).await.unwrap();
    }
    within(sender.flush()).await.unwrap();
}

async fn expect_all(
    receiver: &mut (impl Stream<Item = Result<Stanza, Error>> + Unpin),
    texts: impl Iterator<Item = String>,
) {
    for text in texts {
        let stanza = within(receiver.next()).await.unwrap().unwrap();
        assert!(body(&stanza) == text, "{:.40}… instead of {text:.40}…", body(&stanza));
    }
}

fn numbers(count: usize) -> impl Iterator<Item = String> + Clone {
    (0..count).map(|number| number.to_string())
}

// ---- which way -------------------------------------------------------------------------------

#[tokio::test]
async fn it_is_a_direct_connection_where_there_can_be_one() {
    let Some(verona) = Verona::with(Kind::Proxy65(Backend::Epoll), s5b_config(), s5b_config()).await else {
        return;
    };
    let (romeos, juliets) = verona.streams().await;
    assert_eq!((carrier(&romeos), carrier(&juliets)), ("direct", "direct"));
    let (romeos, juliets) = exchange(romeos, juliets, 1000).await;
    close_in_turn(romeos, juliets).await;
    assert_ended_in_good_order(&verona).await;
    for in_band in ["<open ", "<data ", "transport-replace"] {
        assert_eq!(verona.count(&[in_band]).await, 0, "{in_band}");
    }
}

/// Messages both ways at once.
async fn exchange(romeos: E2eStream, juliets: E2eStream, count: usize) -> (E2eStream, E2eStream) {
    let (mut romeo_says, mut romeo_hears) = (romeos.sender(), romeos);
    let (mut juliet_says, mut juliet_hears) = (juliets.sender(), juliets);
    tokio::join!(
        send_all(&mut romeo_says, numbers(count)),
        send_all(&mut juliet_says, numbers(count)),
        expect_all(&mut romeo_hears, numbers(count)),
        expect_all(&mut juliet_hears, numbers(count)),
    );
    (romeo_hears, juliet_hears)
}

/// One session-terminate, or two that crossed on the way.
async fn assert_ended_in_good_order(verona: &Verona) {
    let ended = verona.count(&["session-terminate", "<success"]).await;
    assert!((1..=2).contains(&ended), "{ended} times");
    assert_eq!(verona.count(&["session-terminate"]).await, ended);
}

/// Prosody's service discovery names a proxy to the users of its own host alone, so Juliet does not know one.
#[tokio::test]
async fn it_is_the_proxy_of_one_side_where_addresses_are_not_shown() {
    for backend in [Backend::Epoll, Backend::Select] {
        let configs = (only(Candidates::ProxyOnly), only(Candidates::ProxyOnly));
        let Some(verona) = Verona::with(Kind::Proxy65(backend), configs.0, configs.1).await else { return };
        assert_both_talk_over("proxy", &verona).await;
        assert_eq!(verona.count(&["<activate>juliet@capulet.lit/balcony<"]).await, 1);

        // The responder can be the one with the proxy, too.
        let (mut juliets, mut romeos) = streams(&verona.juliet, &verona.romeo).await;
        assert_eq!((carrier(&romeos), carrier(&juliets)), ("proxy", "proxy"));
        talk(&mut juliets, &mut romeos).await;
        close_in_turn(romeos, juliets).await;
        assert_eq!(verona.count(&["<activate>juliet@capulet.lit/balcony<"]).await, 2);
    }
}

#[tokio::test]
async fn one_side_that_shows_and_dials_no_address_is_enough_for_the_proxy() {
    for hidden in ["romeo", "juliet"] {
        let config = |who: &str| if who == hidden { only(Candidates::ProxyOnly) } else { s5b_config() };
        let kind = Kind::Proxy65(Backend::Epoll);
        let Some(verona) = Verona::with(kind, config("romeo"), config("juliet")).await else { return };
        assert_both_talk_over("proxy", &verona).await;
    }
}

#[tokio::test]
async fn where_both_have_a_proxy_it_is_used_once() {
    let configs = (only(Candidates::ProxyOnly), only(Candidates::ProxyOnly));
    let Some(verona) = Verona::with(Kind::TwoProxies65, configs.0, configs.1).await else { return };
    assert_both_talk_over("proxy", &verona).await;
    assert_eq!(verona.count(&["<activate>"]).await, 1);
}

#[tokio::test]
async fn it_is_a_proxy_that_the_user_names() {
    let named = |proxies| {
        with(|s5b| {
            s5b.candidates = Candidates::ProxyOnly;
            s5b.proxies = proxies;
        })
    };
    let nowhere = || named(Proxies::These(Vec::new()));
    let theirs = || named(Proxies::These(vec![jid(PROXY)]));
    let kind = Kind::Proxy65(Backend::Epoll);

    let Some(verona) = Verona::with(kind, nowhere(), theirs()).await else { return };
    assert_both_talk_over("proxy", &verona).await;
    assert_eq!(verona.count(&["<activate>romeo@montague.lit/orchard<"]).await, 1);
    assert_eq!(verona.count(&["disco#items"]).await, 0, "nobody has to look for one");
    drop(verona);

    let Some(verona) = Verona::with(kind, nowhere(), nowhere()).await else { return };
    assert_both_talk_over("ibb", &verona).await;
}

/// `proxy65_acl`: the proxy lets only Romeo ask for its address and activate. Whom he brings along it does not mind.
#[tokio::test]
async fn a_proxy_that_refuses_a_user_is_no_proxy_for_that_one() {
    let asking = || {
        with(|s5b| {
            s5b.candidates = Candidates::ProxyOnly;
            s5b.proxies = Proxies::These(vec![jid(PROXY)]);
        })
    };
    let Some(verona) = Verona::with(Kind::PrivateProxy65, only(Candidates::None), asking()).await else {
        return;
    };
    assert_both_talk_over("ibb", &verona).await;
    drop(verona);

    let romeo = only(Candidates::ProxyOnly);
    let Some(verona) = Verona::with(Kind::PrivateProxy65, romeo, asking()).await else { return };
    assert_both_talk_over("proxy", &verona).await;
}

#[tokio::test]
async fn it_is_an_in_band_bytestream_where_nothing_is_offered() {
    let configs = (only(Candidates::None), only(Candidates::None));
    let Some(verona) = Verona::with(Kind::Proxy65(Backend::Epoll), configs.0, configs.1).await else {
        return;
    };
    assert_both_talk_over("ibb", &verona).await;
    assert_ended_in_good_order(&verona).await;
}

// ---- through the proxy -----------------------------------------------------------------------

async fn through_the_proxy(backend: Backend) -> Option<(Verona, E2eStream, E2eStream)> {
    let configs = (only(Candidates::ProxyOnly), only(Candidates::ProxyOnly));
    let verona = Verona::with(Kind::Proxy65(backend), configs.0, configs.1).await?;
    let (romeos, juliets) = verona.streams().await;
    assert_eq!((carrier(&romeos), carrier(&juliets)), ("proxy", "proxy"));
    Some((verona, romeos, juliets))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_go_through_the_proxy_in_order() {
    const MESSAGES: usize = 10_000;
    for backend in [Backend::Epoll, Backend::Select] {
        let Some((verona, romeos, mut juliets)) = through_the_proxy(backend).await else { return };
        let begun = Instant::now();
        let mut sender = romeos.sender();
        tokio::join!(send_all(&mut sender, numbers(MESSAGES)), expect_all(&mut juliets, numbers(MESSAGES)));
        println!("{backend:?}: {MESSAGES} messages in {:?}", begun.elapsed());
        drop(sender);
        close_in_turn(romeos, juliets).await;
        assert_ended_in_good_order(&verona).await;
    }
}

/// Far less than the operator's keep-alive, and far more than the proxy takes on a busy machine.
const ANSWERED: Duration = Duration::from_secs(5);

/// What is sent is answered, without anything else being sent.
async fn assert_answered(asking: &mut E2eStream, answering: &mut E2eStream, texts: &[String]) -> Duration {
    let begun = Instant::now();
    send_all(asking, texts.iter().cloned()).await;
    expect_all(answering, texts.iter().cloned()).await;
    send_all(answering, texts.iter().cloned()).await;
    expect_all(asking, texts.iter().cloned()).await;
    let took = begun.elapsed();
    let sizes: Vec<_> = texts.iter().map(String::len).collect();
    assert!(took < ANSWERED, "{sizes:?} took {took:?}");
    took
}

/// With its default backend Prosody's proxy keeps the end of a burst back until the next byte comes.
#[tokio::test]
async fn whatever_its_size_what_goes_through_the_proxy_is_answered() {
    for backend in [Backend::Epoll, Backend::Select] {
        let Some((_verona, mut romeos, mut juliets)) = through_the_proxy(backend).await else { return };
        let mut worst = Duration::ZERO;
        for size in (4000..=20_000).step_by(500).chain([6000, 6000, 6000]) {
            let text = "x".repeat(size);
            worst = worst.max(assert_answered(&mut romeos, &mut juliets, &[text]).await);
        }
        for count in [2, 5, 10, 20, 40] {
            for size in [100, 600, 2000, 4090] {
                let texts = vec!["x".repeat(size); count];
                worst = worst.max(assert_answered(&mut juliets, &mut romeos, &texts).await);
            }
        }
        println!("{backend:?}: there and back in {worst:?} at worst");
        close_in_turn(juliets, romeos).await;
    }
}

/// The end of a stream can be the end of a burst.
#[tokio::test]
async fn whatever_its_size_what_is_sent_before_the_end_goes_through_the_proxy() {
    for size in [4000, 4500, 6000, 8000, 8100, 14_000] {
        let Some((_verona, mut romeos, mut juliets)) = through_the_proxy(Backend::Epoll).await else {
            return;
        };
        let text = "x".repeat(size);
        romeos.feed(message(&text)).await.unwrap();
        let begun = Instant::now();
        let (closed, ()) = within(async {
            tokio::join!(romeos.close(), async {
                expect_all(&mut juliets, std::iter::once(text)).await;
                assert!(juliets.next().await.is_none());
                juliets.close().await.unwrap();
            })
        })
        .await;
        closed.unwrap();
        println!("{size} bytes and the end: {:?}", begun.elapsed());
    }
}

/// The proxy stops reading when the one that it writes to does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_for_a_while_gets_everything_through_the_proxy() {
    /// More than what fits into all buffers on the way.
    const MESSAGES: usize = 3000;
    for backend in [Backend::Epoll, Backend::Select] {
        let Some((_verona, romeos, mut juliets)) = through_the_proxy(backend).await else { return };
        let texts = || (0..MESSAGES).map(|number| format!("{number:0>10240}"));
        let mut sender = romeos.sender();
        let mut sending = tokio::spawn(async move { send_all(&mut sender, texts()).await });
        let full = tokio::time::timeout(Duration::from_secs(2), &mut sending).await;
        assert!(full.is_err(), "everything fits into the buffers");
        let begun = Instant::now();
        expect_all(&mut juliets, texts()).await;
        println!("{backend:?}: {} MiB in {:?}", MESSAGES * 10 / 1024, begun.elapsed());
        within(sending).await.unwrap();
        close_in_turn(romeos, juliets).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_cross_in_the_proxy() {
    for backend in [Backend::Epoll, Backend::Select] {
        let Some((_verona, romeos, juliets)) = through_the_proxy(backend).await else { return };
        let texts = || (0..500).map(|number| format!("{number:0>20000}"));
        let (mut romeo_says, mut romeo_hears) = (romeos.sender(), romeos);
        let (mut juliet_says, mut juliet_hears) = (juliets.sender(), juliets);
        let begun = Instant::now();
        tokio::join!(
            send_all(&mut romeo_says, texts()),
            send_all(&mut juliet_says, texts()),
            expect_all(&mut romeo_hears, texts()),
            expect_all(&mut juliet_hears, texts()),
        );
        println!("{backend:?}: 10 MB each way in {:?}", begun.elapsed());
        close_in_turn(romeo_hears, juliet_hears).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_streams_go_through_the_proxy_at_once() {
    let configs = (only(Candidates::ProxyOnly), only(Candidates::ProxyOnly));
    let Some(verona) = Verona::with(Kind::Proxy65(Backend::Epoll), configs.0, configs.1).await else {
        return;
    };
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(verona.streams().await);
    }
    let talking = all.into_iter().map(async |(romeos, juliets)| {
        assert_eq!((carrier(&romeos), carrier(&juliets)), ("proxy", "proxy"));
        let (romeos, juliets) = exchange(romeos, juliets, 500).await;
        close_in_turn(romeos, juliets).await;
    });
    futures::future::join_all(talking).await;
}

#[tokio::test]
async fn a_second_xml_stream_opens_on_the_same_connection_to_the_proxy() {
    let Some((verona, mut romeos, mut juliets)) = through_the_proxy(Backend::Epoll).await else { return };
    talk(&mut romeos, &mut juliets).await;
    let finishing = async {
        tokio::join!(romeos.finish(), async {
            assert!(juliets.next().await.is_none());
            juliets.finish().await
        })
    };
    let (romeos, juliets) = within(finishing).await;
    let (romeos, juliets) = (romeos.unwrap(), juliets.unwrap());
    let (romeos, juliets) = within(async { tokio::join!(romeos.reopen(), juliets.reopen()) }).await;
    let (mut romeos, mut juliets) = (romeos.unwrap(), juliets.unwrap());
    let text = "x".repeat(6000);
    assert_answered(&mut romeos, &mut juliets, &[text]).await;
    close_in_turn(juliets, romeos).await;
    assert_eq!(verona.count(&["<activate>"]).await, 1);
}

#[tokio::test]
async fn a_proxy_that_goes_away_suspends_the_stream_until_it_is_back() {
    let Some((mut verona, mut romeos, mut juliets)) = through_the_proxy(Backend::Epoll).await else { return };
    talk(&mut romeos, &mut juliets).await;
    let mut events = [romeos.events(), juliets.events()];
    verona.prosody.kill();
    for events in &mut events {
        assert_shape!(within(events.next()).await, Some(StreamEvent::Suspended(Error::Transport(_))));
    }
    verona.prosody.restart().await;
    for events in &mut events {
        assert_shape!(within(events.next()).await, Some(StreamEvent::Resumed(_)));
    }
    talk(&mut romeos, &mut juliets).await;
    close_in_turn(romeos, juliets).await;
}

// ---- moving ----------------------------------------------------------------------------------

/// For a move on loopback, which takes 0.3 s on an idle machine.
const MOVED: Duration = Duration::from_secs(5);

/// So often the move may be quicker than the first message.
const ROUNDS: usize = 10;

/// Messages both ways while the stream moves.
async fn assert_moves_and_loses_nothing(expected: &str, config: impl Fn() -> Config) {
    let kind = Kind::Proxy65(Backend::Epoll);
    let Some(verona) = Verona::with(kind, config().start(Start::Fast), config()).await else { return };
    for round in 1..=ROUNDS {
        let (romeos, juliets) = exchange_while_moving(&verona, expected).await;
        assert_eq!((carrier(&romeos), carrier(&juliets)), (expected, expected));
        close_in_turn(romeos, juliets).await;
        assert_eq!(verona.count(&["session-terminate"]).await, verona.count(&["<success"]).await);
        assert_eq!(verona.count(&["transport-replace"]).await, round);
        let received = verona.prosody.received();
        let meanwhile = received.iter().rev().take_while(|stanza| !stanza.contains("transport-replace"));
        let blocks = meanwhile.filter(|stanza| stanza.contains("<data ")).count();
        println!("{expected}: {blocks} blocks while it moved");
        if blocks > 0 {
            return;
        }
    }
    panic!("nothing was said while it moved");
}

async fn exchange_while_moving(verona: &Verona, expected: &str) -> (E2eStream, E2eStream) {
    const MESSAGES: usize = 5000;
    let (romeos, juliets) = verona.streams().await;
    assert_eq!(romeos.info().negotiated.as_ref().unwrap().transport.method(), "ibb");
    let begun = Instant::now();
    let (mut romeo_moves, mut juliet_moves) = (romeos.moves(), juliets.moves());
    let moving = tokio::spawn(async move {
        tokio::join!(romeo_moves.next(), juliet_moves.next());
        begun.elapsed()
    });
    let streams = exchange(romeos, juliets, MESSAGES).await;
    let moved = within(moving).await.unwrap();
    println!("{expected}: moved in {moved:?}, all said in {:?}", begun.elapsed());
    assert!(moved < MOVED, "moved in {moved:?}");
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_starts_in_band_moves_to_a_direct_connection_and_loses_nothing() {
    assert_moves_and_loses_nothing("direct", s5b_config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_starts_in_band_moves_to_the_proxy_and_loses_nothing() {
    assert_moves_and_loses_nothing("proxy", || only(Candidates::ProxyOnly)).await;
}

#[tokio::test]
async fn a_stream_that_can_move_nowhere_stays_in_band() {
    let config = || only(Candidates::None);
    let Some(verona) = Verona::with(Kind::Unlimited, config().start(Start::Fast), config()).await else {
        return;
    };
    let (mut romeos, mut juliets) = verona.streams().await;
    verona.prosody.stanza_with(&["transport-replace"]).await;
    talk(&mut romeos, &mut juliets).await;
    assert_eq!((carrier(&romeos), carrier(&juliets)), ("ibb", "ibb"));
    close_in_turn(romeos, juliets).await;
}

/// What is said in band fills the server's allowance, so everything else takes seconds, too: the search for a proxy, the
/// negotiation. At 10 kB/s all of it would take more than 100 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_moves_to_the_proxy_though_the_server_limits_the_rate() {
    let config = || only(Candidates::ProxyOnly);
    let kind = Kind::LimitedProxy65;
    let Some(verona) = Verona::with(kind, config().start(Start::Fast), config()).await else { return };
    let (romeos, mut juliets) = verona.streams().await;
    let texts = || std::iter::repeat_n("rose".repeat(1500), 200);
    let begun = Instant::now();
    let mut sender = romeos.sender();
    tokio::join!(send_all(&mut sender, texts()), expect_all(&mut juliets, texts()));
    println!("1.2 MB in {:?}", begun.elapsed());
    assert_eq!((carrier(&romeos), carrier(&juliets)), ("proxy", "proxy"));
    drop(sender);
    close_in_turn(romeos, juliets).await;
}

// ---- without the server, and past its limits -------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_and_ends_in_good_order_when_the_server_is_killed() {
    // For that long whoever closes the stream waits for the answer to its session-terminate.
    let config = || s5b_config().timeouts(timeouts(|timeouts| timeouts.close = Duration::from_secs(3)));
    let Some(mut verona) = Verona::with(Kind::Unlimited, config(), config()).await else { return };
    let (romeos, juliets) = verona.streams().await;
    verona.prosody.kill();
    let (romeos, juliets) = exchange(romeos, juliets, 1000).await;
    let begun = Instant::now();
    close_in_turn(romeos, juliets).await;
    println!("closed in {:?} without the server", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_a_restart_of_the_server_and_another_one_opens() {
    let Some(mut prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, mut romeos_events) = bot_with_events(ROMEO, prosody.connector(), s5b_config()).await;
    let (juliet, mut juliets_events) = bot_with_events(JULIET, prosody.connector(), s5b_config()).await;
    for events in [&mut romeos_events, &mut juliets_events] {
        online(events).await;
    }
    let (romeos, juliets) = streams(&romeo, &juliet).await;

    prosody.kill();
    prosody.restart().await;
    for events in [&mut romeos_events, &mut juliets_events] {
        online(events).await;
    }
    let (romeos, juliets) = exchange(romeos, juliets, 1000).await;
    let (mut other_romeos, mut other_juliets) = streams(&romeo, &juliet).await;
    talk(&mut other_romeos, &mut other_juliets).await;
    let begun = Instant::now();
    close_in_turn(romeos, juliets).await;
    println!("closed in {:?} after the restart", begun.elapsed());
    close_in_turn(other_romeos, other_juliets).await;
}

/// Waits for the next new session with the server.
async fn online(events: &mut Events) {
    while let Some(event) = within(events.next()).await {
        if let Event::Online { resumed, .. } = event {
            return assert!(!resumed, "a server that was killed knows no session");
        }
    }
    panic!("the endpoint gave up");
}

/// At Debian's 10 kB/s it would take more than 100 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_connection_is_not_bound_by_the_rate_limit_of_the_server() {
    let Some(verona) = Verona::with(Kind::DebianLimits, s5b_config(), s5b_config()).await else { return };
    let (romeos, mut juliets) = verona.streams().await;
    assert_eq!((carrier(&romeos), carrier(&juliets)), ("direct", "direct"));
    let texts = || std::iter::repeat_n("rose".repeat(16 * 1024), 16);
    let begun = Instant::now();
    let mut sender = romeos.sender();
    tokio::join!(send_all(&mut sender, texts()), expect_all(&mut juliets, texts()));
    println!("1 MiB in {:?}", begun.elapsed());
    drop(sender);
    close_in_turn(romeos, juliets).await;
}
