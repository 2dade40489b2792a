//! XML of a stream, without a stream around it: messages of four sizes, written and read.

mod common;

use bench_support::bots;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jingle_xmlstream::internals::codec::Codec;
use xmpp_parsers::stanza::Stanza;

/// Bytes of body.
const SIZES: [usize; 4] = [64, 1024, 16 * 1024, 64 * 1024];

fn message(size: usize) -> Stanza {
    bots::message(size).into()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for size in SIZES {
        let (mut codec, mut bytes, stanza) = (Codec::new(), Vec::new(), message(size));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                bytes.clear();
                codec.encode(&stanza, &mut bytes)
            });
        });
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for size in SIZES {
        let (mut codec, mut bytes) = (Codec::new(), Vec::new());
        let written = codec.encode(&message(size), &mut bytes);
        assert_eq!((written, codec.decode(&bytes)), (Ok(()), 1), "it is read as it was written");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| codec.decode(&bytes));
        });
    }
}

criterion_group! {
    name = codec;
    config = common::short();
    targets = encode, decode
}
criterion_main!(codec);
