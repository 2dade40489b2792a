//! Verification codes and certificates over the stream, through the public API and real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::net::Ipv4Addr;

use futures::{FutureExt, StreamExt, future};
use jingle_xmlstream::{
    ApiMisuse, Config, E2eStream, Error, Identity, Level, SecurityError, StreamOptions, Trust,
    security::Verification,
    stream::{accept, initiate},
};
use support::{JULIET, ROMEO, World, config_with, in_band, jid, within};
use tokio::net::{TcpListener, TcpStream};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{minidom::Element, stanza_error::DefinedCondition};

const PUBKEYS: [&str; 2] = ["urn:xmpp:tmp:pubkey", "urn:xmpp:pubkey:2"];

/// The two ends of an encrypted stream, and what they live on.
async fn streams() -> (E2eStream, E2eStream, impl Sized) {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (romeos, juliets) = support::streams(&romeo, &juliet).await;
    (romeos, juliets, (world, romeo, juliet))
}

/// The two ends of a TCP connection, with nothing in between.
async fn plain_streams() -> (E2eStream, E2eStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let options = |local: &str, peer: &str| StreamOptions::new().local(jid(local)).peer(jid(peer));
    let romeo = initiate(ours.unwrap(), options(ROMEO, JULIET));
    let juliet = accept(theirs.unwrap().0, options(JULIET, ROMEO));
    let (romeo, juliet) = within(future::join(romeo, juliet)).await;
    (romeo.unwrap(), juliet.unwrap())
}

fn pubkeys(namespace: &str) -> IqRequest {
    IqRequest::Get(Element::bare("pubkeys", namespace))
}

fn refusal(response: IqResponse) -> DefinedCondition {
    match response {
        IqResponse::Error(error) => error.defined_condition,
        IqResponse::Result(result) => panic!("{result:?}"),
    }
}

#[tokio::test]
async fn both_users_are_shown_the_same_code_and_confirm_it() {
    let (romeo, juliet, _world) = streams().await;
    assert_eq!(romeo.peer().level(), Some(Level::FirstUse));

    let juliets = within(juliet.verification_code()).await.unwrap();
    let romeos = within(romeo.verification_code()).await.unwrap();
    assert_eq!(romeos, juliets);
    let digits = romeos.to_string();
    let groups: Vec<_> = digits.split(' ').collect();
    assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [4, 4, 4]);
    assert!(groups.concat().bytes().all(|byte| byte.is_ascii_digit()), "{digits}");

    within(romeo.confirm_code()).await.unwrap();
    assert_eq!(romeo.peer().verification(), Some(Verification::Code));
    assert_eq!(romeo.peer().level(), Some(Level::Verified));
    assert_eq!(juliet.peer().level(), Some(Level::FirstUse), "her user has not said so");
}

#[tokio::test]
async fn a_code_that_nobody_saw_can_not_be_confirmed() {
    let (romeo, juliet, _world) = streams().await;
    within(juliet.verification_code()).await.unwrap();
    assert_shape!(
        within(romeo.confirm_code()).await,
        Err(Error::Security(SecurityError::NoCode(why))) if why.contains("verification_code")
    );
    assert_eq!(romeo.peer().level(), Some(Level::FirstUse));
}

#[tokio::test]
async fn a_future_that_was_dropped_is_gone_on_with_by_the_next() {
    let (romeo, juliet, _world) = streams().await;
    assert!(romeo.verification_code().now_or_never().is_none());
    let (romeos, again, juliets) = within(future::join3(
        romeo.verification_code(),
        romeo.verification_code(),
        juliet.verification_code(),
    ))
    .await;
    assert_eq!(romeos.unwrap(), juliets.unwrap());
    again.unwrap();
}

#[tokio::test]
async fn the_peer_need_not_receive_anything_for_it() {
    let (romeo, juliet, _world) = streams().await;
    let (juliet, receiver) = juliet.split();
    drop(receiver);
    let romeos = within(romeo.verification_code()).await.unwrap();
    assert_eq!(romeos, within(juliet.verification_code()).await.unwrap());
}

#[tokio::test]
async fn whatever_ends_the_stream_ends_the_waiting() {
    let (romeo, juliet, _world) = streams().await;
    drop(juliet);
    assert_shape!(within(romeo.verification_code()).await, Err(Error::ApiMisuse(ApiMisuse::StreamClosed)));
}

#[tokio::test]
async fn a_stream_that_is_reopened_has_another_code() {
    let (romeo, juliet, _world) = streams().await;
    let before = within(romeo.verification_code()).await.unwrap();
    let (romeo, juliet) = within(future::join(romeo.finish(), juliet.finish())).await;
    let (romeo, juliet) = within(future::join(romeo.unwrap().reopen(), juliet.unwrap().reopen())).await;
    let (romeo, juliet) = (romeo.unwrap(), juliet.unwrap());
    assert_shape!(within(romeo.confirm_code()).await, Err(Error::Security(SecurityError::NoCode(_))));
    let (romeos, juliets) = within(future::join(romeo.verification_code(), juliet.verification_code())).await;
    assert_eq!(romeos.as_ref().unwrap(), &juliets.unwrap());
    assert_ne!(romeos.unwrap(), before, "1 in 10^12");
}

#[tokio::test]
async fn a_peer_is_asked_for_its_certificates_when_it_is_verified() {
    let world = World::start().await;
    let own = Identity::generate().unwrap();
    let pinned = Trust::pinned([own.fingerprint().clone()]);
    let juliet = in_band(Config::new(own, Trust::first_use()));
    let (romeo, juliet) = world.pair_of(config_with(pinned), juliet).await;
    let (romeo, mut juliet) = support::streams(&romeo, &juliet).await;

    let told = within(romeo.certificates()).await.unwrap();
    assert_eq!(told, [romeo.peer().certificate().unwrap().clone()]);
    assert_eq!(told[0].fingerprint(), juliet.info().tls.as_ref().unwrap().own_fingerprint());
    assert!(juliet.next().now_or_never().is_none(), "the request was not for the user");

    assert_shape!(
        within(juliet.certificates()).await,
        Err(Error::Security(SecurityError::Insufficient {
            required: Level::Verified,
            reached: Level::FirstUse,
            ..
        }))
    );
}

#[tokio::test]
async fn without_encryption_there_is_neither_code_nor_certificate() {
    let (romeo, mut juliet) = plain_streams().await;
    for stream in [&romeo, &juliet] {
        for result in
            [within(stream.verification_code()).await.map(drop), within(stream.confirm_code()).await]
        {
            assert_shape!(
                result,
                Err(Error::Security(SecurityError::NoCode(why))) if why == "the stream is not encrypted"
            );
        }
        assert_shape!(within(stream.certificates()).await, Err(Error::ApiMisuse(ApiMisuse::BadStanza(_))));
    }
    for namespace in PUBKEYS {
        let refused = within(romeo.send_iq(pubkeys(namespace))).await.unwrap();
        assert_eq!(refusal(refused), DefinedCondition::NotAllowed);
    }
    assert!(juliet.next().now_or_never().is_none(), "the request was not for the user");
}

#[tokio::test]
async fn nobody_gets_a_certificate_over_the_servers() {
    let world = World::start().await;
    let (romeo, _juliet) = world.usual_pair().await;
    for namespace in PUBKEYS {
        let refused = within(romeo.send_iq(Some(jid(JULIET)), pubkeys(namespace))).await.unwrap();
        assert_eq!(refusal(refused), DefinedCondition::NotAllowed);
    }
}
