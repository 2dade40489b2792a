//! Clients that mean well, in pieces of any size, and such that don't.

use super::*;

const HASH: &str = "972b7bf47291ca609517f67f86b5081086052dad"; // XEP-0065 #direct-proto-initiate

fn greeting() -> Vec<u8> {
    vec![5, 1, 0]
}

fn connect_to(name: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[5, 1, 0, 3, length], name, &port.to_be_bytes()].concat()
}

fn granted_to(name: &str, port: u16) -> Vec<u8> {
    let mut reply = connect_to(name.as_bytes(), port);
    reply[1] = 0;
    reply
}

/// Hands the server what comes in these segments, never more than it wants. What it says that is not [`Progress::More`],
/// and what of the bytes it left.
fn converse(segments: &[&[u8]]) -> (Vec<Progress>, Vec<u8>) {
    let mut server = Server::new();
    let mut said = Vec::new();
    let mut left = Vec::new();
    for segment in segments {
        let mut segment = *segment;
        while !segment.is_empty() && server.wants() > 0 {
            let (piece, rest) = segment.split_at(server.wants().min(segment.len()));
            assert!(piece.len() <= MAX_WANTS);
            match server.handle(piece) {
                Progress::More => {}
                other => said.push(other),
            }
            segment = rest;
        }
        left.extend_from_slice(segment);
    }
    (said, left)
}

/// The REP or the method in the refusal that ends this conversation.
fn refusal(said: &[u8]) -> Vec<u8> {
    match converse(&[said]).0.pop() {
        Some(Progress::Refuse { reply, why }) => {
            assert!(!why.is_empty());
            reply[..2].to_vec()
        }
        other => panic!("{other:?}"),
    }
}

fn request(bytes: &[u8]) -> Vec<u8> {
    [&greeting(), bytes].concat()
}

#[test]
fn a_client_is_told_no_authentication_and_asks_for_the_hash() {
    let mut server = Server::new();
    assert_eq!(server.wants(), 2);
    assert_eq!(server.handle(&[5, 1]), Progress::More);
    assert_eq!(server.wants(), 1);
    assert_eq!(server.handle(&[0]), Progress::Reply(vec![5, 0]));

    let asks = connect_to(HASH.as_bytes(), 0);
    assert_eq!(server.wants(), 5);
    assert_eq!(server.handle(&asks[..5]), Progress::More);
    assert_eq!(server.wants(), 42);
    let Progress::Connect(request) = server.handle(&asks[5..]) else { panic!() };
    assert_eq!(server.wants(), 0);

    assert_eq!(request.dst_addr(), HASH);
    assert_eq!(request.granted(), granted_to(HASH, 0));
    let mut refused = granted_to(HASH, 0);
    refused[1] = 2;
    assert_eq!(request.refused(), refused);
}

#[test]
fn segments_of_any_size_come_to_the_same_and_what_is_behind_stays() {
    let behind = [0x16, 3, 1];
    let all = [request(&connect_to(HASH.as_bytes(), 0)), behind.to_vec()].concat();
    let (whole, left) = converse(&[&all]);
    assert!(matches!(whole.as_slice(), [Progress::Reply(_), Progress::Connect(_)]));
    assert_eq!(left, behind);

    let bytes: Vec<&[u8]> = all.chunks(1).collect();
    assert_eq!(converse(&bytes), (whole, behind.to_vec()));
    for at in 0..=all.len() {
        let (first, second) = all.split_at(at);
        let (said, left) = converse(&[first, second]);
        assert!(matches!(said.as_slice(), [Progress::Reply(_), Progress::Connect(_)]), "split at {at}");
        assert_eq!(left, behind, "split at {at}");
    }
}

#[test]
fn capitals_and_a_port_are_echoed_as_asked() {
    let capitals = HASH.to_ascii_uppercase();
    let (said, _) = converse(&[&request(&connect_to(capitals.as_bytes(), 1080))]);
    let [_, Progress::Connect(request)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(request.dst_addr(), HASH);
    assert_eq!(request.granted(), granted_to(&capitals, 1080));
}

#[test]
fn names_have_1_to_255_bytes() {
    for length in [1, 255] {
        let name = "a".repeat(length);
        let (said, left) = converse(&[&request(&connect_to(name.as_bytes(), 0))]);
        let [_, Progress::Connect(request)] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(request.dst_addr(), name);
        assert!(left.is_empty());
    }
    assert_eq!(refusal(&request(&connect_to(b"", 0))), [5, 1]);
}

#[test]
fn a_client_may_offer_other_methods_beside_none() {
    let (said, _) = converse(&[&[5, 3, 2, 1, 0]]);
    assert_eq!(said, [Progress::Reply(vec![5, 0])]);
    let all_methods: Vec<u8> = (1..=255).collect();
    assert_eq!(refusal(&[&[5, 255], all_methods.as_slice()].concat()), [5, 0xFF]);
    assert_eq!(refusal(&[5, 1, 2]), [5, 0xFF]);
    assert_eq!(refusal(&[5, 0]), [5, 0xFF]);
}

#[test]
fn other_protocols_are_refused_at_their_first_byte() {
    assert_eq!(refusal(b"G"), [5, 0xFF]);
    assert_eq!(refusal(&[4]), [5, 0xFF]); // SOCKS4
    assert_eq!(refusal(&[0x16]), [5, 0xFF]); // TLS
    assert_eq!(refusal(&request(b"G")), [5, 1]);
}

#[test]
fn requests_other_than_connect_to_a_name_are_refused_by_their_rep() {
    let to_ipv4 = [5, 1, 0, 1, 127, 0, 0, 1, 0, 22];
    let to_ipv6 = [&[5, 1, 0, 4], [0; 16].as_slice(), &[0, 22]].concat();
    assert_eq!(refusal(&request(&to_ipv4)), [5, 8]);
    assert_eq!(refusal(&request(&to_ipv6)), [5, 8]);
    assert_eq!(refusal(&request(&[5, 1, 0, 9, 0])), [5, 8]);

    let with = |at: usize, value: u8| {
        let mut request = connect_to(HASH.as_bytes(), 0);
        request[at] = value;
        request
    };
    assert_eq!(refusal(&request(&with(1, 2))), [5, 7]); // BIND
    assert_eq!(refusal(&request(&with(1, 3))), [5, 7]); // UDP ASSOCIATE
    assert_eq!(refusal(&request(&with(2, 1))), [5, 1]);
    assert_eq!(refusal(&request(&with(5, 0xC3))), [5, 2]); // not UTF-8
}

#[test]
fn a_refused_client_is_not_heard_any_more() {
    let mut server = Server::new();
    assert!(matches!(server.handle(b"G"), Progress::Refuse { .. }));
    assert_eq!(server.wants(), 0);
    assert!(matches!(server.handle(&greeting()), Progress::Refuse { .. }));
}

#[test]
fn bytes_that_were_not_asked_for_are_refused() {
    let mut server = Server::new();
    assert!(matches!(server.handle(&greeting()), Progress::Refuse { .. }));
    assert_eq!(server.wants(), 0);
}

#[test]
fn no_bytes_change_nothing() {
    let mut server = Server::new();
    assert_eq!(server.handle(&[]), Progress::More);
    assert_eq!(server.wants(), 2);
}
