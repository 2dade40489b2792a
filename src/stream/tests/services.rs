//! What an encrypted stream answers by itself: verification codes, certificates.

use std::time::Duration;

use futures::channel::oneshot;
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, minidom::Element, stanza::Stanza};
use zeroize::Zeroizing;

use super::support::{FOOTER, JULIET, ROMEO, Side, exchange, setup};
use crate::{
    ApiMisuse, Error, SecurityError, Timeouts,
    security::{Certificate, VerificationCode, code::CodeKey, pubkeys},
    stream::machine::{Channel, Role, Setup},
    wire::ns,
};

const ROMEOS: &[u8] = b"Romeo's certificate";
const JULIETS: &[u8] = b"Juliet's certificate";

type CodeReceiver = oneshot::Receiver<Result<VerificationCode, Error>>;

/// One end of a TLS connection.
fn channel(key: u8, own: &[u8], peer: &[u8]) -> Option<Channel> {
    let (own, peer) = (Certificate::from_der(own), Certificate::from_der(peer));
    Some(Channel { code_key: CodeKey(Zeroizing::new([key; 32])), own, peer })
}

fn romeo(key: u8, peer: &[u8]) -> Side {
    let setup = quiet(setup(Role::Initiator, Some(ROMEO), Some(JULIET)));
    Side::new(Setup { channel: channel(key, ROMEOS, peer), ..setup })
}

fn juliet(key: u8, peer: &[u8]) -> Side {
    let setup = quiet(setup(Role::Responder, Some(JULIET), Some(ROMEO)));
    Side::new(Setup { channel: channel(key, JULIETS, peer), ..setup })
}

/// Nothing is said but by these tests.
fn quiet(mut setup: Setup) -> Setup {
    (setup.timeouts.keep_alive, setup.timeouts.probe) = (Duration::ZERO, Duration::ZERO);
    setup
}

/// Two ends of an encrypted stream that is open.
fn pair() -> (Side, Side) {
    let (mut romeo, mut juliet) = (romeo(1, JULIETS), juliet(1, ROMEOS));
    exchange(&mut romeo, &mut juliet);
    (romeo, juliet)
}

fn wish(side: &mut Side) -> CodeReceiver {
    side.machine.verification_code(side.now).unwrap()
}

fn code(wish: &mut CodeReceiver) -> VerificationCode {
    wish.try_recv().unwrap().expect("it is over").unwrap()
}

fn failure(wish: &mut CodeReceiver) -> String {
    match wish.try_recv().unwrap() {
        Some(Err(Error::Security(SecurityError::NoCode(why)))) => why,
        other => panic!("{other:?}"),
    }
}

fn no_code(result: Result<CodeReceiver, Error>) -> String {
    match result {
        Err(Error::Security(SecurityError::NoCode(why))) => why,
        other => panic!("{other:?}"),
    }
}

/// A request of these codes, with or without text.
fn request(kind: &str, name: &str, text: &str) -> String {
    format!("<iq type='{kind}' id='a'><{name} xmlns='{}'>{text}</{name}></iq>", ns::VERIFICATION_CODE)
}

/// The id of the only iq that was written, and all of it.
fn asked(side: &mut Side) -> (String, String) {
    let written = side.written();
    assert_eq!(written.matches("<iq ").count(), 1, "{written}");
    let (_, rest) = written.split_once(" id='").unwrap();
    (rest.split_once('\'').unwrap().0.to_owned(), written)
}

#[track_caller]
fn assert_refused(side: &mut Side, condition: &str) {
    let written = side.written();
    assert!(written.contains("type='error'") && written.contains(&format!("<{condition} ")), "{written}");
    assert!(side.machine.next_stanza().is_none(), "nothing for the user");
}

#[test]
fn both_users_get_the_same_code_whoever_asks() {
    for asks in [[true, false], [false, true], [true, true]] {
        let (mut romeo, mut juliet) = pair();
        if asks[0] {
            drop(wish(&mut romeo));
        }
        if asks[1] {
            drop(wish(&mut juliet));
        }
        exchange(&mut romeo, &mut juliet);
        // The code is there at once, and it is the same for all who ask later.
        let (mut romeos, mut juliets) = (wish(&mut romeo), wish(&mut juliet));
        assert_eq!(code(&mut romeos), code(&mut juliets));
        assert_eq!((romeo.written(), juliet.written()), (String::new(), String::new()));
        assert!(romeo.machine.next_stanza().is_none() && juliet.machine.next_stanza().is_none());
    }
}

#[test]
fn all_who_wait_get_it_and_a_wish_that_was_dropped_is_not_begun_anew() {
    let (mut romeo, mut juliet) = pair();
    drop(wish(&mut romeo));
    let (mut one, mut other) = (wish(&mut romeo), wish(&mut romeo));
    let (_, commitment) = asked(&mut romeo);
    assert!(one.try_recv().unwrap().is_none());
    juliet.reads(commitment);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(code(&mut one), code(&mut other));
}

#[test]
fn it_works_while_nobody_receives() {
    let (mut romeo, mut juliet) = pair();
    romeo.machine.stop_receiving(romeo.now);
    juliet.machine.stop_receiving(juliet.now);
    let mut wished = wish(&mut juliet);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(code(&mut wished), code(&mut wish(&mut romeo)));
}

#[test]
fn requests_of_the_users_own_are_left_alone() {
    let (mut romeo, mut juliet) = pair();
    let version = || IqRequest::Get(Element::builder("query", "jabber:iq:version").build());
    let mut before = romeo.machine.send_iq(romeo.now, version()).unwrap();
    let mut wished = wish(&mut romeo);
    let mut after = romeo.machine.send_iq(romeo.now, version()).unwrap();
    exchange(&mut romeo, &mut juliet);
    assert_eq!(code(&mut wished), code(&mut wish(&mut juliet)));
    for reply in [&mut before, &mut after] {
        let Some(Stanza::Iq(asked)) = juliet.machine.next_stanza() else { panic!("lost") };
        let result = Iq::Result { from: None, to: None, id: asked.id().to_owned(), payload: None };
        juliet.machine.send(juliet.now, Stanza::Iq(result)).unwrap();
        exchange(&mut romeo, &mut juliet);
        assert!(matches!(reply.try_recv().unwrap(), Some(Ok(IqResponse::Result(None)))));
    }
}

/// Mallory has a TLS connection with each, and carries what they say from one to the other.
#[test]
fn somebody_who_relays_all_that_is_said_makes_the_codes_differ() {
    let (mut romeo, mut juliet) = (romeo(1, b"Mallory's"), juliet(2, b"Mallory's"));
    exchange(&mut romeo, &mut juliet);
    let (mut romeos, mut juliets) = (wish(&mut romeo), wish(&mut juliet));
    exchange(&mut romeo, &mut juliet);
    assert_ne!(code(&mut romeos), code(&mut juliets), "1 in 10^12");
}

#[test]
fn a_wrong_reveal_is_refused_and_there_is_no_code_for_good() {
    let (_, mut juliet) = pair();
    let mut wished = wish(&mut juliet);
    juliet.written();
    let (promised, another) = ("A".repeat(43) + "=", "B".repeat(42) + "A=");
    juliet.reads(request("set", "commitment", &promised));
    assert!(juliet.written().contains("<nonce "));
    juliet.reads(request("set", "reveal", &another));
    assert_refused(&mut juliet, "not-allowed");
    assert!(failure(&mut wished).contains("somebody may be in between"));
    assert!(failure(&mut wish(&mut juliet)).contains("somebody may be in between"));
    juliet.reads(request("set", "commitment", &promised));
    assert_refused(&mut juliet, "not-allowed");
    assert!(juliet.machine.is_open(), "the stream goes on");
}

#[test]
fn what_is_not_part_of_the_exchange_is_refused() {
    let nonce = "A".repeat(43) + "=";
    for (kind, name, text, condition) in [
        ("set", "reveal", nonce.as_str(), "not-allowed"),
        ("get", "request", "", "not-allowed"),
        ("set", "request", "", "bad-request"),
        ("get", "commitment", &nonce, "bad-request"),
        ("set", "nonce", &nonce, "bad-request"),
        ("set", "commitment", "QUJD", "bad-request"),
        ("set", "cipher", "", "bad-request"),
    ] {
        let (_, mut juliet) = pair();
        juliet.reads(request(kind, name, text));
        assert_refused(&mut juliet, condition);
    }
    let (mut romeo, _) = pair();
    romeo.reads(request("set", "commitment", &nonce));
    assert_refused(&mut romeo, "not-allowed");
}

#[test]
fn a_reveal_of_another_length_is_a_bad_request() {
    let (_, mut juliet) = pair();
    juliet.reads(request("set", "commitment", &("A".repeat(43) + "=")));
    juliet.written();
    juliet.reads(request("set", "reveal", "QUJD"));
    assert_refused(&mut juliet, "bad-request");
}

#[test]
fn a_peer_that_does_not_know_of_codes_is_named() {
    for condition in ["service-unavailable", "feature-not-implemented"] {
        let (mut romeo, mut juliet) = pair();
        for side in [&mut romeo, &mut juliet] {
            let mut wished = wish(side);
            let (id, _) = asked(side);
            side.reads(format!(
                "<iq type='error' id='{id}'><error type='cancel'>\
                 <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            ));
            assert_eq!(failure(&mut wished), "the peer does not know of codes");
        }
    }
}

#[test]
fn an_answer_that_makes_no_sense_ends_the_waiting() {
    for answer in ["", "<nonce xmlns='urn:example'/>", "<a xmlns='b'/><a xmlns='b'/>"] {
        let (mut romeo, _) = pair();
        let mut wished = wish(&mut romeo);
        let (id, _) = asked(&mut romeo);
        romeo.reads(format!("<iq type='result' id='{id}'>{answer}</iq>"));
        let why = failure(&mut wished);
        assert!(why.contains("nonce") || why.contains("can't be read"), "{why}");
        assert!(romeo.machine.next_stanza().is_none());
    }
}

#[test]
fn a_peer_that_does_not_go_on_is_waited_for_as_long_as_for_an_iq() {
    let limit = Timeouts::default().iq;
    let (mut romeo, mut juliet) = pair();
    for side in [&mut romeo, &mut juliet] {
        let mut wished = wish(side);
        side.written();
        assert_eq!(side.machine.poll_timeout(), Some(side.now + limit));
        side.after(limit - Duration::from_millis(1));
        assert!(wished.try_recv().unwrap().is_none());
        side.after(Duration::from_millis(1));
        assert_eq!(failure(&mut wished), "the peer did not do its part in time");
        assert_eq!(side.machine.poll_timeout(), None, "once");
    }
}

#[test]
fn the_end_of_the_stream_is_the_end_of_the_waiting() {
    let (mut romeo, mut juliet) = pair();
    let mut wished = wish(&mut romeo);
    romeo.reads(FOOTER);
    assert!(matches!(wished.try_recv().unwrap(), Some(Err(Error::ApiMisuse(ApiMisuse::StreamClosed)))));
    assert!(matches!(
        romeo.machine.verification_code(romeo.now),
        Err(Error::ApiMisuse(ApiMisuse::StreamClosed))
    ));
    let mut wished = wish(&mut juliet);
    juliet.reads("<!---->");
    assert!(matches!(wished.try_recv().unwrap(), Some(Err(Error::Stream(_)))));
}

#[test]
fn a_reply_that_comes_while_we_close_is_not_gone_on_with() {
    let (mut romeo, mut juliet) = pair();
    let mut wished = wish(&mut romeo);
    juliet.reads(romeo.written());
    romeo.machine.close(romeo.now);
    romeo.reads(juliet.written());
    assert_eq!(failure(&mut wished), "the stream is being closed");
    assert_eq!(romeo.written(), FOOTER);
}

#[test]
fn a_code_is_to_be_confirmed_only_when_the_user_has_it() {
    let (mut romeo, mut juliet) = pair();
    assert!(romeo.machine.check_code_shown().is_err());
    drop(wish(&mut romeo));
    exchange(&mut romeo, &mut juliet);
    assert!(romeo.machine.check_code_shown().is_err(), "the user did not wait for it");
    code(&mut wish(&mut romeo));
    romeo.machine.handle_code_shown();
    assert_eq!(romeo.machine.check_code_shown(), Ok(()));
    assert!(juliet.machine.check_code_shown().is_err());
}

#[test]
fn without_encryption_there_is_neither_code_nor_certificate() {
    let mut juliet = Side::open();
    let why = no_code(juliet.machine.verification_code(juliet.now));
    assert_eq!(why, "the stream is not encrypted");
    assert!(juliet.machine.check_code_shown().is_err());
    juliet.reads(request("get", "request", ""));
    assert_refused(&mut juliet, "service-unavailable");
    for namespace in [ns::PUBKEY_TMP, ns::PUBKEY] {
        juliet.reads(format!("<iq type='get' id='a'><pubkeys xmlns='{namespace}'/></iq>"));
        assert_refused(&mut juliet, "not-allowed");
    }
}

#[test]
fn our_certificate_is_told_in_the_namespace_in_which_it_was_asked_for() {
    for namespace in [ns::PUBKEY_TMP, ns::PUBKEY] {
        let (mut romeo, mut juliet) = pair();
        juliet.machine.stop_receiving(juliet.now);
        let pubkeys = IqRequest::Get(Element::bare("pubkeys", namespace));
        let mut reply = romeo.machine.send_iq(romeo.now, pubkeys).unwrap();
        exchange(&mut romeo, &mut juliet);
        let Some(Ok(IqResponse::Result(Some(answer)))) = reply.try_recv().unwrap() else {
            panic!("no answer")
        };
        assert!(answer.is("pubkeys", namespace));
        let certificate = Certificate::from_der(JULIETS);
        assert_eq!(pubkeys::certificates(Some(&answer), &certificate), Ok(vec![certificate]));
    }
}
