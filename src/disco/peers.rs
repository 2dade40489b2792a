//! What is known about peers: their capabilities' hashes, and what the hashes stand for.

use std::{collections::HashMap, hash::Hash};

use jid::FullJid;
use xmpp_parsers::{
    caps::Caps,
    hashes::Algo,
    minidom::Element,
    presence::{Presence, Type},
};

use super::{support::Support, verify::answer_matches};
use crate::wire::{jingle::Malformed, ns};

/// Peers whose capabilities are remembered. Strangers can send presence too; who is pushed out of the
/// memory costs one question.
pub(crate) const MAX_PEERS: usize = 1024;
/// Hashes that are remembered: of programs, their versions and settings.
pub(crate) const MAX_HASHES: usize = 256;
/// Length of the node of capabilities in bytes; longer ones are not remembered. Usual ones are short URLs.
const MAX_NODE: usize = 512;
/// Length of a hash in bytes; no algorithm gives more.
const MAX_VER: usize = 64;

/// What is known about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It supports this, by a hash that was checked.
    Known(Support),
    /// It must be asked, about this node.
    Ask {
        /// The node of the peer's capabilities, so that the answer can be checked against their hash.
        node: Option<String>,
    },
}

#[derive(Debug)]
pub(super) struct Peers {
    peers: Recent<FullJid, Peer>,
    hashes: Recent<HashKey, Support>,
}

/// What a peer said in its presence.
#[derive(Debug)]
struct Peer {
    caps: Caps,
    /// `node#ver`, with `ver` as written.
    node: String,
}

type HashKey = (Algo, Vec<u8>);

impl Default for Peers {
    fn default() -> Self {
        Self { peers: Recent::new(MAX_PEERS), hashes: Recent::new(MAX_HASHES) }
    }
}

impl Peers {
    /// Whoever has the capabilities of our own need not be asked about them.
    pub(super) fn knowing(own: &Caps, support: Support) -> Self {
        let mut peers = Self::default();
        peers.hashes.insert(key(own), support);
        peers
    }

    pub(super) fn handle_presence(&mut self, presence: &Presence) {
        let Some(Ok(jid)) = presence.from.clone().map(jid::Jid::try_into_full) else { return };
        match presence.type_ {
            Type::Unavailable | Type::Error => self.peers.remove(&jid),
            Type::None => {
                let caps = presence.payloads.iter().find(|payload| payload.is("c", ns::CAPS));
                // XEP-0115 #impl-optimize: a server may leave out what has not changed.
                let Some(caps) = caps else { return };
                match Peer::parse(caps) {
                    Some(peer) => self.peers.insert(jid, peer),
                    None => self.peers.remove(&jid),
                }
            }
            _ => (),
        }
    }

    pub(super) fn lookup(&self, jid: &FullJid) -> Lookup {
        let Some(peer) = self.peers.get(jid) else { return Lookup::Ask { node: None } };
        match self.hashes.get(&peer.key()) {
            // The hashes can be fooled (XEP-0115 #security-preimage): somebody could make another's features
            // vanish. So one may save a question, but never refuse a peer or give up its encryption.
            Some(support) if support.require(true).is_ok() => Lookup::Known(support.clone()),
            Some(_) => Lookup::Ask { node: None },
            None => Lookup::Ask { node: Some(peer.node.clone()) },
        }
    }

    pub(super) fn handle_answer(
        &mut self,
        jid: &FullJid,
        node: Option<&str>,
        answer: &Element,
    ) -> Result<Support, Malformed> {
        let support = Support::parse(answer)?;
        let asked_about = self.peers.get(jid).filter(|peer| node == Some(peer.node.as_str()));
        if let Some(peer) = asked_about.filter(|peer| answer_matches(&peer.caps, answer)) {
            self.hashes.insert(peer.key(), support.clone());
        }
        Ok(support)
    }
}

impl Peer {
    /// Nothing for the legacy format, which has no hash (XEP-0115 #legacy).
    fn parse(element: &Element) -> Option<Self> {
        let node = format!("{}#{}", element.attr("node")?, element.attr("ver")?);
        let caps = Caps::try_from(element.clone()).ok()?;
        let known = !matches!(caps.hash, Algo::Unknown(_));
        (known && node.len() <= MAX_NODE && caps.ver.len() <= MAX_VER).then_some(Self { caps, node })
    }

    fn key(&self) -> HashKey {
        key(&self.caps)
    }
}

fn key(caps: &Caps) -> HashKey {
    (caps.hash.clone(), caps.ver.clone())
}

/// A map that forgets what was inserted first when it is full.
#[derive(Debug)]
struct Recent<K, V> {
    max: usize,
    inserted: u64,
    entries: HashMap<K, (u64, V)>,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    fn new(max: usize) -> Self {
        Self { max, inserted: 0, entries: HashMap::new() }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.len() >= self.max && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, (inserted, _))| *inserted);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.inspect(|key| self.remove(key));
        }
        self.inserted += 1;
        self.entries.insert(key, (self.inserted, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "http://code.google.com/p/exodus#QgayPKawpkPSDYmwT/WM94uAlu0=";
    const CAPS: &str = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' \
        node='http://code.google.com/p/exodus' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>";
    const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'>\
        <identity category='client' name='Exodus 0.9.1' type='pc'/>\
        <feature var='http://jabber.org/protocol/caps'/>\
        <feature var='http://jabber.org/protocol/disco#info'/>\
        <feature var='http://jabber.org/protocol/disco#items'/>\
        <feature var='http://jabber.org/protocol/muc'/></query>";

    fn jid(jid: &str) -> FullJid {
        jid.parse().unwrap()
    }

    fn romeo() -> FullJid {
        jid("romeo@montague.lit/orchard")
    }

    fn presence(from: &FullJid, type_: Type, payload: Option<&str>) -> Presence {
        let mut presence = Presence::new(type_).with_from(from.clone());
        presence.payloads.extend(payload.map(|payload| payload.parse::<Element>().unwrap()));
        presence
    }

    fn ask(node: Option<&str>) -> Lookup {
        Lookup::Ask { node: node.map(ToOwned::to_owned) }
    }

    /// Somebody with all that is needed, and the hash that says so.
    fn complete() -> (String, String, Element) {
        let features =
            [ns::JINGLE, ns::JINGLE_IBB, ns::XMLSTREAM, ns::XTLS].map(|it| format!("<feature var='{it}'/>"));
        let info = format!("<query xmlns='{}'>{}</query>", ns::DISCO_INFO, features.concat());
        let info: Element = info.parse().unwrap();
        let parsed = xmpp_parsers::disco::DiscoInfoResult::try_from(info.clone()).unwrap();
        let hash = xmpp_parsers::caps::hash_caps(&xmpp_parsers::caps::compute_disco(&parsed), Algo::Sha_256);
        let ver = hash.unwrap().to_base64();
        let caps = format!("<c xmlns='{}' hash='sha-256' node='urn:us' ver='{ver}'/>", ns::CAPS);
        (caps, format!("urn:us#{ver}"), info)
    }

    #[test]
    fn a_peer_that_was_never_seen_is_asked() {
        assert_eq!(Peers::default().lookup(&romeo()), ask(None));
    }

    #[test]
    fn the_answer_of_one_saves_the_question_to_the_next() {
        let (caps, node, info) = complete();
        let mut peers = Peers::default();
        let nurse = jid("nurse@capulet.lit/chamber");
        peers.handle_presence(&presence(&romeo(), Type::None, Some(&caps)));
        peers.handle_presence(&presence(&nurse, Type::None, Some(&caps)));
        assert_eq!(peers.lookup(&nurse), ask(Some(&node)));

        let support = peers.handle_answer(&romeo(), Some(&node), &info).unwrap();
        assert_eq!(peers.lookup(&nurse), Lookup::Known(support));
    }

    #[test]
    fn an_answer_that_does_not_match_is_used_but_not_kept() {
        let (caps, node, info) = complete();
        let mut lie = info.clone();
        lie.append_child(
            "<feature xmlns='http://jabber.org/protocol/disco#info' var='more'/>".parse().unwrap(),
        );
        let mut peers = Peers::default();
        peers.handle_presence(&presence(&romeo(), Type::None, Some(&caps)));

        assert!(peers.handle_answer(&romeo(), Some(&node), &lie).unwrap().require(true).is_ok());
        assert_eq!(peers.lookup(&romeo()), ask(Some(&node)));
        // Nor is one to another question, or of somebody else.
        peers.handle_answer(&romeo(), None, &info).unwrap();
        peers.handle_answer(&jid("romeo@montague.lit/garden"), Some(&node), &info).unwrap();
        assert_eq!(peers.lookup(&romeo()), ask(Some(&node)));
    }

    #[test]
    fn a_hash_never_refuses_a_peer() {
        let mut peers = Peers::default();
        peers.handle_presence(&presence(&romeo(), Type::None, Some(CAPS)));
        assert_eq!(peers.lookup(&romeo()), ask(Some(NODE)));

        peers.handle_answer(&romeo(), Some(NODE), &INFO.parse().unwrap()).unwrap();
        assert_eq!(peers.hashes.entries.len(), 1);
        assert_eq!(peers.lookup(&romeo()), ask(None));
    }

    #[test]
    fn presence_without_caps_changes_nothing_and_leaving_forgets() {
        let mut peers = Peers::default();
        peers.handle_presence(&presence(&romeo(), Type::None, Some(CAPS)));
        peers.handle_presence(&presence(&romeo(), Type::None, None));
        peers.handle_presence(&presence(&romeo(), Type::Subscribe, None));
        assert_eq!(peers.lookup(&romeo()), ask(Some(NODE)));

        peers.handle_presence(&presence(&romeo(), Type::Unavailable, None));
        assert_eq!(peers.lookup(&romeo()), ask(None));
    }

    #[test]
    fn caps_that_can_not_be_checked_are_ignored() {
        let long = CAPS.replace("exodus", &"x".repeat(MAX_NODE));
        for caps in [
            CAPS.replace("hash='sha-1' ", ""),
            CAPS.replace("sha-1", "md5"),
            CAPS.replace("QgayP", "!"),
            CAPS.replace("node=", "nodes="),
            long,
        ] {
            let mut peers = Peers::default();
            peers.handle_presence(&presence(&romeo(), Type::None, Some(&caps)));
            assert_eq!(peers.lookup(&romeo()), ask(None), "{caps}");
        }
    }

    #[test]
    fn only_the_latest_peers_and_hashes_are_remembered() {
        let mut peers = Peers::default();
        let resource = |n: usize| jid(&format!("romeo@montague.lit/{n}"));
        for n in 0..=MAX_PEERS {
            peers.handle_presence(&presence(&resource(n), Type::None, Some(CAPS)));
        }
        assert_eq!(peers.peers.entries.len(), MAX_PEERS);
        assert_eq!(peers.lookup(&resource(0)), ask(None));
        assert_eq!(peers.lookup(&resource(1)), ask(Some(NODE)));

        for n in 0..=MAX_HASHES {
            peers.hashes.insert((Algo::Sha_1, n.to_be_bytes().to_vec()), Support::default());
        }
        assert_eq!(peers.hashes.entries.len(), MAX_HASHES);
    }
}
