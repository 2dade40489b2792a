//! What a proxy that holds bytes back asks for: white space, and patience before the footer.

use std::time::Instant;

use super::{Closer, Closing, Footer, HeaderAwaited, Machine, Negotiating, Role, State, acking::Management};

impl Machine {
    /// Answers what is left to answer, and says goodbye: at once, or when the proxy has passed on what is before. What the
    /// peer has handled is asked for, and what we have is told, before that (XEP-0198 #acking).
    pub(super) fn part(&mut self, now: Instant, footer: Footer) {
        self.refuse_requests(now);
        if footer == Footer::Held && self.management.unacked() > 0 {
            self.ask_last(now);
        }
        self.state = State::Closing(Closing { deadline: now + self.timeouts.close, written: 0, footer });
        self.tell(now);
        self.release_footer_in_time(now);
    }

    /// The peer has acknowledged something.
    pub(super) fn handle_progress(&mut self, now: Instant) {
        self.closing_losses = 0;
        self.renew_closing(now);
    }

    /// The peer makes progress: it has its time again.
    pub(super) fn renew_closing(&mut self, now: Instant) {
        if let State::Closing(closing) = &mut self.state {
            closing.deadline = now + self.timeouts.close;
        }
    }

    /// Sends the footer if nothing can hold it back, and nothing has to come before it: what the responder has said cannot be
    /// acknowledged before its `<enabled/>` is here (XEP-0198 #acking), which is a round trip after the stream was opened.
    pub(super) fn release_footer_in_time(&mut self, now: Instant) {
        let is_early = matches!(self.state, State::Closing(Closing { footer: Footer::Held, .. }))
            && matches!(self.management, Management::Enabling(_));
        if is_early {
            return;
        }
        let unwritten = self.outbox.queued().saturating_sub(self.written);
        if !self.relay.holds(now, usize::try_from(unwritten).unwrap_or(usize::MAX)) {
            self.release_footer(now);
        }
    }

    pub(super) fn release_footer(&mut self, now: Instant) {
        let Some(footer) = self.say_footer(now) else { return };
        match &mut self.state {
            State::Closing(closing) if footer == Footer::Held => closing.footer = Footer::Sent,
            _ => self.finish(Closer::Peer),
        }
    }

    /// Queues the footer, unless it is sent, or it is not its time; gives what became of it before. The state is the caller's
    /// to set.
    pub(super) fn say_footer(&mut self, now: Instant) -> Option<Footer> {
        let State::Closing(Closing { footer, .. }) = self.state else { return None };
        if footer == Footer::Sent {
            return None;
        }
        self.tell_news(now);
        self.outbox.footer(now);
        Some(footer)
    }

    /// White space, where it is due; the footer has its place after that.
    pub(super) fn nudge(&mut self, now: Instant) {
        if self.nudge_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        if matches!(self.state, State::Closing(_)) && self.relay.is_due_again() {
            self.release_footer(now);
        } else {
            self.outbox.space(now);
            self.relay.handle_nudged();
        }
    }

    /// RFC 6120 §4.6.1: white space is for the time between two stanzas, which is after our header and before our
    /// footer. What else waits to be written is as good.
    pub(super) fn nudge_deadline(&self) -> Option<Instant> {
        let is_time = match &self.state {
            State::HeaderAwaited(HeaderAwaited { .. }) => self.role == Role::Initiator,
            State::FeaturesAwaited(_) | State::Open(_) => true,
            State::Closing(Closing { footer, .. }) => *footer != Footer::Sent,
            // RFC 6120 §5.3.3 and §6.3.5: not while an element waits for its answer.
            State::Negotiating(Negotiating { step, .. }) => step.is_offer(),
            State::Negotiated(_)
            | State::Reviving(_)
            | State::Suspended(_)
            | State::Closed(_)
            | State::Failed(_) => false,
        };
        self.outbox.idle_since().filter(|_| is_time).and_then(|_| self.relay.next_deadline())
    }
}
