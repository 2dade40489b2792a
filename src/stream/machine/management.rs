//! Stream management on one stream (XEP-0198): acknowledgements, and what happens between two bytestreams.

use std::time::Instant;

use futures::channel::oneshot;
use xmpp_parsers::stanza::Stanza;

use super::Machine;
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
    /// Whether the stream goes on when its bytestream is lost.
    pub(crate) fn is_resumable(&self) -> bool {
        false
    }

    /// Whether there is no bytestream, or one that stands still.
    pub(crate) fn suspension(&self) -> Option<&Suspension> {
        None
    }

    /// The bytestream stands still, because there is no server that would pass anything on. Nothing on it is lost yet.
    pub(crate) fn stall(&mut self, _now: Instant, _cause: Error) {}

    /// The bytestream goes on as before.
    pub(crate) fn unstall(&mut self, _now: Instant) {}

    /// As initiator: what to ask the peer for. What is handled meanwhile is not acknowledged by that.
    pub(crate) fn resume_request(&mut self) -> Option<Resume> {
        None
    }

    /// Of a fresh machine, as responder: which stream the peer wants to carry on. It gets its answer by [`Self::adopt`] or
    /// [`Self::refuse_resumption`].
    pub(crate) fn asked_to_resume(&self) -> Option<&Resume> {
        None
    }

    /// Of a fresh machine, as initiator: how many stanzas the peer has handled of the stream that it agrees to carry on.
    pub(crate) fn resumed_at(&self) -> Option<u32> {
        None
    }

    /// Of a fresh machine: there is no such stream (XEP-0198 #resumption).
    pub(crate) fn refuse_resumption(&mut self, _now: Instant) {}

    /// Goes on with the bytestream of a fresh machine on which the peer wants or agrees to carry on this stream: what the peer
    /// has not handled is queued again. What [`Self::queued`] counts goes on too.
    ///
    /// # Errors
    ///
    /// The peer claims to have handled what was never sent; both machines have failed then, and the fresh one has a
    /// stream error to send.
    pub(crate) fn adopt(&mut self, _now: Instant, _fresh: Self) -> Result<(), Box<Self>> {
        Ok(())
    }

    /// The peer does not know this stream any more: forgets what it has not acknowledged, and fails what waits for replies.
    pub(crate) fn hand_back(&mut self) -> Vec<Stanza> {
        Vec::new()
    }

    /// After [`Self::hand_back`]: goes on with a new stream that is open.
    pub(crate) fn begin_anew(&mut self, _now: Instant, _fresh: Self) {}

    /// The stream can't be resumed.
    pub(crate) fn give_up(&mut self, why: Error) {
        self.fail(why);
    }

    /// As responder: what the stream is called for resumption, once the peer was told.
    pub(crate) fn resumption_id(&self) -> Option<&str> {
        None
    }

    /// Whether the peer acknowledges stanzas.
    pub(crate) fn acknowledges(&self) -> bool {
        false
    }

    /// Stanzas that were sent and not acknowledged.
    pub(crate) fn unacked(&self) -> usize {
        0
    }

    /// Whether another stanza of the user's should be queued now; an error says why none will ever be.
    pub(crate) fn check_room(&self) -> Result<bool, Error> {
        self.check_open().map(|()| true)
    }

    /// The bytestream shows that the peer is alive: something came, or it takes again what it did not take before.
    pub(crate) fn handle_alive(&mut self, _now: Instant) {}

    /// Whether we read at all: while we don't, nothing can be said of the peer.
    pub(crate) fn set_listening(&mut self, _now: Instant, _listening: bool) {}

    /// How the stream ended; `None` before it did. A stream that was closed in good order before all was acknowledged ends
    /// in an error, too.
    pub(crate) fn outcome(&self) -> Option<Result<(), Error>> {
        match (self.error(), self.closed_by()) {
            (Some(error), _) => Some(Err(error.clone())),
            (None, Some(_)) => Some(Ok(())),
            (None, None) => None,
        }
    }
}
