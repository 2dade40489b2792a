//! Why a Jingle session ends (XEP-0166 #def-reason).

use std::fmt;

/// The conditions of a `<reason/>`.
///
/// Unlike `xmpp_parsers::jingle::Reason`, it keeps conditions that it does not know: a peer that
/// ends a session with a new one has ended it all the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The party prefers to use an existing session, whose sid may be given.
    AlternativeSession(Option<String>),
    /// The party is busy and can't accept a session.
    Busy,
    /// The initiator cancels its own request.
    Cancel,
    /// There are connectivity problems.
    ConnectivityError,
    /// The party declines the session.
    Decline,
    /// The session exceeded a time limit.
    Expired,
    /// Setting up the application (here: the XML stream) failed.
    FailedApplication,
    /// Setting up the transport failed.
    FailedTransport,
    /// An error that no other condition describes.
    GeneralError,
    /// The entity is going offline.
    Gone,
    /// The application is supported, the parameters are not.
    IncompatibleParameters,
    /// Media processing problems.
    MediaError,
    /// A violation of local security policies.
    SecurityError,
    /// The session ended in good order.
    Success,
    /// A request was not answered in time.
    Timeout,
    /// None of the offered applications is supported.
    UnsupportedApplications,
    /// None of the offered transports is supported.
    UnsupportedTransports,
    /// A condition that XEP-0166 does not list, by its element's name; empty if there was none.
    Other(String),
}

impl Reason {
    /// The name of the condition's element.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::AlternativeSession(_) => "alternative-session",
            Self::Busy => "busy",
            Self::Cancel => "cancel",
            Self::ConnectivityError => "connectivity-error",
            Self::Decline => "decline",
            Self::Expired => "expired",
            Self::FailedApplication => "failed-application",
            Self::FailedTransport => "failed-transport",
            Self::GeneralError => "general-error",
            Self::Gone => "gone",
            Self::IncompatibleParameters => "incompatible-parameters",
            Self::MediaError => "media-error",
            Self::SecurityError => "security-error",
            Self::Success => "success",
            Self::Timeout => "timeout",
            Self::UnsupportedApplications => "unsupported-applications",
            Self::UnsupportedTransports => "unsupported-transports",
            Self::Other(name) => name,
        }
    }

    pub(crate) fn from_name(name: &str) -> Self {
        const KNOWN: [Reason; 16] = [
            Reason::Busy,
            Reason::Cancel,
            Reason::ConnectivityError,
            Reason::Decline,
            Reason::Expired,
            Reason::FailedApplication,
            Reason::FailedTransport,
            Reason::GeneralError,
            Reason::Gone,
            Reason::IncompatibleParameters,
            Reason::MediaError,
            Reason::SecurityError,
            Reason::Success,
            Reason::Timeout,
            Reason::UnsupportedApplications,
            Reason::UnsupportedTransports,
        ];
        let known = KNOWN.into_iter().find(|reason| reason.name() == name);
        known.unwrap_or_else(|| match name {
            "alternative-session" => Self::AlternativeSession(None),
            other => Self::Other(other.to_owned()),
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlternativeSession(Some(sid)) => write!(f, "alternative-session ({sid})"),
            Self::Other(name) if name.is_empty() => f.write_str("no reason given"),
            reason => f.write_str(reason.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_kept() {
        for name in ["busy", "success", "alternative-session", "unheard-of"] {
            assert_eq!(Reason::from_name(name).name(), name);
        }
        assert_eq!(Reason::from_name("unheard-of"), Reason::Other("unheard-of".into()));
    }
}
