//! Service discovery (XEP-0030) and entity capabilities (XEP-0115): what we say we can do, and what is
//! known about what peers can do.
//!
//! Sans-IO. Whoever drives it passes presences and answers in, sends the elements that come out, and asks
//! the peer where [`Disco::lookup`] says [`Lookup::Ask`].

use std::collections::BTreeSet;

use jid::FullJid;
use xmpp_parsers::{
    caps::{Caps, compute_disco, hash_caps},
    disco::{DiscoInfoResult, Identity},
    hashes::Algo,
    minidom::Element,
    presence::Presence,
    stanza_error::StanzaError,
};

use self::peers::Peers;
pub(crate) use self::{
    peers::Lookup,
    proxies::{Ask, Proxies},
    support::{EarlyData, InBand, Needs, Support},
};
use crate::{
    Transports,
    config::DiscoConfig,
    wire::{errors, jingle::Malformed, ns},
};

mod peers;
mod proxies;
pub(crate) mod support;
mod verify;

/// What this crate adds to what a bot can do, whatever the transports.
const FEATURES: [&str; 7] = [
    ns::CAPS,
    ns::DISCO_INFO,
    // XEP-0261 #support: every version that is understood. XEP-0247 knows the old ones alone.
    ns::JINGLE_0,
    ns::JINGLE,
    ns::XMLSTREAM,
    ns::XTLS,
    ns::EARLY_DATA,
];
const IN_BAND: [&str; 3] = [ns::IBB, ns::JINGLE_IBB_0, ns::JINGLE_IBB];
// Not XEP-0065's own feature: bytestreams that Jingle did not negotiate are not for us.
const SOCKS5: [&str; 1] = [ns::JINGLE_S5B];

/// What we announce, and what peers announced.
#[derive(Debug)]
pub(crate) struct Disco {
    own: DiscoInfoResult,
    caps: Caps,
    /// The node under which disco#info answers for our present capabilities: `node#ver`.
    caps_node: String,
    peers: Peers,
}

impl Disco {
    pub(crate) fn new(config: &DiscoConfig, transports: Transports) -> Self {
        let own = own_info(config, transports);
        #[expect(clippy::expect_used, reason = "hash_caps fails for unknown algorithms alone")]
        let hash = hash_caps(&compute_disco(&own), Algo::Sha_1).expect("SHA-1 is known");
        let caps_node = format!("{}#{}", config.node, hash.to_base64());
        let caps = Caps::new(config.node.as_str(), hash);
        let support = Support::of(own.features.iter().map(String::as_str));
        Self { own, peers: Peers::knowing(&caps, support), caps, caps_node }
    }

    /// The features of this crate alone, for a bot that answers disco#info itself.
    pub(crate) fn features(transports: Transports) -> Vec<String> {
        let transports: &[&[&str]] = match transports {
            Transports::Auto => &[&IN_BAND, &SOCKS5],
            Transports::Ibb => &[&IN_BAND],
            Transports::S5b => &[&SOCKS5],
        };
        FEATURES.iter().chain(transports.iter().copied().flatten()).map(ToString::to_string).collect()
    }

    /// Answers a disco#info request for this node (XEP-0030 #info-nodes, XEP-0115 #discover).
    ///
    /// # Errors
    ///
    /// `item-not-found` for a node that is not the one of our capabilities.
    pub(crate) fn info(&self, node: Option<&str>) -> Result<Element, Box<StanzaError>> {
        match node {
            Some(node) if node != self.caps_node => {
                Err(errors::item_not_found("there is no such node here").into())
            }
            node => {
                let mut answer = self.own.clone();
                answer.node = node.map(ToOwned::to_owned);
                Ok(answer.into())
            }
        }
    }

    /// `<c/>` for the bot's presence (XEP-0115 #advertise).
    pub(crate) fn caps(&self) -> Element {
        self.caps.clone().into()
    }

    /// Learns or forgets a peer's capabilities.
    pub(crate) fn handle_presence(&mut self, presence: &Presence) {
        self.peers.handle_presence(presence);
    }

    /// Whether it is known what this peer supports, or has to be asked.
    pub(crate) fn lookup(&self, peer: &FullJid) -> Lookup {
        self.peers.lookup(peer)
    }

    /// Takes the peer's answer to a disco#info request for this node.
    ///
    /// # Errors
    ///
    /// The answer is no disco#info, or a huge one.
    pub(crate) fn handle_answer(
        &mut self,
        peer: &FullJid,
        node: Option<&str>,
        answer: &Element,
    ) -> Result<Support, Malformed> {
        self.peers.handle_answer(peer, node, answer)
    }
}

/// A second identity or feature of the same kind would make the whole answer ill-formed (XEP-0115 #ver-proc).
fn own_info(config: &DiscoConfig, transports: Transports) -> DiscoInfoResult {
    let mut identities: Vec<Identity> = Vec::new();
    for identity in &config.identities {
        if !identities.contains(identity) {
            identities.push(identity.clone());
        }
    }
    if identities.is_empty() {
        // XEP-0030 #info-basic: there must be one.
        identities.push(Identity::new_anonymous::<_, _, String, String>("client", "bot"));
    }
    let features: BTreeSet<_> =
        Disco::features(transports).into_iter().chain(config.features.iter().cloned()).collect();
    DiscoInfoResult { node: None, identities, features, extensions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disco(identities: &[Identity], features: &[&str]) -> Disco {
        let features = features.iter().map(|&feature| feature.to_owned()).collect();
        Disco::new(
            &DiscoConfig { identities: identities.to_vec(), features, ..DiscoConfig::default() },
            Transports::Auto,
        )
    }

    fn info(disco: &Disco, node: Option<&str>) -> DiscoInfoResult {
        DiscoInfoResult::try_from(disco.info(node).unwrap()).unwrap()
    }

    #[test]
    fn the_bots_own_features_and_identities_are_added_once_each() {
        let pc = Identity::new("client", "pc", "en", "Nurse");
        let disco = disco(&[pc.clone(), pc.clone()], &[ns::PING, ns::PING, ns::JINGLE]);

        let info = info(&disco, None);
        assert_eq!(info.identities, [pc]);
        let mut expected = Disco::features(Transports::Auto);
        expected.push(ns::PING.to_owned());
        expected.sort();
        assert_eq!(info.features.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bot_without_identities_is_a_bot() {
        let info = info(&disco(&[], &[]), None);
        assert_eq!(info.identities, [Identity::new_anonymous::<_, _, String, String>("client", "bot")]);
    }

    #[test]
    fn the_node_of_our_caps_is_answered_and_no_other() {
        let disco = disco(&[], &[]);
        let caps = Caps::try_from(disco.caps()).unwrap();
        let node = xmpp_parsers::caps::query_caps(caps.clone()).node.unwrap();

        assert_eq!(info(&disco, Some(&node)).node, Some(node));
        assert!(disco.info(Some(&caps.node)).is_err());
        assert!(disco.info(Some("")).is_err());
    }

    #[test]
    fn our_caps_pass_the_check_of_another_one_of_us() {
        let romeo = disco(&[], &[ns::PING]);
        let mut juliet = disco(&[], &[]);
        let jid: FullJid = "romeo@montague.lit/orchard".parse().unwrap();
        let presence = Presence::available().with_from(jid.clone()).with_payload(romeo.caps.clone());

        juliet.handle_presence(&presence);
        let Lookup::Ask { node } = juliet.lookup(&jid) else { panic!("nothing was asked yet") };
        let answer = romeo.info(node.as_deref()).unwrap();
        juliet.handle_answer(&jid, node.as_deref(), &answer).unwrap();

        let Lookup::Known(support) = juliet.lookup(&jid) else { panic!("the answer was not kept") };
        let needs = support.require(true).unwrap();
        assert_eq!(
            needs,
            Needs {
                dialect: Default::default(),
                ibb: Some(InBand::V1),
                s5b: true,
                xtls: true,
                early_data: EarlyData::Announced
            }
        );
    }
}
