//! Processor time of this process, to the nanosecond, from Linux' scheduler.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// What all threads took so far, those that have ended as well, but for those whose name begins with this.
///
/// What is left out has to go on: of a thread that has ended, nobody knows the name any more.
///
/// # Panics
///
/// Without `/proc`, which is to say elsewhere than on Linux.
#[must_use]
pub fn used(except: &str) -> Duration {
    let left_out = of_threads(except);
    let all = clock_gettime(ClockId::ProcessCPUTime);
    let all = Duration::try_from(all).expect("processor time is no less than nothing");
    all.saturating_sub(left_out)
}

/// What all of them took since they had taken this. What a thread takes is only written down when it pauses, so that the
/// little that is left out may come late.
#[must_use]
pub fn since(before: Duration, except: &str) -> Duration {
    used(except).saturating_sub(before)
}

/// What those took that go on.
fn of_threads(name: &str) -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("processor time by thread is known on Linux alone");
    let nanoseconds = threads.flatten().filter_map(|thread| {
        if !fs::read_to_string(thread.path().join("comm")).ok()?.starts_with(name) {
            return None;
        }
        let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
