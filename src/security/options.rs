//! What a TLS connection and the proof behind it are set up with.

use std::{collections::HashMap, sync::Arc};

use jid::BareJid;

use super::{identity::Identity, peer::Level, secret::Secret, trust::Trust};

/// How the peer of a stream is authenticated, and how what is said is encrypted: who we are, whom we trust, what has to
/// be shown, and by which means.
///
/// [`Config`](crate::Config) has the same settings for an endpoint; these are for a stream without one
/// ([`StreamOptions::starttls`](crate::StreamOptions::starttls)).
#[derive(Clone, Debug)]
pub struct TlsOptions {
    pub(crate) identity: Identity,
    pub(crate) trust: Trust,
    secrets: PerPeer<Secret>,
    required: PerPeer<Level>,
    pub(crate) key_exchange: Arc<[KeyExchange]>,
    pub(crate) versions: Versions,
}

/// Which versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versions {
    Tls13,
    Tls12AndTls13,
}

/// A setting for everybody, and others for some.
#[derive(Clone, Debug)]
struct PerPeer<T> {
    everybody: Option<T>,
    some: HashMap<BareJid, T>,
}

impl TlsOptions {
    /// TLS 1.3 only, with post-quantum key exchange where the peer has it.
    #[must_use]
    pub fn new(identity: Identity, trust: impl Into<Trust>) -> Self {
        Self {
            identity,
            trust: trust.into(),
            secrets: PerPeer::default(),
            required: PerPeer::default(),
            key_exchange: Arc::new([
                KeyExchange::X25519MlKem768,
                KeyExchange::X25519,
                KeyExchange::Secp256r1,
            ]),
            versions: Versions::Tls13,
        }
    }

    /// A secret that every peer has to know whose certificate is not verified yet.
    ///
    /// It is proved on the stream by SASL SCRAM, bound to the TLS connection, in both directions; where that fails
    /// there is no stream. Whoever knows it may use any address; [`secret_for`](Self::secret_for) is for one.
    #[must_use]
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.everybody = Some(secret);
        self
    }

    /// The secret that we share with this peer.
    #[must_use]
    pub fn secret_for(mut self, peer: BareJid, secret: Secret) -> Self {
        self.secrets.some.insert(peer, secret);
        self
    }

    /// What has to be shown about every peer. Default: [`Level::FirstUse`].
    #[must_use]
    pub fn require(mut self, level: Level) -> Self {
        self.required.everybody = Some(level);
        self
    }

    /// What has to be shown about this peer.
    #[must_use]
    pub fn require_of(mut self, peer: BareJid, level: Level) -> Self {
        self.required.some.insert(peer, level);
        self
    }

    /// The key exchange groups, the preferred first. Default: X25519MLKEM768, X25519, P-256. A peer that has none of
    /// them gets no stream. With none at all there is no TLS: streams fail with
    /// [`ApiMisuse::Config`](crate::ApiMisuse::Config).
    #[must_use]
    pub fn key_exchange(mut self, groups: impl IntoIterator<Item = KeyExchange>) -> Self {
        self.key_exchange = groups.into_iter().collect();
        self
    }

    pub(crate) fn allow_tls12(&mut self) {
        tracing::warn!("TLS 1.2 is allowed for e2e streams");
        self.versions = Versions::Tls12AndTls13;
    }

    pub(crate) fn secret_of(&self, peer: &BareJid) -> Option<&Secret> {
        self.secrets.of(peer)
    }

    /// Whether the peer has to show something that it can't show in plaintext.
    pub(crate) fn expects_proof_of(&self, peer: &BareJid) -> bool {
        // The last one may look at the disk.
        self.secret_of(peer).is_some()
            || self.required_of(peer) > Level::FirstUse
            || self.trust.expects_certificate_of(peer)
    }

    pub(crate) fn required_of(&self, peer: &BareJid) -> Level {
        self.required.of(peer).copied().unwrap_or(Level::FirstUse)
    }
}

impl<T> PerPeer<T> {
    fn of(&self, peer: &BareJid) -> Option<&T> {
        self.some.get(peer).or(self.everybody.as_ref())
    }
}

impl<T> Default for PerPeer<T> {
    fn default() -> Self {
        Self { everybody: None, some: HashMap::new() }
    }
}

/// A group for the key exchange of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyExchange {
    /// X25519 and ML-KEM-768 together: safe if either is, also against the quantum computers to come.
    X25519MlKem768,
    /// ML-KEM-768 alone.
    MlKem768,
    /// X25519 alone.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}
