//! A direct stream against the codec alone and against `tokio_xmpp::xmlstream`, over the same kind of pipe.

mod bare;
mod ours;

use std::{process::ExitCode, time::Duration};

use jingle_xmlstream::internals::codec::Codec;
use tokio::net::{TcpListener, TcpStream};
use xmpp_parsers::{
    message::{Lang, Message},
    stanza::Stanza,
};

/// What a round measures.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rounds, of which the medians are shown.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Bytes of body that one measurement carries, in millions.
    #[arg(long, default_value_t = 24)]
    megabytes: usize,
    /// At most so many messages in one measurement.
    #[arg(long, default_value_t = 40_000)]
    messages: usize,
    /// Sizes of bodies.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1024, 16 * 1024, 64 * 1024])]
    sizes: Vec<usize>,
    /// Only this one, without ratios: for a profiler.
    #[arg(long, value_enum)]
    only: Option<Subject>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    Codec,
    Ours,
    Bare,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Pings of one measurement.
const PINGS: usize = 300;

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let measured = runtime.map_err(Failure::from).and_then(|runtime| {
        let table = async {
            match arguments.only {
                Some(subject) => profile(arguments, subject).await,
                None => compare(arguments).await,
            }
        };
        runtime.block_on(table)
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn profile(arguments: &Arguments, subject: Subject) -> Result<(), Failure> {
    for &size in &arguments.sizes {
        let count = arguments.count(size);
        for _ in 0..arguments.rounds {
            let time = measure(subject, count, size).await?;
            println!("{size:>6} {:>10.0} messages/s", per_second(count, time));
        }
    }
    Ok(())
}

async fn compare(arguments: &Arguments) -> Result<(), Failure> {
    println!("  body      codec       ours       bare  ours/codec  ours/bare   (messages/s, medians)");
    for &size in &arguments.sizes {
        let count = arguments.count(size);
        let (mut codec, mut ours, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            codec.push(per_second(count, measure(Subject::Codec, count, size).await?));
            ours.push(per_second(count, measure(Subject::Ours, count, size).await?));
            bare.push(per_second(count, measure(Subject::Bare, count, size).await?));
        }
        let by_codec = ratios(&ours, &codec);
        let by_bare = ratios(&ours, &bare);
        println!(
            "{size:>6} {:>10.0} {:>10.0} {:>10.0}  {by_codec:>10.2}  {by_bare:>9.2}",
            median(codec),
            median(ours),
            median(bare)
        );
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        ours.push(ours::ping(PINGS).await?.as_secs_f64() * 1e6);
        bare.push(bare::ping(PINGS).await?.as_secs_f64() * 1e6);
    }
    let ratio = ratios(&ours, &bare);
    println!(
        "  ping       {:>10.1} {:>10.1}              {ratio:>9.2}   (microseconds)",
        median(ours),
        median(bare)
    );
    Ok(())
}

impl Arguments {
    fn count(&self, size: usize) -> usize {
        (self.megabytes * 1_000_000 / size).clamp(1, self.messages)
    }
}

async fn measure(subject: Subject, count: usize, size: usize) -> Result<Duration, Failure> {
    match subject {
        Subject::Codec => codec(count, size),
        Subject::Ours => ours::send(count, size).await,
        Subject::Bare => bare::send(count, size).await,
    }
}

/// On one thread, each message written and read at once.
fn codec(count: usize, size: usize) -> Result<Duration, Failure> {
    let (mut codec, body) = (Codec::new(), body(size));
    let begin = std::time::Instant::now();
    for _ in 0..count {
        if codec.round_trip(&message(&body))? != 1 {
            return Err("a message is not read as it was written".into());
        }
    }
    Ok(begin.elapsed())
}

/// Each is made anew, as a bot does.
fn message(body: &str) -> Stanza {
    Stanza::Message(Message::chat(None).with_body(Lang::new(), body.to_owned()))
}

/// Plain words, with here and there what XML has to escape.
fn body(size: usize) -> String {
    let words = "But, soft! what light through yonder window breaks? It is the east, and Juliet is the sun. ";
    words.chars().cycle().take(size).collect()
}

async fn sockets() -> Result<(TcpStream, TcpStream), Failure> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let (ours, theirs) = tokio::try_join!(TcpStream::connect(listener.local_addr()?), listener.accept())?;
    let theirs = theirs.0;
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    Ok((ours, theirs))
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The median of the ratios of each round.
fn ratios(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
