//! The process in which many streams are held, for its memory to be counted.
//!
//! The mock server is in the runner's process. What comes out is one line of JSON.

use std::{
    alloc::System,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bench_support::{bots, cpu, mock, tls::Configs};
use cap::Cap;
use clap::{Parser, ValueEnum};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use jingle_xmlstream::{Config, E2eStream, Endpoint, Transports};

/// Counts what is allocated.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// No end of a stream has more than one stanza a second.
const TRICKLE: Duration = Duration::from_secs(1);
const TOGETHER: usize = 10;

/// Stanzas of a talk.
const MUCH: usize = 500;

/// Such a part of the time they are watched is enough for what was begun to end: acknowledgements, and buffers that are given
/// back.
const CALM: u32 = 10;

#[derive(Debug, Parser)]
struct Arguments {
    what: What,
    /// How many of them.
    count: usize,
    /// How long to watch them.
    seconds: u64,
    /// The mock server.
    server: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Streams of ours on SOCKS5 bytestreams.
    Direct,
    /// Streams of ours on in-band bytestreams.
    Ibb,
    /// TLS over TCP without anything above it.
    Tls,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let line = match arguments.what {
        What::Direct => hold_streams(&arguments, bots::direct_config()).await,
        What::Ibb => hold_streams(&arguments, bots::config().transports(Transports::Ibb)).await,
        What::Tls => hold_connections(arguments.count).await,
    };
    println!("{line}");
}

async fn hold_streams(arguments: &Arguments, config: Config) -> serde_json::Value {
    let connector = mock::connector(arguments.server);
    let bot = |account| bots::bot(account, mock_server::PASSWORD, connector.clone(), config.clone());
    let (romeo, juliet) = tokio::join!(bot(bots::ROMEO), bot(bots::JULIET));
    let watched = Duration::from_secs(arguments.seconds);
    // What is needed only once is needed by now.
    let first = bots::streams(&romeo, &juliet).await;
    tokio::time::sleep(watched / CALM).await;

    let empty = MEMORY.allocated();
    let begun = Instant::now();
    let (mut streams, failed) = burst(&romeo, &juliet, arguments.count).await;
    let burst_seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(watched / CALM).await;
    let idle_bytes = MEMORY.allocated().saturating_sub(empty);
    let before = cpu::used(mock::THREADS);
    tokio::time::sleep(watched).await;
    let idle_cpu = cpu::since(before, mock::THREADS);

    let before = cpu::used(mock::THREADS);
    let stanzas = trickle(&mut streams, watched).await;
    let trickle_cpu = cpu::since(before, mock::THREADS);
    let trickle_bytes = MEMORY.allocated().saturating_sub(empty);
    talk(&mut streams).await;
    tokio::time::sleep(watched / CALM).await;
    let talked_bytes = MEMORY.allocated().saturating_sub(empty);
    drop(first);
    serde_json::json!({
        "opened": streams.len(),
        "failed": failed,
        "burst_seconds": burst_seconds,
        "idle_bytes": idle_bytes,
        "idle_cpu_seconds": idle_cpu.as_secs_f64(),
        "trickle_bytes": trickle_bytes,
        "trickle_cpu_seconds": trickle_cpu.as_secs_f64(),
        "trickle_stanzas": stanzas,
        "talked_bytes": talked_bytes,
    })
}

/// All at once: what came up, and why the others did not.
async fn burst(
    romeo: &Endpoint,
    juliet: &Endpoint,
    count: usize,
) -> (Vec<(E2eStream, E2eStream)>, Vec<String>) {
    let connecting: FuturesUnordered<_> = (0..count).map(|_| romeo.connect(&bots::address(juliet))).collect();
    let accepting = async {
        let accepting = FuturesUnordered::new();
        for _ in 0..count {
            let Some(incoming) = juliet.accept().await else { break };
            accepting.push(tokio::spawn(incoming.accept()));
        }
        accepting.map(|accepted| accepted.expect("no panic")).collect::<Vec<_>>().await
    };
    let patience = tokio::time::timeout(Duration::from_secs(120), accepting);
    let (connected, accepted) = tokio::join!(connecting.collect::<Vec<_>>(), patience);
    let accepted = accepted.unwrap_or_default();
    let failures = connected.iter().filter_map(|stream| stream.as_ref().err());
    let failed = failures.map(ToString::to_string).collect();
    let both = connected.into_iter().flatten().zip(accepted.into_iter().flatten());
    (both.collect(), failed)
}

/// One stanza a second on each stream, ten at a time, for so long; how many there were.
async fn trickle(streams: &mut [(E2eStream, E2eStream)], during: Duration) -> usize {
    let message = bots::message(64);
    let end = Instant::now() + during;
    let pause = TRICKLE / u32::try_from(streams.len().div_ceil(TOGETHER)).unwrap_or(u32::MAX);
    let mut due = tokio::time::interval(pause);
    let mut sent = 0;
    while Instant::now() < end {
        for some in streams.chunks_mut(TOGETHER) {
            due.tick().await;
            for (sender, _) in some {
                sender.send(message.clone().into()).await.expect("it is sent");
                sent += 1;
            }
        }
        // The other ends are all here, but not in the same order.
        for (_, receiver) in streams.iter_mut() {
            bots::receive(receiver, 1).await;
        }
    }
    sent
}

/// Much on each stream, and nothing more.
async fn talk(streams: &mut [(E2eStream, E2eStream)]) {
    let message = bots::message(64);
    for (sender, _) in streams.iter_mut() {
        bots::send(sender, &message, MUCH).await;
    }
    for (_, receiver) in streams.iter_mut() {
        bots::receive(receiver, MUCH).await;
    }
}

/// The same connections with nothing above TLS.
async fn hold_connections(count: usize) -> serde_json::Value {
    let configs = Configs::generate();
    let first = configs.connect().await;
    let empty = MEMORY.allocated();
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(configs.connect().await);
    }
    let idle_bytes = MEMORY.allocated().saturating_sub(empty);
    drop((first, connections));
    serde_json::json!({ "opened": count, "idle_bytes": idle_bytes })
}
