//! SOCKS5 bytestreams as a server in the middle sees, changes and holds back their negotiation.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use jingle_xmlstream::{E2eStream, Error, TransportInfo};
use mock_server::{InterceptId, MockServer, Route, Verdict};
use rxml::{Namespace, NcName};
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};
use xmpp_parsers::{jid::Jid, minidom::Element};

use super::{World, wire, within};

pub const JINGLE_S5B: &str = "urn:xmpp:jingle:transports:s5b:1";

/// A candidate as it goes over the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub host: String,
    pub port: u16,
    pub priority: u32,
    pub kind: String,
}

/// The candidates in a Jingle request.
pub fn candidates(stanza: &Element) -> Vec<Candidate> {
    let transport = wire::content_child(stanza, "transport", JINGLE_S5B);
    let read = |candidate: &Element| Candidate {
        host: candidate.attr("host").unwrap().to_owned(),
        port: candidate.attr("port").unwrap().parse().unwrap(),
        priority: candidate.attr("priority").unwrap().parse().unwrap(),
        kind: candidate.attr("type").unwrap().to_owned(),
    };
    transport.into_iter().flat_map(Element::children).filter(is_candidate).map(read).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as filter wants it")]
fn is_candidate(child: &&Element) -> bool {
    child.name() == "candidate"
}

pub fn set_attr(element: &mut Element, name: &str, value: impl ToString) {
    element.attrs_mut().insert(Namespace::NONE, NcName::try_from(name).unwrap(), value.to_string());
}

/// An intercept that changes candidates on their way.
pub fn alter_candidates(
    change: impl Fn(&Route, &mut Element) + Send + 'static,
) -> impl FnMut(&Route, &Element) -> Verdict + Send + 'static {
    move |route, stanza| {
        if candidates(stanza).is_empty() {
            return Verdict::Deliver;
        }
        let mut stanza = stanza.clone();
        let content = stanza.get_child_mut("jingle", wire::JINGLE).unwrap();
        let content = content.get_child_mut("content", wire::JINGLE).unwrap();
        let transport = content.get_child_mut("transport", JINGLE_S5B).unwrap();
        for candidate in transport.children_mut().filter(|child| child.name() == "candidate") {
            change(route, candidate);
        }
        Verdict::Replace(stanza)
    }
}

/// An intercept that leads all candidates here.
pub fn redirect(to: SocketAddr) -> impl FnMut(&Route, &Element) -> Verdict + Send + 'static {
    alter_candidates(move |_, candidate| {
        set_attr(candidate, "host", to.ip());
        set_attr(candidate, "port", to.port());
    })
}

/// An address where connections are refused. It was free just now, and a bot's listener would have to be given this very one.
pub async fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// An address where connections are taken and nothing is ever said.
pub struct BlackHole {
    pub addr: SocketAddr,
    swallowing: AbortHandle,
    /// How many came.
    pub swallowed: watch::Receiver<usize>,
}

impl BlackHole {
    pub async fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (count, swallowed) = watch::channel(0);
        let swallowing = tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.push(connection);
                count.send_replace(connections.len());
            }
        });
        Self { addr, swallowing: swallowing.abort_handle(), swallowed }
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.swallowing.abort();
    }
}

/// What the server holds back.
pub struct Held {
    server: MockServer,
    intercept: InterceptId,
    queue: Arc<Mutex<Queue>>,
    held: watch::Receiver<usize>,
}

enum Queue {
    Holding(Vec<(Jid, Element)>),
    Released,
}

/// How much is held back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    One,
    AllThatFollows,
}

impl World {
    /// Holds back the first Jingle request from this sender that has this action, or this element in its `<transport/>`.
    /// What the sender says after it overtakes it.
    pub fn hold(&self, sender: &str, what: &'static str) -> Held {
        self.hold_back(sender, what, Extent::One)
    }

    /// The same with all that the sender says after it, as a slow server does.
    pub fn hold_from(&self, sender: &str, what: &'static str) -> Held {
        self.hold_back(sender, what, Extent::AllThatFollows)
    }

    fn hold_back(&self, sender: &str, what: &'static str, extent: Extent) -> Held {
        let sender: Jid = sender.parse().unwrap();
        let (count, held) = watch::channel(0);
        let queue = Arc::new(Mutex::new(Queue::Holding(Vec::new())));
        let filled = queue.clone();
        let intercept = self.server.intercept(move |route, stanza| {
            let mut queue = filled.lock().unwrap();
            let Queue::Holding(waiting) = &mut *queue else { return Verdict::Deliver };
            let is_next = match (waiting.is_empty(), extent) {
                (true, _) => is_about(stanza, what),
                (false, extent) => extent == Extent::AllThatFollows,
            };
            if route.from != sender || !is_next {
                return Verdict::Deliver;
            }
            waiting.push((route.to.clone(), stanza.clone()));
            count.send_replace(waiting.len());
            Verdict::Drop
        });
        Held { server: self.server.clone(), intercept, queue, held }
    }

    /// The ladder as its two parties see it, whatever the test did on the way, without the session's end: that is
    /// either side's to tell, or both's.
    pub fn ladder_of_the_session(&self) -> Vec<String> {
        let seen = self.ladder_without_data().into_iter().filter(|line| !line.ends_with(" [dropped]"));
        let plain = seen.map(|line| line.replace(" [injected]", "").replace(" [altered]", ""));
        plain.filter(|line| !line.contains("session-terminate")).collect()
    }

    /// The candidates in the first Jingle request with this name, such as `iq set jingle session-initiate`.
    pub fn candidates_in(&self, name: &str) -> Vec<Candidate> {
        candidates(&self.recorded(name).element)
    }

    /// Waits until a session-terminate was answered.
    #[track_caller]
    pub fn wait_for_end(&self) -> impl Future<Output = ()> {
        let mut recorded = self.server.subscribe();
        let is_end = |line: &String| line.contains("(session-terminate");
        within(async move {
            while !self.ladder_without_data().iter().any(is_end) {
                // One that was missed is in the ladder all the same.
                let _ = recorded.recv().await;
            }
        })
    }

    /// How often somebody sent this, to whomever.
    pub fn sent(&self, name: &str) -> usize {
        self.server.record().iter().filter(|recorded| *recorded.name == *name).count()
    }
}

impl Held {
    /// Waits until it is there.
    #[track_caller]
    pub fn caught(&mut self) -> impl Future<Output = ()> {
        within(async { drop(self.held.wait_for(|held| *held > 0).await.unwrap()) })
    }

    /// Delivers it, in order.
    pub fn release(self) {
        {
            let mut queue = self.queue.lock().unwrap();
            let Queue::Holding(waiting) = std::mem::replace(&mut *queue, Queue::Released) else { return };
            for (to, stanza) in waiting {
                assert!(self.server.inject(&to, stanza));
            }
        }
        self.server.remove_intercept(self.intercept);
    }
}

/// Whether it is a Jingle request with this action, or with this element in its `<transport/>`.
fn is_about(stanza: &Element, what: &str) -> bool {
    let transport = wire::content_child(stanza, "transport", JINGLE_S5B);
    wire::action(stanza) == Some(what)
        || transport.is_some_and(|transport| transport.has_child(what, JINGLE_S5B))
}

/// Compares two ladders, ignoring the order of a side's requests among its answers to the other's: those are on their way
/// at the same time.
#[track_caller]
pub fn assert_flow(got: &[String], expected: &[&str]) {
    let is_answer = |line: &str| line.contains("> iq result") || line.contains("> iq error");
    for answers in [false, true] {
        let got: Vec<_> = got.iter().filter(|line| is_answer(line) == answers).cloned().collect();
        let expected: Vec<_> = expected.iter().copied().filter(|line| is_answer(line) == answers).collect();
        super::assert_ladder(&got, &expected);
    }
}

/// Both ends of a TCP connection: the own and the other.
#[track_caller]
pub fn ends(stream: &E2eStream) -> (SocketAddr, SocketAddr) {
    match stream.transport() {
        Some(TransportInfo::S5b { local, remote, .. }) => (local, remote),
        other => panic!("{other:?}"),
    }
}

/// Closes both sides in good order.
#[track_caller]
pub fn close(one: E2eStream, other: E2eStream) -> impl Future<Output = ()> {
    let closing = within(async move { tokio::join!(one.close(), other.close()) });
    async move {
        let (one, other) = closing.await;
        one.unwrap();
        other.unwrap();
    }
}

/// Whether this error says that no SOCKS5 connection came about.
pub fn is_unconnected(error: &Error) -> bool {
    error.to_string().contains("no SOCKS5 connection")
}

/// The address of the machine's own IPv6, unless it has none; says so then.
pub async fn ipv6_loopback() -> Option<IpAddr> {
    let address: IpAddr = "::1".parse().unwrap();
    match TcpListener::bind((address, 0)).await {
        Ok(_) => Some(address),
        Err(error) => {
            println!("SKIPPED: no IPv6 here: {error}");
            None
        }
    }
}

/// A time that is soon over, for what has to time out.
pub const SOON: Duration = Duration::from_millis(300);
