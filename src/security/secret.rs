//! A secret that two parties share.

use std::{fmt, str::FromStr};

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::error::{Error, SecurityError};

mod strength;

use strength::Strength;

/// The alphabet of base32 (RFC 4648 §6) in lower case: none of its letters is taken for one of its digits.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The letters of a generated secret, of 5 bits each.
const GENERATED_LETTERS: usize = 16;

/// A dash after so many.
const GROUP_LETTERS: usize = 4;

/// How often letters are drawn that do not pass for a secret, before something must be wrong with the randomness. One
/// in ten or so passes, so that this happens to nobody.
const MAX_DRAWS: usize = 1000;

/// Secrets are typed or copied by people; what is longer is something else.
const MAX_BYTES: usize = 1024;

/// A secret that we share with a peer, strong enough that nobody who sees a proof of it can guess it.
///
/// Whoever pretends to be the peer gets such a proof, and may try secrets on it at home, as fast as computers go. So
/// weak ones are refused, by an estimate that rather takes a good one for weak: a word counts 10 bits, as the words
/// of short lists for dice do, and 60 bits are needed. What comes from [`generate`](Self::generate) has 75.
///
/// The estimate knows no quotations, names or birthdays: make secrets up by chance.
///
/// ```
/// use jingle_xmlstream::Secret;
///
/// assert!("correct horse battery staple".parse::<Secret>().is_err());
/// assert!("clumsy walnut orbit seventy lantern mischief".parse::<Secret>().is_ok());
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Makes one up: 16 letters and digits, such as `3kfa-p7wd-x2ce-m5yu`.
    ///
    /// # Errors
    ///
    /// [`SecurityError::Identity`](crate::SecurityError::Identity) if the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        for _ in 0..MAX_DRAWS {
            let drawn = draw()?;
            // What looks like words, or like a sequence, `new` would refuse at the other end. To leave it out costs
            // less than 5 of the 80 bits.
            if Strength::of(&drawn).is_enough() {
                return Ok(Self(drawn));
            }
        }
        Err(no_randomness())
    }

    /// Takes one that was made up before, unless it is weak. White space at its ends is not part of it.
    ///
    /// # Errors
    ///
    /// [`WeakSecret`] says why it could be guessed, or why it can't be used otherwise: it is printable ASCII, which
    /// is written alike everywhere, of up to 1024 bytes.
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        let text = text.trim();
        if text.is_empty() {
            return Err(WeakSecret("it is empty; use Secret::generate or six words chosen by dice".into()));
        }
        if text.len() > MAX_BYTES {
            let length = text.len();
            return Err(WeakSecret(format!("it has {length} bytes, and at most {MAX_BYTES} are allowed")));
        }
        if let Some(other) = text.chars().find(|letter| !matches!(letter, ' '..='~')) {
            let code = u32::from(other);
            return Err(WeakSecret(format!(
                "it has the character U+{code:04X}, and only printable ASCII is written alike everywhere"
            )));
        }
        let strength = Strength::of(text);
        if !strength.is_enough() {
            return Err(WeakSecret(format!(
                "it could be guessed, since {strength}; use Secret::generate or six words chosen by dice"
            )));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, to be shown to whoever has to enter it at the other end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn draw() -> Result<Zeroizing<String>, Error> {
    let mut bytes = Zeroizing::new([0; GENERATED_LETTERS]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| no_randomness())?;
    // Enough room that no copy is left behind in memory by growing.
    let mut drawn = Zeroizing::new(String::with_capacity(2 * GENERATED_LETTERS));
    for (position, byte) in bytes.iter().enumerate() {
        if position != 0 && position % GROUP_LETTERS == 0 {
            drawn.push('-');
        }
        #[expect(clippy::indexing_slicing, reason = "a remainder of 32 is a place among 32")]
        drawn.push(char::from(BASE32[usize::from(*byte) % BASE32.len()]));
    }
    Ok(drawn)
}

fn no_randomness() -> Error {
    SecurityError::Identity("the system gives no random numbers for a secret".into()).into()
}

impl FromStr for Secret {
    type Err = WeakSecret;

    fn from_str(text: &str) -> Result<Self, WeakSecret> {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a secret can't be used, most often because it could be guessed.
///
/// It displays as a sentence that has nothing of the secret in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret can't be used: {0}")]
pub struct WeakSecret(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Secret::new(text).expect_err(text).to_string()
    }

    #[test]
    fn generated_secrets_are_four_groups_of_letters_with_a_digit() {
        for _ in 0..50 {
            let secret = Secret::generate().unwrap();
            let groups: Vec<_> = secret.as_str().split('-').collect();
            assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [4, 4, 4, 4]);
            assert!(groups.concat().bytes().all(|letter| BASE32.contains(&letter)), "{}", secret.as_str());
            assert!(secret.as_str().contains(|letter: char| letter.is_ascii_digit()));
            assert_eq!(Secret::new(secret.as_str()).unwrap().as_str(), secret.as_str());
        }
    }

    #[test]
    fn no_secret_is_generated_twice() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.as_str(), other.as_str());
    }

    #[test]
    fn enough_of_the_letters_drawn_pass_that_few_bits_are_lost() {
        let draws = 4000;
        let passed = (0..draws).filter(|_| Strength::of(&draw().unwrap()).is_enough()).count();
        // 5 bits are a factor of 32; six standard deviations above that.
        assert!(passed > 200, "{passed} of {draws}");
    }

    #[test]
    fn white_space_at_the_ends_is_no_part_of_a_secret() {
        let secret: Secret = " clumsy walnut orbit seventy lantern mischief\n".parse().unwrap();
        assert_eq!(secret.as_str(), "clumsy walnut orbit seventy lantern mischief");
    }

    #[test]
    fn a_weak_secret_is_refused_with_the_reason_and_what_to_do() {
        assert_eq!(
            refused("correct horse battery staple"),
            "the secret can't be used: it could be guessed, since it is 4 different words, worth about 40 bits \
             of the 60 that are needed; use Secret::generate or six words chosen by dice"
        );
        assert_eq!(
            refused("  "),
            "the secret can't be used: it is empty; use Secret::generate or six words chosen by dice"
        );
    }

    #[test]
    fn what_is_not_written_alike_everywhere_is_refused() {
        assert_eq!(
            refused("clumsy walnut orbit seventy lantern müsli"),
            "the secret can't be used: it has the character U+00FC, and only printable ASCII is written alike \
             everywhere"
        );
        assert!(refused("clumsy walnut orbit\tseventy lantern mischief").contains("U+0009"));
        assert!(refused(&"x3k9".repeat(257)).contains("1028 bytes"));
    }

    #[test]
    fn debug_output_and_refusals_do_not_show_the_secret() {
        let secret = Secret::new("clumsy walnut orbit seventy lantern mischief").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for weak in ["hunter2", "swordfish", "xyzzy plugh", "8675309"] {
            assert!(!refused(weak).contains(weak));
        }
    }
}
