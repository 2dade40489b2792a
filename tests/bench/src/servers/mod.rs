//! Servers of this machine's, started for the benchmarks on loopback and with everything in a temporary folder.

mod ejabberd;
mod prosody;

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use jingle_xmlstream::Connector;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::{RootCertStore, pki_types::CertificateDer};

pub(crate) use self::prosody::PROXY;

/// Every account has this password.
pub(crate) const PASSWORD: &str = "wherefore art thou";

const HOSTS: [&str; 2] = ["montague.lit", "capulet.lit"];
const ACCOUNTS: [(&str, &str); 2] = [("romeo", "montague.lit"), ("juliet", "capulet.lit")];

/// A busy machine takes long to start one.
const START: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why something was not measured.
#[derive(Clone, Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brand {
    Prosody,
    Ejabberd,
}

impl Brand {
    pub(crate) fn select<T>(self, prosody: T, ejabberd: T) -> T {
        match self {
            Self::Prosody => prosody,
            Self::Ejabberd => ejabberd,
        }
    }
}

/// Whether it limits what its clients may send, as Debian's configuration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    No,
    AsByDefault,
}

/// A running one, with two domains and an account on each. Dropping it kills it.
pub(crate) struct Server {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    _process: Process,
}

/// Its process, and the folder of its files.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Server {
    pub(crate) async fn start(brand: Brand, limited: Limited) -> Result<Self, Skipped> {
        match brand {
            Brand::Prosody => prosody::start(limited).await,
            Brand::Ejabberd => ejabberd::start(limited).await,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to reach it.
    pub(crate) fn connector(&self) -> Connector {
        self.connector_at(self.address)
    }

    /// How to reach it through something that listens elsewhere.
    pub(crate) fn connector_at(&self, address: SocketAddr) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        Connector::starttls().server(address.ip().to_string(), address.port()).roots(roots)
    }
}

impl Process {
    /// Waits until its output or its log has this in it.
    async fn says(&mut self, file: &str, what: &str) {
        let path = self.folder.path().join(file);
        let deadline = Instant::now() + START;
        loop {
            let said = fs::read(&path).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            if said.contains(what) {
                return;
            }
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "a server does not start ({ended:?}); {}:\n{said}",
                path.display()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A new folder with `cert.pem` and `key.pem`.
fn folder() -> (TempDir, CertificateDer<'static>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut parameters = CertificateParams::new(HOSTS.map(str::to_owned)).expect("the hosts have names");
    // ejabberd sets a timer for the end of a certificate, which can't be rcgen's, in the year 4096.
    parameters.not_after = rcgen::date_time_ymd(2096, 1, 1);
    let key = KeyPair::generate().expect("randomness");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    write(folder.path(), "cert.pem", &certificate.pem());
    write(folder.path(), "key.pem", &key.serialize_pem());
    (folder, certificate.der().clone())
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a file in a temporary folder");
}

/// Nobody has it now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Starts it in the foreground, so that the child is the server.
fn spawn(folder: TempDir, command: &mut Command) -> Process {
    let output = fs::File::create(folder.path().join("output")).expect("a file in a temporary folder");
    let errors = output.try_clone().expect("a second handle");
    let command = command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let child = command.spawn().expect("a program that was found can be started");
    Process { child, folder }
}

/// Whether there is such a program.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
