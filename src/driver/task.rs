//! The task itself.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::sync::mpsc;
use tokio_xmpp::Event;
use xmpp_parsers::{iq::Iq, stanza::Stanza};

use super::{
    Alarm, Events, Handle, Reach, Shared, close_shared,
    handle::{Close, Commands, FromBot},
    link::{Heard, Link, Sent},
    sockets::Sockets,
};
use crate::{Config, session::Sessions, wire::errors};

/// Stanzas that may wait for the link before the bot's are held back, so that those of the streams get their turn.
const OUTGOING: usize = 64;

/// Stanzas that may wait for the link before nothing more is read from it: most of what is read has to be answered, and a
/// server that takes no answers would otherwise have them gathered without end. Several times what the windows of all
/// bytestreams of a busy bot let go at once.
const BACKLOG: usize = 1024;

/// Starts the task on the present runtime.
pub(crate) fn spawn(link: Link, config: Config) -> (Handle, Events) {
    let bound = link.bound_jid();
    let close = config.timeouts.close;
    let sockets = Sockets::new(config.s5b.clone());
    let (events, receiver) = mpsc::channel(config.limits.events.max(1));
    let shared = Arc::new(Shared::new(Sessions::new(config)));
    if let Some(jid) = bound {
        shared.act(|state, now| state.sessions.handle_bound(now, jid));
    }
    let (handle, commands) = Handle::new(Arc::clone(&shared));
    let driver = Driver {
        shared,
        link,
        events: Some(events),
        undelivered: None,
        commands,
        outgoing: VecDeque::new(),
        sockets,
        alarm: Alarm::default(),
        close,
    };
    tokio::spawn(async move {
        let _epilogue = Epilogue(Arc::clone(&driver.shared));
        driver.run().await;
    });
    (handle.clone(), Events { receiver, _handle: handle })
}

struct Driver {
    shared: Arc<Shared>,
    link: Link,
    /// `None` once the bot has dropped its end.
    events: Option<mpsc::Sender<Event>>,
    /// An event for which there is no room; nothing is read from the link until there is.
    undelivered: Option<Event>,
    commands: Commands,
    outgoing: VecDeque<(Stanza, Sent)>,
    sockets: Sockets,
    alarm: Alarm,
    close: Duration,
}

/// What the task woke up for.
#[expect(clippy::large_enum_variant, reason = "there is one, on the stack of one task")]
enum Turn {
    /// Something from the link, or the end of the session with the server.
    Link(Option<Heard>),
    /// The link takes a stanza, and there is one.
    Send,
    Bot(FromBot),
    /// The bot is done, or nobody is left who could want anything.
    Close(Option<Close>),
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
                Turn::Link(Some(Heard::Event(event))) => self.handle_link(event),
                Turn::Link(Some(Heard::Suspended)) => {
                    tracing::info!("the connection to the server is lost");
                    self.shared.handle_suspended();
                }
                Turn::Link(None) => break,
                Turn::Send => self.send().await,
                Turn::Bot(from_bot) => self.take(from_bot),
                // That it is done shows in the channel's end.
                Turn::Close(_done) => return self.finish().await,
                Turn::Room => {
                    if let Some(event) = self.undelivered.take() {
                        self.deliver(event);
                    }
                }
                Turn::Timer => self.shared.handle_timeout(),
                Turn::Look => {}
            }
        }
        tracing::info!("the session with the server ended");
    }

    /// Waits until there is something to do.
    async fn turn(&mut self) -> Turn {
        let due = self.shared.poll_timeout();
        let Self { shared, link, events, undelivered, commands, outgoing, alarm, .. } = self;
        let Commands { to_send, close } = commands;
        let link_turn = poll_fn(|cx| {
            if !outgoing.is_empty() && link.poll_ready(cx).is_ready() {
                return Poll::Ready(Turn::Send);
            }
            if undelivered.is_some() || outgoing.len() >= BACKLOG {
                // The bot may be waiting for a stanza to be sent before it takes the next event.
                let _ = link.poll_idle(cx);
                return Poll::Pending;
            }
            link.poll_next(cx).map(Turn::Link)
        });
        tokio::select! {
            turn = link_turn => turn,
            Some(from_bot) = to_send.recv(), if outgoing.len() < OUTGOING => Turn::Bot(from_bot),
            done = close.recv() => Turn::Close(done),
            () = room(events), if undelivered.is_some() => Turn::Room,
            () = shared.bell.notified() => Turn::Look,
            () = alarm.at(due) => Turn::Timer,
        }
    }

    /// Hands over as much as the link takes at once: all of that shares a write to the server.
    async fn send(&mut self) {
        while let Some((stanza, sent)) = self.outgoing.pop_front() {
            self.link.send(stanza, sent).await;
            if !self.link.has_room() {
                return;
            }
        }
    }

    /// Takes what the sessions have to send, and does what they want done.
    fn collect(&mut self) {
        self.sockets.perform_all(&self.shared);
        let stanzas = self.shared.take_outgoing();
        self.outgoing.extend(stanzas.into_iter().map(|stanza| (stanza, None)));
    }

    fn take(&mut self, FromBot { stanza, sent }: FromBot) {
        self.outgoing.push_back((*stanza, Some(sent)));
    }

    fn handle_link(&mut self, event: Event) {
        if let Event::Online { bound_jid, resumed, .. } = &event {
            tracing::info!(jid = %bound_jid, resumed, "online");
        }
        if let Some(event) = self.shared.handle_event(event) {
            self.deliver(event);
        }
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
        self.commands.to_send.close();
        while let Ok(from_bot) = self.commands.to_send.try_recv() {
            self.take(from_bot);
        }
        let reach = self.shared.act(|state, _| state.reach);
        if reach == Reach::Suspended && !self.is_awaited() {
            // There is no stream to end, and nobody who would wait for another one.
            return;
        }
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
        if tokio::time::timeout(close, self.link.close()).await.is_err() {
            tracing::debug!("the server did not close its stream in time");
        }
    }

    /// Whether the bot waits for a stanza of its own to be sent.
    fn is_awaited(&self) -> bool {
        self.outgoing.iter().any(|(_, sent)| sent.is_some()) || self.link.is_awaited()
    }
}

/// However the task ends, a panic of tokio-xmpp included, those who wait are told.
struct Epilogue(Arc<Shared>);

impl Drop for Epilogue {
    fn drop(&mut self) {
        close_shared(&self.0);
    }
}

/// Waits until the bot takes events, or does not want them any more.
async fn room(events: &Option<mpsc::Sender<Event>>) {
    if let Some(events) = events {
        drop(events.reserve().await);
    }
}
