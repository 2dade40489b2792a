//! Two ends with any settings, on a network where anything may be slow or out of reach: both come to the same transport, or
//! both to none, and nothing is left behind.

use std::collections::HashMap;

use super::{
    net::{Got, User},
    random::Random,
    *,
};
use crate::{Candidates, Start, transport::TransportInfo};

const SEEDS: u64 = 1000;

fn config(random: &mut Random, mut config: Config) -> Config {
    let transports = [Transports::Auto, Transports::Auto, Transports::Ibb, Transports::S5b];
    let candidates = [Candidates::All, Candidates::AfterAccept, Candidates::ProxyOnly, Candidates::None];
    config.s5b.candidates = candidates[random.below(4)];
    config.transports(transports[random.below(4)]).start([Start::Best, Start::Fast][random.below(2)])
}

fn pair(random: &mut Random) -> Pair {
    let shared = std::cell::RefCell::new(random);
    let mut pair = Pair::with(|_, own| config(&mut shared.borrow_mut(), own));
    let random = shared.into_inner();
    pair.net.has_proxy = [random.below(2) == 0, random.below(2) == 0];
    pair.net.refuses_activation = random.below(4) == 0;
    for side in [Romeo, Juliet] {
        for host in ["10.0.0.1", "10.0.1.1", "proxy.montague.lit", "proxy.capulet.lit"] {
            if random.below(2) == 0 {
                pair.net.block(side, host);
            }
        }
    }
    for mute in ["montague.lit", "capulet.lit", "proxy.montague.lit", "proxy.capulet.lit"] {
        if random.below(6) == 0 {
            pair.net.mute.insert(mute.to_owned());
        }
    }
    pair.net.random = Some(Random::new(random.below(1 << 30) as u64));
    pair
}

/// Juliet's user takes the oldest offer, which may have ended in the meantime.
fn accept(pair: &mut Pair) -> SessionId {
    let now = pair.now;
    let id = pair.end(Juliet).incoming.pop_front().expect("nobody called");
    drop(pair.end(Juliet).sessions.accept(now, id));
    id
}

/// A while, in which anything may overtake anything but the stanzas of one side each other.
fn bustle(pair: &mut Pair, random: &mut Random, accepted: &mut Vec<SessionId>, steps: usize) {
    for _ in 0..steps {
        match random.below(6) {
            0 | 1 => drop(pair.deliver(Romeo)),
            2 | 3 => drop(pair.deliver(Juliet)),
            4 if pair.net.next_event().is_some() => {
                pair.happen();
                pair.advance(Duration::ZERO);
            }
            _ => pair.advance(Duration::from_millis(random.below(5) as u64)),
        }
        if !pair.end(Juliet).incoming.is_empty() && random.below(3) == 0 {
            accepted.push(accept(pair));
        }
    }
}

fn play(seed: u64) -> Option<&'static str> {
    let mut random = Random::new(seed);
    let mut pair = pair(&mut random);
    let romeos = pair.connect(Romeo);
    let mut accepted = Vec::new();
    bustle(&mut pair, &mut random, &mut accepted, 400);
    if random.below(5) == 0 {
        // He has no patience.
        pair.release(Romeo, romeos);
    }
    for _ in 0..3 {
        pair.live(Duration::from_secs(50));
        while !pair.end(Juliet).incoming.is_empty() {
            accepted.push(accept(&mut pair));
        }
    }
    let open: Vec<_> = accepted.iter().copied().filter(|id| pair.end(Juliet).is_open(*id)).collect();
    assert_eq!(open.len(), usize::from(pair.end(Romeo).is_open(romeos)), "both or none");
    let mut method = None;
    if let [juliets] = open[..] {
        let info = pair.end(Romeo).sessions.transport_info(romeos).unwrap();
        method = Some(info.method());
        let theirs = pair.end(Juliet).sessions.transport_info(juliets);
        assert_eq!(theirs.as_ref().map(TransportInfo::method), method);
        let (mut romeo, mut juliet) = (User::new(Romeo, romeos), User::new(Juliet, juliets));
        romeo.say(&mut pair, b"to Juliet");
        juliet.say(&mut pair, b"to Romeo");
        pair.run();
        assert_eq!(juliet.drain(&mut pair), (b"to Juliet".to_vec(), Got::Nothing));
        assert_eq!(romeo.drain(&mut pair), (b"to Romeo".to_vec(), Got::Nothing));
    }
    for id in accepted {
        pair.release(Juliet, id);
    }
    pair.release(Romeo, romeos);
    pair.live(Duration::from_secs(150));
    pair.assert_clean();
    assert!(!pair.net.is_listening(Romeo) && !pair.net.is_listening(Juliet));
    method
}

/// The sessions with the servers come and go while the two connect, and when they have.
fn play_without_servers(seed: u64) -> Option<&'static str> {
    let mut random = Random::new(seed);
    let mut pair = pair(&mut random);
    let romeos = pair.connect(Romeo);
    let mut accepted = Vec::new();
    for _ in 0..random.below(12) {
        bustle(&mut pair, &mut random, &mut accepted, 40);
        pair.trouble(&mut random);
    }
    pair.calm();
    for _ in 0..3 {
        pair.live(Duration::from_secs(50));
        while !pair.end(Juliet).incoming.is_empty() {
            accepted.push(accept(&mut pair));
        }
    }
    let carried = pair.end(Romeo).sessions.transport_info(romeos).map(|info| info.method());
    let method = carried.filter(|_| pair.end(Romeo).is_open(romeos));
    if method == Some("ibb") {
        // Whoever talks to somebody who is not there any more, is told.
        pair.send(Romeo, romeos, b"art thou there");
        pair.live(Duration::from_secs(1));
        let both = accepted.iter().any(|id| pair.end(Juliet).is_open(*id));
        assert_eq!(pair.end(Romeo).is_open(romeos), both, "in band, both or none");
    }
    for id in accepted {
        pair.release(Juliet, id);
    }
    pair.release(Romeo, romeos);
    pair.live(Duration::from_secs(150));
    pair.assert_clean();
    method
}

#[test]
fn whatever_becomes_of_the_servers_nothing_is_left_behind() {
    let mut verdicts: HashMap<Option<&str>, usize> = HashMap::new();
    for seed in 0..SEEDS / 2 {
        let played = std::panic::catch_unwind(|| play_without_servers(seed));
        *verdicts.entry(played.unwrap_or_else(|_| panic!("seed {seed}"))).or_default() += 1;
    }
    for verdict in [None, Some("ibb"), Some("s5b")] {
        assert!(verdicts.get(&verdict).is_some_and(|count| *count > 10), "{verdicts:?}");
    }
}

#[test]
fn whatever_the_network_lets_through_both_come_to_the_same() {
    let mut verdicts: HashMap<Option<&str>, usize> = HashMap::new();
    for seed in 0..SEEDS {
        let verdict = std::panic::catch_unwind(|| play(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        *verdicts.entry(verdict).or_default() += 1;
    }
    // It is about all of them.
    for verdict in [None, Some("ibb"), Some("s5b")] {
        assert!(verdicts.get(&verdict).is_some_and(|count| *count > 30), "{verdicts:?}");
    }
}
