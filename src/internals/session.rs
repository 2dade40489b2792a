//! The negotiation of a session between two machines.

use std::time::Instant;

use jid::{FullJid, Jid};
use xmpp_parsers::{presence::Presence, stanza::Stanza};

use crate::{
    Config, Error, Identity, SignallingError, Transports, Trust,
    session::{Output, Progress, SessionId, Sessions, Word},
};

const ROMEO: &str = "romeo@montague.lit/orchard";
const JULIET: &str = "juliet@capulet.lit/balcony";

/// Two endpoints without IO, each online and in possession of the other's presence.
#[derive(Debug)]
pub struct Ends {
    romeo: End,
    juliet: End,
    now: Instant,
}

#[derive(Debug)]
struct End {
    jid: FullJid,
    sessions: Sessions,
}

impl Ends {
    /// Makes their certificates, which takes longer than many negotiations.
    ///
    /// # Errors
    ///
    /// Those of [`Identity::generate`].
    pub fn new() -> Result<Self, Error> {
        let now = Instant::now();
        let mut ends = Self { romeo: End::new(ROMEO, now)?, juliet: End::new(JULIET, now)?, now };
        let Self { romeo, juliet, .. } = &mut ends;
        romeo.meet(juliet, now);
        juliet.meet(romeo, now);
        Ok(ends)
    }

    /// Romeo offers Juliet a session, she accepts, the in-band bytestream is opened, and the session is terminated; gives the
    /// number of stanzas.
    ///
    /// # Errors
    ///
    /// Whatever kept the bytestream from being opened.
    pub fn negotiate(&mut self) -> Result<usize, Error> {
        let Self { romeo, juliet, now } = self;
        let id = romeo.sessions.connect(*now, juliet.jid.clone(), None)?;
        let (mut stanzas, mut accepted) = (0, None);
        stanzas += exchange(romeo, juliet, *now, &mut accepted)?;
        let is_open = |end: &End, id| matches!(end.sessions.progress(id), Progress::Open);
        let Some(other) = accepted.filter(|other| is_open(romeo, id) && is_open(juliet, *other)) else {
            return Err(Error::Signalling(SignallingError::Offline));
        };
        romeo.sessions.release(*now, id);
        stanzas += exchange(romeo, juliet, *now, &mut accepted)?;
        juliet.sessions.release(*now, other);
        stanzas += exchange(romeo, juliet, *now, &mut accepted)?;
        Ok(stanzas)
    }
}

impl End {
    fn new(jid: &str, now: Instant) -> Result<Self, Error> {
        let jid: FullJid = jid.parse().map_err(|_| Error::Signalling(SignallingError::Offline))?;
        let config = Config::new(Identity::generate()?, Trust::first_use()).transports(Transports::Ibb);
        let mut sessions = Sessions::new(config);
        sessions.handle_bound(now, jid.clone());
        Ok(Self { jid, sessions })
    }

    fn meet(&mut self, other: &Self, now: Instant) {
        let mut presence = Presence::available().with_from(other.jid.clone());
        presence.payloads.push(other.sessions.disco().caps());
        self.sessions.handle_stanza(now, presence.into(), Word::NotAsked);
    }

    /// What it has to send; the session that it was offered is accepted.
    fn take(&mut self, now: Instant, accepted: &mut Option<SessionId>) -> Result<Vec<Stanza>, Error> {
        let mut sent = Vec::new();
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Send(stanza) => sent.push(stanza),
                Output::Incoming(id) => {
                    self.sessions.accept(now, id)?;
                    *accepted = Some(id);
                }
                _ => {}
            }
        }
        Ok(sent)
    }
}

/// Carries stanzas until nobody has any; gives how many there were.
fn exchange(
    romeo: &mut End,
    juliet: &mut End,
    now: Instant,
    accepted: &mut Option<SessionId>,
) -> Result<usize, Error> {
    let mut count = 0;
    loop {
        let there = carry(romeo, juliet, now, accepted)?;
        let back = carry(juliet, romeo, now, accepted)?;
        if there + back == 0 {
            return Ok(count);
        }
        count += there + back;
    }
}

fn carry(
    from: &mut End,
    to: &mut End,
    now: Instant,
    accepted: &mut Option<SessionId>,
) -> Result<usize, Error> {
    let stanzas = from.take(now, accepted)?;
    let count = stanzas.len();
    for mut stanza in stanzas {
        if let Stanza::Iq(iq) = &mut stanza {
            *iq.from_mut() = Some(Jid::from(from.jid.clone()));
        }
        to.sessions.handle_stanza(now, stanza, Word::NotAsked);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_negotiation_takes_the_same_stanzas() {
        let mut ends = Ends::new().unwrap();
        for _ in 0..3 {
            // Initiate, accept, security-info, open and terminate, and what answers each.
            assert_eq!(ends.negotiate().unwrap(), 10);
        }
    }
}
