//! Logging in, and being thrown out.

mod support;

use std::sync::Arc;

use mock_server::{MockServer, PASSWORD};
use support::{JULIET, ROMEO, Raw, jid, login};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs},
};
use xmpp_parsers::sasl::Mechanism;

#[tokio::test]
async fn tokio_xmpp_logs_in_with_each_mechanism_and_gets_the_resource_it_wants() {
    for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha1, Mechanism::Plain] {
        let server = MockServer::builder().mechanisms([mechanism.clone()]).start().await.unwrap();
        let (_stream, bound) = login(&server, ROMEO).await;
        assert_eq!(bound, jid(ROMEO), "{mechanism:?}");
        assert_eq!(server.online(), [jid(ROMEO)]);
    }
}

#[tokio::test]
async fn a_bare_jid_gets_a_resource_of_the_servers_choice() {
    let server = MockServer::start().await;
    let (_one, first) = login(&server, "romeo@montague.lit").await;
    let (_two, second) = login(&server, "romeo@montague.lit").await;
    assert!(first.is_full() && second.is_full() && first != second, "{first} and {second}");
    server.wait_online(&"romeo@montague.lit".parse().unwrap()).await;
    assert_eq!(server.online().len(), 2);
}

#[tokio::test]
async fn a_wrong_password_is_not_authorized_and_the_third_ends_the_stream() {
    let server = MockServer::start().await;
    let mut client = Raw::connect(&server).await;
    client.open("montague.lit").await;
    for _ in 0..3 {
        client.auth_plain("romeo", "guess").await;
        assert!(client.until("</failure>").await.contains("not-authorized"));
    }
    assert!(client.rest().await.contains("policy-violation"));
    assert!(server.online().is_empty());
}

#[tokio::test]
async fn a_right_password_after_a_wrong_one_is_taken() {
    let server = MockServer::start().await;
    let mut client = Raw::connect(&server).await;
    client.open("montague.lit").await;
    client.auth_plain("romeo", "guess").await;
    client.until("</failure>").await;
    client.auth_plain("romeo", PASSWORD).await;
    client.until("<success").await;
}

#[tokio::test]
async fn a_second_login_with_the_same_full_jid_ends_the_first_with_conflict() {
    let server = MockServer::start().await;
    let mut old = Raw::login(&server, ROMEO).await;
    let mut new = Raw::login(&server, ROMEO).await;
    let end = old.rest().await;
    assert!(end.contains("<conflict") && end.ends_with("</stream:stream>"), "{end}");
    assert_eq!(server.online(), [jid(ROMEO)]);
    new.everything_before_a_ping().await;
}

#[tokio::test]
async fn stanzas_before_authentication_end_the_stream() {
    let server = MockServer::start().await;
    let mut client = Raw::connect(&server).await;
    client.open("montague.lit").await;
    client.send("<message to='juliet@capulet.lit'/>").await;
    assert!(client.rest().await.contains("not-authorized"));
}

#[tokio::test]
async fn starttls_is_required_where_it_is_on_and_its_certificate_can_be_trusted() {
    let server = MockServer::builder().starttls().start().await.unwrap();

    let mut hasty = Raw::connect(&server).await;
    hasty.open("montague.lit").await;
    hasty.auth_plain("romeo", PASSWORD).await;
    assert!(hasty.rest().await.contains("not-authorized"));

    let mut plain = Raw::connect(&server).await;
    plain.open("montague.lit").await;
    plain.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    plain.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    let mut roots = RootCertStore::empty();
    roots.add(server.certificate().unwrap().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let tls = connector.connect("montague.lit".try_into().unwrap(), plain.io).await.unwrap();
    let mut client = Raw::over(tls);
    client.log_in(ROMEO).await;
    assert_eq!(server.online(), [jid(ROMEO)]);
    client.everything_before_a_ping().await;
}

#[tokio::test]
async fn a_refusing_server_takes_no_new_connections_and_no_logins_under_way() {
    let server = MockServer::start().await;
    let mut online = Raw::login(&server, ROMEO).await;
    let mut under_way = Raw::connect(&server).await;
    under_way.open("capulet.lit").await;

    server.refuse(true);
    assert_eq!(Raw::connect(&server).await.rest().await, "");
    under_way.auth_plain("juliet", PASSWORD).await;
    assert!(under_way.until("</failure>").await.contains("temporary-auth-failure"));
    online.everything_before_a_ping().await;

    server.refuse(false);
    Raw::login(&server, JULIET).await;
}

#[tokio::test]
async fn everything_stops_when_the_last_handle_is_dropped() {
    let server = MockServer::start().await;
    let addr = server.addr();
    let clone = server.clone();
    let mut client = Raw::login(&server, ROMEO).await;
    drop(server);
    client.everything_before_a_ping().await;
    drop(clone);
    assert_eq!(client.rest().await.matches("</stream:stream>").count(), 0);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_client_that_closes_its_stream_gets_the_footer_and_is_offline() {
    let server = MockServer::start().await;
    let mut client = Raw::login(&server, ROMEO).await;
    client.send("</stream:stream>").await;
    client.until("</stream:stream>").await;
    server.wait_offline(&jid(ROMEO)).await;
}
