//! What the two sides say to each other for one code.
//!
//! ```text
//!   initiator                                      responder
//!   ToCommit          ◄───────── request ──────────        (only if its user asks first)
//!      │              ───────── commitment ───────►  CommitmentAwaited
//!   NonceAwaited      ◄────────── nonce ───────────          │
//!      │              ─────────── reveal ─────────►     RevealAwaited
//!   ConsentAwaited    ◄────────── result ──────────          │
//!      ▼                                                     ▼
//!   Agreed ─► Shown       whatever else: Failed       Agreed ─► Shown
//! ```
//!
//! There is one exchange per stream. Nothing leads out of `Failed`, or back to the beginning: each further try would be one more
//! for somebody in between.

use super::{Basis, Commitment, Nonce, VerificationCode};
use crate::{error::SecurityError, wire::code::CodeElement};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Exchange {
    basis: Basis,
    state: State,
}

#[derive(Debug)]
enum State {
    ToCommit,
    NonceAwaited(NonceAwaited),
    ConsentAwaited(ConsentAwaited),
    CommitmentAwaited(CommitmentAwaited),
    RevealAwaited(RevealAwaited),
    Agreed(VerificationCode),
    /// The user has seen it.
    Shown(VerificationCode),
    Failed(String),
}

/// The initiator has committed itself to a nonce.
#[derive(Debug)]
struct NonceAwaited {
    own: Nonce,
}

/// The initiator has revealed it; the code counts when the responder says that it is what was promised.
#[derive(Debug)]
struct ConsentAwaited {
    code: VerificationCode,
}

/// Whether the responder has asked the initiator to begin.
#[derive(Debug, PartialEq, Eq)]
enum CommitmentAwaited {
    Silently,
    Asked,
}

/// The responder knows the commitment, and has told its nonce.
#[derive(Debug)]
struct RevealAwaited {
    commitment: Commitment,
    own: Nonce,
}

/// What is said to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What is in the result.
    pub(crate) result: Option<CodeElement>,
    /// What we ask of the peer after that.
    pub(crate) then: Option<CodeElement>,
}

/// Why a request is refused, with `not-allowed`.
pub(crate) type Refusal = &'static str;

impl Exchange {
    /// For the initiator of the XML stream.
    pub(crate) fn initiator(basis: Basis) -> Self {
        Self { basis, state: State::ToCommit }
    }

    /// For the responder of the XML stream.
    pub(crate) fn responder(basis: Basis) -> Self {
        Self { basis, state: State::CommitmentAwaited(CommitmentAwaited::Silently) }
    }

    /// The user wants the code; what there is to be asked of the peer.
    pub(crate) fn begin(&mut self) -> Option<CodeElement> {
        match self.state {
            State::ToCommit => self.commit(),
            State::CommitmentAwaited(CommitmentAwaited::Silently) => {
                self.state = State::CommitmentAwaited(CommitmentAwaited::Asked);
                Some(CodeElement::Request)
            }
            _ => None,
        }
    }

    fn commit(&mut self) -> Option<CodeElement> {
        let Ok(own) = Nonce::random() else {
            self.give_up(NO_RANDOM_NUMBERS);
            return None;
        };
        let commitment = own.commitment();
        self.state = State::NonceAwaited(NonceAwaited { own });
        Some(CodeElement::Commitment(commitment.0))
    }

    /// The peer asks for something.
    pub(crate) fn handle_request(&mut self, request: CodeElement) -> Result<Answer, Refusal> {
        match (&self.state, request) {
            (State::ToCommit, CodeElement::Request) => Ok(Answer { result: None, then: self.commit() }),
            // Both users asked at the same time.
            (State::NonceAwaited(_) | State::ConsentAwaited(_), CodeElement::Request) => {
                Ok(Answer { result: None, then: None })
            }
            (State::CommitmentAwaited(_), CodeElement::Commitment(commitment)) => {
                self.hold(Commitment(commitment))
            }
            (State::RevealAwaited(RevealAwaited { commitment, own }), CodeElement::Reveal(revealed)) => {
                let revealed = Nonce(revealed);
                if !commitment.is_to(&revealed) {
                    self.give_up(SOMEBODY);
                    return Err("that is not the nonce that the commitment was to");
                }
                self.state = match self.basis.code(&revealed, own) {
                    Ok(code) => State::Agreed(code),
                    Err(_) => State::Failed(NOT_COMPUTED.to_owned()),
                };
                Ok(Answer { result: None, then: None })
            }
            (State::CommitmentAwaited(_), CodeElement::Reveal(_)) => Err("there is no commitment"),
            (State::Failed(_), _) => Err("there will be no code on this stream"),
            _ => Err("there is one exchange per stream: the initiator commits itself, then it reveals"),
        }
    }

    /// Only with the commitment stored the own nonce may be told.
    fn hold(&mut self, commitment: Commitment) -> Result<Answer, Refusal> {
        let Ok(own) = Nonce::random() else {
            self.give_up(NO_RANDOM_NUMBERS);
            return Err(NO_RANDOM_NUMBERS);
        };
        let result = Some(CodeElement::Nonce(own.0));
        self.state = State::RevealAwaited(RevealAwaited { commitment, own });
        Ok(Answer { result, then: None })
    }

    /// The peer did what we asked for; what there is to be asked next.
    pub(crate) fn handle_result(&mut self, result: Option<CodeElement>) -> Option<CodeElement> {
        match (&self.state, result) {
            (State::NonceAwaited(NonceAwaited { own }), Some(CodeElement::Nonce(nonce))) => {
                let Ok(code) = self.basis.code(own, &Nonce(nonce)) else {
                    self.give_up(NOT_COMPUTED);
                    return None;
                };
                let reveal = CodeElement::Reveal(own.0);
                self.state = State::ConsentAwaited(ConsentAwaited { code });
                return Some(reveal);
            }
            (State::NonceAwaited(_), _) => {
                self.give_up("the peer was expected to answer with a nonce, and did not")
            }
            (State::ConsentAwaited(ConsentAwaited { code }), _) => self.state = State::Agreed(code.clone()),
            // It will begin, or has begun.
            _ => {}
        }
        None
    }

    /// There will be no code on this stream, unless there is one already.
    pub(crate) fn give_up(&mut self, why: impl Into<String>) {
        if !matches!(self.state, State::Agreed(_) | State::Shown(_) | State::Failed(_)) {
            self.state = State::Failed(why.into());
        }
    }

    /// The peer refused what we asked for.
    pub(crate) fn handle_refusal(&mut self, why: String) {
        match self.state {
            // What the responder asked for has come all the same.
            State::RevealAwaited(_) => {}
            State::ConsentAwaited(_) => self.give_up(format!("{SOMEBODY} (the peer says: {why})")),
            _ => self.give_up(why),
        }
    }

    /// The code, or why there is none; `None` if that is not known yet.
    pub(crate) fn outcome(&self) -> Option<Result<VerificationCode, SecurityError>> {
        match &self.state {
            State::Agreed(code) | State::Shown(code) => Some(Ok(code.clone())),
            State::Failed(why) => Some(Err(SecurityError::NoCode(why.clone()))),
            _ => None,
        }
    }

    /// The user has got it.
    pub(crate) fn handle_shown(&mut self) {
        if let State::Agreed(code) = &self.state {
            self.state = State::Shown(code.clone());
        }
    }

    pub(crate) fn is_shown(&self) -> bool {
        matches!(self.state, State::Shown(_))
    }
}

const SOMEBODY: &str = "the revealed nonce is not the one that was promised, so somebody may be in between: \
     open another stream over another way, or compare fingerprints";
const NO_RANDOM_NUMBERS: &str = "the system gives no random numbers";
const NOT_COMPUTED: &str = "it could not be computed";
