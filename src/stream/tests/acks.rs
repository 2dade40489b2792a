//! Acknowledgements on a stream, step by step (XEP-0198).

use std::time::Duration;

use futures::{FutureExt as _, channel::oneshot};
use tokio_xmpp::IqRequest;
use xmpp_parsers::{ping::Ping, presence::Presence, stanza::Stanza};

use super::support::{FOOTER, JULIET, ROMEO, Side, exchange, header_with, message, setup};
use crate::{
    Error, PeerIncompatible, SmConfig, Undelivered,
    stream::machine::{
        Closer, Role, Setup, cut_off,
        management::{Enable, Plan},
    },
};

pub(super) const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";
const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' max='300' resume='true'/>";
const ENABLED: &str = "<enabled xmlns='urn:xmpp:sm:3'/>";
const SM: &str = "<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>";

pub(super) fn a(h: u32) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")
}

fn failed(condition: &str) -> String {
    let condition = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
    format!("<failed xmlns='urn:xmpp:sm:3'>{condition}</failed>")
}

/// One that acknowledges, and can be resumed.
pub(super) fn managed(role: Role) -> Setup {
    let mut setup = match role {
        Role::Initiator => setup(role, Some(ROMEO), Some(JULIET)),
        Role::Responder => setup(role, Some(JULIET), Some(ROMEO)),
    };
    let id = Some("verona".to_owned());
    setup.management = Plan::Enable(Enable { id, config: SmConfig::default() });
    setup
}

/// Both have enabled it, and nothing was said.
pub(super) fn pair() -> (Side, Side) {
    pair_with(|_| {})
}

pub(super) fn pair_with(change: impl Fn(&mut Setup)) -> (Side, Side) {
    let side = |role| {
        let mut setup = managed(role);
        change(&mut setup);
        Side::new(setup)
    };
    let (mut romeo, mut juliet) = (side(Role::Initiator), side(Role::Responder));
    exchange(&mut romeo, &mut juliet);
    assert!(romeo.machine.acknowledges() && juliet.machine.acknowledges());
    (romeo, juliet)
}

pub(super) fn undelivered(side: &Side) -> Vec<String> {
    match side.machine.outcome() {
        Some(Err(Error::Undelivered(undelivered))) => bodies(&undelivered),
        other => panic!("all was delivered: {other:?}"),
    }
}

fn bodies(undelivered: &Undelivered) -> Vec<String> {
    undelivered.stanzas().iter().map(body).collect()
}

pub(super) fn body(stanza: &Stanza) -> String {
    match stanza {
        Stanza::Message(message) => message.bodies.values().next().cloned().unwrap_or_default(),
        other => panic!("not a message: {other:?}"),
    }
}

#[test]
fn it_is_enabled_without_another_round_trip() {
    let (mut romeo, mut juliet) = (Side::new(managed(Role::Initiator)), Side::new(managed(Role::Responder)));
    juliet.reads(romeo.written());
    let answer = juliet.written();
    assert!(answer.ends_with(SM), "{answer}");
    romeo.reads(answer);
    assert!(romeo.machine.is_open());
    romeo.says("Ah me!");
    let said = romeo.written();
    assert!(said.starts_with(&format!("{ENABLE}<message ")), "{said}");
    assert!(!romeo.machine.acknowledges(), "that is not known yet");

    juliet.reads(said);
    let enabled = "<enabled xmlns='urn:xmpp:sm:3' id='verona' max='300' resume='true'/>";
    assert_eq!(juliet.written(), enabled);
    assert_eq!(juliet.machine.resumption_id(), Some("verona"));
    assert_eq!(juliet.hears().as_deref(), Some("Ah me!"));
    romeo.reads(enabled);
    assert!(romeo.machine.is_resumable());
    // What waited for the answer is asked about at once.
    assert_eq!(romeo.written(), R);
    juliet.reads(R);
    assert_eq!(juliet.written(), a(1));
    assert_eq!(romeo.machine.unacked(), 1);
    romeo.reads(a(1));
    assert_eq!(romeo.machine.unacked(), 0);
}

#[test]
fn what_the_responder_said_first_is_acknowledged_by_the_first_sign() {
    let (mut romeo, mut juliet) = (Side::new(managed(Role::Initiator)), Side::new(managed(Role::Responder)));
    juliet.reads(romeo.written());
    juliet.says("before it is enabled");
    romeo.reads(juliet.written());
    juliet.reads(romeo.written());
    assert!(juliet.machine.acknowledges());
    assert_eq!(juliet.machine.unacked(), 1);
    juliet.says("after");
    romeo.reads(juliet.written());
    assert_eq!(romeo.hears().as_deref(), Some("before it is enabled"));
    // Only the one after was counted, and nobody has taken it.
    romeo.reads(R);
    juliet.reads(romeo.written());
    assert_eq!(juliet.machine.unacked(), 1);
    assert_eq!(romeo.hears().as_deref(), Some("after"));
    juliet.reads(romeo.written());
    assert_eq!(juliet.machine.unacked(), 0);
}

#[test]
fn who_closes_at_once_waits_until_what_came_first_can_be_acknowledged() {
    let (mut romeo, mut juliet) = (Side::new(managed(Role::Initiator)), Side::new(managed(Role::Responder)));
    juliet.reads(romeo.written());
    juliet.says("before it is enabled");
    romeo.reads(juliet.written());
    assert_eq!(romeo.hears().as_deref(), Some("before it is enabled"));
    romeo.machine.close(romeo.now);
    let said = romeo.written();
    assert!(said.contains("<enable ") && !said.contains(FOOTER), "{said}");

    juliet.reads(said);
    exchange(&mut romeo, &mut juliet);
    assert!(matches!(juliet.machine.outcome(), Some(Ok(()))));
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))));

    // A peer that says goodbye has nothing to acknowledge any more.
    let (mut romeo, mut juliet) = (Side::new(managed(Role::Initiator)), Side::new(managed(Role::Responder)));
    juliet.reads(romeo.written());
    romeo.reads(juliet.written());
    romeo.machine.close(romeo.now);
    romeo.reads(FOOTER);
    assert!(romeo.written().ends_with(FOOTER));
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))));
}

#[test]
fn every_stanza_counts_and_nothing_else() {
    let (mut romeo, mut juliet) = pair();
    juliet.reads(
        "<message/> <presence/><a xmlns='urn:other'/><iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>\
         <iq type='result' id='none'/><iq type='get' id='2'/>",
    );
    while juliet.machine.next_stanza().is_some() {}
    juliet.written();
    juliet.reads(R);
    assert_eq!(juliet.written(), a(5));

    romeo.says("1");
    romeo.machine.send(romeo.now, Stanza::Presence(Presence::available())).unwrap();
    let reply = romeo.machine.send_iq(romeo.now, IqRequest::Get(Ping.into())).unwrap();
    assert_eq!(romeo.machine.unacked(), 3);
    romeo.reads(a(3));
    assert_eq!(romeo.machine.unacked(), 0);
    assert!(reply.now_or_never().is_none(), "it is acknowledged, not answered");
}

#[test]
fn handled_is_what_the_bot_has_taken_and_nothing_behind_that() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("taken late");
    juliet.reads(romeo.written());
    juliet.reads("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>");
    juliet.written();
    juliet.reads(R);
    assert_eq!(juliet.written(), a(0));
    // It was asked for, so it is told once it is so.
    assert_eq!(juliet.hears().as_deref(), Some("taken late"));
    assert_eq!(juliet.written(), a(2));
}

#[test]
fn much_that_was_handled_is_told_without_being_asked() {
    let (mut romeo, mut juliet) = pair();
    for number in 1..=130 {
        juliet.reads(format!("<message><body>{number}</body></message>"));
        juliet.hears().unwrap();
    }
    assert_eq!(juliet.written(), a(64) + &a(128));
    romeo.written();
}

#[test]
fn what_nobody_receives_is_handled() {
    let (_, mut juliet) = pair();
    juliet.reads("<message/>");
    juliet.machine.stop_receiving(juliet.now);
    juliet.reads("<message/>");
    juliet.written();
    juliet.reads(R);
    assert_eq!(juliet.written(), a(2));
}

#[test]
fn acknowledgements_are_asked_for_by_count_and_by_time() {
    let (mut romeo, mut juliet) = pair();
    for _ in 0..63 {
        romeo.says("x");
    }
    assert!(!romeo.written().contains(R));
    romeo.says("the 64th");
    assert!(romeo.written().ends_with(R));
    // One question is enough.
    for _ in 0..100 {
        romeo.says("x");
    }
    romeo.after(Duration::from_secs(2));
    assert!(!romeo.written().contains(R));
    romeo.reads(a(64));
    assert_eq!(romeo.written(), R, "its time had come meanwhile");
    romeo.reads(a(164));

    juliet.says("alone");
    juliet.after(Duration::from_millis(999));
    assert!(!juliet.written().contains(R));
    assert_eq!(juliet.machine.poll_timeout(), Some(juliet.now + Duration::from_millis(1)));
    juliet.after(Duration::from_millis(1));
    assert_eq!(juliet.written(), R);
}

#[test]
fn a_receipt_is_asked_for_at_once_and_comes_in_order() {
    let (mut romeo, _) = pair();
    romeo.says("before");
    let (sender, mut receipt) = oneshot::channel();
    romeo.machine.send_for(romeo.now, message("important"), Some(sender)).unwrap();
    assert!(romeo.written().ends_with(R));
    romeo.reads(a(1));
    assert!(receipt.try_recv().unwrap().is_none());
    romeo.reads(a(2));
    assert!(matches!(receipt.try_recv(), Ok(Some(Ok(())))));
}

#[test]
fn nobody_gets_a_receipt_of_a_peer_that_acknowledges_nothing() {
    let mut romeo = Side::new(managed(Role::Initiator));
    romeo.reads(header_with("version='1.0'") + "<stream:features/>");
    romeo.written();
    let (sender, _receipt) = oneshot::channel();
    let refused = romeo.machine.send_for(romeo.now, message("important"), Some(sender));
    assert!(matches!(refused, Err(Error::PeerIncompatible(PeerIncompatible::MissingFeature(_)))));
    assert_eq!(romeo.written(), "");

    // This one offers it, and then does not keep its word.
    let mut romeo = Side::new(managed(Role::Initiator));
    romeo.reads(header_with("version='1.0'") + SM);
    let (sender, mut receipt) = oneshot::channel();
    romeo.machine.send_for(romeo.now, message("important"), Some(sender)).unwrap();
    romeo.reads("<failed xmlns='urn:xmpp:sm:3'/>");
    assert!(matches!(receipt.try_recv(), Ok(Some(Err(Error::PeerIncompatible(_))))));
    assert!(romeo.machine.is_open() && romeo.machine.unacked() == 0);
}

#[test]
fn a_peer_without_stream_management_is_as_before() {
    for features in ["<stream:features/>", ""] {
        let mut romeo = Side::new(managed(Role::Initiator));
        romeo.written();
        romeo.reads(header_with("version='1.0'") + features + "<message/>");
        romeo.says("hi");
        assert!(!romeo.written().contains("urn:xmpp:sm:3"));
        romeo.machine.handle_end(cut_off());
        assert!(matches!(romeo.machine.outcome(), Some(Err(Error::Transport(_)))));
    }
    let mut juliet = Side::open_with(Side::new(managed(Role::Responder)));
    juliet.says("kept");
    juliet.reads("<message/>");
    juliet.says("not kept");
    juliet.machine.handle_end(cut_off());
    assert!(matches!(juliet.machine.outcome(), Some(Err(Error::Transport(_)))));
}

#[test]
fn a_peer_that_enables_it_late_is_counted_from_there() {
    let mut juliet = Side::open_with(Side::new(managed(Role::Responder)));
    juliet.reads("<message/>");
    juliet.says("not counted");
    juliet.reads("<enable xmlns='urn:xmpp:sm:3'/>");
    assert!(juliet.written().ends_with(ENABLED));
    assert!(!juliet.machine.is_resumable(), "it did not want that");
    juliet.says("counted");
    assert_eq!(juliet.machine.unacked(), 1);
    juliet.reads(a(1));
    assert_eq!(juliet.machine.unacked(), 0);
}

#[test]
fn more_than_was_sent_can_not_be_acknowledged() {
    for (counts, text) in [(&[3][..], "h='3' send-count='2'"), (&[2, 1], "h='1' send-count='2'")] {
        let (mut romeo, _) = pair();
        romeo.says("1");
        romeo.says("2");
        romeo.written();
        for h in counts {
            romeo.reads(a(*h));
        }
        let written = romeo.written();
        assert!(written.starts_with("<stream:error><undefined-condition "), "{written}");
        assert!(written.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' "), "{written}");
        assert!(written.contains(text), "{written}");
        assert!(written.ends_with("</stream:error></stream:stream>"), "{written}");
        assert!(romeo.machine.is_over());
    }
}

#[test]
fn a_peer_that_finds_our_count_too_high_says_so_in_words() {
    let (mut romeo, _) = pair();
    romeo.says("1");
    romeo.reads(include_str!("../../../fixtures/xep-0198/handled-count-too-high.xml"));
    assert_eq!(undelivered(&romeo), ["1"]);
    let error = romeo.machine.outcome().unwrap().unwrap_err().to_string();
    assert!(error.contains("undefined-condition"), "{error}");
    assert!(error.contains("You acknowledged 10 stanzas, but I only sent you 8 so far."), "{error}");
}

#[test]
fn counters_go_round_at_two_to_the_power_of_32() {
    let (mut romeo, mut juliet) = pair();
    romeo.machine.start_counting_at(u32::MAX - 1);
    juliet.machine.start_counting_at(u32::MAX - 1);
    for number in 1..=4 {
        romeo.says(&number.to_string());
    }
    juliet.reads(romeo.written());
    for _ in 0..4 {
        juliet.hears().unwrap();
    }
    juliet.reads(R);
    let answer = juliet.written();
    assert!(answer.ends_with(&a(2)), "{answer}");
    romeo.reads(a(u32::MAX));
    assert_eq!(romeo.machine.unacked(), 3);
    romeo.reads(a(2));
    assert_eq!(romeo.machine.unacked(), 0);
    romeo.reads(a(3));
    assert!(romeo.machine.is_over());
}

#[test]
fn there_is_room_only_for_so_many_without_an_acknowledgement() {
    let (mut romeo, _) = pair_with(|setup| setup.limits.unacked_stanzas = 4);
    for number in 1..=4 {
        assert!(romeo.machine.check_room().unwrap(), "{number}");
        romeo.says("x");
    }
    assert!(!romeo.machine.check_room().unwrap());
    // It was asked for when half was full.
    assert!(romeo.written().contains(R));
    romeo.reads(a(1));
    assert!(romeo.machine.check_room().unwrap());

    let (mut romeo, _) = pair_with(|setup| setup.limits.unacked_bytes = 100);
    romeo.says(&"x".repeat(100));
    assert!(!romeo.machine.check_room().unwrap());
}

#[test]
fn answers_that_are_never_acknowledged_end_the_stream() {
    let (_, mut juliet) = pair();
    let ping = format!("<iq type='get' id='{}'><ping xmlns='urn:xmpp:ping'/></iq>", "x".repeat(1000));
    for _ in 0..3000 {
        juliet.reads(&ping);
        juliet.written();
    }
    assert_eq!(juliet.condition().to_string(), "policy-violation");
}

#[test]
fn a_close_waits_for_what_is_not_acknowledged() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("one last word");
    romeo.machine.close(romeo.now);
    let last = romeo.written();
    assert!(last.ends_with(&format!("{R}{}{FOOTER}", a(0))), "{last}");
    // Juliet's bot has not taken it, but she is responsible now.
    juliet.reads(last);
    assert_eq!(juliet.written(), a(0) + &a(1) + FOOTER);
    assert_eq!(juliet.machine.closed_by(), Some(Closer::Peer));
    assert!(matches!(juliet.machine.outcome(), Some(Ok(()))));
    romeo.reads(a(1) + FOOTER);
    assert_eq!(romeo.machine.closed_by(), Some(Closer::Us));
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))));
    assert_eq!(juliet.hears().as_deref(), Some("one last word"));
}

#[test]
fn what_is_unread_when_we_close_comes_back_to_the_peer() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("taken");
    romeo.says("not taken");
    juliet.reads(romeo.written());
    juliet.hears().unwrap();
    juliet.machine.leave(juliet.now);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(romeo.machine.closed_by(), Some(Closer::Peer));
    assert_eq!(undelivered(&romeo), ["not taken"]);
    assert!(romeo.machine.error().is_none(), "it was closed in good order");
    assert!(matches!(juliet.machine.outcome(), Some(Ok(()))));
}

#[test]
fn what_is_unread_when_we_close_and_go_on_receiving_is_our_responsibility() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("taken later");
    juliet.reads(romeo.written());
    juliet.machine.close(juliet.now);
    exchange(&mut romeo, &mut juliet);
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))));
    assert_eq!(juliet.hears().unwrap(), "taken later");
}

#[test]
fn what_the_peer_was_told_at_its_goodbye_is_not_thrown_away_when_we_leave() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("taken");
    romeo.says("taken after the end");
    romeo.machine.close(romeo.now);
    exchange(&mut romeo, &mut juliet);
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))), "it counts as delivered");
    assert_eq!(juliet.hears().unwrap(), "taken");
    juliet.machine.leave(juliet.now);
    assert_eq!(juliet.hears().unwrap(), "taken after the end");
}

#[test]
fn what_is_our_responsibility_stays_so_when_the_way_is_lost() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("taken later");
    juliet.reads(romeo.written());
    juliet.says("not acknowledged");
    juliet.machine.close(juliet.now);
    juliet.written();
    juliet.machine.handle_end(crate::stream::machine::cut_off());
    assert!(juliet.machine.suspension().is_some());
    juliet.machine.leave(juliet.now);
    assert_eq!(juliet.hears().unwrap(), "taken later");
}

#[test]
fn an_acknowledgement_renews_the_time_of_a_close() {
    let (mut romeo, _) = pair();
    romeo.says("1");
    romeo.says("2");
    romeo.machine.close(romeo.now);
    romeo.after(Duration::from_secs(9));
    romeo.reads(a(1));
    romeo.after(Duration::from_secs(9));
    assert!(!romeo.machine.is_over());
    romeo.reads(a(1));
    romeo.after(Duration::from_secs(1));
    assert_eq!(undelivered(&romeo), ["2"]);
}

#[test]
fn a_stream_that_fails_gives_back_what_the_user_sent() {
    let (mut romeo, _) = pair();
    romeo.says("1");
    let reply = romeo.machine.send_iq(romeo.now, IqRequest::Get(Ping.into())).unwrap();
    let (sender, mut receipt) = oneshot::channel();
    romeo.machine.send_for(romeo.now, message("2"), Some(sender)).unwrap();
    romeo.reads("<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>");
    assert_eq!(undelivered(&romeo), ["1", "2"]);
    let Some(Error::Undelivered(error)) = romeo.machine.error() else { panic!("no error") };
    assert!(matches!(error.cause(), Some(Error::Stream(_))));
    assert!(matches!(reply.now_or_never(), Some(Ok(Err(_)))));
    assert!(matches!(receipt.try_recv(), Ok(Some(Err(Error::Undelivered(_))))));
}

#[test]
fn elements_out_of_place_are_refused_or_skipped() {
    for (role, bad) in [
        (Role::Responder, "<enable xmlns='urn:xmpp:sm:3'/>"),
        (Role::Initiator, "<enable xmlns='urn:xmpp:sm:3'/>"),
        (Role::Initiator, "<resume xmlns='urn:xmpp:sm:3' h='0' previd='x'/>"),
        (Role::Responder, "<a xmlns='urn:xmpp:sm:3'/>"),
        (Role::Responder, "<a xmlns='urn:xmpp:sm:3' h='many'/>"),
        (Role::Responder, "<what xmlns='urn:xmpp:sm:3'/>"),
    ] {
        let (romeo, juliet) = pair();
        let mut side = if role == Role::Initiator { romeo } else { juliet };
        side.reads(bad);
        assert_eq!(side.condition().to_string(), "policy-violation", "{bad}");
        // XEP-0198 #enable
        let again = role == Role::Responder && bad.starts_with("<enable ");
        assert_eq!(side.written().starts_with(&failed("unexpected-request")), again, "{bad}");
    }
    for (role, odd, answer) in [
        (Role::Responder, "<resume xmlns='urn:xmpp:sm:3' h='0' previd='x'/>", failed("item-not-found")),
        (Role::Responder, ENABLED, String::new()),
        (Role::Initiator, ENABLED, String::new()),
        (Role::Initiator, "<resumed xmlns='urn:xmpp:sm:3' h='0' previd='x'/>", String::new()),
        (Role::Initiator, "<failed xmlns='urn:xmpp:sm:3'/>", String::new()),
    ] {
        let (romeo, juliet) = pair();
        let mut side = if role == Role::Initiator { romeo } else { juliet };
        side.reads(odd);
        assert_eq!(side.written(), answer, "{odd}");
        assert!(side.machine.is_open() && side.machine.acknowledges(), "{odd}");
    }
}

#[test]
fn questions_whose_answers_are_not_read_end_the_stream() {
    let (_, mut juliet) = pair();
    let many = R.repeat(1000);
    for _ in 0..100 {
        juliet.reads(&many);
    }
    assert_eq!(juliet.condition().to_string(), "policy-violation");
}

#[test]
fn without_an_offer_nothing_is_enabled() {
    let mut juliet = Side::open();
    juliet.reads(R.to_owned() + &a(7) + "<a xmlns='urn:xmpp:sm:3'/>");
    assert!(juliet.machine.is_open());
    assert_eq!(juliet.written(), "");
    for asked in [ENABLE, "<resume xmlns='urn:xmpp:sm:3' h='0' previd='x'/>"] {
        juliet.reads(asked);
        assert_eq!(juliet.written(), failed("feature-not-implemented"));
    }
    assert!(juliet.machine.is_open());
}
