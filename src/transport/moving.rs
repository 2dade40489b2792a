//! A live stream that moves from an in-band bytestream to a socket.
//!
//! ```text
//!   what we write:  … block, block, <close/> | what was in no block yet, socket …
//!   what we read:   … block, block, the peer's <close/> or its answer to ours | socket …
//! ```
//!
//! Each direction changes over at one byte. The last block of a direction is behind all that was written before, and
//! [`Ibb`] answers a `<close/>` only when what it still had to send was acknowledged: so either a `<close/>` or the answer
//! to one ends what comes in band. What comes early on the socket waits there, unread; the systems' buffers bound it.

use std::time::Instant;

use bytes::BytesMut;

use super::{
    Done, Ibb, Output, Read,
    s5b::{S5b, candidate::SocketId},
};
use crate::Error;

/// Both ends of a move.
#[derive(Debug)]
pub(crate) struct Moving {
    ibb: Ibb,
    s5b: Box<S5b>,
    socket: SocketId,
    /// Was written before the move, and goes over the socket before all else.
    carried: BytesMut,
}

impl Moving {
    /// Nothing more is written in band.
    pub(super) fn begin(now: Instant, mut ibb: Ibb, s5b: Box<S5b>, socket: SocketId) -> Self {
        let carried = ibb.give_way(now);
        Self { ibb, s5b, socket, carried }
    }

    pub(super) fn socket(&self) -> SocketId {
        self.socket
    }

    pub(super) fn s5b(&self) -> &S5b {
        &self.s5b
    }

    pub(super) fn s5b_mut(&mut self) -> &mut S5b {
        &mut self.s5b
    }

    pub(super) fn ibb_mut(&mut self) -> &mut Ibb {
        &mut self.ibb
    }

    /// Whether nothing more goes or comes in band.
    pub(super) fn is_complete(&self) -> bool {
        self.ibb.is_closed()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.ibb.handle_timeout(now);
        self.s5b.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ibb.poll_timeout().into_iter().chain(self.s5b.poll_timeout()).min()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.ibb.poll_output().or_else(|| self.s5b.poll_output().map(Output::S5b))
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Read, Error> {
        match self.ibb.read(buffer)? {
            Read::End => Ok(Read::Socket(self.socket)),
            read => Ok(read),
        }
    }

    /// For whoever takes the socket, to be written to it first.
    pub(super) fn take_carried(&mut self) -> BytesMut {
        self.carried.split()
    }

    pub(super) fn flush(&mut self, now: Instant) -> Result<Done, Error> {
        let in_band = self.ibb.flush(now)?;
        Ok(self.done(in_band))
    }

    pub(super) fn shutdown(&mut self, now: Instant) -> Result<Done, Error> {
        let in_band = self.ibb.shutdown(now)?;
        Ok(self.done(in_band))
    }

    fn done(&self, in_band: bool) -> Done {
        if in_band { Done::Socket(self.socket) } else { Done::NotYet }
    }

    pub(super) fn end(&mut self, error: Option<Error>) {
        self.ibb.end(error);
        self.s5b.end();
    }
}
