//! What carries a stream, and when that changes.

use std::{
    fmt,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll},
};

use futures::Stream;

use super::e2e_shared::Shared;
use crate::TransportInfo;

/// The transports that a stream moves to while it lives; see [`E2eStream::moves`](super::E2eStream::moves).
///
/// Each item is the transport that carries the stream from then on. It ends when there will be no other one: with the stream,
/// when the stream is on SOCKS5, and for the initiator also when it does not, or no longer, try to move. It does not keep the stream up.
///
/// Where a stream is lost before that and [resumed](super::E2eStream::events), it goes on with what carries it then.
pub struct Moves {
    shared: Weak<Shared>,
    last: Option<TransportInfo>,
}

impl Moves {
    pub(super) fn new(shared: Weak<Shared>, first: Option<TransportInfo>) -> Self {
        Self { shared, last: first }
    }
}

impl Stream for Moves {
    type Item = TransportInfo;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TransportInfo>> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Ready(None) };
        let (carrier, may_come_back) = shared.with(|inner, _| {
            inner.await_carrier(cx);
            let machine = &inner.machine;
            (inner.carrier.as_ref().and_then(Weak::upgrade), machine.is_resumable() && !machine.is_over())
        });
        let Some(carrier) = carrier.filter(|carrier| !may_come_back || carrier.error().is_none()) else {
            return if may_come_back { Poll::Pending } else { Poll::Ready(None) };
        };
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
