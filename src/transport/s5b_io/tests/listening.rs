//! Who passes the listener, who doesn't, and where it listens.

use tokio::time::Instant;

use super::{
    super::serve::{MAX_NEGOTIATING, NEGOTIATION, network_of},
    *,
};

#[tokio::test]
async fn a_peer_passes_and_both_talk_at_once() {
    for loopback in loopbacks() {
        let mut served = Served::on(loopback);
        let dial_hash = served.dial(&[HASH]);
        let (dialled, admitted) = tokio::join!(dial(&dial_hash), served.admitted.recv());
        let (mut ours, mut theirs) = (admitted.unwrap(), dialled.unwrap());
        assert!(ours.nodelay().unwrap() && theirs.nodelay().unwrap());

        ours.write_all(b"from the listener").await.unwrap();
        assert_eq!(read(&mut theirs).await, *b"from the listener");
        theirs.write_all(b"from the dialler").await.unwrap();
        assert_eq!(read(&mut ours).await, *b"from the dialler");
    }
}

#[tokio::test]
async fn a_peer_may_send_single_bytes_and_data_without_waiting_for_the_grant() {
    let mut served = Served::on_loopback();
    let mut peer = served.connect().await;
    peer.set_nodelay(true).unwrap();
    for byte in [&GREETING[..], &connect_to(HASH), b"early"].concat() {
        peer.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&mut peer).await, [5, 0]);
    assert_eq!(read::<47>(&mut peer).await[..], granted(HASH));
    let mut ours = served.admitted.recv().await.unwrap();
    assert_eq!(read(&mut ours).await, *b"early");
    assert!(ours.nodelay().unwrap() && socket2::SockRef::from(&ours).keepalive().unwrap());
}

#[tokio::test]
async fn a_hash_that_nobody_expects_is_refused_and_the_connection_closed() {
    let mut served = Served::on_loopback();
    let mut peer = served.connect().await;
    let answer = ask_for(&mut peer, OTHER_HASH).await;
    assert_eq!(answer[..2], [5, 2]);
    assert_eq!(answer[2..], granted(OTHER_HASH)[2..]);
    assert!(read_to_the_end(&mut peer).await.is_empty());
    assert!(served.nobody_was_admitted());
}

#[tokio::test]
async fn a_web_browser_is_turned_away() {
    let mut served = Served::on_loopback();
    let mut browser = served.connect().await;
    browser.write_all(b"GET / HTTP/1.1\r\nHost: juliet\r\n\r\n").await.unwrap();
    // What it had not read when it closed may take the answer with it.
    let answer = read_to_the_end(&mut browser).await;
    assert!(answer == [5, 0xFF] || answer.is_empty(), "{answer:?}");
    assert!(served.nobody_was_admitted());
}

#[tokio::test(start_paused = true)]
async fn half_a_greeting_is_dropped_when_its_time_is_over() {
    let mut served = Served::on_loopback();
    let begun = Instant::now();
    let mut peer = served.connect().await;
    peer.write_all(&GREETING[..1]).await.unwrap();
    assert!(read_to_the_end(&mut peer).await.is_empty());
    assert!(begun.elapsed() >= NEGOTIATION);
    assert!(served.nobody_was_admitted());
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_does_not_extend_the_time() {
    let served = Served::on_loopback();
    let begun = Instant::now();
    let mut peer = served.connect().await;
    let (mut from, mut to) = peer.split();
    let trickle = async {
        for byte in [&GREETING[..], &connect_to(HASH)].concat() {
            tokio::time::sleep(NEGOTIATION / 5).await; // virtual
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    };
    let mut answers = Vec::new();
    tokio::select! {
        () = trickle => {}
        _ = from.read_to_end(&mut answers) => {}
    }
    assert_eq!(answers, [5, 0]);
    assert!(begun.elapsed() < NEGOTIATION * 2);
}

#[tokio::test]
async fn a_thousand_that_say_nothing_lock_nobody_out() {
    const IDLE: usize = 1000;
    let mut served = Served::on_loopback();
    let begun = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(served.connect().await);
    }
    let mut peer = served.connect().await;
    assert_eq!(ask_for(&mut peer, HASH).await[..], granted(HASH));
    assert!(served.admitted.recv().await.is_some());

    // All but the youngest were dropped to make room, long before their time was over.
    for dropped in &mut idle[..=IDLE - MAX_NEGOTIATING] {
        assert!(read_to_the_end(dropped).await.is_empty());
    }
    assert!(begun.elapsed() < NEGOTIATION);
    let mut byte = [0];
    assert!(idle[IDLE - 1].try_read(&mut byte).is_err(), "the youngest is still there");
}

/// A connection of somebody who has an address of their own.
#[cfg(target_os = "linux")] // where all of 127.0.0.0/8 is this machine
async fn connect_from(served: &Served, last_octet: u8) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last_octet), 0).into()).unwrap();
    socket.connect(served.addresses[0]).await.unwrap()
}

#[cfg(target_os = "linux")]
async fn greeted_from(served: &Served, last_octet: u8) -> TcpStream {
    let mut client = connect_from(served, last_octet).await;
    client.write_all(&GREETING).await.unwrap();
    assert_eq!(read(&mut client).await, [5, 0]);
    client
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crowd_from_one_address_drives_nobody_out_who_has_another() {
    let mut served = Served::on_loopback();
    // Slow: what it says comes after all of the crowd.
    let mut peer = connect_from(&served, 2).await;
    let mut crowd = Vec::new();
    for _ in 0..2 * MAX_NEGOTIATING {
        crowd.push(connect_from(&served, 3).await);
    }
    assert_eq!(ask_for(&mut peer, HASH).await[..], granted(HASH));
    assert!(served.admitted.recv().await.is_some());
    assert!(read_to_the_end(&mut crowd[0]).await.is_empty(), "the oldest of the crowd made room");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crowd_that_greets_keeps_its_own_address_busy_and_no_other() {
    let mut served = Served::on_loopback();
    let mut crowd = Vec::new();
    for _ in 0..MAX_NEGOTIATING {
        crowd.push(greeted_from(&served, 3).await);
    }
    let mut one_more = connect_from(&served, 3).await;
    assert!(read_to_the_end(&mut one_more).await.is_empty());

    let mut peer = connect_from(&served, 2).await;
    assert_eq!(ask_for(&mut peer, HASH).await[..], granted(HASH));
    assert!(served.admitted.recv().await.is_some());
    assert!(read_to_the_end(&mut crowd[0]).await.is_empty(), "the oldest of the crowd made room");
    assert!(crowd[1].try_read(&mut [0]).is_err(), "the next did not have to");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crowd_with_an_address_each_does_not_keep_a_newcomer_out() {
    let mut served = Served::on_loopback();
    let mut crowd = Vec::new();
    for last_octet in (3..).take(MAX_NEGOTIATING) {
        crowd.push(greeted_from(&served, last_octet).await);
    }
    let mut peer = connect_from(&served, 2).await;
    assert_eq!(ask_for(&mut peer, HASH).await[..], granted(HASH));
    assert!(served.admitted.recv().await.is_some());
}

#[tokio::test]
async fn who_has_greeted_stays_when_those_from_the_same_address_say_nothing() {
    let mut served = Served::on_loopback();
    let mut peer = served.connect().await;
    peer.write_all(&GREETING).await.unwrap();
    assert_eq!(read(&mut peer).await, [5, 0]);
    let mut crowd = Vec::new();
    for _ in 0..2 * MAX_NEGOTIATING {
        crowd.push(served.connect().await);
    }
    assert!(read_to_the_end(&mut crowd[0]).await.is_empty());
    peer.write_all(&connect_to(HASH)).await.unwrap();
    assert_eq!(read::<47>(&mut peer).await[..], granted(HASH));
    assert!(served.admitted.recv().await.is_some());
}

#[test]
fn the_addresses_of_an_ipv6_link_are_one_network_and_every_ipv4_address_is_its_own() {
    let network = |address: &str| network_of(address.parse().unwrap()).to_string();
    assert_eq!(network("2001:db8:0:1:2:3:4:5"), "2001:db8:0:1::");
    assert_eq!(network("2001:db8:0:1::1"), "2001:db8:0:1::");
    assert_eq!(network("192.0.2.1"), "192.0.2.1");
    assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
}

#[tokio::test]
async fn those_who_passed_make_room() {
    let mut served = Served::on_loopback();
    let mut oldest = served.connect().await;
    oldest.write_all(&GREETING).await.unwrap();
    assert_eq!(read(&mut oldest).await, [5, 0]);
    for _ in 0..=MAX_NEGOTIATING {
        let mut peer = served.connect().await;
        ask_for(&mut peer, HASH).await;
        assert!(served.admitted.recv().await.is_some());
    }
    oldest.write_all(&connect_to(HASH)).await.unwrap();
    assert_eq!(read::<47>(&mut oldest).await[..], granted(HASH));
}

#[tokio::test]
async fn who_has_not_passed_goes_with_the_listener_and_who_has_stays() {
    let mut served = Served::on_loopback();
    let mut waiting = served.connect().await;
    waiting.write_all(&GREETING).await.unwrap();
    assert_eq!(read(&mut waiting).await, [5, 0]);
    let mut passed = served.connect().await;
    ask_for(&mut passed, HASH).await;
    let mut ours = served.admitted.recv().await.unwrap();

    served.serving.abort();
    assert!(read_to_the_end(&mut waiting).await.is_empty());
    assert!(TcpStream::connect(served.addresses[0]).await.is_err());
    ours.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut passed).await, *b"still here");
}

#[tokio::test]
async fn the_first_port_of_the_range_that_is_free_on_all_addresses_is_taken() {
    for loopback in loopbacks() {
        let taken = std::net::TcpListener::bind((loopback, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Listener::bind(&config(&loopbacks(), port..=port)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains("127.0.0.1") && text.contains(&format!("port {port}:")), "{text}");

        let listener = Listener::bind(&config(&loopbacks(), port..=port.saturating_add(50))).unwrap();
        let addresses = listener.addresses();
        assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(), loopbacks());
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
        assert!((port + 1..=port.saturating_add(50)).contains(&addresses[0].port()));
    }
}

#[tokio::test]
async fn the_system_chooses_one_port_for_all_addresses() {
    let listener = Listener::bind(&config(&loopbacks(), 0..=0)).unwrap();
    let addresses = listener.addresses();
    assert_ne!(addresses[0].port(), 0);
    assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
    assert_eq!(addresses.len(), loopbacks().len());
}

#[tokio::test]
async fn an_empty_range_of_ports_is_said_to_be_one() {
    #[expect(clippy::reversed_empty_ranges, reason = "what a user may write")]
    let error = Listener::bind(&config(&loopbacks(), 2..=1)).unwrap_err();
    assert!(error.to_string().contains("the range of ports is empty"), "{error}");
}

#[tokio::test]
async fn an_address_of_another_machine_is_left_out_unless_it_is_the_only_one() {
    let elsewhere: IpAddr = "192.0.2.1".parse().unwrap(); // TEST-NET-1
    let error = Listener::bind(&config(&[elsewhere], 0..=0)).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1"), "{error}");

    let listener = Listener::bind(&config(&[elsewhere, Ipv4Addr::LOCALHOST.into()], 0..=0)).unwrap();
    assert_eq!(listener.addresses().len(), 1);
    assert!(listener.addresses()[0].ip().is_loopback());
}

#[tokio::test]
async fn all_addresses_means_those_that_others_can_use() {
    let listener = Listener::bind(&S5bConfig::default()).unwrap();
    for address in listener.addresses() {
        let link_local = match address.ip() {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let ip = address.ip();
        assert!(!ip.is_loopback() && !ip.is_unspecified() && !link_local, "{address}");
        assert_ne!(address.port(), 0);
    }
    // It listens on loopback all the same; it only doesn't say so.
    let port = listener.sockets[0].local_addr().unwrap().port();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok());
}

#[tokio::test]
async fn loopback_that_is_named_beside_all_addresses_is_offered() {
    let bind = [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()];
    let addresses = Listener::bind(&config(&bind, 0..=0)).unwrap().addresses();
    assert_eq!(addresses.iter().filter(|address| address.ip().is_loopback()).count(), 1);
    assert!(addresses.iter().all(SocketAddr::is_ipv4));
}
