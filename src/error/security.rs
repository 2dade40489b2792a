//! Errors about who is at the other end.
//!
//! Each says in one sentence what was expected, what came, and what the user can do.

use jid::BareJid;

use super::in_brackets;
use crate::security::{Fingerprint, Level};

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
    #[error(
        "SASL with {peer}: {why}; try again, and if that does not help, see what its program says, or verify the peer without a \
         shared secret"
    )]
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

impl SecurityError {
    /// Only what the peer can see for itself.
    pub(super) fn peer_text(&self) -> Option<&'static str> {
        match self {
            Self::FingerprintMismatch { .. } => Some("the certificate is not the announced one"),
            Self::NotOffered => Some("encryption is required (XTLS)"),
            Self::NoFingerprint => Some("no usable certificate fingerprint was announced"),
            Self::NoCommonMethod(_) => Some("the XTLS method x509 is required"),
            _ => None,
        }
    }
}

fn list(fingerprints: &[Fingerprint]) -> String {
    if fingerprints.is_empty() {
        return "none of those before, which are all revoked".to_owned();
    }
    let shown: Vec<_> = fingerprints.iter().map(ToString::to_string).collect();
    shown.join(", ")
}
