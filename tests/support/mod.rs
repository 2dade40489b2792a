//! Bots on a mock server, and ladders to compare.
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that panics has failed, as it should"
)]

pub mod impostor;
pub mod mallory;
pub mod outages;
pub mod s5b;
pub mod verona;
pub mod virtual_world;
pub mod wire;
pub mod wires;

use std::{fmt::Debug, net::Ipv4Addr, panic::Location, time::Duration};

use futures::{SinkExt, StreamExt};
use jid::Jid;
use jingle_xmlstream::{
    Config, Connector, E2eStream, Endpoint, Error, Events, Identity, Limits, S5bConfig, Timeouts, Transports,
    Trust,
};
use mock_server::{MockServer, Recorded};
use tokio_xmpp::Event;
use xmpp_parsers::{message::Message, minidom::Element, stanza::Stanza};

pub const ROMEO: &str = "romeo@montague.lit/orchard";
pub const JULIET: &str = "juliet@capulet.lit/balcony";

/// Far more than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bounds a step, so that a test that hangs fails and names the line.
#[track_caller]
pub fn within<F: Future>(step: F) -> impl Future<Output = F::Output> {
    let line = Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(output) => output,
            Err(_) => panic!("nothing happened for {PATIENCE:?} at {line}"),
        }
    }
}

pub fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A bot's settings: a certificate of its own, trust on first use, in-band bytestreams.
pub fn config() -> Config {
    config_with(Trust::first_use())
}

pub fn config_with(trust: Trust) -> Config {
    in_band(Config::new(Identity::generate().unwrap(), trust))
}

pub fn in_band(config: Config) -> Config {
    config.transports(Transports::Ibb)
}

/// With SOCKS5 bytestreams, on loopback alone.
pub fn s5b_config() -> Config {
    config().transports(Transports::Auto).s5b(s5b(|_| {}))
}

/// SOCKS5 bytestreams on loopback, with changes.
pub fn s5b(change: impl FnOnce(&mut S5bConfig)) -> S5bConfig {
    let mut s5b = S5bConfig::default();
    s5b.bind = vec![Ipv4Addr::LOCALHOST.into()];
    change(&mut s5b);
    s5b
}

pub fn plaintext_allowed(mut config: Config) -> Config {
    config.dangerous().allow_plaintext();
    config
}

/// The default deadlines with changes.
pub fn timeouts(change: impl FnOnce(&mut Timeouts)) -> Timeouts {
    let mut timeouts = Timeouts::default();
    change(&mut timeouts);
    timeouts
}

/// The default bounds with changes.
pub fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

pub fn jid<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A server on which every account exists.
pub struct World {
    pub server: MockServer,
}

impl World {
    pub async fn start() -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        Self { server: MockServer::start().await }
    }

    pub fn connector(&self) -> Connector {
        let address = self.server.addr();
        let mut connector = Connector::default().server(address.ip().to_string(), address.port());
        connector.dangerous().plaintext();
        connector
    }

    /// A bot, online, whose events are thrown away.
    pub async fn bot(&self, jid: &str, config: Config) -> Endpoint {
        let (endpoint, events) = self.bot_with_events(jid, config).await;
        tokio::spawn(events.for_each(|_| async {}));
        endpoint
    }

    pub async fn bot_with_events(&self, jid: &str, config: Config) -> (Endpoint, Events) {
        let jid: Jid = jid.parse().unwrap();
        let (endpoint, events) = Endpoint::login(jid, mock_server::PASSWORD, self.connector(), config);
        within(endpoint.online()).await.unwrap();
        (endpoint, events)
    }

    pub async fn pair(&self, romeos: Trust, juliets: Trust) -> (Endpoint, Endpoint) {
        self.pair_of(config_with(romeos), config_with(juliets)).await
    }

    pub async fn pair_of(&self, romeos: Config, juliets: Config) -> (Endpoint, Endpoint) {
        (self.bot(ROMEO, romeos).await, self.bot(JULIET, juliets).await)
    }

    /// Romeo and Juliet with everything as usual.
    pub async fn usual_pair(&self) -> (Endpoint, Endpoint) {
        self.pair_of(config(), config()).await
    }

    /// What passed between Romeo and Juliet, without the data of bytestreams.
    pub fn ladder_without_data(&self) -> Vec<String> {
        self.ladder_between(ROMEO, JULIET)
    }

    pub fn ladder_between(&self, one: &str, other: &str) -> Vec<String> {
        let ladder = self.server.ladder(&jid(one), &jid(other));
        let short = |line: String| {
            let (who, what) = line.split_once("  ").unwrap();
            format!("{}> {what}", who.split('@').next().unwrap())
        };
        ladder
            .into_iter()
            .map(short)
            .filter(|line| !line.contains("ibb data") && !line.contains("> presence"))
            .collect()
    }

    /// Waits until this line is in the ladder.
    #[track_caller]
    pub fn wait_for(&self, line: &str) -> impl Future<Output = ()> {
        self.wait_for_times(1, line)
    }

    #[track_caller]
    pub fn wait_for_times(&self, times: usize, line: &str) -> impl Future<Output = ()> {
        let mut recorded = self.server.subscribe();
        within(async move {
            while self.ladder_without_data().iter().filter(|known| *known == line).count() < times {
                // One that was missed is in the ladder all the same.
                let _ = recorded.recv().await;
            }
        })
    }

    /// How often this line is in the ladder.
    pub fn count(&self, line: &str) -> usize {
        self.ladder_without_data().iter().filter(|known| *known == line).count()
    }

    /// The first stanza of this name, such as `iq set jingle session-initiate`.
    pub fn recorded(&self, name: &str) -> Recorded {
        let record = self.server.record();
        record.into_iter().find(|recorded| *recorded.name == *name).unwrap_or_else(|| panic!("no {name}"))
    }
}

/// Both ends of one stream.
#[track_caller]
pub fn streams(
    initiator: &Endpoint,
    responder: &Endpoint,
) -> impl Future<Output = (E2eStream, E2eStream)> + use<> {
    let both = attempt(initiator, responder);
    async move {
        let (connected, accepted) = both.await;
        (connected.unwrap(), accepted.unwrap())
    }
}

/// What becomes of it where the responder accepts whatever it gets.
#[track_caller]
pub fn attempt(
    initiator: &Endpoint,
    responder: &Endpoint,
) -> impl Future<Output = (Result<E2eStream, Error>, Result<E2eStream, Error>)> + use<> {
    let peer = responder.jid().unwrap();
    let connecting = initiator.connect(&peer);
    let responder = responder.clone();
    within(
        async move { tokio::join!(connecting, async { responder.accept().await.unwrap().accept().await }) },
    )
}

/// One message there and one back: the stream is sound.
pub async fn talk(one: &mut E2eStream, other: &mut E2eStream) {
    within(async {
        one.send(message("Wherefore art thou Romeo?")).await.unwrap();
        assert_eq!(body(&other.next().await.unwrap().unwrap()), "Wherefore art thou Romeo?");
        other.send(message("Shall I hear more?")).await.unwrap();
        assert_eq!(body(&one.next().await.unwrap().unwrap()), "Shall I hear more?");
    })
    .await;
}

pub fn message(body: &str) -> Stanza {
    Message::new(None).with_body("".into(), body.into()).into()
}

pub fn body(stanza: &Stanza) -> String {
    match stanza {
        Stanza::Message(message) => {
            message.get_best_body(vec![]).map(|(_, body)| body.clone()).unwrap_or_default()
        }
        other => panic!("not a message: {other:?}"),
    }
}

pub fn element(xml: &str) -> Element {
    xml.parse().unwrap()
}

/// Compares two ladders, ignoring the order of what goes in opposite directions at the same time.
#[track_caller]
pub fn assert_ladder(got: &[String], expected: &[&str]) {
    for who in ["romeo>", "juliet>"] {
        let got: Vec<_> = got.iter().map(String::as_str).filter(|line| line.starts_with(who)).collect();
        let expected: Vec<_> = expected.iter().copied().filter(|line| line.starts_with(who)).collect();
        assert_eq!(got, expected);
    }
}

/// The next event that is a stanza.
pub async fn next_stanza(events: &mut Events) -> Stanza {
    loop {
        match within(events.next()).await {
            Some(Event::Stanza(stanza)) => return stanza,
            Some(Event::Online { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Asserts that an expression has this shape, and shows it if not.
#[macro_export]
macro_rules! assert_shape {
    ($value:expr, $pattern:pat $(if $guard:expr)?) => {{
        let value = $value;
        assert!(matches!(&value, $pattern $(if $guard)?), "{value:?}");
    }};
}
