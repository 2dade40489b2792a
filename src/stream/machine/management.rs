//! Stream management on one stream (XEP-0198): acknowledgements, and what happens between two bytestreams.

use std::time::Instant;

use futures::channel::oneshot;

use super::{Machine, Role, acking::Management};
use crate::Error;

/// Where the peer's acknowledgement of one stanza arrives.
pub(crate) type ReceiptSender = oneshot::Sender<Result<(), Error>>;

/// What an XML stream is to do about stream management.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Nothing: it is neither offered nor used.
    Off,
    /// Enable it, where the peer has it too.
    Enable(Enable),
    /// As initiator: carry on an earlier stream, and nothing else.
    Resume(Resume),
    /// As responder: let the initiator carry on an earlier stream, and nothing else.
    AwaitResume,
}

/// How it is to be enabled.
#[derive(Clone, Debug)]
pub(crate) struct Enable {
    /// What the responder calls the stream if it can be resumed: random, and only ever sent to the peer; `None` if it can't be.
    /// The initiator sets anything to ask for it.
    pub(crate) id: Option<String>,
    pub(crate) config: crate::SmConfig,
}

/// Which stream is to be carried on, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) previd: String,
    /// Stanzas that were handled.
    pub(crate) h: u32,
}

/// A stream without a bytestream.
#[derive(Clone, Debug)]
pub(crate) struct Suspension {
    pub(crate) cause: Error,
    /// When it is to be given up.
    pub(crate) until: Instant,
}

impl Machine {
    /// As responder: what the stream is called for resumption, once the peer was told.
    pub(crate) fn resumption_id(&self) -> Option<&str> {
        let resumption = self.resumption().filter(|_| self.role == Role::Responder)?;
        Some(&resumption.id)
    }

    /// As responder: whether a peer that asks for this stream asked before it got to where it is now, by a bytestream that it
    /// has given up since.
    pub(crate) fn is_outdated(&self, resume: &Resume) -> bool {
        self.management.active().is_some_and(|active| active.out.is_outdated(resume.h))
    }

    /// Whether the peer acknowledges stanzas.
    pub(crate) fn acknowledges(&self) -> bool {
        self.management.active().is_some()
    }

    /// Once the stream has failed: whether the peer waits for us to carry it on, if it takes the bytestream for lost.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.management, Management::Left)
    }

    /// Stanzas that were sent and not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        self.management.unacked()
    }

    /// Whether another stanza of the user's should be queued now; an error says why none will ever be.
    pub(crate) fn check_room(&self) -> Result<bool, Error> {
        self.check_open()?;
        Ok(self.suspension().is_none() && self.management.has_room(&self.limits))
    }
}

#[cfg(test)]
impl Machine {
    /// As if so many stanzas had gone both ways, and been acknowledged.
    pub(crate) fn start_counting_at(&mut self, count: u32) {
        if let Management::Active(active) = &mut self.management {
            active.out.start_at(count);
            active.incoming.start_at(count);
        }
    }
}
