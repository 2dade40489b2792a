//! The window, told of blocks and acknowledgements by hand.

use std::time::{Duration, Instant};

use super::{law::spare, *};

const MOST: usize = MAX_IN_FLIGHT;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A sender on a path that takes so long and lets everything pass.
struct Path {
    window: Window,
    now: Instant,
    round_trip: Duration,
    on_the_way: VecDeque<Instant>,
}

impl Path {
    fn new(window: Window, round_trip: Duration) -> Self {
        Self { window, now: Instant::now(), round_trip, on_the_way: VecDeque::new() }
    }

    /// Sends what the window admits; gives how many bytes.
    fn fill(&mut self) -> usize {
        let mut bytes = 0;
        self.window.resume(self.now);
        while self.window.admits(self.window.block()) {
            bytes += self.window.block();
            self.send(self.window.block());
        }
        bytes
    }

    fn send(&mut self, bytes: usize) {
        self.window.sent(self.now, bytes);
        self.on_the_way.push_back(self.now + self.round_trip);
    }

    fn acknowledge(&mut self) {
        if let Some(at) = self.on_the_way.pop_front() {
            self.now = self.now.max(at);
            self.window.acknowledged(self.now);
        }
    }

    /// All that is in flight.
    fn acknowledge_all(&mut self) {
        while !self.on_the_way.is_empty() {
            self.acknowledge();
        }
    }

    /// Bytes sent in each of so many round trips, with always more to send.
    fn round_trips(&mut self, count: usize) -> Vec<usize> {
        let mut sent = vec![self.fill()];
        for _ in 1..count {
            let in_flight = self.on_the_way.len();
            let bytes = (0..in_flight).map(|_| {
                self.acknowledge();
                self.fill()
            });
            let bytes = bytes.sum();
            sent.push(bytes);
        }
        sent
    }

    /// Bytes in flight after so many round trips.
    fn settle(&mut self, round_trips: usize) -> usize {
        self.round_trips(round_trips);
        let in_flight = self.window.blocks.iter().map(|block| block.cost - STANZA).sum();
        self.acknowledge_all();
        in_flight
    }
}

#[test]
fn it_begins_with_two_small_blocks_and_grows_only_when_more_than_a_burst_has_passed() {
    let mut path = Path::new(Window::adaptive(65535, MOST), ms(50));
    let sent = path.round_trips(12);
    assert_eq!(sent[..4], [3840; 4], "16 KiB are 4 of them");
    assert!(sent[11] > 20 * sent[0], "{sent:?}");
    for two in sent.windows(2) {
        assert!(two[1] <= 5 * two[0], "{sent:?}");
    }
}

#[test]
fn it_never_has_more_in_flight_than_allowed() {
    for most in [1, 10_000, 500_000, MOST] {
        for block_size in [1, 100, 4096, 65535] {
            let mut path = Path::new(Window::adaptive(block_size, most), ms(50));
            for _ in 0..2000 {
                path.fill();
                let (bytes, blocks) = (path.window.in_flight, path.window.blocks.len());
                assert!(blocks == 1 || bytes <= most, "{bytes} of {most}");
                assert!(blocks <= MAX_BLOCKS, "{blocks}");
                path.acknowledge();
            }
        }
    }
}

#[test]
fn blocks_grow_with_the_rate_and_no_further_than_agreed() {
    for agreed in [100, 4096, 65535] {
        let mut path = Path::new(Window::adaptive(agreed, MOST), ms(50));
        path.settle(30);
        assert_eq!(path.window.block(), usize::from(agreed));
    }
}

#[test]
fn who_has_little_to_send_proves_nothing() {
    let mut path = Path::new(Window::adaptive(65535, MOST), ms(50));
    for _ in 0..1000 {
        path.send(1000);
        path.acknowledge_all();
    }
    assert!(path.fill() <= 3 * 3840, "a megabyte went through, but never more than one block at once");
}

#[test]
fn behind_an_idle_time_it_begins_anew() {
    let mut path = Path::new(Window::adaptive(65535, MOST), ms(50));
    path.settle(30);
    path.now += ms(4000);
    assert!(path.fill() > 1_000_000, "a short one changes nothing");
    path.acknowledge_all();
    path.now += ms(5000);
    assert!(path.fill() < 5000, "the first block, too");
}

#[test]
fn acknowledgements_that_take_longer_close_it_and_it_opens_again() {
    let mut path = Path::new(Window::adaptive(65535, MOST), ms(50));
    let before = path.settle(30);
    path.round_trip = ms(5000);
    let slow = path.settle(3);
    assert!(slow < before / 4, "{slow} of {before}");
    path.round_trip = ms(50);
    let after = path.settle(30);
    assert!(after >= before / 2, "{after} of {before}");
}

/// A single large block has to be enough to see it: while the path is measured, blocks do not become smaller.
#[test]
fn a_path_that_became_longer_is_filled_as_well() {
    for longer in [300, 1000] {
        let mut path = Path::new(Window::adaptive(65535, MOST), ms(50));
        let before = path.settle(30);
        path.round_trip = ms(longer);
        let after = path.settle(200);
        assert!(after >= before / 2, "{longer} ms: {after} of {before}");
    }
}

#[test]
fn a_clock_that_was_restarted_says_nothing_about_the_path() {
    let mut path = Path::new(Window::adaptive(65535, MOST), ms(400));
    path.settle(30);
    let before = path.fill();
    path.now += ms(60_000);
    path.window.restart_clock(path.now);
    path.now += ms(1);
    path.on_the_way.iter_mut().for_each(|at| *at = path.now);
    path.acknowledge_all();
    assert_eq!(path.fill(), before, "neither the long delay nor the short one counts");
}

#[test]
fn a_fixed_window_is_what_it_is() {
    let mut path = Path::new(Window::fixed(1000, 3), ms(50));
    for round_trip in [ms(50), ms(5000)] {
        path.round_trip = round_trip;
        assert_eq!(path.settle(5), 3000);
    }
    for (window, block, sent) in [(0, 7, 7), (usize::MAX, 1, MAX_BLOCKS), (usize::MAX, 65535, 128 * 65535)] {
        assert_eq!(Path::new(Window::fixed(block, window), ms(1)).fill(), sent);
    }
}

#[test]
fn an_acknowledgement_is_waited_for_since_the_last_one() {
    let mut path = Path::new(Window::fixed(1000, 3), ms(50));
    assert_eq!(path.window.waiting_since(), None);
    let begun = path.now;
    path.fill();
    assert_eq!(path.window.waiting_since(), Some(begun));
    path.now += ms(70);
    path.window.acknowledged(path.now);
    assert_eq!(path.window.waiting_since(), Some(path.now));
    path.window.acknowledged(path.now);
    path.window.acknowledged(path.now);
    assert_eq!(path.window.waiting_since(), None);
    path.window.acknowledged(path.now);
    assert!(path.window.is_idle(), "an acknowledgement of nothing does nothing");
}

#[test]
fn acknowledgements_without_any_delay_do_no_harm() {
    let mut path = Path::new(Window::adaptive(65535, MOST), ms(0));
    let sent = path.round_trips(40);
    assert!(sent.iter().all(|bytes| *bytes > 0 && *bytes <= MOST), "{sent:?}");
}

#[test]
fn on_a_short_path_a_fast_server_has_enough_for_25_ms_and_a_slow_one_no_more_than_for_150() {
    for rate in [10e6, 30e6, 50e6] {
        let seconds = spare(rate, 0.001) / rate;
        assert!((0.025..0.05).contains(&seconds), "{seconds} s at {rate} B/s");
    }
    for rate in [100.0, 3e3, 40e3, 300e3] {
        let seconds = spare(rate, 0.0) / rate;
        assert!(seconds <= 0.150_001, "{seconds} s at {rate} B/s");
    }
}

/// There, that the path may vary is enough.
#[test]
fn a_long_path_and_a_slow_server_have_a_queue_by_the_root_of_the_rate_and_no_more() {
    for (rate, path) in [(1e6, 0.0), (2.9e6, 0.0), (50e6, 0.4), (10e6, 0.2)] {
        let beyond = spare(rate, path) - 0.11 * rate * path;
        assert!((beyond / (90.0 * rate.sqrt()) - 1.0).abs() < 1e-9, "{beyond} at {rate} B/s");
    }
}
