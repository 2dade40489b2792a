//! An endpoint that a bot's own loop drives, beside the bot's own business.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use futures::{SinkExt, StreamExt};
use jid::Jid;
use jingle_xmlstream::{ByHand, Config, Endpoint, Error, Identity, Trust};
use support::{JULIET, ROMEO, World, body, in_band, message};
use tokio_xmpp::{Client, Event, xmlstream::Timeouts};
use xmpp_parsers::stanza::Stanza;

/// A bot's loop: what is not ours comes out of the channel, until there is nothing more to send.
async fn drive(mut client: Client, mut by_hand: ByHand, not_ours: tokio::sync::mpsc::UnboundedSender<Event>) {
    loop {
        tokio::select! {
            Some(event) = client.next() => if let Some(event) = by_hand.handle(event) {
                let _ = not_ours.send(event);
            },
            stanza = by_hand.outgoing() => match stanza {
                Some(stanza) => drop(client.send_stanza(stanza).await.unwrap()),
                None => break,
            },
        }
    }
    client.send_end().await.unwrap();
}

#[tokio::test]
async fn a_bot_with_a_loop_of_its_own_talks_to_one_without() {
    let world = World::start().await;
    let jid: Jid = ROMEO.parse().unwrap();
    let client =
        Client::new_with_connector(jid, mock_server::PASSWORD, world.connector(), Timeouts::default());
    let (romeo, by_hand) =
        Endpoint::by_hand(in_band(Config::new(Identity::generate().unwrap(), Trust::first_use())));
    let (not_ours, mut events) = tokio::sync::mpsc::unbounded_channel();
    let bot = tokio::spawn(drive(client, by_hand, not_ours));
    let juliet =
        world.bot(JULIET, in_band(Config::new(Identity::generate().unwrap(), Trust::first_use()))).await;

    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    romeos.send(message("by hand")).await.unwrap();
    assert_eq!(body(&juliets.next().await.unwrap().unwrap()), "by hand");

    // The bot's own business goes on beside it.
    let Stanza::Message(mut hello) = message("hello") else { unreachable!() };
    hello.to = Some(ROMEO.parse().unwrap());
    juliet.send_stanza(hello).await.unwrap();
    loop {
        match events.recv().await.unwrap() {
            Event::Stanza(stanza @ Stanza::Message(_)) => break assert_eq!(body(&stanza), "hello"),
            Event::Stanza(Stanza::Iq(iq)) => panic!("an iq of ours: {iq:?}"),
            _ => {}
        }
    }

    romeos.close().await.unwrap();
    romeo.close().await;
    bot.await.unwrap();
    let refused = romeo.connect(&JULIET.parse().unwrap()).await;
    assert!(matches!(refused, Err(Error::ApiMisuse(_))), "{refused:?}");
}
