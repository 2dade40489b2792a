//! Who may open a session with a bot: to all others it is as if the bot knew nothing of Jingle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::sync::{Arc, OnceLock};

use futures::future;
use jid::BareJid;
use jingle_xmlstream::{Callers, Config, Endpoint, Error, SignallingError};
use mock_server::Verdict;
use support::{JULIET, ROMEO, World, config, jid, mallory, within};
use xmpp_parsers::{
    iq::Iq,
    minidom::Element,
    roster::Subscription,
    stanza::Stanza,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

const NURSE: &str = "nurse@capulet.lit/chamber";
const REFUSAL: &str = "juliet> iq error service-unavailable (session-initiate)";

fn roster() -> Config {
    config().callers(Callers::Roster)
}

fn set_contact(world: &World, contact: &str, subscription: Subscription) {
    world.server.set_contact(&jid("juliet@capulet.lit"), jid(contact), subscription);
}

/// The caller is told that there is nobody, as it would be by a bot that knows nothing of Jingle.
#[track_caller]
fn assert_nobody_home<T: std::fmt::Debug>(connected: Result<T, Error>) {
    match connected {
        Err(Error::Signalling(SignallingError::PeerUnreachable(error))) => {
            assert_eq!(error.defined_condition, DefinedCondition::ServiceUnavailable);
            assert_eq!(
                (error.type_.clone(), error.texts.len(), error.other.clone()),
                (ErrorType::Cancel, 0, None)
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Calls Juliet, who accepts what she hears of.
async fn call(world: &World, from: &str, juliet: &Endpoint) -> Result<(), Error> {
    let caller = world.bot(from, config()).await;
    let accept_all = async {
        while let Some(incoming) = juliet.accept().await {
            assert_eq!(incoming.peer().to_string(), from, "whom she hears of");
            tokio::spawn(incoming.accept());
        }
    };
    let peer = jid(JULIET);
    let connected = tokio::select! {
        connected = within(caller.connect(&peer)) => connected,
        () = accept_all => panic!("she is gone"),
    };
    let result = match connected {
        Ok(stream) => within(stream.close()).await,
        Err(error) => Err(error),
    };
    within(caller.close()).await;
    result
}

#[tokio::test]
async fn a_contact_gets_a_stream_and_a_stranger_gets_nothing() {
    let world = World::start().await;
    set_contact(&world, "romeo@montague.lit", Subscription::Both);
    let (romeo, juliet) = world.pair_of(config(), roster()).await;
    assert_nobody_home(call(&world, NURSE, &juliet).await);
    let ladder = world.ladder_between(NURSE, JULIET);
    assert!(ladder.contains(&REFUSAL.to_owned()), "{ladder:#?}");
    let jingle = ladder.iter().filter(|line| line.starts_with("juliet> iq set")).count();
    assert_eq!(jingle, 0, "she says nothing of her own: {ladder:#?}");

    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn the_roster_is_followed_and_the_bot_sees_its_changes() {
    let world = World::start().await;
    let (juliet, mut events) = world.bot_with_events(JULIET, roster()).await;
    assert_nobody_home(call(&world, ROMEO, &juliet).await);

    for (subscription, may_call) in
        [(Subscription::To, false), (Subscription::From, true), (Subscription::Remove, false)]
    {
        set_contact(&world, "romeo@montague.lit", subscription);
        let pushed = support::next_stanza(&mut events).await;
        let Stanza::Iq(Iq::Set { payload, .. }) = pushed else { panic!("{pushed:?}") };
        assert!(payload.is("query", xmpp_parsers::ns::ROSTER), "the first that she sees: not our own answer");
        match may_call {
            true => call(&world, ROMEO, &juliet).await.unwrap(),
            false => assert_nobody_home(call(&world, ROMEO, &juliet).await),
        }
    }
}

#[tokio::test]
async fn nobody_lets_himself_in_by_a_push_of_his_own() {
    let world = World::start().await;
    let (juliet, mut events) = world.bot_with_events(JULIET, roster()).await;
    let romeo = world.bot(ROMEO, config()).await;
    let payload = support::element(&format!(
        "<query xmlns='{}'><item jid='romeo@montague.lit' subscription='both'/></query>",
        xmpp_parsers::ns::ROSTER
    ));
    let push = Iq::Set { from: None, to: Some(jid(JULIET)), id: "push".to_owned(), payload };
    within(romeo.send_stanza(push)).await.unwrap();
    let arrived = support::next_stanza(&mut events).await;
    assert!(matches!(&arrived, Stanza::Iq(Iq::Set { id, .. }) if id == "push"), "{arrived:?}");
    within(romeo.close()).await;
    assert_nobody_home(call(&world, ROMEO, &juliet).await);
}

#[tokio::test]
async fn without_a_roster_only_the_own_account_may_call() {
    let world = World::start().await;
    set_contact(&world, "romeo@montague.lit", Subscription::Both);
    world.server.intercept(|_, stanza: &Element| match stanza.has_child("query", xmpp_parsers::ns::ROSTER) {
        true => Verdict::Bounce(StanzaError::new(
            ErrorType::Cancel,
            DefinedCondition::InternalServerError,
            "en",
            "the roster is lost",
        )),
        false => Verdict::Deliver,
    });
    let juliet = world.bot(JULIET, roster()).await;
    assert_nobody_home(call(&world, ROMEO, &juliet).await);
    call(&world, "juliet@capulet.lit/tomb", &juliet).await.unwrap();
}

#[tokio::test]
async fn after_a_new_login_the_roster_is_asked_for_again() {
    let world = World::start().await;
    set_contact(&world, "romeo@montague.lit", Subscription::Both);
    let juliet = world.bot(JULIET, roster()).await;
    call(&world, ROMEO, &juliet).await.unwrap();

    world.server.refuse(true);
    assert!(world.server.cut(&jid(JULIET)));
    set_contact(&world, "romeo@montague.lit", Subscription::Remove);
    set_contact(&world, "nurse@capulet.lit", Subscription::From);
    world.server.refuse(false);
    within(world.server.wait_online(&jid(JULIET))).await;
    assert_nobody_home(call(&world, ROMEO, &juliet).await);
    call(&world, NURSE, &juliet).await.unwrap();
}

#[tokio::test]
async fn a_filter_may_use_the_endpoint_and_decides() {
    let world = World::start().await;
    let endpoint: Arc<OnceLock<Endpoint>> = Arc::default();
    let of_filter = Arc::clone(&endpoint);
    let filter = Callers::filter(move |caller| {
        let own = of_filter.get().unwrap().jid().unwrap();
        caller.domain() == own.domain()
    });
    let juliet = world.bot(JULIET, config().callers(filter)).await;
    endpoint.set(juliet.clone()).unwrap();
    assert_nobody_home(call(&world, ROMEO, &juliet).await);
    call(&world, NURSE, &juliet).await.unwrap();
}

#[tokio::test]
async fn whom_a_bot_calls_needs_no_permission() {
    let world = World::start().await;
    let nobody = || config().callers(Callers::Only([].into()));
    let (romeo, juliet) = world.pair_of(nobody(), config()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn two_who_call_each_other_at_the_same_time_get_their_stream() {
    let world = World::start().await;
    let nobody = || config().callers(Callers::Only([].into()));
    let (romeo, juliet) = world.pair_of(nobody(), nobody()).await;
    world.server.intercept(support::wire::cross("session-initiate"));
    let (romeos, juliets) =
        within(future::join(romeo.connect(&jid(JULIET)), juliet.connect(&jid(ROMEO)))).await;
    let (mut romeos, mut juliets) = (romeos.unwrap(), juliets.unwrap());
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn a_stranger_finds_no_trace_of_jingle() {
    let world = World::start().await;
    let allowed: BareJid = jid("romeo@montague.lit");
    let _juliet = world.bot(JULIET, config().callers(Callers::Only([allowed].into()))).await;
    let mallory = mallory::Mallory::new(&world, JULIET).await;
    for attempt in [
        mallory::session_initiate("a", "b", &mallory::security()),
        mallory::session_initiate("a", "b", ""),
        mallory::jingle("session-terminate", "a", ""),
        mallory::jingle("transport-info", "a", ""),
        mallory::jingle("session-dance", "a", ""),
        mallory::ibb_open("b", 4096),
        mallory::ibb_data("b", "0", ""),
        mallory::ibb_close("b"),
    ] {
        let shown = String::from(&attempt);
        let refused = mallory.refused(attempt).await;
        assert_eq!(refused, (DefinedCondition::ServiceUnavailable, None), "{shown}");
    }
}
