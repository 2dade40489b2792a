//! The session with the server is lost, and resumed: who has to wait, and for how long.

use super::{
    net::{Got, User},
    *,
};
use crate::{Start, session::stalling::STANDSTILL, stream::Flow};

const MINUTE: Duration = Duration::from_secs(60);

fn flow(pair: &mut Pair, side: Side, id: SessionId) -> Flow {
    pair.end(side).sessions.flow(id)
}

/// The sessions that somebody has to look at again.
fn changed(end: &mut End) -> Vec<SessionId> {
    let mut changed = Vec::new();
    while let Some(output) = end.sessions.poll_output() {
        if let Output::Changed(id) = output {
            changed.push(id);
        }
    }
    changed
}

#[test]
fn what_was_on_its_way_in_band_arrives_after_minutes_without_the_server() {
    let (mut pair, romeos, juliets) = Pair::open();
    pair.send(Romeo, romeos, b"parting ");
    pair.link_down(Romeo);
    assert_eq!(
        (flow(&mut pair, Romeo, romeos), flow(&mut pair, Juliet, juliets)),
        (Flow::Stalled, Flow::Flowing)
    );
    pair.send(Romeo, romeos, b"is such ");
    pair.run();
    for _ in 0..9 {
        pair.advance(MINUTE);
    }
    assert!(pair.end(Romeo).is_open(romeos), "nobody could have acknowledged anything");
    pair.link_resumed(Romeo);
    assert_eq!(flow(&mut pair, Romeo, romeos), Flow::Flowing);
    pair.send(Romeo, romeos, b"sweet sorrow");
    pair.run();
    assert_eq!(pair.drain(Juliet, juliets).0, b"parting is such sweet sorrow");
    pair.advance(MINUTE);
    assert!(pair.end(Romeo).is_open(romeos), "all of it was acknowledged");
    pair.release(Romeo, romeos);
    pair.release(Juliet, juliets);
    pair.run();
    assert!(pair.ends.iter().all(End::is_clean));
}

#[test]
fn whoever_looks_at_a_bytestream_is_told_when_it_stands_still_and_when_it_goes_on() {
    let (mut pair, romeos, _) = Pair::open();
    let now = pair.now;
    let romeo = pair.end(Romeo);
    romeo.sessions.handle_link_down(now);
    assert_eq!(changed(romeo), [romeos]);
    romeo.sessions.handle_link_down(now);
    assert_eq!(changed(romeo), [], "once");
    romeo.sessions.handle_link_resumed(now);
    assert_eq!(changed(romeo), [romeos]);
    romeo.sessions.handle_link_resumed(now);
    assert_eq!(changed(romeo), [], "once");
}

#[test]
fn a_block_has_all_its_time_again_and_no_more_than_that() {
    let (mut pair, romeos, _) = Pair::open();
    pair.send(Romeo, romeos, b"blocks");
    let given = pair.end(Romeo).sessions.config().timeouts.block_ack;
    pair.advance(given / 2);
    pair.link_down(Romeo);
    pair.advance(given);
    pair.link_resumed(Romeo);
    pair.inbox = Default::default();
    pair.advance(given - Duration::from_millis(1));
    assert!(pair.end(Romeo).is_open(romeos));
    pair.advance(Duration::from_millis(1));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Timeout(Step::BlockAck, _))));
}

#[test]
fn a_close_and_a_jingle_request_have_all_their_time_again() {
    let (mut pair, romeos, _) = Pair::open();
    let given = pair.end(Romeo).sessions.config().timeouts.close;
    assert!(!pair.shutdown(Romeo, romeos).unwrap());
    pair.link_down(Romeo);
    pair.advance(given * 2);
    pair.link_resumed(Romeo);
    // She gets nothing of it.
    pair.inbox = Default::default();
    pair.advance(given - Duration::from_millis(1));
    assert_ne!(pair.end(Romeo).state(romeos), "ended");
    pair.advance(Duration::from_millis(1));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Timeout(Step::Close, _))));

    let mut pair = Pair::s5b(|_, mut config| {
        // Less than a move is given for the negotiation itself.
        config.timeouts.jingle_ack = Duration::from_secs(5);
        config.start(Start::Fast)
    });
    let romeos = pair.connect(Romeo);
    pair.run();
    let juliets = pair.accept(Juliet);
    pair.run();
    let now = pair.now;
    pair.end(Romeo).sessions.start_move(now, romeos);
    pair.until("romeo: set transport-replace");
    pair.link_down(Romeo);
    pair.advance(Duration::from_secs(6));
    assert!(pair.end(Romeo).sessions.may_move(romeos), "it may yet be acknowledged");
    pair.link_resumed(Romeo);
    pair.settle();
    let method = pair.end(Romeo).sessions.transport_info(romeos).unwrap().method();
    assert_eq!(method, "s5b");
    pair.leave(romeos, juliets);
}

#[test]
fn a_stream_on_a_socket_does_not_notice() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let juliets = pair.accept(Juliet);
    pair.settle();
    let (mut romeo, mut juliet) = (User::new(Romeo, romeos), User::new(Juliet, juliets));
    for side in [Romeo, Juliet] {
        pair.link_down(side);
    }
    assert_eq!(flow(&mut pair, Romeo, romeos), Flow::Flowing);
    romeo.say(&mut pair, b"what light");
    juliet.say(&mut pair, b"ay me");
    assert_eq!(juliet.drain(&mut pair), (b"what light".to_vec(), Got::Nothing));
    assert_eq!(romeo.drain(&mut pair), (b"ay me".to_vec(), Got::Nothing));
    pair.live(STANDSTILL * 2);
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
    pair.calm();
    pair.leave(romeos, juliets);
}

#[test]
fn those_who_want_to_connect_wait_for_the_server() {
    let mut pair = Pair::new();
    pair.link_down(Romeo);
    let (romeos, late) = (pair.connect(Romeo), pair.connect(Romeo));
    pair.run();
    assert_eq!(pair.end(Romeo).state(romeos), "preparing");
    assert_eq!(pair.take_log(), [""; 0]);
    pair.advance(Duration::from_secs(5));
    pair.release(Romeo, late);
    pair.link_resumed(Romeo);
    pair.run();
    let juliets = pair.accept(Juliet);
    pair.run();
    assert!(pair.end(Romeo).is_open(romeos));
    pair.leave(romeos, juliets);

    // And no longer than for one that has never been there.
    pair.link_down(Romeo);
    let romeos = pair.connect(Romeo);
    let given = pair.end(Romeo).sessions.config().timeouts.online;
    pair.advance(given);
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Timeout(Step::Online, _))));
    pair.release(Romeo, romeos);
}

#[test]
fn what_is_being_negotiated_keeps_its_deadlines() {
    let (mut pair, romeos, juliets) = Pair::ringing();
    let (accept, decision) = {
        let timeouts = pair.end(Romeo).sessions.config().timeouts;
        (timeouts.accept, timeouts.decision)
    };
    pair.link_down(Romeo);
    pair.link_down(Juliet);
    pair.advance(accept.max(decision));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Timeout(Step::Accept, _))));
    assert!(matches!(pair.end(Juliet).error(juliets), Some(Error::Timeout(Step::Decision, _))));
    pair.calm();
    pair.leave(romeos, juliets);
}

#[test]
fn a_new_session_with_the_server_ends_what_has_waited_for_the_old_one() {
    for name in [ROMEO, "romeo@montague.lit/street"] {
        let (mut pair, romeos, juliets) = Pair::open();
        pair.send(Romeo, romeos, b"lost");
        pair.link_down(Romeo);
        pair.advance(MINUTE);
        pair.rebind(Romeo, name);
        assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Signalling(SignallingError::Rebound))));
        assert_eq!(flow(&mut pair, Romeo, romeos), Flow::Flowing, "there is nothing to wait for");
        pair.run();
        pair.leave(romeos, juliets);
    }
}

#[test]
fn nobody_waits_longer_than_any_server_remembers() {
    let (mut pair, romeos, juliets) = Pair::open();
    pair.link_down(Romeo);
    pair.advance(STANDSTILL - Duration::from_millis(1));
    assert!(pair.end(Romeo).is_open(romeos));
    assert!(pair.end(Romeo).sessions.poll_timeout().unwrap() <= pair.now + Duration::from_millis(1));
    pair.advance(Duration::from_millis(1));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Signalling(SignallingError::Offline))));
    assert_eq!(pair.end(Romeo).sessions.flow(romeos), Flow::Flowing);
    pair.calm();
    pair.leave(romeos, juliets);
}

#[test]
fn a_peer_that_went_offline_can_show_itself_once_we_hear_it_again() {
    let (mut pair, romeos, juliets) = Pair::open();
    let now = pair.now;
    pair.end(Romeo).presence(now, JULIET, PresenceType::Unavailable);
    pair.link_down(Romeo);
    pair.advance(MINUTE);
    assert!(pair.end(Romeo).is_open(romeos));
    pair.link_resumed(Romeo);
    pair.advance(Duration::from_secs(9));
    assert!(pair.end(Romeo).is_open(romeos));
    pair.advance(Duration::from_secs(1));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Signalling(SignallingError::PeerGone))));
    pair.run();
    pair.leave(romeos, juliets);
}

#[test]
fn a_server_that_can_not_reach_the_peer_ends_what_goes_through_it_at_once() {
    for condition in ["remote-server-timeout", "service-unavailable", "recipient-unavailable"] {
        let (mut pair, romeos, juliets) = Pair::open();
        pair.send(Romeo, romeos, b"data");
        let block = pair.sent("data").clone();
        pair.inbox = Default::default();
        let now = pair.now;
        pair.end(Romeo).receives(now, &nack(&block, &error("cancel", condition, "")));
        pair.collect();
        let failed = pair.end(Romeo).error(romeos);
        assert!(
            matches!(failed, Some(Error::Signalling(SignallingError::PeerUnreachable(_)))),
            "{condition}: {failed:?}"
        );
        pair.run();
        pair.leave(romeos, juliets);
    }
}
