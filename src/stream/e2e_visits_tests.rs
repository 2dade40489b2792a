//! What happens without the task of a stream, and that it sees to what is left to it. In stopped time, in which nothing else runs
//! unless it is waited for.

use std::time::Duration;

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    runtime,
    time::{Instant, advance, sleep, timeout},
};
use tokio_xmpp::IqRequest;
use xmpp_parsers::ping::Ping;

use super::{E2eStream, StreamOptions, accept, e2e_visits::PATIENCE, initiate, tests::message};

/// More than any of this takes.
pub(super) const ROOM: usize = 1024 * 1024;

/// What the peer says first.
pub(super) const HEADER: &str = "<stream:stream xmlns='jabber:client' \
                                 xmlns:stream='http://etherx.jabber.org/streams' \
                                 version='1.0'><stream:features/>";

/// A stream, and the other end of its bytestream, on which all was said that there is to say at the beginning.
pub(super) async fn stream() -> (E2eStream, DuplexStream) {
    let (ours, mut theirs) = duplex(ROOM);
    theirs.write_all(HEADER.as_bytes()).await.unwrap();
    let stream = initiate(ours, StreamOptions::new()).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    written(&mut theirs);
    (stream, theirs)
}

/// What is written by now. Nobody else runs meanwhile.
fn written(theirs: &mut DuplexStream) -> String {
    let (xml, ended) = written_and_ended(theirs);
    assert!(!ended, "the bytestream ended");
    xml
}

/// The same, and whether nothing can come behind it.
pub(super) fn written_and_ended(theirs: &mut DuplexStream) -> (String, bool) {
    let (mut bytes, mut ended) = (Vec::new(), false);
    while !ended && let Some(count) = theirs.read_buf(&mut bytes).now_or_never() {
        ended = count.unwrap() == 0;
    }
    (String::from_utf8(bytes).unwrap(), ended)
}

fn count(xml: &str) -> usize {
    xml.matches("<message").count()
}

#[tokio::test(start_paused = true)]
async fn a_stanza_that_comes_alone_is_written_by_whoever_sends_it() {
    let (mut stream, mut theirs) = stream().await;
    stream.feed(message("soft")).now_or_never().unwrap().unwrap();
    assert_eq!(count(&written(&mut theirs)), 1, "the task has not run");

    stream.feed(message("what")).now_or_never().unwrap().unwrap();
    assert_eq!(count(&written(&mut theirs)), 0, "it waits for company");
    stream.flush().now_or_never().unwrap().unwrap();
    assert_eq!(count(&written(&mut theirs)), 1, "or for a flush");
}

#[tokio::test(start_paused = true)]
async fn stanzas_that_come_quickly_are_written_when_they_fill_a_record() {
    let (mut stream, mut theirs) = stream().await;
    stream.send(message("first")).now_or_never().unwrap().unwrap();
    written(&mut theirs);

    let light = "l".repeat(1000);
    let mut sizes = Vec::new();
    for _ in 0..100 {
        stream.feed(message(&light)).now_or_never().unwrap().unwrap();
        sizes.push(written(&mut theirs).len());
    }
    sizes.retain(|size| *size > 0);
    assert_eq!(sizes.len(), 100 * 1000 / (16 * 1024), "{sizes:?}");
    assert!(sizes.iter().all(|size| (16 * 1024..18 * 1024).contains(size)), "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_flushes_is_written_all_the_same() {
    let (mut stream, mut theirs) = stream().await;
    for round in 0..5 {
        stream.send(message("soft")).await.unwrap();
        stream.feed(message("what")).await.unwrap();
        stream.feed(message("light")).await.unwrap();
        written(&mut theirs);
        sleep(PATIENCE + Duration::from_millis(1)).await;
        assert_eq!(count(&written(&mut theirs)), 2, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_receives_reads_without_the_task() {
    let (mut stream, mut theirs) = stream().await;
    let xml = "<message><body>soft</body></message>".repeat(1000);
    theirs.write_all(xml.as_bytes()).now_or_never().unwrap().unwrap();
    for place in 0..1000 {
        assert!(stream.next().now_or_never().is_some(), "{place}: the task has not run");
    }
    assert!(stream.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_leaves_unread_is_read_before_long() {
    let (mut stream, mut theirs) = stream().await;
    let xml = "<message><body>soft</body></message>".repeat(1000);
    theirs.write_all(xml.as_bytes()).await.unwrap();
    let first = stream.next().await;
    assert!(matches!(first, Some(Ok(_))));

    // Whoever has one of them is busy, and the peer wants to know whether anybody is there.
    let ping = "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>";
    theirs.write_all(ping.as_bytes()).await.unwrap();
    let before = Instant::now();
    let mut byte = [0; 1];
    theirs.read_exact(&mut byte).await.unwrap();
    assert!(before.elapsed() <= PATIENCE + Duration::from_millis(1), "{:?}", before.elapsed());
    assert!(written(&mut theirs).contains("result"));
}

#[tokio::test(start_paused = true)]
async fn a_reply_comes_while_somebody_else_has_left_stanzas_unread() {
    let (ours, theirs) = duplex(ROOM);
    let (one, other) =
        tokio::join!(initiate(ours, StreamOptions::new()), accept(theirs, StreamOptions::new()));
    let (one, mut other) = (one.unwrap(), other.unwrap());
    for _ in 0..500 {
        other.feed(message("soft")).await.unwrap();
    }
    other.flush().await.unwrap();
    let (sender, mut receiver) = one.split();
    assert!(matches!(receiver.next().await, Some(Ok(_))));

    let reply = timeout(Duration::from_millis(20), sender.send_iq(IqRequest::Get(Ping.into()))).await;
    assert!(reply.is_ok_and(|reply| reply.is_ok()));
    for _ in 1..500 {
        assert!(matches!(receiver.next().await, Some(Ok(_))), "nothing of it is lost");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_ticks_on_a_stream_that_is_idle() {
    let (mut stream, mut theirs) = stream().await;
    let xml = "<message><body>soft</body></message>".repeat(500);
    theirs.write_all(xml.as_bytes()).await.unwrap();
    for _ in 0..500 {
        stream.next().await.unwrap().unwrap();
    }
    stream.send(message("soft")).await.unwrap();
    stream.feed(message("what")).await.unwrap();
    sleep(3 * PATIENCE).await;
    // Stopped time goes on to the next timer of all.
    let polls = runtime::Handle::current().metrics();
    advance(Duration::ZERO).await;
    let before = polls.worker_park_count(0);
    sleep(Duration::from_millis(500)).await;
    let polled = polls.worker_park_count(0) - before;
    assert!(polled <= 3, "{polled} times something woke up");
}

#[test]
fn a_stream_whose_runtime_is_gone_lets_go_of_its_bytestream() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stream, mut theirs) = runtime.block_on(async {
        let (ours, theirs) = duplex(ROOM);
        let opening = initiate(ours, StreamOptions::new());
        let (one, other) = tokio::join!(opening, accept(theirs, StreamOptions::new()));
        (one.unwrap(), other.unwrap())
    });
    drop(runtime);
    let gone = theirs.next().now_or_never();
    assert!(gone.is_none(), "both ends were there: {gone:?}");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn what_a_burst_has_taken_is_given_back_once_nobody_comes_back() {
    let (mut stream, mut theirs) = stream().await;
    let sender = stream.sender();
    let capacities = || sender.handle.shared.with(|inner, _| inner.machine.capacities());
    for _ in 0..3 {
        theirs.write_all("<message><body>soft</body></message>".repeat(1000).as_bytes()).await.unwrap();
        for _ in 0..1000 {
            stream.feed(message("what")).await.unwrap();
        }
        // The task reads for a bot that takes nothing yet.
        sleep(Duration::from_millis(1)).await;
        let [bytes, stanzas] = capacities();
        assert!(bytes >= 16 * 1024 && stanzas >= 1000, "{bytes}, {stanzas}");

        for _ in 0..1000 {
            stream.next().await.unwrap().unwrap();
        }
        written(&mut theirs);
        sleep(10 * PATIENCE).await;
        let [bytes, stanzas] = capacities();
        assert!(bytes <= 1024 && stanzas <= 16, "{bytes}, {stanzas}");
    }
}
