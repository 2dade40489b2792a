//! The server's side of SASL: PLAIN and SCRAM (RFC 4616, RFC 5802). Sans-IO.
//!
//! SCRAM is written here because `sasl::server` refuses clients that do not do channel binding at all (`n,,`).

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use sasl::common::{
    Password,
    scram::{ScramProvider, Sha1, Sha256, generate_nonce},
};
use xmpp_parsers::sasl::{DefinedCondition, Mechanism};

use crate::PASSWORD;

/// All accounts have one password, and so may have one salt.
const SALT: &[u8] = b"mock-server salt";

/// The least that RFC 7677 allows.
const ITERATIONS: u32 = 4096;

static SALTED_SHA_1: LazyLock<Option<Vec<u8>>> = LazyLock::new(salted::<Sha1>);
static SALTED_SHA_256: LazyLock<Option<Vec<u8>>> = LazyLock::new(salted::<Sha256>);

fn salted<H: ScramProvider>() -> Option<Vec<u8>> {
    H::derive(&Password::Plain(PASSWORD.to_owned()), SALT, ITERATIONS).ok()
}

/// What the server says to a client's step.
#[derive(Debug)]
pub(crate) enum Step {
    /// Ask on.
    Challenge(Vec<u8>, Exchange),
    /// The client is who it says; the data goes with `<success/>`.
    Success { username: String, data: Vec<u8> },
}

/// Answers `<auth/>`.
pub(crate) fn start(mechanism: &Mechanism, initial: &[u8]) -> Result<Step, DefinedCondition> {
    match mechanism {
        Mechanism::Plain => plain(initial),
        Mechanism::ScramSha1 => Exchange::start(Hash::Sha1, initial),
        Mechanism::ScramSha256 => Exchange::start(Hash::Sha256, initial),
        _ => Err(DefinedCondition::InvalidMechanism),
    }
}

fn plain(message: &[u8]) -> Result<Step, DefinedCondition> {
    let message = std::str::from_utf8(message).map_err(|_| DefinedCondition::MalformedRequest)?;
    let mut parts = message.split('\0');
    let (Some(_authzid), Some(username), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(DefinedCondition::MalformedRequest);
    };
    if password != PASSWORD {
        return Err(DefinedCondition::NotAuthorized);
    }
    Ok(Step::Success { username: username.to_owned(), data: Vec::new() })
}

#[derive(Clone, Copy, Debug)]
enum Hash {
    Sha1,
    Sha256,
}

/// A SCRAM exchange after the server's first message.
#[derive(Debug)]
pub(crate) struct Exchange {
    hash: Hash,
    username: String,
    gs2_header: String,
    nonce: String,
    client_first_bare: String,
    server_first: String,
}

impl Exchange {
    fn start(hash: Hash, client_first: &[u8]) -> Result<Step, DefinedCondition> {
        let malformed = || DefinedCondition::MalformedRequest;
        let message = std::str::from_utf8(client_first).map_err(|_| malformed())?;
        // gs2-cbind-flag "," [authzid] "," client-first-message-bare
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        // "p=…" would be channel binding, which is not offered here.
        if flag != "n" && flag != "y" {
            return Err(malformed());
        }
        let username = attribute(bare, "n=").ok_or_else(malformed)?.replace("=2C", ",").replace("=3D", "=");
        let client_nonce = attribute(bare, "r=").ok_or_else(malformed)?;
        let own_nonce = generate_nonce().map_err(|_| DefinedCondition::TemporaryAuthFailure)?;
        let nonce = format!("{client_nonce}{own_nonce}");
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(SALT));
        let challenge = server_first.clone().into_bytes();
        let exchange = Self {
            hash,
            username,
            gs2_header: format!("{flag},{authzid},"),
            nonce,
            client_first_bare: bare.to_owned(),
            server_first,
        };
        Ok(Step::Challenge(challenge, exchange))
    }

    /// Answers `<response/>`: verifies the client's proof.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<Step, DefinedCondition> {
        let message = std::str::from_utf8(client_final).map_err(|_| DefinedCondition::MalformedRequest)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(DefinedCondition::MalformedRequest)?;
        let proof = BASE64.decode(proof).map_err(|_| DefinedCondition::IncorrectEncoding)?;
        if attribute(without_proof, "c=") != Some(BASE64.encode(&self.gs2_header).as_str())
            || attribute(without_proof, "r=") != Some(self.nonce.as_str())
        {
            return Err(DefinedCondition::NotAuthorized);
        }
        let auth_message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let verified = match self.hash {
            Hash::Sha1 => verify::<Sha1>(SALTED_SHA_1.as_deref(), &auth_message, &proof),
            Hash::Sha256 => verify::<Sha256>(SALTED_SHA_256.as_deref(), &auth_message, &proof),
        };
        let signature = verified.ok_or(DefinedCondition::NotAuthorized)?;
        let data = format!("v={}", BASE64.encode(signature)).into_bytes();
        Ok(Step::Success { username: self.username, data })
    }
}

/// The server's signature if the proof is right (RFC 5802, 3).
fn verify<H: ScramProvider>(salted: Option<&[u8]>, auth_message: &str, proof: &[u8]) -> Option<Vec<u8>> {
    let salted = salted?;
    let client_key = H::hmac(b"Client Key", salted).ok()?;
    let signature = H::hmac(auth_message.as_bytes(), &H::hash(&client_key)).ok()?;
    let expected: Vec<u8> = client_key.iter().zip(&signature).map(|(key, sig)| key ^ sig).collect();
    if expected != proof {
        return None;
    }
    let server_key = H::hmac(b"Server Key", salted).ok()?;
    H::hmac(auth_message.as_bytes(), &server_key).ok()
}

fn attribute<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sasl::{
        client::{Mechanism as _, mechanisms::Scram},
        common::{ChannelBinding, Credentials},
    };

    fn scram<H: ScramProvider>(
        mechanism: Mechanism,
        password: &str,
        binding: ChannelBinding,
    ) -> Result<Step, DefinedCondition> {
        let credentials = Credentials::default()
            .with_username("romeo")
            .with_password(password)
            .with_channel_binding(binding);
        let mut client = Scram::<H>::from_credentials(credentials).unwrap();
        let Step::Challenge(challenge, exchange) = start(&mechanism, &client.initial())? else {
            panic!("SCRAM has a challenge");
        };
        let step = exchange.finish(&client.response(&challenge).unwrap())?;
        if let Step::Success { data, .. } = &step {
            client.success(data).expect("the client verifies the server's signature");
        }
        Ok(step)
    }

    #[test]
    fn scram_works_whatever_a_client_thinks_of_channel_binding() {
        for binding in [ChannelBinding::None, ChannelBinding::Unsupported] {
            let step = scram::<Sha256>(Mechanism::ScramSha256, PASSWORD, binding.clone()).unwrap();
            assert!(matches!(step, Step::Success { username, .. } if username == "romeo"));
            assert!(scram::<Sha1>(Mechanism::ScramSha1, PASSWORD, binding).is_ok());
        }
    }

    #[test]
    fn a_name_with_separators_is_unescaped() {
        let step = start(&Mechanism::ScramSha256, b"n,,n=ro=2Cm=3Deo,r=nonce").unwrap();
        assert!(matches!(step, Step::Challenge(_, exchange) if exchange.username == "ro,m=eo"));
    }

    #[test]
    fn a_wrong_password_is_not_authorized() {
        let wrong = scram::<Sha256>(Mechanism::ScramSha256, "guess", ChannelBinding::None);
        assert_eq!(wrong.unwrap_err(), DefinedCondition::NotAuthorized);
        assert_eq!(plain(b"\0romeo\0guess").unwrap_err(), DefinedCondition::NotAuthorized);
        assert!(plain(b"\0romeo\0secret").is_ok());
    }

    #[test]
    fn garbage_is_a_malformed_request() {
        for garbage in [&b""[..], b"n", b"n,,", b"p=tls-unique,,n=a,r=b", b"\xff\xff,,"] {
            let refused = start(&Mechanism::ScramSha256, garbage).unwrap_err();
            assert_eq!(refused, DefinedCondition::MalformedRequest);
        }
        assert_eq!(plain(b"romeo").unwrap_err(), DefinedCondition::MalformedRequest);
    }
}
