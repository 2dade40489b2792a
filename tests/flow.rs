//! XEP-0247's flow, through the public API and real sockets, against the mock server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use futures::{SinkExt, StreamExt, future};
use jingle_xmlstream::{E2eStream, Endpoint, Error, IbbConfig, Level, Reason, Trust, security::Verification};
use support::{
    JULIET, ROMEO, World, body, config, element, message,
    wire::{IBB, JINGLE, JINGLE_IBB, XMLSTREAM, XTLS, content_child},
    within,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{
    iq::Iq,
    minidom::Element,
    presence::{Presence, Show},
    stanza::Stanza,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

/// The ladder of XEP-0247 #protocol, with XTLS and `<open/>` and `<close/>` as today's XEPs have them.
#[tokio::test]
async fn romeo_initiates_and_both_talk() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair(Trust::first_use(), Trust::first_use()).await;

    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    romeos.send(message("M'lady, I would be pleased to make your acquaintance.")).await.unwrap();
    let heard = within(juliets.next()).await.unwrap().unwrap();
    assert_eq!(body(&heard), "M'lady, I would be pleased to make your acquaintance.");
    let Stanza::Message(heard) = heard else { panic!("{heard:?}") };
    assert_eq!(heard.from.unwrap().to_string(), ROMEO);
    assert_eq!(heard.to.unwrap().to_string(), JULIET);

    juliets.send(message("Art thou not Romeo, and a Montague?")).await.unwrap();
    assert_eq!(body(&within(romeos.next()).await.unwrap().unwrap()), "Art thou not Romeo, and a Montague?");

    let (romeo_closed, juliet_heard) = within(future::join(romeos.close(), juliets.next())).await;
    romeo_closed.unwrap();
    assert!(juliet_heard.is_none());
    within(juliets.close()).await.unwrap();

    support::assert_ladder(
        &world.ladder_without_data(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "romeo> iq set ibb open",
            "juliet> iq result (security-info)",
            "juliet> iq result (ibb open)",
            "romeo> iq set ibb close",
            "juliet> iq result (ibb close)",
            "romeo> iq set jingle session-terminate success",
            "juliet> iq result (session-terminate success)",
        ],
    );
}

/// XEP-0247 examples 3 to 6 and 13, XEP-0261 examples 1 to 3, jingle-xtls #proto.
#[tokio::test]
async fn each_stanza_says_what_the_specifications_show() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
    let tls = romeos.info().tls.clone().unwrap();
    let own_fingerprint = tls.own_fingerprint().to_string();
    let peers_fingerprint = tls.peer_fingerprint().to_string();
    let (closed, _) = within(future::join(romeos.close(), juliets.close())).await;
    closed.unwrap();

    let initiate = world.recorded("iq set jingle session-initiate").element;
    let jingle = initiate.get_child("jingle", JINGLE).unwrap();
    let sid = jingle.attr("sid").unwrap();
    assert_eq!((jingle.attr("initiator"), jingle.attr("responder")), (Some(ROMEO), None));
    let content = jingle.get_child("content", JINGLE).unwrap();
    assert_eq!(content.attr("creator"), Some("initiator"));
    assert!(content.has_child("description", XMLSTREAM));
    let transport = content.get_child("transport", JINGLE_IBB).unwrap();
    assert_eq!(transport.attr("block-size"), Some("65535"));
    let security = content.get_child("security", XTLS).unwrap();
    assert_eq!(announced(security), ("sha-256".to_owned(), own_fingerprint));
    assert_eq!(methods(security), ["x509"]);

    let accept = world.recorded("iq set jingle session-accept").element;
    let accepted = accept.get_child("jingle", JINGLE).unwrap();
    assert_eq!((accepted.attr("sid"), accepted.attr("responder")), (Some(sid), Some(JULIET)));
    let answer = accepted.get_child("content", JINGLE).unwrap();
    assert_eq!(answer.attr("creator"), Some("initiator"));
    assert_eq!(answer.attr("name"), content.attr("name"));
    assert!(answer.has_child("description", XMLSTREAM));
    assert_eq!(answer.get_child("transport", JINGLE_IBB).unwrap().attr("sid"), transport.attr("sid"));
    let security = answer.get_child("security", XTLS).unwrap();
    assert_eq!(announced(security), ("sha-256".to_owned(), peers_fingerprint));

    let info = world.recorded("iq set jingle security-info").element;
    assert_eq!(methods(content_child(&info, "security", XTLS).unwrap()), ["x509"]);

    let open = world.recorded("iq set ibb open").element;
    let open = open.get_child("open", IBB).unwrap();
    assert_eq!((open.attr("block-size"), open.attr("sid")), (Some("65535"), transport.attr("sid")));
    assert!(open.attr("stanza").is_none_or(|stanza| stanza == "iq"));
    let close = world.recorded("iq set ibb close").element;
    assert_eq!(close.get_child("close", IBB).unwrap().attr("sid"), transport.attr("sid"));

    let terminate = world.recorded("iq set jingle session-terminate success").element;
    let terminated = terminate.get_child("jingle", JINGLE).unwrap();
    assert_eq!(terminated.attr("sid"), Some(sid));
    assert!(terminated.get_child("reason", JINGLE).unwrap().has_child("success", JINGLE));
}

/// XEP-0047 #send: each direction counts its blocks from 0.
#[tokio::test]
async fn blocks_are_counted_from_zero_in_each_direction_and_none_is_longer_than_agreed() {
    let world = World::start().await;
    let mut narrow = IbbConfig::default();
    narrow.block_size = 4096;
    let (romeo, juliet) = world.pair_of(config(), config().ibb(narrow)).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    let speech = "But, soft! what light through yonder window breaks? ".repeat(1000);
    romeos.send(message(&speech)).await.unwrap();
    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), speech);

    for (from, at_least) in [(ROMEO, 13), (JULIET, 1)] {
        let record = world.server.record();
        let sent = record.iter().filter(|recorded| recorded.from.as_str() == from);
        let blocks: Vec<_> = sent.filter_map(|recorded| recorded.element.get_child("data", IBB)).collect();
        let counted: Vec<_> = blocks.iter().map(|data| data.attr("seq").unwrap().to_owned()).collect();
        let expected: Vec<_> = (0..blocks.len()).map(|seq| seq.to_string()).collect();
        assert_eq!(counted, expected);
        assert!(blocks.len() >= at_least, "{} blocks from {from}", blocks.len());
        for data in blocks {
            // The mock server records `[5464 characters]`: 4096 bytes in base64.
            let length: usize =
                data.text().trim_start_matches('[').split(' ').next().unwrap().parse().unwrap();
            assert!(length <= 5464, "a block of {length} characters");
        }
    }
}

#[tokio::test]
async fn what_is_known_about_the_stream_is_the_same_on_both_sides() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (romeos, juliets) = support::streams(&romeo, &juliet).await;

    let (at_romeo, at_juliet) = (romeos.info().clone(), juliets.info().clone());
    assert_eq!(at_romeo.id, at_juliet.id);
    assert!(at_romeo.id.is_some());
    assert_eq!(at_romeo.peer, at_juliet.local);
    assert_eq!(at_romeo.local, at_juliet.peer);
    assert_eq!(romeos.peer().jid().unwrap().to_string(), JULIET);

    assert_eq!(at_romeo.negotiated.unwrap().transport.method(), "ibb");
    let (at_romeo, at_juliet) = (at_romeo.tls.unwrap(), at_juliet.tls.unwrap());
    assert_eq!(at_romeo.version(), "TLSv1.3");
    assert_eq!(at_romeo.key_exchange(), "X25519MLKEM768");
    assert_eq!(at_romeo.cipher_suite(), at_juliet.cipher_suite());
    assert_eq!(at_romeo.own_fingerprint(), at_juliet.peer_fingerprint());
    assert_eq!(at_romeo.peer_fingerprint(), at_juliet.own_fingerprint());
    assert_eq!(romeos.peer().fingerprint(), Some(at_romeo.peer_fingerprint()));
    assert_eq!(romeos.peer().verification(), Some(Verification::FirstUse));
    assert_eq!(juliets.peer().level(), Some(Level::FirstUse));
}

#[tokio::test]
async fn the_server_sees_no_word_of_it() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let overheard = support::wire::eavesdrop(&world.server);
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;

    let overheard = overheard.lock().unwrap();
    assert!(overheard.len() > 1000, "TLS alone has so many bytes");
    for secret in ["Wherefore", "stream", ROMEO] {
        let seen = overheard.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!seen, "the server sees {secret:?}");
    }
}

#[tokio::test]
async fn the_offer_tells_who_offers_and_with_which_certificate() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let peer = support::jid(JULIET);
    let (connected, shown) = within(future::join(romeo.connect(&peer), async {
        let incoming = juliet.accept().await.unwrap();
        assert_eq!(incoming.peer().to_string(), ROMEO);
        let shown = incoming.security().unwrap().to_vec();
        (shown, incoming.accept().await.unwrap())
    }))
    .await;
    let tls = connected.unwrap().info().tls.clone().unwrap();
    assert_eq!(shown.0, [tls.own_fingerprint().clone()]);
}

#[tokio::test]
async fn requests_go_both_ways_with_results_and_errors() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (romeos, juliets) = support::streams(&romeo, &juliet).await;
    let (romeo_asks, romeo_answers) = romeos.split();
    let (juliet_asks, juliet_answers) = juliets.split();
    tokio::spawn(answer_questions(romeo_answers, romeo_asks.clone()));
    tokio::spawn(answer_questions(juliet_answers, juliet_asks.clone()));

    for asking in [romeo_asks, juliet_asks] {
        let known = asking.send_iq(IqRequest::Get(element("<question xmlns='urn:example'>2+2</question>")));
        let IqResponse::Result(Some(answer)) = within(known).await.unwrap() else { panic!("no result") };
        assert_eq!(answer.text(), "2+2, you ask");
        let refused = asking.send_iq(IqRequest::Set(element("<order xmlns='urn:example'/>")));
        let IqResponse::Error(error) = within(refused).await.unwrap() else { panic!("no error") };
        assert_eq!(error.defined_condition, DefinedCondition::NotAllowed);
        let ping = asking.send_iq(IqRequest::Get(element("<ping xmlns='urn:xmpp:ping'/>")));
        assert!(
            matches!(within(ping).await.unwrap(), IqResponse::Result(None)),
            "nobody has to answer a ping"
        );
    }
}

/// Answers a get with a result, a set with an error.
async fn answer_questions(
    mut requests: jingle_xmlstream::StreamReceiver,
    mut answers: jingle_xmlstream::StreamSender,
) {
    while let Some(Ok(stanza)) = requests.next().await {
        let answer = match stanza {
            Stanza::Iq(Iq::Get { id, payload, .. }) => {
                let text = format!("{}, you ask", payload.text());
                let answer = Element::builder("answer", "urn:example").append(text).build();
                Iq::Result { from: None, to: None, id, payload: Some(answer) }
            }
            Stanza::Iq(Iq::Set { id, .. }) => Iq::from_error(
                id,
                StanzaError::new(
                    ErrorType::Cancel,
                    DefinedCondition::NotAllowed,
                    "en",
                    "I am not ordered about",
                ),
            ),
            other => panic!("{other:?}"),
        };
        answers.send(answer.into()).await.unwrap();
    }
}

#[tokio::test]
async fn presence_and_messages_keep_their_order() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;

    romeos.feed(message("first")).await.unwrap();
    let mut away = Presence::available();
    away.show = Some(Show::Away);
    romeos.feed(away.into()).await.unwrap();
    romeos.feed(message("third")).await.unwrap();
    romeos.flush().await.unwrap();

    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), "first");
    let Stanza::Presence(presence) = within(juliets.next()).await.unwrap().unwrap() else { panic!() };
    assert_eq!(presence.show, Some(Show::Away));
    assert_eq!(presence.from.unwrap().to_string(), ROMEO);
    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), "third");
}

#[tokio::test]
async fn a_declined_offer_is_an_error_that_says_so() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let peer = support::jid(JULIET);
    let (connected, ()) = within(future::join(romeo.connect(&peer), async {
        juliet.accept().await.unwrap().decline(Reason::Busy);
    }))
    .await;
    let Err(Error::Terminated(terminated)) = connected else { panic!("{connected:?}") };
    assert_eq!(terminated.reason, Reason::Busy);
    world.wait_for("romeo> iq result (session-terminate busy)").await;
    assert_eq!(world.count("romeo> iq set ibb open"), 0);
}

#[tokio::test]
async fn offers_come_in_the_order_in_which_they_were_made() {
    let world = World::start().await;
    let juliet = world.bot(JULIET, support::config()).await;
    let peer = support::jid(JULIET);
    let mut suitors = Vec::new();
    for suitor in ["paris", "romeo", "rosencrantz"] {
        let bot = world.bot(&format!("{suitor}@verona.lit/bot"), support::config()).await;
        let connecting = tokio::spawn(bot.connect(&peer));
        let acknowledged = "juliet> iq result (session-initiate)";
        let mut recorded = world.server.subscribe();
        while !world
            .ladder_between(&format!("{suitor}@verona.lit"), JULIET)
            .iter()
            .any(|it| it == acknowledged)
        {
            within(recorded.recv()).await.unwrap();
        }
        suitors.push((bot, connecting));
    }
    for (bot, connecting) in suitors {
        let incoming = within(juliet.accept()).await.unwrap();
        assert_eq!(*incoming.peer(), bot.jid().unwrap());
        let (connected, accepted) = within(future::join(connecting, incoming.accept())).await;
        support::talk(&mut connected.unwrap().unwrap(), &mut accepted.unwrap()).await;
    }
}

#[tokio::test]
async fn several_streams_between_the_same_two_do_not_mix() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let mut pairs = Vec::new();
    for _ in 0..2 {
        pairs.push(support::streams(&romeo, &juliet).await);
        let (juliets, romeos) = support::streams(&juliet, &romeo).await;
        pairs.push((romeos, juliets));
    }
    for (number, (romeos, _)) in pairs.iter_mut().enumerate() {
        romeos.send(message(&format!("on stream {number}"))).await.unwrap();
    }
    for (number, (_, juliets)) in pairs.iter_mut().enumerate() {
        assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), format!("on stream {number}"));
    }
    let (romeos, juliets) = pairs.remove(1);
    let (one, other) = within(future::join(romeos.close(), juliets.close())).await;
    one.unwrap();
    other.unwrap();
    for (romeos, juliets) in &mut pairs {
        support::talk(romeos, juliets).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_bots_each_talk_to_each() {
    const BOTS: usize = 20;
    let world = World::start().await;
    let mut bots = Vec::new();
    for number in 0..BOTS {
        bots.push(world.bot(&format!("bot{number}@verona.lit/bot"), support::config()).await);
    }
    let mut accepting = Vec::new();
    for (number, bot) in bots.iter().enumerate() {
        accepting.push(tokio::spawn(accept_and_echo(bot.clone(), number)));
    }
    let mut talking = Vec::new();
    for (number, bot) in bots.iter().enumerate() {
        for peer in &bots[number + 1..] {
            talking.push(tokio::spawn(ask_for_echo(bot.clone(), peer.jid().unwrap())));
        }
    }
    for talk in talking {
        within(talk).await.unwrap();
    }
    for accepted in accepting {
        within(accepted).await.unwrap();
    }
    assert!(bots.iter().all(|bot| bot.jid().is_some()));
}

async fn ask_for_echo(bot: Endpoint, peer: jid::FullJid) {
    let mut stream = bot.connect(&peer).await.unwrap();
    let words = format!("from {} to {peer}", bot.jid().unwrap());
    stream.send(message(&words)).await.unwrap();
    assert_eq!(body(&stream.next().await.unwrap().unwrap()), words);
    stream.close().await.unwrap();
}

/// Gives back the one message of each of so many streams.
async fn accept_and_echo(bot: Endpoint, streams: usize) {
    let echo = async |mut stream: E2eStream| {
        let heard = stream.next().await.unwrap().unwrap();
        stream.send(message(&body(&heard))).await.unwrap();
        assert!(stream.next().await.is_none());
        stream.close().await.unwrap();
    };
    let mut echoing = Vec::new();
    for _ in 0..streams {
        let incoming = bot.accept().await.unwrap();
        echoing.push(async move { echo(incoming.accept().await.unwrap()).await });
    }
    future::join_all(echoing).await;
}

fn announced(security: &Element) -> (String, String) {
    let fingerprint = security.get_child("fingerprint", XTLS).unwrap();
    (fingerprint.attr("algo").unwrap().to_owned(), fingerprint.text())
}

fn methods(security: &Element) -> Vec<&str> {
    security.children().filter(|it| it.name() == "method").filter_map(|it| it.attr("name")).collect()
}
