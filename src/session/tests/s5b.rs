//! SOCKS5 bytestreams in sessions, as XEP-0260 draws them, and what is offered to whom.

use super::{
    net::{ADDRESSES, Got, Path, User},
    *,
};
use crate::{Candidates, Start, transport::TransportInfo};

/// Romeo's stream with Juliet is open, and nothing is under way.
fn connected(pair: &mut Pair) -> (User, User) {
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(3));
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert!(pair.end(Romeo).is_open(romeos) && pair.end(Juliet).is_open(juliets), "{:#?}", pair.log);
    (User::new(Romeo, romeos), User::new(Juliet, juliets))
}

/// The transport and the types of its candidates.
fn transport(stanza: &Element) -> String {
    let transport = find(stanza, "transport");
    let method = if transport.ns().contains("ibb") { "ibb" } else { "s5b" };
    let types = transport.children().filter_map(|candidate| candidate.attr("type"));
    format!("{method} {}", types.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
}

fn method(pair: &mut Pair, side: Side, id: SessionId) -> Option<&'static str> {
    pair.end(side).sessions.transport_info(id).as_ref().map(TransportInfo::method)
}

#[test]
fn the_flow_of_xep_0260_with_direct_candidates() {
    let mut pair = Pair::s5b(|_, config| config);
    let romeos = pair.connect(Romeo);
    pair.live(Duration::from_secs(1));
    assert_eq!(
        pair.take_log(),
        ["romeo: get query", "juliet: result query", "romeo: set session-initiate", "juliet: result"]
    );
    let juliets = pair.accept(Juliet);
    pair.settle();
    assert_eq!(
        pair.take_log(),
        [
            "juliet: set session-accept",
            "romeo: result",
            "romeo: set security-info",
            "juliet: result",
            "juliet: set transport-info candidate-used",
            "romeo: result",
            // What she uses is preferred to all of hers, so he need not try any more.
            "romeo: set transport-info candidate-error",
            "juliet: result",
        ]
    );
    assert_eq!(pair.net.held(Romeo), 1, "the connection, which nobody has taken yet");
    let (mut romeo, mut juliet) = (User::new(Romeo, romeos), User::new(Juliet, juliets));
    romeo.say(&mut pair, b"to Juliet");
    juliet.say(&mut pair, b"to Romeo");
    assert_eq!(juliet.drain(&mut pair), (b"to Juliet".to_vec(), Got::Nothing));
    assert_eq!(romeo.drain(&mut pair), (b"to Romeo".to_vec(), Got::Nothing));
    assert_eq!(pair.take_log(), [""; 0], "nothing of it goes through the servers");

    assert!(romeo.shutdown(&mut pair).unwrap());
    assert_eq!(juliet.drain(&mut pair).1, Got::End);
    pair.terminate(Romeo, romeos, Reason::Success, None);
    pair.leave(romeos, juliets);
    assert!(!pair.net.is_listening(Romeo) || pair.net.is_listening(Juliet));
}
