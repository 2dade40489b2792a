//! STARTTLS up to the handshake (XEP-0246 #encryption, RFC 6120 §5), step by step.

use std::time::Duration;

use xmpp_parsers::stream_error::DefinedCondition;

use super::support::{FOOTER, HEADER, JULIET, ROMEO, Side, header_with, jid, setup};
use crate::{
    Direction, Error, PeerMisbehaved, SecurityError, Step, Timeouts,
    stream::{
        machine::Role,
        negotiation::{Agenda, Next},
    },
};

const OFFER: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
     </stream:features>";
const FEATURES_REQUIRED: &str = include_str!("../../../fixtures/starttls/features-required.xml");
const FEATURES_XEP_0246: &str = include_str!("../../../fixtures/starttls/features-xep-0246.xml");

fn starttls() -> &'static str {
    include_str!("../../../fixtures/starttls/starttls.xml").trim_end()
}

fn proceed() -> &'static str {
    include_str!("../../../fixtures/starttls/proceed.xml").trim_end()
}

fn failure() -> &'static str {
    include_str!("../../../fixtures/starttls/failure.xml").trim_end()
}

fn romeo() -> Side {
    let mut setup = setup(Role::Initiator, Some(ROMEO), Some(JULIET));
    setup.agenda = Agenda::Starttls;
    let mut romeo = Side::new(setup);
    romeo.written();
    romeo
}

fn juliet() -> Side {
    let mut setup = setup(Role::Responder, Some(JULIET), Some(ROMEO));
    setup.agenda = Agenda::Starttls;
    Side::new(setup)
}

/// Romeo has said `<starttls/>`.
fn romeo_who_asked() -> Side {
    let mut romeo = romeo();
    romeo.reads(HEADER);
    romeo.reads(FEATURES_REQUIRED);
    assert_eq!(romeo.written(), starttls());
    romeo
}

/// Juliet waits for `<starttls/>`.
fn juliet_who_offered() -> Side {
    let mut juliet = juliet();
    juliet.reads(HEADER);
    juliet.written();
    juliet
}

fn security(side: &Side) -> SecurityError {
    match side.machine.error() {
        Some(Error::Security(error)) => error.clone(),
        other => panic!("no security error: {other:?}"),
    }
}

fn failed(side: &Side) -> String {
    match security(side) {
        SecurityError::StarttlsFailed(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn starttls_is_offered_taken_and_agreed_to() {
    let mut setup = setup(Role::Initiator, Some(ROMEO), Some(JULIET));
    setup.agenda = Agenda::Starttls;
    let (mut romeo, mut juliet) = (Side::new(setup), juliet());

    // Romeo ──► header; Juliet ──► header and features
    juliet.reads(romeo.written());
    let answer = juliet.written();
    assert!(answer.ends_with(&format!(" version='1.0' xml:lang='en'>{OFFER}")), "{answer}");
    assert!(!juliet.machine.is_open());
    // Romeo ──► starttls
    romeo.reads(answer);
    let request = romeo.written();
    assert_eq!(request, starttls());
    // Juliet ──► proceed
    juliet.reads(request);
    let agreement = juliet.written();
    assert_eq!(agreement, proceed());
    assert_eq!(juliet.machine.negotiated(), Some(Next::Tls));
    romeo.reads(agreement);
    assert_eq!(romeo.machine.negotiated(), Some(Next::Tls));
    assert_eq!((romeo.written(), juliet.written()), (String::new(), String::new()));
    assert!(!romeo.machine.is_open() && !juliet.machine.is_open());
    assert!(romeo.machine.check_open().is_err() && juliet.machine.check_open().is_err());
}

#[test]
fn an_offer_that_does_not_say_required_is_taken_too() {
    for features in [FEATURES_XEP_0246.to_owned(), FEATURES_REQUIRED.replace("</st", "<a xmlns='u'/></st")] {
        let mut romeo = romeo();
        romeo.reads(HEADER);
        romeo.reads(features);
        assert_eq!(romeo.written(), starttls());
    }
}

#[test]
fn without_an_offer_the_initiator_says_nothing_more() {
    let mechanisms =
        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>";
    for (features, offered) in [
        ("<stream:features/>".to_owned(), "nothing"),
        (format!("<stream:features>{mechanisms}<b xmlns='u'/></stream:features>"), "mechanisms, b"),
        ("<stream:features><starttls xmlns='urn:wrong'/></stream:features>".to_owned(), "starttls"),
        ("<message><body>psst</body></message>".to_owned(), "a stanza, and no stream features"),
        (FOOTER.to_owned(), "no stream features, and the end of the stream"),
    ] {
        let mut romeo = romeo();
        romeo.reads(HEADER);
        romeo.reads(&features);
        assert_eq!(security(&romeo), SecurityError::StarttlsNotOffered { offered: offered.to_owned() });
        let last = romeo.written();
        assert!(last.starts_with("<stream:error><policy-violation "), "{features}: {last}");
        assert!(last.ends_with(FOOTER));
        assert!(romeo.machine.next_stanza().is_none());
    }
}

#[test]
fn a_responder_without_features_does_not_have_it() {
    let mut romeo = romeo();
    romeo.reads(header_with("id='1'"));
    assert!(matches!(security(&romeo), SecurityError::StarttlsNotOffered { .. }));

    let mut romeo = self::romeo();
    romeo.reads(HEADER);
    // It is worth more than the three seconds that features usually get.
    romeo.after(Duration::from_secs(29));
    assert!(romeo.machine.error().is_none());
    romeo.after(Duration::from_secs(1));
    let offered = "no stream features".to_owned();
    assert_eq!(security(&romeo), SecurityError::StarttlsNotOffered { offered });
}

#[test]
fn a_refusal_ends_the_stream() {
    let mut romeo = romeo_who_asked();
    romeo.reads(failure());
    assert_eq!(failed(&romeo), "<failure/>");
    assert_eq!(romeo.written(), FOOTER);
}

#[test]
fn nothing_else_is_taken_for_an_agreement() {
    for other in [
        "<message><body>psst</body></message>",
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<presence/>",
        "<iq/>",
        OFFER,
        "<stream:features/>",
        "<proceed xmlns='urn:wrong'/>",
        "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    ] {
        let mut romeo = romeo_who_asked();
        romeo.reads(other);
        assert!(failed(&romeo).ends_with("in the clear"), "{other}");
        assert_eq!(romeo.machine.negotiated(), None);
        assert!(romeo.machine.next_stanza().is_none());
        let last = romeo.written();
        assert!(last.starts_with("<stream:error><policy-violation "), "{other}: {last}");
    }
}

#[test]
fn what_comes_before_the_offer_is_no_agreement() {
    let mut romeo = romeo();
    romeo.reads(HEADER);
    romeo.reads(proceed());
    assert_eq!(romeo.machine.negotiated(), None);
    romeo.reads(FEATURES_REQUIRED);
    assert_eq!(romeo.written(), starttls());
}

#[test]
fn nothing_is_delivered_in_the_clear() {
    for other in [
        "<message><body>psst</body></message>",
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='1'/>",
        "<presence/>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
        "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        "<starttls xmlns='urn:wrong'/>",
        "<stream:features/>",
    ] {
        let mut juliet = juliet_who_offered();
        let behind = juliet.reads(format!("{other}{}", starttls()));
        assert!(failed(&juliet).ends_with("in the clear"), "{other}");
        assert!(juliet.machine.next_stanza().is_none());
        assert!(juliet.machine.negotiated().is_none(), "{other}: {behind:?}");
        let last = juliet.written();
        assert!(last.starts_with("<stream:error><policy-violation "), "{other}: {last}");
        assert!(!last.contains("proceed") && last.ends_with(FOOTER));
    }
}

#[test]
fn what_is_no_stanza_at_all_is_the_violation_that_it_is() {
    let mut juliet = juliet_who_offered();
    juliet.reads("<starttls/>");
    assert_eq!(juliet.condition(), DefinedCondition::UnsupportedStanzaType);
}

#[test]
fn bytes_in_the_clear_behind_the_last_element_are_an_attack() {
    for injected in [" ", "\n", "x", "<message/>", HEADER, "\u{16}\u{3}\u{1}"] {
        let mut juliet = juliet_who_offered();
        juliet.reads(format!("{}{injected}", starttls()));
        assert!(failed(&juliet).contains("somebody in between"), "{injected:?}");
        let last = juliet.written();
        assert!(last.starts_with("<stream:error><policy-violation "), "it does not proceed: {last}");

        let mut romeo = romeo_who_asked();
        romeo.reads(format!("{}{injected}", proceed()));
        assert!(failed(&romeo).contains(&format!("{} bytes", injected.len())), "{injected:?}");
        assert_eq!(romeo.written(), "", "the responder listens to TLS only");
        assert_eq!((romeo.machine.negotiated(), juliet.machine.negotiated()), (None, None));
    }
}

#[test]
fn what_comes_later_is_left_to_tls() {
    let mut juliet = juliet_who_offered();
    juliet.reads(starttls());
    assert_eq!(juliet.reads("\u{16}\u{3}\u{1}"), "\u{16}\u{3}\u{1}".as_bytes());
    assert_eq!(juliet.machine.negotiated(), Some(Next::Tls));
}

#[test]
fn it_makes_no_difference_how_the_bytes_are_cut() {
    let answer = format!("{HEADER}{OFFER}");
    for cut in 0..=answer.len() {
        let mut romeo = romeo();
        let (one, other) = answer.split_at(cut);
        romeo.reads(one);
        romeo.reads(other);
        assert_eq!(romeo.written(), starttls(), "{cut}");
        let (one, other) = proceed().split_at(cut.min(proceed().len()));
        romeo.reads(one);
        romeo.reads(other);
        assert_eq!(romeo.machine.negotiated(), Some(Next::Tls), "{cut}");
    }
    let request = format!("{HEADER}{}", starttls());
    for cut in 0..=request.len() {
        let mut juliet = juliet();
        let (one, other) = request.split_at(cut);
        juliet.reads(one);
        juliet.reads(other);
        assert_eq!(juliet.machine.negotiated(), Some(Next::Tls), "{cut}");
        assert!(juliet.written().ends_with(&format!("{OFFER}{}", proceed())), "{cut}");
    }
}

#[test]
fn the_responder_has_to_know_who_to_expect() {
    let responder = |peer| {
        let mut setup = setup(Role::Responder, None, peer);
        setup.agenda = Agenda::Starttls;
        Side::new(setup)
    };
    // From the header, where nothing else says so.
    let mut juliet = responder(None);
    juliet.reads(header_with(&format!("version='1.0' from='{ROMEO}'")));
    assert_eq!(juliet.machine.peer(), Some(&jid(ROMEO)));
    juliet.reads(starttls());
    assert_eq!(juliet.machine.negotiated(), Some(Next::Tls));

    for (peer, attributes) in [
        (None, "version='1.0'"),
        (None, "version='1.0' from='@'"),
        (Some(ROMEO), "version='1.0' from='tybalt@capulet.example'"),
    ] {
        let mut juliet = responder(peer);
        juliet.reads(header_with(attributes));
        assert_eq!(juliet.condition(), DefinedCondition::InvalidFrom, "{attributes}");
        assert!(!juliet.written().contains("starttls"));
    }
}

#[test]
fn an_initiator_of_the_old_days_is_refused() {
    let mut juliet = juliet();
    juliet.reads(header_with(""));
    assert!(failed(&juliet).contains("before 1.0"));
    assert!(juliet.written().contains("<unsupported-version "));
}

#[test]
fn the_negotiation_has_one_deadline() {
    let text = |side: &mut Side| {
        assert!(matches!(side.machine.error(), Some(Error::Timeout(Step::StreamHeader, _))));
        side.written()
    };
    let (mut romeo, mut juliet) = (romeo_who_asked(), juliet_who_offered());
    for side in [&mut romeo, &mut juliet] {
        assert_eq!(side.machine.poll_timeout(), Some(side.now + Timeouts::default().stream_header));
        side.after(Timeouts::default().stream_header);
        assert!(text(side).contains("<connection-timeout "));
    }

    // It does not begin anew with each step.
    let mut romeo = self::romeo();
    romeo.after(Duration::from_secs(20));
    romeo.reads(HEADER);
    romeo.reads(OFFER);
    romeo.after(Duration::from_secs(10));
    assert!(text(&mut romeo).contains("<connection-timeout "));
}

#[test]
fn who_closes_instead_has_refused() {
    for (mut side, last) in [(juliet_who_offered(), FOOTER), (romeo_who_asked(), FOOTER)] {
        side.reads(FOOTER);
        assert!(matches!(security(&side), SecurityError::PeerRefused(Some(_))));
        assert_eq!(side.written(), last);
    }
}

#[test]
fn a_stream_error_instead_is_told() {
    let error =
        "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    for mut side in [juliet_who_offered(), romeo_who_asked()] {
        side.reads(error);
        let Some(Error::Stream(failure)) = side.machine.error() else { panic!("no stream error") };
        assert_eq!(failure.direction, Direction::Received);
        assert_eq!(side.written(), FOOTER);
    }
}

#[test]
fn a_user_who_gives_up_says_goodbye() {
    let mut juliet = juliet_who_offered();
    juliet.machine.close(juliet.now);
    assert_eq!(juliet.written(), FOOTER);
    assert!(juliet.machine.is_over());
}

#[test]
fn starttls_that_was_not_offered_is_refused() {
    let mut juliet = Side::open();
    juliet.reads(starttls());
    assert!(matches!(juliet.machine.error(), Some(Error::PeerMisbehaved(PeerMisbehaved::XmlStream(_)))));
    assert_eq!(juliet.written(), format!("{}{FOOTER}", failure()));
}

#[test]
fn elements_of_a_negotiation_that_there_is_not_are_skipped() {
    let sasl = |name: &str| format!("<{name} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AA==</{name}>");
    let mut elements = vec![proceed().to_owned(), failure().to_owned()];
    elements.extend(["auth", "challenge", "response", "success", "failure", "abort"].map(sasl));
    let mut romeo = Side::romeo();
    romeo.reads(format!("{HEADER}<stream:features/>"));
    romeo.written();
    for mut side in [Side::open(), romeo] {
        for element in &elements {
            side.reads(element);
            assert!(side.machine.is_open(), "{element}");
        }
        side.reads("<message><body>still here</body></message>");
        assert_eq!(side.hears().as_deref(), Some("still here"));
        assert_eq!(side.written(), "");
    }
    let mut romeo = Side::romeo();
    romeo.reads(format!("{HEADER}<stream:features/>{}", starttls()));
    assert!(romeo.machine.is_open(), "it is for initiators to say");
}

#[test]
fn an_element_of_a_negotiation_is_small() {
    for mut side in [juliet_who_offered(), romeo_who_asked(), Side::open()] {
        let text = "A".repeat(16 * 1024);
        side.reads(format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}"));
        assert_eq!(side.condition(), DefinedCondition::PolicyViolation);
    }
}
