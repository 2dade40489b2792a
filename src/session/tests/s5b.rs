//! SOCKS5 bytestreams in sessions, as XEP-0260 draws them, and what is offered to whom.

use super::{
    net::{Got, User},
    *,
};
use crate::{Candidates, Start, transport::TransportInfo};

/// Romeo's stream with Juliet is open, and nothing is under way.
fn connected(pair: &mut Pair) -> (User, User) {
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(3));
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets), "{:#?}", pair.log);
    (User::new(Romeo, romeos), User::new(Juliet, juliets))
}

/// The transport and the types of its candidates.
fn transport(stanza: &Element) -> String {
    let transport = find(stanza, "transport");
    let method = if transport.ns().contains("ibb") { "ibb" } else { "s5b" };
    let types = transport.children().filter_map(|candidate| candidate.attr("type"));
    format!("{method} {}", types.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

fn method(pair: &mut Pair, side: Side, id: SessionId) -> Option<&'static str> {
    pair.end(side).sessions.transport_info(id).as_ref().map(TransportInfo::method)
}

#[test]
fn the_flow_of_xep_0260_with_direct_candidates() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    assert_eq!(
        pair.take_log(),
        ["romeo: get query", "juliet: result query", "romeo: set session-initiate", "juliet: result"]
    );
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert_eq!(
        pair.take_log(),
        [
            "juliet: set session-accept",
            "romeo: result",
            "romeo: set security-info",
            "juliet: result",
            "juliet: set transport-info candidate-used",
            "romeo: result",
            // What she uses is preferred to all of hers, so he need not try any more.
            "romeo: set transport-info candidate-error",
            "juliet: result",
        ]
    );
    assert_eq!(pair.net.held(Romeo), 1, "the connection, which nobody has taken yet");
    let (mut romeo, mut juliet) = (User::new(Romeo, romeos), User::new(Juliet, juliets));
    romeo.say(&mut pair, b"to Juliet");
    juliet.say(&mut pair, b"to Romeo");
    assert_eq!(juliet.drain(&mut pair), (b"to Juliet".to_vec(), Got::Nothing));
    assert_eq!(romeo.drain(&mut pair), (b"to Romeo".to_vec(), Got::Nothing));
    assert_eq!(pair.take_log(), [""; 0], "nothing of it goes through the servers");

    assert!(romeo.shutdown(&mut pair).unwrap());
    assert_eq!(juliet.drain(&mut pair).1, Got::End);
    pair.terminate(Romeo, romeos, Reason::Success, None);
    pair.leave(romeos, juliets);
    assert!(!pair.net.is_listening(Romeo) || pair.net.is_listening(Juliet));
}

#[test]
fn a_relay_carries_what_can_not_go_straight() {
    let mut pair = Pair::s5b(|_, config| config);
    pair.net.sever();
    pair.net.has_proxy = [true, false];
    let (mut romeo, mut juliet) = connected(&mut pair);
    assert_eq!(
        pair.take_log()[4..],
        [
            "juliet: set session-accept",
            "romeo: result",
            "romeo: set security-info",
            "juliet: result",
            "romeo: set transport-info candidate-error",
            "juliet: result",
            "juliet: set transport-info candidate-used",
            "romeo: result",
            "romeo: set transport-info activated",
            "juliet: result",
        ]
    );
    let info = pair.end(Juliet).sessions.transport_info(juliet.id).unwrap();
    assert_eq!(info.candidate(), Some(crate::transport::CandidateType::Proxy));
    romeo.say(&mut pair, b"through the relay");
    assert_eq!(juliet.drain(&mut pair), (b"through the relay".to_vec(), Got::Nothing));
    pair.leave(romeo.id, juliet.id);
}

#[test]
fn what_is_offered_and_carries_the_stream_is_what_both_allow() {
    use Start::{Best, Fast};
    use Transports::{Auto, Ibb, S5b};
    // Both sides' settings; what is offered first, what carries the stream.
    let cases = [
        (Auto, Best, Auto, Ok(("s5b", "s5b"))),
        (Auto, Fast, Auto, Ok(("ibb", "ibb"))),
        (Auto, Best, Ibb, Ok(("ibb", "ibb"))),
        (Auto, Fast, Ibb, Ok(("ibb", "ibb"))),
        (Auto, Best, S5b, Ok(("s5b", "s5b"))),
        (Auto, Fast, S5b, Ok(("s5b", "s5b"))),
        (Ibb, Best, Auto, Ok(("ibb", "ibb"))),
        (Ibb, Fast, Ibb, Ok(("ibb", "ibb"))),
        (Ibb, Best, S5b, Err(ns::JINGLE_IBB)),
        (S5b, Best, Auto, Ok(("s5b", "s5b"))),
        (S5b, Fast, Auto, Ok(("s5b", "s5b"))),
        (S5b, Best, S5b, Ok(("s5b", "s5b"))),
        (S5b, Fast, Ibb, Err(ns::JINGLE_S5B)),
    ];
    for (romeos_transports, start, juliets_transports, expected) in cases {
        let case = format!("{romeos_transports:?} {start:?}, {juliets_transports:?}");
        let mut pair = Pair::with(|side, config| match side {
            Romeo => config.transports(romeos_transports).start(start),
            Juliet => config.transports(juliets_transports),
        });
        let romeos = pair.connect(Romeo);
        pair.live(Duration::from_secs(1));
        let (offered, carries) = match expected {
            Ok(expected) => expected,
            Err(missing) => {
                let error = pair.end(Romeo).error(romeos);
                let Some(Error::PeerIncompatible(PeerIncompatible::MissingFeature(named))) = error else {
                    panic!("{case}: {error:?}")
                };
                assert_eq!(named, missing, "{case}");
                assert_eq!(pair.take_log(), ["romeo: get query", "juliet: result query"], "{case}");
                continue;
            }
        };
        assert!(transport(pair.sent("session-initiate")).starts_with(offered), "{case}");
        let juliets = pair.accept(Juliet);
        pair.settle();
        assert_eq!(method(&mut pair, Romeo, romeos), Some(carries), "{case}");
        assert_eq!(method(&mut pair, Juliet, juliets), Some(carries), "{case}");

        // Only a fast start is followed by a move, and only where both can.
        pair.take_log();
        let now = pair.now;
        pair.end(Romeo).sessions.start_move(now, romeos);
        pair.settle();
        let moved = method(&mut pair, Romeo, romeos) != Some(carries);
        assert_eq!(moved, (romeos_transports, start, juliets_transports) == (Auto, Fast, Auto), "{case}");
        assert!(moved || pair.take_log().is_empty(), "{case}");
        pair.leave(romeos, juliets);
    }
}

#[test]
fn candidates_are_shown_as_far_as_the_user_allows_it() {
    // Of both sides the same; what the offer has, what the accept has, and whether the initiator's come later.
    let cases = [
        (Candidates::All, "s5b direct proxy", "s5b direct proxy", false),
        (Candidates::AfterAccept, "s5b", "s5b direct proxy", true),
        (Candidates::ProxyOnly, "s5b proxy", "s5b proxy", false),
        (Candidates::None, "s5b", "s5b", false),
    ];
    for (candidates, offer, accept, later) in cases {
        let mut pair = Pair::s5b(|_, mut config| {
            config.s5b.candidates = candidates;
            config
        });
        pair.net.has_proxy = [true, true];
        let romeos = pair.connect(Romeo);
        pair.live(Duration::from_secs(1));
        assert_eq!(transport(pair.sent("session-initiate")), offer, "{candidates:?}");
        let juliets = pair.accept(Juliet);
        pair.live(Duration::from_secs(1));
        assert_eq!(transport(pair.sent("session-accept")), accept, "{candidates:?}");
        let infos = pair.stanzas.iter().filter(|stanza| describe(stanza) == "set transport-info candidate");
        let infos: Vec<_> =
            infos.map(|info| (info.attr("from").unwrap().to_owned(), transport(info))).collect();
        let expected = later.then(|| (ROMEO.to_owned(), "s5b direct proxy".to_owned()));
        assert_eq!(infos, Vec::from_iter(expected), "{candidates:?}");
        let direct = matches!(candidates, Candidates::All | Candidates::AfterAccept);
        assert_eq!((pair.net.is_listening(Romeo), pair.net.is_listening(Juliet)), (direct, direct));
        let asked = pair.net.log.iter().any(|line| line.contains("asks"));
        assert_eq!(asked, candidates != Candidates::None, "{candidates:?}");

        pair.live(Duration::from_secs(20));
        let carries = if candidates == Candidates::None { "ibb" } else { "s5b" };
        assert_eq!(method(&mut pair, Romeo, romeos), Some(carries), "{candidates:?}");
        assert_eq!(method(&mut pair, Juliet, juliets), Some(carries), "{candidates:?}");
        pair.leave(romeos, juliets);
    }
}

#[test]
fn an_offer_waits_two_seconds_for_relays_and_no_longer() {
    let mut pair = Pair::s5b(|_, config| config);
    pair.net.mute.insert("montague.lit".to_owned());
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_millis(1999));
    assert_eq!(pair.end(Romeo).state(romeos), "gathering");
    pair.live(Duration::from_millis(1));
    assert_eq!(transport(pair.sent("session-initiate")), "s5b direct");
    // The same with a listener that never comes up.
    pair.net.addresses[Juliet as usize] = None;
    let juliets = pair.accept(Juliet);
    pair.live(Duration::from_millis(1999));
    assert_eq!(pair.end(Juliet).state(juliets), "accepting");
    pair.live(Duration::from_millis(1));
    assert_eq!(transport(pair.sent("session-accept")), "s5b");
    pair.settle();
    assert_eq!(method(&mut pair, Romeo, romeos), Some("s5b"));
    pair.leave(romeos, juliets);
}

#[test]
fn a_peer_learns_nothing_of_a_responder_whose_user_does_not_accept() {
    let mut pair = Pair::s5b(|_, config| config);
    pair.net.has_proxy = [true, true];
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(3));
    pair.take_log();
    let juliets = pair.end(Juliet).incoming.pop_front().unwrap();
    // Somebody who knows her DST.ADDRs finds nothing.
    assert!(!pair.net.is_listening(Juliet));
    assert!(pair.end(Juliet).sessions.expected.is_empty());
    pair.release(Juliet, juliets);
    pair.settle();
    assert_eq!(pair.take_log(), ["juliet: set session-terminate decline", "romeo: result"]);
    assert!(
        pair.net.dials(Juliet).is_empty() && !pair.net.log.iter().any(|it| it.starts_with("juliet dials"))
    );
    pair.release(Romeo, romeos);
    pair.live(Duration::from_secs(20));
    pair.assert_clean();
}

#[test]
fn users_who_change_their_minds_leave_nothing_behind() {
    for candidates in [Candidates::All, Candidates::AfterAccept, Candidates::ProxyOnly] {
        for milliseconds in (0..700).step_by(20) {
            let mut pair = Pair::s5b(|_, mut config| {
                config.s5b.candidates = candidates;
                config
            });
            pair.net.has_proxy = [true, true];
            let romeos = pair.connect(Romeo);
            pair.live(Duration::from_millis(milliseconds.min(300)));
            let juliets = match pair.end(Juliet).incoming.is_empty() {
                true => None,
                false => Some(pair.accept(Juliet)),
            };
            pair.live(Duration::from_millis(milliseconds.saturating_sub(300)));
            pair.release(Romeo, romeos);
            pair.live(Duration::from_secs(3));
            assert!(juliets.is_none_or(|id| pair.end(Juliet).state(id) == "ended"));
            juliets.into_iter().for_each(|id| pair.release(Juliet, id));
            while let Some(id) = pair.end(Juliet).incoming.pop_front() {
                pair.release(Juliet, id);
            }
            pair.live(Duration::from_secs(100));
            pair.assert_clean();
            assert!(!pair.net.is_listening(Romeo) && !pair.net.is_listening(Juliet), "nobody needs it");
        }
    }
}

#[test]
fn a_connection_to_who_offered_no_address_is_not_let_in() {
    let mut pair = Pair::s5b(|_, mut config| {
        config.s5b.candidates = Candidates::ProxyOnly;
        config
    });
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let expected: Vec<_> = pair.end(Romeo).sessions.expected.keys().cloned().collect();
    assert!(expected.iter().all(|dst_addr| pair.knock(Romeo, dst_addr).is_none()));
    let juliets = pair.accept(Juliet);
    pair.settle();
    pair.leave(romeos, juliets);
}

#[test]
fn no_more_connections_wait_for_an_answer_than_an_attacker_can_be_allowed() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let expected: Vec<_> = pair.end(Romeo).sessions.expected.keys().cloned().collect();
    let admitted = (0..100).filter(|_| pair.knock(Romeo, &expected[0]).is_some()).count();
    assert_eq!(admitted, 8);
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert_eq!(method(&mut pair, Juliet, juliets), Some("s5b"), "who is expected gets through all the same");
    pair.leave(romeos, juliets);
}

#[test]
fn one_peer_can_be_shown_other_addresses_than_another() {
    let mut pair = Pair::s5b(|_, config| config);
    let (now, juliet) = (pair.now, pair.end(Juliet).jid.clone());
    let romeos = pair.end(Romeo).sessions.connect(now, juliet, Some(Candidates::None)).unwrap();
    pair.live(Duration::from_secs(1));
    assert_eq!(transport(pair.sent("session-initiate")), "s5b");
    let juliets = *pair.end(Juliet).incoming.front().unwrap();
    pair.end(Juliet).sessions.show_candidates(juliets, Candidates::ProxyOnly);
    pair.accept(Juliet);
    pair.live(Duration::from_secs(1));
    assert_eq!(transport(pair.sent("session-accept")), "s5b");
    assert!(!pair.net.is_listening(Romeo) && !pair.net.is_listening(Juliet));
    pair.live(Duration::from_secs(20));
    pair.leave(romeos, juliets);
}

#[test]
fn candidates_that_a_responder_sends_before_its_answer_are_tried() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let offer = find(pair.sent("session-initiate"), "transport").attr("sid").unwrap().to_owned();
    let candidate = "<candidate cid='c' host='198.51.100.66' jid='juliet@capulet.lit/balcony' port='5' \
        priority='8323000' type='direct'/>";
    let info = |children: &str| {
        format!("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='{offer}'>{children}</transport>")
    };
    let early = pair.about(Romeo, romeos, "transport-info", &info(candidate));
    assert_eq!(pair.hears(Romeo, &early), ["result"]);
    let too_early = pair.about(Romeo, romeos, "transport-info", &info("<candidate-error/>"));
    assert_eq!(pair.hears(Romeo, &too_early), ["error wait unexpected-request out-of-order"]);

    let juliets = pair.accept(Juliet);
    pair.live(Duration::from_secs(1));
    let dialled =
        pair.net.log.iter().any(|line| line.contains("romeo dials") && line.contains("198.51.100.66"));
    assert!(dialled, "{:#?}", pair.net.log);
    pair.live(Duration::from_secs(20));
    pair.leave(romeos, juliets);
}
