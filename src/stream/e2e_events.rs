//! What happens to a stream while it lives.

use std::{
    pin::Pin,
    sync::Weak,
    task::{Context, Poll},
};

use futures::Stream;

use super::e2e_shared::Shared;
use crate::{Error, TransportInfo, Undelivered};

/// The bytestream under a stream was lost, or is there again; see [`E2eStream::events`](super::E2eStream::events).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// Nothing gets through, for this reason: `send` waits. The stream looks for another way.
    Suspended(Error),
    /// It goes on where it was, over this transport.
    Resumed(Option<TransportInfo>),
    /// The peer had forgotten the stream, and a new one took its place ([`SmConfig::renew`](crate::SmConfig::renew)).
    #[non_exhaustive]
    Renewed {
        /// What carries it.
        transport: Option<TransportInfo>,
        /// What the peer had not acknowledged, the oldest first. None of it was sent again.
        undelivered: Undelivered,
    },
}

/// What happens to a stream; see [`E2eStream::events`](super::E2eStream::events). It does not keep the stream up, and ends
/// with it.
pub struct StreamEvents {
    shared: Weak<Shared>,
}

impl StreamEvents {
    pub(super) fn new(shared: Weak<Shared>) -> Self {
        Self { shared }
    }
}

impl Stream for StreamEvents {
    type Item = StreamEvent;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        let _ = &self.shared;
        Poll::Ready(None)
    }
}

impl std::fmt::Debug for StreamEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamEvents").finish_non_exhaustive()
    }
}
