//! Mallory rules the server and is between Romeo and Juliet, with certificates of his own: who notices, and when.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::{fs, pin::pin};

use futures::{
    SinkExt, StreamExt,
    future::{self, Either},
};
use jingle_xmlstream::{
    Config, E2eStream, Error, Fingerprint, Identity, KnownPeers, Level, Reason, Secret, SecurityError, Trust,
    security::{Authorities, Questions, Verification},
};
use support::{
    attempt,
    impostor::Impostor,
    verona::{Couple, Person, Verona, hang_up},
    within,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, minidom::Element, stanza::Stanza};

const SECRET: &str = "two households both alike in fair dignity";
const MALLORYS_SECRET: &str = "from ancient grudge break to new bloody mutiny";

const CA: &str = include_str!("../fixtures/tls/ca.pem");
const CA_ROMEO: &str = include_str!("../fixtures/tls/ca-romeo.pem");
const CA_JULIET: &str = include_str!("../fixtures/tls/ca-juliet.pem");
const OTHER_CA_ROMEO: &str = include_str!("../fixtures/tls/other-ca-romeo.pem");

fn first_use(known: KnownPeers, _: &Person) -> Trust {
    known.into()
}

fn strict(known: KnownPeers, _: &Person) -> Trust {
    Trust::strict(known)
}

fn is_key_changed(error: &SecurityError) -> bool {
    matches!(error, SecurityError::KeyChanged { expected, .. } if expected.len() == 1)
}

fn secret(text: &'static str) -> impl Fn(Config) -> Config {
    move |config| config.secret(Secret::new(text).unwrap())
}

/// Romeo asks, and Juliet answers.
async fn question_and_answer(romeo: &mut E2eStream, juliet: &mut E2eStream) {
    let question = IqRequest::Get(Element::bare("question", "urn:example:verona"));
    let answering = async {
        let Some(Ok(Stanza::Iq(Iq::Get { id, payload, .. }))) = juliet.next().await else {
            panic!("no question")
        };
        assert!(payload.is("question", "urn:example:verona"));
        let payload = Some(Element::bare("answer", "urn:example:verona"));
        juliet.send(Stanza::Iq(Iq::Result { from: None, to: None, id, payload })).await.unwrap();
    };
    let (answer, ()) = within(future::join(romeo.send_iq(question), answering)).await;
    let IqResponse::Result(Some(answer)) = answer.unwrap() else { panic!("no answer") };
    assert!(answer.is("answer", "urn:example:verona"));
}

#[tokio::test]
async fn at_first_use_he_is_believed_and_from_the_second_contact_on_he_is_caught() {
    let verona = Verona::start().await;
    let couple = verona.couple(first_use).await;
    let mallory = verona.mallory().await;

    let (mut romeo, mut juliet) = couple.streams().await;
    support::talk(&mut romeo, &mut juliet).await;
    question_and_answer(&mut romeo, &mut juliet).await;
    for (stream, shown) in [(&romeo, &mallory.juliets), (&juliet, &mallory.romeos)] {
        assert_eq!(stream.peer().level(), Some(Level::FirstUse), "no more is claimed");
        assert_eq!(stream.peer().fingerprint(), Some(shown));
    }
    let read = mallory.read();
    for words in ["Wherefore art thou Romeo?", "Shall I hear more?", "urn:example:verona"] {
        assert!(read.iter().any(|stanza| stanza.contains(words)), "he read it: {read:?}");
    }
    hang_up(romeo, juliet).await;

    // He can't stay between them forever. Without him it is Romeo and Juliet who are taken for somebody else.
    let fingerprints = [mallory.juliets.clone(), mallory.romeos.clone()];
    mallory.leave().await;
    let before = verona.written();
    let [mallory_as_juliet, mallory_as_romeo] = &fingerprints;
    let (romeos, juliets) = attempt(&couple.romeo, &couple.juliet).await;
    assert_taken_for_him(romeos, mallory_as_juliet, &verona.juliet);
    assert_gone_without_a_stream(juliets);
    let (juliets, romeos) = attempt(&couple.juliet, &couple.romeo).await;
    assert_taken_for_him(juliets, mallory_as_romeo, &verona.romeo);
    assert_gone_without_a_stream(romeos);
    assert_eq!(verona.written(), before, "nothing is overwritten");
    verona.assert_ends_without_a_word().await;

    // The same for the one who is called, by somebody who has forgotten what he was shown.
    verona.romeo.known().forget(&verona.juliet.account).unwrap();
    let (_, juliets) = attempt(&couple.romeo, &couple.juliet).await;
    assert_taken_for_him(juliets, mallory_as_romeo, &verona.romeo);
    fs::write(&verona.romeo.file, before[0].as_ref().unwrap()).unwrap();
    verona.juliet.known().forget(&verona.romeo.account).unwrap();
    let (_, romeos) = attempt(&couple.juliet, &couple.romeo).await;
    assert_taken_for_him(romeos, mallory_as_juliet, &verona.juliet);
    assert_eq!(verona.romeo.written(), before[0], "nothing is overwritten");
}

/// The genuine one is refused, by an error that names both certificates.
#[track_caller]
fn assert_taken_for_him(outcome: Result<E2eStream, Error>, mallorys: &Fingerprint, genuine: &Person) {
    let error = outcome.unwrap_err();
    let genuine = genuine.identity.fingerprint();
    assert_shape!(
        &error,
        Error::Security(SecurityError::KeyChanged { expected, presented, .. })
            if *expected == [mallorys.clone()] && presented == genuine
    );
    let text = error.to_string();
    assert!(text.contains(&mallorys.to_string()) && text.contains(&genuine.to_string()), "{text}");
}

/// Refused by the other one, who saw the certificate first, or itself refusing.
#[track_caller]
fn assert_gone_without_a_stream(outcome: Result<E2eStream, Error>) {
    assert_eq!(outcome.unwrap_err().reason(), Reason::SecurityError);
}

#[tokio::test]
async fn who_met_before_he_came_catch_him_at_once() {
    let verona = Verona::start().await;
    let couple = verona.couple(first_use).await;
    couple.meet().await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, is_key_changed).await;
    mallory.leave().await;
    couple.meet().await;
}

#[tokio::test]
async fn the_strict_let_no_stranger_in() {
    let verona = Verona::start().await;
    let couple = verona.couple(strict).await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, |error| matches!(error, SecurityError::NotListed { .. })).await;
    assert_eq!(verona.written(), [None, None]);
}

#[tokio::test]
async fn the_strict_let_nobody_in_for_somebody_they_know() {
    let verona = Verona::start().await;
    for (person, other) in [(&verona.romeo, &verona.juliet), (&verona.juliet, &verona.romeo)] {
        person.known().add(&other.account, other.identity.fingerprint().clone(), None).unwrap();
    }
    let couple = verona.couple(strict).await;
    couple.meet().await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, is_key_changed).await;
}

#[tokio::test]
async fn he_does_not_have_the_pinned_certificate() {
    let verona = Verona::start().await;
    let pin = |known: KnownPeers, peer: &Person| {
        Trust::from(known).pin_for(peer.account.clone(), peer.identity.fingerprint().clone())
    };
    let couple = verona.couple(pin).await;
    couple.meet().await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, |error| matches!(error, SecurityError::NotPinned { .. })).await;
}

#[tokio::test]
async fn he_does_not_have_the_pinned_key() {
    let verona = Verona::start().await;
    let pin = |known: KnownPeers, peer: &Person| {
        Trust::from(known).pin_key_for(peer.account.clone(), peer.identity.key().clone())
    };
    let couple = verona.couple(pin).await;
    couple.meet().await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, |error| matches!(error, SecurityError::NotPinned { .. })).await;
}

#[tokio::test]
async fn the_authority_did_not_issue_his_certificates() {
    let issued = |pem| Identity::from_pem(pem).unwrap();
    let verona = Verona::with(issued(CA_ROMEO), issued(CA_JULIET)).await;
    let authority =
        |known: KnownPeers, _: &Person| Trust::strict(known).authorities(Authorities::from_pem(CA).unwrap());
    let couple = verona.couple(authority).await;
    let (romeo, juliet) = couple.streams().await;
    assert_eq!(romeo.peer().verification(), Some(Verification::Authority));
    assert_eq!(juliet.peer().verification(), Some(Verification::Authority));
    hang_up(romeo, juliet).await;

    // One is of an authority of his own, the other signed by itself; both are for the right address.
    let as_juliet = Identity::generate_for(&verona.juliet.account).unwrap();
    let mallory = verona.world.put_between(issued(OTHER_CA_ROMEO), as_juliet, |config| config).await;
    verona
        .assert_caught(&couple, &mallory, |error| match error {
            SecurityError::NotIssued { peer, why, .. } if *peer == verona.romeo.account => {
                why.contains("which is no trusted authority")
            }
            SecurityError::NotIssued { why, .. } => why.contains("self-signed"),
            _ => false,
        })
        .await;
}

/// A certificate that was lost to Mallory, key and all.
#[tokio::test]
async fn a_stolen_certificate_that_was_revoked_is_of_no_use_to_him() {
    let verona = Verona::start().await;
    let stolen = || Identity::generate().unwrap();
    let (romeos, juliets) = (stolen(), stolen());
    for (person, other, lost) in
        [(&verona.romeo, &verona.juliet, &juliets), (&verona.juliet, &verona.romeo, &romeos)]
    {
        let known = person.known();
        known.add(&other.account, lost.fingerprint().clone(), Some("the lost one")).unwrap();
        known.add(&other.account, other.identity.fingerprint().clone(), None).unwrap();
        known.revoke(&other.account, lost.fingerprint()).unwrap();
    }
    let couple = verona.couple(first_use).await;
    couple.meet().await;
    let mallory = verona.world.put_between(romeos, juliets, |config| config).await;
    verona.assert_caught(&couple, &mallory, |error| matches!(error, SecurityError::Revoked { .. })).await;
}

#[tokio::test]
async fn a_level_that_first_use_does_not_reach_keeps_him_out() {
    let verona = Verona::start().await;
    let couple = verona.couple_with(first_use, |config| config.require(Level::Verified)).await;
    let mallory = verona.mallory().await;
    verona
        .assert_caught(&couple, &mallory, |error| {
            matches!(
                error,
                SecurityError::Insufficient { required: Level::Verified, reached: Level::FirstUse, .. }
            )
        })
        .await;
    assert_eq!(verona.written(), [None, None], "who was refused is not known by having tried");
}

/// The next question of each; the codes that both users see.
async fn compare_codes(romeos: &mut Questions, juliets: &mut Questions, mallory: &Impostor) {
    let (to_romeo, to_juliet) = within(future::join(romeos.next(), juliets.next())).await;
    let (to_romeo, to_juliet) = (to_romeo.unwrap(), to_juliet.unwrap());
    assert_eq!(to_romeo.fingerprint(), &mallory.juliets);
    assert_eq!(to_juliet.fingerprint(), &mallory.romeos);
    let (romeos, juliets) = within(future::join(to_romeo.code(), to_juliet.code())).await;
    assert_ne!(romeos.unwrap(), juliets.unwrap(), "they hear it over the telephone");
    to_romeo.refuse();
    to_juliet.refuse();
}

#[tokio::test]
async fn users_who_are_asked_see_that_their_codes_differ_and_refuse_him() {
    let verona = Verona::start().await;
    let (romeos, mut for_romeo) = Trust::ask(verona.romeo.known());
    let (juliets, mut for_juliet) = Trust::ask(verona.juliet.known());
    let (romeo, juliet) =
        verona.world.pair_of(verona.romeo.config(romeos), verona.juliet.config(juliets)).await;
    let couple = Couple { romeo, juliet };
    let mallory = verona.mallory().await;
    let asked = async {
        for _ in 0..2 {
            compare_codes(&mut for_romeo, &mut for_juliet, &mallory).await;
        }
    };
    let is_refused = |error: &SecurityError| matches!(error, SecurityError::UserRefused { .. });
    future::join(verona.assert_caught(&couple, &mallory, is_refused), asked).await;
    assert_eq!(verona.written(), [None, None]);
}

#[tokio::test]
async fn who_leaves_the_question_open_does_not_part_like_a_friend() {
    let verona = Verona::start().await;
    let (romeos, mut for_romeo) = Trust::ask(verona.romeo.known());
    let juliets = Trust::from(verona.juliet.known());
    let (romeo, juliet) =
        verona.world.pair_of(verona.romeo.config(romeos), verona.juliet.config(juliets)).await;
    let leaving = async {
        let connecting = pin!(romeo.connect(&juliet.jid().unwrap()));
        let asked = pin!(for_romeo.next());
        let Either::Right((question, _)) = future::select(connecting, asked).await else {
            panic!("nobody was asked")
        };
        // It would answer by being dropped, with the stream still wanted.
        question.unwrap()
    };
    let answered = async {
        let mut stream = juliet.accept().await.unwrap().accept().await.unwrap();
        (stream.next().await, stream.close().await)
    };
    let (question, (heard, closed)) = within(future::join(leaving, answered)).await;
    for end in [heard.unwrap().map(|_| ()), closed] {
        assert_shape!(end, Err(Error::Stream(error)) if error.to_string().contains("not-authorized"));
    }
    drop(question);
    assert_eq!(verona.romeo.written(), None);
}

#[tokio::test]
async fn without_a_secret_he_can_not_answer_for_either() {
    let verona = Verona::start().await;
    let couple = verona.couple_with(first_use, secret(SECRET)).await;
    let mallory = verona.mallory().await;
    for refusal in verona.refusals(&couple, &mallory).await {
        if refusal.is_initiator {
            refusal.assert_security(|error| {
                matches!(error, SecurityError::SecretNotOffered { offered, .. } if offered == "no SASL")
            });
        } else {
            // It is he who misses the secret, and hangs up.
            refusal.assert_security(|error| {
                matches!(error, SecurityError::PeerRefused(Some(text)) if text == "you could not be authenticated")
            });
        }
    }
    assert_eq!(verona.written(), [None, None]);
    verona.assert_he_got_nothing(&mallory).await;
}

#[tokio::test]
async fn with_another_secret_he_is_caught_by_both() {
    let verona = Verona::start().await;
    let couple = verona.couple_with(first_use, secret(SECRET)).await;
    let mallory = verona.mallory_with(secret(MALLORYS_SECRET)).await;
    verona
        .assert_caught(&couple, &mallory, |error| matches!(error, SecurityError::SecretMismatch { .. }))
        .await;
    assert_eq!(verona.written(), [None, None]);
    mallory.leave().await;
    couple.meet().await;
}

#[tokio::test]
async fn a_secret_that_was_proved_once_need_not_be_kept() {
    let verona = Verona::start().await;
    let couple = verona.couple_with(first_use, secret(SECRET)).await;
    couple.meet().await;
    within(future::join(couple.romeo.close(), couple.juliet.close())).await;

    let couple = verona.couple(first_use).await;
    let (romeo, juliet) = couple.streams().await;
    for stream in [&romeo, &juliet] {
        assert_eq!(stream.peer().verification(), Some(Verification::Secret));
        assert_eq!(stream.peer().level(), Some(Level::Verified));
    }
    hang_up(romeo, juliet).await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, is_key_changed).await;
}

#[tokio::test]
async fn a_secret_does_not_make_up_for_another_certificate() {
    let verona = Verona::start().await;
    let couple = verona.couple_with(first_use, secret(SECRET)).await;
    couple.meet().await;
    let mallory = verona.mallory_with(secret(SECRET)).await;
    verona.assert_caught(&couple, &mallory, is_key_changed).await;
}

#[tokio::test]
async fn the_codes_of_two_streams_with_him_in_between_differ() {
    let verona = Verona::start().await;
    let couple = verona.couple(first_use).await;
    let _mallory = verona.mallory().await;
    let (romeo, juliet) = couple.streams().await;
    let (romeos, juliets) = within(future::join(romeo.verification_code(), juliet.verification_code())).await;
    assert_ne!(romeos.unwrap(), juliets.unwrap());
}

#[tokio::test]
async fn without_him_the_codes_agree_and_are_asked_for_but_once() {
    let verona = Verona::start().await;
    let couple = verona.couple(first_use).await;
    let (romeo, juliet) = couple.streams().await;
    let (romeos, juliets) = within(future::join(romeo.verification_code(), juliet.verification_code())).await;
    assert_eq!(romeos.unwrap(), juliets.unwrap());
    for (stream, person, other) in
        [(&romeo, &verona.romeo, &verona.juliet), (&juliet, &verona.juliet, &verona.romeo)]
    {
        within(stream.confirm_code()).await.unwrap();
        assert_eq!(stream.peer().level(), Some(Level::Verified));
        let listed = person.known().certificates_of(&other.account).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].verification, Verification::Code);
        assert_eq!(&listed[0].fingerprint, other.identity.fingerprint());
    }
    hang_up(romeo, juliet).await;

    let (romeo, juliet) = couple.streams().await;
    for stream in [&romeo, &juliet] {
        assert_eq!(stream.peer().verification(), Some(Verification::Code));
    }
    hang_up(romeo, juliet).await;
    let mallory = verona.mallory().await;
    verona.assert_caught(&couple, &mallory, is_key_changed).await;
}
