//! From `connect` to the first stanza: in round trips, and in processor time.

use std::time::{Duration, Instant};

use bench_support::{
    bots, cpu,
    mock::{self, Mock},
    tls::Configs,
};
use futures::{SinkExt, StreamExt, channel::oneshot};
use jid::Jid;
use jingle_xmlstream::{Config, DiscoConfig, E2eStream, Endpoint, Start, Transports};
use mock_server::Target;
use tokio::runtime::Builder;
use tokio_xmpp::{Event, IqRequest};
use xmpp_parsers::{
    caps::{self, Caps},
    disco::{DiscoInfoResult, Identity},
    hashes::Algo,
    iq::Iq,
    minidom::Element,
    ns,
    presence::Presence,
    stanza::Stanza,
};

use super::Outcome;
use crate::{
    relay::Relay,
    rounds::Effort,
    servers::{Brand, Limited, PASSWORD, Server, Skipped},
    table::{Goal, Row},
};

/// Each bot's way to the server, in one direction; a stanza from bot to bot takes two of them.
const DELAY: Duration = Duration::from_millis(25);
const ROUND_TRIP_MS: f64 = 100.0;

/// Round trips that there have to be (XEP-0166, XEP-0047, TLS 1.3), and what else it may take.
const IBB_GOAL: f64 = 3.5 * ALLOWANCE;
const ALLOWANCE: f64 = 1.15;

/// The same towards a program that takes data before its time, and says so by this.
const EARLY_GOAL: f64 = 2.5 * ALLOWANCE;
const EARLY_DATA: &str = "https://crates.io/crates/jingle-xmlstream#early-data";

/// Timers and schedulers are not finer than some milliseconds.
const NO_LATER: f64 = 1.05;

/// Set-ups whose processor time is taken together.
const SET_UPS: usize = 200;
const CPU_GOAL: f64 = 3.0;

/// Requests of an in-band set-up: session-initiate, session-accept, security-info, `<open/>`, and two blocks each way.
const IQS: usize = 8;

/// For what is left to do when the last stream is up, and for as long as nothing happens, to see what that takes.
const CALM: Duration = Duration::from_millis(500);

/// With Prosody in the middle, and a round trip of 100 ms.
pub(super) async fn time(effort: Effort) -> Result<Outcome, Skipped> {
    let server = Server::start(Brand::Prosody, Limited::No).await?;
    let relay = Relay::start(server.address(), DELAY).await;
    let pair = async |resource: &str, config: fn() -> Config| {
        let bot = |account: &str| {
            let connector = server.connector_at(relay.address());
            let jid = format!("{account}/{resource}");
            async move { bots::bot(&jid, PASSWORD, connector, config()).await }
        };
        let (romeo, juliet) = tokio::join!(bot(bots::ROMEO), bot(bots::JULIET));
        meet(&romeo, &juliet).await;
        (romeo, juliet)
    };
    let ibb = pair("ibb", ibb_config).await;
    let fast = pair("fast", fast_config).await;
    let s5b = pair("s5b", bots::direct_config).await;
    let mut ibb_row = Row { goal: Goal::AtMost(IBB_GOAL), ..round_trips("set-up, IBB") };
    let mut s5b_row = round_trips("set-up, S5B direct");
    let mut fast_row = Row::new("set-up, Start::Fast", "ms", Goal::AtMost(NO_LATER)).against("set-up, IBB");
    for _ in 0..effort.rounds {
        let (by_ibb, by_s5b) = (first_stanza(&ibb).await, first_stanza(&s5b).await);
        ibb_row.push(by_ibb, ROUND_TRIP_MS);
        s5b_row.push(by_s5b, ROUND_TRIP_MS);
        fast_row.push(first_stanza(&fast).await, by_ibb);
    }
    Ok(Outcome::of(vec![ibb_row, s5b_row, fast_row]))
}

/// What is said with [`Connecting::first`](jingle_xmlstream::Connecting::first), with the mock server in the middle and a round
/// trip of 100 ms.
pub(super) async fn first(effort: Effort) -> Result<Outcome, Skipped> {
    let mock = Mock::start();
    let bot = async |account: &str, config| {
        bots::bot(account, mock_server::PASSWORD, mock.connector(), config).await
    };
    let mut letter_row = Row { goal: Goal::AtMost(IBB_GOAL), ..round_trips("first stanza, to the letter") };
    let mut early_row = Row { goal: Goal::AtMost(EARLY_GOAL), ..round_trips("first stanza, early data") };
    let mut fast_row = Row::new("first stanza, Start::Fast", "ms", Goal::AtMost(NO_LATER))
        .against("first stanza, early data");
    let romeo = async |config| bot(bots::ROMEO, config).await;
    let juliet = async |config| bot(bots::JULIET, config).await;
    let early = (romeo(ibb_config()).await, juliet(ibb_config()).await);
    let fast = (romeo(fast_config()).await, juliet(fast_config()).await);
    let letter = (romeo(ibb_config()).await, stickler(&mock).await);
    for (romeo, juliet) in [&early, &fast] {
        meet(romeo, juliet).await;
    }
    // He asks her program once, and remembers it.
    drop(bots::streams(&letter.0, &letter.1).await);
    mock.server.delay(Target::All, DELAY, DELAY);
    for _ in 0..effort.rounds {
        letter_row.push(first_words(&letter).await, ROUND_TRIP_MS);
        let by_early = first_words(&early).await;
        early_row.push(by_early, ROUND_TRIP_MS);
        fast_row.push(first_words(&fast).await, by_early);
    }
    Ok(Outcome::of(vec![letter_row, early_row, fast_row]))
}

/// A bot whose program takes nothing before its time, and says so by service discovery.
async fn stickler(mock: &Mock) -> Endpoint {
    let mut disco = DiscoConfig::default();
    disco.answer = false;
    let config = ibb_config().disco(disco);
    let jid: Jid = bots::JULIET.parse().expect("an address");
    let (endpoint, mut events) = Endpoint::login(jid, mock_server::PASSWORD, mock.connector(), config);
    let mut info = DiscoInfoResult {
        node: None,
        identities: vec![Identity::new_anonymous::<_, _, String, String>("client", "bot")],
        features: endpoint.features().into_iter().filter(|feature| feature != EARLY_DATA).collect(),
        extensions: Vec::new(),
    };
    let hash = caps::hash_caps(&caps::compute_disco(&info), Algo::Sha_1).expect("an algorithm of XEP-0115");
    let answering = endpoint.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Stanza(Stanza::Iq(Iq::Get { from, id, payload, .. })) = event
                && payload.is("query", ns::DISCO_INFO)
            {
                info.node = payload.attr("node").map(str::to_owned);
                let answer = Iq::Result { from: None, to: from, id, payload: Some(info.clone().into()) };
                answering.send_stanza(answer).await.expect("it is sent");
            }
        }
    });
    endpoint.online().await.expect("the server takes the bot");
    let there = Presence::available().with_payload(Caps::new("https://example.org/stickler", hash));
    endpoint.send_stanza(there).await.expect("presence is sent");
    endpoint
}

fn round_trips(name: &str) -> Row {
    Row::new(name, "ms", Goal::None).against("round trip")
}

/// Makes both know the other's capabilities, and all that is asked only once.
async fn meet(romeo: &Endpoint, juliet: &Endpoint) {
    for (one, other) in [(romeo, juliet), (juliet, romeo)] {
        let there = Presence::available().with_to(Jid::from(bots::address(other)));
        one.send_presence(there).await.expect("presence is sent");
    }
    drop(bots::streams(romeo, juliet).await);
}

/// Milliseconds until a stanza is received that is sent as soon as there is a stream.
async fn first_stanza(bots: &(Endpoint, Endpoint)) -> f64 {
    let (romeo, juliet) = bots;
    let initiating = async {
        let mut stream = romeo.connect(&bots::address(juliet)).await.expect("a stream, at the initiator");
        stream.send(bots::message(64).into()).await.expect("it is sent");
        stream
    };
    received(initiating, juliet).await
}

/// The same for one that need not wait for it.
async fn first_words((romeo, juliet): &(Endpoint, Endpoint)) -> f64 {
    let connecting = romeo.connect(&bots::address(juliet)).first(bots::message(64));
    let initiating = async { connecting.await.expect("a stream, at the initiator") };
    received(initiating, juliet).await
}

async fn received(initiating: impl Future<Output = E2eStream>, juliet: &Endpoint) -> f64 {
    let begun = Instant::now();
    let responding = async {
        let incoming = juliet.accept().await.expect("the endpoint is open");
        let mut stream = incoming.accept().await.expect("a stream, at the responder");
        bots::receive(&mut stream, 1).await;
        (begun.elapsed(), stream)
    };
    let (initiator, (took, responder)) = tokio::join!(initiating, responding);
    // What was still to be said is of no interest.
    let _ = tokio::join!(initiator.close(), responder.close());
    took.as_secs_f64() * 1e3
}

/// Processor time of both ends, without the server's: on one thread, as the handshake has it that they are compared with; and
/// where one thread has to wake the other for every stanza.
pub(super) async fn processor(effort: Effort) -> Result<Outcome, Skipped> {
    let (count, mut rows) = (effort.count(SET_UPS), Vec::new());
    for (name, config) in
        [("set-up, IBB", ibb_config as fn() -> Config), ("set-up, S5B direct", bots::direct_config)]
    {
        for (threads, on) in [(1, "one thread"), (2, "two threads")] {
            let name = format!("{name}, CPU, {on}");
            let set_ups = move || cpu_of_set_ups(config, count);
            let goal = Goal::AtMost(CPU_GOAL);
            rows.push(against_handshakes(effort, &name, goal, threads, set_ups).await);
        }
    }
    let stanzas = move || cpu_of_stanzas(count);
    rows.push(against_handshakes(effort, "what its stanzas alone take", Goal::None, 1, stanzas).await);
    Ok(Outcome::of(rows))
}

async fn against_handshakes<F>(
    effort: Effort,
    name: &str,
    goal: Goal,
    threads: usize,
    work: impl Fn() -> F + Clone + Send + 'static,
) -> Row
where
    F: Future<Output = f64>,
{
    let mut row = Row::new(name, "ms", goal).against("TLS handshake");
    let handshakes = effort.count(SET_UPS);
    effort
        .by_turns(
            async || on_threads(threads, work.clone()).await,
            async || cpu_of_handshakes(handshakes),
            |ours, handshake| row.push(ours, handshake),
        )
        .await;
    row
}

/// Does it on so many threads of its own, which go on until it is done: what they took is counted.
async fn on_threads<F>(threads: usize, work: impl FnOnce() -> F + Send + 'static) -> f64
where
    F: Future<Output = f64>,
{
    let (told, took) = oneshot::channel();
    std::thread::spawn(move || {
        let mut builder = match threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        // The one that waits here is the other one.
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        // Whoever waits for it is there as long as it takes.
        let _ = told.send(runtime.block_on(work()));
    });
    took.await.expect("it comes to an end")
}

/// Milliseconds for as many requests and answers as there are in an in-band set-up, with what tokio-xmpp and the XML take on
/// their way. Nothing is negotiated.
async fn cpu_of_stanzas(count: usize) -> f64 {
    let mock = Mock::start();
    let bot = |account| bots::bot(account, mock_server::PASSWORD, mock.connector(), ibb_config());
    let (romeo, juliet) = tokio::join!(bot(bots::ROMEO), bot(bots::JULIET));
    let to = Jid::from(bots::address(&juliet));
    let before = cpu::used(mock::THREADS);
    for _ in 0..count * IQS {
        let question = IqRequest::Get(Element::bare("query", ns::DISCO_INFO));
        romeo.send_iq(Some(to.clone()), question).await.expect("an answer");
    }
    let took = cpu::since(before, mock::THREADS);
    futures::future::join_all([romeo.close(), juliet.close()]).await;
    took.as_secs_f64() * 1e3 / count as f64
}

/// Milliseconds each.
async fn cpu_of_set_ups(config: fn() -> Config, count: usize) -> f64 {
    let mock = Mock::start();
    let bot = |account| bots::bot(account, mock_server::PASSWORD, mock.connector(), config());
    let (romeo, juliet) = tokio::join!(bot(bots::ROMEO), bot(bots::JULIET));
    meet(&romeo, &juliet).await;
    let before = (Instant::now(), cpu::used(mock::THREADS));
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(bots::streams(&romeo, &juliet).await);
    }
    tokio::time::sleep(CALM).await;
    let (lasted, busy) = (before.0.elapsed(), cpu::since(before.1, mock::THREADS));
    let idle = idle_share(CALM).await;
    drop(streams);
    futures::future::join_all([romeo.close(), juliet.close()]).await;
    (busy.as_secs_f64() - idle * lasted.as_secs_f64()) * 1e3 / count as f64
}

/// The share of a core that is taken while nothing happens.
async fn idle_share(during: Duration) -> f64 {
    let before = cpu::used(mock::THREADS);
    tokio::time::sleep(during).await;
    cpu::since(before, mock::THREADS).as_secs_f64() / during.as_secs_f64()
}

/// Milliseconds each, both ends together.
fn cpu_of_handshakes(count: usize) -> f64 {
    let configs = Configs::generate();
    let before = cpu::used(mock::THREADS);
    (0..count).for_each(|_| configs.handshake());
    cpu::since(before, mock::THREADS).as_secs_f64() * 1e3 / count as f64
}

fn ibb_config() -> Config {
    bots::config().transports(Transports::Ibb)
}

fn fast_config() -> Config {
    bots::config().start(Start::Fast)
}
