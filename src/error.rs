//! Errors by blame, and their one mapping to Jingle reasons and stream errors.
//!
//! An [`Error`] says first whose fault it was, then what happened. It is cheap to clone: the same
//! error may end a read, a write and a pending iq.

mod security;

use std::{fmt, io, sync::Arc, time::Duration};

use xmpp_parsers::{stanza::Stanza, stanza_error::StanzaError, stream_error::DefinedCondition};

pub use self::security::SecurityError;
use crate::reason::Reason;

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

    /// The stream was lost, and could not be carried on over another bytestream.
    #[error("the stream was lost ({}), and could not be resumed: {}", .0.lost, .0.why)]
    NotResumed(NotResumed),

    /// The stream ended before the peer had acknowledged these stanzas: some of them may have arrived all the same.
    #[error("{0}")]
    Undelivered(Undelivered),

    /// There are as many sessions as [`Limits::sessions`](crate::Limits::sessions) allows.
    #[error("there are {0} sessions already, as many as the limit allows")]
    TooManySessions(usize),

    /// The crate was used in a way that it can't serve; the text says what to do instead.
    #[error("{0}")]
    ApiMisuse(ApiMisuse),
}

/// Why a stream could not be carried on; see [`SmConfig`](crate::SmConfig).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NotResumed {
    /// How the bytestream was lost.
    pub lost: Arc<Error>,
    /// What became of the last attempt to resume it.
    pub why: Arc<Error>,
}

/// The stanzas that the peer did not acknowledge (XEP-0198 #acking), the oldest first.
///
/// It is cheap to clone. What was sent with `send_iq` and what the stream answered by itself is not among them: whoever waits
/// for the reply gets the error.
#[derive(Clone, Debug)]
pub struct Undelivered {
    cause: Option<Arc<Error>>,
    stanzas: Arc<[Stanza]>,
}

impl Undelivered {
    pub(crate) fn new(cause: Option<Error>, stanzas: impl Into<Arc<[Stanza]>>) -> Self {
        Self { cause: cause.map(Arc::new), stanzas: stanzas.into() }
    }

    /// There is no stream, and these were to be said on it first.
    pub(crate) fn unsaid(error: Error, stanzas: Arc<[Stanza]>) -> Error {
        let cause = match error {
            // Some of them, or all.
            Error::Undelivered(Self { cause, .. }) => cause,
            other => Some(Arc::new(other)),
        };
        Error::Undelivered(Self { cause, stanzas })
    }

    /// The stanzas as they were given to be sent, in that order.
    #[must_use]
    pub fn stanzas(&self) -> &[Stanza] {
        &self.stanzas
    }

    /// The same, to be sent again, say.
    #[must_use]
    pub fn to_stanzas(&self) -> Vec<Stanza> {
        self.stanzas.iter().map(copy).collect()
    }

    /// What ended the stream; `None` if it was closed in good order.
    #[must_use]
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_deref()
    }
}

/// `Stanza` can't be cloned, what it is made of can.
pub(crate) fn copy(stanza: &Stanza) -> Stanza {
    match stanza {
        Stanza::Iq(iq) => Stanza::Iq(iq.clone()),
        Stanza::Message(message) => Stanza::Message(message.clone()),
        Stanza::Presence(presence) => Stanza::Presence(presence.clone()),
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stanzas.len(), &self.cause) {
            (1, None) => f.write_str("the stream was closed before the peer had acknowledged 1 stanza"),
            (count, None) => {
                write!(f, "the stream was closed before the peer had acknowledged {count} stanzas")
            }
            (1, Some(cause)) => write!(f, "{cause}; 1 stanza was not acknowledged"),
            (count, Some(cause)) => write!(f, "{cause}; {count} stanzas were not acknowledged"),
        }
    }
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
    /// Waiting for a sign of life from a peer that has been silent.
    Silence,
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
            Self::Silence => "waiting for a sign of life from the peer",
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
            // XEP-0260 #fallback names it for a bytestream that does not come about; and a peer that only seemed to be gone may
            // carry on its stream after it, as after none that somebody meant.
            Self::Transport(_) | Self::Signalling(_) | Self::Timeout(Step::Transport, _) => {
                Reason::ConnectivityError
            }
            Self::Terminated(terminated) => terminated.reason.clone(),
            Self::NotResumed(_) => Reason::Expired,
            Self::Undelivered(undelivered) => match undelivered.cause() {
                Some(cause) => cause.reason(),
                None => Reason::Success,
            },
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
            Self::Undelivered(undelivered) => undelivered.cause()?.peer_text(),
            Self::NotResumed(_)
            | Self::Transport(_)
            | Self::Signalling(_)
            | Self::Terminated(_)
            | Self::Stream(_)
            | Self::TooManySessions(_)
            | Self::ApiMisuse(_) => None,
        }
    }

    /// Why a session ended says more than that its bytestream did, but not more than what we found out ourselves.
    pub(crate) fn explained_by(self, of_session: Option<Self>) -> Self {
        match (self, of_session) {
            (Self::Transport(_) | Self::Timeout(..), Some(of_session)) => of_session,
            (error, _) => error,
        }
    }

    /// Of an error before there is a stream: a refusal of the peer's for security is that, whether its alert, its stream
    /// error or its session-terminate was the quickest, and whatever had been said to it by then.
    pub(crate) fn or_refusal(self) -> Self {
        let text = match self {
            Self::Undelivered(Undelivered { cause: Some(cause), stanzas }) => {
                let cause = Some(Arc::new(Self::clone(&cause).or_refusal()));
                return Self::Undelivered(Undelivered { cause, stanzas });
            }
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
