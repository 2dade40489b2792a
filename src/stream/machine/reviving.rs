//! An XML stream on which an earlier one is to be carried on (XEP-0198 #resumption).
//!
//! ```text
//!  initiator: Requested ──<resumed/>──► Agreed     responder: Awaited ──<resume/>──► Asked
//! ```
//!
//! In `Agreed` and `Asked`, what comes is kept for the stream that is carried on.

use std::{sync::Arc, time::Instant};

use xmpp_parsers::minidom::Element;

use super::{Machine, State, acking::Management, cut_off, management::Resume};
use crate::{
    Error, NotResumed, PeerIncompatible, PeerMisbehaved, Reason, Terminated,
    stream::{decode::Decoded, features, violation::Violation},
    wire::{ns, sm::Nonza},
};

/// Stanzas and other things that may come before the stream is carried on. One read has less.
const BACKLOG: usize = 4096;

pub(super) struct Reviving {
    pub(super) deadline: Instant,
    pub(super) id: Option<String>,
    pub(super) step: Step,
    pub(super) backlog: Vec<Result<Decoded, Violation>>,
}

pub(super) enum Step {
    Awaited,
    /// What the peer wants.
    Asked(Resume),
    /// What we want.
    Requested(Resume),
    /// What we wanted, and how much of ours the peer has handled.
    Agreed(Resume, u32),
}

impl Reviving {
    fn new(deadline: Instant, id: Option<String>, step: Step) -> Self {
        Self { deadline, id, step, backlog: Vec::new() }
    }

    /// It is known what is to be carried on.
    pub(super) fn is_agreed(&self) -> bool {
        matches!(self.step, Step::Asked(_) | Step::Agreed(..))
    }
}

impl Machine {
    /// As responder: the features went out.
    pub(super) fn await_resume(&mut self, deadline: Instant) {
        self.state = State::Reviving(Reviving::new(deadline, None, Step::Awaited));
    }

    /// As initiator: the features are here, or will not come.
    pub(super) fn ask_to_resume(
        &mut self,
        now: Instant,
        features: Option<&Element>,
        deadline: Instant,
        id: Option<String>,
    ) {
        let Management::ToResume(resume) = &self.management else { return };
        let resume = resume.clone();
        if !features.is_some_and(features::has_management) {
            self.outbox.footer(now);
            return self.fail(not_resumable());
        }
        let Resume { previd, h } = resume.clone();
        self.outbox.negotiation(now, &Nonza::Resume { h, previd }.to_element());
        self.state = State::Reviving(Reviving::new(deadline, id, Step::Requested(resume)));
    }

    /// Something was read before the stream is carried on.
    pub(super) fn handle_reviving(&mut self, now: Instant, read: Result<Decoded, Violation>) {
        let State::Reviving(reviving) = &mut self.state else { return };
        if reviving.is_agreed() {
            reviving.backlog.push(read);
            if reviving.backlog.len() > BACKLOG {
                self.abort(now, Violation::policy("too much came before the stream was resumed"));
            }
            return;
        }
        match read {
            Ok(Decoded::Management(Ok(nonza))) => self.handle_revival(now, nonza),
            Ok(Decoded::Management(Err(why))) => self.abort(now, Violation::policy(why.0)),
            Ok(Decoded::StreamError(error)) => self.handle_stream_error(now, error),
            Ok(Decoded::Unknown { .. } | Decoded::Features(_)) => {}
            Ok(Decoded::Footer) => {
                self.outbox.footer(now);
                let why = "it closed the stream instead of resuming another".to_owned();
                self.fail(PeerMisbehaved::XmlStream(why).into());
            }
            Ok(_) => self.abort(now, Violation::policy("this stream is for resuming another, and no more")),
            Err(violation) => self.abort(now, violation),
        }
    }

    fn handle_revival(&mut self, now: Instant, nonza: Nonza) {
        let State::Reviving(Reviving { step, .. }) = &mut self.state else { return };
        match (&*step, nonza) {
            (Step::Awaited, Nonza::Resume { h, previd }) => *step = Step::Asked(Resume { previd, h }),
            (Step::Requested(resume), Nonza::Resumed { h, previd }) if previd == resume.previd => {
                *step = Step::Agreed(resume.clone(), h);
            }
            (Step::Requested(_), Nonza::Resumed { .. }) => {
                self.abort(now, Violation::policy("another stream was resumed than was asked for"));
            }
            (Step::Requested(_), Nonza::Failed { condition, .. }) => {
                self.outbox.footer(now);
                self.fail(unknown_stream(condition));
            }
            _ => self.abort(now, Violation::policy("this stream is for resuming another, and no more")),
        }
    }

    /// Of a fresh machine, as responder: which stream the peer wants to carry on. It gets its answer by [`Self::adopt`] or
    /// [`Self::refuse_resumption`].
    pub(crate) fn asked_to_resume(&self) -> Option<&Resume> {
        match &self.state {
            State::Reviving(Reviving { step: Step::Asked(resume), .. }) => Some(resume),
            _ => None,
        }
    }

    /// Of a fresh machine, as initiator: how many stanzas the peer has handled of the stream that it agrees to carry on.
    pub(crate) fn resumed_at(&self) -> Option<u32> {
        match &self.state {
            State::Reviving(Reviving { step: Step::Agreed(_, h), .. }) => Some(*h),
            _ => None,
        }
    }

    /// Of a fresh machine: there is no such stream (XEP-0198 #resumption).
    pub(crate) fn refuse_resumption(&mut self, now: Instant) {
        if matches!(self.state, State::Reviving(_)) {
            self.outbox.negotiation(now, &Nonza::failed("item-not-found").to_element());
            self.outbox.footer(now);
            self.fail(unknown_stream(None));
        }
    }
}

/// There is no such stream, which is final.
fn unknown_stream(condition: Option<String>) -> Error {
    let why = Terminated::new(Reason::Expired, condition);
    not_resumed(cut_off(), why.into())
}

/// The peer knows nothing of resumption, which is final.
pub(super) fn not_resumable() -> Error {
    let missing = PeerIncompatible::MissingFeature(ns::SM.to_owned());
    not_resumed(cut_off(), Error::PeerIncompatible(missing))
}

pub(super) fn not_resumed(lost: Error, why: Error) -> Error {
    Error::NotResumed(NotResumed { lost: Arc::new(lost), why: Arc::new(why) })
}
