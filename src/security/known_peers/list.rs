//! What a list of certificates says of one that is presented, and how the list grows. No file and no clock.

use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::{
    super::{
        certificate::Certificate,
        fingerprint::{Fingerprint, HashAlgo},
        peer::{Level, Verification},
    },
    KnownCertificate, PeerEvent,
};
use crate::error::SecurityError;

/// How many certificates are remembered of peers that nothing was shown of. A server can invent JIDs without end (and with a
/// wildcard of its own, have an authority answer for them), and to forget an old peer for a new one would let it make us
/// forget; so beyond this, unknown peers are refused.
pub(crate) const MAX_FIRST_USES: usize = 4096;

/// How many certificates are remembered in all, but for those that the user added. Whoever has a secret that is for
/// everybody can come under a new JID each time. It is more than [`MAX_FIRST_USES`], so that strangers can't take the
/// place of those who can show something.
pub(super) const MAX_MET: usize = MAX_FIRST_USES + 1024;

/// How many fingerprints are kept that a renewal has replaced. The user may revoke one that he wrote down years ago, so none
/// is forgotten for another: a peer that renewed its certificate so often is refused with the next, until the user adds
/// that. Once a year is usual.
pub(super) const MAX_RENEWALS: usize = 16;

/// The longest address that is remembered without the user having said so, in bytes; real ones have a tenth of it. Of the
/// longest that XMPP allows (RFC 7622 §3.1), so many strangers would fill the file, and the user could revoke nothing
/// any more.
pub(super) const MAX_FIRST_USE_ADDRESS: usize = 512;

/// How exactly times are noted. A bot that meets a peer every second does not have to write every second.
const NOTED_TO: Duration = Duration::from_secs(60);

/// All the certificates, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List(Vec<Row>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) known: KnownCertificate,
    /// Which `[[certificate]]` of the file it was read from.
    pub(super) origin: Option<usize>,
}

/// What becomes of the list when a peer has been met.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where, and what was there; otherwise it is added.
    before: Option<(usize, KnownCertificate)>,
    after: KnownCertificate,
}

/// How much would be lost if a [`Plan`] could not be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Nothing,
    /// When the peer was seen last.
    LastSeen,
    /// Whom we trust.
    Trust,
}

impl List {
    pub(super) fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.0
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &KnownCertificate> {
        self.0.iter().map(|row| &row.known)
    }

    pub(super) fn of(&self, peer: &BareJid) -> impl Iterator<Item = &KnownCertificate> {
        self.all().filter(move |known| known.peer == *peer)
    }

    /// How a certificate is listed; `None` if nothing is listed of the peer. [`Verification::Authority`] says what it has to
    /// be shown by, not that it is.
    pub(super) fn find(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
    ) -> Result<Option<Verification>, SecurityError> {
        let listed = self.listed(peer, certificate)?;
        Ok(listed.map(|(_, known)| of_the_next_time(known.verification)))
    }

    /// What is listed comes first, and what is revoked before that: a revoked key does not come back in a new certificate.
    /// Where an authority answers for the peer, what it presented before says nothing: it is the authority's word again
    /// that counts.
    fn listed(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
    ) -> Result<Option<(usize, &KnownCertificate)>, SecurityError> {
        let of_peer = || self.all().enumerate().filter(|(_, known)| known.peer == *peer);
        let revoked = |known: &KnownCertificate| self.is_revoked(known);
        if of_peer().any(|(_, known)| revoked(known) && known.was_ever(certificate)) {
            let presented = certificate.fingerprint().clone();
            return Err(SecurityError::Revoked { peer: peer.clone(), presented });
        }
        let best = of_peer()
            .filter(|(_, known)| !revoked(known) && !known.is_by_authority() && known.admits(certificate))
            .max_by_key(|(_, known)| (known.is_exactly(certificate), rank(known.verification)));
        if best.is_some() || of_peer().next().is_none() {
            return Ok(best);
        }
        let by_authority = of_peer().find(|(_, known)| !revoked(known) && known.is_by_authority());
        if by_authority.is_some() {
            return Ok(by_authority);
        }
        // Also of a peer whose certificates are all revoked: whoever stole its key could come with a fresh one.
        Err(self.changed(peer, certificate))
    }

    /// Also where a person wrote down the revocation of an earlier certificate by itself, without the key.
    fn is_revoked(&self, known: &KnownCertificate) -> bool {
        let mut revoked = self.of(&known.peer).filter(|other| other.revoked.is_some());
        known.revoked.is_some() || revoked.any(|other| known.had(&other.fingerprint))
    }

    fn changed(&self, peer: &BareJid, certificate: &Certificate) -> SecurityError {
        let valid = |known: &&KnownCertificate| !self.is_revoked(known);
        SecurityError::KeyChanged {
            peer: peer.clone(),
            expected: self.of(peer).filter(valid).map(|known| known.fingerprint.clone()).collect(),
            presented: certificate.fingerprint().clone(),
        }
    }

    /// What to note of a peer that proved to hold the key of this certificate. With `shown`, strangers are added; without,
    /// they are refused.
    pub(super) fn plan(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        shown: Option<Verification>,
        now: SystemTime,
    ) -> Result<Plan, SecurityError> {
        let now = noted(now);
        match (self.listed(peer, certificate)?, shown) {
            (Some((position, known)), Some(Verification::Authority)) if known.is_by_authority() => {
                let after = known.seen_again(now);
                Ok(Plan { before: Some((position, known.clone())), after })
            }
            // Another stream has shown a moment ago that an authority answers for this peer.
            (Some((_, known)), _) if known.is_by_authority() => Err(self.changed(peer, certificate)),
            (Some((position, known)), _) => {
                let after = known.met_again(certificate, shown, now);
                Ok(Plan { before: Some((position, known.clone())), after })
            }
            (None, Some(shown)) => {
                check_spelling(peer, certificate)?;
                self.check_room(peer, certificate, shown)?;
                let after = KnownCertificate::met(peer, certificate, recorded(shown), now);
                Ok(Plan { before: None, after })
            }
            // The user had it forgotten a moment ago.
            (None, None) => Err(SecurityError::NotListed {
                peer: peer.clone(),
                presented: certificate.fingerprint().clone(),
            }),
        }
    }

    /// For one more whom the user did not add. What is revoked counts no more: only the user can do that.
    fn check_room(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        shown: Verification,
    ) -> Result<(), SecurityError> {
        let met = || {
            self.all().filter(|known| known.revoked.is_none() && known.verification != Verification::Compared)
        };
        if is_unasked(recorded(shown)) {
            let unasked = met().filter(|known| is_unasked(known.verification));
            check_count(unasked.count(), MAX_FIRST_USES)?;
        }
        check_count(met().count(), MAX_MET)?;
        let length = peer.as_str().len();
        if length > MAX_FIRST_USE_ADDRESS {
            return Err(SecurityError::Implausible {
                peer: peer.clone(),
                presented: certificate.fingerprint().clone(),
                why: format!("its address has {length} bytes, more than {MAX_FIRST_USE_ADDRESS}"),
            });
        }
        Ok(())
    }

    /// The plan must be of this very list.
    pub(super) fn carry_out(&mut self, plan: &Plan) {
        let after = plan.after.clone();
        match plan.before.as_ref().and_then(|(position, _)| self.0.get_mut(*position)) {
            Some(row) => row.known = after,
            None => self.push(Row { known: after, origin: None }),
        }
    }

    /// The user compared it.
    pub(super) fn add(
        &mut self,
        peer: &BareJid,
        fingerprint: Fingerprint,
        label: Option<&str>,
    ) -> Result<(), SecurityError> {
        if fingerprint.algo() == HashAlgo::Sha1 {
            return Err(refused(SHA1_REFUSED.to_owned()));
        }
        if !is_read_as_itself(peer) {
            return Err(refused(format!(
                "{peer} can't be listed: its address would be read as another once it is written down"
            )));
        }
        let Some(known) = self.get_mut(peer, &fingerprint) else {
            let mut known = KnownCertificate::unseen(peer.clone(), fingerprint);
            known.verification = Verification::Compared;
            known.label = label.map(str::to_owned);
            self.push(Row { known, origin: None });
            return Ok(());
        };
        if known.revoked.is_some() {
            return Err(refused(format!(
                "the certificate {fingerprint} of {peer} can't be added, as it is revoked: forget the peer first, if \
                 that was a mistake"
            )));
        }
        known.verification = Verification::Compared;
        if let Some(label) = label {
            known.label = Some(label.to_owned());
        }
        Ok(())
    }

    pub(super) fn label(
        &mut self,
        peer: &BareJid,
        fingerprint: &Fingerprint,
        label: &str,
    ) -> Result<(), SecurityError> {
        let Some(known) = self.get_mut(peer, fingerprint) else {
            return Err(refused(format!(
                "{peer} is not listed with {fingerprint}, so that can't have a label"
            )));
        };
        known.label = Some(label.to_owned());
        Ok(())
    }

    /// Of a certificate that was never seen, too.
    pub(super) fn revoke(
        &mut self,
        peer: &BareJid,
        fingerprint: &Fingerprint,
        now: SystemTime,
    ) -> Result<(), SecurityError> {
        if fingerprint.algo() == HashAlgo::Sha1 {
            return Err(refused(SHA1_REFUSED.to_owned()));
        }
        let now = Some(noted(now));
        match self.get_mut(peer, fingerprint) {
            Some(known) => known.revoked = known.revoked.or(now),
            None => {
                let mut known = KnownCertificate::unseen(peer.clone(), fingerprint.clone());
                known.revoked = now;
                self.push(Row { known, origin: None });
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, peer: &BareJid) {
        self.0.retain(|row| row.known.peer != *peer);
    }

    /// By what it was before a renewal, too: people have that in their notes.
    fn get_mut(&mut self, peer: &BareJid, fingerprint: &Fingerprint) -> Option<&mut KnownCertificate> {
        let mut of_peer: Vec<_> =
            self.0.iter_mut().map(|row| &mut row.known).filter(|known| known.peer == *peer).collect();
        // What is valid now comes before what was.
        of_peer.sort_by_key(|known| known.fingerprint != *fingerprint);
        of_peer.into_iter().find(|known| known.had(fingerprint))
    }
}

impl Plan {
    /// What this meeting's peer is to count as.
    pub(super) fn verification(&self) -> Verification {
        match self.before {
            Some(_) => of_the_next_time(self.after.verification),
            None => self.after.verification,
        }
    }

    pub(super) fn weight(&self) -> Weight {
        let Some((_, before)) = &self.before else { return Weight::Trust };
        let seen_now = KnownCertificate { last_seen: self.after.last_seen, ..before.clone() };
        match () {
            () if *before == self.after => Weight::Nothing,
            () if seen_now == self.after => Weight::LastSeen,
            () => Weight::Trust,
        }
    }

    /// What there is to tell the user once it is done.
    pub(super) fn news(&self, certificate: &Certificate) -> Vec<PeerEvent> {
        let (peer, certificate) = (self.after.peer.clone(), certificate.clone());
        let before = self.before.as_ref().map(|(_, before)| before);
        let mut news = Vec::new();
        if before.is_some_and(|before| before.fingerprint != self.after.fingerprint) {
            news.push(PeerEvent::Renewed { peer: peer.clone(), certificate: certificate.clone() });
        }
        let verification = self.after.verification;
        if before.is_none() && verification == Verification::FirstUse {
            news.push(PeerEvent::FirstUse { peer, certificate });
        } else if before.map(|before| before.verification) != Some(verification)
            && verification.level() == Level::Verified
        {
            news.push(PeerEvent::Verified { peer, certificate, verification });
        }
        news
    }
}

impl KnownCertificate {
    fn unseen(peer: BareJid, fingerprint: Fingerprint) -> Self {
        Self {
            peer,
            fingerprint,
            key: None,
            verification: Verification::FirstUse,
            first_seen: None,
            last_seen: None,
            label: None,
            revoked: None,
            renewed_from: Vec::new(),
        }
    }

    fn met(peer: &BareJid, certificate: &Certificate, verification: Verification, now: SystemTime) -> Self {
        Self {
            key: certificate.key().cloned(),
            verification,
            first_seen: Some(now),
            last_seen: Some(now),
            ..Self::unseen(peer.clone(), certificate.fingerprint().clone())
        }
    }

    /// Never lowers what was known. A new certificate with the listed key takes the place of the old one, which is kept as what
    /// it was renewed from.
    fn met_again(&self, certificate: &Certificate, shown: Option<Verification>, now: SystemTime) -> Self {
        let mut after = self.clone();
        if !self.is_exactly(certificate) {
            after.renewed_from.extend(self.to_be_kept().cloned());
            after.fingerprint = certificate.fingerprint().clone();
        }
        after.key = self.key.clone().or_else(|| certificate.key().cloned());
        if let Some(shown) = shown.map(recorded).filter(|shown| rank(*shown) > rank(self.verification)) {
            after.verification = shown;
        }
        after.seen_again(now)
    }

    fn seen_again(&self, now: SystemTime) -> Self {
        Self {
            first_seen: self.first_seen.or(Some(now)),
            // A clock that was set back changes nothing.
            last_seen: self.last_seen.max(Some(now)),
            ..self.clone()
        }
    }

    /// It stands for the peer, and not for this one certificate: an authority has to have issued what the peer presents.
    fn is_by_authority(&self) -> bool {
        self.verification == Verification::Authority
    }

    /// It is this certificate, or may be renewed to it.
    fn admits(&self, certificate: &Certificate) -> bool {
        let has_room = self.to_be_kept().is_none() || self.renewed_from.len() < MAX_RENEWALS;
        self.is_exactly(certificate) || (self.has_key_of(certificate) && has_room)
    }

    /// The certificate is one of those that it stands for, past ones included.
    fn was_ever(&self, certificate: &Certificate) -> bool {
        self.is_exactly(certificate)
            || self.has_key_of(certificate)
            || self.renewed_from.iter().any(|old| old.matches_der(certificate.der()))
    }

    fn had(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint == *fingerprint || self.renewed_from.contains(fingerprint)
    }

    /// The fingerprint, if a renewal makes it one more of the past. A peer may go back to an earlier certificate.
    fn to_be_kept(&self) -> Option<&Fingerprint> {
        Some(&self.fingerprint).filter(|fingerprint| !self.renewed_from.contains(fingerprint))
    }

    fn has_key_of(&self, certificate: &Certificate) -> bool {
        self.key.is_some() && self.key.as_ref() == certificate.key()
    }

    fn is_exactly(&self, certificate: &Certificate) -> bool {
        self.fingerprint.matches_der(certificate.der())
    }
}

/// What is listed is what people rely on for years; SHA-1 is only for what an old peer announces a moment before.
pub(super) const SHA1_REFUSED: &str =
    "a SHA-1 fingerprint is too weak to be listed: expected one of sha-256, sha-384, sha-512";

fn is_read_as_itself(peer: &BareJid) -> bool {
    peer.as_str().parse::<BareJid>().is_ok_and(|read| read == *peer)
}

fn check_count(count: usize, limit: usize) -> Result<(), SecurityError> {
    if count < limit { Ok(()) } else { Err(SecurityError::TooManyPeers { limit }) }
}

/// The peer was remembered without the user having said so, or shared anything with it.
fn is_unasked(recorded: Verification) -> bool {
    matches!(recorded, Verification::FirstUse | Verification::Authority)
}

/// Preparing an address once more (RFC 3454, RFC 5891) may make another of it. Written down, it would be read as that one
/// after a restart, and list a certificate that the other never had.
fn check_spelling(peer: &BareJid, certificate: &Certificate) -> Result<(), SecurityError> {
    if is_read_as_itself(peer) {
        return Ok(());
    }
    Err(SecurityError::Implausible {
        peer: peer.clone(),
        presented: certificate.fingerprint().clone(),
        why: "its address would be read as another once it is written down".to_owned(),
    })
}

pub(super) fn refused(cause: String) -> SecurityError {
    SecurityError::KnownPeers(cause)
}

/// What is written down for it. Pins are no business of the list's.
fn recorded(verification: Verification) -> Verification {
    match verification {
        Verification::Known | Verification::Pinned => Verification::FirstUse,
        other => other,
    }
}

/// What a record counts as when its peer comes back.
fn of_the_next_time(verification: Verification) -> Verification {
    match verification {
        Verification::FirstUse => Verification::Known,
        other => other,
    }
}

/// Which of two records says more. Of those that verify, what people did themselves comes last.
fn rank(recorded: Verification) -> u8 {
    match recorded {
        Verification::FirstUse | Verification::Known | Verification::Pinned | Verification::Authority => 0,
        Verification::Accepted => 1,
        Verification::Secret => 2,
        Verification::Code => 3,
        Verification::Compared => 4,
    }
}

fn noted(now: SystemTime) -> SystemTime {
    let Ok(age) = now.duration_since(SystemTime::UNIX_EPOCH) else { return SystemTime::UNIX_EPOCH };
    let surplus = Duration::from_secs(age.as_secs() % NOTED_TO.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(age.as_secs()).saturating_sub(surplus)
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
