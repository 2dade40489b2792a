//! Load on a multi-thread runtime, where tokio-xmpp's own `Client` goes deaf: everything arrives, nothing stalls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::Instant;

use futures::{SinkExt, StreamExt, channel::mpsc, future, stream};
use jingle_xmlstream::{Endpoint, Error, Events, StreamReceiver, StreamSender};
use support::{JULIET, ROMEO, World, body, config, element, jid, message, next_stanza, within};
use tokio_xmpp::{Event, IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, message::Message, stanza::Stanza};

/// Requests under way at a time.
const PIPELINE: usize = 32;

fn print_rate(what: &str, count: usize, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.1} s, {:.0} per second", count as f64 / seconds);
}

fn question() -> IqRequest {
    IqRequest::Get(element("<question xmlns='urn:example'/>"))
}

fn answer(id: String, to: Option<jid::Jid>) -> Stanza {
    Iq::Result { from: None, to, id, payload: None }.into()
}

async fn assert_answered(reply: Result<IqResponse, Error>) {
    assert!(matches!(reply, Ok(IqResponse::Result(None))), "{reply:?}");
}

/// Everybody at once: 100,000 requests and their replies, and 100,000 messages in either direction, over the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bot_under_load_does_not_go_deaf() {
    const REQUESTS: usize = 50_000;
    const MESSAGES: usize = 100_000;
    let world = World::start().await;
    let (romeo, romeos_events) = world.bot_with_events(ROMEO, config()).await;
    let (juliet, juliets_events) = world.bot_with_events(JULIET, config()).await;
    let begun = Instant::now();
    let work =
        [(romeo, romeos_events, JULIET), (juliet, juliets_events, ROMEO)].map(|(bot, events, peer)| {
            tokio::spawn(future::join3(
                ask(bot.clone(), peer, REQUESTS),
                tell(bot.clone(), peer, MESSAGES),
                attend(bot, events, REQUESTS, MESSAGES),
            ))
        });
    for done in work {
        done.await.unwrap();
    }
    print_rate("requests and messages over the server", 2 * (REQUESTS + MESSAGES), begun);
}

async fn ask(bot: Endpoint, peer: &str, requests: usize) {
    let asked = stream::iter(0..requests).map(|_| bot.send_iq(Some(jid(peer)), question()));
    let replies = asked.buffer_unordered(PIPELINE);
    let answered =
        replies.filter(|reply| future::ready(matches!(reply, Ok(IqResponse::Result(None))))).count();
    assert_eq!(answered.await, requests);
}

async fn tell(bot: Endpoint, peer: &str, messages: usize) {
    let message =
        |number: usize| Message::chat(jid::<jid::Jid>(peer)).with_body("".into(), number.to_string());
    for number in 0..messages {
        bot.send_stanza(message(number)).await.unwrap();
    }
}

/// Answers so many requests, and takes so many messages, in order.
async fn attend(bot: Endpoint, mut events: Events, requests: usize, messages: usize) {
    let (mut asked, mut told) = (0, 0);
    while asked < requests || told < messages {
        match next_stanza(&mut events).await {
            Stanza::Iq(Iq::Get { id, from, .. }) => {
                bot.send_stanza(answer(id, from)).await.unwrap();
                asked += 1;
            }
            message => {
                assert_eq!(body(&message), told.to_string());
                told += 1;
            }
        }
    }
    // The other side may still wait for what was sent last.
    tokio::spawn(events.for_each(|event| async move { drop::<Event>(event) }));
}

/// The same over an e2e stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_under_load_does_not_stall() {
    const REQUESTS: usize = 20_000;
    const MESSAGES: usize = 20_000;
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (romeos, juliets) = support::streams(&romeo, &juliet).await;
    let begun = Instant::now();
    let work = [romeos, juliets].map(|stream| {
        let (sender, receiver) = stream.split();
        let (requests, to_answer) = mpsc::unbounded();
        // Whoever receives must not wait for room to send: if both sides did that, both could wait for ever.
        future::try_join4(
            tokio::spawn(attend_on(receiver, requests, REQUESTS / 2, MESSAGES)),
            tokio::spawn(answer_on(sender.clone(), to_answer)),
            tokio::spawn(ask_on(sender.clone(), REQUESTS / 2)),
            tokio::spawn(tell_on(sender, MESSAGES)),
        )
    });
    // The receivers stay open until everybody is done.
    let _receivers = future::try_join_all(work).await.unwrap();
    print_rate("requests on a stream, beside twice as many messages", REQUESTS, begun);
    within(romeo.close()).await;
}

async fn ask_on(sender: StreamSender, requests: usize) {
    let asked = stream::iter(0..requests).map(|_| sender.send_iq(question())).buffer_unordered(PIPELINE);
    asked.for_each(assert_answered).await;
}

async fn tell_on(mut sender: StreamSender, messages: usize) {
    let begun = Instant::now();
    for number in 0..messages {
        sender.feed(message(&number.to_string())).await.unwrap();
    }
    sender.flush().await.unwrap();
    print_rate("messages", messages, begun);
}

async fn answer_on(mut sender: StreamSender, requests: mpsc::UnboundedReceiver<String>) {
    let answers = requests.map(|id| Ok(answer(id, None)));
    sender.send_all(&mut answers.boxed()).await.unwrap();
}

/// Passes on so many requests, and takes so many messages, in order.
async fn attend_on(
    mut receiver: StreamReceiver,
    answerer: mpsc::UnboundedSender<String>,
    requests: usize,
    messages: usize,
) -> StreamReceiver {
    let (mut asked, mut told) = (0, 0);
    while asked < requests || told < messages {
        match within(receiver.next()).await.unwrap().unwrap() {
            Stanza::Iq(Iq::Get { id, .. }) => {
                answerer.unbounded_send(id).unwrap();
                asked += 1;
            }
            message => {
                assert_eq!(body(&message), told.to_string());
                told += 1;
            }
        }
    }
    receiver
}
