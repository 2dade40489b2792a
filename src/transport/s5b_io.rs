//! The connections of SOCKS5 bytestreams: the listener that waits for the peer's, and the dialling of its candidates
//! (XEP-0065 #direct).
//!
//! Everybody can reach the listener. Nobody gets past it who doesn't ask, in good time, for a DST.ADDR that the [`Gate`]
//! expects: a hash over a sid that only those who saw the negotiation know. That is no proof of who it is: TLS, inside, is.

mod dial;
mod listener;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use self::{dial::dial, listener::Listener, serve::Gate};
