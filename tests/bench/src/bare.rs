//! What a bot without the library would take: tokio-xmpp's own XML stream over mutual TLS over TCP.

use std::time::{Duration, Instant};

use bench_support::tls::Configs;
use futures::{SinkExt, StreamExt};
use tokio::{io::BufStream, net::TcpStream};
use tokio_rustls::TlsStream;
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, XmlStream, accept_stream, initiate_stream};
use xmpp_parsers::{message::Message, ns, stanza::Stanza, stream_features::StreamFeatures};

use crate::rounds;

type End = XmlStream<BufStream<TlsStream<TcpStream>>, Stanza>;

/// Both ends of a stream.
pub(crate) struct Bare {
    /// Away only while it sends.
    initiator: Option<End>,
    responder: End,
}

impl Bare {
    pub(crate) async fn connect() -> Self {
        let (client, server) = Configs::generate().connect().await;
        let initiating = async {
            let (io, header) = (BufStream::new(client), StreamHeader::default());
            let pending = initiate_stream(io, ns::DEFAULT_NS, header, Timeouts::default()).await;
            pending.expect("a header").recv_features().await.expect("features").1
        };
        let (initiator, responder) = tokio::join!(initiating, accept(server));
        Self { initiator: Some(initiator), responder }
    }

    /// Messages a second, in one direction.
    pub(crate) async fn goodput(&mut self, message: &Message, count: usize) -> f64 {
        let begun = Instant::now();
        let mut sender = self.initiator.take().expect("it was put back");
        let message = message.clone();
        let sending = tokio::spawn(async move {
            for _ in 0..count {
                // Each is another one, as a bot's would be.
                sender.feed(&Stanza::from(message.clone())).await.expect("room");
            }
            SinkExt::<&Stanza>::flush(&mut sender).await.expect("it is written");
            sender
        });
        receive(&mut self.responder, count).await;
        let rate = rounds::rate(count, begun);
        self.initiator = Some(sending.await.expect("everything is sent"));
        rate
    }

    /// There and back, so many times; the median.
    pub(crate) async fn ping(&mut self, message: &Message, count: usize) -> Duration {
        let initiator = self.initiator.as_mut().expect("it was put back");
        let ping = Stanza::from(message.clone());
        let responder = &mut self.responder;
        let answering = async {
            for _ in 0..count {
                let stanza = responder.next().await.expect("a stream that goes on").expect("a stanza");
                responder.send(&stanza).await.expect("it is written");
            }
        };
        let asking = async {
            let mut took = Vec::with_capacity(count);
            for _ in 0..count {
                let begun = Instant::now();
                initiator.send(&ping).await.expect("it is written");
                receive(initiator, 1).await;
                took.push(begun.elapsed());
            }
            took
        };
        rounds::median(tokio::join!(asking, answering).0)
    }
}

async fn accept(server: TlsStream<TcpStream>) -> End {
    let accepted = accept_stream(BufStream::new(server), ns::DEFAULT_NS, Timeouts::default()).await;
    let header = StreamHeader { id: Some("1".into()), ..StreamHeader::default() };
    let pending = accepted.expect("a header").send_header(header).await.expect("the header is written");
    pending.send_features(&StreamFeatures::default()).await.expect("the features are written")
}

async fn receive(end: &mut End, count: usize) {
    for _ in 0..count {
        end.next().await.expect("a stream that goes on").expect("a stanza");
    }
}
