//! The server's side of a SOCKS5 handshake; the client's is a library's.

use crate::transport::socks5::{Progress, Server};

/// One handshake as XEP-0065 has it, for a DST.ADDR of so many bytes, read in pieces of so many. Gives the number of bytes
/// that the client is sent.
///
/// # Panics
///
/// If the server refuses it.
#[must_use]
pub fn handshake(dst_addr: &str, piece: usize) -> usize {
    let mut server = Server::new();
    let mut sent = 0;
    for message in [vec![5, 1, 0], request(dst_addr)] {
        let mut unread = message.as_slice();
        while !unread.is_empty() {
            let (read, rest) = unread.split_at(server.wants().min(piece).min(unread.len()));
            unread = rest;
            sent += match server.handle(read) {
                Progress::More => 0,
                Progress::Reply(reply) => reply.len(),
                Progress::Connect(request) => {
                    request.granted().len() + request.dst_addr().len() - dst_addr.len()
                }
                Progress::Refuse { why, .. } => panic!("refused: {why}"),
            };
        }
    }
    sent
}

/// CONNECT to this name, port 0.
fn request(dst_addr: &str) -> Vec<u8> {
    let length = u8::try_from(dst_addr.len()).unwrap_or(u8::MAX);
    let name = dst_addr.bytes().take(length.into());
    [5, 1, 0, 3, length].into_iter().chain(name).chain([0, 0]).collect()
}

#[cfg(test)]
#[test]
fn a_handshake_is_answered_twice_whatever_its_pieces() {
    let dst_addr = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
    for piece in [1, 2, 64] {
        assert_eq!(handshake(dst_addr, piece), 2 + 4 + 1 + dst_addr.len() + 2);
    }
}
