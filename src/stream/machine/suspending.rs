//! A stream between two bytestreams, or on one that stands still (XEP-0198 #resumption).

use std::{mem, time::Instant};

use xmpp_parsers::{stanza::Stanza, stream_error::DefinedCondition};

use super::{
    CLOSING_LOSSES, Closing, Footer, Machine, Open, Role, State,
    acking::{Active, Management, Resumption},
    cut_off,
    ending::too_high_error,
    management::{Resume, Suspension},
    reviving::{Reviving, Step as Revival, not_resumed},
};
use crate::{
    Error, PeerMisbehaved, Reason, Step, StreamFailure, Terminated,
    stream::{
        acks::{Entry, Outgoing},
        decode::Decoded,
        violation::Violation,
    },
    wire::sm::Nonza,
};

/// What an open or closing stream is in the meantime.
pub(super) struct Suspended {
    pub(super) suspension: Suspension,
    pub(super) link: Link,
    before: Before,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Lost,
    /// The bytestream is there, and takes nothing at present.
    Still,
}

/// What the stream was, and will be again.
enum Before {
    Open(Open),
    Closing(Closing),
}

impl Suspended {
    /// The user has not closed the stream.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.before, Before::Open(_))
    }
}

impl Machine {
    /// Whether the stream goes on when its bytestream is lost.
    pub(crate) fn is_resumable(&self) -> bool {
        self.resumption().is_some()
            && match &self.state {
                State::Open(_) | State::Suspended(_) => true,
                // What the peer has acknowledged needs no other bytestream.
                State::Closing(Closing { footer, .. }) => {
                    *footer != Footer::HeldLast
                        && self.management.unacked() > 0
                        && self.closing_losses < CLOSING_LOSSES
                }
                _ => false,
            }
    }

    pub(super) fn resumption(&self) -> Option<&Resumption> {
        self.management.active()?.resumption.as_ref()
    }

    /// Whether there is no bytestream, or one that stands still.
    pub(crate) fn suspension(&self) -> Option<&Suspension> {
        match &self.state {
            State::Suspended(Suspended { suspension, .. }) => Some(suspension),
            _ => None,
        }
    }

    /// Whether there is no bytestream at all.
    pub(crate) fn is_adrift(&self) -> bool {
        matches!(&self.state, State::Suspended(Suspended { link: Link::Lost, .. }))
    }

    /// Whether an error of the bytestream is none of the stream's.
    pub(super) fn can_survive(&self, error: &Error) -> bool {
        self.is_resumable() && is_survivable(error)
    }

    /// As initiator: the responder believes that we go on over another bytestream, because we asked for that once
    /// (RFC 6120 §4.9.3.3). If we have given that one up since, a third is needed.
    pub(super) fn is_replaced(&self, failure: &StreamFailure) -> bool {
        self.role == Role::Initiator
            && failure.condition == DefinedCondition::Conflict
            && matches!(self.state, State::Open(_) | State::Closing(_))
            && self.is_resumable()
    }

    /// The bytestream is lost, and what was not written with it.
    pub(super) fn suspend(&mut self, cause: Error) {
        self.count_loss();
        self.enter_suspension(cause, Link::Lost);
        self.forget_unwritten();
    }

    /// The bytestream stands still, because there is no server that would pass anything on. Nothing on it is lost yet.
    pub(crate) fn stall(&mut self, now: Instant, cause: Error) {
        self.clock = now;
        if self.is_resumable() && matches!(self.state, State::Open(_) | State::Closing(_)) {
            self.count_loss();
            self.enter_suspension(cause, Link::Still);
        }
    }

    fn count_loss(&mut self) {
        if matches!(self.state, State::Closing(_)) {
            self.closing_losses = self.closing_losses.saturating_add(1);
        }
    }

    /// The bytestream goes on as before.
    pub(crate) fn unstall(&mut self, now: Instant) {
        self.clock = now;
        if matches!(self.state, State::Suspended(Suspended { link: Link::Still, .. })) {
            self.revive(now);
            self.ask_in_time(now);
        }
    }

    fn enter_suspension(&mut self, cause: Error, link: Link) {
        let Some(time) = self.resumption().map(|resumption| resumption.time) else { return };
        let mut until = self.clock + time;
        let mut closing_until = self.clock + self.timeouts.close;
        // Each way out of here sets the state.
        let before = match mem::replace(&mut self.state, State::Failed(cause.clone())) {
            State::Open(open) => Before::Open(open),
            State::Closing(closing) => Before::Closing(closing),
            State::Suspended(Suspended { suspension, before, .. }) => {
                closing_until = closing_until.min(suspension.until);
                before
            }
            other => return self.state = other,
        };
        if let Before::Closing(_) = before {
            until = until.min(closing_until);
        }
        tracing::debug!(%cause, "the stream is suspended");
        self.state = State::Suspended(Suspended { suspension: Suspension { cause, until }, link, before });
    }

    /// Goes on as before; a footer that is not sent follows.
    fn revive(&mut self, now: Instant) {
        let State::Suspended(Suspended { before, .. }) =
            mem::replace(&mut self.state, State::Failed(cut_off()))
        else {
            return;
        };
        self.handle_alive(now);
        match before {
            Before::Open(open) => self.state = State::Open(open),
            Before::Closing(Closing { footer: Footer::Sent, written, .. }) => {
                let deadline = now + self.timeouts.close;
                self.state = State::Closing(Closing { deadline, written, footer: Footer::Sent });
            }
            Before::Closing(_) => {
                self.state = State::Open(Open { id: None });
                self.part(now, Footer::Held);
            }
        }
    }

    /// There is no bytestream for what was queued. Stanzas are kept elsewhere.
    pub(super) fn forget_unwritten(&mut self) {
        self.outbox.discard();
        self.written = self.outbox.queued();
    }

    /// The user closes the stream, which has the time of an orderly close to come back.
    pub(super) fn close_suspended(&mut self, now: Instant) {
        let deadline = now + self.timeouts.close;
        let State::Suspended(Suspended { suspension, before, .. }) = &mut self.state else { return };
        if let Before::Open(_) = before {
            suspension.until = suspension.until.min(deadline);
            *before = Before::Closing(Closing { deadline, written: 0, footer: Footer::Held });
            self.refuse_requests(now);
        }
    }

    /// Something was read from a bytestream that should stand still.
    pub(super) fn handle_suspended(&mut self, now: Instant, read: Result<Decoded, Violation>) {
        let unset = State::Failed(cut_off());
        match mem::replace(&mut self.state, unset) {
            State::Suspended(Suspended { suspension, link: Link::Still, before }) => {
                self.state = match before {
                    Before::Open(open) => State::Open(open),
                    Before::Closing(closing) => State::Closing(closing),
                };
                self.handle(now, read);
                if matches!(self.state, State::Open(_) | State::Closing(_)) {
                    let Suspension { cause, until } = suspension;
                    self.enter_suspension(cause, Link::Still);
                    if let State::Suspended(suspended) = &mut self.state {
                        suspended.suspension.until = until;
                    }
                }
            }
            lost => self.state = lost,
        }
    }

    /// The stream can't be resumed.
    pub(crate) fn give_up(&mut self, why: Error) {
        if self.is_over() {
            return;
        }
        let error = match self.suspension() {
            Some(Suspension { cause, .. }) => {
                let why = match why {
                    Error::NotResumed(of_attempt) => Error::clone(&of_attempt.why),
                    other => other,
                };
                not_resumed(cause.clone(), why)
            }
            None => why,
        };
        self.fail(error);
    }

    /// Nobody has resumed the stream in time.
    pub(super) fn give_up_in_time(&mut self, now: Instant) {
        let State::Suspended(Suspended { suspension, before, .. }) = &self.state else { return };
        if suspension.until > now {
            return;
        }
        let why = match before {
            Before::Open(_) => {
                let time = self.resumption().map(|resumption| resumption.time).unwrap_or_default();
                Error::Timeout(Step::Transport, time)
            }
            Before::Closing(_) => Error::Timeout(Step::Close, self.timeouts.close),
        };
        self.give_up(why);
    }

    /// As initiator: what to ask the peer for. What is handled meanwhile is not acknowledged by that.
    pub(crate) fn resume_request(&mut self) -> Option<Resume> {
        let unread = self.inbox.oldest();
        let Management::Active(Active { incoming, resumption: Some(resumption), .. }) = &mut self.management
        else {
            return None;
        };
        Some(Resume { previd: resumption.id.clone(), h: incoming.tell(unread) })
    }

    /// Goes on with the bytestream of a fresh machine on which the peer wants or agrees to carry on this stream: what the peer
    /// has not handled is queued again. What [`Self::queued`] counts goes on too.
    ///
    /// # Errors
    ///
    /// The peer claims to have handled what was never sent; both machines have failed then, and the fresh one has a
    /// stream error to send. Or this stream can't be carried on, and the peer is told that.
    pub(crate) fn adopt(&mut self, now: Instant, mut fresh: Self) -> Result<(), Box<Self>> {
        self.clock = now;
        let h = match (fresh.asked_to_resume(), fresh.resumed_at()) {
            (Some(resume), _) => resume.h,
            (None, Some(h)) => h,
            (None, None) => return Err(Box::new(fresh)),
        };
        let unread = self.inbox.oldest();
        let Management::Active(active) = &mut self.management else {
            fresh.refuse_resumption(now);
            return Err(Box::new(fresh));
        };
        match active.out.acknowledge(h) {
            Ok(0) => {}
            Ok(_) => self.closing_losses = 0,
            Err(too_high) => {
                fresh.abort_too_high(now, too_high);
                self.fail(too_high_error(too_high));
                return Err(Box::new(fresh));
            }
        }
        let State::Reviving(Reviving { id, step, backlog, .. }) =
            mem::replace(&mut fresh.state, State::Failed(cut_off()))
        else {
            return Err(Box::new(fresh));
        };
        match step {
            Revival::Agreed(Resume { h, .. }, _) => active.incoming.resumed_at(h),
            Revival::Asked(Resume { previd, .. }) => {
                let h = active.incoming.tell(unread);
                active.incoming.resumed_at(h);
                fresh.outbox.negotiation(now, &Nonza::Resumed { h, previd }.to_element());
            }
            Revival::Awaited | Revival::Requested(_) => {}
        }
        self.take_bytestream(fresh);
        self.go_on(now, id, backlog);
        Ok(())
    }

    /// Takes over what belongs to a bytestream.
    fn take_bytestream(&mut self, fresh: Self) {
        let old = mem::replace(&mut self.outbox, fresh.outbox);
        self.outbox.continue_after(&old);
        self.written = old.queued().saturating_add(fresh.written);
        self.relay = fresh.relay;
        self.nonce = fresh.nonce;
        self.agenda = fresh.agenda;
        self.vigil = fresh.vigil;
    }

    /// Sends again what the peer has not handled, and takes what it has said already.
    fn go_on(&mut self, now: Instant, id: Option<String>, backlog: Vec<Result<Decoded, Violation>>) {
        if let Management::Active(active) = &self.management {
            for Entry { stanza, .. } in active.out.iter() {
                // It could be written before.
                if let Err(error) = self.outbox.stanza(now, stanza) {
                    tracing::debug!(%error, "a stanza can't be sent again");
                }
            }
        }
        let is_closing = match &self.state {
            State::Closing(_) => true,
            State::Suspended(suspended) => !suspended.is_open(),
            _ => false,
        };
        self.state = State::Open(Open { id });
        // Either way something is written, which ends the waiting for what was queued before.
        if is_closing {
            self.part(now, Footer::Held);
        } else {
            self.tell(now);
            if self.management.unacked() > 0 {
                self.ask(now);
            }
        }
        for read in backlog {
            self.handle(now, read);
        }
    }

    /// The peer does not know this stream any more: forgets what it has not acknowledged, and fails what waits for replies.
    pub(crate) fn hand_back(&mut self) -> Vec<Stanza> {
        let Management::Active(active) = &mut self.management else { return Vec::new() };
        let mut leftovers = mem::replace(&mut active.out, Outgoing::new()).into_leftovers();
        let cause = self.suspension().map_or_else(cut_off, |suspension| suspension.cause.clone());
        let error = not_resumed(cause, Terminated::new(Reason::Expired, None).into());
        leftovers.fail_receipts(&error);
        self.replies.fail_all(&error);
        self.services.fail_all(&error);
        // The peer has forgotten what it asked.
        self.requests.clear();
        leftovers.stanzas
    }

    /// After [`Self::hand_back`]: goes on with a new stream that is open. What was queued since is said there.
    pub(crate) fn begin_anew(&mut self, now: Instant, mut fresh: Self) {
        self.clock = now;
        let is_closing = matches!(&self.state, State::Suspended(suspended) if !suspended.is_open());
        let management = mem::replace(&mut fresh.management, Management::Off);
        let waiting = match mem::replace(&mut self.management, management) {
            Management::Active(active) => active.out.into_entries(),
            _ => Default::default(),
        };
        self.state = mem::replace(&mut fresh.state, State::Failed(cut_off()));
        self.inbox.append(&mut fresh.inbox);
        self.requests.append(&mut fresh.requests);
        mem::swap(&mut self.services, &mut fresh.services);
        mem::swap(&mut self.parties, &mut fresh.parties);
        self.violations = self.violations.saturating_add(fresh.violations);
        self.take_bytestream(fresh);
        for Entry { stanza, origin, .. } in waiting {
            if let Err(error) = self.say(now, stanza, origin) {
                tracing::debug!(%error, "a stanza can't be sent");
            }
        }
        if is_closing {
            self.close(now);
        }
    }
}

/// Whether an error is one of the way between the two, which neither side has decided on. Whatever is authenticated, or
/// said on purpose, ends a stream.
fn is_survivable(error: &Error) -> bool {
    match error {
        Error::Transport(_) | Error::Signalling(_) => true,
        Error::Timeout(step, _) => matches!(step, Step::BlockAck | Step::Silence | Step::Close),
        // A server that drops or changes bytes.
        Error::PeerMisbehaved(what) => matches!(what, PeerMisbehaved::Tls(_) | PeerMisbehaved::Bytestream(_)),
        Error::Terminated(terminated) => {
            matches!(terminated.reason, Reason::ConnectivityError | Reason::FailedTransport | Reason::Timeout)
        }
        _ => false,
    }
}
