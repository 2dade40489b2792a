//! Connections without IO, which lose what is under way when they are cut.

use std::{collections::VecDeque, time::Instant};

use crate::{
    security::dice::Dice,
    stream::{
        decode::Decoder,
        machine::{Machine, Setup},
    },
};

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    /// Nothing more goes in.
    pub(super) cut: bool,
}

/// One end of a connection: what has come and was not decoded, and how far the decoder is.
pub(super) struct Socket {
    pub(super) decoder: Decoder,
    pub(super) unread: Vec<u8>,
}

/// A connection: what each side wrote and the other has not read.
pub(super) struct Connection {
    pub(super) from: [Pipe; 2],
    pub(super) sockets: [Option<Socket>; 2],
}

impl Connection {
    pub(super) fn new(setup: &Setup) -> Self {
        let socket = || Some(Socket { decoder: Decoder::new(&setup.limits), unread: Vec::new() });
        Self { from: Default::default(), sockets: [socket(), socket()] }
    }

    /// Loses what is under way, but for as many bytes.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        for pipe in &mut self.from {
            let kept = dice.below(pipe.bytes.len() + 1);
            pipe.bytes.truncate(kept);
            pipe.cut = true;
        }
    }
}

/// Writes what there is; what is written to a connection that is cut is lost.
pub(super) fn put(machine: &mut Machine, now: Instant, pipe: &mut Pipe) {
    let mut bytes = Vec::new();
    machine.take_outgoing(&mut bytes);
    if bytes.is_empty() {
        return;
    }
    machine.handle_written(now, bytes.len(), 0);
    machine.handle_flushed(now);
    if !pipe.cut {
        pipe.bytes.extend(bytes);
    }
}

/// Decodes what is for this machine, and leaves what is for the one that takes its place.
pub(super) fn get(machine: &mut Machine, now: Instant, socket: &mut Socket) {
    let mut bytes = socket.unread.as_slice();
    while machine.asked_to_resume().is_none() && machine.resumed_at().is_none() {
        match socket.decoder.decode(&mut bytes) {
            Ok(None) => break,
            Ok(Some(decoded)) => machine.handle(now, Ok(decoded)),
            Err(violation) => panic!("{violation:?}"),
        }
    }
    socket.unread = bytes.to_vec();
}
