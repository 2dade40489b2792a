//! Order, sequence numbers, and blocks that make no sense.

use super::*;

#[test]
fn a_lost_block_closes_the_bytestream_and_what_came_before_can_be_read() {
    let mut pair = Pair::small();
    pair.send(Romeo, b"one.two.six.");
    assert!(pair.deliver(Juliet));
    pair.inbox[1].pop_front();
    pair.take_log();
    assert!(pair.deliver(Juliet));
    assert_eq!(pair.take_log(), ["juliet: error cancel unexpectedrequest", "juliet: close"]);
    assert_eq!(
        pair.failure(Juliet).to_string(),
        "the peer broke the protocol: in-band bytestream: a block with seq 2 where 1 was due"
    );
    let (read, then) = pair.drain(Juliet);
    assert_eq!(read, b"one.");
    assert!(matches!(then, Err(Error::PeerMisbehaved(PeerMisbehaved::Bytestream(_)))));

    pair.run();
    assert!(matches!(pair.failure(Romeo), Error::Transport(TransportError::Refused(_))));
}

#[test]
fn a_block_that_comes_twice_closes_the_bytestream() {
    let mut pair = Pair::small();
    pair.send(Romeo, b"one.");
    let Packet::Set(_, block) = pair.inbox[1][0].clone() else { panic!() };
    pair.deliver(Juliet);
    pair.take_log();
    pair.inject(Juliet, block);
    assert_eq!(pair.take_log(), ["juliet: error cancel unexpectedrequest", "juliet: close"]);
}

#[test]
fn nothing_is_processed_after_a_failure() {
    let mut pair = Pair::small();
    pair.inject_data(Juliet, 7, b"lost");
    pair.take_log();
    pair.inject_data(Juliet, 0, b"late");
    assert_eq!(pair.take_log(), ["juliet: error cancel itemnotfound"]);
    assert!(pair.drain(Juliet).0.is_empty());
}

#[test]
fn the_counter_starts_again_at_0_after_65535() {
    let mut pair = Pair::small();
    pair.end(Romeo).start_at(65534, 0);
    pair.end(Juliet).start_at(0, 65534);
    pair.send(Romeo, b"aaaabbbbccccdddd");
    pair.run();
    pair.log.retain(|line| line.contains("data"));
    assert_eq!(
        pair.take_log(),
        ["romeo: data 65534 (4)", "romeo: data 65535 (4)", "romeo: data 0 (4)", "romeo: data 1 (4)"]
    );
    assert_eq!(pair.received(Juliet), "aaaabbbbccccdddd");
}

#[test]
fn senders_that_count_modulo_65535_or_beyond_65535_are_understood() {
    for (what, seqs) in [
        ("Libervia", [65534, 0, 1]),
        ("Conversations and Swift", [65535, 65536, 65537]),
        ("the specification", [65535, 0, 1]),
    ] {
        let mut pair = Pair::small();
        pair.end(Juliet).start_at(0, seqs[0] as u16);
        for seq in seqs {
            pair.inject_data(Juliet, seq, b"data");
        }
        assert_eq!(pair.log, ["juliet: result"; 3], "{what}");
    }
}

#[test]
fn only_at_the_end_of_the_count_may_a_number_be_left_out() {
    for (expected, got) in
        [(65535, 1), (65534, 0), (65534, 65535), (0, 1), (1, 0), (0, 65535), (300, 65836 + 1)]
    {
        let mut pair = Pair::small();
        pair.end(Juliet).start_at(0, expected);
        pair.inject_data(Juliet, got, b"data");
        assert_eq!(pair.log[0], "juliet: error cancel unexpectedrequest", "{expected}, {got}");
    }
}

#[test]
fn a_block_larger_than_agreed_closes_the_bytestream() {
    let mut pair = Pair::small();
    pair.inject_data(Juliet, 0, b"five.");
    assert_eq!(pair.take_log(), ["juliet: error cancel badrequest", "juliet: close"]);
    assert!(matches!(pair.failure(Juliet), Error::PeerMisbehaved(_)));
}

#[test]
fn a_block_that_is_no_base64_or_has_no_number_closes_the_bytestream() {
    for wrong in [
        "<data xmlns='http://jabber.org/protocol/ibb' sid='ch3d9s71' seq='0'>*AAA</data>",
        "<data xmlns='http://jabber.org/protocol/ibb' sid='ch3d9s71' seq='0'>=AAA</data>",
        "<data xmlns='http://jabber.org/protocol/ibb' sid='ch3d9s71' seq='-1'>AAAA</data>",
        "<data xmlns='http://jabber.org/protocol/ibb' sid='ch3d9s71'>AAAA</data>",
    ] {
        let mut pair = Pair::small();
        pair.inject(Juliet, wrong.parse().unwrap());
        assert_eq!(pair.take_log(), ["juliet: error cancel badrequest", "juliet: close"], "{wrong}");
        assert!(matches!(pair.failure(Juliet), Error::PeerMisbehaved(PeerMisbehaved::Bytestream(_))));
    }
}

#[test]
fn an_empty_block_is_acknowledged_and_counts() {
    let mut pair = Pair::small();
    pair.inject_data(Juliet, 0, b"");
    pair.inject_data(Juliet, 1, b"next");
    assert_eq!(pair.take_log(), ["juliet: result", "juliet: result"]);
    assert_eq!(pair.received(Juliet), "next");
}

#[test]
fn data_before_open_is_unknown() {
    let mut pair = Pair::new(small(), small());
    pair.take_log();
    pair.inject_data(Juliet, 0, b"soon");
    assert_eq!(pair.take_log(), ["juliet: error cancel itemnotfound"]);
    pair.run();
    pair.send(Romeo, b"now");
    pair.run();
    assert_eq!(pair.received(Juliet), "now");
}
