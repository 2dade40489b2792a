//! The one task between the sans-IO sessions and the session with the server.
//!
//! It owns the link, the clock and the order of what goes out. Everything else (handles, streams,
//! bytestreams) locks [`Shared`] for a moment, says what it wants, and rings the bell.

mod by_hand;
#[cfg(feature = "connector")]
mod connector;
mod events;
mod handle;
mod link;
mod sockets;
mod task;
mod while_wanted;

#[cfg(feature = "connector")]
pub use self::connector::{Connector, DangerousConnector, DepthGuarded, ServerSocket};
pub use self::{by_hand::ByHand, events::Events};
pub(crate) use self::{
    handle::{Handle, Lookout, SessionHandle},
    link::Link,
    task::spawn,
};

use std::{
    collections::{HashMap, VecDeque},
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Instant,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Sleep,
};
use tokio_xmpp::{Event, IqResponse};
use xmpp_parsers::stanza::Stanza;

use self::sockets::Waiting;
use crate::{
    Callers, Error,
    session::{Effect, Output, Progress, RequestToken, SessionId, Sessions, Word},
    wakers::remember,
};

/// What the driver and all handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Here too, to be asked without the lock.
    callers: Callers,
    state: Mutex<State>,
    /// Rung when there may be something to send, or a timer that is due earlier.
    bell: Notify,
    /// For those who wait for something that concerns no session yet: an incoming one, or being online. Any task may
    /// wait, for as short as it likes, so there must be nothing left of one that has stopped.
    general: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) sessions: Sessions,
    phase: Phase,
    reach: Reach,
    /// Streams whose peer is being looked for.
    lookouts: usize,
    /// Who waits for something to change, by session.
    waiting: HashMap<SessionId, Vec<Waker>>,
    /// Those who were waiting, until the lock is free again.
    waking: Vec<Waker>,
    /// Whether those who wait for no session in particular are to be woken when the lock is free again.
    general: General,
    incoming: VecDeque<SessionId>,
    /// Those that are to carry on a stream.
    resumptions: VecDeque<SessionId>,
    replies: HashMap<RequestToken, oneshot::Sender<Result<IqResponse, Error>>>,
    next_token: u64,
    outgoing: VecDeque<Stanza>,
    /// What the sessions want done with sockets.
    effects: Vec<Effect>,
    sockets: Waiting,
}

/// Whether something changed that concerns no session that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum General {
    Quiet,
    Changed,
}

/// Whether there is a connection to the server, as far as we are told. The session with it may outlive one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Connected,
    Suspended,
}

/// How far the endpoint's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Sessions are ended in good order; no new ones.
    Closing,
    /// The driver is gone.
    Closed,
}

impl Shared {
    fn new(sessions: Sessions) -> Self {
        let callers = sessions.config().callers.clone();
        let state = State {
            sessions,
            phase: Phase::Running,
            reach: Reach::Connected,
            lookouts: 0,
            waiting: HashMap::new(),
            waking: Vec::new(),
            general: General::Quiet,
            incoming: VecDeque::new(),
            resumptions: VecDeque::new(),
            replies: HashMap::new(),
            next_token: 0,
            outgoing: VecDeque::new(),
            effects: Vec::new(),
            sockets: Waiting::default(),
        };
        Self { callers, state: Mutex::new(state), bell: Notify::new(), general: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere under the lock is a bug; going on is still better than spreading it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the sessions, and whatever follows from it.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let (result, ring) = self.act_silently(act);
        if ring {
            self.bell.notify_one();
        }
        result
    }

    /// The same for the driver, which looks next at what there is to do. Also tells whether there is anything.
    fn act_silently<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> (T, bool) {
        let (result, wake, ring, general) = {
            let mut state = self.lock();
            let due = state.sessions.poll_timeout();
            let result = act(&mut state, now());
            let wake = state.digest();
            let ring = !state.outgoing.is_empty()
                || !state.effects.is_empty()
                || state.sessions.poll_timeout() != due;
            let general = std::mem::replace(&mut state.general, General::Quiet);
            (result, wake, ring, general)
        };
        // Outside the lock, which those who wake up want next.
        wake.into_iter().for_each(Waker::wake);
        if general == General::Changed {
            self.general.notify_waiters();
        }
        (result, ring)
    }

    /// Tries something again whenever something changes that concerns no session in particular, until it is ready.
    ///
    /// Cancel safe.
    async fn until<T>(&self, mut attempt: impl FnMut(&mut State) -> Poll<T>) -> T {
        loop {
            let mut changed = pin!(self.general.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Poll::Ready(result) = self.act(|state, _| attempt(state)) {
                return result;
            }
            changed.await;
        }
    }
}

impl Shared {
    /// For the driver: takes an event from the server, and gives it back if it is not ours.
    fn handle_event(&self, event: Event) -> Option<Event> {
        match event {
            Event::Stanza(stanza) => {
                let word = self.word_on(&stanza);
                let handle = |state: &mut State, now| {
                    state.forget_closed(&stanza);
                    if state.lookouts > 0 && matches!(stanza, Stanza::Presence(_)) {
                        // It may say where a peer is.
                        state.general = General::Changed;
                    }
                    state.sessions.handle_stanza(now, stanza, word)
                };
                self.act_silently(handle).0.map(Event::Stanza)
            }
            Event::Online { bound_jid, features, resumed } => {
                self.act(|state, now| {
                    state.reach = Reach::Connected;
                    match bound_jid.try_as_full() {
                        Ok(jid) if !resumed => state.sessions.handle_bound(now, jid.clone()),
                        _ => state.sessions.handle_link_resumed(now),
                    }
                    state.wake_everybody();
                });
                Some(Event::Online { bound_jid, features, resumed })
            }
            disconnected @ Event::Disconnected(_) => {
                self.handle_suspended();
                Some(disconnected)
            }
        }
    }

    /// The connection to the server is lost. The session with it may be resumed.
    fn handle_suspended(&self) {
        self.act(|state, now| {
            state.reach = Reach::Suspended;
            state.sessions.handle_link_down(now);
            state.wake_everybody();
        });
    }

    /// What the bot's filter says of the sender. Without the lock: it is the bot's code, and may use the endpoint.
    fn word_on(&self, stanza: &Stanza) -> Word {
        let Callers::Filter(may_call) = &self.callers else { return Word::NotAsked };
        let caller = self.lock().sessions.asks_about(stanza);
        match caller.map(|caller| may_call(&caller)) {
            Some(true) => Word::Yes,
            Some(false) => Word::No,
            None => Word::NotAsked,
        }
    }

    fn handle_timeout(&self) {
        self.act_silently(|state, now| state.sessions.handle_timeout(now));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.lock().sessions.poll_timeout()
    }

    /// What the sessions have to send, in order.
    fn take_outgoing(&self) -> VecDeque<Stanza> {
        std::mem::take(&mut self.lock().outgoing)
    }
}

impl State {
    /// Passes on what the sessions put out, and gives those who are to wake up for it.
    fn digest(&mut self) -> Vec<Waker> {
        let mut wake = std::mem::take(&mut self.waking);
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Send(stanza) => self.outgoing.push_back(stanza),
                // At once: what is given up must not be used by anybody.
                Output::Effect(Effect::HangUp(socket)) => drop(self.sockets.take(socket)),
                Output::Effect(effect) => self.effects.push(effect),
                Output::Changed(id) => {
                    wake.extend(self.waiting.remove(&id).into_iter().flatten());
                    self.forget_withdrawn(id);
                }
                Output::Resumption(id) => {
                    self.resumptions.push_back(id);
                    self.general = General::Changed;
                }
                Output::Incoming(id) => {
                    self.incoming.push_back(id);
                    self.general = General::Changed;
                }
                Output::Reply(token, reply) => {
                    if let Some(asked) = self.replies.remove(&token) {
                        // Whoever asked may have stopped waiting.
                        let _ = asked.send(reply);
                    }
                }
            }
        }
        wake
    }

    /// An offer that its peer took back before anybody looked at it leaves nothing behind.
    fn forget_withdrawn(&mut self, id: SessionId) {
        if matches!(self.sessions.progress(id), Progress::Ended(_)) {
            let waiting = self.incoming.len() + self.resumptions.len();
            self.incoming.retain(|incoming| *incoming != id);
            self.resumptions.retain(|resumption| *resumption != id);
            if self.incoming.len() + self.resumptions.len() < waiting {
                self.sessions.release(now(), id);
            }
        }
    }

    fn wait_for(&mut self, id: SessionId, waker: &Waker) {
        remember(self.waiting.entry(id).or_default(), waker);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.wake_everybody();
    }

    /// Something changed that concerns more than one session.
    fn wake_everybody(&mut self) {
        self.general = General::Changed;
        self.waking.extend(self.waiting.drain().flat_map(|(_, wakers)| wakers));
    }
}

/// From now on, nothing moves: everybody who waits is told.
fn close_shared(shared: &Shared) {
    shared.act(|state, now| {
        state.sessions.handle_disconnected(now);
        state.enter(Phase::Closed);
    });
}

/// One timer for all deadlines. They mostly move away, so that it may fire too early; then it is set anew. To make one for each
/// turn would wake up the runtime's.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Resolves when that time has come. Cancel safe.
    async fn at(&mut self, due: Option<Instant>) {
        let Some(due) = due.map(tokio::time::Instant::from_std) else { return std::future::pending().await };
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().await;
        while sleep.deadline() < due {
            sleep.as_mut().reset(due);
            sleep.as_mut().await;
        }
        // For the next one it has to be later.
        self.0 = None;
    }
}

/// The clock of timers, which tests may stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_follows_what_is_due_first() {
        let begun = now();
        let after = |seconds| Some(begun + Duration::from_secs(seconds));
        let mut alarm = Alarm::default();
        for (due, interrupted) in [(None, 1), (after(10), 2), (after(5), 3)] {
            let waiting = tokio::time::timeout(Duration::from_secs(1), alarm.at(due));
            assert!(waiting.await.is_err(), "it is not due yet");
            assert_eq!(now(), begun + Duration::from_secs(interrupted));
        }
        // What was due is not, and something else is later.
        alarm.at(after(20)).await;
        assert_eq!(now(), begun + Duration::from_secs(20));
        alarm.at(after(21)).await;
        assert_eq!(now(), begun + Duration::from_secs(21));
        alarm.at(after(21)).await;
        assert_eq!(now(), begun + Duration::from_secs(21), "what is past is due");
    }
}
