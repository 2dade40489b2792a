//! Strangers at the listener of SOCKS5 bytestreams: they hold nobody up, and get nowhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use futures::{StreamExt, stream::FuturesUnordered};
use jingle_xmlstream::{CandidateType, Candidates, Config, E2eStream, Endpoint, Error, Transports};
use support::{
    JULIET, ROMEO, World, jid,
    s5b::{JINGLE_S5B, close},
    s5b_config, talk, wire, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use xmpp_parsers::{caps::hash_caps, hashes::Algo};

/// As many as a stranger without much of a botnet opens.
const CROWD: usize = 1000;

/// Connections that wait at a listener; the oldest go first.
const WAITING: usize = 128;

/// Of this process, beside those of strangers.
const OTHER_FILES: usize = 200;

const GREETING: [u8; 3] = [5, 1, 0];

/// A session that Romeo offers and Juliet has not answered: his listener is there, and hers will not be.
struct Offered {
    world: World,
    romeo: Endpoint,
    juliet: Endpoint,
    connecting: JoinHandle<Result<E2eStream, Error>>,
    listener: SocketAddr,
}

impl Offered {
    async fn new() -> Self {
        let world = World::start().await;
        let (romeo, juliet) = world.pair_of(s5b_config(), without_candidates()).await;
        let connecting = tokio::spawn(romeo.connect(&jid(JULIET)));
        world.wait_for("romeo> iq set jingle session-initiate").await;
        let port = world.candidates_in("iq set jingle session-initiate")[0].port;
        let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { world, romeo, juliet, connecting, listener }
    }

    /// Juliet accepts: she has to get past whoever stands there.
    async fn accepted(&mut self) -> (E2eStream, E2eStream) {
        let accepting = async { self.juliet.accept().await.unwrap().accept().await };
        let (connected, accepted) = within(async { tokio::join!(&mut self.connecting, accepting) }).await;
        let (romeos, juliets) = (connected.unwrap().unwrap(), accepted.unwrap());
        // Within the 5 s in which she tries: else it would be in band.
        assert_eq!(juliets.transport().unwrap().candidate(), Some(CandidateType::Direct));
        (romeos, juliets)
    }

    async fn stranger(&self) -> TcpStream {
        within(TcpStream::connect(self.listener)).await.unwrap()
    }

    /// What a client that has seen the negotiation asks for (XEP-0065 #mediated).
    fn dst_addr(&self) -> String {
        let initiate = self.world.recorded("iq set jingle session-initiate").element;
        let sid =
            wire::content_child(&initiate, "transport", JINGLE_S5B).unwrap().attr("sid").unwrap().to_owned();
        let hash = hash_caps(format!("{sid}{ROMEO}{JULIET}").as_bytes(), Algo::Sha_1).unwrap();
        hash.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn without_candidates() -> Config {
    let s5b = support::s5b(|s5b| s5b.candidates = Candidates::None);
    support::config().transports(Transports::Auto).s5b(s5b)
}

/// Greets, and asks for this; what comes back until the other side closes.
async fn ask_for(stranger: &mut TcpStream, dst_addr: &str) -> Vec<u8> {
    stranger.write_all(&GREETING).await.unwrap();
    let mut choice = [0; 2];
    within(stranger.read_exact(&mut choice)).await.unwrap();
    assert_eq!(choice, [5, 0]);
    let length = u8::try_from(dst_addr.len()).unwrap();
    let request = [&[5, 1, 0, 3, length], dst_addr.as_bytes(), &[0, 0]].concat();
    stranger.write_all(&request).await.unwrap();
    until_closed(stranger).await
}

/// What comes until the other side closes.
async fn until_closed(stranger: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // A side that closes with bytes unread resets the connection, which is closing too.
    let _ = within(stranger.read_to_end(&mut heard)).await;
    heard
}

#[tokio::test]
async fn who_guesses_an_address_is_turned_away() {
    let mut offered = Offered::new().await;
    let guesses = ["f".repeat(40), offered.dst_addr().replace(['0', '1', '2'], "3"), "localhost".to_owned()];
    for guess in guesses {
        let reply = ask_for(&mut offered.stranger().await, &guess).await;
        assert_eq!(reply[0], 5);
        assert_ne!(reply[1], 0, "it was granted {guess}");
    }
    let (mut romeos, mut juliets) = offered.accepted().await;
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
}

/// What was the right address while the session was negotiated is nobody's any more.
#[tokio::test]
async fn who_comes_when_the_stream_is_up_is_turned_away_whatever_it_knows() {
    let mut offered = Offered::new().await;
    let (mut romeos, mut juliets) = offered.accepted().await;
    let reply = ask_for(&mut offered.stranger().await, &offered.dst_addr()).await;
    assert_ne!(reply[1], 0);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
}

/// The servers see the sid, so can know the address. TLS shows that they are not Juliet, and she comes last.
#[tokio::test]
async fn who_knows_the_address_and_comes_first_does_not_keep_the_peer_out() {
    let mut offered = Offered::new().await;
    let mut stranger = offered.stranger().await;
    stranger.write_all(&GREETING).await.unwrap();
    within(stranger.read_exact(&mut [0; 2])).await.unwrap();
    let request = [&[5, 1, 0, 3, 40], offered.dst_addr().as_bytes(), &[0, 0]].concat();
    stranger.write_all(&request).await.unwrap();
    let mut granted = [0; 47];
    within(stranger.read_exact(&mut granted)).await.unwrap();
    assert_eq!(granted[..2], [5, 0]);

    let (mut romeos, mut juliets) = offered.accepted().await;
    talk(&mut romeos, &mut juliets).await;
    assert!(until_closed(&mut stranger).await.is_empty(), "not a byte was for it");
    close(romeos, juliets).await;
}

#[tokio::test]
async fn who_does_not_speak_socks5_is_dropped() {
    let mut offered = Offered::new().await;
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[7; 500]].concat();
    let socks4 = [4, 1, 0, 80, 127, 0, 0, 1, 0].to_vec();
    for garbage in [http, tls, socks4, vec![0; 10_000], b"<?xml version='1.0'?>".to_vec()] {
        let mut stranger = offered.stranger().await;
        // It may be closed before all of it was taken.
        let _ = stranger.write_all(&garbage).await;
        let reply = until_closed(&mut stranger).await;
        assert!(reply.len() <= 2, "{reply:?}");
    }
    let (mut romeos, mut juliets) = offered.accepted().await;
    talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn who_stops_half_way_holds_nobody_up() {
    let mut offered = Offered::new().await;
    let mut strangers = Vec::new();
    for half in [&[][..], &[5], &[5, 3, 0], &[5, 1, 0, 5, 1], &[5, 1, 0, 5, 1, 0, 3, 40, b'a']] {
        let mut stranger = offered.stranger().await;
        stranger.write_all(half).await.unwrap();
        strangers.push(stranger);
    }
    let (mut romeos, mut juliets) = offered.accepted().await;
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    // With the bot goes its listener, and with that whoever waits there.
    offered.romeo.close().await;
    for stranger in &mut strangers {
        let heard = until_closed(stranger).await;
        assert!(heard.is_empty() || heard == [5, 0], "{heard:?}");
    }
}

#[tokio::test]
async fn a_crowd_that_says_nothing_does_not_keep_the_peer_out() {
    let mut offered = Offered::new().await;
    let crowd = CROWD.min(allowed_files().saturating_sub(OTHER_FILES + WAITING));
    if crowd < CROWD {
        println!("only {crowd} strangers: the system allows no more files");
    }
    assert!(crowd > 2 * WAITING, "too few to be a crowd");
    let mut strangers = Vec::new();
    for _ in 0..crowd {
        strangers.push(offered.stranger().await);
    }
    let (mut romeos, mut juliets) = offered.accepted().await;
    talk(&mut romeos, &mut juliets).await;

    // Those who came last may still wait.
    let mut leaving: FuturesUnordered<_> =
        strangers.into_iter().map(|mut stranger| async move { until_closed(&mut stranger).await }).collect();
    for _ in 0..crowd - WAITING {
        assert!(leaving.next().await.unwrap().is_empty());
    }
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    offered.romeo.close().await;
    while let Some(heard) = leaving.next().await {
        assert!(heard.is_empty());
    }
}

/// How many files this process may have open; many, where the system does not say.
fn allowed_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(usize::MAX)
}
