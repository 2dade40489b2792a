//! The network between two bots: their SOCKS5 connections go through it, and it breaks as real ones do.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use mock_server::{InterceptId, MockServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use super::{
    World,
    s5b::{alter_candidates, set_attr},
};

/// Every connection to a candidate that is offered from now on.
pub struct Wires {
    server: MockServer,
    intercept: InterceptId,
    network: Arc<Network>,
}

struct Network {
    state: Mutex<State>,
    /// How many bytes have passed, in all connections together.
    passed: AtomicU64,
    /// All connections are reset when so many have.
    reset_at: AtomicU64,
    /// How many connections there were that carried something.
    carried: watch::Sender<usize>,
}

struct State {
    takes: Takes,
    connections: Vec<watch::Sender<Fate>>,
}

/// What becomes of new connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    All,
    None,
}

/// What becomes of what is sent on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// Nothing passes, and nobody is told.
    Vanishes,
    Reset,
}

impl World {
    /// Leads all SOCKS5 connections through a network that the test can break.
    pub fn wires(&self) -> Wires {
        let network = Arc::new(Network {
            state: Mutex::new(State { takes: Takes::All, connections: Vec::new() }),
            passed: AtomicU64::new(0),
            reset_at: AtomicU64::new(u64::MAX),
            carried: watch::Sender::new(0),
        });
        let laid = network.clone();
        let intercept = self.server.intercept(alter_candidates(move |_, candidate| {
            let host = candidate.attr("host").unwrap().parse().unwrap();
            let meant = SocketAddr::new(host, candidate.attr("port").unwrap().parse().unwrap());
            let wire = lay(laid.clone(), meant);
            set_attr(candidate, "host", wire.ip());
            set_attr(candidate, "port", wire.port());
        }));
        Wires { server: self.server.clone(), intercept, network }
    }
}

impl Wires {
    /// Resets all connections (RST), as a router that lost its state does.
    pub fn reset(&self) {
        self.network.set_all(Fate::Reset);
    }

    /// Resets all connections once so many more bytes have passed.
    pub fn reset_after(&self, bytes: u64) {
        let passed = self.network.passed.load(Ordering::SeqCst);
        self.network.reset_at.store(passed + bytes, Ordering::SeqCst);
    }

    /// From now on nothing passes on the connections that there are, and they stay open. New ones work.
    pub fn unplug(&self) {
        self.network.set_all(Fate::Vanishes);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.network.state.lock().unwrap().takes = if refuse { Takes::None } else { Takes::All };
    }

    /// How many connections have carried something so far.
    pub fn carried(&self) -> usize {
        *self.network.carried.borrow()
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.server.remove_intercept(self.intercept);
    }
}

impl Network {
    fn set_all(&self, fate: Fate) {
        for connection in self.state.lock().unwrap().connections.drain(..) {
            connection.send_replace(fate);
        }
    }

    /// The fate of another connection; `None` if it is not taken.
    fn connect(&self) -> Option<watch::Receiver<Fate>> {
        let mut state = self.state.lock().unwrap();
        if state.takes == Takes::None {
            return None;
        }
        let (sender, fate) = watch::channel(Fate::Passes);
        state.connections.push(sender);
        Some(fate)
    }

    fn count(&self, bytes: usize) {
        let passed = self.passed.fetch_add(bytes as u64, Ordering::SeqCst) + bytes as u64;
        if passed >= self.reset_at.load(Ordering::SeqCst) {
            self.reset_at.store(u64::MAX, Ordering::SeqCst);
            self.set_all(Fate::Reset);
        }
    }
}

/// An address that leads to another one.
fn lay(network: Arc<Network>, meant: SocketAddr) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            if let Some(fate) = network.connect()
                && let Ok(to) = TcpStream::connect(meant).await
            {
                tokio::spawn(carry(network.clone(), from, to, fate));
            }
        }
    });
    addr
}

async fn carry(
    network: Arc<Network>,
    mut one: TcpStream,
    mut other: TcpStream,
    mut fate: watch::Receiver<Fate>,
) {
    for tcp in [&one, &other] {
        tcp.set_nodelay(true).unwrap();
    }
    network.carried.send_modify(|carried| *carried += 1);
    let (mut ones, mut to_one) = one.split();
    let (mut others, mut to_other) = other.split();
    let (mut there, mut back) = (fate.clone(), fate.clone());
    let both = async {
        tokio::join!(
            pass(&network, &mut ones, &mut to_other, &mut there),
            pass(&network, &mut others, &mut to_one, &mut back),
        );
    };
    tokio::select! {
        Ok(_) = fate.wait_for(|fate| *fate == Fate::Reset) => {
            for tcp in [&one, &other] {
                tcp.set_zero_linger().unwrap();
            }
        }
        () = both => {}
    }
}

/// Passes bytes on to their end, which it passes on, too.
async fn pass(
    network: &Network,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    fate: &mut watch::Receiver<Fate>,
) {
    let passing: io::Result<()> = async {
        let mut buffer = [0; 4096];
        loop {
            let count = from.read(&mut buffer).await?;
            if fate.wait_for(|fate| *fate == Fate::Passes).await.is_err() {
                // Nobody changes it any more: what vanishes does so for ever.
                return std::future::pending().await;
            }
            if count == 0 {
                return to.shutdown().await;
            }
            to.write_all(buffer.get(..count).unwrap()).await?;
            network.count(count);
        }
    }
    .await;
    // The other direction finds out by itself.
    drop(passing);
}
