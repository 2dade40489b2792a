//! Streams that outlive their bytestream (XEP-0198 #resumption): every stanza arrives once and in order, or comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::Duration;

use futures::{SinkExt, StreamExt, future, poll};
use jingle_xmlstream::{
    Candidates, Config, E2eStream, Endpoint, Error, Identity, NotResumed, Reason, StreamEvent, StreamEvents,
    TransportError, Trust,
};
use mock_server::{MockServer, Verdict};
use support::{
    JULIET, ROMEO, World, body, jid, message,
    outages::{
        all_that_comes, both_acknowledge, both_resumed, converse, converse_while, resumed, sm, suspended,
        unacked, undelivered,
    },
    s5b_config, streams,
    wire::{action, alter_content, drop_if, is_ibb},
    wires::Wires,
    within,
};
use tokio::{runtime, sync::oneshot};
use tokio_xmpp::IqRequest;
use xmpp_parsers::{
    minidom::Element,
    ping::Ping,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

/// What marks a session that carries on a stream.
const RESUMPTION: &str = "https://crates.io/crates/jingle-xmlstream#resumption";

/// Romeo and Juliet on a stream that can be resumed, over a network that can be broken.
struct Scene {
    world: World,
    wires: Wires,
    /// Kept online.
    _romeo: Endpoint,
    juliet: Endpoint,
    romeos: E2eStream,
    juliets: E2eStream,
    /// What each is told of it.
    told_romeo: StreamEvents,
    told_juliet: StreamEvents,
}

impl Scene {
    /// The server does this to one block in the middle of a conversation, and the stream goes on.
    async fn resumes_after_one_block(&mut self, wrong: impl Fn(&Element) -> Verdict + Send + 'static) {
        let server = self.world.server.clone();
        let once = async {
            let mut done = false;
            server.intercept(move |_, stanza| {
                if done || !is_ibb(stanza, "data") {
                    return Verdict::Deliver;
                }
                done = true;
                wrong(stanza)
            });
        };
        converse_while(&mut self.romeos, &mut self.juliets, 0..60, once).await;
        self.both_resumed().await;
    }

    async fn set() -> Self {
        Self::of(s5b_config(), s5b_config()).await
    }

    async fn in_band() -> Self {
        Self::of(support::config(), support::config()).await
    }

    async fn of(romeos: Config, juliets: Config) -> Self {
        let world = World::start().await;
        let wires = world.wires();
        let (romeo, juliet) = world.pair_of(romeos, juliets).await;
        let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
        let (told_romeo, told_juliet) = (romeos.events(), juliets.events());
        both_acknowledge(&mut romeos, &mut juliets).await;
        Self { world, wires, _romeo: romeo, juliet, romeos, juliets, told_romeo, told_juliet }
    }

    async fn both_resumed(&mut self) {
        both_resumed(&mut self.told_romeo, &mut self.told_juliet).await;
    }

    fn methods(&self) -> [&'static str; 2] {
        [&self.romeos, &self.juliets].map(|stream| stream.transport().unwrap().method())
    }
}

fn expired(error: &Error) -> bool {
    matches!(error, Error::Terminated(terminated) if terminated.reason == Reason::Expired)
}

/// Why a stream was given up.
#[track_caller]
fn not_resumed(error: &Error) -> &NotResumed {
    match error {
        Error::NotResumed(not_resumed) => not_resumed,
        Error::Undelivered(undelivered) => not_resumed(undelivered.cause().expect("it was given up")),
        other => panic!("{other:?}"),
    }
}

// ---- Every bytestream may be lost ----------------------------------------------------------

#[tokio::test]
async fn a_reset_connection_loses_nothing_and_repeats_nothing_in_either_direction() {
    let mut scene = Scene::set().await;
    let Scene { wires, romeos, juliets, .. } = &mut scene;
    converse_while(romeos, juliets, 0..300, async { wires.reset() }).await;
    scene.both_resumed().await;
    assert_eq!(scene.methods(), ["s5b", "s5b"], "the best transport is tried first");
    assert_eq!(scene.world.sent("iq set jingle session-initiate"), 2);
    converse(&mut scene.romeos, &mut scene.juliets, 0..100).await;
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_midst_of_a_stanza_loses_nothing() {
    let mut scene = Scene::set().await;
    for bytes in [1, 700, 5_000, 10_001] {
        scene.wires.reset_after(bytes);
        converse(&mut scene.romeos, &mut scene.juliets, 0..300).await;
        scene.both_resumed().await;
    }
}

#[tokio::test]
async fn one_loss_after_another() {
    let mut scene = Scene::set().await;
    for round in 0..5 {
        let Scene { wires, romeos, juliets, .. } = &mut scene;
        converse_while(romeos, juliets, round * 200..(round + 1) * 200, async { wires.reset() }).await;
        scene.both_resumed().await;
    }
    let record = scene.world.server.record();
    let mut offers = record.iter().filter(|recorded| &*recorded.name == "iq set jingle session-initiate");
    assert!(offers.all(|offer| offer.from.as_str() == ROMEO), "the roles are as they were");
}

#[tokio::test]
async fn the_one_who_accepts_the_stream_need_not_accept_its_resumption() {
    let mut scene = Scene::set().await;
    scene.wires.reset();
    scene.both_resumed().await;
    assert!(poll!(std::pin::pin!(scene.juliet.accept())).is_pending());
    support::talk(&mut scene.romeos, &mut scene.juliets).await;
}

#[tokio::test]
async fn where_no_socket_can_be_connected_any_more_the_stream_goes_on_in_band() {
    let mut scene = Scene::set().await;
    scene.wires.refuse(true);
    let Scene { wires, romeos, juliets, .. } = &mut scene;
    converse_while(romeos, juliets, 0..60, async { wires.reset() }).await;
    scene.both_resumed().await;
    assert_eq!(scene.methods(), ["ibb", "ibb"]);
}

#[tokio::test]
async fn a_proxy_that_dies_is_no_more_than_a_way_less() {
    let world = World::start().await;
    let proxy = world.server.enable_proxy65().await;
    let config = || s5b_config().s5b(support::s5b(|s5b| s5b.candidates = Candidates::ProxyOnly));
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    let (mut told_romeo, mut told_juliet) = (romeos.events(), juliets.events());
    both_acknowledge(&mut romeos, &mut juliets).await;
    assert_eq!(romeos.transport().unwrap().method(), "s5b");

    converse_while(&mut romeos, &mut juliets, 0..60, proxy.kill()).await;
    both_resumed(&mut told_romeo, &mut told_juliet).await;
    assert_eq!(romeos.transport().unwrap().method(), "ibb");
}

#[tokio::test]
async fn a_server_that_refuses_a_block_breaks_an_in_band_bytestream_and_no_more() {
    let mut scene = Scene::in_band().await;
    scene
        .resumes_after_one_block(|_| {
            let (type_, condition) = (ErrorType::Wait, DefinedCondition::RemoteServerTimeout);
            Verdict::Bounce(StanzaError::new(type_, condition, "en", "no way"))
        })
        .await;
}

/// A server may change what it passes on; TLS notices.
#[tokio::test]
async fn a_server_that_changes_a_byte_breaks_the_bytestream_and_no_more() {
    let mut scene = Scene::in_band().await;
    scene
        .resumes_after_one_block(|stanza| {
            let mut stanza = stanza.clone();
            let data = stanza.get_child_mut("data", support::wire::IBB).unwrap();
            let text = data.text();
            let (first, rest) = text.split_at(8);
            data.take_nodes();
            data.append_text(format!("{}{rest}", first.chars().rev().collect::<String>()));
            Verdict::Replace(stanza)
        })
        .await;
}

// ---- What the user sees --------------------------------------------------------------------

#[tokio::test]
async fn while_it_is_suspended_sending_waits_and_requests_do_too() {
    let mut scene = Scene::set().await;
    let held = scene.world.hold(ROMEO, "session-initiate");
    scene.wires.reset();
    let why = suspended(&mut scene.told_romeo).await;
    assert!(matches!(why, Error::Transport(TransportError::Io(_) | TransportError::Closed)), "{why}");
    suspended(&mut scene.told_juliet).await;

    {
        let mut sending = std::pin::pin!(scene.romeos.send(message("Juliet?")));
        assert!(poll!(sending.as_mut()).is_pending());
        held.release();
        within(sending).await.unwrap();
    }
    assert_eq!(resumed(&mut scene.told_romeo).await.unwrap().method(), "s5b");
    assert_eq!(resumed(&mut scene.told_juliet).await.unwrap().method(), "s5b");
    assert_eq!(body(&within(scene.juliets.next()).await.unwrap().unwrap()), "Juliet?");
    within(scene.romeos.send_iq(IqRequest::Get(Ping.into()))).await.unwrap();
}

#[tokio::test]
async fn a_request_is_answered_once_though_the_bytestream_was_lost_on_the_way() {
    let mut scene = Scene::set().await;
    scene.wires.reset_after(1);
    let (answer, ()) = future::join(
        within(scene.romeos.send_iq(IqRequest::Get(Ping.into()))),
        both_resumed(&mut scene.told_romeo, &mut scene.told_juliet),
    )
    .await;
    answer.unwrap();
}

// ---- When it can't be resumed --------------------------------------------------------------

/// Juliet in a process of her own, as it were: it can be killed.
struct Process {
    killed: oneshot::Sender<()>,
}

impl Process {
    /// Juliet accepts whatever comes, and never listens.
    async fn start(server: &MockServer, config: Config) -> Self {
        let (online, is_online) = oneshot::channel();
        let (killed, is_killed) = oneshot::channel();
        let world = World { server: server.clone() };
        let life = async move {
            let juliet = world.bot(JULIET, config).await;
            online.send(()).unwrap();
            let mut accepted = Vec::new();
            while let Some(incoming) = juliet.accept().await {
                accepted.push(incoming.accept().await);
            }
        };
        // With a single thread, what is dropped with the runtime has no time for last words.
        std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.spawn(life);
            // That nobody kills her is the end of the test.
            let _ = runtime.block_on(is_killed);
        });
        within(is_online).await.unwrap();
        Self { killed }
    }

    /// Nothing of it runs any more, and nobody was told.
    fn kill(self) {
        self.killed.send(()).unwrap();
    }
}

/// A stream to Juliet, who has not taken the three messages on it, and what is told of it.
async fn with_three_said(romeo: &Endpoint) -> (E2eStream, StreamEvents) {
    let mut romeos = within(romeo.connect(&jid(JULIET))).await.unwrap();
    let told_romeo = romeos.events();
    within(romeos.send_iq(IqRequest::Get(Ping.into()))).await.unwrap();
    for number in 0..3 {
        within(romeos.send(message(&number.to_string()))).await.unwrap();
    }
    (romeos, told_romeo)
}

#[tokio::test]
async fn a_peer_that_was_restarted_has_forgotten_the_stream_and_all_comes_back() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, s5b_config()).await;
    let identity = Identity::generate().unwrap();
    let config = || Config::new(identity.clone(), Trust::first_use()).s5b(support::s5b(|_| {}));
    let juliet = Process::start(&world.server, config()).await;
    let (mut romeos, mut told_romeo) = with_three_said(&romeo).await;
    let asking = romeos.sender();
    let asking = async move {
        let query = "<query xmlns='urn:example:never-answered'/>".parse().unwrap();
        asking.send_iq(IqRequest::Get(query)).await
    };
    let asking = tokio::spawn(asking);

    juliet.kill();
    suspended(&mut told_romeo).await;
    within(world.server.wait_offline(&jid(JULIET))).await;
    let juliet = Process::start(&world.server, config()).await;
    let (_, end) = all_that_comes(&mut romeos).await;
    let end = end.expect("she has forgotten it");
    assert_eq!(undelivered(&end), ["0", "1", "2"]);
    assert!(expired(&not_resumed(&end).why), "{end}");
    let unanswered = within(asking).await.unwrap().unwrap_err();
    assert!(matches!(unanswered, Error::NotResumed(_) | Error::Undelivered(_)), "{unanswered}");
    juliet.kill();
}

#[tokio::test]
async fn a_new_stream_takes_its_place_if_the_user_wants_that() {
    let world = World::start().await;
    let romeo = world.bot(ROMEO, s5b_config().sm(sm(|sm| sm.renew = true))).await;
    let identity = Identity::generate().unwrap();
    let config = || Config::new(identity.clone(), Trust::first_use()).s5b(support::s5b(|_| {}));
    let juliet = Process::start(&world.server, config()).await;
    let (mut romeos, mut told_romeo) = with_three_said(&romeo).await;

    juliet.kill();
    suspended(&mut told_romeo).await;
    within(world.server.wait_offline(&jid(JULIET))).await;
    let juliet = world.bot(JULIET, config()).await;
    let mut juliets = within(juliet.accept()).await.unwrap().accept().await.unwrap();
    match within(told_romeo.next()).await {
        Some(StreamEvent::Renewed { undelivered, transport, .. }) => {
            assert_eq!(undelivered.stanzas().iter().map(body).collect::<Vec<_>>(), ["0", "1", "2"]);
            assert_eq!(transport.unwrap().method(), "s5b");
        }
        other => panic!("{other:?}"),
    }
    converse(&mut romeos, &mut juliets, 100..200).await;
}

#[tokio::test]
async fn when_its_time_is_over_a_stream_is_given_up_on_both_sides() {
    let short = || s5b_config().sm(sm(|sm| sm.resumption = Duration::from_millis(500)));
    // The shorter time counts.
    let mut scene = Scene::of(short(), s5b_config()).await;
    unacked(&scene.romeos, 0).await;
    scene.world.server.intercept(drop_if(|stanza| action(stanza) == Some("session-initiate")));
    within(scene.romeos.send(message("Juliet?"))).await.unwrap();
    scene.wires.reset();
    let Scene { romeos, juliets, .. } = &mut scene;
    let ((_, romeos), (_, juliets)) = future::join(all_that_comes(romeos), all_that_comes(juliets)).await;
    assert_eq!(undelivered(romeos.as_ref().expect("it was given up")), ["Juliet?"]);
    for end in [romeos, juliets] {
        not_resumed(&end.expect("it was given up"));
    }
}

#[tokio::test]
async fn a_peer_that_ended_the_stream_is_not_asked_to_resume_it() {
    let mut scene = Scene::set().await;
    let Scene { romeos, juliets, .. } = scene;
    let (closed, (_, end)) = future::join(within(juliets.close()), async {
        let mut romeos = romeos;
        all_that_comes(&mut romeos).await
    })
    .await;
    closed.unwrap();
    assert!(end.is_none(), "{end:?}");
    assert!(within(scene.told_romeo.next()).await.is_none());
    assert_eq!(scene.world.sent("iq set jingle session-initiate"), 1);
}

#[tokio::test]
async fn closing_a_suspended_stream_tries_until_its_time_is_over_and_says_what_is_lost() {
    let short = || s5b_config().timeouts(support::timeouts(|t| t.close = Duration::from_millis(500)));
    let mut scene = Scene::of(short(), short()).await;
    unacked(&scene.romeos, 0).await;
    scene.world.server.intercept(drop_if(|stanza| action(stanza) == Some("session-initiate")));
    within(scene.romeos.send(message("Juliet?"))).await.unwrap();
    scene.wires.reset();
    suspended(&mut scene.told_romeo).await;
    let error = within(scene.romeos.close()).await.unwrap_err();
    assert_eq!(undelivered(&error), ["Juliet?"]);
}

// ---- Who may resume it ---------------------------------------------------------------------

#[tokio::test]
async fn an_impostor_with_the_account_but_without_the_key_does_not_get_the_stream() {
    let mut scene = Scene::set().await;
    let server = scene.world.server.clone();
    // The server keeps Romeo from Juliet, and lets somebody else pass for him, who wants his stream.
    let keeping_away = server.intercept(|route, stanza| {
        if route.from.as_str() != ROMEO || action(stanza) != Some("session-initiate") {
            return Verdict::Deliver;
        }
        let (type_, condition) = (ErrorType::Cancel, DefinedCondition::ServiceUnavailable);
        Verdict::Bounce(StanzaError::new(type_, condition, "en", "not today"))
    });
    let asking_for_it = server.intercept(alter_content("session-initiate", |content| {
        content.append_child(Element::bare("resumption", RESUMPTION));
    }));
    let mallory = scene.world.bot(server.impersonate(&jid(ROMEO)).as_str(), s5b_config()).await;
    scene.wires.reset();
    suspended(&mut scene.told_romeo).await;
    suspended(&mut scene.told_juliet).await;

    let refused = within(mallory.connect(&jid(JULIET))).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::SecurityError, "{refused}");
    assert!(poll!(std::pin::pin!(scene.juliet.accept())).is_pending(), "Juliet's user is not asked");
    assert!(poll!(scene.told_juliet.next()).is_pending(), "her stream waits for Romeo");

    assert!(server.end_impersonation(&jid(ROMEO)));
    server.remove_intercept(keeping_away);
    server.remove_intercept(asking_for_it);
    resumed(&mut scene.told_romeo).await;
    resumed(&mut scene.told_juliet).await;
    converse(&mut scene.romeos, &mut scene.juliets, 0..100).await;
}

#[tokio::test]
async fn a_resumption_of_what_nobody_has_is_refused_without_asking_anybody() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    world.server.intercept(alter_content("session-initiate", |content| {
        content.append_child(Element::bare("resumption", RESUMPTION));
    }));
    let refused = within(romeo.connect(&juliet.jid().unwrap())).await.unwrap_err();
    assert!(expired(&refused), "{refused}");
    assert!(poll!(std::pin::pin!(juliet.accept())).is_pending());
}
