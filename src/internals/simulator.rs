//! What is between two ends of an in-band bytestream, as a simulation of events in virtual time: a path, a server with a rate
//! limit, and other stanzas of the same bot.
//!
//! ```text
//!            a quarter of the                                        a quarter of the
//!   streams ── round trip ──► socket ─► rate limit ─► stanza by ──── round trip ──► reader
//!      ▲                                  (of this     stanza                         │
//!      │                                   session)      │ ▲                          │
//!      └──────────── a quarter of the round trip ────────┘ └── rate limit ◄── a quarter
//! ```
//!
//! The limit is a token bucket, or a server that reads what there is and then pauses ([`Reading`]). A server that enforces one only
//! pauses its reading: nothing is lost and nothing refused, so what waits is in the socket, whose buffer has no end here. Rates are in
//! bytes per second on the wire.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::transport::ibb_window::Window;

pub mod grid;
mod resource;
#[cfg(test)]
mod tests;

use self::resource::{Limit, Random};

/// A block of so many bytes is so long on the wire: base64, and the stanza around it.
fn on_the_wire(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4 + 200
}

/// The length of an acknowledgement on the wire.
const ACKNOWLEDGEMENT: usize = 160;
/// The length of another stanza of the bot.
const OTHER_STANZA: usize = 300;

/// How a stream decides what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// By the law, with at most so many bytes in flight.
    Adaptive(usize),
    /// Always so many blocks of that size.
    Fixed {
        /// Blocks in flight.
        window: usize,
        /// Bytes in each.
        block: u16,
    },
}

/// A stream that always has something to send.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What is in flight.
    pub rule: Rule,
    /// When it begins.
    pub begins: Duration,
    /// When its reader does not read, from and until.
    pub pauses: Vec<(Duration, Duration)>,
}

impl Stream {
    /// From the beginning, with a reader that always reads.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self { rule, begins: Duration::ZERO, pauses: Vec::new() }
    }
}

/// How a server keeps to its rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A stanza is read when the limit has room for all of it.
    Evenly,
    /// What is in the socket is read, up to some kilobytes, and then nothing for as long as the limit wants for that. It is
    /// Prosody's way (`net/server_epoll.lua`): there is no burst, and what arrives before the pause is over is in time.
    ThenPausing,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Between the two ends, through the server, and back.
    pub round_trip: Duration,
    /// By how much each way varies, as a part of it.
    pub jitter: f64,
    /// Bytes per second that the server takes from each session.
    pub rate: f64,
    /// Bytes that it takes at once after a while of silence.
    pub burst: f64,
    /// How the server keeps to that.
    pub reading: Reading,
    /// Later rates, and since when.
    pub changes: Vec<(Duration, f64)>,
    /// What each stanza costs the server.
    pub per_stanza: Duration,
    /// The bytestreams of the bot, in one session with the server.
    pub streams: Vec<Stream>,
    /// How often the bot sends another stanza.
    pub other_stanzas: Option<Duration>,
    /// How long it takes.
    pub duration: Duration,
    /// It is over earlier when so many blocks were delivered.
    pub blocks: usize,
}

impl Scenario {
    /// One stream, without jitter or other stanzas.
    #[must_use]
    pub fn new(round_trip: Duration, rate: f64, rule: Rule, duration: Duration) -> Self {
        Self {
            round_trip,
            jitter: 0.0,
            rate,
            // What a default Prosody and a default ejabberd let pass; rates beyond theirs stand for how fast a server is.
            burst: if rate < 100_000.0 { 20_000.0 } else { 0.0 },
            reading: Reading::Evenly,
            changes: Vec::new(),
            per_stanza: Duration::from_micros(100),
            streams: vec![Stream::new(rule)],
            other_stanzas: None,
            duration,
            blocks: usize::MAX,
        }
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        Simulation::new(self).run()
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long it took.
    pub duration: Duration,
    /// By stream, bytes that were delivered, and when.
    pub delivered: Vec<Vec<(Duration, usize)>>,
    /// How long each of the other stanzas took to whom it was for.
    pub waits: Vec<Duration>,
}

impl Outcome {
    /// Bytes per second of a stream that were delivered in that time.
    #[must_use]
    pub fn goodput(&self, stream: usize, from: Duration, until: Duration) -> f64 {
        let blocks = self.delivered.get(stream).map_or(&[] as &[_], Vec::as_slice);
        let within = blocks.iter().filter(|(at, _)| *at > from && *at <= until);
        within.map(|(_, bytes)| bytes).sum::<usize>() as f64 / (until - from).as_secs_f64()
    }

    /// Of the whole, in seconds.
    #[must_use]
    pub fn mean_wait(&self) -> f64 {
        self.waits.iter().map(Duration::as_secs_f64).sum::<f64>() / self.waits.len().max(1) as f64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stanza {
    Block { stream: usize, bytes: usize },
    Acknowledgement { stream: usize },
    Other { sent: Duration },
}

impl Stanza {
    fn length(self) -> usize {
        match self {
            Self::Block { bytes, .. } => on_the_wire(bytes),
            Self::Acknowledgement { .. } => ACKNOWLEDGEMENT,
            Self::Other { .. } => OTHER_STANZA,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin(usize),
    Change(usize),
    /// The reader of a stream goes on.
    Resume(usize),
    SendOther,
    /// A stanza is in the server's socket.
    Arrive(Stanza),
    /// The rate limit of a session lets something pass.
    Pass(Session),
    /// The server is through with a stanza.
    Routed(Stanza),
    /// A stanza is with whom it is for.
    Delivered(Stanza),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Session {
    Sender,
    Receiver,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    epoch: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    scheduled: u64,
    random: Random,
    windows: Vec<Option<Window>>,
    /// By stream, acknowledgements that its reader holds back.
    held: Vec<usize>,
    limits: [Limit; 2],
    /// Until when the server is busy with stanzas.
    busy: Duration,
    /// When the latest stanza arrives on each of the four legs: none overtakes another.
    latest: [Duration; 4],
    outcome: Outcome,
    blocks: usize,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let streams = scenario.streams.len();
        let limit = || Limit::new(scenario.rate, scenario.burst, scenario.reading);
        let mut simulation = Self {
            scenario,
            epoch: Instant::now(),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            scheduled: 0,
            random: Random(1),
            windows: (0..streams).map(|_| None).collect(),
            held: vec![0; streams],
            limits: [limit(), limit()],
            busy: Duration::ZERO,
            latest: [Duration::ZERO; 4],
            outcome: Outcome {
                duration: scenario.duration,
                delivered: vec![Vec::new(); streams],
                waits: Vec::new(),
            },
            blocks: 0,
        };
        for (number, stream) in scenario.streams.iter().enumerate() {
            simulation.at(stream.begins, Event::Begin(number));
            for (_, until) in &stream.pauses {
                simulation.at(*until, Event::Resume(number));
            }
        }
        for (number, (since, _)) in scenario.changes.iter().enumerate() {
            simulation.at(*since, Event::Change(number));
        }
        if let Some(every) = scenario.other_stanzas {
            simulation.at(every, Event::SendOther);
        }
        simulation
    }

    fn run(mut self) -> Outcome {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > self.scenario.duration || self.blocks >= self.scenario.blocks {
                self.outcome.duration = at.min(self.scenario.duration);
                break;
            }
            self.now = at;
            self.handle(event);
        }
        self.outcome
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Begin(stream) => {
                let Some(rule) = self.scenario.streams.get(stream).map(|stream| stream.rule) else { return };
                let window = match rule {
                    Rule::Adaptive(most) => Window::adaptive(u16::MAX, most),
                    Rule::Fixed { window, block } => Window::fixed(block, window),
                };
                if let Some(place) = self.windows.get_mut(stream) {
                    *place = Some(window);
                }
                self.send(stream);
            }
            Event::Change(number) => {
                if let Some((_, rate)) = self.scenario.changes.get(number) {
                    self.limits.iter_mut().for_each(|limit| limit.rate = *rate);
                }
            }
            Event::Resume(stream) => {
                let held = self.held.get_mut(stream).map(std::mem::take).unwrap_or_default();
                for _ in 0..held {
                    self.travel(2, Event::Arrive, Stanza::Acknowledgement { stream });
                }
            }
            Event::SendOther => {
                self.travel(0, Event::Arrive, Stanza::Other { sent: self.now });
                let every = self.scenario.other_stanzas.unwrap_or(Duration::MAX);
                self.at(self.now.saturating_add(every), Event::SendOther);
            }
            Event::Arrive(stanza) => self.arrive(stanza),
            Event::Pass(session) => self.pass(session),
            Event::Routed(stanza) => self.routed(stanza),
            Event::Delivered(stanza) => self.delivered(stanza),
        }
    }

    fn send(&mut self, stream: usize) {
        let now = self.epoch + self.now;
        while let Some(Some(window)) = self.windows.get_mut(stream) {
            window.resume(now);
            let bytes = window.block();
            if !window.admits(bytes) {
                return;
            }
            window.sent(now, bytes);
            self.travel(0, Event::Arrive, Stanza::Block { stream, bytes });
        }
    }

    /// A stanza goes along one of the four legs of the path.
    fn travel(&mut self, leg: usize, then: impl Fn(Stanza) -> Event, stanza: Stanza) {
        let varied = 1.0 + self.scenario.jitter * self.random.next();
        let arrival = self.now + (self.scenario.round_trip / 4).mul_f64(varied);
        let Some(latest) = self.latest.get_mut(leg) else { return };
        *latest = arrival.max(*latest);
        let arrival = *latest;
        self.at(arrival, then(stanza));
    }

    fn limit(&mut self, session: Session) -> &mut Limit {
        let [sender, receiver] = &mut self.limits;
        match session {
            Session::Sender => sender,
            Session::Receiver => receiver,
        }
    }

    fn arrive(&mut self, stanza: Stanza) {
        let session = match stanza {
            Stanza::Acknowledgement { .. } => Session::Receiver,
            Stanza::Block { .. } | Stanza::Other { .. } => Session::Sender,
        };
        let now = self.now;
        if let Some(at) = self.limit(session).arrives(now, stanza) {
            self.at(at, Event::Pass(session));
        }
    }

    fn pass(&mut self, session: Session) {
        let now = self.now;
        let (passed, again) = self.limit(session).passes(now);
        if let Some(at) = again {
            self.at(at, Event::Pass(session));
        }
        for stanza in passed {
            self.busy = self.busy.max(now) + self.scenario.per_stanza;
            self.at(self.busy, Event::Routed(stanza));
        }
    }

    fn routed(&mut self, stanza: Stanza) {
        match stanza {
            Stanza::Block { .. } => self.travel(1, Event::Delivered, stanza),
            Stanza::Acknowledgement { .. } => self.travel(3, Event::Delivered, stanza),
            Stanza::Other { sent } => {
                let delivered = self.now + self.scenario.round_trip / 4;
                self.outcome.waits.push(delivered.saturating_sub(sent));
            }
        }
    }

    fn delivered(&mut self, stanza: Stanza) {
        match stanza {
            Stanza::Block { stream, bytes } => {
                self.blocks += 1;
                if let Some(delivered) = self.outcome.delivered.get_mut(stream) {
                    delivered.push((self.now, bytes));
                }
                if !self.is_paused(stream) {
                    self.travel(2, Event::Arrive, Stanza::Acknowledgement { stream });
                } else if let Some(held) = self.held.get_mut(stream) {
                    *held += 1;
                }
            }
            Stanza::Acknowledgement { stream } => {
                if let Some(Some(window)) = self.windows.get_mut(stream) {
                    window.acknowledged(self.epoch + self.now);
                }
                self.send(stream);
            }
            Stanza::Other { .. } => {}
        }
    }

    fn is_paused(&self, stream: usize) -> bool {
        let Some(stream) = self.scenario.streams.get(stream) else { return false };
        stream.pauses.iter().any(|(from, until)| (*from..*until).contains(&self.now))
    }
}
