//! STARTTLS up to the handshake (RFC 6120 §5.4).

use xmpp_parsers::{minidom::Element, ns, stream_error::DefinedCondition};

use super::{End, Farewell, Next, Turn, elements};
use crate::SecurityError;

/// The responder has offered it.
pub(in crate::stream) struct Offered(());

/// The initiator has said that it wants it.
pub(in crate::stream) struct Requested(());

impl Offered {
    pub(super) fn new() -> Self {
        Self(())
    }

    pub(super) fn handle(self, element: &Element, behind: usize) -> Turn {
        if !element.is("starttls", ns::TLS) {
            return Turn::End(interrupted(&format!("<{}/>", element.name())));
        }
        if behind > 0 {
            let farewell = Farewell::StreamError(
                DefinedCondition::PolicyViolation,
                "nothing may follow <starttls/> before TLS does",
            );
            return Turn::End(injected("<starttls/>", behind, farewell));
        }
        Turn::Done { say: Some(elements::proceed()), next: Next::Tls }
    }
}

impl Requested {
    /// What is to be said for it.
    pub(super) fn new() -> (Element, Self) {
        (elements::starttls(), Self(()))
    }

    pub(super) fn handle(self, element: &Element, behind: usize) -> Turn {
        if element.is("proceed", ns::TLS) {
            if behind > 0 {
                // The responder waits for TLS and nothing else.
                return Turn::End(injected("<proceed/>", behind, Farewell::None));
            }
            return Turn::Done { say: None, next: Next::Tls };
        }
        if element.is("failure", ns::TLS) {
            let error = SecurityError::StarttlsFailed("<failure/>".to_owned());
            return Turn::End(End { say: None, farewell: Farewell::Footer, error });
        }
        Turn::End(interrupted(&format!("<{}/>", element.name())))
    }
}

/// Instead of STARTTLS this came, in the clear. It is not believed.
pub(super) fn interrupted(by: &str) -> End {
    End {
        say: None,
        farewell: Farewell::StreamError(
            DefinedCondition::PolicyViolation,
            "encryption by STARTTLS is required",
        ),
        error: SecurityError::StarttlsFailed(format!("with {by}, in the clear")),
    }
}

/// RFC 6120 §5.3.3: what came in the clear behind the last element is nobody's. Taken for what comes through TLS, it would
/// let anybody in between speak for the peer.
fn injected(last: &str, bytes: usize, farewell: Farewell) -> End {
    let why =
        format!("{last} with {bytes} bytes in the clear behind it, which somebody in between may have added");
    End { say: None, farewell, error: SecurityError::StarttlsFailed(why) }
}
