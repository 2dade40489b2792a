//! Bytestreams that are lost, and streams that go on (XEP-0198 #resumption).

use std::{mem, time::Duration};

use futures::{FutureExt as _, channel::oneshot};
use tokio_xmpp::IqRequest;
use xmpp_parsers::ping::Ping;

use super::{
    acks::{R, a, body, managed, pair, pair_with, undelivered},
    support::{FOOTER, Side, exchange, header_with, message},
};
use crate::{
    Error, PeerMisbehaved, Reason, SignallingError, Step, Terminated,
    stream::machine::{
        Closer, Role, cut_off,
        management::{Plan, Resume},
    },
};

/// An initiator's and a responder's end of a new bytestream, on which the one has asked for the stream of `romeo`.
fn fresh(romeo: &mut Side) -> (Side, Side) {
    let mut setup = managed(Role::Initiator);
    setup.management = Plan::Resume(romeo.machine.resume_request().unwrap());
    let mut initiator = Side::new(setup);
    let mut setup = managed(Role::Responder);
    setup.management = Plan::AwaitResume;
    let mut responder = Side::new(setup);
    responder.reads(initiator.written());
    initiator.reads(responder.written());
    responder.reads(initiator.written());
    (initiator, responder)
}

fn adopt(side: &mut Side, fresh: Side) {
    let Side { machine, decoder, .. } = fresh;
    assert!(side.machine.adopt(side.now, machine).is_ok());
    side.decoder = decoder;
}

/// Both have lost the bytestream, and go on with another.
fn resume(romeo: &mut Side, juliet: &mut Side) {
    let (mut initiator, responder) = fresh(romeo);
    assert_eq!(responder.machine.asked_to_resume().unwrap().previd, "verona");
    adopt(juliet, responder);
    initiator.reads(juliet.written());
    assert!(initiator.machine.resumed_at().is_some());
    adopt(romeo, initiator);
}

fn lose(sides: [&mut Side; 2]) {
    for side in sides {
        side.written();
        side.machine.handle_end(cut_off());
        assert!(side.machine.suspension().is_some());
    }
}

fn heard(side: &mut Side) -> Vec<String> {
    std::iter::from_fn(|| side.machine.next_stanza()).map(|stanza| body(&stanza)).collect()
}

#[test]
fn what_was_lost_is_sent_again_and_nothing_else() {
    // Of three messages so many arrive, and so many are taken.
    for (arrive, taken) in [(0, 0), (1, 0), (1, 1), (2, 1), (3, 0), (3, 2), (3, 3)] {
        let (mut romeo, mut juliet) = pair();
        for (number, word) in ["one", "two", "three"].into_iter().enumerate() {
            romeo.says(word);
            let written = romeo.written();
            if number < arrive {
                juliet.reads(written);
            }
        }
        let mut all: Vec<String> = (0..taken).filter_map(|_| juliet.hears()).collect();
        lose([&mut romeo, &mut juliet]);
        resume(&mut romeo, &mut juliet);
        exchange(&mut romeo, &mut juliet);
        all.extend(heard(&mut juliet));
        assert_eq!(all, ["one", "two", "three"], "{arrive} {taken}");
        exchange(&mut romeo, &mut juliet);
        assert_eq!(romeo.machine.unacked(), 0, "{arrive} {taken}");
    }
}

#[test]
fn both_directions_go_on_across_many_resumptions() {
    let (mut romeo, mut juliet) = pair();
    let (mut to_juliet, mut to_romeo, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..40_usize {
        for (index, word) in ["a", "b", "c"].into_iter().enumerate() {
            let word = format!("{round}{word}");
            romeo.says(&word);
            juliet.says(&word);
            expected.push(word);
            let (there, back) = (romeo.written(), juliet.written());
            if index < round % 4 {
                juliet.reads(there);
            }
            if index < round % 3 {
                romeo.reads(back);
            }
        }
        for _ in 0..round % 5 {
            to_juliet.extend(juliet.hears());
            to_romeo.extend(romeo.hears());
        }
        lose([&mut romeo, &mut juliet]);
        resume(&mut romeo, &mut juliet);
        if round % 2 == 0 {
            exchange(&mut romeo, &mut juliet);
        } else {
            juliet.reads(romeo.written());
            juliet.written();
        }
    }
    lose([&mut romeo, &mut juliet]);
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    to_juliet.extend(heard(&mut juliet));
    to_romeo.extend(heard(&mut romeo));
    assert_eq!(to_juliet, expected);
    assert_eq!(to_romeo, expected);
}

#[test]
fn what_is_sent_meanwhile_goes_out_afterwards() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("before");
    lose([&mut romeo, &mut juliet]);
    assert!(!romeo.machine.check_room().unwrap(), "there is room later");
    assert!(romeo.machine.is_open() && !romeo.machine.is_over());
    romeo.says("meanwhile");
    assert_eq!(romeo.written(), "");
    let mark = romeo.machine.queued();
    resume(&mut romeo, &mut juliet);
    assert!(romeo.machine.queued() > mark, "what waits for it to be written waits no longer");
    assert!(romeo.machine.check_room().unwrap());
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut juliet), ["before", "meanwhile"]);
}

#[test]
fn requests_receipts_and_their_clocks_go_on() {
    let (mut romeo, mut juliet) = pair();
    let mut reply = romeo.machine.send_iq(romeo.now, IqRequest::Get(Ping.into())).unwrap();
    let mut late = romeo.machine.send_iq(romeo.now, IqRequest::Get(Ping.into())).unwrap();
    let (sender, mut receipt) = oneshot::channel();
    romeo.machine.send_for(romeo.now, message("important"), Some(sender)).unwrap();
    lose([&mut romeo, &mut juliet]);
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert!(matches!(reply.try_recv(), Ok(Some(Ok(_)))));
    assert!(matches!(late.try_recv(), Ok(Some(Ok(_)))));
    assert!(receipt.try_recv().unwrap().is_none());
    assert_eq!(heard(&mut juliet), ["important"]);
    exchange(&mut romeo, &mut juliet);
    assert!(matches!(receipt.try_recv(), Ok(Some(Ok(())))));

    let mut late = romeo.machine.send_iq(romeo.now, IqRequest::Get(Ping.into())).unwrap();
    lose([&mut romeo, &mut juliet]);
    romeo.after(Duration::from_secs(60));
    assert!(matches!(late.try_recv(), Ok(Some(Err(Error::Timeout(Step::Iq, _))))));
}

#[test]
fn a_cut_in_the_middle_of_the_answer_loses_nothing() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("to Juliet");
    juliet.says("to Romeo");
    lose([&mut romeo, &mut juliet]);
    let (mut initiator, responder) = fresh(&mut romeo);
    adopt(&mut juliet, responder);
    let answer = juliet.written();
    initiator.reads(&answer[..answer.len() / 4]);
    assert_eq!(initiator.machine.resumed_at(), None);
    // Juliet takes the stream for resumed, and has not noticed when Romeo comes again.
    assert!(juliet.machine.suspension().is_none());
    juliet.says("and more");
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut juliet), ["to Juliet"]);
    assert_eq!(heard(&mut romeo), ["to Romeo", "and more"]);
}

#[test]
fn what_follows_the_answer_in_one_piece_is_not_lost() {
    let (mut romeo, mut juliet) = pair();
    juliet.says("one");
    juliet.says("two");
    lose([&mut romeo, &mut juliet]);
    let (mut initiator, responder) = fresh(&mut romeo);
    adopt(&mut juliet, responder);
    let answer = juliet.written();
    assert!(answer.starts_with("<resumed xmlns='urn:xmpp:sm:3' "), "{answer}");
    assert!(answer.contains("one") && answer.contains("two"));
    initiator.reads(answer);
    assert!(initiator.machine.is_silent(), "no more is read before the stream is carried on");
    adopt(&mut romeo, initiator);
    assert_eq!(heard(&mut romeo), ["one", "two"]);
}

#[test]
fn a_count_that_is_too_high_ends_both() {
    let (mut romeo, mut juliet) = pair();
    juliet.says("one");
    lose([&mut romeo, &mut juliet]);
    let mut setup = managed(Role::Responder);
    setup.management = Plan::AwaitResume;
    let mut responder = Side::new(setup);
    responder.reads(header_with("version='1.0'"));
    responder.written();
    responder.reads("<resume xmlns='urn:xmpp:sm:3' h='2' previd='verona'/>");
    let fresh = mem::replace(&mut responder, Side::juliet()).machine;
    let mut fresh = juliet.machine.adopt(juliet.now, fresh).unwrap_err();
    let mut written = Vec::new();
    fresh.take_outgoing(&mut written);
    let written = String::from_utf8(written).unwrap();
    assert!(
        written.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='2' send-count='1'>"),
        "{written}"
    );
    assert!(written.ends_with("</stream:error></stream:stream>"), "{written}");
    assert!(matches!(fresh.error(), Some(Error::Stream(_))));
    assert_eq!(undelivered(&juliet), ["one"]);

    // The same in <resumed/>.
    romeo.says("one");
    let (mut initiator, _) = self::fresh(&mut romeo);
    initiator.reads("<resumed xmlns='urn:xmpp:sm:3' h='5' previd='verona'/>");
    assert!(romeo.machine.adopt(romeo.now, initiator.machine).is_err());
    assert_eq!(undelivered(&romeo), ["one"]);
}

#[test]
fn a_request_that_was_overtaken_by_a_later_one_is_known_by_its_count() {
    let (mut romeo, mut juliet) = pair();
    for text in ["one", "two"] {
        juliet.says(text);
    }
    lose([&mut romeo, &mut juliet]);
    let first = romeo.machine.resume_request().unwrap();
    resume(&mut romeo, &mut juliet);
    assert!(!juliet.machine.is_outdated(&first), "nothing has changed since");
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut romeo), ["one", "two"]);
    exchange(&mut romeo, &mut juliet);
    assert!(juliet.machine.is_outdated(&first));
    let now = romeo.machine.resume_request().unwrap();
    assert!(!juliet.machine.is_outdated(&now));
    assert!(!juliet.machine.is_outdated(&Resume { h: now.h + 1, ..now }), "that is too high, which is worse");
}

#[test]
fn an_initiator_that_is_said_to_be_elsewhere_finds_another_way() {
    const CONFLICT: &str =
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    let (mut romeo, mut juliet) = pair();
    romeo.says("one");
    romeo.written();
    romeo.reads(format!("{CONFLICT}{FOOTER}"));
    assert!(romeo.machine.suspension().is_some());
    assert_eq!(romeo.written(), "", "there is nobody to say goodbye to");
    juliet.machine.handle_end(cut_off());
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut juliet), ["one"]);

    // It is for the initiator to be elsewhere.
    let (_, mut juliet) = pair();
    juliet.reads(CONFLICT);
    assert!(matches!(juliet.machine.error(), Some(Error::Stream(_))));
}

#[test]
fn a_stream_that_the_peer_has_forgotten_is_refused() {
    let (mut romeo, _) = pair();
    romeo.says("one");
    romeo.written();
    romeo.machine.handle_end(cut_off());
    let (mut initiator, mut responder) = fresh(&mut romeo);
    responder.machine.refuse_resumption(responder.now);
    let refusal = responder.written();
    assert!(refusal.starts_with("<failed xmlns='urn:xmpp:sm:3'><item-not-found "), "{refusal}");
    assert!(refusal.ends_with(FOOTER));
    assert!(matches!(responder.machine.error(), Some(Error::NotResumed(_))));
    initiator.reads(refusal);
    let Some(Error::NotResumed(why)) = initiator.machine.error().cloned() else { panic!("resumed") };
    romeo.machine.give_up(Error::NotResumed(why));
    let Some(Error::Undelivered(error)) = romeo.machine.error() else { panic!("no error") };
    let Some(Error::NotResumed(not_resumed)) = error.cause() else { panic!("{error}") };
    assert!(matches!(*not_resumed.lost, Error::Transport(_)), "{not_resumed:?}");
    assert!(matches!(*not_resumed.why, Error::Terminated(_)), "{not_resumed:?}");
    assert_eq!(undelivered(&romeo), ["one"]);
}

#[test]
fn a_new_stream_may_take_the_place_of_a_forgotten_one() {
    let (mut romeo, mut juliet) = pair();
    juliet.says("unread");
    romeo.reads(juliet.written());
    romeo.says("lost");
    let reply = romeo.machine.send_iq(romeo.now, IqRequest::Get(Ping.into())).unwrap();
    lose([&mut romeo, &mut juliet]);
    let back = romeo.machine.hand_back();
    assert_eq!(back.iter().map(body).collect::<Vec<_>>(), ["lost"]);
    assert!(matches!(reply.now_or_never(), Some(Ok(Err(Error::NotResumed(_))))));
    romeo.says("meanwhile");

    let (fresh, mut juliet) = pair();
    let Side { machine, decoder, .. } = fresh;
    romeo.machine.begin_anew(romeo.now, machine);
    romeo.decoder = decoder;
    assert!(romeo.machine.suspension().is_none());
    romeo.says("anew");
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut juliet), ["meanwhile", "anew"]);
    juliet.says("hello");
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut romeo), ["unread", "hello"]);
    romeo.reads(R);
    assert!(romeo.written().ends_with(&a(1)));
}

#[test]
fn nobody_waits_for_ever() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("one");
    lose([&mut romeo, &mut juliet]);
    let until = romeo.machine.suspension().unwrap().until;
    assert_eq!(until, romeo.now + Duration::from_secs(300));
    romeo.after(Duration::from_secs(299));
    assert!(!romeo.machine.is_over());
    romeo.after(Duration::from_secs(1));
    assert_eq!(undelivered(&romeo), ["one"]);
    juliet.after(Duration::from_secs(300));
    assert!(matches!(juliet.machine.error(), Some(Error::NotResumed(_))));
}

#[test]
fn the_shorter_time_counts() {
    let mut times = [20, 300].into_iter().cycle();
    let mut romeo = managed(Role::Initiator);
    let mut juliet = managed(Role::Responder);
    for setup in [&mut romeo, &mut juliet] {
        if let Plan::Enable(enable) = &mut setup.management {
            enable.config.resumption = Duration::from_secs(times.next().unwrap());
        }
    }
    let (mut romeo, mut juliet) = (Side::new(romeo), Side::new(juliet));
    exchange(&mut romeo, &mut juliet);
    lose([&mut romeo, &mut juliet]);
    for side in [&romeo, &juliet] {
        assert_eq!(side.machine.suspension().unwrap().until, side.now + Duration::from_secs(20));
    }
}

#[test]
fn only_what_the_way_does_is_survived() {
    let ended = |reason| Error::Terminated(Terminated::new(reason, None));
    for (error, survives) in [
        (cut_off(), true),
        (Error::Signalling(SignallingError::Rebound), true),
        (Error::Timeout(Step::BlockAck, Duration::ZERO), true),
        (Error::Timeout(Step::Iq, Duration::ZERO), false),
        (PeerMisbehaved::Tls("bad record".to_owned()).into(), true),
        (PeerMisbehaved::Bytestream("seq".to_owned()).into(), true),
        (PeerMisbehaved::XmlStream("what".to_owned()).into(), false),
        (ended(Reason::ConnectivityError), true),
        (ended(Reason::FailedTransport), true),
        (ended(Reason::Timeout), true),
        (ended(Reason::Success), false),
        (ended(Reason::Cancel), false),
        (ended(Reason::SecurityError), false),
    ] {
        let (mut romeo, _) = pair();
        romeo.machine.handle_end(error.clone());
        assert_eq!(romeo.machine.suspension().is_some(), survives, "{error}");
        assert_eq!(romeo.machine.is_over(), !survives, "{error}");
    }
}

#[test]
fn where_one_side_wants_no_resumption_there_is_none() {
    for nobody in [Role::Initiator, Role::Responder] {
        let (mut romeo, mut juliet) = pair_with(|setup| {
            if setup.role == nobody
                && let Plan::Enable(enable) = &mut setup.management
            {
                enable.id = None;
            }
        });
        for side in [&mut romeo, &mut juliet] {
            assert!(!side.machine.is_resumable());
            side.says("lost");
            side.machine.handle_end(cut_off());
            assert_eq!(undelivered(side), ["lost"]);
        }
    }
}

#[test]
fn a_bytestream_that_stands_still_goes_on_as_it_was() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("before");
    romeo.machine.stall(romeo.now, Error::Signalling(SignallingError::Offline));
    assert!(romeo.machine.suspension().is_some());
    romeo.says("meanwhile");
    // A word that was under way.
    romeo.reads("<message><body>late</body></message>");
    assert!(romeo.machine.suspension().is_some());
    romeo.machine.unstall(romeo.now);
    assert!(romeo.machine.suspension().is_none());
    juliet.reads(romeo.written());
    assert_eq!(heard(&mut juliet), ["before", "meanwhile"]);
    assert_eq!(heard(&mut romeo), ["late"]);
}

#[test]
fn a_close_without_a_bytestream_waits_a_little_and_then_goes_through() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("last");
    lose([&mut romeo, &mut juliet]);
    romeo.machine.close(romeo.now);
    assert_eq!(romeo.machine.suspension().unwrap().until, romeo.now + Duration::from_secs(10));
    assert!(romeo.machine.check_open().is_err());
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut juliet), ["last"]);
    assert_eq!(romeo.machine.closed_by(), Some(Closer::Us));
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))));

    let (mut romeo, mut juliet) = pair();
    romeo.says("last");
    lose([&mut romeo, &mut juliet]);
    romeo.machine.close(romeo.now);
    romeo.after(Duration::from_secs(10));
    assert_eq!(undelivered(&romeo), ["last"]);
}

#[test]
fn a_bytestream_lost_while_closing_is_resumed_only_for_what_is_not_acknowledged() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("last");
    romeo.machine.close(romeo.now);
    lose([&mut romeo, &mut juliet]);
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(romeo.machine.closed_by(), Some(Closer::Us));
    assert_eq!(heard(&mut juliet), ["last"]);

    let (mut romeo, _) = pair();
    romeo.machine.close(romeo.now);
    romeo.machine.handle_end(cut_off());
    assert!(matches!(romeo.machine.error(), Some(Error::Transport(_))));
}

#[test]
fn a_close_does_not_last_for_as_long_as_somebody_lets_it_be_resumed_and_cuts_it_off() {
    let (mut romeo, mut juliet) = pair();
    romeo.says("last");
    romeo.machine.close(romeo.now);
    for _ in 0..5 {
        lose([&mut romeo, &mut juliet]);
        resume(&mut romeo, &mut juliet);
    }
    romeo.machine.handle_end(cut_off());
    assert_eq!(undelivered(&romeo), ["last"]);

    // What the peer acknowledges on the way is worth the wait.
    let (mut romeo, mut juliet) = pair();
    let texts: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    for text in &texts {
        romeo.says(text);
    }
    romeo.machine.close(romeo.now);
    for text in &texts {
        lose([&mut romeo, &mut juliet]);
        resume(&mut romeo, &mut juliet);
        juliet.reads(romeo.written().trim_end_matches(FOOTER));
        assert_eq!(juliet.machine.next_stanza().map(|stanza| body(&stanza)).as_ref(), Some(text));
    }
}

#[test]
fn what_the_peer_was_told_at_a_goodbye_is_not_taken_back() {
    let (mut romeo, mut juliet) = pair();
    juliet.says("not taken yet");
    romeo.reads(juliet.written());
    romeo.says("last");
    // He closes his half and goes on receiving. The cut comes in front of his footer.
    romeo.machine.close(romeo.now);
    let goodbye = romeo.written();
    juliet.reads(goodbye.strip_suffix(FOOTER).unwrap());
    assert_eq!(juliet.machine.unacked(), 0);
    lose([&mut romeo, &mut juliet]);
    resume(&mut romeo, &mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(heard(&mut romeo), ["not taken yet"]);
    assert_eq!(heard(&mut juliet), ["last"]);
    assert!(matches!(romeo.machine.outcome(), Some(Ok(()))));
}

#[test]
fn on_a_stream_for_resumption_nothing_else_is_said() {
    for other in ["<message/>", "<enable xmlns='urn:xmpp:sm:3'/>", "<resume xmlns='urn:xmpp:sm:3'/>"] {
        let mut setup = managed(Role::Responder);
        setup.management = Plan::AwaitResume;
        let mut responder = Side::new(setup);
        responder.reads(header_with("version='1.0'") + other);
        assert_eq!(responder.condition().to_string(), "policy-violation", "{other}");
        assert!(responder.machine.next_stanza().is_none());
    }
    for other in ["<message/>", "<resumed xmlns='urn:xmpp:sm:3' h='0' previd='padua'/>"] {
        let (mut romeo, _) = pair();
        romeo.machine.handle_end(cut_off());
        let (mut initiator, _) = fresh(&mut romeo);
        initiator.reads(other);
        assert_eq!(initiator.condition().to_string(), "policy-violation", "{other}");
    }
}

#[test]
fn a_peer_that_has_lost_all_of_stream_management_can_not_resume() {
    for features in ["<stream:features/>", "<message/>"] {
        let mut setup = managed(Role::Initiator);
        setup.management = Plan::Resume(Resume { previd: "verona".to_owned(), h: 0 });
        let mut initiator = Side::new(setup);
        initiator.reads(header_with("version='1.0'") + features);
        assert!(matches!(initiator.machine.error(), Some(Error::NotResumed(_))), "{features}");
        assert!(initiator.machine.next_stanza().is_none());
    }
}

#[test]
fn a_close_on_a_bytestream_that_stands_still_gets_no_more_time_when_that_is_lost() {
    let (mut romeo, _) = pair();
    romeo.says("not acknowledged");
    romeo.machine.stall(romeo.now, Error::Signalling(SignallingError::Offline));
    romeo.machine.close(romeo.now);
    let until = romeo.machine.suspension().unwrap().until;
    assert_eq!(until, romeo.now + Duration::from_secs(10));
    romeo.after(Duration::from_secs(9));
    romeo.machine.handle_end(Error::Signalling(SignallingError::Rebound));
    assert_eq!(romeo.machine.suspension().unwrap().until, until);
}
