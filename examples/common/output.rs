//! What the programs say: sentences for people, or a JSON object a line for programs.

use std::{
    future::ready,
    io::{self, Write},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use futures::{
    StreamExt,
    future::{Either, select},
    stream,
};
use jid::FullJid;
use jingle_xmlstream::{
    CandidateType, E2eStream, Error, Fingerprint, Level, Moves, Peer, Reason, StreamEvent, StreamEvents,
    StreamInfo, TransportInfo, Undelivered,
    security::{PeerEvent, TlsInfo, Verification, VerificationCode},
};
use serde_json::{Value, json};
use xmpp_parsers::{iq::Iq, stanza::Stanza};

use super::{
    body,
    failure::{self, Failure},
    progress,
};

/// Longer bodies are cut for people, and left out for programs, which get their length.
const SHOWN: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Human,
    Json,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    In,
    Out,
}

impl Output {
    pub(crate) fn online(self, jid: &FullJid, own: &Fingerprint) {
        self.line(json!({ "event": "online", "jid": text(jid), "own_fingerprint": text(own) }), || {
            format!("online as {jid}\n  our certificate  {own}")
        });
    }

    pub(crate) fn incoming(self, peer: &FullJid, announced: Option<&[Fingerprint]>) {
        let announced: Vec<_> = announced.unwrap_or_default().iter().map(text).collect();
        self.line(json!({ "event": "incoming", "peer": text(peer), "fingerprints": announced }), || {
            match announced.as_slice() {
                // STARTTLS on the stream may come, or nothing; `negotiated` says which.
                [] => format!("{peer} offers a stream without XTLS, and so announces no certificate"),
                _ => format!("{peer} offers a stream, with the certificate {}", announced.join(" or ")),
            }
        });
    }

    pub(crate) fn negotiated(self, peer: &FullJid, stream: &E2eStream) {
        let info = stream.info();
        // Without Jingle there is no stream here.
        let Some(negotiated) = &info.negotiated else { return };
        let tls = info.tls.as_ref();
        let mut event = json!({
            "event": "negotiated",
            "peer": text(peer),
            "tls_version": tls.map(TlsInfo::version),
            "cipher": tls.map(TlsInfo::cipher_suite),
            "key_exchange": tls.map(TlsInfo::key_exchange),
            "peer_fingerprint": tls.map(TlsInfo::peer_fingerprint).map(text),
            "own_fingerprint": tls.map(TlsInfo::own_fingerprint).map(text),
            "fallback": negotiated.fallback.as_ref().map(text),
        });
        add_transport(&mut event, &negotiated.transport);
        self.line(event, || format!("negotiated with {peer}\n{}", describe(stream)));
        self.peer(peer, &stream.peer());
    }

    /// Who the peer is, and what shows it.
    pub(crate) fn peer(self, address: &FullJid, peer: &Peer) {
        let event = json!({
            "event": "peer",
            "peer": text(address),
            "fingerprint": peer.fingerprint().map(text),
            "level": peer.level().map(Level::name),
            "verification": peer.verification().map(Verification::name),
        });
        // People read it in what was negotiated.
        if self == Self::Json {
            say(&event.to_string());
        }
    }

    /// The code that both sides can compare.
    pub(crate) fn code(self, peer: &Peer, code: &VerificationCode) {
        let address = peer.jid().map(text);
        self.line(json!({ "event": "code", "peer": address, "code": text(code) }), || {
            format!("the code to compare with {}: {code}", address.as_deref().unwrap_or("the peer"))
        });
    }

    /// Something happened to what is known of a peer.
    pub(crate) fn peer_event(self, event: &PeerEvent) {
        let (name, peer, said) = match event {
            PeerEvent::FirstUse { peer, certificate } => {
                let said = format!(
                    "was never seen before; its certificate {} is believed",
                    certificate.fingerprint()
                );
                ("first_use", peer, said)
            }
            PeerEvent::Verified { peer, verification, .. } => {
                ("verified", peer, format!("is verified: {verification}"))
            }
            PeerEvent::Renewed { peer, certificate } => (
                "renewed",
                peer,
                format!("has a new certificate with the same key, {}", certificate.fingerprint()),
            ),
            PeerEvent::Refused { peer, error } => ("refused", peer, format!("was refused: {error}")),
            _ => return,
        };
        self.line(json!({ "event": "known_peer", "what": name, "peer": text(peer), "text": said }), || {
            format!("{peer} {said}")
        });
    }

    /// There is nobody to ask.
    pub(crate) fn no_terminal(self, error: &io::Error) {
        eprintln!("nobody can be asked about the peer, so it is refused: there is no terminal ({error})");
    }

    pub(crate) fn stream_open(self, peer: &FullJid, info: &StreamInfo) {
        self.line(json!({ "event": "stream_open", "peer": text(peer), "id": info.id }), || {
            format!("the stream with {peer} is open")
        });
    }

    /// Does the work, and tells meanwhile what carries the stream, and when nothing does.
    pub(crate) async fn telling<T>(
        self,
        peer: &FullJid,
        (moves, events): (Moves, StreamEvents),
        work: impl Future<Output = T>,
    ) -> T {
        let moves = moves.map(Change::Moved);
        let telling = stream::select(moves, events.map(Change::Event)).for_each(|change| {
            match change {
                Change::Moved(transport) => self.moved(peer, &transport),
                Change::Event(event) => self.stream_event(peer, &event),
            }
            ready(())
        });
        match select(pin!(work), pin!(telling)).await {
            Either::Left((done, _)) => done,
            Either::Right(((), work)) => work.await,
        }
    }

    fn moved(self, peer: &FullJid, transport: &TransportInfo) {
        let mut event = json!({ "event": "moved", "peer": text(peer) });
        add_transport(&mut event, transport);
        self.line(event, || format!("the stream with {peer} moved to {transport}"));
    }

    fn stream_event(self, peer: &FullJid, event: &StreamEvent) {
        match event {
            StreamEvent::Suspended(error) => self.suspended(peer, error),
            StreamEvent::Resumed(transport) => self.resumed(peer, transport.as_ref()),
            StreamEvent::Renewed { transport, undelivered, .. } => {
                self.renewed(peer, transport.as_ref(), undelivered);
            }
            _ => {}
        }
    }

    fn suspended(self, peer: &FullJid, error: &Error) {
        let (kind, said) = (failure::kind(error), error.to_string());
        self.line(json!({ "event": "suspended", "peer": text(peer), "kind": kind, "text": said }), || {
            format!("the stream with {peer} waits for another way: {said}")
        });
    }

    fn resumed(self, peer: &FullJid, transport: Option<&TransportInfo>) {
        let mut event = json!({ "event": "resumed", "peer": text(peer) });
        add_carrier(&mut event, transport);
        self.line(event, || format!("the stream with {peer} goes on{}", over(transport)));
    }

    fn renewed(self, peer: &FullJid, transport: Option<&TransportInfo>, undelivered: &Undelivered) {
        let mut event = json!({ "event": "renewed", "peer": text(peer), "undelivered": range(undelivered) });
        add_carrier(&mut event, transport);
        self.line(event, || {
            format!(
                "{peer} had forgotten the stream; a new one goes on{}{}",
                over(transport),
                not_delivered(undelivered)
            )
        });
    }

    pub(crate) fn stanza(self, direction: Direction, peer: &FullJid, stanza: &Stanza) {
        let event = match direction {
            Direction::In => "stanza_in",
            Direction::Out => "stanza_out",
        };
        let (kind, id, body) = parts(stanza);
        let event = json!({
            "event": event,
            "peer": text(peer),
            "stanza": kind,
            "id": id,
            "body": body.filter(|body| body.len() <= SHOWN),
            "body_bytes": body.map(str::len),
        });
        self.line(event, || {
            let arrow = match direction {
                Direction::In => "<-",
                Direction::Out => "->",
            };
            format!("{arrow} {peer}  {}", body.map_or_else(|| kind.to_owned(), shorten))
        });
    }

    pub(crate) fn stream_closed(self, peer: &FullJid) {
        self.line(json!({ "event": "stream_closed", "peer": text(peer) }), || {
            format!("the stream with {peer} is closed")
        });
    }

    pub(crate) fn terminated(self, peer: &FullJid, reason: &Reason) {
        self.line(json!({ "event": "terminated", "peer": text(peer), "reason": reason.name() }), || {
            format!("the session with {peer} is over: {reason}")
        });
    }

    pub(crate) fn failed(self, failure: &Failure) {
        let (said, undelivered) = (failure.to_string(), failure.undelivered());
        match self {
            Self::Human => eprintln!("error: {said}{}", undelivered.map(not_delivered).unwrap_or_default()),
            Self::Json => {
                let (kind, undelivered) = (failure.kind(), undelivered.map(range));
                let event =
                    json!({ "event": "error", "kind": kind, "text": said, "undelivered": undelivered });
                say(&event.to_string());
            }
        }
        if let (Failure::Stream { peer, .. }, Some(reason)) = (failure, failure.reason()) {
            self.terminated(peer, &reason);
        }
    }

    /// How many messages went out and came back.
    pub(crate) fn echoed(self, messages: u64, bytes: u64) {
        self.line(json!({ "event": "done", "messages": messages, "bytes": bytes }), || {
            format!("done: {messages} messages with {bytes} bytes came back")
        });
    }

    /// The same, and how fast they did.
    pub(crate) fn echoed_fast(self, messages: u64, bytes: u64, took: Duration) {
        let seconds = took.as_secs_f64();
        // Nothing takes less; it only keeps the division sane.
        let divisor = seconds.max(1e-6);
        let (per_second, megabytes) = (messages as f64 / divisor, bytes as f64 / 1e6 / divisor);
        let event = json!({
            "event": "done",
            "messages": messages,
            "bytes": bytes,
            "seconds": seconds,
            "messages_per_second": per_second,
            "megabytes_per_second": megabytes,
        });
        self.line(event, || {
            format!(
                "done: {messages} messages with {bytes} bytes, echoed in {seconds:.3} s: \
                 {per_second:.0} messages/s, {megabytes:.3} MB/s each way"
            )
        });
    }

    /// How many streams there were, and how many of them failed.
    pub(crate) fn served(self, streams: u64, failed: u64) {
        self.line(json!({ "event": "done", "streams": streams, "failed": failed }), || {
            format!("done: {streams} streams, {failed} of them failed")
        });
    }

    /// All streams have ended, and so has the session with the server.
    pub(crate) fn closed(self) {
        self.line(json!({ "event": "closed" }), || "all streams are closed".to_owned());
    }

    /// The last word of a program.
    pub(crate) fn finish(self, result: Result<(), Failure>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                self.failed(&failure);
                failure.exit_code()
            }
        }
    }

    fn line(self, event: Value, human: impl FnOnce() -> String) {
        match self {
            Self::Human => say(&human()),
            Self::Json => say(&event.to_string()),
        }
    }
}

/// What can happen to the way of a stream.
enum Change {
    Moved(TransportInfo),
    Event(StreamEvent),
}

/// Unlike `println!`, it does not mind if nobody listens any more (`| head`).
fn say(line: &str) {
    progress::beside(|| {
        let mut stdout = io::stdout().lock();
        let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    });
}

/// What was negotiated, for people.
pub(crate) fn describe(stream: &E2eStream) -> String {
    let info = stream.info();
    let Some(negotiated) = &info.negotiated else { return String::new() };
    let fallback = negotiated.fallback.as_ref().map(|error| format!("\n  no direct way    {error}"));
    let transport = format!("{}{}", negotiated.transport, fallback.unwrap_or_default());
    let Some(tls) = &info.tls else {
        return format!("  transport        {transport}\n  encryption       NONE");
    };
    format!(
        "  transport        {transport}\n  encryption       {}, {}, key exchange {}\n  \
         its certificate  {}\n  our certificate  {}\n  the peer is      {}",
        tls.version(),
        tls.cipher_suite(),
        tls.key_exchange(),
        tls.peer_fingerprint(),
        tls.own_fingerprint(),
        authenticity(&stream.peer()),
    )
}

/// What is known of who the peer is, for people.
fn authenticity(peer: &Peer) -> String {
    match (peer.level(), peer.verification()) {
        (Some(level), Some(verification)) => format!("{level} ({verification})"),
        _ => "NOT AUTHENTICATED".to_owned(),
    }
}

/// What carries the bytes, for programs. In-band bytestreams have no addresses of their own.
fn add_transport(event: &mut Value, transport: &TransportInfo) {
    let addresses = match transport {
        TransportInfo::S5b { local, remote, .. } => Some((local, remote)),
        _ => None,
    };
    event["transport"] = transport.method().into();
    event["candidate_type"] = transport.candidate().map(CandidateType::name).into();
    event["local"] = addresses.map(|(local, _)| text(local)).into();
    event["remote"] = addresses.map(|(_, remote)| text(remote)).into();
}

/// The same where there may be none.
fn add_carrier(event: &mut Value, transport: Option<&TransportInfo>) {
    match transport {
        Some(transport) => add_transport(event, transport),
        None => event["transport"] = Value::Null,
    }
}

fn over(transport: Option<&TransportInfo>) -> String {
    transport.map(|transport| format!(" over {transport}")).unwrap_or_default()
}

/// How much was not delivered, and from where to where, for programs.
fn range(undelivered: &Undelivered) -> Value {
    let stanzas = undelivered.stanzas();
    let id = |stanza: Option<&Stanza>| stanza.and_then(|stanza| parts(stanza).1.map(str::to_owned));
    json!({ "count": stanzas.len(), "first": id(stanzas.first()), "last": id(stanzas.last()) })
}

/// The same for people: the ids, because nobody wants to see a thousand bodies.
fn not_delivered(undelivered: &Undelivered) -> String {
    let id = |stanza: &Stanza| parts(stanza).1.unwrap_or("without id").to_owned();
    match undelivered.stanzas() {
        [] => String::new(),
        [one] => format!("\n  not acknowledged  {}", id(one)),
        [first, .., last] => {
            format!(
                "\n  not acknowledged  {} stanzas, from {} to {}",
                undelivered.stanzas().len(),
                id(first),
                id(last)
            )
        }
    }
}

fn parts(stanza: &Stanza) -> (&'static str, Option<&str>, Option<&str>) {
    match stanza {
        Stanza::Message(message) => ("message", message.id.as_ref().map(|id| id.0.as_str()), body(message)),
        Stanza::Presence(presence) => ("presence", presence.id.as_deref(), None),
        Stanza::Iq(Iq::Get { id, .. }) => ("iq get", Some(id), None),
        Stanza::Iq(Iq::Set { id, .. }) => ("iq set", Some(id), None),
        Stanza::Iq(Iq::Result { id, .. }) => ("iq result", Some(id), None),
        Stanza::Iq(Iq::Error { id, .. }) => ("iq error", Some(id), None),
    }
}

fn shorten(body: &str) -> String {
    match body.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}… ({} bytes)", body.get(..cut).unwrap_or_default(), body.len()),
        None => body.to_owned(),
    }
}

fn text(value: &impl ToString) -> String {
    value.to_string()
}
