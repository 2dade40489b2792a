//! A short code that people compare, without IO.

use std::fmt;

use zeroize::Zeroizing;

/// What two people compare, over the telephone say: if both sides show the same, nobody is in between.
///
/// Twelve decimal digits, shown in groups of four.
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationCode(String);

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
