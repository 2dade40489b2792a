//! Certificates are not for the server's stream.

use jid::Jid;
use xmpp_parsers::minidom::Element;

use super::Sessions;
use crate::{
    Callers,
    wire::{errors, pubkeys::Dialect},
};

impl Sessions {
    /// Refuses to tell our certificate where servers could replace it (`jingle-xtls` #exchange): a client MUST NOT ask for it
    /// here. It is `not-allowed` rather than `forbidden`, as nobody may (RFC 6120 §8.3.3.10, §8.3.3.4); or what all else is
    /// answered with by a bot that is not there for everybody.
    pub(super) fn refuses_pubkeys(
        &mut self,
        from: &Jid,
        to: Option<&Jid>,
        id: &str,
        payload: &Element,
    ) -> bool {
        let refused = Dialect::of(payload).is_some() && self.is_for_us(to);
        if refused {
            let refusal = match self.config.callers {
                Callers::Everybody => {
                    errors::not_allowed("certificates are told on an encrypted stream between the two only")
                }
                Callers::Only(_) | Callers::Roster | Callers::Filter(_) => errors::service_unavailable(),
            };
            self.send_iq(from.clone(), id.to_owned(), Err(refusal));
        }
        refused
    }
}
