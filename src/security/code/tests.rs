//! Two ends and somebody in between.

use std::fs;

use xmpp_parsers::minidom::Element;

use super::*;
use crate::{error::SecurityError, security::Fingerprint, wire::code::CodeElement};

fn key(byte: u8) -> CodeKey {
    CodeKey(Zeroizing::new([byte; 32]))
}

fn basis(key_byte: u8, initiator: &[u8], responder: &[u8]) -> Basis {
    let certificate = Certificate::from_der;
    Basis { key: key(key_byte), initiator: certificate(initiator), responder: certificate(responder) }
}

/// Both ends of one TLS connection.
fn pair(basis: &Basis) -> (Exchange, Exchange) {
    (Exchange::initiator(basis.clone()), Exchange::responder(basis.clone()))
}

fn result(answer: Result<Answer, &'static str>) -> Option<CodeElement> {
    answer.unwrap().result
}

fn code(exchange: &Exchange) -> VerificationCode {
    exchange.outcome().expect("it is over").unwrap()
}

fn failure(exchange: &Exchange) -> String {
    match exchange.outcome() {
        Some(Err(SecurityError::NoCode(why))) => why,
        other => panic!("{other:?}"),
    }
}

/// Carries the iqs of an exchange that the initiator begins.
fn run(initiator: &mut Exchange, responder: &mut Exchange) {
    let mut next = initiator.begin();
    while let Some(request) = next {
        next = initiator.handle_result(result(responder.handle_request(request)));
    }
}

#[test]
fn both_show_the_same_whoever_asks_first() {
    let basis = basis(1, b"romeo", b"juliet");
    let (mut romeo, mut juliet) = pair(&basis);
    run(&mut romeo, &mut juliet);
    assert_eq!(code(&romeo), code(&juliet));

    let (mut romeo, mut juliet) = pair(&basis);
    assert_eq!(juliet.begin(), Some(CodeElement::Request));
    let Answer { result: None, then: Some(commitment) } = romeo.handle_request(CodeElement::Request).unwrap()
    else {
        panic!("the initiator should begin")
    };
    assert_eq!(juliet.handle_result(None), None, "the request was heard");
    let reveal = romeo.handle_result(result(juliet.handle_request(commitment))).unwrap();
    assert_eq!(romeo.handle_result(result(juliet.handle_request(reveal))), None);
    assert_eq!(code(&romeo), code(&juliet));
}

#[test]
fn both_may_ask_at_the_same_time() {
    let (mut romeo, mut juliet) = pair(&basis(1, b"romeo", b"juliet"));
    let (commitment, request) = (romeo.begin().unwrap(), juliet.begin().unwrap());
    assert_eq!(romeo.handle_request(request), Ok(Answer { result: None, then: None }));
    let nonce = result(juliet.handle_request(commitment));
    // Its answer comes when the exchange is on its way, and even a refusal changes nothing.
    juliet.handle_refusal("no".to_owned());
    let reveal = romeo.handle_result(nonce).unwrap();
    romeo.handle_result(result(juliet.handle_request(reveal)));
    assert_eq!(code(&romeo), code(&juliet));
}

#[test]
fn asking_again_begins_nothing_and_each_stream_has_another_code() {
    let basis = basis(1, b"romeo", b"juliet");
    let (mut romeo, mut juliet) = pair(&basis);
    assert!(romeo.begin().is_some());
    assert_eq!(romeo.begin(), None);
    assert_eq!(juliet.begin(), Some(CodeElement::Request));
    assert_eq!(juliet.begin(), None);

    let (mut romeo, mut juliet) = pair(&basis);
    run(&mut romeo, &mut juliet);
    assert_eq!(romeo.begin(), None);
    let (mut later, mut peer) = pair(&basis);
    run(&mut later, &mut peer);
    assert_ne!(code(&romeo), code(&later), "1 in 10^12");
}

#[test]
fn a_code_is_to_be_confirmed_only_when_it_was_shown() {
    let (mut romeo, mut juliet) = pair(&basis(1, b"romeo", b"juliet"));
    romeo.handle_shown();
    run(&mut romeo, &mut juliet);
    assert!(!romeo.is_shown());
    romeo.handle_shown();
    assert!(romeo.is_shown());
    assert!(!juliet.is_shown());
    assert_eq!(code(&romeo), code(&juliet));
}

/// Somebody has one TLS connection with each of them, and passes on what they say.
#[test]
fn the_codes_differ_where_somebody_relays_the_exchange() {
    let mut romeo = Exchange::initiator(basis(1, b"romeo", b"mallory"));
    let mut juliet = Exchange::responder(basis(2, b"mallory", b"juliet"));
    run(&mut romeo, &mut juliet);
    assert_ne!(code(&romeo), code(&juliet), "1 in 10^12");
}

/// Or takes part in both himself.
#[test]
fn the_codes_differ_where_somebody_exchanges_nonces_of_his_own() {
    let (mut romeo, mut mallory) = pair(&basis(1, b"romeo", b"mallory"));
    run(&mut romeo, &mut mallory);
    let (mut mallory, mut juliet) = pair(&basis(2, b"mallory", b"juliet"));
    run(&mut mallory, &mut juliet);
    assert_ne!(code(&romeo), code(&juliet), "1 in 10^12");
}

/// Each of them sends back what the other one said about itself.
#[test]
fn the_roles_are_part_of_the_code() {
    let (ours, theirs) = (Nonce([3; LENGTH]), Nonce([4; LENGTH]));
    let code = basis(1, b"romeo", b"juliet").code(&ours, &theirs);
    assert_ne!(code, basis(1, b"juliet", b"romeo").code(&ours, &theirs));
    assert_ne!(code, basis(1, b"romeo", b"juliet").code(&theirs, &ours));
    assert_ne!(code, basis(2, b"romeo", b"juliet").code(&ours, &theirs));
}

/// Nonces that an attacker can try, each another one.
fn tries(count: u32) -> impl Iterator<Item = Nonce> {
    (0..count).map(|number| {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Nonce(bytes)
    })
}

/// What a code would be that has three digits, so that it can be hit in a test.
fn short(code: &VerificationCode) -> String {
    code.to_string()[..3].to_owned()
}

/// Mallory shows Romeo a code already, and wants Juliet to see the same. What he can choose is the nonce that he reveals to her.
#[test]
fn whoever_could_choose_a_nonce_after_seeing_the_other_hits_a_short_code() {
    let with_romeo = basis(1, b"romeo", b"mallory").code(&Nonce([3; LENGTH]), &Nonce([4; LENGTH])).unwrap();
    let with_juliet = basis(2, b"mallory", b"juliet");
    let juliets = Nonce([5; LENGTH]);
    let hit = |nonce: &Nonce| short(&with_juliet.code(nonce, &juliets).unwrap()) == short(&with_romeo);
    assert!(tries(10_000).any(|nonce| hit(&nonce)), "without a commitment there would be a match");
}

#[test]
fn the_commitment_forbids_to_choose_and_ends_the_matter() {
    let with_romeo = basis(1, b"romeo", b"mallory").code(&Nonce([3; LENGTH]), &Nonce([4; LENGTH])).unwrap();
    let with_juliet = basis(2, b"mallory", b"juliet");
    let mut juliet = Exchange::responder(with_juliet.clone());

    let promised = Nonce([6; LENGTH]);
    let Some(CodeElement::Nonce(juliets)) =
        result(juliet.handle_request(CodeElement::Commitment(promised.commitment().0)))
    else {
        panic!("no nonce")
    };
    let hit = |nonce: &Nonce| short(&with_juliet.code(nonce, &Nonce(juliets)).unwrap()) == short(&with_romeo);
    let wanted = tries(100_000).find(hit).expect("there is a nonce that would do");

    assert!(juliet.handle_request(CodeElement::Reveal(wanted.0)).is_err());
    let why = failure(&juliet);
    assert!(why.contains("somebody may be in between"), "{why}");
    // Nor is there a second try, not even with what was promised.
    assert!(juliet.handle_request(CodeElement::Reveal(promised.0)).is_err());
    assert!(juliet.handle_request(CodeElement::Commitment(promised.commitment().0)).is_err());
    assert_eq!(failure(&juliet), why);
    assert_eq!(juliet.begin(), None);
}

#[test]
fn a_second_commitment_is_refused_and_the_first_one_stands() {
    let (mut romeo, mut juliet) = pair(&basis(1, b"romeo", b"juliet"));
    let nonce = result(juliet.handle_request(romeo.begin().unwrap()));
    let another = CodeElement::Commitment(Nonce([7; LENGTH]).commitment().0);
    assert!(juliet.handle_request(another.clone()).is_err());
    let reveal = romeo.handle_result(nonce).unwrap();
    romeo.handle_result(result(juliet.handle_request(reveal)));
    assert!(juliet.handle_request(another).is_err());
    assert_eq!(code(&romeo), code(&juliet));
}

#[test]
fn what_comes_out_of_turn_is_refused_and_yields_nothing() {
    let (mut romeo, mut juliet) = pair(&basis(1, b"romeo", b"juliet"));
    let nonce = [7; LENGTH];
    assert_eq!(juliet.handle_request(CodeElement::Reveal(nonce)), Err("there is no commitment"));
    assert!(juliet.handle_request(CodeElement::Request).is_err(), "the responder does not begin");
    for element in [CodeElement::Commitment(nonce), CodeElement::Reveal(nonce), CodeElement::Nonce(nonce)] {
        assert!(romeo.handle_request(element).is_err(), "the initiator commits itself");
    }
    assert_eq!((romeo.outcome(), juliet.outcome()), (None, None));
    run(&mut romeo, &mut juliet);
    assert_eq!(code(&romeo), code(&juliet));
    assert!(romeo.handle_request(CodeElement::Request).is_err(), "there is a code");
}

#[test]
fn an_answer_to_the_commitment_that_is_no_nonce_is_the_end() {
    for answer in [None, Some(CodeElement::Request)] {
        let (mut romeo, _) = pair(&basis(1, b"romeo", b"juliet"));
        romeo.begin();
        assert_eq!(romeo.handle_result(answer), None);
        assert!(failure(&romeo).contains("nonce"));
        assert!(romeo.handle_request(CodeElement::Request).is_err());
    }
}

#[test]
fn the_initiator_shows_nothing_before_the_responder_agrees() {
    let (mut romeo, mut juliet) = pair(&basis(1, b"romeo", b"juliet"));
    let nonce = result(juliet.handle_request(romeo.begin().unwrap()));
    assert!(romeo.handle_result(nonce).is_some());
    assert_eq!(romeo.outcome(), None);
    romeo.handle_refusal("not-allowed".to_owned());
    assert!(failure(&romeo).contains("somebody may be in between"));
    romeo.give_up("the peer did not do its part in time");
    assert!(failure(&romeo).contains("not-allowed"), "the first reason stands");
}

#[test]
fn secrets_are_not_shown_in_logs() {
    let (mut romeo, _) = pair(&basis(1, b"romeo", b"juliet"));
    romeo.begin();
    let shown = format!("{romeo:?}");
    assert!(shown.contains("CodeKey(…)") && shown.contains("Nonce(…)"), "{shown}");
}

#[test]
fn a_code_has_twelve_digits_in_groups_of_four() {
    assert_eq!(VerificationCode::new([0; WIDE]).to_string(), "0000 0000 0000");
    assert_eq!(VerificationCode::new(7_u128.to_be_bytes()).to_string(), "0000 0000 0007");
    let wide = 98_765_432_101_234_567_890_u128;
    assert_eq!(VerificationCode::new(wide.to_be_bytes()).to_string(), "1012 3456 7890");
}

/// `fixtures/verification-code/make.py` computes them anew.
#[test]
fn the_vectors_hold() {
    let path = format!("{}/fixtures/verification-code/vectors.xml", env!("CARGO_MANIFEST_DIR"));
    let vectors: Element = fs::read_to_string(path).unwrap().parse().unwrap();
    let mut count = 0;
    for vector in vectors.children() {
        let of = |name: &str| {
            let hex = vector.children().find(|child| child.name() == name).unwrap().text();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>()
        };
        let array = |name: &str| <[u8; LENGTH]>::try_from(of(name)).unwrap();
        let (initiator, responder) = (of("initiator-certificate"), of("responder-certificate"));
        assert_eq!(Fingerprint::of(&initiator).as_bytes(), of("initiator-fingerprint"));
        assert_eq!(Fingerprint::of(&responder).as_bytes(), of("responder-fingerprint"));
        let basis = Basis {
            key: CodeKey(Zeroizing::new(array("key"))),
            initiator: Certificate::from_der(&initiator),
            responder: Certificate::from_der(&responder),
        };
        let nonce = Nonce(array("initiator-nonce"));
        assert_eq!(nonce.commitment().0, array("commitment"));
        let code = basis.code(&nonce, &Nonce(array("responder-nonce"))).unwrap();
        assert_eq!(Some(code.to_string().as_str()), vector.attr("code"));
        count += 1;
    }
    assert_eq!(count, 3);
}
