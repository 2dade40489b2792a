//! Everything that is waited for has its deadline, and nothing wakes up for nothing.

use super::*;

const TICK: Duration = Duration::from_millis(1);

/// Goes to the moment before a deadline, where nothing may happen, and then to it.
fn expires(pair: &mut Pair, side: Side, id: SessionId, after: Duration) -> Error {
    let before = pair.end(side).state(id);
    pair.advance(after - TICK);
    assert_eq!(pair.end(side).state(id), before, "too early");
    let due = pair.end(side).sessions.poll_timeout().expect("a timer");
    assert!(due <= pair.now + TICK, "the timer is late");
    pair.advance(TICK);
    pair.end(side).error(id).expect("an error")
}

fn is_timeout(error: &Error, step: Step, given: Duration) -> bool {
    matches!(error, Error::Timeout(of, after) if *of == step && *after == given)
}

#[test]
fn every_step_has_a_deadline_with_an_error_of_its_own() {
    let timeouts = Timeouts::default();

    let mut pair = Pair::new();
    pair.end(Romeo).sessions = Sessions::new(config(Romeo));
    let id = pair.connect(Romeo);
    let error = expires(&mut pair, Romeo, id, timeouts.online);
    assert!(is_timeout(&error, Step::Online, timeouts.online), "{error}");
    assert_eq!(pair.log, [""; 0]);

    let mut pair = Pair::new();
    let id = pair.connect(Romeo);
    let error = expires(&mut pair, Romeo, id, timeouts.disco);
    assert!(is_timeout(&error, Step::Disco, timeouts.disco), "{error}");
    assert_eq!(pair.log, ["romeo: get query"]);

    let mut pair = Pair::new();
    let id = pair.connect(Romeo);
    pair.deliver(Juliet);
    pair.deliver(Romeo);
    let error = expires(&mut pair, Romeo, id, timeouts.jingle_ack);
    assert!(is_timeout(&error, Step::JingleAck, timeouts.jingle_ack), "{error}");
    assert_eq!(pair.log.last().unwrap(), "romeo: set session-terminate timeout");

    let (mut pair, id, _) = Pair::ringing();
    let error = expires(&mut pair, Romeo, id, timeouts.accept);
    assert!(is_timeout(&error, Step::Accept, timeouts.accept), "{error}");
    assert!(pair.log.contains(&"romeo: set session-terminate timeout".to_owned()));

    let (mut pair, _, id) = Pair::ringing();
    let error = expires(&mut pair, Juliet, id, timeouts.decision);
    assert!(is_timeout(&error, Step::Decision, timeouts.decision), "{error}");
    assert!(pair.log.contains(&"juliet: set session-terminate timeout".to_owned()));

    let (mut pair, id, juliets) = Pair::open();
    pair.send(Romeo, id, b"lost");
    pair.inbox[1].clear();
    let error = expires(&mut pair, Romeo, id, timeouts.block_ack);
    assert!(is_timeout(&error, Step::BlockAck, timeouts.block_ack), "{error}");
    pair.run();
    assert!(pair.end(Juliet).error(juliets).is_some(), "Juliet is told");

    let (mut pair, id, _) = Pair::open();
    pair.shutdown(Romeo, id).unwrap();
    let error = expires(&mut pair, Romeo, id, timeouts.close);
    assert!(is_timeout(&error, Step::Close, timeouts.close), "{error}");
}

#[test]
fn a_bytestream_that_does_not_open_is_given_up_by_either_side() {
    let timeouts = Timeouts::default();
    let (mut pair, romeos, _) = Pair::ringing();
    pair.end(Juliet).incoming.clear();
    let juliets = pair.end(Juliet).sessions.live()[0];
    let now = pair.now;
    pair.end(Juliet).sessions.accept(now, juliets).unwrap();
    pair.deliver(Romeo);
    // Romeo's acknowledgement arrives, and his <open/> does not.
    pair.deliver(Juliet);
    pair.inbox[1].clear();
    pair.advance(timeouts.transport - TICK);
    assert_eq!(pair.end(Romeo).state(romeos), "active as initiator");
    assert_eq!(pair.end(Juliet).state(juliets), "active as responder");
    pair.advance(TICK);
    for (side, id) in [(Romeo, romeos), (Juliet, juliets)] {
        let error = pair.end(side).error(id).unwrap();
        assert!(is_timeout(&error, Step::Transport, timeouts.transport), "{side:?}: {error}");
    }
}

#[test]
fn a_session_accept_that_is_not_acknowledged_times_out_unless_the_peer_goes_on() {
    let timeouts = Timeouts::default();
    for goes_on in [false, true] {
        let (mut pair, _, juliets) = Pair::ringing();
        let (now, transport) = (pair.now, find(pair.sent("session-initiate"), "transport").clone());
        pair.end(Juliet).sessions.accept(now, juliets).unwrap();
        pair.end(Juliet).sent();
        if goes_on {
            let sid = transport.attr("sid").unwrap();
            let open =
                format!("<open xmlns='http://jabber.org/protocol/ibb' block-size='65535' sid='{sid}'/>");
            assert_eq!(pair.end(Juliet).hears(now, ROMEO, &open), ["result"]);
        }
        pair.end(Juliet).sessions.handle_timeout(now + timeouts.jingle_ack);
        assert_eq!(pair.end(Juliet).is_open(juliets), goes_on);
    }
}

#[test]
fn who_accepted_an_offer_has_received_it() {
    let mut pair = Pair::new();
    let id = pair.connect(Romeo);
    pair.deliver(Juliet);
    pair.deliver(Romeo);
    pair.deliver(Juliet);
    let lost = pair.inbox[0].pop_front().unwrap();
    assert_eq!(describe(&lost), "result");
    pair.advance(Timeouts::default().jingle_ack - TICK);
    pair.accept(Juliet);
    pair.deliver(Romeo);
    pair.advance(TICK);
    assert_eq!(pair.end(Romeo).state(id), "active as initiator");
    pair.run();
    assert!(pair.end(Romeo).is_open(id));
}

#[test]
fn the_acknowledgement_of_a_terminate_is_not_waited_for_for_ever() {
    let (mut pair, id, _) = Pair::open();
    pair.terminate(Romeo, id, Reason::Success, None);
    pair.advance(Timeouts::default().jingle_ack - TICK);
    assert!(!pair.end(Romeo).sessions.is_over(id));
    assert_eq!(pair.end(Romeo).sessions.live(), [id]);
    pair.advance(TICK);
    assert!(pair.end(Romeo).sessions.is_over(id));
    assert!(pair.end(Romeo).sessions.live().is_empty());
    assert!(pair.end(Romeo).error(id).is_none(), "it ended as its user wanted");
}

#[test]
fn a_request_of_the_bots_is_answered_or_times_out_once() {
    let mut pair = Pair::new();
    let now = pair.now;
    let ping = || IqRequest::Get(Element::bare("ping", ns::PING));
    let to = Some(Jid::from(jid(JULIET)));
    for token in 0..3 {
        pair.end(Romeo).sessions.request(now, RequestToken(token), to.clone(), ping());
    }
    let requests = pair.end(Romeo).sent();
    pair.end(Romeo).sessions.forget_request(RequestToken(1));
    for request in &requests[..2] {
        assert!(pair.end(Romeo).receives(now, &ack(request)).is_none(), "also what was forgotten is ours");
    }
    pair.collect();
    assert!(matches!(pair.end(Romeo).replies.remove(0), (RequestToken(0), Ok(IqResponse::Result(None)))));
    pair.advance(Timeouts::default().iq - TICK);
    assert!(pair.end(Romeo).replies.is_empty());
    pair.advance(TICK);
    let (token, reply) = pair.end(Romeo).replies.remove(0);
    assert_eq!(token, RequestToken(2));
    assert!(is_timeout(&reply.unwrap_err(), Step::Iq, Timeouts::default().iq));
    assert!(pair.end(Romeo).receives(now, &ack(&requests[2])).is_none(), "late");
    assert!(pair.end(Romeo).replies.is_empty() && pair.end(Romeo).is_clean());
}

#[test]
fn a_peer_that_went_offline_has_ten_seconds_to_show_itself() {
    let ten_seconds = Duration::from_secs(10);
    let (mut pair, id, _) = Pair::open();
    let now = pair.now;
    pair.end(Romeo).presence(now, JULIET, PresenceType::Unavailable);
    assert_eq!(pair.end(Romeo).sessions.poll_timeout(), Some(now + ten_seconds));
    let error = expires(&mut pair, Romeo, id, ten_seconds);
    assert!(matches!(error, Error::Signalling(SignallingError::PeerGone)));
    assert_eq!(pair.take_log(), ["romeo: set session-terminate connectivity-error"]);
}

#[test]
fn another_timer_does_not_make_an_absence_forgotten() {
    let mut pair = Pair::with(|_, mut config| {
        config.timeouts.iq = Duration::from_secs(3);
        config
    });
    let id = pair.connect(Romeo);
    pair.run();
    let now = pair.now;
    pair.end(Romeo).presence(now, JULIET, PresenceType::Unavailable);
    let ping = IqRequest::Get(Element::bare("ping", ns::PING));
    pair.end(Romeo).sessions.request(now, RequestToken(1), None, ping);
    pair.end(Romeo).sent();
    pair.advance(Duration::from_secs(3));
    let due = pair.end(Romeo).sessions.poll_timeout().unwrap();
    assert!(due <= now + Duration::from_secs(10));
    pair.advance(Duration::from_secs(7));
    assert!(pair.end(Romeo).error(id).is_some());
}

#[test]
fn any_sign_of_life_makes_up_for_an_unavailable_presence() {
    let signs: [fn(&mut Pair, SessionId, SessionId); 4] = [
        |pair, _, _| {
            let now = pair.now;
            pair.end(Romeo).presence(now, JULIET, PresenceType::None);
        },
        |pair, _, juliets| {
            pair.send(Juliet, juliets, b"I am here");
            pair.run();
        },
        |pair, romeos, _| {
            let sid = pair.end(Romeo).sessions.sid(romeos).unwrap().to_owned();
            let now = pair.now;
            pair.end(Romeo).hears(now, JULIET, &jingle("session-info", &sid, ""));
        },
        |pair, romeos, _| {
            pair.send(Romeo, romeos, b"are you here?");
            pair.run();
        },
    ];
    for sign in signs {
        let (mut pair, romeos, juliets) = Pair::open();
        let now = pair.now;
        pair.end(Romeo).presence(now, JULIET, PresenceType::Unavailable);
        pair.advance(Duration::from_secs(9));
        sign(&mut pair, romeos, juliets);
        pair.advance(Duration::from_secs(9));
        assert!(pair.end(Romeo).is_open(romeos));
        assert!(pair.end(Romeo).sessions.absent.is_empty());
    }
}

#[test]
fn what_is_no_sign_of_life_does_not_count() {
    let (mut pair, romeos, _) = Pair::open();
    let now = pair.now;
    pair.end(Romeo).presence(now, "juliet@capulet.lit/chamber", PresenceType::Unavailable);
    assert!(pair.end(Romeo).sessions.absent.is_empty(), "another resource");
    pair.end(Romeo).presence(now, JULIET, PresenceType::Unavailable);
    pair.advance(Duration::from_secs(5));
    let later = pair.now;
    pair.end(Romeo).presence(later, JULIET, PresenceType::Unavailable);
    pair.end(Romeo).presence(later, JULIET, PresenceType::Error);
    pair.end(Romeo).presence(later, "juliet@capulet.lit/chamber", PresenceType::None);
    pair.advance(Duration::from_secs(5));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Signalling(SignallingError::PeerGone))));
}

#[test]
fn the_deadline_of_what_waits_is_never_missed_and_an_idle_hour_is_quiet() {
    let (mut pair, romeos, juliets) = Pair::open();
    pair.send(Romeo, romeos, b"hello");
    pair.run();
    for side in [Romeo, Juliet] {
        let end = pair.now + Duration::from_secs(3600);
        let mut wakes = 0;
        let sessions = &mut pair.end(side).sessions;
        while let Some(due) = sessions.poll_timeout().filter(|due| *due <= end) {
            sessions.handle_timeout(due);
            assert!(sessions.poll_timeout().is_none_or(|next| next > due), "it spins");
            wakes += 1;
        }
        assert!(wakes <= 2, "{side:?} woke {wakes} times");
    }
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
}

#[test]
fn lost_and_found_under_another_name_every_session_is_gone() {
    let (mut pair, romeos, _) = Pair::open();
    let now = pair.now;
    let waiting = pair.connect(Romeo);
    pair.take_log();
    pair.end(Romeo).sessions.request(
        now,
        RequestToken(7),
        None,
        IqRequest::Get(Element::bare("ping", ns::PING)),
    );
    pair.end(Romeo).sent();
    pair.end(Romeo).sessions.handle_bound(now, jid("romeo@montague.lit/garden"));
    assert!(matches!(pair.end(Romeo).error(romeos), Some(Error::Signalling(SignallingError::Rebound))));
    assert!(pair.end(Romeo).sessions.is_over(romeos));
    let sent = pair.end(Romeo).sent();
    // The session that was not offered yet goes on.
    assert_eq!(sent.iter().map(describe).collect::<Vec<_>>(), ["get query"]);
    assert_eq!(pair.end(Romeo).state(waiting), "preparing");
    let (RequestToken(7), Err(Error::Signalling(SignallingError::Rebound))) =
        pair.end(Romeo).replies.remove(0)
    else {
        panic!()
    };
}

#[test]
fn lost_and_found_under_the_same_name_the_peers_are_told() {
    let (mut pair, romeos, _) = Pair::open();
    let ended = pair.connect(Romeo);
    pair.run();
    pair.terminate(Romeo, ended, Reason::Success, None);
    let now = pair.now;
    pair.take_log();
    pair.end(Romeo).sessions.handle_bound(now, jid(ROMEO));
    pair.collect();
    assert_eq!(pair.take_log(), ["romeo: set session-terminate connectivity-error"]);
    assert!(pair.end(Romeo).sessions.is_over(ended), "nobody will answer that");
    assert_eq!(pair.end(Romeo).sessions.live(), [romeos]);
    pair.run();
    assert!(pair.end(Romeo).sessions.live().is_empty());
}

#[test]
fn without_a_server_everything_ends() {
    let (mut pair, romeos, _) = Pair::open();
    let waiting = pair.connect(Romeo);
    let now = pair.now;
    pair.collect();
    pair.take_log();
    pair.end(Romeo).sessions.handle_disconnected(now);
    pair.collect();
    for id in [romeos, waiting] {
        assert!(matches!(pair.end(Romeo).error(id), Some(Error::Signalling(SignallingError::Offline))));
    }
    assert_eq!(pair.take_log(), [""; 0]);
    assert!(pair.end(Romeo).sessions.live().is_empty());
    pair.advance(Duration::from_secs(600));
    assert_eq!(pair.end(Romeo).sessions.poll_timeout(), None);
}

#[test]
fn a_server_that_comes_and_goes_does_not_keep_a_connect_waiting_for_ever() {
    let timeouts = Timeouts::default();
    let mut pair = Pair::new();
    let id = pair.connect(Romeo);
    let began = pair.now;
    while pair.end(Romeo).state(id) == "preparing" {
        assert!(pair.now < began + timeouts.online + timeouts.disco, "it still waits");
        pair.advance(timeouts.disco - Duration::from_secs(1));
        let now = pair.now;
        pair.end(Romeo).sessions.handle_bound(now, jid(ROMEO));
    }
    let error = pair.end(Romeo).error(id).unwrap();
    assert!(matches!(error, Error::Timeout(Step::Disco | Step::Online, _)), "{error}");
}
