//! Others behind the names of clients: the server as the man in the middle.
//!
//! An impostor is a session of its own, apart from its victim's, under the victim's JID with a mark at the end of the
//! resource. The mark is for the server alone, and for what tests read off it (record, ladder, routes): each address in what
//! is delivered to a client is shown without it.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use xmpp_parsers::{
    jid::{FullJid, Jid},
    minidom::Element,
};

use crate::stanza::{self, Attribute};

/// At the end of an impostor's resource.
const MARK: &str = " (impostor)";

/// Who is impersonated at the moment.
#[derive(Default)]
pub(crate) struct Impostors {
    victims: Mutex<HashSet<FullJid>>,
}

impl Impostors {
    /// From now on what is for the victim is the impostor's, whose address this yields; `None` if there can't be such an
    /// address.
    pub(crate) fn add(&self, victim: &FullJid) -> Option<FullJid> {
        let impostor = impostor_of(victim)?;
        self.victims().insert(victim.clone());
        Some(impostor)
    }

    /// The impostor's address, if there was one: it is to be cut.
    pub(crate) fn remove(&self, victim: &FullJid) -> Option<FullJid> {
        if self.victims().remove(victim) { impostor_of(victim) } else { None }
    }

    /// Whom the sender reaches under this address: an impostor the client itself, everybody else its impostor.
    pub(crate) fn addressee(&self, from: &Jid, to: Jid) -> Jid {
        match to.try_as_full() {
            Ok(full) if !is_impostor(from) && self.victims().contains(full) => {
                impostor_of(full).map_or(to, Jid::from)
            }
            _ => to,
        }
    }

    /// Whether what the one announces is for the other: not if each knows somebody else by that name, or both have the
    /// same name.
    pub(crate) fn know_each_other(&self, one: &FullJid, other: &FullJid) -> bool {
        let (one, other) = (Jid::from(one.clone()), Jid::from(other.clone()));
        shown(&one) != shown(&other)
            && self.addressee(&one, shown(&other)) == other
            && self.addressee(&other, shown(&one)) == one
    }

    /// Whether it is the address of an impostor whose time is over.
    pub(crate) fn is_exposed(&self, jid: &FullJid) -> bool {
        let jid = Jid::from(jid.clone());
        let is_victim = |victim: FullJid| self.victims().contains(&victim);
        is_impostor(&jid) && !shown(&jid).try_into_full().is_ok_and(is_victim)
    }

    fn victims(&self) -> MutexGuard<'_, HashSet<FullJid>> {
        self.victims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address that clients are shown.
pub(crate) fn shown(jid: &Jid) -> Jid {
    let unmarked = jid.as_str().strip_suffix(MARK).and_then(|unmarked| Jid::new(unmarked).ok());
    unmarked.unwrap_or_else(|| jid.clone())
}

/// Takes the mark off the addresses of a stanza.
pub(crate) fn unmask(stanza: &mut Element) {
    for (attribute, name) in [(Attribute::From, "from"), (Attribute::To, "to")] {
        let unmarked = stanza.attr(name).and_then(|jid| jid.strip_suffix(MARK)).map(str::to_owned);
        if let Some(unmarked) = unmarked {
            stanza::set(stanza, attribute, unmarked);
        }
    }
}

fn is_impostor(jid: &Jid) -> bool {
    jid.as_str().ends_with(MARK)
}

fn impostor_of(victim: &FullJid) -> Option<FullJid> {
    FullJid::new(&format!("{victim}{MARK}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> FullJid {
        text.parse().unwrap()
    }

    #[test]
    fn an_impostor_stands_between_its_victim_and_all_others() {
        let impostors = Impostors::default();
        let (romeo, juliet) = (full("romeo@montague.lit/orchard"), full("juliet@capulet.lit/balcony"));
        let as_juliet = impostors.add(&juliet).unwrap();
        let reached = |from: &FullJid, to: &FullJid| {
            impostors.addressee(&from.clone().into(), to.clone().into()).try_into_full().unwrap()
        };
        assert_eq!(reached(&romeo, &juliet), as_juliet);
        assert_eq!(reached(&as_juliet, &romeo), romeo);
        assert!(impostors.know_each_other(&as_juliet, &romeo));
        assert!(!impostors.know_each_other(&juliet, &as_juliet), "they have one name");
        assert!(!impostors.know_each_other(&juliet, &romeo));

        let as_romeo = impostors.add(&romeo).unwrap();
        assert_eq!(reached(&as_romeo, &juliet), juliet);
        assert_eq!(reached(&juliet, &romeo), as_romeo);
        assert!(!impostors.know_each_other(&as_romeo, &as_juliet));

        assert!(!impostors.is_exposed(&as_juliet));
        assert_eq!(impostors.remove(&juliet).as_ref(), Some(&as_juliet));
        assert!(impostors.is_exposed(&as_juliet) && !impostors.is_exposed(&juliet));
        assert_eq!(impostors.remove(&juliet), None);
        assert_eq!(reached(&romeo, &juliet), juliet);
    }

    #[test]
    fn nobody_is_shown_an_impostors_own_address() {
        let impostor = Jid::from(impostor_of(&full("juliet@capulet.lit/balcony")).unwrap());
        assert_eq!(shown(&impostor).as_str(), "juliet@capulet.lit/balcony");
        let mut stanza: Element =
            format!("<message xmlns='jabber:client' from='{impostor}' to='romeo@montague.lit'/>")
                .parse()
                .unwrap();
        unmask(&mut stanza);
        assert_eq!(stanza.attr("from"), Some("juliet@capulet.lit/balcony"));
        assert_eq!(stanza.attr("to"), Some("romeo@montague.lit"));
    }
}
