//! The two ends' servers: what they do with stanzas when an end has no connection, or is known by another name than before.

use super::{random::Random, *};

impl Pair {
    /// The connection to the server is lost; what the end sends waits for the next one.
    pub(super) fn link_down(&mut self, side: Side) {
        self.collect();
        let now = self.now;
        self.end(side).sessions.handle_link_down(now);
        self.collect();
    }

    /// There is a new one, for the same session: nothing was lost.
    pub(super) fn link_resumed(&mut self, side: Side) {
        let now = self.now;
        self.end(side).sessions.handle_link_resumed(now);
        self.collect();
    }

    /// There is a new session: what was on its way is lost.
    pub(super) fn rebind(&mut self, side: Side, name: &str) {
        self.collect();
        self.inbox[side as usize].clear();
        self.outbox[side as usize].clear();
        self.end(side).jid = jid(name);
        let now = self.now;
        self.end(side).sessions.handle_bound(now, jid(name));
        self.collect();
    }

    /// Something happens to the connection, or nothing.
    pub(super) fn trouble(&mut self, random: &mut Random) {
        let side = [Romeo, Juliet][random.below(2)];
        match (self.end(side).sessions.link.is_down(), random.below(8)) {
            (false, 0..3) => self.link_down(side),
            (true, 3..6) => self.link_resumed(side),
            (_, 6) => {
                let name = self.end(side).jid.to_string();
                self.rebind(side, &name);
            }
            (_, 7) => {
                let name = format!("{}/{}", self.end(side).jid.to_bare(), random.below(1000));
                self.rebind(side, &name);
            }
            _ => {}
        }
    }

    /// Whoever is away comes back.
    pub(super) fn calm(&mut self) {
        for side in [Romeo, Juliet] {
            self.link_resumed(side);
        }
    }

    /// What an end has sent goes to the other one, if it is there and known by that name.
    pub(super) fn pass_on(&mut self, side: Side) {
        if self.end(side).sessions.link.is_down() {
            return;
        }
        let own = self.end(side).jid.to_string();
        let other = self.end(side.other()).jid.clone();
        while let Some(stanza) = self.outbox[side as usize].pop_front() {
            let to: Jid = stanza.attr("to").unwrap().parse().unwrap();
            let reaches = stanza.attr("from") == Some(own.as_str()) && (to == other || to == other.to_bare());
            if reaches {
                self.inbox[side.other() as usize].push_back(stanza);
            } else if stanza.name() == "iq" && matches!(stanza.attr("type"), Some("get" | "set")) {
                let id = stanza.attr("id").unwrap();
                let error = error("cancel", "service-unavailable", "");
                let reply =
                    format!("<iq xmlns='jabber:client' type='error' id='{id}' from='{to}'>{error}</iq>");
                self.inbox[side as usize].push_back(reply.parse().unwrap());
            }
        }
    }
}
