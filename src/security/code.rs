//! A short code that people compare, without IO.
//!
//! What is exchanged for it, and why it shows what it shows, is in [`manual`](crate::manual#verification-code).

mod exchange;

use std::fmt;

use aws_lc_rs::{
    constant_time, digest,
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};
use zeroize::Zeroizing;

pub(crate) use self::exchange::{Answer, Exchange};
use super::certificate::Certificate;
use crate::wire::code::LENGTH;

/// What a code is made for: RFC 5869 §3.2.
const CODE: &[u8] = b"jingle-xmlstream verification code";

/// What a commitment is made for, so that the same hash over the same nonce is nothing else.
const COMMITMENT: &[u8] = b"jingle-xmlstream verification code commitment";

/// How many codes there are. People can compare twelve digits; whoever is in between has one try at them for each stream
/// that is opened.
const CODES: u128 = 1_000_000_000_000;

/// Length of what is reduced to a code, in bytes. With 128 bits some codes are more likely than others by 1 in 2^88.
const WIDE: usize = 16;

/// What two people compare, over the telephone say: if both sides show the same, nobody is in between.
///
/// Twelve decimal digits, shown in groups of four.
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationCode(String);

impl VerificationCode {
    fn new(wide: [u8; WIDE]) -> Self {
        let digits = format!("{:012}", u128::from_be_bytes(wide) % CODES);
        let (first, rest) = digits.split_at_checked(4).unwrap_or_default();
        let (second, third) = rest.split_at_checked(4).unwrap_or_default();
        Self(format!("{first} {second} {third}"))
    }
}

impl fmt::Display for VerificationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VerificationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationCode({self})")
    }
}

/// What the exporter of this TLS connection gives for the code.
#[derive(Clone)]
pub(crate) struct CodeKey(pub(crate) Zeroizing<[u8; 32]>);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey(…)")
    }
}

/// What a code is made of on one TLS connection, before anything is exchanged.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pub(crate) key: CodeKey,
    /// Of the XML stream.
    pub(crate) initiator: Certificate,
    pub(crate) responder: Certificate,
}

impl Basis {
    fn code(&self, initiators: &Nonce, responders: &Nonce) -> Result<VerificationCode, Unspecified> {
        let salt = [initiators.0, responders.0].concat();
        let key = Salt::new(HKDF_SHA256, &salt).extract(&self.key.0[..]);
        // Each part has a fixed length: the label, and two SHA-256 fingerprints.
        let info = [CODE, self.initiator.fingerprint().as_bytes(), self.responder.fingerprint().as_bytes()];
        let mut wide = [0; WIDE];
        key.expand(&info, Wide)?.fill(&mut wide)?;
        Ok(VerificationCode::new(wide))
    }
}

/// Asks HKDF for [`WIDE`] bytes.
struct Wide;

impl KeyType for Wide {
    fn len(&self) -> usize {
        WIDE
    }
}

/// What one side adds to a code so that the other one can't choose it.
#[derive(Clone, PartialEq, Eq)]
struct Nonce([u8; LENGTH]);

impl Nonce {
    fn random() -> Result<Self, Unspecified> {
        let mut bytes = [0; LENGTH];
        rand::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    fn commitment(&self) -> Commitment {
        let hash = digest::digest(&digest::SHA256, &[COMMITMENT, &self.0].concat());
        let mut bytes = [0; LENGTH];
        // Both have 32 bytes; if they had not, no nonce would fit.
        bytes.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Commitment(bytes)
    }
}

/// Before it is revealed nobody may know it.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(…)")
    }
}

/// A promise of a nonce, which says nothing about it.
#[derive(Clone, Debug)]
struct Commitment([u8; LENGTH]);

impl Commitment {
    fn is_to(&self, nonce: &Nonce) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &nonce.commitment().0).is_ok()
    }
}

#[cfg(test)]
mod tests;
