//! A session's bytestream as tokio's `AsyncRead` and `AsyncWrite`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Read;
use crate::{Error, driver::SessionHandle};

/// The bytestream of a session. Shutting it down closes it for both sides (XEP-0047 #close).
#[derive(Debug)]
pub(crate) struct Bytestream(Arc<SessionHandle>);

impl Bytestream {
    pub(crate) fn new(session: Arc<SessionHandle>) -> Self {
        Self(session)
    }
}

impl AsyncRead for Bytestream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read =
            self.0.poll(cx, |sessions, id, now| match sessions.read(now, id, buffer.initialize_unfilled()) {
                Ok(Read::Data(bytes)) => Poll::Ready(Ok(bytes)),
                Ok(Read::End) => Poll::Ready(Ok(0)),
                Ok(Read::Pending) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            });
        read.map_ok(|bytes| buffer.advance(bytes)).map_err(Error::into_io)
    }
}

impl AsyncWrite for Bytestream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = self.0.poll(cx, |sessions, id, now| match sessions.write(now, id, bytes) {
            Ok(0) => Poll::Pending,
            result => Poll::Ready(result),
        });
        written.map_err(Error::into_io)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.0.poll(cx, |sessions, id, now| pending_unless(sessions.flush(now, id)));
        flushed.map_err(Error::into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = self.0.poll(cx, |sessions, id, now| pending_unless(sessions.shutdown(now, id)));
        closed.map_err(Error::into_io)
    }
}

fn pending_unless(done: Result<bool, Error>) -> Poll<Result<(), Error>> {
    match done {
        Ok(true) => Poll::Ready(Ok(())),
        Ok(false) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}
