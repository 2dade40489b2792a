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

/// Until that was sent, nothing but the network moves.
fn until(pair: &mut Pair, line: &str) {
    while !pair.log.iter().any(|sent| sent == line) {
        pair.happen();
    }
}

/// Each says something, and hears the other.
fn converse(pair: &mut Pair, romeo: &mut User, juliet: &mut User) {
    for (speaker, listener) in [(&mut *romeo, &mut *juliet)] {
        speaker.say(pair, b"wherefore art thou");
        listener.say(pair, b"what man art thou");
        pair.run();
        assert_eq!(listener.drain(pair), (b"wherefore art thou".to_vec(), Got::Nothing));
        assert_eq!(speaker.drain(pair), (b"what man art thou".to_vec(), Got::Nothing));
    }
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
        config.ibb = crate::IbbConfig { block_size: 100, window: 2, receive_buffer: 100 };
        config
    });
    juliet.say(&mut pair, &[7; 1000]);
    start(&mut pair, &romeo);
    // Romeo reads one block a minute.
    let mut heard = 0;
    for _ in 0..12 {
        pair.live(Duration::from_secs(60));
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
    until(&mut pair, "romeo: set transport-replace");
    pair.deliver(Juliet);
    let acknowledgement = pair.inbox[Romeo as usize].pop_front().unwrap();
    assert_eq!(describe(&acknowledgement), "result");
    until(&mut pair, "juliet: set transport-accept");
    pair.run();
    // Connecting takes longer than an acknowledgement may.
    pair.advance(Duration::from_secs(31));
    pair.settle();
    converse(&mut pair, &mut romeo, &mut juliet);
    assert!(has_moved(&romeo) && has_moved(&juliet), "{:#?}", pair.log);
    end(pair, &mut romeo, &mut juliet);
}
