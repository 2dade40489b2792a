//! The endpoint beside its streams: the bot's own stanzas and events, service discovery, limits, life and death.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{SinkExt, StreamExt, future};
use jingle_xmlstream::{
    ApiMisuse, Config, DiscoConfig, Endpoint, Error, Events, Reason, SignallingError, Step,
};
use support::{
    JULIET, ROMEO, World, body, config, element, jid, limits, message, milliseconds, next_stanza, timeouts,
    wire::{DISCO_INFO, IBB, JINGLE, JINGLE_IBB, XMLSTREAM, XTLS},
    within,
};
use tokio_xmpp::{Client, Event, IqRequest, IqResponse, xmlstream};
use xmpp_parsers::{
    disco::{DiscoInfoResult, Identity as DiscoIdentity},
    iq::Iq,
    message::Message,
    minidom::Element,
    presence::Presence,
    stanza::Stanza,
    stanza_error::DefinedCondition,
};

const NURSE: &str = "nurse@capulet.lit/hall";

fn question() -> IqRequest {
    IqRequest::Get(element("<question xmlns='urn:example'/>"))
}

fn message_to(to: &str, body: &str) -> Stanza {
    Message::chat(jid::<jid::Jid>(to)).with_body("".into(), body.into()).into()
}

#[tokio::test]
async fn what_is_not_ours_comes_out_in_order_while_a_stream_carries_load() {
    const ROUNDS: usize = 500;
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let juliet = world.bot(JULIET, config()).await;
    let nurse = world.bot(NURSE, config()).await;
    let (romeos, juliets) = support::streams(&romeo, &juliet).await;

    let load = tokio::spawn(chatter(romeos, juliets, 2000));
    let sending = tokio::spawn(async move {
        for number in 0..ROUNDS {
            let text = number.to_string();
            nurse.send_stanza(message_to(ROMEO, &text)).await.unwrap();
            let mut presence = Presence::available().with_to(jid::<jid::Jid>(ROMEO));
            presence.set_status("", text.clone());
            nurse.send_stanza(presence).await.unwrap();
            let payload = Element::builder("order", "urn:example").append(text.clone()).build();
            let iq = Iq::Set { from: None, to: Some(jid(ROMEO)), id: text, payload };
            nurse.send_stanza(iq).await.unwrap();
        }
        nurse
    });
    for number in 0..ROUNDS {
        let number = number.to_string();
        assert_eq!(body(&next_stanza(&mut events).await), number);
        let Stanza::Presence(presence) = next_stanza(&mut events).await else { panic!("no presence") };
        assert_eq!(presence.statuses[""], number);
        let Stanza::Iq(Iq::Set { payload, .. }) = next_stanza(&mut events).await else { panic!("no iq") };
        assert_eq!(payload.text(), number);
    }
    drop(within(sending).await.unwrap());
    within(load).await.unwrap();
}

/// So many messages each way at the same time.
async fn chatter(one: jingle_xmlstream::E2eStream, other: jingle_xmlstream::E2eStream, messages: usize) {
    let one_way = async |mut sender: jingle_xmlstream::StreamSender| {
        for number in 0..messages {
            sender.feed(message(&number.to_string())).await.unwrap();
        }
        sender.flush().await.unwrap();
    };
    let other_way = async |mut receiver: jingle_xmlstream::StreamReceiver| {
        for number in 0..messages {
            assert_eq!(body(&receiver.next().await.unwrap().unwrap()), number.to_string());
        }
    };
    let (one_sends, one_hears) = one.split();
    let (other_sends, other_hears) = other.split();
    future::join4(
        one_way(one_sends.clone()),
        one_way(other_sends.clone()),
        other_way(one_hears),
        other_way(other_hears),
    )
    .await;
}

// ---- the bot's own stanzas ---------------------------------------------------------------

#[tokio::test]
async fn requests_over_the_server_get_results_errors_and_timeouts() {
    let world = World::start().await;
    let short = || config().timeouts(timeouts(|it| it.iq = milliseconds(300)));
    let romeo = world.bot(ROMEO, short()).await;
    let (juliet, mut events) = world.bot_with_events(JULIET, config()).await;

    let account = within(romeo.send_iq(None, IqRequest::Get(element("<ping xmlns='urn:xmpp:ping'/>")))).await;
    assert_shape!(account, Ok(IqResponse::Result(None)));

    let answer = async {
        let Stanza::Iq(Iq::Get { id, from, .. }) = next_stanza(&mut events).await else {
            panic!("no request")
        };
        let payload = Some(element("<answer xmlns='urn:example'/>"));
        juliet.send_stanza(Iq::Result { from: None, to: from, id, payload }).await.unwrap();
    };
    let asked = romeo.send_iq(Some(jid(JULIET)), question());
    let (reply, ()) = within(future::join(asked, answer)).await;
    assert_shape!(reply, Ok(IqResponse::Result(Some(answer))) if answer.is("answer", "urn:example"));

    let nobody = within(romeo.send_iq(Some(jid("ghost@capulet.lit/crypt")), question())).await;
    assert_shape!(
        nobody,
        Ok(IqResponse::Error(error)) if error.defined_condition == DefinedCondition::ServiceUnavailable
    );

    // Juliet's bot gets it and says nothing.
    let silence = within(romeo.send_iq(Some(jid(JULIET)), question())).await;
    assert_shape!(silence, Err(Error::Timeout(Step::Iq, given)) if *given == milliseconds(300));
}

#[tokio::test]
async fn the_reply_to_a_request_that_was_dropped_is_dropped_too() {
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let (juliet, mut juliets_events) = world.bot_with_events(JULIET, config()).await;
    let request = tokio::select! {
        reply = romeo.send_iq(Some(jid(JULIET)), question()) => panic!("nobody answered, but {reply:?}"),
        request = next_stanza(&mut juliets_events) => request,
    };
    let Stanza::Iq(Iq::Get { id, from, .. }) = request else { panic!("{request:?}") };
    juliet.send_stanza(Iq::Result { from: None, to: from, id, payload: None }).await.unwrap();
    juliet.send_stanza(message_to(ROMEO, "what I said")).await.unwrap();
    assert_eq!(body(&next_stanza(&mut events).await), "what I said");
}

#[tokio::test]
async fn nobody_else_can_answer_a_request() {
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let (juliet, mut juliets_events) = world.bot_with_events(JULIET, config()).await;
    let nurse = world.bot(NURSE, config()).await;
    let answers = async {
        let request = next_stanza(&mut juliets_events).await;
        let Stanza::Iq(Iq::Get { id, from, .. }) = request else { panic!("{request:?}") };
        let reply = Iq::Result { from: None, to: from, id, payload: None };
        nurse.send_stanza(reply.clone()).await.unwrap();
        // When Romeo has this, the forged reply has passed him.
        nurse.send_stanza(message_to(ROMEO, "I meant well")).await.unwrap();
        assert_eq!(body(&next_stanza(&mut events).await), "I meant well");
        juliet.send_stanza(reply).await.unwrap();
    };
    let (reply, ()) = within(future::join(romeo.send_iq(Some(jid(JULIET)), question()), answers)).await;
    assert_shape!(reply, Ok(IqResponse::Result(None)));
}

#[tokio::test]
async fn a_bot_that_drops_its_events_refuses_requests_and_keeps_its_streams() {
    let world = World::start().await;
    let (romeo, events) = world.bot_with_events(ROMEO, config()).await;
    let juliet = world.bot(JULIET, config()).await;
    drop(events);
    let reply = within(juliet.send_iq(Some(jid(ROMEO)), question())).await;
    assert_shape!(
        reply,
        Ok(IqResponse::Error(error)) if error.defined_condition == DefinedCondition::ServiceUnavailable
    );
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

// ---- slow bots ---------------------------------------------------------------------------

#[tokio::test]
async fn a_bot_that_does_not_look_at_its_events_keeps_its_streams() {
    const MESSAGES: usize = 3000;
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let juliet = world.bot(JULIET, config()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    for number in 0..MESSAGES {
        juliet.send_stanza(message_to(ROMEO, &number.to_string())).await.unwrap();
    }
    support::talk(&mut romeos, &mut juliets).await;
    for number in 0..MESSAGES {
        assert_eq!(body(&next_stanza(&mut events).await), number.to_string());
    }
}

#[tokio::test]
async fn beyond_the_limit_of_events_the_server_waits_and_nothing_is_lost() {
    const MESSAGES: usize = 1000;
    let world = World::start().await;
    let bounded = config().limits(limits(|it| it.events = 50));
    let (romeo, mut events) = world.bot_with_events(ROMEO, bounded).await;
    let juliet = world.bot(JULIET, config()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    for number in 0..MESSAGES {
        juliet.send_stanza(message_to(ROMEO, &number.to_string())).await.unwrap();
    }
    // The stream shares the session with the server, so it waits with the events and goes on with them.
    let events = async {
        for number in 0..MESSAGES {
            assert_eq!(body(&next_stanza(&mut events).await), number.to_string());
        }
    };
    future::join(support::talk(&mut romeos, &mut juliets), events).await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_neither_the_others_nor_the_events() {
    let world = World::start().await;
    let bounded = config().limits(limits(|it| it.inbox_bytes = 20_000));
    let (romeo, mut events) = world.bot_with_events(ROMEO, bounded).await;
    let juliet = world.bot(JULIET, config()).await;
    let (romeos_unread, mut pushing) = support::streams(&romeo, &juliet).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;

    let speech = "to be, or not to be ".repeat(1000);
    let pushed = AtomicUsize::new(0);
    let push = async {
        loop {
            pushing.send(message(&speech)).await.unwrap();
            pushed.fetch_add(1, Ordering::Relaxed);
        }
    };
    let meanwhile = async {
        for number in 0..100 {
            support::talk(&mut romeos, &mut juliets).await;
            juliet.send_stanza(message_to(ROMEO, &number.to_string())).await.unwrap();
            assert_eq!(body(&next_stanza(&mut events).await), number.to_string());
        }
    };
    tokio::select! {
        () = push => {}
        () = within(meanwhile) => {}
    }
    // Romeo's inbox and all buffers on the way hold less than 1 MB here.
    let pushed = pushed.into_inner();
    assert!((5..50).contains(&pushed), "{pushed} messages of 20 kB went into a stream that nobody reads");
    drop(romeos_unread);
}

// ---- service discovery -------------------------------------------------------------------

fn disco(change: impl FnOnce(&mut DiscoConfig)) -> DiscoConfig {
    let mut disco = DiscoConfig::default();
    change(&mut disco);
    disco
}

async fn ask_disco(asking: &Endpoint, whom: &str) -> DiscoInfoResult {
    let query = IqRequest::Get(Element::bare("query", DISCO_INFO));
    match within(asking.send_iq(Some(jid(whom)), query)).await {
        Ok(IqResponse::Result(Some(info))) => DiscoInfoResult::try_from(info).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn service_discovery_tells_of_the_streams_and_of_what_the_bot_adds() {
    let world = World::start().await;
    let weather = DiscoIdentity::new("automation", "sensor", "en", "a weathercock");
    let own = disco(|it| {
        it.features = vec!["urn:example:weather".into()];
        it.identities = vec![weather.clone()];
    });
    let romeo = world.bot(ROMEO, config()).await;
    let juliet = world.bot(JULIET, config().disco(own)).await;

    let info = ask_disco(&romeo, JULIET).await;
    assert_eq!(info.identities, [weather]);
    for feature in [DISCO_INFO, JINGLE, JINGLE_IBB, XMLSTREAM, XTLS, IBB, "urn:example:weather"] {
        assert!(info.features.contains(feature), "{feature} is missing");
    }
    assert!(juliet.features().iter().all(|feature| info.features.contains(feature)));
}

#[tokio::test]
async fn a_bot_may_answer_service_discovery_itself() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, config()).await;
    let own = disco(|it| it.answer = false);
    let (juliet, mut events) = world.bot_with_events(JULIET, config().disco(own)).await;
    let answering = juliet.clone();
    tokio::spawn(async move {
        loop {
            let Stanza::Iq(Iq::Get { id, from, .. }) = next_stanza(&mut events).await else { continue };
            let info = DiscoInfoResult {
                node: None,
                identities: vec![DiscoIdentity::new("client", "bot", "en", "Juliet's own")],
                features: answering.features().into_iter().collect(),
                extensions: Vec::new(),
            };
            let reply = Iq::Result { from: None, to: from, id, payload: Some(info.into()) };
            answering.send_stanza(reply).await.unwrap();
        }
    });
    assert_eq!(ask_disco(&romeo, JULIET).await.identities[0].name.as_deref(), Some("Juliet's own"));
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

/// XEP-0115: whoever announces its capabilities is asked about them once.
#[tokio::test]
async fn capabilities_in_presence_save_the_second_question() {
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    // Something that Romeo has not.
    let more = || config().disco(disco(|disco| disco.features.push("urn:xmpp:ping".to_owned())));
    let juliet = world.bot(JULIET, more()).await;
    romeo.send_presence(Presence::available()).await.unwrap();
    juliet.send_presence(Presence::available()).await.unwrap();
    let Stanza::Presence(presence) = next_stanza(&mut events).await else { panic!("no presence") };
    assert_eq!(presence.from.unwrap().to_string(), JULIET);

    for _ in 0..2 {
        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
    }
    assert_eq!(world.count("romeo> iq get disco#info"), 1, "{:#?}", world.ladder_without_data());
    let asked = world.recorded("iq get disco#info").element;
    let node = asked.get_child("query", DISCO_INFO).unwrap().attr("node").map(ToOwned::to_owned);
    assert!(node.is_some_and(|node| node.starts_with("https://crates.io/crates/jingle-xmlstream#")));

    // The nurse announces the same, so she need not be asked at all.
    let nurse = world.bot(NURSE, more()).await;
    nurse.send_presence(Presence::available()).await.unwrap();
    let Stanza::Presence(_) = next_stanza(&mut events).await else { panic!("no presence") };
    let (mut romeos, mut nurses) = support::streams(&romeo, &nurse).await;
    support::talk(&mut romeos, &mut nurses).await;
    assert!(!world.ladder_between(ROMEO, NURSE).contains(&"romeo> iq get disco#info".to_owned()));
}

// ---- what belongs to the bot, and limits --------------------------------------------------

#[tokio::test]
async fn other_applications_of_jingle_are_the_bots_if_it_wants_them() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, config()).await;
    let (juliet, mut events) = world.bot_with_events(JULIET, config().pass_foreign(true)).await;
    let file_transfer = element(
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' initiator='romeo@montague.lit/orchard' sid='file'>\
         <content creator='initiator' name='a-file'>\
         <description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/>\
         <transport xmlns='urn:xmpp:jingle:transports:ibb:1' block-size='4096' sid='file-bytes'/>\
         </content></jingle>",
    );
    let open = element(&format!("<open xmlns='{IBB}' block-size='4096' sid='file-bytes'/>"));
    for foreign in [file_transfer, open] {
        let answer = async {
            let stanza = next_stanza(&mut events).await;
            let Stanza::Iq(Iq::Set { id, from, payload, .. }) = stanza else { panic!("{stanza:?}") };
            assert_eq!(payload, foreign, "unchanged");
            juliet.send_stanza(Iq::Result { from: None, to: from, id, payload: None }).await.unwrap();
        };
        let asked = romeo.send_iq(Some(jid(JULIET)), IqRequest::Set(foreign.clone()));
        let (reply, ()) = within(future::join(asked, answer)).await;
        assert_shape!(reply, Ok(IqResponse::Result(None)));
    }
    // Ours are still ours.
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn one_bare_jid_may_start_so_many_sessions_and_others_still_get_theirs() {
    let world = World::start().await;
    let juliet = world.bot(JULIET, config().limits(limits(|it| it.sessions_per_peer = 2))).await;
    // One account, one certificate.
    let romeos = config();
    let romeo = world.bot(ROMEO, romeos.clone()).await;
    let also_romeo = world.bot("romeo@montague.lit/balcony", romeos).await;
    let nurse = world.bot(NURSE, config()).await;

    let first = support::streams(&romeo, &juliet).await;
    let _second = support::streams(&also_romeo, &juliet).await;
    for resource in [&romeo, &also_romeo] {
        let third = within(resource.connect(&jid(JULIET))).await;
        assert_shape!(third, Err(Error::Terminated(refused)) if refused.reason == Reason::Busy);
    }
    let _hers = support::streams(&nurse, &juliet).await;
    // Those that she starts herself are not theirs.
    let _own = support::streams(&juliet, &romeo).await;

    let (closed, _) = within(future::join(first.0.close(), first.1.close())).await;
    closed.unwrap();
    let _again = support::streams(&romeo, &juliet).await;
}

#[tokio::test]
async fn so_many_sessions_and_no_more() {
    let world = World::start().await;
    let bounded = || config().limits(limits(|it| it.sessions = 2));
    let (romeo, juliet) = world.pair_of(config(), bounded()).await;
    let _first = support::streams(&romeo, &juliet).await;
    let _second = support::streams(&juliet, &romeo).await;
    let offered = within(romeo.connect(&jid(JULIET))).await;
    assert_shape!(offered, Err(Error::Terminated(refused)) if refused.reason == Reason::Busy);
    let own = within(juliet.connect(&jid(ROMEO))).await;
    assert_shape!(own, Err(Error::TooManySessions(2)));
}

// ---- life and death -----------------------------------------------------------------------

#[tokio::test]
async fn a_closed_endpoint_says_so() {
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let accepting = tokio::spawn({
        let romeo = romeo.clone();
        async move { romeo.accept().await.is_none() }
    });
    within(future::join(romeo.close(), romeo.close())).await;
    within(romeo.close()).await;
    within(world.server.wait_offline(&jid(ROMEO))).await;

    assert!(within(accepting).await.unwrap(), "who waits is told");
    assert!(within(romeo.accept()).await.is_none());
    let closed = |result: Result<(), Error>| {
        assert_shape!(result, Err(Error::ApiMisuse(ApiMisuse::EndpointClosed)));
    };
    closed(within(romeo.connect(&jid(JULIET))).await.map(drop));
    closed(within(romeo.send_stanza(message_to(JULIET, "hello"))).await);
    closed(within(romeo.send_iq(None, question())).await.map(drop));
    assert_shape!(within(romeo.online()).await, Err(Error::Signalling(SignallingError::Offline)));
    assert_eq!(romeo.jid(), None);
    while let Some(event) = within(events.next()).await {
        assert!(matches!(event, Event::Online { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_request_that_waits_when_the_endpoint_is_closed_fails() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, config()).await;
    let (_juliet, mut events) = world.bot_with_events(JULIET, config()).await;
    let closing = async {
        next_stanza(&mut events).await;
        romeo.close().await;
    };
    let (reply, ()) = within(future::join(romeo.send_iq(Some(jid(JULIET)), question()), closing)).await;
    assert_shape!(reply, Err(Error::Signalling(SignallingError::Offline)));
}

#[tokio::test]
async fn the_bot_goes_offline_with_the_last_of_its_handles() {
    let world = World::start().await;
    let (romeo, events) = world.bot_with_events(ROMEO, config()).await;
    let juliet = world.bot(JULIET, config()).await;
    let (romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    drop(romeo);
    drop(events);
    juliets.send(message("are you still there?")).await.unwrap();
    let mut romeos = romeos;
    assert_eq!(body(&within(romeos.next()).await.unwrap().unwrap()), "are you still there?");
    assert!(world.server.online().contains(&jid(ROMEO)), "a stream is a handle");

    drop(romeos);
    assert!(within(juliets.next()).await.is_none(), "in good order");
    within(juliets.close()).await.unwrap();
    within(world.server.wait_offline(&jid(ROMEO))).await;
}

#[tokio::test]
async fn connecting_before_the_session_with_the_server_is_up_waits_for_it() {
    let world = World::start().await;
    let juliet = world.bot(JULIET, config()).await;
    let (romeo, _events) =
        Endpoint::login(jid::<jid::Jid>(ROMEO), mock_server::PASSWORD, world.connector(), config());
    assert_eq!(romeo.jid(), None);
    let (connected, accepted) = within(future::join(romeo.connect(&jid(JULIET)), async {
        juliet.accept().await.unwrap().accept().await
    }))
    .await;
    support::talk(&mut connected.unwrap(), &mut accepted.unwrap()).await;
}

// ---- with a Client of the bot's own -------------------------------------------------------

fn attach(world: &World, jid: &str, config: Config) -> Result<(Endpoint, Events), Error> {
    let timeouts = xmlstream::Timeouts::default();
    let own = support::jid::<jid::Jid>(jid);
    let client = Client::new_with_connector(own, mock_server::PASSWORD, world.connector(), timeouts);
    Endpoint::attach(client, config)
}

#[tokio::test(flavor = "current_thread")]
async fn an_attached_client_carries_streams_and_events() {
    const MESSAGES: usize = 10_000;
    let world = World::start().await;
    let (romeo, mut events) = attach(&world, ROMEO, config()).unwrap();
    within(romeo.online()).await.unwrap();
    let juliet = world.bot(JULIET, config()).await;
    let (romeos, juliets) = support::streams(&romeo, &juliet).await;

    let told = async {
        for number in 0..100 {
            juliet.send_stanza(message_to(ROMEO, &number.to_string())).await.unwrap();
            assert_eq!(body(&next_stanza(&mut events).await), number.to_string());
        }
    };
    within(future::join(chatter(romeos, juliets, MESSAGES), told)).await;
    within(romeo.close()).await;
    within(world.server.wait_offline(&jid(ROMEO))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_attached_to_a_runtime_where_it_goes_deaf() {
    let world = World::start().await;
    let refused = attach(&world, ROMEO, config());
    let Err(error @ Error::ApiMisuse(ApiMisuse::AttachOnMultiThread)) = refused else {
        panic!("{refused:?}")
    };
    assert!(error.to_string().contains("Endpoint::login"), "{error}");
}
