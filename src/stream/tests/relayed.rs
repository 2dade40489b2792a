//! Through a SOCKS5 proxy that holds bytes back until the next one comes.

use std::time::Duration;

use super::support::{FOOTER, HEADER, Side, setup};
use crate::stream::{
    Path,
    machine::{Closer, Role},
};

/// Long after everything about a burst is done.
const LONG: Duration = Duration::from_secs(10);

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Side {
    /// An open responder behind a proxy, a while after the opening.
    fn relayed() -> Self {
        let mut side = Self::juliet();
        side.machine.set_path(side.now, Path::Relayed);
        side.reads(HEADER);
        side.flushes();
        side.nudges_for(LONG);
        side
    }

    /// Writes and flushes all there is in one go; what that was.
    fn flushes(&mut self) -> String {
        let written = self.written();
        if !written.is_empty() {
            self.machine.handle_written(self.now, written.len(), 0);
            self.machine.handle_flushed(self.now);
        }
        written
    }

    /// What is written in the course of time, and when, in milliseconds from now.
    fn nudges_for(&mut self, time: Duration) -> Vec<(u128, String)> {
        let (start, end) = (self.now, self.now + time);
        let mut written = Vec::new();
        while let Some(deadline) = self.machine.poll_timeout().filter(|deadline| *deadline <= end) {
            assert!(deadline >= self.now);
            self.now = deadline;
            self.machine.handle_timeout(self.now);
            let bytes = self.flushes();
            if !bytes.is_empty() {
                written.push(((self.now - start).as_millis(), bytes));
            }
        }
        self.now = end;
        written
    }

    fn burst(&mut self) {
        self.says(&"x".repeat(6000));
        assert!(self.flushes().len() > 6000);
    }
}

fn spaces<const N: usize>(times: [u128; N]) -> Vec<(u128, String)> {
    times.map(|time| (time, " ".to_owned())).into()
}

#[test]
fn a_burst_is_followed_by_white_space_three_times() {
    let mut side = Side::relayed();
    side.burst();
    assert_eq!(side.nudges_for(LONG), spaces([20, 220, 1220]));
}

#[test]
fn without_a_proxy_nothing_follows() {
    let mut side = Side::open();
    side.burst();
    assert_eq!(side.nudges_for(LONG), []);
}

#[test]
fn what_the_proxy_passes_on_needs_nothing() {
    let mut side = Side::relayed();
    side.says(&"x".repeat(3800));
    assert!(side.flushes().len() < 4000);
    assert_eq!(side.nudges_for(LONG), []);
}

#[test]
fn pieces_that_follow_each_other_are_one_burst() {
    let mut side = Side::relayed();
    for _ in 0..10 {
        side.says(&"x".repeat(600));
        side.flushes();
        assert_eq!(side.nudges_for(milliseconds(19)), []);
    }
    // The last one was 19 ms ago.
    assert_eq!(side.nudges_for(LONG), spaces([1, 201, 1201]));
}

#[test]
fn what_encryption_adds_to_short_pieces_counts() {
    let mut side = Side::relayed();
    let mut total = 0;
    for _ in 0..60 {
        side.says("x");
        total += side.flushes().len();
    }
    assert!(total < 3900, "{total}");
    assert_eq!(side.nudges_for(LONG), spaces([20, 220, 1220]));
}

#[test]
fn pieces_with_a_pause_between_them_are_not() {
    let mut side = Side::relayed();
    for _ in 0..10 {
        side.says(&"x".repeat(600));
        side.flushes();
        assert_eq!(side.nudges_for(milliseconds(200)), []);
    }
    assert_eq!(side.nudges_for(LONG), []);
}

#[test]
fn more_bytes_start_it_anew() {
    let mut side = Side::relayed();
    side.burst();
    assert_eq!(side.nudges_for(milliseconds(100)), spaces([20]));
    side.says("and");
    side.flushes();
    assert_eq!(side.nudges_for(LONG), spaces([20, 220, 1220]));
}

#[test]
fn a_few_bytes_after_a_burst_that_is_through_need_nothing() {
    let mut side = Side::relayed();
    side.burst();
    assert_eq!(side.nudges_for(milliseconds(300)), spaces([20, 220]));
    side.says("and");
    side.flushes();
    assert_eq!(side.nudges_for(LONG), []);
}

#[test]
fn time_counts_from_when_all_is_flushed() {
    let mut side = Side::relayed();
    side.says(&"x".repeat(6000));
    let written = side.written();
    side.machine.handle_written(side.now, written.len(), 0);
    assert_eq!(side.nudges_for(LONG), []);
    side.machine.handle_flushed(side.now);
    assert_eq!(side.nudges_for(LONG), spaces([20, 220, 1220]));
}

#[test]
fn the_header_frees_itself_where_the_handshake_before_it_was_long() {
    let mut romeo = Side::new(setup(Role::Initiator, None, None));
    romeo.machine.set_path(romeo.now, Path::Relayed);
    assert_eq!(romeo.nudges_for(milliseconds(500)), [], "nothing comes before the header");
    assert!(romeo.flushes().ends_with('>'));
    assert_eq!(romeo.nudges_for(LONG), spaces([20, 220, 1220]));
}

#[test]
fn a_responder_is_silent_until_it_has_said_its_header() {
    let mut juliet = Side::juliet();
    juliet.machine.set_path(juliet.now, Path::Relayed);
    assert_eq!(juliet.nudges_for(LONG), []);
}

#[test]
fn a_stream_that_moves_to_a_proxy_expects_the_worst() {
    let mut side = Side::open();
    side.machine.handle_written(side.now, 500, 0);
    side.machine.set_path(side.now, Path::Relayed);
    assert_eq!(side.nudges_for(LONG), spaces([20, 220, 1220]));
}

#[test]
fn the_footer_waits_until_the_burst_is_through() {
    let mut side = Side::relayed();
    side.says(&"x".repeat(6000));
    side.machine.close(side.now);
    assert!(!side.flushes().ends_with(FOOTER));
    assert_eq!(side.nudges_for(milliseconds(1000)), [(20, " ".to_owned()), (220, FOOTER.to_owned())]);
    side.reads(FOOTER);
    assert_eq!(side.machine.closed_by(), Some(Closer::Us));
}

#[test]
fn a_footer_behind_a_few_bytes_does_not_wait() {
    let mut side = Side::relayed();
    side.says("goodbye");
    side.machine.close(side.now);
    assert!(side.flushes().ends_with(FOOTER));
    assert_eq!(side.nudges_for(milliseconds(1000)), []);
}

#[test]
fn the_footer_that_answers_another_waits_as_well() {
    let mut side = Side::relayed();
    side.burst();
    side.reads(FOOTER);
    assert!(side.machine.is_silent() && !side.machine.is_over());
    assert_eq!(side.nudges_for(LONG), [(20, " ".to_owned()), (220, FOOTER.to_owned())]);
    assert_eq!(side.machine.closed_by(), Some(Closer::Peer));
}

#[test]
fn a_footer_that_comes_while_ours_waits_was_the_first() {
    let mut side = Side::relayed();
    side.burst();
    side.machine.close(side.now);
    side.reads(FOOTER);
    side.nudges_for(LONG);
    assert_eq!(side.machine.closed_by(), Some(Closer::Peer));
}

#[test]
fn a_footer_that_waits_goes_out_when_the_proxy_is_gone() {
    let mut side = Side::relayed();
    side.burst();
    side.machine.close(side.now);
    assert_eq!(side.flushes(), "");
    side.machine.set_path(side.now, Path::Direct);
    assert_eq!(side.flushes(), FOOTER);
}

#[test]
fn a_stream_error_does_not_wait() {
    let mut side = Side::relayed();
    side.burst();
    side.machine.close(side.now);
    side.reads("<?nonsense?>");
    let written = side.flushes();
    assert!(written.contains("<stream:error>") && written.ends_with(FOOTER), "{written}");
    assert_eq!(written.matches(FOOTER).count(), 1);
}

#[test]
fn a_close_that_a_blocked_proxy_keeps_from_its_end_says_what_was_not_acknowledged() {
    let (mut romeo, mut juliet) = super::acks::pair();
    romeo.machine.set_path(romeo.now, Path::Relayed);
    romeo.says(&"x".repeat(6000));
    // None of it gets out, and the peer says goodbye.
    juliet.machine.close(juliet.now);
    romeo.reads(juliet.written());
    romeo.after(Duration::from_secs(11));
    assert_eq!(super::acks::undelivered(&romeo).len(), 1);
}
