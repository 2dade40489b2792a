//! What SCRAM derives from a secret (RFC 5802 §3). It is done here, not by rsasl, whose PBKDF2 takes seconds in a
//! debug build.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::Mechanism;

/// The hash function of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    pub(super) fn of(mechanism: Mechanism) -> Option<Self> {
        match mechanism {
            Mechanism::ScramSha512Plus => Some(Self::Sha512),
            Mechanism::ScramSha256Plus => Some(Self::Sha256),
            Mechanism::External => None,
        }
    }

    /// The length of its output in bytes: of keys, proofs and signatures.
    pub(super) fn len(self) -> usize {
        self.digest().output_len()
    }

    /// SaltedPassword. There is nothing for SASLprep to do: secrets are printable ASCII.
    pub(super) fn salted_password(
        self,
        secret: &str,
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Zeroizing<Vec<u8>> {
        let mut salted = Zeroizing::new(vec![0; self.len()]);
        pbkdf2::derive(self.pbkdf2(), iterations, salt, secret.as_bytes(), &mut salted);
        salted
    }

    /// StoredKey: the hash of ClientKey, by which the responder knows it.
    pub(super) fn stored_key(self, salted_password: &[u8]) -> Zeroizing<Vec<u8>> {
        let client_key = self.hmac(salted_password, b"Client Key");
        Zeroizing::new(digest::digest(self.digest(), &client_key).as_ref().to_vec())
    }

    /// ServerKey, with which the responder signs.
    pub(super) fn server_key(self, salted_password: &[u8]) -> Zeroizing<Vec<u8>> {
        self.hmac(salted_password, b"Server Key")
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Zeroizing<Vec<u8>> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        Zeroizing::new(hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec())
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}
