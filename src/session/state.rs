//! The states of one Jingle session.
//!
//! XEP-0166 #concepts-session has three; each is told apart further by what the session waits for.
//!
//! ```text
//!                initiator                              responder
//!                    o                                      o
//!            connect │                                      │ session-initiate received, acknowledged
//!                    ▼                                      │
//!               Preparing   (online? supported?)            │
//!   session-initiate │                                      │
//!               sent ▼                                      ▼
//!   PENDING       Offered                                Ringing
//!                    │ session-accept received              │ session-accept sent
//!                    ▼                                      ▼
//!   ACTIVE         Active   (transport opens, then carries bytes)
//!                    │ session-terminate sent or received, or failure
//!                    ▼
//!   ENDED          Ended    (what was received before can still be read)
//! ```

use std::time::{Duration, Instant};

use jid::FullJid;
use xmpp_parsers::jingle::Creator;

use crate::{
    Error, Fingerprint, Reason, Step,
    transport::{Offer, Transport},
    wire::jingle::Dialect,
};

/// How long after a peer's unavailable presence its session may stay without a sign of life
/// (XEP-0166 #session-terminate: 5 or 10 seconds).
pub(super) const ABSENCE: Duration = Duration::from_secs(10);

/// Names a session inside this process, for as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(super) u64);

/// Which end of the session we are (XEP-0166 #terms-glossary).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) peer: FullJid,
    /// Empty until session-initiate is sent.
    pub(super) sid: String,
    pub(super) role: Role,
    pub(super) dialect: Dialect,
    pub(super) content: ContentName,
    pub(super) state: State,
}

/// What tells a content from others (XEP-0166 #def-content).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContentName {
    pub(super) creator: Creator,
    pub(super) name: String,
}

#[derive(Debug)]
pub(crate) enum State {
    Preparing(Preparing),
    Offered(Offered),
    Ringing(Ringing),
    Active(Active),
    Ended(Ended),
}

/// Before anything is on the wire.
#[derive(Debug)]
pub(crate) struct Preparing {
    pub(super) waits_for: Step,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// The end of it, however often the server comes and goes and the step is taken again.
    pub(super) latest: Instant,
}

/// We sent session-initiate.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(super) transport: Offer,
    pub(super) security: Precondition,
    pub(super) ack: Ack,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
}

/// Whether our session-initiate was acknowledged: what crosses it before is a tie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Awaited,
    Received,
}

/// Whether the session has the XTLS security precondition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    Xtls,
    /// The user allowed it, and the peer does not do XTLS.
    Plaintext,
}

/// The peer sent session-initiate, and our user has to decide.
#[derive(Debug)]
pub(crate) struct Ringing {
    pub(super) transport: Offer,
    pub(super) announced: Announced,
    /// Contents that were offered beside the one that we can accept.
    pub(super) declined: Vec<ContentName>,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
}

/// What the peer said about its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// `<security/>` with these fingerprints, at least one.
    Fingerprints(Vec<Fingerprint>),
    /// No `<security/>`, and the user allowed that.
    Nothing,
}

/// Both sides accepted.
#[derive(Debug)]
pub(crate) struct Active {
    pub(super) transport: Transport,
    pub(super) announced: Announced,
}

/// Over on the wire, or nearly.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Keeps what was received and not yet read.
    pub(super) transport: Option<Transport>,
    pub(super) announced: Announced,
    pub(super) error: Option<Error>,
    pub(super) farewell: Farewell,
}

/// Whether our session-terminate still waits for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    AwaitingAck,
    Over,
}

impl State {
    /// Over, with nothing left of it.
    pub(super) fn ended() -> Self {
        Self::Ended(Ended {
            transport: None,
            announced: Announced::Nothing,
            error: None,
            farewell: Farewell::Over,
        })
    }

    /// Until when the session may stay in this state, apart from what its requests wait for.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Preparing(preparing) => Some(preparing.deadline),
            Self::Offered(offered) => Some(offered.deadline),
            Self::Ringing(ringing) => Some(ringing.deadline),
            Self::Active(active) => active.transport.poll_timeout(),
            Self::Ended(_) => None,
        }
    }
}

impl Session {
    /// Whether the peer knows of the session: only then is there something to terminate.
    pub(super) fn is_on_wire(&self) -> bool {
        matches!(self.state, State::Offered(_) | State::Ringing(_) | State::Active(_))
    }

    /// The bytestream, while there is one or something of it is left to read.
    pub(super) fn transport_mut(&mut self) -> Option<&mut Transport> {
        match &mut self.state {
            State::Active(active) => Some(&mut active.transport),
            State::Ended(ended) => ended.transport.as_mut(),
            _ => None,
        }
    }

    /// The reason to give when our user lets go of the session without giving one. An XML stream that was open has
    /// given one before.
    pub(super) fn reason_for_dropping(&self) -> Reason {
        match self.state {
            State::Ringing(_) => Reason::Decline,
            _ => Reason::Cancel,
        }
    }

    /// Moves to `Ended`, keeping what can still be read.
    pub(super) fn end(&mut self, error: Option<Error>, farewell: Farewell) {
        let ended = Ended { transport: None, announced: Announced::Nothing, error: error.clone(), farewell };
        let before = std::mem::replace(&mut self.state, State::Ended(ended));
        let State::Ended(ended) = &mut self.state else { return };
        match before {
            State::Active(Active { mut transport, announced }) => {
                transport.end(error);
                ended.transport = Some(transport);
                ended.announced = announced;
            }
            State::Ended(before) => *ended = Ended { farewell, ..before },
            State::Preparing(_) | State::Offered(_) | State::Ringing(_) => {}
        }
    }
}
