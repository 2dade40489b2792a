//! Peers, strangers and servers that break every rule: each is refused by name, and nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt, future};
use jingle_xmlstream::{
    Direction, E2eStream, Endpoint, Error, PeerMisbehaved, Reason, StreamEvent, StreamFailure, TransportError,
};
use mock_server::Verdict;
use support::{
    JULIET, ROMEO, World, body, config, element, jid,
    mallory::{
        BLOCK, MALLORY, Mallory, Stream, ibb_close, ibb_data, ibb_open, jingle, overheard_sids, security,
        session_initiate,
    },
    message, plaintext_allowed,
    wire::{IBB, JINGLE, is_ibb},
    within,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{minidom::Element, stanza::Stanza, stanza_error::DefinedCondition, stream_error};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// Romeo and Juliet talk, and Mallory knows all sids. Juliet's bot takes plaintext, which Mallory speaks.
struct Scene {
    world: World,
    romeo: Endpoint,
    juliet: Endpoint,
    mallory: Mallory,
    romeos: E2eStream,
    juliets: E2eStream,
}

impl Scene {
    async fn set() -> Self {
        let world = World::start().await;
        let (romeo, juliet) = world.pair_of(config(), plaintext_allowed(config())).await;
        let (romeos, juliets) = support::streams(&romeo, &juliet).await;
        let mallory = Mallory::new(&world, JULIET).await;
        Self { world, romeo, juliet, mallory, romeos, juliets }
    }

    /// Romeo and Juliet have noticed nothing, and can make more streams.
    async fn goes_on_undisturbed(mut self) {
        support::talk(&mut self.romeos, &mut self.juliets).await;
        let (mut romeos, mut juliets) = support::streams(&self.romeo, &self.juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
    }

    /// Mallory has a bytestream with Juliet, who waits for the header on it.
    async fn mallory_connects(&self) -> (Stream, tokio::task::JoinHandle<Result<E2eStream, Error>>) {
        let juliet = self.juliet.clone();
        let accepting = tokio::spawn(async move { juliet.accept().await.unwrap().accept().await });
        (self.mallory.open("evil").await, accepting)
    }

    /// Mallory has an XML stream with Juliet.
    async fn mallory_streams(&self) -> (Stream, E2eStream) {
        let (mut stream, accepting) = self.mallory_connects().await;
        self.mallory.write(&mut stream, HEADER.as_bytes()).await.unwrap();
        (stream, within(accepting).await.unwrap().unwrap())
    }
}

fn unknown_session() -> (DefinedCondition, Option<String>) {
    (DefinedCondition::ItemNotFound, Some("unknown-session".to_owned()))
}

#[track_caller]
fn assert_stream_error(result: Option<Result<Stanza, Error>>, expected: &stream_error::DefinedCondition) {
    let Some(Err(Error::Stream(StreamFailure { direction, condition, .. }))) = &result else {
        panic!("{result:?}")
    };
    assert_eq!((direction, condition), (&Direction::Sent, expected));
}

// ---- strangers -----------------------------------------------------------------------------

#[tokio::test]
async fn a_stranger_who_knows_all_sids_can_touch_nothing() {
    let scene = Scene::set().await;
    let (session, bytestream) = overheard_sids(&scene.world);
    let terminate = "<reason><success/></reason>";
    let content = "<content creator='initiator' name='xmlstream'/>";
    for request in [
        jingle("session-terminate", &session, terminate),
        jingle("session-info", &session, ""),
        jingle("security-info", &session, content),
        jingle("content-remove", &session, content),
        jingle("transport-replace", &session, content),
        jingle("session-accept", &session, content),
    ] {
        assert_eq!(scene.mallory.refused(request).await, unknown_session());
    }
    let (open, _) = scene.mallory.refused(ibb_open(&bytestream, BLOCK)).await;
    assert_eq!(open, DefinedCondition::NotAcceptable);
    for request in [ibb_data(&bytestream, "0", "QUJD"), ibb_close(&bytestream)] {
        let (condition, _) = scene.mallory.refused(request).await;
        assert_eq!(condition, DefinedCondition::ItemNotFound);
    }
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn another_resource_of_the_peer_is_a_stranger() {
    let scene = Scene::set().await;
    let (session, bytestream) = overheard_sids(&scene.world);
    let terminate = jingle("session-terminate", &session, "<reason><success/></reason>");
    for forged in ["romeo@montague.lit/chamber", "romeo@montague.lit", "montague.lit"] {
        for payload in [&terminate, &ibb_close(&bytestream), &ibb_data(&bytestream, "0", "QUJD")] {
            let mut iq =
                element(&format!("<iq xmlns='jabber:client' type='set' id='forged' from='{forged}'/>"));
            iq.append_child(payload.clone());
            assert!(scene.world.server.inject(&jid(JULIET), iq));
        }
    }
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn a_forged_reply_from_a_stranger_acknowledges_nothing() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    // Each request of Romeo's to Juliet is first refused by somebody else in the same words.
    world.server.intercept(|route, stanza| {
        if stanza.attr("type") != Some("set") || route.from.as_str() != ROMEO {
            return Verdict::Deliver;
        }
        let forged = format!(
            "<iq xmlns='jabber:client' type='error' id='{}' from='{MALLORY}' to='{ROMEO}'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
            stanza.attr("id").unwrap()
        );
        Verdict::Also(vec![element(&forged)])
    });
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

// ---- Jingle ----------------------------------------------------------------------------------

#[tokio::test]
async fn malformed_jingle_of_the_peer_is_refused_and_its_session_goes_on() {
    let mut scene = Scene::set().await;
    let (session, _) = overheard_sids(&scene.world);
    let ask = async |payload: Element| match within(
        scene.romeo.send_iq(Some(jid(JULIET)), IqRequest::Set(payload)),
    )
    .await
    .unwrap()
    {
        IqResponse::Error(error) => (error.defined_condition, error.other.map(|it| it.name().to_owned())),
        IqResponse::Result(_) => panic!("it was taken"),
    };
    let bad = [
        element(&format!("<jingle xmlns='{JINGLE}' action='session-info'/>")),
        element(&format!("<jingle xmlns='{JINGLE}' sid='{session}'/>")),
        jingle("session-dance", &session, ""),
        jingle("content-add", &session, ""),
        jingle("security-info", &session, ""),
        jingle("content-add", &session, "<content creator='nobody' name='x'/>"),
        jingle("session-initiate", "new", ""),
        jingle("session-initiate", "new", "<content creator='responder' name='x'/>"),
    ];
    for request in bad {
        let shown = String::from(&request);
        assert_eq!(ask(request).await, (DefinedCondition::BadRequest, None), "{shown}");
    }
    let out_of_order = (DefinedCondition::UnexpectedRequest, Some("out-of-order".to_owned()));
    assert_eq!(ask(jingle("session-accept", &session, "")).await, out_of_order);
    assert_eq!(ask(jingle("transport-accept", &session, "")).await, out_of_order);
    let again = session_initiate(&session, "other-bytes", &security());
    assert_eq!(ask(again).await, out_of_order);
    let unknown = "<ringing xmlns='urn:xmpp:jingle:apps:rtp:info:1'/>";
    let unsupported = (DefinedCondition::FeatureNotImplemented, Some("unsupported-info".to_owned()));
    assert_eq!(ask(jingle("session-info", &session, unknown)).await, unsupported);

    support::talk(&mut scene.romeos, &mut scene.juliets).await;
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn offers_that_can_not_be_accepted_are_terminated_with_their_reason() {
    let scene = Scene::set().await;
    let offer = |description: &str, transport: &str| {
        let content = format!(
            "<content creator='initiator' name='x'><description xmlns='{description}'/>\
             <transport xmlns='{transport}' sid='y' block-size='4096'/></content>"
        );
        jingle("session-initiate", "offer", &content)
    };
    let xmlstream = "urn:xmpp:jingle:apps:xmlstream:0";
    for (request, reason) in [
        (offer("urn:xmpp:jingle:apps:rtp:1", "urn:xmpp:jingle:transports:ibb:1"), "unsupported-applications"),
        (offer(xmlstream, "urn:xmpp:jingle:transports:ice-udp:1"), "unsupported-transports"),
    ] {
        scene.mallory.ask(request).await.unwrap();
        scene.mallory.heard_action(&format!("session-terminate {reason}")).await;
    }
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn a_flood_of_offers_gets_busy_and_others_are_served() {
    const FLOOD: usize = 300;
    let scene = Scene::set().await;
    let offers = (0..FLOOD).map(|number| {
        let offer = session_initiate(&format!("flood-{number}"), &format!("bytes-{number}"), &security());
        scene.mallory.ask(offer)
    });
    for acknowledged in within(future::join_all(offers)).await {
        acknowledged.unwrap();
    }
    let allowed = jingle_xmlstream::Limits::default().sessions_per_peer;
    scene.mallory.wait_for_actions(FLOOD - allowed, "session-terminate busy").await;
    assert_eq!(scene.mallory.count_actions("session-terminate busy"), FLOOD - allowed);

    for _ in 0..allowed {
        let incoming = within(scene.juliet.accept()).await.unwrap();
        assert_eq!(incoming.peer().to_string(), MALLORY);
        incoming.decline(Reason::Decline);
    }
    scene.mallory.wait_for_actions(allowed, "session-terminate decline").await;
    scene.goes_on_undisturbed().await;
}

// ---- in-band bytestreams ---------------------------------------------------------------------

#[tokio::test]
async fn data_that_breaks_the_rules_ends_its_bytestream() {
    let too_long = STANDARD.encode(vec![0; BLOCK + 1]);
    let bad_request = DefinedCondition::BadRequest;
    for (seq, text, expected) in [
        ("1", "no base64 at all!", bad_request.clone()),
        ("1", "QUJ", bad_request.clone()),
        ("1", too_long.as_str(), bad_request.clone()),
        ("-1", "QUJD", bad_request),
        ("2", "QUJD", DefinedCondition::UnexpectedRequest),
        ("0", "QUJD", DefinedCondition::UnexpectedRequest),
    ] {
        let scene = Scene::set().await;
        let (stream, mut juliets) = scene.mallory_streams().await;
        let (condition, _) = scene.mallory.refused(ibb_data(&stream.sid, seq, text)).await;
        assert_eq!(condition, expected, "seq {seq}: {text:.20}");
        let ended = within(juliets.next()).await;
        assert_shape!(ended, Some(Err(Error::PeerMisbehaved(PeerMisbehaved::Bytestream(_)))));
        scene.mallory.heard_action("session-terminate failed-transport").await;
        let late = ibb_data(&stream.sid, "1", "QUJD");
        assert_eq!(scene.mallory.refused(late).await.0, DefinedCondition::ItemNotFound);
        scene.goes_on_undisturbed().await;
    }
}

#[tokio::test]
async fn data_before_open_is_refused_and_open_still_works() {
    let scene = Scene::set().await;
    let mut stream = scene.mallory.offer("early").await;
    let open = || ibb_open(&stream.sid, BLOCK);
    let data = || ibb_data(&stream.sid, "0", "QUJD");
    // Before Juliet's user has accepted, there is no bytestream at all.
    for request in [data(), open(), ibb_close(&stream.sid)] {
        assert_eq!(scene.mallory.refused(request).await.0, DefinedCondition::ItemNotFound);
    }
    let incoming = within(scene.juliet.accept()).await.unwrap();
    let accepting = tokio::spawn(incoming.accept());
    scene.mallory.heard_action("session-accept").await;
    assert_eq!(scene.mallory.refused(data()).await.0, DefinedCondition::ItemNotFound);
    let larger = ibb_open(&stream.sid, BLOCK + 1);
    assert_eq!(scene.mallory.refused(larger).await.0, DefinedCondition::ResourceConstraint);
    scene.mallory.ask(open()).await.unwrap();
    assert_eq!(scene.mallory.refused(open()).await.0, DefinedCondition::UnexpectedRequest);
    scene.mallory.write(&mut stream, HEADER.as_bytes()).await.unwrap();
    within(accepting).await.unwrap().unwrap();
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn a_bytestream_that_is_closed_under_the_stream_is_an_error_after_what_had_come() {
    let scene = Scene::set().await;
    let (mut stream, mut juliets) = scene.mallory_streams().await;
    scene.mallory.write(&mut stream, b"<message><body>and now</body></message><message><bo").await.unwrap();
    let closed = scene.mallory.ask(ibb_close(&stream.sid)).await;
    assert!(closed.is_ok(), "{closed:?}");
    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), "and now");
    let ended = within(juliets.next()).await;
    assert_shape!(ended, Some(Err(Error::Transport(TransportError::Closed))));
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn a_server_that_loses_repeats_or_changes_a_block_breaks_the_stream_and_no_more() {
    for attack in ["lose", "repeat", "change"] {
        let world = World::start().await;
        // With stream management, it would go on over another bytestream.
        let unmanaged = || config().sm(support::outages::sm(|sm| sm.enabled = false));
        let (romeo, juliet) = world.pair_of(unmanaged(), unmanaged()).await;
        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        let mut attacks = 0;
        world.server.intercept(move |_, stanza| {
            if !is_ibb(stanza, "data") || attacks > 0 {
                return Verdict::Deliver;
            }
            attacks += 1;
            match attack {
                // The sender is told that it arrived.
                "lose" => Verdict::Reply(element("<iq xmlns='jabber:client'/>")),
                "repeat" => Verdict::Also(vec![stanza.clone()]),
                _ => Verdict::Replace(with_a_bit_flipped(stanza)),
            }
        });
        let _ = romeos.send(message("first")).await;
        let _ = romeos.send(message("second")).await;
        let mut heard = Vec::new();
        let error = loop {
            match within(juliets.next()).await {
                Some(Ok(stanza)) => heard.push(body(&stanza)),
                Some(Err(error)) => break error,
                None => panic!("an attack is no orderly end"),
            }
        };
        match attack {
            "change" => assert_shape!(&error, Error::PeerMisbehaved(PeerMisbehaved::Tls(_))),
            _ => assert_shape!(&error, Error::PeerMisbehaved(PeerMisbehaved::Bytestream(_))),
        }
        assert!(
            ["first", "second"].starts_with(&heard.iter().map(String::as_str).collect::<Vec<_>>()),
            "{heard:?}"
        );
        assert!(attack == "repeat" || heard.is_empty(), "{heard:?}");
        assert!(matches!(within(romeos.next()).await, Some(Err(_))));
        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
    }
}

fn with_a_bit_flipped(stanza: &Element) -> Element {
    let mut stanza = stanza.clone();
    let data = stanza.get_child_mut("data", IBB).unwrap();
    let mut bytes = STANDARD.decode(data.text()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    data.take_nodes();
    data.append_text(STANDARD.encode(bytes));
    stanza
}

// ---- the XML stream --------------------------------------------------------------------------

#[tokio::test]
async fn no_stream_without_a_stream_header() {
    for garbage in ["GET / HTTP/1.1\r\n\r\n", "<message/>", "<stream:stream>", "\u{0}\u{0}\u{0}"] {
        let scene = Scene::set().await;
        let (mut stream, accepting) = scene.mallory_connects().await;
        scene.mallory.write(&mut stream, garbage.as_bytes()).await.unwrap();
        let refused = within(accepting).await.unwrap();
        assert_shape!(refused, Err(Error::Stream(failure)) if failure.direction == Direction::Sent);
        scene.mallory.heard("<stream:error").await;
        scene.mallory.heard_action("session-terminate failed-application").await;
        scene.goes_on_undisturbed().await;
    }
}

#[tokio::test]
async fn a_stanza_that_is_nested_too_deep_ends_its_stream_only() {
    let scene = Scene::set().await;
    let (mut stream, mut juliets) = scene.mallory_streams().await;
    let deep = format!("<message>{}", "<a>".repeat(100_000));
    let _ = scene.mallory.write(&mut stream, deep.as_bytes()).await;
    assert_stream_error(within(juliets.next()).await, &stream_error::DefinedCondition::PolicyViolation);
    scene.mallory.heard("<policy-violation").await;
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn a_stanza_of_ten_megabytes_ends_its_stream_only() {
    let scene = Scene::set().await;
    let (mut stream, mut juliets) = scene.mallory_streams().await;
    let long = format!("<message><body>{}", "so long ".repeat(1_250_000));
    let written = scene.mallory.write(&mut stream, long.as_bytes()).await;
    assert!(written.is_err(), "it did not take all of it");
    assert_stream_error(within(juliets.next()).await, &stream_error::DefinedCondition::PolicyViolation);
    scene.mallory.heard("<policy-violation").await;
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn a_stanza_in_somebody_elses_name_is_counted_and_comes_under_the_true_one() {
    let scene = Scene::set().await;
    let (mut stream, mut juliets) = scene.mallory_streams().await;
    let forged = "<message from='nurse@capulet.lit/hall' to='tybalt@capulet.lit/hall'/>";
    for (message, violations) in [(forged, 1), ("<message/>", 1)] {
        scene.mallory.write(&mut stream, message.as_bytes()).await.unwrap();
        let Stanza::Message(heard) = within(juliets.next()).await.unwrap().unwrap() else { panic!() };
        assert_eq!((heard.from, heard.to), (Some(jid(MALLORY)), Some(jid(JULIET))));
        assert_eq!(juliets.violations(), violations);
    }
    scene.goes_on_undisturbed().await;
}

// ---- the server ------------------------------------------------------------------------------

#[tokio::test]
async fn a_deeply_nested_stanza_over_the_server_harms_nobody() {
    let scene = Scene::set().await;
    let (open, close) = ("<a>".repeat(10_000), "</a>".repeat(10_000));
    let deep = format!("<message xmlns='jabber:client' from='{MALLORY}'>{open}{close}</message>");
    assert!(scene.world.server.inject_raw(&jid(JULIET), deep));
    scene.goes_on_undisturbed().await;
}

#[tokio::test]
async fn garbage_from_the_server_ends_its_session_and_streams_go_on_in_a_new_one() {
    for garbage in [b"</garbage>".to_vec(), vec![0xFF; 100], b"<what xmlns='jabber:client'/>".to_vec()] {
        let world = World::start().await;
        let (romeo, juliet) = world.usual_pair().await;
        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
        let mut told = romeos.events();
        assert!(world.server.inject_raw(&jid(ROMEO), garbage));

        assert_shape!(within(told.next()).await, Some(StreamEvent::Suspended { .. }));
        assert_shape!(within(told.next()).await, Some(StreamEvent::Resumed { .. }));
        support::talk(&mut romeos, &mut juliets).await;
        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
    }
}

#[tokio::test]
async fn stanzas_that_make_no_sense_are_events_or_nothing() {
    let scene = Scene::set().await;
    for nonsense in [
        "<iq xmlns='jabber:client' type='set' id='1' from='romeo@montague.lit/orchard'/>",
        "<iq xmlns='jabber:client' type='result' id='1' from='romeo@montague.lit/orchard'/>",
        "<iq xmlns='jabber:client' type='set' id='2'><jingle xmlns='urn:xmpp:jingle:1' action='x' sid='y'/></iq>",
        "<iq xmlns='jabber:client' type='get' id='3'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
        "<iq xmlns='jabber:client' type='dance' id='4' from='romeo@montague.lit/orchard'/>",
        "<message xmlns='jabber:client' from='not a jid@@@/'/>",
        "<presence xmlns='jabber:client' from='romeo@montague.lit/orchard'><c xmlns='http://jabber.org/protocol/caps'/></presence>",
        "<presence xmlns='jabber:client' type='error' from='romeo@montague.lit/orchard'/>",
    ] {
        assert!(scene.world.server.inject(&jid(JULIET), element(nonsense)));
    }
    scene.goes_on_undisturbed().await;
}
