//! SCRAM's messages (RFC 5802 §7), read before rsasl reads them.
//!
//! rsasl panics on an attribute of less than two bytes, accepts a proof that is bound to nothing, hashes as often as
//! the peer likes, and leaves out of its computation the extensions that it ignores. What passes here is none of that.

use base64::{Engine, prelude::BASE64_STANDARD};
use jid::{BareJid, NodePart};

use super::{TLS_EXPORTER, keys::Hash};

/// The longest message: it has room for the longest localpart of 1023 bytes and domain of as many, twice (as who
/// authenticates and as whom), each `=` and `,` in it escaped to three bytes, and for the nonces.
pub(super) const MAX_MESSAGE_BYTES: usize = 10_000;

/// A peer may ask for no less iterations (RFC 7677 §4).
pub(super) const MIN_ITERATIONS: u32 = 4096;

/// A peer may ask for no more iterations, which are our work, and hold up the thread: these are 40 ms with SHA-512. A
/// [`Secret`](crate::Secret) does not need many.
pub(super) const MAX_ITERATIONS: u32 = 32_768;

/// Shorter salts could have been used before, and what they make of a secret be known.
pub(super) const MIN_SALT_BYTES: usize = 8;

/// What is wrong with a message, and how it is called on the wire (RFC 6120 §6.5).
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) condition: &'static str,
    pub(super) why: String,
}

/// A proof that is not bound to the TLS connection, or of somebody else, is refused at once.
pub(super) fn check_client_first(message: &[u8], peer: &BareJid) -> Result<(), Unfit> {
    let mut reader = Reader::new("client-first-message", message)?;
    let flag = reader.next("the channel binding")?;
    check_channel_binding(flag)?;
    let authzid = reader.next("the authorization identity")?;
    if !authzid.is_empty() {
        let authzid = unescape(reader.value("a=", authzid)?)?;
        check_authzid(&authzid, peer)?;
    }
    let name = unescape(reader.attribute("n=")?)?;
    // Programs put there what they have a field for: the whole address, or what comes before the @.
    let by_address = name.parse::<BareJid>().is_ok_and(|jid| jid == *peer);
    let by_localpart = NodePart::new(&name).is_ok_and(|node| Some(&*node) == peer.node());
    if !by_address && !by_localpart {
        let why = format!("expected a proof of {peer}, and {} came", shown(&name));
        return Err(Unfit { condition: "not-authorized", why });
    }
    let nonce = reader.attribute("r=")?;
    check_nonce(nonce)?;
    reader.end()
}

fn check_channel_binding(flag: &str) -> Result<(), Unfit> {
    let (condition, came) = match flag {
        "y" => (
            "mechanism-too-weak",
            "the peer takes us for unable to bind it, which we announced: somebody removed that from what we sent, \
             or its program is at fault"
                .to_owned(),
        ),
        "n" => ("mechanism-too-weak", "it is bound to nothing: the peer's program has to support it".to_owned()),
        _ => match flag.strip_prefix("p=") {
            Some(TLS_EXPORTER) => return Ok(()),
            Some(other) => {
                let other = shown(other);
                ("malformed-request", format!("it is bound by {other}: the peer's program has to support this one"))
            }
            None => return Err(malformed(format!("client-first-message begins with {}", shown(flag)))),
        },
    };
    let why = format!("expected a proof that is bound to the TLS connection by {TLS_EXPORTER}, and {came}");
    Err(Unfit { condition, why })
}

/// Whom the peer wants to act as can only be itself (RFC 6120 §6.3.8).
pub(super) fn check_authzid(authzid: &str, peer: &BareJid) -> Result<(), Unfit> {
    if authzid.parse::<BareJid>().is_ok_and(|jid| jid == *peer) {
        return Ok(());
    }
    let why = format!("expected {peer} to act as itself, and it wants to be {}", shown(authzid));
    Err(Unfit { condition: "invalid-authzid", why })
}

/// The nonce of our own client-first-message, of which rsasl wrote that part.
pub(super) fn client_first_nonce(message: &[u8]) -> Result<&str, Unfit> {
    let mut reader = Reader::new("client-first-message", message)?;
    reader.next("the channel binding")?;
    reader.next("the authorization identity")?;
    reader.attribute("n=")?;
    reader.attribute("r=")
}

/// Returns the nonce.
pub(super) fn check_server_first(message: &[u8]) -> Result<&str, Unfit> {
    let mut reader = Reader::new("server-first-message", message)?;
    let nonce = reader.attribute("r=")?;
    check_nonce(nonce)?;
    let salt = decode("the salt", reader.attribute("s=")?)?;
    if salt.len() < MIN_SALT_BYTES {
        let length = salt.len();
        return Err(malformed(format!(
            "expected at least {MIN_SALT_BYTES} bytes of salt, and {length} came"
        )));
    }
    let iterations = reader.attribute("i=")?;
    let bounds = MIN_ITERATIONS..=MAX_ITERATIONS;
    let digits = iterations.bytes().all(|digit| digit.is_ascii_digit());
    if !digits || !iterations.parse().is_ok_and(|iterations: u32| bounds.contains(&iterations)) {
        let came = shown(iterations);
        let why = format!("expected {MIN_ITERATIONS} to {MAX_ITERATIONS} iterations, and {came} came");
        return Err(malformed(why));
    }
    reader.end()?;
    Ok(nonce)
}

/// Returns the nonce.
pub(super) fn check_client_final(message: &[u8], hash: Hash) -> Result<&str, Unfit> {
    let mut reader = Reader::new("client-final-message", message)?;
    decode("the channel binding", reader.attribute("c=")?)?;
    let nonce = reader.attribute("r=")?;
    let proof = decode("the proof", reader.attribute("p=")?)?;
    check_length("the proof", &proof, hash)?;
    reader.end()?;
    Ok(nonce)
}

/// What the responder says in the end.
pub(super) enum ServerFinal<'a> {
    /// That it knows the secret, too; still to be verified.
    Verifier,
    /// Why it does not believe us.
    Error(&'a str),
}

impl<'a> ServerFinal<'a> {
    pub(super) fn read(message: &'a [u8], hash: Hash) -> Result<Self, Unfit> {
        let mut reader = Reader::new("server-final-message", message)?;
        let first = reader.next("v=")?;
        if let Some(error) = first.strip_prefix("e=") {
            return Ok(Self::Error(error));
        }
        let verifier = decode("the signature", reader.value("v=", first)?)?;
        check_length("the signature", &verifier, hash)?;
        reader.end()?;
        Ok(Self::Verifier)
    }
}

/// What is between the commas of a message.
struct Reader<'a> {
    message: &'static str,
    parts: std::str::Split<'a, char>,
}

impl<'a> Reader<'a> {
    fn new(message: &'static str, bytes: &'a [u8]) -> Result<Self, Unfit> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            let length = bytes.len();
            return Err(malformed(format!("{message} has {length} bytes; at most {MAX_MESSAGE_BYTES}")));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { message, parts: text.split(',') }),
            Err(_) => Err(malformed(format!("{message} is not UTF-8"))),
        }
    }

    fn next(&mut self, expected: &str) -> Result<&'a str, Unfit> {
        self.parts.next().ok_or_else(|| malformed(format!("{} ends before {expected}", self.message)))
    }

    /// `name` is with the equals sign.
    fn attribute(&mut self, name: &str) -> Result<&'a str, Unfit> {
        let part = self.next(name)?;
        self.value(name, part)
    }

    fn value(&self, name: &str, part: &'a str) -> Result<&'a str, Unfit> {
        part.strip_prefix(name).ok_or_else(|| {
            malformed(format!("{} has {} where {name} is expected", self.message, shown(part)))
        })
    }

    fn end(mut self) -> Result<(), Unfit> {
        match self.parts.next() {
            None => Ok(()),
            Some(more) => {
                let (message, more) = (self.message, shown(more));
                Err(malformed(format!(
                    "{message} has {more} at its end, an extension that is not known here"
                )))
            }
        }
    }
}

/// RFC 5802 §7: printable ASCII, and something of it.
fn check_nonce(nonce: &str) -> Result<(), Unfit> {
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(format!("the nonce {} is not printable ASCII", shown(nonce))));
    }
    Ok(())
}

fn check_length(what: &str, value: &[u8], hash: Hash) -> Result<(), Unfit> {
    let (expected, length) = (hash.len(), value.len());
    if length != expected {
        return Err(malformed(format!("{what} has {length} bytes; {expected} are expected")));
    }
    Ok(())
}

fn decode(what: &str, base64: &str) -> Result<Vec<u8>, Unfit> {
    BASE64_STANDARD.decode(base64).map_err(|error| malformed(format!("{what} is not valid base64: {error}")))
}

/// RFC 5802 §5.1: `=2C` and `=3D` are the only escapes of a name.
fn unescape(name: &str) -> Result<String, Unfit> {
    let wrong = || malformed(format!("the name {} is empty or wrongly escaped", shown(name)));
    let mut parts = name.split('=');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else {
            ('=', part.strip_prefix("3D").ok_or_else(wrong)?)
        };
        unescaped.push(character);
        unescaped.push_str(rest);
    }
    if unescaped.is_empty() {
        return Err(wrong());
    }
    Ok(unescaped)
}

/// What the peer said, short enough for a line, and with nothing in it that a terminal obeys.
pub(super) fn shown(text: &str) -> String {
    /// Longer text tells no more.
    const MAX_SHOWN_CHARS: usize = 64;
    let cut = text.chars().count() > MAX_SHOWN_CHARS;
    let start: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    format!("{start:?}{}", if cut { "…" } else { "" })
}

fn malformed(why: String) -> Unfit {
    Unfit { condition: "malformed-request", why }
}
