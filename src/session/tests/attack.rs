//! What a peer, or a server in its name, tries with SOCKS5.

use super::{net::User, *};
use crate::{Candidates, Start};

fn s5b(sid: &str, candidates: &str) -> String {
    format!("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='{sid}'>{candidates}</transport>")
}

/// An offer that wins every tie.
fn lowest_offer() -> String {
    let children = format!("{DESCRIPTION}{}{SECURITY}", s5b("evil", ""));
    jingle("session-initiate", "!", &content("name='xmlstream'", &children))
}

fn candidates_in(pair: &Pair, action: &str) -> usize {
    let transport = find(pair.sent(action), "transport");
    transport.children().filter(|child| child.name() == "candidate").count()
}

/// Romeo's stream with Juliet began in band, and may move.
fn fast() -> (Pair, User, SessionId) {
    let (mut pair, romeos, juliets) = {
        let mut pair = Pair::s5b(|_, config| config.start(Start::Fast));
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.accept(Juliet);
        pair.run();
        (pair, romeos, juliets)
    };
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
    pair.take_log();
    (pair, User::new(Romeo, romeos), juliets)
}

/// Time passes, and nothing comes from the other side.
fn alone(pair: &mut Pair, seconds: u64) {
    for _ in 0..seconds {
        pair.inbox = Default::default();
        pair.advance(Duration::from_secs(1));
        while pair.net.next_event().is_some_and(|at| at <= pair.now) {
            pair.happen();
        }
    }
}

#[test]
fn a_lost_tie_shows_no_address_that_the_user_keeps_from_this_peer() {
    for hidden in [Candidates::ProxyOnly, Candidates::None] {
        let mut pair = Pair::s5b(|_, config| config);
        let (now, peer) = (pair.now, pair.end(Juliet).jid.clone());
        pair.end(Romeo).sessions.connect(now, peer, Some(hidden)).unwrap();
        pair.until("romeo: set session-initiate");
        pair.hears(Romeo, &lowest_offer());
        alone(&mut pair, 3);
        assert_eq!(candidates_in(&pair, "session-accept"), 0, "{hidden:?}");
        assert!(!pair.net.is_listening(Romeo));
    }
}

#[test]
fn a_lost_tie_leaves_no_connection_behind() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.until("romeo: set session-initiate");
    let dst_addr = pair.end(Romeo).sessions.expected.keys().next().unwrap().clone();
    for _ in 0..8 {
        assert!(pair.knock(Romeo, &dst_addr).is_some());
    }
    pair.hears(Romeo, &initiate("!"));
    assert!(pair.end(Romeo).sessions.expected.is_empty());
    assert_eq!(pair.net.held(Romeo), 0);
    pair.release(Romeo, romeos);
}

#[test]
fn a_move_that_the_peer_leaves_hanging_ends_some_day() {
    let (mut pair, romeo, _) = fast();
    let now = pair.now;
    pair.end(Romeo).sessions.start_move(now, romeo.id);
    pair.until("juliet: set transport-accept");
    pair.deliver(Romeo);
    let dst_addr = pair.end(Romeo).sessions.expected.keys().next().unwrap().clone();
    for _ in 0..16 {
        assert!(pair.knock(Romeo, &dst_addr).is_some());
    }
    assert!(pair.net.held(Romeo) >= 16);
    alone(&mut pair, 500);
    assert!(pair.end(Romeo).is_open(romeo.id), "in band");
    assert!(!pair.end(Romeo).sessions.may_move(romeo.id));
    assert_eq!(pair.net.held(Romeo), 0);
    assert!(!pair.net.is_listening(Romeo));
}

#[test]
fn an_initiator_that_starts_fast_shows_no_address_before_tls_has_shown_who_the_peer_is() {
    let (mut pair, romeo, _) = fast();
    let replace = pair.about(Romeo, romeo.id, "transport-replace", &s5b("evil", ""));
    assert_eq!(pair.hears(Romeo, &replace), ["result", "set transport-reject"]);
    assert!(!pair.net.is_listening(Romeo));
}

#[test]
fn a_peer_makes_us_connect_to_so_many_places_and_no_more() {
    let (mut pair, _, juliets) = fast();
    for round in 0..5 {
        let candidate =
            |n| format!("<candidate cid='c{n}' host='192.0.2.{round}' port='{}' priority='{n}'/>", 22 + n);
        let candidates: String = (1..=20).map(candidate).collect();
        let transport = s5b(&format!("evil{round}"), &candidates);
        let replace = pair.about(Juliet, juliets, "transport-replace", &transport);
        pair.hears(Juliet, &replace);
        alone(&mut pair, 20);
    }
    let dials = pair.net.log.iter().filter(|line| line.starts_with("juliet dials 192.0.2.")).count();
    assert_eq!(dials, 32);
}
