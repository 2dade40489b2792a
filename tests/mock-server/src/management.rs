//! Stream management between a client and the server (XEP-0198): what was sent and not acknowledged, and sessions that
//! outlive their connection.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use xmpp_parsers::{jid::BareJid, minidom::Element, ns};

use crate::{
    connection::{Connection, Io},
    ending::{Ending, escape},
    hub::{Hub, Outgoing, SessionKey},
    login::random,
};

/// Asks for an acknowledgement.
pub(crate) const REQUEST: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";

/// Another connection of a client whose session goes on.
pub(crate) struct Resumption {
    pub(crate) connection: Connection<Io>,
    pub(crate) id: String,
    /// How many stanzas the client had handled.
    pub(crate) h: u32,
}

/// A session that a client may resume.
pub(crate) struct Resuming {
    id: String,
    h: u32,
    session: mpsc::UnboundedSender<Resumption>,
}

impl Resuming {
    /// Hands the connection over. A session that was forgotten in between closes it.
    pub(crate) fn resume(self, connection: Connection<Io>) {
        self.session.send(Resumption { connection, id: self.id, h: self.h }).ok();
    }
}

/// The session that the `<resume/>` of an account's client is for.
pub(crate) fn find(hub: &Hub, account: &BareJid, resume: &Element) -> Option<Resuming> {
    let id = resume.attr("previd")?.to_owned();
    let h = resume.attr("h")?.parse().ok()?;
    let session = hub.resumable(account, &id)?;
    Some(Resuming { id, h, session })
}

/// As Prosody says it: without the `h` that XEP-0198 would like.
pub(crate) fn failed() -> String {
    format!(
        "<failed xmlns='{}'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
        ns::SM
    )
}

/// What came from a client.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// How many stanzas were handled since stream management was enabled.
    handled: Option<u32>,
}

impl Received {
    pub(crate) fn handle_stanza(&mut self) {
        self.handled = self.handled.map(|handled| handled.wrapping_add(1));
    }

    pub(crate) fn h(&self) -> u32 {
        self.handled.unwrap_or_default()
    }

    /// Does what an element of stream management asks for.
    pub(crate) fn handle(&mut self, hub: &Hub, key: &SessionKey, nonza: &Element) -> Result<(), Ending> {
        match (nonza.name(), self.handled) {
            ("enable", None) if hub.settings.resumption.is_some() => self.enable(hub, key, nonza),
            ("r", Some(h)) => {
                let ack = format!("<a xmlns='{}' h='{h}'/>", ns::SM);
                hub.manage(key, Outgoing::Nonza(ack.into_bytes()));
                Ok(())
            }
            ("a", Some(_)) => {
                let h = nonza.attr("h").and_then(|h| h.parse().ok());
                let h = h.ok_or_else(|| Ending::error("policy-violation", "<a/> has no h"))?;
                hub.manage(key, Outgoing::Acked(h));
                Ok(())
            }
            (name, _) => {
                let text = format!("<{name}/> of stream management is not expected");
                Err(Ending::error("policy-violation", text))
            }
        }
    }

    fn enable(&mut self, hub: &Hub, key: &SessionKey, enable: &Element) -> Result<(), Ending> {
        let is_resumable = matches!(enable.attr("resume"), Some("true" | "1"));
        self.handled = Some(0);
        let mut enabled = format!("<enabled xmlns='{}'", ns::SM);
        if is_resumable {
            let id = random()?;
            enabled.push_str(&format!(" id='{}' resume='true'", escape(&id)));
            hub.set_resumable(key, id);
        }
        enabled.push_str("/>");
        hub.manage(key, Outgoing::Enabled(enabled.into_bytes()));
        Ok(())
    }
}

/// What went to a client.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    counted: Option<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// How many stanzas the client has acknowledged.
    acked: u32,
    /// Those that it has not, the oldest first. [`REQUEST`] is behind each batch, so there are few.
    unacked: VecDeque<Vec<u8>>,
}

impl Sent {
    /// What is sent from now on is counted.
    pub(crate) fn enable(&mut self) {
        self.counted.get_or_insert_default();
    }

    /// Notes a stanza; whether an acknowledgement is to be asked for.
    pub(crate) fn push(&mut self, stanza: &[u8]) -> bool {
        if let Some(counted) = &mut self.counted {
            counted.unacked.push_back(stanza.to_vec());
        }
        self.counted.is_some()
    }

    /// `false` if the client acknowledges more than it got.
    pub(crate) fn handle_acked(&mut self, h: u32) -> bool {
        let Some(counted) = &mut self.counted else { return false };
        let newly = usize::try_from(h.wrapping_sub(counted.acked)).unwrap_or(usize::MAX);
        if newly > counted.unacked.len() {
            return false;
        }
        counted.unacked.drain(..newly);
        counted.acked = h;
        true
    }

    /// What the client has not got, in order.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = &[u8]> {
        self.counted.iter().flat_map(|counted| &counted.unacked).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_is_not_sent_again_and_the_rest_is_in_order() {
        let mut sent = Sent::default();
        assert!(!sent.push(b"before"));
        sent.enable();
        for stanza in [&b"1"[..], b"2", b"3"] {
            assert!(sent.push(stanza));
        }
        assert!(sent.handle_acked(1));
        assert_eq!(sent.unacked().collect::<Vec<_>>(), [b"2", b"3"]);
        assert!(!sent.handle_acked(4), "only three were sent");
        assert!(!sent.handle_acked(0), "fewer than before");
        assert!(sent.handle_acked(3));
        assert_eq!(sent.unacked().count(), 0);
    }
}
