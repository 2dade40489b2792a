//! Two ends of a stream whose bytestreams are cut as chance will have it.
//!
//! Nothing may be lost, repeated or out of order, or else whoever sent it is told just that. Each seed is a schedule of its own; a
//! failure prints it. `JINGLE_XMLSTREAM_SEED=42` runs that one alone, and tells what happens in it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{minidom::Element, stanza::Stanza};

use super::{
    support::{JULIET, ROMEO, message, setup},
    wires::{Connection, get, put},
};
use crate::{
    Error, SignallingError, SmConfig, TransportError,
    security::dice::Dice,
    stream::{
        iq::ReplyReceiver,
        machine::{
            Machine, Role, Setup,
            management::{Enable, Plan},
        },
    },
};

const SEEDS: u64 = 3000;
/// Of chaos; after that the schedule is brought to its end.
const STEPS: usize = 800;
/// Every schedule comes to its end long before.
const LAST_STEPS: usize = 200_000;
const ID: &str = "some-long-sm-id";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Romeo,
    Juliet,
}

use Side::{Juliet, Romeo};

impl Side {
    const BOTH: [Self; 2] = [Romeo, Juliet];

    fn other(self) -> Self {
        match self {
            Romeo => Juliet,
            Juliet => Romeo,
        }
    }
}

/// A connection on which the stream is to be carried on.
struct Attempt {
    connection: Connection,
    fresh: [Option<Machine>; 2],
}

/// What one side's user did, and what came of it.
#[derive(Default)]
struct User {
    sent: Vec<String>,
    taken: Vec<String>,
    pings: Vec<ReplyReceiver>,
}

struct World {
    seed: u64,
    is_told: bool,
    dice: Dice,
    now: Instant,
    /// `None` once the process is gone.
    machines: [Option<Machine>; 2],
    /// Which connection each side takes for the stream's: the count of those before it.
    current: [Option<usize>; 2],
    connections: Vec<Connection>,
    attempt: Option<Attempt>,
    stalled: [bool; 2],
    users: [User; 2],
    resumptions: usize,
    restarts: bool,
    /// Of what can go wrong, one in so many does.
    peace: usize,
}

fn plan(role: Role) -> Plan {
    let config = SmConfig { request_after: 4, ..SmConfig::default() };
    let id = (role == Role::Responder).then(|| ID.to_owned()).or(Some(String::new()));
    Plan::Enable(Enable { id, config })
}

fn setup_of(side: Side, plan: Plan) -> Setup {
    let (role, local, peer) = match side {
        Romeo => (Role::Initiator, ROMEO, JULIET),
        Juliet => (Role::Responder, JULIET, ROMEO),
    };
    let mut setup = Setup { management: plan, ..setup(role, Some(local), Some(peer)) };
    setup.limits.unacked_stanzas = 20;
    // The schedules' time passes as it likes.
    setup.timeouts.iq = Duration::from_secs(3600);
    setup.timeouts.probe = Duration::ZERO;
    setup.timeouts.keep_alive = Duration::ZERO;
    setup
}

fn lost() -> Error {
    Error::Transport(TransportError::Closed)
}

impl World {
    fn new(seed: u64, is_told: bool) -> Self {
        let now = Instant::now();
        let machine = |side, role| Some(Machine::new(now, setup_of(side, plan(role))));
        let connection = Connection::new(&setup_of(Romeo, Plan::Off));
        Self {
            seed,
            is_told,
            dice: Dice::new(seed),
            now,
            machines: [machine(Romeo, Role::Initiator), machine(Juliet, Role::Responder)],
            current: [Some(0); 2],
            connections: vec![connection],
            attempt: None,
            stalled: [false; 2],
            users: Default::default(),
            resumptions: 0,
            restarts: seed.is_multiple_of(4),
            peace: 1 + seed as usize % 37,
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10?} {}", self.seed, what());
        }
    }

    fn machine(&mut self, side: Side) -> Option<&mut Machine> {
        self.machines[side as usize].as_mut()
    }

    fn is_over(&self, side: Side) -> bool {
        self.machines[side as usize].as_ref().is_none_or(|machine| machine.outcome().is_some())
    }

    fn is_suspended(&self, side: Side) -> bool {
        self.machines[side as usize].as_ref().is_some_and(|machine| machine.suspension().is_some())
    }

    // ---- what users do ---------------------------------------------------------------------

    fn send(&mut self, side: Side) {
        let (now, number) = (self.now, self.users[side as usize].sent.len());
        let Some(machine) = self.machine(side) else { return };
        if !machine.is_open() && machine.suspension().is_none() || !matches!(machine.check_room(), Ok(true)) {
            return;
        }
        let body = format!("{side:?} {number}");
        machine.send(now, message(&body)).unwrap();
        self.tell(|| format!("{side:?} sends {number}"));
        self.users[side as usize].sent.push(body);
    }

    fn ping(&mut self, side: Side) {
        let now = self.now;
        let Some(machine) = self.machine(side) else { return };
        if !machine.is_open() || !matches!(machine.check_room(), Ok(true)) {
            return;
        }
        let ping = IqRequest::Get(Element::bare("ping", "urn:xmpp:ping"));
        let reply = machine.send_iq(now, ping).unwrap();
        self.users[side as usize].pings.push(reply);
    }

    fn take(&mut self, side: Side) {
        let Some(Stanza::Message(taken)) = self.machine(side).and_then(Machine::next_stanza) else { return };
        let body = taken.bodies.into_values().next().unwrap();
        self.tell(|| format!("{side:?} takes {body}"));
        let (other, user) = (side.other(), side as usize);
        self.users[user].taken.push(body);
        let (taken, sent) = (&self.users[user].taken, &self.users[other as usize].sent);
        assert_eq!(taken.last(), sent.get(taken.len() - 1), "{side:?} takes what is next");
    }

    // ---- what happens to bytes ---------------------------------------------------------------

    fn write(&mut self, side: Side) {
        if self.stalled[side as usize] || self.is_suspended(side) {
            return;
        }
        let Some(current) = self.current[side as usize] else { return };
        let Some(machine) = self.machines[side as usize].as_mut() else { return };
        put(machine, self.now, &mut self.connections[current].from[side as usize]);
    }

    fn read(&mut self, side: Side) {
        if self.stalled[side as usize] || self.is_suspended(side) || self.is_over(side) {
            return;
        }
        let Some(current) = self.current[side as usize] else { return };
        let most = 1 + self.dice.below(400);
        let Some(machine) = self.machines[side as usize].as_mut() else { return };
        let connection = &mut self.connections[current];
        let pipe = &mut connection.from[side.other() as usize];
        let Some(socket) = connection.sockets[side as usize].as_mut() else { return };
        if pipe.bytes.is_empty() && pipe.cut {
            machine.handle_end(lost());
            self.tell(|| format!("{side:?} notices the cut"));
            return;
        }
        let count = most.min(pipe.bytes.len());
        socket.unread.extend(pipe.bytes.drain(..count));
        get(machine, self.now, socket);
    }

    // ---- what goes wrong -----------------------------------------------------------------------

    fn cut(&mut self) {
        let Self { connections, dice, .. } = self;
        if let Some(connection) = connections.last_mut() {
            connection.cut(dice);
        }
        self.tell(|| "a cut".to_owned());
    }

    fn cut_attempt(&mut self) {
        let Self { attempt, dice, .. } = self;
        if let Some(attempt) = attempt {
            attempt.connection.cut(dice);
        }
    }

    /// The server goes, or comes back before anything is lost.
    fn stall(&mut self, side: Side) {
        let (now, stalled) = (self.now, self.stalled[side as usize]);
        let Some(machine) = self.machines[side as usize].as_mut() else { return };
        if stalled {
            machine.unstall(now);
            self.stalled[side as usize] = false;
        } else if machine.is_resumable() && machine.suspension().is_none() {
            machine.stall(now, Error::Signalling(SignallingError::Offline));
            self.stalled[side as usize] = true;
        }
    }

    /// A stalled bytestream turns out to be lost.
    fn lose_stalled(&mut self, side: Side) {
        if !std::mem::take(&mut self.stalled[side as usize]) {
            return;
        }
        if let Some(machine) = self.machine(side) {
            machine.handle_end(Error::Signalling(SignallingError::Rebound));
        }
        // The other side will hear of it.
        let Self { connections, attempt, dice, .. } = self;
        match (self.current[side as usize], attempt) {
            (Some(current), _) => connections[current].cut(dice),
            (None, Some(attempt)) => attempt.connection.cut(dice),
            (None, None) => {}
        }
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_millis([0, 1, 20, 300, 1500][self.dice.below(5)]);
        let now = self.now;
        for machine in self.machines.iter_mut().flatten() {
            machine.handle_timeout(now);
        }
    }

    /// Juliet's process is killed and started anew: it knows nothing.
    fn restart(&mut self) {
        if !self.restarts || self.machines[Juliet as usize].is_none() {
            return;
        }
        self.tell(|| "juliet's process is gone".to_owned());
        self.machines[Juliet as usize] = None;
        self.current[Juliet as usize] = None;
        self.cut();
        if let Some(attempt) = &mut self.attempt {
            attempt.connection.cut(&mut self.dice);
            attempt.fresh[Juliet as usize] = None;
        }
    }

    // ---- carrying on -----------------------------------------------------------------------------

    fn attempt(&mut self) {
        if self.attempt.is_some() || self.stalled[Romeo as usize] || !self.is_suspended(Romeo) {
            return;
        }
        let now = self.now;
        let Some(resume) = self.machine(Romeo).and_then(Machine::resume_request) else { return };
        self.tell(|| format!("an attempt: {resume:?}"));
        let romeo = setup_of(Romeo, Plan::Resume(resume));
        let connection = Connection::new(&romeo);
        let juliet = setup_of(Juliet, Plan::AwaitResume);
        let fresh = [romeo, juliet].map(|setup| Some(Machine::new(now, setup)));
        self.attempt = Some(Attempt { connection, fresh });
    }

    fn go_on_with_attempt(&mut self, side: Side) {
        let most = 1 + self.dice.below(200);
        let now = self.now;
        let Some(Attempt { connection, fresh }) = &mut self.attempt else { return };
        let Some(machine) = &mut fresh[side as usize] else { return };
        put(machine, now, &mut connection.from[side as usize]);
        let pipe = &mut connection.from[side.other() as usize];
        if let Some(socket) = &mut connection.sockets[side as usize] {
            if pipe.bytes.is_empty() && pipe.cut {
                machine.handle_end(lost());
            }
            let count = most.min(pipe.bytes.len());
            socket.unread.extend(pipe.bytes.drain(..count));
            get(machine, now, socket);
        }
        put(machine, now, &mut connection.from[side as usize]);
        if machine.outcome().is_some() {
            return self.attempt_failed(side);
        }
        match side {
            Juliet if machine.asked_to_resume().is_some() => self.answer(),
            Romeo if machine.resumed_at().is_some() => self.resumed(),
            _ => {}
        }
    }

    fn attempt_failed(&mut self, side: Side) {
        let Some(attempt) = &mut self.attempt else { return };
        let failed = attempt.fresh[side as usize].take();
        attempt.connection.sockets[side as usize] = None;
        attempt.connection.from[side as usize].cut = true;
        let Some(Err(error)) = failed.and_then(|machine| machine.outcome()) else { return };
        if side == Romeo {
            self.tell(|| format!("the attempt failed: {error}"));
            self.attempt = None;
            if let (Error::NotResumed(_), Some(machine)) = (&error, self.machine(Romeo)) {
                machine.give_up(error);
            }
        }
    }

    /// Juliet is asked.
    fn answer(&mut self) {
        let now = self.now;
        let Some(attempt) = &mut self.attempt else { return };
        let Some(mut fresh) = attempt.fresh[Juliet as usize].take() else { return };
        let asked = fresh.asked_to_resume().cloned().unwrap();
        let known = self.machines[Juliet as usize]
            .as_mut()
            .filter(|machine| machine.resumption_id() == Some(&asked.previd) && machine.is_resumable());
        let Some(machine) = known else {
            fresh.refuse_resumption(now);
            put(&mut fresh, now, &mut attempt.connection.from[Juliet as usize]);
            self.tell(|| "juliet knows of no such stream".to_owned());
            return self.attempt_failed(Juliet);
        };
        assert!(machine.adopt(now, fresh).is_ok(), "romeo acknowledged what came");
        self.take_over(Juliet);
        self.tell(|| "juliet goes on".to_owned());
    }

    /// Romeo has his answer.
    fn resumed(&mut self) {
        let now = self.now;
        let Some(attempt) = &mut self.attempt else { return };
        let Some(fresh) = attempt.fresh[Romeo as usize].take() else { return };
        let machine = self.machines[Romeo as usize].as_mut().unwrap();
        assert!(machine.adopt(now, fresh).is_ok(), "juliet acknowledged what came");
        self.take_over(Romeo);
        self.resumptions += 1;
        self.tell(|| "romeo goes on".to_owned());
    }

    /// The attempt's connection is the stream's, for this side.
    fn take_over(&mut self, side: Side) {
        self.stalled[side as usize] = false;
        if side == Romeo {
            let attempt = self.attempt.take().unwrap();
            self.connections.push(attempt.connection);
            let last = self.connections.len() - 1;
            self.current = [Some(last), self.current[Juliet as usize].map(|current| current.max(last))];
            // Juliet was there first.
            self.current[Juliet as usize] = self.machines[Juliet as usize].as_ref().map(|_| last);
        } else {
            // Its half of the connection is read and written where the attempt is, until Romeo knows.
            self.current[Juliet as usize] = None;
        }
    }

    /// Juliet's stream goes on while Romeo does not know yet.
    fn juliet_alone(&mut self) {
        let most = 1 + self.dice.below(200);
        let now = self.now;
        let (Some(attempt), Some(machine)) = (&mut self.attempt, &mut self.machines[Juliet as usize]) else {
            return;
        };
        if self.current[Juliet as usize].is_some() || attempt.fresh[Juliet as usize].is_some() {
            return;
        }
        if machine.suspension().is_some() || machine.outcome().is_some() {
            return;
        }
        let connection = &mut attempt.connection;
        put(machine, now, &mut connection.from[Juliet as usize]);
        let pipe = &mut connection.from[Romeo as usize];
        if pipe.bytes.is_empty() && pipe.cut {
            return machine.handle_end(lost());
        }
        let Some(socket) = &mut connection.sockets[Juliet as usize] else { return };
        let count = most.min(pipe.bytes.len());
        socket.unread.extend(pipe.bytes.drain(..count));
        get(machine, now, socket);
    }

    // ---- the schedule ------------------------------------------------------------------------------

    fn step(&mut self, is_chaos: bool) {
        let side = Side::BOTH[self.dice.below(2)];
        let goes_wrong = is_chaos && self.dice.below(self.peace) == 0;
        match self.dice.below(if goes_wrong { 64 } else { 52 }) {
            0..4 if is_chaos => self.send(side),
            4 if is_chaos => self.ping(side),
            0..8 => self.take(side),
            8..20 => self.write(side),
            20..34 => self.read(side),
            34..38 => self.pass_time(),
            38..41 => self.attempt(),
            41..48 => self.go_on_with_attempt(side),
            48..52 => self.juliet_alone(),
            52..55 => self.cut(),
            55..57 => self.cut_attempt(),
            57..59 => self.stall(side),
            59 => self.lose_stalled(side),
            60 if self.dice.below(4) == 0 => self.restart(),
            _ => {}
        }
    }

    /// Juliet's end of an attempt that Romeo has given up is lost.
    fn tidy(&mut self) {
        if self.attempt.is_none()
            && self.current[Juliet as usize].is_none()
            && let Some(machine) = self.machine(Juliet)
            && machine.outcome().is_none()
            && machine.suspension().is_none()
        {
            machine.handle_end(lost());
        }
    }

    fn is_quiet(&self) -> bool {
        let all_taken = Side::BOTH.iter().all(|side| {
            self.users[*side as usize].taken.len() == self.users[side.other() as usize].sent.len()
        });
        let all_acked = self.machines.iter().flatten().all(|machine| machine.unacked() == 0);
        (all_taken && all_acked && !self.is_suspended(Romeo) && !self.is_suspended(Juliet))
            || self.is_over(Romeo)
    }

    /// Romeo knows that Juliet has stream management; she may not know it of him.
    fn open(&mut self) {
        let now = self.now;
        let [Some(romeo), Some(juliet)] = &mut self.machines else { return };
        let Some(Connection { from: [there, back], sockets: [Some(at_romeo), Some(at_juliet)] }) =
            self.connections.first_mut()
        else {
            return;
        };
        put(romeo, now, there);
        at_juliet.unread.extend(there.bytes.drain(..));
        get(juliet, now, at_juliet);
        put(juliet, now, back);
        at_romeo.unread.extend(back.bytes.drain(..));
        get(romeo, now, at_romeo);
        assert!(romeo.is_open());
    }

    fn play(&mut self) {
        self.open();
        for _ in 0..STEPS {
            self.step(true);
            self.tidy();
        }
        for side in Side::BOTH {
            if self.stalled[side as usize] {
                self.stall(side);
            }
        }
        for _ in 0..LAST_STEPS {
            if self.is_quiet() {
                return;
            }
            self.step(false);
            self.tidy();
        }
        panic!("it never comes to an end: {}", self.describe());
    }

    fn describe(&self) -> String {
        let side = |side: Side| {
            let machine = self.machines[side as usize].as_ref();
            let what = machine
                .map(|machine| (machine.unacked(), machine.suspension().map(|it| it.cause.to_string())));
            let outcome = machine.map(Machine::outcome);
            let (sent, taken) = (self.users[side as usize].sent.len(), self.users[side as usize].taken.len());
            format!(
                "{side:?} has sent {sent} and taken {taken}; unacknowledged, suspended: {what:?}; end: {outcome:?}"
            )
        };
        format!("{}; {}", side(Romeo), side(Juliet))
    }

    fn judge(&mut self) {
        if self.is_over(Romeo) {
            return self.judge_report();
        }
        for side in Side::BOTH {
            let (taken, sent) = (&self.users[side as usize].taken, &self.users[side.other() as usize].sent);
            assert_eq!(taken, sent, "{side:?} has all");
            for mut reply in self.users[side as usize].pings.drain(..) {
                let reply = reply.try_recv().expect("somebody answers").expect("it is there");
                assert!(matches!(reply, Ok(IqResponse::Result(None))), "{reply:?}");
            }
        }
    }

    /// What Juliet's user took and what Romeo's user gets back is all that was sent.
    fn judge_report(&mut self) {
        let machine = self.machines[Romeo as usize].as_ref().unwrap();
        let Some(Err(error)) = machine.outcome() else { panic!("juliet is gone, and all is well") };
        let returned: Vec<String> = match &error {
            Error::Undelivered(undelivered) => undelivered.to_stanzas().into_iter().map(body).collect(),
            _ => Vec::new(),
        };
        let (sent, taken) = (&self.users[Romeo as usize].sent, &self.users[Juliet as usize].taken);
        let first = sent.len() - returned.len();
        assert_eq!(returned, sent[first..], "what comes back is the end of what was sent");
        assert!(first <= taken.len(), "{first} count as delivered, {} were taken", taken.len());
        for mut reply in self.users[Romeo as usize].pings.drain(..) {
            assert!(reply.try_recv().expect("nobody forgets it").is_some(), "a request is left hanging");
        }
    }
}

fn body(stanza: Stanza) -> String {
    match stanza {
        Stanza::Message(message) => message.bodies.into_values().next().unwrap(),
        other => panic!("not a message: {other:?}"),
    }
}

/// How often it was carried on.
fn run(seed: u64, is_told: bool) -> (usize, bool) {
    let mut world = World::new(seed, is_told);
    let result = catch_unwind(AssertUnwindSafe(|| {
        world.play();
        world.judge();
    }));
    if let Err(panic) = result {
        println!("to see it again: JINGLE_XMLSTREAM_SEED={seed}");
        resume_unwind(panic);
    }
    (world.resumptions, world.is_over(Romeo))
}

#[test]
fn every_stanza_arrives_exactly_once_or_comes_back() {
    if let Ok(seed) = std::env::var("JINGLE_XMLSTREAM_SEED") {
        run(seed.parse().unwrap(), true);
        return;
    }
    let (mut resumptions, mut reports) = (0, 0);
    for seed in 0..SEEDS {
        let (resumed, is_over) = run(seed, false);
        resumptions += resumed;
        reports += usize::from(is_over);
    }
    // The schedules are worth something.
    assert!(resumptions > SEEDS as usize, "{resumptions} resumptions");
    assert!(reports > SEEDS as usize / 40, "{reports} streams that could not be resumed");
}
