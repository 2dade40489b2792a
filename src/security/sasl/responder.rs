//! The SASL server, who is the responder of the stream.

use std::{mem, num::NonZeroU32};

use aws_lc_rs::rand;
use jid::BareJid;
use rsasl::{
    callback::{Context, Request, SessionCallback, SessionData},
    mechanisms::scram::properties::ScramStoredPassword,
    prelude::{Mechname, SASLConfig, SASLServer, Session, SessionError, Validation},
    validate::{Validate, ValidationError},
};
use zeroize::Zeroizing;

use super::{
    Binding, CHANNEL_BINDINGS_DONT_MATCH, Mechanism, Refusal, Reply, error,
    keys::Hash,
    messages::{
        ServerFinal, Unfit, check_authzid, check_client_final, check_client_first, check_server_first,
    },
    registry,
};
use crate::{error::SecurityError, security::Secret};

/// How often the secret is hashed. More would keep nobody from guessing: a [`Secret`] has 60 bits at least.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();

/// Random bytes, new for every exchange, so that what was computed for one is useless for another.
const SALT_BYTES: usize = 16;

/// Has the initiator prove who it is, and proves the same.
pub(crate) struct Responder {
    peer: BareJid,
    state: State,
}

enum State {
    /// client-first-message is to come.
    Start(Exchange),
    /// client-final-message is to come.
    Begun(Begun),
    /// There is nothing to prove but the certificate.
    External,
    /// It came to an end, either one. rsasl panics if it is used then.
    Over,
}

struct Begun {
    exchange: Exchange,
    /// Of this exchange: what the initiator chose, and what we did.
    nonce: String,
}

impl Responder {
    /// `peer` is who the stream is with.
    pub(crate) fn scram(
        mechanism: Mechanism,
        peer: &BareJid,
        secret: &Secret,
        binding: &Binding,
    ) -> Result<Self, SecurityError> {
        let exchange = Exchange::new(mechanism, secret, binding)
            .map_err(|why| error(peer, format!("{} can't be begun: {why}", mechanism.name())))?;
        Ok(Self { peer: peer.clone(), state: State::Start(exchange) })
    }

    /// `peer` is who the stream is with.
    pub(crate) fn external(peer: &BareJid) -> Self {
        Self { peer: peer.clone(), state: State::External }
    }

    /// What is in `<auth/>` or `<response/>` came.
    pub(crate) fn step(&mut self, response: &[u8]) -> Result<Reply, Refusal> {
        match mem::replace(&mut self.state, State::Over) {
            State::Start(exchange) => {
                let (begun, challenge) = self.begin(exchange, response)?;
                self.state = State::Begun(begun);
                Ok(Reply::Challenge(challenge))
            }
            State::Begun(begun) => self.verify(begun, response).map(|proof| Reply::Success(Some(proof))),
            State::External => self.check_identity(response).map(|()| Reply::Success(None)),
            State::Over => Err(self.malformed("the exchange is over, and a response came")),
        }
    }

    /// Returns server-first-message, too.
    fn begin(&self, mut exchange: Exchange, client_first: &[u8]) -> Result<(Begun, Vec<u8>), Refusal> {
        check_client_first(client_first, &self.peer).map_err(|unfit| self.unfit(unfit))?;
        let challenge = exchange.step(client_first).map_err(|failed| self.unsteppable(&failed))?;
        let nonce = check_server_first(&challenge).map_err(|unfit| self.unfit(unfit))?.to_owned();
        Ok((Begun { exchange, nonce }, challenge))
    }

    /// Returns server-final-message, if the initiator knows the secret.
    fn verify(&self, begun: Begun, client_final: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Begun { mut exchange, nonce: expected } = begun;
        let nonce = check_client_final(client_final, exchange.hash).map_err(|unfit| self.unfit(unfit))?;
        let server_final = exchange.step(client_final).map_err(|failed| self.unsteppable(&failed))?;
        // rsasl finishes in good order after a wrong proof, too; only after a right one it asks for validation.
        if let Some(Proved) = exchange.session.validation() {
            return Ok(server_final);
        }
        let peer = self.peer.clone();
        let error = match ServerFinal::read(&server_final, exchange.hash) {
            Ok(ServerFinal::Error(CHANNEL_BINDINGS_DONT_MATCH)) => SecurityError::ChannelBinding { peer },
            _ if nonce != expected => error(
                &peer,
                "expected a proof for this exchange, and one for another came: somebody repeats what was said before",
            ),
            _ => SecurityError::SecretMismatch { peer },
        };
        Err(Refusal { condition: "not-authorized", error })
    }

    /// EXTERNAL (RFC 4422 appendix A): the certificate says who the peer is, and at most it says so, too.
    fn check_identity(&self, authzid: &[u8]) -> Result<(), Refusal> {
        if authzid.is_empty() {
            return Ok(());
        }
        let authzid = std::str::from_utf8(authzid)
            .map_err(|_| self.malformed("the authorization identity is not UTF-8"))?;
        check_authzid(authzid, &self.peer).map_err(|unfit| self.unfit(unfit))
    }

    fn unfit(&self, unfit: Unfit) -> Refusal {
        Refusal { condition: unfit.condition, error: error(&self.peer, unfit.why) }
    }

    fn unsteppable(&self, failed: &SessionError) -> Refusal {
        self.malformed(failed.to_string())
    }

    fn malformed(&self, why: impl Into<String>) -> Refusal {
        Refusal { condition: "malformed-request", error: error(&self.peer, why) }
    }
}

/// A SCRAM exchange under way.
struct Exchange {
    hash: Hash,
    session: Session<Proved, Binding>,
}

impl Exchange {
    fn new(mechanism: Mechanism, secret: &Secret, binding: &Binding) -> Result<Self, String> {
        let hash = Hash::of(mechanism).ok_or("it is no SCRAM")?;
        let verifier = Verifier::new(hash, secret).ok_or("the system gives no random numbers")?;
        let config = SASLConfig::builder().with_registry(registry()).with_callback(verifier);
        let sasl = SASLServer::with_cb(config.map_err(|error| error.to_string())?, binding.clone());
        let name = Mechname::parse(mechanism.name().as_bytes()).map_err(|error| error.to_string())?;
        let session = sasl.start_suggested(name).map_err(|error| error.to_string())?;
        Ok(Self { hash, session })
    }

    /// After an error, or at the end, it must not be used again.
    fn step(&mut self, input: &[u8]) -> Result<Vec<u8>, SessionError> {
        let mut output = Vec::new();
        self.session.step(Some(input), &mut output)?;
        Ok(output)
    }
}

/// The initiator knows the secret.
struct Proved;

impl Validation for Proved {
    type Value = Self;
}

/// What rsasl asks us. It compares the stored key without care for the time that takes, which tells nobody anything:
/// the key is a hash of what would have to be guessed.
struct Verifier {
    salt: [u8; SALT_BYTES],
    stored_key: Zeroizing<Vec<u8>>,
    server_key: Zeroizing<Vec<u8>>,
}

impl Verifier {
    fn new(hash: Hash, secret: &Secret) -> Option<Self> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let salted = hash.salted_password(secret.as_str(), &salt, ITERATIONS);
        Some(Self { salt, stored_key: hash.stored_key(&salted), server_key: hash.server_key(&salted) })
    }
}

impl SessionCallback for Verifier {
    fn callback(
        &self,
        _session: &SessionData,
        _context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        let stored =
            ScramStoredPassword::new(ITERATIONS.get(), &self.salt, &self.stored_key, &self.server_key);
        request.satisfy::<ScramStoredPassword<'_>>(&stored)?;
        Ok(())
    }

    fn validate(
        &self,
        _session: &SessionData,
        _context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        validate.finalize::<Proved>(Proved);
        Ok(())
    }
}
