//! Why a program ends with another exit code than 0.

use std::process::ExitCode;

use jid::{FullJid, Jid};
use jingle_xmlstream::{Error, Reason, Undelivered};

use super::LOGIN;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The program was started in a way that can't work.
    #[error("{0}")]
    Usage(String),
    /// There was no session with the server in time.
    #[error(
        "{0} is not online after {LOGIN:?}: is the password right, and can the server be reached? \
         (the log on stderr says what went wrong)"
    )]
    Login(Jid),
    /// The stream with this peer failed.
    #[error("{peer}: {error}")]
    Stream { peer: FullJid, error: Error },
    /// Something else in the crate failed.
    #[error("{0}")]
    Other(#[from] Error),
    /// The peer did not send back what it should have.
    #[error("{0}")]
    Echo(String),
    /// A signal came before the work was done.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// A word for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Login(_) => "timeout",
            Self::Stream { error, .. } | Self::Other(error) => kind(error),
            Self::Echo(_) => "echo",
            Self::Interrupted => "interrupted",
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }

    /// What the peer did not acknowledge of what was sent.
    pub(crate) fn undelivered(&self) -> Option<&Undelivered> {
        match self {
            Self::Stream { error: Error::Undelivered(undelivered), .. } => Some(undelivered),
            _ => None,
        }
    }

    /// With which reason a Jingle session ended because of this, if there was one.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let Self::Stream { error, .. } = self else { return None };
        match cause(error) {
            Error::PeerMisbehaved(_)
            | Error::Security(_)
            | Error::Transport(_)
            | Error::Terminated(_)
            | Error::Stream(_) => Some(error.reason()),
            _ => None,
        }
    }
}

/// Why there is a failure, whatever was lost by it.
fn cause(error: &Error) -> &Error {
    match error {
        Error::Undelivered(undelivered) => undelivered.cause().unwrap_or(error),
        _ => error,
    }
}

/// Who is to blame: the name of the error's variant.
pub(crate) fn kind(error: &Error) -> &'static str {
    match cause(error) {
        Error::PeerMisbehaved(_) => "peer-misbehaved",
        Error::PeerIncompatible(_) => "peer-incompatible",
        Error::Security(_) => "security",
        Error::Transport(_) => "transport",
        Error::Signalling(_) => "signalling",
        Error::Terminated(_) => "terminated",
        Error::Stream(_) => "stream",
        Error::Timeout(..) => "timeout",
        Error::NotResumed(_) => "not-resumed",
        Error::Undelivered(_) => "undelivered",
        Error::TooManySessions(_) => "too-many-sessions",
        Error::ApiMisuse(_) => "api-misuse",
        _ => "other",
    }
}
