//! Two bots on a mock server, and ladders to compare.
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(dead_code, reason = "each test uses a part of it")]

use futures::StreamExt;
use jid::Jid;
use jingle_xmlstream::{Config, Connector, E2eStream, Endpoint, Events, Identity, Trust};
use mock_server::MockServer;
use xmpp_parsers::{message::Message, stanza::Stanza};

pub const ROMEO: &str = "romeo@montague.lit/orchard";
pub const JULIET: &str = "juliet@capulet.lit/balcony";

/// A server with two accounts.
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
        endpoint.online().await.unwrap();
        (endpoint, events)
    }

    pub async fn pair(&self, romeos: Trust, juliets: Trust) -> (Endpoint, Endpoint) {
        let romeo = self.bot(ROMEO, Config::new(Identity::generate().unwrap(), romeos)).await;
        let juliet = self.bot(JULIET, Config::new(Identity::generate().unwrap(), juliets)).await;
        (romeo, juliet)
    }

    /// What passed between the two, without the data of bytestreams.
    pub fn ladder_without_data(&self) -> Vec<String> {
        let ladder = self.server.ladder(&ROMEO.parse().unwrap(), &JULIET.parse().unwrap());
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
}

/// Both ends of one stream.
pub async fn streams(initiator: &Endpoint, responder: &Endpoint) -> (E2eStream, E2eStream) {
    let peer = responder.jid().unwrap();
    let (connected, accepted) =
        tokio::join!(initiator.connect(&peer), async { responder.accept().await.unwrap().accept().await });
    (connected.unwrap(), accepted.unwrap())
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

/// Compares two ladders, ignoring the order of what goes in opposite directions at the same time.
pub fn assert_ladder(got: &[String], expected: &[&str]) {
    for who in ["romeo>", "juliet>"] {
        let got: Vec<_> = got.iter().map(String::as_str).filter(|line| line.starts_with(who)).collect();
        let expected: Vec<_> = expected.iter().copied().filter(|line| line.starts_with(who)).collect();
        assert_eq!(got, expected);
    }
}
