//! What the mock server's SOCKS5 proxy does because we think that Prosody's does it, Prosody's does: byte for byte.
//!
//! Without `prosody` in PATH nothing is tested, and says so; with CI=true that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/prosody.rs"]
mod server;
mod support;

use std::{net::SocketAddr, time::Duration};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use futures::StreamExt;
use jid::Jid;
use jingle_xmlstream::{Connector, Endpoint};
use mock_server::Proxy65;
use server::{Backend, Kind, PASSWORD, Prosody};
use support::{JULIET, ROMEO, World, config, element, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{disco::DiscoItemsResult, minidom::Element};

const PROXY: &str = "proxy.montague.lit";
const BYTESTREAMS: &str = "http://jabber.org/protocol/bytestreams";
const GREETING: &[u8] = &[5, 1, 0];

/// After so long without a byte, none is on its way.
const QUIET: Duration = Duration::from_millis(300);

/// A proxy, and a bot on its server.
struct Verona {
    romeo: Endpoint,
    proxy: SocketAddr,
    _server: Server,
}

#[expect(dead_code, reason = "they only have to live")]
enum Server {
    Prosody(Prosody),
    Mock(World, Proxy65),
}

impl Verona {
    async fn prosody(backend: Backend) -> Option<Self> {
        let prosody = Prosody::start(Kind::Proxy65(backend)).await?;
        let romeo = bot(prosody.connector(), PASSWORD).await;
        Some(Self::new(romeo, Server::Prosody(prosody)).await)
    }

    async fn mock(stalls: bool) -> Self {
        let world = World::start().await;
        let proxy = world.server.enable_proxy65().await;
        proxy.stall(stalls);
        let romeo = bot(world.connector(), mock_server::PASSWORD).await;
        Self::new(romeo, Server::Mock(world, proxy)).await
    }

    async fn new(romeo: Endpoint, server: Server) -> Self {
        let query = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        let Ok(Some(items)) = ask(&romeo, "montague.lit", IqRequest::Get(element(query))).await else {
            panic!("no items");
        };
        let items = DiscoItemsResult::try_from(items).unwrap().items;
        assert_eq!(items.into_iter().map(|item| item.jid.to_string()).collect::<Vec<_>>(), [PROXY]);

        let query = element(&format!("<query xmlns='{BYTESTREAMS}'/>"));
        let Ok(Some(answer)) = ask(&romeo, PROXY, IqRequest::Get(query)).await else { panic!("no address") };
        let host = answer.get_child("streamhost", BYTESTREAMS).unwrap();
        assert_eq!(host.attr("jid"), Some(PROXY));
        let proxy = format!("{}:{}", host.attr("host").unwrap(), host.attr("port").unwrap());
        Self { romeo, proxy: proxy.parse().unwrap(), _server: server }
    }

    async fn connect(&self) -> Tcp {
        let tcp = TcpStream::connect(self.proxy).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Tcp(tcp)
    }

    /// A connection that asked for the address of this session.
    async fn connect_for(&self, sid: &str) -> Tcp {
        let mut tcp = self.greeted().await;
        let request = request(sid);
        tcp.send(&request).await;
        assert_eq!(tcp.exactly(request.len()).await, [&[5, 0], &request[2..]].concat());
        tcp
    }

    async fn greeted(&self) -> Tcp {
        let mut tcp = self.connect().await;
        tcp.send(GREETING).await;
        assert_eq!(tcp.exactly(2).await, [5, 0]);
        tcp
    }

    /// `ok`, or the type and the condition of the error.
    async fn activate(&self, sid: &str, to: &str) -> String {
        let query = format!("<query xmlns='{BYTESTREAMS}' sid='{sid}'><activate>{to}</activate></query>");
        self.set(&query).await
    }

    async fn set(&self, query: &str) -> String {
        match ask(&self.romeo, PROXY, IqRequest::Set(element(query))).await {
            Ok(None) => "ok".to_owned(),
            Ok(Some(payload)) => panic!("{payload:?}"),
            Err(condition) => condition,
        }
    }

    /// Two connections that are linked.
    async fn linked(&self, sid: &str) -> (Tcp, Tcp) {
        let target = self.connect_for(sid).await;
        let initiator = self.connect_for(sid).await;
        assert_eq!(self.activate(sid, JULIET).await, "ok");
        (initiator, target)
    }
}

async fn bot(connector: Connector, password: &str) -> Endpoint {
    let jid: Jid = ROMEO.parse().unwrap();
    let (endpoint, events) = Endpoint::login(jid, password, connector, config());
    within(endpoint.online()).await.unwrap();
    tokio::spawn(events.for_each(|_| async {}));
    endpoint
}

async fn ask(bot: &Endpoint, to: &str, request: IqRequest) -> Result<Option<Element>, String> {
    match within(bot.send_iq(Some(to.parse().unwrap()), request)).await.unwrap() {
        IqResponse::Result(payload) => Ok(payload),
        IqResponse::Error(error) => Err(format!("{:?} {:?}", error.type_, error.defined_condition)),
    }
}

struct Tcp(TcpStream);

impl Tcp {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// What comes until nothing more does: how many bytes, and whether the connection was closed then.
    async fn receive(&mut self) -> (Vec<u8>, &'static str) {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 65536]);
        loop {
            match timeout(QUIET, self.0.read(&mut buffer)).await {
                Err(_) => return (all, ""),
                // A reset is an end, too.
                Ok(Ok(0) | Err(_)) => return (all, " closed"),
                Ok(Ok(count)) => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The answer to what is sent in one go.
    async fn answer(&mut self, bytes: &[u8]) -> String {
        self.send(bytes).await;
        let (answer, end) = self.receive().await;
        hex(&answer) + end
    }

    async fn count(&mut self) -> String {
        let (bytes, end) = self.receive().await;
        format!("{}{end}", bytes.len())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CONNECT for the session of Romeo and Juliet.
fn request(sid: &str) -> Vec<u8> {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{sid}{ROMEO}{JULIET}").as_bytes());
    [&[5, 1, 0, 3, 40], hex(hash.as_ref()).as_bytes(), &[0, 0]].concat()
}

/// What comes out, one line each, of everything that does not depend on the backend.
async fn manners(verona: &Verona) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |what: &str, result: String| lines.push(format!("{what}: {result}"));

    for (what, greeting) in [
        ("two methods", &[5, 2, 2, 0][..]),
        ("a greeting in two pieces", &[5, 1]),
        ("no method for us", &[5, 1, 2]),
        ("no methods at all", &[5, 0]),
        ("another version", &[4, 1, 0]),
        ("a request right behind the greeting", &[GREETING, &request("pipelined")].concat()),
    ] {
        line(what, verona.connect().await.answer(greeting).await);
    }
    let good = request("good");
    let mut with_a_port = good.clone();
    with_a_port[46] = 1;
    for (what, request) in [
        ("a request in two pieces", &good[..20]),
        ("a short hash", &[&[5, 1, 0, 3, 39], &good[6..]].concat()),
        ("a port", &with_a_port),
        ("something behind the request", &[&good[..], b"x"].concat()),
        ("a good request", &good),
    ] {
        let mut tcp = verona.greeted().await;
        line(what, tcp.answer(request).await);
    }

    line("nobody is connected", verona.activate("nobody", JULIET).await);
    let _one = verona.connect_for("one").await;
    line("one is connected", verona.activate("one", JULIET).await);
    line("for somebody else", verona.activate("one", "tybalt@capulet.lit/street").await);
    line("no address", verona.activate("one", "@@").await);
    line(
        "no sid",
        verona.set(&format!("<query xmlns='{BYTESTREAMS}'><activate>a@b/c</activate></query>")).await,
    );
    line("nothing", verona.set(&format!("<query xmlns='{BYTESTREAMS}' sid='one'/>")).await);

    let mut target = verona.connect_for("early").await;
    let mut initiator = verona.connect_for("early").await;
    initiator.send(b"early").await;
    line("before the activation", target.count().await);
    line("the activation", verona.activate("early", JULIET).await);
    line("after the activation", target.count().await);
    line("again", verona.activate("early", JULIET).await);
    target.send(b"answer").await;
    line("the other direction", initiator.count().await);
    drop(initiator);
    line("the initiator left", target.count().await);
    drop(target);

    let (mut initiator, target) = verona.linked("target").await;
    drop(target);
    line("the target left", initiator.count().await);
    line("it is forgotten", verona.activate("target", JULIET).await);
    lines
}

const BURSTS: [usize; 10] = [4096, 4097, 6000, 8192, 8193, 10_000, 12_289, 14_000, 16_384, 20_000];

/// Each burst: what arrives of it, and with one more byte.
async fn bursts(verona: &Verona) -> Vec<String> {
    let mut lines = Vec::new();
    for size in BURSTS {
        let (mut initiator, mut target) = verona.linked(&format!("burst {size}")).await;
        initiator.send(&vec![b'x'; size]).await;
        let first = target.count().await;
        initiator.send(b" ").await;
        lines.push(format!("{first} and {}", target.count().await));
    }
    let (mut initiator, mut target) = verona.linked("last").await;
    target.send(&[b'x'; 6000]).await;
    let first = initiator.count().await;
    drop(target);
    lines.push(format!("{first}, and when the target leaves {}", initiator.count().await));
    lines
}

/// All that is sent arrives.
fn whole() -> Vec<String> {
    let each = BURSTS.iter().map(|size| format!("{size} and 1"));
    each.chain(["6000, and when the target leaves 0 closed".to_owned()]).collect()
}

/// The end of what does not fit is kept back.
fn stalled() -> Vec<String> {
    let line = |size: usize| match size % 8192 {
        1..=4096 => format!("{size} and 1"),
        _ => {
            let passed_on = size.div_ceil(8192) * 8192 - 4096;
            format!("{passed_on} and {}", size + 1 - passed_on)
        }
    };
    let each = BURSTS.iter().map(|size| line(*size));
    each.chain(["4096, and when the target leaves 1904 closed".to_owned()]).collect()
}

#[tokio::test]
async fn the_mock_proxy_has_the_manners_of_prosodys() {
    let mock = manners(&Verona::mock(false).await).await;
    for line in &mock {
        println!("{line}");
    }
    assert!(mock.contains(&"two methods: 0500".to_owned()));
    assert!(mock.contains(&"a request in two pieces: 05010003000000 closed".to_owned()));
    assert!(mock.contains(&"one is connected: Cancel NotAllowed".to_owned()));
    assert!(mock.contains(&"after the activation: 5".to_owned()));
    for backend in [Backend::Epoll, Backend::Select] {
        let Some(verona) = Verona::prosody(backend).await else { return };
        assert_eq!(manners(&verona).await, mock, "{backend:?}");
    }
}

#[tokio::test]
async fn the_mock_proxy_stalls_as_prosodys_does_with_epoll() {
    assert_eq!(bursts(&Verona::mock(true).await).await, stalled());
    let Some(verona) = Verona::prosody(Backend::Epoll).await else { return };
    assert_eq!(bursts(&verona).await, stalled());
}

#[tokio::test]
async fn the_mock_proxy_does_not_stall_as_prosodys_does_not_with_select() {
    assert_eq!(bursts(&Verona::mock(false).await).await, whole());
    let Some(verona) = Verona::prosody(Backend::Select).await else { return };
    assert_eq!(bursts(&verona).await, whole());
}

/// So much later the stream sends white space; the proxy has looked at the burst by then.
#[tokio::test]
async fn a_byte_20_ms_after_a_burst_frees_it() {
    let Some(verona) = Verona::prosody(Backend::Epoll).await else { return };
    for size in BURSTS {
        let (mut initiator, mut target) = verona.linked(&format!("nudge {size}")).await;
        initiator.send(&vec![b'x'; size]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        initiator.send(b" ").await;
        assert_eq!(target.count().await, (size + 1).to_string());
    }
}
