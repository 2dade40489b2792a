//! How stanzas share writes, in stopped time. With TLS a write is a record, or as few as it fits in.

use std::{
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    time::Instant,
};
use xmpp_parsers::stanza::Stanza;

use super::{E2eStream, StreamOptions, accept, initiate, tests::message};
use crate::SmConfig;

/// The sizes of all writes.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<usize>>>);

impl Writes {
    fn take(&self) -> Vec<usize> {
        mem::take(&mut self.0.lock().unwrap())
    }
}

/// A bytestream that notes what is written to it.
struct Recorded {
    io: DuplexStream,
    writes: Writes,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.writes.0.lock().unwrap().push(*count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Streams that have said all that there is to say at the beginning, and what the first one writes from then on.
async fn streams(room: usize) -> (E2eStream, E2eStream, Writes) {
    let (ours, theirs) = duplex(room);
    let writes = Writes::default();
    let recorded = Recorded { io: ours, writes: writes.clone() };
    let (one, other) =
        tokio::join!(initiate(recorded, StreamOptions::new()), accept(theirs, StreamOptions::new()));
    let (mut one, mut other) = (one.unwrap(), other.unwrap());
    let (acked, heard) = tokio::join!(one.send_acked(message("first")), other.next());
    acked.and(heard.unwrap().map(drop)).unwrap();
    other.send(message("second")).await.unwrap();
    one.next().await.unwrap().unwrap();
    writes.take();
    (one, other, writes)
}

async fn hear(stream: &mut E2eStream) -> Stanza {
    stream.next().await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stanza_that_comes_alone_is_written_at_once() {
    let (mut one, mut other, writes) = streams(64 * 1024).await;
    for _ in 0..10 {
        let before = Instant::now();
        one.send(message("soft")).await.unwrap();
        hear(&mut other).await;
        assert_eq!(before.elapsed().as_nanos(), 0, "nothing waits for a timer");
        assert_eq!(writes.take().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn stanzas_that_come_together_share_a_write() {
    let (mut one, mut other, writes) = streams(64 * 1024).await;
    let count = 50;
    for _ in 0..count {
        one.feed(message("soft")).await.unwrap();
    }
    assert!(writes.take().is_empty(), "the task has not run");
    one.flush().await.unwrap();
    let written = writes.take();
    assert_eq!(written.len(), 1, "{written:?}");
    for _ in 0..count {
        hear(&mut other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_write_is_stuck_goes_out_with_the_next() {
    let room = 512;
    let (mut one, mut other, writes) = streams(room).await;
    one.feed(message(&"w".repeat(10 * room))).await.unwrap();
    // The task writes what there is room for, and then waits.
    tokio::task::yield_now().await;
    for _ in 0..5 {
        one.feed(message("soft")).await.unwrap();
    }
    for _ in 0..6 {
        hear(&mut other).await;
    }
    let written = writes.take();
    let full = written.iter().sum::<usize>().div_ceil(room);
    assert!(written.len() <= full + 1, "as many writes as the room makes it, and one: {written:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stanza_costs_the_same_however_many_went_before() {
    let (mut one, mut other, writes) = streams(64 * 1024).await;
    let every = SmConfig::default().request_after as usize;
    let mut costs = Vec::new();
    for _ in 0..5 {
        for _ in 0..10 * every {
            one.send(message("soft")).await.unwrap();
            hear(&mut other).await;
            assert!(one.unacked() <= 2 * every, "what was acknowledged is forgotten");
        }
        costs.push(writes.take().len());
    }
    let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
    assert!(most - least <= 10, "writes of equal numbers of stanzas: {costs:?}");
}
