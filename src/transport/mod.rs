//! What carries the bytes of a session, sans-IO.
//!
//! A session negotiates its transport, starts it, and passes on what belongs to it; it knows none
//! of the methods by name. [`Transport`] is that interface.

pub(crate) mod ibb;
mod ibb_receiver;
mod ibb_sender;
pub(crate) mod io;
pub(crate) mod s5b;
pub(crate) mod socks5;
#[cfg(test)]
mod tests;

use std::time::Instant;

use xmpp_parsers::{minidom::Element, stanza_error::StanzaError};

pub(crate) use self::ibb::Ibb;
use crate::{Error, IbbConfig, Timeouts};

/// The transport method of a session, negotiated or being negotiated.
#[derive(Debug)]
pub(crate) enum Transport {
    /// In-band bytestreams (XEP-0261).
    Ibb(Ibb),
}

/// What the initiator offers, before it knows whether the responder takes it.
#[derive(Debug)]
pub(crate) enum Offer {
    Ibb(ibb::Offer),
}

/// What a transport wants done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this as an iq-set to the peer, and bring back the reply with [`Transport::handle_reply`].
    Request(Request, Element),
    /// Answer the peer's iq-set with this id.
    Reply(String, Result<(), StanzaError>),
    /// The bytestream is open in both directions.
    Open,
    /// Reading or writing may get further than before.
    Progress,
    /// The bytestream failed, and the session with it.
    Failed(Error),
}

/// The requests whose replies a transport waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Open,
    Data,
    Close,
}

/// What a read from a bytestream gives.
#[derive(Debug)]
pub(crate) enum Read {
    /// So many bytes were read, more than none.
    Data(usize),
    /// Nothing yet.
    Pending,
    /// The peer closed the bytestream, and everything it sent was read.
    End,
}

impl Offer {
    /// Whether a `<transport/>` can be read, if its method is known here.
    pub(crate) fn check(transport: &Element) -> Result<(), String> {
        ibb::Offer::check(transport)
    }

    /// Judges a `<transport/>` that a session-initiate offers; `None` if the method is unknown here.
    pub(crate) fn from_peer(transport: &Element, config: &IbbConfig) -> Option<Result<Self, String>> {
        ibb::Offer::from_peer(transport, config).map(|offer| offer.map(Self::Ibb))
    }

    /// The `<transport/>` of the session-initiate.
    pub(crate) fn to_element(&self) -> Element {
        match self {
            Self::Ibb(offer) => offer.to_element(),
        }
    }

    /// The name by which peers know the bytestream, if they address it apart from the session.
    pub(crate) fn bytestream_sid(&self) -> &str {
        match self {
            Self::Ibb(offer) => offer.sid(),
        }
    }

    /// The responder agrees: what it waits for now.
    pub(crate) fn accept(self, now: Instant, config: &IbbConfig, timeouts: &Timeouts) -> Transport {
        match self {
            Self::Ibb(offer) => Transport::Ibb(Ibb::await_open(offer, now, config, timeouts)),
        }
    }

    /// The responder agreed with this `<transport/>`: the initiator opens.
    pub(crate) fn accepted(
        &self,
        transport: &Element,
        now: Instant,
        config: &IbbConfig,
        timeouts: &Timeouts,
    ) -> Result<Transport, String> {
        match self {
            Self::Ibb(offer) => {
                Ok(Transport::Ibb(Ibb::open(offer.narrowed(transport)?, now, config, timeouts)))
            }
        }
    }
}

impl Transport {
    /// The method's short name, as users see it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ibb(_) => "ibb",
        }
    }

    /// Whether bytes can go both ways.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Ibb(ibb) => ibb.is_open(),
        }
    }

    pub(crate) fn handle_reply(&mut self, now: Instant, request: Request, reply: Result<(), StanzaError>) {
        match self {
            Self::Ibb(ibb) => ibb.handle_reply(now, request, reply),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Ibb(ibb) => ibb.handle_timeout(now),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Ibb(ibb) => ibb.poll_timeout(),
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Ibb(ibb) => ibb.poll_output(),
        }
    }

    /// Takes as many bytes as fit; 0 if none fit now.
    pub(crate) fn write(&mut self, now: Instant, bytes: &[u8]) -> Result<usize, Error> {
        match self {
            Self::Ibb(ibb) => ibb.write(now, bytes),
        }
    }

    /// Whether everything written is on its way; asks for it if not.
    pub(crate) fn flush(&mut self, now: Instant) -> Result<bool, Error> {
        match self {
            Self::Ibb(ibb) => ibb.flush(now),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Read, Error> {
        match self {
            Self::Ibb(ibb) => ibb.read(buffer),
        }
    }

    /// Sends what is left and closes; whether that is complete.
    pub(crate) fn shutdown(&mut self, now: Instant) -> Result<bool, Error> {
        match self {
            Self::Ibb(ibb) => ibb.shutdown(now),
        }
    }

    /// The session is over: no more is sent or received, what was received can still be read.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        match self {
            Self::Ibb(ibb) => ibb.end(error),
        }
    }
}
