//! Streams that outlive their server: a real Prosody that crashes, restarts and loses connections while messages flow.
//!
//! Without `prosody` in PATH nothing is tested, and says so; with CI=true that is a failure. The longest of them run only when asked
//! for: `cargo test --test prosody_outage -- --ignored`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/program.rs"]
mod program;
#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/prosody.rs"]
mod server;
mod support;

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{
    SinkExt, StreamExt,
    channel::oneshot,
    future::{join, ready},
};
use jingle_xmlstream::{
    Connector, E2eStream, Endpoint, Error, SmConfig, StreamEvent, StreamReceiver, StreamSender,
};
use program::{Ended, Program};
use server::{Kind, PASSWORD, Prosody, bot_with_events, present_bot};
use support::{JULIET, ROMEO, body, config, message, s5b_config, streams, timeouts, within};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::watch,
};
use tokio_xmpp::Event;

/// What each of the two says, whatever happens meanwhile.
const MESSAGES: usize = 10_000;
/// So often the server goes away meanwhile.
const OUTAGES: usize = 3;

// ---- two bots and a server that comes and goes -----------------------------------------------

struct Stage {
    prosody: Prosody,
    /// The bots, who would end their streams if they went away.
    _bots: [Endpoint; 2],
    romeos: (StreamSender, StreamReceiver),
    juliets: (StreamSender, StreamReceiver),
    seen: [Seen; 2],
}

/// What a stream told of its way, in order.
type Seen = Arc<Mutex<Vec<StreamEvent>>>;

fn watched(stream: &E2eStream) -> Seen {
    let seen = Seen::default();
    let (events, noted) = (stream.events(), Arc::clone(&seen));
    tokio::spawn(events.for_each(move |event| {
        noted.lock().unwrap().push(event);
        ready(())
    }));
    seen
}

impl Stage {
    async fn set(config: impl Fn() -> jingle_xmlstream::Config) -> Option<Self> {
        let prosody = Prosody::start(Kind::Quiet).await?;
        let romeo = present_bot(ROMEO, prosody.connector(), config()).await;
        let juliet = present_bot(JULIET, prosody.connector(), config()).await;
        let (romeos, juliets) = streams(&romeo, &juliet).await;
        managed(&romeos).await;
        let seen = [watched(&romeos), watched(&juliets)];
        let (romeos, juliets) = (romeos.split(), juliets.split());
        Some(Self { prosody, _bots: [romeo, juliet], romeos, juliets, seen })
    }

    /// Both say these numbers, and hear them, in order. When a quarter was heard, something happens to the server.
    async fn talk(&mut self, numbers: Range<usize>, happens: impl AsyncFnOnce(&mut Prosody)) {
        let (midway, reached) = oneshot::channel();
        let Self { prosody, romeos, juliets, .. } = self;
        let quarter = numbers.start + numbers.len() / 4;
        tokio::join!(
            say(&mut romeos.0, numbers.clone()),
            say(&mut juliets.0, numbers.clone()),
            hear(&mut romeos.1, numbers.clone(), None),
            hear(&mut juliets.1, numbers, Some((quarter, midway))),
            async {
                reached.await.unwrap();
                happens(prosody).await;
            },
        );
    }

    /// All that there is to say, with an outage in each part of it.
    async fn talk_through_outages(&mut self, outage: impl AsyncFn(&mut Prosody)) {
        for number in 0..OUTAGES {
            let begun = Instant::now();
            self.talk(part(number), &outage).await;
            println!("outage {number}: {} messages each way in {:?}", part(number).len(), begun.elapsed());
        }
        self.talk(part(OUTAGES), async |_| {}).await;
    }

    /// Closes the streams in good order, and gives what they told of their way: nothing may be left to acknowledge.
    async fn close(self) -> [Vec<StreamEvent>; 2] {
        let Self { mut romeos, mut juliets, seen, .. } = self;
        within(romeos.0.close()).await.unwrap();
        assert!(within(juliets.1.next()).await.is_none(), "something more came");
        within(juliets.0.close()).await.unwrap();
        assert!(within(romeos.1.next()).await.is_none(), "something more came");
        seen.map(|seen| seen.lock().unwrap().clone())
    }
}

/// Waits until this initiator's stream can be resumed.
async fn managed(stream: &E2eStream) {
    within(async {
        while !stream.acknowledges() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// One of the equal parts of all messages.
fn part(number: usize) -> Range<usize> {
    const SIZE: usize = MESSAGES / (OUTAGES + 1);
    number * SIZE..(number + 1) * SIZE
}

/// Long enough that a part of them does not fit into what is on its way at once.
fn text(number: usize) -> String {
    format!("{number:0>200}")
}

async fn say(sender: &mut StreamSender, numbers: Range<usize>) {
    for number in numbers {
        within(sender.feed(message(&text(number)))).await.unwrap();
    }
    within(sender.flush()).await.unwrap();
}

async fn hear(
    receiver: &mut StreamReceiver,
    numbers: Range<usize>,
    mut tell: Option<(usize, oneshot::Sender<()>)>,
) {
    for number in numbers {
        let stanza = within(receiver.next()).await.unwrap().unwrap();
        assert_eq!(body(&stanza), text(number));
        if let Some((_, midway)) = tell.take_if(|(quarter, _)| *quarter == number) {
            midway.send(()).unwrap();
        }
    }
}

async fn crash(prosody: &mut Prosody) {
    prosody.kill();
    prosody.restart().await;
}

async fn restart(prosody: &mut Prosody) {
    prosody.stop();
    prosody.restart().await;
}

/// Each loss of the way was told, and that it was found again: so often at least.
#[track_caller]
fn assert_resumed(events: &[StreamEvent], times: usize) {
    for pair in events.chunks(2) {
        assert!(matches!(pair, [StreamEvent::Suspended(_), StreamEvent::Resumed(_)]), "{events:?}");
    }
    assert!(events.len() >= 2 * times, "{events:?}");
}

// ---- the server goes away --------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_band_nothing_is_lost_or_repeated_when_the_server_crashes_again_and_again() {
    let Some(mut stage) = Stage::set(config).await else { return };
    stage.talk_through_outages(crash).await;
    for events in stage.close().await {
        assert_resumed(&events, OUTAGES);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_band_nothing_is_lost_or_repeated_when_the_server_is_restarted() {
    let Some(mut stage) = Stage::set(config).await else { return };
    stage.talk_through_outages(restart).await;
    for events in stage.close().await {
        assert_resumed(&events, OUTAGES);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_stream_goes_on_untouched_when_the_server_crashes_again_and_again() {
    let Some(mut stage) = Stage::set(s5b_config).await else { return };
    stage.talk_through_outages(crash).await;
    for events in stage.close().await {
        assert!(events.is_empty(), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_stream_goes_on_untouched_when_the_server_is_restarted() {
    let Some(mut stage) = Stage::set(s5b_config).await else { return };
    stage.talk_through_outages(restart).await;
    for events in stage.close().await {
        assert!(events.is_empty(), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_stream_needs_no_server_to_go_on_and_to_end() {
    // For so long whoever closes the stream waits for the answer to its session-terminate.
    let config = || s5b_config().timeouts(timeouts(|timeouts| timeouts.close = Duration::from_secs(3)));
    let Some(mut stage) = Stage::set(config).await else { return };
    stage.prosody.kill();
    stage.talk(0..MESSAGES, async |_| {}).await;
    for events in stage.close().await {
        assert!(events.is_empty(), "{events:?}");
    }
}

/// Nobody says anything while the server is away, so only what the bots are told of it can suspend the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_in_band_goes_on_after_a_crash() {
    let Some(mut stage) = Stage::set(config).await else { return };
    stage.talk(0..10, async |_| {}).await;
    crash(&mut stage.prosody).await;
    stage.talk(10..20, async |_| {}).await;
    for events in stage.close().await {
        assert_resumed(&events, 1);
    }
}

// ---- the server does not come back -----------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_delivered_comes_back_in_order() {
    const SAID: usize = 100;
    let mut sm = SmConfig::default();
    sm.resumption = Duration::from_secs(2);
    let Some(mut stage) = Stage::set(|| config().sm(sm)).await else { return };
    stage.talk(0..10, async |_| {}).await;
    stage.prosody.kill();
    let (sender, receiver) = &mut stage.romeos;
    for number in 0..SAID {
        sender.start_send_unpin(message(&text(number))).unwrap();
    }
    let error = within(receiver.next()).await.unwrap().unwrap_err();
    let Error::Undelivered(undelivered) = &error else { panic!("{error:?}") };
    println!("{error}");
    let expected: Vec<_> = (0..SAID).map(text).collect();
    let back: Vec<_> = undelivered.stanzas().iter().map(body).collect();
    // Juliet may have had no time to acknowledge the last of what she took.
    assert!(back.ends_with(&expected), "{} came back", back.len());
    assert!(matches!(undelivered.cause(), Some(Error::NotResumed(_))), "{error:?}");
    assert!(within(receiver.next()).await.is_none());
}

// ---- the connection to the server is lost, and the session with it is resumed ---------------

/// Stands between a bot and the server, and can cut their connections.
struct Wire {
    port: u16,
    cut: watch::Sender<()>,
}

impl Wire {
    async fn to(prosody: &Prosody) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, seen) = watch::channel(());
        let server = prosody.address();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cut = seen.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, cut }
    }

    fn connector(&self, prosody: &Prosody) -> Connector {
        prosody.connector().server("127.0.0.1", self.port)
    }

    fn cut(&self) {
        self.cut.send(()).unwrap();
    }
}

/// XEP-0198 between bot and server: nothing in band is lost, so the bytestream itself goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_in_band_stream_keeps_its_bytestream_where_the_session_with_the_server_is_resumed() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let later = MESSAGES / 4..MESSAGES / 2;
    let wire = Wire::to(&prosody).await;
    let (romeo, mut events) = bot_with_events(ROMEO, wire.connector(&prosody), config()).await;
    let (online, mut resumed) = watch::channel(false);
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Online { resumed, .. } = event {
                online.send_replace(resumed);
            }
        }
    });
    let juliet = present_bot(JULIET, prosody.connector(), config()).await;
    let (romeos, juliets) = streams(&romeo, &juliet).await;
    managed(&romeos).await;
    let seen = [watched(&romeos), watched(&juliets)];
    let mut stage =
        Stage { prosody, _bots: [romeo, juliet], romeos: romeos.split(), juliets: juliets.split(), seen };
    stage.talk(0..MESSAGES / 4, async |_| {}).await;
    // COMPAT Prosody 0.12: where much is on its way when the connection is lost, it sometimes resumes the session and then
    // reads nothing of it, whatever was said before. What is on its way is lost to the mock server instead.
    wire.cut();
    let (sender, receiver) = (&mut stage.romeos.0, &mut stage.juliets.1);
    tokio::join!(say(sender, later.clone()), hear(receiver, later, None), async {
        within(resumed.wait_for(|resumed| *resumed)).await.unwrap();
    });
    let initiated = stage.prosody.received().iter().filter(|it| it.contains("session-initiate")).count();
    assert_eq!(initiated, 1, "there is another bytestream");
    let [romeos, _] = stage.close().await;
    assert_resumed(&romeos, 1);
}

// ---- the example programs --------------------------------------------------------------------

/// Between two crashes.
const PERIOD: Duration = Duration::from_secs(3);

/// `connect` sends messages to `listen` while the server crashes again and again.
async fn programs_talk_through_crashes(transport: &str, count: usize) {
    let Some(programs) = program::folder() else { return };
    let Some(mut prosody) = Prosody::start(Kind::Quiet).await else { return };
    let start = |name: &str, own: &[&str]| {
        let (address, port) = prosody.address();
        let server = format!("{address}:{port}");
        let mut command = Command::new(programs.join(name));
        command.args(["--server", &server, "--server-tls", "insecure-starttls", "--json"]);
        command.args(["--transport", transport, "--bind", "127.0.0.1"]).args(own);
        Program::spawn(name, command.env("XMPP_PASSWORD", PASSWORD).env_remove("RUST_LOG"))
    };
    let mut juliet = start("listen", &["--jid", JULIET, "--once"]);
    juliet.wait_for("online").await;
    let count = count.to_string();
    let mut romeo = start("connect", &["--jid", ROMEO, "--send", &count, "--size", "500", JULIET]);
    // From then on it can be resumed; in the round trip before, it could not.
    tokio::join!(juliet.wait_for_stanza(), romeo.wait_for_stanza());

    let mut crashes = 0;
    let ending = join(romeo.end(), juliet.end());
    let crashing = async {
        loop {
            crash(&mut prosody).await;
            crashes += 1;
            tokio::time::sleep(PERIOD).await;
        }
    };
    let (romeo, juliet) = tokio::select! {
        ended = ending => ended,
        () = crashing => unreachable!("it crashes until the programs have ended"),
    };
    println!("{transport}: {crashes} crashes, {}", romeo.events.last().unwrap());
    assert_all_came_back(&romeo, &count);
    assert_eq!(juliet.code, Some(0), "{juliet:#?}");
    let resumed = romeo.count("resumed");
    assert_eq!(resumed > 0, transport == "ibb", "{romeo:#?}");
}

/// `connect` itself looks for what is missing, and for what comes twice.
#[track_caller]
fn assert_all_came_back(romeo: &Ended, count: &str) {
    assert_eq!(romeo.code, Some(0), "{:#?}{}", romeo.events, romeo.stderr);
    assert_eq!(romeo.event("done")["messages"].to_string(), count);
    assert_eq!(romeo.received.len().to_string(), count);
}

/// What the programs say in every run.
const SHORT: usize = 20_000;
/// And when asked for.
const LONG: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_in_band_get_everything_back_once_while_the_server_crashes() {
    programs_talk_through_crashes("ibb", SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_with_a_direct_stream_get_everything_back_once_while_the_server_crashes() {
    programs_talk_through_crashes("s5b", SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_messages_come_back_once_while_the_server_crashes() {
    for transport in ["s5b", "ibb"] {
        programs_talk_through_crashes(transport, LONG).await;
    }
}
