//! Bots of the library, and what they say.

use std::net::Ipv4Addr;

use futures::{SinkExt, StreamExt};
use jid::{FullJid, Jid};
use jingle_xmlstream::{
    Callers, Candidates, Config, Connector, E2eStream, Endpoint, Identity, Limits, S5bConfig, Transports,
    Trust,
};
use xmpp_parsers::{message::Message, stanza::Stanza};

/// The account that initiates.
pub const ROMEO: &str = "romeo@montague.lit";
/// The account that responds.
pub const JULIET: &str = "juliet@capulet.lit";

/// Sessions that an endpoint may have, for benchmarks of many.
const SESSIONS: usize = 4096;

/// Everything as usual, with a certificate of its own, but for more sessions from one peer than are usual.
///
/// # Panics
///
/// If the system has no randomness.
#[must_use]
pub fn config() -> Config {
    let mut limits = Limits::default();
    limits.sessions = SESSIONS;
    limits.sessions_per_peer = SESSIONS;
    Config::new(Identity::generate().expect("randomness"), Trust::first_use())
        .limits(limits)
        .callers(Callers::default())
        .s5b(s5b(Candidates::All))
}

/// SOCKS5 bytestreams on loopback.
#[must_use]
pub fn s5b(candidates: Candidates) -> S5bConfig {
    let mut s5b = S5bConfig::default();
    s5b.bind = vec![Ipv4Addr::LOCALHOST.into()];
    s5b.candidates = candidates;
    s5b
}

/// Streams that are direct, or are none.
#[must_use]
pub fn direct_config() -> Config {
    config().transports(Transports::S5b)
}

/// A bot that is online, and whose events are thrown away.
///
/// # Panics
///
/// If it can't log in.
pub async fn bot(account: &str, password: &str, connector: Connector, config: Config) -> Endpoint {
    let jid: Jid = account.parse().expect("an address");
    let (endpoint, events) = Endpoint::login(jid, password, connector, config);
    tokio::spawn(events.for_each(|_| async {}));
    endpoint.online().await.expect("the server takes the bot");
    endpoint
}

/// The address of a bot that is online.
///
/// # Panics
///
/// If it is not.
#[must_use]
pub fn address(bot: &Endpoint) -> FullJid {
    bot.jid().expect("the bot is online")
}

/// Both ends of a new stream, the initiator's first.
///
/// # Panics
///
/// If there is none.
pub async fn streams(initiator: &Endpoint, responder: &Endpoint) -> (E2eStream, E2eStream) {
    let connecting = initiator.connect(&address(responder));
    let accepting = async {
        let incoming = responder.accept().await.expect("the endpoint is open");
        incoming.accept().await.expect("a stream, at the responder")
    };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    (connected.expect("a stream, at the initiator"), accepted)
}

/// A chat message with a body of so many bytes.
#[must_use]
pub fn message(bytes: usize) -> Message {
    // Text as people write it: mostly letters, some that need an escape or two bytes.
    const TEXT: &str =
        "But soft, what light through yonder window breaks? It is the East & Juliet is the Sun, \u{e9}. ";
    let mut body: String = TEXT.chars().cycle().take(bytes).collect();
    while body.len() > bytes {
        body.pop();
    }
    body.extend(std::iter::repeat_n('.', bytes - body.len()));
    Message::chat(None).with_body("".into(), body)
}

/// Sends so many copies, without waiting for each to be written.
///
/// # Panics
///
/// If the stream ends.
pub async fn send(sender: &mut (impl futures::Sink<Stanza> + Unpin), message: &Message, count: usize) {
    let mut all = futures::stream::iter((0..count).map(|_| Ok(message.clone().into())));
    assert!(sender.send_all(&mut all).await.is_ok(), "the stream ended while it was sent on");
}

/// Takes so many stanzas.
///
/// # Panics
///
/// If the stream ends before.
pub async fn receive<E: std::fmt::Debug>(
    receiver: &mut (impl futures::Stream<Item = Result<Stanza, E>> + Unpin),
    count: usize,
) {
    for _ in 0..count {
        receiver.next().await.expect("a stream that goes on").expect("a stanza");
    }
}
