//! Two session-initiates that cross (XEP-0166 #def-action-ties).

use super::*;

/// Both call each other; each call is on its way before the other's arrives.
fn crossing() -> (Pair, SessionId, SessionId) {
    let mut pair = Pair::new();
    let (romeos, juliets) = (pair.connect(Romeo), pair.connect(Juliet));
    for _ in 0..2 {
        pair.deliver(Romeo);
        pair.deliver(Juliet);
    }
    assert_eq!(pair.log.iter().filter(|line| line.ends_with("session-initiate")).count(), 2);
    pair.take_log();
    (pair, romeos, juliets)
}

#[test]
fn the_lower_sid_overrules_and_the_other_user_gets_that_session() {
    let mut winners = [0, 0];
    while winners.contains(&0) {
        let (mut pair, romeos, juliets) = crossing();
        let sid = |pair: &mut Pair, side, id| pair.end(side).sessions.sid(id).unwrap().to_owned();
        let (romeo_sid, juliet_sid) = (sid(&mut pair, Romeo, romeos), sid(&mut pair, Juliet, juliets));
        let winner = if romeo_sid < juliet_sid { Romeo } else { Juliet };
        winners[winner as usize] += 1;
        pair.run();
        assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
        let lower = romeo_sid.min(juliet_sid);
        assert_eq!(sid(&mut pair, Romeo, romeos), lower);
        assert_eq!(sid(&mut pair, Juliet, juliets), lower);
        let roles = [(Romeo, romeos), (Juliet, juliets)].map(|(side, id)| pair.end(side).sessions.role(id));
        assert_eq!(roles[winner as usize], Some(Role::Initiator));
        assert_eq!(roles[winner.other() as usize], Some(Role::Responder));
        let log = pair.take_log();
        let conflict = format!("{}: error cancel conflict tie-break", winner.name());
        assert_eq!(log.iter().filter(|line| **line == conflict).count(), 1, "{log:?}");
        assert!(pair.ends.iter().all(|end| end.incoming.is_empty()), "nobody is asked again");

        pair.send(Romeo, romeos, b"sweet sorrow");
        pair.run();
        assert_eq!(pair.drain(Juliet, juliets).0, b"sweet sorrow");
        pair.release(Romeo, romeos);
        pair.release(Juliet, juliets);
        pair.run();
        pair.advance(Duration::from_secs(60));
        assert!(pair.ends.iter().all(End::is_clean));
    }
}

/// Romeo has offered a session that is not acknowledged yet; gives his sid.
fn offered() -> (Pair, SessionId, String) {
    let mut pair = Pair::new();
    let id = pair.connect(Romeo);
    pair.deliver(Juliet);
    pair.deliver(Romeo);
    let sid = pair.end(Romeo).sessions.sid(id).unwrap().to_owned();
    (pair, id, sid)
}

#[test]
fn with_the_same_sid_the_lower_jid_overrules() {
    for (caller, answer) in [
        (JULIET, ["result", "set session-accept"].as_slice()),
        // Higher than Romeo's.
        ("rosaline@capulet.lit/ball", &["error cancel conflict tie-break"]),
    ] {
        let now = Instant::now();
        let mut romeo = End::new(Romeo, config(Romeo), now);
        let id = romeo.sessions.connect(now, jid(caller), None).unwrap();
        let asked = romeo.sent();
        let result = disco_result(asked[0].attr("id").unwrap(), &FEATURES);
        romeo.receives(now, &String::from(&result).replace(JULIET, caller).parse().unwrap());
        romeo.sent();
        let sid = romeo.sessions.sid(id).unwrap().to_owned();
        assert_eq!(romeo.hears(now, caller, &initiate(&sid)), answer, "{caller}");
    }
}

#[test]
fn a_higher_sid_is_refused_with_a_conflict() {
    let (mut pair, id, _) = offered();
    let now = pair.now;
    assert_eq!(pair.end(Romeo).hears(now, JULIET, &initiate("~")), ["error cancel conflict tie-break"]);
    assert_eq!(pair.end(Romeo).state(id), "offered");
}

#[test]
fn after_the_acknowledgement_there_is_no_tie() {
    let (mut pair, id, _) = offered();
    pair.run();
    let now = pair.now;
    assert_eq!(pair.end(Romeo).hears(now, JULIET, &initiate("!")), ["result"]);
    assert_eq!(pair.end(Romeo).state(id), "offered");
    assert_eq!(pair.end(Romeo).incoming.len(), 1, "it is a session of its own");
}

#[test]
fn another_peer_or_application_is_no_tie() {
    let (mut pair, id, _) = offered();
    let now = pair.now;
    let chamber = "juliet@capulet.lit/chamber";
    assert_eq!(pair.end(Romeo).hears(now, chamber, &initiate("!")), ["result"]);
    let other = content("name='a'", &format!("<description xmlns='urn:xmpp:example'/>{TRANSPORT}"));
    let other = jingle("session-initiate", "!", &other);
    let sent = pair.end(Romeo).hears(now, JULIET, &other);
    assert_eq!(sent, ["result", "set session-terminate unsupported-applications"]);
    assert_eq!(pair.end(Romeo).state(id), "offered");
}

#[test]
fn the_conflict_that_follows_a_lost_tie_is_ignored_whenever_it_comes() {
    let (mut pair, id, _) = offered();
    let now = pair.now;
    let offer = pair.sent("session-initiate").clone();
    assert_eq!(pair.end(Romeo).hears(now, JULIET, &initiate("!")), ["result", "set session-accept"]);
    assert_eq!(pair.end(Romeo).state(id), "active as responder");
    let conflict = nack(&offer, &error("cancel", "conflict", "tie-break"));
    assert!(pair.end(Romeo).receives(now, &conflict).is_none());
    assert_eq!(pair.end(Romeo).state(id), "active as responder");
}

#[test]
fn a_conflict_that_never_comes_does_not_end_the_session_that_won() {
    let (mut pair, id, _) = offered();
    let now = pair.now;
    pair.end(Romeo).hears(now, JULIET, &initiate("!"));
    let open = "<open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='vj3hs98y'/>";
    assert_eq!(pair.end(Romeo).hears(now, JULIET, open), ["result"]);
    pair.advance(Timeouts::default().jingle_ack + Duration::from_secs(1));
    assert!(pair.end(Romeo).is_open(id));
}

#[test]
fn an_offer_that_wins_and_is_unacceptable_fails_both() {
    let (mut pair, id, _) = offered();
    let now = pair.now;
    let plain = content("name='xmlstream'", &format!("{DESCRIPTION}{TRANSPORT}"));
    let sent = pair.end(Romeo).hears(now, JULIET, &jingle("session-initiate", "!", &plain));
    assert_eq!(sent, ["result", "set session-terminate security-error"]);
    assert!(matches!(pair.end(Romeo).error(id), Some(Error::Security(SecurityError::NotOffered))));
    assert!(pair.end(Romeo).sessions.is_over(id));
}

#[test]
fn an_offer_that_would_win_can_not_take_the_name_of_a_session_that_exists() {
    let (mut pair, id, _) = offered();
    let now = pair.now;
    pair.run();
    let romeo = pair.end(Romeo);
    assert_eq!(romeo.hears(now, JULIET, &initiate("!")), ["result"]);
    let first = romeo.incoming.pop_front().unwrap();
    let second = pair.connect(Romeo);
    let asked = pair.end(Romeo).sent();
    pair.end(Romeo).receives(now, &disco_result(asked[0].attr("id").unwrap(), &FEATURES));
    pair.end(Romeo).sent();
    assert_eq!(pair.end(Romeo).state(second), "offered");
    let sent = pair.end(Romeo).hears(now, JULIET, &initiate("!"));
    assert_eq!(sent, ["error wait unexpected-request out-of-order"]);
    assert_eq!(pair.end(Romeo).state(id), "offered");
    assert_eq!(pair.end(Romeo).state(first), "ringing");
    assert_eq!(pair.end(Romeo).state(second), "offered");
}
