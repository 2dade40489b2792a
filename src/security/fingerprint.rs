//! Certificate fingerprints.

/// stub
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint;
/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgo {}
impl std::fmt::Display for Fingerprint {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
