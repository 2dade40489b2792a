//! What the initiator says with its header, before the responder has said anything.

use std::time::Duration;

use super::{
    acks::{a, managed, undelivered},
    support::{FOOTER, HEADER, Side, exchange, message},
};
use crate::{Error, PeerIncompatible, disco::EarlyData, stream::machine::Role};

const SM: &str = "<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>";
const NONE: &str = "<stream:features/>";
const ENABLED: &str = "<enabled xmlns='urn:xmpp:sm:3'/>";
const FAILED: &str = "<failed xmlns='urn:xmpp:sm:3'/>";

/// Romeo has said his header, and this behind it.
fn romeo(bodies: &[&str], responder: EarlyData) -> Side {
    let mut romeo = Side::new(managed(Role::Initiator));
    let stanzas = bodies.iter().map(|body| message(body)).collect();
    romeo.machine.say_early(romeo.now, stanzas, responder).unwrap();
    romeo
}

/// Where these come in what was said, in this order.
fn assert_order(said: &str, parts: &[&str]) {
    let mut rest = said;
    for part in parts {
        let (_, behind) = rest.split_once(part).unwrap_or_else(|| panic!("no {part} in {rest}"));
        rest = behind;
    }
}

#[test]
fn a_responder_that_takes_it_early_counts_it_too() {
    let mut romeo = romeo(&["one", "two"], EarlyData::Announced);
    let mut juliet = Side::new(managed(Role::Responder));
    let said = romeo.written();
    assert_order(&said, &["<stream:stream", "<enable", "one", "two"]);
    juliet.reads(said);
    assert_eq!([juliet.hears(), juliet.hears()], [Some("one".to_owned()), Some("two".to_owned())]);
    let answer = juliet.written();
    assert_order(&answer, &["<stream:stream", "<stream:features", "<enabled"]);

    romeo.reads(answer);
    assert!(romeo.machine.is_open() && romeo.machine.acknowledges());
    assert_eq!(romeo.machine.unacked(), 2);
    exchange(&mut romeo, &mut juliet);
    assert_eq!(romeo.machine.unacked(), 0);
}

#[test]
fn what_a_responder_has_not_counted_is_known_to_be_there_with_its_next_acknowledgement() {
    let mut romeo = romeo(&["one"], EarlyData::Unknown);
    let said = romeo.written();
    assert_order(&said, &["<stream:stream", "one"]);
    assert!(!said.contains("<enable"));
    romeo.reads(format!("{HEADER}{SM}"));
    assert!(romeo.written().contains("<enable"));
    romeo.says("two");
    assert_eq!(romeo.machine.unacked(), 2);

    romeo.reads(ENABLED);
    assert_eq!(romeo.machine.unacked(), 2);
    // It counts what comes behind <enable/>, and has handled none of that.
    romeo.reads(a(0));
    assert_eq!(romeo.machine.unacked(), 1);
    romeo.reads(a(1));
    assert_eq!(romeo.machine.unacked(), 0);
}

#[test]
fn what_nobody_has_acknowledged_comes_back_in_order() {
    for responder in [EarlyData::Announced, EarlyData::Unknown] {
        let mut romeo = romeo(&["one"], responder);
        romeo.reads(format!("{HEADER}{SM}"));
        romeo.says("two");
        romeo.reads(FOOTER.replace(
            "</",
            "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></",
        ));
        assert_eq!(undelivered(&romeo), ["one", "two"], "{responder:?}");
    }
}

#[test]
fn a_responder_that_leaves_at_once_has_taken_nothing() {
    for responder in [EarlyData::Announced, EarlyData::Unknown] {
        let mut romeo = romeo(&["one"], responder);
        romeo.reads(format!("{HEADER}{FOOTER}"));
        assert_eq!(undelivered(&romeo), ["one"], "{responder:?}");
    }
}

#[test]
fn a_responder_without_stream_management_is_taken_as_it_is() {
    for responder in [EarlyData::Announced, EarlyData::Unknown] {
        let mut romeo = romeo(&["one"], responder);
        romeo.reads(format!("{HEADER}{NONE}"));
        assert!(romeo.machine.is_open(), "{responder:?}");
        if responder == EarlyData::Announced {
            // Its answer to <enable/>.
            romeo.reads(FAILED);
        }
        assert!(!romeo.machine.acknowledges());
        assert_eq!(romeo.machine.unacked(), 0);
    }
}

#[test]
fn what_was_asked_for_with_the_header_is_remembered_whatever_the_features_say() {
    let said_late = |romeo: &mut Side| {
        romeo.reads(HEADER);
        // As long as features are waited for that a peer may leave out.
        romeo.after(Duration::from_secs(3));
    };
    let said_nothing_of_it = |romeo: &mut Side| drop(romeo.reads(format!("{HEADER}{NONE}")));
    for features in [&said_late as &dyn Fn(&mut Side), &said_nothing_of_it] {
        let mut romeo = romeo(&["one"], EarlyData::Announced);
        features(&mut romeo);
        assert!(romeo.machine.is_open());
        assert_eq!(romeo.machine.unacked(), 1);
        romeo.reads(ENABLED);
        assert!(romeo.machine.acknowledges());
        romeo.reads(a(1));
        assert_eq!(romeo.machine.unacked(), 0);
    }
}

#[test]
fn an_answer_that_is_here_before_the_features_is_taken() {
    let mut agreed = romeo(&["one"], EarlyData::Announced);
    agreed.reads(format!("{HEADER}{ENABLED}"));
    assert!(agreed.machine.is_open() && agreed.machine.acknowledges());
    agreed.reads(SM);
    agreed.reads(a(1));
    assert_eq!(agreed.machine.unacked(), 0);

    let mut refused = romeo(&["one"], EarlyData::Announced);
    refused.reads(format!("{HEADER}{FAILED}"));
    assert!(refused.machine.is_open() && !refused.machine.acknowledges());
    assert_eq!(refused.machine.unacked(), 0);
}

#[test]
fn acknowledgements_are_asked_for_with_the_header_where_that_is_announced() {
    let mut romeo = Side::new(managed(Role::Initiator));
    romeo.machine.enable_early(romeo.now, EarlyData::Unknown);
    assert!(!romeo.written().contains("<enable"));

    let mut romeo = Side::new(managed(Role::Initiator));
    let mut juliet = Side::new(managed(Role::Responder));
    romeo.machine.enable_early(romeo.now, EarlyData::Announced);
    let said = romeo.written();
    assert_order(&said, &["<stream:stream", "<enable"]);
    juliet.reads(said);
    let answer = juliet.written();
    assert_order(&answer, &["<stream:stream", "<stream:features", "<enabled"]);
    romeo.reads(answer);
    assert!(romeo.machine.acknowledges());
    assert_eq!(romeo.written(), "", "nothing is left to be said");
}

#[test]
fn a_stream_that_never_was_leaves_what_was_said_to_whoever_wanted_it() {
    let mut romeo = romeo(&["one"], EarlyData::Announced);
    romeo.machine.handle_end(crate::stream::machine::cut_off());
    assert!(matches!(romeo.machine.error(), Some(Error::Transport(_))));
}

#[test]
fn a_responder_that_wants_something_first_gets_no_second_copy() {
    let mut romeo = romeo(&["one"], EarlyData::Unknown);
    romeo.reads(format!(
        "{HEADER}<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
    ));
    let error = romeo.machine.error();
    assert!(
        matches!(error, Some(Error::PeerIncompatible(PeerIncompatible::MandatoryFeature(name))) if name == "starttls"),
        "{error:?}"
    );
}
