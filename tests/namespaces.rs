//! Two bots on two machines with a server between them, as network namespaces: what can't be reached really can't.
//!
//! ```text
//!   10.247.1.2 ─── 10.247.1.1 ┌────────────┐ 10.247.2.1 ─── 10.247.2.2
//!     romeo                   │ 10.247.0.1 │                  juliet
//!                             └────────────┘
//!                            Prosody, its proxy
//! ```
//!
//! Each bot is this program again, run by `ip netns exec` with nothing but its test `child`. Where no namespaces can be
//! made (that takes root and `ip`), nothing is tested, and says so. Without `prosody` in PATH likewise; with CI=true
//! that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/prosody.rs"]
mod server;
mod support;

use std::{
    env,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use jid::FullJid;
use jingle_xmlstream::{
    CandidateType, Config, Connector, E2eStream, Endpoint, Identity, Start, TransportInfo, Trust,
};
use server::{Backend, Kind, PASSWORD, Place, Prosody};
use support::{JULIET, ROMEO, body, jid, message, within};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr},
};

/// The server's, on its loopback interface, which is there whichever way one comes.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 247, 0, 1);

// ---- namespaces ------------------------------------------------------------------------------

/// What is between the bots, apart from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// A cable.
    Cable,
    /// Nothing, and the system knows.
    Nothing,
    /// Something where every packet vanishes.
    BlackHole,
}

/// Three namespaces. Dropping it removes them.
struct Network {
    /// Of their names.
    prefix: String,
}

impl Network {
    /// `None` if this machine does not let us make any.
    fn new(between: Between) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self { prefix: format!("jingle-{}-{number}", std::process::id()) };
        if let Err(why) = network.try_make() {
            println!("SKIPPED: no network namespaces can be made here: {why}");
            return None;
        }
        network.set_up(between);
        Some(network)
    }

    fn name(&self, who: &str) -> String {
        format!("{}-{who}", self.prefix)
    }

    fn try_make(&self) -> Result<(), String> {
        for who in ["server", "romeo", "juliet"] {
            ip(&["netns", "add", &self.name(who)])?;
        }
        self.connect("server", "romeo", "romeo", "server")?;
        self.connect("server", "juliet", "juliet", "server")
    }

    /// A cable between interfaces of these names.
    fn connect(&self, one: &str, interface: &str, other: &str, interface_there: &str) -> Result<(), String> {
        let (one, other) = (self.name(one), self.name(other));
        let here = ["link", "add", interface, "netns", &one, "type", "veth"];
        let there = ["peer", "name", interface_there, "netns", &other];
        ip(&[&here[..], &there[..]].concat())
    }

    fn set_up(&self, between: Between) {
        self.bring_up("server", "lo", "10.247.0.1/32");
        for (who, subnet) in [("romeo", 1), ("juliet", 2)] {
            let gateway = format!("10.247.{subnet}.1");
            self.bring_up("server", who, &format!("{gateway}/24"));
            self.bring_up(who, "lo", "127.0.0.1/8");
            self.bring_up(who, "server", &format!("10.247.{subnet}.2/24"));
            self.within(who, &["route", "add", "10.247.0.1", "via", &gateway]);
            if between == Between::BlackHole {
                // A gateway with the address of a card that nobody has.
                let hole = format!("10.247.{subnet}.9");
                let card = ["lladdr", "02:00:00:00:00:09", "dev", "server"];
                self.within(who, &[&["neigh", "add", &hole][..], &card[..]].concat());
                self.within(who, &["route", "add", "default", "via", &hole]);
            }
        }
        if between == Between::Cable {
            self.connect("romeo", "cable", "juliet", "cable").unwrap();
            self.bring_up("romeo", "cable", "10.247.3.1/24");
            self.bring_up("juliet", "cable", "10.247.3.2/24");
        }
    }

    fn bring_up(&self, who: &str, interface: &str, address: &str) {
        // The loopback interface may have its address.
        if (interface, address) != ("lo", "127.0.0.1/8") {
            self.within(who, &["address", "add", address, "dev", interface]);
        }
        self.within(who, &["link", "set", interface, "up"]);
    }

    fn within(&self, who: &str, arguments: &[&str]) {
        let name = self.name(who);
        ip(&[&["-n", &name][..], arguments].concat()).unwrap();
    }

    /// What a command begins with that runs there.
    fn prefix(&self, who: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.name(who)].map(str::to_owned).to_vec()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for who in ["romeo", "juliet", "server"] {
            // It may not have been made.
            let _ = ip(&["netns", "delete", &self.name(who)]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`ip`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

// ---- bots in them ----------------------------------------------------------------------------

/// What a bot is told, by environment variables.
const ROLE: &str = "JINGLE_CHILD_ROLE";
const ADDRESS: &str = "JINGLE_CHILD_SERVER";
const START: &str = "JINGLE_CHILD_START";

/// What it tells, on its standard error.
const TELLS: &str = "child tells: ";

/// A process in a namespace. Dropping it kills it.
struct Bot {
    who: &'static str,
    process: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Bot {
    fn start(who: &'static str, verona: &Verona, start: &str) -> Self {
        let program = env::current_exe().unwrap();
        let prefix = verona.network.prefix(who);
        let (first, others) = prefix.split_first().unwrap();
        let (address, port) = verona.prosody.address();
        let mut process = tokio::process::Command::new(first)
            .args(others)
            .arg(program)
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(ROLE, who)
            .env(ADDRESS, format!("{address}:{port}"))
            .env(START, start)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { who, process, lines }
    }

    /// The next thing that it tells.
    async fn tells(&mut self) -> String {
        while let Some(line) = within(self.lines.next_line()).await.unwrap() {
            if let Some(told) = line.strip_prefix(TELLS) {
                return told.to_owned();
            }
            println!("{}: {line}", self.who);
        }
        panic!("{} ended early", self.who);
    }

    async fn ends_well(mut self) {
        while let Some(line) = within(self.lines.next_line()).await.unwrap() {
            println!("{}: {line}", self.who);
        }
        assert!(within(self.process.wait()).await.unwrap().success(), "{} failed", self.who);
    }
}

fn tell(what: &str) {
    eprintln!("{TELLS}{what}");
}

/// The bot that this program is when it was started as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of the other tests"]
async fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let (host, port) =
        env::var(ADDRESS).unwrap().split_once(':').map(|(h, p)| (h.to_owned(), p.parse())).unwrap();
    let mut connector = Connector::starttls().server(host, port.unwrap());
    connector.dangerous().accept_any_certificate();
    let start = if env::var(START).unwrap() == "fast" { Start::Fast } else { Start::Best };
    // Everything else as it is.
    let config = Config::new(Identity::generate().unwrap(), Trust::first_use()).start(start);
    let own = if role == "romeo" { ROMEO } else { JULIET };
    let (endpoint, events) = Endpoint::login(jid::<FullJid>(own), PASSWORD, connector, config);
    tokio::spawn(events.for_each(|_| async {}));
    within(endpoint.online()).await.unwrap();
    tell("online");
    if role == "romeo" {
        speak(&endpoint, start).await
    } else {
        echo(&endpoint).await
    }
    endpoint.close().await;
}

async fn speak(endpoint: &Endpoint, start: Start) {
    let mut stream = within(endpoint.connect(&jid(JULIET))).await.unwrap();
    tell(way(&stream.transport().unwrap()));
    if start == Start::Fast {
        ask(&mut stream).await;
        let moved = within(stream.moves().next()).await.unwrap();
        tell(way(&moved));
    }
    for _ in 0..100 {
        ask(&mut stream).await;
    }
    within(stream.close()).await.unwrap();
    tell("closed");
}

/// Something that a proxy can hold back the end of.
async fn ask(stream: &mut E2eStream) {
    let text = "Wherefore art thou Romeo? ".repeat(230);
    within(stream.send(message(&text))).await.unwrap();
    assert_eq!(body(&within(stream.next()).await.unwrap().unwrap()), text);
}

async fn echo(endpoint: &Endpoint) {
    let mut stream = within(endpoint.accept()).await.unwrap().accept().await.unwrap();
    while let Some(stanza) = within(stream.next()).await {
        stream.send(message(&body(&stanza.unwrap()))).await.unwrap();
    }
    stream.close().await.unwrap();
}

/// `ibb`, `direct` or `proxy`.
fn way(transport: &TransportInfo) -> &'static str {
    transport.candidate().map_or(transport.method(), CandidateType::name)
}

// ---- what becomes of it ----------------------------------------------------------------------

struct Verona {
    // Ends before its namespace.
    prosody: Prosody,
    network: Network,
}

impl Verona {
    async fn start(between: Between, kind: Kind) -> Option<Self> {
        let network = Network::new(between)?;
        let place = || Place { prefix: network.prefix("server"), address: SERVER };
        let prosody = Prosody::start_at(kind, place).await?;
        Some(Self { prosody, network })
    }
}

/// The ways that a stream takes, one after the other, and how long it took until each.
async fn ways(between: Between, kind: Kind, start: &str) -> Option<Vec<(String, Duration)>> {
    let verona = Verona::start(between, kind).await?;
    let mut juliet = Bot::start("juliet", &verona, start);
    assert_eq!(juliet.tells().await, "online");
    let mut romeo = Bot::start("romeo", &verona, start);
    assert_eq!(romeo.tells().await, "online");
    let begun = Instant::now();
    let mut ways = Vec::new();
    loop {
        let told = romeo.tells().await;
        println!("{between:?} between, {kind:?}, {start}: {told} after {:?}", begun.elapsed());
        if told == "closed" {
            break;
        }
        ways.push((told, begun.elapsed()));
    }
    tokio::join!(romeo.ends_well(), juliet.ends_well());
    Some(ways)
}

const PROXY: Kind = Kind::Proxy65(Backend::Epoll);

/// Nobody has to wait for a deadline.
const SOON: Duration = Duration::from_secs(5);

/// One deadline of 5 s passes.
const AFTER_THE_DEADLINE: Duration = Duration::from_secs(10);

#[track_caller]
fn assert_ways(ways: &[(String, Duration)], expected: &[&str], limit: Duration) {
    assert_eq!(ways.iter().map(|(way, _)| way.as_str()).collect::<Vec<_>>(), expected);
    assert!(ways.iter().all(|(_, after)| *after < limit), "{ways:?}");
}

#[tokio::test]
async fn with_a_cable_between_the_bots_the_stream_is_direct() {
    let Some(ways) = ways(Between::Cable, PROXY, "best").await else { return };
    assert_ways(&ways, &["direct"], SOON);
}

#[tokio::test]
async fn without_a_route_the_stream_goes_through_the_proxy_soon() {
    let Some(ways) = ways(Between::Nothing, PROXY, "best").await else { return };
    assert_ways(&ways, &["proxy"], SOON);
}

#[tokio::test]
async fn without_a_route_and_without_a_proxy_the_stream_is_in_band_soon() {
    let Some(ways) = ways(Between::Nothing, Kind::Unlimited, "best").await else { return };
    assert_ways(&ways, &["ibb"], SOON);
}

/// Nothing but its deadline says that an attempt to connect has failed, and a direct connection would be better.
#[tokio::test]
async fn where_packets_vanish_the_stream_goes_through_the_proxy_after_the_deadline() {
    let Some(ways) = ways(Between::BlackHole, PROXY, "best").await else { return };
    assert_ways(&ways, &["proxy"], AFTER_THE_DEADLINE);
}

#[tokio::test]
async fn where_packets_vanish_and_without_a_proxy_the_stream_is_in_band_after_the_deadline() {
    let Some(ways) = ways(Between::BlackHole, Kind::Unlimited, "best").await else { return };
    assert_ways(&ways, &["ibb"], AFTER_THE_DEADLINE);
}

#[tokio::test]
async fn where_packets_vanish_a_stream_that_starts_in_band_does_so_at_once_and_moves_to_the_proxy() {
    let Some(ways) = ways(Between::BlackHole, PROXY, "fast").await else { return };
    assert_ways(&ways[..1], &["ibb"], SOON);
    assert_ways(&ways, &["ibb", "proxy"], AFTER_THE_DEADLINE);
}
