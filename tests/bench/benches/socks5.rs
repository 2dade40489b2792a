//! The server's side of a SOCKS5 handshake (XEP-0065).

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use jingle_xmlstream::internals::socks5::handshake;

const DST_ADDR: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

fn socks5(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("socks5");
    for (name, piece) in [("handshake", 256), ("handshake byte by byte", 1)] {
        group.bench_function(name, |bencher| bencher.iter(|| handshake(DST_ADDR, piece)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::short();
    targets = socks5
}
criterion_main!(benches);
