//! Iq in both directions (RFC 6120 §8.2.3).

use std::time::Duration;

use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{iq::Iq, minidom::Element, stanza::Stanza};

use super::support::{FOOTER, JULIET, Side, setup};
use crate::{
    ApiMisuse, Error, PeerMisbehaved, Step, Timeouts,
    stream::{iq, machine::Role},
};

fn request(id: &str) -> String {
    format!("<iq type='get' id='{id}'><query xmlns='jabber:iq:version'/></iq>")
}

fn version() -> IqRequest {
    IqRequest::Get(Element::builder("query", "jabber:iq:version").build())
}

/// The id of the only request that was written.
fn written_id(side: &mut Side) -> String {
    let written = side.written();
    let (_, rest) = written.split_once(" id='").unwrap();
    rest.split_once('\'').unwrap().0.to_owned()
}

fn result(id: &str) -> Iq {
    Iq::Result { from: None, to: None, id: id.to_owned(), payload: None }
}

#[test]
fn a_reply_goes_to_its_request_and_strange_ones_to_the_user() {
    let mut juliet = Side::open();
    let mut first = juliet.machine.send_iq(juliet.now, version()).unwrap();
    let first_id = written_id(&mut juliet);
    let mut second = juliet.machine.send_iq(juliet.now, version()).unwrap();
    let second_id = written_id(&mut juliet);
    assert_ne!(first_id, second_id);

    let padded = second_id.replace('-', "-0");
    juliet.reads(format!(
        "<iq type='result' id='{second_id}'><query xmlns='jabber:iq:version'/></iq>\
         <iq type='result' id='{second_id}'/><iq type='result' id='{padded}'/><iq type='result' id='mine'/>"
    ));
    let Some(Ok(IqResponse::Result(Some(payload)))) = second.try_recv().unwrap() else { panic!("no result") };
    assert!(payload.is("query", "jabber:iq:version"));
    for id in [second_id.as_str(), &padded, "mine"] {
        let Some(Stanza::Iq(unexpected)) = juliet.machine.next_stanza() else { panic!("lost {id}") };
        assert_eq!(unexpected.id(), id);
    }

    assert!(first.try_recv().unwrap().is_none());
    juliet.reads(format!(
        "<iq type='error' id='{first_id}'><error type='cancel'>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    ));
    assert!(matches!(first.try_recv().unwrap(), Some(Ok(IqResponse::Error(_)))));
    assert!(juliet.machine.next_stanza().is_none());
}

#[test]
fn a_request_with_the_id_of_ours_is_no_reply() {
    let mut juliet = Side::open();
    let mut reply = juliet.machine.send_iq(juliet.now, version()).unwrap();
    let id = written_id(&mut juliet);
    juliet.reads(request(&id));
    assert!(matches!(juliet.machine.next_stanza(), Some(Stanza::Iq(Iq::Get { .. }))));
    juliet.reads(format!("<iq type='result' id='{id}'/>"));
    assert!(matches!(reply.try_recv().unwrap(), Some(Ok(IqResponse::Result(None)))));
}

#[test]
fn a_reply_that_does_not_come_is_a_timeout() {
    let mut juliet = Side::open();
    let mut early = juliet.machine.send_iq(juliet.now, version()).unwrap();
    juliet.written();
    juliet.after(Duration::from_secs(1));
    let mut late = juliet.machine.send_iq(juliet.now, version()).unwrap();
    let late_id = written_id(&mut juliet);
    let limit = Timeouts::default().iq;
    juliet.after(limit - Duration::from_secs(1));
    assert!(matches!(early.try_recv().unwrap(), Some(Err(Error::Timeout(Step::Iq, _)))));
    juliet.reads(format!("<iq type='result' id='{late_id}'/>"));
    assert!(matches!(late.try_recv().unwrap(), Some(Ok(_))));
}

#[test]
fn the_end_of_the_stream_is_the_end_of_all_requests() {
    let mut juliet = Side::open();
    let mut reply = juliet.machine.send_iq(juliet.now, version()).unwrap();
    juliet.machine.close(juliet.now);
    assert!(reply.try_recv().unwrap().is_none(), "it may yet come");
    juliet.reads(FOOTER);
    assert!(matches!(reply.try_recv().unwrap(), Some(Err(Error::ApiMisuse(ApiMisuse::StreamClosed)))));

    let mut juliet = Side::open();
    let mut reply = juliet.machine.send_iq(juliet.now, version()).unwrap();
    juliet.reads("<!---->");
    assert!(matches!(reply.try_recv().unwrap(), Some(Err(Error::Stream(_)))));
}

#[test]
fn a_payload_that_is_no_xml_is_refused() {
    let mut juliet = Side::open();
    let bad = Element::builder("query", "jabber:iq:version").append("\u{1}").build();
    let error = juliet.machine.send_iq(juliet.now, IqRequest::Set(bad)).unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::BadStanza(_))), "{error}");
    assert_eq!(juliet.written(), "");
}

#[test]
fn an_iq_without_an_id_gets_one() {
    let mut juliet = Side::open();
    let payload = Element::builder("query", "jabber:iq:version").build();
    let iq = Iq::Get { from: None, to: None, id: String::new(), payload };
    juliet.machine.send(juliet.now, Stanza::Iq(iq)).unwrap();
    assert!(!written_id(&mut juliet).is_empty());
}

#[test]
fn a_ping_is_answered_at_once_and_not_received() {
    let mut juliet = Side::open();
    juliet.reads("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_eq!(juliet.written(), "<iq type='result' id='p'></iq>");
    assert!(juliet.machine.next_stanza().is_none());
}

#[test]
fn a_request_that_nobody_answers_is_refused_once() {
    let mut juliet = Side::open();
    juliet.reads(request("a") + &request("b"));
    juliet.machine.send(juliet.now, Stanza::Iq(result("a"))).unwrap();
    juliet.written();
    let limit = Timeouts::default().iq_unanswered;
    assert_eq!(juliet.machine.poll_timeout(), Some(juliet.now + limit));
    juliet.after(limit);
    let refusal = juliet.written();
    assert!(
        refusal.starts_with("<iq type='error' id='b'><error type='cancel'><service-unavailable "),
        "{refusal}"
    );
    assert_eq!(refusal.matches("<iq ").count(), 1, "{refusal}");
    juliet.after(limit);
    assert_eq!(juliet.written(), "");
}

#[test]
fn a_request_has_one_answer() {
    let mut juliet = Side::open();
    juliet.reads(request("a") + &request("b") + "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    juliet.machine.send(juliet.now, Stanza::Iq(result("a"))).unwrap();
    juliet.after(Timeouts::default().iq_unanswered);
    juliet.written();
    // Answered by the user, by the stream, by the stream at once; and never asked.
    for id in ["a", "b", "p", "never"] {
        juliet.machine.send(juliet.now, Stanza::Iq(result(id))).unwrap();
        juliet.machine.send(juliet.now, Stanza::Iq(iq::unanswered(id.to_owned()))).unwrap();
        assert_eq!(juliet.written(), "", "{id}");
    }
}

#[test]
fn a_malformed_reply_ends_the_waiting() {
    for (kind, content) in [("result", "<a xmlns='b'/><a xmlns='b'/>"), ("error", "")] {
        let mut juliet = Side::open();
        let mut reply = juliet.machine.send_iq(juliet.now, version()).unwrap();
        let id = written_id(&mut juliet);
        juliet.reads(format!("<iq type='{kind}' id='other'>{content}</iq>"));
        assert!(reply.try_recv().unwrap().is_none(), "it is not about this one");
        juliet.reads(format!("<iq type='{kind}' id='{id}'>{content}</iq>"));
        match reply.try_recv().unwrap() {
            Some(Err(Error::PeerMisbehaved(PeerMisbehaved::XmlStream(_)))) => {}
            other => panic!("{kind}: {other:?}"),
        }
        assert!(juliet.machine.is_open());
        assert_eq!(juliet.written(), "", "a reply gets no reply");
    }
}

#[test]
fn an_id_that_is_used_twice_is_answered_twice() {
    let mut juliet = Side::open();
    juliet.reads(request("same") + &request("same"));
    juliet.machine.send(juliet.now, Stanza::Iq(result("same"))).unwrap();
    juliet.written();
    juliet.after(Timeouts::default().iq_unanswered);
    assert_eq!(juliet.written().matches(" id='same'>").count(), 1);
}

#[test]
fn too_many_requests_are_refused() {
    let mut setup = setup(Role::Responder, None, None);
    setup.limits.pending_requests = 2;
    let mut side = Side::open_with(Side::new(setup));
    side.reads(request("a") + &request("b") + &request("c"));
    let refusal = side.written();
    assert!(
        refusal.starts_with("<iq type='error' id='c'><error type='wait'><resource-constraint "),
        "{refusal}"
    );
    side.machine.send(side.now, Stanza::Iq(result("b"))).unwrap();
    side.written();
    side.reads(request("d"));
    assert_eq!(side.written(), "", "there is room again");
    let ids: Vec<_> = std::iter::from_fn(|| side.machine.next_stanza())
        .map(|stanza| if let Stanza::Iq(iq) = stanza { iq.id().to_owned() } else { panic!("no iq") })
        .collect();
    assert_eq!(ids, ["a", "b", "d"]);
}

#[test]
fn what_is_pending_is_refused_before_the_footer_of_either_side() {
    for we_close in [true, false] {
        let mut juliet = Side::open();
        juliet.reads(request("a"));
        if we_close {
            juliet.machine.close(juliet.now);
        } else {
            juliet.reads(FOOTER);
        }
        let last = juliet.written();
        assert!(last.starts_with("<iq type='error' id='a'>"), "{last}");
        assert!(last.ends_with(&format!("</iq>{FOOTER}")), "{last}");
    }
}

#[test]
fn without_a_receiver_requests_are_refused_at_once() {
    let mut juliet = Side::open();
    juliet.reads(request("a") + "<message/>");
    juliet.machine.stop_receiving(juliet.now);
    assert!(juliet.written().starts_with("<iq type='error' id='a'>"));
    juliet.reads(request("b") + "<message/>");
    assert!(juliet.written().starts_with("<iq type='error' id='b'>"));
    assert!(juliet.machine.next_stanza().is_none());
    assert!(!juliet.machine.is_inbox_full());
}

#[test]
fn a_malformed_request_is_told_so() {
    let mut juliet = Side::open();
    juliet.reads("<iq type='get' id='empty'/><iq type='result' id='x'><a xmlns='b'/><a xmlns='b'/></iq>");
    let refusal = juliet.written();
    assert!(
        refusal.starts_with("<iq type='error' id='empty'><error type='modify'><bad-request "),
        "{refusal}"
    );
    assert_eq!(refusal.matches("<iq ").count(), 1, "a reply gets no reply: {refusal}");
    juliet.reads("<iq type='set' id='two'><a xmlns='b'><c/></a><a xmlns='b'/></iq>");
    let refusal = juliet.written();
    assert!(refusal.starts_with("<iq type='error' id='two'><error type='modify'><bad-request "), "{refusal}");
    assert!(juliet.machine.next_stanza().is_none());
    assert!(juliet.machine.is_open());
}

#[test]
fn a_peer_that_does_not_read_its_answers_is_stopped() {
    let mut juliet = Side::open();
    let pings = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>".repeat(1_000);
    let mut rounds = 0;
    while juliet.machine.is_open() {
        juliet.reads(&pings);
        rounds += 1;
        assert!(rounds < 1_000, "it goes on for ever");
    }
    assert_eq!(juliet.condition().to_string(), "policy-violation");
    assert!(juliet.machine.outgoing_len() < 3_000_000);
}

#[test]
fn the_ids_of_unanswered_requests_are_kept_only_if_they_are_of_a_usual_length() {
    let mut juliet = Side::open();
    let (usual, long) = ("u".repeat(1024), "l".repeat(1025));
    juliet.reads(request(&usual) + &request(&long));
    assert!(juliet.written().contains("resource-constraint"), "the long one is refused at once");
    let Some(Stanza::Iq(delivered)) = juliet.machine.next_stanza() else { panic!("nothing was delivered") };
    assert_eq!(delivered.id(), usual);
    assert!(juliet.machine.next_stanza().is_none());
}

#[test]
fn many_small_stanzas_fill_the_inbox_by_what_they_take_in_memory() {
    let romeo = format!("romeo@montague.example/{}", "r".repeat(1000));
    let mut juliet = Side::open_with(Side::new(setup(Role::Responder, Some(JULIET), Some(&romeo))));
    let limit = crate::Limits::default().inbox_bytes;
    let mut stanzas = 0;
    while !juliet.machine.is_inbox_full() {
        juliet.reads("<message/>");
        stanzas += 1;
    }
    assert!(stanzas * romeo.len() <= limit, "{stanzas} stanzas, each with two addresses");
}
