//! A SOCKS5 proxy for bytestreams (XEP-0065), as Prosody 0.12.3's mod_proxy65 is one.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{hub::Hub, relay, socks5};

/// Connections at a time; further ones are closed at once.
const MAX_CONNECTIONS: usize = 256;

/// A pause after `accept` fails: file descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The controls of a server's SOCKS5 proxy; see [`MockServer::enable_proxy65`](crate::MockServer::enable_proxy65).
#[derive(Clone)]
pub struct Proxy65(Arc<Proxy>);

/// What the controls, the server and the connections share. Its task ends when the last of them is gone.
pub(crate) struct Proxy {
    hub: Weak<Hub>,
    addr: SocketAddr,
    stalls: AtomicBool,
    state: Mutex<State>,
    commands: mpsc::UnboundedSender<Command>,
}

struct State {
    /// What clients are told to connect to.
    advertised: (String, u16),
    activation_delay: Duration,
    transfers: HashMap<String, Transfer>,
}

/// Those that asked for the same address.
enum Transfer {
    /// Nobody reads what they send. The first is the target; the last of the others is the initiator.
    Waiting(Vec<TcpStream>),
    /// Two of them talk. Those that came too late wait for nothing.
    Active(Vec<TcpStream>),
}

/// What became of a request to activate.
pub(crate) enum Activation {
    Linked,
    OneIsConnected,
    NobodyIsConnected,
}

enum Command {
    Link { address: String, initiator: TcpStream, target: TcpStream },
    Listen(bool, oneshot::Sender<()>),
    Kill(oneshot::Sender<()>),
}

impl Proxy65 {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start(hub: &Arc<Hub>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let state = State {
            advertised: (addr.ip().to_string(), addr.port()),
            activation_delay: Duration::ZERO,
            transfers: HashMap::new(),
        };
        let proxy = Arc::new(Proxy {
            hub: Arc::downgrade(hub),
            addr,
            stalls: AtomicBool::new(false),
            state: Mutex::new(state),
            commands,
        });
        tokio::spawn(serve(Arc::downgrade(&proxy), addr, listener, inbox));
        hub.set_proxy(Some(proxy.clone()));
        Ok(Self(proxy))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Whether it stalls as Prosody does with its epoll backend: a burst of, say, 6000 bytes arrives as 4096 bytes until
    /// the same side sends more. Off at first. It counts for what is read from then on.
    pub fn stall(&self, stalls: bool) {
        self.0.stalls.store(stalls, Ordering::SeqCst);
    }

    /// Closes the listening socket, so that connections are refused; or opens it again. Connections stay as they are.
    pub async fn refuse_connects(&self, refuse: bool) {
        self.0.command(|done| Command::Listen(!refuse, done)).await;
    }

    /// Closes the listening socket and all connections. The server still tells clients of the proxy.
    pub async fn kill(&self) {
        self.0.state().transfers.clear();
        self.0.command(Command::Kill).await;
        // Those that asked for an address in between.
        self.0.state().transfers.clear();
    }

    /// The server knows of no proxy any more; connections stay as they are.
    pub fn remove(&self) {
        if let Some(hub) = self.0.hub() {
            hub.set_proxy(None);
        }
    }

    /// Links the two connections that asked for this address, without anybody's request; `false` if there are no two.
    #[must_use]
    pub fn activate(&self, address: &str) -> bool {
        matches!(self.0.activate(address.to_owned()), Activation::Linked)
    }

    /// So long an activation takes, with its answer.
    pub fn delay_activation(&self, delay: Duration) {
        self.0.state().activation_delay = delay;
    }

    /// What clients are told to connect to in place of [`addr`](Self::addr): a black hole, say.
    pub fn advertise(&self, host: impl Into<String>, port: u16) {
        self.0.state().advertised = (host.into(), port);
    }
}

impl Proxy {
    pub(crate) fn stalls(&self) -> bool {
        self.stalls.load(Ordering::SeqCst)
    }

    pub(crate) fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.upgrade()
    }

    pub(crate) fn advertised(&self) -> (String, u16) {
        self.state().advertised.clone()
    }

    pub(crate) fn activation_delay(&self) -> Duration {
        self.state().activation_delay
    }

    /// A client asked for this address, and is not read from now on.
    pub(crate) fn wait(&self, address: String, tcp: TcpStream) {
        let mut state = self.state();
        match state.transfers.entry(address).or_insert(Transfer::Waiting(Vec::new())) {
            Transfer::Waiting(all) | Transfer::Active(all) => all.push(tcp),
        }
    }

    /// Links the two that asked for this address, if they are not linked already.
    pub(crate) fn activate(&self, address: String) -> Activation {
        let mut state = self.state();
        let Some(transfer) = state.transfers.get_mut(&address) else { return Activation::NobodyIsConnected };
        let Transfer::Waiting(all) = transfer else { return Activation::Linked };
        if all.len() < 2 {
            return Activation::OneIsConnected;
        }
        let (target, initiator) = (all.remove(0), all.pop());
        *transfer = Transfer::Active(std::mem::take(all));
        if let Some(initiator) = initiator {
            self.commands.send(Command::Link { address, initiator, target }).ok();
        }
        Activation::Linked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, is_done) = oneshot::channel();
        self.commands.send(command(done)).ok();
        is_done.await.ok();
    }
}

/// Takes connections and commands until nobody can give commands any more; owns all that runs.
async fn serve(
    proxy: Weak<Proxy>,
    addr: SocketAddr,
    listener: TcpListener,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut listener = Some(listener);
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            command = commands.recv() => {
                let Some(command) = command else { return };
                match command {
                    Command::Link { address, initiator, target } => {
                        running.spawn(link(proxy.clone(), address, initiator, target));
                    }
                    Command::Listen(true, done) => {
                        listener = TcpListener::bind(addr).await.ok();
                        done.send(()).ok();
                    }
                    Command::Listen(false, done) => {
                        listener = None;
                        done.send(()).ok();
                    }
                    Command::Kill(done) => {
                        listener = None;
                        running.shutdown().await;
                        done.send(()).ok();
                    }
                }
                continue;
            }
            Some(_) = running.join_next() => continue,
            accepted = accept(listener.as_ref()) => accepted,
        };
        match accepted {
            Ok((tcp, _)) if running.len() < MAX_CONNECTIONS => {
                running.spawn(socks5::serve(proxy.clone(), tcp));
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn link(proxy: Weak<Proxy>, address: String, initiator: TcpStream, target: TcpStream) {
    relay::relay(initiator, target, || proxy.upgrade().is_some_and(|proxy| proxy.stalls())).await;
    if let Some(proxy) = proxy.upgrade() {
        proxy.state().transfers.remove(&address);
    }
}
