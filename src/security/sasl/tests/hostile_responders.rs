//! What an initiator must not take.

use super::{by_hand::Server, *};

/// Who has sent client-first-message, and that.
fn begun() -> (Initiator, String) {
    let mut romeo = initiator(SCRAM[1], &secret(), &binding(1));
    let client_first = String::from_utf8(romeo.initial_response().unwrap()).unwrap();
    (romeo, client_first)
}

/// Who has sent client-final-message, and what a responder, who believes it, says to that.
fn proved(juliet: &Server) -> (Initiator, String) {
    let (mut romeo, client_first) = begun();
    let server_first = juliet.first(&client_first);
    let client_final = String::from_utf8(romeo.challenge(server_first.as_bytes()).unwrap()).unwrap();
    let server_final = juliet.last(&client_first, &server_first, &client_final);
    (romeo, server_final)
}

fn honest() -> Server {
    Server::honest(SCRAM[1])
}

/// Without the name of the peer.
fn reason(error: &SecurityError) -> String {
    let why = why(error);
    why.strip_prefix("SASL with juliet@capulet.lit: ").expect(&why).to_owned()
}

#[test]
fn success_without_a_challenge_is_no_success() {
    let why = "expected a challenge, and <success/> came: it let us in without a proof, and gave none itself";
    let (romeo, _) = begun();
    assert_eq!(reason(&romeo.success(None).unwrap_err()), why);
    let (romeo, _) = begun();
    assert_eq!(reason(&romeo.success(Some(b"v=AAAA")).unwrap_err()), why);
    let romeo = initiator(SCRAM[1], &secret(), &binding(1));
    assert_eq!(reason(&romeo.success(None).unwrap_err()), why);
}

#[test]
fn success_without_a_proof_is_no_success() {
    for additional in [None, Some(&b""[..])] {
        let (romeo, _) = proved(&honest());
        let error = romeo.success(additional).unwrap_err();
        assert_eq!(
            reason(&error),
            "expected a proof with <success/> that it knows the secret, and none came"
        );
    }
}

#[test]
fn a_responder_with_another_secret_is_found_out() {
    let (romeo, server_final) = proved(&Server { secret: another_secret(), ..honest() });
    let error = romeo.success(Some(server_final.as_bytes())).unwrap_err();
    assert_eq!(error, SecurityError::SecretMismatch { peer: local() });
    // Nor does it help to say it in a challenge.
    let (mut romeo, server_final) = proved(&Server { secret: another_secret(), ..honest() });
    let error = romeo.challenge(server_final.as_bytes()).unwrap_err();
    assert_eq!(error, SecurityError::SecretMismatch { peer: local() });
    romeo.success(None).unwrap_err();
}

#[test]
fn a_signature_of_another_exchange_is_wrong() {
    let (_, recorded) = proved(&honest());
    let (romeo, _) = proved(&honest());
    let error = romeo.success(Some(recorded.as_bytes())).unwrap_err();
    assert_eq!(error, SecurityError::SecretMismatch { peer: local() });
}

#[test]
fn what_a_responder_says_against_our_proof_is_told_apart() {
    for (server_final, expected) in [
        ("e=invalid-proof", SecurityError::SecretMismatch { peer: local() }),
        ("e=channel-bindings-dont-match", SecurityError::ChannelBinding { peer: local() }),
        ("e=no-resources", error(&local(), "it refuses our proof: \"no-resources\"")),
    ] {
        let (romeo, _) = proved(&honest());
        assert_eq!(romeo.success(Some(server_final.as_bytes())).unwrap_err(), expected);
    }
}

#[test]
fn what_is_no_last_message_is_refused() {
    let huge = format!("v={}", "A".repeat(10_000));
    for (server_final, why) in [
        (&b"v"[..], "server-final-message has \"v\" where v= is expected"),
        (b"v=", "the signature has 0 bytes; 32 are expected"),
        (b"v=AAAA", "the signature has 3 bytes; 32 are expected"),
        (b"v=!", "the signature is not valid base64: Invalid symbol 33, offset 0."),
        (b"\xff\xff", "server-final-message is not UTF-8"),
        (b"r=abc,s=QUJD,i=4096", "server-final-message has \"r=abc\" where v= is expected"),
        (huge.as_bytes(), "server-final-message has 10002 bytes; at most 10000"),
    ] {
        let (romeo, _) = proved(&honest());
        assert_eq!(reason(&romeo.success(Some(server_final)).unwrap_err()), why);
    }
}

#[test]
fn nothing_is_left_to_say_after_the_proof() {
    let (mut romeo, server_final) = proved(&honest());
    romeo.challenge(server_final.as_bytes()).unwrap();
    romeo.challenge(server_final.as_bytes()).unwrap_err();

    let (mut romeo, server_final) = proved(&honest());
    romeo.challenge(server_final.as_bytes()).unwrap();
    let error = romeo.success(Some(server_final.as_bytes())).unwrap_err();
    assert_eq!(reason(&error), "expected nothing inside of <success/>, and something came");
}

#[test]
fn iterations_are_neither_few_enough_to_help_guessing_nor_so_many_that_they_stop_us() {
    for iterations in ["4096", "32768"] {
        let (romeo, server_final) = proved(&Server { iterations: iterations.to_owned(), ..honest() });
        romeo.success(Some(server_final.as_bytes())).unwrap();
    }
    for iterations in ["", "0", "1", "4095", "32769", "4294967295", "99999999999", "-1", "+4096", "5e3"] {
        let (mut romeo, client_first) = begun();
        let server_first = Server { iterations: iterations.to_owned(), ..honest() }.first(&client_first);
        let error = romeo.challenge(server_first.as_bytes()).unwrap_err();
        assert_eq!(reason(&error), format!("expected 4096 to 32768 iterations, and {iterations:?} came"));
    }
}

#[test]
fn a_salt_is_long_enough_that_it_can_be_new() {
    let (mut romeo, client_first) = begun();
    let server_first = Server { salt: vec![1; 7], ..honest() }.first(&client_first);
    let error = romeo.challenge(server_first.as_bytes()).unwrap_err();
    assert_eq!(reason(&error), "expected at least 8 bytes of salt, and 7 came");
    let (romeo, server_final) = proved(&Server { salt: vec![1; 8], ..honest() });
    romeo.success(Some(server_final.as_bytes())).unwrap();
}

#[test]
fn the_nonce_goes_on_from_ours() {
    let why =
        "expected a nonce that goes on from ours, and another came: somebody repeats what was said before";
    let (mut romeo, _) = begun();
    let server_first = honest().first("p=tls-exporter,,n=romeo,r=another");
    assert_eq!(reason(&romeo.challenge(server_first.as_bytes()).unwrap_err()), why);
    // Ours alone is not enough: the responder could repeat what it had us say before.
    let (mut romeo, client_first) = begun();
    let server_first = Server { nonce: "", ..honest() }.first(&client_first);
    assert_eq!(reason(&romeo.challenge(server_first.as_bytes()).unwrap_err()), why);
}

#[test]
fn our_own_words_are_no_answer() {
    let (mut romeo, client_first) = begun();
    romeo.challenge(client_first.as_bytes()).unwrap_err();

    let (mut romeo, client_first) = begun();
    let server_first = honest().first(&client_first);
    let client_final = romeo.challenge(server_first.as_bytes()).unwrap();
    romeo.success(Some(&client_final)).unwrap_err();
}

#[test]
fn what_is_no_first_message_is_refused() {
    let (_, client_first) = begun();
    let extended = format!("{},x=y", honest().first(&client_first));
    for (server_first, why) in [
        ("", "server-first-message has \"\" where r= is expected"),
        ("m=x,r=a,s=QUJD,i=4096", "server-first-message has \"m=x\" where r= is expected"),
        ("r=a", "server-first-message ends before s="),
        ("r=a b,s=QUJD,i=4096", "the nonce \"a b\" is not printable ASCII"),
        ("r=a,s=?,i=4096", "the salt is not valid base64: Invalid symbol 63, offset 0."),
        (&extended, "server-first-message has \"x=y\" at its end, an extension that is not known here"),
    ] {
        let (mut romeo, _) = begun();
        assert_eq!(reason(&romeo.challenge(server_first.as_bytes()).unwrap_err()), why);
    }
}

#[test]
fn a_message_cut_anywhere_is_refused_in_good_order() {
    let (_, client_first) = begun();
    for end in 0..honest().first(&client_first).len() {
        let (mut romeo, client_first) = begun();
        romeo.challenge(&honest().first(&client_first).as_bytes()[..end]).unwrap_err();
    }
    let (_, server_final) = proved(&honest());
    for end in 0..server_final.len() {
        let (romeo, server_final) = proved(&honest());
        romeo.success(Some(&server_final.as_bytes()[..end])).unwrap_err();
    }
}
