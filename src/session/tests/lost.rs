//! The session with the server is lost, and perhaps found again: which streams outlive that.

use super::{
    net::{Got, Path, User},
    *,
};
use crate::Start;

/// What becomes of Romeo's session with his server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Offline,
    /// He gets another full JID.
    Renamed,
    /// He is known as before; the peers may have been told otherwise.
    Rebound,
}

const LOSSES: [Loss; 3] = [Loss::Offline, Loss::Renamed, Loss::Rebound];

fn lose(pair: &mut Pair, loss: Loss) {
    let now = pair.now;
    let romeo = pair.end(Romeo);
    match loss {
        Loss::Offline => romeo.sessions.handle_disconnected(now),
        Loss::Renamed => romeo.sessions.handle_bound(now, jid("romeo@montague.lit/street")),
        Loss::Rebound => romeo.sessions.handle_bound(now, jid(ROMEO)),
    }
    pair.inbox = Default::default();
    pair.collect();
}

fn pair(start: Start) -> (Pair, User, User) {
    let mut pair = Pair::s5b(|_, config| config.start(start));
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    let juliets = pair.accept(Juliet);
    (pair, User::new(Romeo, romeos), User::new(Juliet, juliets))
}

#[test]
fn a_stream_on_a_socket_outlives_every_loss() {
    for loss in LOSSES {
        let (mut pair, mut romeo, mut juliet) = pair(Start::Best);
        pair.settle();
        lose(&mut pair, loss);
        assert!(pair.end(Romeo).is_open(romeo.id), "{loss:?}");
        romeo.say(&mut pair, b"still here");
        assert_eq!(juliet.drain(&mut pair), (b"still here".to_vec(), Got::Nothing), "{loss:?}");
        pair.live(Duration::from_secs(300));
        assert!(pair.end(Romeo).is_open(romeo.id) && pair.end(Juliet).is_open(juliet.id), "{loss:?}");

        // Whether something can be said about its end.
        pair.take_log();
        pair.terminate(Romeo, romeo.id, Reason::Success, None);
        let said = pair.take_log();
        match loss {
            Loss::Rebound => assert_eq!(said, ["romeo: set session-terminate success"]),
            Loss::Offline | Loss::Renamed => {
                assert_eq!(said, [""; 0], "{loss:?}");
                assert!(pair.end(Romeo).sessions.is_over(romeo.id), "{loss:?}");
                // She finds out by the socket.
                pair.terminate(Juliet, juliet.id, Reason::Success, None);
                pair.inbox = Default::default();
            }
        }
        pair.leave(romeo.id, juliet.id);
    }
}

#[test]
fn a_stream_that_is_being_connected_does_not_outlive_it() {
    for loss in LOSSES {
        for milliseconds in 0..25 {
            let (mut pair, romeo, juliet) = pair(Start::Best);
            pair.live(Duration::from_millis(milliseconds));
            let was_open = pair.end(Romeo).is_open(romeo.id);
            lose(&mut pair, loss);
            assert_eq!(pair.end(Romeo).is_open(romeo.id), was_open, "{loss:?} after {milliseconds} ms");
            if !was_open {
                let error = pair.end(Romeo).error(romeo.id);
                assert!(matches!(error, Some(Error::Signalling(_))), "{loss:?}: {error:?}");
            }
            pair.release(Juliet, juliet.id);
            pair.inbox = Default::default();
            pair.leave(romeo.id, juliet.id);
        }
    }
}

#[test]
fn what_is_gathered_for_is_offered_once_we_are_back() {
    let mut pair = Pair::s5b(|_, config| config);
    pair.net.mute.insert("montague.lit".to_owned());
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    assert_eq!(pair.end(Romeo).state(romeos), "gathering");
    lose(&mut pair, Loss::Rebound);
    pair.take_log();
    pair.live(Duration::from_secs(3));
    assert_eq!(pair.end(Romeo).state(romeos), "offered");
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
    pair.leave(romeos, juliets);
}

#[test]
fn a_stream_that_moves_outlives_it_once_nothing_goes_in_band_any_more() {
    for loss in LOSSES {
        for steps in 0..40 {
            let (mut pair, mut romeo, juliet) = pair(Start::Fast);
            pair.settle();
            romeo.say(&mut pair, b"in band");
            let now = pair.now;
            pair.end(Romeo).sessions.start_move(now, romeo.id);
            for _ in 0..steps {
                if !pair.deliver(Juliet) && !pair.deliver(Romeo) && pair.net.next_event().is_some() {
                    pair.happen();
                }
            }
            let transport =
                pair.end(Romeo).sessions.table.get_mut(romeo.id).unwrap().transport_mut().unwrap();
            let (has_moved, complete) = (transport.socket().is_some(), transport.outlives_signalling());
            assert!(has_moved || !complete);
            lose(&mut pair, loss);
            if complete {
                assert!(pair.end(Romeo).is_open(romeo.id), "{loss:?} after {steps} steps");
                romeo.say(&mut pair, b"on the socket");
                assert_eq!(romeo.writes, Path::Socket);
            } else {
                let error = pair.end(Romeo).error(romeo.id);
                assert!(matches!(error, Some(Error::Signalling(_))), "{loss:?} after {steps}: {error:?}");
            }
            pair.release(Juliet, juliet.id);
            pair.inbox = Default::default();
            pair.leave(romeo.id, juliet.id);
        }
    }
}
