//! SOCKS5 bytestreams through relays (XEP-0065 #mediated, XEP-0260 #complete): the mock server's, which behaves as Prosody's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use futures::{SinkExt, StreamExt};
use jingle_xmlstream::{
    CandidateType, Candidates, Config, E2eStream, Error, S5bConfig, Start, TransportError, Transports,
};
use mock_server::{MockServer, Proxy65, Verdict};
use support::{
    JULIET, ROMEO, World, element,
    outages::sm,
    s5b::{BlackHole, SOON, alter_candidates, assert_flow, close, ends, set_attr},
    s5b_config, streams, talk, within,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{
    iq::Iq,
    minidom::Element,
    stanza::Stanza,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

fn showing(candidates: Candidates) -> Config {
    with(|s5b| s5b.candidates = candidates)
}

fn with(change: impl FnOnce(&mut S5bConfig)) -> Config {
    support::config().transports(Transports::Auto).s5b(support::s5b(change))
}

/// A server with a proxy.
async fn world() -> (World, Proxy65) {
    let world = World::start().await;
    let proxy = world.server.enable_proxy65().await;
    (world, proxy)
}

#[track_caller]
fn assert_relayed(proxy: &Proxy65, streams: [&E2eStream; 2]) {
    for stream in streams {
        assert_eq!(stream.transport().unwrap().candidate(), Some(CandidateType::Proxy));
        assert_eq!(ends(stream).1, proxy.addr());
    }
}

#[track_caller]
fn assert_in_band(streams: [&E2eStream; 2]) {
    for stream in streams {
        assert_eq!(stream.transport().unwrap().method(), "ibb");
    }
}

/// XEP-0260 #complete: who offered the proxy activates it.
#[tokio::test]
async fn the_initiators_proxy_carries_the_stream() {
    let (world, proxy) = world().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::ProxyOnly), showing(Candidates::None)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    assert_relayed(&proxy, [&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert_eq!(world.recorded("iq set bytestreams activate").from.as_str(), ROMEO);
    assert_flow(
        &world.ladder_of_the_session(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "juliet> iq set jingle transport-info candidate-used",
            "romeo> iq result (transport-info candidate-used)",
            "romeo> iq set jingle transport-info candidate-error",
            "juliet> iq result (transport-info candidate-error)",
            "romeo> iq set jingle transport-info activated",
            "juliet> iq result (transport-info activated)",
        ],
    );
}

#[tokio::test]
async fn the_responders_proxy_carries_the_stream() {
    let (world, proxy) = world().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::None), showing(Candidates::ProxyOnly)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    assert_relayed(&proxy, [&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert_eq!(world.recorded("iq set bytestreams activate").from.as_str(), JULIET);
    assert_flow(
        &world.ladder_of_the_session(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "romeo> iq set jingle transport-info candidate-used",
            "juliet> iq result (transport-info candidate-used)",
            "juliet> iq set jingle transport-info candidate-error",
            "romeo> iq result (transport-info candidate-error)",
            "juliet> iq set jingle transport-info activated",
            "romeo> iq result (transport-info activated)",
        ],
    );
}

/// Each has a proxy of its own, and can connect to the other's. Both say so; the initiator's has the higher priority.
#[tokio::test]
async fn of_two_proxies_the_one_with_the_higher_priority_is_activated() {
    let (world, romeos_proxy) = world().await;
    let other_server = MockServer::start().await;
    let juliets_proxy = other_server.enable_proxy65().await;
    lead_juliet_to(&world, &juliets_proxy);
    let config = || showing(Candidates::ProxyOnly);
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let mut juliets_word = world.hold(JULIET, "candidate-used");
    let ((mut romeos, mut juliets), ()) = tokio::join!(streams(&romeo, &juliet), async {
        juliets_word.caught().await;
        world.wait_for("juliet> iq result (transport-info candidate-used)").await;
        juliets_word.release();
    });

    let offered = |name| world.candidates_in(name)[0].clone();
    let (romeos_own, juliets_own) =
        (offered("iq set jingle session-initiate"), offered("iq set jingle session-accept"));
    assert_eq!(romeos_own.port, romeos_proxy.addr().port());
    assert_eq!(juliets_own.port, juliets_proxy.addr().port());
    assert!(romeos_own.priority > juliets_own.priority);
    assert_relayed(&romeos_proxy, [&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
}

/// Tells Juliet that her server's proxy is this one.
fn lead_juliet_to(world: &World, proxy: &Proxy65) {
    let port = proxy.addr().port();
    world.server.intercept(move |route, stanza| {
        if route.to.to_string() != "proxy.capulet.lit" || !is_question_for_address(stanza) {
            return Verdict::Deliver;
        }
        Verdict::Reply(element(&format!(
            "<iq xmlns='jabber:client'><query xmlns='http://jabber.org/protocol/bytestreams'>\
             <streamhost jid='proxy.capulet.lit' host='127.0.0.1' port='{port}'/></query></iq>"
        )))
    });
}

fn is_question_for_address(stanza: &Element) -> bool {
    let query = stanza.get_child("query", "http://jabber.org/protocol/bytestreams");
    stanza.attr("type") == Some("get") && query.is_some()
}

#[tokio::test]
async fn what_needs_no_proxy_is_preferred() {
    let (world, _proxy) = world().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    let (romeos, juliets) = streams(&romeo, &juliet).await;
    for stream in [&romeos, &juliets] {
        assert_eq!(stream.transport().unwrap().candidate(), Some(CandidateType::Direct));
    }
    let kinds: Vec<_> =
        world.candidates_in("iq set jingle session-initiate").into_iter().map(|it| it.kind).collect();
    assert_eq!(kinds, ["direct", "proxy"]);
    assert_eq!(world.sent("iq set bytestreams activate"), 0);
}

/// Servers may reorder what an impatient peer sends: `<activated/>` comes before Romeo's word.
#[tokio::test]
async fn an_activation_that_comes_early_counts() {
    let (world, proxy) = world().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::ProxyOnly), showing(Candidates::None)).await;
    let mut romeos_word = world.hold(ROMEO, "candidate-error");
    let ((mut romeos, mut juliets), ()) = tokio::join!(streams(&romeo, &juliet), async {
        romeos_word.caught().await;
        world.wait_for("juliet> iq result (transport-info activated)").await;
        romeos_word.release();
    });
    assert_relayed(&proxy, [&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
}

/// A bot that is not to be found shows the proxy's address and no other, to nobody.
#[tokio::test]
async fn proxies_alone_show_no_address_of_ours() {
    let (world, proxy) = world().await;
    // By a name, so that every address that is seen is one too many.
    proxy.advertise("localhost", proxy.addr().port());
    let config = || showing(Candidates::ProxyOnly);
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
    assert_relayed(&proxy, [&romeos, &juliets]);
    close(romeos, juliets).await;

    let offered = world.candidates_in("iq set jingle session-initiate");
    let [candidate] = offered.as_slice() else { panic!("{offered:?}") };
    assert_eq!((candidate.kind.as_str(), candidate.host.as_str()), ("proxy", "localhost"));
    // The same place is not offered twice.
    assert!(world.candidates_in("iq set jingle session-accept").is_empty());
    let mut own: Vec<_> =
        if_addrs::get_if_addrs().unwrap().iter().map(|interface| interface.ip().to_string()).collect();
    own.extend(["127.0.0.1".to_owned(), "'::1'".to_owned()]);
    own.retain(|address| address != "::1");
    let record = world.server.record();
    assert!(record.len() > 10);
    for recorded in record {
        let xml = String::from(&*recorded.element);
        assert!(own.iter().all(|address| !xml.contains(address)), "{xml}");
        for candidate in support::s5b::candidates(&recorded.element) {
            assert_eq!(candidate.kind, "proxy");
        }
    }
}

/// What a peer offers and is no proxy is not connected to: that would show where we are.
#[tokio::test]
async fn who_shows_no_address_connects_to_proxies_alone() {
    let (world, _proxy) = world().await;
    let only_proxies = with(|s5b| {
        s5b.candidates = Candidates::ProxyOnly;
        s5b.proxies = jingle_xmlstream::Proxies::These(Vec::new());
    });
    let hole = BlackHole::open().await;
    let (romeo, juliet) = world.pair_of(only_proxies, s5b_config()).await;
    let to = hole.addr;
    world.server.intercept(alter_candidates(move |_, candidate| {
        set_attr(candidate, "host", to.ip());
        set_attr(candidate, "port", to.port());
        set_attr(candidate, "type", "direct");
    }));
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert_in_band([&romeos, &juliets]);
    assert!(!world.candidates_in("iq set jingle session-accept").is_empty());
    assert_eq!(*hole.swallowed.borrow(), 0);
    talk(&mut romeos, &mut juliets).await;
}

// ---- proxies that fail ---------------------------------------------------------------------

#[tokio::test]
async fn a_proxy_that_dies_before_it_is_activated_leads_to_in_band_bytestreams() {
    let (world, proxy) = world().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::ProxyOnly), showing(Candidates::None)).await;
    let mut juliets_word = world.hold(JULIET, "candidate-used");
    let ((mut romeos, mut juliets), ()) = tokio::join!(streams(&romeo, &juliet), async {
        juliets_word.caught().await;
        proxy.kill().await;
        juliets_word.release();
    });
    assert_in_band([&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    // Both notice it, and both say so.
    let mut expected = PROXY_ERROR.to_vec();
    expected.splice(
        4..4,
        ["juliet> iq set jingle transport-info proxy-error", "romeo> iq result (transport-info proxy-error)"],
    );
    assert_flow(&after_the_accept(&world), &expected);
}

#[tokio::test]
async fn a_proxy_that_refuses_to_activate_leads_to_in_band_bytestreams() {
    let (world, _proxy) = world().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::ProxyOnly), showing(Candidates::None)).await;
    world.server.intercept(|route, stanza| match stanza.attr("type") {
        Some("set") if route.to.domain().as_str() == "proxy.montague.lit" => {
            let condition = DefinedCondition::NotAllowed;
            Verdict::Bounce(StanzaError::new(ErrorType::Cancel, condition, "en", "not for you"))
        }
        _ => Verdict::Deliver,
    });
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert_in_band([&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert_flow(&after_the_accept(&world), &PROXY_ERROR);
}

const PROXY_ERROR: [&str; 12] = [
    "juliet> iq set jingle transport-info candidate-used",
    "romeo> iq result (transport-info candidate-used)",
    "romeo> iq set jingle transport-info candidate-error",
    "juliet> iq result (transport-info candidate-error)",
    "romeo> iq set jingle transport-info proxy-error",
    "juliet> iq result (transport-info proxy-error)",
    "romeo> iq set jingle transport-replace",
    "juliet> iq result (transport-replace)",
    "juliet> iq set jingle transport-accept",
    "romeo> iq result (transport-accept)",
    "romeo> iq set ibb open",
    "juliet> iq result (ibb open)",
];

/// What is said about the transport.
fn after_the_accept(world: &World) -> Vec<String> {
    let about_transport = |line: &String| line.contains("transport-") || line.contains("ibb open");
    world.ladder_of_the_session().into_iter().filter(about_transport).collect()
}

#[tokio::test]
async fn a_proxy_that_never_answers_costs_its_time_and_no_more() {
    let (world, proxy) = world().await;
    let hole = BlackHole::open().await;
    proxy.advertise(hole.addr.ip().to_string(), hole.addr.port());
    let config = || {
        with(|s5b| {
            s5b.candidates = Candidates::ProxyOnly;
            s5b.proxy_timeout = SOON;
        })
    };
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert_in_band([&romeos, &juliets]);
    assert!(*hole.swallowed.borrow() > 0);
    talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn a_proxy_that_dies_under_a_stream_that_nothing_manages_ends_it_with_a_clear_error_on_both_sides() {
    let (world, proxy) = world().await;
    let unmanaged = |candidates| showing(candidates).sm(sm(|sm| sm.enabled = false));
    let (romeo, juliet) = world.pair_of(unmanaged(Candidates::ProxyOnly), unmanaged(Candidates::None)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
    proxy.kill().await;
    for stream in [&mut romeos, &mut juliets] {
        let error = within(stream.next()).await.unwrap().unwrap_err();
        let is_clear = matches!(&error, Error::Transport(TransportError::Closed | TransportError::Io(_)))
            // The other side was quicker to say so.
            || matches!(&error, Error::Terminated(_));
        assert!(is_clear, "{error:?}");
        assert!(within(stream.next()).await.is_none());
        stream.send(support::message("anybody there?")).await.unwrap_err();
    }
    world.wait_for_end().await;
}

// ---- and more -------------------------------------------------------------------------------

#[tokio::test]
async fn a_live_stream_moves_to_a_proxy() {
    let (world, proxy) = world().await;
    let (romeo, juliet) =
        world.pair_of(showing(Candidates::ProxyOnly).start(Start::Fast), showing(Candidates::None)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    for stream in [&romeos, &juliets] {
        assert_eq!(stream.info().negotiated.as_ref().unwrap().transport.method(), "ibb");
        let moved = within(stream.moves().next()).await.unwrap();
        assert_eq!(moved.candidate(), Some(CandidateType::Proxy));
    }
    assert_relayed(&proxy, [&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
}

/// COMPAT Prosody: its proxy holds back the end of a burst, until more comes.
#[tokio::test]
async fn a_request_is_answered_through_a_proxy_that_stalls() {
    let (world, proxy) = world().await;
    proxy.stall(true);
    for start in [Start::Best, Start::Fast] {
        let (romeo, juliet) =
            world.pair_of(showing(Candidates::ProxyOnly).start(start), showing(Candidates::None)).await;
        let (romeos, mut juliets) = streams(&romeo, &juliet).await;
        if start == Start::Fast {
            within(romeos.moves().next()).await.unwrap();
            within(juliets.moves().next()).await.unwrap();
        }
        assert_relayed(&proxy, [&romeos, &juliets]);
        let question = Element::builder("question", "urn:example").append("x".repeat(6000)).build();
        let asked = romeos.send_iq(IqRequest::Get(question));
        let (reply, ()) = within(async { tokio::join!(asked, answer(&mut juliets)) }).await;
        let IqResponse::Result(Some(echo)) = reply.unwrap() else { panic!("no result") };
        assert_eq!(echo.text().len(), 6000);
        close(romeos, juliets).await;
        romeo.close().await;
        juliet.close().await;
    }
}

/// Answers one request with its own content.
async fn answer(stream: &mut E2eStream) {
    let Some(Ok(Stanza::Iq(Iq::Get { id, payload, .. }))) = stream.next().await else {
        panic!("no request");
    };
    stream.send(Iq::Result { from: None, to: None, id, payload: Some(payload) }.into()).await.unwrap();
}
