//! What the sessions want done with sockets: listening, dialling, hanging up.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use socket2::SockRef;
use tokio::{net::TcpStream, task::AbortHandle};
use tracing::Instrument as _;
use xmpp_parsers::stanza::Stanza;

use super::{Shared, State};
use crate::{
    S5bConfig,
    session::{DialToken, Effect},
    transport::{
        s5b::{
            Dial,
            candidate::{Connection, SocketId},
        },
        s5b_io::{Gate, Listener, dial},
    },
};

/// The listener, and the attempts to connect. Dropping it ends them all.
#[derive(Debug)]
pub(super) struct Sockets {
    config: S5bConfig,
    listening: Option<Listening>,
    dials: HashMap<DialToken, Task>,
}

#[derive(Debug)]
struct Listening {
    listener: Arc<Listener>,
    _task: Task,
}

/// A task that ends with this.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The connections that wait for whoever reads and writes them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    connections: HashMap<SocketId, TcpStream>,
    next: u64,
}

impl Waiting {
    fn add(&mut self, stream: TcpStream) -> io::Result<Connection> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let socket = SocketId(self.next);
        self.next += 1;
        self.connections.insert(socket, stream);
        Ok(Connection { socket, local, remote })
    }

    fn is_closed(&self, socket: SocketId) -> bool {
        self.connections.get(&socket).is_some_and(is_closed)
    }

    pub(super) fn take(&mut self, socket: SocketId) -> Option<TcpStream> {
        self.connections.remove(&socket)
    }
}

/// Whether there is nothing to come from a connection. It is not read from.
fn is_closed(stream: &TcpStream) -> bool {
    matches!(SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]), Ok(0))
}

impl Sockets {
    pub(super) fn new(config: S5bConfig) -> Self {
        Self { config, listening: None, dials: HashMap::new() }
    }

    /// Does all that the sessions want done, and what they want done then. On a runtime.
    pub(super) fn perform_all(&mut self, shared: &Arc<Shared>) {
        loop {
            let effects = shared.take_effects();
            if effects.is_empty() {
                return;
            }
            effects.into_iter().for_each(|effect| self.perform(shared, effect));
        }
    }

    fn perform(&mut self, shared: &Arc<Shared>, effect: Effect) {
        match effect {
            Effect::Gather(id) => {
                let addresses = self.addresses(shared);
                shared.act_silently(|state, now| state.sessions.handle_gathered(now, id, addresses));
            }
            Effect::Dial(token, dial, span) => self.dial(shared, token, dial, span),
            Effect::Abandon(token) => drop(self.dials.remove(&token)),
            // Was done under the lock.
            Effect::HangUp(_) => {}
            Effect::StopListening => self.listening = None,
        }
    }

    /// Where our listener can be reached; it is opened if need be.
    fn addresses(&mut self, shared: &Arc<Shared>) -> Vec<SocketAddr> {
        if self.listening.is_none() {
            match Listener::bind(&self.config) {
                Ok(listener) => self.listening = Some(Listening::begin(listener, shared)),
                Err(error) => tracing::warn!(%error, "no address of our own is offered"),
            }
        }
        self.listening.as_ref().map(|listening| listening.listener.addresses()).unwrap_or_default()
    }

    fn dial(&mut self, shared: &Arc<Shared>, token: DialToken, wanted: Dial, span: tracing::Span) {
        // Those that have ended, whenever there would have to be more room.
        if self.dials.len() == self.dials.capacity() {
            self.dials.retain(|_, task| !task.0.is_finished());
        }
        let shared = Arc::clone(shared);
        let attempt = async move {
            let result = dial(&wanted).await;
            if let Err(error) = &result {
                tracing::debug!(
                    host = wanted.host,
                    port = wanted.port,
                    error,
                    "a candidate can't be reached"
                );
            }
            shared.act(|state, now| state.dialed(now, token, result));
        };
        let task = tokio::spawn(attempt.instrument(span));
        self.dials.insert(token, Task(task.abort_handle()));
    }
}

impl Listening {
    fn begin(listener: Listener, shared: &Arc<Shared>) -> Self {
        let listener = Arc::new(listener);
        let gate = Arc::new(Door(Arc::downgrade(shared)));
        let serving = Arc::clone(&listener);
        let task = tokio::spawn(async move { serving.serve(gate).await });
        Self { listener, _task: Task(task.abort_handle()) }
    }
}

impl Shared {
    fn take_effects(&self) -> Vec<Effect> {
        std::mem::take(&mut self.lock().effects)
    }

    pub(super) fn take_socket(&self, socket: SocketId) -> Option<TcpStream> {
        self.lock().sockets.take(socket)
    }
}

impl State {
    /// A peer says which of the connections that it made it uses, and by then has closed the others.
    pub(super) fn forget_closed(&mut self, stanza: &Stanza) {
        for socket in self.sessions.waiting_sockets(stanza) {
            if self.sockets.is_closed(socket) && self.sessions.handle_closed(socket) {
                self.sockets.take(socket);
            }
        }
    }

    fn dialed(&mut self, now: std::time::Instant, token: DialToken, result: Result<TcpStream, String>) {
        let result = result.and_then(|stream| self.sockets.add(stream).map_err(|error| error.to_string()));
        let socket = result.as_ref().ok().map(|connection| connection.socket);
        if !self.sessions.handle_dialed(now, token, result)
            && let Some(socket) = socket
        {
            self.sockets.take(socket);
        }
    }
}

/// Lets those pass the listener whom a session expects.
struct Door(Weak<Shared>);

impl Gate for Door {
    fn admit(&self, dst_addr: &str, connection: TcpStream, grant: &[u8]) -> Result<(), TcpStream> {
        let Some(shared) = self.0.upgrade() else { return Err(connection) };
        shared.act(|state, now| {
            let Ok(connection) = state.sockets.add(connection) else { return Ok(()) };
            let socket = connection.socket;
            if !state.sessions.handle_incoming(now, dst_addr, connection) {
                return state.sockets.take(socket).map_or(Ok(()), Err);
            }
            // Before anybody else can write to it.
            if let Some(stream) = state.sockets.connections.get(&socket) {
                // One that takes no 47 bytes is broken, which whoever uses it finds out.
                let _ = stream.try_write(grant);
            }
            Ok(())
        })
    }
}
