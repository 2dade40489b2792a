//! The man in the middle: two bots of this very crate, one behind the name of each victim, and between them a relay.

use std::sync::{Arc, Mutex};

use futures::{SinkExt, StreamExt, future};
use jid::FullJid;
use jingle_xmlstream::{
    Config, E2eStream, Endpoint, Error, Fingerprint, Identity, StreamReceiver, StreamSender, Trust,
};
use mock_server::MockServer;
use tokio::sync::watch;
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, stanza::Stanza};

use super::{JULIET, ROMEO, World, in_band, jid, within};

/// Somebody who rules the server, has certificates of his own, and wants to read along.
pub struct Impostor {
    server: MockServer,
    as_romeo: Endpoint,
    as_juliet: Endpoint,
    pub romeos: Fingerprint,
    pub juliets: Fingerprint,
    gained: Arc<Mutex<Gained>>,
    /// The attempts that are over.
    over: watch::Receiver<usize>,
}

/// What he got out of it.
#[derive(Default)]
struct Gained {
    /// The stanzas that he passed on.
    read: Vec<String>,
    /// What he was told where he was refused.
    refusals: Vec<Error>,
}

impl World {
    /// Puts Mallory between Romeo and Juliet, with these certificates for their own, and with changes to his settings.
    /// Both have to be online; what is between them then is his.
    pub async fn put_between(
        &self,
        romeos: Identity,
        juliets: Identity,
        change: impl Fn(Config) -> Config,
    ) -> Impostor {
        let fingerprints = [&romeos, &juliets].map(|identity| identity.fingerprint().clone());
        let [romeos, juliets] =
            [romeos, juliets].map(|own| change(in_band(Config::new(own, Trust::first_use()))));
        let as_romeo = self.bot(self.server.impersonate(&jid(ROMEO)).as_str(), romeos).await;
        let as_juliet = self.bot(self.server.impersonate(&jid(JULIET)).as_str(), juliets).await;
        let gained = Arc::default();
        let (count, over) = watch::channel(0);
        for (accepting, connecting, meant) in
            [(&as_juliet, &as_romeo, JULIET), (&as_romeo, &as_juliet, ROMEO)]
        {
            let deceit = Deceit {
                accepting: accepting.clone(),
                connecting: connecting.clone(),
                meant: jid(meant),
                gained: Arc::clone(&gained),
                over: count.clone(),
            };
            tokio::spawn(deceit.go_on());
        }
        let [romeos, juliets] = fingerprints;
        Impostor { server: self.server.clone(), as_romeo, as_juliet, romeos, juliets, gained, over }
    }
}

impl Impostor {
    /// The stanzas that he read.
    pub fn read(&self) -> Vec<String> {
        self.gained.lock().unwrap().read.clone()
    }

    /// What he was told where he was refused, when this many of his attempts are over.
    pub async fn refusals(&self, attempts: usize) -> Vec<String> {
        within(self.over.clone().wait_for(|over| *over >= attempts)).await.unwrap();
        self.gained.lock().unwrap().refusals.iter().map(Error::to_string).collect()
    }

    /// Ends the attack: Romeo and Juliet reach each other again.
    pub async fn leave(self) {
        assert!(self.server.end_impersonation(&jid(ROMEO)));
        assert!(self.server.end_impersonation(&jid(JULIET)));
        within(future::join(self.as_romeo.close(), self.as_juliet.close())).await;
    }
}

/// Accepts from the one victim what is meant for the other, and opens a session with the other in the one's name.
struct Deceit {
    accepting: Endpoint,
    connecting: Endpoint,
    meant: FullJid,
    gained: Arc<Mutex<Gained>>,
    over: watch::Sender<usize>,
}

impl Deceit {
    async fn go_on(self) {
        while let Some(incoming) = self.accepting.accept().await {
            let both = future::join(incoming.accept(), self.connecting.connect(&self.meant));
            let (gained, over) = (Arc::clone(&self.gained), self.over.clone());
            tokio::spawn(async move {
                match both.await {
                    (Ok(one), Ok(other)) => relay(one, other, &gained).await,
                    (one, other) => {
                        let refusals = [one, other].into_iter().filter_map(Result::err);
                        gained.lock().unwrap().refusals.extend(refusals);
                    }
                }
                over.send_modify(|over| *over += 1);
            });
        }
    }
}

async fn relay(one: E2eStream, other: E2eStream, gained: &Mutex<Gained>) {
    let (to_one, from_one) = one.split();
    let (to_other, from_other) = other.split();
    let there = pass(from_one, to_one.clone(), to_other.clone(), gained);
    let back = pass(from_other, to_other, to_one, gained);
    future::join(there, back).await;
}

/// Passes everything on until the sender is done.
async fn pass(mut from: StreamReceiver, back: StreamSender, mut to: StreamSender, gained: &Mutex<Gained>) {
    while let Some(stanza) = from.next().await {
        let stanza = match stanza {
            Ok(stanza) => stanza,
            Err(error) => {
                gained.lock().unwrap().refusals.push(error);
                break;
            }
        };
        gained.lock().unwrap().read.push(format!("{stanza:?}"));
        match stanza {
            Stanza::Iq(Iq::Get { id, payload, .. }) => ask(&to, id, IqRequest::Get(payload), back.clone()),
            Stanza::Iq(Iq::Set { id, payload, .. }) => ask(&to, id, IqRequest::Set(payload), back.clone()),
            other => {
                if to.send(other).await.is_err() {
                    break;
                }
            }
        }
    }
    // It may be over already.
    let _ = to.close().await;
}

/// Asks as if it were his own question, and passes the answer on.
fn ask(to: &StreamSender, id: String, request: IqRequest, mut back: StreamSender) {
    let to = to.clone();
    tokio::spawn(async move {
        let reply = match to.send_iq(request).await {
            Ok(IqResponse::Result(payload)) => Iq::Result { from: None, to: None, id, payload },
            Ok(IqResponse::Error(error)) => Iq::Error { from: None, to: None, id, error, payload: None },
            Err(_) => return,
        };
        let _ = back.send(Stanza::Iq(reply)).await;
    });
}
