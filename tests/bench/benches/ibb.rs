//! In-band bytestreams between two machines, without a server: what blocks cost at both ends.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jingle_xmlstream::internals::ibb::transfer;

const BYTES: usize = 1024 * 1024;

fn ibb(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ibb");
    group.throughput(Throughput::Bytes(BYTES as u64));
    for block in [4096, 65535] {
        group.bench_function(format!("blocks of {block}"), |bencher| bencher.iter(|| transfer(BYTES, block)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::short();
    targets = ibb
}
criterion_main!(benches);
