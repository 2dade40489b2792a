//! What the initiator says behind its header, before it has heard from the responder.
//!
//! ```text
//!  initiator                                    responder
//!   <stream:stream>, [<enable/>,] stanzas ──►
//!                                     ◄── <stream:stream>, features[, <enabled/>]
//! ```
//!
//! RFC 6120 §4.3.5 has stanzas wait for the responder's features, XEP-0246 #exchange for its header. A responder that
//! announces that it takes them earlier gets `<enable/>` with them, and counts them; it gets that also where nothing is to be
//! said yet, for the answer to come with its features. Any other reads them in order, too,
//! which is behind a header; if it wants something negotiated first, there is no stream, because nobody could tell what
//! became of them.

use std::{mem, time::Instant};

use xmpp_parsers::stanza::Stanza;

use super::{
    Machine, State,
    acking::{Enabling, Management},
};
use crate::{
    Error,
    disco::EarlyData,
    stream::{
        acks::{Origin, Outgoing},
        negotiation::{Agenda, Step},
    },
};

/// What was said before anything was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    Nothing,
    /// To a responder of which this is known.
    Stanzas(EarlyData),
}

impl Machine {
    /// As initiator, at once: these go out with the header.
    ///
    /// # Errors
    ///
    /// One of them can't be XML.
    pub(crate) fn say_early(
        &mut self,
        now: Instant,
        stanzas: Vec<Stanza>,
        responder: EarlyData,
    ) -> Result<(), Error> {
        self.early = Early::Stanzas(responder);
        match responder {
            EarlyData::Announced => self.ask_to_enable(now),
            EarlyData::Unknown => self.keep_early(),
        }
        for mut stanza in stanzas {
            if let Stanza::Iq(iq) = &mut stanza
                && iq.id().is_empty()
            {
                *iq.id_mut() = self.replies.new_id();
            }
            self.parties.clear_others(&mut stanza);
            self.say(now, stanza, Origin::User(None))?;
        }
        Ok(())
    }

    /// As initiator, at once: asks for acknowledgements with the header, if the responder is known to take that. It saves
    /// each side a flight of its own. Where a secret comes first, a stream without it is nothing to be acknowledged.
    pub(crate) fn enable_early(&mut self, now: Instant, responder: EarlyData) {
        if responder == EarlyData::Announced && !self.agenda.has_secret() {
            self.ask_to_enable(now);
        }
    }

    /// Nobody has asked for acknowledgements yet, and if they are, what is said now will not be counted.
    fn keep_early(&mut self) {
        self.management = match mem::replace(&mut self.management, Management::Off) {
            Management::Planned(enable) => Management::Early(Enabling { enable, out: Outgoing::new() }),
            other => other,
        };
    }

    /// Whether what was said early is lost if the responder wants something negotiated, behind which another stream begins.
    /// One that announced that it takes what is said early has dropped that, and gets it again there.
    pub(super) fn has_spoken_out_of_turn(&self) -> bool {
        self.early == Early::Stanzas(EarlyData::Unknown)
    }

    /// As responder: whether this may be what an initiator says before it has seen that there is something to negotiate. It
    /// says it again behind that.
    ///
    /// Who has to authenticate is told at once that nothing comes before.
    pub(super) fn is_too_early(&self, step: &Step) -> bool {
        matches!(self.agenda, Agenda::Sasl(_)) && !self.agenda.is_required() && step.is_offer()
    }

    /// Whether nothing has been heard from the responder that would show that there is a stream.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(self.state, State::HeaderAwaited(_) | State::FeaturesAwaited(_) | State::Negotiating(_))
    }
}
