//! The initiator's phase before there is a stream.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt as _};
use jid::FullJid;

use super::{Endpoint, secure};
use crate::{Error, stream::E2eStream};

/// A stream that is being opened; see [`Endpoint::connect`]. Nothing happens before it is polled.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Connecting {
    peer: FullJid,
    future: BoxFuture<'static, Result<E2eStream, Error>>,
}

impl Connecting {
    pub(super) fn new(endpoint: Endpoint, peer: FullJid) -> Self {
        let to = peer.clone();
        let future = async move {
            let session = Arc::new(endpoint.handle.connect(to)?);
            session.opened().await?;
            secure::establish(endpoint, session).await
        };
        Self { peer, future: future.boxed() }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &FullJid {
        &self.peer
    }
}

impl Future for Connecting {
    type Output = Result<E2eStream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.poll_unpin(cx)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("peer", &self.peer).finish_non_exhaustive()
    }
}
