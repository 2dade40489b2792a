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
//!                    │                                      │
//!               Gathering   (SOCKS5: our addresses?)        │
//!   session-initiate │                                      │
//!               sent ▼                                      ▼
//!   PENDING       Offered                                Ringing ─── accepted ──► Accepting
//!                    │ session-accept received              │    (SOCKS5: our addresses?) │
//!                    │                                      │ session-accept sent ◄───────┘
//!                    ▼                                      ▼
//!   ACTIVE         Active   (transport opens, then carries bytes; may be replaced)
//!                    │ session-terminate sent or received, or failure
//!                    ▼
//!   ENDED          Ended    (what was received before can still be read)
//! ```

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use jid::FullJid;
use xmpp_parsers::jingle::Creator;

use crate::{
    Candidates, Error, Fingerprint, Reason, Step,
    disco::Needs,
    transport::{Offer, Proposal, Transport, s5b::S5b},
    wire::{jingle::Dialect, s5b::S5bTransport},
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
    pub(super) errand: Errand,
    pub(super) content: ContentName,
    /// What we found out about the peer, as initiator.
    pub(super) needs: Option<Needs>,
    /// Which addresses this peer is shown.
    pub(super) candidates: Candidates,
    pub(super) retry: Retry,
    /// Why SOCKS5 was tried and does not carry the stream.
    pub(super) unconnected: Option<Error>,
    pub(super) line: Line,
    pub(super) span: tracing::Span,
    pub(super) state: State,
}

/// What the session's bytestream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    NewStream,
    /// A stream that has lost its bytestream.
    Resumption,
}

/// Whether a new session that offers nothing but in-band bytestreams may follow on this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Left,
    Spent,
}

/// Whether we can still say something about the session to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Up,
    /// The full JID that we had is gone.
    Lost,
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
    Gathering(Gathering),
    Offered(Offered),
    Ringing(Ringing),
    Accepting(Accepting),
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

/// We will offer SOCKS5 as soon as we know what to offer. Nothing is on the wire.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub(super) needs: Needs,
    pub(super) gather: Gather,
}

/// What has to be found out before we can offer SOCKS5, or agree to it.
#[derive(Debug)]
pub(crate) struct Gather {
    /// Where our listener can be reached, once it is known.
    pub(super) direct: Option<Vec<SocketAddr>>,
    /// The end of the search for proxies.
    pub(super) deadline: Instant,
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

/// Whether our offer has the XTLS security precondition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    Xtls,
    /// It has none, because STARTTLS will follow.
    Starttls,
    /// The user allowed it, and the peer does not do XTLS.
    Plaintext,
}

/// The peer sent session-initiate, and our user has to decide.
#[derive(Debug)]
pub(crate) struct Ringing {
    pub(super) transport: Proposal,
    pub(super) announced: Announced,
    /// Contents that were offered beside the one that we can accept.
    pub(super) declined: Vec<ContentName>,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
}

/// Our user accepted, and we will say so as soon as we know what to offer.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(super) transport: S5bTransport,
    pub(super) announced: Announced,
    pub(super) declined: Vec<ContentName>,
    pub(super) gather: Gather,
}

/// What the peer said about its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// `<security/>` with these fingerprints, at least one.
    Fingerprints(Vec<Fingerprint>),
    /// No `<security/>`, so STARTTLS is required on the XML stream.
    Starttls,
    /// No `<security/>`, and the user allowed plaintext.
    Nothing,
}

/// Both sides accepted.
#[derive(Debug)]
pub(crate) struct Active {
    pub(super) transport: Transport,
    pub(super) replacement: Replacement,
    /// How often the transport was replaced, or was to be.
    pub(super) replaces: u8,
    /// How many SOCKS5 bytestreams were negotiated.
    pub(super) negotiations: u8,
    pub(super) peer: Peer,
    pub(super) announced: Announced,
}

impl Active {
    pub(super) fn new(transport: Transport, announced: Announced) -> Self {
        let negotiations = matches!(transport, Transport::S5b(_)).into();
        Self {
            transport,
            replacement: Replacement::None,
            replaces: 0,
            negotiations,
            peer: Peer::Unproved,
            announced,
        }
    }
}

/// Whether the stream is up, so that TLS has shown who the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Unproved,
    Proved,
}

/// Another transport, to take the place of the one in use (XEP-0166 #def-action-transport-replace).
#[derive(Debug)]
pub(crate) enum Replacement {
    None,
    /// We will offer SOCKS5 as soon as we know what to offer.
    Gathering(Gather),
    /// We sent transport-replace.
    Offered {
        offer: Offer,
        deadline: Instant,
    },
    /// The peer sent transport-replace, and we will agree as soon as we know what to offer.
    Answering {
        transport: S5bTransport,
        gather: Gather,
    },
    /// Both agreed. The one in use goes on until this one is connected.
    Connecting(Box<S5b>),
}

/// Over on the wire, or nearly.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Keeps what was received and not yet read.
    pub(super) transport: Option<Transport>,
    /// `None` if the session never was active.
    pub(super) announced: Option<Announced>,
    pub(super) error: Option<Error>,
    pub(super) farewell: Farewell,
}

impl Replacement {
    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Gathering(gather) | Self::Answering { gather, .. } => Some(gather.deadline),
            Self::Offered { deadline, .. } => Some(*deadline),
            Self::Connecting(s5b) => s5b.poll_timeout(),
        }
    }
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
        Self::Ended(Ended { transport: None, announced: None, error: None, farewell: Farewell::Over })
    }

    /// Until when the session may stay in this state, apart from what its requests wait for.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Preparing(preparing) => Some(preparing.deadline),
            Self::Gathering(gathering) => Some(gathering.gather.deadline),
            Self::Offered(offered) => Some(offered.deadline),
            Self::Ringing(ringing) => Some(ringing.deadline),
            Self::Accepting(accepting) => Some(accepting.gather.deadline),
            Self::Active(active) => {
                active.transport.poll_timeout().into_iter().chain(active.replacement.poll_timeout()).min()
            }
            Self::Ended(_) => None,
        }
    }
}

impl Session {
    /// One without a sid; see [`Session::rename`].
    pub(super) fn new(
        peer: FullJid,
        role: Role,
        content: ContentName,
        candidates: Candidates,
        state: State,
    ) -> Self {
        Self {
            span: tracing::info_span!(parent: None, "session", %peer),
            peer,
            sid: String::new(),
            role,
            dialect: Dialect::V1,
            errand: Errand::NewStream,
            content,
            needs: None,
            candidates,
            retry: Retry::Left,
            unconnected: None,
            line: Line::Up,
            state,
        }
    }

    /// Gives the session the name that both sides know it by.
    pub(super) fn rename(&mut self, sid: String) {
        self.span = tracing::info_span!(parent: None, "session", peer = %self.peer, sid);
        self.sid = sid;
    }

    /// Whether the peer knows of the session: only then is there something to terminate.
    pub(super) fn is_on_wire(&self) -> bool {
        match self.state {
            State::Offered(_) | State::Ringing(_) | State::Accepting(_) | State::Active(_) => {
                self.line == Line::Up
            }
            State::Preparing(_) | State::Gathering(_) | State::Ended(_) => false,
        }
    }

    /// The bytestream, while there is one or something of it is left to read.
    pub(super) fn transport_mut(&mut self) -> Option<&mut Transport> {
        match &mut self.state {
            State::Active(active) => Some(&mut active.transport),
            State::Ended(ended) => ended.transport.as_mut(),
            _ => None,
        }
    }

    /// What is being found out, if something is.
    pub(super) fn gather_mut(&mut self) -> Option<&mut Gather> {
        match &mut self.state {
            State::Gathering(gathering) => Some(&mut gathering.gather),
            State::Accepting(accepting) => Some(&mut accepting.gather),
            State::Active(Active {
                replacement: Replacement::Gathering(gather) | Replacement::Answering { gather, .. },
                ..
            }) => Some(gather),
            _ => None,
        }
    }

    /// The SOCKS5 bytestream, in use or to be.
    pub(super) fn s5b_mut(&mut self) -> Option<&mut S5b> {
        match &mut self.state {
            State::Active(Active { replacement: Replacement::Connecting(s5b), .. }) => Some(s5b),
            State::Active(active) => active.transport.s5b_mut(),
            _ => None,
        }
    }

    /// The SOCKS5 bytestream that is to take the place of the one in use.
    pub(super) fn replacement_mut(&mut self) -> Option<&mut S5b> {
        match &mut self.state {
            State::Active(Active { replacement: Replacement::Connecting(s5b), .. }) => Some(s5b),
            _ => None,
        }
    }

    /// A SOCKS5 bytestream that we offer.
    pub(super) fn offer_mut(&mut self) -> Option<&mut Offer> {
        match &mut self.state {
            State::Offered(offered) => Some(&mut offered.transport),
            State::Active(Active { replacement: Replacement::Offered { offer, .. }, .. }) => Some(offer),
            _ => None,
        }
    }

    /// Whether peers may yet connect to our listener because of it, or we to them.
    pub(super) fn is_connecting(&self) -> bool {
        match &self.state {
            State::Gathering(_) | State::Accepting(_) => true,
            State::Offered(offered) => matches!(offered.transport, Offer::S5b(_)),
            State::Active(active) => {
                let negotiating =
                    matches!(active.transport, Transport::S5b(_)) && !active.transport.is_open();
                negotiating || !matches!(active.replacement, Replacement::None)
            }
            State::Preparing(_) | State::Ringing(_) | State::Ended(_) => false,
        }
    }

    /// Whether the stream goes on whatever happens to the session with the server.
    pub(super) fn outlives_signalling(&self) -> bool {
        matches!(&self.state, State::Active(active) if active.transport.outlives_signalling())
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
        let ended = Ended { transport: None, announced: None, error: error.clone(), farewell };
        let before = std::mem::replace(&mut self.state, State::Ended(ended));
        let State::Ended(ended) = &mut self.state else { return };
        match before {
            State::Active(Active { mut transport, announced, .. }) => {
                transport.end(error);
                ended.transport = Some(transport);
                ended.announced = Some(announced);
            }
            State::Ended(before) => *ended = Ended { farewell, ..before },
            State::Preparing(_)
            | State::Gathering(_)
            | State::Offered(_)
            | State::Ringing(_)
            | State::Accepting(_) => {}
        }
    }
}
