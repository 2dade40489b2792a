//! The driver without a task: for a bot that keeps its own loop.

use std::{collections::VecDeque, sync::Arc};

use jid::FullJid;
use tokio_xmpp::Event;
use xmpp_parsers::stanza::Stanza;

use super::{
    Alarm, Handle, Reach, Shared, close_shared,
    handle::{Commands, FromBot},
    sockets::Sockets,
};
use crate::{Config, session::Sessions};

/// An endpoint's other side, driven by a bot's own loop; see [`Endpoint::by_hand`](crate::Endpoint::by_hand).
///
/// Every event of the bot's session with its server goes through [`ByHand::handle`], and every stanza that
/// [`ByHand::outgoing`] gives has to be sent, in that order. Timers run inside `outgoing`, so it has to be polled all the time.
#[derive(Debug)]
pub struct ByHand {
    shared: Arc<Shared>,
    commands: Commands,
    outgoing: VecDeque<Stanza>,
    sockets: Sockets,
    alarm: Alarm,
}

impl Drop for ByHand {
    fn drop(&mut self) {
        close_shared(&self.shared);
    }
}

impl ByHand {
    pub(crate) fn new(config: Config) -> (Handle, Self) {
        let sockets = Sockets::new(config.s5b.clone());
        let shared = Arc::new(Shared::new(Sessions::new(config)));
        let (handle, commands) = Handle::new(Arc::clone(&shared));
        (handle, Self { shared, commands, outgoing: VecDeque::new(), sockets, alarm: Alarm::default() })
    }

    /// Tells the full JID of a session with the server that was up before: its `Online` event can't be handled any more.
    pub fn handle_bound(&mut self, jid: FullJid) {
        self.shared.act(|state, now| {
            state.reach = Reach::Connected;
            state.sessions.handle_bound(now, jid);
            state.wake_everybody();
        });
    }

    /// Takes an event, and gives it back if it is not ours. Never waits.
    pub fn handle(&mut self, event: Event) -> Option<Event> {
        self.shared.handle_event(event)
    }

    /// The next stanza to send to the server; `None` once the endpoint was closed or nobody holds it any more.
    ///
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn outgoing(&mut self) -> Option<Stanza> {
        loop {
            self.sockets.perform_all(&self.shared);
            self.outgoing.extend(self.shared.take_outgoing());
            if let Some(stanza) = self.outgoing.pop_front() {
                return Some(stanza);
            }
            let due = self.shared.poll_timeout();
            tokio::select! {
                // What the bot sent before the end goes out before it.
                biased;
                Some(FromBot { stanza, sent }) = self.commands.to_send.recv() => {
                    self.outgoing.push_back(*stanza);
                    // Whoever sends it may have stopped waiting.
                    let _ = sent.send(Ok(()));
                }
                done = self.commands.close.recv() => {
                    if done.is_some() {
                        close_shared(&self.shared);
                    }
                    return None;
                }
                () = self.shared.bell.notified() => {}
                () = self.alarm.at(due) => self.shared.handle_timeout(),
            }
        }
    }
}
