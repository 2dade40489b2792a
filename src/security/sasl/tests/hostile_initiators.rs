//! What a responder must not take.

use super::{by_hand::Client, *};

/// What is refused in the first message, and how.
fn refused_first(client_first: &[u8]) -> (&'static str, String) {
    let refusal = responder(SCRAM[1], &secret(), &binding(1)).step(client_first).unwrap_err();
    let why = why(&refusal.error);
    (refusal.condition, why.strip_prefix("SASL with romeo@montague.lit: ").expect(&why).to_owned())
}

/// What is refused in the last message, which is made of an honest one, and how.
fn refused_last(change: impl FnOnce(String) -> Vec<u8>) -> Refusal {
    let romeo = Client::honest(SCRAM[1]);
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = String::from_utf8(challenge(juliet.step(romeo.first().as_bytes()))).unwrap();
    juliet.step(&change(romeo.last(&server_first))).unwrap_err()
}

#[test]
fn a_proof_that_is_not_bound_to_tls_is_refused() {
    let bound = "expected a proof that is bound to the TLS connection by tls-exporter, and";
    for (flag, condition, came) in [
        (
            "y",
            "mechanism-too-weak",
            "the peer takes us for unable to bind it, which we announced: somebody removed that from what we sent, \
             or its program is at fault",
        ),
        ("n", "mechanism-too-weak", "it is bound to nothing: the peer's program has to support it"),
        (
            "p=tls-unique",
            "malformed-request",
            "it is bound by \"tls-unique\": the peer's program has to support this one",
        ),
        (
            "p=tls-server-end-point",
            "malformed-request",
            "it is bound by \"tls-server-end-point\": the peer's program has to support this one",
        ),
        (
            "p=tls-exporter2",
            "malformed-request",
            "it is bound by \"tls-exporter2\": the peer's program has to support this one",
        ),
        ("p=", "malformed-request", "it is bound by \"\": the peer's program has to support this one"),
    ] {
        let refused = refused_first(format!("{flag},,n={PEER},r=abc").as_bytes());
        assert_eq!(refused, (condition, format!("{bound} {came}")));
    }
}

#[test]
fn who_changes_the_flag_of_a_proof_on_the_way_is_refused() {
    // In between, tls-exporter is put in where the initiator said that it has no binding.
    let honest = Client { gs2_header: "n,,", ..Client::honest(SCRAM[1]) };
    let changed = honest.first().replacen("n,,", "p=tls-exporter,,", 1);
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = String::from_utf8(challenge(juliet.step(changed.as_bytes()))).unwrap();
    let refusal = juliet.step(honest.last(&server_first).as_bytes()).unwrap_err();
    assert_eq!(refusal.error, SecurityError::ChannelBinding { peer: peer() });
}

#[test]
fn only_the_peer_itself_can_prove_to_be_the_peer() {
    for name in [PEER, "romeo", "Romeo@MONTAGUE.lit"] {
        let romeo = Client { name, ..Client::honest(SCRAM[1]) };
        let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
        let server_first = String::from_utf8(challenge(juliet.step(romeo.first().as_bytes()))).unwrap();
        assert!(matches!(juliet.step(romeo.last(&server_first).as_bytes()), Ok(Reply::Success(Some(_)))));
    }
    for name in ["tybalt@capulet.lit", "montague.lit", "romeo@montague.lit/orchard", "romeo@"] {
        let why = format!("expected a proof of {PEER}, and {name:?} came");
        assert_eq!(
            refused_first(format!("p=tls-exporter,,n={name},r=abc").as_bytes()),
            ("not-authorized", why)
        );
    }
}

#[test]
fn names_with_commas_and_equals_signs_are_unescaped() {
    let strange: BareJid = "a=b,c@montague.lit".parse().unwrap();
    let romeo = Client { name: "a=3Db=2Cc@montague.lit", ..Client::honest(SCRAM[1]) };
    let mut juliet = Responder::scram(SCRAM[1], &strange, &secret(), &binding(1)).unwrap();
    let server_first = String::from_utf8(challenge(juliet.step(romeo.first().as_bytes()))).unwrap();
    juliet.step(romeo.last(&server_first).as_bytes()).unwrap();

    let mut romeo = Initiator::scram(SCRAM[1], &strange, &local(), &secret(), &binding(1)).unwrap();
    let client_first = String::from_utf8(romeo.initial_response().unwrap()).unwrap();
    assert!(client_first.starts_with("p=tls-exporter,,n=a=3Db=2Cc@montague.lit,r="), "{client_first}");

    for name in ["", "=", "a=", "a=2", "a=3d", "a=41", "romeo=40montague.lit"] {
        let why = format!("the name {name:?} is empty or wrongly escaped");
        assert_eq!(
            refused_first(format!("p=tls-exporter,,n={name},r=abc").as_bytes()),
            ("malformed-request", why)
        );
    }
}

#[test]
fn the_peer_acts_as_itself_only() {
    let romeo = Client { gs2_header: "p=tls-exporter,a=romeo@montague.lit,", ..Client::honest(SCRAM[1]) };
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = String::from_utf8(challenge(juliet.step(romeo.first().as_bytes()))).unwrap();
    juliet.step(romeo.last(&server_first).as_bytes()).unwrap();

    let why = "expected romeo@montague.lit to act as itself, and it wants to be \"tybalt@capulet.lit\"";
    assert_eq!(
        refused_first(b"p=tls-exporter,a=tybalt@capulet.lit,n=romeo,r=abc"),
        ("invalid-authzid", why.to_owned())
    );
    let why = "client-first-message has \"b=romeo@montague.lit\" where a= is expected";
    assert_eq!(
        refused_first(b"p=tls-exporter,b=romeo@montague.lit,n=romeo,r=abc"),
        ("malformed-request", why.to_owned())
    );
}

#[test]
fn what_is_no_first_message_is_refused() {
    for (message, why) in [
        (&b""[..], "client-first-message begins with \"\""),
        (b"\xff", "client-first-message is not UTF-8"),
        (b"p=tls-exporter", "client-first-message ends before the authorization identity"),
        (b"p=tls-exporter,", "client-first-message ends before n="),
        (b"p=tls-exporter,a", "client-first-message has \"a\" where a= is expected"),
        (b"p=tls-exporter,,", "client-first-message has \"\" where n= is expected"),
        (b"p=tls-exporter,,m=x,n=romeo,r=a", "client-first-message has \"m=x\" where n= is expected"),
        (b"p=tls-exporter,,n=romeo", "client-first-message ends before r="),
        (b"p=tls-exporter,,n=romeo,r", "client-first-message has \"r\" where r= is expected"),
        (b"p=tls-exporter,,n=romeo,r=", "the nonce \"\" is not printable ASCII"),
        (b"p=tls-exporter,,n=romeo,r=\x07", "the nonce \"\\u{7}\" is not printable ASCII"),
        (
            b"p=tls-exporter,,n=romeo,r=a,x=y",
            "client-first-message has \"x=y\" at its end, an extension that is not known here",
        ),
    ] {
        assert_eq!(refused_first(message), ("malformed-request", why.to_owned()));
    }
    let huge = format!("p=tls-exporter,,n=romeo,r={}", "a".repeat(10_000));
    let why = "client-first-message has 10026 bytes; at most 10000";
    assert_eq!(refused_first(huge.as_bytes()), ("malformed-request", why.to_owned()));
}

#[test]
fn what_is_no_last_message_is_refused() {
    type Change = fn(String) -> Vec<u8>;
    let changes: [(&str, Change); 7] = [
        ("client-final-message has \"\" where c= is expected", |_| Vec::new()),
        ("client-final-message is not UTF-8", |_| vec![0xff]),
        ("the channel binding is not valid base64: Invalid symbol 33, offset 0.", |last| {
            last.replacen("c=", "c=!", 1).into_bytes()
        }),
        ("client-final-message ends before p=", |last| {
            last.rsplit_once(",p=").unwrap().0.to_owned().into_bytes()
        }),
        ("the proof has 3 bytes; 32 are expected", |last| {
            format!("{},p=AAAA", last.rsplit_once(",p=").unwrap().0).into_bytes()
        }),
        ("the proof has 33 bytes; 32 are expected", |last| {
            format!("{},p={}", last.rsplit_once(",p=").unwrap().0, "A".repeat(44)).into_bytes()
        }),
        ("client-final-message has 10001 bytes; at most 10000", |_| vec![b'a'; 10_001]),
    ];
    for (why, change) in changes {
        let refusal = refused_last(change);
        assert_eq!(refusal.condition, "malformed-request");
        assert_eq!(self::why(&refusal.error), format!("SASL with {PEER}: {why}"));
    }
}

#[test]
fn a_proof_with_one_bit_changed_is_wrong() {
    let refusal = refused_last(|last| {
        let (without_proof, proof) = last.rsplit_once(",p=").unwrap();
        let changed = if proof.starts_with('A') { "B" } else { "A" };
        format!("{without_proof},p={changed}{}", &proof[1..]).into_bytes()
    });
    assert_eq!(refusal.error, SecurityError::SecretMismatch { peer: peer() });
    assert_eq!(refusal.text(), Some("invalid-proof"));
}

#[test]
fn a_proof_from_another_exchange_is_refused() {
    let romeo = Client::honest(SCRAM[1]);
    let mut before = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = String::from_utf8(challenge(before.step(romeo.first().as_bytes()))).unwrap();
    let recorded = romeo.last(&server_first);
    before.step(recorded.as_bytes()).unwrap();

    let refusal = refused_last(|_| recorded.into_bytes());
    assert_eq!(refusal.condition, "not-authorized");
    let why =
        "expected a proof for this exchange, and one for another came: somebody repeats what was said before";
    assert_eq!(refusal.error, error(&peer(), why));
}

#[test]
fn our_own_words_are_no_proof() {
    let romeo = Client::honest(SCRAM[1]);
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = challenge(juliet.step(romeo.first().as_bytes()));
    juliet.step(&server_first).unwrap_err();

    // Nor are they for a client of ours that another connection made say them.
    let mut ours = initiator(SCRAM[1], &secret(), &binding(2));
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = challenge(juliet.step(&ours.initial_response().unwrap()));
    let refusal = juliet.step(&ours.challenge(&server_first).unwrap()).unwrap_err();
    assert_eq!(refusal.error, SecurityError::ChannelBinding { peer: peer() });
}

#[test]
fn nothing_comes_after_success() {
    let romeo = Client::honest(SCRAM[1]);
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = String::from_utf8(challenge(juliet.step(romeo.first().as_bytes()))).unwrap();
    let client_final = romeo.last(&server_first);
    juliet.step(client_final.as_bytes()).unwrap();
    assert_eq!(juliet.step(client_final.as_bytes()).unwrap_err().condition, "malformed-request");
}

#[test]
fn a_message_cut_anywhere_is_refused_in_good_order() {
    let romeo = Client { gs2_header: "p=tls-exporter,a=romeo@montague.lit,", ..Client::honest(SCRAM[1]) };
    let first = romeo.first();
    // A nonce that is cut is a nonce.
    for end in 0..=first.len() - romeo.nonce.len() {
        responder(SCRAM[1], &secret(), &binding(1)).step(&first.as_bytes()[..end]).unwrap_err();
    }
    let mut end = 0;
    loop {
        let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
        let server_first = String::from_utf8(challenge(juliet.step(first.as_bytes()))).unwrap();
        let client_final = romeo.last(&server_first);
        if end == client_final.len() {
            break juliet.step(client_final.as_bytes()).map(drop).unwrap();
        }
        juliet.step(&client_final.as_bytes()[..end]).unwrap_err();
        end += 1;
    }
}
