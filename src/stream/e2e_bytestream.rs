//! A bytestream between two XML streams.

use std::fmt;

use tokio::runtime::Handle;

use super::{
    e2e::E2eStream,
    e2e_buffers::Bytes,
    e2e_end,
    e2e_open::open,
    machine::Role,
    options::{Session, StreamOptions},
};
use crate::Error;

/// What outlives an XML stream.
pub(super) struct Kept {
    pub(super) io: Box<dyn Bytes>,
    /// What came behind the footer.
    pub(super) early: Vec<u8>,
    pub(super) session: Session,
    pub(super) role: Role,
    pub(super) options: StreamOptions,
}

impl Kept {
    async fn end(mut self) {
        e2e_end::end(&mut self.io, self.session, &self.options.timeouts).await;
    }

    /// Without a runtime nothing can be said to the peer, and the bytestream is just dropped.
    pub(super) fn end_in_background(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(self.end());
        }
    }
}

/// A bytestream whose XML stream was closed, and which can carry another one.
///
/// XEP-0247 lets the two parties close the XML stream and keep the bytestream and its Jingle session.
/// Dropping it closes the bytestream and ends the session in the background.
pub struct Bytestream {
    kept: Option<Box<Kept>>,
}

impl Bytestream {
    pub(super) fn new(kept: Box<Kept>) -> Self {
        Self { kept: Some(kept) }
    }

    /// Opens another XML stream. Whoever initiated the first one sends its header again; the other
    /// side's `reopen` waits for that, for as long as
    /// [`Timeouts::stream_header`](crate::Timeouts::stream_header).
    ///
    /// Dropping the future closes the bytestream and ends its session.
    ///
    /// # Errors
    ///
    /// As [`initiate`](super::initiate) and [`accept`](super::accept); the bytestream is closed then.
    pub async fn reopen(mut self) -> Result<E2eStream, Error> {
        match self.kept.take() {
            Some(kept) => {
                let Kept { io, early, session, role, options } = *kept;
                open(io, &early, role, session, options).await
            }
            None => Err(crate::ApiMisuse::StreamClosed.into()),
        }
    }

    /// Closes the bytestream and ends its session; waits for each for at most
    /// [`Timeouts::close`](crate::Timeouts::close). If the future is dropped, the session ends all the same.
    pub async fn close(mut self) {
        if let Some(kept) = self.kept.take() {
            kept.end().await;
        }
    }
}

impl Drop for Bytestream {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.end_in_background();
        }
    }
}

impl fmt::Debug for Bytestream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytestream").finish_non_exhaustive()
    }
}
