//! How far a long sending is: on a terminal a bar with the rate and the time left, and nothing where none is.

use std::{
    fmt,
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// What is printed beside the bar must not run into it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

const STYLE: &str = "{bar:30} {percent}%  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {messages}";

/// A bar on stderr, which goes away when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    size: u64,
}

impl Progress {
    /// Of so many messages with bodies of so many bytes.
    pub(crate) fn of(messages: u64, size: u64) -> Self {
        let bar = ProgressBar::new(messages.saturating_mul(size));
        // A style that can't be read would leave the usual one.
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            let counted = move |state: &ProgressState, text: &mut dyn fmt::Write| {
                let reached = state.pos() / size.max(1);
                let seconds = state.elapsed().as_secs_f64().max(1e-6);
                // Text that can't be written is not shown.
                let _ = write!(text, "{reached}/{messages} messages, {:.0}/s", reached as f64 / seconds);
            };
            bar.set_style(style.with_key("messages", counted));
        }
        *shown() = Some(bar.clone());
        Self { bar, size }
    }

    /// So many messages have come back.
    pub(crate) fn reached(&self, messages: u64) {
        self.bar.set_position(messages.saturating_mul(self.size));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *shown() = None;
        self.bar.finish_and_clear();
    }
}

/// Prints something while there may be a bar.
pub(crate) fn beside<T>(print: impl FnOnce() -> T) -> T {
    match shown().clone() {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Stderr for the log, a line at a time.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        beside(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
