//! What there is beside the two ends' stanzas to each other: listeners, relays, the servers that know of them, and pipes in
//! place of sockets. Everything takes its time, which is virtual.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use super::{random::Random, *};
use crate::{
    session::DialToken,
    transport::s5b::{
        Dial,
        candidate::{Connection, SocketId},
    },
};

/// One trip of a packet.
const TRIP: Duration = Duration::from_millis(10);
const PROXY_PORT: u16 = 7777;

/// The addresses of the two listeners, if the ends have any.
pub(super) const ADDRESSES: [&str; 2] = ["10.0.0.1:5086", "10.0.1.1:5087"];

pub(super) struct Net {
    /// What each side's listener says when it is asked; `None`: it never says anything.
    pub(super) addresses: [Option<Vec<SocketAddr>>; 2],
    /// Whose server knows a relay.
    pub(super) has_proxy: [bool; 2],
    /// Servers and relays that don't answer.
    pub(super) mute: BTreeSet<String>,
    /// Relays answer each activation with an error.
    pub(super) refuses_activation: bool,
    /// Whom these can't connect to, by host.
    pub(super) blocked: BTreeSet<(Side, String)>,
    /// Every trip takes as long as chance will have it.
    pub(super) random: Option<Random>,
    /// What was asked of the servers and relays, and of the sockets.
    pub(super) log: Vec<String>,
    listening: [bool; 2],
    outstanding: [HashMap<DialToken, Dial>; 2],
    /// What each side holds: nobody has taken it, nor hung it up.
    held: [BTreeSet<u64>; 2],
    pipes: BTreeMap<u64, Pipe>,
    /// Both legs to a relay, by its host and the DST.ADDR.
    meetings: BTreeMap<(String, String), Vec<(Side, u64)>>,
    /// The ends whose other end was closed.
    closed: BTreeSet<u64>,
    events: BTreeMap<(Instant, u64), Event>,
    counter: u64,
}

/// One end of a connection: what arrived at it, and its other end, once there is one.
#[derive(Default)]
struct Pipe {
    arrived: VecDeque<u8>,
    other: Option<u64>,
    /// Nothing more arrives.
    ended: bool,
}

enum Event {
    Gathered(Side, SessionId),
    Arrives(Side, DialToken),
    Dialled(Side, DialToken, Result<u64, String>),
    Replies(Side, Element),
}

impl Net {
    pub(super) fn new() -> Self {
        let address = |side: Side| Some(vec![ADDRESSES[side as usize].parse().unwrap()]);
        Self {
            addresses: [address(Romeo), address(Juliet)],
            has_proxy: [false; 2],
            mute: BTreeSet::new(),
            refuses_activation: false,
            blocked: BTreeSet::new(),
            random: None,
            log: Vec::new(),
            listening: [false; 2],
            outstanding: Default::default(),
            held: Default::default(),
            pipes: BTreeMap::new(),
            meetings: BTreeMap::new(),
            closed: BTreeSet::new(),
            events: BTreeMap::new(),
            counter: 0,
        }
    }

    /// Nobody can connect to the other.
    pub(super) fn sever(&mut self) {
        for side in [Romeo, Juliet] {
            self.block(side, "10.0.0.1");
            self.block(side, "10.0.1.1");
        }
    }

    pub(super) fn block(&mut self, side: Side, host: &str) {
        self.blocked.insert((side, host.to_owned()));
    }

    fn after(&mut self, now: Instant, trips: u32, event: Event) {
        let random = self.random.as_mut().map_or(0, |random| random.below(600) as u64);
        self.counter += 1;
        let at = now + TRIP * trips + Duration::from_millis(random);
        self.events.insert((at, self.counter), event);
    }

    pub(super) fn next_event(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    fn connection(&mut self) -> u64 {
        self.counter += 1;
        let socket = self.counter * 2;
        self.pipes.insert(socket, Pipe::default());
        socket
    }

    fn join(&mut self, one: u64, other: u64) {
        for (one, other) in [(one, other), (other, one)] {
            self.pipes.entry(one).or_default().other = Some(other);
        }
    }

    /// Its other end learns of it.
    fn close(&mut self, socket: u64) {
        for legs in self.meetings.values_mut() {
            legs.retain(|(_, leg)| *leg != socket);
        }
        let other = self.pipes.get(&socket).and_then(|pipe| pipe.other);
        if let Some(other) = other
            && let Some(pipe) = self.pipes.get_mut(&other)
        {
            pipe.ended = true;
            self.closed.insert(other);
        }
    }

    pub(super) fn is_listening(&self, side: Side) -> bool {
        self.listening[side as usize]
    }

    /// Whether nothing is going on, and nobody holds a connection that nobody uses.
    pub(super) fn is_clean(&self) -> bool {
        self.outstanding.iter().all(HashMap::is_empty) && self.held.iter().all(BTreeSet::is_empty)
    }

    pub(super) fn held(&self, side: Side) -> usize {
        self.held[side as usize].len()
    }

    pub(super) fn dials(&self, side: Side) -> Vec<&str> {
        let mut hosts: Vec<_> =
            self.outstanding[side as usize].values().map(|dial| dial.host.as_str()).collect();
        hosts.sort_unstable();
        hosts
    }

    // ---- servers and relays --------------------------------------------------------------

    /// A request to somebody who is not the other end.
    fn asked(&mut self, now: Instant, side: Side, iq: &Element) {
        let (to, id) = (iq.attr("to").unwrap(), iq.attr("id").unwrap());
        let server = ["montague.lit", "capulet.lit"][side as usize];
        let payload = iq.children().next().unwrap();
        let kind = payload.ns().rsplit(['/', '#']).next().unwrap_or_default().to_owned();
        self.log.push(format!("{} asks {to}: {kind}", side.name()));
        if self.mute.contains(to) {
            return;
        }
        let query = |children: &str| Ok(format!("<query xmlns='{}'>{children}</query>", payload.ns()));
        let result = match kind.as_str() {
            "items" if self.has_proxy[side as usize] => query(&format!("<item jid='proxy.{server}'/>")),
            "items" => query(""),
            "info" => query("<identity category='proxy' type='bytestreams'/>"),
            "bytestreams" if payload.children().next().is_none() => {
                query(&format!("<streamhost jid='{to}' host='{to}' port='{PROXY_PORT}'/>"))
            }
            "bytestreams" => self.activate(to).then(String::new).ok_or(()),
            other => panic!("{} asks {to} for {other}", side.name()),
        };
        let (type_, payload) = match result {
            Ok(payload) => ("result", payload),
            Err(()) => ("error", error("cancel", "item-not-found", "")),
        };
        let reply = format!("<iq xmlns='jabber:client' type='{type_}' id='{id}' from='{to}'>{payload}</iq>");
        self.after(now, 2, Event::Replies(side, reply.parse().unwrap()));
    }

    fn activate(&mut self, host: &str) -> bool {
        let both = self.meetings.iter().find_map(|((at, _), legs)| match legs.as_slice() {
            [(one, first), (other, second)] if at == host && one != other => Some((*first, *second)),
            _ => None,
        });
        let Some((first, second)) = both.filter(|_| !self.refuses_activation) else { return false };
        self.join(first, second);
        true
    }
}

impl Pair {
    /// Both sides do SOCKS5 where they can.
    pub(super) fn s5b(adjust: impl Fn(Side, Config) -> Config) -> Self {
        Self::with(|side, config| adjust(side, config.transports(Transports::Auto)))
    }

    /// What an end wants done beside its stanzas to the other.
    pub(super) fn perform(&mut self, side: Side) {
        let now = self.now;
        for request in std::mem::take(&mut self.ends[side as usize].elsewhere) {
            self.net.asked(now, side, &request);
        }
        for effect in std::mem::take(&mut self.ends[side as usize].effects) {
            match effect {
                Effect::Gather(id) => {
                    self.net.listening[side as usize] = true;
                    self.net.log.push(format!("{} listens", side.name()));
                    if self.net.addresses[side as usize].is_some() {
                        self.net.after(now, 0, Event::Gathered(side, id));
                    }
                }
                Effect::Dial(token, dial, _) => self.dial(side, token, dial),
                Effect::Abandon(token) => {
                    let dial = self.net.outstanding[side as usize].remove(&token);
                    let host = dial.expect("it was being made").host;
                    self.net.log.push(format!("{} abandons {host}", side.name()));
                }
                Effect::HangUp(SocketId(socket)) => {
                    if self.net.held[side as usize].remove(&socket) {
                        self.net.close(socket);
                    }
                }
                Effect::StopListening => self.net.listening[side as usize] = false,
            }
        }
    }

    fn dial(&mut self, side: Side, token: DialToken, dial: Dial) {
        self.net.log.push(format!("{} dials {}", side.name(), dial.host));
        let (now, net) = (self.now, &mut self.net);
        if net.blocked.contains(&(side, dial.host.clone())) {
            net.after(now, 2, Event::Dialled(side, token, Err("refused".to_owned())));
        } else if dial.host.starts_with("proxy.") {
            let socket = net.connection();
            let meeting = (dial.host.clone(), dial.dst_addrs[0].clone());
            net.meetings.entry(meeting).or_default().push((side, socket));
            net.after(now, 2, Event::Dialled(side, token, Ok(socket)));
        } else {
            net.after(now, 1, Event::Arrives(side, token));
        }
        net.outstanding[side as usize].insert(token, dial);
    }

    /// The next thing that happens on the network.
    pub(super) fn happen(&mut self) {
        let ((at, _), event) = self.net.events.pop_first().expect("something is going on");
        self.now = self.now.max(at);
        let now = self.now;
        match event {
            Event::Gathered(side, id) => {
                let addresses = self.net.addresses[side as usize].clone().unwrap_or_default();
                self.end(side).sessions.handle_gathered(now, id, addresses);
            }
            Event::Arrives(side, token) => self.arrive(side, token),
            Event::Dialled(side, token, result) => self.dialled(side, token, result),
            Event::Replies(side, reply) => {
                assert!(self.end(side).receives(now, &reply).is_none());
            }
        }
        self.collect();
    }

    /// Somebody connects to the listener of the other end.
    fn arrive(&mut self, from: Side, token: DialToken) {
        let Some(dial) = self.net.outstanding[from as usize].get(&token).cloned() else { return };
        let to = from.other();
        let address = format!("{}:{}", dial.host, dial.port);
        let known = address == ADDRESSES[to as usize] && self.net.is_listening(to);
        let granted = dial.dst_addrs.iter().filter(|_| known).find_map(|asked| self.knock(to, asked));
        let result = granted.map(|theirs| {
            let socket = theirs - 1;
            self.net.join(socket, theirs);
            socket
        });
        let now = self.now;
        self.net.after(now, 1, Event::Dialled(from, token, result.ok_or("not granted".to_owned())));
    }

    /// A connection to an end's listener, which asks for this DST.ADDR: the socket at that end, if it is let in.
    pub(super) fn knock(&mut self, to: Side, dst_addr: &str) -> Option<u64> {
        let socket = self.net.connection() + 1;
        let local = ADDRESSES[to as usize].parse().unwrap();
        let remote = "203.0.113.9:40000".parse().unwrap();
        let (now, connection) = (self.now, Connection { socket: SocketId(socket), local, remote });
        // It is there before anybody decides about it.
        self.net.held[to as usize].insert(socket);
        let taken = self.end(to).sessions.handle_incoming(now, dst_addr, connection);
        self.collect();
        if !taken {
            self.net.held[to as usize].remove(&socket);
        }
        taken.then_some(socket)
    }

    fn dialled(&mut self, side: Side, token: DialToken, result: Result<u64, String>) {
        let abandoned = self.net.outstanding[side as usize].remove(&token).is_none();
        if abandoned {
            return result.into_iter().for_each(|socket| self.net.close(socket));
        }
        let (local, remote) = ("203.0.113.1:1".parse().unwrap(), "203.0.113.2:2".parse().unwrap());
        let connection = |socket| Connection { socket: SocketId(socket), local, remote };
        let now = self.now;
        if let Ok(socket) = result {
            self.net.held[side as usize].insert(socket);
        }
        if !self.end(side).sessions.handle_dialed(now, token, result.clone().map(connection))
            && let Ok(socket) = result
        {
            self.net.held[side as usize].remove(&socket);
            self.net.close(socket);
        }
    }

    /// As the driver does before it passes on what the peer says.
    pub(super) fn forget_closed(&mut self, side: Side, stanza: &Element) {
        let stanza = Stanza::try_from(stanza.clone()).unwrap();
        let waiting = self.end(side).sessions.waiting_sockets(&stanza);
        let gone = |SocketId(socket): &SocketId| {
            self.net.closed.contains(socket) && self.net.held[side as usize].contains(socket)
        };
        for SocketId(socket) in waiting.into_iter().filter(gone).collect::<Vec<_>>() {
            // Those with something to read are not closed yet, for all that can be seen.
            let nothing_to_read = self.net.pipes[&socket].arrived.is_empty();
            if nothing_to_read && self.end(side).sessions.handle_closed(SocketId(socket)) {
                self.net.held[side as usize].remove(&socket);
                self.net.close(socket);
            }
        }
    }

    /// Until that was sent, and not received.
    pub(super) fn until(&mut self, line: &str) {
        for _ in 0..1000 {
            if self.log.iter().any(|sent| sent == line) {
                return;
            }
            if !self.deliver(Romeo) && !self.deliver(Juliet) {
                self.happen();
            }
        }
        panic!("no {line}: {:#?}", self.log)
    }

    /// What takes no longer than a second happens, on the network alone.
    pub(super) fn happen_while_due(&mut self) {
        let until = self.now + Duration::from_secs(1);
        while self.net.next_event().is_some_and(|at| at <= until) {
            self.happen();
        }
    }

    /// Time passes, and everything happens that does in it.
    pub(super) fn live(&mut self, for_: Duration) {
        let until = self.now + for_;
        // Bounded, so that what never comes to rest fails.
        for _ in 0..100_000 {
            self.run();
            let timers = self.ends.iter().filter_map(|end| end.sessions.poll_timeout());
            let timer = timers.min().filter(|at| *at <= until);
            let event = self.net.next_event().filter(|at| *at <= until);
            match (event, timer) {
                (Some(event), timer) if timer.is_none_or(|timer| event <= timer) => self.happen(),
                (_, Some(timer)) => {
                    let by = timer.saturating_duration_since(self.now);
                    self.advance(by);
                }
                (_, None) => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("it does not come to rest");
    }

    /// Until everything that is under way has come to something, and not until anybody runs out of patience.
    pub(super) fn settle(&mut self) {
        self.live(Duration::from_millis(1500));
    }

    /// Both users let go of these; nothing is left of them.
    pub(super) fn leave(&mut self, romeos: SessionId, juliets: SessionId) {
        self.run();
        self.release(Romeo, romeos);
        self.release(Juliet, juliets);
        for side in [Romeo, Juliet] {
            while let Some(id) = self.end(side).incoming.pop_front() {
                self.release(side, id);
            }
        }
        // The search for relays, and a terminate that nobody acknowledges, outlive the sessions.
        self.live(Duration::from_secs(40));
        self.assert_clean();
    }

    pub(super) fn assert_clean(&self) {
        for end in &self.ends {
            let Sessions { table, requests, expected, dials, .. } = &end.sessions;
            assert!(end.is_clean(), "{}: {table:#?} {requests:#?} {expected:?} {dials:?}", end.jid);
        }
        assert!(self.net.is_clean(), "{:?} {:?}", self.net.held, self.net.outstanding);
    }
}

/// A bytestream as its user sees it: each direction goes through the session until that names a socket.
pub(super) struct User {
    pub(super) side: Side,
    pub(super) id: SessionId,
    socket: Option<u64>,
    pub(super) writes: Path,
    pub(super) reads: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Session,
    Socket,
}

/// What a read came to.
#[derive(Debug, PartialEq)]
pub(super) enum Got {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

impl User {
    pub(super) fn new(side: Side, id: SessionId) -> Self {
        Self { side, id, socket: None, writes: Path::Session, reads: Path::Session }
    }

    fn take(&mut self, pair: &mut Pair, SocketId(socket): SocketId) -> Result<(), Error> {
        if self.socket.is_none() {
            let held = pair.net.held[self.side as usize].remove(&socket);
            if !held {
                return Err(Error::Transport(TransportError::Closed));
            }
            self.socket = Some(socket);
            let carried = pair.end(self.side).sessions.take_carried(self.id);
            if let Some(other) = pair.net.pipes[&socket].other {
                pair.net.pipes.get_mut(&other).unwrap().arrived.extend(carried);
            }
        }
        assert_eq!(self.socket, Some(socket), "one connection for both directions");
        Ok(())
    }

    pub(super) fn write(&mut self, pair: &mut Pair, bytes: &[u8]) -> Result<usize, Error> {
        if self.writes == Path::Session {
            let (now, id) = (pair.now, self.id);
            let written = pair.end(self.side).sessions.write(now, id, bytes);
            pair.collect();
            match written? {
                Write::Taken(count) => return Ok(count),
                Write::Pending => return Ok(0),
                Write::Socket(socket) => {
                    self.take(pair, socket)?;
                    self.writes = Path::Socket;
                }
            }
        }
        let other = pair.net.pipes[&self.socket.unwrap()].other;
        let other = other.ok_or(Error::Transport(TransportError::Closed))?;
        if pair.net.closed.contains(&self.socket.unwrap()) {
            return Err(Error::Transport(TransportError::Closed));
        }
        pair.net.pipes.get_mut(&other).unwrap().arrived.extend(bytes);
        Ok(bytes.len())
    }

    pub(super) fn flush(&mut self, pair: &mut Pair) -> Result<(), Error> {
        if self.writes == Path::Session {
            let (now, id) = (pair.now, self.id);
            let flushed = pair.end(self.side).sessions.flush(now, id);
            pair.collect();
            if let Done::Socket(socket) = flushed? {
                self.take(pair, socket)?;
            }
        }
        Ok(())
    }

    pub(super) fn read(&mut self, pair: &mut Pair, at_most: usize) -> Result<Got, Error> {
        if self.reads == Path::Session {
            let (now, id) = (pair.now, self.id);
            let mut buffer = vec![0; at_most];
            let read = pair.end(self.side).sessions.read(now, id, &mut buffer);
            pair.collect();
            match read? {
                Read::Data(count) => {
                    buffer.truncate(count);
                    return Ok(Got::Bytes(buffer));
                }
                Read::Pending => return Ok(Got::Nothing),
                Read::End => return Ok(Got::End),
                Read::Socket(socket) => {
                    self.take(pair, socket)?;
                    self.reads = Path::Socket;
                }
            }
        }
        let pipe = pair.net.pipes.get_mut(&self.socket.unwrap()).unwrap();
        let count = at_most.min(pipe.arrived.len());
        match count {
            0 if pipe.ended => Ok(Got::End),
            0 => Ok(Got::Nothing),
            count => Ok(Got::Bytes(pipe.arrived.drain(..count).collect())),
        }
    }

    /// Reads until there is nothing, or the end.
    pub(super) fn drain(&mut self, pair: &mut Pair) -> (Vec<u8>, Got) {
        let mut all = Vec::new();
        loop {
            match self.read(pair, 4096).unwrap() {
                Got::Bytes(bytes) => all.extend(bytes),
                end => return (all, end),
            }
        }
    }

    pub(super) fn say(&mut self, pair: &mut Pair, bytes: &[u8]) {
        assert_eq!(self.write(pair, bytes).unwrap(), bytes.len());
        self.flush(pair).unwrap();
    }

    /// Whether it is done.
    pub(super) fn shutdown(&mut self, pair: &mut Pair) -> Result<bool, Error> {
        let (now, id) = (pair.now, self.id);
        let done = pair.end(self.side).sessions.shutdown(now, id);
        pair.collect();
        match done {
            Ok(Done::NotYet) => return Ok(false),
            Ok(Done::Yes) if self.socket.is_none() => return Ok(true),
            Err(error) if self.socket.is_none() => return Err(error),
            Ok(Done::Socket(socket)) => self.take(pair, socket)?,
            Ok(Done::Yes) | Err(_) => {}
        }
        self.writes = Path::Socket;
        if let Some(other) = pair.net.pipes[&self.socket.unwrap()].other {
            pair.net.pipes.get_mut(&other).unwrap().ended = true;
        }
        Ok(true)
    }
}
