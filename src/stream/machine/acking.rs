//! Acknowledgements on a stream (XEP-0198 #enable, #acking).
//!
//! ```text
//!  initiator                              responder
//!   Planned                                Planned
//!                      ◄── features with <sm/>
//!   Enabling  <enable/> ──►                Offered ──anything else──► Passed
//!   Off     ◄── <failed/>                     │                          │
//!   Active  ◄── <enabled/>                 Active ◄───── <enable/> ──────┘
//! ```

use std::{
    mem,
    time::{Duration, Instant},
};

use super::{
    Closing, Footer, Link, Machine, Role, State, Suspended,
    management::{Enable, Plan, Resume},
    saying::no_receipts,
};
use crate::{
    Limits, SmConfig,
    stream::{
        acks::{Entry, Incoming, Leftovers, Number, Outgoing},
        violation::Violation,
    },
    wire::{
        jingle::Malformed,
        sm::{self, Nonza},
    },
};

/// The longest id of a stream that we remember (XEP-0198 #resumption).
const MAX_ID: usize = 4000;

/// See the module's documentation.
pub(super) enum Management {
    Off,
    Planned(Enable),
    /// As responder: the initiator may carry on an earlier stream, and nothing else.
    AwaitingResume,
    /// As initiator: an earlier stream is to be carried on.
    ToResume(Resume),
    /// As responder: what is said before `<enabled/>` is kept, because nothing else has come.
    Offered(Enabling),
    /// As responder: something came before `<enable/>`. What is said before `<enabled/>` is not kept.
    Passed(Enable),
    /// As initiator: stanzas went out before it is known whether the responder acknowledges any.
    Early(Enabling),
    Enabling(Enabling),
    Active(Active),
    /// The stream is over. For all that the peer knows, it could have been carried on.
    Left,
}

pub(super) struct Enabling {
    pub(super) enable: Enable,
    pub(super) out: Outgoing,
}

pub(super) struct Active {
    pub(super) config: SmConfig,
    pub(super) out: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) resumption: Option<Resumption>,
}

/// How the stream can be resumed.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    pub(super) id: String,
    /// How long it may be suspended.
    pub(super) time: Duration,
}

impl Management {
    pub(super) fn planned(plan: Plan) -> Self {
        match plan {
            Plan::Off => Self::Off,
            Plan::Enable(enable) => Self::Planned(enable),
            Plan::Resume(resume) => Self::ToResume(resume),
            Plan::AwaitResume => Self::AwaitingResume,
        }
    }

    /// Whether the responder's features have it.
    pub(super) fn is_offered(&self) -> bool {
        matches!(self, Self::Planned(_) | Self::AwaitingResume)
    }

    /// Whether the stream is for an earlier one.
    pub(super) fn is_revival(&self) -> bool {
        matches!(self, Self::AwaitingResume | Self::ToResume(_))
    }

    /// Whether what is sent is kept until it is acknowledged, as far as is known.
    pub(super) fn tracks(&self) -> bool {
        matches!(self, Self::Offered(_) | Self::Enabling(_) | Self::Active(_))
    }

    /// A stanza was queued for writing.
    pub(super) fn track(&mut self, now: Instant, entry: Entry, limits: &Limits) {
        match self {
            Self::Offered(Enabling { enable, out }) => {
                out.push(now, entry, &enable.config);
                // A peer without stream management acknowledges nothing, and must not make us wait.
                if !has_room(out, limits) {
                    self.pass();
                }
            }
            Self::Early(Enabling { enable, out }) | Self::Enabling(Enabling { enable, out }) => {
                out.push(now, entry, &enable.config);
            }
            Self::Active(active) => active.out.push(now, entry, &active.config),
            _ => {}
        }
    }

    /// As responder: something else than `<enable/>` came first, so that it is not known what has arrived.
    pub(super) fn pass(&mut self) {
        if let Self::Offered(Enabling { enable, out }) = self {
            out.take_leftovers().fail_receipts(&no_receipts());
            *self = Self::Passed(enable.clone());
        }
    }

    fn out(&self) -> Option<&Outgoing> {
        match self {
            Self::Enabling(Enabling { out, .. }) | Self::Active(Active { out, .. }) => Some(out),
            _ => None,
        }
    }

    pub(super) fn active(&self) -> Option<&Active> {
        match self {
            Self::Active(active) => Some(active),
            _ => None,
        }
    }

    pub(super) fn unacked(&self) -> usize {
        self.out().map_or(0, Outgoing::len)
    }

    pub(super) fn automatic_bytes(&self) -> usize {
        self.out().map_or(0, Outgoing::automatic_bytes)
    }

    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.out().is_none_or(|out| has_room(out, limits))
    }

    /// When an acknowledgement is to be asked for.
    pub(super) fn next_request(&self) -> Option<Instant> {
        self.active()?.out.next_request()
    }

    /// The stream ends.
    pub(super) fn leave(&mut self) -> Leftovers {
        let left = match self {
            Self::Active(Active { resumption: Some(_), .. }) | Self::Left => Self::Left,
            Self::Enabling(Enabling { enable, .. }) if enable.id.is_some() => Self::Left,
            _ => Self::Off,
        };
        mem::replace(self, left).into_leftovers()
    }

    /// What is left of it. A responder whose offer was not taken up forgets what it kept.
    fn into_leftovers(self) -> Leftovers {
        match self {
            Self::Early(Enabling { out, .. })
            | Self::Enabling(Enabling { out, .. })
            | Self::Active(Active { out, .. }) => out.into_leftovers(),
            Self::Offered(Enabling { out, .. }) => {
                let mut leftovers = out.into_leftovers();
                leftovers.stanzas.clear();
                leftovers
            }
            _ => Leftovers::default(),
        }
    }
}

fn has_room(out: &Outgoing, limits: &Limits) -> bool {
    out.len() < limits.unacked_stanzas && out.bytes() < limits.unacked_bytes
}

impl Machine {
    // Beginning.

    /// The initiator has seen that the responder offers it. Nothing waits for the answer.
    pub(super) fn ask_to_enable(&mut self, now: Instant) {
        let (enable, mut out) = match mem::replace(&mut self.management, Management::Off) {
            Management::Planned(enable) => (enable, Outgoing::new()),
            Management::Early(Enabling { enable, out }) => (enable, out),
            other => return self.management = other,
        };
        out.begin_counting();
        let time = enable.id.as_ref().map(|_| enable.config.resumption).filter(|time| !time.is_zero());
        let max = time.map(seconds);
        self.outbox.negotiation(now, &Nonza::Enable { max, resume: time.is_some() }.to_element());
        self.management = Management::Enabling(Enabling { enable, out });
    }

    /// As responder: the offer went out.
    pub(super) fn handle_offered(&mut self) {
        if let Management::Planned(enable) = &self.management {
            self.management = Management::Offered(Enabling { enable: enable.clone(), out: Outgoing::new() });
        }
    }

    /// An element of stream management came.
    pub(super) fn handle_management(&mut self, now: Instant, nonza: Result<Nonza, Malformed>) {
        if nonza.as_ref().is_ok_and(|nonza| self.is_early_answer(nonza)) {
            // A peer that forgot its features means that there are none.
            self.go_on_without_features(now, "an answer to <enable/>, and no stream features");
        }
        if !matches!(self.state, State::Open(_) | State::Closing(_)) {
            return tracing::debug!(?nonza, "skipped stream management before its time");
        }
        let nonza = match nonza {
            Ok(nonza) => nonza,
            Err(Malformed(why)) if matches!(self.management, Management::Off) => {
                return tracing::debug!(why, "skipped an element of stream management that there is not");
            }
            Err(Malformed(why)) => return self.abort(now, Violation::policy(why)),
        };
        match (self.role, nonza) {
            (_, Nonza::A { h }) => self.handle_ack(now, h),
            (_, Nonza::R) => self.handle_request_for_ack(now),
            (Role::Responder, Nonza::Enable { max, resume }) => self.enable(now, max, resume),
            // The stream goes on (XEP-0198 #resumption).
            (Role::Responder, Nonza::Resume { .. }) => {
                let condition = match self.management {
                    Management::Off => "feature-not-implemented",
                    _ => "item-not-found",
                };
                self.management.pass();
                self.say_management(now, &Nonza::failed(condition));
            }
            (Role::Initiator, Nonza::Enabled { id, max, resume }) => {
                self.handle_enabled(now, id, max, resume);
                self.release_footer_in_time(now);
            }
            (Role::Initiator, Nonza::Failed { condition, .. }) => {
                self.handle_not_enabled(condition.as_deref());
                self.release_footer_in_time(now);
            }
            (Role::Initiator, Nonza::Enable { .. } | Nonza::Resume { .. }) => {
                self.abort(now, Violation::policy("stream management is for the initiator to ask for"));
            }
            (_, nonza) => tracing::debug!(?nonza, "skipped an answer that nobody asked for"),
        }
    }

    /// As responder.
    fn enable(&mut self, now: Instant, max: Option<u32>, resume: bool) {
        if !self.can_answer() {
            return;
        }
        let (enable, out) = match mem::replace(&mut self.management, Management::Off) {
            Management::Offered(Enabling { enable, out }) => (enable, out),
            Management::Passed(enable) => (enable, Outgoing::new()),
            active @ Management::Active(_) => {
                self.management = active;
                // XEP-0198 #enable asks for a stream error, and prints this.
                self.outbox.negotiation(now, &Nonza::failed("unexpected-request").to_element());
                return self.abort(now, Violation::policy("stream management was enabled before"));
            }
            other => {
                self.management = other;
                return self.say_management(now, &Nonza::failed("feature-not-implemented"));
            }
        };
        let resumption = resumption(&enable, enable.id.clone(), max, resume);
        let enabled = Nonza::Enabled {
            id: resumption.as_ref().map(|resumption| resumption.id.clone()),
            max: resumption.as_ref().map(|resumption| seconds(resumption.time)),
            resume: resumption.is_some(),
        };
        self.say_management(now, &enabled);
        self.activate(now, Enabling { enable, out }, resumption);
    }

    fn handle_enabled(&mut self, now: Instant, id: Option<String>, max: Option<u32>, resume: bool) {
        match mem::replace(&mut self.management, Management::Off) {
            Management::Enabling(enabling) => {
                let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_ID && enabling.enable.id.is_some());
                let resumption = resumption(&enabling.enable, id, max, resume);
                self.activate(now, enabling, resumption);
            }
            other => {
                tracing::debug!("skipped an <enabled/> that nobody asked for");
                self.management = other;
            }
        }
    }

    fn activate(&mut self, now: Instant, enabling: Enabling, resumption: Option<Resumption>) {
        let Enabling { enable, mut out } = enabling;
        // What a responder said until now was not counted; an initiator's was, from its <enable/> on.
        if self.role == Role::Responder {
            out.begin_counting();
        }
        let has_waited = !out.is_empty();
        let incoming = Incoming::new();
        self.management = Management::Active(Active { config: enable.config, out, incoming, resumption });
        if has_waited {
            self.ask(now);
        }
    }

    fn handle_not_enabled(&mut self, condition: Option<&str>) {
        if let Management::Enabling(Enabling { out, .. }) = &mut self.management {
            tracing::debug!(condition, "the peer does not enable stream management");
            out.take_leftovers().fail_receipts(&no_receipts());
            self.management = Management::Off;
        }
    }

    // What we sent.

    fn handle_ack(&mut self, now: Instant, h: u32) {
        let Management::Active(active) = &mut self.management else {
            return tracing::debug!(h, "skipped an acknowledgement of what was not counted");
        };
        match active.out.acknowledge(h) {
            Err(too_high) => return self.abort_too_high(now, too_high),
            Ok(0) => active.out.ask_again(now, &active.config),
            Ok(_) => {
                active.out.ask_again(now, &active.config);
                self.handle_progress(now);
            }
        }
        self.ask_in_time(now);
    }

    /// Asks for an acknowledgement, if it is time.
    pub(super) fn ask_in_time(&mut self, now: Instant) {
        let limits = self.limits;
        if let Management::Active(Active { config, out, .. }) = &self.management {
            let is_half_full =
                out.len() >= limits.unacked_stanzas / 2 || out.bytes() >= limits.unacked_bytes / 2;
            if out.is_request_due(now, config, is_half_full) {
                self.ask(now);
            }
        }
    }

    /// Asks for an acknowledgement. Whoever waits for `<enabled/>` asks when it is here.
    pub(super) fn ask(&mut self, now: Instant) {
        if let Management::Active(active) = &mut self.management
            && matches!(self.state, State::Open(_))
        {
            active.out.handle_requested();
            self.outbox.negotiation(now, &Nonza::R.to_element());
        }
    }

    /// The same, as the last of what we say, be it before `<enabled/>` is here: the peer has offered to answer.
    pub(super) fn ask_last(&mut self, now: Instant) {
        self.ask(now);
        if matches!(self.management, Management::Enabling(_)) {
            self.outbox.negotiation(now, &Nonza::R.to_element());
        }
    }

    // What we received.

    /// A stanza came: its number, 0 where nobody counts; `None` if it came before.
    pub(super) fn count(&mut self) -> Option<Number> {
        match &mut self.management {
            Management::Active(active) => active.incoming.count(),
            management => {
                management.pass();
                Some(0)
            }
        }
    }

    /// The oldest stanza that is not handled. What is here when one side says goodbye, while somebody receives it, is our
    /// responsibility: nothing can be acknowledged later.
    pub(super) fn unread(&self) -> Option<Number> {
        match &self.state {
            State::Closing(_) => None,
            _ => self.inbox.oldest(),
        }
    }

    fn handle_request_for_ack(&mut self, now: Instant) {
        let unread = self.unread();
        if let Management::Active(active) = &mut self.management {
            let h = active.incoming.answer(unread);
            self.say_management(now, &Nonza::A { h });
        }
    }

    /// Tells the peer what was handled, if that is much, or what it has asked about.
    pub(super) fn tell_in_time(&mut self, now: Instant) {
        let unread = self.unread();
        if let Management::Active(active) = &self.management
            && active.incoming.is_due(unread, active.config.request_after)
            && self.can_answer()
        {
            self.tell(now);
        }
    }

    pub(super) fn tell(&mut self, now: Instant) {
        let unread = self.unread();
        if let Management::Active(active) = &mut self.management {
            let h = active.incoming.tell(unread);
            self.outbox.automatic_element(now, &Nonza::A { h }.to_element());
        }
    }

    /// As [`Self::tell`], if the peer does not know.
    pub(super) fn tell_news(&mut self, now: Instant) {
        let unread = self.unread();
        if self.management.active().is_some_and(|active| active.incoming.is_untold(unread)) {
            self.tell(now);
        }
    }

    /// An element that the peer has asked for.
    fn say_management(&mut self, now: Instant, nonza: &Nonza) {
        if self.can_answer() {
            self.outbox.automatic_element(now, &nonza.to_element());
            self.check_automatic(now);
        }
    }

    /// Whether our footer is still to come, and there is something to write it to.
    fn can_answer(&self) -> bool {
        match &self.state {
            State::Open(_) => true,
            State::Closing(Closing { footer, .. }) => *footer != Footer::Sent,
            State::Suspended(Suspended { link, .. }) => *link == Link::Still,
            _ => false,
        }
    }
}

/// The responder's features.
pub(super) fn feature() -> xmpp_parsers::minidom::Element {
    sm::feature()
}

/// Both sides have to want it; the shorter time counts.
fn resumption(enable: &Enable, id: Option<String>, max: Option<u32>, resume: bool) -> Option<Resumption> {
    let own = enable.config.resumption;
    let time = max.map_or(own, |max| own.min(Duration::from_secs(max.into())));
    let id = id.filter(|_| resume && !time.is_zero())?;
    Some(Resumption { id, time })
}

/// Rounded up, so that a fraction is not never.
fn seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
