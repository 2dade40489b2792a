//! SASL on a stream inside of TLS (RFC 6120 §6), step by step.

use jid::BareJid;
use zeroize::Zeroizing;

use super::{
    acks::managed,
    support::{FOOTER, HEADER, JULIET, ROMEO, Side, header_with, jid, message, setup},
};
use crate::{
    Error, PeerIncompatible, SecurityError, Step, Timeouts,
    disco::EarlyData,
    security::{Proof, Secret, sasl::Binding},
    stream::{
        machine::{Role, Setup},
        negotiation::{Agenda, Credentials, Footing, Next},
    },
};

const SECRET: &str = "gallop apace you fiery footed steeds 7731";
const OTHER_SECRET: &str = "come civil night thou sober suited matron 4";

const SCRAM: &str = "<mechanism>SCRAM-SHA-512-PLUS</mechanism><mechanism>SCRAM-SHA-256-PLUS</mechanism>";
const EXPORTER: &str = "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/>\
     </sasl-channel-binding>";

fn bare(text: &str) -> BareJid {
    jid(text).to_bare()
}

/// Romeo initiates, Juliet responds.
fn side(role: Role, footing: Footing, secret: Option<&str>) -> Side {
    side_on(role, footing, secret, 7)
}

/// On a TLS connection of this number.
fn side_on(role: Role, footing: Footing, secret: Option<&str>, connection: u8) -> Side {
    Side::new(side_setup(role, footing, secret, connection))
}

fn side_setup(role: Role, footing: Footing, secret: Option<&str>, connection: u8) -> Setup {
    let (local, peer) = match role {
        Role::Initiator => (ROMEO, JULIET),
        Role::Responder => (JULIET, ROMEO),
    };
    let mut setup = setup(role, Some(local), Some(peer));
    setup.agenda = Agenda::Sasl(Box::new(Credentials {
        local: Some(bare(local)),
        peer: bare(peer),
        footing,
        secret: secret.map(|secret| Secret::new(secret).unwrap()),
        binding: Binding(Zeroizing::new([connection; 32])),
    }));
    setup
}

fn romeo(footing: Footing, secret: Option<&str>) -> Side {
    let mut romeo = side(Role::Initiator, footing, secret);
    romeo.written();
    romeo
}

/// Juliet has said her header; this is what she offers.
fn juliet(footing: Footing, secret: Option<&str>) -> (Side, String) {
    let mut juliet = side(Role::Responder, footing, secret);
    juliet.reads(HEADER);
    let said = juliet.written();
    let features = said[said.find("<stream:features").unwrap()..].to_owned();
    (juliet, features)
}

fn mechanisms(names: &str) -> String {
    format!("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{names}</mechanisms>")
}

fn features(children: &str) -> String {
    format!("<stream:features>{children}</stream:features>")
}

fn sasl(name: &str, text: &str) -> String {
    format!("<{name} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}</{name}>")
}

fn auth(mechanism: &str, text: &str) -> String {
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{text}</auth>")
}

fn security(side: &Side) -> SecurityError {
    match side.machine.error() {
        Some(Error::Security(error)) => error.clone(),
        other => panic!("no security error: {other:?}"),
    }
}

/// Until both have said everything.
fn talk(romeo: &mut Side, juliet: &mut Side) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        let (there, back) = (romeo.written(), juliet.written());
        if there.is_empty() && back.is_empty() {
            return said;
        }
        juliet.reads(&there);
        romeo.reads(&back);
        said.extend([there, back].into_iter().filter(|text| !text.is_empty()));
    }
}

#[test]
fn a_shared_secret_is_proved_and_another_stream_begins() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Unverified, Some(SECRET)),
        side(Role::Responder, Footing::Unverified, Some(SECRET)),
    );
    let said = talk(&mut romeo, &mut juliet);
    assert!(said[1].ends_with(&features(&format!("{}{EXPORTER}", mechanisms(SCRAM)))), "{}", said[1]);
    assert!(
        said[2].starts_with("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-512-PLUS'>")
    );
    assert!(said[3].starts_with("<challenge "), "{}", said[3]);
    assert!(said[4].starts_with("<response "), "{}", said[4]);
    assert!(said[5].starts_with("<success "), "{}", said[5]);
    assert_eq!(said.len(), 6);
    let proved = Some(Next::Restart(Some(Proof::Secret)));
    assert_eq!((romeo.machine.negotiated(), juliet.machine.negotiated()), (proved, proved));
}

#[test]
fn another_secret_is_refused_on_both_sides() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Unverified, Some(SECRET)),
        side(Role::Responder, Footing::Unverified, Some(OTHER_SECRET)),
    );
    let said = talk(&mut romeo, &mut juliet).concat();
    assert_eq!(security(&romeo), SecurityError::SecretMismatch { peer: bare(JULIET) });
    assert_eq!(security(&juliet), SecurityError::SecretMismatch { peer: bare(ROMEO) });
    assert!(said.contains("<failure ") && said.contains("<stream:error><not-authorized "), "{said}");
    assert!(!said.contains("<success"));
}

#[test]
fn a_proof_for_another_tls_connection_is_refused() {
    let (mut romeo, mut juliet) = (
        side_on(Role::Initiator, Footing::Unverified, Some(SECRET), 1),
        side_on(Role::Responder, Footing::Unverified, Some(SECRET), 2),
    );
    talk(&mut romeo, &mut juliet);
    assert_eq!(security(&juliet), SecurityError::ChannelBinding { peer: bare(ROMEO) });
    assert_eq!((romeo.machine.negotiated(), juliet.machine.negotiated()), (None, None));
    security(&romeo);
}

#[test]
fn the_responder_offers_what_it_has_and_what_it_needs() {
    let all = mechanisms(&format!("{SCRAM}<mechanism>EXTERNAL</mechanism>")) + EXPORTER;
    let scram = mechanisms(SCRAM) + EXPORTER;
    for (footing, secret, wanted) in [
        (Footing::Unverified, Some(SECRET), features(&scram)),
        (Footing::Verified, Some(SECRET), features(&all)),
        (Footing::Verified, None, "<stream:features/>".to_owned()),
        (Footing::Unverified, None, "<stream:features/>".to_owned()),
    ] {
        let (juliet, offered) = juliet(footing, secret);
        assert_eq!(offered, wanted);
        assert_eq!(juliet.machine.is_open(), secret.is_none());
    }
}

#[test]
fn the_initiator_takes_the_strongest_that_is_needed() {
    let all = format!("{SCRAM}<mechanism>EXTERNAL</mechanism>");
    let weak = "<mechanism> SCRAM-SHA-256-PLUS </mechanism><mechanism>PLAIN</mechanism>";
    for (footing, secret, names, chosen) in [
        (Footing::Unverified, Some(SECRET), all.as_str(), "SCRAM-SHA-512-PLUS"),
        (Footing::Unverified, Some(SECRET), weak, "SCRAM-SHA-256-PLUS"),
        (Footing::Verified, Some(SECRET), &all, "EXTERNAL"),
        (Footing::Verified, Some(SECRET), SCRAM, "SCRAM-SHA-512-PLUS"),
        (Footing::Unverified, None, &all, "EXTERNAL"),
        (Footing::Verified, None, "<mechanism>X</mechanism><mechanism>EXTERNAL</mechanism>", "EXTERNAL"),
    ] {
        // With the list of channel bindings, and of a peer that does not know of such lists.
        for bindings in [EXPORTER, ""] {
            let mut romeo = romeo(footing, secret);
            romeo.reads(HEADER);
            romeo.reads(features(&(mechanisms(names) + bindings)));
            let auth = romeo.written();
            assert!(auth.contains(&format!("mechanism='{chosen}'")), "{names}: {auth}");
        }
    }
}

#[test]
fn a_secret_that_is_not_asked_for_ends_the_stream() {
    let unbound = EXPORTER.replace("tls-exporter", "tls-server-end-point");
    let message = "<message><body>psst</body></message>".to_owned();
    for (read, offered) in [
        ("<stream:features/>".to_owned(), "no SASL"),
        (features("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"), "no SASL"),
        (features(&mechanisms("")), "no SASL"),
        (features(&mechanisms("<mechanism>EXTERNAL</mechanism>")), "EXTERNAL"),
        (
            features(&mechanisms("<mechanism>SCRAM-SHA-256</mechanism><mechanism>PLAIN</mechanism>")),
            "SCRAM-SHA-256, PLAIN",
        ),
        (
            features(&(mechanisms(SCRAM) + &unbound)),
            "SCRAM-SHA-512-PLUS, SCRAM-SHA-256-PLUS without tls-exporter",
        ),
        (message, "a stanza, and no stream features"),
        (FOOTER.to_owned(), "no stream features, and the end of the stream"),
    ] {
        let mut romeo = romeo(Footing::Unverified, Some(SECRET));
        romeo.reads(HEADER);
        romeo.reads(&read);
        let (peer, offered) = (bare(JULIET), offered.to_owned());
        assert_eq!(security(&romeo), SecurityError::SecretNotOffered { peer, offered });
        assert!(romeo.machine.next_stanza().is_none());
        let last = romeo.written();
        assert!(last.starts_with("<stream:error><not-authorized ") && last.ends_with(FOOTER), "{last}");
    }
    let mut romeo = romeo(Footing::Unverified, Some(SECRET));
    romeo.reads(header_with("id='1'"));
    assert!(matches!(security(&romeo), SecurityError::SecretNotOffered { .. }));
}

#[test]
fn without_a_secret_one_that_is_asked_for_ends_the_stream() {
    let mut romeo = romeo(Footing::Unverified, None);
    romeo.reads(HEADER);
    romeo.reads(features(&(mechanisms(SCRAM) + EXPORTER)));
    assert_eq!(security(&romeo), SecurityError::SecretMissing { peer: bare(JULIET) });

    let mut romeo = self::romeo(Footing::Verified, None);
    romeo.reads(HEADER);
    romeo.reads(features(&mechanisms("<mechanism>PLAIN</mechanism>")));
    assert!(security(&romeo).to_string().contains("it offers PLAIN"));
}

#[test]
fn nothing_is_asked_of_who_is_verified_or_unknown() {
    for (footing, secret) in
        [(Footing::Verified, Some(SECRET)), (Footing::Verified, None), (Footing::Unverified, None)]
    {
        let mut romeo = romeo(footing, secret);
        romeo.reads(HEADER);
        romeo.reads("<stream:features/>");
        assert!(romeo.machine.is_open());
        assert_eq!(romeo.written(), "");
    }
}

#[test]
fn another_feature_that_is_mandatory_is_still_that() {
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
    for children in [bind.to_owned(), mechanisms(SCRAM) + bind] {
        let mut romeo = romeo(Footing::Verified, Some(SECRET));
        romeo.reads(HEADER);
        romeo.reads(features(&children));
        let Some(Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(name))) = romeo.machine.error()
        else {
            panic!("{:?}", romeo.machine.error())
        };
        assert_eq!(name, "bind");
        assert!(!romeo.written().contains("<auth"));
    }
}

#[test]
fn a_verified_initiator_is_known_by_its_certificate() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Verified, Some(SECRET)),
        side(Role::Responder, Footing::Verified, Some(SECRET)),
    );
    let said = talk(&mut romeo, &mut juliet);
    assert!(said[2].starts_with("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>"));
    let proved = Some(Next::Restart(None));
    assert_eq!((romeo.machine.negotiated(), juliet.machine.negotiated()), (proved, proved));
}

#[test]
fn nothing_is_delivered_before_the_secret_is_proved() {
    for other in [
        "<message><body>psst</body></message>",
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='set' id='1'/>",
        "<stream:features/>",
        "<auth xmlns='urn:wrong' mechanism='EXTERNAL'>=</auth>",
    ] {
        let (mut juliet, _) = juliet(Footing::Unverified, Some(SECRET));
        juliet.reads(other);
        assert!(security(&juliet).to_string().contains("<auth/> was expected"), "{other}");
        assert!(juliet.machine.next_stanza().is_none());
        let last = juliet.written();
        assert!(last.starts_with("<stream:error><not-authorized ") && last.ends_with(FOOTER), "{last}");
    }
}

#[test]
fn what_is_not_sasl_as_agreed_is_a_failure_of_its_name() {
    let too_many = sasl("auth", "=");
    for (read, condition) in [
        (auth("EXTERNAL", "="), "invalid-mechanism"),
        (auth("PLAIN", "AHRoZQ=="), "invalid-mechanism"),
        (auth("SCRAM-SHA-256", "AAAA"), "invalid-mechanism"),
        (auth("scram-sha-256-plus", "AAAA"), "invalid-mechanism"),
        (too_many, "invalid-mechanism"),
        (auth("SCRAM-SHA-256-PLUS", "not base64!"), "incorrect-encoding"),
        (auth("SCRAM-SHA-256-PLUS", "<x xmlns='u'/>"), "incorrect-encoding"),
        (sasl("response", "AAAA"), "malformed-request"),
        (sasl("success", ""), "malformed-request"),
        (sasl("abort", ""), "malformed-request"),
    ] {
        let (mut juliet, _) = juliet(Footing::Unverified, Some(SECRET));
        juliet.reads(&read);
        security(&juliet);
        let last = juliet.written();
        let failure = format!(
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/></failure><stream:error>"
        );
        assert!(last.starts_with(&failure), "{read}: {last}");
        assert!(juliet.machine.negotiated().is_none());
    }
}

#[test]
fn an_initiator_may_give_up() {
    let (mut juliet, _) = juliet(Footing::Unverified, Some(SECRET));
    juliet.reads(auth("SCRAM-SHA-256-PLUS", ""));
    assert_eq!(juliet.written(), "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    juliet.reads(sasl("abort", ""));
    assert!(juliet.written().contains("<aborted/>"));
    assert!(security(&juliet).to_string().contains("gave up"));
}

#[test]
fn a_second_beginning_is_no_answer_to_a_challenge() {
    let (mut juliet, _) = juliet(Footing::Unverified, Some(SECRET));
    juliet.reads(auth("SCRAM-SHA-256-PLUS", ""));
    juliet.reads(auth("SCRAM-SHA-256-PLUS", ""));
    assert!(juliet.written().contains("<malformed-request/>"));
    security(&juliet);
}

#[test]
fn a_responder_that_does_not_prove_the_secret_is_left() {
    for read in [
        sasl("success", ""),
        sasl("success", "="),
        sasl("success", "dj1BQUFB"),
        sasl("success", "not base64!"),
        sasl("challenge", "not base64!"),
        sasl("challenge", "cj1ub3RvdXJzLHM9QUFBQSxpPTQwOTY="),
        sasl("challenge", ""),
    ] {
        let mut romeo = romeo(Footing::Unverified, Some(SECRET));
        romeo.reads(HEADER);
        romeo.reads(features(&(mechanisms(SCRAM) + EXPORTER)));
        romeo.written();
        romeo.reads(&read);
        security(&romeo);
        assert_eq!(romeo.machine.negotiated(), None, "{read}");
        let last = romeo.written();
        let how = if read.starts_with("<success") { "<not-authorized " } else { "<abort " };
        assert!(last.contains(how) && last.ends_with(FOOTER), "{read}: {last}");
    }
}

#[test]
fn what_is_no_answer_to_auth_ends_the_stream() {
    for read in [
        "<message><body>psst</body></message>".to_owned(),
        "<stream:features/>".to_owned(),
        sasl("auth", ""),
        "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_owned(),
    ] {
        let mut romeo = romeo(Footing::Unverified, Some(SECRET));
        romeo.reads(HEADER);
        romeo.reads(features(&(mechanisms(SCRAM) + EXPORTER)));
        romeo.written();
        romeo.reads(&read);
        assert!(security(&romeo).to_string().contains("was expected"), "{read}");
        assert!(romeo.machine.next_stanza().is_none());
        assert!(romeo.written().starts_with("<stream:error><not-authorized "));
    }
}

#[test]
fn a_failure_tells_why() {
    let mut romeo = romeo(Footing::Unverified, Some(SECRET));
    romeo.reads(HEADER);
    romeo.reads(features(&(mechanisms(SCRAM) + EXPORTER)));
    romeo.written();
    romeo.reads(sasl("failure", "<account-disabled/><text>go away</text>"));
    let text = security(&romeo).to_string();
    assert!(text.contains("account-disabled"), "{text}");
    assert_eq!(romeo.written(), FOOTER);
}

#[test]
fn what_comes_behind_the_proof_is_the_next_streams() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Verified, Some(SECRET)),
        side(Role::Responder, Footing::Verified, Some(SECRET)),
    );
    juliet.reads(romeo.written());
    romeo.reads(juliet.written());
    let left = juliet.reads(format!("{}{HEADER}", romeo.written()));
    assert_eq!(left, HEADER.as_bytes());
    let left = romeo.reads(format!("{}{HEADER}", juliet.written()));
    assert_eq!(left, HEADER.as_bytes());
}

#[test]
fn it_makes_no_difference_how_the_bytes_are_cut() {
    for size in [1, 2, 3, 7] {
        let (mut romeo, mut juliet) = (
            side(Role::Initiator, Footing::Unverified, Some(SECRET)),
            side(Role::Responder, Footing::Unverified, Some(SECRET)),
        );
        loop {
            let (there, back) = (romeo.written(), juliet.written());
            if there.is_empty() && back.is_empty() {
                break;
            }
            there.as_bytes().chunks(size).for_each(|piece| drop(juliet.reads(piece)));
            back.as_bytes().chunks(size).for_each(|piece| drop(romeo.reads(piece)));
        }
        let proved = Some(Next::Restart(Some(Proof::Secret)));
        assert_eq!((romeo.machine.negotiated(), juliet.machine.negotiated()), (proved, proved));
    }
}

#[test]
fn wrapped_base64_is_read() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Unverified, Some(SECRET)),
        side(Role::Responder, Footing::Unverified, Some(SECRET)),
    );
    juliet.reads(romeo.written());
    romeo.reads(juliet.written());
    let wrapped = romeo.written().replace("'>", "'>\n   ").replace("</auth>", "\n</auth>");
    juliet.reads(wrapped);
    assert!(juliet.written().starts_with("<challenge "));
}

#[test]
fn starttls_inside_of_tls_is_refused() {
    let (mut juliet, offered) = juliet(Footing::Unverified, Some(SECRET));
    assert!(!offered.contains("starttls"));
    juliet.reads("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(juliet.written(), format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{FOOTER}"));
}

#[test]
fn an_initiator_of_the_old_days_can_not_authenticate() {
    let mut juliet = side(Role::Responder, Footing::Unverified, Some(SECRET));
    juliet.reads(header_with(""));
    assert!(security(&juliet).to_string().contains("before 1.0"));
    let mut juliet = side(Role::Responder, Footing::Verified, Some(SECRET));
    juliet.reads(header_with(""));
    assert!(juliet.machine.is_open(), "its certificate is enough");
}

#[test]
fn who_does_not_authenticate_in_time_is_left() {
    let (mut juliet, _) = juliet(Footing::Unverified, Some(SECRET));
    juliet.after(Timeouts::default().stream_header);
    assert!(matches!(juliet.machine.error(), Some(Error::Timeout(Step::StreamHeader, _))));
}

#[test]
fn what_an_initiator_says_too_early_is_dropped_and_comes_again_behind_sasl() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Verified, None),
        side(Role::Responder, Footing::Verified, Some(SECRET)),
    );
    romeo.machine.say_early(romeo.now, vec![message("too early")], EarlyData::Announced).unwrap();
    talk(&mut romeo, &mut juliet);
    // Both go on with another stream, on which Romeo says it again.
    for side in [&romeo, &juliet] {
        assert!(matches!(side.machine.negotiated(), Some(Next::Restart(_))));
    }
    assert_eq!(juliet.hears(), None);
}

#[test]
fn an_initiator_that_has_spoken_out_of_turn_does_not_say_it_again() {
    let mut romeo = side(Role::Initiator, Footing::Verified, None);
    romeo.machine.say_early(romeo.now, vec![message("too early")], EarlyData::Unknown).unwrap();
    romeo.reads(HEADER);
    romeo.reads(features(&mechanisms("<mechanism>EXTERNAL</mechanism>")));
    let error = romeo.machine.error();
    assert!(
        matches!(error, Some(Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(name))) if name == "mechanisms"),
        "{error:?}"
    );
}

#[test]
fn who_only_asks_for_acknowledgements_is_not_sent_away_for_it() {
    let (mut romeo, mut juliet) = (
        side(Role::Initiator, Footing::Unverified, Some(SECRET)),
        side(Role::Responder, Footing::Unverified, Some(SECRET)),
    );
    let header = romeo.written();
    juliet.reads(format!("{header}<enable xmlns='urn:xmpp:sm:3' resume='true'/>"));
    talk(&mut romeo, &mut juliet);
    for side in [&romeo, &juliet] {
        assert!(matches!(side.machine.negotiated(), Some(Next::Restart(_))));
    }
}

#[test]
fn nothing_is_asked_for_with_the_header_before_a_secret_is_proved() {
    for (secret, asks) in [(None, true), (Some(SECRET), false)] {
        let Agenda::Sasl(credentials) = side_setup(Role::Initiator, Footing::Unverified, secret, 7).agenda
        else {
            unreachable!("its agenda is SASL");
        };
        let mut setup = managed(Role::Initiator);
        setup.agenda = Agenda::Sasl(credentials);
        let mut romeo = Side::new(setup);
        romeo.machine.enable_early(romeo.now, EarlyData::Announced);
        assert_eq!(romeo.written().contains("<enable"), asks);
    }
}

#[test]
fn who_has_to_authenticate_is_told_so_at_once() {
    let (mut juliet, _) = juliet(Footing::Unverified, Some(SECRET));
    juliet.reads("<message><body>too early</body></message>");
    assert!(matches!(security(&juliet), SecurityError::Sasl { .. }));
}
