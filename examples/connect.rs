//! Opens a stream to a peer, sends it the lines of stdin, and prints what it says.
//!
//! ```text
//! XMPP_PASSWORD=… cargo run --example connect -- --jid romeo@montague.lit juliet@capulet.lit/balcony
//! ```

mod common;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, BufRead},
    pin::pin,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use common::{
    failure::Failure,
    options::Options,
    outage_options::InitiatorOutageOptions,
    output::{Direction, Output},
    progress::Progress,
    transport_options::InitiatorOptions,
};
use futures::{SinkExt, Stream, StreamExt, channel::mpsc, executor::block_on, future::join, stream};
use jid::FullJid;
use jingle_xmlstream::{ApiMisuse, Config, E2eStream, Error, Reason, StreamEvent};
use xmpp_parsers::{
    message::{Message, MessageType},
    stanza::Stanza,
};

/// How long to wait at the end for the next echo: a peer that does not echo is no reason to wait for ever, but a
/// rate-limited server needs its time for a large message.
const ECHO_OF_LINE: Duration = Duration::from_secs(10);
const ECHO_OF_BULK: Duration = Duration::from_secs(120);

/// Lines that were read and not yet sent: reading a file must not run ahead of the stream.
const LINES_AHEAD: usize = 16;

/// Opens an e2e stream, sends the lines of stdin as messages, prints the replies, and closes at end of file.
///
/// With --send it sends numbered messages instead, as fast as the stream takes them, and checks that each comes back once,
/// in order, whatever happens to servers and connections meanwhile. Exit codes: 0 all went well, 1 failure (a message that did
/// not come back, or twice, too), 2 wrong usage.
#[derive(Parser, Debug)]
struct Arguments {
    /// Whom to connect to: the full JID, with its resource
    #[arg(value_name = "PEER_FULL_JID")]
    peer: FullJid,
    /// Send this many numbered messages instead of stdin, and tell how fast they came back
    #[arg(long, value_name = "N")]
    send: Option<u64>,
    /// How many bytes each body has, with --send
    #[arg(long, value_name = "BYTES", default_value = "1000", requires = "send", value_parser = size)]
    size: usize,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    transport: InitiatorOptions,
    #[command(flatten)]
    outage: InitiatorOutageOptions,
}

impl Arguments {
    fn apply(&self, config: Config) -> Config {
        self.outage.apply(self.transport.apply(config))
    }
}

/// An empty body would not be echoed.
fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a body has at least 1 byte".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(format!("{error}")),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::start_logging(common::WARNINGS);
    let output = arguments.options.output();
    output.finish(run(&arguments, output).await)
}

async fn run(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let endpoint = tokio::select! {
        online = common::login(&arguments.options, |config| arguments.apply(config), output) => online?,
        () = common::interrupted() => return Err(Failure::Interrupted),
    };
    let talk = Talk {
        arguments,
        output,
        progress: RefCell::default(),
        sent: Cell::default(),
        awaited: RefCell::default(),
        wrong: Cell::default(),
    };
    let result = tokio::select! {
        stream = endpoint.connect(&arguments.peer) => match stream {
            Ok(stream) => {
                let mut held = pin!(talk.hold(stream));
                tokio::select! {
                    result = &mut held => result,
                    () = common::interrupted() => {
                        // Only who holds the stream to its end learns what was not acknowledged.
                        let ((), ended) = join(endpoint.close(), held).await;
                        if let Err(failure) = ended && failure.undelivered().is_some() {
                            output.failed(&failure);
                        }
                        Err(Failure::Interrupted)
                    }
                }
            }
            Err(error) => Err(talk.failed(error)),
        },
        () = common::interrupted() => Err(Failure::Interrupted),
    };
    // Also closes a stream that a failure left open.
    endpoint.close().await;
    result
}

/// What is said on one stream.
struct Talk<'a> {
    arguments: &'a Arguments,
    output: Output,
    /// Of what is sent in bulk.
    progress: RefCell<Option<Progress>>,
    sent: Cell<Total>,
    /// What has not come back yet; the stream's back-pressure bounds it.
    awaited: RefCell<VecDeque<Sent>>,
    wrong: Cell<Wrong>,
}

/// Messages that did not come back as they should.
#[derive(Clone, Copy, Default)]
struct Wrong {
    /// A later one came back first.
    lost: usize,
    /// It came back before, or was never sent.
    repeated: usize,
}

#[derive(Clone, Copy, Default)]
struct Total {
    messages: u64,
    bytes: u64,
}

struct Sent {
    id: String,
    body: String,
}

/// Whether anything can come.
enum Way {
    There,
    /// The stream waits for another one, and has its own deadline for it.
    Lost,
}

/// Whether there is more to be sent.
enum Sending {
    GoesOn,
    Done,
}

impl Talk<'_> {
    async fn hold(&self, mut stream: E2eStream) -> Result<(), Failure> {
        let (output, peer) = (self.output, &self.arguments.peer);
        output.negotiated(peer, &stream);
        output.stream_open(peer, stream.info());
        let trust = &self.arguments.options.trust;
        trust.show_code(&stream, output).await.map_err(|error| self.failed(error))?;
        let started = Instant::now();
        let changes = (stream.moves(), stream.events());
        let exchanged = async {
            if let (Some(count), Output::Human) = (self.arguments.send, output) {
                self.progress.replace(Some(Progress::of(count, self.arguments.size as u64)));
            }
            let exchanged = self.exchange(&mut stream).await;
            self.progress.take();
            exchanged?;
            let took = started.elapsed();
            stream.close().await.map_err(|error| self.failed(error))?;
            Ok::<_, Failure>(took)
        };
        let took = output.telling(peer, changes, exchanged).await?;
        output.stream_closed(peer);
        output.terminated(peer, &Reason::Success);
        let Total { messages, bytes } = self.sent.get();
        match self.arguments.send {
            Some(_) => output.echoed_fast(messages, bytes, took),
            // It took as long as somebody typed.
            None => output.echoed(messages, bytes),
        }
        Ok(())
    }

    /// Sends and receives at the same time. To do one after the other would come to a standstill: a peer that can't get
    /// rid of its echoes stops reading.
    async fn exchange(&self, stream: &mut E2eStream) -> Result<(), Failure> {
        let mut sender = stream.sender();
        let mut messages = self.messages();
        let mut sending = sender.send_all(&mut messages);
        let mut events = stream.events();
        let (mut state, mut way) = (Sending::GoesOn, Way::There);
        loop {
            if matches!(state, Sending::Done) && self.awaited.borrow().is_empty() {
                return self.conclude();
            }
            tokio::select! {
                sent = &mut sending, if matches!(state, Sending::GoesOn) => {
                    state = Sending::Done;
                    match sent {
                        // The peer closed: what it sent before is still to be received.
                        Ok(()) | Err(Error::ApiMisuse(ApiMisuse::StreamClosed)) => {}
                        Err(error @ Error::ApiMisuse(_)) => return Err(self.failed(error)),
                        // So does what the stream received before it failed, and then what it did not deliver.
                        Err(_) => {}
                    }
                }
                stanza = stream.next() => match stanza {
                    Some(stanza) => self.received(stanza.map_err(|error| self.failed(error))?)?,
                    None => return self.peer_closed(&state),
                },
                Some(event) = events.next() => {
                    way = if matches!(event, StreamEvent::Suspended(_)) { Way::Lost } else { Way::There };
                }
                () = tokio::time::sleep(self.patience()),
                    if matches!((&state, &way), (Sending::Done, Way::There)) => return self.conclude(),
            }
        }
    }

    /// Everything came back that will, and there should be nothing wrong with it.
    fn conclude(&self) -> Result<(), Failure> {
        let (Wrong { lost, repeated }, waiting) = (self.wrong.get(), self.awaited.borrow().len());
        if lost + waiting + repeated == 0 {
            return Ok(());
        }
        Err(Failure::Echo(format!(
            "{} of {} messages did not come back, and {repeated} came that had come before, or were never sent",
            lost + waiting,
            self.sent.get().messages,
        )))
    }

    /// Everything that there is to send.
    fn messages(&self) -> impl Stream<Item = Result<Stanza, Error>> + Unpin {
        let bodies = match self.arguments.send {
            Some(count) => {
                stream::iter(1..=count).map(|number| numbered(number, self.arguments.size)).left_stream()
            }
            None => lines().right_stream(),
        };
        bodies.map(|body| Ok(self.prepare(body)))
    }

    /// Makes a message, and remembers that its echo is to come.
    fn prepare(&self, body: String) -> Stanza {
        let Total { messages, bytes } = self.sent.get();
        self.sent.set(Total { messages: messages + 1, bytes: bytes + body.len() as u64 });
        let id = (messages + 1).to_string();
        self.awaited.borrow_mut().push_back(Sent { id: id.clone(), body: body.clone() });
        let stanza = common::chat(id, body);
        // A person has just typed it.
        if self.output == Output::Json {
            self.output.stanza(Direction::Out, &self.arguments.peer, &stanza);
        }
        stanza
    }

    fn received(&self, stanza: Stanza) -> Result<(), Failure> {
        let bulk = self.arguments.send.is_some();
        if !bulk || self.output == Output::Json {
            self.output.stanza(Direction::In, &self.arguments.peer, &stanza);
        }
        let mut awaited = self.awaited.borrow_mut();
        let mut wrong = self.wrong.get();
        match awaited.iter().position(|sent| sent.is_echoed_by(&stanza)) {
            Some(place) => {
                awaited.drain(..=place);
                wrong.lost += place;
            }
            None if bulk => match awaited.iter().find(|sent| sent.has_id_of(&stanza)) {
                Some(Sent { id, .. }) => {
                    return Err(Failure::Echo(format!("message {id} did not come back as it was sent")));
                }
                None => wrong.repeated += 1,
            },
            // Whatever else the peer has to say.
            None => {}
        }
        self.wrong.set(wrong);
        if let Some(progress) = &*self.progress.borrow() {
            progress.reached(self.sent.get().messages - awaited.len() as u64);
        }
        Ok(())
    }

    fn peer_closed(&self, sending: &Sending) -> Result<(), Failure> {
        let missing = self.awaited.borrow().len();
        match sending {
            Sending::GoesOn if self.arguments.send.is_some() => {
                Err(Failure::Echo("the peer closed the stream before everything was sent".to_owned()))
            }
            _ if missing > 0 => Err(Failure::Echo(format!(
                "the peer closed the stream before {missing} of {} messages came back",
                self.sent.get().messages
            ))),
            _ => self.conclude(),
        }
    }

    fn patience(&self) -> Duration {
        match self.arguments.send {
            Some(_) => ECHO_OF_BULK,
            None => ECHO_OF_LINE,
        }
    }

    fn failed(&self, error: Error) -> Failure {
        Failure::Stream { peer: self.arguments.peer.clone(), error }
    }
}

impl Sent {
    fn is_echoed_by(&self, stanza: &Stanza) -> bool {
        matches!(stanza, Stanza::Message(message) if common::body(message) == Some(&self.body))
            && self.has_id_of(stanza)
    }

    fn has_id_of(&self, stanza: &Stanza) -> bool {
        let Stanza::Message(Message { id, type_, .. }) = stanza else { return false };
        *type_ != MessageType::Error && id.as_ref().is_some_and(|id| id.0 == self.id)
    }
}

/// A body of exactly this size that begins with the number, if there is room for it.
fn numbered(number: u64, size: usize) -> String {
    let mut body = format!("{number} ");
    body.extend(('a'..='z').cycle().take(size.saturating_sub(body.len())));
    body.truncate(size);
    body
}

/// The lines of stdin. They come from a thread of its own, because nothing else can be done while stdin is read.
fn lines() -> mpsc::Receiver<String> {
    let (mut sender, receiver) = mpsc::channel(LINES_AHEAD);
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
            if block_on(sender.send(line)).is_err() {
                return;
            }
        }
    });
    receiver
}
