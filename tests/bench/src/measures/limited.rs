//! In-band bytestreams through a server that limits the rate: as fast as with one block in flight, and no queue before
//! what else the bot has to say.

use std::time::{Duration, Instant};

use bench_support::bots;
use jid::Jid;
use jingle_xmlstream::Endpoint;
use tokio_xmpp::IqRequest;
use xmpp_parsers::ping::Ping;

use super::{
    Outcome,
    ibb::{NAIVE, config},
};
use crate::{
    plots::{Line, Plot},
    rounds::Effort,
    servers::{Brand, Limited, PASSWORD, Server, Skipped},
    streams::Pair,
    table::{Goal, Row, Spread},
};
use plotters::chart::SeriesLabelPosition;

const BYTES: usize = 1024;

/// What passes in about 40 s, where a default Prosody lets 10 kB and a default ejabberd 3 kB of XML through in a second, the
/// latter after a burst of 20 kB.
const PROSODY: usize = 280;
const EJABBERD: usize = 100;

/// These rounds are slow, and what a rate limit does varies little.
const ROUNDS: usize = 3;

const GOODPUT_GOAL: f64 = 0.95;
const WAIT_GOAL: f64 = 1.5;

/// From the answer to one question of the bot's own to the next question, at least and at most. Answers come behind blocks, so with a
/// pause that is always the same, or shorter than a block, questions would find the blocks at the same place.
const PAUSES: [f64; 2] = [0.3, 2.3];

/// Its multiples, without what is before the point, fill the way from 0 to 1 evenly.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// What is only looked at: a window that is right elsewhere.
const WIDE: (u16, usize) = (4096, 16);

/// Kilobytes a second, and the milliseconds that a question of the bot's own waits for its answer meanwhile, on average: a
/// server that reads by fits and starts answers some at once.
struct Found {
    goodput: f64,
    wait: f64,
}

pub(super) async fn compare(effort: Effort, brand: Brand) -> Result<Outcome, Skipped> {
    let server = Server::start(brand, Limited::AsByDefault).await?;
    let count = if effort.is_quick() { 5 } else { brand.select(PROSODY, EJABBERD) };
    let mut goodput =
        Row::new(format!("IBB, {brand:?} with its rate limit"), "kB/s", Goal::AtLeast(GOODPUT_GOAL))
            .against("one block in flight");
    let mut wait =
        Row::new(format!("another stanza, {brand:?} with its rate limit"), "ms", Goal::AtMost(WAIT_GOAL))
            .against("one block in flight");
    for round in 0..effort.rounds.min(ROUNDS) {
        let settings = if round % 2 == 0 { [None, Some(NAIVE)] } else { [Some(NAIVE), None] };
        let [one, other] = settings.map(|setting| transfer(&server, setting, count));
        let (one, other) = (one.await, other.await);
        let (ours, naive) = if round % 2 == 0 { (one, other) } else { (other, one) };
        goodput.push(ours.goodput, naive.goodput);
        wait.push(ours.wait, naive.wait);
    }
    let wide = transfer(&server, Some(WIDE), count).await;
    let plots = if brand == Brand::Prosody { vec![plot(&wait, &wide)] } else { Vec::new() };
    Ok(Outcome { rows: vec![goodput, wait], plots })
}

/// A transfer on a new stream.
async fn transfer(server: &Server, setting: Option<(u16, usize)>, count: usize) -> Found {
    let mut pair = Pair::connect(|| server.connector(), PASSWORD, || config(setting)).await;
    let asker = pair.bots()[0].clone();
    let mut waits = Waits::default();
    let message = bots::message(BYTES);
    let rate = tokio::select! {
        rate = pair.goodput(&message, count) => rate,
        () = ask(&asker, &mut waits) => unreachable!("it asks for ever"),
    };
    pair.close().await;
    Found { goodput: rate * BYTES as f64 / 1e3, wait: waits.mean() * 1e3 }
}

/// Asks the server again and again whether it is there.
async fn ask(bot: &Endpoint, waits: &mut Waits) {
    let server = Jid::from(bots::address(bot)).domain().to_string();
    let [least, most] = PAUSES;
    for number in 0_u32.. {
        let pause = least + (most - least) * (f64::from(number) * GOLDEN).fract();
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        waits.asked = Some(Instant::now());
        let to = server.parse().expect("a domain is an address");
        bot.send_iq(Some(to), IqRequest::Get(Ping.into())).await.expect("the server answers");
        waits.answered.extend(waits.asked.take().map(|asked| asked.elapsed()));
    }
}

/// How long answers took.
#[derive(Default)]
struct Waits {
    answered: Vec<Duration>,
    /// When the one was asked that was not answered.
    asked: Option<Instant>,
}

impl Waits {
    /// In seconds. A question that was still open at the end waited for so long at least; none at all is no number.
    fn mean(&self) -> f64 {
        let open = self.asked.map(|asked| asked.elapsed());
        let all: Vec<_> = self.answered.iter().copied().chain(open).collect();
        all.iter().sum::<Duration>().as_secs_f64() / all.len() as f64
    }
}

fn plot(wait: &Row, wide: &Found) -> Plot {
    let across =
        |name: &str, wait: f64| Line { name: name.to_owned(), points: vec![(1.0, wait), (16.0, wait)] };
    let naive = Spread::of(wait.reference.values.iter().copied()).median;
    Plot {
        name: "latency-under-load",
        title: "Another stanza of the bot, while a stream runs through a Prosody with its rate limit"
            .to_owned(),
        x: "blocks of 4096 in flight",
        y: "ms until it is answered",
        legend: SeriesLabelPosition::UpperLeft,
        lines: vec![
            across("adaptive", Spread::of(wait.ours.iter().copied()).median),
            Line { name: "fixed window".to_owned(), points: vec![(1.0, naive), (WIDE.1 as f64, wide.wait)] },
        ],
    }
}
