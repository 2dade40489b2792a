//! The flights of a handshake, each sent as a whole.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// A bytestream that sends what was written when the peer's answer is waited for, not whenever TLS flushes.
///
/// TLS flushes its last flight by itself. On a bytestream that makes a block of each flush, that block would go out alone,
/// and what follows at once would take another: the initiator's stream header, and what its user says first.
#[derive(Debug)]
pub(crate) struct Flights<IO> {
    io: IO,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake(Flush),
    /// Each flush is what it says.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    NotNeeded,
    Needed,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Flights<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, stage: Stage::Handshake(Flush::NotNeeded) }
    }

    /// The handshake is over, and something is to be written at once: the last flight goes with that.
    pub(super) fn pass(&mut self) {
        self.stage = Stage::Over;
    }

    /// The handshake is over, and the peer speaks next: the last flight goes now.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Handshake(Flush::Needed) => self.io.flush().await,
            Stage::Handshake(Flush::NotNeeded) | Stage::Over => Ok(()),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Flights<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stage == Stage::Handshake(Flush::Needed) {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.stage = Stage::Handshake(Flush::NotNeeded);
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Flights<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Stage::Handshake(flush) = &mut self.stage {
            *flush = Flush::Needed;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, BufWriter};

    use super::*;

    /// Like an in-band bytestream: what is written stays here until it is flushed.
    fn pipe() -> (Flights<BufWriter<tokio::io::DuplexStream>>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        (Flights::new(BufWriter::new(near)), far)
    }

    /// What has come by now.
    async fn arrived(far: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let count = tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut bytes)).await;
        bytes.truncate(count.map_or(0, |count| count.unwrap()));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_leaves_when_the_answer_is_waited_for() {
        let (mut near, mut far) = pipe();
        near.write_all(b"ClientHello").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(arrived(&mut far).await, b"");

        let mut buffer = [0; 8];
        let answer = tokio::time::timeout(std::time::Duration::ZERO, near.read(&mut buffer)).await;
        assert!(answer.is_err());
        assert_eq!(arrived(&mut far).await, b"ClientHello");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_flight_leaves_with_what_follows() {
        let (mut near, mut far) = pipe();
        near.write_all(b"Finished").await.unwrap();
        near.flush().await.unwrap();
        near.pass();
        near.write_all(b"<stream:stream>").await.unwrap();
        assert_eq!(arrived(&mut far).await, b"");

        near.flush().await.unwrap();
        assert_eq!(arrived(&mut far).await, b"Finished<stream:stream>");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_flight_leaves_by_itself_where_the_peer_speaks_next() {
        let (mut near, mut far) = pipe();
        near.write_all(b"Finished").await.unwrap();
        near.flush().await.unwrap();
        near.finish().await.unwrap();
        assert_eq!(arrived(&mut far).await, b"Finished");
    }
}
