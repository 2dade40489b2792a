//! Two machines in virtual time, and shorthands.

use std::time::{Duration, Instant};

use jid::Jid;
use xmpp_parsers::{
    message::{Lang, Message},
    stanza::Stanza,
    stream_error::DefinedCondition,
};

use crate::{
    Error, Limits, Timeouts,
    stream::{
        addressing::Introduction,
        decode::{Decoded, Decoder},
        machine::{Machine, Role, Setup, management::Plan},
        negotiation::Agenda,
        violation::Violation,
    },
};

pub(super) const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
pub(super) const FOOTER: &str = "</stream:stream>";
pub(super) const NONCE: &str = "c0ffee00c0ffee00c0ffee00c0ffee00";

pub(super) const ROMEO: &str = "romeo@montague.example/orchard";
pub(super) const JULIET: &str = "juliet@capulet.example/balcony";

/// A header with these attributes in place of a version.
pub(super) fn header_with(attributes: &str) -> String {
    HEADER.replace("version='1.0'>", &format!("{attributes}>"))
}

pub(super) fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

/// One end of a stream.
pub(super) struct Side {
    pub(super) machine: Machine,
    pub(super) decoder: Decoder,
    pub(super) now: Instant,
}

impl Side {
    pub(super) fn new(setup: Setup) -> Self {
        let (now, decoder) = (Instant::now(), Decoder::new(&setup.limits));
        Self { machine: Machine::new(now, setup), decoder, now }
    }

    /// Romeo initiates.
    pub(super) fn romeo() -> Self {
        Self::new(setup(Role::Initiator, Some(ROMEO), Some(JULIET)))
    }

    /// Juliet responds.
    pub(super) fn juliet() -> Self {
        Self::new(setup(Role::Responder, Some(JULIET), Some(ROMEO)))
    }

    /// A responder whose stream is open, with its part of the opening taken.
    pub(super) fn open() -> Self {
        Self::open_with(Self::juliet())
    }

    pub(super) fn open_with(mut side: Self) -> Self {
        side.reads(HEADER);
        assert!(side.machine.is_open());
        side.written();
        side
    }

    /// Reads bytes; returns what was left behind a footer, or behind a negotiation that came to its end.
    pub(super) fn reads(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut bytes = bytes.as_ref();
        loop {
            if self.machine.negotiated().is_some() {
                return bytes.to_vec();
            }
            match self.decoder.decode(&mut bytes) {
                Ok(None) => return bytes.to_vec(),
                Ok(Some(decoded)) => self.machine.handle(self.now, Ok(decoded)),
                Err(violation) => {
                    self.machine.handle(self.now, Err(violation));
                    return bytes.to_vec();
                }
            }
        }
    }

    /// What it has written since it was last asked.
    pub(super) fn written(&mut self) -> String {
        let mut bytes = Vec::new();
        self.machine.take_outgoing(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    pub(super) fn says(&mut self, body: &str) {
        self.machine.send(self.now, message(body)).unwrap();
    }

    /// The body of the next message in the inbox.
    pub(super) fn hears(&mut self) -> Option<String> {
        match self.machine.next_stanza()? {
            Stanza::Message(message) => message.bodies.into_values().next(),
            other => panic!("not a message: {other:?}"),
        }
    }

    pub(super) fn after(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
    }

    /// The condition of the stream error with which the stream ended.
    pub(super) fn condition(&self) -> DefinedCondition {
        match self.machine.error() {
            Some(Error::Stream(failure)) => failure.condition.clone(),
            other => panic!("no stream error: {other:?}"),
        }
    }
}

pub(super) fn setup(role: Role, local: Option<&str>, peer: Option<&str>) -> Setup {
    Setup {
        introduction: Introduction::Optional,
        role,
        local: local.map(jid),
        peer: peer.map(jid),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        nonce: NONCE.to_owned(),
        channel: None,
        agenda: Agenda::Nothing,
        management: Plan::Off,
    }
}

/// What one writes, the other reads, until both have said everything.
pub(super) fn exchange(one: &mut Side, other: &mut Side) {
    loop {
        let (there, back) = (one.written(), other.written());
        if there.is_empty() && back.is_empty() {
            return;
        }
        other.reads(there);
        one.reads(back);
    }
}

pub(in crate::stream) fn message(body: &str) -> Stanza {
    Stanza::Message(Message::chat(None).with_body(Lang::new(), body.to_owned()))
}

/// Everything that comes out of these pieces of bytes.
pub(super) fn decode<'a>(
    limits: &Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Decoded>, Violation> {
    let mut decoder = Decoder::new(limits);
    let mut all = Vec::new();
    for mut piece in pieces {
        while let Some(decoded) = decoder.decode(&mut piece)? {
            all.push(decoded);
        }
    }
    Ok(all)
}
