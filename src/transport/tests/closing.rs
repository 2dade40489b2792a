//! XEP-0047 #close: both directions end together, and nothing that was written before is lost.

use super::*;

#[test]
fn a_close_waits_until_everything_is_sent_and_acknowledged() {
    let mut pair = Pair::small();
    pair.write(Romeo, &[b'x'; 22]).unwrap();
    assert!(!pair.shutdown(Romeo).unwrap());
    assert!(pair.write(Romeo, b"more").is_err(), "its user said that this was all");
    let mut read = Vec::new();
    loop {
        pair.run();
        let (bytes, then) = pair.drain(Juliet);
        read.extend(bytes);
        if let Ok(Read::End) = then {
            break;
        }
    }
    assert_eq!(read, [b'x'; 22]);
    assert!(!pair.shutdown(Romeo).unwrap(), "Juliet may still have something to say");
    assert!(pair.shutdown(Juliet).unwrap());
    pair.run();
    assert!(pair.shutdown(Romeo).unwrap());
    let log = pair.take_log();
    let close = log.iter().position(|line| line == "romeo: close").unwrap();
    assert_eq!(log[close..], ["romeo: close", "juliet: result"]);
    assert_eq!(log[..close].iter().filter(|line| line.starts_with("romeo: data")).count(), 6);
    assert!(matches!(pair.drain(Romeo), (_, Ok(Read::End))));
}

#[test]
fn who_receives_a_close_sends_what_it_has_before_it_answers() {
    let mut pair = Pair::small();
    pair.shutdown(Romeo).unwrap();
    pair.run();
    pair.take_log();
    assert!(matches!(pair.read(Juliet, 9), Ok(Read::End)));
    pair.write(Juliet, b"my last words").unwrap();
    assert!(!pair.shutdown(Juliet).unwrap());
    pair.run();
    assert_eq!(
        pair.take_log(),
        [
            "juliet: data 0 (4)",
            "juliet: data 1 (4)",
            "juliet: data 2 (4)",
            "juliet: data 3 (1)",
            "romeo: result",
            "romeo: result",
            "romeo: result",
            "romeo: result",
            "juliet: result",
        ]
    );
    let (read, then) = pair.drain(Romeo);
    assert_eq!(read, b"my last words");
    assert!(matches!(then, Ok(Read::End)));
}

#[test]
fn both_may_close_at_once_with_data_on_the_way() {
    let mut pair = Pair::small();
    for side in [Romeo, Juliet] {
        pair.write(side, b"farewell!").unwrap();
        assert!(!pair.shutdown(side).unwrap());
    }
    pair.run();
    for side in [Romeo, Juliet] {
        assert!(pair.shutdown(side).unwrap());
        let (read, then) = pair.drain(side);
        assert_eq!(read, b"farewell!");
        assert!(matches!(then, Ok(Read::End)));
        assert!(pair.failed[side as usize].is_none());
    }
}

#[test]
fn two_closes_that_cross_are_both_answered() {
    let mut pair = Pair::small();
    pair.shutdown(Romeo).unwrap();
    pair.shutdown(Juliet).unwrap();
    pair.run();
    assert_eq!(pair.take_log(), ["romeo: close", "juliet: close", "romeo: result", "juliet: result"]);
    assert!(pair.shutdown(Romeo).unwrap() && pair.shutdown(Juliet).unwrap());
}

#[test]
fn an_answer_that_the_bytestream_is_unknown_is_as_good() {
    let mut pair = Pair::small();
    pair.shutdown(Romeo).unwrap();
    let Some(Packet::Set(id, _)) = pair.inbox[1].pop_front() else { panic!() };
    pair.hand_over(Romeo, Packet::Reply(id, Err(errors::item_not_found("closed before"))));
    assert!(pair.shutdown(Romeo).unwrap());
}

#[test]
fn data_behind_a_close_is_refused() {
    let mut pair = Pair::small();
    pair.inject(Juliet, Close { sid: "ch3d9s71".to_owned() }.to_element());
    pair.inject_data(Juliet, 0, b"psst");
    assert_eq!(pair.take_log(), ["juliet: error cancel unexpectedrequest"]);
    assert!(matches!(pair.read(Juliet, 9), Ok(Read::End)));
    pair.inject(Juliet, Close { sid: "ch3d9s71".to_owned() }.to_element());
    assert_eq!(pair.take_log(), ["juliet: error cancel itemnotfound"], "once is enough");
}

#[test]
fn a_close_before_open_ends_it() {
    let mut pair = Pair::new(small(), small());
    pair.take_log();
    pair.inject(Juliet, Close { sid: "ch3d9s71".to_owned() }.to_element());
    assert_eq!(pair.take_log(), ["juliet: result"]);
    assert!(matches!(pair.failure(Juliet), Error::Transport(TransportError::Closed)));
}

#[test]
fn a_user_that_takes_no_notice_of_a_close_does_not_hold_up_the_peer() {
    let mut pair = Pair::small();
    pair.write(Juliet, b"unflushed").unwrap();
    pair.shutdown(Romeo).unwrap();
    pair.run();
    pair.take_log();
    assert_eq!(pair.end(Juliet).poll_timeout(), Some(pair.now + pair.timeouts.close));
    pair.now += pair.timeouts.close;
    let now = pair.now;
    pair.end(Juliet).handle_timeout(now);
    pair.collect();
    pair.run();
    assert_eq!(pair.take_log(), ["juliet: data 2 (1)", "romeo: result", "juliet: result"]);
    assert_eq!(pair.drain(Romeo).0, b"unflushed");
    assert!(pair.write(Juliet, b"too late").is_err());
    assert!(pair.shutdown(Juliet).unwrap() && pair.shutdown(Romeo).unwrap());
}

#[test]
fn last_words_that_are_not_acknowledged_end_it_too() {
    let mut pair = Pair::small();
    pair.inject(Juliet, Close { sid: "ch3d9s71".to_owned() }.to_element());
    pair.write(Juliet, b"unheard").unwrap();
    assert!(!pair.shutdown(Juliet).unwrap());
    let block_ack = pair.timeouts.block_ack;
    assert_eq!(pair.end(Juliet).poll_timeout(), Some(pair.now + block_ack));
    pair.advance(block_ack);
    assert!(matches!(pair.failure(Juliet), Error::Timeout(Step::BlockAck, _)));
}

#[test]
fn an_unanswered_close_times_out_unless_the_peer_is_still_sending() {
    let mut pair = Pair::small();
    let close = pair.timeouts.close;
    pair.shutdown(Romeo).unwrap();
    pair.inbox[1].clear();
    pair.advance(close / 2);
    pair.inject_data(Romeo, 0, b"wait");
    assert_eq!(pair.end(Romeo).poll_timeout(), Some(pair.now + close));
    pair.advance(close);
    assert!(matches!(pair.failure(Romeo), Error::Timeout(Step::Close, given) if *given == close));
    assert!(pair.shutdown(Romeo).is_err());
    let (read, then) = pair.drain(Romeo);
    assert_eq!(read, b"wait");
    assert!(matches!(then, Err(Error::Timeout(Step::Close, _))));
}

#[test]
fn a_bytestream_that_was_never_opened_has_nothing_to_close() {
    let mut pair = Pair::new(small(), small());
    pair.take_log();
    for side in [Romeo, Juliet] {
        assert!(pair.shutdown(side).unwrap());
    }
    assert_eq!(pair.take_log(), [""; 0]);
    pair.run();
    assert_eq!(pair.take_log(), ["juliet: error cancel itemnotfound"]);
}

#[test]
fn a_failure_answers_what_the_peer_waits_for() {
    let mut pair = Pair::small();
    pair.send(Romeo, &[b'x'; 32]);
    pair.run();
    pair.take_log();
    pair.inject_data(Juliet, 99, b"lost");
    assert_eq!(
        pair.take_log(),
        [
            "juliet: error cancel unexpectedrequest",
            "juliet: close",
            "juliet: result",
            "juliet: result",
            "juliet: result",
            "juliet: result",
        ]
    );
    assert_eq!(pair.drain(Juliet).0, [b'x'; 32]);

    let mut pair = Pair::small();
    pair.send(Juliet, b"unheard");
    pair.inject(Juliet, Close { sid: "ch3d9s71".to_owned() }.to_element());
    let Some(Packet::Set(id, _)) = pair.inbox[0].pop_front() else { panic!() };
    pair.take_log();
    pair.hand_over(Juliet, Packet::Reply(id, Err(errors::item_not_found("closed"))));
    assert_eq!(pair.take_log(), ["juliet: result"], "the peer closed it, so we don't");
    assert!(matches!(pair.failure(Juliet), Error::Transport(TransportError::Refused(_))));
}

#[test]
fn when_the_session_ends_what_was_received_is_acknowledged_and_can_be_read() {
    let mut pair = Pair::small();
    pair.send(Romeo, &[b'x'; 32]);
    pair.run();
    pair.take_log();
    pair.end(Juliet).end(Some(Error::Transport(TransportError::Closed)));
    pair.collect();
    assert_eq!(pair.take_log(), ["juliet: result"; 4]);
    let (read, then) = pair.drain(Juliet);
    assert_eq!(read, [b'x'; 32]);
    assert!(then.is_err());
    assert_eq!(pair.take_log(), [""; 0]);
}

#[test]
fn a_session_that_ends_behind_a_close_ends_the_bytestream_in_good_order() {
    for unsent in [false, true] {
        let mut pair = Pair::small();
        if unsent {
            pair.write(Juliet, b"wait").unwrap();
        }
        pair.inject(Juliet, Close { sid: "ch3d9s71".to_owned() }.to_element());
        pair.take_log();
        pair.end(Juliet).end(Some(Error::Transport(TransportError::Closed)));
        pair.collect();
        assert_eq!(pair.take_log(), ["juliet: result"]);
        assert_eq!(pair.drain(Juliet).1.is_err(), unsent, "only with something unsent it is a failure");
    }
}

#[test]
fn what_can_not_be_sent_any_more_is_never_flushed() {
    let mut pair = Pair::small();
    pair.write(Romeo, b"unfit").unwrap();
    pair.end(Romeo).end(None);
    assert!(matches!(pair.flush(Romeo), Err(Error::Transport(TransportError::Closed))));
    assert!(pair.write(Romeo, b"more").is_err());
    assert_eq!(pair.end(Romeo).poll_timeout(), None);
}
