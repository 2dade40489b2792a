//! A longer way: a TCP relay that holds everything back for a while, in both directions, and passes any rate.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::AbortHandle,
    time::Instant,
};

/// What is read at once.
const CHUNK: usize = 64 * 1024;

/// Chunks on their way in one direction; 16 MiB, if they are full: more than the product of rate and delay of any benchmark. The
/// reader then waits, so that who does not read is felt through the relay, too.
const CHUNKS: usize = 256;

/// A running one. Dropping it closes the port, and lets connections end by themselves.
pub(crate) struct Relay {
    address: SocketAddr,
    task: AbortHandle,
}

impl Relay {
    /// Leads to this address, and takes so long in each direction.
    pub(crate) async fn start(to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(to).await.expect("the relay's server listens");
                for end in [&near, &far] {
                    end.set_nodelay(true).expect("TCP_NODELAY");
                }
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                pass(from_near, to_far, delay);
                pass(from_far, to_near, delay);
            }
        });
        Self { address, task: task.abort_handle() }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One direction. An end of file is passed on as late as the bytes before it.
fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            acknowledge_at_once(from.as_ref());
            let chunk = buffer.iter().take(length).copied().collect();
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other end may be gone already.
        let _ = to.shutdown().await;
    });
}

/// A server that waits for acknowledgements before it writes on (Nagle) gets them as soon as from the library's own connector, so
/// that a longer way is nothing but longer. Linux forgets it after a while.
fn acknowledge_at_once(stream: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = stream;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_take_their_time_in_both_directions_and_keep_their_order() {
        const DELAY: Duration = Duration::from_millis(30);
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay::start(server.local_addr().unwrap(), DELAY).await;
        let mut near = TcpStream::connect(relay.address()).await.unwrap();
        let (mut far, _) = server.accept().await.unwrap();
        let begun = Instant::now();
        near.write_all(b"soft").await.unwrap();
        near.write_all(b", what light").await.unwrap();
        let mut said = [0; 16];
        far.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"soft, what light");
        assert!(begun.elapsed() >= DELAY);
        far.write_all(&said).await.unwrap();
        near.read_exact(&mut said).await.unwrap();
        assert!(begun.elapsed() >= 2 * DELAY);
        drop(near);
        assert_eq!(far.read(&mut said).await.unwrap(), 0);
    }
}
