//! The window, back-pressure, and what happens when acknowledgements don't come.

use super::*;
use crate::transport::Kept;

fn blocks(pair: &mut Pair) -> usize {
    pair.take_log().iter().filter(|line| line.starts_with("romeo: data")).count()
}

#[test]
fn no_more_blocks_than_the_window_are_in_flight() {
    let mut pair = Pair::small();
    pair.send(Romeo, &[b'x'; 40]);
    assert_eq!(blocks(&mut pair), 4);
    pair.deliver(Juliet);
    pair.deliver(Romeo);
    assert_eq!(blocks(&mut pair), 1, "each acknowledgement lets one more go");
    assert!(!pair.flush(Romeo).unwrap());
    pair.run();
    assert_eq!(
        blocks(&mut pair),
        3,
        "16 bytes are in the receive buffer and 4 beyond: the window is used up"
    );
}

#[test]
fn acknowledgements_are_held_back_while_the_reader_is_behind_and_released_by_reading() {
    let mut pair = Pair::small();
    pair.send(Romeo, &[b'x'; 64]);
    pair.run();
    let results = |pair: &mut Pair| pair.take_log().iter().filter(|line| *line == "juliet: result").count();
    assert_eq!(results(&mut pair), 4, "16 bytes fit; the 5th to 8th block wait");
    assert!(matches!(pair.read(Juliet, 3), Ok(Read::Data(3))));
    pair.run();
    assert_eq!(results(&mut pair), 0, "29 bytes are more than 16");
    assert!(matches!(pair.read(Juliet, 12), Ok(Read::Data(12))));
    pair.run();
    assert_eq!(results(&mut pair), 0, "17 bytes still are");
    assert!(matches!(pair.read(Juliet, 1), Ok(Read::Data(1))));
    assert_eq!(results(&mut pair), 4, "16 bytes fit: all that waited are released");
    pair.run();
    let (read, _) = pair.drain(Juliet);
    pair.run();
    assert_eq!(read.len() + 16 + pair.drain(Juliet).0.len(), 64);
}

#[test]
fn a_reader_that_takes_its_time_does_not_look_dead_to_the_peer() {
    let mut pair = Pair::small();
    pair.send(Romeo, &[b'x'; 64]);
    pair.run();
    pair.take_log();
    let began = pair.now;
    while let Some(due) = pair.end(Juliet).poll_timeout() {
        pair.advance(due - pair.now);
        pair.run();
    }
    assert_eq!(pair.now - began, Duration::from_secs(90), "three windows of four blocks, 30 s each");
    assert_eq!(pair.received(Juliet).len(), 64);
    assert!(pair.failed.iter().all(Option::is_none));
}

#[test]
fn a_reader_that_never_reads_again_is_not_buffered_for_without_end() {
    let big = IbbConfig { block_size: 65535, ..small() };
    let mut pair = Pair::new(big, big);
    pair.run();
    let much = vec![b'x'; 128 * 1024];
    while pair.failed[0].is_none() {
        while pair.write(Romeo, &much).is_ok_and(|written| written > 0) {}
        pair.run();
        let due = [Romeo, Juliet].into_iter().filter_map(|side| pair.end(side).poll_timeout()).min().unwrap();
        pair.advance(due - pair.now);
    }
    assert!(matches!(pair.failure(Romeo), Error::Timeout(Step::BlockAck, _)));
    assert!(pair.failed[1].is_none(), "it is for the sender to decide how long it waits");
    let buffered = pair.drain(Juliet).0.len();
    let mercy = 1024 * 1024;
    assert!((mercy..mercy + 4 * 65535 + 65535).contains(&buffered), "{buffered}");
}

#[test]
fn a_writer_that_is_ahead_of_the_window_has_to_wait() {
    const SEND_BUFFER: usize = 64 * 1024;
    let mut pair = Pair::small();
    let much = vec![b'x'; SEND_BUFFER + 100];
    assert_eq!(pair.write(Romeo, &much).unwrap(), SEND_BUFFER);
    assert_eq!(pair.write(Romeo, &much).unwrap(), 16, "what the window let go made room");
    assert_eq!(pair.write(Romeo, &much).unwrap(), 0);
}

#[test]
fn a_peer_that_does_not_wait_for_acknowledgements_is_cut_off() {
    let big = IbbConfig { block_size: 65535, ..small() };
    for (size, at_most) in [(65535, 147), (1, 1041)] {
        let mut pair = Pair::new(big, big);
        pair.run();
        pair.take_log();
        let mut taken = 0;
        while pair.failed[1].is_none() {
            assert!(taken < at_most, "{taken} blocks of {size} bytes were taken");
            pair.inject_data(Juliet, taken, &vec![0; size]);
            taken += 1;
        }
        assert!(pair.take_log().contains(&"juliet: error wait resourceconstraint".to_owned()));
        assert!(pair.failure(Juliet).to_string().ends_with("more data than was acknowledged"));
    }
}

#[test]
fn a_block_that_is_not_acknowledged_in_time_ends_the_bytestream() {
    let mut pair = Pair::small();
    let block_ack = pair.timeouts.block_ack;
    pair.send(Romeo, b"lost");
    assert_eq!(pair.end(Romeo).poll_timeout(), Some(pair.now + block_ack));
    pair.advance(block_ack - Duration::from_secs(1));
    assert!(pair.failed[0].is_none());
    pair.advance(Duration::from_secs(1));
    assert!(matches!(pair.failure(Romeo), Error::Timeout(Step::BlockAck, given) if *given == block_ack));
    assert!(matches!(pair.write(Romeo, b"more"), Err(Error::Timeout(Step::BlockAck, _))));
}

#[test]
fn each_acknowledgement_gives_the_next_block_its_time() {
    let mut pair = Pair::small();
    let second = Duration::from_secs(1);
    pair.send(Romeo, b"one.");
    pair.advance(second);
    pair.send(Romeo, b"two.");
    let due = pair.end(Romeo).poll_timeout().unwrap();
    pair.deliver(Juliet);
    pair.deliver(Romeo);
    assert_eq!(pair.end(Romeo).poll_timeout(), Some(due + second), "from the acknowledgement on");
    pair.run();
    assert_eq!(pair.end(Romeo).poll_timeout(), None, "nothing is in flight");
}

#[test]
fn a_refused_block_closes_the_bytestream() {
    let mut pair = Pair::small();
    pair.send(Romeo, b"data");
    let Some(Packet::Set(id, _)) = pair.inbox[1].pop_front() else { panic!() };
    pair.take_log();
    pair.hand_over(Romeo, Packet::Reply(id, Err(errors::item_not_found("what bytestream?"))));
    assert_eq!(pair.take_log(), ["romeo: close"]);
    assert!(matches!(pair.failure(Romeo), Error::Transport(TransportError::Refused(_))));
}

#[test]
fn an_undeliverable_block_says_that_the_peer_is_away() {
    use DefinedCondition::{
        RecipientUnavailable, RemoteServerNotFound, RemoteServerTimeout, ServiceUnavailable,
    };
    for condition in [RecipientUnavailable, RemoteServerNotFound, RemoteServerTimeout, ServiceUnavailable] {
        let mut pair = Pair::small();
        pair.send(Romeo, b"data");
        let Some(Packet::Set(id, _)) = pair.inbox[1].pop_front() else { panic!() };
        let mut error = errors::service_unavailable();
        error.defined_condition = condition;
        pair.take_log();
        pair.hand_over(Romeo, Packet::Reply(id, Err(error)));
        assert_eq!(pair.take_log(), [""; 0]);
        let error = pair.failure(Romeo);
        assert!(matches!(error, Error::Signalling(crate::SignallingError::PeerUnreachable(_))), "{error}");
    }
}

#[test]
fn a_block_with_an_id_of_any_length_is_refused() {
    for (length, taken) in [(1024, true), (1025, false), (200_000, false)] {
        let mut pair = Pair::small();
        let now = pair.now;
        let block = Data::parse(&data_element("ch3d9s71", b"one.", 0));
        pair.end(Juliet).handle_data(now, "x".repeat(length), block);
        pair.collect();
        assert_eq!(pair.failed[1].is_none(), taken, "an id of {length} bytes");
    }
}

/// Juliet's endpoint keeps so much for all of her readers.
fn counted(kept: &Kept) -> Pair {
    let mut pair = Pair::small();
    pair.end(Juliet).count_in(kept);
    pair
}

#[test]
fn no_reader_is_waited_for_longer_while_much_is_kept_for_all() {
    let kept = Kept::new(100);
    let mut hogs = [counted(&kept), counted(&kept)];
    for hog in &mut hogs {
        hog.send(Romeo, &[b'x'; 64]);
        hog.run();
    }
    // Of each there are 16 bytes that fit, and four blocks in flight.
    assert_eq!(kept.bytes(), 64);
    let [hog, other] = &mut hogs;
    hog.take_log();
    for _ in 0..3 {
        let due = hog.end(Juliet).poll_timeout().unwrap();
        hog.advance(due - hog.now);
        hog.run();
        assert_eq!(hog.take_log(), [""; 0], "more than a quarter is taken");
    }
    drop(other.drain(Juliet));
    other.run();
    drop(other.drain(Juliet));
    drop(hog.read(Juliet, 8));
    assert_eq!(kept.bytes(), 24);
    let due = hog.end(Juliet).poll_timeout().unwrap();
    hog.advance(due - hog.now);
    assert_eq!(hog.take_log(), ["juliet: result"; 4], "there is room again");
}

#[test]
fn who_is_read_goes_on_while_all_is_kept_for_others_and_who_is_not_read_ends() {
    let kept = Kept::new(40);
    let (mut hog, mut other, mut read) = (counted(&kept), counted(&kept), counted(&kept));
    hog.send(Romeo, &[b'x'; 64]);
    hog.run();
    assert_eq!(kept.bytes(), 32, "16 bytes fit, and as many were in flight");

    other.send(Romeo, &[b'x'; 64]);
    other.run();
    assert!(matches!(other.failure(Juliet), Error::PeerMisbehaved(_)), "it was sent more than it is read");
    assert!(hog.failed.iter().all(Option::is_none));
    for _ in 0..10 {
        read.send(Romeo, b"sixteen letters.");
        read.run();
        assert_eq!(read.received(Juliet), "sixteen letters.");
    }
    assert!(read.failed.iter().all(Option::is_none));

    drop((hog, other, read));
    assert_eq!(kept.bytes(), 0);
}
