//! The responder's streams, which their initiators may carry on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jid::BareJid;
use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    sync::Notify,
    task::{Id, JoinError, JoinSet},
};
use tracing::Instrument as _;

use super::Whereabouts;
use crate::{
    Candidates, Error,
    driver::SessionHandle,
    endpoint::{
        Endpoint,
        carried::Carried,
        secure::{self, Opened, Purpose},
    },
    session::Role,
    stream::{self, Registry, Resumable, Revival, StreamOptions},
};

/// Sessions that are made for streams at the same time; others wait for their turn. Twice what one account may have by
/// default ([`Limits::sessions_per_peer`](crate::Limits::sessions_per_peer)), as each runs a TLS handshake for somebody who
/// has proved nothing yet.
const AT_ONCE: usize = 16;

/// How many of them may be of the same account: one that begins handshakes and does not finish them must not keep the others'
/// streams waiting until it is too late for them.
const AT_ONCE_EACH: usize = 4;

/// Where one stream is registered.
pub(crate) struct Responder {
    endpoint: Endpoint,
    whereabouts: Arc<Whereabouts>,
}

impl Responder {
    pub(in super::super) fn new(endpoint: &Endpoint, whereabouts: &Arc<Whereabouts>) -> Self {
        Self { endpoint: endpoint.clone(), whereabouts: Arc::clone(whereabouts) }
    }
}

impl Registry for Responder {
    fn add(&self, id: &str, stream: Resumable) {
        let entry = Entry { stream, whereabouts: Arc::clone(&self.whereabouts) };
        let Added { replaced, acceptor } = self.endpoint.resumables.add(id, entry);
        if replaced.is_none() {
            let peer = self.whereabouts.peer().to_bare();
            self.endpoint.handle.with(|sessions, _| sessions.expect_resumption(&peer));
        }
        if acceptor == Acceptor::Idle {
            tokio::spawn(accept_all(self.endpoint.clone()));
        }
    }

    fn remove(&self, id: &str) {
        if let Some(entry) = self.endpoint.resumables.remove(id) {
            let peer = entry.whereabouts.peer().to_bare();
            self.endpoint.handle.with(|sessions, _| sessions.forget_resumption(&peer));
        }
    }
}

/// All streams of an endpoint that may be carried on.
#[derive(Debug, Default)]
pub(crate) struct Resumables {
    state: Mutex<State>,
    /// Rung when there is none any more.
    empty: Notify,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<String, Entry>,
    acceptor: Acceptor,
}

#[derive(Clone)]
struct Entry {
    stream: Resumable,
    whereabouts: Arc<Whereabouts>,
}

/// Whether a task takes the sessions that are to carry on streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Acceptor {
    #[default]
    Idle,
    Running,
}

/// What there was before a stream was added.
struct Added {
    replaced: Option<Entry>,
    acceptor: Acceptor,
}

impl Resumables {
    /// Whoever is told that there is no acceptor has to start one.
    fn add(&self, id: &str, entry: Entry) -> Added {
        let mut state = self.lock();
        let replaced = state.streams.insert(id.to_owned(), entry);
        let acceptor = std::mem::replace(&mut state.acceptor, Acceptor::Running);
        Added { replaced, acceptor }
    }

    fn remove(&self, id: &str) -> Option<Entry> {
        let mut state = self.lock();
        let removed = state.streams.remove(id);
        if state.streams.is_empty() {
            self.empty.notify_one();
        }
        removed
    }

    fn find(&self, id: &str, peer: &BareJid) -> Option<Entry> {
        let entry = self.lock().streams.get(id).cloned()?;
        Some(entry).filter(|entry| entry.whereabouts.peer().to_bare() == *peer)
    }

    /// What a peer is shown that is with us on one of several streams: the least of what it is shown for them.
    fn candidates_for(&self, peer: &BareJid, usual: Candidates) -> Option<Candidates> {
        let entries: Vec<_> = self.lock().streams.values().cloned().collect();
        let shown = entries.iter().filter(|entry| entry.whereabouts.peer().to_bare() == *peer);
        shown.map(|entry| entry.whereabouts.candidates().unwrap_or(usual)).min_by_key(openness)
    }

    /// Ends the acceptor, unless there is a stream again.
    fn stop_if_empty(&self) -> Acceptor {
        let mut state = self.lock();
        if state.streams.is_empty() {
            state.acceptor = Acceptor::Idle;
        }
        state.acceptor
    }

    /// Ends the acceptor, because there will be no sessions any more.
    fn stop(&self) {
        self.lock().acceptor = Acceptor::Idle;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much candidates show of us.
fn openness(candidates: &Candidates) -> u8 {
    match candidates {
        Candidates::None => 0,
        Candidates::ProxyOnly => 1,
        Candidates::AfterAccept => 2,
        Candidates::All => 3,
    }
}

/// Takes the sessions that are to carry on streams, as long as there are such streams. Those keep the endpoint up by
/// themselves.
async fn accept_all(endpoint: Endpoint) {
    let mut under_way = UnderWay::default();
    loop {
        let UnderWay { tasks, accounts } = &mut under_way;
        let has_turn = |account: &BareJid| has_turn(accounts, account);
        tokio::select! {
            () = endpoint.resumables.empty.notified() => {
                if endpoint.resumables.stop_if_empty() == Acceptor::Idle {
                    endpoint.handle.refuse_resumptions();
                    return;
                }
            }
            Some(ended) = tasks.join_next_with_id() => under_way.forget(ended),
            session = endpoint.handle.resumption(has_turn), if tasks.len() < AT_ONCE => match session {
                Some(session) => {
                    let peer = session.with(|sessions, id, _| sessions.peer(id).cloned());
                    if let Some(peer) = peer {
                        let span = session.span();
                        let work = accept(endpoint.clone(), session).instrument(span);
                        under_way.begin(peer.to_bare(), work);
                    }
                }
                None => return endpoint.resumables.stop(),
            },
        }
    }
}

/// The sessions that are being made.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    accounts: HashMap<Id, BareJid>,
}

/// Whether another one may be of this account.
fn has_turn(accounts: &HashMap<Id, BareJid>, account: &BareJid) -> bool {
    accounts.values().filter(|other| *other == account).count() < AT_ONCE_EACH
}

impl UnderWay {
    fn begin(&mut self, account: BareJid, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.accounts.insert(task.id(), account);
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.accounts.remove(&id);
    }
}

async fn accept(endpoint: Endpoint, session: SessionHandle) {
    if let Err(error) = carry_on(endpoint, session).await {
        tracing::debug!(%error, "no stream was carried on by this session");
    }
}

/// Nobody is asked: whether the peer is who it was is for its certificate to show.
async fn carry_on(endpoint: Endpoint, session: SessionHandle) -> Result<(), Error> {
    let known = session
        .with(|sessions, id, _| Some((sessions.peer(id)?.to_bare(), sessions.config().s5b.candidates)));
    let Some((peer, usual)) = known else { return Ok(()) };
    let candidates = endpoint.resumables.candidates_for(&peer, usual);
    session.with(|sessions, id, now| {
        if let Some(candidates) = candidates {
            sessions.show_candidates(id, candidates);
        }
        sessions.accept(now, id)
    })?;
    session.opened().await?;
    secure::open(Arc::new(session), Continuation { resumables: Arc::clone(&endpoint.resumables), peer }).await
}

/// A stream of the peer's that goes on.
struct Continuation {
    resumables: Arc<Resumables>,
    peer: BareJid,
}

impl Purpose for Continuation {
    type Outcome = ();

    const PLAINTEXT: bool = false;

    // The stream that it is for has its own.
    fn revival(&self, _opened: &Opened) -> (Revival, Option<Arc<Whereabouts>>) {
        (Revival::None, None)
    }

    async fn open<IO>(
        self,
        _role: Role,
        io: IO,
        options: StreamOptions,
        carried: &Carried,
    ) -> Result<(), Error>
    where
        IO: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
    {
        let found = Mutex::new(None);
        let find = |id: &str| {
            let Entry { stream, whereabouts } = self.resumables.find(id, &self.peer)?;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(whereabouts);
            Some(stream)
        };
        stream::await_resume(io, options, find).await?;
        if let Some(whereabouts) = found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            carried.carries(&whereabouts);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("whereabouts", &self.whereabouts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn who_begins_and_does_not_finish_keeps_nobody_else_waiting() {
        let account = |text: &str| text.parse::<BareJid>().unwrap();
        let (slow, other) = (account("tybalt@capulet.lit"), account("romeo@montague.lit"));
        let mut under_way = UnderWay::default();
        for _ in 0..AT_ONCE_EACH {
            assert!(has_turn(&under_way.accounts, &slow));
            under_way.begin(slow.clone(), pending());
        }
        assert!(!has_turn(&under_way.accounts, &slow));
        assert!(has_turn(&under_way.accounts, &other));
        // One that ends makes room, however it ends.
        under_way.begin(other.clone(), async {});
        let ended = under_way.tasks.join_next_with_id().await.unwrap();
        under_way.forget(ended);
        under_way.tasks.abort_all();
        while let Some(ended) = under_way.tasks.join_next_with_id().await {
            under_way.forget(ended);
        }
        assert!(under_way.accounts.is_empty() && has_turn(&under_way.accounts, &slow));
    }
}
