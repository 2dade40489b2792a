//! The options that `listen` and `connect` have in common, and `demo` in part.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use jid::Jid;
use jingle_xmlstream::Connector;

use super::{output::Output, trust_options::TrustOptions};

/// RFC 6120 §14.7.
const CLIENT_PORT: u16 = 5222;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Who to log in as, with or without a resource; the password comes from XMPP_PASSWORD
    #[arg(long)]
    pub(crate) jid: Jid,
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    /// End after one stream (`connect` always does)
    #[arg(long)]
    pub(crate) once: bool,
    /// One JSON object a line on stdout, one for each event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
}

impl Options {
    pub(crate) fn output(&self) -> Output {
        if self.json { Output::Json } else { Output::Human }
    }
}

/// How to reach the server.
#[derive(Args, Debug)]
pub(crate) struct ServerOptions {
    /// The server to connect to; without it, DNS (SRV) knows
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: Option<Server>,
    /// How the connection to the server is encrypted
    #[arg(long, value_enum, default_value = "starttls")]
    server_tls: ServerTls,
}

impl ServerOptions {
    pub(crate) fn connector(&self) -> Connector {
        let mut connector = Connector::starttls();
        if let Some(Server { host, port }) = &self.server {
            connector = connector.server(host, *port);
        }
        match self.server_tls {
            ServerTls::Starttls => {}
            ServerTls::InsecureStarttls => {
                connector.dangerous().accept_any_certificate();
            }
            ServerTls::Plaintext => {
                connector.dangerous().plaintext();
            }
        }
        connector
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServerTls {
    /// STARTTLS, and the server's certificate is verified
    Starttls,
    /// DANGEROUS: STARTTLS with any certificate
    InsecureStarttls,
    /// DANGEROUS: no encryption
    Plaintext,
}

/// `example.org`, `example.org:5222`, `127.0.0.1:5222`, `[::1]:5222`.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    host: String,
    port: u16,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match text.rsplit_once(':') {
            _ if text.ends_with(']') => (text, CLIENT_PORT),
            Some((host, port)) => (host, port.parse().map_err(|_| format!("{port:?} is no port"))?),
            None => (text, CLIENT_PORT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}
