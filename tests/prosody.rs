//! Two bots over a real Prosody: what the mock server does because we think that servers do it, one does.
//!
//! Without `prosody` in PATH nothing is tested, and says so; with CI=true that is a failure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/prosody.rs"]
mod server;
mod support;

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use jid::{FullJid, Jid};
use jingle_xmlstream::{
    Config, DiscoConfig, E2eStream, Error, Events, Fingerprint, Identity, PeerIncompatible, Reason,
    SecurityError, SignallingError, SmConfig, Trust,
};
use server::{Kind, Prosody, Verona, answer_one_disco, bot, bot_with_events};
use support::{JULIET, ROMEO, attempt, body, config, element, in_band, jid, message, streams, talk, within};
use tokio_xmpp::{Event, IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, ping::Ping, presence::Presence, stanza::Stanza, stanza_error::DefinedCondition};

const MERCUTIO: &str = "mercutio@montague.lit/street";

const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";

// ---- opening ---------------------------------------------------------------------------------

/// Prosody 0.12 offers no SCRAM with channel binding; without, it is still SCRAM.
#[tokio::test]
async fn the_login_does_not_show_the_password() {
    let Some(verona) = Verona::start().await else { return };
    let auth = verona.prosody.stanza_with(&["<auth "]).await;
    assert!(auth.contains("SCRAM-SHA-"), "{auth}");
    assert!(!verona.prosody.received().iter().any(|stanza| stanza.contains("'PLAIN'")));
}

#[tokio::test]
async fn both_talk_over_a_server_that_requires_starttls() {
    let Some(verona) = Verona::start().await else { return };
    let (mut romeos, mut juliets) = verona.streams().await;
    talk(&mut romeos, &mut juliets).await;

    for stream in [&romeos, &juliets] {
        let negotiated = stream.info().negotiated.as_ref().unwrap();
        assert_eq!(negotiated.transport.method(), "ibb");
        let tls = stream.info().tls.as_ref().unwrap();
        assert_eq!(tls.version(), "TLSv1.3");
        assert_eq!(tls.key_exchange(), "X25519MLKEM768");
    }
    assert_eq!(romeos.peer().jid().unwrap().to_string(), JULIET);
    assert_eq!(juliets.peer().jid().unwrap().to_string(), ROMEO);
    assert_eq!(verona.count(&["Romeo?"]).await, 0, "the server could read it");
}

#[tokio::test]
async fn both_talk_over_a_server_without_tls() {
    let Some(verona) = Verona::with(Kind::Plaintext, config(), config()).await else { return };
    let (mut romeos, mut juliets) = verona.streams().await;
    talk(&mut romeos, &mut juliets).await;
    assert_eq!(verona.count(&["Romeo?"]).await, 0, "the server could read it");
}

#[tokio::test]
async fn a_bot_may_take_any_certificate_of_the_server() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let romeo = bot(ROMEO, prosody.gullible_connector(), config()).await;
    assert_eq!(romeo.jid().unwrap().to_string(), ROMEO);
}

#[tokio::test]
async fn a_declined_offer_is_an_error_that_says_so() {
    let Some(verona) = Verona::start().await else { return };
    let peer = verona.juliet.jid().unwrap();
    let (connected, ()) = within(async {
        tokio::join!(verona.romeo.connect(&peer), async {
            let incoming = verona.juliet.accept().await.unwrap();
            assert_eq!(incoming.peer().to_string(), ROMEO);
            incoming.decline(Reason::Decline);
        })
    })
    .await;
    let Err(Error::Terminated(terminated)) = connected else { panic!("{connected:?}") };
    assert_eq!(terminated.reason, Reason::Decline);
}

#[tokio::test]
async fn a_peer_that_is_offline_is_unreachable() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let romeo = bot(ROMEO, prosody.connector(), config()).await;
    for nobody in [JULIET, "nobody@capulet.lit/nowhere"] {
        let connected = within(romeo.connect(&jid(nobody))).await;
        let Err(Error::Signalling(SignallingError::PeerUnreachable(error))) = connected else {
            panic!("{connected:?}")
        };
        assert_eq!(error.defined_condition, DefinedCondition::ServiceUnavailable);
    }
}

#[tokio::test]
async fn a_peer_without_a_needed_feature_is_incompatible_and_the_error_names_it() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let romeo = bot(ROMEO, prosody.connector(), config()).await;
    let needed = [
        "urn:xmpp:jingle:1",
        "urn:xmpp:jingle:apps:xmlstream:0",
        "urn:xmpp:jingle:transports:ibb:1",
        "urn:xmpp:jingle:security:xtls:0",
    ];
    let mut by_hand = DiscoConfig::default();
    by_hand.answer = false;
    let (juliet, mut events) = bot_with_events(JULIET, prosody.connector(), config().disco(by_hand)).await;
    let peer = juliet.jid().unwrap();
    for missing in needed {
        // In no version: the printed XEPs have `:0` where later ones have `:1`.
        let unversioned = |feature: &str| feature.trim_end_matches(char::is_numeric).to_owned();
        let mut features = juliet.features();
        features.retain(|feature| unversioned(feature) != unversioned(missing));
        let answering = answer_one_disco(&juliet, &mut events, &features);
        let (connected, ()) = within(async { tokio::join!(romeo.connect(&peer), answering) }).await;
        let Err(Error::PeerIncompatible(PeerIncompatible::MissingFeature(named))) = connected else {
            panic!("without {missing}: {connected:?}")
        };
        assert_eq!(named, missing);
    }
}

/// XEP-0115: the first answer stands for every presence with the same hash.
#[tokio::test]
async fn with_presence_the_second_connection_asks_nothing() {
    // Capabilities that are not those of Romeo's.
    let mut more = DiscoConfig::default();
    more.features.push("urn:xmpp:ping".to_owned());
    let (romeos, juliets) = (config(), config().disco(more));
    let Some(verona) = Verona::with(Kind::Unlimited, romeos, juliets).await else { return };
    for (bot, other) in [(&verona.romeo, JULIET), (&verona.juliet, ROMEO)] {
        let presence = Presence::available().with_to(jid::<Jid>(other));
        within(bot.send_presence(presence)).await.unwrap();
    }
    let asked = ["type='get'", "to='juliet@capulet.lit/balcony'", DISCO_INFO];
    // The server has passed juliet's presence on before it gave romeo an answer.
    assert_eq!(verona.count(&["<presence "]).await, 2);
    assert_eq!(verona.count(&asked).await, 0);

    for _ in 0..3 {
        let (romeos, juliets) = verona.streams().await;
        let (one, other) = within(async { tokio::join!(romeos.close(), juliets.close()) }).await;
        one.and(other).unwrap();
        assert_eq!(verona.count(&asked).await, 1);
    }
}

// ---- trust -----------------------------------------------------------------------------------

fn pins(peer: &str, fingerprint: &Fingerprint) -> Trust {
    Trust::pinned([]).pin_for(jid::<FullJid>(peer).to_bare(), fingerprint.clone())
}

fn assert_not_pinned(error: &Error, theirs: &Fingerprint, instead_of: &Fingerprint) {
    let Error::Security(SecurityError::NotPinned { presented, pinned }) = error else { panic!("{error:?}") };
    assert_eq!(presented, theirs);
    assert_eq!(*pinned, [instead_of.to_string()]);
}

fn assert_refused_by_peer(error: &Error) {
    // Whichever comes first: the TLS alert or the session-terminate.
    assert_shape!(error, Error::Security(SecurityError::PeerRefused(_)) | Error::Terminated(_));
    assert_eq!(error.reason(), Reason::SecurityError, "{error:?}");
}

#[tokio::test]
async fn the_initiator_refuses_another_certificate_than_the_pinned_one() {
    let (identity, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let theirs = identity.fingerprint().clone();
    let romeo = in_band(Config::new(Identity::generate().unwrap(), pins(JULIET, other.fingerprint())));
    let juliet = in_band(Config::new(identity, Trust::first_use()));
    let Some(verona) = Verona::with(Kind::Unlimited, romeo, juliet).await else { return };

    let (romeos, juliets) = attempt(&verona.romeo, &verona.juliet).await;
    let (romeos, juliets) = (romeos.unwrap_err(), juliets.unwrap_err());
    assert_not_pinned(&romeos, &theirs, other.fingerprint());
    assert_refused_by_peer(&juliets);
    verona.prosody.stanza_with(&["session-terminate", "<security-error"]).await;
}

#[tokio::test]
async fn the_responder_refuses_another_certificate_than_the_pinned_one() {
    let (identity, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let theirs = identity.fingerprint().clone();
    let romeo = in_band(Config::new(identity, Trust::first_use()));
    let juliet = in_band(Config::new(Identity::generate().unwrap(), pins(ROMEO, other.fingerprint())));
    let Some(verona) = Verona::with(Kind::Unlimited, romeo, juliet).await else { return };

    let (romeos, juliets) = attempt(&verona.romeo, &verona.juliet).await;
    let (romeos, juliets) = (romeos.unwrap_err(), juliets.unwrap_err());
    assert_not_pinned(&juliets, &theirs, other.fingerprint());
    assert_refused_by_peer(&romeos);
    verona.prosody.stanza_with(&["session-terminate", "<security-error"]).await;
}

/// Somebody else on the same server knows everything that the server does, and may not touch the stream.
#[tokio::test]
async fn a_third_account_with_the_right_sids_is_refused_and_harms_nothing() {
    let Some(verona) = Verona::start().await else { return };
    let (mut romeos, mut juliets) = verona.streams().await;
    talk(&mut romeos, &mut juliets).await;

    let initiate = verona.prosody.stanza_with(&["session-initiate"]).await;
    let open = verona.prosody.stanza_with(&["<open "]).await;
    let (jingle, bytestream) = (sid_of(&initiate, "<jingle "), sid_of(&open, "<open "));
    let attacks = [
        format!("<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='{jingle}'/>"),
        format!("<jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid='{jingle}'/>"),
        format!("<data xmlns='http://jabber.org/protocol/ibb' sid='{bytestream}' seq='0'>AAAA</data>"),
        format!("<close xmlns='http://jabber.org/protocol/ibb' sid='{bytestream}'/>"),
    ];
    let mercutio = bot(MERCUTIO, verona.prosody.connector(), config()).await;
    for victim in [&verona.romeo, &verona.juliet] {
        for attack in &attacks {
            let to = Jid::from(victim.jid().unwrap());
            let request = IqRequest::Set(element(attack));
            let answer = within(mercutio.send_iq(Some(to), request)).await.unwrap();
            let IqResponse::Error(error) = answer else { panic!("{attack}: {answer:?}") };
            assert_eq!(error.defined_condition, DefinedCondition::ItemNotFound, "{attack}");
        }
    }
    talk(&mut romeos, &mut juliets).await;
}

/// The sid in the start tag that begins so.
fn sid_of(stanza: &str, tag: &str) -> String {
    let (_, tag) = stanza.split_once(tag).unwrap();
    let (tag, _) = tag.split_once('>').unwrap();
    let (_, sid) = tag.split_once("sid='").unwrap();
    sid.split_once('\'').unwrap().0.to_owned()
}

// ---- talking ---------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_come_back_in_order() {
    const MESSAGES: usize = 1000;
    let Some(verona) = Verona::start().await else { return };
    let (romeos, mut juliets) = verona.streams().await;
    let echo = tokio::spawn(async move {
        while let Some(stanza) = juliets.next().await {
            juliets.feed(message(&body(&stanza.unwrap()))).await.unwrap();
        }
        juliets.close().await
    });
    let text = |number: usize| format!("{number:0>1024}");
    let (mut sender, mut receiver) = romeos.split();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            sender.feed(message(&text(number))).await.unwrap();
        }
        sender.flush().await.unwrap();
        sender
    });
    for number in 0..MESSAGES {
        let echo = within(receiver.next()).await.unwrap().unwrap();
        assert_eq!(body(&echo), text(number));
    }
    let mut sender = sending.await.unwrap();
    sender.close().await.unwrap();
    assert!(within(receiver.next()).await.is_none());
    within(echo).await.unwrap().unwrap();
}

#[tokio::test]
async fn either_side_asks_and_the_other_answers() {
    let Some(verona) = Verona::start().await else { return };
    let (mut romeos, mut juliets) = verona.streams().await;
    ask(&romeos, &mut juliets).await;
    ask(&juliets, &mut romeos).await;
    // Pings are answered without the bot.
    let pong = within(romeos.send_iq(IqRequest::Get(Ping.into()))).await.unwrap();
    assert_shape!(pong, IqResponse::Result(None));
}

async fn ask(one: &E2eStream, other: &mut E2eStream) {
    let question = element("<query xmlns='jabber:iq:version'/>");
    let answer = element("<query xmlns='jabber:iq:version'><name>rose</name><version>1</version></query>");
    let asking = one.send_iq(IqRequest::Get(question));
    let answering = async {
        let Stanza::Iq(Iq::Get { id, .. }) = other.next().await.unwrap().unwrap() else {
            panic!("no request")
        };
        let result = Iq::Result { from: None, to: None, id, payload: Some(answer.clone()) };
        other.send(result.into()).await.unwrap();
    };
    let (reply, ()) = within(async { tokio::join!(asking, answering) }).await;
    let IqResponse::Result(Some(payload)) = reply.unwrap() else { panic!("no result") };
    assert_eq!(payload, answer);
}

// ---- closing ---------------------------------------------------------------------------------

/// One closes, the other is told and closes as well.
async fn close_in_turn(first: E2eStream, mut second: E2eStream) {
    let ending = async {
        tokio::join!(first.close(), async {
            assert!(second.next().await.is_none());
            second.close().await
        })
    };
    let (one, other) = within(ending).await;
    one.unwrap();
    other.unwrap();
}

/// One `<close/>` and one session-terminate, or two that crossed on the way.
async fn assert_ended_in_good_order(verona: &Verona) {
    let closed = verona.count(&["<close "]).await;
    assert!((1..=2).contains(&closed), "{closed} times");
    let ended = verona.count(&["session-terminate", "<success"]).await;
    assert!((1..=2).contains(&ended), "{ended} times");
    assert_eq!(verona.count(&["session-terminate"]).await, ended);
}

#[tokio::test]
async fn the_initiator_closes_first() {
    let Some(verona) = Verona::start().await else { return };
    let (romeos, juliets) = verona.streams().await;
    close_in_turn(romeos, juliets).await;
    assert_ended_in_good_order(&verona).await;
}

#[tokio::test]
async fn the_responder_closes_first() {
    let Some(verona) = Verona::start().await else { return };
    let (romeos, juliets) = verona.streams().await;
    close_in_turn(juliets, romeos).await;
    assert_ended_in_good_order(&verona).await;
}

#[tokio::test]
async fn both_close_at_once() {
    let Some(verona) = Verona::start().await else { return };
    let (romeos, juliets) = verona.streams().await;
    let (one, other) = within(async { tokio::join!(romeos.close(), juliets.close()) }).await;
    one.unwrap();
    other.unwrap();
    assert_ended_in_good_order(&verona).await;
}

/// XEP-0247: the bytestream may outlive the XML stream.
#[tokio::test]
async fn a_second_xml_stream_opens_on_the_same_bytestream() {
    let Some(verona) = Verona::start().await else { return };
    let (mut romeos, mut juliets) = verona.streams().await;
    talk(&mut romeos, &mut juliets).await;
    let first = romeos.info().id.clone().unwrap();

    let finishing = async {
        tokio::join!(romeos.finish(), async {
            assert!(juliets.next().await.is_none());
            juliets.finish().await
        })
    };
    let (romeos, juliets) = within(finishing).await;
    let (romeos, juliets) = (romeos.unwrap(), juliets.unwrap());
    let reopening = async { tokio::join!(romeos.reopen(), juliets.reopen()) };
    let (romeos, juliets) = within(reopening).await;
    let (mut romeos, mut juliets) = (romeos.unwrap(), juliets.unwrap());

    assert_ne!(romeos.info().id.clone().unwrap(), first);
    talk(&mut romeos, &mut juliets).await;
    close_in_turn(romeos, juliets).await;
    assert_eq!(verona.count(&["session-initiate"]).await, 1);
    assert_eq!(verona.count(&["<open "]).await, 1);
    assert_ended_in_good_order(&verona).await;
}

// ---- a server that is slow, or gone ----------------------------------------------------------

/// Debian's 10 kB/s: what is large takes long, and what else the bot does goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_gets_through_a_rate_limit_and_does_not_block_the_bot() {
    /// What is in flight, four blocks of 4 KiB in base64, takes the server 2.5 s; ten times that on a busy machine.
    const SANE: Duration = Duration::from_secs(25);
    let Some(verona) = Verona::with(Kind::DebianLimits, config(), config()).await else { return };
    let (mut romeos, mut juliets) = verona.streams().await;
    let large = "rose ".repeat(12_000);

    romeos.feed(message(&large)).await.unwrap();
    let receiving = tokio::spawn(async move { (juliets.next().await, juliets) });
    let sending = tokio::spawn(async move { romeos.flush().await.map(|()| romeos) });
    // The handshake and the stream header are three blocks or four, the body is fifteen.
    verona.prosody.stanza_with(&["to='juliet@capulet.lit/balcony'", "<data ", "seq='8'"]).await;
    let asked = Instant::now();
    let ping = IqRequest::Get(Ping.into());
    let pong = within(verona.romeo.send_iq(Some(jid("montague.lit")), ping)).await.unwrap();
    let took = asked.elapsed();
    assert_shape!(pong, IqResponse::Result(None));
    assert!(took < SANE, "a ping took {took:?}");
    assert!(!receiving.is_finished(), "there was no rate limit");

    let (received, juliets) = within(receiving).await.unwrap();
    assert!(body(&received.unwrap().unwrap()) == large, "the body is another one");
    let romeos = within(sending).await.unwrap().unwrap();
    close_in_turn(romeos, juliets).await;
}

/// Without stream management (XEP-0198), so that what is lost with the bytestream is lost. `prosody_outage` has the rest.
fn unmanaged(config: Config) -> Config {
    let mut sm = SmConfig::default();
    sm.enabled = false;
    config.sm(sm)
}

/// Waits for the new session with a server that was started again.
async fn online_again(events: &mut Events) {
    while let Some(event) = within(events.next()).await {
        if let Event::Online { resumed, .. } = event {
            return assert!(!resumed, "the server that was killed knew the session");
        }
    }
    panic!("the endpoint gave up");
}

async fn first_online(events: &mut Events) {
    assert_shape!(within(events.next()).await, Some(Event::Online { resumed: false, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_ends_streams_that_nothing_manages_and_others_open_when_it_is_back() {
    let Some(mut prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let config = || unmanaged(config());
    let (romeo, mut romeos_events) = bot_with_events(ROMEO, prosody.connector(), config()).await;
    let (juliet, mut juliets_events) = bot_with_events(JULIET, prosody.connector(), config()).await;
    first_online(&mut romeos_events).await;
    first_online(&mut juliets_events).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;

    prosody.kill();
    for stream in [&mut romeos, &mut juliets] {
        stream.send(message("Hist!")).await.unwrap();
    }
    prosody.restart().await;
    tokio::join!(online_again(&mut romeos_events), online_again(&mut juliets_events));
    for stream in [&mut romeos, &mut juliets] {
        // Whoever is back first tells the other.
        let end = within(stream.next()).await;
        assert_shape!(end, Some(Err(Error::Signalling(_) | Error::Terminated(_) | Error::Transport(_))));
        assert!(stream.next().await.is_none());
    }
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
    close_in_turn(romeos, juliets).await;
}

#[tokio::test]
async fn a_server_that_restarts_ends_idle_streams_that_nothing_manages_with_an_error_that_says_so() {
    let Some(mut prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let config = || unmanaged(config());
    let (romeo, mut romeos_events) = bot_with_events(ROMEO, prosody.connector(), config()).await;
    let (juliet, mut juliets_events) = bot_with_events(JULIET, prosody.connector(), config()).await;
    first_online(&mut romeos_events).await;
    first_online(&mut juliets_events).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;

    prosody.kill();
    prosody.restart().await;
    for stream in [&mut romeos, &mut juliets] {
        let error = within(stream.next()).await.unwrap().unwrap_err();
        // Whoever is back first ends the Jingle session, of which the other one may hear before its own news.
        assert_shape!(&error, Error::Signalling(SignallingError::Rebound) | Error::Terminated(_));
        assert_eq!(error.reason(), Reason::ConnectivityError, "{error:?}");
    }

    online_again(&mut romeos_events).await;
    online_again(&mut juliets_events).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
}
