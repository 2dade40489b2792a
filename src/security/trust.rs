//! Trust: which certificate a peer may present.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jid::BareJid;

use super::fingerprint::Fingerprint;
use crate::error::SecurityError;

/// How many peers [`Trust::first_use`] remembers. A server can invent JIDs without end, and to forget an old peer for
/// a new one would let it make us forget; so beyond this, unknown peers are refused. With the longest
/// JIDs (RFC 7622: 2 KiB) this is 33 MB, with usual ones 2 MB.
const MAX_FIRST_USES: usize = 16_384;

/// Whose certificates are accepted.
///
/// What Jingle announces comes through the servers, so it is only a hint which certificate to expect; what proves who
/// holds it is decided here. Every certificate must be the announced one *and* pass this.
///
/// Clones share what [`first_use`](Self::first_use) has seen.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Peers with pins of their own.
    pins: HashMap<BareJid, Vec<Fingerprint>>,
    everybody_else: Rule,
}

/// How the certificate of a peer without pins of its own is judged. A store of known peers that outlives the process
/// would be a third variant: like [`FirstUses`], it checks without a trace and commits a first use at most once.
#[derive(Clone, Debug)]
enum Rule {
    Pinned(Vec<Fingerprint>),
    FirstUse(Arc<FirstUses>),
}

impl Trust {
    /// Any peer must present one of these certificates. With none, everybody is refused.
    ///
    /// The pins are not tied to JIDs: whoever holds one of these certificates may use any JID. To tie them, start
    /// with none and add [`pin_for`](Self::pin_for).
    #[must_use]
    pub fn pinned(fingerprints: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self { pins: HashMap::new(), everybody_else: Rule::Pinned(fingerprints.into_iter().collect()) }
    }

    /// Trusts the first certificate of each bare JID, and from then on only that one, until the value and its clones
    /// are gone: a later one is [`SecurityError::KeyChanged`], never accepted and never remembered.
    ///
    /// A server that is the attacker at first use is not noticed: compare the fingerprints by other means.
    /// At most 16,384 peers are remembered; after that, unknown ones are [`SecurityError::TooManyPeers`].
    #[must_use]
    pub fn first_use() -> Self {
        Self { pins: HashMap::new(), everybody_else: Rule::FirstUse(Arc::default()) }
    }

    /// Pins a certificate for one peer, all its resources included. A peer with pins must present one of them; whatever
    /// the value says about others does not hold for it. Clones made before are not changed.
    #[must_use]
    pub fn pin_for(mut self, peer: BareJid, fingerprint: Fingerprint) -> Self {
        self.pins.entry(peer).or_default().push(fingerprint);
        self
    }

    /// Whether the peer may present this certificate; changes nothing, so a handshake that fails later on leaves no
    /// trace.
    pub(crate) fn check(&self, peer: &BareJid, der: &[u8]) -> Result<Verification, SecurityError> {
        match self.judge_of(peer) {
            Judge::Pins(pins) => pinned(pins, der),
            Judge::FirstUses(uses) => uses.check(peer, der),
        }
    }

    /// Like [`check`](Self::check), and remembers a first use. Only for a peer that has proved, by a complete
    /// handshake, that it holds the certificate's key. Of two first uses at the same time one wins, and the
    /// other fails if its certificate is another.
    pub(crate) fn remember(&self, peer: &BareJid, der: &[u8]) -> Result<Verification, SecurityError> {
        match self.judge_of(peer) {
            Judge::Pins(pins) => pinned(pins, der),
            Judge::FirstUses(uses) => uses.commit(peer, der),
        }
    }

    /// Whether there is a certificate that the peer must present, so that it can't be talked to without one.
    pub(crate) fn expects_certificate_of(&self, peer: &BareJid) -> bool {
        match self.judge_of(peer) {
            Judge::Pins(_) => true,
            Judge::FirstUses(uses) => uses.seen().contains_key(peer),
        }
    }

    fn judge_of(&self, peer: &BareJid) -> Judge<'_> {
        match (self.pins.get(peer), &self.everybody_else) {
            (Some(pins), _) | (None, Rule::Pinned(pins)) => Judge::Pins(pins),
            (None, Rule::FirstUse(uses)) => Judge::FirstUses(uses),
        }
    }
}

/// What decides about one peer.
enum Judge<'a> {
    Pins(&'a [Fingerprint]),
    FirstUses(&'a FirstUses),
}

fn pinned(pins: &[Fingerprint], der: &[u8]) -> Result<Verification, SecurityError> {
    if pins.iter().any(|pin| pin.matches_der(der)) {
        return Ok(Verification::Pinned);
    }
    Err(SecurityError::NotPinned { presented: Fingerprint::of(der), pinned: pins.to_vec() })
}

/// The certificate that each peer presented first.
#[derive(Debug, Default)]
struct FirstUses(Mutex<Seen>);

type Seen = HashMap<BareJid, Fingerprint>;

impl FirstUses {
    fn check(&self, peer: &BareJid, der: &[u8]) -> Result<Verification, SecurityError> {
        compare(&self.seen(), peer, der)
    }

    fn commit(&self, peer: &BareJid, der: &[u8]) -> Result<Verification, SecurityError> {
        // One lock over both steps, so that no other first use comes in between.
        let mut seen = self.seen();
        let verification = compare(&seen, peer, der)?;
        if verification == Verification::FirstUse {
            seen.insert(peer.clone(), Fingerprint::of(der));
        }
        Ok(verification)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic elsewhere can't leave the map half-changed: one insertion is all that ever happens to it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compare(seen: &Seen, peer: &BareJid, der: &[u8]) -> Result<Verification, SecurityError> {
    match seen.get(peer) {
        Some(known) if known.matches_der(der) => Ok(Verification::Known),
        Some(known) => Err(SecurityError::KeyChanged {
            peer: peer.clone(),
            expected: known.clone(),
            presented: Fingerprint::of(der),
        }),
        None if seen.len() < MAX_FIRST_USES => Ok(Verification::FirstUse),
        None => Err(SecurityError::TooManyPeers { limit: MAX_FIRST_USES }),
    }
}

/// Why a peer's certificate was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verification {
    /// The user pinned it.
    Pinned,
    /// The peer presented the same one before.
    Known,
    /// Nothing was known about the peer; the certificate is the one that Jingle announced, and the servers could have
    /// changed that.
    FirstUse,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "pinned",
            Self::Known => "known from before",
            Self::FirstUse => "first use",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{super::HashAlgo, *};

    const OLD: &[u8] = b"the old certificate";
    const NEW: &[u8] = b"the new certificate";

    fn juliet() -> BareJid {
        "juliet@capulet.lit".parse().unwrap()
    }

    fn romeo() -> BareJid {
        "romeo@montague.lit".parse().unwrap()
    }

    #[test]
    fn a_pinned_certificate_is_accepted_and_no_other() {
        let trust = Trust::pinned([Fingerprint::of(OLD)]);
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::Pinned));
        assert_eq!(trust.remember(&juliet(), OLD), Ok(Verification::Pinned));
        let refused =
            SecurityError::NotPinned { presented: Fingerprint::of(NEW), pinned: vec![Fingerprint::of(OLD)] };
        assert_eq!(trust.check(&juliet(), NEW), Err(refused.clone()));
        assert_eq!(trust.remember(&juliet(), NEW), Err(refused));
    }

    #[test]
    fn no_pins_accept_nobody() {
        let trust = Trust::pinned([]);
        assert!(matches!(trust.check(&juliet(), OLD), Err(SecurityError::NotPinned { .. })));
    }

    #[test]
    fn a_first_use_is_remembered_only_when_told_to() {
        let trust = Trust::first_use();
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::FirstUse));
        assert_eq!(trust.check(&juliet(), NEW), Ok(Verification::FirstUse));
        assert_eq!(trust.remember(&juliet(), OLD), Ok(Verification::FirstUse));
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::Known));
        assert_eq!(trust.check(&romeo(), NEW), Ok(Verification::FirstUse));
    }

    #[test]
    fn a_changed_key_is_refused_and_never_replaces_the_known_one() {
        let trust = Trust::first_use();
        trust.remember(&juliet(), OLD).unwrap();
        let refused = SecurityError::KeyChanged {
            peer: juliet(),
            expected: Fingerprint::of(OLD),
            presented: Fingerprint::of(NEW),
        };
        assert_eq!(trust.check(&juliet(), NEW), Err(refused.clone()));
        assert_eq!(trust.remember(&juliet(), NEW), Err(refused));
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::Known));
    }

    #[test]
    fn clones_share_what_was_seen() {
        let trust = Trust::first_use();
        trust.clone().remember(&juliet(), OLD).unwrap();
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::Known));
    }

    #[test]
    fn of_simultaneous_first_uses_with_different_keys_one_wins() {
        let trust = Trust::first_use();
        let won = thread::scope(|scope| {
            let tries: Vec<_> = (0..8_u8)
                .map(|key| {
                    let trust = trust.clone();
                    scope.spawn(move || trust.remember(&juliet(), &[key]).is_ok())
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn a_peer_with_pins_needs_one_of_them_whatever_holds_for_others() {
        let trust = Trust::first_use().pin_for(juliet(), Fingerprint::of(OLD));
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::Pinned));
        assert!(matches!(trust.check(&juliet(), NEW), Err(SecurityError::NotPinned { .. })));
        assert_eq!(trust.check(&romeo(), NEW), Ok(Verification::FirstUse));

        let trust = Trust::pinned([Fingerprint::of(NEW)]).pin_for(juliet(), Fingerprint::of(OLD));
        assert!(matches!(trust.check(&juliet(), NEW), Err(SecurityError::NotPinned { .. })));
        assert_eq!(trust.check(&romeo(), NEW), Ok(Verification::Pinned));
    }

    #[test]
    fn a_peer_may_have_several_pins() {
        let trust = Trust::pinned([])
            .pin_for(juliet(), Fingerprint::of(OLD))
            .pin_for(juliet(), Fingerprint::of_with(HashAlgo::Sha512, NEW));
        assert_eq!(trust.check(&juliet(), OLD), Ok(Verification::Pinned));
        assert_eq!(trust.check(&juliet(), NEW), Ok(Verification::Pinned));
        assert!(trust.check(&romeo(), OLD).is_err());
    }

    #[test]
    fn too_many_peers_are_refused_and_none_is_forgotten() {
        let trust = Trust::first_use();
        for number in 0..MAX_FIRST_USES {
            trust.remember(&format!("bot{number}@capulet.lit").parse().unwrap(), OLD).unwrap();
        }
        let refused = Err(SecurityError::TooManyPeers { limit: MAX_FIRST_USES });
        assert_eq!(trust.check(&juliet(), OLD), refused);
        assert_eq!(trust.remember(&juliet(), OLD), refused);
        let first = "bot0@capulet.lit".parse().unwrap();
        assert_eq!(trust.check(&first, OLD), Ok(Verification::Known));
    }
}
