//! Work that is the same each time, whose instructions are counted.

use std::cell::RefCell;

use bench_support::bots;
use jingle_xmlstream::internals::{codec::Codec, ibb, session::Ends, socks5};
use xmpp_parsers::{message::Message, stanza::Stanza};

pub(crate) struct Workload {
    pub(crate) name: String,
    /// How often it is done to be counted.
    pub(crate) times: usize,
    /// Gives something that depends on all that was done.
    pub(crate) work: Box<dyn Fn() -> usize>,
}

/// Bytes of a body.
const BODIES: [usize; 3] = [64, 1024, 64 * 1024];

/// The largest blocks that two ends of a bytestream agree on: what other programs offer, and what we do.
const BLOCKS: [u16; 2] = [4096, 65535];

/// What goes through a bytestream.
const BYTES: usize = 1024 * 1024;

/// As long as XEP-0065 makes it.
const DST_ADDR: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// All work that is counted. What it needs is made when it is first done, so that it is part of what is not counted.
pub(crate) fn all() -> Vec<Workload> {
    let encode_body =
        |bytes| encode(format!("encode, {bytes} B"), times(bytes), move || bots::message(bytes));
    let bodies = BODIES.into_iter().flat_map(|bytes| [encode_body(bytes), decode(bytes)]);
    let blocks = BLOCKS.into_iter().map(|block| {
        workload(format!("ibb, blocks of {block}"), 5, move || {
            assert_eq!(ibb::transfer(BYTES, block), BYTES, "all of it arrives");
            BYTES
        })
    });
    let lines = encode("encode, 64 KiB of lines".to_owned(), 20, lines);
    let handshake = workload("socks5 handshake".to_owned(), 1000, || socks5::handshake(DST_ADDR, 256));
    bodies.chain(blocks).chain([lines, handshake, negotiation()]).collect()
}

fn encode(name: String, times: usize, message: impl Fn() -> Message + 'static) -> Workload {
    let made = RefCell::new(None);
    workload(name, times, move || {
        let mut made = made.borrow_mut();
        let (codec, message, out) =
            made.get_or_insert_with(|| (Codec::new(), Stanza::from(message()), Vec::new()));
        out.clear();
        codec.encode(message, out).expect("it is XML");
        out.len()
    })
}

/// Each line ends in a character that has to be escaped, and none may be looked for through all of the rest.
fn lines() -> Message {
    Message::chat(None).with_body("".into(), "soft\r\n".repeat(11_000))
}

fn decode(bytes: usize) -> Workload {
    let made = RefCell::new(None);
    workload(format!("decode, {bytes} B"), times(bytes), move || {
        let mut made = made.borrow_mut();
        let (codec, written) = made.get_or_insert_with(|| {
            let (mut codec, mut written) = (Codec::new(), Vec::new());
            codec.encode(&bots::message(bytes).into(), &mut written).expect("it is XML");
            (codec, written)
        });
        assert_eq!(codec.decode(written), 1, "it is read as it was written");
        written.len()
    })
}

fn negotiation() -> Workload {
    let made = RefCell::new(None);
    workload("negotiation".to_owned(), 50, move || {
        let mut made = made.borrow_mut();
        let ends: &mut Ends = made.get_or_insert_with(|| Ends::new().expect("randomness"));
        ends.negotiate().expect("two ends that want the same")
    })
}

/// Enough that what else happens does not show.
fn times(bytes: usize) -> usize {
    1_000_000 / (bytes + 500)
}

fn workload(name: String, times: usize, work: impl Fn() -> usize + 'static) -> Workload {
    Workload { name, times, work: Box::new(work) }
}
