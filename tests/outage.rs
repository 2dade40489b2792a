//! Servers that fail: nothing hangs, nothing is lost, and streams that need no server notice nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future};
use jingle_xmlstream::{Config, E2eStream, Endpoint, StreamEvents};
use mock_server::{InterceptId, MockServer, Verdict};
use support::{
    JULIET, ROMEO, World, jid,
    outages::{
        JULIETS_ACCOUNT, ROMEOS_ACCOUNT, both_acknowledge, both_resumed, converse, converse_while, resumed,
        suspended,
    },
    s5b_config, streams, talk, timeouts, within,
};
use xmpp_parsers::{jid::Jid, minidom::Element};

/// Short, because what waits for a server that forgot it waits in vain.
fn hasty(config: Config) -> Config {
    config.timeouts(timeouts(|timeouts| {
        timeouts.disco = Duration::from_secs(2);
        timeouts.jingle_ack = Duration::from_secs(2);
        timeouts.accept = Duration::from_secs(4);
        timeouts.transport = Duration::from_secs(4);
        timeouts.tls = Duration::from_secs(4);
        timeouts.stream_header = Duration::from_secs(4);
        timeouts.close = Duration::from_secs(2);
    }))
}

/// Romeo and Juliet, and what each is told of the stream between them.
struct Scene {
    world: World,
    romeo: Endpoint,
    juliet: Endpoint,
    romeos: E2eStream,
    juliets: E2eStream,
    told_romeo: StreamEvents,
    told_juliet: StreamEvents,
}

impl Scene {
    async fn of(world: World, config: impl Fn() -> Config) -> Self {
        Self::between(world, [ROMEO, JULIET], config).await
    }

    async fn between(world: World, [romeo, juliet]: [&str; 2], config: impl Fn() -> Config) -> Self {
        let (romeo, juliet) = (world.bot(romeo, config()).await, world.bot(juliet, config()).await);
        let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
        let (told_romeo, told_juliet) = (romeos.events(), juliets.events());
        both_acknowledge(&mut romeos, &mut juliets).await;
        Self { world, romeo, juliet, romeos, juliets, told_romeo, told_juliet }
    }

    async fn over_sockets() -> Self {
        Self::of(World::start().await, s5b_config).await
    }

    async fn in_band() -> Self {
        Self::of(World::start().await, support::config).await
    }

    async fn both_resumed(&mut self) {
        both_resumed(&mut self.told_romeo, &mut self.told_juliet).await;
    }

    /// Nothing ever happened.
    fn assert_nobody_was_told(&mut self) {
        for told in [&mut self.told_romeo, &mut self.told_juliet] {
            let event = told.next().now_or_never();
            assert!(event.is_none(), "{event:?}");
        }
    }

    /// Both are online and have a session of their own with the server.
    async fn both_online(&self) {
        for account in [ROMEOS_ACCOUNT, JULIETS_ACCOUNT] {
            within(self.world.server.wait_online(&jid::<Jid>(account))).await;
        }
    }

    fn offers(&self) -> usize {
        self.world.sent("iq set jingle session-initiate")
    }
}

async fn restart(server: &MockServer) {
    server.kill().await;
    server.restart().await.unwrap();
}

// ---- While a session is negotiated ---------------------------------------------------------

/// Cuts a client once so many stanzas to and from it have passed; how many did so far.
fn cut_after(server: &MockServer, client: &str, stanzas: usize) -> (InterceptId, Arc<AtomicUsize>) {
    let client: Jid = jid(client);
    let passed = Arc::new(AtomicUsize::new(0));
    let counted = passed.clone();
    let intercept = server.intercept(move |route, _: &Element| {
        if route.from != client && route.to != client {
            return Verdict::Deliver;
        }
        match counted.fetch_add(1, Ordering::SeqCst) + 1 == stanzas {
            true => Verdict::CutAfter(client.clone()),
            false => Verdict::Deliver,
        }
    });
    (intercept, passed)
}

/// Connects, and is cut off after the `stanzas`th stanza; whether so many were needed.
async fn connect_and_be_cut(victim: &str, stanzas: usize) -> bool {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(hasty(s5b_config()), hasty(s5b_config())).await;
    let (intercept, passed) = cut_after(&world.server, victim, stanzas);
    let accepting = juliet.clone();
    let accepting = tokio::spawn(async move {
        let incoming = accepting.accept().await?;
        incoming.accept().await.ok()
    });
    // A stream or an error: it is enough that there is an end.
    let connected = within(romeo.connect(&jid(JULIET))).await;
    let was_cut = passed.load(Ordering::SeqCst) >= stanzas;
    world.server.remove_intercept(intercept);
    if let Err(error) = &connected {
        assert!(was_cut, "nothing was wrong but {error}");
    }
    for account in [ROMEO, JULIET] {
        within(world.server.wait_online(&jid(account))).await;
    }
    accepting.abort();
    drop((connected, accepting.await));
    // Nothing of it is in the way of another one.
    let (mut romeos, mut juliets) = again(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
    drop((romeos, juliets));
    within(future::join(romeo.close(), juliet.close())).await;
    was_cut
}

/// Another stream, as soon as both have found out that there is another session with the server.
async fn again(romeo: &Endpoint, juliet: &Endpoint) -> (E2eStream, E2eStream) {
    loop {
        let accepting = juliet.clone();
        let accepting = tokio::spawn(async move {
            loop {
                if let Ok(stream) = accepting.accept().await.unwrap().accept().await {
                    return stream;
                }
            }
        });
        if let Ok(romeos) = within(romeo.connect(&jid(JULIET))).await {
            return (romeos, within(accepting).await.unwrap());
        }
        accepting.abort();
    }
}

/// Cases that run at the same time.
const WAVE: usize = 6;

/// Tries it after 1, 2, 3 … stanzas, until it makes no difference any more: then the case says `false`.
async fn after_every_stanza<F: Future<Output = bool>>(case: impl Fn(usize) -> F) {
    let mut first = 1;
    loop {
        let wave = future::join_all((first..first + WAVE).map(&case)).await;
        if wave.contains(&false) {
            return;
        }
        first += WAVE;
    }
}

#[tokio::test]
async fn whenever_the_initiator_is_cut_off_connecting_ends_and_can_be_repeated() {
    after_every_stanza(|stanzas| connect_and_be_cut(ROMEO, stanzas)).await;
}

#[tokio::test]
async fn whenever_the_responder_is_cut_off_connecting_ends_and_can_be_repeated() {
    after_every_stanza(|stanzas| connect_and_be_cut(JULIET, stanzas)).await;
}

#[tokio::test]
async fn with_sessions_that_are_resumed_no_cut_keeps_anybody_from_connecting() {
    after_every_stanza(|stanzas| async move {
        let world = World::start_managed().await;
        let (romeo, juliet) = world.pair_of(support::config(), support::config()).await;
        let (_, passed) = cut_after(&world.server, ROMEO, stanzas);
        let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
        let was_cut = passed.load(Ordering::SeqCst) >= stanzas;
        talk(&mut romeos, &mut juliets).await;
        was_cut
    })
    .await;
}

async fn resume_and_be_cut(victim: &str, stanzas: usize) -> bool {
    let world = World::start().await;
    let wires = world.wires();
    let mut scene = Scene::of(world, || hasty(s5b_config())).await;
    let (_, passed) = cut_after(&scene.world.server, victim, stanzas);
    wires.reset();
    suspended(&mut scene.told_romeo).await;
    suspended(&mut scene.told_juliet).await;
    resumed(&mut scene.told_romeo).await;
    let was_cut = passed.load(Ordering::SeqCst) >= stanzas;
    converse(&mut scene.romeos, &mut scene.juliets, 0..20).await;
    was_cut
}

#[tokio::test]
async fn whenever_the_initiator_is_cut_off_while_it_resumes_a_stream_it_does_in_the_end() {
    after_every_stanza(|stanzas| resume_and_be_cut(ROMEO, stanzas)).await;
}

#[tokio::test]
async fn whenever_the_responder_is_cut_off_while_a_stream_is_resumed_it_is_in_the_end() {
    after_every_stanza(|stanzas| resume_and_be_cut(JULIET, stanzas)).await;
}

// ---- While a stream is up ------------------------------------------------------------------

#[tokio::test]
async fn a_stream_over_sockets_does_not_notice_that_the_server_was_restarted() {
    let mut scene = Scene::over_sockets().await;
    let Scene { world, romeos, juliets, .. } = &mut scene;
    converse_while(romeos, juliets, 0..300, restart(&world.server)).await;
    scene.both_online().await;
    converse(&mut scene.romeos, &mut scene.juliets, 0..100).await;
    scene.assert_nobody_was_told();
    assert_eq!(scene.offers(), 1);
}

#[tokio::test]
async fn a_stream_over_sockets_lives_without_any_server() {
    let mut scene = Scene::over_sockets().await;
    scene.world.server.kill().await;
    converse(&mut scene.romeos, &mut scene.juliets, 0..300).await;
    scene.assert_nobody_was_told();
    let Scene { romeos, juliets, .. } = scene;
    let (one, other) = within(future::join(romeos.close(), juliets.close())).await;
    one.unwrap();
    other.unwrap();
}

#[tokio::test]
async fn an_in_band_stream_is_suspended_at_once_and_resumed_when_the_server_is_back() {
    let mut scene = Scene::in_band().await;
    scene.world.server.kill().await;
    suspended(&mut scene.told_romeo).await;
    suspended(&mut scene.told_juliet).await;
    scene.world.server.restart().await.unwrap();
    let Scene { romeos, juliets, .. } = &mut scene;
    converse(romeos, juliets, 0..60).await;
    resumed(&mut scene.told_romeo).await;
    resumed(&mut scene.told_juliet).await;
}

#[tokio::test]
async fn a_busy_in_band_stream_loses_nothing_when_the_server_is_restarted_again_and_again() {
    let mut scene = Scene::in_band().await;
    for _ in 0..2 {
        let Scene { world, romeos, juliets, .. } = &mut scene;
        converse_while(romeos, juliets, 0..60, restart(&world.server)).await;
        scene.both_resumed().await;
    }
}

#[tokio::test]
async fn both_come_back_under_other_addresses_and_find_each_other() {
    let world = World::start().await;
    let mut scene = Scene::between(world, [ROMEOS_ACCOUNT, JULIETS_ACCOUNT], support::config).await;
    let before = [scene.romeo.jid().unwrap(), scene.juliet.jid().unwrap()];
    let Scene { world, romeos, juliets, .. } = &mut scene;
    converse_while(romeos, juliets, 0..60, restart(&world.server)).await;
    scene.both_resumed().await;
    for (endpoint, before) in [&scene.romeo, &scene.juliet].into_iter().zip(before) {
        assert_ne!(endpoint.jid().unwrap(), before);
    }
}

#[tokio::test]
async fn only_one_side_is_cut_off_and_comes_back() {
    for (accounts, victim) in [
        ([ROMEO, JULIET], ROMEO),
        ([ROMEO, JULIET], JULIET),
        ([ROMEOS_ACCOUNT, JULIETS_ACCOUNT], ROMEOS_ACCOUNT),
        ([ROMEOS_ACCOUNT, JULIETS_ACCOUNT], JULIETS_ACCOUNT),
    ] {
        let mut scene = Scene::between(World::start().await, accounts, support::config).await;
        let server = scene.world.server.clone();
        let cut = async { assert!(server.cut(&jid(victim))) };
        converse_while(&mut scene.romeos, &mut scene.juliets, 0..60, cut).await;
        scene.both_resumed().await;
        assert!(scene.offers() >= 2, "{victim}");
    }
}

/// Nobody but Romeo's own side need know.
#[tokio::test]
async fn where_the_session_with_the_server_is_resumed_the_bytestream_goes_on() {
    let mut scene = Scene::of(World::start_managed().await, support::config).await;
    let server = scene.world.server.clone();
    for _ in 0..3 {
        let cut = async { assert!(server.cut(&jid(ROMEO))) };
        converse_while(&mut scene.romeos, &mut scene.juliets, 0..60, cut).await;
        suspended(&mut scene.told_romeo).await;
        assert_eq!(resumed(&mut scene.told_romeo).await.unwrap().method(), "ibb");
    }
    assert_eq!(scene.offers(), 1);
    assert!(scene.told_juliet.next().now_or_never().is_none());
}

#[tokio::test]
async fn where_the_session_with_the_server_was_forgotten_the_stream_is_resumed_by_another_one() {
    let mut scene = Scene::of(World::start_managed().await, support::config).await;
    let server = scene.world.server.clone();
    let forget = async { assert!(server.forget(&jid(ROMEO))) };
    converse_while(&mut scene.romeos, &mut scene.juliets, 0..60, forget).await;
    scene.both_resumed().await;
    assert!(scene.offers() >= 2);
}
