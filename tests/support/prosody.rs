//! A private Prosody, as a child process.
#![allow(unreachable_pub, reason = "a module of several test programs")]
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

use futures::StreamExt;
use jid::Jid;
use jingle_xmlstream::{Config, Connector, E2eStream, Endpoint, Events};
use tempfile::TempDir;
use tokio_rustls::rustls::{RootCertStore, pki_types::CertificateDer};
use tokio_xmpp::{Event, IqRequest};
use xmpp_parsers::{iq::Iq, minidom::Element, ns, presence::Presence, stanza::Stanza};

use crate::support::{JULIET, ROMEO, config, streams, within};

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
    /// The same, and it does not write down what it receives.
    Quiet,
    /// The same, with the rate limit of Debian's configuration.
    DebianLimits,
    /// No TLS at all.
    Plaintext,
    /// As the first, with a SOCKS5 proxy for bytestreams at `proxy.montague.lit`, on this way of Prosody's to wait for
    /// sockets.
    Proxy65(Backend),
    /// The same, with the rate limit of Debian's configuration.
    LimitedProxy65,
    /// The same without a limit, for users of `montague.lit` alone.
    PrivateProxy65,
    /// The same for everybody, and one more at `proxy.capulet.lit`.
    TwoProxies65,
}

/// Where it runs, and where it can be found.
pub struct Place {
    /// What the command begins with, such as a change of the network namespace.
    pub prefix: Vec<String>,
    /// Where clients and its proxy's users connect to.
    pub address: Ipv4Addr,
}

impl Place {
    /// Here, for nobody else.
    fn loopback() -> Self {
        Self { prefix: Vec::new(), address: Ipv4Addr::LOCALHOST }
    }
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
    place: Place,
    port: u16,
    dir: TempDir,
    certificate: CertificateDer<'static>,
    child: Child,
}

impl Prosody {
    /// `None` if there is no Prosody on this machine, except in CI, where it has to be.
    pub async fn start(kind: Kind) -> Option<Self> {
        Self::start_at(kind, Place::loopback).await
    }

    /// The same somewhere else.
    pub async fn start_at(kind: Kind, place: impl Fn() -> Place) -> Option<Self> {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        if !is_installed() {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "there is no `prosody` in PATH, and CI=true: apt-get install prosody");
            println!("SKIPPED: there is no `prosody` in PATH, so nothing was tested against a real server");
            return None;
        }
        for _ in 0..PORTS_TO_TRY {
            let mut prosody = Self::new(kind, place());
            if prosody.is_up().await {
                return Some(prosody);
            }
        }
        panic!("Prosody did not start on any of {PORTS_TO_TRY} ports");
    }

    fn new(kind: Kind, place: Place) -> Self {
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
        fs::write(dir.path().join("prosody.cfg.lua"), configuration(kind, &dir, place.address, port))
            .unwrap();
        let child = spawn(&place, &dir);
        Self { kind, place, port, dir, certificate: made.cert.der().clone(), child }
    }

    /// Waits until it listens; false if it can't.
    async fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + START;
        let up = format!("Activated service 'c2s' on [{}]", self.place.address);
        loop {
            let log = self.log();
            if log.contains(&up) {
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

    /// Ends it as an operator does: it tells its clients that it goes.
    pub fn stop(&mut self) {
        // The shell's own `kill` is there wherever a shell is.
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.child.wait().unwrap();
    }

    /// Starts one again that was killed or stopped, on the same port.
    pub async fn restart(&mut self) {
        fs::rename(self.log_path(), self.dir.path().join("before.log")).unwrap();
        self.child = spawn(&self.place, &self.dir);
        assert!(self.is_up().await, "Prosody does not start again");
    }

    /// Where clients connect to.
    pub fn address(&self) -> (Ipv4Addr, u16) {
        (self.place.address, self.port)
    }

    /// A connector that fits, and that trusts the server's certificate and no other.
    pub fn connector(&self) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut connector =
            Connector::starttls().server(self.place.address.to_string(), self.port).roots(roots);
        if self.kind == Kind::Plaintext {
            connector.dangerous().plaintext();
        }
        connector
    }

    /// A connector that takes whatever certificate it gets.
    pub fn gullible_connector(&self) -> Connector {
        let mut connector = Connector::starttls().server(self.place.address.to_string(), self.port);
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
        self.stanzas_with(1, parts).await.swap_remove(0)
    }

    /// The same for so many stanzas.
    pub async fn stanzas_with(&self, count: usize, parts: &[&str]) -> Vec<String> {
        let deadline = Instant::now() + LOGGED;
        loop {
            let mut found = self.received();
            found.retain(|stanza| parts.iter().all(|part| stanza.contains(part)));
            if found.len() >= count {
                found.truncate(count);
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "the server received {found:?}, no {count} stanzas with {parts:?}"
            );
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
fn spawn(place: &Place, dir: &TempDir) -> Child {
    let output = File::create(dir.path().join("output")).unwrap();
    let words: Vec<_> = place.prefix.iter().map(String::as_str).chain(["prosody"]).collect();
    let (program, arguments) = words.split_first().unwrap();
    Command::new(program)
        .args(arguments)
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

fn configuration(kind: Kind, dir: &TempDir, address: Ipv4Addr, port: u16) -> String {
    let dir = dir.path().display();
    let tls = if kind == Kind::Plaintext { "" } else { "\"tls\";" };
    // As in /etc/prosody/prosody.cfg.lua of Debian 12.
    let limits = if matches!(kind, Kind::DebianLimits | Kind::LimitedProxy65) { "\"limits\";" } else { "" };
    let debug = if kind == Kind::Quiet { "" } else { "\"stanza_debug\";" };
    let level = if kind == Kind::Quiet { "info" } else { "debug" };
    let backend = if kind == Kind::Proxy65(Backend::Select) { "select" } else { "epoll" };
    const PROXY: &str = "Component \"proxy.montague.lit\" \"proxy65\"\n";
    let components = match kind {
        Kind::Unlimited | Kind::Quiet | Kind::DebianLimits | Kind::Plaintext => String::new(),
        Kind::Proxy65(_) | Kind::LimitedProxy65 => PROXY.to_owned(),
        Kind::PrivateProxy65 => format!("{PROXY} proxy65_acl = {{ \"montague.lit\" }}"),
        Kind::TwoProxies65 => format!("{PROXY} Component \"proxy.capulet.lit\" \"proxy65\""),
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
        interfaces = {{ "{address}" }}
        c2s_ports = {{ {port} }}
        proxy65_interfaces = {{ "{address}" }}
        proxy65_ports = {{ {proxy_port} }}
        proxy65_address = "{address}"
        modules_enabled = {{
            "disco"; "roster"; "saslauth"; "smacks"; "carbons"; "blocklist"; "pep"; "ping"; "posix";
            {debug} {tls} {limits}
        }}
        modules_disabled = {{ "s2s"; "s2s_auth_certs" }}
        limits = {{ c2s = {{ rate = "10kb/s" }} }}
        authentication = "internal_hashed"
        c2s_require_encryption = {encrypted}
        ssl = {{ certificate = "{dir}/cert.pem"; key = "{dir}/key.pem" }}
        log = {{ {level} = "{dir}/prosody.log" }}
        {hosts}
        {components}
        "#
    )
}

// ---- bots on it ------------------------------------------------------------------------------

/// A server, and two bots that are online on it.
pub struct Verona {
    pub prosody: Prosody,
    pub romeo: Endpoint,
    pub juliet: Endpoint,
}

impl Verona {
    pub async fn start() -> Option<Self> {
        Self::with(Kind::Unlimited, config(), config()).await
    }

    pub async fn with(kind: Kind, romeo: Config, juliet: Config) -> Option<Self> {
        let prosody = Prosody::start(kind).await?;
        let romeo = bot(ROMEO, prosody.connector(), romeo).await;
        let juliet = bot(JULIET, prosody.connector(), juliet).await;
        Some(Self { prosody, romeo, juliet })
    }

    pub async fn streams(&self) -> (E2eStream, E2eStream) {
        streams(&self.romeo, &self.juliet).await
    }

    /// How many of the stanzas that the server received have all of these in them. First waits until it has
    /// received everything that was sent before.
    pub async fn count(&self, parts: &[&str]) -> usize {
        let marker = format!("{:?}", Instant::now());
        let marker: String = marker.chars().filter(char::is_ascii_digit).collect();
        for bot in [&self.romeo, &self.juliet] {
            let node = format!("{marker}-{}", bot.jid().unwrap());
            let question =
                Element::builder("query", ns::DISCO_INFO).attr("node".try_into().unwrap(), &node).build();
            let to = Jid::from(bot.jid().unwrap().to_bare());
            within(bot.send_iq(Some(to), IqRequest::Get(question))).await.unwrap();
            self.prosody.stanza_with(&[&node]).await;
        }
        let received = self.prosody.received();
        received.iter().filter(|stanza| parts.iter().all(|part| stanza.contains(part))).count()
    }
}

/// A bot, online, whose events are thrown away.
pub async fn bot(jid: &str, connector: Connector, config: Config) -> Endpoint {
    let (endpoint, events) = bot_with_events(jid, connector, config).await;
    tokio::spawn(events.for_each(|_| async {}));
    endpoint
}

pub async fn bot_with_events(jid: &str, connector: Connector, config: Config) -> (Endpoint, Events) {
    let jid: Jid = jid.parse().unwrap();
    let (endpoint, events) = Endpoint::login(jid, PASSWORD, connector, config);
    within(endpoint.online()).await.unwrap();
    (endpoint, events)
}

/// A bot that says with every new session that it is there, by which its peers find it again.
pub async fn present_bot(jid: &str, connector: Connector, config: Config) -> Endpoint {
    let (endpoint, mut events) = bot_with_events(jid, connector, config).await;
    let present = endpoint.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Online { resumed: false, .. } = event {
                // If this session is gone already, the next one comes.
                let _ = present.send_presence(Presence::available()).await;
            }
        }
    });
    endpoint
}

/// Answers the next disco#info request with these features.
pub async fn answer_one_disco(endpoint: &Endpoint, events: &mut Events, features: &[String]) {
    while let Some(event) = events.next().await {
        let Event::Stanza(Stanza::Iq(Iq::Get { from, id, payload, .. })) = event else { continue };
        assert!(payload.is("query", ns::DISCO_INFO), "{payload:?}");
        let mut answer = Element::bare("query", ns::DISCO_INFO);
        for feature in features {
            let var = "var".try_into().unwrap();
            answer.append_child(Element::builder("feature", ns::DISCO_INFO).attr(var, feature).build());
        }
        let answer = Iq::Result { from: None, to: from, id, payload: Some(answer) };
        return endpoint.send_stanza(answer).await.unwrap();
    }
    panic!("the endpoint was closed");
}
