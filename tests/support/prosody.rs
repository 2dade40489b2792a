//! A private Prosody, as a child process.
#![allow(unreachable_pub, reason = "a module of a test program")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use jingle_xmlstream::Connector;
use tempfile::TempDir;
use tokio_rustls::rustls::{RootCertStore, pki_types::CertificateDer};

/// Every account has this password.
pub const PASSWORD: &str = "wherefore art thou";

const HOSTS: [&str; 2] = ["montague.lit", "capulet.lit"];
const ACCOUNTS: [(&str, &str); 3] =
    [("romeo", "montague.lit"), ("mercutio", "montague.lit"), ("juliet", "capulet.lit")];

/// From the start of the process to its open port; 0.5 s on an idle machine.
const START: Duration = Duration::from_secs(60);
/// For a line to show up in the log.
const LOGGED: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Somebody may have taken a port between our look at it and Prosody's.
const PORTS_TO_TRY: usize = 5;

/// What kind of server it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// STARTTLS required, no rate limits.
    Unlimited,
    /// The same, with the rate limit of Debian's configuration.
    DebianLimits,
    /// No TLS at all.
    Plaintext,
    /// As the first, with a SOCKS5 proxy for bytestreams at `proxy.montague.lit`, on this way of Prosody's to wait for
    /// sockets.
    Proxy65(Backend),
}

/// `network_backend`; how the proxy treats bytes depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The default.
    Epoll,
    Select,
}

/// A running Prosody with two domains and three accounts. Dropping it kills it.
pub struct Prosody {
    kind: Kind,
    port: u16,
    dir: TempDir,
    certificate: CertificateDer<'static>,
    child: Child,
}

impl Prosody {
    /// `None` if there is no Prosody on this machine, except in CI, where it has to be.
    pub async fn start(kind: Kind) -> Option<Self> {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        if !is_installed() {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "there is no `prosody` in PATH, and CI=true: apt-get install prosody");
            println!("SKIPPED: there is no `prosody` in PATH, so nothing was tested against a real server");
            return None;
        }
        for _ in 0..PORTS_TO_TRY {
            let mut prosody = Self::new(kind);
            if prosody.is_up().await {
                return Some(prosody);
            }
        }
        panic!("Prosody did not start on any of {PORTS_TO_TRY} ports");
    }

    fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = HOSTS.map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        for (user, host) in ACCOUNTS {
            let accounts = dir.path().join("data").join(host.replace('.', "%2e")).join("accounts");
            fs::create_dir_all(&accounts).unwrap();
            let account = format!("return {{ [\"password\"] = \"{PASSWORD}\" }};\n");
            fs::write(accounts.join(format!("{user}.dat")), account).unwrap();
        }
        let port = free_port();
        fs::write(dir.path().join("prosody.cfg.lua"), configuration(kind, &dir, port)).unwrap();
        let child = spawn(&dir);
        Self { kind, port, dir, certificate: made.cert.der().clone(), child }
    }

    /// Waits until it listens; false if it can't.
    async fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + START;
        loop {
            let log = self.log();
            if log.contains("Activated service 'c2s' on [127.0.0.1]") {
                return true;
            }
            let died = self.child.try_wait().unwrap();
            if died.is_some() || log.contains("Failed to open server port") {
                println!("Prosody on port {}: {died:?}\n{log}", self.port);
                return false;
            }
            assert!(Instant::now() < deadline, "Prosody does not start:\n{log}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends it without a goodbye, as a crash or a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a killed one again, on the same port.
    pub async fn restart(&mut self) {
        fs::rename(self.log_path(), self.dir.path().join("before.log")).unwrap();
        self.child = spawn(&self.dir);
        assert!(self.is_up().await, "Prosody does not start again");
    }

    /// A connector that fits, and that trusts the server's certificate and no other.
    pub fn connector(&self) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut connector = Connector::starttls().server("127.0.0.1", self.port).roots(roots);
        if self.kind == Kind::Plaintext {
            connector.dangerous().plaintext();
        }
        connector
    }

    /// A connector that takes whatever certificate it gets.
    pub fn gullible_connector(&self) -> Connector {
        let mut connector = Connector::starttls().server("127.0.0.1", self.port);
        connector.dangerous().accept_any_certificate();
        connector
    }

    /// The stanzas of clients that the server has received so far, in order, one a line.
    pub fn received(&self) -> Vec<String> {
        let stanza = |line: &str| line.split_once("RECV: ").map(|(_, stanza)| stanza.to_owned());
        self.log().lines().filter_map(stanza).collect()
    }

    /// Waits until the server has received a stanza with all of these in it, and gives the first one.
    pub async fn stanza_with(&self, parts: &[&str]) -> String {
        let deadline = Instant::now() + LOGGED;
        loop {
            let received = self.received();
            let found = received.into_iter().find(|stanza| parts.iter().all(|part| stanza.contains(part)));
            if let Some(stanza) = found {
                return stanza;
            }
            assert!(Instant::now() < deadline, "the server received no stanza with {parts:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("prosody.log")
    }

    fn log(&self) -> String {
        match fs::read(self.log_path()) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => panic!("the log of Prosody: {error}"),
        }
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.iter().skip(lines.len().saturating_sub(60));
            let last: Vec<_> = last.map(|line| line.chars().take(300).collect::<String>()).collect();
            println!("the end of Prosody's log:\n{}", last.join("\n"));
        }
    }
}

fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("prosody").is_file())
}

/// In the foreground, so that the child is the server.
fn spawn(dir: &TempDir) -> Child {
    let output = File::create(dir.path().join("output")).unwrap();
    Command::new("prosody")
        .arg("--config")
        .arg(dir.path().join("prosody.cfg.lua"))
        .arg("-F")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}

/// Below the ports from which the system takes those of outgoing connections, so that Prosody finds it free
/// again after a restart.
fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        // Far apart, because the next process' id is the next number.
        let next = NEXT.fetch_add(97, Ordering::Relaxed);
        let port = FIRST + (u32::from(offset) + u32::from(next)) as u16 % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

fn configuration(kind: Kind, dir: &TempDir, port: u16) -> String {
    let dir = dir.path().display();
    let tls = if kind == Kind::Plaintext { "" } else { "\"tls\";" };
    let limits = match kind {
        // As in /etc/prosody/prosody.cfg.lua of Debian 12.
        Kind::DebianLimits => "\"limits\";",
        Kind::Unlimited | Kind::Plaintext | Kind::Proxy65(_) => "",
    };
    let (backend, component) = match kind {
        Kind::Proxy65(Backend::Select) => ("select", "Component \"proxy.montague.lit\" \"proxy65\""),
        Kind::Proxy65(Backend::Epoll) => ("epoll", "Component \"proxy.montague.lit\" \"proxy65\""),
        Kind::Unlimited | Kind::DebianLimits | Kind::Plaintext => ("epoll", ""),
    };
    let proxy_port = free_port();
    let encrypted = kind != Kind::Plaintext;
    let hosts: String = HOSTS.iter().map(|host| format!("VirtualHost \"{host}\"\n")).collect();
    format!(
        r#"
        run_as_root = true -- in a container; of no effect for other users
        data_path = "{dir}/data"
        pidfile = "{dir}/prosody.pid"
        network_backend = "{backend}"
        interfaces = {{ "127.0.0.1" }}
        c2s_ports = {{ {port} }}
        proxy65_interfaces = {{ "127.0.0.1" }}
        proxy65_ports = {{ {proxy_port} }}
        proxy65_address = "127.0.0.1"
        modules_enabled = {{
            "disco"; "roster"; "saslauth"; "smacks"; "carbons"; "blocklist"; "pep"; "ping"; "posix";
            "stanza_debug"; {tls} {limits}
        }}
        modules_disabled = {{ "s2s"; "s2s_auth_certs" }}
        limits = {{ c2s = {{ rate = "10kb/s" }} }}
        authentication = "internal_hashed"
        c2s_require_encryption = {encrypted}
        ssl = {{ certificate = "{dir}/cert.pem"; key = "{dir}/key.pem" }}
        log = {{ debug = "{dir}/prosody.log" }}
        {hosts}
        {component}
        "#
    )
}
