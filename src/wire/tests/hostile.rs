//! What nobody should send.

use super::*;

#[test]
fn every_bad_request_is_refused_for_its_reason() {
    let refusals = hostile("bad-request").map(|(name, parsed)| match parsed {
        Err(refused @ (Refused::Jingle(_) | Refused::Ibb(_))) => format!("{name}: {refused}"),
        other => panic!("{name}: {other:?}"),
    });
    assert_eq!(refusals.collect::<Vec<_>>(), BAD_REQUESTS);
}

#[test]
fn everything_but_canonical_base64_is_refused() {
    for (name, parsed) in hostile("base64") {
        assert!(matches!(parsed, Err(Refused::Ibb(IbbMalformed::Base64(_)))), "{name}: {parsed:?}");
    }
}

/// The files that must cause this error: what comes after `--` in their names, and what comes of reading them.
fn hostile(error: &'static str) -> impl Iterator<Item = (String, Result<Vec<Wire>, Refused>)> {
    files("hostile").into_iter().filter_map(move |file| {
        let (named_error, name) = stem(&file).split_once("--").expect("named after its error");
        (named_error == error).then(|| (name.to_owned(), parse(&fs::read(&file).unwrap())))
    })
}

/// What is wrong, as the error message has to say it.
const BAD_REQUESTS: &[&str] = &[
    "close-long-sid: the attribute sid is invalid",
    "close-without-sid: the attribute sid is missing",
    "content-without-name: <content/> has no name",
    "data-huge-seq: the attribute seq is invalid",
    "data-negative-seq: the attribute seq is invalid",
    "data-with-a-child: the data contains an element",
    "data-without-seq: the attribute seq is missing",
    "data-without-sid: the attribute sid is missing",
    "empty-sid: the sid of <jingle/> has 0 bytes; it may have 1 to 256",
    "long-algo: <fingerprint/> names a hash function that is too long",
    "long-content-name: the name of <content/> has 257 bytes; at most 256",
    "long-fingerprint: <fingerprint/> has 513 bytes; at most 512",
    "long-method: <method/> has a name that is too long",
    "long-sid: the sid of <jingle/> has 257 bytes; it may have 1 to 256",
    "method-without-name: <method/> has no name",
    "nine-contents: <jingle/> has more than 8 contents",
    "nine-fingerprints: <security/> has more than 8 fingerprints or 8 methods",
    "nine-methods: <security/> has more than 8 fingerprints or 8 methods",
    "no-action: <jingle/> has no action",
    "no-sid: <jingle/> has no sid",
    "open-huge-block-size: the attribute block-size is invalid",
    "open-negative-block-size: the attribute block-size is invalid",
    "open-without-block-size: the attribute block-size is missing",
    "open-without-sid: the attribute sid is missing",
    "s5b-activated-without-cid: <activated/> has no cid",
    "s5b-candidate-empty-jid: the jid of <candidate/> has 0 bytes; it may have 1 to 3071",
    "s5b-candidate-long-cid: the cid of <candidate/> has 257 bytes; it may have 1 to 256",
    "s5b-candidate-long-host: the host of <candidate/> has 256 bytes; it may have 1 to 255",
    "s5b-candidate-long-jid: the jid of <candidate/> has 3072 bytes; it may have 1 to 3071",
    r#"s5b-candidate-port-65536: <candidate/> has the port "65536""#,
    r#"s5b-candidate-port-word: <candidate/> has the port "socks""#,
    r#"s5b-candidate-port-zero: <candidate/> has the port "0""#,
    r#"s5b-candidate-priority-fraction: <candidate/> has the priority "1.5""#,
    r#"s5b-candidate-priority-negative: <candidate/> has the priority "-1""#,
    r#"s5b-candidate-second-is-bad: <candidate/> has the port """#,
    "s5b-candidate-used-long-cid: the cid of <candidate-used/> has 257 bytes; it may have 1 to 256",
    "s5b-candidate-used-without-cid: <candidate-used/> has no cid",
    "s5b-candidate-without-cid: <candidate/> has no cid",
    "s5b-candidate-without-host: <candidate/> has no host",
    "s5b-candidate-without-priority: <candidate/> has no priority",
    "s5b-empty-sid: the sid of <transport/> has 0 bytes; it may have 1 to 256",
    "s5b-long-sid: the sid of <transport/> has 257 bytes; it may have 1 to 256",
    r#"s5b-one-cid-for-two: two candidates have the cid "hft54dqy""#,
    "s5b-sixty-five-candidates: <transport/> has more than 64 candidates",
    "s5b-two-notices: <transport/> has more than one notification",
    r#"s5b-unknown-mode: <transport/> has the mode "sctp""#,
    "s5b-without-sid: <transport/> has no sid",
    r#"streamhost-bad-jid: <streamhost/> has the jid "@""#,
    "streamhost-long-host: the host of <streamhost/> has 256 bytes; it may have 1 to 255",
    "streamhost-none: the proxy's answer has no <streamhost/>",
    r#"streamhost-port-zero: <streamhost/> has the port "0""#,
    "streamhost-without-host: <streamhost/> has no host",
    "streamhost-without-jid: <streamhost/> has no jid",
    "transport-block-size-word: the attribute block-size is invalid",
    "transport-block-size-zero: the attribute block-size is invalid",
    "transport-empty-sid: the attribute sid is invalid",
    "transport-unknown-stanza: the attribute stanza is invalid",
    "two-descriptions: <content/> has more than one <description/>",
    "two-securities: <content/> has more than one <security/>",
    "two-transports: <content/> has more than one <transport/>",
    r#"unknown-creator: <content/> has the creator "server""#,
    r#"unknown-senders: <content/> has the senders "everybody""#,
];
