//! Questions, answered, dropped and forgotten.

use std::time::Duration;

use futures::{FutureExt, StreamExt};

use super::*;
use crate::{
    ApiMisuse,
    stream::{E2eStream, StreamOptions, StreamSender, accept, initiate},
};

fn juliet() -> BareJid {
    "juliet@capulet.lit".parse().unwrap()
}

fn certificate() -> Certificate {
    Certificate::from_der(b"a certificate")
}

/// Both ends of a stream; this one is as good as any.
async fn streams() -> (E2eStream, E2eStream) {
    let (one, other) = tokio::io::duplex(4096);
    let (responder, initiator) =
        futures::join!(accept(other, StreamOptions::default()), initiate(one, StreamOptions::default()));
    (initiator.unwrap(), responder.unwrap())
}

/// The stream that a question is about.
async fn stream() -> StreamSender {
    streams().await.0.sender()
}

#[tokio::test]
async fn each_answer_is_what_it_shows() {
    let stream = stream().await;
    let (asker, mut questions) = channel();
    type Say = fn(Question);
    let answers = [
        (Question::once as Say, Answer::Yes(Proof::Once)),
        (Question::remember, Answer::Yes(Proof::Accepted)),
        (Question::verified, Answer::Yes(Proof::Code)),
        (Question::refuse, Answer::No),
        (drop, Answer::No),
    ];
    for (answer, proof) in answers {
        let user = async {
            let question = questions.next().await.unwrap();
            assert_eq!((question.peer(), question.certificate()), (&juliet(), &certificate()));
            assert_eq!(question.fingerprint(), certificate().fingerprint());
            answer(question);
        };
        let asked = asker.ask(juliet(), certificate(), stream.downgrade());
        assert_eq!(futures::join!(asked, user).0, proof);
    }
}

#[tokio::test]
async fn where_nobody_listens_any_more_the_answer_is_no() {
    let (asker, questions) = channel();
    drop(questions);
    assert_eq!(asker.ask(juliet(), certificate(), stream().await.downgrade()).await, Answer::NotAsked);
}

#[tokio::test]
async fn questions_that_are_never_taken_are_refused_with_their_stream() {
    let stream = stream().await;
    let (asker, questions) = channel();
    let mut asked = Box::pin(asker.ask(juliet(), certificate(), stream.downgrade()));
    assert!((&mut asked).now_or_never().is_none(), "it waits");
    drop(questions);
    assert_eq!(asked.await, Answer::No);
}

#[tokio::test]
async fn too_many_questions_are_refused_and_the_first_ones_still_answered() {
    let stream = stream().await;
    let (asker, mut questions) = channel();
    let ask = || Box::pin(asker.ask(juliet(), certificate(), stream.downgrade()));
    let mut waiting = Vec::new();
    let refused = loop {
        let mut asked = ask();
        match (&mut asked).now_or_never() {
            None => waiting.push(asked),
            Some(answer) => break answer,
        }
    };
    assert_eq!(refused, Answer::NotAsked);
    assert_eq!(waiting.len(), MAX_QUESTIONS);
    questions.next().await.unwrap().once();
    assert_eq!(waiting.remove(0).await, Answer::Yes(Proof::Once));
    assert!(ask().now_or_never().is_none(), "there is room again");
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_any_more_harms_nobody() {
    let (asker, mut questions) = channel();
    let mut asked = Box::pin(asker.ask(juliet(), certificate(), stream().await.downgrade()));
    assert!((&mut asked).now_or_never().is_none());
    let mut question = questions.next().await.unwrap();
    assert!(question.cancelled().now_or_never().is_none(), "somebody waits");
    drop(asked);
    question.cancelled().await;
    question.remember();
}

#[tokio::test]
async fn the_user_is_not_bothered_with_questions_that_nobody_waits_for() {
    let stream = stream().await;
    let (asker, mut questions) = channel();
    for _ in 0..3 {
        assert!(
            asker.ask(juliet(), certificate(), stream.downgrade()).now_or_never().is_none(),
            "no patience"
        );
    }
    assert!(questions.next().now_or_never().is_none());
    drop(asker);
    assert!(questions.next().await.is_none(), "the last Trust is gone");
}

#[tokio::test]
async fn a_question_that_nobody_takes_does_not_keep_its_stream_open() {
    let (stream, mut peer) = streams().await;
    let (asker, mut questions) = channel();
    let ask = || Box::pin(asker.ask(juliet(), certificate(), stream.sender().downgrade()));
    let (mut taken, mut left) = (ask(), ask());
    assert!((&mut taken).now_or_never().is_none() && (&mut left).now_or_never().is_none());
    let question = questions.next().await.unwrap();
    drop((taken, left, stream));
    let over = tokio::time::timeout(Duration::from_secs(20), peer.next()).await;
    assert!(matches!(over, Ok(None)), "{over:?}");

    drop(peer);
    let gone = async {
        while !matches!(question.code().await, Err(Error::ApiMisuse(ApiMisuse::StreamClosed))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("there is no code to show");
}
