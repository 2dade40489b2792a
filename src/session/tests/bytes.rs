//! In-band bytestreams as the sessions see them: who may touch them, and what is left at the end.

use super::*;

const UNKNOWN: &str = "error cancel item-not-found";

fn bytestream(pair: &mut Pair, id: SessionId) -> String {
    let session = pair.end(Romeo).sessions.table.get_mut(id).unwrap();
    let ibb = session.transport_mut().unwrap().ibb_mut().unwrap();
    ibb.sid().to_owned()
}

fn ibb(name: &str, sid: &str) -> String {
    let attributes = match name {
        "open" => "block-size='4096'",
        "data" => "seq='0'",
        _ => "",
    };
    format!("<{name} xmlns='http://jabber.org/protocol/ibb' sid='{sid}' {attributes}/>")
}

#[test]
fn nobody_but_the_peer_can_open_fill_or_close_a_bytestream() {
    let (mut pair, romeos, juliets) = Pair::open();
    let (sid, now) = (bytestream(&mut pair, romeos), pair.now);
    for stranger in ["romeo@montague.lit/home", "tybalt@capulet.lit/street", JULIET] {
        let juliet = pair.end(Juliet);
        assert_eq!(juliet.hears(now, stranger, &ibb("open", &sid)), ["error cancel not-acceptable"]);
        assert_eq!(juliet.hears(now, stranger, &ibb("data", &sid)), [UNKNOWN]);
        assert_eq!(juliet.hears(now, stranger, &ibb("close", &sid)), [UNKNOWN]);
    }
    pair.send(Romeo, romeos, b"only me");
    pair.run();
    assert_eq!(pair.drain(Juliet, juliets).0, b"only me");
}

#[test]
fn a_bytestream_that_nobody_negotiated_is_refused() {
    let (mut pair, ..) = Pair::open();
    let now = pair.now;
    let juliet = pair.end(Juliet);
    assert_eq!(juliet.hears(now, ROMEO, &ibb("open", "none")), ["error cancel not-acceptable"]);
    assert_eq!(juliet.hears(now, ROMEO, &ibb("data", "none")), [UNKNOWN]);
    assert_eq!(juliet.hears(now, ROMEO, &ibb("close", "none")), [UNKNOWN]);
    let without_sid = "<data xmlns='http://jabber.org/protocol/ibb' seq='0'/>";
    assert_eq!(juliet.hears(now, ROMEO, without_sid), ["error cancel bad-request"]);
}

#[test]
fn there_is_no_bytestream_before_the_session_is_accepted() {
    let (mut pair, _, juliets) = Pair::ringing();
    let (now, sid) =
        (pair.now, find(pair.sent("session-initiate"), "transport").attr("sid").unwrap().to_owned());
    for name in ["open", "data", "close"] {
        assert_eq!(pair.end(Juliet).hears(now, ROMEO, &ibb(name, &sid)), [UNKNOWN], "{name}");
        assert_eq!(pair.end(Romeo).hears(now, JULIET, &ibb(name, &sid)), [UNKNOWN], "{name}");
    }
    assert_eq!(pair.end(Juliet).state(juliets), "ringing");
}

#[test]
fn malformed_requests_are_refused_by_name() {
    let (mut pair, romeos, _) = Pair::open();
    let (sid, now) = (bytestream(&mut pair, romeos), pair.now);
    let juliet = pair.end(Juliet);
    let open = ibb("open", &sid).replace("4096", "lots");
    assert_eq!(juliet.hears(now, ROMEO, &open), ["error cancel bad-request"]);
    assert_eq!(juliet.hears(now, ROMEO, &ibb("flush", &sid)), ["error cancel feature-not-implemented"]);
    assert_eq!(juliet.hears(now, ROMEO, &ibb("open", &sid)), ["error cancel unexpected-request"]);
}

#[test]
fn a_block_out_of_order_ends_the_session() {
    let (mut pair, romeos, juliets) = Pair::open();
    let (sid, now) = (bytestream(&mut pair, romeos), pair.now);
    let block = ibb("data", &sid).replace("seq='0'", "seq='5'");
    let sent = pair.end(Juliet).hears(now, ROMEO, &block);
    assert_eq!(
        sent,
        ["error cancel unexpected-request", "set close", "set session-terminate failed-transport"]
    );
    assert!(matches!(
        pair.end(Juliet).error(juliets),
        Some(Error::PeerMisbehaved(PeerMisbehaved::Bytestream(_)))
    ));
}

#[test]
fn blocks_fill_the_agreed_size_and_never_exceed_the_window() {
    let (mut pair, romeos, juliets) = Pair::open_with(|side, mut config| {
        config.ibb.block_size = if side == Romeo { 100 } else { 60 };
        config.ibb.fixed_window = Some(3);
        config
    });
    let sent: Vec<u8> = (0..1000_u32).map(|n| n as u8).collect();
    pair.send(Romeo, romeos, &sent);
    let mut received = Vec::new();
    let mut most = 0;
    loop {
        most = most.max(pair.inbox[1].len());
        assert!(
            pair.inbox[1].iter().all(|block| find(block, "data").text().len() <= 80),
            "60 bytes in base64"
        );
        let more = pair.deliver(Juliet);
        received.extend(pair.drain(Juliet, juliets).0);
        if !pair.deliver(Romeo) && !more {
            break;
        }
    }
    assert_eq!(received, sent);
    assert_eq!(most, 3);
}

#[test]
fn what_was_received_can_be_read_after_the_session_ended() {
    for flavour in 0..3 {
        let (mut pair, romeos, juliets) = Pair::open();
        pair.send(Romeo, romeos, b"last words");
        pair.run();
        match flavour {
            0 => pair.terminate(Romeo, romeos, Reason::Gone, None),
            1 => pair.terminate(Juliet, juliets, Reason::Gone, None),
            _ => {
                let now = pair.now;
                pair.end(Juliet).sessions.handle_disconnected(now);
            }
        }
        pair.run();
        let (read, then) = pair.drain(Juliet, juliets);
        assert_eq!(read, b"last words", "{flavour}");
        match flavour {
            0 => assert!(matches!(then, Err(Error::Terminated(_)))),
            1 => assert!(matches!(then, Ok(Read::End))),
            _ => assert!(matches!(then, Err(Error::Signalling(SignallingError::Offline)))),
        }
    }
}

#[test]
fn blocks_and_closes_that_wait_are_answered_when_the_session_ends() {
    let small = |_, mut config: Config| {
        config.ibb.receive_buffer = 4;
        config
    };
    let endings: [fn(&mut Pair, SessionId, SessionId); 3] = [
        |pair, _, juliets| pair.terminate(Juliet, juliets, Reason::Success, None),
        |pair, _, juliets| pair.release(Juliet, juliets),
        |pair, romeos, _| pair.terminate(Romeo, romeos, Reason::Success, None),
    ];
    for end in endings {
        let (mut pair, romeos, juliets) = Pair::open_with(small);
        pair.send(Romeo, romeos, b"more than four bytes");
        pair.run();
        assert_eq!(pair.take_log(), ["romeo: set data 0"], "its acknowledgement is held back");
        let (now, sid) = (pair.now, bytestream(&mut pair, romeos));
        assert_eq!(pair.end(Juliet).hears(now, ROMEO, &ibb("close", &sid)), [""; 0], "and its answer too");
        end(&mut pair, romeos, juliets);
        pair.run();
        let results = pair.take_log().iter().filter(|line| *line == "juliet: result").count();
        assert!(results >= 2, "{results}");
        pair.release(Romeo, romeos);
        pair.release(Juliet, juliets);
        pair.run();
        assert!(pair.ends.iter().all(End::is_clean));
    }
}

#[test]
fn what_all_bytestreams_keep_together_has_a_bound() {
    for (receive_total, is_over) in [(64, false), (8, true)] {
        let small = |_, mut config: Config| {
            config.ibb.block_size = 4;
            config.ibb.fixed_window = Some(8);
            config.ibb.receive_buffer = 4;
            config.ibb.receive_total = receive_total;
            config
        };
        let (mut pair, romeos, _) = Pair::open_with(small);
        pair.send(Romeo, romeos, b"more than eight bytes");
        pair.run();
        assert_eq!(
            pair.take_log().iter().any(|line| line.contains("session-terminate failed-transport")),
            is_over
        );
    }
}

#[test]
fn an_error_to_data_ends_the_session_with_what_the_peer_said() {
    let (mut pair, romeos, _) = Pair::open();
    pair.send(Romeo, romeos, b"data");
    let (now, block) = (pair.now, pair.stanzas.last().unwrap().clone());
    pair.take_log();
    pair.end(Romeo).receives(now, &nack(&block, &error("cancel", "item-not-found", "")));
    pair.collect();
    assert_eq!(pair.take_log(), ["romeo: set close", "romeo: set session-terminate failed-transport"]);
    let error = pair.end(Romeo).error(romeos).unwrap();
    assert!(matches!(error, Error::Transport(TransportError::Refused(_))));
    assert_eq!(error.to_string(), "transport: in-band bytestream: item-not-found");
}

#[test]
fn a_session_that_is_not_active_has_no_bytestream_to_use() {
    let (mut pair, romeos, _) = Pair::ringing();
    assert!(matches!(pair.write(Romeo, romeos, b"early"), Err(Error::ApiMisuse(_))));
    assert!(pair.drain(Romeo, romeos).1.is_err());
}
