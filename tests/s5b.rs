//! SOCKS5 bytestreams (XEP-0260) over real sockets on loopback, negotiated through the mock server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

mod support;

use jingle_xmlstream::{CandidateType, Start};

use crate::support::{JULIET, ROMEO, World, assert_ladder, s5b_config, streams, talk, within};

#[tokio::test]
async fn a_direct_connection_carries_the_stream() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    for stream in [&romeos, &juliets] {
        assert_eq!(stream.transport().unwrap().candidate(), Some(CandidateType::Direct));
    }
    talk(&mut romeos, &mut juliets).await;
    within(async { tokio::join!(romeos.close(), juliets.close()) }).await;
    println!("{:#?}", world.ladder_without_data());
}

#[tokio::test]
async fn a_stream_that_starts_fast_moves() {
    use futures::StreamExt;
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config().start(Start::Fast), s5b_config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert_eq!(romeos.transport().unwrap().method(), "ibb");
    talk(&mut romeos, &mut juliets).await;
    assert_eq!(within(romeos.moves().next()).await.unwrap().method(), "s5b");
    assert_eq!(within(juliets.moves().next()).await.unwrap().method(), "s5b");
    talk(&mut romeos, &mut juliets).await;
    let (a, b) = within(async { tokio::join!(romeos.close(), juliets.close()) }).await;
    println!("{:#?}", world.ladder_without_data());
    a.unwrap();
    b.unwrap();
}
