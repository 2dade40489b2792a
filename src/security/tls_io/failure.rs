//! What went wrong with TLS: what was expected, what came, and what can be done.

use std::io;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError, PeerIncompatible};

use crate::error::{Error, PeerMisbehaved, SecurityError};

/// What an error of a [`Secured`](super::Secured) stream means; also for those that come when it is read or written
/// later.
pub(crate) fn error_from_io(error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => error_from_tls(tls),
        None => Error::io(error),
    }
}

pub(super) fn error_from_tls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<SecurityError>() {
                Some(ours) => ours.clone().into(),
                None => SecurityError::BadCertificate(other.to_string()).into(),
            }
        }
        rustls::Error::InvalidCertificate(other) => SecurityError::BadCertificate(other.to_string()).into(),
        rustls::Error::NoCertificatesPresented => no_certificate().into(),
        rustls::Error::AlertReceived(alert) => match refusal(*alert) {
            Some(text) => SecurityError::PeerRefused(Some(text.to_owned())).into(),
            None => PeerMisbehaved::Tls(ended(*alert)).into(),
        },
        rustls::Error::PeerIncompatible(why) => PeerMisbehaved::Tls(incompatible(why)).into(),
        other => PeerMisbehaved::Tls(other.to_string()).into(),
    }
}

pub(super) const TOO_OLD: &str = "TLS 1.3 was expected, and it has nothing newer than TLS 1.2; update it, or, if that \
                                  can't be, allow TLS 1.2 (Config::dangerous, allow_tls12)";

/// What was expected of the peer's TLS, and what came.
fn incompatible(why: &PeerIncompatible) -> String {
    match why {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => TOO_OLD.to_owned(),
        PeerIncompatible::Tls12NotOffered | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            "TLS 1.3 was expected, or 1.2 where that is allowed, and it has nothing newer than TLS 1.1: update it"
                .to_owned()
        }
        PeerIncompatible::NoKxGroupsInCommon => {
            "it was expected to have one of our key exchange groups, and has none of them: add one that it has to \
             TlsOptions::key_exchange"
                .to_owned()
        }
        PeerIncompatible::ExtendedMasterSecretExtensionRequired => {
            "it was expected to have the extended master secret with TLS 1.2 (RFC 7627), and has not: update it"
                .to_owned()
        }
        other => format!("it lacks something ({other:?})"),
    }
}

/// An alert that is not about our certificate.
fn ended(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::ProtocolVersion => format!("it has no version in common with us: {TOO_OLD}"),
        AlertDescription::HandshakeFailure => {
            "it has nothing in common with us (alert handshake_failure): most likely no key exchange group, which \
             TlsOptions::key_exchange sets, or no version of TLS"
                .to_owned()
        }
        other => format!("it ended the connection with the alert {other:?}"),
    }
}

fn no_certificate() -> SecurityError {
    SecurityError::BadCertificate("none was presented".to_owned())
}

/// The name of an alert that is about our certificate (RFC 8446 §6.2).
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::CertificateRequired => "certificate_required",
        _ => return None,
    })
}
