//! SCRAM computed step by step from RFC 5802 §3, without rsasl: peers that may do what they must not.

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;

/// An initiator.
pub(super) struct Client {
    pub(super) mechanism: Mechanism,
    pub(super) gs2_header: &'static str,
    pub(super) name: &'static str,
    pub(super) nonce: &'static str,
    pub(super) secret: Secret,
    pub(super) binding: Binding,
}

impl Client {
    /// One that does as it should.
    pub(super) fn honest(mechanism: Mechanism) -> Self {
        Self {
            mechanism,
            gs2_header: "p=tls-exporter,,",
            name: PEER,
            nonce: "fyko+d2lbbFgONRv9qkxdawL",
            secret: secret(),
            binding: binding(1),
        }
    }

    pub(super) fn first(&self) -> String {
        format!("{}{}", self.gs2_header, self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.name, self.nonce)
    }

    pub(super) fn last(&self, server_first: &str) -> String {
        let nonce = &value(server_first, "r=");
        let without_proof = format!("c={},r={nonce}", self.channel_binding());
        let proof = self
            .computed(server_first)
            .proof(&format!("{},{server_first},{without_proof}", self.first_bare()));
        format!("{without_proof},p={}", BASE64_STANDARD.encode(proof))
    }

    fn channel_binding(&self) -> String {
        let bytes = [self.gs2_header.as_bytes(), self.binding.0.as_slice()].concat();
        BASE64_STANDARD.encode(bytes)
    }

    fn hash(&self) -> Hash {
        Hash::of(self.mechanism).unwrap()
    }

    fn computed(&self, server_first: &str) -> Computed {
        Computed::new(self.hash(), self.secret.as_str(), server_first)
    }
}

/// A responder.
pub(super) struct Server {
    pub(super) mechanism: Mechanism,
    pub(super) nonce: &'static str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: String,
    pub(super) secret: Secret,
}

impl Server {
    /// One that does as it should.
    pub(super) fn honest(mechanism: Mechanism) -> Self {
        Self {
            mechanism,
            nonce: "3rfcNHYJY1ZVvWVs7j",
            salt: b"sixteen bytes of".to_vec(),
            iterations: "4096".to_owned(),
            secret: secret(),
        }
    }

    pub(super) fn first(&self, client_first: &str) -> String {
        let salt = BASE64_STANDARD.encode(&self.salt);
        format!("r={}{},s={salt},i={}", value(client_first, "r="), self.nonce, self.iterations)
    }

    /// Believes the proof, whatever it is.
    pub(super) fn last(&self, client_first: &str, server_first: &str, client_final: &str) -> String {
        let computed = Computed::new(Hash::of(self.mechanism).unwrap(), self.secret.as_str(), server_first);
        let signature = computed.signature(&auth_message(client_first, server_first, client_final));
        format!("v={}", BASE64_STANDARD.encode(signature))
    }
}

/// What both sides sign: the exchange without the proof.
pub(super) fn auth_message(client_first: &str, server_first: &str, client_final: &str) -> String {
    let bare: Vec<_> = client_first.splitn(3, ',').collect();
    let (without_proof, _) = client_final.rsplit_once(",p=").unwrap();
    format!("{},{server_first},{without_proof}", bare[2])
}

/// The keys for an exchange.
pub(super) struct Computed {
    hash: Hash,
    salted: Vec<u8>,
}

impl Computed {
    pub(super) fn new(hash: Hash, secret: &str, server_first: &str) -> Self {
        let salt = BASE64_STANDARD.decode(value(server_first, "s=")).unwrap();
        let iterations = value(server_first, "i=").parse().unwrap();
        Self { hash, salted: hash.salted_password(secret, &salt, iterations).to_vec() }
    }

    pub(super) fn proof(&self, auth_message: &str) -> Vec<u8> {
        let client_key = self.hash.hmac(&self.salted, b"Client Key");
        let algorithm = if self.hash == Hash::Sha256 { &digest::SHA256 } else { &digest::SHA512 };
        let stored_key = digest::digest(algorithm, &client_key);
        let signature = self.hash.hmac(stored_key.as_ref(), auth_message.as_bytes());
        client_key.iter().zip(signature.iter()).map(|(key, signature)| key ^ signature).collect()
    }

    pub(super) fn signature(&self, auth_message: &str) -> Vec<u8> {
        let server_key = self.hash.hmac(&self.salted, b"Server Key");
        self.hash.hmac(&server_key, auth_message.as_bytes()).to_vec()
    }
}

/// The value of an attribute.
pub(super) fn value(message: &str, name: &str) -> String {
    message.split(',').find_map(|part| part.strip_prefix(name)).unwrap().to_owned()
}
