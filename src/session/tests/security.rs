//! What `<security/>` must say, in an offer and in an accept. Everything else fails closed.

use super::*;
use SecurityError::{BadCertificate, NoCommonMethod, NoFingerprint, NotOffered};

const XTLS: &str = "urn:xmpp:jingle:security:xtls:0";

fn security(children: &str) -> String {
    format!("<security xmlns='{XTLS}'>{children}</security>")
}

type Check = fn(&SecurityError) -> bool;

/// What can be wrong, and the error that it is.
fn insecure() -> Vec<(String, Check)> {
    let fingerprint = "<fingerprint algo='sha-256'>00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\
        </fingerprint>";
    vec![
        (String::new(), |e| matches!(e, NotOffered)),
        (security("<method name='x509'/>"), |e| matches!(e, NoFingerprint)),
        (security("<fingerprint/>"), |e| matches!(e, NoFingerprint)),
        (security("<fingerprint algo='md5'>00112233445566778899aabbccddeeff</fingerprint>"), |e| {
            matches!(e, NoFingerprint)
        }),
        (security("<fingerprint algo='sha-256'>0011</fingerprint>"), |e| matches!(e, NoFingerprint)),
        (security("<fingerprint>RomeoX509CertificateHash</fingerprint>"), |e| matches!(e, NoFingerprint)),
        (
            security(&format!("{fingerprint}<method name='srp'/>")),
            |e| matches!(e, NoCommonMethod(methods) if methods == "srp"),
        ),
        (security(&format!("{fingerprint}<method/>")), |e| matches!(e, BadCertificate(_))),
        (security(&fingerprint.repeat(9)), |e| matches!(e, BadCertificate(_))),
        (
            "<security xmlns='urn:xmpp:jingle:security:stub:0'/>".to_owned(),
            |e| matches!(e, NoCommonMethod(ns) if ns == "urn:xmpp:jingle:security:stub:0"),
        ),
    ]
}

/// An offer that can't be read is no offer.
fn answer_to(wrong: &str) -> &'static [&'static str] {
    let malformed = wrong.contains("<method/>") || wrong.matches("<fingerprint").count() > 8;
    if malformed {
        &["error cancel bad-request"]
    } else {
        &["result", "set session-terminate security-error"]
    }
}

fn with_security(action: &str, sid: &str, transport: &str, security: &str) -> String {
    jingle(action, sid, &content("name='xmlstream'", &format!("{DESCRIPTION}{transport}{security}")))
}

#[test]
fn an_insecure_offer_is_acknowledged_and_terminated() {
    for (wrong, _) in insecure() {
        let now = Instant::now();
        let mut juliet = End::new(Juliet, config(Juliet), now);
        let sent = juliet.hears(now, ROMEO, &with_security("session-initiate", "a", TRANSPORT, &wrong));
        assert_eq!(sent, answer_to(&wrong), "{wrong}");
        assert!(juliet.incoming.is_empty() && juliet.is_clean());
    }
}

/// Romeo has offered; gives what to answer with this `<security/>`.
fn offered(config: Config) -> (End, SessionId, Instant, impl Fn(&str) -> String) {
    let now = Instant::now();
    let mut romeo = End::new(Romeo, config, now);
    let id = romeo.sessions.connect(now, jid(JULIET), None).unwrap();
    let asked = romeo.sent();
    romeo.receives(now, &disco_result(asked[0].attr("id").unwrap(), &FEATURES));
    let offer = romeo.sent().remove(0);
    let transport = String::from(find(&offer, "transport"));
    let sid = romeo.sessions.sid(id).unwrap().to_owned();
    (romeo, id, now, move |security| with_security("session-accept", &sid, &transport, security))
}

#[test]
fn an_insecure_accept_is_acknowledged_and_terminated() {
    for (wrong, is_expected) in insecure() {
        let (mut romeo, id, now, accept) = offered(config(Romeo));
        let sent = romeo.hears(now, JULIET, &accept(&wrong));
        assert_eq!(sent, ["result", "set session-terminate security-error"], "{wrong}");
        let Some(Error::Security(error)) = romeo.error(id) else { panic!("{:?}", romeo.error(id)) };
        assert!(is_expected(&error), "{wrong}: {error}");
    }
}

#[test]
fn an_accept_that_does_not_name_a_method_agrees_to_the_one_there_is() {
    let (mut romeo, id, now, accept) = offered(config(Romeo));
    let sent = romeo.hears(now, JULIET, &accept(&SECURITY.replace("<method name='x509'/>", "")));
    assert_eq!(sent, ["result", "set security-info", "set open"]);
    assert_eq!(romeo.sessions.announced(id).unwrap().len(), 1);
}

#[test]
fn unusable_fingerprints_beside_a_usable_one_do_no_harm() {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config(Juliet), now);
    let several = SECURITY.replace("<fingerprint ", "<fingerprint algo='md5'>00</fingerprint><fingerprint ");
    juliet.hears(now, ROMEO, &with_security("session-initiate", "a", TRANSPORT, &several));
    let id = juliet.incoming.pop_front().unwrap();
    assert_eq!(juliet.sessions.announced(id).unwrap().len(), 1);
}

#[test]
fn plaintext_goes_on_only_where_the_user_allowed_it() {
    let plain = |side| {
        let mut config = config(side);
        config.dangerous().allow_plaintext();
        config
    };
    let (mut romeo, id, now, accept) = offered(plain(Romeo));
    assert_eq!(romeo.hears(now, JULIET, &accept("")), ["result", "set open"]);
    assert_eq!(romeo.state(id), "active as initiator");
    assert!(romeo.sessions.announced(id).is_none());

    let mut juliet = End::new(Juliet, plain(Juliet), now);
    assert_eq!(juliet.hears(now, ROMEO, &with_security("session-initiate", "a", TRANSPORT, "")), ["result"]);
    let id = juliet.incoming.pop_front().unwrap();
    juliet.sessions.accept(now, id).unwrap();
    let accept = String::from(&juliet.sent()[0]);
    assert!(!accept.contains("<security"), "{accept}");
    assert!(juliet.sessions.announced(id).is_none());
}

#[test]
fn where_plaintext_is_allowed_broken_security_is_still_an_error() {
    for (wrong, _) in insecure().into_iter().filter(|(wrong, _)| !wrong.is_empty()) {
        let mut config = config(Juliet);
        config.dangerous().allow_plaintext();
        let now = Instant::now();
        let mut juliet = End::new(Juliet, config, now);
        let sent = juliet.hears(now, ROMEO, &with_security("session-initiate", "a", TRANSPORT, &wrong));
        assert_eq!(sent, answer_to(&wrong), "{wrong}");
    }
}

#[test]
fn security_in_the_accept_that_was_not_offered_is_refused() {
    let now = Instant::now();
    let mut plain = config(Romeo);
    plain.dangerous().allow_plaintext();
    let mut romeo = End::new(Romeo, plain, now);
    let id = romeo.sessions.connect(now, jid(JULIET), None).unwrap();
    let asked = romeo.sent();
    romeo.receives(now, &disco_result(asked[0].attr("id").unwrap(), &FEATURES[..3]));
    let offer = romeo.sent().remove(0);
    assert!(!String::from(&offer).contains("<security"));
    let sid = romeo.sessions.sid(id).unwrap().to_owned();
    let transport = String::from(find(&offer, "transport"));
    let sent = romeo.hears(now, JULIET, &with_security("session-accept", &sid, &transport, SECURITY));
    assert_eq!(sent, ["error cancel bad-request", "set session-terminate general-error"]);
    assert!(matches!(romeo.error(id), Some(Error::PeerMisbehaved(PeerMisbehaved::BadAccept(_)))));
}
