//! What the benchmarks share.

use std::time::Duration;

use criterion::Criterion;

/// Enough to see a change of some percent, and short enough to be run often.
pub(crate) fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
}
