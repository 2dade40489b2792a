//! A SOCKS5 bytestream that Romeo offers, and what Juliet says before and with her answer.

use std::time::Duration;

use super::*;
use crate::{
    Candidates,
    session::Role,
    transport::s5b::{
        Output,
        candidate::{Parties, Reach},
    },
    wire::s5b::{MAX_CANDIDATES, Notification},
};

const SID: &str = "vj3hs98y";

fn candidate(host: &str, kind: CandidateType) -> Candidate {
    let (cid, host) = (format!("at {host}"), host.to_owned());
    Candidate { cid, host, port: 5086, jid: None, priority: 9, kind }
}

fn offer(ours: &[&str], candidates: When) -> S5bOffer {
    let setup = Setup {
        sid: SID.to_owned(),
        parties: Parties {
            own: "romeo@montague.lit/orchard".parse().unwrap(),
            peer: "juliet@capulet.lit/balcony".parse().unwrap(),
            role: Role::Initiator,
        },
        policy: Candidates::All,
        reach: Reach::default(),
        connect_timeout: Duration::from_secs(5),
        proxy_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(60),
    };
    S5bOffer::new(setup, ours.iter().map(|host| candidate(host, CandidateType::Direct)).collect(), candidates)
}

/// Juliet's `<transport/>` with these candidates.
fn with(hosts: &[&str]) -> S5bTransport {
    let candidates = hosts.iter().map(|host| candidate(host, CandidateType::Direct).to_wire()).collect();
    S5bTransport { sid: SID.to_owned(), candidates, ..S5bTransport::default() }
}

/// What Romeo does when Juliet accepts with this.
fn accepted(offer: S5bOffer, answer: &S5bTransport) -> Vec<String> {
    let mut now = Instant::now();
    let mut s5b = offer.accepted(&answer.to_element(), now).unwrap();
    let mut wants = Vec::new();
    for _ in 0..9 {
        while let Some(output) = s5b.poll_output() {
            wants.push(match output {
                Output::Dial(dial) => format!("dial {}", dial.host),
                Output::Info(info) => {
                    let info = S5bTransport::parse(&info).unwrap();
                    let hosts = info.candidates.iter().map(|candidate| candidate.host.as_str());
                    format!("offer {}", hosts.collect::<Vec<_>>().join(" "))
                }
                other => panic!("{other:?}"),
            });
        }
        now += Duration::from_millis(200);
        s5b.handle_timeout(now);
    }
    wants
}

fn refusal(offer: &mut S5bOffer, info: S5bTransport) -> StanzaError {
    *offer.handle_info(info).unwrap_err()
}

#[test]
fn candidates_before_the_answer_are_dialled_after_it() {
    let mut offer = offer(&["198.51.100.1"], When::WithTheOffer);
    offer.handle_info(with(&["192.0.2.1"])).unwrap();
    offer.handle_info(with(&[])).unwrap();
    offer.handle_info(with(&["192.0.2.2"])).unwrap();
    // One of them comes again.
    let answer = with(&["192.0.2.3", "192.0.2.1"]);
    assert_eq!(accepted(offer, &answer), ["dial 192.0.2.3", "dial 192.0.2.1", "dial 192.0.2.2"]);
}

#[test]
fn after_candidates_before_the_answer_more_may_come() {
    let mut offer = offer(&[], When::WithTheOffer);
    offer.handle_info(with(&["127.0.0.1"])).unwrap();
    // Otherwise a candidate-error would say that there is nothing to wait for: that address is not dialled.
    assert!(accepted(offer, &with(&[])).is_empty());
}

#[test]
fn what_can_not_be_said_before_the_answer_is_refused() {
    let mut offer = offer(&["198.51.100.1"], When::WithTheOffer);
    offer.handle_info(with(&["192.0.2.1"])).unwrap();

    let other = S5bTransport { sid: "other".to_owned(), ..with(&["192.0.2.2"]) };
    assert_eq!(refusal(&mut offer, other), errors::item_not_found("there is no bytestream with this sid"));
    let used = Some(Notification::CandidateUsed("at 198.51.100.1".to_owned()));
    let notification = S5bTransport { notification: used, ..with(&[]) };
    assert_eq!(refusal(&mut offer, notification), errors::out_of_order());
    let hint = S5bTransport { unsupported: true, ..with(&[]) };
    assert_eq!(refusal(&mut offer, hint), errors::unsupported_info());
    let twice = refusal(&mut offer, with(&["192.0.2.1"]));
    assert_eq!(twice, errors::bad_request("two candidates have the cid \"at 192.0.2.1\""));

    assert_eq!(accepted(offer, &with(&[])), ["dial 192.0.2.1"]);
}

#[test]
fn candidates_before_the_answer_are_as_many_as_in_an_answer() {
    let hosts: Vec<_> = (0..=MAX_CANDIDATES).map(|n| format!("192.0.2.{n}")).collect();
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    let (last, others) = hosts.split_last().unwrap();
    let mut offer = offer(&[], When::WithTheOffer);
    offer.handle_info(with(others)).unwrap();
    assert_eq!(refusal(&mut offer, with(&[last])), errors::bad_request("more than 64 candidates"));

    let unfit = offer.accepted(&with(&[last]).to_element(), Instant::now()).unwrap_err();
    assert_eq!(unfit.what, "more than 64 candidates");
}

#[test]
fn what_is_shown_after_the_answer_is_not_what_the_answer_has() {
    let ours = ["198.51.100.1", "198.51.100.2"];
    let answer = with(&["::ffff:198.51.100.1", "192.0.2.1"]);
    let wants = accepted(offer(&ours, When::OnceAccepted), &answer);
    assert_eq!(wants, ["offer 198.51.100.2", "dial ::ffff:198.51.100.1", "dial 192.0.2.1"]);

    // Nor what came before.
    let mut offer = offer(&ours, When::OnceAccepted);
    offer.handle_info(with(&["198.51.100.2"])).unwrap();
    assert_eq!(accepted(offer, &with(&[])), ["offer 198.51.100.1", "dial 198.51.100.2"]);
}
