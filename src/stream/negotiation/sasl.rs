//! SASL on the stream (RFC 6120 §6.4), around the mechanisms.

use jid::BareJid;
use xmpp_parsers::{minidom::Element, ns, stream_error::DefinedCondition};

use super::{Credentials, End, Farewell, Next, Step, Turn, elements};
use crate::{
    SecurityError,
    security::{
        Proof,
        sasl::{Initiator, Mechanism, Refusal, Reply, Responder},
    },
};

/// Challenges in one authentication. SCRAM has two at most, EXTERNAL one.
const CHALLENGES: usize = 4;

/// SCRAM is neither offered nor chosen then.
const NO_SECRET: &str = "it is to be SCRAM, and we share no secret with it";

/// The responder, who challenges.
pub(in crate::stream) struct Challenger {
    credentials: Box<Credentials>,
    state: Awaits,
}

enum Awaits {
    Auth { offered: Vec<Mechanism> },
    Response { responder: Box<Responder>, mechanism: Mechanism, challenges: usize },
}

impl Challenger {
    pub(super) fn new(credentials: Box<Credentials>, offered: Vec<Mechanism>) -> Self {
        Self { credentials, state: Awaits::Auth { offered } }
    }

    pub(super) fn peer(&self) -> &BareJid {
        &self.credentials.peer
    }

    pub(super) fn is_offer(&self) -> bool {
        matches!(self.state, Awaits::Auth { .. })
    }

    pub(super) fn wants(&self) -> &'static str {
        match self.state {
            Awaits::Auth { .. } => "<auth/>",
            Awaits::Response { .. } => "<response/>",
        }
    }

    pub(super) fn handle(self, element: &Element) -> Turn {
        let Self { credentials, state } = self;
        let turn = match state {
            Awaits::Auth { offered } if element.is("auth", ns::SASL) => {
                begin(&credentials, &offered, element)
            }
            Awaits::Response { responder, mechanism, challenges } if element.is("response", ns::SASL) => {
                data(&credentials, element)
                    .and_then(|data| step(responder, mechanism, challenges, &data.unwrap_or_default()))
            }
            Awaits::Response { .. } if element.is("abort", ns::SASL) => {
                let why = "it gave up: it expects another secret, or another TLS connection";
                Err(refusal(&credentials, "aborted", why.to_owned()))
            }
            _ => {
                let why = format!("<{}/> came out of turn", element.name());
                Err(refusal(&credentials, "malformed-request", why))
            }
        };
        match turn {
            Ok(Progress::Challenge { say, state }) => {
                Turn::Wait { say, step: Step::Challenger(Self { credentials, state }) }
            }
            Ok(Progress::Success { say, proof }) => Turn::Done { say: Some(say), next: Next::Restart(proof) },
            // RFC 6120 §6.4.5 lets the initiator try again; who has failed once does not know the secret.
            Err(refusal) => Turn::End(refused(refusal)),
        }
    }
}

enum Progress {
    Challenge { say: Element, state: Awaits },
    Success { say: Element, proof: Option<Proof> },
}

fn begin(credentials: &Credentials, offered: &[Mechanism], auth: &Element) -> Result<Progress, Refusal> {
    let name = auth.attr("mechanism").unwrap_or_default();
    let Some(mechanism) = Mechanism::named(name).filter(|mechanism| offered.contains(mechanism)) else {
        let offered: Vec<_> = offered.iter().map(|mechanism| mechanism.name()).collect();
        let why = format!("it chose the mechanism {name:.40?}, and offered were {}", offered.join(", "));
        return Err(refusal(credentials, "invalid-mechanism", why));
    };
    let peer = &credentials.peer;
    let responder = match (mechanism.is_scram(), &credentials.secret) {
        (true, Some(secret)) => Responder::scram(mechanism, peer, secret, &credentials.binding)
            .map_err(|error| Refusal { condition: "temporary-auth-failure", error })?,
        // Not offered. Were it taken for EXTERNAL, it would count as a proof.
        (true, None) => return Err(refusal(credentials, "invalid-mechanism", NO_SECRET.to_owned())),
        (false, _) => Responder::external(peer),
    };
    let responder = Box::new(responder);
    match data(credentials, auth)? {
        Some(initial) => step(responder, mechanism, CHALLENGES, &initial),
        // RFC 6120 §6.4.2: without an initial response it is asked for by an empty challenge.
        None => Ok(Progress::Challenge {
            say: elements::challenge(&[]),
            state: Awaits::Response { responder, mechanism, challenges: CHALLENGES - 1 },
        }),
    }
}

fn step(
    mut responder: Box<Responder>,
    mechanism: Mechanism,
    challenges: usize,
    data: &[u8],
) -> Result<Progress, Refusal> {
    match (responder.step(data)?, challenges.checked_sub(1)) {
        (Reply::Success(additional), _) => {
            Ok(Progress::Success { say: elements::success(additional.as_deref()), proof: proof(mechanism) })
        }
        (Reply::Challenge(challenge), Some(challenges)) => Ok(Progress::Challenge {
            say: elements::challenge(&challenge),
            state: Awaits::Response { responder, mechanism, challenges },
        }),
        (Reply::Challenge(_), None) => Err(Refusal {
            condition: "not-authorized",
            error: SecurityError::PeerRefused(Some(format!("it did not authenticate in {CHALLENGES} steps"))),
        }),
    }
}

fn data(credentials: &Credentials, element: &Element) -> Result<Option<Vec<u8>>, Refusal> {
    elements::data(element).map_err(|error| {
        refusal(credentials, "incorrect-encoding", format!("<{}/>: {error}", element.name()))
    })
}

fn refusal(credentials: &Credentials, condition: &'static str, why: String) -> Refusal {
    Refusal { condition, error: SecurityError::Sasl { peer: credentials.peer.clone(), why } }
}

/// RFC 6120 §6.4.5: the failure, and the end.
fn refused(refusal: Refusal) -> End {
    let text = refusal.text();
    End {
        say: Some(elements::failure(refusal.condition, text)),
        farewell: Farewell::StreamError(DefinedCondition::NotAuthorized, "authentication failed"),
        error: refusal.error,
    }
}

/// The initiator, who is challenged.
pub(in crate::stream) struct Challenged {
    initiator: Box<Initiator>,
    mechanism: Mechanism,
    peer: BareJid,
    challenges: usize,
}

impl Challenged {
    pub(super) const WANTS: &'static str = "<challenge/>, <success/> or <failure/>";

    /// What is to be said first.
    pub(super) fn begin(
        credentials: &Credentials,
        mechanism: Mechanism,
    ) -> Result<(Element, Self), SecurityError> {
        let peer = credentials.peer.clone();
        let mut initiator = match (mechanism.is_scram(), &credentials.secret) {
            (true, Some(secret)) => {
                let Some(local) = &credentials.local else {
                    let why = "our own address is needed to prove the shared secret: set it for the stream";
                    return Err(SecurityError::Sasl { peer, why: why.to_owned() });
                };
                Initiator::scram(mechanism, local, &peer, secret, &credentials.binding)?
            }
            // As for the responder.
            (true, None) => return Err(SecurityError::Sasl { peer, why: NO_SECRET.to_owned() }),
            (false, _) => Initiator::external(&peer),
        };
        let say = elements::auth(mechanism, &initiator.initial_response()?);
        Ok((say, Self { initiator: Box::new(initiator), mechanism, peer, challenges: CHALLENGES }))
    }

    pub(super) fn peer(&self) -> &BareJid {
        &self.peer
    }

    pub(super) fn handle(self, element: &Element) -> Turn {
        match element.name() {
            "challenge" if element.has_ns(ns::SASL) => self.challenge(element),
            "success" if element.has_ns(ns::SASL) => self.success(element),
            "failure" if element.has_ns(ns::SASL) => {
                let (condition, text) = elements::read_failure(element);
                let error = self.initiator.failure(condition, text.as_deref());
                Turn::End(End { say: None, farewell: Farewell::Footer, error })
            }
            name => Turn::End(interrupted(&self.peer, Self::WANTS, &format!("<{name}/>"))),
        }
    }

    fn challenge(mut self, element: &Element) -> Turn {
        let Some(challenges) = self.challenges.checked_sub(1) else {
            return self.gives_up(format!("more than {CHALLENGES} challenges came"));
        };
        let response = match elements::data(element) {
            Ok(challenge) => self.initiator.challenge(&challenge.unwrap_or_default()),
            Err(error) => return self.gives_up(format!("<challenge/>: {error}")),
        };
        match response {
            Ok(response) => Turn::Wait {
                say: elements::response(&response),
                step: Step::Challenged(Self { challenges, ..self }),
            },
            Err(error) => Turn::End(aborted(error)),
        }
    }

    fn success(self, element: &Element) -> Turn {
        let proved = match elements::data(element) {
            Ok(additional) => self.initiator.success(additional.as_deref()),
            Err(error) => Err(SecurityError::Sasl { peer: self.peer, why: format!("<success/>: {error}") }),
        };
        match proved {
            Ok(()) => Turn::Done { say: None, next: Next::Restart(proof(self.mechanism)) },
            // It is too late for <abort/>.
            Err(error) => Turn::End(End {
                say: None,
                farewell: Farewell::StreamError(
                    DefinedCondition::NotAuthorized,
                    "you could not be authenticated",
                ),
                error,
            }),
        }
    }

    fn gives_up(self, why: String) -> Turn {
        Turn::End(aborted(SecurityError::Sasl { peer: self.peer, why }))
    }
}

/// RFC 6120 §6.4.4
fn aborted(error: SecurityError) -> End {
    End { say: Some(elements::abort()), farewell: Farewell::Footer, error }
}

/// Instead of SASL this came, from a peer that is not authenticated. It is not delivered.
pub(super) fn interrupted(peer: &BareJid, wanted: &str, by: &str) -> End {
    End {
        say: None,
        farewell: Farewell::StreamError(
            DefinedCondition::NotAuthorized,
            "authentication by SASL is required",
        ),
        error: SecurityError::Sasl {
            peer: peer.clone(),
            why: format!("{wanted} was expected, and {by} came"),
        },
    }
}

/// What an authentication shows. EXTERNAL shows only what TLS has shown before.
fn proof(mechanism: Mechanism) -> Option<Proof> {
    mechanism.is_scram().then_some(Proof::Secret)
}

#[cfg(test)]
mod tests {
    use super::{super::Footing, *};
    use crate::security::sasl::Binding;

    fn without_a_secret() -> Credentials {
        Credentials {
            local: Some("romeo@montague.lit".parse().unwrap()),
            peer: "juliet@capulet.lit".parse().unwrap(),
            footing: Footing::Unverified,
            secret: None,
            binding: Binding([0; 32].into()),
        }
    }

    #[test]
    fn scram_without_a_secret_is_never_taken_for_external() {
        for mechanism in [Mechanism::ScramSha512Plus, Mechanism::ScramSha256Plus] {
            let begun = Challenged::begin(&without_a_secret(), mechanism);
            assert!(matches!(begun, Err(SecurityError::Sasl { .. })));
            let responder = Challenger::new(Box::new(without_a_secret()), vec![mechanism]);
            let turn = responder.handle(&elements::auth(mechanism, b""));
            assert!(matches!(turn, Turn::End(End { error: SecurityError::Sasl { .. }, .. })));
        }
    }
}
