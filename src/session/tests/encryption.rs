//! Which encryption an offer and an accept stand for: XTLS, or STARTTLS on the XML stream.

use super::*;
use crate::{Encryption, security::Fingerprint, session::Announced};

const ENCRYPTIONS: [Encryption; 3] = [Encryption::Xtls, Encryption::XtlsOrStarttls, Encryption::Starttls];

fn end(side: Side, encryption: Encryption) -> (End, Instant) {
    let now = Instant::now();
    (End::new(side, config(side).encryption(encryption), now), now)
}

fn without_security(action: &str, sid: &str, transport: &str) -> String {
    jingle(action, sid, &content("name='xmlstream'", &format!("{DESCRIPTION}{transport}")))
}

/// Romeo calls Juliet, who announces these features; his offer, if he makes one.
fn call(encryption: Encryption, features: &[&str]) -> (End, SessionId, Instant, Option<Element>) {
    let (mut romeo, now) = end(Romeo, encryption);
    let id = romeo.sessions.connect(now, jid(JULIET), None).unwrap();
    let asked = romeo.sent();
    romeo.receives(now, &disco_result(asked[0].attr("id").unwrap(), features));
    let offer = romeo.sent().pop();
    (romeo, id, now, offer)
}

fn has_security(stanza: &Element) -> bool {
    String::from(stanza).contains("<security")
}

/// Juliet's accept, with or without `<security/>`; what he answers, and says then.
fn accept(romeo: &mut End, id: SessionId, now: Instant, offer: &Element, security: &str) -> Vec<String> {
    let sid = romeo.sessions.sid(id).unwrap().to_owned();
    let transport = format!("{}{security}", String::from(find(offer, "transport")));
    romeo.hears(now, JULIET, &without_security("session-accept", &sid, &transport))
}

#[test]
fn what_is_offered_depends_on_the_setting_and_on_what_the_peer_announces() {
    // Whether there is an offer, and XTLS in it, to a peer with XTLS, and to one without.
    for (encryption, with_xtls, without_xtls) in [
        (Encryption::Xtls, Some(true), None),
        (Encryption::XtlsOrStarttls, Some(true), Some(false)),
        (Encryption::Starttls, Some(false), Some(false)),
    ] {
        for (features, expected) in [(&FEATURES[..], with_xtls), (&FEATURES[..3], without_xtls)] {
            let (.., offer) = call(encryption, features);
            assert_eq!(offer.as_ref().map(has_security), expected, "{encryption:?} {features:?}");
        }
    }
}

#[test]
fn an_offer_without_xtls_that_is_accepted_leads_to_starttls() {
    for encryption in [Encryption::XtlsOrStarttls, Encryption::Starttls] {
        let (mut romeo, id, now, offer) = call(encryption, &FEATURES[..3]);
        let sent = accept(&mut romeo, id, now, &offer.unwrap(), "");
        assert_eq!(sent, ["result", "set open"], "no security-info");
        assert_eq!(romeo.sessions.security(id), Some(&Announced::Starttls));
        assert_eq!(romeo.sessions.announced(id), None);
    }
}

#[test]
fn xtls_that_was_not_offered_can_not_be_accepted() {
    for encryption in [Encryption::XtlsOrStarttls, Encryption::Starttls] {
        let (mut romeo, id, now, offer) = call(encryption, &FEATURES[..3]);
        let sent = accept(&mut romeo, id, now, &offer.unwrap(), SECURITY);
        assert_eq!(sent, ["error cancel bad-request", "set session-terminate general-error"]);
        assert!(matches!(romeo.error(id), Some(Error::PeerMisbehaved(PeerMisbehaved::BadAccept(_)))));
    }
}

#[test]
fn xtls_that_is_not_agreed_to_gives_way_to_starttls_where_that_is_allowed() {
    let (mut romeo, id, now, offer) = call(Encryption::XtlsOrStarttls, &FEATURES);
    assert_eq!(accept(&mut romeo, id, now, &offer.unwrap(), ""), ["result", "set open"]);
    assert_eq!(romeo.sessions.security(id), Some(&Announced::Starttls));

    let (mut romeo, id, now, offer) = call(Encryption::Xtls, &FEATURES);
    let sent = accept(&mut romeo, id, now, &offer.unwrap(), "");
    assert_eq!(sent, ["result", "set session-terminate security-error"]);
    assert!(matches!(romeo.error(id), Some(Error::Security(SecurityError::NotOffered))));
}

#[test]
fn xtls_that_is_agreed_to_is_used() {
    let (mut romeo, id, now, offer) = call(Encryption::XtlsOrStarttls, &FEATURES);
    let sent = accept(&mut romeo, id, now, &offer.unwrap(), SECURITY);
    assert_eq!(sent, ["result", "set security-info", "set open"]);
    assert!(matches!(romeo.sessions.security(id), Some(Announced::Fingerprints(all)) if all.len() == 1));
}

#[test]
fn a_broken_security_is_never_taken_for_none() {
    let broken = "<security xmlns='urn:xmpp:jingle:security:xtls:0'><method name='x509'/></security>";
    let (mut romeo, id, now, offer) = call(Encryption::XtlsOrStarttls, &FEATURES);
    let sent = accept(&mut romeo, id, now, &offer.unwrap(), broken);
    assert_eq!(sent, ["result", "set session-terminate security-error"]);
    assert!(matches!(romeo.error(id), Some(Error::Security(SecurityError::NoFingerprint))));

    for encryption in ENCRYPTIONS {
        let (mut juliet, now) = end(Juliet, encryption);
        let offer = without_security("session-initiate", "a", &format!("{TRANSPORT}{broken}"));
        let sent = juliet.hears(now, ROMEO, &offer);
        assert_eq!(sent, ["result", "set session-terminate security-error"], "{encryption:?}");
    }
}

#[test]
fn a_responder_takes_an_offer_without_xtls_where_starttls_is_allowed() {
    for encryption in [Encryption::XtlsOrStarttls, Encryption::Starttls] {
        let (mut juliet, now) = end(Juliet, encryption);
        assert_eq!(
            juliet.hears(now, ROMEO, &without_security("session-initiate", "a", TRANSPORT)),
            ["result"]
        );
        let id = juliet.incoming.pop_front().unwrap();
        assert_eq!(juliet.sessions.announced(id), None);
        juliet.sessions.accept(now, id).unwrap();
        assert!(!has_security(&juliet.sent()[0]), "what was not offered");
        assert_eq!(juliet.sessions.security(id), Some(&Announced::Starttls));
    }
    let (mut juliet, now) = end(Juliet, Encryption::Xtls);
    let sent = juliet.hears(now, ROMEO, &without_security("session-initiate", "a", TRANSPORT));
    assert_eq!(sent, ["result", "set session-terminate security-error"]);
}

#[test]
fn a_responder_gives_xtls_to_whoever_offers_it() {
    for encryption in ENCRYPTIONS {
        let (mut juliet, now) = end(Juliet, encryption);
        assert_eq!(juliet.hears(now, ROMEO, &initiate("a")), ["result"]);
        let id = juliet.incoming.pop_front().unwrap();
        juliet.sessions.accept(now, id).unwrap();
        assert!(has_security(&juliet.sent()[0]), "{encryption:?}");
        assert!(matches!(juliet.sessions.security(id), Some(Announced::Fingerprints(_))), "{encryption:?}");
    }
}

#[test]
fn where_starttls_is_allowed_nothing_is_ever_in_plaintext() {
    let careless = |side, encryption| {
        let mut config = config(side).encryption(encryption);
        config.dangerous().allow_plaintext();
        config
    };
    for encryption in [Encryption::XtlsOrStarttls, Encryption::Starttls] {
        let mut pair = Pair::with(|side, _| careless(side, encryption));
        let xtls = encryption == Encryption::XtlsOrStarttls;
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.accept(Juliet);
        pair.run();
        for (side, id) in [(Romeo, romeos), (Juliet, juliets)] {
            match pair.end(side).sessions.security(id) {
                Some(Announced::Fingerprints(_)) => assert!(xtls),
                Some(Announced::Starttls) => assert!(!xtls),
                other => panic!("{encryption:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn starttls_is_no_way_around_what_is_known_of_a_certificate() {
    // It may be used with such a peer, because it is judged by the same trust; plaintext may not.
    let pinned =
        || Trust::first_use().pin_for("romeo@montague.lit".parse().unwrap(), Fingerprint::of(b"pinned"));
    let mut config = config(Juliet);
    config.dangerous().allow_plaintext();
    for (encryption, expected) in [
        (Encryption::Xtls, ["result", "set session-terminate security-error"].as_slice()),
        (Encryption::XtlsOrStarttls, &["result"]),
    ] {
        let mut config = config.clone().encryption(encryption);
        config.tls.trust = pinned();
        let now = Instant::now();
        let mut juliet = End::new(Juliet, config, now);
        assert_eq!(juliet.hears(now, ROMEO, &without_security("session-initiate", "a", TRANSPORT)), expected);
    }
}

#[test]
fn a_session_that_was_never_active_is_encrypted_by_nothing_that_is_known() {
    let (mut juliet, now) = end(Juliet, Encryption::Starttls);
    juliet.hears(now, ROMEO, &without_security("session-initiate", "a", TRANSPORT));
    let id = juliet.incoming.pop_front().unwrap();
    juliet.hears(now, ROMEO, &jingle("session-terminate", "a", ""));
    assert_eq!(juliet.sessions.security(id), None);
}
