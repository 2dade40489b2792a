//! Work that is the same each time, whose instructions are counted.

use jingle_xmlstream::internals;

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// How often it is done to be counted.
    pub(crate) times: usize,
    /// Gives something that depends on all that was done.
    pub(crate) work: Box<dyn Fn() -> usize>,
}

pub(crate) fn all() -> Vec<Workload> {
    vec![workload("socks5-handshake", 1000, || internals::socks5::handshake(DST_ADDR, 256))]
}

/// As long as XEP-0065 makes it.
const DST_ADDR: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

fn workload(name: &'static str, times: usize, work: impl Fn() -> usize + 'static) -> Workload {
    Workload { name, times, work: Box::new(work) }
}
