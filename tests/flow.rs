//! XEP-0247's flow, through the public API and real sockets, against the mock server.

mod support;

use futures::{SinkExt, StreamExt};
use jingle_xmlstream::{Error, Trust};
use support::{JULIET, ROMEO, World, body, message};
use xmpp_parsers::stanza::Stanza;

/// The ladder of XEP-0247 #protocol, with XTLS and `<open/>` and `<close/>` as today's XEPs have them.
#[tokio::test]
async fn romeo_initiates_and_both_talk() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair(Trust::first_use(), Trust::first_use()).await;

    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    romeos.send(message("M'lady, I would be pleased to make your acquaintance.")).await.unwrap();
    let heard = juliets.next().await.unwrap().unwrap();
    assert_eq!(body(&heard), "M'lady, I would be pleased to make your acquaintance.");
    let Stanza::Message(heard) = heard else { panic!("{heard:?}") };
    assert_eq!(heard.from.unwrap().to_string(), ROMEO);
    assert_eq!(heard.to.unwrap().to_string(), JULIET);

    juliets.send(message("Art thou not Romeo, and a Montague?")).await.unwrap();
    assert_eq!(body(&romeos.next().await.unwrap().unwrap()), "Art thou not Romeo, and a Montague?");

    let negotiated = romeos.info().negotiated.clone().unwrap();
    assert_eq!(negotiated.transport, "ibb");
    assert_eq!(negotiated.tls_version.as_deref(), Some("TLSv1.3"));
    assert_eq!(negotiated.key_exchange.as_deref(), Some("X25519MLKEM768"));

    let (romeo_closed, juliet_heard) = tokio::join!(romeos.close(), juliets.next());
    romeo_closed.unwrap();
    assert!(juliet_heard.is_none());
    juliets.close().await.unwrap();

    let ladder = world.ladder_without_data();
    println!("{}", ladder.join("\n"));
    support::assert_ladder(
        &ladder,
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
            "juliet> iq set jingle session-terminate success",
            "romeo> iq result (session-terminate success)",
        ],
    );
}

#[tokio::test]
async fn a_declined_offer_is_an_error_that_says_so() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair(Trust::first_use(), Trust::first_use()).await;
    let peer = JULIET.parse().unwrap();
    let (connected, ()) = tokio::join!(romeo.connect(&peer), async {
        juliet.accept().await.unwrap().decline(jingle_xmlstream::Reason::Busy);
    });
    let Err(Error::Terminated(terminated)) = connected else { panic!("{connected:?}") };
    assert_eq!(terminated.reason, jingle_xmlstream::Reason::Busy);
}
