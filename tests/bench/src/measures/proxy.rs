//! A stream through a SOCKS5 proxy for bytestreams, against raw sockets through the same one (XEP-0065).

use std::time::Instant;

use bench_support::bots;
use jid::Jid;
use jingle_xmlstream::{Candidates, Config, Endpoint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{caps::hash_caps, hashes::Algo, minidom::Element};

use super::Outcome;
use crate::{
    rounds::{self, Effort},
    servers::{Brand, Limited, PASSWORD, PROXY, Server, Skipped},
    streams::Pair,
    table::{Goal, Row},
};

const GOAL: f64 = 0.9;

/// Of a body, and of a write to a raw socket.
const BYTES: usize = 64 * 1024;

/// About a second's work.
const COUNT: usize = 1_500;

/// What buffers still hold from the round before, and more. As much goes ahead and behind on ours: the proxy keeps the end of
/// what is said until more comes, which took a tenth of the time while that was counted.
const FIRST: usize = 200;

const BYTESTREAMS: &str = "http://jabber.org/protocol/bytestreams";
const SID: &str = "raw";

pub(super) async fn compare(effort: Effort) -> Result<Outcome, Skipped> {
    let server = Server::start(Brand::Prosody, Limited::No).await?;
    let mut ours = Pair::connect(|| server.connector(), PASSWORD, config).await;
    let mut raw = Raw::connect(ours.bots()).await;
    let (count, message) = (effort.count(COUNT), bots::message(BYTES));
    // The first run on a connection is slow, whoever makes it.
    ours.goodput(&message, count).await;
    raw.goodput(count).await;
    let megabytes = |rate: f64| rate * BYTES as f64 / 1e6;
    let mut row =
        Row::new("through a proxy, 64 KiB", "MB/s", Goal::AtLeast(GOAL)).against("raw sockets through it");
    effort
        .by_turns(
            async || megabytes(ours.goodput_within(&message, count, FIRST).await),
            async || megabytes(raw.goodput(count).await),
            |ours, raw| row.push(ours, raw),
        )
        .await;
    ours.close().await;
    Ok(Outcome::of(vec![row]))
}

fn config() -> Config {
    bots::direct_config().s5b(bots::s5b(Candidates::ProxyOnly))
}

/// Two sockets that the proxy has linked.
struct Raw {
    initiator: TcpStream,
    target: TcpStream,
}

impl Raw {
    async fn connect([romeo, juliet]: &[Endpoint; 2]) -> Self {
        let query = Element::builder("query", BYTESTREAMS).build();
        let answer = ask(romeo, IqRequest::Get(query)).await.expect("the proxy tells its address");
        let host = answer.get_child("streamhost", BYTESTREAMS).expect("an address");
        let address =
            format!("{}:{}", host.attr("host").expect("a host"), host.attr("port").expect("a port"));
        // XEP-0065 #mediated: the proxy knows a bytestream by this.
        let (from, to) = (bots::address(romeo), bots::address(juliet));
        let name = hash_caps(format!("{SID}{from}{to}").as_bytes(), Algo::Sha_1).expect("SHA-1").to_hex();
        let target = dial(&address, &name).await;
        let initiator = dial(&address, &name).await;
        let activate = Element::builder("query", BYTESTREAMS)
            .attr("sid".try_into().expect("a name"), SID)
            .append(Element::builder("activate", BYTESTREAMS).append(to.to_string()));
        ask(romeo, IqRequest::Set(activate.build())).await;
        Self { initiator, target }
    }

    /// Blocks a second. Prosody keeps what comes last until more comes, so more is written than is read.
    async fn goodput(&mut self, count: usize) -> f64 {
        let (initiator, target) = (&mut self.initiator, &mut self.target);
        let writing = async {
            let block = vec![b'x'; BYTES];
            while initiator.write_all(&block).await.is_ok() {}
        };
        let reading = async {
            let mut block = vec![0; BYTES];
            for _ in 0..FIRST {
                target.read_exact(&mut block).await.expect("the proxy writes");
            }
            let begun = Instant::now();
            for _ in 0..count {
                target.read_exact(&mut block).await.expect("the proxy writes");
            }
            rounds::rate(count, begun)
        };
        tokio::select! {
            () = writing => panic!("the proxy closed a connection"),
            rate = reading => rate,
        }
    }
}

async fn ask(bot: &Endpoint, request: IqRequest) -> Option<Element> {
    let proxy: Jid = PROXY.parse().expect("an address");
    match bot.send_iq(Some(proxy), request).await {
        Ok(IqResponse::Result(answer)) => answer,
        other => panic!("{PROXY} answers {other:?}"),
    }
}

/// A connection that asked for this bytestream (RFC 1928, XEP-0065 #address). Prosody wants one write for each request.
async fn dial(proxy: &str, name: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(proxy).await.expect("the proxy listens");
    tcp.set_nodelay(true).expect("TCP_NODELAY");
    let mut answer = [0; 47];
    tcp.write_all(&[5, 1, 0]).await.expect("the proxy reads");
    tcp.read_exact(&mut answer[..2]).await.expect("the proxy takes us as we are");
    let length = u8::try_from(name.len()).expect("a SHA-1 in hexadecimal is short");
    let request = [&[5, 1, 0, 3, length], name.as_bytes(), &[0, 0]].concat();
    tcp.write_all(&request).await.expect("the proxy reads");
    tcp.read_exact(&mut answer).await.expect("the proxy knows the bytestream");
    assert_eq!(answer[..2], [5, 0], "the proxy refuses");
    tcp
}
