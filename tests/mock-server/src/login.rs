//! From the first byte of a connection to a bound resource (RFC 6120, 4 to 7).

use sasl::common::scram::generate_nonce;
use tokio::net::TcpStream;
use xmpp_parsers::{
    jid::{BareJid, DomainPart, FullJid, NodePart, ResourcePart},
    minidom::Element,
    ns,
    sasl::{Auth, DefinedCondition, Mechanism, Response},
};

use crate::{
    connection::{Connection, Io},
    ending::{Ending, escape},
    hub::Hub,
    impostor::shown,
    management::{self, Resuming},
    sasl::{Exchange, Step, start},
    stanza::to_bytes,
    tls::ServerTls,
    xml::Frame,
};

/// Wrong passwords before the stream is closed.
const MAX_ATTEMPTS: usize = 3;

/// A client that is who it says and has named its resource; it has yet to be told so.
pub(crate) struct LoggedIn {
    pub(crate) connection: Connection<Io>,
    pub(crate) session: Session,
}

/// What a client logs in for.
pub(crate) enum Session {
    /// A new session.
    New {
        jid: FullJid,
        /// The result of the bind request.
        bind_result: Vec<u8>,
    },
    /// One that it had before (XEP-0198).
    Old(Resuming),
}

/// Runs the login; a client that fails gets its stream error here.
pub(crate) async fn login(hub: &Hub, tcp: TcpStream) -> Option<LoggedIn> {
    let mut connection = Connection::new(Box::new(tcp) as Io, hub.settings.max_stanza);
    if let Some(tls) = &hub.settings.tls {
        connection = start_tls(hub, tls, connection).await?;
    }
    match authenticate_and_bind(hub, &mut connection).await {
        Ok(session) => Some(LoggedIn { connection, session }),
        Err(ending) => {
            connection.close(&ending).await;
            None
        }
    }
}

/// The plaintext part of a login that requires STARTTLS (RFC 6120, 5).
async fn start_tls(hub: &Hub, tls: &ServerTls, mut connection: Connection<Io>) -> Option<Connection<Io>> {
    let asked = async {
        open_stream(
            &mut connection,
            "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>",
        )
        .await?;
        let element = next_element(&mut connection).await?;
        if !element.is("starttls", ns::TLS) {
            return Err(Ending::error("not-authorized", "STARTTLS is required"));
        }
        connection.send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await
    };
    if let Err(ending) = asked.await {
        connection.close(&ending).await;
        return None;
    }
    let encrypted = tls.acceptor.accept(connection.into_io().ok()?).await.ok()?;
    Some(Connection::new(Box::new(encrypted) as Io, hub.settings.max_stanza))
}

async fn authenticate_and_bind(hub: &Hub, connection: &mut Connection<Io>) -> Result<Session, Ending> {
    let offers: String = hub
        .settings
        .mechanisms
        .iter()
        .map(|m| format!("<mechanism>{}</mechanism>", mechanism_name(m)))
        .collect();
    let mechanisms = format!("<mechanisms xmlns='{}'>{offers}</mechanisms>", ns::SASL);
    let domain = open_stream(connection, &mechanisms).await?;
    let username = authenticate(hub, connection).await?;
    let node = NodePart::new(&username)
        .map_err(|_| Ending::error("not-authorized", format!("{username:?} cannot be an account")))?;
    let account = BareJid::from_parts(Some(&node), &domain);

    connection.reset();
    let management = match hub.settings.resumption {
        Some(_) => format!("<sm xmlns='{}'/>", ns::SM),
        None => String::new(),
    };
    let features = format!(
        "<bind xmlns='{}'/><session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>{management}",
        ns::BIND
    );
    let domain_again = open_stream(connection, &features).await?;
    if domain_again != domain {
        return Err(Ending::error("host-unknown", "the domain changed after authentication"));
    }
    let mut request = next_element(connection).await?;
    if request.is("resume", ns::SM) {
        match management::find(hub, &account, &request) {
            Some(session) => return Ok(Session::Old(session)),
            None => connection.send(management::failed()).await?,
        }
        request = next_element(connection).await?;
    }
    bind(hub, &account, &request)
}

/// Reads a stream header, answers it, and offers `features`. Any domain is served here.
async fn open_stream(connection: &mut Connection<Io>, features: &str) -> Result<DomainPart, Ending> {
    let opened = connection.next(None).await;
    let domain = match &opened {
        Ok(Frame::Open { to: Some(to) }) => DomainPart::new(to).ok().map(|domain| domain.into_owned()),
        _ => None,
    };
    let from =
        domain.as_ref().map(|domain| format!(" from='{}'", escape(domain.as_str()))).unwrap_or_default();
    // Even an error needs a header around it (RFC 6120, 4.9.1.2).
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' id='{}'{from} version='1.0'>",
        ns::JABBER_CLIENT,
        ns::STREAM,
        random()?,
    );
    match (opened, domain) {
        (Ok(_), Some(domain)) => {
            let features = format!("{header}<stream:features>{features}</stream:features>");
            connection.send(features).await?;
            Ok(domain)
        }
        (opened, _) => {
            connection.send(header).await?;
            opened?;
            Err(Ending::error("host-unknown", "the stream header names no domain"))
        }
    }
}

async fn next_element(connection: &mut Connection<Io>) -> Result<Element, Ending> {
    match connection.next(None).await? {
        Frame::Element(element) => Ok(element),
        Frame::Close | Frame::Open { .. } => Err(Ending::Footer),
    }
}

/// SASL (RFC 6120, 6); the user's name.
async fn authenticate(hub: &Hub, connection: &mut Connection<Io>) -> Result<String, Ending> {
    for _ in 0..MAX_ATTEMPTS {
        let element = next_element(connection).await?;
        if !element.has_ns(ns::SASL) {
            return Err(Ending::error("not-authorized", "authenticate first"));
        }
        match attempt(hub, connection, element).await? {
            Ok((username, data)) => {
                connection.send(sasl_element("success", &data)).await?;
                return Ok(username);
            }
            Err(condition) => {
                let failure =
                    xmpp_parsers::sasl::Failure { defined_condition: condition, texts: Default::default() };
                connection.send(to_bytes(&failure.into()).unwrap_or_default()).await?;
            }
        }
    }
    Err(Ending::error("policy-violation", "too many failed attempts to authenticate"))
}

type Attempt = Result<(String, Vec<u8>), DefinedCondition>;

/// One `<auth/>` and what follows.
async fn attempt(hub: &Hub, connection: &mut Connection<Io>, element: Element) -> Result<Attempt, Ending> {
    let Ok(auth) = Auth::try_from(element) else { return Ok(Err(DefinedCondition::MalformedRequest)) };
    if hub.is_refusing() {
        return Ok(Err(DefinedCondition::TemporaryAuthFailure));
    }
    if !hub.settings.mechanisms.contains(&auth.mechanism) {
        return Ok(Err(DefinedCondition::InvalidMechanism));
    }
    match start(&auth.mechanism, &auth.data) {
        Ok(Step::Success { username, data }) => Ok(Ok((username, data))),
        Ok(Step::Challenge(challenge, exchange)) => respond(connection, &challenge, exchange).await,
        Err(condition) => Ok(Err(condition)),
    }
}

async fn respond(
    connection: &mut Connection<Io>,
    challenge: &[u8],
    exchange: Exchange,
) -> Result<Attempt, Ending> {
    connection.send(sasl_element("challenge", challenge)).await?;
    let element = next_element(connection).await?;
    if element.is("abort", ns::SASL) {
        return Ok(Err(DefinedCondition::Aborted));
    }
    let Ok(response) = Response::try_from(element) else {
        return Ok(Err(DefinedCondition::MalformedRequest));
    };
    Ok(match exchange.finish(&response.data) {
        Ok(Step::Success { username, data }) => Ok((username, data)),
        Ok(Step::Challenge(..)) => Err(DefinedCondition::MalformedRequest),
        Err(condition) => Err(condition),
    })
}

fn sasl_element(name: &str, data: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("<{name} xmlns='{}'>{}</{name}>", ns::SASL, STANDARD.encode(data))
}

fn mechanism_name(mechanism: &Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::ScramSha1 => "SCRAM-SHA-1",
        Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
        Mechanism::ScramSha256 => "SCRAM-SHA-256",
        Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        Mechanism::Anonymous => "ANONYMOUS",
    }
}

/// Resource binding (RFC 6120, 7): the resource the client wants, or a random one.
fn bind(hub: &Hub, account: &BareJid, request: &Element) -> Result<Session, Ending> {
    let (Some(query), true) = (request.get_child("bind", ns::BIND), request.is("iq", ns::JABBER_CLIENT))
    else {
        return Err(Ending::error("not-authorized", "bind a resource first"));
    };
    if hub.is_refusing() {
        return Err(Ending::error("system-shutdown", "no logins are taken"));
    }
    let resource = match query.get_child("resource", ns::BIND).map(Element::text) {
        Some(wanted) if !wanted.is_empty() => wanted,
        _ => random()?,
    };
    let resource = ResourcePart::new(&resource)
        .map_err(|_| Ending::error("invalid-xml", "this cannot be a resource"))?
        .into_owned();
    let jid = account.with_resource(&resource);
    if hub.impostors.is_exposed(&jid) {
        return Err(Ending::error("not-authorized", "the client is not impersonated any more"));
    }
    let result = format!(
        "<iq type='result' id='{}'><bind xmlns='{}'><jid>{}</jid></bind></iq>",
        escape(request.attr("id").unwrap_or_default()),
        ns::BIND,
        // An impostor passes for its victim.
        escape(shown(&jid.clone().into()).as_str())
    );
    Ok(Session::New { jid, bind_result: result.into_bytes() })
}

/// For stream ids and resources: letters and digits.
pub(crate) fn random() -> Result<String, Ending> {
    let nonce = generate_nonce().map_err(|_| Ending::error("internal-server-error", "no randomness"))?;
    Ok(nonce.chars().filter(char::is_ascii_alphanumeric).take(16).collect())
}
