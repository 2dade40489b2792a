//! Who is at the other end: the policy, apart from the TLS plumbing.

mod fingerprint;
mod identity;
pub(crate) mod tls_io;
mod trust;

pub use self::{
    fingerprint::{Fingerprint, FingerprintError, HashAlgo},
    identity::Identity,
    trust::{Trust, Verification},
};
