//! Who is online, and the way into each client's queue. One short lock keeps deliveries and their record in one order.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, broadcast, mpsc, watch},
    time::Instant,
};
use xmpp_parsers::{
    jid::{BareJid, FullJid, Jid},
    minidom::Element,
    roster::{Item, Subscription},
    sasl::Mechanism,
};

use crate::{
    ending::Ending,
    impostor::{self, Impostors},
    intercept::Intercepts,
    link::Links,
    management::Resumption,
    proxy65::Proxy,
    record::{Outcome, Record, Recorded},
    stanza,
    tls::ServerTls,
};

/// Bytes queued for a client that does not read; beyond, its connection is cut. Queues are otherwise unbounded, so that
/// two clients that flood each other never wait for each other.
pub(crate) const MAX_QUEUED: usize = 64 * 1024 * 1024;

/// Recorded stanzas a slow `subscribe`r may lag behind before it loses the oldest.
const WATCH_QUEUE: usize = 4096;

/// What is the same for all connections.
pub(crate) struct Settings {
    pub(crate) max_stanza: usize,
    pub(crate) mechanisms: Vec<Mechanism>,
    pub(crate) tls: Option<ServerTls>,
    /// How long a client that was cut may resume its session (XEP-0198); `None` for no stream management.
    pub(crate) resumption: Option<Duration>,
}

/// The state that all connections share.
pub(crate) struct Hub {
    pub(crate) settings: Settings,
    pub(crate) links: Links,
    pub(crate) intercepts: Intercepts,
    pub(crate) impostors: Impostors,
    pub(crate) watchers: broadcast::Sender<Recorded>,
    /// Says that somebody came or went.
    pub(crate) changed: watch::Sender<()>,
    refusing: AtomicBool,
    proxy: Mutex<Option<Arc<Proxy>>>,
    state: Mutex<State>,
}

struct State {
    next_id: u64,
    sessions: HashMap<FullJid, Session>,
    resources: HashMap<BareJid, BTreeSet<FullJid>>,
    /// The contacts of each account that has some.
    rosters: HashMap<BareJid, BTreeMap<BareJid, Item>>,
    record: Record,
}

struct Session {
    id: u64,
    outbox: Outbox,
    cut: Arc<Notify>,
    presence: Presence,
    resumptions: mpsc::UnboundedSender<Resumption>,
    /// The name under which it can be resumed.
    resumable: Option<String>,
}

/// What others were told of a session.
#[derive(Clone, Debug)]
pub(crate) enum Presence {
    /// Nothing, or that it is gone.
    Silent,
    /// Some got directed presence.
    Directed,
    /// All got this.
    Available(Element),
}

/// Names one bound session; a later one with the same full JID has another id.
#[derive(Clone, Debug)]
pub(crate) struct SessionKey {
    pub(crate) jid: FullJid,
    id: u64,
}

/// What a connection gets when it is bound.
pub(crate) struct Bound {
    pub(crate) key: SessionKey,
    pub(crate) inbox: Inbox,
    pub(crate) cut: Arc<Notify>,
    /// Other connections of the same client. It ends when the session is forgotten.
    pub(crate) resumptions: mpsc::UnboundedReceiver<Resumption>,
    /// The session that had this full JID before, if any; it was told so.
    pub(crate) evicted: Option<Presence>,
}

/// The reading end of a client's queue.
pub(crate) struct Inbox {
    queue: mpsc::UnboundedReceiver<Outgoing>,
    /// What comes before the queue.
    kept: VecDeque<Outgoing>,
    queued: Arc<AtomicUsize>,
}

impl Inbox {
    pub(crate) async fn next(&mut self) -> Option<Outgoing> {
        let next = match self.kept.pop_front() {
            Some(kept) => Some(kept),
            None => self.queue.recv().await,
        };
        if let Some(Outgoing::Bytes { bytes, .. }) = &next {
            self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.queue.is_empty()
    }

    /// Forgets answers on a connection that was lost: another one begins with what they say.
    pub(crate) fn forget_answers(&mut self) {
        while let Ok(outgoing) = self.queue.try_recv() {
            self.kept.push_back(outgoing);
        }
        self.kept.retain(|outgoing| !matches!(outgoing, Outgoing::Nonza(_)));
    }
}

/// What is to be written to a client.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Bytes {
        since: Instant,
        bytes: Vec<u8>,
    },
    /// What is not a stanza, and is not counted (XEP-0198).
    Nonza(Vec<u8>),
    /// The same; what is behind it is counted.
    Enabled(Vec<u8>),
    /// The client has handled so many stanzas.
    Acked(u32),
    End(Ending),
}

#[derive(Clone)]
struct Outbox {
    queue: mpsc::UnboundedSender<Outgoing>,
    queued: Arc<AtomicUsize>,
}

impl Outbox {
    /// `false` if the queue is full. A closed queue takes everything: its session is about to be unbound.
    fn push(&self, bytes: Vec<u8>) -> bool {
        let length = bytes.len();
        if self.queued.fetch_add(length, Ordering::Relaxed) + length > MAX_QUEUED {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            return false;
        }
        self.queue.send(Outgoing::Bytes { since: Instant::now(), bytes }).ok();
        true
    }
}

impl Hub {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            links: Links::new(),
            intercepts: Intercepts::default(),
            impostors: Impostors::default(),
            watchers: broadcast::Sender::new(WATCH_QUEUE),
            changed: watch::Sender::new(()),
            refusing: AtomicBool::new(false),
            proxy: Mutex::new(None),
            state: Mutex::new(State {
                next_id: 0,
                sessions: HashMap::new(),
                resources: HashMap::new(),
                rosters: HashMap::new(),
                record: Record::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refuse(&self, refuse: bool) {
        self.refusing.store(refuse, Ordering::SeqCst);
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::SeqCst)
    }

    /// The SOCKS5 proxy that clients are told of.
    pub(crate) fn proxy(&self) -> Option<Arc<Proxy>> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_proxy(&self, proxy: Option<Arc<Proxy>>) {
        *self.proxy.lock().unwrap_or_else(PoisonError::into_inner) = proxy;
    }

    /// Takes a session online; `first` is written before anything that is routed to it. A session that had the same full
    /// JID gets a stream error (RFC 6120, 7.7.2.2).
    pub(crate) fn bind(&self, jid: FullJid, first: Vec<u8>) -> Bound {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox { queue: sender, queued: queued.clone() };
        outbox.push(first);
        let cut = Arc::new(Notify::new());
        let (resumptions, resumed) = mpsc::unbounded_channel();

        let mut state = self.state();
        let evicted = state.remove(&jid).map(|old| {
            let conflict = Ending::error("conflict", "another client took this resource");
            old.outbox.queue.send(Outgoing::End(conflict)).ok();
            old.presence
        });
        let id = state.next_id;
        state.next_id += 1;
        state.resources.entry(jid.to_bare()).or_default().insert(jid.clone());
        let session = Session {
            id,
            outbox,
            cut: cut.clone(),
            presence: Presence::Silent,
            resumptions,
            resumable: None,
        };
        state.sessions.insert(jid.clone(), session);
        drop(state);
        self.changed.send_replace(());
        let inbox = Inbox { queue: receiver, kept: VecDeque::new(), queued };
        Bound { key: SessionKey { jid, id }, inbox, cut, resumptions: resumed, evicted }
    }

    /// Takes this session offline, unless another has its place already; what others knew of it.
    pub(crate) fn unbind(&self, key: &SessionKey) -> Option<Presence> {
        let mut state = self.state();
        state.session(key)?;
        let session = state.remove(&key.jid)?;
        drop(state);
        self.changed.send_replace(());
        Some(session.presence)
    }

    /// Cuts the connection of a full JID; takes it offline at once unless it can be resumed.
    pub(crate) fn cut(&self, jid: &FullJid) -> Option<Presence> {
        if let Some(session) = self.state().sessions.get(jid)
            && session.resumable.is_some()
        {
            session.cut.notify_one();
            return None;
        }
        self.forget(jid)
    }

    /// Cuts the connection of a full JID and takes it offline at once.
    pub(crate) fn forget(&self, jid: &FullJid) -> Option<Presence> {
        let session = self.state().remove(jid)?;
        session.cut.notify_one();
        self.changed.send_replace(());
        Some(session.presence)
    }

    /// Forgets all sessions without a word; their connections are for the caller to close.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        state.sessions.clear();
        state.resources.clear();
        drop(state);
        self.changed.send_replace(());
    }

    /// From now on the session can be resumed under this name.
    pub(crate) fn set_resumable(&self, key: &SessionKey, name: String) {
        if let Some(session) = self.state().session(key) {
            session.resumable = Some(name);
        }
    }

    pub(crate) fn is_resumable(&self, key: &SessionKey) -> bool {
        self.state().session(key).is_some_and(|session| session.resumable.is_some())
    }

    /// The way to the session of an account that can be resumed under this name.
    pub(crate) fn resumable(
        &self,
        account: &BareJid,
        name: &str,
    ) -> Option<mpsc::UnboundedSender<Resumption>> {
        let state = self.state();
        let resources = state.resources.get(account)?;
        let mut sessions = resources.iter().filter_map(|jid| state.sessions.get(jid));
        let session = sessions.find(|session| session.resumable.as_deref() == Some(name))?;
        Some(session.resumptions.clone())
    }

    pub(crate) fn is_current(&self, key: &SessionKey) -> bool {
        self.state().session(key).is_some()
    }

    /// Everybody online, sorted.
    pub(crate) fn online(&self) -> Vec<FullJid> {
        let mut online: Vec<_> = self.state().sessions.keys().cloned().collect();
        online.sort();
        online
    }

    /// The sessions that a JID stands for: one for a full JID, all of its resources for a bare one.
    pub(crate) fn resources(&self, jid: &Jid) -> Vec<FullJid> {
        let state = self.state();
        match jid.try_as_full() {
            Ok(full) => state.sessions.get_key_value(full).map(|(jid, _)| jid.clone()).into_iter().collect(),
            Err(bare) => state.resources.get(bare).into_iter().flatten().cloned().collect(),
        }
    }

    /// Everybody else whom this one knows, and what they told of themselves.
    pub(crate) fn others(&self, me: &FullJid) -> Vec<(FullJid, Presence)> {
        let state = self.state();
        let mut others: Vec<_> = state
            .sessions
            .iter()
            .filter(|(jid, _)| self.impostors.know_each_other(me, jid))
            .map(|(jid, session)| (jid.clone(), session.presence.clone()))
            .collect();
        others.sort_by(|(a, _), (b, _)| a.cmp(b));
        others
    }

    /// Notes what others were told of a session; what they knew before.
    pub(crate) fn set_presence(&self, key: &SessionKey, presence: Presence) -> Option<Presence> {
        let mut state = self.state();
        let session = state.session(key)?;
        Some(std::mem::replace(&mut session.presence, presence))
    }

    /// The contacts of an account, sorted.
    pub(crate) fn roster(&self, account: &Jid) -> Vec<Item> {
        let state = self.state();
        let contacts = state.rosters.get(&account.to_bare());
        contacts.into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Changes, adds or removes a contact.
    pub(crate) fn set_contact(&self, account: BareJid, contact: Item) {
        let mut state = self.state();
        let roster = state.rosters.entry(account).or_default();
        match contact.subscription {
            Subscription::Remove => drop(roster.remove(&contact.jid)),
            _ => drop(roster.insert(contact.jid.clone(), contact)),
        }
    }

    /// Notes that some got directed presence, which they must learn the end of.
    pub(crate) fn directed_presence(&self, key: &SessionKey) {
        if let Some(session) = self.state().session(key)
            && matches!(session.presence, Presence::Silent)
        {
            session.presence = Presence::Directed;
        }
    }

    /// Queues a stanza for the session with this full JID and records it; gives it back if there is none.
    pub(crate) fn deliver(
        &self,
        from: &Jid,
        to: &Jid,
        mut element: Element,
        outcome: Outcome,
    ) -> Result<(), Element> {
        impostor::unmask(&mut element);
        let Some(bytes) = stanza::to_bytes(&element) else { return Err(element) };
        let mut state = self.state();
        let Some(session) = state.sessions.get(to) else { return Err(element) };
        if !session.push(bytes) {
            return Err(element);
        }
        self.push_record(&mut state, from, to, element, outcome);
        Ok(())
    }

    /// Records a stanza that goes to no client.
    pub(crate) fn note(&self, from: &Jid, to: &Jid, element: Element, outcome: Outcome) {
        self.push_record(&mut self.state(), from, to, element, outcome);
    }

    fn push_record(&self, state: &mut State, from: &Jid, to: &Jid, element: Element, outcome: Outcome) {
        let recorded = state.record.push(from, to, element, outcome);
        if self.watchers.receiver_count() > 0 {
            self.watchers.send(recorded).ok();
        }
    }

    /// Queues bytes as they are; `false` if nobody has this JID or its queue is full. Not recorded: they may be anything.
    pub(crate) fn deliver_raw(&self, to: &FullJid, bytes: Vec<u8>) -> bool {
        match self.state().sessions.get(to) {
            Some(session) => session.push(bytes),
            None => false,
        }
    }

    /// Queues what stream management has to say.
    pub(crate) fn manage(&self, key: &SessionKey, outgoing: Outgoing) {
        if let Some(session) = self.state().session(key) {
            session.outbox.queue.send(outgoing).ok();
        }
    }

    /// Cuts a connection as soon as all is written that is queued for it.
    pub(crate) fn cut_when_written(&self, jid: &FullJid) {
        if let Some(session) = self.state().sessions.get(jid) {
            session.outbox.queue.send(Outgoing::End(Ending::Lost)).ok();
        }
    }

    /// Queues the end of a session's stream behind what is already queued for it.
    pub(crate) fn end(&self, key: &SessionKey, ending: Ending) {
        if let Some(session) = self.state().session(key) {
            session.outbox.queue.send(Outgoing::End(ending)).ok();
        }
    }

    pub(crate) fn with_record<T>(&self, f: impl FnOnce(&mut Record) -> T) -> T {
        f(&mut self.state().record)
    }
}

impl Session {
    /// Queues bytes; where the queue is full, cuts the connection instead.
    fn push(&self, bytes: Vec<u8>) -> bool {
        let queued = self.outbox.push(bytes);
        if !queued {
            self.cut.notify_one();
        }
        queued
    }
}

impl State {
    fn session(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(&key.jid).filter(|session| session.id == key.id)
    }

    fn remove(&mut self, jid: &FullJid) -> Option<Session> {
        let session = self.sessions.remove(jid)?;
        let bare = jid.to_bare();
        if let Some(resources) = self.resources.get_mut(&bare) {
            resources.remove(jid);
            if resources.is_empty() {
                self.resources.remove(&bare);
            }
        }
        Some(session)
    }
}
