//! What the responder offers in its stream features, and what the initiator makes of that.

use xmpp_parsers::{minidom::Element, stream_error::DefinedCondition};

use super::{
    Agenda, Challenged, Challenger, Credentials, End, Farewell, Footing, Offered, Requested, Step, elements,
};
use crate::{SecurityError, security::sasl::Mechanism, stream::features};

impl Agenda {
    /// The responder's stream features, and what it waits for then; without any, there is nothing to wait for.
    pub(in crate::stream) fn offer(&self) -> (Vec<Element>, Option<Step>) {
        match self {
            Self::Nothing => (Vec::new(), None),
            Self::Starttls => (vec![elements::starttls_required()], Some(Step::Offered(Offered::new()))),
            Self::Sasl(credentials) => {
                let offer = credentials.offer();
                let step = (!offer.is_empty())
                    .then(|| Step::Challenger(Challenger::new(credentials.clone(), offer.clone())));
                (elements::mechanisms(&offer), step)
            }
        }
    }

    /// What the initiator says to the responder's features; `None` if it needs nothing of them.
    pub(in crate::stream) fn choose(&self, offered: &Element) -> Result<Option<(Element, Step)>, Box<End>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Starttls if features::has_starttls(offered) => {
                let (say, requested) = Requested::new();
                Ok(Some((say, Step::Requested(requested))))
            }
            Self::Starttls => Err(Box::new(self.not_offered(&features::list(offered)))),
            Self::Sasl(credentials) => {
                let begun = match credentials.choose(offered) {
                    Ok(Some(mechanism)) => Challenged::begin(credentials, mechanism).map(Some),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                let begun = begun.map_err(|error| Box::new(not_authenticated(error)))?;
                Ok(begun.map(|(say, challenged)| (say, Step::Challenged(challenged))))
            }
        }
    }

    /// What is required is not offered, but this is.
    pub(in crate::stream) fn not_offered(&self, offered: &str) -> End {
        let offered = offered.to_owned();
        match self {
            Self::Sasl(credentials) => {
                not_authenticated(SecurityError::SecretNotOffered { peer: credentials.peer.clone(), offered })
            }
            Self::Starttls | Self::Nothing => End {
                say: None,
                farewell: Farewell::StreamError(
                    DefinedCondition::PolicyViolation,
                    "encryption by STARTTLS is required",
                ),
                error: SecurityError::StarttlsNotOffered { offered },
            },
        }
    }
}

fn not_authenticated(error: SecurityError) -> End {
    let text = "you could not be authenticated";
    End { say: None, farewell: Farewell::StreamError(DefinedCondition::NotAuthorized, text), error }
}

impl Credentials {
    pub(super) fn is_required(&self) -> bool {
        self.secret.is_some() && self.footing == Footing::Unverified
    }

    /// The responder's mechanisms, the strongest first. EXTERNAL is for a peer whose certificate is enough; only who also
    /// has a secret asks for anything.
    fn offer(&self) -> Vec<Mechanism> {
        let fits = |mechanism: &Mechanism| mechanism.is_scram() || self.footing == Footing::Verified;
        match self.secret {
            Some(_) => Mechanism::ALL.into_iter().filter(fits).collect(),
            None => Vec::new(),
        }
    }

    /// The initiator's mechanism.
    fn choose(&self, offered: &Element) -> Result<Option<Mechanism>, SecurityError> {
        let names = features::mechanisms(offered);
        let has = |mechanism: &Mechanism| names.iter().flatten().any(|name| name == mechanism.name());
        let scram = match features::binds_to_exporter(offered) {
            true => Mechanism::ALL.into_iter().find(|mechanism| mechanism.is_scram() && has(mechanism)),
            false => None,
        };
        let external = Some(Mechanism::External).filter(has);
        match (&self.secret, self.footing) {
            (_, Footing::Verified) if external.is_some() => Ok(external),
            (Some(_), _) if scram.is_some() => Ok(scram),
            (Some(_), Footing::Unverified) => Err(self.secret_not_offered(names, offered)),
            _ if external.is_some() => Ok(external),
            (Some(_), Footing::Verified) if names.is_some() => Err(self.secret_not_offered(names, offered)),
            (None, _) if names.iter().flatten().any(|name| name.starts_with("SCRAM-")) => {
                Err(SecurityError::SecretMissing { peer: self.peer.clone() })
            }
            (None, _) if names.is_some() => Err(SecurityError::Sasl {
                peer: self.peer.clone(),
                why: format!(
                    "one of {} was expected, and it offers {}",
                    Mechanism::ALL.map(Mechanism::name).join(", "),
                    features::words(names.unwrap_or_default())
                ),
            }),
            _ => Ok(None),
        }
    }

    fn secret_not_offered(&self, names: Option<Vec<String>>, features: &Element) -> SecurityError {
        let mut offered = match names {
            Some(names) => features::words(names),
            None => "no SASL".to_owned(),
        };
        if !features::binds_to_exporter(features) {
            offered.push_str(" without tls-exporter");
        }
        SecurityError::SecretNotOffered { peer: self.peer.clone(), offered }
    }
}
