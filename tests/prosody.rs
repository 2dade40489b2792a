//! Against a real Prosody.

#[path = "support/prosody.rs"]
mod server;
mod support;

use futures::*;
use jingle_xmlstream::*;
use server::{Kind, Prosody};
use support::{JULIET, ROMEO, body, message};

#[tokio::test]
async fn smoke() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, _e1) =
        prosody.bot(ROMEO, Config::new(Identity::generate().unwrap(), Trust::first_use())).await;
    let (juliet, _e2) =
        prosody.bot(JULIET, Config::new(Identity::generate().unwrap(), Trust::first_use())).await;
    let (mut r, mut j) = support::streams(&romeo, &juliet).await;
    r.send(message("hi")).await.unwrap();
    assert_eq!(body(&j.next().await.unwrap().unwrap()), "hi");
    for s in prosody.received() {
        println!("{}", s.chars().take(200).collect::<String>());
    }
}
