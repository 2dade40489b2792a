//! What keeps a stream open.

use std::sync::Arc;

use super::{
    e2e_peer::Remote,
    e2e_shared::{Intent, Shared, Task},
    options::StreamInfo,
};

/// What all handles of one stream share. With the last of them the stream is closed.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) info: StreamInfo,
}

impl Handle {
    /// Who the peer is; `None` without encryption, and before that is settled.
    pub(super) fn remote(&self) -> Option<Arc<Remote>> {
        self.shared.with(|inner, _| inner.remote.clone())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let kept = self.shared.with(|inner, wakes| {
            inner.end(Intent::Close, wakes);
            match std::mem::replace(&mut inner.task, Task::Running) {
                Task::Kept(kept) => {
                    inner.task = Task::Done(Ok(()));
                    Some(kept)
                }
                other => {
                    inner.task = other;
                    None
                }
            }
        });
        if let Some(kept) = kept {
            kept.end_in_background();
        }
    }
}
