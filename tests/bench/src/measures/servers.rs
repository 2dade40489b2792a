//! A direct stream against the same two bots through their server: tokio-xmpp with our connector, no rate limit.

use std::time::Instant;

use bench_support::bots;
use futures::StreamExt;
use jid::Jid;
use tokio_xmpp::{
    stanzastream::{Event, StanzaStream, StreamEvent},
    xmlstream::Timeouts,
};
use xmpp_parsers::message::Message;

use super::Outcome;
use crate::{
    rounds::{self, Effort},
    servers::{Brand, Limited, PASSWORD, Server, Skipped},
    streams::Pair,
    table::{Goal, Row},
};

const BYTES: usize = 1024;

/// About a second's work each.
const DIRECT: usize = 60_000;
const THROUGH_SERVER: usize = 4_000;

/// As many as tokio-xmpp's `Client` has.
const QUEUE: usize = 16;

pub(super) async fn compare(effort: Effort, brand: Brand, goal: f64) -> Result<Outcome, Skipped> {
    let server = Server::start(brand, Limited::No).await?;
    let mut direct = Pair::connect(|| server.connector(), PASSWORD, bots::direct_config).await;
    let mut through = Through::connect(&server).await;
    let message = bots::message(BYTES);
    let mut row = Row::new(format!("direct, {BYTES} B"), "messages/s", Goal::AtLeast(goal))
        .against(brand.select("tokio-xmpp through Prosody", "tokio-xmpp through ejabberd"));
    effort
        .by_turns(
            async || direct.goodput(&message, effort.count(DIRECT)).await,
            async || through.goodput(&message, effort.count(THROUGH_SERVER)).await,
            |direct, through| row.push(direct, through),
        )
        .await;
    direct.close().await;
    Ok(Outcome::of(vec![row]))
}

/// The two as they are without the library, on other resources.
struct Through {
    romeo: StanzaStream,
    juliet: StanzaStream,
    juliets_address: Jid,
}

impl Through {
    async fn connect(server: &Server) -> Self {
        let ((romeo, _), (juliet, juliets_address)) =
            tokio::join!(login(server, bots::ROMEO), login(server, bots::JULIET));
        Self { romeo, juliet, juliets_address }
    }

    async fn goodput(&mut self, message: &Message, count: usize) -> f64 {
        let Self { romeo, juliet, juliets_address } = self;
        let message = Message { to: Some(juliets_address.clone()), ..message.clone() };
        let begun = Instant::now();
        let sending = async {
            for _ in 0..count {
                romeo.send(Box::new(message.clone().into())).await;
            }
        };
        let receiving = async {
            let mut left = count;
            while left > 0 {
                match juliet.next().await.expect("a session that goes on") {
                    Event::Stanza(_) => left -= 1,
                    Event::Stream(_) => {}
                }
            }
        };
        tokio::join!(sending, receiving);
        rounds::rate(count, begun)
    }
}

async fn login(server: &Server, account: &str) -> (StanzaStream, Jid) {
    let jid = account.parse().expect("an address");
    let mut stream =
        StanzaStream::new_c2s(server.connector(), jid, PASSWORD.to_owned(), Timeouts::default(), QUEUE);
    loop {
        if let Event::Stream(StreamEvent::Reset { bound_jid, .. }) = stream.next().await.expect("a session") {
            return (stream, bound_jid);
        }
    }
}
