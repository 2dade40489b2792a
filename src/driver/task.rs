//! The task itself.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_xmpp::Event;
use xmpp_parsers::{iq::Iq, stanza::Stanza};

use super::{
    Events, Handle, Phase, Shared,
    handle::Command,
    link::{Link, LinkEvent, Sent},
};
use crate::{Config, session::Sessions, wire::errors};

/// The bot's stanzas that wait for the task; more of them wait at their senders.
const COMMANDS: usize = 64;
/// Stanzas that may wait for the link before the bot's are held back, so that those of the streams get their turn.
const OUTGOING: usize = 64;

/// Starts the task on the present runtime.
pub(crate) fn spawn(link: Link, config: Config) -> (Handle, Events) {
    let close = config.timeouts.close;
    let (events, receiver) = mpsc::channel(config.limits.events.max(1));
    let (commands, from_bot) = mpsc::channel(COMMANDS);
    let shared = Arc::new(Shared::new(Sessions::new(config)));
    let handle = Handle { shared: Arc::clone(&shared), commands };
    let driver = Driver {
        shared,
        link,
        events: Some(events),
        undelivered: None,
        from_bot,
        outgoing: VecDeque::new(),
        close,
    };
    tokio::spawn(driver.run());
    (handle.clone(), Events { receiver, _handle: handle })
}

struct Driver {
    shared: Arc<Shared>,
    link: Link,
    /// `None` once the bot has dropped its end.
    events: Option<mpsc::Sender<Event>>,
    /// An event for which there is no room; nothing is read from the link until there is.
    undelivered: Option<Event>,
    from_bot: mpsc::Receiver<Command>,
    outgoing: VecDeque<(Stanza, Sent)>,
    close: Duration,
}

/// What the task woke up for.
enum Turn {
    Link(LinkEvent),
    /// The link takes a stanza, and there is one.
    Send,
    Bot(Option<Command>),
    /// There is room for the event that waits, or nobody who wants it.
    Room,
    Timer,
    /// The sessions have something to send.
    Look,
}

impl Driver {
    async fn run(mut self) {
        loop {
            self.collect();
            match self.turn().await {
                Turn::Link(LinkEvent::Ended) => break,
                Turn::Link(event) => self.handle_link(event),
                Turn::Send => {
                    if let Some((stanza, sent)) = self.outgoing.pop_front() {
                        self.link.send(stanza, sent).await;
                    }
                }
                Turn::Bot(Some(Command::Send(stanza, sent))) => {
                    self.outgoing.push_back((*stanza, Some(sent)))
                }
                Turn::Bot(Some(Command::Close(done))) => {
                    self.finish().await;
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                    return;
                }
                // Nobody is left who could want anything.
                Turn::Bot(None) => return self.finish().await,
                Turn::Room => {
                    if let Some(event) = self.undelivered.take() {
                        self.deliver(event);
                    }
                }
                Turn::Timer => self.shared.act(|state, now| state.sessions.handle_timeout(now)),
                Turn::Look => {}
            }
        }
        tracing::info!("the session with the server ended");
        close_shared(&self.shared);
    }

    /// Waits until there is something to do.
    async fn turn(&mut self) -> Turn {
        let due = self.shared.lock().sessions.poll_timeout();
        let Self { shared, link, events, undelivered, from_bot, outgoing, .. } = self;
        let link_turn = poll_fn(|cx| {
            if !outgoing.is_empty() && link.poll_ready(cx).is_ready() {
                return Poll::Ready(Turn::Send);
            }
            if undelivered.is_some() {
                return Poll::Pending;
            }
            link.poll_next(cx).map(Turn::Link)
        });
        tokio::select! {
            turn = link_turn => turn,
            command = from_bot.recv(), if outgoing.len() < OUTGOING => Turn::Bot(command),
            () = room(events), if undelivered.is_some() => Turn::Room,
            () = shared.bell.notified() => Turn::Look,
            () = alarm(due) => Turn::Timer,
        }
    }

    /// Takes what the sessions have to send.
    fn collect(&mut self) {
        let mut state = self.shared.lock();
        self.outgoing.extend(state.outgoing.drain(..).map(|stanza| (stanza, None)));
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let event = match event {
            LinkEvent::Online { jid, features, resumed } => {
                tracing::info!(%jid, resumed, "online");
                if !resumed {
                    self.shared.act(|state, now| {
                        state.sessions.handle_bound(now, jid.clone());
                        state.wake_everybody();
                    });
                }
                Event::Online { bound_jid: jid.into(), features, resumed }
            }
            LinkEvent::Stanza(stanza) => {
                let not_ours = self.shared.act(|state, now| state.sessions.handle_stanza(now, stanza));
                match not_ours {
                    Some(stanza) => Event::Stanza(stanza),
                    None => return,
                }
            }
            LinkEvent::Ended => return,
        };
        self.deliver(event);
    }

    fn deliver(&mut self, event: Event) {
        let unwanted = match &self.events {
            None => event,
            Some(events) => match events.try_send(event) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.undelivered = Some(event);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(event)) => event,
            },
        };
        self.events = None;
        self.answer_for_bot(unwanted);
    }

    /// RFC 6120 §8.2.3: an iq request has to be answered, by somebody.
    fn answer_for_bot(&mut self, event: Event) {
        let Event::Stanza(Stanza::Iq(request @ (Iq::Get { .. } | Iq::Set { .. }))) = event else { return };
        let id = request.id().to_owned();
        let to = request.from().cloned();
        let error = errors::service_unavailable();
        let refusal = Iq::Error { from: None, to, id, error, payload: None };
        self.outgoing.push_back((refusal.into(), None));
    }

    /// Sends what is left, ends the session with the server, and tells everybody.
    async fn finish(mut self) {
        let close = self.close;
        let sent_all = tokio::time::timeout(close, async {
            self.collect();
            while let Some((stanza, sent)) = self.outgoing.pop_front() {
                poll_fn(|cx| self.link.poll_ready(cx)).await;
                self.link.send(stanza, sent).await;
            }
            poll_fn(|cx| self.link.poll_idle(cx)).await;
        });
        if sent_all.await.is_err() {
            tracing::debug!("not everything could be sent before the end");
        }
        let Self { shared, link, .. } = self;
        if tokio::time::timeout(close, link.close()).await.is_err() {
            tracing::debug!("the server did not close its stream in time");
        }
        close_shared(&shared);
    }
}

/// From now on, nothing moves: everybody who waits is told.
fn close_shared(shared: &Shared) {
    shared.act(|state, now| {
        state.sessions.handle_disconnected(now);
        state.enter(Phase::Closed);
    });
}

/// Waits until the bot takes events, or does not want them any more.
async fn room(events: &Option<mpsc::Sender<Event>>) {
    if let Some(events) = events {
        drop(events.reserve().await);
    }
}

async fn alarm(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
