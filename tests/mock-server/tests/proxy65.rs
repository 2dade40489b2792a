//! The SOCKS5 proxy: what tests can do to it. That it is as Prosody's is shown beside the tests against that.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::time::{Duration, Instant};

use mock_server::{MockServer, Proxy65};
use support::{JULIET, PATIENCE, ROMEO, Raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The hash of `sid`, Romeo's and Juliet's full JIDs.
const ADDRESS: &str = "88bdeec5a3d9d84c4f6c0a4a2614ca2a98ed8747";

const ITEMS: &str = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
const STREAMHOST: &str = "<query xmlns='http://jabber.org/protocol/bytestreams'/>";

async fn start() -> (MockServer, Proxy65, Raw) {
    let server = MockServer::start().await;
    let proxy = server.enable_proxy65().await;
    let romeo = Raw::login(&server, ROMEO).await;
    (server, proxy, romeo)
}

async fn ask(romeo: &mut Raw, kind: &str, to: &str, query: &str) -> String {
    romeo.send(&format!("<iq type='{kind}' id='1' to='{to}'>{query}</iq>")).await;
    // An empty result has no end tag.
    let answer = romeo.until("<iq").await + &romeo.until(">").await;
    match answer.ends_with("/>") {
        true => answer,
        false => answer + &romeo.until("</iq>").await,
    }
}

async fn activate(romeo: &mut Raw) -> String {
    let query = format!(
        "<query xmlns='http://jabber.org/protocol/bytestreams' sid='sid'><activate>{JULIET}</activate></query>"
    );
    ask(romeo, "set", "proxy.montague.lit", &query).await
}

async fn connect(proxy: &Proxy65) -> TcpStream {
    let mut tcp = TcpStream::connect(proxy.addr()).await.unwrap();
    tcp.write_all(&[5, 1, 0]).await.unwrap();
    tcp.read_exact(&mut [0; 2]).await.unwrap();
    tcp.write_all(&[&[5, 1, 0, 3, 40], ADDRESS.as_bytes(), &[0, 0]].concat()).await.unwrap();
    tcp.read_exact(&mut [0; 47]).await.unwrap();
    tcp
}

#[tokio::test]
async fn without_one_the_server_lists_none() {
    let server = MockServer::start().await;
    let mut romeo = Raw::login(&server, ROMEO).await;
    assert!(!ask(&mut romeo, "get", "montague.lit", ITEMS).await.contains("proxy"));
}

#[tokio::test]
async fn each_domain_has_its_own_and_it_can_be_taken_away() {
    let (_server, proxy, mut romeo) = start().await;
    assert!(ask(&mut romeo, "get", "montague.lit", ITEMS).await.contains("proxy.montague.lit"));
    assert!(ask(&mut romeo, "get", "capulet.lit", ITEMS).await.contains("proxy.capulet.lit"));
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let info = ask(&mut romeo, "get", "proxy.montague.lit", info).await;
    assert!(info.contains("category='proxy'") && info.contains("type='bytestreams'"), "{info}");
    proxy.remove();
    assert!(!ask(&mut romeo, "get", "montague.lit", ITEMS).await.contains("proxy."));
    assert!(ask(&mut romeo, "get", "proxy.montague.lit", STREAMHOST).await.contains("service-unavailable"));
}

#[tokio::test]
async fn it_can_send_clients_elsewhere() {
    let (_server, proxy, mut romeo) = start().await;
    let port = format!("port='{}'", proxy.addr().port());
    assert!(ask(&mut romeo, "get", "proxy.montague.lit", STREAMHOST).await.contains(&port));
    proxy.advertise("192.0.2.1", 7777);
    let elsewhere = ask(&mut romeo, "get", "proxy.montague.lit", STREAMHOST).await;
    assert!(elsewhere.contains("host='192.0.2.1'") && elsewhere.contains("port='7777'"), "{elsewhere}");
}

#[tokio::test]
async fn it_refuses_connections_for_a_while() {
    let (_server, proxy, _romeo) = start().await;
    proxy.refuse_connects(true).await;
    assert!(TcpStream::connect(proxy.addr()).await.is_err());
    proxy.refuse_connects(false).await;
    connect(&proxy).await;
}

#[tokio::test]
async fn all_of_it_can_be_cut() {
    let (_server, proxy, mut romeo) = start().await;
    let (mut target, mut initiator) = (connect(&proxy).await, connect(&proxy).await);
    assert!(activate(&mut romeo).await.contains("result"));
    let mut waiting = connect(&proxy).await;
    initiator.write_all(b"x").await.unwrap();
    assert_eq!(target.read_u8().await.unwrap(), b'x');
    proxy.kill().await;
    for tcp in [&mut target, &mut initiator, &mut waiting] {
        assert!(timeout(PATIENCE, tcp.read_u8()).await.unwrap().is_err());
    }
    assert!(TcpStream::connect(proxy.addr()).await.is_err());
}

#[tokio::test]
async fn an_activation_can_take_its_time() {
    let (_server, proxy, mut romeo) = start().await;
    let (_target, _initiator) = (connect(&proxy).await, connect(&proxy).await);
    let delay = Duration::from_millis(100);
    proxy.delay_activation(delay);
    let start = Instant::now();
    assert!(activate(&mut romeo).await.contains("result"));
    assert!(start.elapsed() >= delay);
}
