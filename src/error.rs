//! Errors by blame, and their one mapping to Jingle reasons and stream errors.
//!
//! An [`Error`] says first whose fault it was, then what happened. It is cheap to clone: the same
//! error may end a read, a write and a pending iq.

use std::{fmt, io, sync::Arc, time::Duration};

use jid::BareJid;
use xmpp_parsers::{stanza_error::StanzaError, stream_error::DefinedCondition};

use crate::{
    reason::Reason,
    security::{Fingerprint, Level},
};

/// Whatever can go wrong with an e2e stream, sorted by who is to blame.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke a protocol: it sent something that its specification forbids.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(PeerMisbehaved),

    /// The peer keeps to the protocols, but lacks something that the stream needs.
    #[error("the peer is incompatible: {0}")]
    PeerIncompatible(PeerIncompatible),

    /// The peer is not, or can't be shown to be, who it should be; or the channel would not be secure.
    #[error("security: {0}")]
    Security(SecurityError),

    /// The bytestream under the XML stream failed.
    #[error("transport: {0}")]
    Transport(TransportError),

    /// The client-server session or a request over it failed.
    #[error("signalling: {0}")]
    Signalling(SignallingError),

    /// The peer ended or declined the session, in good order.
    #[error("{0}")]
    Terminated(Terminated),

    /// A stream error was sent or received on the XML stream (RFC 6120 §4.9).
    #[error("{0}")]
    Stream(StreamFailure),

    /// A step took longer than its deadline in [`Timeouts`](crate::Timeouts).
    #[error("timed out after {1:?}: {0}")]
    Timeout(Step, Duration),

    /// There are as many sessions as [`Limits::sessions`](crate::Limits::sessions) allows.
    #[error("there are {0} sessions already, as many as the limit allows")]
    TooManySessions(usize),

    /// The crate was used in a way that it can't serve; the text says what to do instead.
    #[error("{0}")]
    ApiMisuse(ApiMisuse),
}

/// What the peer did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A Jingle stanza lacked something, or said something that makes no sense.
    #[error("malformed Jingle: {0}")]
    MalformedJingle(String),
    /// The answer to disco#info makes no sense.
    #[error("malformed service discovery: {0}")]
    MalformedDisco(String),
    /// The session-accept did not fit the offer.
    #[error("the session-accept does not fit the offer: {0}")]
    BadAccept(String),
    /// In-band bytestream data did not follow XEP-0047.
    #[error("in-band bytestream: {0}")]
    Bytestream(String),
    /// The XML stream broke the rules of RFC 6120 §4.
    #[error("XML stream: {0}")]
    XmlStream(String),
    /// TLS failed for another reason than a certificate.
    #[error("TLS: {0}")]
    Tls(String),
}

/// What the peer lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// Service discovery does not list a feature that the stream needs.
    #[error("it does not announce the feature {0}")]
    MissingFeature(String),
    /// It answered that it does not know Jingle, or this part of it.
    #[error("it refused the request: {0}")]
    Unsupported(String),
    /// Its stream features have one that must be negotiated and that this crate does not have, such as
    /// `starttls` (RFC 6120 §4.3.2).
    #[error("it requires the stream feature {0}")]
    MandatoryFeature(String),
}

/// Why the other end can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The certificate in the TLS handshake is not the one that was announced by Jingle: somebody
    /// between the two rewrites one or the other.
    #[error(
        "the peer announced the certificate {announced} and presented {presented}: one of its programs is at fault, or \
         somebody in between changed one of the two; try again over another way, and compare the fingerprint with the peer"
    )]
    FingerprintMismatch {
        /// What `<security/>` announced.
        announced: Fingerprint,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// The certificate is none of the pinned ones.
    #[error(
        "the certificate {presented} is not among the pinned ones ({}): pin it if it is the peer's, once you have \
         compared it over another way",
        .pinned.join(", ")
    )]
    NotPinned {
        /// What TLS showed.
        presented: Fingerprint,
        /// What the user pinned: certificates, and keys.
        pinned: Vec<String>,
    },
    /// The peer had another certificate before.
    #[error(
        "the certificate of {peer} changed: expected {}, presented {presented}; if the peer did change it, or has a further \
         device, compare it over another way, then add it to the known peers and revoke what is not used any more", list(.expected)
    )]
    KeyChanged {
        /// Whose certificate it is.
        peer: BareJid,
        /// The certificates that are known, one for each device.
        expected: Vec<Fingerprint>,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// The certificate was revoked.
    #[error(
        "the certificate {presented} of {peer} was revoked: it is not to be used any more; the peer needs a new one, which \
         then has to be verified"
    )]
    Revoked {
        /// Whose certificate it is.
        peer: BareJid,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// Only known peers are accepted, and this is none.
    #[error(
        "{peer} is expected to be a known peer, and presented {presented}, which nothing is known of: compare it over \
         another way and add it to the known peers, or agree on a shared secret"
    )]
    NotListed {
        /// Who it says it is.
        peer: BareJid,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// Only known peers and those that an authority vouches for are accepted, and this is none.
    #[error(
        "{peer} is expected to have a certificate of a trusted authority, and presented {presented}: {why}; get it one, or \
         add it to the known peers once you have compared it over another way"
    )]
    NotIssued {
        /// Who it says it is.
        peer: BareJid,
        /// What TLS showed.
        presented: Fingerprint,
        /// Why it does not count as issued by the authorities.
        why: String,
    },
    /// The certificate of a peer that nothing is known of contradicts what it is used for.
    #[error(
        "the certificate {presented} can't be believed of {peer} at first sight: {why}; the peer needs another one, or add \
         this one to the known peers once you have compared it over another way"
    )]
    Implausible {
        /// Who it says it is.
        peer: BareJid,
        /// What TLS showed.
        presented: Fingerprint,
        /// What the certificate says.
        why: String,
    },
    /// Less is shown about the peer than is required of it.
    #[error(
        "{peer} is expected to be {required}, and is {reached}: share a secret with it, compare the verification code or the \
         fingerprint {presented} and mark it so, or require less"
    )]
    Insufficient {
        /// Whose certificate it is.
        peer: BareJid,
        /// What the user requires.
        required: Level,
        /// What was shown.
        reached: Level,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// We share a secret with the peer, and it does not ask for it: somebody may have removed that.
    #[error(
        "{peer} is expected to prove the shared secret by one of SCRAM-SHA-512-PLUS and SCRAM-SHA-256-PLUS with tls-exporter, \
         and offers {offered}: give it the same secret, or remove ours"
    )]
    SecretNotOffered {
        /// Who it says it is.
        peer: BareJid,
        /// What it offers.
        offered: String,
    },
    /// The peer asks for a shared secret, and we have none for it.
    #[error(
        "{peer} expects us to prove a shared secret, and there is none for it: agree on one and set it at both ends"
    )]
    SecretMissing {
        /// Who it says it is.
        peer: BareJid,
    },
    /// The shared secrets are not the same.
    #[error("{peer} was expected to know our shared secret, and knows another: set the same at both ends")]
    SecretMismatch {
        /// Who it says it is.
        peer: BareJid,
    },
    /// The proof of the shared secret is bound to another TLS connection: somebody is in between.
    #[error(
        "the proof of the shared secret was expected for this TLS connection, and came for another: somebody is between us \
         and {peer}; try again over another way"
    )]
    ChannelBinding {
        /// Who it says it is.
        peer: BareJid,
    },
    /// SASL went wrong in another way.
    #[error("SASL with {peer}: {why}")]
    Sasl {
        /// Who it says it is.
        peer: BareJid,
        /// What was expected and what came.
        why: String,
    },
    /// The bot's user was asked, and did not say yes.
    #[error(
        "the user was asked about {peer} with {presented} and did not accept it: answer otherwise next time, or add it to the \
         known peers"
    )]
    UserRefused {
        /// Who it says it is.
        peer: BareJid,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// The bot's user was to be asked, and nobody took the question, or answered it in time.
    #[error(
        "the user was to be asked about {peer} with {presented}, and nobody answered: take the questions of Trust::ask and \
         answer them within Timeouts::decision, or add it to the known peers"
    )]
    Unanswered {
        /// Who it says it is.
        peer: BareJid,
        /// What TLS showed.
        presented: Fingerprint,
    },
    /// STARTTLS is required and was not offered, or removed.
    #[error(
        "the peer was expected to offer STARTTLS, and offers {offered}: it has to be set up for it, or somebody removed it"
    )]
    StarttlsNotOffered {
        /// What it offers instead.
        offered: String,
    },
    /// The peer could not go on with STARTTLS.
    #[error("the peer was expected to proceed with STARTTLS, and answered {0}: see its log")]
    StarttlsFailed(String),
    /// There is no verification code.
    #[error("there is no verification code: {0}")]
    NoCode(String),
    /// The store of known peers can't be read or written.
    #[error("known peers: {0}")]
    KnownPeers(String),
    /// The peer is unknown, and no more peers can be remembered.
    #[error("the peer is unknown, and {limit} are remembered already: forget some, or compare and add it")]
    TooManyPeers {
        /// How many are remembered at most.
        limit: usize,
    },
    /// The offer or the accept has no `<security/>`, and plaintext is not allowed.
    #[error(
        "the peer was expected to agree to XTLS, and sent no <security/>: it has to be set up for XTLS, or somebody in between \
         removed it; if it has STARTTLS, Config::encryption can allow that"
    )]
    NotOffered,
    /// `<security/>` has no fingerprint of a kind that can be checked.
    #[error("a fingerprint that can be used was expected of the peer, and none came: update it")]
    NoFingerprint,
    /// `<security/>` lists methods, and `x509` is not one of them.
    #[error("the XTLS method x509 was expected of the peer, which offers {0}: set it up with a certificate")]
    NoCommonMethod(String),
    /// The peer presented no certificate, or one that can't be used.
    #[error(
        "the peer was expected to show a certificate that can be used: {0}; it has to be set up with one, and its key"
    )]
    BadCertificate(String),
    /// The peer refused us, in the TLS handshake or before: most likely it does not trust our certificate.
    #[error(
        "the peer refused us on security grounds{}: its log says why; it may have to get to know our certificate, or share a \
         secret with us", in_brackets(.0)
    )]
    PeerRefused(Option<String>),
    /// An own identity could not be made, read or stored.
    #[error("identity: {0}")]
    Identity(String),
}

/// How the bytestream failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The bytestream ended before the XML stream did.
    #[error("the bytestream was closed before the XML stream")]
    Closed,
    /// A request of the in-band bytestream was answered with an error.
    #[error("in-band bytestream: {}", stanza_error(.0))]
    Refused(Arc<StanzaError>),
    /// No candidate of either side led to a connection (XEP-0260 #complete); the text says what was tried.
    #[error("no SOCKS5 connection: {0}")]
    Unconnected(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(Arc<io::Error>),
}

/// How the client-server session failed us.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignallingError {
    /// There is no client-server session, or it ended for good.
    #[error("there is no session with the server")]
    Offline,
    /// The client-server session was lost and came back with another full JID, so that the
    /// Jingle sessions of the old one are gone.
    #[error("the session with the server was lost and replaced by a new one")]
    Rebound,
    /// The peer's presence says that it is gone, and nothing else was heard from it since.
    #[error("the peer went offline")]
    PeerGone,
    /// The peer, or a server in between, answered that the peer is not there.
    #[error("the peer can't be reached: {}", stanza_error(.0))]
    PeerUnreachable(Arc<StanzaError>),
    /// A request was answered with an error.
    #[error("the request was refused: {}", stanza_error(.0))]
    Refused(Arc<StanzaError>),
}

/// The peer ended the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer ended the session: {reason}{}", in_brackets(.text))]
#[non_exhaustive]
pub struct Terminated {
    /// Why, as the peer says.
    pub reason: Reason,
    /// What the peer says about it to a person.
    pub text: Option<String>,
}

impl Terminated {
    pub(crate) fn new(reason: Reason, text: Option<String>) -> Self {
        Self { reason, text }
    }
}

/// A stream error (RFC 6120 §4.9).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamFailure {
    /// Who reported it.
    pub direction: Direction,
    /// The condition (RFC 6120 §4.9.3).
    pub condition: DefinedCondition,
    /// The descriptive text that came or went with it.
    pub text: Option<String>,
}

/// Who reported a stream error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We sent it: the peer made a mistake.
    Sent,
    /// The peer sent it.
    Received,
}

impl fmt::Display for StreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.direction {
            Direction::Sent => "the XML stream was ended with",
            Direction::Received => "the peer ended the XML stream with",
        };
        write!(f, "{who} {}{}", condition_name(&self.condition), in_brackets(&self.text))
    }
}

/// The step whose deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Waiting for the client-server session.
    Online,
    /// Asking what the peer supports.
    Disco,
    /// Waiting for the acknowledgement of session-initiate, or of another Jingle request.
    JingleAck,
    /// Waiting for session-accept: the other user does not decide.
    Accept,
    /// Waiting for our own user to accept or decline.
    Decision,
    /// Opening the bytestream.
    Transport,
    /// The TLS handshake.
    Tls,
    /// Exchanging stream headers and features.
    StreamHeader,
    /// Waiting for a block of the bytestream to be acknowledged.
    BlockAck,
    /// Waiting for an iq reply.
    Iq,
    /// Closing in good order.
    Close,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "waiting for the session with the server",
            Self::Disco => "asking what the peer supports",
            Self::JingleAck => "waiting for the peer to acknowledge a Jingle request",
            Self::Accept => "waiting for the peer to accept",
            Self::Decision => "waiting for an incoming session to be accepted or declined",
            Self::Transport => "opening the bytestream",
            Self::Tls => "the TLS handshake",
            Self::StreamHeader => "exchanging stream headers",
            Self::BlockAck => "waiting for the peer to acknowledge data",
            Self::Iq => "waiting for an iq reply",
            Self::Close => "closing in good order",
        })
    }
}

/// How the crate was misused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// `Endpoint::attach` on a multi-thread runtime.
    #[error(
        "Endpoint::attach needs a current-thread runtime, because tokio_xmpp::Client loses wake-ups \
         on a multi-thread one and then receives nothing ever again; use Endpoint::login there"
    )]
    AttachOnMultiThread,
    /// The endpoint was closed before.
    #[error("the endpoint is closed")]
    EndpointClosed,
    /// The stream was closed before.
    #[error("the stream is closed")]
    StreamClosed,
    /// A stanza that can't be sent.
    #[error("the stanza can't be sent: {0}")]
    BadStanza(String),
    /// A setting that makes no sense.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// The Jingle reason with which a session ends because of this error (XEP-0166 #def-reason).
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Security(_) => Reason::SecurityError,
            Self::PeerMisbehaved(PeerMisbehaved::Tls(_)) => Reason::SecurityError,
            Self::PeerMisbehaved(PeerMisbehaved::Bytestream(_)) => Reason::FailedTransport,
            Self::PeerMisbehaved(PeerMisbehaved::XmlStream(_)) | Self::Stream(_) => Reason::FailedApplication,
            Self::PeerMisbehaved(_) => Reason::GeneralError,
            Self::PeerIncompatible(_) => Reason::IncompatibleParameters,
            Self::Transport(TransportError::Refused(_)) => Reason::FailedTransport,
            Self::Signalling(SignallingError::PeerGone) => Reason::Gone,
            // XEP-0260 #fallback names it for a bytestream that does not come about.
            Self::Transport(_) | Self::Signalling(_) | Self::Timeout(Step::Transport, _) => {
                Reason::ConnectivityError
            }
            Self::Terminated(terminated) => terminated.reason.clone(),
            Self::Timeout(..) => Reason::Timeout,
            Self::TooManySessions(_) => Reason::Busy,
            Self::ApiMisuse(_) => Reason::GeneralError,
        }
    }

    /// What the peer is told in words, beside the reason. It is what the peer did or did not do; whom we trust and
    /// what our system says is not for it to know.
    pub(crate) fn peer_text(&self) -> Option<String> {
        match self {
            Self::PeerMisbehaved(what) => Some(what.to_string()),
            Self::PeerIncompatible(what) => Some(what.to_string()),
            Self::Timeout(step, _) => Some(format!("timed out: {step}")),
            Self::Security(what) => what.peer_text().map(str::to_owned),
            Self::Transport(_)
            | Self::Signalling(_)
            | Self::Terminated(_)
            | Self::Stream(_)
            | Self::TooManySessions(_)
            | Self::ApiMisuse(_) => None,
        }
    }

    /// Of an error before there is a stream: a refusal of the peer's for security is that, whether its alert, its stream
    /// error or its session-terminate was the quickest.
    pub(crate) fn or_refusal(self) -> Self {
        let text = match self {
            Self::Terminated(Terminated { reason: Reason::SecurityError, text }) => text,
            Self::Stream(StreamFailure {
                direction: Direction::Received,
                condition: DefinedCondition::NotAuthorized,
                text,
            }) => text,
            other => return other,
        };
        SecurityError::PeerRefused(text).into()
    }

    pub(crate) fn io(error: &io::Error) -> Self {
        // A layer below may have wrapped one of ours to pass through `AsyncRead`.
        if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return inner.clone();
        }
        let copy = io::Error::new(error.kind(), error.to_string());
        Self::Transport(TransportError::Io(Arc::new(copy)))
    }

    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

impl SecurityError {
    /// Only what the peer can see for itself.
    fn peer_text(&self) -> Option<&'static str> {
        match self {
            Self::FingerprintMismatch { .. } => Some("the certificate is not the announced one"),
            Self::NotOffered => Some("encryption is required (XTLS)"),
            Self::NoFingerprint => Some("no usable certificate fingerprint was announced"),
            Self::NoCommonMethod(_) => Some("the XTLS method x509 is required"),
            _ => None,
        }
    }
}

impl From<SecurityError> for Error {
    fn from(error: SecurityError) -> Self {
        Self::Security(error)
    }
}

impl From<PeerMisbehaved> for Error {
    fn from(error: PeerMisbehaved) -> Self {
        Self::PeerMisbehaved(error)
    }
}

impl From<ApiMisuse> for Error {
    fn from(error: ApiMisuse) -> Self {
        Self::ApiMisuse(error)
    }
}

impl From<Terminated> for Error {
    fn from(terminated: Terminated) -> Self {
        Self::Terminated(terminated)
    }
}

fn list(fingerprints: &[Fingerprint]) -> String {
    if fingerprints.is_empty() {
        return "none of those before, which are all revoked".to_owned();
    }
    let shown: Vec<_> = fingerprints.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

fn in_brackets(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

pub(crate) fn stanza_error(error: &StanzaError) -> String {
    let said = error.texts.values().next().cloned();
    format!("{}{}", stanza_condition_name(error), in_brackets(&said))
}

/// `service-unavailable` rather than `ServiceUnavailable`.
fn stanza_condition_name(error: &StanzaError) -> String {
    kebab(&format!("{:?}", error.defined_condition))
}

pub(crate) fn condition_name(condition: &DefinedCondition) -> String {
    kebab(&format!("{condition:?}"))
}

fn kebab(camel: &str) -> String {
    let mut kebab = String::with_capacity(camel.len() + 4);
    for letter in camel.chars().take_while(|letter| letter.is_ascii_alphanumeric()) {
        if letter.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests;
