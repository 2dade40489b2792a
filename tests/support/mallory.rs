//! A peer that speaks Jingle by hand, and says whatever the test wants.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt;
use jingle_xmlstream::{Endpoint, Events};
use tokio::sync::watch;
use tokio_xmpp::{Event, IqRequest, IqResponse};
use xmpp_parsers::{
    iq::Iq, minidom::Element, stanza::Stanza, stanza_error::DefinedCondition, stanza_error::StanzaError,
};

use super::{
    World, config, element, jid,
    wire::{self, IBB, JINGLE, JINGLE_IBB, XMLSTREAM, XTLS},
    within,
};

pub const MALLORY: &str = "mallory@verona.lit/cellar";

/// The block size that she offers.
pub const BLOCK: usize = 4096;

pub struct Mallory {
    pub endpoint: Endpoint,
    victim: String,
    heard: Arc<Mutex<Heard>>,
    changed: watch::Receiver<()>,
}

/// What the victim sent her; she acknowledges everything.
#[derive(Default)]
struct Heard {
    /// Actions of Jingle requests, session-terminate with its reason.
    actions: Vec<String>,
    /// The bytes of all bytestreams.
    bytes: Vec<u8>,
}

/// One bytestream that she opened.
pub struct Stream {
    pub session: String,
    pub sid: String,
    seq: u16,
}

impl Mallory {
    pub async fn new(world: &World, victim: &str) -> Self {
        let (endpoint, events) = world.bot_with_events(MALLORY, config().pass_foreign(true)).await;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (change, changed) = watch::channel(());
        tokio::spawn(listen(endpoint.clone(), events, heard.clone(), change));
        Self { endpoint, victim: victim.to_owned(), heard, changed }
    }

    /// Sends a request, and gives the reply.
    pub async fn ask(&self, payload: Element) -> Result<(), StanzaError> {
        match within(self.endpoint.send_iq(Some(jid(&self.victim)), IqRequest::Set(payload))).await.unwrap() {
            IqResponse::Result(_) => Ok(()),
            IqResponse::Error(error) => Err(error),
        }
    }

    /// The condition with which a request is refused, and the application's own one.
    pub async fn refused(&self, payload: Element) -> (DefinedCondition, Option<String>) {
        let shown = String::from(&payload);
        match self.ask(payload).await {
            Ok(()) => panic!("it was taken: {shown}"),
            Err(error) => (error.defined_condition, error.other.map(|other| other.name().to_owned())),
        }
    }

    /// Offers a session, is accepted, and opens the bytestream.
    pub async fn open(&self, name: &str) -> Stream {
        let stream = self.offer(name).await;
        self.heard_action("session-accept").await;
        self.ask(ibb_open(&stream.sid, BLOCK)).await.unwrap();
        stream
    }

    /// Offers a session without encryption.
    pub async fn offer(&self, name: &str) -> Stream {
        let stream = Stream { session: format!("session-{name}"), sid: format!("bytes-{name}"), seq: 0 };
        self.ask(session_initiate(&stream.session, &stream.sid, "")).await.unwrap();
        stream
    }

    /// Writes, block by block, until the victim refuses.
    pub async fn write(&self, stream: &mut Stream, bytes: &[u8]) -> Result<(), StanzaError> {
        for block in bytes.chunks(BLOCK) {
            self.ask(stream.block(block)).await?;
        }
        Ok(())
    }

    pub async fn heard_action(&self, action: &str) {
        self.wait_until(|heard| heard.actions.iter().any(|known| known == action)).await;
    }

    /// Waits until the victim has written this on a bytestream.
    pub async fn heard(&self, words: &str) {
        self.wait_until(|heard| String::from_utf8_lossy(&heard.bytes).contains(words)).await;
    }

    pub fn count_actions(&self, action: &str) -> usize {
        self.heard.lock().unwrap().actions.iter().filter(|known| *known == action).count()
    }

    pub async fn wait_for_actions(&self, count: usize, action: &str) {
        self.wait_until(|heard| heard.actions.iter().filter(|known| *known == action).count() >= count).await;
    }

    async fn wait_until(&self, fulfilled: impl Fn(&Heard) -> bool) {
        let mut changed = self.changed.clone();
        within(changed.wait_for(|()| fulfilled(&self.heard.lock().unwrap()))).await.unwrap();
    }
}

impl Stream {
    /// The next block.
    pub fn block(&mut self, bytes: &[u8]) -> Element {
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        ibb_data(&self.sid, &seq.to_string(), &STANDARD.encode(bytes))
    }
}

async fn listen(endpoint: Endpoint, mut events: Events, heard: Arc<Mutex<Heard>>, change: watch::Sender<()>) {
    while let Some(event) = events.next().await {
        let Event::Stanza(Stanza::Iq(Iq::Set { from, id, payload, .. })) = event else { continue };
        // She does not wait for the server, so that a flood of answers does not hold her up.
        let reply = Iq::Result { from: None, to: from, id, payload: None };
        let endpoint = endpoint.clone();
        tokio::spawn(async move { endpoint.send_stanza(reply).await });
        {
            let mut heard = heard.lock().unwrap();
            if payload.is("data", IBB) {
                heard.bytes.extend(STANDARD.decode(payload.text()).unwrap());
            }
            if let Some(action) = payload.attr("action") {
                let reason = payload.get_child("reason", JINGLE).and_then(|it| it.children().next());
                heard.actions.push(match reason {
                    Some(reason) => format!("{action} {}", reason.name()),
                    None => action.to_owned(),
                });
            }
        }
        change.send_replace(());
    }
}

/// XEP-0247's session-initiate, with this as `<security/>`.
pub fn session_initiate(sid: &str, bytestream: &str, security: &str) -> Element {
    element(&format!(
        "<jingle xmlns='{JINGLE}' action='session-initiate' initiator='{MALLORY}' sid='{sid}'>\
         <content creator='initiator' name='stream'><description xmlns='{XMLSTREAM}'/>\
         <transport xmlns='{JINGLE_IBB}' block-size='{BLOCK}' sid='{bytestream}'/>{security}</content></jingle>"
    ))
}

/// `<security/>` of a certificate that nobody has.
pub fn security() -> String {
    let fingerprint = ["AB"; 32].join(":");
    format!(
        "<security xmlns='{XTLS}'><fingerprint algo='sha-256'>{fingerprint}</fingerprint>\
         <method name='x509'/></security>"
    )
}

pub fn jingle(action: &str, sid: &str, children: &str) -> Element {
    element(&format!("<jingle xmlns='{JINGLE}' action='{action}' sid='{sid}'>{children}</jingle>"))
}

pub fn ibb_open(sid: &str, block_size: usize) -> Element {
    element(&format!("<open xmlns='{IBB}' block-size='{block_size}' sid='{sid}'/>"))
}

pub fn ibb_data(sid: &str, seq: &str, text: &str) -> Element {
    element(&format!("<data xmlns='{IBB}' seq='{seq}' sid='{sid}'>{text}</data>"))
}

pub fn ibb_close(sid: &str) -> Element {
    element(&format!("<close xmlns='{IBB}' sid='{sid}'/>"))
}

/// The sids of the session and of the bytestream that somebody else negotiated.
pub fn overheard_sids(world: &World) -> (String, String) {
    let initiate = world.recorded("iq set jingle session-initiate").element;
    let session = initiate.get_child("jingle", JINGLE).unwrap().attr("sid").unwrap();
    let transport = wire::content_child(&initiate, "transport", JINGLE_IBB).unwrap();
    (session.to_owned(), transport.attr("sid").unwrap().to_owned())
}
