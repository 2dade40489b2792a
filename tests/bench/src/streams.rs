//! A direct stream of the library, and how it does.

use std::time::{Duration, Instant};

use bench_support::bots;
use futures::{SinkExt, StreamExt};
use jingle_xmlstream::{Config, Connector, E2eStream, Endpoint};
use xmpp_parsers::message::Message;

use crate::rounds;

/// Two bots on a server, with a stream between them.
pub(crate) struct Pair {
    initiator: E2eStream,
    responder: E2eStream,
    bots: [Endpoint; 2],
}

impl Pair {
    /// Logs both in and connects them.
    pub(crate) async fn connect(
        connector: impl Fn() -> Connector,
        password: &str,
        config: impl Fn() -> Config,
    ) -> Self {
        let bot = |account| bots::bot(account, password, connector(), config());
        let (romeo, juliet) = tokio::join!(bot(bots::ROMEO), bot(bots::JULIET));
        let (initiator, responder) = bots::streams(&romeo, &juliet).await;
        Self { initiator, responder, bots: [romeo, juliet] }
    }

    /// The bots, the initiator's first.
    pub(crate) fn bots(&self) -> &[Endpoint; 2] {
        &self.bots
    }

    /// Messages a second, in one direction.
    pub(crate) async fn goodput(&mut self, message: &Message, count: usize) -> f64 {
        self.goodput_within(message, count, 0).await
    }

    /// The same of a stream that goes on: so many go ahead and as many come behind that are not counted.
    pub(crate) async fn goodput_within(&mut self, message: &Message, count: usize, around: usize) -> f64 {
        let mut sender = self.initiator.sender();
        let message = message.clone();
        let all = around + count + around;
        let sending = tokio::spawn(async move { bots::send(&mut sender, &message, all).await });
        bots::receive(&mut self.responder, around).await;
        let begun = Instant::now();
        bots::receive(&mut self.responder, count).await;
        let rate = rounds::rate(count, begun);
        bots::receive(&mut self.responder, around).await;
        sending.await.expect("everything is sent");
        rate
    }

    /// There and back, so many times; the median.
    pub(crate) async fn ping(&mut self, message: &Message, count: usize) -> Duration {
        let Self { initiator, responder, .. } = self;
        let answering = async {
            for _ in 0..count {
                let stanza = responder.next().await.expect("a stream that goes on").expect("a stanza");
                responder.send(stanza).await.expect("it is sent");
            }
        };
        let asking = async {
            let mut took = Vec::with_capacity(count);
            for _ in 0..count {
                let begun = Instant::now();
                initiator.send(message.clone().into()).await.expect("it is sent");
                bots::receive(initiator, 1).await;
                took.push(begun.elapsed());
            }
            took
        };
        rounds::median(tokio::join!(asking, answering).0)
    }

    /// Ends the stream and logs both bots out.
    pub(crate) async fn close(self) {
        let Self { initiator, responder, bots } = self;
        // What was still to be said is of no interest.
        let _ = tokio::join!(initiator.close(), responder.close());
        futures::future::join_all(bots.iter().map(Endpoint::close)).await;
    }
}
