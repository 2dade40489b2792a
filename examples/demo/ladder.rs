//! What the server sees, as the ladder diagram of a XEP.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jid::FullJid;
use mock_server::{MockServer, Recorded};
use tokio::{sync::broadcast, task::AbortHandle};

/// Between the two lines of the ladder.
const WIDTH: usize = 70;

/// How often the ladder is brought up to date.
const LOOK: Duration = Duration::from_millis(10);

/// Prints the stanzas between two parties as the server routes them. Stops when it is dropped.
pub(crate) struct Ladder {
    shown: Arc<Mutex<Shown>>,
    task: AbortHandle,
}

struct Shown {
    left: FullJid,
    right: FullJid,
    stanzas: broadcast::Receiver<Recorded>,
    blocks: Blocks,
}

/// Blocks of the bytestream that were routed since the last line.
#[derive(Default)]
struct Blocks {
    to_right: usize,
    to_left: usize,
}

impl Ladder {
    pub(crate) fn start(server: &MockServer, left: FullJid, right: FullJid) -> Self {
        let (one, other) = (left.to_string(), right.to_string());
        println!("  {one}{other:>width$}", width = (WIDTH + 4).saturating_sub(one.len()));
        let stanzas = server.subscribe();
        let shown = Arc::new(Mutex::new(Shown { left, right, stanzas, blocks: Blocks::default() }));
        let task = tokio::spawn(keep_up(Arc::clone(&shown))).abort_handle();
        Self { shown, task }
    }

    /// Shows everything up to now.
    pub(crate) fn catch_up(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.catch_up();
        shown.show_blocks();
    }
}

impl Drop for Ladder {
    fn drop(&mut self) {
        self.catch_up();
        self.task.abort();
    }
}

async fn keep_up(shown: Arc<Mutex<Shown>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        shown.lock().unwrap_or_else(PoisonError::into_inner).catch_up();
    }
}

impl Shown {
    fn catch_up(&mut self) {
        loop {
            match self.stanzas.try_recv() {
                Ok(stanza) => self.show(&stanza),
                Err(broadcast::error::TryRecvError::Lagged(count)) => println!("  … {count} stanzas"),
                Err(_) => return,
            }
        }
    }

    fn show(&mut self, stanza: &Recorded) {
        let to_right = stanza.from == self.left && stanza.to == self.right;
        let to_left = stanza.from == self.right && stanza.to == self.left;
        match &*stanza.name {
            _ if !to_right && !to_left => {}
            "iq result (ibb data)" => {}
            name if name.starts_with("iq result (ibb data ") => {}
            name if name.starts_with("iq set ibb data ") && to_right => self.blocks.to_right += 1,
            name if name.starts_with("iq set ibb data ") => self.blocks.to_left += 1,
            name => {
                self.show_blocks();
                println!("  {}", arrow(name, to_right));
            }
        }
    }

    fn show_blocks(&mut self) {
        let Blocks { to_right, to_left } = std::mem::take(&mut self.blocks);
        let mut text = String::new();
        if to_right > 0 {
            let _ = write!(text, " {to_right} ═►");
        }
        if to_left > 0 {
            let _ = write!(text, " ◄═ {to_left}");
        }
        if !text.is_empty() {
            println!("  │{:═^WIDTH$}│", format!(" encrypted blocks:{text} "));
        }
    }
}

fn arrow(name: &str, to_right: bool) -> String {
    match to_right {
        true => format!("│ {:─<width$}►│", format!("{name} "), width = WIDTH - 2),
        false => format!("│◄{:─>width$} │", format!(" {name}"), width = WIDTH - 2),
    }
}
