//! Who is who on the stream: the two addresses, and what a peer may claim about them.

use jid::Jid;
use xmpp_parsers::{iq::Iq, stanza::Stanza, stream_error::DefinedCondition};

use super::{header::Header, violation::Violation};

/// The addresses that a stanza came with, unchecked.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

/// The two ends of a stream, as far as they are known. A stream over a plain TCP connection may know
/// neither.
#[derive(Clone, Debug, Default)]
pub(super) struct Parties {
    pub(super) local: Option<Jid>,
    pub(super) peer: Option<Jid>,
    pub(super) introduction: Introduction,
}

/// Whether the peer's header has to say who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Introduction {
    #[default]
    Optional,
    /// We only know it from a header that anybody could have changed.
    Required,
}

impl Parties {
    /// The bytes that both addresses take on every stanza on which they are put, up to 3 KiB each.
    pub(super) fn length(&self) -> usize {
        [&self.local, &self.peer].into_iter().flatten().map(|jid| jid.as_str().len()).sum()
    }

    /// Checks the addresses in the peer's header, and learns the peer's where nobody told us.
    ///
    /// Full JIDs (XEP-0247), bare ones (XEP-0246) and none at all are fine; another entity's are not.
    pub(super) fn check_header(&mut self, header: &Header) -> Result<(), Violation> {
        if let Some(to) = &header.to {
            let ours = match (to.parse::<Jid>(), &self.local) {
                (Ok(to), Some(local)) => is_same(&to, local),
                (Ok(_), None) => true,
                (Err(_), _) => false,
            };
            if !ours {
                let text = format!("{to} is not here");
                return Err(Violation::new(DefinedCondition::HostUnknown, text));
            }
        }
        if header.from.is_none() && self.introduction == Introduction::Required {
            let text = "the header has to say again who the stream is from, now that it is encrypted";
            return Err(Violation::new(DefinedCondition::InvalidFrom, text));
        }
        if let Some(from) = &header.from {
            let invalid = || {
                let text = format!("{from} is not who this stream is with");
                Violation::new(DefinedCondition::InvalidFrom, text)
            };
            let from = from.parse::<Jid>().map_err(|_| invalid())?;
            match &self.peer {
                Some(peer) if !is_same(&from, peer) => return Err(invalid()),
                Some(_) => {}
                None => self.peer = Some(from),
            }
        }
        Ok(())
    }

    /// Puts the true names on a stanza of the peer's, which has none. Returns what it claimed, where that was
    /// somebody else's name or nobody's.
    ///
    /// Where we don't know a name, the claimed one is believed.
    pub(super) fn name(&self, stanza: &mut Stanza, claims: Claims) -> Option<String> {
        let (from, false_from) = judge(claims.from, self.peer.as_ref());
        let (to, false_to) = judge(claims.to, self.local.as_ref());
        let (from_field, to_field) = addresses_mut(stanza);
        (*from_field, *to_field) = (from, to);
        false_from.or(false_to)
    }

    /// Takes the names of others off a stanza of ours, such as one of the peer's that our user sends back.
    ///
    /// Where we don't know a name, any one but the other end's may be the true one.
    pub(super) fn clear_others(&self, stanza: &mut Stanza) {
        let (from, to) = addresses_mut(stanza);
        from.take_if(|from| !may_mean(from, self.local.as_ref(), self.peer.as_ref()));
        to.take_if(|to| !may_mean(to, self.peer.as_ref(), self.local.as_ref()));
    }
}

/// The fields for the sender and for the recipient.
fn addresses_mut(stanza: &mut Stanza) -> (&mut Option<Jid>, &mut Option<Jid>) {
    match stanza {
        Stanza::Iq(
            Iq::Get { from, to, .. }
            | Iq::Set { from, to, .. }
            | Iq::Result { from, to, .. }
            | Iq::Error { from, to, .. },
        ) => (from, to),
        Stanza::Message(message) => (&mut message.from, &mut message.to),
        Stanza::Presence(presence) => (&mut presence.from, &mut presence.to),
    }
}

/// Whether a name may mean this end, and not the other one.
fn may_mean(name: &Jid, this: Option<&Jid>, other: Option<&Jid>) -> bool {
    match (this, other) {
        (Some(this), _) => is_same(name, this),
        (None, Some(other)) => !is_same(name, other),
        (None, None) => true,
    }
}

/// The name to go by, and the claim if it is false.
fn judge(claim: Option<String>, truth: Option<&Jid>) -> (Option<Jid>, Option<String>) {
    let is_true = match (&claim, truth) {
        (None, _) => true,
        // Nearly always, and it saves the parsing.
        (Some(claim), Some(truth)) if claim == truth.as_str() => true,
        (Some(claim), Some(truth)) => claim.parse().is_ok_and(|claimed| is_same(&claimed, truth)),
        (Some(claim), None) => match claim.parse() {
            Ok(claimed) => return (Some(claimed), None),
            Err(_) => false,
        },
    };
    (truth.cloned(), claim.filter(|_| !is_true))
}

/// Whether two addresses mean the same entity; a bare one leaves its resource open.
fn is_same(one: &Jid, other: &Jid) -> bool {
    let resources_agree = match (one.resource(), other.resource()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    resources_agree && one.node() == other.node() && one.domain() == other.domain()
}
