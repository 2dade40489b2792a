//! What carries the bytes of a session, sans-IO.
//!
//! A session negotiates its transport, starts it, and passes on what belongs to it. In-band bytestreams carry the bytes
//! inside the session's own stanzas; SOCKS5 bytestreams end in a socket, which whoever reads and writes is given.

pub(crate) mod ibb;
mod ibb_receiver;
mod ibb_sender;
pub(crate) mod ibb_window;
mod info;
pub(crate) mod io;
mod moving;
mod offer;
pub(crate) mod s5b;
pub(crate) mod s5b_io;
pub(crate) mod socks5;
#[cfg(test)]
mod tests;

use std::time::Instant;

use bytes::BytesMut;
use xmpp_parsers::{minidom::Element, stanza_error::StanzaError};

pub(crate) use self::{
    ibb::Ibb,
    ibb_receiver::Kept,
    offer::{Offer, Proposal, S5bOffer, Unfit, When},
};
pub use self::{info::TransportInfo, s5b::candidate::CandidateType};
use self::{
    moving::Moving,
    s5b::{S5b, candidate::SocketId},
};
use crate::{Error, TransportError};

/// The transport method of a session, negotiated or being negotiated.
#[derive(Debug)]
pub(crate) enum Transport {
    /// In-band bytestreams (XEP-0261).
    Ibb(Box<Ibb>),
    /// SOCKS5 bytestreams (XEP-0260).
    S5b(Box<S5b>),
    /// A live stream on its way from one to the other.
    Moving(Box<Moving>),
    /// SOCKS5 found no way; until the deadline, another method may take its place.
    Failed { error: Error, deadline: Instant },
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
    /// What a SOCKS5 negotiation wants done.
    S5b(s5b::Output),
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
    /// From here on, what the peer sends comes on this socket.
    Socket(SocketId),
}

/// What a write to a bytestream gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// So many bytes were taken, more than none.
    Taken(usize),
    /// None fit now.
    Pending,
    /// From here on, write to this socket.
    Socket(SocketId),
}

/// How far a flush or a shutdown is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Yes,
    NotYet,
    /// What is left of it is this socket's.
    Socket(SocketId),
}

impl Done {
    fn when(done: bool) -> Self {
        if done { Self::Yes } else { Self::NotYet }
    }
}

impl Transport {
    /// What carries the bytes, once it is known.
    pub(crate) fn info(&self) -> Option<TransportInfo> {
        match self {
            Self::Ibb(ibb) => Some(ibb.info()),
            Self::S5b(s5b) => TransportInfo::of(s5b),
            Self::Moving(moving) => TransportInfo::of(moving.s5b()),
            Self::Failed { .. } => None,
        }
    }

    /// Whether bytes can go both ways.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Ibb(ibb) => ibb.is_open(),
            Self::S5b(s5b) => s5b.connection().is_some(),
            Self::Moving(_) => true,
            Self::Failed { .. } => false,
        }
    }

    /// Whether it goes on when nothing can be said to the peer any more: all of it is on a socket.
    pub(crate) fn outlives_signalling(&self) -> bool {
        match self {
            Self::Ibb(_) | Self::Failed { .. } => false,
            Self::S5b(s5b) => s5b.connection().is_some(),
            Self::Moving(moving) => moving.is_complete(),
        }
    }

    /// Whether it is in band, and not closed.
    pub(crate) fn can_move(&self) -> bool {
        matches!(self, Self::Ibb(ibb) if ibb.can_move())
    }

    /// The in-band bytestream, while there is one.
    pub(crate) fn ibb_mut(&mut self) -> Option<&mut Ibb> {
        match self {
            Self::Ibb(ibb) => Some(ibb),
            Self::Moving(moving) => Some(moving.ibb_mut()),
            Self::S5b(_) | Self::Failed { .. } => None,
        }
    }

    /// The SOCKS5 bytestream, while there is one.
    pub(crate) fn s5b_mut(&mut self) -> Option<&mut S5b> {
        match self {
            Self::S5b(s5b) => Some(s5b),
            Self::Moving(moving) => Some(moving.s5b_mut()),
            Self::Ibb(_) | Self::Failed { .. } => None,
        }
    }

    /// The socket that carries the bytes, or will carry all that come.
    pub(crate) fn socket(&self) -> Option<SocketId> {
        match self {
            Self::S5b(s5b) => s5b.connection().map(|(connection, _)| connection.socket),
            Self::Moving(moving) => Some(moving.socket()),
            Self::Ibb(_) | Self::Failed { .. } => None,
        }
    }

    /// What an in-band bytestream has taken so far stays on it; all that follows goes over this connection.
    pub(crate) fn move_to(&mut self, now: Instant, s5b: Box<S5b>) {
        let Some((connection, _)) = s5b.connection() else { return };
        let nothing = Self::Failed { error: Error::Transport(TransportError::Closed), deadline: now };
        *self = match std::mem::replace(self, nothing) {
            Self::Ibb(ibb) => Self::Moving(Box::new(Moving::begin(now, *ibb, s5b, connection.socket))),
            other => other,
        };
    }

    pub(crate) fn handle_reply(&mut self, now: Instant, request: Request, reply: Result<(), StanzaError>) {
        if let Some(ibb) = self.ibb_mut() {
            ibb.handle_reply(now, request, reply);
        }
    }

    /// What was written before the socket takes over, and goes over it first.
    pub(crate) fn take_carried(&mut self) -> BytesMut {
        match self {
            Self::Moving(moving) => moving.take_carried(),
            Self::Ibb(_) | Self::S5b(_) | Self::Failed { .. } => BytesMut::new(),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Ibb(ibb) => ibb.handle_timeout(now),
            Self::S5b(s5b) => s5b.handle_timeout(now),
            Self::Moving(moving) => moving.handle_timeout(now),
            Self::Failed { .. } => {}
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Ibb(ibb) => ibb.poll_timeout(),
            Self::S5b(s5b) => s5b.poll_timeout(),
            Self::Moving(moving) => moving.poll_timeout(),
            Self::Failed { deadline, .. } => Some(*deadline),
        }
    }

    /// Nothing goes or comes in band until [`Self::go_on`].
    pub(crate) fn stand_still(&mut self) {
        if let Some(ibb) = self.ibb_mut() {
            ibb.stand_still();
        }
    }

    pub(crate) fn go_on(&mut self, now: Instant) {
        if let Some(ibb) = self.ibb_mut() {
            ibb.go_on(now);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Ibb(ibb) => ibb.poll_output(),
            Self::S5b(s5b) => s5b.poll_output().map(Output::S5b),
            Self::Moving(moving) => moving.poll_output(),
            Self::Failed { .. } => None,
        }
    }

    /// Takes as many bytes as fit.
    pub(crate) fn write(&mut self, now: Instant, bytes: &[u8]) -> Result<Write, Error> {
        match self {
            Self::Ibb(ibb) => ibb.write(now, bytes).map(|taken| match taken {
                0 => Write::Pending,
                taken => Write::Taken(taken),
            }),
            Self::S5b(_) | Self::Moving(_) | Self::Failed { .. } => {
                Ok(self.socket().map_or(Write::Pending, Write::Socket))
            }
        }
    }

    /// Whether everything written is on its way; asks for it if not.
    pub(crate) fn flush(&mut self, now: Instant) -> Result<Done, Error> {
        match self {
            Self::Ibb(ibb) => ibb.flush(now).map(Done::when),
            Self::Moving(moving) => moving.flush(now),
            Self::S5b(_) | Self::Failed { .. } => Ok(self.socket().map_or(Done::NotYet, Done::Socket)),
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<Read, Error> {
        match self {
            Self::Ibb(ibb) => ibb.read(buffer),
            Self::Moving(moving) => moving.read(buffer),
            Self::S5b(_) | Self::Failed { .. } => Ok(self.socket().map_or(Read::Pending, Read::Socket)),
        }
    }

    /// Sends what is left and closes.
    pub(crate) fn shutdown(&mut self, now: Instant) -> Result<Done, Error> {
        match self {
            Self::Ibb(ibb) => ibb.shutdown(now).map(Done::when),
            Self::Moving(moving) => moving.shutdown(now),
            // Where nothing ever opened, there is nothing to close.
            Self::S5b(_) | Self::Failed { .. } => Ok(self.socket().map_or(Done::Yes, Done::Socket)),
        }
    }

    /// The session is over: no more is sent or received, what was received can still be read.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        match self {
            Self::Ibb(ibb) => ibb.end(error),
            Self::S5b(s5b) => s5b.end(),
            Self::Moving(moving) => moving.end(error),
            Self::Failed { .. } => {}
        }
    }
}
