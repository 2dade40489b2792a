//! From the peer's header to an open stream, or to whatever this one was for.

use std::{mem, time::Instant};

use xmpp_parsers::{minidom::Element, ns::TLS, stanza::Stanza, stream_error::DefinedCondition};

use super::{
    FEATURES_GRACE, FeaturesAwaited, Machine, Negotiated, Negotiating, Open, Role, State,
    acking::{self, Management},
    reviving::not_resumable,
};
use crate::{
    Error, PeerIncompatible, PeerMisbehaved, SecurityError,
    stream::{
        decode::Decoded,
        features,
        header::Header,
        negotiation::{Agenda, End, Farewell, Step, Turn, starttls_failure},
        violation::Violation,
    },
    wire::sm::Nonza,
};

impl Machine {
    /// The responder answers a header.
    pub(super) fn offer(&mut self, now: Instant, header: &Header, deadline: Instant) {
        let (mut features, step) = self.agenda.offer();
        if step.is_none() && self.management.is_offered() {
            features.push(acking::feature());
        }
        // RFC 6120 §4.7.5: whoever sends no version gets no features, and sends none.
        if !header.has_features() && (self.agenda.is_required() || self.management.is_revival()) {
            let text = "a version of at least 1.0 is needed, for what has to be negotiated";
            self.send_stream_error(now, DefinedCondition::UnsupportedVersion, text);
            return self.fail(if self.agenda.is_required() { self.too_old() } else { not_resumable() });
        }
        if matches!(self.agenda, Agenda::Starttls) && self.parties.peer.is_none() {
            let text = "the header needs a from: TLS has to know who to expect";
            return self.abort(now, Violation::new(DefinedCondition::InvalidFrom, text));
        }
        self.queue_header(now);
        if header.has_features() {
            self.outbox.features(now, &features);
        }
        self.state = match step.filter(|_| header.has_features()) {
            Some(step) => State::Negotiating(Negotiating { deadline, step }),
            None if self.management.is_revival() => return self.await_resume(deadline),
            None => State::Open(Open { id: None }),
        };
        if self.is_open() && header.has_features() {
            self.handle_offered();
        }
    }

    fn too_old(&self) -> Error {
        let came = "a stream header of a version before 1.0";
        match &self.agenda {
            Agenda::Sasl(credentials) => {
                let why = format!("one that can authenticate was expected, and {came} came");
                SecurityError::Sasl { peer: credentials.peer.clone(), why }.into()
            }
            Agenda::Starttls | Agenda::Nothing => {
                SecurityError::StarttlsFailed(format!("with {came}, which has none")).into()
            }
        }
    }

    /// The initiator has the responder's header.
    pub(super) fn await_features(&mut self, now: Instant, header: &Header, end: Instant) {
        // What is required is worth all of the time.
        let deadline = if self.agenda.is_required() {
            end
        } else {
            end.min(now + FEATURES_GRACE.min(self.timeouts.stream_header))
        };
        self.state = State::FeaturesAwaited(FeaturesAwaited { deadline, end, id: header.id.clone() });
        if !header.has_features() {
            self.go_on_without_features(
                now,
                "no stream features: its stream header is of a version before 1.0",
            );
        }
    }

    /// The initiator has the responder's features.
    pub(super) fn choose(&mut self, now: Instant, features: &Element, deadline: Instant) {
        match self.agenda.choose(features) {
            Ok(Some((say, step))) => {
                // What else it insists on could not be done after that either. Before TLS it may be anybody's word.
                if let (Step::Challenged(_), Some(name)) = (&step, features::mandatory_besides_sasl(features))
                {
                    return self.check_mandatory(now, Some(name));
                }
                if self.has_spoken_out_of_turn() {
                    return self.check_mandatory(now, features::mandatory(features).or(Some("mechanisms")));
                }
                self.outbox.negotiation(now, &say);
                self.state = State::Negotiating(Negotiating { deadline, step });
            }
            Ok(None) => match features::mandatory(features) {
                Some(name) => self.check_mandatory(now, Some(name)),
                None => self.open(now, Some(features)),
            },
            Err(end) => self.end(now, *end),
        }
    }

    /// Where the responder insists on something else, nothing may be said before that is negotiated, least of all in the
    /// clear.
    pub(super) fn check_mandatory(&mut self, now: Instant, mandatory: Option<&str>) {
        let Some(name) = mandatory else { return };
        let text = format!("the feature {name} can't be negotiated here");
        self.send_stream_error(now, DefinedCondition::UnsupportedFeature, &text);
        self.fail(Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(name.to_owned())));
    }

    /// The features will not come, but this has.
    pub(super) fn go_on_without_features(&mut self, now: Instant, offered: &str) {
        if !matches!(self.state, State::FeaturesAwaited(_)) {
            return;
        }
        if self.agenda.is_required() {
            return self.end(now, self.agenda.not_offered(offered));
        }
        self.open(now, None);
    }

    fn open(&mut self, now: Instant, features: Option<&Element>) {
        let State::FeaturesAwaited(FeaturesAwaited { id, end, .. }) = &mut self.state else { return };
        let (id, end) = (id.take(), *end);
        if self.management.is_revival() {
            return self.ask_to_resume(now, features, end, id);
        }
        self.state = State::Open(Open { id });
        match self.management {
            // It was asked for with the header. Whatever the features say, there is an answer to that to come.
            Management::Enabling(_) => {}
            _ if features.is_some_and(features::has_management) => self.ask_to_enable(now),
            _ => self.management = Management::Off,
        }
    }

    /// As initiator: whether this answers what was asked for with the header, before there were any features.
    pub(super) fn is_early_answer(&self, nonza: &Nonza) -> bool {
        matches!(self.state, State::FeaturesAwaited(_))
            && matches!(self.management, Management::Enabling(_))
            && matches!(nonza, Nonza::Enabled { .. } | Nonza::Failed { .. })
    }

    /// Something was read while nothing but the negotiation may be.
    pub(super) fn handle_negotiating(&mut self, now: Instant, read: Result<Decoded, Violation>) {
        let State::Negotiating(Negotiating { step, .. }) = &self.state else { return };
        let is_too_early = match &read {
            Ok(Decoded::Stanza { .. } | Decoded::BadStanza(_)) => self.is_too_early(step),
            // It says nothing yet, so that nobody need be sent away for it.
            Ok(Decoded::Management(_)) => matches!(self.agenda, Agenda::Sasl(_)) && step.is_offer(),
            _ => false,
        };
        if is_too_early {
            return tracing::debug!("dropped what came before the negotiation: it comes again behind that");
        }
        let came = match read {
            Ok(Decoded::Negotiation { element, behind }) => return self.take_turn(now, &element, behind),
            Ok(Decoded::StreamError(error)) => return self.handle_stream_error(now, error),
            Err(violation) => return self.abort(now, violation),
            Ok(Decoded::Footer) => None,
            Ok(other) => Some(name(&other)),
        };
        let State::Negotiating(Negotiating { step, .. }) = &self.state else { return };
        let end = match came {
            Some(name) => step.interrupted(&name),
            None => step.closed(),
        };
        self.end(now, end);
    }

    fn take_turn(&mut self, now: Instant, element: &Element, behind: usize) {
        if self.is_starttls_unasked(element) {
            return self.handle_unasked(now, element);
        }
        // Each way out of here sets the state.
        let unset = State::Failed(super::cut_off());
        let State::Negotiating(Negotiating { deadline, step }) = mem::replace(&mut self.state, unset) else {
            return;
        };
        match step.handle(element, behind) {
            Turn::Wait { say, step } => {
                self.outbox.negotiation(now, &say);
                self.state = State::Negotiating(Negotiating { deadline, step });
            }
            Turn::Done { say, next } => {
                if let Some(say) = say {
                    self.outbox.negotiation(now, &say);
                }
                self.state = State::Negotiated(Negotiated { deadline, next });
            }
            Turn::End(end) => self.end(now, end),
        }
    }

    /// STARTTLS or SASL, on a stream where nobody has offered it.
    pub(super) fn handle_unasked(&mut self, now: Instant, element: &Element) {
        if !self.is_starttls_unasked(element) {
            let (namespace, name) = (element.ns(), element.name());
            tracing::debug!(namespace, name, "skipped an element of a negotiation that there is not");
            return;
        }
        // RFC 6120 §5.4.2.2
        self.outbox.negotiation(now, &starttls_failure());
        self.outbox.footer(now);
        self.fail(PeerMisbehaved::XmlStream("it wants STARTTLS, which was not offered".to_owned()).into());
    }

    fn is_starttls_unasked(&self, element: &Element) -> bool {
        let is_offered =
            matches!(&self.state, State::Negotiating(Negotiating { step: Step::Offered(_), .. }));
        let can_speak = matches!(self.state, State::Negotiating(_) | State::Open(_));
        self.role == Role::Responder && can_speak && !is_offered && element.is("starttls", TLS)
    }

    /// There will be no stream.
    fn end(&mut self, now: Instant, end: End) {
        let End { say, farewell, error } = end;
        tracing::warn!(%error, "the stream could not be negotiated");
        if let Some(say) = say {
            self.outbox.negotiation(now, &say);
        }
        if let Farewell::StreamError(condition, text) = &farewell {
            self.outbox.stream_error(now, condition.clone(), text);
        }
        if !matches!(farewell, Farewell::None) {
            self.outbox.footer(now);
        }
        self.fail(error.into());
    }
}

/// What came, for an error.
fn name(decoded: &Decoded) -> String {
    match decoded {
        Decoded::Stanza { stanza: Stanza::Message(_), .. } => "<message/>".to_owned(),
        Decoded::Stanza { stanza: Stanza::Presence(_), .. } => "<presence/>".to_owned(),
        Decoded::Stanza { stanza: Stanza::Iq(_), .. } => "<iq/>".to_owned(),
        Decoded::BadStanza(bad) => format!("a malformed <{}/>", bad.name),
        Decoded::Features(_) => "<stream:features/>".to_owned(),
        Decoded::Management(_) => "an element of stream management".to_owned(),
        Decoded::Unknown { name, .. } => format!("<{name:.40}/>"),
        Decoded::Negotiation { element, .. } => format!("<{:.40}/>", element.name()),
        Decoded::Header(_) => "a stream header".to_owned(),
        Decoded::StreamError(_) => "a stream error".to_owned(),
        Decoded::Footer => "the end of the stream".to_owned(),
    }
}
