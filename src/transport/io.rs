//! A session's bytestream as tokio's `AsyncRead` and `AsyncWrite`.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{Done, Read, Write, s5b::candidate::SocketId};
use crate::{Error, TransportError, driver::SessionHandle};

/// The bytestream of a session. Shutting it down closes it for both sides (XEP-0047 #close).
///
/// Each direction goes through the session until that says that a socket carries the rest.
#[derive(Debug)]
pub(crate) struct Bytestream {
    session: Arc<SessionHandle>,
    socket: Option<TcpStream>,
    /// Has to be written to the socket before anything else.
    carried: BytesMut,
    reading: Path,
    writing: Path,
}

/// Which way the bytes of one direction go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Session,
    Socket,
}

impl Bytestream {
    pub(crate) fn new(session: Arc<SessionHandle>) -> Self {
        Self {
            session,
            socket: None,
            carried: BytesMut::new(),
            reading: Path::Session,
            writing: Path::Session,
        }
    }

    fn take(&mut self, socket: SocketId) -> io::Result<()> {
        if self.socket.is_none() {
            let taken = self.session.take_socket(socket);
            // Somebody ended the session in between.
            let gone = || self.session.error().unwrap_or(Error::Transport(TransportError::Closed));
            self.socket = Some(taken.ok_or_else(|| gone().into_io())?);
            self.carried = self.session.with(|sessions, id, _| sessions.take_carried(id));
        }
        Ok(())
    }

    /// The socket of a direction whose path leads there.
    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let closed = || Error::Transport(TransportError::Closed).into_io();
        self.socket.as_mut().map(Pin::new).ok_or_else(closed)
    }

    /// The socket, with all that goes before what is written to it now on its way.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TcpStream>>> {
        while !self.carried.is_empty() {
            let Some(socket) = &mut self.socket else { break };
            let written = ready!(Pin::new(socket).poll_write(cx, &self.carried))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.carried.advance(written);
        }
        Poll::Ready(self.socket())
    }

    /// Asks the session to take another step until it is done, or a socket has to do the rest.
    fn poll_session(
        &mut self,
        cx: &Context<'_>,
        step: impl Fn(
            &mut crate::session::Sessions,
            crate::session::SessionId,
            std::time::Instant,
        ) -> Result<Done, Error>,
    ) -> Poll<io::Result<Path>> {
        let done = self.session.poll(cx, |sessions, id, now| match step(sessions, id, now) {
            Ok(Done::NotYet) => Poll::Pending,
            Ok(done) => Poll::Ready(Ok(done)),
            Err(error) => Poll::Ready(Err(error)),
        });
        match ready!(done).map_err(Error::into_io)? {
            Done::Socket(socket) => {
                self.take(socket)?;
                Poll::Ready(Ok(Path::Socket))
            }
            Done::Yes | Done::NotYet => Poll::Ready(Ok(Path::Session)),
        }
    }
}

impl AsyncRead for Bytestream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.reading == Path::Session {
            let read = self.session.poll(cx, |sessions, id, now| {
                match sessions.read(now, id, buffer.initialize_unfilled()) {
                    Ok(Read::Pending) => Poll::Pending,
                    result => Poll::Ready(result),
                }
            });
            match ready!(read).map_err(Error::into_io)? {
                Read::Data(bytes) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Read::End | Read::Pending => return Poll::Ready(Ok(())),
                Read::Socket(socket) => {
                    self.take(socket)?;
                    self.reading = Path::Socket;
                }
            }
        }
        self.socket()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Bytestream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.writing == Path::Session {
            let written = self.session.poll(cx, |sessions, id, now| match sessions.write(now, id, bytes) {
                Ok(Write::Pending) => Poll::Pending,
                result => Poll::Ready(result),
            });
            match ready!(written).map_err(Error::into_io)? {
                Write::Taken(bytes) => return Poll::Ready(Ok(bytes)),
                Write::Pending => return Poll::Pending,
                Write::Socket(socket) => {
                    self.take(socket)?;
                    self.writing = Path::Socket;
                }
            }
        }
        ready!(self.poll_writable(cx))?.poll_write(cx, bytes)
    }

    /// As many of them as can be had. A handshake that fails gets one try to leave its alert, and that is the last of them.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writing == Path::Socket {
            return ready!(self.poll_writable(cx))?.poll_write_vectored(cx, buffers);
        }
        let mut written = 0;
        for bytes in buffers.iter().filter(|bytes| !bytes.is_empty()) {
            match self.as_mut().poll_write(cx, bytes) {
                Poll::Ready(Ok(count)) => {
                    written += count;
                    if count < bytes.len() {
                        break;
                    }
                }
                // What was written has to be told first; what is wrong now will still be.
                _ if written > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing == Path::Session
            && ready!(self.poll_session(cx, |sessions, id, now| sessions.flush(now, id))?) == Path::Session
        {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_writable(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is still in band goes first, though the rest is written to the socket by now.
        match ready!(self.poll_session(cx, |sessions, id, now| sessions.shutdown(now, id))) {
            Ok(Path::Session) if self.socket.is_none() => return Poll::Ready(Ok(())),
            Err(error) if self.socket.is_none() => return Poll::Ready(Err(error)),
            // A session that has ended has no say in what becomes of the socket.
            Ok(_) | Err(_) => {}
        }
        self.writing = Path::Socket;
        ready!(self.poll_writable(cx))?.poll_shutdown(cx)
    }
}
