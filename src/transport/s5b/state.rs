//! How far a negotiation is.
//!
//! ```text
//!             both sides' notifications are known (XEP-0260 #complete)
//!  Choosing ─┬─ the peer's, no proxy ─────────────────────────────────────────────────────► Open
//!            ├─ the peer's proxy ─────► AwaitingActivation ─ <activated/> ────────────────► Open
//!            ├─ ours, no proxy ───────────────────────────────────────────────────────────► Open
//!            ├─ our proxy ───► DiallingProxy ─ connected ─► Activating ─ iq result ───────► Open
//!            └─ none ─────────────────────────────────────────────────────────────────────► Over
//! ```
//!
//! From everywhere but Open, a failure leads to Over.

use std::collections::VecDeque;

use super::{
    Attempt,
    candidate::{Candidate, Connection},
    dialling::Dialling,
};

#[derive(Debug)]
pub(super) enum State {
    /// One side at least has not said which candidate it uses.
    Choosing(Choosing),
    /// The peer's proxy is nominated, and we are connected to it; the peer is to activate it.
    AwaitingActivation(Chosen),
    /// Our proxy is nominated, and we connect to it as well.
    DiallingProxy { attempt: Attempt, candidate: Candidate },
    /// We asked our proxy to join the two connections.
    Activating(Chosen),
    /// The bytestream is there. It is somebody else's now.
    Open(Chosen),
    /// Failed, or not wanted any more.
    Over,
}

#[derive(Debug)]
pub(super) struct Choosing {
    pub(super) own: Own,
    /// What was connected to our listener, the oldest first.
    pub(super) incoming: VecDeque<Connection>,
    pub(super) ahead: Option<Ahead>,
}

/// What we have found among the peer's candidates.
#[derive(Debug)]
pub(super) enum Own {
    /// Nothing yet.
    Dialling(Dialling),
    /// We said candidate-used.
    Used(Chosen),
    /// We said candidate-error.
    Error,
}

/// What the peer has found among ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerNotification {
    /// It said candidate-used.
    Used(Candidate),
    /// It said candidate-error.
    Error,
}

/// What the peer said of a proxy before it was nominated.
#[derive(Debug)]
pub(super) enum Ahead {
    // COMPAT Gajim: it says so before it knows.
    Activated(String),
    /// It can't connect to the proxy that is going to be nominated.
    ProxyError,
}

/// A candidate, and the connection that it led to.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) candidate: Candidate,
    pub(super) connection: Connection,
}
