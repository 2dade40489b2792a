//! Who is at the other end of an encrypted stream, and what shows it.

use std::sync::{Arc, Mutex, PoisonError};

use jid::Jid;

use super::{e2e_sender::WeakSender, options::Established};
use crate::{
    ApiMisuse, Error, SecurityError,
    security::{Answer, Level, Peer, Presented, Proof, Standing, TlsOptions, Trust, Verification},
};

/// The peer, proved to hold its key, and as verified as the user requires.
#[derive(Debug)]
pub(crate) struct Remote {
    established: Established,
    verification: Mutex<Verification>,
}

/// What the certificate and the stream showed; the user may have to be asked.
pub(super) enum Judgement {
    Known(Arc<Remote>),
    ToBeAsked(Box<Established>),
}

impl Remote {
    /// Judges a peer by its certificate, and by what it proved on the stream.
    pub(super) async fn judge(established: Established, proof: Option<Proof>) -> Result<Judgement, Error> {
        match (established.connection.presented.standing(), proof) {
            (Standing::ToBeAsked, None) => Ok(Judgement::ToBeAsked(Box::new(established))),
            _ => Self::settle(established, proof).await.map(Judgement::Known),
        }
    }

    /// Whether the certificate is all that the peer has to show.
    pub(super) fn is_believed(established: &Established) -> bool {
        let Established { options, connection } = established;
        let presented = &connection.presented;
        let is_settled = match presented.standing() {
            Standing::Accepted(_) | Standing::FirstUse => true,
            Standing::Unproven | Standing::ToBeAsked => false,
        };
        is_settled && check(options, presented, Trust::level(presented, None)).is_ok()
    }

    /// Asks the bot's user about a peer; the stream is up, and nobody has it yet.
    pub(super) async fn ask(established: Established, stream: WeakSender) -> Result<Arc<Self>, Error> {
        let presented = &established.connection.presented;
        let (peer, certificate) = (presented.peer().clone(), presented.certificate().clone());
        let answer = match established.options.trust.asker() {
            Some(asker) => asker.ask(peer, certificate, stream).await,
            None => Answer::NotAsked,
        };
        match answer {
            Answer::Yes(proof) => Self::settle(established, Some(proof)).await,
            Answer::No => Err(refused(presented).into()),
            Answer::NotAsked => Err(unanswered(presented).into()),
        }
    }

    pub(super) async fn settle(established: Established, proof: Option<Proof>) -> Result<Arc<Self>, Error> {
        let Established { options, connection } = &established;
        let presented = &connection.presented;
        // Whoever is refused must not be known by having tried.
        check(options, presented, Trust::level(presented, proof))?;
        let verification = remember(options, presented, proof).await?;
        check(options, presented, verification.level())?;
        tracing::info!(%verification, fingerprint = %presented.certificate().fingerprint(), "the peer is authenticated");
        Ok(Arc::new(Self { established, verification: Mutex::new(verification) }))
    }

    /// The user compared the verification code.
    pub(super) async fn confirm_code(&self) -> Result<(), Error> {
        let verification = remember(&self.established.options, self.presented(), Some(Proof::Code)).await?;
        *self.verification.lock().unwrap_or_else(PoisonError::into_inner) = verification;
        Ok(())
    }

    pub(super) fn peer(&self, jid: Option<Jid>) -> Peer {
        let verification = *self.verification.lock().unwrap_or_else(PoisonError::into_inner);
        Peer::new(jid, Some((self.presented().certificate().clone(), verification)))
    }

    pub(super) fn level(&self) -> Level {
        self.verification.lock().unwrap_or_else(PoisonError::into_inner).level()
    }

    pub(super) fn established(&self) -> &Established {
        &self.established
    }

    fn presented(&self) -> &Presented {
        &self.established.connection.presented
    }
}

fn refused(presented: &Presented) -> SecurityError {
    SecurityError::UserRefused {
        peer: presented.peer().clone(),
        presented: presented.certificate().fingerprint().clone(),
    }
}

pub(super) fn unanswered(presented: &Presented) -> SecurityError {
    SecurityError::Unanswered {
        peer: presented.peer().clone(),
        presented: presented.certificate().fingerprint().clone(),
    }
}

/// What is required of the peer.
fn check(options: &TlsOptions, presented: &Presented, reached: Level) -> Result<(), SecurityError> {
    let required = options.required_of(presented.peer());
    if reached >= required {
        return Ok(());
    }
    Err(SecurityError::Insufficient {
        peer: presented.peer().clone(),
        required,
        reached,
        presented: presented.certificate().fingerprint().clone(),
    })
}

/// It may wait for the disk, or for another process.
async fn remember(
    options: &TlsOptions,
    presented: &Presented,
    proof: Option<Proof>,
) -> Result<Verification, Error> {
    // Another thread costs more than what is only kept in memory.
    if !options.trust.is_on_disk() {
        return Ok(options.trust.settle(presented, proof)?);
    }
    let (trust, presented) = (options.trust.clone(), presented.clone());
    let settled = tokio::task::spawn_blocking(move || trust.settle(&presented, proof)).await;
    match settled {
        Ok(verification) => Ok(verification?),
        // The runtime is shutting down.
        Err(_) => Err(ApiMisuse::EndpointClosed.into()),
    }
}
