//! What carries a stream, and when that changes.

use std::{
    fmt,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll},
};

use futures::Stream;

use super::Carrier;
use crate::TransportInfo;

/// The transports that a stream moves to while it lives; see [`E2eStream::moves`](super::E2eStream::moves).
///
/// Each item is the transport that carries the stream from then on. It ends when there will be no other one: with the stream,
/// when the stream is on SOCKS5, and for the initiator also when it does not, or no longer, try to move. It does not keep the stream up.
pub struct Moves {
    carrier: Option<Weak<dyn Carrier>>,
    last: Option<TransportInfo>,
}

impl Moves {
    pub(super) fn new(carrier: Option<Weak<dyn Carrier>>, first: Option<TransportInfo>) -> Self {
        Self { carrier, last: first }
    }
}

impl Stream for Moves {
    type Item = TransportInfo;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TransportInfo>> {
        let Some(carrier) = self.carrier.as_ref().and_then(Weak::upgrade) else { return Poll::Ready(None) };
        let next = carrier.poll_moved(cx, self.last.as_ref());
        if let Poll::Ready(Some(info)) = &next {
            self.last = Some(info.clone());
        }
        next
    }
}

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moves").field("last", &self.last).finish_non_exhaustive()
    }
}
