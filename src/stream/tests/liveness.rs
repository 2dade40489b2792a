//! Peers that are silent, slow or gone.

use std::time::Duration;

use super::{
    acks::{R, a, pair},
    support::{Side, exchange, header_with, setup},
};
use crate::{Error, Step, stream::machine::Role};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_silent_peer_is_asked_and_then_given_up() {
    let (mut romeo, _) = pair();
    romeo.written();
    romeo.after(MINUTE);
    assert_eq!(romeo.written(), R, "a question keeps the bytestream alive, too");
    romeo.after(MINUTE - Duration::from_millis(1));
    assert!(romeo.machine.suspension().is_none());
    romeo.after(Duration::from_millis(1));
    let cause = &romeo.machine.suspension().unwrap().cause;
    assert!(matches!(cause, Error::Timeout(Step::Silence, time) if *time == 2 * MINUTE), "{cause}");
}

#[test]
fn a_peer_without_acknowledgements_is_pinged() {
    let (mut romeo, mut juliet) = (Side::romeo(), Side::juliet());
    exchange(&mut romeo, &mut juliet);
    romeo.after(MINUTE);
    let ping = romeo.written();
    assert!(ping.contains("<ping xmlns='urn:xmpp:ping'"), "{ping}");
    juliet.reads(ping);
    romeo.reads(juliet.written());
    assert!(romeo.machine.next_stanza().is_none(), "the answer is for nobody");
    romeo.after(MINUTE);
    assert!(romeo.machine.is_open());
    romeo.after(MINUTE);
    assert!(matches!(romeo.machine.error(), Some(Error::Timeout(Step::Silence, _))));
}

#[test]
fn any_sign_of_life_will_do() {
    let (mut romeo, _) = pair();
    for _ in 0..50 {
        romeo.after(MINUTE);
        romeo.after(MINUTE - Duration::from_secs(1));
        romeo.machine.handle_alive(romeo.now);
    }
    for _ in 0..50 {
        romeo.after(MINUTE);
        romeo.after(MINUTE - Duration::from_secs(1));
        romeo.reads(a(0));
    }
    assert!(romeo.machine.is_open() && romeo.machine.suspension().is_none());
}

#[test]
fn nothing_is_said_of_a_peer_whom_we_do_not_read() {
    let (mut romeo, _) = pair();
    romeo.machine.set_listening(romeo.now, false);
    romeo.after(100 * MINUTE);
    romeo.machine.handle_alive(romeo.now);
    romeo.after(100 * MINUTE);
    assert!(romeo.machine.suspension().is_none());
    romeo.machine.set_listening(romeo.now, true);
    romeo.after(MINUTE);
    romeo.machine.set_listening(romeo.now, true);
    romeo.after(MINUTE);
    assert!(romeo.machine.suspension().is_some());
}

#[test]
fn a_bot_that_is_slow_still_shows_that_it_lives() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("to a bot that takes nothing for an hour");
    exchange(&mut romeo, &mut juliet);
    juliet.machine.set_listening(juliet.now, false);
    for _ in 0..120 {
        juliet.after(MINUTE / 2);
        let written = juliet.written();
        assert!(!written.is_empty());
        romeo.after(MINUTE / 2);
        romeo.machine.handle_alive(romeo.now);
    }
    assert!(romeo.machine.suspension().is_none() && juliet.machine.suspension().is_none());
}

#[test]
fn zero_is_never() {
    let mut quiet = setup(Role::Initiator, None, None);
    quiet.timeouts.probe = Duration::ZERO;
    let mut romeo = Side::new(quiet);
    romeo.reads(header_with("version='1.0'") + "<stream:features/>");
    romeo.written();
    romeo.after(100 * MINUTE);
    romeo.after(100 * MINUTE);
    assert!(romeo.machine.is_open());
    assert!(!romeo.written().contains("ping"));
}
