//! What a peer's listener, a proxy, and who claims to be one, see of us, and what we make of them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_socks::{TargetAddr, tcp::Socks5Stream};

use super::{
    super::dial::{LOOKUPS, MAX_LOOKUPS, connect_to_one, in_a_place, one_of_each_family},
    *,
};

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What one read gives: all that is there.
async fn segment(connection: &mut TcpStream) -> Vec<u8> {
    let mut buffer = [0; 512];
    let length = connection.read(&mut buffer).await.unwrap();
    buffer[..length].to_vec()
}

/// The address of somebody who says this to the greeting and this to the request of each who comes.
async fn who_says(to_greeting: &'static [u8], to_request: &'static [u8]) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            segment(&mut connection).await;
            connection.write_all(to_greeting).await.unwrap();
            segment(&mut connection).await;
            let _ = connection.write_all(to_request).await;
        }
    });
    address
}

async fn failure(to_greeting: &'static [u8], to_request: &'static [u8]) -> String {
    let address = who_says(to_greeting, to_request).await;
    let why = dial(&dial_to(address, &[HASH])).await.unwrap_err();
    why.strip_prefix(&format!("{address}: ")).unwrap().to_owned()
}

#[tokio::test]
async fn a_proxy_gets_each_message_in_a_segment_of_its_own_and_its_early_data_is_kept() {
    let (listener, address) = listen().await;
    let proxy = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        assert_eq!(segment(&mut connection).await, GREETING);
        connection.write_all(&[5, 0]).await.unwrap();
        assert_eq!(segment(&mut connection).await, connect_to(HASH));
        connection.write_all(&[&granted(HASH), b"early".as_slice()].concat()).await.unwrap();
    };
    let dial_proxy = dial_to(address, &[HASH]);
    let (dialled, ()) = tokio::join!(dial(&dial_proxy), proxy);
    assert_eq!(read(&mut dialled.unwrap()).await, *b"early");
}

/// Answers as a proxy does, and notes how its client reads and writes.
#[derive(Default)]
struct Observed {
    answers: Vec<u8>,
    calls: Vec<(&'static str, usize)>,
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(self.answers.len());
        buffer.put_slice(&self.answers.drain(..length).collect::<Vec<_>>());
        self.calls.push(("read", length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.calls.push(("write", bytes.len()));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn the_socks5_client_writes_a_message_at_once_waits_for_the_reply_and_reads_nothing_behind_it() {
    let proxy =
        Observed { answers: [&[5, 0], granted(HASH).as_slice(), b"early"].concat(), ..Default::default() };
    let target = TargetAddr::Domain(HASH.into(), 0);
    let granted = Socks5Stream::connect_with_socket(proxy, target).await.unwrap().into_inner();
    let [("write", 3), ("read", 2), ("write", 47), reads @ ..] = granted.calls.as_slice() else {
        panic!("{:?}", granted.calls)
    };
    assert!(reads.iter().all(|(call, _)| *call == "read"), "{reads:?}");
    assert_eq!(granted.answers, b"early");
}

#[tokio::test]
async fn a_dst_addr_that_is_refused_is_followed_by_the_next_on_a_new_connection() {
    let mut served = Served::on_loopback();
    let dial_both = served.dial(&[OTHER_HASH, HASH]);
    let (dialled, admitted) = tokio::join!(dial(&dial_both), served.admitted.recv());
    assert_eq!(dialled.unwrap().local_addr().unwrap(), admitted.unwrap().peer_addr().unwrap());

    let why = dial(&served.dial(&[OTHER_HASH])).await.unwrap_err();
    assert!(why.contains("Connection not allowed by ruleset"), "{why}");
}

#[tokio::test]
async fn only_who_speaks_socks5_is_asked_for_another_dst_addr() {
    for (to_greeting, to_request, connections) in [
        (b"HTTP/1.1 400".as_slice(), b"".as_slice(), 1),
        (&[5, 0xFF], &[], 1),
        // Not even an answer.
        (&[], &[], 1),
        (&[5], &[], 1),
        // One that closes the connection on a DST.ADDR that it does not know, and one that says so.
        (&[5, 0], &[], 2),
        (&[5, 0], &[5, 1, 0, 1, 0, 0, 0, 0, 0, 0], 2),
        (&[5, 0], &[5, 9, 0, 1, 0, 0, 0, 0, 0, 0], 2),
    ] {
        let (listener, address) = listen().await;
        let serving = async {
            for served in 1.. {
                let (mut connection, _) = listener.accept().await.unwrap();
                segment(&mut connection).await;
                connection.write_all(to_greeting).await.unwrap();
                if to_greeting == [5, 0] {
                    segment(&mut connection).await;
                    connection.write_all(to_request).await.unwrap();
                }
                if served == connections {
                    break;
                }
            }
            // Whoever comes now is one too many.
            listener.accept().await.unwrap();
        };
        let dial_both = dial_to(address, &[OTHER_HASH, HASH]);
        tokio::select! {
            dialled = dial(&dial_both) => assert!(dialled.is_err()),
            () = serving => panic!("{to_greeting:?} {to_request:?} gets more than {connections}"),
        }
    }
}

#[test]
fn of_a_name_one_address_of_each_family_is_tried() {
    let of = |addresses: &[&str]| {
        let found = addresses.iter().map(|address| address.parse().unwrap()).collect();
        one_of_each_family(found).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let both = ["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1", "192.0.2.2:1"];
    assert_eq!(of(&both), ["[2001:db8::1]:1", "192.0.2.1:1"]);
    assert_eq!(of(&both[2..]), ["192.0.2.1:1"]);
}

#[tokio::test]
async fn a_grant_without_the_hash_is_a_grant() {
    let address = who_says(&[5, 0], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    dial(&dial_to(address, &[HASH])).await.unwrap();
}

#[tokio::test]
async fn what_went_wrong_is_said() {
    assert_eq!(failure(&[5, 0xFF], &[]).await, "SOCKS5 failed: No acceptable auth methods");
    assert_eq!(failure(&[5, 0x80], &[]).await, "SOCKS5 failed: Unknown auth method");
    assert_eq!(failure(&[5, 2], &[]).await, "SOCKS5 failed: Authorization required");
    assert_eq!(failure(b"HTTP/1.1 400", &[]).await, "SOCKS5 failed: Invalid response version");
    assert_eq!(failure(&[5, 0], &[5, 1]).await, "closed by the other side in SOCKS5");
    assert_eq!(failure(&[5, 0], &[5, 0, 0, 9, 0]).await, "SOCKS5 failed: Unknown address type");
    let not_text = [&[5, 0, 0, 3, 255], [0xFF; 257].as_slice()].concat();
    assert!(failure(&[5, 0], not_text.leak()).await.starts_with("SOCKS5 failed: Target address is invalid"));
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let (listener, address) = listen().await;
    drop(listener);
    let why = dial(&dial_to(address, &[HASH])).await.unwrap_err();
    assert!(why.starts_with(&format!("{address}: Connection refused")), "{why}");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_given_up_in_time() {
    let (_listener, address) = listen().await;
    let why = dial(&dial_to(address, &[HASH])).await.unwrap_err();
    assert_eq!(why, format!("{address}: timed out while in SOCKS5"));
}

#[tokio::test]
async fn an_address_where_nobody_answers_leaves_time_for_the_next() {
    let (_listener, silent) = listen().await;
    let mut served = Served::on_loopback();
    let targets = [silent, served.addresses[0]];
    let hashes = [HASH.to_owned()];
    let (dialled, admitted) =
        tokio::join!(connect_to_one(&targets, &hashes, Duration::from_secs(2)), served.admitted.recv());
    assert_eq!(dialled.unwrap().local_addr().unwrap(), admitted.unwrap().peer_addr().unwrap());
}

#[tokio::test]
async fn a_failure_names_every_address() {
    let refusing = who_says(&[5, 0xFF], &[]).await;
    let (listener, closed) = listen().await;
    drop(listener);
    let why =
        connect_to_one(&[refusing, closed], &[HASH.to_owned()], Duration::from_secs(30)).await.unwrap_err();
    assert!(why.contains(&format!("{refusing}: SOCKS5 failed")), "{why}");
    assert!(why.contains(&format!("; {closed}: Connection refused")), "{why}");
}

#[tokio::test]
async fn names_are_looked_up_and_addresses_out_of_reach_are_not_connected_to() {
    let mut served = Served::on_loopback();
    for host in ["127.0.0.1", "::ffff:127.0.0.1", "localhost"] {
        let mut dial_name = served.dial(&[HASH]);
        dial_name.host = host.to_owned();
        let (dialled, admitted) = tokio::join!(dial(&dial_name), served.admitted.recv());
        assert!(dialled.is_ok() && admitted.is_some(), "{host}");

        dial_name.reach = Reach::default();
        let why = dial(&dial_name).await.unwrap_err();
        assert!(why.ends_with("is a special address, not connected to for others"), "{host}: {why}");
    }
    assert!(served.nobody_was_admitted());
}

#[tokio::test]
async fn a_look_up_that_nobody_waits_for_any_more_holds_its_place_until_it_ends() {
    static ONE: Semaphore = Semaphore::const_new(1);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let abandoned = in_a_place(&ONE, move || ended.recv());
    assert!(abandoned.now_or_never().is_none());

    assert!(in_a_place(&ONE, || ()).now_or_never().is_none(), "there is no place");
    assert_eq!(ONE.available_permits(), 0);
    end.send(()).unwrap();
    assert_eq!(in_a_place(&ONE, || "next").await.unwrap(), "next");
}

#[tokio::test(start_paused = true)]
async fn while_too_many_names_are_looked_up_another_waits_no_longer_than_its_time_and_addresses_do_not() {
    let served = Served::on_loopback();
    let _others = LOOKUPS.acquire_many(MAX_LOOKUPS.try_into().unwrap()).await.unwrap();
    assert!(dial(&served.dial(&[HASH])).await.is_ok());

    let begun = tokio::time::Instant::now();
    let dial_name = Dial { host: "localhost".to_owned(), ..served.dial(&[HASH]) };
    assert_eq!(dial(&dial_name).await.unwrap_err(), "timed out while looking up the name");
    assert_eq!(begun.elapsed().as_secs(), dial_name.timeout.as_secs());
}

#[tokio::test]
async fn what_cannot_be_dialled_is_an_error() {
    let (_listener, address) = listen().await;
    let why = |dst_addrs: &[&str], host: &str| {
        let mut dial_it = dial_to(address, dst_addrs);
        dial_it.host = host.to_owned();
        async move { dial(&dial_it).await.unwrap_err() }
    };
    assert_eq!(why(&[], "127.0.0.1").await, "no DST.ADDR to ask for");
    for length in [0, 256, 1000] {
        let text = why(&[HASH, &"a".repeat(length)], "127.0.0.1").await;
        assert_eq!(text, format!("a DST.ADDR of {length} bytes, where SOCKS5 has 1 to 255"));
    }
    // No resolver asks anybody about these.
    for host in ["a\0b", &"a".repeat(300)] {
        assert!(why(&[HASH], host).await.starts_with("the name has no address"), "{host:?}");
    }
}
