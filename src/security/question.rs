//! Asking the bot's user whether a peer is to be believed.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::{
    Stream,
    channel::{mpsc, oneshot},
    ready,
};
use jid::BareJid;

use super::{certificate::Certificate, code::VerificationCode, fingerprint::Fingerprint, trust::Proof};
use crate::{error::Error, stream::WeakSender};

/// Questions that wait until the user takes them; more peers are refused. Whoever can make up JIDs can make up questions.
const MAX_QUESTIONS: usize = 16;

/// Where a [`Trust`](super::Trust) puts its questions.
///
/// One sender for all: a channel has room for one more with every clone of its sender.
#[derive(Clone)]
pub(crate) struct Asker(Arc<Mutex<mpsc::Sender<Question>>>);

/// The questions about peers that nothing is known of, as a stream; see [`Trust::ask`](super::Trust::ask).
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// Whether a peer is to be believed: its certificate is not known, and it proved to hold the key.
///
/// Dropping it refuses, and so does leaving it for longer than [`Timeouts::decision`](crate::Timeouts::decision).
#[must_use = "dropping it refuses the peer"]
pub struct Question {
    peer: BareJid,
    certificate: Certificate,
    /// A question that nobody takes must not keep open what its asker has given up.
    stream: WeakSender,
    answer: oneshot::Sender<Proof>,
}

pub(super) fn channel() -> (Asker, Questions) {
    // The sender itself has room for one more.
    let (sender, receiver) = mpsc::channel(MAX_QUESTIONS - 1);
    (Asker(Arc::new(Mutex::new(sender))), Questions(receiver))
}

impl Asker {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, peer: BareJid, certificate: Certificate, stream: WeakSender) -> Answer {
        let (answer, answered) = oneshot::channel();
        let question = Question { peer, certificate, stream, answer };
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).try_send(question).is_err() {
            return Answer::NotAsked;
        }
        answered.await.map_or(Answer::No, Answer::Yes)
    }
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes(Proof),
    No,
    /// Nobody takes questions, or too many wait already.
    NotAsked,
}

impl Question {
    /// Who it says it is.
    #[must_use]
    pub fn peer(&self) -> &BareJid {
        &self.peer
    }

    /// What it presented.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The SHA-256 fingerprint of that.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        self.certificate.fingerprint()
    }

    /// The code to compare with the peer's user; see [`E2eStream::verification_code`](crate::E2eStream::verification_code).
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As there; [`ApiMisuse::StreamClosed`](crate::ApiMisuse::StreamClosed) once nobody waits for the answer any more.
    pub async fn code(&self) -> Result<VerificationCode, Error> {
        self.stream.verification_code().await
    }

    /// Resolves when an answer has no effect any more: the peer has gone, or the time is over. For programs that show the
    /// question to somebody. Cancel safe.
    pub async fn cancelled(&mut self) {
        poll_fn(|cx| self.answer.poll_canceled(cx)).await;
    }

    /// This time only; nothing is remembered.
    pub fn once(self) {
        self.answer(Proof::Once);
    }

    /// Believes the peer, now and from now on, as [`Verification::Accepted`](super::Verification::Accepted).
    pub fn remember(self) {
        self.answer(Proof::Accepted);
    }

    /// The code or the fingerprint was compared with the peer's user, and is the same:
    /// [`Verification::Code`](super::Verification::Code).
    pub fn verified(self) {
        self.answer(Proof::Code);
    }

    /// Refuses the peer.
    pub fn refuse(self) {
        drop(self);
    }

    fn answer(self, proof: Proof) {
        // Whoever asked may have lost its patience.
        let _ = self.answer.send(proof);
    }
}

impl Stream for Questions {
    type Item = Question;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Question>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_next(cx)) {
                // Nobody waits for the answer any more.
                Some(question) if question.answer.is_canceled() => {}
                question => return Poll::Ready(question),
            }
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("peer", &self.peer)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
