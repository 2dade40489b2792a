//! The server's side of SOCKS5 (RFC 1928) as far as XEP-0065 needs it, sans-IO.
//!
//! Behind the negotiation comes the bytestream, on the same connection. So that none of it is ever taken for SOCKS5, the
//! server says how many bytes it wants ([`Server::wants`]), and never wants more than the message at hand has left.
//!
//! ```text
//! client                            server
//!    05 nmethods methods  ─────────►
//!                         ◄─────────  05 00                         no authentication
//!    05 01 00 03 len DST.ADDR port ►
//!                         ◄─────────  05 00 00 03 len DST.ADDR port   XEP-0065 #direct-proto-establish
//! ```

#[cfg(test)]
mod tests;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xFF;
const CONNECT: u8 = 1;
const ATYP_IPV4: u8 = 1;
const ATYP_DOMAIN: u8 = 3;
const ATYP_IPV6: u8 = 4;

/// The most that [`Server::wants`] says: the methods of a greeting, or a DST.ADDR with its port.
pub(crate) const MAX_WANTS: usize = 255 + 2;

/// REP of RFC 1928 #6.
#[derive(Clone, Copy)]
enum Rep {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

/// One client's negotiation.
#[derive(Debug)]
pub(crate) enum Server {
    /// What is there of the methods the client can do.
    Greeting(Vec<u8>),
    /// What is there of its request.
    Request(Vec<u8>),
    /// Nothing more is said here.
    Done,
}

/// What a piece of the client's brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The message is not complete: go on reading.
    More,
    /// Write this, at once and in one piece, and go on reading.
    Reply(Vec<u8>),
    /// The client wants to be connected. Whether it is, is the caller's to decide and to say.
    Connect(Request),
    /// The client is not served: write this and close.
    Refuse { reply: Vec<u8>, why: &'static str },
}

/// A CONNECT to a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    asked: String,
    port: [u8; 2],
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::Greeting(Vec::new())
    }

    /// How many bytes to read next, at most: 1 to [`MAX_WANTS`]; 0 when the negotiation is over.
    pub(crate) fn wants(&self) -> usize {
        match self {
            Self::Greeting(begun) => greeting_bytes(begun).saturating_sub(begun.len()),
            Self::Request(begun) => request_bytes(begun).saturating_sub(begun.len()),
            Self::Done => 0,
        }
    }

    /// Takes what was read: any part of what [`Server::wants`].
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Progress {
        if bytes.len() > self.wants() {
            return self.refuse(Rep::GeneralFailure, "more than was asked for");
        }
        match self {
            Self::Greeting(begun) => {
                begun.extend_from_slice(bytes);
                self.handle_greeting()
            }
            Self::Request(begun) => {
                begun.extend_from_slice(bytes);
                self.handle_request()
            }
            Self::Done => Progress::More,
        }
    }

    fn handle_greeting(&mut self) -> Progress {
        let Self::Greeting(begun) = &*self else { return Progress::More };
        match begun.as_slice() {
            [] => Progress::More,
            [VERSION, _, methods @ ..] if self.wants() == 0 => {
                if methods.contains(&NO_AUTHENTICATION) {
                    *self = Self::Request(Vec::new());
                    return Progress::Reply(vec![VERSION, NO_AUTHENTICATION]);
                }
                self.refuse_greeting("no method without authentication")
            }
            [VERSION, ..] => Progress::More,
            [_, ..] => self.refuse_greeting("not SOCKS5"),
        }
    }

    fn handle_request(&mut self) -> Progress {
        let Self::Request(begun) = &*self else { return Progress::More };
        match begun.as_slice() {
            [] => Progress::More,
            [VERSION, ..] if self.wants() > 0 => Progress::More,
            request => match Request::read(request) {
                Ok(request) => {
                    *self = Self::Done;
                    Progress::Connect(request)
                }
                Err((rep, why)) => self.refuse(rep, why),
            },
        }
    }

    fn refuse_greeting(&mut self, why: &'static str) -> Progress {
        *self = Self::Done;
        Progress::Refuse { reply: vec![VERSION, NO_ACCEPTABLE_METHOD], why }
    }

    fn refuse(&mut self, rep: Rep, why: &'static str) -> Progress {
        *self = Self::Done;
        let reply = vec![VERSION, rep as u8, 0, ATYP_IPV4, 0, 0, 0, 0, 0, 0];
        Progress::Refuse { reply, why }
    }
}

/// The length of the greeting that begins like this, as far as is known.
fn greeting_bytes(begun: &[u8]) -> usize {
    match begun {
        [_, methods, ..] => 2 + usize::from(*methods),
        _ => 2,
    }
}

/// The same of a request. Five bytes are in every one, and tell how long it is.
fn request_bytes(begun: &[u8]) -> usize {
    match begun {
        [_, _, _, ATYP_IPV4, _, ..] => 4 + 4 + 2,
        [_, _, _, ATYP_DOMAIN, name, ..] => 5 + usize::from(*name) + 2,
        [_, _, _, ATYP_IPV6, _, ..] => 4 + 16 + 2,
        _ => 5,
    }
}

impl Request {
    fn read(request: &[u8]) -> Result<Self, (Rep, &'static str)> {
        match request {
            [VERSION, CONNECT, 0, ATYP_DOMAIN, _, rest @ ..] => {
                let Some((name @ [_, ..], port)) = rest.split_last_chunk() else {
                    return Err((Rep::GeneralFailure, "an empty DST.ADDR"));
                };
                let Ok(asked) = String::from_utf8(name.to_vec()) else {
                    return Err((Rep::NotAllowed, "a DST.ADDR that is no text"));
                };
                // XEP-0065 #impl-socks5 wants port 0. It says nothing here, where nobody is connected on, so no client is
                // turned away for it.
                Ok(Self { asked, port: *port })
            }
            [VERSION, CONNECT, 0, ..] => Err((Rep::AddressTypeNotSupported, "a DST.ADDR that is no name")),
            [VERSION, CONNECT, ..] => Err((Rep::GeneralFailure, "a reserved byte that is not 0")),
            [VERSION, ..] => Err((Rep::CommandNotSupported, "a command that is not CONNECT")),
            _ => Err((Rep::GeneralFailure, "not SOCKS5")),
        }
    }

    /// What the client asked for, in lower case: XEP-0065's hash is hexadecimal, in either.
    pub(crate) fn dst_addr(&self) -> String {
        self.asked.to_ascii_lowercase()
    }

    /// The answer that the client is connected: BND is DST as it was asked for (XEP-0065 #direct-proto-establish).
    pub(crate) fn granted(&self) -> Vec<u8> {
        self.answer(Rep::Succeeded)
    }

    /// The answer that it isn't.
    pub(crate) fn refused(&self) -> Vec<u8> {
        self.answer(Rep::NotAllowed)
    }

    fn answer(&self, rep: Rep) -> Vec<u8> {
        // A name of at most 255 bytes was read.
        let length = u8::try_from(self.asked.len()).unwrap_or(u8::MAX);
        let mut answer = vec![VERSION, rep as u8, 0, ATYP_DOMAIN, length];
        answer.extend_from_slice(self.asked.as_bytes());
        answer.extend_from_slice(&self.port);
        answer
    }
}
