//! In-band bytestreams between two machines, without anything between them.

use std::time::Instant;

use xmpp_parsers::minidom::Element;

use crate::{
    IbbConfig, Timeouts,
    disco::InBand,
    transport::{Done, Ibb, Output, Read, Request, Transport, Write, ibb::Offer},
    wire::ibb::{Data, Open},
};

/// Moves so many bytes from one end to the other in blocks of at most that size, and gives how many were read there.
///
/// All stanzas are built and taken apart as elements, and nothing takes any time.
#[must_use]
pub fn transfer(bytes: usize, block_size: u16) -> usize {
    let mut pair = Pair::new(block_size);
    let piece = vec![0; 64 * 1024];
    let (mut written, mut read) = (0, 0);
    while read < bytes {
        let before = (written, read);
        let rest = piece.get(..bytes - written).unwrap_or(&piece);
        if let Ok(Write::Taken(taken)) = pair.romeo.write(pair.now, rest) {
            written += taken;
        }
        if !matches!(pair.romeo.flush(pair.now), Ok(Done::Yes | Done::NotYet)) {
            break;
        }
        pair.exchange();
        read += pair.read();
        if (written, read) == before {
            break;
        }
    }
    read
}

struct Pair {
    now: Instant,
    romeo: Transport,
    juliet: Transport,
    buffer: Vec<u8>,
}

impl Pair {
    fn new(block_size: u16) -> Self {
        let now = Instant::now();
        let config = IbbConfig { block_size, ..IbbConfig::default() };
        let timeouts = Timeouts::default();
        let offer = Offer::new("ch3d9s71".to_owned(), InBand::V1, &config);
        let romeo = Transport::Ibb(Box::new(Ibb::open(offer.clone(), now, &config, &timeouts)));
        let juliet = Transport::Ibb(Box::new(Ibb::await_open(offer, now, &config, &timeouts)));
        let mut pair = Self { now, romeo, juliet, buffer: vec![0; 8 * 1024] };
        pair.exchange();
        pair
    }

    /// Delivers what each has for the other, until neither has anything.
    fn exchange(&mut self) {
        loop {
            let there = deliver(self.now, &mut self.romeo, &mut self.juliet);
            let back = deliver(self.now, &mut self.juliet, &mut self.romeo);
            if !there && !back {
                return;
            }
        }
    }

    fn read(&mut self) -> usize {
        let mut all = 0;
        while let Ok(Read::Data(count)) = self.juliet.read(&mut self.buffer) {
            all += count;
            self.exchange();
        }
        all
    }
}

/// Whether one had something for the other.
fn deliver(now: Instant, from: &mut Transport, to: &mut Transport) -> bool {
    let mut any = false;
    while let Some(output) = from.poll_output() {
        any = true;
        match output {
            Output::Request(request, payload) => hand_over(now, to, request, &payload),
            Output::Reply(id, reply) => {
                let request = if id == "open" { Request::Open } else { Request::Data };
                to.handle_reply(now, request, reply);
            }
            _ => {}
        }
    }
    any
}

fn hand_over(now: Instant, to: &mut Transport, request: Request, payload: &Element) {
    let Some(ibb) = to.ibb_mut() else { return };
    match request {
        Request::Open => {
            if let Ok(open) = Open::parse(payload) {
                ibb.handle_open("open".to_owned(), &open);
            }
        }
        Request::Data => ibb.handle_data(now, "data".to_owned(), Data::parse(payload)),
        Request::Close => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_whatever_the_size_of_blocks() {
        for block_size in [1024, 4096, 65535] {
            for bytes in [0, 1, 65536, 3_000_000] {
                assert_eq!(transfer(bytes, block_size), bytes, "{bytes} bytes in blocks of {block_size}");
            }
        }
    }
}
