//! Every fixture is read, and gives what it must.

use std::{fs, path::PathBuf};

use jid::Jid;
use xmpp_parsers::{minidom::Element, stanza_error::StanzaError};

use super::{
    bytestreams::{Streamhost, parse_items, parse_streamhosts},
    cut,
    ibb::{Close, Data, IbbMalformed, IbbTransport, Open, data_element},
    jingle::{Dialect, Jingle, Malformed},
    ns, quoted,
    s5b::S5bTransport,
    xtls::Security,
};
use crate::disco::Support;

mod hostile;
mod mutation;
mod peers;
mod specifications;

/// What a stanza carries for this crate.
#[derive(Clone, Debug, PartialEq)]
enum Wire {
    Jingle(Jingle, Dialect),
    Transport(IbbTransport),
    S5b(S5bTransport),
    Security(Security),
    Open(Open),
    Data(Data),
    Close(Close),
    Error(Box<StanzaError>),
    Info(Support),
    Items(Vec<Jid>),
    Streamhosts(Vec<Streamhost>),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("not well-formed")]
    Xml,
    #[error("{0}")]
    Jingle(#[from] Malformed),
    #[error("{0}")]
    Ibb(#[from] IbbMalformed),
}

/// The paths of the fixtures in a folder, sorted.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "xml"));
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {}", folder.display());
    files
}

fn stem(file: &std::path::Path) -> &str {
    file.file_stem().unwrap().to_str().unwrap()
}

/// The text of `fixtures/<path>.xml`.
fn text(path: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{path}.xml"));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What `fixtures/<path>.xml` carries.
fn fixture(path: &str) -> Result<Vec<Wire>, Refused> {
    parse(text(path).as_bytes())
}

/// The stanza, in the namespace that it would have on its stream.
fn stanza(xml: &[u8]) -> Result<Element, Refused> {
    Element::from_reader_with_prefixes(xml, ns::CLIENT.to_owned()).map_err(|_| Refused::Xml)
}

fn parse(xml: &[u8]) -> Result<Vec<Wire>, Refused> {
    read(&stanza(xml)?)
}

/// Everything in a stanza that this crate understands, from the outside to the inside.
fn read(stanza: &Element) -> Result<Vec<Wire>, Refused> {
    let mut found = Vec::new();
    for payload in stanza.children() {
        match payload.name() {
            "jingle" if Jingle::matches(payload) => read_jingle(payload, &mut found)?,
            "open" if payload.has_ns(ns::IBB) => found.push(Wire::Open(Open::parse(payload)?)),
            "data" if payload.has_ns(ns::IBB) => found.push(Wire::Data(Data::parse(payload)?)),
            "close" if payload.has_ns(ns::IBB) => found.push(Wire::Close(Close::parse(payload)?)),
            "error" => {
                found.extend(StanzaError::try_from(payload.clone()).ok().map(Box::new).map(Wire::Error))
            }
            "query" if stanza.attr("type") == Some("result") => found.push(read_query(payload)?),
            _ => (),
        }
    }
    Ok(found)
}

fn read_query(answer: &Element) -> Result<Wire, Refused> {
    Ok(match answer.ns().as_str() {
        ns::DISCO_ITEMS => Wire::Items(parse_items(answer)?),
        ns::BYTESTREAMS => Wire::Streamhosts(parse_streamhosts(answer)?),
        _ => Wire::Info(Support::parse(answer)?),
    })
}

fn read_jingle(element: &Element, found: &mut Vec<Wire>) -> Result<(), Refused> {
    let (jingle, dialect) = Jingle::parse(element.clone())?;
    found.push(Wire::Jingle(jingle.clone(), dialect));
    for content in &jingle.contents {
        if let Some(transport) = content.transport().filter(|it| IbbTransport::matches(it)) {
            found.push(Wire::Transport(IbbTransport::parse(transport)?));
        }
        if let Some(transport) = content.transport().filter(|it| S5bTransport::matches(it)) {
            found.push(Wire::S5b(S5bTransport::parse(transport)?));
        }
        if let Some(security) = content.security().filter(|it| Security::matches(it)) {
            found.push(Wire::Security(Security::parse(security)?));
        }
    }
    Ok(())
}

/// What was read, written and read again.
fn rewritten(wire: &Wire) -> Wire {
    match wire.clone() {
        Wire::Jingle(jingle, dialect) => {
            let (jingle, dialect) = Jingle::parse(jingle.into_element(dialect)).unwrap();
            Wire::Jingle(jingle, dialect)
        }
        Wire::Transport(transport) => Wire::Transport(IbbTransport::parse(&transport.to_element()).unwrap()),
        Wire::S5b(transport) => {
            let rewritten = S5bTransport::parse(&transport.to_element()).unwrap();
            // What is not understood is not written.
            Wire::S5b(S5bTransport { unsupported: transport.unsupported, ..rewritten })
        }
        Wire::Security(security) => Wire::Security(Security::parse(&security.into_element()).unwrap()),
        Wire::Open(open) => Wire::Open(Open::parse(&open.to_element()).unwrap()),
        Wire::Data(data) => Wire::Data(Data::parse(&data_element(&data.sid, &data.bytes, data.seq)).unwrap()),
        Wire::Close(close) => Wire::Close(Close::parse(&close.to_element()).unwrap()),
        others @ (Wire::Error(_) | Wire::Info(_) | Wire::Items(_) | Wire::Streamhosts(_)) => others,
    }
}

#[test]
fn a_quoted_text_is_short_and_has_no_control_characters() {
    assert_eq!(quoted("a\nb"), r#""a\nb""#);
    assert_eq!(quoted(&"ä".repeat(100)), format!("{:?}…", "ä".repeat(24)));
}

#[test]
fn a_cut_never_splits_a_character() {
    assert_eq!(cut("aäb", 2), "a");
    assert_eq!(cut("aäb", 3), "aä");
    assert_eq!(cut("aäb", 99), "aäb");
}
