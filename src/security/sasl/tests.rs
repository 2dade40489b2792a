//! Exchanges between the two sides, and of each with peers that do what they must not.

use zeroize::Zeroizing;

use super::{keys::Hash, *};
use crate::security::{Secret, dice::Dice};

mod by_hand;
mod hostile_initiators;
mod hostile_responders;
mod transcripts;

const PEER: &str = "romeo@montague.lit";
const LOCAL: &str = "juliet@capulet.lit";
const SCRAM: [Mechanism; 2] = [Mechanism::ScramSha512Plus, Mechanism::ScramSha256Plus];

fn peer() -> BareJid {
    PEER.parse().unwrap()
}

fn local() -> BareJid {
    LOCAL.parse().unwrap()
}

fn secret() -> Secret {
    Secret::new("3kfa-p7wd-x2ce-m5yu").unwrap()
}

fn another_secret() -> Secret {
    Secret::new("clumsy walnut orbit seventy lantern mischief").unwrap()
}

/// That of a TLS connection.
fn binding(connection: u8) -> Binding {
    Binding(Zeroizing::new([connection; 32]))
}

/// Romeo, who opens the stream to Juliet.
fn initiator(mechanism: Mechanism, secret: &Secret, binding: &Binding) -> Initiator {
    Initiator::scram(mechanism, &peer(), &local(), secret, binding).unwrap()
}

/// Juliet, whom Romeo opens the stream to.
fn responder(mechanism: Mechanism, secret: &Secret, binding: &Binding) -> Responder {
    Responder::scram(mechanism, &peer(), secret, binding).unwrap()
}

fn challenge(reply: Result<Reply, Refusal>) -> Vec<u8> {
    match reply {
        Ok(Reply::Challenge(challenge)) => challenge,
        other => panic!("{other:?}"),
    }
}

/// What it says, without what the user can do, which is the same for all that went wrong with SASL itself.
fn why(error: &SecurityError) -> String {
    let text = error.to_string();
    match (error, text.strip_suffix(ADVICE)) {
        (SecurityError::Sasl { .. }, Some(why)) => why.to_owned(),
        (SecurityError::Sasl { .. }, None) => panic!("{text} gives no advice"),
        _ => text,
    }
}

const ADVICE: &str = "; try again, and if that does not help, see what its program says, or verify the peer without a shared secret";

#[test]
fn both_know_the_secret_and_prove_it() {
    for mechanism in SCRAM {
        let mut romeo = initiator(mechanism, &secret(), &binding(1));
        let mut juliet = responder(mechanism, &secret(), &binding(1));
        let server_first = challenge(juliet.step(&romeo.initial_response().unwrap()));
        let client_final = romeo.challenge(&server_first).unwrap();
        let Reply::Success(Some(server_final)) = juliet.step(&client_final).unwrap() else { panic!() };
        romeo.success(Some(&server_final)).unwrap();
    }
}

#[test]
fn the_last_word_may_come_before_success() {
    let mut romeo = initiator(SCRAM[1], &secret(), &binding(1));
    let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
    let server_first = challenge(juliet.step(&romeo.initial_response().unwrap()));
    let client_final = romeo.challenge(&server_first).unwrap();
    let Reply::Success(Some(server_final)) = juliet.step(&client_final).unwrap() else { panic!() };
    assert_eq!(romeo.challenge(&server_final).unwrap(), b"");
    romeo.success(None).unwrap();
}

#[test]
fn the_mechanisms_are_those_of_the_rfc() {
    // Computed by hand, so that an error of both sides of ours would show.
    for mechanism in SCRAM {
        let romeo = by_hand::Client::honest(mechanism);
        let mut juliet = responder(mechanism, &secret(), &binding(1));
        let server_first = String::from_utf8(challenge(juliet.step(romeo.first().as_bytes()))).unwrap();
        let client_final = romeo.last(&server_first);
        let server_final = match juliet.step(client_final.as_bytes()).unwrap() {
            Reply::Success(Some(server_final)) => server_final,
            other => panic!("{other:?}"),
        };
        let honest = by_hand::Server::honest(mechanism);
        assert_eq!(server_final, honest.last(&romeo.first(), &server_first, &client_final).as_bytes());

        let mut romeo = initiator(mechanism, &secret(), &binding(1));
        let client_first = String::from_utf8(romeo.initial_response().unwrap()).unwrap();
        let server_first = honest.first(&client_first);
        let client_final = String::from_utf8(romeo.challenge(server_first.as_bytes()).unwrap()).unwrap();
        let server_final = honest.last(&client_first, &server_first, &client_final);
        romeo.success(Some(server_final.as_bytes())).unwrap();
    }
}

#[test]
fn with_different_secrets_both_learn_so() {
    for mechanism in SCRAM {
        let mut romeo = initiator(mechanism, &another_secret(), &binding(1));
        let mut juliet = responder(mechanism, &secret(), &binding(1));
        let server_first = challenge(juliet.step(&romeo.initial_response().unwrap()));
        let refusal = juliet.step(&romeo.challenge(&server_first).unwrap()).unwrap_err();
        assert_eq!(refusal.condition, "not-authorized");
        assert_eq!(refusal.error, SecurityError::SecretMismatch { peer: peer() });
        let error = romeo.failure(refusal.condition, refusal.text());
        assert_eq!(error, SecurityError::SecretMismatch { peer: local() });
    }
}

#[test]
fn a_proof_relayed_from_one_tls_connection_to_another_is_refused_and_both_learn_so() {
    for mechanism in SCRAM {
        let mut romeo = initiator(mechanism, &secret(), &binding(1));
        let mut juliet = responder(mechanism, &secret(), &binding(2));
        let server_first = challenge(juliet.step(&romeo.initial_response().unwrap()));
        let refusal = juliet.step(&romeo.challenge(&server_first).unwrap()).unwrap_err();
        assert_eq!(refusal.condition, "not-authorized");
        assert_eq!(refusal.error, SecurityError::ChannelBinding { peer: peer() });
        let error = romeo.failure(refusal.condition, refusal.text());
        assert_eq!(error, SecurityError::ChannelBinding { peer: local() });
    }
}

#[test]
fn after_an_error_either_side_only_repeats_that_it_is_over() {
    let mut romeo = initiator(SCRAM[0], &secret(), &binding(1));
    romeo.initial_response().unwrap();
    for _ in 0..3 {
        romeo.challenge(b"x").unwrap_err();
    }
    romeo.initial_response().unwrap_err();
    romeo.success(Some(b"v=")).unwrap_err();

    let mut juliet = responder(SCRAM[0], &secret(), &binding(1));
    juliet.step(b"x").unwrap_err();
    let refusal = juliet.step(by_hand::Client::honest(SCRAM[0]).first().as_bytes()).unwrap_err();
    assert_eq!(why(&refusal.error), format!("SASL with {PEER}: the exchange is over, and a response came"));
}

#[test]
fn every_salt_is_new() {
    let salts: Vec<_> = (0..2)
        .map(|_| {
            let mut juliet = responder(SCRAM[0], &secret(), &binding(1));
            let server_first = challenge(juliet.step(by_hand::Client::honest(SCRAM[0]).first().as_bytes()));
            by_hand::value(&String::from_utf8(server_first).unwrap(), "s=")
        })
        .collect();
    assert_ne!(salts[0], salts[1]);
}

#[test]
fn external_says_nothing_and_is_believed() {
    let mut romeo = Initiator::external(&local());
    let mut juliet = Responder::external(&peer());
    let reply = juliet.step(&romeo.initial_response().unwrap()).unwrap();
    assert!(matches!(reply, Reply::Success(None)));
    romeo.success(None).unwrap();
}

#[test]
fn external_may_name_the_peer_and_nobody_else() {
    assert!(matches!(Responder::external(&peer()).step(b"Romeo@Montague.lit"), Ok(Reply::Success(None))));
    for (authzid, condition, error) in [
        (
            &b"juliet@capulet.lit"[..],
            "invalid-authzid",
            "expected romeo@montague.lit to act as itself, and it wants to be \"juliet@capulet.lit\"",
        ),
        (
            b"romeo@montague.lit/orchard",
            "invalid-authzid",
            "expected romeo@montague.lit to act as itself, and it wants to be \"romeo@montague.lit/orchard\"",
        ),
        (b"\xff", "malformed-request", "the authorization identity is not UTF-8"),
    ] {
        let refusal = Responder::external(&peer()).step(authzid).unwrap_err();
        assert_eq!(refusal.condition, condition);
        assert_eq!(why(&refusal.error), format!("SASL with {PEER}: {error}"));
    }
}

#[test]
fn external_has_nothing_more_to_say() {
    let mut romeo = Initiator::external(&local());
    romeo.initial_response().unwrap();
    romeo.challenge(b"").unwrap_err();

    let mut romeo = Initiator::external(&local());
    romeo.initial_response().unwrap();
    romeo.success(Some(b"v=AAAA")).unwrap_err();

    let mut juliet = Responder::external(&peer());
    juliet.step(b"").unwrap();
    juliet.step(b"").unwrap_err();
}

#[test]
fn external_is_no_scram() {
    let error = Responder::scram(Mechanism::External, &peer(), &secret(), &binding(1)).err().unwrap();
    assert_eq!(why(&error), format!("SASL with {PEER}: EXTERNAL can't be begun: it is no SCRAM"));
    assert!(Initiator::scram(Mechanism::External, &local(), &peer(), &secret(), &binding(1)).is_err());
}

#[test]
fn the_conditions_of_a_failure_are_told_apart() {
    let refused = |condition, text| why(&Initiator::external(&local()).failure(condition, text));
    assert_eq!(
        refused("temporary-auth-failure", Some("try\nlater")),
        format!(r#"SASL with {LOCAL}: it refuses us: "temporary-auth-failure" ("try\nlater")"#)
    );
    assert_eq!(refused("aborted", None), format!(r#"SASL with {LOCAL}: it refuses us: "aborted""#));
    // Before anything was proved, nothing can be wrong with the secret.
    let mut romeo = initiator(SCRAM[0], &secret(), &binding(1));
    romeo.initial_response().unwrap();
    assert!(matches!(romeo.failure("not-authorized", None), SecurityError::Sasl { .. }));
}

#[test]
fn mechanisms_have_their_registered_names() {
    for mechanism in Mechanism::ALL {
        assert_eq!(Mechanism::named(mechanism.name()), Some(mechanism));
    }
    assert_eq!(Mechanism::named("SCRAM-SHA-256"), None);
    assert_eq!(Mechanism::ALL.map(Mechanism::is_scram), [true, true, false]);
}

#[test]
fn both_sides_can_be_moved_to_another_thread() {
    fn sendable<T: Send + 'static>() {}
    sendable::<Initiator>();
    sendable::<Responder>();
}

#[test]
fn whatever_is_said_instead_nobody_is_believed_and_nothing_panics() {
    let words = [
        ",",
        "=",
        "=2C",
        "p=",
        "n,,",
        "y,,",
        "r=",
        "i=4294967296",
        "i=-1",
        "s=",
        "m=x",
        "e=",
        "v=",
        "\u{0}",
        "é",
    ];
    for seed in 0..400 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let victim = dice.below(4);
        // One of the four messages is changed on the way.
        let mut on_the_way = |number: usize, message: Vec<u8>| match number == victim {
            true => dice.damaged(&message, &words),
            false => message,
        };
        let mut romeo = initiator(SCRAM[1], &secret(), &binding(1));
        let mut juliet = responder(SCRAM[1], &secret(), &binding(1));
        let honest = romeo.initial_response().unwrap();
        let client_first = on_the_way(0, honest.clone());
        let Ok(Reply::Challenge(said)) = juliet.step(&client_first) else { continue };
        let server_first = on_the_way(1, said.clone());
        let Ok(proof) = romeo.challenge(&server_first) else { continue };
        let client_final = on_the_way(2, proof.clone());
        let Ok(Reply::Success(Some(signature))) = juliet.step(&client_final) else { continue };
        assert_eq!((&client_first, &server_first, &client_final), (&honest, &said, &proof));
        let server_final = on_the_way(3, signature.clone());
        if romeo.success(Some(&server_final)).is_ok() {
            assert_eq!(server_final, signature);
        }
    }
}
