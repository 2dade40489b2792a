//! Peers whose certificates were seen before: ssh's known_hosts for XMPP.

mod disk;
mod document;
mod events;
mod list;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use jid::BareJid;

pub use self::events::{PeerEvent, PeerEvents};
use self::{
    disk::{Disk, LOCK_DEADLINE, Presence, Stamp},
    events::Broadcast,
    list::{List, Weight},
};
use super::{
    certificate::{Certificate, KeyPin},
    fingerprint::Fingerprint,
    peer::Verification,
};
use crate::error::{Error, SecurityError};

/// The certificates that peers presented, and how they were verified; clones are the same store.
///
/// A peer that is listed must present one of its certificates, or a new one with the key of one of them. Another one is
/// [`SecurityError::KeyChanged`], and nothing but the user changes that: with [`add`](Self::add) for a further device,
/// with [`forget`](Self::forget) for a new start. What is [revoked](Self::revoke) is refused, with the key that belongs
/// to it, and a peer whose certificates are all revoked does not become a stranger by that: a new certificate of it has
/// to be added, too.
///
/// A peer that an authority answered for ([`Trust::authorities`](super::Trust::authorities)) is listed with that word, and with
/// the certificate that it had first. From then on an authority must have issued whatever it presents, or the user must have
/// [added](Self::add) it.
///
/// # The file
///
/// It is TOML, and people may edit it, also while programs use it:
///
/// ```toml
/// version = 1
///
/// [[certificate]]
/// peer = "juliet@capulet.lit"
/// fingerprint = "sha-256:1A:2B:…"    # or sha-384, sha-512
/// public-key = "sha-256:3C:4D:…"     # may be missing; a renewed certificate is known by it
/// verified = "code"                  # or first-use, accepted, secret, compared, authority
/// first-seen = 2026-11-22T03:40:00Z  # may be missing
/// last-seen = 2026-11-24T12:00:00Z   # may be missing
/// label = "balcony"                  # may be missing; for people
/// revoked = true                     # may be missing; or a date
/// renewed-from = ["sha-256:5E:6F:…"] # may be missing; what `fingerprint` was before the peer renewed its certificate
/// ```
///
/// A renewed certificate takes the place of the one before. That is kept in `renewed-from`, so that whoever revokes it, or
/// adds it, means the renewed one as well. At most 16 are kept: of a peer that renewed its certificate so often, the next
/// one is a [`SecurityError::KeyChanged`], and has to be added.
///
/// What strangers make of it is bounded: 4,096 peers that showed nothing, 5,120 with those that showed something. Those that
/// the user added, or revoked, don't count.
///
/// What else is in it, comments and order are kept. A file that can't be understood is never overwritten, and nobody is
/// believed while it is there. Several processes may share one file: each writes under a lock on a file beside it, with
/// `.lock` at the end of its name, and sees at the next handshake what another wrote. A crash, or a power failure,
/// leaves the old file or the new one. The file may have 16 MiB. Keep it on a local disk: each handshake looks whether it changed.
///
/// On Unix, a file that its group or others may write is refused: they could change whom the bot believes. If the file
/// goes away while a program uses it, nobody is believed there until it is back, or the program is restarted. To begin anew
/// without a restart, [`forget`](Self::forget) the peers.
#[derive(Clone, Debug)]
pub struct KnownPeers(Arc<Store>);

#[derive(Debug)]
struct Store {
    /// `None`: in memory only.
    disk: Option<Disk>,
    /// Never held while another process is waited for: handshakes look at it.
    current: Mutex<Current>,
    /// One writer at a time also within the process, in fair order.
    writing: Mutex<()>,
    news: Arc<Broadcast>,
}

/// What was read last. With a disk, only good while the file has this stamp.
#[derive(Debug, Default)]
struct Current {
    list: List,
    stamp: Option<Stamp>,
}

/// A certificate of a peer's, as [`KnownPeers`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// When it was seen for the first time, if it was; to the minute.
    pub first_seen: Option<SystemTime>,
    /// When it was seen last, if it was; to the minute.
    pub last_seen: Option<SystemTime>,
    /// What the user calls the device.
    pub label: Option<String>,
    /// When it was revoked, if it was: it is refused from then on. [`SystemTime::UNIX_EPOCH`] if the file only says
    /// `true`.
    pub revoked: Option<SystemTime>,
    /// What the fingerprint was before the peer renewed its certificate, with the same key; the oldest first, and at most
    /// 16.
    pub renewed_from: Vec<Fingerprint>,
}

impl Current {
    fn presence(&self) -> Presence {
        if self.stamp.is_some() { Presence::Required } else { Presence::Optional }
    }
}

impl KnownPeers {
    /// Those in a file. If there is none, nobody is known yet, and it is made when there is something to write, for its
    /// owner only (mode 0600 on Unix). The mode of an existing file is kept; of a symbolic link, the target is written.
    ///
    /// Blocks on the disk; meant for the start of a program.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] with the path, the line and the cause: the file can't be read, is damaged, is of an
    /// unknown version or too long, its group or others may write it, or its folder does not exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let known = Self::new(Some(Disk::new(path.as_ref())?));
        known.look(|_| ())?;
        Ok(known)
    }

    /// Nobody is known yet, and all is forgotten with the last clone.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    fn new(disk: Option<Disk>) -> Self {
        Self(Arc::new(Store {
            disk,
            current: Mutex::default(),
            writing: Mutex::default(),
            news: Arc::default(),
        }))
    }

    /// All the certificates, in the order of the file. Blocks on the disk if the file changed.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] if the file can't be read.
    pub fn certificates(&self) -> Result<Vec<KnownCertificate>, Error> {
        Ok(self.look(|list| list.all().cloned().collect())?)
    }

    /// Those of one peer. Blocks on the disk if the file changed.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] if the file can't be read.
    pub fn certificates_of(&self, peer: &BareJid) -> Result<Vec<KnownCertificate>, Error> {
        Ok(self.look(|list| list.of(peer).cloned().collect())?)
    }

    /// The user compared this fingerprint with the peer's: from now on it counts as [`Verification::Compared`], beside
    /// what else is listed of the peer. A label that is there already is kept if none is given. The fingerprint of a
    /// certificate that was renewed since stands for the renewed one, which has its key.
    ///
    /// Blocks on the disk, and for 5 seconds at most on other processes.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] if it can't be written, if the certificate is revoked, or if the fingerprint is
    /// made with SHA-1.
    pub fn add(&self, peer: &BareJid, fingerprint: Fingerprint, label: Option<&str>) -> Result<(), Error> {
        Ok(self.change(|list| list.add(peer, fingerprint, label))?)
    }

    /// Says what the user calls the device with this certificate, or with one that was renewed since.
    ///
    /// Blocks on the disk, and for 5 seconds at most on other processes.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] if it is not listed, or can't be written.
    pub fn label(&self, peer: &BareJid, fingerprint: &Fingerprint, label: &str) -> Result<(), Error> {
        Ok(self.change(|list| list.label(peer, fingerprint, label))?)
    }

    /// Refuses this certificate of the peer's from now on, and each with the same key as far as that is known, also if the
    /// peer has renewed it since. It need not be listed yet. Streams that are up stay up. A peer's own pins come
    /// first: what [`Trust::pin_for`](super::Trust::pin_for) pins is accepted all the same.
    ///
    /// Blocks on the disk, and for 5 seconds at most on other processes.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] if it can't be written, or if the fingerprint is made with SHA-1.
    pub fn revoke(&self, peer: &BareJid, fingerprint: &Fingerprint) -> Result<(), Error> {
        Ok(self.change(|list| list.revoke(peer, fingerprint, SystemTime::now()))?)
    }

    /// Forgets all that is listed of the peer, revocations included: it is a stranger again.
    ///
    /// Blocks on the disk, and for 5 seconds at most on other processes.
    ///
    /// # Errors
    ///
    /// [`SecurityError::KnownPeers`] if it can't be written.
    pub fn forget(&self, peer: &BareJid) -> Result<(), Error> {
        let forgotten = self.change(|list| {
            list.forget(peer);
            Ok(())
        });
        Ok(forgotten?)
    }

    /// Tells what happens from now on in this store and its clones, not what other processes do.
    #[must_use]
    pub fn events(&self) -> PeerEvents {
        self.0.news.subscribe()
    }

    /// Whether there is a certificate that the peer must present. What can't be read may have one.
    pub(crate) fn knows(&self, peer: &BareJid) -> bool {
        self.look(|list| list.of(peer).next().is_some()).unwrap_or(true)
    }

    /// What the store says of this certificate; `None` if the peer is unknown. [`Verification::Authority`] says that an
    /// authority has to answer for it, which the store can't know. Changes nothing; a refusal is an event.
    pub(crate) fn find(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
    ) -> Result<Option<Verification>, SecurityError> {
        let found = self.look(|list| list.find(peer, certificate)).flatten();
        self.report(peer, found)
    }

    /// Remembers the certificate of a peer, that has proved to hold its key. Of two first uses at the same time one wins.
    /// Never lowers what was known; of a known peer, only a known certificate can be raised.
    pub(crate) fn remember(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        verification: Verification,
    ) -> Result<Verification, SecurityError> {
        self.report(peer, self.note(peer, certificate, Some(verification)))
    }

    /// Notes that a listed peer was here again.
    pub(crate) fn meet_again(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
    ) -> Result<Verification, SecurityError> {
        self.report(peer, self.note(peer, certificate, None))
    }

    /// Whether remembering somebody may wait for the disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.0.disk.is_some()
    }

    fn note(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        shown: Option<Verification>,
    ) -> Result<Verification, SecurityError> {
        let now = SystemTime::now();
        let first_look = self.look(|list| list.plan(peer, certificate, shown, now)).flatten()?;
        if first_look.weight() == Weight::Nothing {
            return Ok(first_look.verification());
        }
        // Another process may have been here since.
        let noted = self.change(|list| {
            let plan = list.plan(peer, certificate, shown, now)?;
            list.carry_out(&plan);
            Ok(plan)
        });
        match noted {
            Ok(plan) => {
                plan.news(certificate).iter().for_each(|event| self.0.news.tell(event));
                Ok(plan.verification())
            }
            // A file that only an administrator may write serves as well.
            Err(SecurityError::KnownPeers(cause)) if first_look.weight() == Weight::LastSeen => {
                tracing::warn!(%peer, %cause, "when the peer was seen last can't be written down");
                Ok(first_look.verification())
            }
            Err(refused) => Err(refused),
        }
    }

    /// A handshake asks until it is refused, so each refusal comes by here once.
    pub(super) fn report<T>(
        &self,
        peer: &BareJid,
        judged: Result<T, SecurityError>,
    ) -> Result<T, SecurityError> {
        if let Err(
            error @ (SecurityError::KeyChanged { .. }
            | SecurityError::Revoked { .. }
            | SecurityError::NotIssued { .. }),
        ) = &judged
        {
            self.0.news.tell(&PeerEvent::Refused { peer: peer.clone(), error: error.clone() });
        }
        judged
    }

    /// Looks at the list, as it is on the disk now.
    fn look<T>(&self, question: impl FnOnce(&List) -> T) -> Result<T, SecurityError> {
        let mut current = lock(&self.0.current);
        if let Some(disk) = &self.0.disk
            && disk.stamp()? != current.stamp
        {
            let (document, stamp) = disk.read(current.presence())?;
            *current = Current { list: document.list().clone(), stamp };
        }
        Ok(question(&current.list))
    }

    /// Changes the list, here and on the disk, or nowhere. A `change` that fails must leave the list as it was.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut List) -> Result<T, SecurityError>,
    ) -> Result<T, SecurityError> {
        let deadline = Instant::now() + LOCK_DEADLINE;
        let _turn = lock(&self.0.writing);
        let Some(disk) = &self.0.disk else { return change(&mut lock(&self.0.current).list) };
        let locked = disk.lock(deadline)?;
        let presence = lock(&self.0.current).presence();
        let document = locked.read(presence)?;
        let mut list = document.list().clone();
        let changed = change(&mut list)?;
        if list != *document.list() {
            let stamp = Some(locked.write(&document.updated(&list))?);
            *lock(&self.0.current) = Current { list, stamp };
        }
        Ok(changed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
