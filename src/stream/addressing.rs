//! Who is who on the stream: the two addresses, and what a peer may claim about them.

use jid::Jid;
use xmpp_parsers::{stanza::Stanza, stream_error::DefinedCondition};

use super::{header::Header, violation::Violation};

/// The two ends of a stream, as far as they are known. A stream over a plain TCP connection may know
/// neither.
#[derive(Clone, Debug, Default)]
pub(super) struct Parties {
    pub(super) local: Option<Jid>,
    pub(super) peer: Option<Jid>,
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

    /// Puts the true names on a stanza of the peer's. Returns what it claimed, where that was somebody
    /// else's name.
    pub(super) fn correct(&self, stanza: &mut Stanza) -> Option<Jid> {
        let (peer, local) = (self.peer.as_ref(), self.local.as_ref());
        let (from, to) = match stanza {
            Stanza::Iq(iq) => (correct(iq.from_mut(), peer), correct(iq.to_mut(), local)),
            Stanza::Message(message) => (correct(&mut message.from, peer), correct(&mut message.to, local)),
            Stanza::Presence(presence) => {
                (correct(&mut presence.from, peer), correct(&mut presence.to, local))
            }
        };
        from.or(to)
    }
}

fn correct(claimed: &mut Option<Jid>, truth: Option<&Jid>) -> Option<Jid> {
    let truth = truth?;
    if claimed.as_ref() == Some(truth) {
        return None;
    }
    let claimed = claimed.replace(truth.clone())?;
    (!is_same(&claimed, truth)).then_some(claimed)
}

/// Whether two addresses mean the same entity; a bare one leaves its resource open.
fn is_same(one: &Jid, other: &Jid) -> bool {
    let resources_agree = match (one.resource(), other.resource()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    resources_agree && one.node() == other.node() && one.domain() == other.domain()
}
