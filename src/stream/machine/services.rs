//! What the stream answers by itself, whether anybody receives or not: pings, verification codes, certificates.

use std::time::Instant;

use futures::channel::oneshot;
use xmpp_parsers::{
    iq::{Iq, IqPayload},
    minidom::Element,
    stanza::Stanza,
    stanza_error::{DefinedCondition, StanzaError},
};

use super::{Channel, Machine, Role};
use crate::{
    Error, SecurityError,
    error::stanza_error,
    security::{
        Certificate, VerificationCode,
        code::{Answer, Basis, Exchange},
        pubkeys,
    },
    wire::{code::CodeElement, errors, ns, pubkeys::Dialect},
};

/// Where a code arrives that the user waits for.
pub(crate) type CodeReceiver = oneshot::Receiver<Result<VerificationCode, Error>>;

/// What is there only on an encrypted stream.
#[derive(Debug)]
pub(super) enum Services {
    Plain,
    Encrypted(Encrypted),
}

#[derive(Debug)]
pub(super) struct Encrypted {
    own: Certificate,
    exchange: Exchange,
    /// The id of the request whose reply the exchange waits for.
    pending: Option<String>,
    /// When to give up on a code that is not there; set once something is waited for.
    deadline: Option<Instant>,
    /// The local user's calls that have not got the code.
    waiting: Vec<oneshot::Sender<Result<VerificationCode, Error>>>,
}

impl Services {
    pub(super) fn new(role: Role, channel: Option<&Channel>) -> Self {
        let Some(Channel { code_key, own, peer }) = channel.cloned() else { return Self::Plain };
        let key = code_key;
        let exchange = match role {
            Role::Initiator => Exchange::initiator(Basis { key, initiator: own.clone(), responder: peer }),
            Role::Responder => Exchange::responder(Basis { key, initiator: peer, responder: own.clone() }),
        };
        Self::Encrypted(Encrypted { own, exchange, pending: None, deadline: None, waiting: Vec::new() })
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.encrypted()?.deadline
    }

    /// Gives up on a code whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        if let Self::Encrypted(encrypted) = self
            && encrypted.deadline.is_some_and(|deadline| deadline <= now)
        {
            encrypted.exchange.give_up("the peer did not do its part in time");
            encrypted.tell();
        }
    }

    /// Nothing more will come.
    pub(super) fn fail_all(&mut self, error: &Error) {
        if let Self::Encrypted(encrypted) = self {
            encrypted.deadline = None;
            for waiting in encrypted.waiting.drain(..) {
                let _ = waiting.send(Err(error.clone()));
            }
        }
    }

    /// A reply came that does not follow its schema.
    pub(super) fn malformed(&mut self, id: &str, why: &str) {
        if let Self::Encrypted(encrypted) = self
            && encrypted.pending.as_deref() == Some(id)
        {
            encrypted.pending = None;
            encrypted.exchange.give_up(format!("the peer's answer can't be read: {why}"));
            encrypted.tell();
        }
    }

    fn encrypted(&self) -> Option<&Encrypted> {
        match self {
            Self::Plain => None,
            Self::Encrypted(encrypted) => Some(encrypted),
        }
    }
}

impl Encrypted {
    /// Hands out what is known.
    fn tell(&mut self) {
        let Some(outcome) = self.exchange.outcome() else { return };
        self.deadline = None;
        for waiting in self.waiting.drain(..) {
            // Whoever dropped its future does not want to know.
            let _ = waiting.send(outcome.clone().map_err(Error::from));
        }
    }

    fn handle_reply(&mut self, reply: IqPayload) -> Option<CodeElement> {
        let then = match reply {
            IqPayload::Result(payload) => match payload.as_ref().map(CodeElement::parse).transpose() {
                Ok(element) => self.exchange.handle_result(element),
                Err(why) => {
                    self.exchange.give_up(format!("the peer's answer can't be read: {why}", why = why.0));
                    None
                }
            },
            IqPayload::Error(error) => {
                self.exchange.handle_refusal(refusal(&error));
                None
            }
            IqPayload::Get(_) | IqPayload::Set(_) => None,
        };
        self.tell();
        then
    }
}

/// What the peer gets for a request.
#[derive(Default)]
struct Served {
    payload: Option<Element>,
    /// What we ask of it after that.
    then: Option<CodeElement>,
}

fn refusal(error: &StanzaError) -> String {
    match error.defined_condition {
        DefinedCondition::ServiceUnavailable | DefinedCondition::FeatureNotImplemented => {
            "the peer does not know of codes".to_owned()
        }
        _ => format!("the peer refused with {}", stanza_error(error)),
    }
}

impl Machine {
    /// Answers a request that is not for the user; gives back all others.
    pub(super) fn serve(&mut self, now: Instant, request: Iq) -> Option<Iq> {
        let served = match &request {
            Iq::Get { payload, .. } if CodeElement::matches(payload) => {
                self.serve_code(payload, |element| matches!(element, CodeElement::Request))
            }
            Iq::Set { payload, .. } if CodeElement::matches(payload) => self.serve_code(payload, |element| {
                matches!(element, CodeElement::Commitment(_) | CodeElement::Reveal(_))
            }),
            // XEP-0199 #e2e
            Iq::Get { payload, .. } if payload.is("ping", ns::PING) => Ok(Served::default()),
            Iq::Get { payload, .. } => match Dialect::of(payload) {
                Some(dialect) => self.serve_certificates(dialect),
                None => return Some(request),
            },
            _ => return Some(request),
        };
        let id = request.id().to_owned();
        match served {
            Ok(Served { payload, then }) => {
                self.answer(now, Iq::Result { from: None, to: None, id, payload });
                self.ask_for_code(now, then);
            }
            Err(error) => self.answer(now, Iq::from_error(id, *error)),
        }
        None
    }

    fn serve_certificates(&self, dialect: Dialect) -> Result<Served, Box<StanzaError>> {
        match self.services.encrypted() {
            Some(encrypted) => {
                Ok(Served { payload: Some(pubkeys::answer(dialect, &encrypted.own)), then: None })
            }
            // `jingle-xtls` #exchange: nobody may ask without encryption (RFC 6120 §8.3.3.10).
            None => Err(errors::not_allowed("certificates are for encrypted streams only").into()),
        }
    }

    /// `fits` says what an iq of this type may carry.
    fn serve_code(
        &mut self,
        payload: &Element,
        fits: impl FnOnce(&CodeElement) -> bool,
    ) -> Result<Served, Box<StanzaError>> {
        let Services::Encrypted(encrypted) = &mut self.services else {
            return Err(errors::service_unavailable().into());
        };
        let element = CodeElement::parse(payload).map_err(|why| errors::bad_request(why.0))?;
        if !fits(&element) {
            let what = "<request/> is of type get, <commitment/> and <reveal/> are of type set";
            return Err(errors::bad_request(what).into());
        }
        let answer = encrypted.exchange.handle_request(element);
        encrypted.tell();
        let Answer { result, then } = answer.map_err(errors::not_allowed)?;
        Ok(Served { payload: result.map(|element| element.to_element()), then })
    }

    /// Hands the reply to a request of our own to whoever waits for it; gives back all others.
    pub(super) fn handle_own_reply(&mut self, now: Instant, reply: Iq) -> Option<Iq> {
        let Services::Encrypted(encrypted) = &mut self.services else { return Some(reply) };
        if encrypted.pending.as_deref() != Some(reply.id()) {
            return Some(reply);
        }
        encrypted.pending = None;
        let then = encrypted.handle_reply(reply.into_payload());
        self.ask_for_code(now, then);
        None
    }

    fn ask_for_code(&mut self, now: Instant, element: Option<CodeElement>) {
        let is_open = self.is_open();
        let Services::Encrypted(encrypted) = &mut self.services else { return };
        let Some(element) = element else { return encrypted.tell() };
        if !is_open {
            // Our footer is sent.
            encrypted.exchange.give_up("the stream is being closed");
            return encrypted.tell();
        }
        let id = self.replies.new_id();
        encrypted.pending = Some(id.clone());
        encrypted.deadline.get_or_insert(now + self.timeouts.iq);
        let payload = element.to_element();
        let iq = match element {
            CodeElement::Request => Iq::Get { from: None, to: None, id, payload },
            _ => Iq::Set { from: None, to: None, id, payload },
        };
        self.say_by_itself(now, Stanza::Iq(iq));
    }

    /// The local user wants the verification code; it will come out of the receiver.
    pub(crate) fn verification_code(&mut self, now: Instant) -> Result<CodeReceiver, Error> {
        let is_open = self.check_open();
        let Services::Encrypted(encrypted) = &mut self.services else { return Err(not_encrypted().into()) };
        let (sender, receiver) = oneshot::channel();
        encrypted.waiting.retain(|waiting| !waiting.is_canceled());
        encrypted.waiting.push(sender);
        encrypted.tell();
        if encrypted.exchange.outcome().is_some() {
            return Ok(receiver);
        }
        is_open?;
        encrypted.deadline.get_or_insert(now + self.timeouts.iq);
        let element = encrypted.exchange.begin();
        self.ask_for_code(now, element);
        Ok(receiver)
    }

    /// The local user has got the code.
    pub(crate) fn handle_code_shown(&mut self) {
        if let Services::Encrypted(encrypted) = &mut self.services {
            encrypted.exchange.handle_shown();
        }
    }

    /// Whether there is a code that the user can have compared.
    pub(crate) fn check_code_shown(&self) -> Result<(), SecurityError> {
        match self.services.encrypted() {
            None => Err(not_encrypted()),
            Some(encrypted) if encrypted.exchange.is_shown() => Ok(()),
            Some(_) => Err(SecurityError::NoCode(
                "none was shown on this stream, so none can have been compared: call verification_code first"
                    .to_owned(),
            )),
        }
    }
}

fn not_encrypted() -> SecurityError {
    SecurityError::NoCode("the stream is not encrypted".to_owned())
}
