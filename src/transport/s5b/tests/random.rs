//! Two sides, a network that does as chance will have it: both always come to the same end.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    transport::s5b::candidate::{Gathered, Proxy, candidates_of, own_candidates},
    wire::errors,
};

const SEEDS: u64 = 4000;
/// Every negotiation comes to its end long before.
const STEPS: usize = 10_000;

/// xorshift64*, to run the same on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn milliseconds(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from)) as u64)
    }
}

/// 0 is the initiator, 1 the responder.
type Who = usize;

enum Event {
    /// A side has both `<transport/>`s.
    Start(Who, S5bTransport),
    Info(Who, S5bTransport),
    /// A TCP connection and its SOCKS5 request arrive at the other's listener.
    Arrives(Who, Dial),
    Dialled(Who, Attempt, Result<Connection, String>),
    Closed(Who, SocketId),
    Activated(Who, bool),
}

/// Where both sides' connections to one proxy meet: its host, and the DST.ADDR.
type Meeting = (String, String);

struct World {
    random: Random,
    now: Instant,
    /// In order of their times; the second number keeps those of one time in order.
    events: BTreeMap<(Instant, u64), Event>,
    sides: [Option<S5b>; 2],
    offers: [Vec<Candidate>; 2],
    late: bool,
    timeout: Duration,
    /// A side's stanzas arrive in order.
    last_info: [Instant; 2],
    unreachable: BTreeSet<(Who, String)>,
    abandoned: BTreeSet<(Who, u32)>,
    /// The connections that a side has to hang up or to use. Two ends of one are `2n` and `2n + 1`.
    held: [BTreeSet<u64>; 2],
    hung_up: BTreeSet<u64>,
    meetings: BTreeMap<Meeting, Vec<(Who, u64)>>,
    joined: Vec<BTreeSet<u64>>,
    ends: [Option<Result<u64, String>>; 2],
    counter: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let now = Instant::now();
        let offers = offers(&mut random);
        let hosts = offers.iter().flatten().map(|candidate| candidate.host.clone());
        // From a network where all works to one where nothing does.
        let chance = 1 + random.below(4);
        let unreachable = hosts
            .flat_map(|host| [(0, host.clone()), (1, host)])
            .filter(|_| random.below(4) >= chance)
            .collect();
        let timeout = Duration::from_secs(if random.one_in(2) { 120 } else { 24 * 3600 });
        let late = random.one_in(4);
        let mut world = Self {
            random,
            now,
            events: BTreeMap::new(),
            sides: [None, None],
            offers,
            late,
            timeout,
            last_info: [now; 2],
            unreachable,
            abandoned: BTreeSet::new(),
            held: Default::default(),
            hung_up: BTreeSet::new(),
            meetings: BTreeMap::new(),
            joined: Vec::new(),
            ends: [None, None],
            counter: 0,
        };
        world.begin();
        world
    }

    /// The responder accepts; its accept travels like any stanza of its.
    fn begin(&mut self) {
        let shown = if self.late { Vec::new() } else { self.offers[0].clone() };
        let offer = transport(&setup(Role::Initiator), &shown);
        let accept = transport(&setup(Role::Responder), &self.offers[1]);
        self.after(Duration::ZERO, Event::Start(1, offer));
        let arrival = self.signalling(1);
        self.at(arrival, Event::Start(0, accept));
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.counter += 1;
        self.events.insert((when, self.counter), event);
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// When a stanza of this side's arrives. It takes two servers more than the end of a TCP connection does.
    fn signalling(&mut self, from: Who) -> Instant {
        let arrival = self.now + self.random.milliseconds(60, 900);
        self.last_info[from] = self.last_info[from].max(arrival);
        self.last_info[from]
    }

    fn new_connection(&mut self) -> u64 {
        self.counter += 1;
        self.counter * 2
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let event = self.events.first_key_value().map(|((when, _), _)| *when);
            let timer = self.sides.iter().flatten().filter_map(S5b::poll_timeout).min();
            match (event, timer) {
                (Some(event), timer) if timer.is_none_or(|timer| event <= timer) => {
                    self.now = self.now.max(event);
                    let (_, event) = self.events.pop_first().unwrap();
                    self.handle(event);
                }
                (_, Some(timer)) => {
                    self.now = self.now.max(timer);
                    for side in self.sides.iter_mut().flatten() {
                        side.handle_timeout(self.now);
                    }
                }
                (_, None) => return,
            }
            self.perform(0);
            self.perform(1);
        }
        panic!("it does not come to an end");
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Start(who, theirs) => self.start(who, &theirs),
            Event::Info(who, info) => {
                let side = self.sides[who].as_mut().unwrap();
                side.handle_info(now, &info).expect("nobody misbehaves here");
            }
            Event::Arrives(from, dial) => self.arrives(from, &dial),
            Event::Dialled(who, attempt, result) => self.dialled(who, attempt, result),
            Event::Closed(who, socket) => {
                self.sides[who].as_mut().unwrap().handle_closed(socket);
                self.held[who].remove(&socket.0);
            }
            Event::Activated(who, true) => self.sides[who].as_mut().unwrap().handle_activated(now, Ok(())),
            Event::Activated(who, false) => {
                let refusal = errors::item_not_found("no such stream");
                self.sides[who].as_mut().unwrap().handle_activated(now, Err(refusal));
            }
        }
    }

    fn start(&mut self, who: Who, theirs: &S5bTransport) {
        let setup = Setup { timeout: self.timeout, ..setup([Role::Initiator, Role::Responder][who]) };
        let mut side = S5b::new(self.now, setup, self.offers[who].clone(), theirs).unwrap();
        if who == 0 && self.late {
            side.offer_late();
        }
        self.sides[who] = Some(side);
    }

    fn arrives(&mut self, from: Who, dial: &Dial) {
        let to = 1 - from;
        if self.abandoned.contains(&(from, dial.attempt.0)) {
            return;
        }
        let Some(side) = self.sides[to].as_mut() else {
            // The session holds it until it has the accept.
            return self.after(Duration::from_millis(50), Event::Arrives(from, dial.clone()));
        };
        let known = side.dst_addrs();
        assert!(dial.dst_addrs.iter().any(|asked| known.contains(asked)));
        let candidate = self.offers[to].iter().find(|candidate| candidate.host == dial.host).unwrap();
        // A port-forward ends at one of the listener's own addresses.
        let local = match candidate.kind {
            CandidateType::Direct => format!("{}:{}", candidate.host, candidate.port),
            _ => format!("10.0.{to}.0:5086"),
        };
        let socket = self.new_connection();
        let side = self.sides[to].as_mut().unwrap();
        let result = if side.handle_incoming(self.now, connection(socket + 1, &local)) {
            self.held[to].insert(socket + 1);
            Ok(connection(socket, "203.0.113.1:1"))
        } else {
            Err("refused".to_owned())
        };
        let back = self.random.milliseconds(1, 1500);
        self.after(back, Event::Dialled(from, dial.attempt, result));
    }

    fn dialled(&mut self, who: Who, attempt: Attempt, result: Result<Connection, String>) {
        if let Ok(connection) = &result {
            // Whoever dials may have done it when it is told to abandon.
            if self.abandoned.contains(&(who, attempt.0)) && self.random.one_in(2) {
                return;
            }
            self.held[who].insert(connection.socket.0);
        }
        self.sides[who].as_mut().unwrap().handle_dialed(self.now, attempt, result);
    }

    fn perform(&mut self, who: Who) {
        while let Some(side) = self.sides[who].as_mut()
            && let Some(pending) = side.outputs.pop_front()
        {
            match pending {
                Pending::Info(info) => {
                    let arrival = self.signalling(who);
                    self.at(arrival, Event::Info(1 - who, info));
                }
                Pending::Dial(dial) => self.dial(who, dial),
                Pending::Activate(proxy) => self.activate(who, &proxy.to_string()),
                Pending::Abandon(attempt) => self.abandon(who, attempt),
                Pending::HangUp(socket) => self.hang_up(who, socket),
                Pending::Open => {
                    let (connection, _) = side.connection().unwrap();
                    self.end(who, Ok(connection.socket.0));
                }
                Pending::Failed(error) => {
                    assert!(!matches!(error, crate::Error::Timeout(..)), "nothing here takes that long");
                    self.end(who, Err(error.to_string()));
                }
            }
        }
    }

    fn end(&mut self, who: Who, end: Result<u64, String>) {
        assert!(self.ends[who].replace(end).is_none(), "it ends once");
    }

    fn dial(&mut self, who: Who, dial: Dial) {
        if self.unreachable.contains(&(who, dial.host.clone())) {
            let delay = self.random.milliseconds(1, 5000);
            return self.after(delay, Event::Dialled(who, dial.attempt, Err("refused".to_owned())));
        }
        let delay = self.random.milliseconds(1, 1000);
        if !dial.host.starts_with("proxy") {
            return self.after(delay, Event::Arrives(who, dial));
        }
        let socket = self.new_connection();
        let meeting = (dial.host.clone(), dial.dst_addrs[0].clone());
        self.meetings.entry(meeting).or_default().push((who, socket));
        self.after(delay, Event::Dialled(who, dial.attempt, Ok(connection(socket, "203.0.113.1:1"))));
    }

    fn abandon(&mut self, who: Who, attempt: Attempt) {
        self.abandoned.insert((who, attempt.0));
        let made = self.events.values().find_map(|event| match event {
            Event::Dialled(from, of, Ok(connection)) if *from == who && *of == attempt => {
                Some(connection.socket)
            }
            _ => None,
        });
        if let Some(socket) = made {
            self.close(who, socket);
        }
    }

    fn hang_up(&mut self, who: Who, socket: SocketId) {
        assert!(self.held[who].remove(&socket.0), "{} is not there to be hung up", socket.0);
        self.hung_up.insert(socket.0);
        self.close(who, socket);
    }

    /// One end is closed, and the other learns of it.
    fn close(&mut self, who: Who, socket: SocketId) {
        for legs in self.meetings.values_mut() {
            legs.retain(|(_, leg)| *leg != socket.0);
        }
        if socket.0.is_multiple_of(2) && self.held[1 - who].contains(&(socket.0 + 1)) {
            let delay = self.random.milliseconds(1, 50);
            self.after(delay, Event::Closed(1 - who, SocketId(socket.0 + 1)));
        }
    }

    fn activate(&mut self, who: Who, proxy: &str) {
        let dst_addr = self.sides[who].as_ref().unwrap().dst_addrs()[0].clone();
        let legs = self.meetings.get(&(proxy.to_owned(), dst_addr)).cloned().unwrap_or_default();
        let both = legs.len() == 2 && legs[0].0 != legs[1].0;
        let works = both && !self.random.one_in(5);
        if works {
            self.joined.push(legs.iter().map(|(_, socket)| *socket).collect());
        }
        let delay = self.random.milliseconds(1, 400);
        self.after(delay, Event::Activated(who, works));
    }

    /// What both sides came to.
    fn verdict(&self) -> Option<CandidateType> {
        let (romeo, juliet) = (self.ends[0].clone().unwrap(), self.ends[1].clone().unwrap());
        let open = match (romeo, juliet) {
            (Ok(romeo), Ok(juliet)) => {
                let same = romeo ^ 1 == juliet || self.joined.contains(&BTreeSet::from([romeo, juliet]));
                assert!(same, "{romeo} and {juliet} are two connections");
                assert!(!self.hung_up.contains(&romeo) && !self.hung_up.contains(&juliet));
                [Some(romeo), Some(juliet)]
            }
            (Err(_), Err(_)) => [None, None],
            (romeo, juliet) => panic!("the initiator came to {romeo:?}, the responder to {juliet:?}"),
        };
        for (held, open) in self.held.iter().zip(open) {
            assert_eq!(
                held.iter().copied().collect::<Vec<_>>(),
                Vec::from_iter(open),
                "nothing is left over"
            );
        }
        self.sides[0].as_ref().unwrap().connection().map(|(_, kind)| kind)
    }
}

/// Ours, or those of programs that give their candidates any priority.
fn offers(random: &mut Random) -> [Vec<Candidate>; 2] {
    let gathered = [0, 1].map(|who| {
        let address = |n: usize, net: &str| format!("{net}.{who}.{n}:5086").parse().unwrap();
        Gathered {
            direct: (0..random.below(4)).map(|n| address(n, "10.0")).collect(),
            external: (0..random.below(2)).map(|n| address(n, "198.51")).collect(),
            proxies: (0..random.below(3)).map(|n| proxy(&format!("proxy{n}-of-{who}"))).collect(),
        }
    });
    let parties = |role| setup(role).parties;
    let romeos = own_candidates(&gathered[0], Candidates::All, &parties(Role::Initiator), &[]);
    let seen = candidates_of(&transport(&setup(Role::Initiator), &romeos));
    let juliets = own_candidates(&gathered[1], Candidates::All, &parties(Role::Responder), &seen);
    let mut offers = [romeos, juliets];
    if random.one_in(2) {
        for candidate in offers.iter_mut().flatten() {
            candidate.priority = random.below(4) as u32;
        }
    }
    offers
}

fn proxy(host: &str) -> Proxy {
    Proxy { jid: host.parse().unwrap(), host: host.to_owned(), port: 7777 }
}

#[test]
fn both_sides_always_come_to_the_same_end() {
    let mut verdicts: HashMap<Option<CandidateType>, usize> = HashMap::new();
    for seed in 0..SEEDS {
        let verdict = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.verdict()
        });
        let verdict = verdict.unwrap_or_else(|_| panic!("seed {seed}"));
        *verdicts.entry(verdict).or_default() += 1;
    }
    // It is about all of them.
    for kind in [None, Some(CandidateType::Direct), Some(CandidateType::Assisted), Some(CandidateType::Proxy)]
    {
        assert!(verdicts.get(&kind).is_some_and(|count| *count > 100), "{verdicts:?}");
    }
}
