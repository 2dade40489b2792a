//! Conversations that are disturbed, and bots that come back.

use std::{ops::Range, time::Duration};

use futures::{SinkExt, StreamExt, future};
use jingle_xmlstream::{E2eStream, Error, SmConfig, StreamEvent, StreamEvents, StreamSender, TransportInfo};
use mock_server::MockServer;
use tokio::sync::oneshot;
use xmpp_parsers::stanza::Stanza;

use super::{World, body, message, within};

/// Longer than any test takes.
const FOR_LONG: Duration = Duration::from_secs(600);

/// An account without a resource: the server chooses another one each time.
pub const ROMEOS_ACCOUNT: &str = "romeo@montague.lit";
pub const JULIETS_ACCOUNT: &str = "juliet@capulet.lit";

/// The default stream management with changes.
pub fn sm(change: impl FnOnce(&mut SmConfig)) -> SmConfig {
    let mut sm = SmConfig::default();
    change(&mut sm);
    sm
}

impl World {
    /// A server whose clients can resume their sessions with it.
    pub async fn start_managed() -> Self {
        let server = MockServer::builder().stream_management(FOR_LONG).start().await.unwrap();
        Self { server }
    }
}

/// Sends messages with these numbers.
pub async fn count_aloud(mut sender: StreamSender, numbers: Range<u32>) {
    for number in numbers {
        sender.send(message(&number.to_string())).await.unwrap();
    }
}

/// Receives these numbers, each once and in order.
pub async fn listen(stream: &mut E2eStream, numbers: Range<u32>) {
    for number in numbers {
        assert_eq!(said(stream).await, number);
    }
}

async fn said(stream: &mut E2eStream) -> u32 {
    body(&stream.next().await.expect("the stream goes on").unwrap()).parse().unwrap()
}

/// Both count to each other at the same time, and hear each number once and in order.
#[track_caller]
pub fn converse(one: &mut E2eStream, other: &mut E2eStream, numbers: Range<u32>) -> impl Future<Output = ()> {
    let (ones, others) = (one.sender(), other.sender());
    within(async move {
        tokio::join!(
            count_aloud(ones, numbers.clone()),
            count_aloud(others, numbers.clone()),
            listen(one, numbers.clone()),
            listen(other, numbers),
        );
    })
}

/// The same, and in the midst of it something happens: what is heard next by then was sent before or after, as it comes.
#[track_caller]
pub fn converse_while(
    one: &mut E2eStream,
    other: &mut E2eStream,
    numbers: Range<u32>,
    happens: impl Future<Output = ()>,
) -> impl Future<Output = ()> {
    let (ones, others) = (one.sender(), other.sender());
    let middle = numbers.start.midpoint(numbers.end);
    let (heard, is_heard) = oneshot::channel();
    within(async move {
        let first = async {
            listen(one, numbers.start..middle).await;
            heard.send(()).unwrap();
            listen(one, middle..numbers.end).await;
        };
        let happening = async {
            is_heard.await.unwrap();
            happens.await;
        };
        tokio::join!(
            count_aloud(ones, numbers.clone()),
            count_aloud(others, numbers.clone()),
            first,
            listen(other, numbers.clone()),
            happening,
        );
    })
}

/// The next event: nothing gets through, for this reason.
#[track_caller]
pub fn suspended(events: &mut StreamEvents) -> impl Future<Output = Error> {
    let event = within(events.next());
    async move {
        match event.await {
            Some(StreamEvent::Suspended(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

/// The next event: it goes on, over this transport.
#[track_caller]
pub fn resumed(events: &mut StreamEvents) -> impl Future<Output = Option<TransportInfo>> {
    let event = within(events.next());
    async move {
        match event.await {
            Some(StreamEvent::Resumed(transport)) => transport,
            other => panic!("{other:?}"),
        }
    }
}

/// Both were suspended and go on.
pub async fn both_resumed(one: &mut StreamEvents, other: &mut StreamEvents) {
    future::join(
        async {
            suspended(one).await;
            resumed(one).await;
        },
        async {
            suspended(other).await;
            resumed(other).await;
        },
    )
    .await;
}

/// Waits until the peer's side has acknowledged so much that this many stanzas are left.
pub async fn unacked(stream: &E2eStream, left: usize) {
    within(async {
        while stream.unacked() != left {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until both know whether stanzas are acknowledged: a round trip after the stream was opened.
pub async fn both_acknowledge(one: &mut E2eStream, other: &mut E2eStream) {
    super::talk(one, other).await;
    assert!(one.acknowledges() && other.acknowledges());
}

/// What a stream gives back, by the bodies of the messages.
#[track_caller]
pub fn undelivered(error: &Error) -> Vec<String> {
    match error {
        Error::Undelivered(undelivered) => undelivered.stanzas().iter().map(body).collect(),
        other => panic!("{other:?}"),
    }
}

/// Receives until the stream is over: what was said, and how it ended.
pub async fn all_that_comes(stream: &mut E2eStream) -> (Vec<String>, Option<Error>) {
    let mut heard = Vec::new();
    within(async {
        while let Some(next) = stream.next().await {
            match next {
                Ok(stanza) => heard.push(body(&stanza)),
                Err(error) => return (heard, Some(error)),
            }
        }
        (heard, None)
    })
    .await
}

/// The sink's footer, with nothing received meanwhile.
pub async fn close_sink(stream: &mut E2eStream) {
    within(SinkExt::<Stanza>::close(stream)).await.unwrap();
}
