//! Processor time of this process, to the nanosecond, from Linux' scheduler.

use std::{fs, time::Duration};

/// What all threads took so far, but for those whose name begins with this.
///
/// Threads that have ended are not in it: runtimes whose work is measured have to keep theirs.
///
/// # Panics
///
/// Without `/proc`, which is to say elsewhere than on Linux.
#[must_use]
pub fn used(except: &str) -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("processor time by thread is known on Linux alone");
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        if name.starts_with(except) {
            return None;
        }
        let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
