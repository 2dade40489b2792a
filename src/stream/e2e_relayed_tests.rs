//! Streams through a SOCKS5 proxy that holds bytes back, over loopback and in real time.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _, future::BoxFuture};
use mock_server::{MockServer, Proxy65};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, minidom::Element, stanza::Stanza};

use super::{Carrier, E2eStream, Path, StreamOptions, accept, initiate, tests::message};
use crate::{Error, Reason, TransportInfo};

/// Far more than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session whose bytestream goes one way or the other. Both sides have the same one.
struct Session {
    path: Path,
    ended: watch::Sender<bool>,
}

impl Carrier for Session {
    fn transport(&self) -> Option<TransportInfo> {
        None
    }

    fn poll_moved(&self, _: &Context<'_>, _: Option<&TransportInfo>) -> Poll<Option<TransportInfo>> {
        Poll::Pending
    }

    fn terminate(&self, _: Reason, _: Option<String>) {
        self.ended.send_replace(true);
    }

    fn error(&self) -> Option<Error> {
        None
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move { drop(ended.wait_for(|ended| *ended).await) })
    }

    fn is_relayed(&self) -> bool {
        self.path == Path::Relayed
    }
}

async fn connect(proxy: &Proxy65, address: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(proxy.addr()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.write_all(&[5, 1, 0]).await.unwrap();
    tcp.read_exact(&mut [0; 2]).await.unwrap();
    tcp.write_all(&[&[5, 1, 0, 3, 40], address.as_bytes(), &[0, 0]].concat()).await.unwrap();
    tcp.read_exact(&mut [0; 47]).await.unwrap();
    tcp
}

/// Both ends of a stream through a proxy that stalls; what they know of their way.
async fn streams(server: &MockServer, path: Path) -> (E2eStream, E2eStream) {
    let proxy = server.enable_proxy65().await;
    proxy.stall(true);
    let address = "a".repeat(40);
    let (target, initiator) = (connect(&proxy, &address).await, connect(&proxy, &address).await);
    assert!(proxy.activate(&address));
    let session = Arc::new(Session { path, ended: watch::Sender::new(false) });
    let options = || StreamOptions::new().carrier(session.clone());
    let (one, other) = tokio::join!(initiate(initiator, options()), accept(target, options()));
    (one.unwrap(), other.unwrap())
}

fn question(bytes: usize) -> Element {
    Element::builder("question", "urn:example:q").append("x".repeat(bytes)).build()
}

/// Answers one request with its own content.
async fn answer(stream: &mut E2eStream) {
    let Some(Ok(Stanza::Iq(Iq::Get { id, payload, .. }))) = stream.next().await else {
        panic!("no request");
    };
    let answer = Iq::Result { from: None, to: None, id, payload: Some(payload) };
    stream.send(Stanza::Iq(answer)).await.unwrap();
}

#[tokio::test]
async fn requests_of_all_sizes_are_answered_through_a_proxy_that_stalls() {
    let server = MockServer::start().await;
    let (one, mut other) = streams(&server, Path::Relayed).await;
    for bytes in [3950, 4096, 6000, 8192, 14_000, 20_000, 100_000] {
        let request = one.send_iq(IqRequest::Get(question(bytes)));
        let both = async { tokio::join!(request, answer(&mut other)).0 };
        let reply = timeout(PATIENCE, both).await.expect("a reply").unwrap();
        let IqResponse::Result(Some(payload)) = reply else { panic!("{reply:?}") };
        assert_eq!(payload.text().len(), bytes);
    }
}

/// Else the test above would show nothing.
#[tokio::test]
async fn without_white_space_a_request_would_never_arrive() {
    let server = MockServer::start().await;
    let (one, mut other) = streams(&server, Path::Direct).await;
    let _request = one.send_iq(IqRequest::Get(question(6000)));
    assert!(timeout(Duration::from_secs(2), other.next()).await.is_err());
}

#[tokio::test]
async fn a_stream_that_closes_right_after_much_does_so_in_good_order() {
    let server = MockServer::start().await;
    let (mut one, mut other) = streams(&server, Path::Relayed).await;
    one.send(message(&"x".repeat(6000))).await.unwrap();
    let closing = timeout(PATIENCE, async {
        tokio::join!(one.close(), async {
            assert!(matches!(other.next().await, Some(Ok(Stanza::Message(_)))));
            // It says much in turn before it sees that the other closes.
            let _ = other.send(message(&"y".repeat(6000))).await;
            assert!(other.next().await.is_none());
            other.close().await
        })
    });
    let (one, other) = closing.await.expect("both close");
    one.unwrap();
    other.unwrap();
}
