//! Trust: which certificate a peer may present.

use std::{collections::HashMap, time::SystemTime};

use jid::BareJid;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    authorities::Authorities,
    certificate::{Certificate, KeyPin},
    fingerprint::Fingerprint,
    known_peers::KnownPeers,
    peer::{Level, Verification},
    question::{self, Asker, Questions},
    verify::Presented,
};
use crate::error::SecurityError;

/// Whose certificates are accepted.
///
/// What Jingle announces comes through the servers, so it is only a hint which certificate to expect; what proves who
/// holds it is decided here. With XTLS, every certificate must be the announced one *and* pass this. What is asked, in this
/// order:
///
/// 1. Has the peer pins of its own ([`pin_for`](Self::pin_for), [`pin_key_for`](Self::pin_key_for))? Then they decide.
/// 2. Do the [`KnownPeers`] list it? A peer that they know and that presents another one is refused, whatever the rest
///    would say.
/// 3. Did one of the [`authorities`](Self::authorities) issue it for the peer's address?
/// 4. The peer is a stranger. With [`pinned`](Self::pinned), it must present one of those. Otherwise, if we share a secret
///    with it ([`Config::secret_for`](crate::Config::secret_for)), it has to prove that. If not, it is believed
///    ([`first_use`](Self::first_use)), asked about ([`ask`](Self::ask)), or refused ([`strict`](Self::strict)).
///
/// Clones share what was seen.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Peers with pins of their own.
    pins: HashMap<BareJid, Vec<Pin>>,
    known: KnownPeers,
    authorities: Option<Authorities>,
    strangers: Strangers,
}

#[derive(Clone, Debug)]
enum Pin {
    Certificate(Fingerprint),
    Key(KeyPin),
}

/// What becomes of peers that nothing is known of.
#[derive(Clone, Debug)]
enum Strangers {
    /// They must present one of these.
    Pinned(Vec<Pin>),
    Refused,
    Believed,
    AskedAbout(Asker),
}

/// How a certificate stands that nothing speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the peer's, as far as this says.
    Accepted(Verification),
    /// Nothing is known about the peer; it will be believed.
    FirstUse,
    /// Nothing is known about the peer; a shared secret has to show that it is who it says.
    Unproven,
    /// Nothing is known about the peer; the user has to say.
    ToBeAsked,
}

/// What showed, beyond the certificate, that it is the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It proved that it knows the shared secret.
    Secret,
    /// The user compared the code.
    Code,
    /// The user said yes.
    Accepted,
    /// The user said yes, for now.
    Once,
}

impl Trust {
    /// Any peer must present one of these certificates. With none, everybody is refused.
    ///
    /// The pins are not tied to JIDs: whoever holds one of these certificates may use any JID. To tie them, start
    /// with none and add [`pin_for`](Self::pin_for).
    #[must_use]
    pub fn pinned(fingerprints: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self::new(
            KnownPeers::in_memory(),
            Strangers::Pinned(fingerprints.into_iter().map(Pin::Certificate).collect()),
        )
    }

    /// Trusts the first certificate of each bare JID, and from then on only that one and renewed ones with its key, until
    /// the value and its clones are gone: another one is [`SecurityError::KeyChanged`], never accepted and never
    /// remembered. A file outlives the process: `Trust::from(KnownPeers::open(…)?)`.
    ///
    /// A server that is the attacker at first use is not noticed: verify the peer by other means.
    /// At most 4,096 peers that showed nothing are remembered, with addresses of at most 512 bytes; after that, unknown
    /// ones are [`SecurityError::TooManyPeers`].
    #[must_use]
    pub fn first_use() -> Self {
        Self::from(KnownPeers::in_memory())
    }

    /// Only peers that the store lists, or that prove a shared secret, or that one of the
    /// [`authorities`](Self::authorities) vouches for.
    #[must_use]
    pub fn strict(known: KnownPeers) -> Self {
        Self::new(known, Strangers::Refused)
    }

    /// Asks the bot's user about each peer that is not known; the questions come out of the second value. When that is
    /// dropped, unknown peers are refused; while nobody takes questions from it, they wait for
    /// [`Timeouts::decision`](crate::Timeouts::decision) first.
    #[must_use]
    pub fn ask(known: KnownPeers) -> (Self, Questions) {
        let (asker, questions) = question::channel();
        (Self::new(known, Strangers::AskedAbout(asker)), questions)
    }

    fn new(known: KnownPeers, strangers: Strangers) -> Self {
        Self { pins: HashMap::new(), known, authorities: None, strangers }
    }

    /// Pins a certificate for one peer, all its resources included. A peer with pins must present one of them; whatever
    /// the value says about others does not hold for it. Clones made before are not changed.
    #[must_use]
    pub fn pin_for(self, peer: BareJid, fingerprint: Fingerprint) -> Self {
        self.pin(peer, Pin::Certificate(fingerprint))
    }

    /// Pins a public key for one peer, like [`pin_for`](Self::pin_for). It holds through renewals of the certificate.
    #[must_use]
    pub fn pin_key_for(self, peer: BareJid, key: KeyPin) -> Self {
        self.pin(peer, Pin::Key(key))
    }

    fn pin(mut self, peer: BareJid, pin: Pin) -> Self {
        self.pins.entry(peer).or_default().push(pin);
        self
    }

    /// Believes certificates that these authorities issued for the peer's address (RFC 6120 §13.7), unless the peer is
    /// pinned or known with another one.
    ///
    /// A peer that came with one once has to come with one from then on, where strangers are let in: it is in the
    /// [`KnownPeers`]. Else a man in the middle would present one of his own making, and pass for a stranger.
    #[must_use]
    pub fn authorities(mut self, authorities: Authorities) -> Self {
        self.authorities = Some(authorities);
        self
    }

    /// The peers that are known.
    #[must_use]
    pub fn known_peers(&self) -> &KnownPeers {
        &self.known
    }

    /// How the peer stands with this certificate; changes nothing, so a handshake that fails later on leaves no
    /// trace.
    pub(crate) fn check(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        intermediates: &[CertificateDer<'_>],
        has_secret: bool,
        now: SystemTime,
    ) -> Result<Standing, SecurityError> {
        if let Some(pins) = self.pins.get(peer) {
            return pinned(pins, certificate);
        }
        let listed = self.known.find(peer, certificate)?;
        if let Some(verification) = listed.filter(|verification| *verification != Verification::Authority) {
            return Ok(Standing::Accepted(verification));
        }
        let authorities = self.authorities.as_ref();
        match (authorities.map(|them| them.check(peer, certificate, intermediates, now)), listed) {
            (Some(Ok(())), _) => Ok(Standing::Accepted(Verification::Authority)),
            // Else whoever takes the certificate of the authority away makes a stranger of the peer, to be believed.
            (refusal, Some(_)) => {
                let why = refusal.and_then(Result::err).unwrap_or_else(|| NO_AUTHORITY.to_owned());
                self.known.report(peer, Err(not_issued(peer, certificate, why)))
            }
            (refusal, None) => {
                self.stranger(peer, certificate, has_secret, refusal.and_then(Result::err), now)
            }
        }
    }

    fn stranger(
        &self,
        peer: &BareJid,
        certificate: &Certificate,
        has_secret: bool,
        refusal: Option<String>,
        now: SystemTime,
    ) -> Result<Standing, SecurityError> {
        let presented = certificate.fingerprint().clone();
        if let Strangers::Pinned(pins) = &self.strangers {
            return pinned(pins, certificate);
        }
        if let (Strangers::Refused, false) = (&self.strangers, has_secret) {
            let peer = peer.clone();
            return Err(match refusal {
                Some(why) => not_issued(&peer, certificate, why),
                None => SecurityError::NotListed { peer, presented },
            });
        }
        certificate.check_first_use(peer, now).map_err(|why| SecurityError::Implausible {
            peer: peer.clone(),
            presented,
            why,
        })?;
        Ok(match (&self.strangers, has_secret) {
            (_, true) | (Strangers::Pinned(_) | Strangers::Refused, false) => Standing::Unproven,
            (Strangers::AskedAbout(_), false) => Standing::ToBeAsked,
            (Strangers::Believed, false) => Standing::FirstUse,
        })
    }

    /// What [`settle`](Self::settle) will make of a peer. To be asked before that: whoever is refused as insufficient must not
    /// be known by having tried.
    pub(crate) fn level(presented: &Presented, proof: Option<Proof>) -> Level {
        let stands = match presented.standing() {
            Standing::Accepted(verification) => verification.level(),
            Standing::FirstUse | Standing::Unproven | Standing::ToBeAsked => Level::FirstUse,
        };
        let shown = match proof {
            Some(Proof::Secret | Proof::Code) => Level::Verified,
            Some(Proof::Accepted | Proof::Once) => Level::Known,
            None => Level::FirstUse,
        };
        stands.max(shown)
    }

    /// What a complete handshake, and what came behind it, make of a peer; remembers it. Blocks on the disk.
    pub(crate) fn settle(
        &self,
        presented: &Presented,
        proof: Option<Proof>,
    ) -> Result<Verification, SecurityError> {
        let (peer, certificate) = (presented.peer(), presented.certificate());
        let remember = |verification| self.known.remember(peer, certificate, verification);
        match (presented.standing(), proof) {
            // Stronger than what any proof shows, and the user's to change.
            (Standing::Accepted(Verification::Pinned), _) => Ok(Verification::Pinned),
            (Standing::Accepted(Verification::Authority), _) => {
                // Who lets strangers in has to know the next time that this is none. Who does not may have a file that can't
                // be written.
                match self.strangers {
                    Strangers::Believed | Strangers::AskedAbout(_) => remember(Verification::Authority)?,
                    Strangers::Pinned(_) | Strangers::Refused => Verification::Authority,
                };
                Ok(Verification::Authority)
            }
            (_, Some(Proof::Secret)) => remember(Verification::Secret),
            (_, Some(Proof::Code)) => remember(Verification::Code),
            (_, Some(Proof::Accepted)) => remember(Verification::Accepted),
            // Another stream may have made it known meanwhile, with this certificate or with another.
            (_, Some(Proof::Once)) => match self.known.find(peer, certificate)? {
                Some(Verification::Authority) => {
                    self.known.report(peer, Err(not_issued(peer, certificate, NO_AUTHORITY.to_owned())))
                }
                listed => Ok(listed.unwrap_or(Verification::Accepted)),
            },
            (Standing::Accepted(_), None) => self.known.meet_again(peer, certificate),
            (Standing::FirstUse, None) => remember(Verification::FirstUse),
            (Standing::Unproven | Standing::ToBeAsked, None) => Err(SecurityError::NotListed {
                peer: peer.clone(),
                presented: certificate.fingerprint().clone(),
            }),
        }
    }

    /// Whether [`settle`](Self::settle) may wait for the disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.known.is_on_disk()
    }

    /// Who is to be asked about strangers.
    pub(crate) fn asker(&self) -> Option<&Asker> {
        match &self.strangers {
            Strangers::AskedAbout(asker) => Some(asker),
            _ => None,
        }
    }

    /// Whether the peer must present a certificate, so that it can't be talked to without one. Only where strangers are
    /// believed is there nothing that a stranger's certificate is needed for.
    pub(crate) fn expects_certificate_of(&self, peer: &BareJid) -> bool {
        !matches!(self.strangers, Strangers::Believed)
            || self.pins.contains_key(peer)
            || self.known.knows(peer)
    }
}

/// Believes strangers at first use.
impl From<KnownPeers> for Trust {
    fn from(known: KnownPeers) -> Self {
        Self::new(known, Strangers::Believed)
    }
}

/// Why what was issued by an authority before is not now.
const NO_AUTHORITY: &str =
    "an authority had issued the one that it presented before, and none issued this one";

fn not_issued(peer: &BareJid, certificate: &Certificate, why: String) -> SecurityError {
    SecurityError::NotIssued { peer: peer.clone(), presented: certificate.fingerprint().clone(), why }
}

fn pinned(pins: &[Pin], certificate: &Certificate) -> Result<Standing, SecurityError> {
    let fits = |pin: &Pin| match pin {
        Pin::Certificate(fingerprint) => fingerprint.matches_der(certificate.der()),
        Pin::Key(key) => certificate.key() == Some(key),
    };
    if pins.iter().any(fits) {
        return Ok(Standing::Accepted(Verification::Pinned));
    }
    let pinned = pins.iter().map(Pin::to_string).collect();
    Err(SecurityError::NotPinned { presented: certificate.fingerprint().clone(), pinned })
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificate(fingerprint) => fingerprint.fmt(f),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

#[cfg(test)]
mod tests;
