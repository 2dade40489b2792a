//! A session from session-initiate to an open in-band bytestream, between two machines without IO.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use jingle_xmlstream::internals::session::Ends;

fn session(criterion: &mut Criterion) {
    let mut ends = Ends::new().expect("randomness");
    let mut group = criterion.benchmark_group("session");
    group.bench_function("negotiation", |bencher| {
        bencher.iter(|| ends.negotiate().expect("an open bytestream"))
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::short();
    targets = session
}
criterion_main!(benches);
