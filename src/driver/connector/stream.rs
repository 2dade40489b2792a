//! The byte streams under the XML stream with the server.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::depth_guard::{DepthGuard, MAX_STANZA_DEPTH};

/// The size of a stanza from the server, in bytes of XML. Servers let 256 or 512 KiB through, some 10 MB; tokio-xmpp would
/// keep whatever comes.
const MAX_STANZA_BYTES: usize = 16 * 1024 * 1024;

/// How much is read at once. rxml gets slower with larger windows.
const WINDOW: usize = 8 * 1024;

/// A byte stream that hides elements nested too deep for tokio-xmpp's parser.
///
/// tokio-xmpp parses a stanza by recursion: some 3,400 nested elements, 24 KB that any peer can have routed to us,
/// overflow the stack, which ends the process. This wrapper lets an XML stream through as it is, but without the
/// elements that are nested deeper than 128 in a stanza, and logs at `warn` when there were any. A stanza of more than
/// 16 MiB ends the connection.
///
/// [`Connector`](crate::Connector) puts it around every stream. A
/// [`ServerConnector`](tokio_xmpp::connect::ServerConnector) of your own should do the same, with the decrypted bytes;
/// wrap anew after a TLS handshake.
#[derive(Debug)]
pub struct DepthGuarded<S> {
    inner: S,
    guard: DepthGuard,
    window: Box<[u8]>,
    passed: Vec<u8>,
    /// How many bytes of `passed` were taken.
    taken: usize,
}

impl<S> DepthGuarded<S> {
    /// Guards a stream on which nothing was read yet.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            guard: DepthGuard::new(MAX_STANZA_DEPTH),
            window: vec![0; WINDOW].into_boxed_slice(),
            passed: Vec::with_capacity(WINDOW),
            taken: 0,
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below. What was read from it and not from this is lost.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// What was read and waits to be taken.
    pub(super) fn buffer(&self) -> &[u8] {
        self.passed.get(self.taken..).unwrap_or_default()
    }
}

impl<S: AsyncRead + Unpin> AsyncBufRead for DepthGuarded<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.buffer().is_empty() {
            let mut window = ReadBuf::new(&mut this.window);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut window))?;
            if window.filled().is_empty() {
                break;
            }
            this.passed.clear();
            this.taken = 0;
            this.guard.feed(window.filled(), &mut this.passed);
            if this.guard.stanza_bytes() > MAX_STANZA_BYTES {
                let what = format!("a stanza of more than {MAX_STANZA_BYTES} bytes");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
        }
        Poll::Ready(Ok(this.buffer()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.taken = this.taken.saturating_add(amount).min(this.passed.len());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DepthGuarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let waiting = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = waiting.len().min(buf.remaining());
        buf.put_slice(waiting.get(..amount).unwrap_or_default());
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DepthGuarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// A TCP connection that acknowledges at once.
///
/// Both XMPP libraries and servers write twice in a row (a stanza, then XEP-0198's `<r/>`). With Nagle's algorithm on
/// the sending side, the second write waits for the acknowledgement of the first, and the receiving side's kernel
/// delays that by 40 ms. TCP_NODELAY mends the one direction, TCP_QUICKACK the other; Linux forgets the latter, so it
/// is set again after every read.
#[derive(Debug)]
pub(super) struct PromptTcp(TcpStream);

impl PromptTcp {
    pub(super) fn new(tcp: TcpStream) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let prompt = Self(tcp);
        prompt.acknowledge_at_once();
        Ok(prompt)
    }

    #[cfg(target_os = "linux")]
    fn acknowledge_at_once(&self) {
        // A kernel that refuses makes the connection slower, not wrong.
        let _ = socket2::SockRef::from(&self.0).set_tcp_quickack(true);
    }

    #[cfg(not(target_os = "linux"))]
    fn acknowledge_at_once(&self) {}
}

impl AsyncRead for PromptTcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.0).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.acknowledge_at_once();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PromptTcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// The connection to the server, with TLS or without.
#[derive(Debug)]
pub struct ServerSocket(Layer);

#[derive(Debug)]
enum Layer {
    Plain(PromptTcp),
    Tls(Box<TlsStream<PromptTcp>>),
}

impl ServerSocket {
    pub(super) fn plain(tcp: PromptTcp) -> Self {
        Self(Layer::Plain(tcp))
    }

    pub(super) fn tls(tls: TlsStream<PromptTcp>) -> Self {
        Self(Layer::Tls(Box::new(tls)))
    }

    /// The TCP connection, for its addresses and options.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Layer::Plain(tcp) => &tcp.0,
            Layer::Tls(tls) => &tls.get_ref().0.0,
        }
    }
}

impl AsyncRead for ServerSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Layer::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Layer::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ServerSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Layer::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Layer::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Layer::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Layer::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Layer::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Layer::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
