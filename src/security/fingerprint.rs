//! Certificate fingerprints: a hash over the certificate's DER, and the ways in which it is written.

use std::{fmt, str::FromStr};

use aws_lc_rs::{constant_time, digest};

/// The longest digest that is known, SHA-512's; longer text is refused before it is stored.
const MAX_DIGEST_BYTES: usize = 64;

/// The hash over a certificate's DER, by which a certificate is announced (`<fingerprint/>` in
/// `jingle-xtls` #proto), pinned and shown to people.
///
/// It displays as upper-case hex with colons, `AB:CD:…`. As text to parse, it may have any case, colons and white
/// space or not, and a prefix that names the hash (`sha-256:AB:CD:…`); without one the length tells.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    algo: HashAlgo,
    digest: Box<[u8]>,
}

impl Fingerprint {
    /// The SHA-256 fingerprint of a certificate, given its DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self::of_with(HashAlgo::Sha256, der)
    }

    /// The fingerprint of a certificate, given its DER, with another hash.
    #[must_use]
    pub fn of_with(algo: HashAlgo, der: &[u8]) -> Self {
        Self { algo, digest: digest::digest(algo.implementation(), der).as_ref().into() }
    }

    /// Reads what `<fingerprint/>` announces: its `algo` (or `hash`) attribute, if any, and its text.
    ///
    /// # Errors
    ///
    /// [`FingerprintError::UnknownAlgo`] means that it can't be checked here, which is no fault of the peer's; the
    /// others, that it makes no sense.
    pub fn announced(algo: Option<&str>, text: &str) -> Result<Self, FingerprintError> {
        let digest = unhex(text)?;
        let algo = match algo {
            // COMPAT kaa.xmpp: `algo='sha1'`, with lower-case hex without colons.
            Some(name) => {
                HashAlgo::named(name).ok_or_else(|| FingerprintError::UnknownAlgo(shorten(name)))?
            }
            // COMPAT Gajim: no attribute; the hash is the one that signed the certificate, so any of them.
            None => HashAlgo::of_length(digest.len()).ok_or(FingerprintError::UnknownLength(digest.len()))?,
        };
        if digest.len() != algo.digest_len() {
            return Err(FingerprintError::WrongLength { algo, found: digest.len() });
        }
        Ok(Self { algo, digest: digest.into() })
    }

    /// The hash it was made with.
    #[must_use]
    pub fn algo(&self) -> HashAlgo {
        self.algo
    }

    /// The digest itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digest
    }

    /// Whether it is the fingerprint of this certificate, given its DER. Takes the same time whether it is or not.
    #[must_use]
    pub fn matches_der(&self, der: &[u8]) -> bool {
        // SHA-1 is good enough here: its known attack makes two certificates with one hash, both of the attacker's
        // making, which gains it nothing; to pass for somebody else it would need a second preimage.
        let presented = digest::digest(self.algo.implementation(), der);
        constant_time::verify_slices_are_equal(presented.as_ref(), &self.digest).is_ok()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.digest.iter().enumerate() {
            let colon = if position == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({} {self})", self.algo)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((prefix, digits)) if HashAlgo::named(prefix).is_some() => {
                Self::announced(Some(prefix), digits)
            }
            _ => Self::announced(None, text),
        }
    }
}

/// A hash function for fingerprints, by its name in the IANA registry of hash function textual names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HashAlgo {
    /// SHA-1, 20 bytes: only to understand older peers.
    Sha1,
    /// SHA-256, 32 bytes: what we send.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl HashAlgo {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// How it is written in `algo='…'`: `sha-256`.
    #[must_use]
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// How many bytes a digest has.
    #[must_use]
    pub fn digest_len(self) -> usize {
        self.implementation().output_len()
    }

    /// Reads `sha-256`, `sha256`, `SHA-256` and the like.
    fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        Self::ALL.into_iter().find(|algo| {
            let wire_name = algo.wire_name();
            name.eq_ignore_ascii_case(wire_name) || name.eq_ignore_ascii_case(&wire_name.replace('-', ""))
        })
    }

    fn of_length(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|algo| algo.digest_len() == bytes)
    }

    fn implementation(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

impl fmt::Display for HashAlgo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire_name())
    }
}

/// Why some text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FingerprintError {
    /// The hash is not one of [`HashAlgo`].
    #[error("the hash {0:?} is not known")]
    UnknownAlgo(String),
    /// Something else than hex digits, colons and white space.
    #[error("a fingerprint is made of hex digits, not of {0:?}")]
    NotHex(char),
    /// Half a byte at the end.
    #[error("the fingerprint has an odd number of hex digits")]
    HalfByte,
    /// More bytes than any known hash has.
    #[error("the fingerprint is longer than {MAX_DIGEST_BYTES} bytes")]
    TooLong,
    /// No hash is named, and none has this many bytes.
    #[error("no known hash has {0} bytes")]
    UnknownLength(usize),
    /// The hash that is named has another number of bytes.
    #[error("a fingerprint with {algo} has {} bytes, not {found}", .algo.digest_len())]
    WrongLength {
        /// The hash that is named.
        algo: HashAlgo,
        /// How many bytes there are.
        found: usize,
    },
}

fn unhex(text: &str) -> Result<Vec<u8>, FingerprintError> {
    let mut bytes = Vec::with_capacity(MAX_DIGEST_BYTES);
    let mut half = None;
    for letter in text.chars().filter(|letter| *letter != ':' && !letter.is_whitespace()) {
        let digit = letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digit = digit.ok_or(FingerprintError::NotHex(letter))?;
        half = match half {
            None if bytes.len() == MAX_DIGEST_BYTES => return Err(FingerprintError::TooLong),
            None => Some(digit),
            Some(high) => {
                bytes.push(high << 4 | digit);
                None
            }
        };
    }
    if half.is_some() { Err(FingerprintError::HalfByte) } else { Ok(bytes) }
}

/// Enough of a peer's text to recognise it in an error.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 32;
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 and SHA-1 of "abc" (FIPS 180-4, appendix examples).
    const SHA256: &str =
        "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
    const SHA1: &str = "A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D";

    #[test]
    fn it_is_the_hash_of_the_der_in_hex_with_colons() {
        let fingerprint = Fingerprint::of(b"abc");
        assert_eq!(fingerprint.to_string(), SHA256);
        assert_eq!(format!("{fingerprint:?}"), format!("Fingerprint(sha-256 {SHA256})"));
        assert!(fingerprint.matches_der(b"abc"));
        assert!(!fingerprint.matches_der(b"abd"));
    }

    #[test]
    fn every_hash_is_recognised_by_its_length_and_by_its_name() {
        for algo in HashAlgo::ALL {
            let fingerprint = Fingerprint::of_with(algo, b"abc");
            let text = fingerprint.to_string();
            assert_eq!(Fingerprint::announced(None, &text).as_ref(), Ok(&fingerprint));
            assert_eq!(Fingerprint::announced(Some(algo.wire_name()), &text).as_ref(), Ok(&fingerprint));
            assert_eq!(format!("{algo}:{text}").parse().as_ref(), Ok(&fingerprint));
            assert_eq!(text.parse().as_ref(), Ok(&fingerprint));
            assert!(fingerprint.matches_der(b"abc"));
        }
    }

    #[test]
    fn people_may_write_it_as_they_like() {
        let expected = Fingerprint::of(b"abc");
        let bare = SHA256.replace(':', "");
        for text in [
            SHA256.to_lowercase(),
            bare.to_lowercase(),
            SHA256.replace(':', " "),
            format!("\n  {SHA256}\n"),
            format!("SHA256: {bare}"),
        ] {
            assert_eq!(text.parse().as_ref(), Ok(&expected), "{text:?}");
        }
    }

    #[test]
    fn gajim_announces_without_naming_the_hash() {
        assert_eq!(Fingerprint::announced(None, SHA256), Ok(Fingerprint::of(b"abc")));
        assert_eq!(Fingerprint::announced(None, SHA1), Ok(Fingerprint::of_with(HashAlgo::Sha1, b"abc")));
    }

    #[test]
    fn kaa_announces_sha1_in_lower_case_without_colons() {
        let text = SHA1.replace(':', "").to_lowercase();
        let announced = Fingerprint::announced(Some("sha1"), &text);
        assert_eq!(announced, Ok(Fingerprint::of_with(HashAlgo::Sha1, b"abc")));
    }

    #[test]
    fn the_length_must_fit_the_named_hash() {
        let error = Fingerprint::announced(Some("sha-256"), SHA1).unwrap_err();
        assert_eq!(error.to_string(), "a fingerprint with sha-256 has 32 bytes, not 20");
    }

    #[test]
    fn an_unknown_hash_is_told_from_nonsense() {
        let unknown = Fingerprint::announced(Some("sha3-256"), SHA256);
        assert_eq!(unknown, Err(FingerprintError::UnknownAlgo("sha3-256".to_owned())));
        assert_eq!("RomeoX509CertificateHash".parse::<Fingerprint>(), Err(FingerprintError::NotHex('R')));
        assert_eq!("".parse::<Fingerprint>(), Err(FingerprintError::UnknownLength(0)));
        assert_eq!("AB:C".parse::<Fingerprint>(), Err(FingerprintError::HalfByte));
        // Digits of other scripts are no hex digits.
        assert_eq!("٣".parse::<Fingerprint>(), Err(FingerprintError::NotHex('٣')));
    }

    #[test]
    fn endless_text_is_not_stored() {
        assert_eq!("A".repeat(1 << 20).parse::<Fingerprint>(), Err(FingerprintError::TooLong));
        let name = "x".repeat(1 << 20);
        let Err(FingerprintError::UnknownAlgo(shown)) = Fingerprint::announced(Some(&name), SHA256) else {
            panic!("it has to be unknown")
        };
        assert_eq!(shown.len(), 32);
    }
}
