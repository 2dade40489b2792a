//! Where the peer of one stream is.

use std::sync::{Mutex, PoisonError};

use jid::FullJid;

use crate::{
    Candidates,
    driver::{Handle, Lookout},
};

/// Where the peer of a stream is, and what it may know about where we are.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    handle: Handle,
    /// The addresses that it is shown, if not the usual ones.
    candidates: Option<Candidates>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where it was last.
    peer: FullJid,
    /// While the stream has no bytestream.
    lookout: Option<Lookout>,
}

impl Whereabouts {
    pub(in super::super) fn new(handle: Handle, peer: FullJid, candidates: Option<Candidates>) -> Self {
        Self { handle, candidates, state: Mutex::new(State { peer, lookout: None }) }
    }

    pub(super) fn peer(&self) -> FullJid {
        self.lock().peer.clone()
    }

    pub(super) fn candidates(&self) -> Option<Candidates> {
        self.candidates
    }

    /// The peer is looked for until it is found, or the stream given up.
    pub(in super::super) fn lost(&self) {
        let mut state = self.lock();
        if state.lookout.is_none() {
            state.lookout = Some(self.handle.look_out_for(&state.peer));
        }
    }

    /// The stream goes on with the peer at this address.
    pub(in super::super) fn found(&self, peer: FullJid) {
        let mut state = self.lock();
        state.lookout = None;
        state.peer = peer;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
