//! What two parties settle before a stream is open, without IO: encryption by STARTTLS (XEP-0246 #encryption, RFC 6120
//! §5) and, inside of TLS, a shared secret by SASL (RFC 6120 §6).
//!
//! Each takes an XML stream of its own on the bytestream, a round. A round that ends well gives the [`Next`]; what was
//! said in it is forgotten.
//!
//! ```text
//!  in the clear        initiator                                   responder
//!   Starttls            header ──►                                  ◄── header, features: starttls, required
//!                       <starttls/> ──►                             ◄── <proceed/>
//!  TLS handshake       ◄──────────────────────────────────────────────────────────────────────────────►
//!   Sasl                header ──►                                  ◄── header, features: mechanisms
//!                       <auth/>, <response/> ──►                    ◄── <challenge/>, <success/>
//!   Nothing             header ──►                                  ◄── header, features: none; the stream is open
//! ```
//!
//! Where a bytestream came with TLS, it begins with `Sasl`; where nobody has a secret, that is the last round.

mod elements;
mod offer;
mod sasl;
mod starttls;

use jid::BareJid;
use xmpp_parsers::{minidom::Element, stream_error::DefinedCondition};

pub(super) use self::elements::starttls_failure;
use self::{
    sasl::{Challenged, Challenger},
    starttls::{Offered, Requested},
};
use crate::{
    SecurityError,
    security::{Proof, Secret, sasl::Binding},
};

/// What one round is for.
#[derive(Clone, Debug, Default)]
pub(crate) enum Agenda {
    #[default]
    Nothing,
    /// STARTTLS, without which nothing is said.
    Starttls,
    /// SASL, as far as the two parties need it.
    Sasl(Box<Credentials>),
}

/// What SASL may be done with.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Who we say we are.
    pub(crate) local: Option<BareJid>,
    pub(crate) peer: BareJid,
    pub(crate) footing: Footing,
    pub(crate) secret: Option<Secret>,
    pub(crate) binding: Binding,
}

/// What TLS alone has shown of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footing {
    /// Its certificate is verified: a shared secret could show no more.
    Verified,
    /// A shared secret, if there is one, has to be proved.
    Unverified,
}

/// What follows a round, on the same bytestream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The TLS handshake.
    Tls,
    /// Another XML stream, with this proved.
    Restart(Option<Proof>),
}

/// How far a round is.
pub(super) enum Step {
    /// We are the responder and want `<starttls/>`.
    Offered(Offered),
    /// We are the initiator and want `<proceed/>`.
    Requested(Requested),
    /// We are the responder and want `<auth/>` or `<response/>`.
    Challenger(Challenger),
    /// We are the initiator and want `<challenge/>` or `<success/>`.
    Challenged(Challenged),
}

/// What an element of the peer's leads to.
pub(super) enum Turn {
    Wait { say: Element, step: Step },
    Done { say: Option<Element>, next: Next },
    End(End),
}

/// Why there is no stream, and what the peer is told.
#[derive(Debug)]
pub(super) struct End {
    pub(super) say: Option<Element>,
    pub(super) farewell: Farewell,
    pub(super) error: SecurityError,
}

#[derive(Debug)]
pub(super) enum Farewell {
    /// The peer does not listen to XML any more.
    None,
    Footer,
    StreamError(DefinedCondition, &'static str),
}

impl Step {
    /// An element of STARTTLS or of SASL came, and so many bytes behind it.
    pub(super) fn handle(self, element: &Element, behind: usize) -> Turn {
        match self {
            Self::Offered(offered) => offered.handle(element, behind),
            Self::Requested(requested) => requested.handle(element, behind),
            Self::Challenger(challenger) => challenger.handle(element),
            Self::Challenged(challenged) => challenged.handle(element),
        }
    }

    /// The responder has made an offer, and nothing was said to it.
    pub(super) fn is_offer(&self) -> bool {
        match self {
            Self::Offered(_) => true,
            Self::Challenger(challenger) => challenger.is_offer(),
            Self::Requested(_) | Self::Challenged(_) => false,
        }
    }

    /// Something came that has no place here.
    pub(super) fn interrupted(&self, by: &str) -> End {
        match self {
            Self::Offered(_) => starttls::interrupted(by),
            Self::Requested(_) => starttls::interrupted(by),
            Self::Challenger(challenger) => sasl::interrupted(challenger.peer(), challenger.wants(), by),
            Self::Challenged(challenged) => sasl::interrupted(challenged.peer(), Challenged::WANTS, by),
        }
    }

    /// The peer closed the stream.
    pub(super) fn closed(&self) -> End {
        let instead = match self {
            Self::Offered(_) | Self::Requested(_) => "it closed the stream instead of negotiating STARTTLS",
            Self::Challenger(_) | Self::Challenged(_) => "it closed the stream instead of authenticating",
        };
        End {
            say: None,
            farewell: Farewell::Footer,
            error: SecurityError::PeerRefused(Some(instead.to_owned())),
        }
    }
}

impl Agenda {
    /// Whether there is no stream without it.
    pub(super) fn is_required(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Starttls => true,
            Self::Sasl(credentials) => credentials.is_required(),
        }
    }

    /// Whether there is a secret that the peer may have to prove, or we.
    pub(super) fn has_secret(&self) -> bool {
        matches!(self, Self::Sasl(credentials) if credentials.secret.is_some())
    }
}
