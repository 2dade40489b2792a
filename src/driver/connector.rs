//! How a bot reaches its server: DNS, TCP, TLS, and a stream that is prompt and can't overflow the stack.

mod depth_guard;
mod error;
mod stream;
mod tls;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use jid::Jid;
use sasl::common::ChannelBinding;
use tokio::{io::BufWriter, net::TcpStream, sync::OnceCell};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_xmpp::{
    connect::{DnsConfig, ServerConnector},
    xmlstream::{
        PendingFeaturesRecv, ReadError, StreamHeader, Timeouts, XmppStream, XmppStreamElement,
        initiate_stream,
    },
};
use xmpp_parsers::starttls::{Nonza, Request};

pub use self::stream::{DepthGuarded, ServerSocket};
use self::{error::ConnectError, stream::PromptTcp, tls::Certificates};

/// For a TCP connection, the DNS questions and every server that a SRV record names. Default of most operating systems
/// for one address: 130 s, too long for a bot that is waiting to be online.
const TCP_TIMEOUT: Duration = Duration::from_secs(60);

/// From the TCP connection to the server's stream header, with STARTTLS and TLS in between; a silent server would
/// hold us for ever.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// How an [`Endpoint`](crate::Endpoint) reaches its server.
///
/// The default looks the server up in DNS, requires STARTTLS and verifies the server's certificate for the domain of
/// the JID, with TLS 1.2 or 1.3 and the certificates that the operating system trusts.
///
/// Unlike tokio-xmpp's own connectors it turns Nagle's algorithm and delayed acknowledgements off (a ping takes 0.7 ms
/// instead of 43 ms), and removes what is nested deeper than 128 elements from stanzas, because tokio-xmpp's parser
/// overflows the stack on some 3,400 (see [`DepthGuarded`]).
///
/// Clones share the loaded certificates.
///
/// ```
/// use jingle_xmlstream::Connector;
///
/// let public = Connector::default();
/// let mine = Connector::direct_tls().server("xmpp.example.org", 443);
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    server: Server,
    encryption: Encryption,
    certificates: Certificates,
    binding: Binding,
    /// Made at the first connection: reading the operating system's certificates takes a while.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

#[derive(Clone, Debug)]
enum Server {
    /// Where the domain's SRV records point to (RFC 6120 §3.2.1, XEP-0368).
    FromDns,
    At {
        host: String,
        port: u16,
    },
}

#[derive(Clone, Copy, Debug)]
enum Encryption {
    /// RFC 6120 §5.
    StartTls,
    /// XEP-0368.
    Direct,
    None,
}

#[derive(Clone, Copy, Debug)]
enum Binding {
    TlsExporter,
    None,
}

impl Connector {
    /// STARTTLS on the server that `_xmpp-client._tcp` names, or on port 5222 of the domain. A server that doesn't
    /// offer STARTTLS is refused.
    #[must_use]
    pub fn starttls() -> Self {
        Self::new(Encryption::StartTls)
    }

    /// TLS from the first byte (XEP-0368) on the server that `_xmpps-client._tcp` names, or on port 5223 of the domain.
    #[must_use]
    pub fn direct_tls() -> Self {
        Self::new(Encryption::Direct)
    }

    fn new(encryption: Encryption) -> Self {
        Self {
            server: Server::FromDns,
            encryption,
            certificates: Certificates::Platform,
            binding: Binding::None,
            tls: Arc::default(),
        }
    }

    /// Connects to this host (a name or an IP address) instead of asking DNS for SRV records. The certificate is still
    /// verified for the domain of the JID.
    #[must_use]
    pub fn server(mut self, host: impl Into<String>, port: u16) -> Self {
        self.server = Server::At { host: host.into(), port };
        self
    }

    /// Trusts these certificate authorities instead of those of the operating system.
    ///
    /// A self-signed server certificate can be given itself, unless it is marked as an authority (`CA:TRUE`, which
    /// `openssl req -x509` does by default): such a one is refused as `CaUsedAsEndEntity`.
    #[must_use]
    pub fn roots(mut self, roots: RootCertStore) -> Self {
        self.believe(Certificates::Roots(Arc::new(roots)));
        self
    }

    /// Binds the login to the TLS connection (`tls-exporter`, RFC 9266), which protects it from somebody who has a
    /// certificate for the server's domain. For servers that are known to support it.
    ///
    /// It is off by default because of what tokio-xmpp 6.0 does with it elsewhere: where the server does not offer
    /// SCRAM with binding, as Prosody 0.12, it falls back to PLAIN, which shows the password to the server, instead of SCRAM
    /// without binding; where the server gets it wrong, as ejabberd 23.01 (Debian 12), it tries again for ever.
    #[must_use]
    pub fn with_channel_binding(mut self) -> Self {
        self.binding = Binding::TlsExporter;
        self
    }

    /// The settings that give up security.
    pub fn dangerous(&mut self) -> DangerousConnector<'_> {
        DangerousConnector(self)
    }

    fn believe(&mut self, certificates: Certificates) {
        self.certificates = certificates;
        self.tls = Arc::default();
    }
}

impl Default for Connector {
    /// The same as [`Connector::starttls`].
    fn default() -> Self {
        Self::starttls()
    }
}

/// Settings that give up security; see [`Connector::dangerous`].
///
/// ```
/// use jingle_xmlstream::Connector;
///
/// let mut connector = Connector::starttls().server("127.0.0.1", 5222);
/// connector.dangerous().plaintext();
/// ```
#[derive(Debug)]
pub struct DangerousConnector<'a>(&'a mut Connector);

impl DangerousConnector<'_> {
    /// Connects without TLS. Everybody on the way can read and change everything, and may learn the password. For a
    /// server on the same machine.
    pub fn plaintext(&mut self) -> &mut Self {
        tracing::warn!("the connection to the server is not encrypted");
        self.0.encryption = Encryption::None;
        self
    }

    /// Accepts any certificate from the server. Everybody on the way can pretend to be the server. For tests;
    /// [`Connector::roots`] is as good for a server with a certificate of its own making.
    pub fn accept_any_certificate(&mut self) -> &mut Self {
        tracing::warn!("the server's certificate is not verified: anybody can pretend to be the server");
        self.0.believe(Certificates::Any);
        self
    }
}

impl ServerConnector for Connector {
    type Stream = DepthGuarded<BufWriter<ServerSocket>>;

    /// Not cancel safe, but nothing is lost by dropping it: the connection is closed.
    async fn connect(
        &self,
        jid: &Jid,
        ns: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<Self::Stream>, ChannelBinding), tokio_xmpp::Error> {
        let tcp = within(TCP_TIMEOUT, "connecting to the server", self.reach(jid)).await?;
        let tcp = PromptTcp::new(tcp)?;
        within(SETUP_TIMEOUT, "setting up the stream with the server", self.set_up(tcp, jid, ns, timeouts))
            .await
    }
}

impl Connector {
    async fn reach(&self, jid: &Jid) -> Result<TcpStream, tokio_xmpp::Error> {
        let domain = jid.domain().as_str();
        let dns = match &self.server {
            Server::FromDns => match self.encryption {
                Encryption::Direct => DnsConfig::srv(domain, "_xmpps-client._tcp", 5223),
                Encryption::StartTls | Encryption::None => DnsConfig::srv(domain, "_xmpp-client._tcp", 5222),
            },
            Server::At { host, port } => match host.parse::<IpAddr>() {
                // Works without a resolver, and so without /etc/resolv.conf.
                Ok(address) => DnsConfig::addr(&SocketAddr::new(address, *port).to_string()),
                Err(_) => DnsConfig::no_srv(host, *port),
            },
        };
        dns.resolve().await
    }

    async fn set_up(
        &self,
        tcp: PromptTcp,
        jid: &Jid,
        ns: &'static str,
        timeouts: Timeouts,
    ) -> Result<(PendingFeaturesRecv<DepthGuarded<BufWriter<ServerSocket>>>, ChannelBinding), tokio_xmpp::Error>
    {
        let domain = jid.domain().as_str();
        let tcp = match self.encryption {
            Encryption::None => {
                let stream = open(ServerSocket::plain(tcp), domain, None, ns, timeouts).await?;
                return Ok((stream, ChannelBinding::None));
            }
            Encryption::StartTls => request_tls(tcp, domain, ns, timeouts).await?,
            Encryption::Direct => tcp,
        };
        let tls = tls::handshake(self.tls_config().await?, domain, tcp).await?;
        let binding = match self.binding {
            Binding::TlsExporter => tls::channel_binding(&tls)?,
            Binding::None => ChannelBinding::None,
        };
        // RFC 6120 §4.7.1: the own JID only when nobody else can read it.
        let from = jid.to_bare();
        let stream = open(ServerSocket::tls(tls), domain, Some(from.as_str()), ns, timeouts).await?;
        Ok((stream, binding))
    }

    async fn tls_config(&self) -> Result<Arc<ClientConfig>, ConnectError> {
        let make = || async {
            let certificates = self.certificates.clone();
            let direct = matches!(self.encryption, Encryption::Direct);
            tokio::task::spawn_blocking(move || tls::client_config(certificates, direct))
                .await
                .map_err(|_| ConnectError::Interrupted)?
                .map(Arc::new)
        };
        self.tls.get_or_try_init(make).await.cloned()
    }
}

async fn within<T>(
    limit: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, tokio_xmpp::Error>>,
) -> Result<T, tokio_xmpp::Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(step, limit).into()),
    }
}

/// Exchanges stream headers (RFC 6120 §4.2).
async fn open<S>(
    io: S,
    to: &str,
    from: Option<&str>,
    ns: &'static str,
    timeouts: Timeouts,
) -> Result<PendingFeaturesRecv<DepthGuarded<BufWriter<S>>>, tokio_xmpp::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let header = StreamHeader { to: Some(Cow::Borrowed(to)), from: from.map(Cow::Borrowed), id: None };
    Ok(initiate_stream(DepthGuarded::new(BufWriter::new(io)), ns, header, timeouts).await?)
}

/// Goes up to `<proceed/>` (RFC 6120 §5.4.2).
async fn request_tls(
    tcp: PromptTcp,
    domain: &str,
    ns: &'static str,
    timeouts: Timeouts,
) -> Result<PromptTcp, tokio_xmpp::Error> {
    let pending = open(tcp, domain, None, ns, timeouts).await?;
    let (features, mut stream): (_, XmppStream<_>) = pending.recv_features().await?;
    if !features.can_starttls() {
        return Err(ConnectError::NoStartTls { domain: domain.to_owned() }.into());
    }
    stream.send(&XmppStreamElement::Starttls(Nonza::Request(Request))).await?;
    await_proceed(&mut stream, domain).await?;
    let guarded = stream.into_inner();
    if !guarded.buffer().is_empty() {
        return Err(ConnectError::PlaintextBehindProceed { domain: domain.to_owned() }.into());
    }
    Ok(guarded.into_inner().into_inner())
}

async fn await_proceed(
    stream: &mut XmppStream<DepthGuarded<BufWriter<PromptTcp>>>,
    domain: &str,
) -> Result<(), tokio_xmpp::Error> {
    let domain = domain.to_owned();
    loop {
        let element = match stream.next().await {
            Some(Ok(element)) => element.into_read_error(),
            Some(Err(error)) => Err(error),
            None => return Err(tokio_xmpp::Error::Disconnected),
        };
        return match element {
            Ok(XmppStreamElement::Starttls(Nonza::Proceed(_))) => Ok(()),
            Ok(XmppStreamElement::Starttls(Nonza::Failure(_))) => {
                Err(ConnectError::StartTlsRefused { domain }.into())
            }
            Ok(other) => {
                let received = format!("{other:?}").chars().take(200).collect();
                Err(ConnectError::StartTlsUnanswered { domain, received }.into())
            }
            Err(ReadError::SoftTimeout) => continue,
            Err(ReadError::HardError(error)) => Err(error.into()),
            Err(ReadError::ParseError(error)) => {
                Err(ConnectError::StartTlsUnanswered { domain, received: error.to_string() }.into())
            }
            Err(ReadError::StreamFooterReceived) => Err(tokio_xmpp::Error::Disconnected),
        };
    }
}
