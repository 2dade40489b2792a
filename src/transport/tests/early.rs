//! Data right behind `<open/>`, for a responder that announces that it takes it.

use super::*;
use crate::disco::EarlyData;

/// Both agreed, Romeo has opened, and Juliet takes data early.
fn opening() -> Pair {
    let mut pair = Pair::new(small(), small());
    let (now, timeouts) = (pair.now, pair.timeouts);
    let offer = ibb::Offer::new("ch3d9s71".to_owned(), InBand::V1, &small()).early_data(EarlyData::Announced);
    pair.ends[0] = Ibb::open(offer, now, &small(), &timeouts);
    pair.inbox = Default::default();
    pair.asked = Default::default();
    pair.log.clear();
    pair.collect();
    pair
}

#[test]
fn data_follows_in_the_same_flight() {
    let mut pair = opening();
    assert!(pair.end(Romeo).is_open());
    pair.send(Romeo, b"one.two.");
    assert_eq!(pair.take_log(), ["romeo: open 4", "romeo: data 0 (4)", "romeo: data 1 (4)"]);

    pair.run();
    assert_eq!(pair.take_log(), ["juliet: result", "juliet: result", "juliet: result"]);
    assert_eq!(pair.received(Juliet), "one.two.");
    pair.send(Juliet, b"yes.");
    pair.run();
    assert_eq!(pair.received(Romeo), "yes.");
}

#[test]
fn a_refused_open_fails_with_what_was_sent_behind_it() {
    let mut pair = opening();
    pair.send(Romeo, b"one.");
    let Some(Packet::Set(id, _)) = pair.inbox[1].pop_front() else { panic!("no open") };
    pair.hand_over(Romeo, Packet::Reply(id, Err(errors::not_acceptable("a smaller block"))));
    assert!(matches!(pair.failure(Romeo), Error::Transport(TransportError::Refused(_))));
    assert!(pair.write(Romeo, b"two.").is_err());
    // What is not open is not closed.
    assert_eq!(pair.take_log(), ["romeo: open 4", "romeo: data 0 (4)"]);
}

#[test]
fn an_open_that_is_not_answered_times_out() {
    let mut pair = opening();
    pair.inbox[1].clear();
    pair.advance(pair.timeouts.transport - Duration::from_millis(1));
    assert!(pair.failed[0].is_none());
    pair.advance(Duration::from_millis(1));
    assert!(matches!(pair.failure(Romeo), Error::Timeout(Step::Transport, _)));
}

#[test]
fn what_was_sent_early_is_followed_by_the_close() {
    let mut pair = opening();
    pair.send(Romeo, b"all.");
    pair.shutdown(Romeo).unwrap();
    pair.run();
    assert_eq!(pair.drain(Juliet).0, b"all.");
    pair.shutdown(Juliet).unwrap();
    pair.run();
    assert!(pair.shutdown(Romeo).unwrap());
}
