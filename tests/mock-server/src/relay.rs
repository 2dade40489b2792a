//! Bytes between two connections, read as LuaSocket and Prosody's `server.link` do.

use std::io;

use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// mod_proxy65's `max_buffer_size`: what is passed on at a time.
const PASSED_ON: usize = 4096;
/// LuaSocket's `BUF_SIZE`: what it takes out of the kernel at a time.
const TAKEN: usize = 8192;

/// Relays in both directions; when one side closes, so does the other.
pub(crate) async fn relay(initiator: TcpStream, target: TcpStream, stalls: impl Fn() -> bool) {
    let (mut initiators, to_initiator) = split(initiator);
    let (mut targets, to_target) = split(target);
    tokio::select! {
        _ = initiators.pass_on(to_target, &stalls) => {}
        _ = targets.pass_on(to_initiator, &stalls) => {}
    }
}

fn split(tcp: TcpStream) -> (Side, OwnedWriteHalf) {
    // One that can't is only slower.
    tcp.set_nodelay(true).ok();
    let (tcp, writer) = tcp.into_split();
    (Side { tcp, buffer: Vec::new(), start: 0 }, writer)
}

/// A connection with the buffer that LuaSocket has for it.
struct Side {
    tcp: OwnedReadHalf,
    buffer: Vec<u8>,
    start: usize,
}

/// How a read ended.
enum Read {
    Enough,
    /// The kernel has no more for now.
    WouldBlock,
    Closed,
}

impl Side {
    async fn pass_on(&mut self, mut to: OwnedWriteHalf, stalls: &impl Fn() -> bool) -> io::Result<()> {
        loop {
            // Prosody resumes a connection when the kernel has something, and forgets what the buffer has.
            if stalls() || self.unread().is_empty() {
                self.tcp.peek(&mut [0]).await?;
            }
            let mut bytes = Vec::with_capacity(PASSED_ON);
            let read = self.receive(PASSED_ON, &mut bytes);
            // It is paused until the other side has taken this.
            to.write_all(&bytes).await?;
            if let Read::Closed = read {
                return Ok(());
            }
        }
    }

    /// LuaSocket's `receive(wanted)`: from the buffer first, which is filled only when it is empty.
    fn receive(&mut self, wanted: usize, bytes: &mut Vec<u8>) -> Read {
        while bytes.len() < wanted {
            if self.unread().is_empty() {
                self.buffer.resize(TAKEN, 0);
                self.start = 0;
                let taken = self.tcp.try_read(&mut self.buffer);
                self.buffer.truncate(*taken.as_ref().unwrap_or(&0));
                match taken {
                    Ok(0) => return Read::Closed,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::WouldBlock,
                    Err(_) => return Read::Closed,
                }
            }
            let unread = self.unread();
            let part = unread.get(..wanted - bytes.len()).unwrap_or(unread);
            let count = part.len();
            bytes.extend_from_slice(part);
            self.start += count;
        }
        Read::Enough
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}
