//! The listener, the dialling, and the two together, over loopback.

mod dialling;
mod listening;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::*;
use crate::{
    S5bConfig,
    transport::s5b::{Attempt, Dial, candidate::Reach},
};

const HASH: &str = "972b7bf47291ca609517f67f86b5081086052dad"; // XEP-0065 #direct-proto-initiate
const OTHER_HASH: &str = "0000000000000000000000000000000000000000";

const GREETING: [u8; 3] = [5, 1, 0];

fn connect_to(hash: &str) -> Vec<u8> {
    [&[5, 1, 0, 3, 40], hash.as_bytes(), &[0, 0]].concat()
}

fn granted(hash: &str) -> Vec<u8> {
    [&[5, 0, 0, 3, 40], hash.as_bytes(), &[0, 0]].concat()
}

/// Expects one DST.ADDR, and hands on who asked for it.
struct ExpectsHash(UnboundedSender<TcpStream>);

impl Gate for ExpectsHash {
    fn admit(&self, dst_addr: &str, connection: TcpStream, grant: &[u8]) -> Result<(), TcpStream> {
        if dst_addr != HASH {
            return Err(connection);
        }
        assert_eq!(connection.try_write(grant).unwrap(), grant.len());
        self.0.send(connection).unwrap();
        Ok(())
    }
}

/// A listener that is being served.
struct Served {
    addresses: Vec<SocketAddr>,
    admitted: UnboundedReceiver<TcpStream>,
    serving: JoinHandle<()>,
}

impl Served {
    fn on(address: IpAddr) -> Self {
        let listener = Listener::bind(&config(&[address], 0..=0)).unwrap();
        let addresses = listener.addresses();
        let (sender, admitted) = unbounded_channel();
        let serving = tokio::spawn(async move { listener.serve(Arc::new(ExpectsHash(sender))).await });
        Self { addresses, admitted, serving }
    }

    fn on_loopback() -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    fn dial(&self, dst_addrs: &[&str]) -> Dial {
        dial_to(self.addresses[0], dst_addrs)
    }

    fn nobody_was_admitted(&mut self) -> bool {
        self.admitted.try_recv().is_err()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn config(bind: &[IpAddr], ports: RangeInclusive<u16>) -> S5bConfig {
    S5bConfig { bind: bind.to_vec(), ports, ..S5bConfig::default() }
}

fn dial_to(address: SocketAddr, dst_addrs: &[&str]) -> Dial {
    Dial {
        attempt: Attempt(1),
        host: address.ip().to_string(),
        port: address.port(),
        dst_addrs: dst_addrs.iter().map(|&hash| hash.to_owned()).collect(),
        timeout: Duration::from_secs(30),
        reach: Reach { loopback: true, link_local: false },
    }
}

/// The loopback addresses of this machine.
fn loopbacks() -> Vec<IpAddr> {
    let mut loopbacks = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    match std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => loopbacks.push(Ipv6Addr::LOCALHOST.into()),
        Err(error) => eprintln!("skipped for ::1, which this machine does not have: {error}"),
    }
    loopbacks
}

/// What comes until the other side closes, in good order or not.
async fn read_to_the_end(connection: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = connection.read_to_end(&mut all).await;
    all
}

async fn read<const N: usize>(connection: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    connection.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// SOCKS5 for this hash with messages of one write each; the answer to the CONNECT.
async fn ask_for(connection: &mut TcpStream, hash: &str) -> [u8; 47] {
    connection.write_all(&GREETING).await.unwrap();
    assert_eq!(read(connection).await, [5, 0]);
    connection.write_all(&connect_to(hash)).await.unwrap();
    read(connection).await
}
