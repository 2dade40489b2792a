//! Where SOCKS5 finds no way, in-band bytestreams take its place (XEP-0260 #fallback).

use super::{
    net::{Got, Path, User},
    *,
};
use crate::{Start, transport::TransportInfo};

/// Juliet has accepted, and nobody can connect to anybody.
fn severed(adjust: impl Fn(Side, Config) -> Config) -> (Pair, SessionId, SessionId) {
    let (mut pair, romeos, juliets) = accepted(adjust);
    pair.net.sever();
    (pair, romeos, juliets)
}

fn accepted(adjust: impl Fn(Side, Config) -> Config) -> (Pair, SessionId, SessionId) {
    let mut pair = Pair::s5b(adjust);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let juliets = pair.accept(Juliet);
    pair.take_log();
    (pair, romeos, juliets)
}

fn is_in_band(pair: &mut Pair, side: Side, id: SessionId) -> bool {
    let info = pair.end(side).sessions.transport_info(id);
    info.as_ref().map(TransportInfo::method) == Some("ibb") && pair.end(side).is_open(id)
}

fn failed_to_connect(error: Option<Error>) -> bool {
    matches!(error, Some(Error::Transport(TransportError::Unconnected(_))))
}

#[test]
fn the_flow_of_xep_0260_s_fallback() {
    let (mut pair, romeos, juliets) = severed(|_, config| config);
    pair.settle();
    assert_eq!(
        pair.take_log(),
        [
            "juliet: set session-accept",
            "romeo: result",
            "romeo: set security-info",
            "juliet: result",
            "juliet: set transport-info candidate-error",
            "romeo: result",
            "romeo: set transport-info candidate-error",
            "romeo: set transport-replace",
            "juliet: result",
            "juliet: result",
            "juliet: set transport-accept",
            "romeo: result",
            "romeo: set open",
            "juliet: result",
        ]
    );
    assert!(is_in_band(&mut pair, Romeo, romeos) && is_in_band(&mut pair, Juliet, juliets));
    let (mut romeo, mut juliet) = (User::new(Romeo, romeos), User::new(Juliet, juliets));
    romeo.say(&mut pair, b"in band");
    pair.run();
    assert_eq!(juliet.drain(&mut pair), (b"in band".to_vec(), Got::Nothing));
    assert_eq!((juliet.reads, romeo.writes), (Path::Session, Path::Session));
    pair.leave(romeos, juliets);
}

/// What a peer may do with Romeo's transport-replace.
type Answer = fn(&mut Pair, SessionId, &Element);

#[test]
fn without_a_replacement_one_more_session_follows_that_is_in_band_from_the_start() {
    let answers: [(&str, Answer); 4] = [
        ("transport-reject", |pair, romeos, replace| {
            let now = pair.now;
            pair.end(Romeo).receives(now, &ack(replace));
            let transport = String::from(find(replace, "transport"));
            let reject = pair.about(Romeo, romeos, "transport-reject", &transport);
            pair.hears(Romeo, &reject);
        }),
        ("an error", |pair, _, replace| {
            let (now, error) = (pair.now, error("cancel", "feature-not-implemented", ""));
            pair.end(Romeo).receives(now, &nack(replace, &error));
        }),
        ("an accept of something else", |pair, romeos, _| {
            let s5b = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='vj3hs98y'/>";
            let accept = pair.about(Romeo, romeos, "transport-accept", s5b);
            assert_eq!(pair.hears(Romeo, &accept)[0], "error cancel bad-request");
        }),
        ("nothing", |pair, _, _| pair.advance(Duration::from_secs(31))),
    ];
    for (name, answer) in answers {
        let (mut pair, romeos, juliets) = severed(|_, config| config);
        pair.until("romeo: set transport-replace");
        let replace = pair.sent("transport-replace").clone();
        // Juliet's part is played by the test.
        pair.inbox[Juliet as usize].retain(|stanza| stanza != &replace);
        let first = pair.end(Romeo).sessions.sid(romeos).unwrap().to_owned();
        pair.take_log();
        answer(&mut pair, romeos, &replace);
        pair.collect();
        pair.run();
        let log = pair.take_log();
        let terminated = "romeo: set session-terminate connectivity-error".to_owned();
        let initiated = "romeo: set session-initiate".to_owned();
        assert!(log.contains(&terminated) && log.contains(&initiated), "{name}: {log:#?}");
        assert_ne!(pair.end(Romeo).sessions.sid(romeos).unwrap(), first, "{name}");

        // For Romeo's user it is the same session; Juliet's has to decide anew.
        assert_eq!(pair.end(Romeo).state(romeos), "offered");
        assert_eq!(pair.end(Juliet).state(juliets), "ended");
        let again = pair.accept(Juliet);
        pair.run();
        assert!(is_in_band(&mut pair, Romeo, romeos) && is_in_band(&mut pair, Juliet, again), "{name}");
        pair.release(Juliet, juliets);
        pair.leave(romeos, again);
    }
}

#[test]
fn a_peer_that_ends_the_session_because_of_its_transport_gets_one_more_in_band() {
    for reason in
        ["failed-transport", "unsupported-transports", "connectivity-error", "incompatible-parameters"]
    {
        let mut pair = Pair::s5b(|_, config| config);
        let romeos = pair.connect(Romeo);
        pair.live(Duration::from_secs(1));
        let juliets = pair.end(Juliet).incoming.pop_front().unwrap();
        let terminate = |pair: &mut Pair| {
            let sid = pair.end(Romeo).sessions.sid(romeos).unwrap().to_owned();
            jingle("session-terminate", &sid, &format!("<reason><{reason}/></reason>"))
        };
        let request = terminate(&mut pair);
        assert_eq!(pair.hears(Romeo, &request), ["result", "set session-initiate"], "{reason}");
        assert_eq!(pair.end(Romeo).state(romeos), "offered");
        // Never a second one.
        let request = terminate(&mut pair);
        assert_eq!(pair.hears(Romeo, &request), ["result"], "{reason}");
        assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Terminated(_))));
        pair.leave(romeos, juliets);
    }
    // Who declines is not asked again.
    for reason in ["decline", "busy", "security-error", "success"] {
        let mut pair = Pair::s5b(|_, config| config);
        let romeos = pair.connect(Romeo);
        pair.live(Duration::from_secs(1));
        let sid = pair.end(Romeo).sessions.sid(romeos).unwrap().to_owned();
        let terminate = jingle("session-terminate", &sid, &format!("<reason><{reason}/></reason>"));
        assert_eq!(pair.hears(Romeo, &terminate), ["result"], "{reason}");
        assert_eq!(pair.end(Romeo).state(romeos), "ended");
    }
}

#[test]
fn the_new_session_is_never_followed_by_a_third() {
    let (mut pair, romeos, juliets) = severed(|_, config| config);
    pair.until("romeo: set transport-replace");
    let replace = pair.sent("transport-replace").clone();
    pair.inbox[Juliet as usize].clear();
    let (now, refusal) = (pair.now, error("cancel", "feature-not-implemented", ""));
    pair.end(Romeo).receives(now, &nack(&replace, &refusal));
    pair.collect();
    assert_eq!(pair.end(Romeo).state(romeos), "offered");
    let initiate = pair.sent("session-initiate").clone();
    pair.inbox[Juliet as usize].clear();
    pair.end(Romeo).receives(now, &nack(&initiate, &refusal));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::PeerIncompatible(_))));
    pair.terminate(Juliet, juliets, Reason::Gone, None);
    pair.leave(romeos, juliets);
}

#[test]
fn who_wants_nothing_but_socks5_gets_nothing_else() {
    for only in [Romeo, Juliet] {
        let (mut pair, romeos, juliets) =
            severed(|side, config| if side == only { config.transports(Transports::S5b) } else { config });
        pair.settle();
        let log = pair.take_log();
        assert!(!log.iter().any(|line| line.contains("transport-replace")), "{log:#?}");
        assert!(log.iter().any(|line| line.contains("session-terminate connectivity-error")), "{log:#?}");
        assert!(failed_to_connect(pair.end(only).error(if only == Romeo { romeos } else { juliets })));
        pair.leave(romeos, juliets);
    }
}

#[test]
fn the_responder_waits_for_the_replacement_and_not_for_ever() {
    let (mut pair, romeos, juliets) = severed(|_, config| config);
    pair.until("romeo: set transport-replace");
    while pair.log.last().is_none_or(|line| line != "romeo: set transport-replace") {
        pair.log.pop();
    }
    // It is lost on the way.
    pair.inbox[Juliet as usize].retain(|stanza| describe(stanza) != "set transport-replace");
    while pair.deliver(Juliet) {}
    assert_eq!(pair.end(Juliet).state(juliets), "active as responder");
    let now = pair.now + Duration::from_secs(29);
    pair.end(Juliet).sessions.handle_timeout(now);
    assert_eq!(pair.end(Juliet).state(juliets), "active as responder");
    let now = now + Duration::from_secs(2);
    pair.end(Juliet).sessions.handle_timeout(now);
    assert!(failed_to_connect(pair.end(Juliet).error(juliets)));
    pair.now = now;
    pair.leave(romeos, juliets);
}

#[test]
fn socks5_is_negotiated_twice_at_most() {
    let (mut pair, romeos, juliets) =
        Pair::open_with(|_, config| config.transports(Transports::Auto).start(Start::Fast));
    for round in 0..10 {
        let s5b = format!("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='s{round}'/>");
        let replace = pair.about(Juliet, juliets, "transport-replace", &s5b);
        let before = pair.log.len();
        pair.hears(Juliet, &replace);
        pair.inbox[Romeo as usize].clear();
        pair.happen_while_due();
        let said = pair.log[before..].iter().any(|line| line.contains("transport-reject"));
        assert_eq!(said, round >= 2, "round {round}: {:#?}", &pair.log[before..]);
        pair.inbox[Romeo as usize].clear();
    }
    let requests = &pair.end(Juliet).sessions.requests;
    assert!(!requests.is_empty(), "one transport-accept waits for its acknowledgement");
    pair.leave(romeos, juliets);
}

#[test]
fn a_peer_may_replace_what_is_still_negotiated() {
    let (mut pair, romeos, juliets) = accepted(|_, config| config);
    pair.until("juliet: set session-accept");
    while pair.deliver(Romeo) {}
    pair.take_log();
    let replace = pair.about(Juliet, juliets, "transport-replace", TRANSPORT);
    assert_eq!(pair.hears(Juliet, &replace), ["result", "set transport-accept"]);
    let open = "<open xmlns='http://jabber.org/protocol/ibb' sid='vj3hs98y' block-size='4096'/>";
    assert_eq!(pair.hears(Juliet, open), ["result"]);
    assert!(is_in_band(&mut pair, Juliet, juliets));
    pair.inbox[Romeo as usize].clear();
    pair.leave(romeos, juliets);
}

#[test]
fn where_both_replace_at_once_the_initiator_overrules() {
    let (mut pair, romeos, juliets) = severed(|_, config| config);
    pair.until("romeo: set transport-replace");
    let replace = pair.about(Romeo, romeos, "transport-replace", TRANSPORT);
    assert_eq!(pair.hears(Romeo, &replace), ["error cancel conflict tie-break"]);
    pair.inbox[Juliet as usize].retain(|stanza| describe(stanza) != "error cancel conflict tie-break");
    pair.settle();
    assert!(is_in_band(&mut pair, Romeo, romeos) && is_in_band(&mut pair, Juliet, juliets));
    pair.leave(romeos, juliets);
}

#[test]
fn connections_that_came_before_a_bad_accept_are_hung_up() {
    let s5b = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='another'/>";
    for transport in [TRANSPORT, s5b] {
        let mut pair = Pair::s5b(|_, config| config);
        let romeos = pair.connect(Romeo);
        pair.live(Duration::from_secs(1));
        let expected: Vec<_> = pair.end(Romeo).sessions.expected.keys().cloned().collect();
        assert!(pair.knock(Romeo, &expected[0]).is_some());
        assert!(pair.knock(Romeo, "0123456789012345678901234567890123456789").is_none());
        let full = format!("{DESCRIPTION}{transport}{SECURITY}");
        let accept = pair.about(Romeo, romeos, "session-accept", &full);
        assert_eq!(pair.hears(Romeo, &accept)[0], "error cancel bad-request");
        assert_eq!(pair.net.held(Romeo), 0, "{transport}");
        let juliets = pair.end(Juliet).incoming.pop_front().unwrap();
        pair.leave(romeos, juliets);
    }
}
