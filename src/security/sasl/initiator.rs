//! The SASL client, who is the initiator of the stream.

use std::{mem, num::NonZeroU32};

use jid::BareJid;
use rsasl::{
    callback::{Context, Request, SessionCallback, SessionData},
    mechanisms::scram::properties::{Iterations, Salt, SaltedPassword},
    prelude::{Mechname, SASLClient, SASLConfig, Session, SessionError},
    property::AuthId,
    validate::NoValidation,
};

use super::{
    Binding, CHANNEL_BINDINGS_DONT_MATCH, INVALID_PROOF, Mechanism, error,
    keys::Hash,
    messages::{ServerFinal, Unfit, check_server_first, client_first_nonce, shown},
    registry,
};
use crate::{error::SecurityError, security::Secret};

/// Proves to the responder who we are, and has it prove the same.
pub(crate) struct Initiator {
    peer: BareJid,
    state: State,
}

enum State {
    /// Nothing is said yet.
    Start(Exchange),
    /// client-first-message is.
    Begun(Begun),
    /// client-final-message is: the responder knows that we know the secret.
    Proved(Exchange),
    /// The responder, too, proved that it knows the secret; `<success/>` is still to come.
    Verified,
    /// There is nothing to prove but the certificate.
    External,
    /// Something was wrong. rsasl panics if it is used then.
    Over,
}

struct Begun {
    exchange: Exchange,
    /// What we chose; the responder's goes on from it.
    nonce: String,
}

impl Initiator {
    /// `local` is who we say we are: our bare JID; `peer`, whom the stream is with.
    pub(crate) fn scram(
        mechanism: Mechanism,
        local: &BareJid,
        peer: &BareJid,
        secret: &Secret,
        binding: &Binding,
    ) -> Result<Self, SecurityError> {
        let exchange = Exchange::new(mechanism, local, secret, binding)
            .map_err(|why| error(peer, format!("{} can't be begun: {why}", mechanism.name())))?;
        Ok(Self { peer: peer.clone(), state: State::Start(exchange) })
    }

    /// `peer` is whom the stream is with.
    pub(crate) fn external(peer: &BareJid) -> Self {
        Self { peer: peer.clone(), state: State::External }
    }

    /// What goes into `<auth/>`; empty is `=` on the wire.
    pub(crate) fn initial_response(&mut self) -> Result<Vec<u8>, SecurityError> {
        match mem::replace(&mut self.state, State::Over) {
            State::Start(mut exchange) => {
                let message = exchange.step(None).map_err(|failed| self.unsteppable(&failed))?;
                let nonce = client_first_nonce(&message).map_err(|unfit| self.unfit(unfit))?.to_owned();
                self.state = State::Begun(Begun { exchange, nonce });
                Ok(message)
            }
            State::External => {
                self.state = State::External;
                Ok(Vec::new())
            }
            _ => Err(self.error("the initial response was sent before")),
        }
    }

    /// The answer to a `<challenge/>`.
    pub(crate) fn challenge(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SecurityError> {
        match mem::replace(&mut self.state, State::Over) {
            State::Begun(begun) => {
                let (exchange, message) = self.prove(begun, challenge)?;
                self.state = State::Proved(exchange);
                Ok(message)
            }
            // RFC 6120 §6.4.5: the last message may come with `<success/>`, or before it.
            State::Proved(exchange) => {
                self.verify(exchange, challenge)?;
                self.state = State::Verified;
                Ok(Vec::new())
            }
            State::Start(_) | State::Verified | State::External | State::Over => {
                Err(self.error("expected success or failure, and a challenge came"))
            }
        }
    }

    /// `<success/>` came, with this inside. Only `Ok` if the responder proved that it knows the secret, too.
    pub(crate) fn success(mut self, additional: Option<&[u8]>) -> Result<(), SecurityError> {
        let additional = additional.filter(|additional| !additional.is_empty());
        match (mem::replace(&mut self.state, State::Over), additional) {
            (State::Verified | State::External, None) => Ok(()),
            (State::Proved(exchange), Some(server_final)) => self.verify(exchange, server_final),
            (State::Proved(_), None) => {
                Err(self.error("expected a proof with <success/> that it knows the secret, and none came"))
            }
            (State::Verified | State::External, Some(_)) => {
                Err(self.error("expected nothing inside of <success/>, and something came"))
            }
            (State::Start(_) | State::Begun(_) | State::Over, _) => Err(self.error(
                "expected a challenge, and <success/> came: it let us in without a proof, and gave none itself",
            )),
        }
    }

    /// `<failure/>` came, with this condition, and perhaps a text: what it means for us.
    pub(crate) fn failure(self, condition: &str, text: Option<&str>) -> SecurityError {
        match (&self.state, condition, text) {
            (State::Proved(_), "not-authorized", Some(CHANNEL_BINDINGS_DONT_MATCH)) => {
                SecurityError::ChannelBinding { peer: self.peer }
            }
            (State::Proved(_), "not-authorized", _) => SecurityError::SecretMismatch { peer: self.peer },
            (_, condition, None) => self.error(format!("it refuses us: {}", shown(condition))),
            (_, condition, Some(text)) => {
                self.error(format!("it refuses us: {} ({})", shown(condition), shown(text)))
            }
        }
    }

    /// Returns client-final-message, too.
    fn prove(&self, begun: Begun, server_first: &[u8]) -> Result<(Exchange, Vec<u8>), SecurityError> {
        let Begun { mut exchange, nonce: ours } = begun;
        let nonce = check_server_first(server_first).map_err(|unfit| self.unfit(unfit))?;
        if nonce.strip_prefix(&ours).is_none_or(str::is_empty) {
            return Err(self.error(
                "expected a nonce that goes on from ours, and another came: somebody repeats what was said before",
            ));
        }
        let message = exchange.step(Some(server_first)).map_err(|failed| self.unsteppable(&failed))?;
        Ok((exchange, message))
    }

    /// Whether the responder knows the secret. rsasl does not compare in constant time, and need not: each
    /// signature is good once, and a wrong one ends the exchange.
    fn verify(&self, mut exchange: Exchange, server_final: &[u8]) -> Result<(), SecurityError> {
        match ServerFinal::read(server_final, exchange.hash).map_err(|unfit| self.unfit(unfit))? {
            ServerFinal::Verifier => match exchange.step(Some(server_final)) {
                Ok(_) => Ok(()),
                Err(SessionError::MutualAuthenticationFailed) => Err(self.mismatch()),
                Err(failed) => Err(self.unsteppable(&failed)),
            },
            ServerFinal::Error(CHANNEL_BINDINGS_DONT_MATCH) => {
                Err(SecurityError::ChannelBinding { peer: self.peer.clone() })
            }
            ServerFinal::Error(INVALID_PROOF) => Err(self.mismatch()),
            ServerFinal::Error(other) => Err(self.error(format!("it refuses our proof: {}", shown(other)))),
        }
    }

    fn mismatch(&self) -> SecurityError {
        SecurityError::SecretMismatch { peer: self.peer.clone() }
    }

    fn unfit(&self, unfit: Unfit) -> SecurityError {
        self.error(unfit.why)
    }

    fn unsteppable(&self, failed: &SessionError) -> SecurityError {
        self.error(failed.to_string())
    }

    fn error(&self, why: impl Into<String>) -> SecurityError {
        error(&self.peer, why)
    }
}

/// A SCRAM exchange under way.
struct Exchange {
    hash: Hash,
    session: Session<NoValidation, Binding>,
}

impl Exchange {
    fn new(
        mechanism: Mechanism,
        local: &BareJid,
        secret: &Secret,
        binding: &Binding,
    ) -> Result<Self, String> {
        let hash = Hash::of(mechanism).ok_or("it is no SCRAM")?;
        let prover = Prover { hash, local: local.to_string(), secret: secret.clone() };
        let config = SASLConfig::builder().with_registry(registry()).with_callback(prover);
        let sasl = SASLClient::with_cb(config.map_err(|error| error.to_string())?, binding.clone());
        let name = Mechname::parse(mechanism.name().as_bytes()).map_err(|error| error.to_string())?;
        let session = sasl.start_suggested(&[name]).map_err(|error| error.to_string())?;
        Ok(Self { hash, session })
    }

    /// After an error it must not be used again.
    fn step(&mut self, input: Option<&[u8]>) -> Result<Vec<u8>, SessionError> {
        let mut output = Vec::new();
        self.session.step(input, &mut output)?;
        Ok(output)
    }
}

/// What rsasl asks us.
struct Prover {
    hash: Hash,
    local: String,
    secret: Secret,
}

impl SessionCallback for Prover {
    fn callback(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request.satisfy::<AuthId>(&self.local)?;
        if !request.is::<SaltedPassword>() {
            return Ok(());
        }
        let iterations = context.get_ref::<Iterations>().copied().and_then(NonZeroU32::new);
        if let (Some(salt), Some(iterations)) = (context.get_ref::<Salt>(), iterations) {
            let salted = self.hash.salted_password(self.secret.as_str(), salt, iterations);
            request.satisfy::<SaltedPassword>(&salted)?;
        }
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}
