//! The initiator's side: from the wish to connect to a bytestream being opened.

use std::time::Instant;

use jid::{FullJid, Jid};
use xmpp_parsers::{
    disco::DiscoInfoQuery,
    iq::Iq,
    jingle::{Action, Creator, Senders},
    minidom::Element,
    stanza_error::{DefinedCondition, StanzaError},
};

use super::{
    Output, Purpose, Request, Sessions, random_id,
    responder::SESSION,
    security,
    state::{
        Ack, Active, Announced, ContentName, Errand, Farewell, Gathering, Offered, Precondition, Preparing,
        Role, Session, SessionId, State,
    },
};
use crate::{
    ApiMisuse, Candidates, Error, PeerIncompatible, PeerMisbehaved, SecurityError, SignallingError, Start,
    Step, Timeouts, Transports,
    disco::{Lookup, Needs, Support},
    transport::{Offer, Transport, Unfit, When, ibb, s5b::candidate::Gathered},
    wire::{
        errors::{self, JingleCondition},
        jingle::{Content, Jingle},
        ns,
    },
};

/// What we call our content; it means nothing.
const CONTENT_NAME: &str = "xmlstream";

impl Sessions {
    /// Starts towards a session with this peer, who may be shown these addresses; those of the config, if none are given.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        peer: FullJid,
        candidates: Option<Candidates>,
    ) -> Result<SessionId, Error> {
        self.begin(now, peer, candidates, Errand::NewStream)
    }

    pub(super) fn begin(
        &mut self,
        now: Instant,
        peer: FullJid,
        candidates: Option<Candidates>,
        errand: Errand,
    ) -> Result<SessionId, Error> {
        if self.table.is_full() {
            return Err(Error::TooManySessions(self.config.limits.sessions));
        }
        let timeouts = self.config.timeouts;
        let deadline = now + timeouts.online;
        let latest = deadline + timeouts.disco;
        let content = ContentName { creator: Creator::Initiator, name: CONTENT_NAME.to_owned() };
        let state = State::Preparing(Preparing { waits_for: Step::Online, since: now, deadline, latest });
        let candidates = candidates.unwrap_or(self.config.s5b.candidates);
        let mut session = Session::new(peer, Role::Initiator, content, candidates, state);
        session.errand = errand;
        let id = self.table.insert(session);
        self.watch(id);
        self.begin_waiting(now);
        Ok(id)
    }

    /// Takes the next step with every session that waited for the server.
    pub(super) fn begin_waiting(&mut self, now: Instant) {
        if self.bound.is_none() || self.link.is_down() {
            return;
        }
        for id in self.table.ids() {
            let Some(session) = self.table.get(id) else { continue };
            if matches!(session.state, State::Preparing(Preparing { waits_for: Step::Online, .. })) {
                self.find_out(now, id);
            }
        }
    }

    /// XEP-0247 #protocol: first, the initiator determines the responder's capabilities.
    fn find_out(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.table.get(id) else { return };
        if self.bound.as_ref() == Some(&session.peer) {
            let what = "an endpoint can't open a stream to itself".to_owned();
            return self.fail(now, id, ApiMisuse::Config(what).into());
        }
        match self.disco.lookup(&session.peer) {
            Lookup::Known(support) => self.offer(now, id, &support),
            Lookup::Ask { node } => self.ask(now, id, node),
        }
    }

    fn ask(&mut self, now: Instant, id: SessionId, node: Option<String>) {
        let timeout = self.config.timeouts.disco;
        let Some(session) = self.table.get_mut(id) else { return };
        let State::Preparing(Preparing { latest, .. }) = session.state else { return };
        let deadline = latest.min(now + timeout);
        session.state = State::Preparing(Preparing { waits_for: Step::Disco, since: now, deadline, latest });
        let to = Jid::from(session.peer.clone());
        let query = DiscoInfoQuery { node: node.clone() }.into();
        let purpose = Purpose::Disco { session: id, node };
        let iq_id = self.requests.add(Some(to.clone()), purpose, Some((now + timeout, timeout)));
        self.watch(id);
        let iq = Iq::Get { from: None, to: Some(to), id: iq_id, payload: query };
        self.outputs.push_back(Output::Send(iq.into()));
    }

    pub(super) fn handle_disco_reply(
        &mut self,
        now: Instant,
        id: SessionId,
        node: Option<&str>,
        reply: Result<Option<Element>, StanzaError>,
    ) {
        let Some(session) = self.table.get(id) else { return };
        if !matches!(session.state, State::Preparing(_)) {
            return;
        }
        let query = match reply {
            Ok(Some(query)) => query,
            Ok(None) => {
                return self.fail(now, id, PeerMisbehaved::MalformedDisco("an empty answer".into()).into());
            }
            // What the peer announced is out of date, or it does not know its own node (XEP-0115 #discover).
            Err(error) if node.is_some() && error.defined_condition == DefinedCondition::ItemNotFound => {
                return self.ask(now, id, None);
            }
            Err(error) => return self.fail(now, id, refusal(error)),
        };
        match self.disco.handle_answer(&session.peer.clone(), node, &query) {
            Ok(support) => self.offer(now, id, &support),
            Err(what) => self.fail(now, id, PeerMisbehaved::MalformedDisco(what.to_string()).into()),
        }
    }

    /// It is known what the peer can do: with what to begin.
    fn offer(&mut self, now: Instant, id: SessionId, support: &Support) {
        let Some(session) = self.table.get(id) else { return };
        let needs = match support.require(self.without_security(&session.peer).is_err()) {
            Ok(needs) => needs,
            Err(missing) => return self.fail(now, id, Error::PeerIncompatible(missing)),
        };
        if let Some(session) = self.table.get_mut(id) {
            session.needs = Some(needs);
        }
        let missing = |feature: &str| PeerIncompatible::MissingFeature(feature.to_owned());
        let start = self.start_for(id);
        match (self.config.transports, needs) {
            (Transports::Auto, Needs { ibb: Some(_), s5b: false, .. }) => self.offer_ibb(now, id, needs),
            (Transports::Auto, Needs { ibb: Some(_), .. }) if start == Start::Fast => {
                self.offer_ibb(now, id, needs);
                if self.candidates_for(id) != Candidates::None {
                    // For the move; later, the answers would queue behind what is said in band.
                    self.look_for_proxies(now);
                }
            }
            (Transports::Auto | Transports::S5b, Needs { s5b: true, .. }) => {
                let gather = self.gather(now, id);
                if let Some(session) = self.table.get_mut(id) {
                    session.state = State::Gathering(Gathering { needs, gather });
                }
                self.watch(id);
                self.continue_gathering(now, id);
            }
            (Transports::Ibb, Needs { ibb: Some(_), .. }) => self.offer_ibb(now, id, needs),
            (Transports::Auto | Transports::Ibb, _) => {
                self.fail(now, id, Error::PeerIncompatible(missing(ns::JINGLE_IBB)));
            }
            (Transports::S5b, _) => self.fail(now, id, Error::PeerIncompatible(missing(ns::JINGLE_S5B))),
        }
    }

    /// Stanzas wait for a stream to be carried on, and have waited already: it begins on what will carry it.
    pub(super) fn start_for(&self, id: SessionId) -> Start {
        match self.table.get(id).map(|session| session.errand) {
            Some(Errand::Resumption) => Start::Best,
            Some(Errand::NewStream) | None => self.config.start,
        }
    }

    pub(super) fn offer_ibb(&mut self, now: Instant, id: SessionId, needs: Needs) {
        let offer = self.in_band(needs);
        self.initiate(now, id, needs, offer);
    }

    /// An in-band bytestream for a peer that needs this.
    pub(super) fn in_band(&self, needs: Needs) -> Offer {
        let version = needs.ibb.unwrap_or_default();
        Offer::Ibb(ibb::Offer::new(random_id(), version, &self.config.ibb).early_data(needs.early_data))
    }

    pub(super) fn offer_s5b(&mut self, now: Instant, id: SessionId, gathered: &Gathered) {
        let Some(State::Gathering(Gathering { needs, .. })) =
            self.table.get(id).map(|session| &session.state)
        else {
            return;
        };
        let needs = *needs;
        let candidates = match self.candidates_for(id) {
            Candidates::AfterAccept => When::OnceAccepted,
            Candidates::All | Candidates::ProxyOnly | Candidates::None => When::WithTheOffer,
        };
        let timeout = self.config.timeouts.transport;
        if let Some(offer) = self.s5b_offer(id, gathered, timeout, candidates) {
            self.initiate(now, id, needs, Offer::S5b(Box::new(offer)));
        }
    }

    /// XEP-0247 #protocol: session-initiate with the application, the transport, and XTLS.
    fn initiate(&mut self, now: Instant, id: SessionId, needs: Needs, transport: Offer) {
        let Some(own) = self.bound.clone() else { return };
        let bytestream = transport.bytestream_sid().map(ToOwned::to_owned);
        let security = self.precondition(needs.xtls);
        let identity = self.config.tls.identity.clone();
        let Timeouts { accept, transport: unattended, .. } = self.config.timeouts;
        let Some(session) = self.table.get_mut(id) else { return };
        // Nobody is asked about a resumption, so nobody needs time to decide.
        let timeout = match session.errand {
            Errand::NewStream => accept,
            Errand::Resumption => accept.min(unattended),
        };

        session.rename(random_id());
        let span = session.span.clone();
        let _entered = span.enter();
        session.dialect = needs.dialect;
        let mut content = Content::new(Creator::Initiator, CONTENT_NAME)
            .with_child(Element::bare("description", ns::XMLSTREAM))
            .with_child(transport.to_element());
        match security {
            Precondition::Xtls => content = content.with_child(security::announcement(&identity)),
            Precondition::Starttls => {
                tracing::debug!("offering a stream without XTLS: STARTTLS will be required")
            }
            Precondition::Plaintext => tracing::warn!("offering a stream in plaintext"),
        }
        if session.errand == Errand::Resumption {
            content = content.with_resumption();
        }
        tracing::info!(transport = transport.name(), "initiating a session");
        let jingle = Jingle::new(Action::SessionInitiate, session.sid.clone())
            .with_initiator(own)
            .with_content(content);
        session.state = State::Offered(Offered {
            transport,
            security,
            ack: Ack::Awaited,
            since: now,
            deadline: now + timeout,
        });
        self.table.name(id);
        if let Some(bytestream) = bytestream {
            // Reserved from now on, so that no session that the peer starts can take it.
            let is_new = self.table.name_bytestream(id, &bytestream);
            debug_assert!(is_new, "random ids repeat");
        }
        self.watch(id);
        self.send_jingle(now, id, Action::SessionInitiate, jingle);
    }

    /// The reply to one of our Jingle requests.
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        id: SessionId,
        action: Action,
        ack: Result<(), StanzaError>,
    ) {
        match (action, ack) {
            // An item-not-found means that the peer has ended it too, which is as good (XEP-0166 #session-terminate).
            (Action::SessionTerminate, _) if self.table.awaits_farewell(id) => {
                self.end(now, id, None, Farewell::Over);
            }
            (Action::SessionInitiate, Ok(())) => {
                if let Some(State::Offered(offered)) =
                    self.table.get_mut(id).map(|session| &mut session.state)
                {
                    offered.ack = Ack::Received;
                }
            }
            (Action::TransportReplace, Err(error)) => self.replacement_refused(now, id, refusal(error)),
            // The peer has taken its offer back.
            (Action::TransportAccept, Err(_)) => self.give_up_replacement(id),
            (Action::SessionInitiate, Err(error)) if self.refuses_transport(id, &error) => {
                if let Some(needs) = self.may_retry_in_band(id) {
                    self.start_anew(now, id, needs);
                }
            }
            // The peer refused it, so it does not have a session that could be terminated.
            (Action::SessionInitiate | Action::SessionAccept, Err(error)) => {
                self.end(now, id, Some(refusal(error)), Farewell::Over);
            }
            _ => {}
        }
    }

    /// Whether a peer that answers an offer with an error may take one without SOCKS5.
    fn refuses_transport(&self, id: SessionId, error: &StanzaError) -> bool {
        // COMPAT Dino: one candidate that it can't read makes the whole offer a bad-request.
        let conditions = [DefinedCondition::BadRequest, DefinedCondition::FeatureNotImplemented];
        conditions.contains(&error.defined_condition) && self.may_retry_in_band(id).is_some()
    }

    /// XEP-0166 #session-acceptance. The request is answered here.
    pub(super) fn handle_session_accept(
        &mut self,
        now: Instant,
        id: SessionId,
        request: Request,
        jingle: &Jingle,
    ) {
        let Some(session) = self.table.get(id) else { return };
        let State::Offered(offered) = &session.state else {
            return self.refuse(request.from, request.id, errors::out_of_order());
        };
        let precondition = offered.security;
        let checked = check_accept(jingle, &session.content).and_then(|(transport, security)| {
            match (precondition, security) {
                (Precondition::Starttls | Precondition::Plaintext, Some(_)) => {
                    Err("<security/>, which was not offered".to_owned())
                }
                (Precondition::Starttls, None) => Ok((transport, Ok(Announced::Starttls))),
                (Precondition::Plaintext, None) => Ok((transport, Ok(Announced::Nothing))),
                (Precondition::Xtls, _) => {
                    Ok((transport, security::announced(security, self.without_security(&session.peer))))
                }
            }
        });
        let (transport, announced) = match checked {
            Ok((transport, Ok(announced))) => (transport, announced),
            Ok((_, Err(insecure))) => {
                self.acknowledge(request.from, request.id);
                return self.fail(now, id, Error::Security(insecure));
            }
            Err(what) => {
                self.refuse(request.from, request.id, errors::bad_request(what.clone()));
                return self.fail(now, id, PeerMisbehaved::BadAccept(what).into());
            }
        };
        self.activate(now, id, request, transport, announced);
    }

    fn activate(
        &mut self,
        now: Instant,
        id: SessionId,
        request: Request,
        answer: &Element,
        announced: Announced,
    ) {
        let Some(session) = self.table.get_mut(id) else { return };
        let offered = match std::mem::replace(&mut session.state, State::ended()) {
            State::Offered(offered) => offered,
            before => {
                session.state = before;
                return;
            }
        };
        let transport = match offered.transport.accepted(answer, now, &self.config) {
            Ok(transport) => transport,
            Err(Unfit { what, early }) => {
                let error = Error::from(PeerMisbehaved::BadAccept(what.clone()));
                // The peer has accepted, so there is a session to be ended.
                let transport = Transport::Failed { error: error.clone(), deadline: now };
                session.state = State::Active(Active::new(transport, announced));
                self.hang_up_all(early);
                self.refuse(request.from, request.id, errors::bad_request(what));
                return self.fail(now, id, error);
            }
        };
        match announced {
            Announced::Fingerprints(_) => tracing::debug!("the session was accepted"),
            Announced::Starttls => tracing::debug!("the session was accepted; STARTTLS will be required"),
            Announced::Nothing => tracing::warn!("the stream is in plaintext: both servers can read it"),
        }
        let has_xtls = matches!(announced, Announced::Fingerprints(_));
        let choice = session.own_content().with_child(security::choice());
        let info = Jingle::new(Action::SecurityInfo, session.sid.clone()).with_content(choice);
        session.state = State::Active(Active::new(transport, announced));
        self.acknowledge(request.from, request.id);
        // Who accepts an offer has received it, acknowledged or not.
        self.requests.cancel(|purpose| purpose.session() == Some(id));
        if has_xtls {
            // jingle-xtls #proto: it helps the responder to prepare; nothing waits for it.
            self.tell(id, info);
        }
        self.after_transport(now, id);
    }
}

/// Finds what the responder accepted, if it is what was offered.
fn check_accept<'a>(
    jingle: &'a Jingle,
    offered: &ContentName,
) -> Result<(&'a Element, Option<&'a Element>), String> {
    let [content] = jingle.contents.as_slice() else {
        return Err(format!("{} contents where one was offered", jingle.contents.len()));
    };
    if content.name != offered.name || content.creator != offered.creator {
        return Err("a content that was not offered".to_owned());
    }
    if !content.description().is_some_and(|description| description.is("description", ns::XMLSTREAM)) {
        return Err("another application than the offered one".to_owned());
    }
    if content.senders != Senders::Both || content.disposition != SESSION {
        return Err("a content that does not go both ways, or is no part of the session".to_owned());
    }
    let transport = content.transport().ok_or("a content without <transport/>")?;
    Ok((transport, content.security()))
}

/// Whose fault a refused request is.
fn refusal(error: StanzaError) -> Error {
    match error.defined_condition {
        DefinedCondition::ServiceUnavailable
        | DefinedCondition::RecipientUnavailable
        | DefinedCondition::RemoteServerNotFound
        | DefinedCondition::RemoteServerTimeout
        | DefinedCondition::Gone { .. } => Error::Signalling(SignallingError::PeerUnreachable(error.into())),
        DefinedCondition::FeatureNotImplemented => {
            Error::PeerIncompatible(PeerIncompatible::Unsupported("feature-not-implemented".into()))
        }
        DefinedCondition::NotAcceptable
            if JingleCondition::of(&error) == Some(JingleCondition::SecurityRequired) =>
        {
            Error::Security(SecurityError::PeerRefused(Some("it requires security".into())))
        }
        _ => Error::Signalling(SignallingError::Refused(error.into())),
    }
}
