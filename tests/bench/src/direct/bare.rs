//! `tokio_xmpp::xmlstream` over mutual TLS 1.3.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt as _};
use tokio::{io::BufStream, net::TcpStream};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
};
use tokio_xmpp::{
    Stanza,
    xmlstream::{StreamHeader, Timeouts, XmlStream, accept_stream, initiate_stream},
};
use xmpp_parsers::{iq::Iq, ns, ping::Ping, stream_features::StreamFeatures};

use super::{Failure, body, message, sockets};

type Pipe = XmlStream<BufStream<TlsStream<TcpStream>>, Stanza>;

/// From the first message to the last one received.
pub(super) async fn send(count: usize, size: usize) -> Result<Duration, Failure> {
    let (mut romeo, mut juliet) = pipes().await?;
    let body = body(size);
    let begin = Instant::now();
    let sending = tokio::spawn(async move {
        for _ in 0..count {
            SinkExt::<&Stanza>::feed(&mut romeo, &message(&body)).await?;
        }
        SinkExt::<&Stanza>::flush(&mut romeo).await?;
        Ok::<_, Failure>(romeo)
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..count {
            read(&mut juliet).await?;
        }
        Ok::<_, Failure>(Instant::now())
    });
    let (_romeo, end) = (sending.await??, receiving.await??);
    Ok(end - begin)
}

/// The median of so many.
pub(super) async fn ping(count: usize) -> Result<Duration, Failure> {
    let (mut romeo, mut juliet) = pipes().await?;
    let answering = tokio::spawn(async move {
        for _ in 0..count {
            let Stanza::Iq(request) = read(&mut juliet).await? else { return Err("not a request".into()) };
            let pong = Iq::Result { from: None, to: None, id: request.id().to_owned(), payload: None };
            SinkExt::<&Stanza>::send(&mut juliet, &Stanza::Iq(pong)).await?;
        }
        Ok::<_, Failure>(())
    });
    let pinging = tokio::spawn(async move {
        let mut times = Vec::new();
        for number in 0..count {
            let begin = Instant::now();
            let id = format!("romeo-{number}");
            let ping = Iq::Get { from: None, to: None, id, payload: Ping.into() };
            SinkExt::<&Stanza>::send(&mut romeo, &Stanza::Iq(ping)).await?;
            read(&mut romeo).await?;
            times.push(begin.elapsed());
        }
        Ok::<_, Failure>(times)
    });
    let (mut times, ()) = (pinging.await??, answering.await??);
    times.sort();
    Ok(times.get(count / 2).copied().unwrap_or_default())
}

async fn read(pipe: &mut Pipe) -> Result<Stanza, Failure> {
    match pipe.next().await {
        Some(Ok(stanza)) => Ok(stanza),
        Some(Err(error)) => Err(format!("{error:?}").into()),
        None => Err("the stream ended early".into()),
    }
}

async fn pipes() -> Result<(Pipe, Pipe), Failure> {
    let (ours, theirs) = encrypted().await?;
    let initiating = async {
        let io = BufStream::new(ours);
        let stream = initiate_stream(io, ns::JABBER_CLIENT, header(), Timeouts::default()).await?;
        let (_, stream) = stream.recv_features().await.map_err(|error| format!("{error:?}"))?;
        Ok::<_, Failure>(stream)
    };
    let accepting = async {
        let io = BufStream::new(theirs);
        let stream = accept_stream(io, ns::JABBER_CLIENT, Timeouts::default()).await?;
        let stream = stream.send_header(header()).await?;
        Ok::<_, Failure>(stream.send_features(&StreamFeatures::default()).await?)
    };
    tokio::try_join!(initiating, accepting)
}

fn header() -> StreamHeader<'static> {
    StreamHeader { from: None, to: None, id: Some("romeo-and-juliet".into()) }
}

async fn encrypted() -> Result<(TlsStream<TcpStream>, TlsStream<TcpStream>), Failure> {
    let (romeo, juliet) = (Party::new()?, Party::new()?);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(juliet.roots()?)
        .with_client_auth_cert(romeo.chain(), romeo.key.clone_key())?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(romeo.roots()?), Arc::clone(&provider))
            .build()?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(juliet.chain(), juliet.key.clone_key())?;
    let (ours, theirs) = sockets().await?;
    let (client, server) = (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)));
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let (ours, theirs) = tokio::try_join!(client.connect(name, ours), server.accept(theirs))?;
    Ok((ours.into(), theirs.into()))
}

/// A key, and a certificate that it has signed itself.
struct Party {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Party {
    fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
        Ok(Self { certificate: made.cert.der().clone(), key })
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    fn roots(&self) -> Result<RootCertStore, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        Ok(roots)
    }
}
