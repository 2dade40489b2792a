//! Negotiations in virtual time, one side at a time: what it is told, and what it wants done.

mod candidates;
mod dialling;
mod flows;
mod notifications;
mod random;

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Attempt, Dial, Pending, S5b, Setup,
    candidate::{Candidate, CandidateType, Connection, Parties, Reach, SocketId},
    transport,
};
use crate::{
    Candidates,
    session::Role,
    wire::s5b::{Notification, S5bTransport},
};

const SID: &str = "vj3hs98y";
const ROMEO: &str = "romeo@montague.lit/orchard";
const JULIET: &str = "juliet@capulet.lit/balcony";

/// Ours; the two of XEP-0260's examples, Romeo being the initiator.
fn setup(role: Role) -> Setup {
    let (own, peer) = match role {
        Role::Initiator => (ROMEO, JULIET),
        Role::Responder => (JULIET, ROMEO),
    };
    Setup {
        sid: SID.to_owned(),
        parties: Parties { own: own.parse().unwrap(), peer: peer.parse().unwrap(), role },
        policy: Candidates::All,
        reach: Reach::default(),
        connect_timeout: Duration::from_secs(5),
        proxy_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(60),
    }
}

/// A candidate whose cid is its host's, with a type by its name: `proxy…` or direct.
fn candidate(host: &str, priority: u32) -> Candidate {
    let kind = if host.starts_with("proxy") { CandidateType::Proxy } else { CandidateType::Direct };
    let jid = if kind == CandidateType::Proxy { host } else { "somebody@example.org/here" };
    Candidate {
        cid: host.to_owned(),
        host: host.to_owned(),
        port: 5086,
        jid: Some(jid.parse().unwrap()),
        priority,
        kind,
    }
}

fn candidates(list: &[(&str, u32)]) -> Vec<Candidate> {
    list.iter().map(|(host, priority)| candidate(host, *priority)).collect()
}

fn offer(list: &[(&str, u32)]) -> S5bTransport {
    transport(&setup(Role::Initiator), &candidates(list))
}

/// One side of a negotiation. What it wants is read as lines: `dial 192.0.2.1`, `say candidate-used 192.0.2.1`.
struct Side {
    s5b: S5b,
    now: Instant,
    started: Instant,
    dialled: HashMap<Attempt, Dial>,
}

impl Side {
    fn new(role: Role, ours: &[(&str, u32)], theirs: &[(&str, u32)]) -> Self {
        Self::with(setup(role), ours, &offer(theirs))
    }

    fn with(setup: Setup, ours: &[(&str, u32)], theirs: &S5bTransport) -> Self {
        let now = Instant::now();
        let s5b = S5b::new(now, setup, candidates(ours), theirs).unwrap();
        Self { s5b, now, started: now, dialled: HashMap::new() }
    }

    /// What it wants done, since it was asked last.
    fn wants(&mut self) -> Vec<String> {
        let mut wants = Vec::new();
        while let Some(pending) = self.s5b.outputs.pop_front() {
            wants.push(match pending {
                Pending::Info(info) => format!("say {}", said(&info)),
                Pending::Activate(proxy) => format!("activate {proxy}"),
                Pending::Dial(dial) => {
                    let line = format!("dial {}", dial.host);
                    self.dialled.insert(dial.attempt, dial);
                    line
                }
                Pending::Abandon(attempt) => format!("abandon {}", self.dialled[&attempt].host),
                Pending::HangUp(SocketId(socket)) => format!("hang up {socket}"),
                Pending::Open => "open".to_owned(),
                Pending::Failed(error) => format!("failed: {error}"),
            });
        }
        wants
    }

    /// The last attempt at a host, which must have been wanted before.
    fn attempt(&self, host: &str) -> Attempt {
        let at_host = |dial: &&Dial| dial.host == host;
        self.dialled.values().filter(at_host).map(|dial| dial.attempt).max_by_key(|it| it.0).unwrap()
    }

    fn connected(&mut self, host: &str, socket: u64) -> Vec<String> {
        self.s5b.handle_dialed(self.now, self.attempt(host), Ok(connection(socket, "198.51.100.7:40000")));
        self.wants()
    }

    fn refused(&mut self, host: &str) -> Vec<String> {
        self.s5b.handle_dialed(self.now, self.attempt(host), Err("connection refused".to_owned()));
        self.wants()
    }

    /// Somebody connects to our listener, at this address of ours.
    fn incoming(&mut self, socket: u64, local: &str) -> bool {
        self.s5b.handle_incoming(self.now, connection(socket, local))
    }

    /// The peer says this; it must be acknowledged.
    fn hears(&mut self, notification: Notification) -> Vec<String> {
        self.s5b.handle_info(self.now, &info(notification)).unwrap();
        self.wants()
    }

    /// The peer says this; the condition that it is answered with.
    fn objects(&mut self, notification: Notification) -> String {
        let error = self.s5b.handle_info(self.now, &info(notification)).unwrap_err();
        assert!(self.wants().is_empty());
        let text = error.texts.values().next().map(|text| format!(": {text}")).unwrap_or_default();
        format!("{:?}{text}", error.defined_condition)
    }

    /// Lets time pass until the next timer, but no more than this.
    fn wait(&mut self, at_most: Duration) -> Vec<String> {
        let end = self.now + at_most;
        self.now = self.s5b.poll_timeout().unwrap_or(end).min(end);
        self.s5b.handle_timeout(self.now);
        self.wants()
    }

    /// Runs all timers for as long as this; what is wanted, each with the milliseconds since the start.
    fn timeline(&mut self, length: Duration) -> Vec<(u128, String)> {
        let mut timeline: Vec<_> = self.wants().into_iter().map(|line| (self.elapsed(), line)).collect();
        let end = self.now + length;
        while self.now < end {
            let wants = self.wait(end - self.now);
            timeline.extend(wants.into_iter().map(|line| (self.elapsed(), line)));
        }
        timeline
    }

    fn elapsed(&self) -> u128 {
        (self.now - self.started).as_millis()
    }

    fn socket(&self) -> Option<(u64, CandidateType)> {
        self.s5b.connection().map(|(connection, kind)| (connection.socket.0, kind))
    }
}

fn connection(socket: u64, local: &str) -> Connection {
    let local: SocketAddr = local.parse().unwrap();
    Connection { socket: SocketId(socket), local, remote: "203.0.113.99:50000".parse().unwrap() }
}

fn info(notification: Notification) -> S5bTransport {
    S5bTransport { sid: SID.to_owned(), notification: Some(notification), ..S5bTransport::default() }
}

fn used(cid: &str) -> Notification {
    Notification::CandidateUsed(cid.to_owned())
}

fn activated(cid: &str) -> Notification {
    Notification::Activated(cid.to_owned())
}

fn said(info: &S5bTransport) -> String {
    match &info.notification {
        Some(Notification::CandidateUsed(cid)) => format!("candidate-used {cid}"),
        Some(Notification::CandidateError) => "candidate-error".to_owned(),
        Some(Notification::Activated(cid)) => format!("activated {cid}"),
        Some(Notification::ProxyError) => "proxy-error".to_owned(),
        None => {
            let cids: Vec<_> = info.candidates.iter().map(|candidate| candidate.cid.as_str()).collect();
            format!("candidates {}", cids.join(" "))
        }
    }
}
