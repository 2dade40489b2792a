//! How a stream comes to its end, and what was not delivered by then.

use std::time::Instant;

use xmpp_parsers::stream_error::DefinedCondition;

use super::{Audience, Closed, Closer, Footer, Machine, State, acking::Management};
use crate::{
    ApiMisuse, Direction, Error, StreamFailure, Undelivered,
    stream::{
        acks::{Leftovers, TooHigh},
        violation::Violation,
    },
};

impl Machine {
    /// The bytestream ended or failed; the error says how. A stream that can be resumed is suspended, where the error says no
    /// more than that.
    pub(crate) fn handle_end(&mut self, error: Error) {
        if self.is_over() {
            return;
        }
        if self.can_survive(&error) {
            self.suspend(error);
        } else {
            self.fail(error);
        }
    }

    /// Closes in good order (RFC 6120 §4.4): what is queued goes out, then our footer; what the peer
    /// sends until its own footer is still received.
    pub(crate) fn close(&mut self, now: Instant) {
        self.clock = now;
        match self.state {
            State::Open(_) => self.part(now, Footer::Held),
            State::Suspended(_) => self.close_suspended(now),
            State::HeaderAwaited(_)
            | State::FeaturesAwaited(_)
            | State::Negotiating(_)
            | State::Negotiated(_)
            | State::Reviving(_) => {
                self.refuse_requests(now);
                self.outbox.footer(now);
                self.fail(ApiMisuse::StreamClosed.into());
            }
            State::Closing(_) | State::Closed(_) | State::Failed(_) => {}
        }
    }

    /// Ends the stream with a stream error (RFC 6120 §4.9.1.1).
    pub(crate) fn abort(&mut self, now: Instant, violation: Violation) {
        let Violation { condition, text } = violation;
        tracing::warn!(%condition, text, "the peer broke the rules of XML streams");
        self.send_stream_error(now, condition.clone(), &text);
        self.fail(sent(condition, text));
    }

    /// The peer acknowledges what was never sent (XEP-0198 #errors).
    pub(super) fn abort_too_high(&mut self, now: Instant, too_high: TooHigh) {
        tracing::warn!(?too_high, "the peer acknowledges what was never sent");
        if self.begin_farewell(now) {
            self.outbox.count_too_high(now, too_high.h, too_high.sent);
            self.outbox.footer(now);
        }
        self.fail(too_high_error(too_high));
    }

    /// The peer is not who it should be (RFC 6120 §4.9.3.12). It is told no more than that.
    pub(crate) fn refuse(&mut self, now: Instant, error: Error) {
        self.send_stream_error(now, DefinedCondition::NotAuthorized, "you could not be authenticated");
        self.fail(error);
    }

    /// Both footers are here.
    pub(super) fn finish(&mut self, closer: Closer) {
        let mut leftovers = self.take_leftovers();
        let undelivered = undelivered(None, &mut leftovers);
        match &undelivered {
            Some(undelivered) => leftovers.fail_receipts(&Error::Undelivered(undelivered.clone())),
            None => leftovers.fail_receipts(&ApiMisuse::StreamClosed.into()),
        }
        self.state = State::Closed(Closed { closer, undelivered });
    }

    pub(super) fn fail(&mut self, cause: Error) {
        let mut leftovers = self.take_leftovers();
        if self.is_unheard() {
            // There was no stream, and who wants one has them.
            leftovers.stanzas.clear();
        }
        let error = match undelivered(Some(cause.clone()), &mut leftovers) {
            Some(undelivered) => Error::Undelivered(undelivered),
            None => cause,
        };
        leftovers.fail_receipts(&error);
        self.replies.fail_all(&error);
        self.services.fail_all(&error);
        self.state = State::Failed(error);
    }

    fn take_leftovers(&mut self) -> Leftovers {
        self.management.leave()
    }

    /// How the stream ended; `None` before it did. A stream that was closed in good order before all was acknowledged ends
    /// in an error, too.
    pub(crate) fn outcome(&self) -> Option<Result<(), Error>> {
        match &self.state {
            State::Failed(error) => Some(Err(error.clone())),
            State::Closed(Closed { undelivered: Some(undelivered), .. }) => {
                Some(Err(Error::Undelivered(undelivered.clone())))
            }
            State::Closed(Closed { undelivered: None, .. }) => Some(Ok(())),
            _ => None,
        }
    }

    /// Closes, and nobody receives any more: what is unread is not handled, so that the peer gets it back. Behind a goodbye of
    /// either side it is ours already (XEP-0198 #acking), and stays for whoever receives after all; so it does behind an error.
    pub(crate) fn leave(&mut self, now: Instant) {
        let is_ours = match &self.state {
            State::Suspended(suspended) => !suspended.is_open(),
            State::Closing(_) | State::Closed(_) | State::Failed(_) => true,
            _ => false,
        };
        if !is_ours {
            let unread = self.unread();
            if let Management::Active(active) = &mut self.management {
                active.incoming.abandon(unread);
            }
            self.inbox.clear();
        }
        self.audience = Audience::Gone;
        self.close(now);
    }
}

fn undelivered(cause: Option<Error>, leftovers: &mut Leftovers) -> Option<Undelivered> {
    let stanzas = std::mem::take(&mut leftovers.stanzas);
    (!stanzas.is_empty()).then(|| Undelivered::new(cause, stanzas))
}

pub(super) fn too_high_error(TooHigh { h, sent: count }: TooHigh) -> Error {
    let text = format!("it acknowledged {h} stanzas when {count} had been sent");
    sent(DefinedCondition::UndefinedCondition, text)
}

fn sent(condition: DefinedCondition, text: String) -> Error {
    Error::Stream(StreamFailure { direction: Direction::Sent, condition, text: Some(text) })
}
