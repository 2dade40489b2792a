//! Two clients for the server's own tests: tokio-xmpp's, and one that writes XML as text.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures::StreamExt;
use mock_server::{MockServer, PASSWORD};
use sasl::common::ChannelBinding;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};
use tokio_xmpp::{
    connect::ServerConnector,
    stanzastream::{Event, StanzaStream, StreamEvent},
    xmlstream::{PendingFeaturesRecv, StreamHeader, Timeouts, initiate_stream},
};
use xmpp_parsers::jid::{FullJid, Jid};

pub const ROMEO: &str = "romeo@montague.lit/orchard";
pub const JULIET: &str = "juliet@capulet.lit/balcony";

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn jid(text: &str) -> FullJid {
    text.parse().unwrap()
}

/// Plain TCP to a fixed address.
#[derive(Clone, Debug)]
pub struct Connector(pub SocketAddr);

impl ServerConnector for Connector {
    type Stream = BufStream<TcpStream>;

    async fn connect(
        &self,
        jid: &Jid,
        ns: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), tokio_xmpp::Error> {
        let tcp = TcpStream::connect(self.0).await?;
        tcp.set_nodelay(true)?;
        let header = StreamHeader { to: Some(jid.domain().as_str().into()), from: None, id: None };
        let stream = initiate_stream(BufStream::new(tcp), ns, header, timeouts).await?;
        Ok((stream, ChannelBinding::None))
    }
}

/// Logs in with tokio-xmpp; the JID that was bound.
pub async fn login(server: &MockServer, jid: &str) -> (StanzaStream, Jid) {
    let jid: Jid = jid.parse().unwrap();
    let connector = Connector(server.addr());
    let mut stream = StanzaStream::new_c2s(connector, jid, PASSWORD.to_owned(), Timeouts::default(), 64);
    match timeout(PATIENCE, stream.next()).await.expect("the login is quick") {
        Some(Event::Stream(StreamEvent::Reset { bound_jid, .. })) => (stream, bound_jid),
        other => panic!("no login but {other:?}"),
    }
}

/// A client that sends and reads text.
pub struct Raw<Io = TcpStream> {
    pub io: Io,
    unread: String,
}

impl Raw {
    pub async fn connect(server: &MockServer) -> Self {
        let io = TcpStream::connect(server.addr()).await.unwrap();
        io.set_nodelay(true).unwrap();
        Self::over(io)
    }

    /// Logs in and binds the JID's resource.
    pub async fn login(server: &MockServer, jid: &str) -> Self {
        let mut client = Self::connect(server).await;
        client.log_in(jid).await;
        client
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Raw<Io> {
    pub fn over(io: Io) -> Self {
        Self { io, unread: String::new() }
    }

    pub async fn send(&mut self, xml: &str) {
        self.io.write_all(xml.as_bytes()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub async fn open(&mut self, domain: &str) {
        self.send(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
        ))
        .await;
        self.until("</stream:features>").await;
    }

    pub async fn auth_plain(&mut self, user: &str, password: &str) {
        let data = BASE64.encode(format!("\0{user}\0{password}"));
        self.send(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>"))
            .await;
    }

    pub async fn log_in(&mut self, jid: &str) {
        let jid: FullJid = jid.parse().unwrap();
        self.open(jid.domain().as_str()).await;
        self.auth_plain(jid.node().unwrap().as_str(), PASSWORD).await;
        self.until("<success").await;
        self.until(">").await;
        self.open(jid.domain().as_str()).await;
        self.bind(jid.resource().as_str()).await;
    }

    pub async fn bind(&mut self, resource: &str) -> String {
        self.send(&format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        ))
        .await;
        self.until("</iq>").await
    }

    /// Reads up to and with the first `needle`.
    pub async fn until(&mut self, needle: &str) -> String {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(at) = self.unread.find(needle) {
                    let rest = self.unread.split_off(at + needle.len());
                    return std::mem::replace(&mut self.unread, rest);
                }
                let mut chunk = [0; 4096];
                let read = self.io.read(&mut chunk).await.expect("no error while reading");
                assert_ne!(read, 0, "closed after {:?}, before {needle:?}", self.unread);
                self.unread.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {needle:?} came"))
    }

    /// A marker goes to ourselves: whatever came before it is all there was.
    pub async fn everything_before_a_ping(&mut self) -> String {
        self.send("<iq type='get' id='marker' to='montague.lit'><ping xmlns='urn:xmpp:ping'/></iq>").await;
        self.until("id='marker'").await
    }

    /// Reads to the end; what came, and whether the connection was closed at all.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset is an end, too.
        timeout(PATIENCE, self.io.read_to_end(&mut bytes)).await.expect("the connection is closed").ok();
        std::mem::take(&mut self.unread) + std::str::from_utf8(&bytes).unwrap()
    }
}
