//! A live stream moves from in-band bytestreams to a socket, or stays where it is.

use super::{
    net::{Got, Path, User},
    *,
};
use crate::Start;

/// A stream that is open in band, and both sides' users of it.
fn fast(adjust: impl Fn(Side, Config) -> Config) -> (Pair, User, User) {
    let mut pair = Pair::s5b(|side, config| adjust(side, config.start(Start::Fast)));
    let romeos = pair.connect(Romeo);
    pair.run();
    let juliets = pair.accept(Juliet);
    pair.run();
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets));
    pair.take_log();
    (pair, User::new(Romeo, romeos), User::new(Juliet, juliets))
}

fn start(pair: &mut Pair, user: &User) {
    let now = pair.now;
    pair.end(user.side).sessions.start_move(now, user.id);
    pair.collect();
}

/// Each says something, and hears the other.
fn converse(pair: &mut Pair, romeo: &mut User, juliet: &mut User) {
    romeo.say(pair, b"what lady is that");
    juliet.say(pair, b"what man art thou");
    pair.run();
    assert_eq!(juliet.drain(pair), (b"what lady is that".to_vec(), Got::Nothing));
    assert_eq!(romeo.drain(pair), (b"what man art thou".to_vec(), Got::Nothing));
}

fn has_moved(user: &User) -> bool {
    user.reads == Path::Socket && user.writes == Path::Socket
}

fn stays(user: &User) -> bool {
    user.reads == Path::Session && user.writes == Path::Session
}

fn end(mut pair: Pair, romeo: &mut User, juliet: &mut User) {
    converse(&mut pair, romeo, juliet);
    drop(romeo.shutdown(&mut pair));
    drop(juliet.shutdown(&mut pair));
    pair.run();
    assert!(romeo.shutdown(&mut pair).unwrap() && juliet.shutdown(&mut pair).unwrap());
    assert_eq!(romeo.drain(&mut pair).1, Got::End);
    assert_eq!(juliet.drain(&mut pair).1, Got::End);
    pair.terminate(Romeo, romeo.id, Reason::Success, None);
    pair.leave(romeo.id, juliet.id);
}

#[test]
fn a_stream_moves_to_a_socket_while_it_goes_on() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    start(&mut pair, &romeo);
    pair.live(Duration::from_secs(3));
    assert_eq!(
        pair.take_log(),
        [
            "romeo: set transport-replace",
            "juliet: result",
            "juliet: set transport-accept",
            "romeo: result",
            "juliet: set transport-info candidate-used",
            "romeo: result",
            "romeo: set transport-info candidate-error",
            "romeo: set close",
            "juliet: result",
            "juliet: set close",
            "romeo: result",
            "juliet: result",
        ]
    );
    converse(&mut pair, &mut romeo, &mut juliet);
    assert!(has_moved(&romeo) && has_moved(&juliet));
    assert_eq!(pair.take_log(), [""; 0], "nothing goes in band any more");
    end(pair, &mut romeo, &mut juliet);
}

#[test]
fn a_reader_that_is_slow_does_not_end_a_stream_that_moves() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, mut config| {
        config.ibb = crate::IbbConfig {
            block_size: 100,
            fixed_window: Some(2),
            receive_buffer: 100,
            ..Default::default()
        };
        config
    });
    juliet.say(&mut pair, &[7; 1000]);
    start(&mut pair, &romeo);
    // Romeo reads one block a minute.
    let mut heard = 0;
    for _ in 0..12 {
        pair.live(Duration::from_secs(60));
        // Whoever wrote something flushes it until it is on its way.
        juliet.flush(&mut pair).unwrap();
        let Got::Bytes(bytes) = romeo.read(&mut pair, 100).unwrap() else { break };
        heard += bytes.len();
    }
    assert_eq!(heard, 1000);
    end(pair, &mut romeo, &mut juliet);
}

#[test]
fn a_move_goes_on_without_the_acknowledgement_of_what_was_accepted() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    start(&mut pair, &romeo);
    pair.until("romeo: set transport-replace");
    pair.deliver(Juliet);
    let acknowledgement = pair.inbox[Romeo as usize].pop_front().unwrap();
    assert_eq!(describe(&acknowledgement), "result");
    pair.until("juliet: set transport-accept");
    pair.run();
    // Connecting takes longer than an acknowledgement may.
    pair.advance(Duration::from_secs(31));
    pair.settle();
    converse(&mut pair, &mut romeo, &mut juliet);
    assert!(has_moved(&romeo) && has_moved(&juliet), "{:#?}", pair.log);
    end(pair, &mut romeo, &mut juliet);
}

/// The network, and whoever has a stanza to get, take this many steps.
fn steps(pair: &mut Pair, count: usize) {
    for _ in 0..count {
        if !pair.deliver(Juliet) && !pair.deliver(Romeo) && pair.net.next_event().is_some() {
            pair.happen();
        }
    }
}

/// What becomes of Romeo's transport-replace.
type Answer = fn(&mut Pair, &User, &Element);

#[test]
fn a_move_that_comes_to_nothing_leaves_the_stream_where_it_is() {
    let answers: [(&str, Answer); 5] = [
        ("transport-reject", |pair, romeo, replace| {
            let reject =
                pair.about(Romeo, romeo.id, "transport-reject", &String::from(find(replace, "transport")));
            assert_eq!(pair.hears(Romeo, &reject), ["result"]);
        }),
        ("an error", |pair, _, replace| {
            let (now, error) = (pair.now, error("cancel", "feature-not-implemented", ""));
            pair.end(Romeo).receives(now, &nack(replace, &error));
        }),
        ("nothing", |pair, _, _| pair.advance(Duration::from_secs(31))),
        ("an acknowledgement and no more", |pair, _, replace| {
            let now = pair.now;
            pair.end(Romeo).receives(now, &ack(replace));
            pair.advance(Duration::from_secs(31));
        }),
        ("an accept of another transport", |pair, romeo, _| {
            let accept = pair.about(Romeo, romeo.id, "transport-accept", TRANSPORT);
            assert_eq!(pair.hears(Romeo, &accept), ["error cancel bad-request"]);
        }),
    ];
    for (name, answer) in answers {
        let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
        romeo.say(&mut pair, b"before");
        juliet.say(&mut pair, b"before");
        start(&mut pair, &romeo);
        pair.until("romeo: set transport-replace");
        let replace = pair.sent("transport-replace").clone();
        pair.inbox[Juliet as usize].retain(|stanza| *stanza != replace);
        let expected: Vec<_> = pair.end(Romeo).sessions.expected.keys().cloned().collect();
        assert!(pair.knock(Romeo, &expected[0]).is_some());
        answer(&mut pair, &romeo, &replace);
        pair.settle();
        assert_eq!(pair.net.held(Romeo), 0, "{name}");
        assert!(pair.end(Romeo).sessions.expected.is_empty(), "{name}: nobody is let in for it");
        assert!(pair.knock(Romeo, &expected[0]).is_none(), "{name}");
        assert_eq!(juliet.drain(&mut pair).0, b"before", "{name}");
        assert_eq!(romeo.drain(&mut pair).0, b"before", "{name}");
        converse(&mut pair, &mut romeo, &mut juliet);
        assert!(stays(&romeo) && stays(&juliet), "{name}");

        // She agrees when it is too late, and says more about it.
        let late = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='any'/>";
        let accept = pair.about(Romeo, romeo.id, "transport-accept", late);
        assert_eq!(pair.hears(Romeo, &accept), ["error wait unexpected-request out-of-order"], "{name}");
        let notice = late.replace("/>", "><candidate-error/></transport>");
        let info = pair.about(Romeo, romeo.id, "transport-info", &notice);
        assert_eq!(pair.hears(Romeo, &info), ["result"], "{name}");
        end(pair, &mut romeo, &mut juliet);
    }
}

#[test]
fn where_nobody_can_connect_the_stream_stays_in_band() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    pair.net.sever();
    start(&mut pair, &romeo);
    pair.live(Duration::from_secs(15));
    let log = pair.take_log();
    assert_eq!(log.iter().filter(|line| line.contains("candidate-error")).count(), 2, "{log:#?}");
    converse(&mut pair, &mut romeo, &mut juliet);
    assert!(stays(&romeo) && stays(&juliet));
    end(pair, &mut romeo, &mut juliet);
}

#[test]
fn who_gave_up_is_not_followed_by_one_who_agrees_too_late() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    start(&mut pair, &romeo);
    pair.until("romeo: set transport-replace");
    // Her answer takes longer than he has patience.
    let (now, later) = (pair.now, pair.now + Duration::from_secs(31));
    pair.end(Romeo).sessions.handle_timeout(later);
    pair.now = now;
    pair.live(Duration::from_secs(15));
    let log = pair.take_log();
    assert!(log.contains(&"juliet: set transport-accept".to_owned()), "{log:#?}");
    assert!(log.contains(&"romeo: error wait unexpected-request out-of-order".to_owned()), "{log:#?}");
    pair.now = later;
    converse(&mut pair, &mut romeo, &mut juliet);
    assert!(stays(&romeo) && stays(&juliet));
    assert_eq!((pair.net.held(Romeo), pair.net.held(Juliet)), (0, 0));
    end(pair, &mut romeo, &mut juliet);
}

#[test]
fn either_user_may_let_go_at_every_step_of_a_move() {
    for who in [Romeo, Juliet] {
        for count in 0..50 {
            let (mut pair, romeo, juliet) = fast(|_, config| config);
            pair.net.has_proxy = [true, true];
            start(&mut pair, &romeo);
            steps(&mut pair, count);
            let (leaving, left) = if who == Romeo { (&romeo, &juliet) } else { (&juliet, &romeo) };
            pair.release(who, leaving.id);
            pair.settle();
            assert_eq!(pair.end(left.side).state(left.id), "ended", "{who:?} after {count} steps");
            pair.leave(romeo.id, juliet.id);
        }
    }
}

#[test]
fn either_user_may_close_at_every_step_of_a_move_and_nothing_is_lost() {
    for who in [Romeo, Juliet] {
        for count in 0..50 {
            let (mut pair, romeo, juliet) = fast(|_, config| config);
            let (mut closing, mut other) = if who == Romeo { (romeo, juliet) } else { (juliet, romeo) };
            let initiator = if who == Romeo { &closing } else { &other };
            start(&mut pair, initiator);
            closing.say(&mut pair, b"that is all");
            steps(&mut pair, count);
            drop(closing.shutdown(&mut pair));
            steps(&mut pair, 2);
            // The other one learns of it only after this.
            let case = format!("{who:?} after {count} steps");
            other.say(&mut pair, b"one more thing");
            pair.settle();
            closing.shutdown(&mut pair).unwrap();
            assert_eq!(other.drain(&mut pair), (b"that is all".to_vec(), Got::End), "{case}");
            drop(other.shutdown(&mut pair));
            pair.settle();
            assert!(closing.shutdown(&mut pair).unwrap() && other.shutdown(&mut pair).unwrap(), "{case}");
            assert_eq!(closing.drain(&mut pair), (b"one more thing".to_vec(), Got::End), "{case}");
            pair.terminate(who, closing.id, Reason::Success, None);
            let (romeos, juliets) =
                if who == Romeo { (closing.id, other.id) } else { (other.id, closing.id) };
            pair.leave(romeos, juliets);
        }
    }
}

#[test]
fn a_stream_that_has_moved_is_not_moved_again() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    start(&mut pair, &romeo);
    pair.settle();
    converse(&mut pair, &mut romeo, &mut juliet);
    let s5b = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='again'/>";
    for transport in [TRANSPORT, s5b].repeat(50) {
        let replace = pair.about(Juliet, juliet.id, "transport-replace", transport);
        assert_eq!(pair.hears(Juliet, &replace), ["result", "set transport-reject"]);
        pair.inbox[Romeo as usize].clear();
    }
    start(&mut pair, &romeo);
    assert_eq!(pair.inbox[Juliet as usize].len(), 0);
    converse(&mut pair, &mut romeo, &mut juliet);
    end(pair, &mut romeo, &mut juliet);
}

#[test]
fn a_peer_that_takes_its_offers_back_leaves_nothing_with_us() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    for round in 0..20 {
        let candidate = "<candidate cid='c' host='10.0.0.1' port='5086' priority='1' jid='a@b/c'/>";
        let offer = format!(
            "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='s{round}'>{candidate}</transport>"
        );
        let replace = pair.about(Juliet, juliet.id, "transport-replace", &offer);
        pair.hears(Juliet, &replace);
        pair.inbox[Romeo as usize].clear();
        pair.happen_while_due();
        pair.inbox[Romeo as usize].clear();
        assert!(pair.end(Juliet).sessions.expected.len() <= 2, "one offer at a time is open");
        assert!(pair.end(Juliet).sessions.dials.len() <= 1);
    }
    pair.settle();
    converse(&mut pair, &mut romeo, &mut juliet);
    assert!(stays(&romeo) && stays(&juliet));
    end(pair, &mut romeo, &mut juliet);
}

#[test]
fn a_stream_that_its_user_closes_is_not_moved() {
    let (mut pair, mut romeo, mut juliet) = fast(|_, config| config);
    start(&mut pair, &romeo);
    drop(romeo.shutdown(&mut pair));
    drop(juliet.shutdown(&mut pair));
    pair.run();
    assert!(romeo.shutdown(&mut pair).unwrap());
    pair.settle();
    let log = pair.take_log();
    assert!(!log.iter().any(|line| line.contains("transport-replace")), "{log:#?}");
    pair.terminate(Romeo, romeo.id, Reason::Success, None);
    pair.leave(romeo.id, juliet.id);
}
