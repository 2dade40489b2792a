//! One client's bytes: reading frames, writing while logging in.

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::{
    ending::Ending,
    link::{Link, MAX_CHUNK},
    xml::{Frame, StreamParser},
};

/// Plain TCP or TLS over it.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(crate) type Io = Box<dyn Duplex>;

/// A connection that reads frames; `R` is all of it or, when bound, its reading half.
pub(crate) struct Connection<R> {
    io: R,
    parser: StreamParser,
    /// Read and not yet parsed.
    buffer: BytesMut,
    max_stanza: usize,
}

impl<R: AsyncRead + Unpin> Connection<R> {
    pub(crate) fn new(io: R, max_stanza: usize) -> Self {
        Self { io, parser: StreamParser::new(max_stanza), buffer: BytesMut::new(), max_stanza }
    }

    /// The next frame. `link` makes the reading slow. Cancel safe without a `link`.
    pub(crate) async fn next(&mut self, mut link: Option<&mut Link>) -> Result<Frame, Ending> {
        loop {
            let mut input = self.buffer.as_ref();
            let before = input.len();
            let parsed = self.parser.next(&mut input);
            let consumed = before - input.len();
            self.buffer.advance(consumed);
            if let Some(frame) = parsed? {
                return Ok(frame);
            }
            let chunk = match &mut link {
                Some(link) => link.ready().await,
                None => MAX_CHUNK,
            };
            self.buffer.reserve(chunk);
            let read = self.io.read_buf(&mut (&mut self.buffer).limit(chunk)).await?;
            if read == 0 {
                return Err(Ending::Lost);
            }
            if let Some(link) = &mut link {
                link.passed(read);
            }
        }
    }

    /// Forgets the stream so far: the next frame is a header (RFC 6120, 4.3.3).
    pub(crate) fn reset(&mut self) {
        self.parser = StreamParser::new(self.max_stanza);
    }

    /// Reads and forgets until the client closes, so that closing does not destroy what it has yet to read.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.buffer.clear();
            match self.io.read_buf(&mut (&mut self.buffer).limit(MAX_CHUNK)).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Connection<Io> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Ending> {
        self.io.write_all(bytes.as_ref()).await?;
        self.io.flush().await?;
        Ok(())
    }

    /// Takes the bare connection back, to start TLS on it. Fails if the client has said more: that was not encrypted.
    pub(crate) fn into_io(self) -> Result<Io, Ending> {
        match self.buffer.is_empty() {
            true => Ok(self.io),
            false => Err(Ending::error("policy-violation", "data behind <starttls/>")),
        }
    }

    /// Says the last words and closes.
    pub(crate) async fn close(mut self, ending: &Ending) {
        if self.send(ending.to_bytes()).await.is_ok() && self.io.shutdown().await.is_ok() {
            self.drain().await;
        }
    }

    pub(crate) fn split(self) -> (Connection<ReadHalf<Io>>, WriteHalf<Io>) {
        let (read, write) = tokio::io::split(self.io);
        let Self { parser, buffer, max_stanza, .. } = self;
        (Connection { io: read, parser, buffer, max_stanza }, write)
    }
}
