//! Fixtures with random damage: nothing panics, and what is still understood survives being written.

use std::time::Instant;

use jid::FullJid;
use xmpp_parsers::presence::Presence;

use super::*;
use crate::{
    Transports,
    config::DiscoConfig,
    disco::{Disco, Lookup, Proxies},
};

const FOLDERS: [&str; 10] = [
    "hostile", "peers", "xep-0047", "xep-0065", "xep-0115", "xep-0166", "xep-0247", "xep-0260", "xep-0261",
    "xtls",
];
/// Damaged copies of each fixture.
const COPIES: usize = 120;
/// What is put in the place of other characters: what attributes and base64 are made of, and what breaks them.
const PALETTE: &[u8] = b"0159aZ=+/#:<>'\"&; \t\n\x00\x7f\xc3\xa4\xff-";

/// A linear congruential generator (Knuth's MMIX), so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn damaged_stanzas_never_panic_and_what_is_understood_survives_writing() {
    let mut random = Random(247);
    let mut understood = 0;
    for file in FOLDERS.into_iter().flat_map(files) {
        let original = fs::read(&file).unwrap();
        for _ in 0..COPIES {
            let damaged = damage(&original, &mut random);
            let Ok(stanza) = stanza(&damaged) else { continue };
            understood += check(&stanza);
        }
    }
    assert!(understood > 1000, "too little was read to show anything: {understood}");
}

/// Up to three small damages, often inside of a quoted value, where the XML stays well-formed.
fn damage(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut xml = original.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(xml.len());
        match random.below(4) {
            0 => xml[at] = PALETTE[random.below(PALETTE.len())],
            1 => xml.insert(at, PALETTE[random.below(PALETTE.len())]),
            2 => drop(xml.drain(at..(at + 1 + random.below(12)).min(xml.len() - 1).max(at))),
            _ => {
                let piece = xml[at..(at + 1 + random.below(200)).min(xml.len())].to_vec();
                let to = random.below(xml.len());
                xml.splice(to..to, piece);
            }
        }
    }
    xml
}

fn check(stanza: &Element) -> usize {
    check_disco(stanza);
    check_proxies(stanza);
    let Ok(found) = read(stanza) else { return 0 };
    for wire in &found {
        assert_eq!(&rewritten(wire), wire);
    }
    found.len()
}

fn check_disco(stanza: &Element) {
    let mut disco = Disco::new(&DiscoConfig::default(), Transports::Auto);
    let romeo: FullJid = "romeo@montague.lit/orchard".parse().unwrap();
    if let Ok(presence) = Presence::try_from(stanza.clone()) {
        disco.handle_presence(&presence.with_from(romeo.clone()));
    }
    let node = match disco.lookup(&romeo) {
        Lookup::Ask { node } => node,
        Lookup::Known(_) => unreachable!("nobody was asked yet"),
    };
    for payload in stanza.children() {
        let _ = disco.handle_answer(&romeo, node.as_deref(), payload);
    }
}

/// Whatever is answered, the search for proxies ends.
fn check_proxies(stanza: &Element) {
    let now = Instant::now();
    let mut proxies = Proxies::new(&crate::Proxies::Discover);
    let mut asked = proxies.look(now, &"montague.lit".parse().unwrap());
    while let Some(ask) = asked.pop() {
        asked.extend(proxies.handle_answer(now, &ask, stanza.children().next()));
    }
    assert!(proxies.found().is_some());
}
