//! Closing a stream on behalf of somebody who does not hold it.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Weak},
};

use super::e2e_shared::{Intent, Shared, Task};

/// Can close a stream in good order, and does not keep it open.
#[derive(Clone)]
pub(crate) struct Closer(Weak<Shared>);

impl Closer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Whether the stream is closed already.
    pub(crate) fn is_closed(&self) -> bool {
        let shared = self.0.upgrade();
        shared.is_none_or(|shared| shared.with(|inner, _| matches!(inner.task, Task::Done(_))))
    }

    /// Closes the stream as [`E2eStream::close`](super::E2eStream::close) does. What goes wrong is for those who hold it to see.
    pub(crate) async fn close(self) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.with(|inner, wakes| inner.end(Intent::Close, wakes));
        drop(poll_fn(|cx| shared.with(|inner, _| inner.poll_done(cx))).await);
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closer").finish_non_exhaustive()
    }
}
