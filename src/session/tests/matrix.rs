//! Every Jingle action in every state of a session, from its peer and from others.

use super::*;
use crate::{
    Candidates,
    transport::s5b::candidate::{Connection, SocketId},
};

/// What the session of [`Scene`] is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    None,
    Preparing,
    Gathering,
    OfferedUnacked,
    Offered,
    Ringing,
    Accepting,
    ActiveInitiator,
    ActiveResponder,
    /// SOCKS5 is being connected.
    Connecting,
    /// SOCKS5 found no way, and the initiator is to replace it.
    Unconnected,
    /// SOCKS5 found no way, and we sent transport-replace.
    Replacing,
    /// The peer wants to move the stream, and we look for our addresses.
    Answering,
    /// The stream is in band, and SOCKS5 is being connected.
    ConnectingToMove,
    Moving,
    /// Ended on the wire, and kept by its user.
    Ended,
}

const STATES: [At; 16] = [
    At::None,
    At::Preparing,
    At::Gathering,
    At::OfferedUnacked,
    At::Offered,
    At::Ringing,
    At::Accepting,
    At::ActiveInitiator,
    At::ActiveResponder,
    At::Connecting,
    At::Unconnected,
    At::Replacing,
    At::Answering,
    At::ConnectingToMove,
    At::Moving,
    At::Ended,
];

/// The states that a session without SOCKS5 can't be in.
fn needs_s5b(at: At) -> bool {
    use At::{Accepting, Answering, Connecting, ConnectingToMove, Gathering, Moving, Replacing, Unconnected};
    let all = [Gathering, Accepting, Connecting, Unconnected, Replacing, Answering, ConnectingToMove, Moving];
    all.contains(&at)
}

/// Whether our own addresses are to be found out.
fn needs_addresses(at: At) -> bool {
    matches!(at, At::Gathering | At::Accepting | At::Answering)
}

/// A SOCKS5 transport with this inside.
fn s5b(sid: &str, inner: &str) -> String {
    format!("<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='{sid}'>{inner}</transport>")
}

const CANDIDATE: &str =
    "<candidate cid='c' host='192.0.2.1' jid='juliet@capulet.lit/balcony' port='5086' priority='8257636'/>";

const ACTIONS: [&str; 16] = [
    "content-accept",
    "content-add",
    "content-modify",
    "content-reject",
    "content-remove",
    "description-info",
    "security-info",
    "session-accept",
    "session-info",
    "session-initiate",
    "session-terminate",
    "transport-accept",
    "transport-info",
    "transport-reject",
    "transport-replace",
    "session-dance",
];

/// Whether what the request says fits the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Right,
    Wrong,
}

/// Romeo in some state of a session with Juliet.
struct Scene {
    now: Instant,
    romeo: End,
    id: Option<SessionId>,
    sid: String,
    bytestream: String,
}

impl Scene {
    fn set(at: At) -> Self {
        let now = Instant::now();
        let mut config = config(Romeo);
        if needs_s5b(at) {
            config = config.transports(Transports::Auto);
        }
        if !needs_addresses(at) {
            config.s5b.candidates = Candidates::None;
        }
        let romeo = End::new(Romeo, config, now);
        let mut scene = Self { now, romeo, id: None, sid: "851ba2".into(), bytestream: "vj3hs98y".into() };
        match at {
            At::None => {}
            At::Preparing => drop(scene.prepare()),
            At::OfferedUnacked => drop(scene.offer()),
            At::Offered => scene.offer_and_ack(),
            At::Ringing => scene.ring(),
            At::ActiveInitiator => {
                scene.offer_and_ack();
                let accept = scene.request("session-accept", Says::Right);
                assert_eq!(scene.hears(JULIET, &accept), ["result", "set security-info", "set open"]);
            }
            At::ActiveResponder => {
                scene.ring();
                scene.romeo.sessions.accept(now, scene.id.unwrap()).unwrap();
                assert_eq!(
                    scene.romeo.sent().iter().map(describe).collect::<Vec<_>>(),
                    ["set session-accept"]
                );
            }
            At::Gathering => {
                let asked = scene.prepare();
                let features = [FEATURES.as_slice(), &[ns::JINGLE_S5B]].concat();
                scene.romeo.receives(now, &disco_result(asked[0].attr("id").unwrap(), &features));
                scene.romeo.sent();
            }
            At::Accepting => {
                scene.ring_with(&s5b("vj3hs98y", CANDIDATE));
                scene.romeo.sessions.accept(now, scene.id.unwrap()).unwrap();
                assert_eq!(scene.romeo.state(scene.id.unwrap()), "accepting");
                scene.romeo.sent();
            }
            At::Connecting => scene.connect(),
            At::Unconnected => {
                scene.connect();
                scene.fail_to_dial();
                scene.say_candidate_error("vj3hs98y");
            }
            At::Replacing => {
                let offer = scene.offer_s5b();
                let sid = find(&offer, "transport").attr("sid").unwrap().to_owned();
                let accepted = format!("{DESCRIPTION}{}{SECURITY}", s5b(&sid, CANDIDATE));
                let accept = jingle("session-accept", &scene.sid, &content("name='xmlstream'", &accepted));
                assert_eq!(scene.hears(JULIET, &accept), ["result", "set security-info"]);
                scene.fail_to_dial();
                let sent = scene.say_candidate_error(&sid);
                assert_eq!(sent.last().unwrap(), "set transport-replace");
            }
            At::Answering => {
                scene.ring_open();
                assert_eq!(scene.propose_move(), ["result"]);
            }
            At::ConnectingToMove => {
                scene.ring_open();
                assert_eq!(scene.propose_move(), ["result", "set transport-accept"]);
            }
            At::Moving => {
                scene.ring_open();
                scene.propose_move();
                scene.dialled(Ok(()));
                let sent = scene.say_candidate_error("moved");
                assert_eq!(sent, ["set transport-info candidate-used", "result", "set close"]);
            }
            At::Ended => {
                scene.ring();
                scene.hears(JULIET, &jingle("session-terminate", "851ba2", "<reason><busy/></reason>"));
            }
        }
        scene
    }

    fn prepare(&mut self) -> Vec<Element> {
        self.id = Some(self.romeo.sessions.connect(self.now, jid(JULIET), None).unwrap());
        self.romeo.sent()
    }

    fn offer(&mut self) -> Element {
        let asked = self.prepare();
        let answer = disco_result(asked[0].attr("id").unwrap(), &FEATURES);
        self.romeo.receives(self.now, &answer);
        let offer = self.romeo.sent().remove(0);
        self.sid = find(&offer, "jingle").attr("sid").unwrap().to_owned();
        self.bytestream = find(&offer, "transport").attr("sid").unwrap().to_owned();
        offer
    }

    fn offer_and_ack(&mut self) {
        let offer = self.offer();
        self.romeo.receives(self.now, &ack(&offer));
    }

    fn ring(&mut self) {
        self.ring_with(TRANSPORT);
    }

    fn ring_with(&mut self, transport: &str) {
        let offer = content("name='xmlstream'", &format!("{DESCRIPTION}{transport}{SECURITY}"));
        assert_eq!(self.hears(JULIET, &jingle("session-initiate", "851ba2", &offer)), ["result"]);
        self.id = self.romeo.incoming.pop_front();
    }

    // ---- with SOCKS5 ---------------------------------------------------------------------

    /// As responder.
    fn connect(&mut self) {
        self.ring_with(&s5b("vj3hs98y", CANDIDATE));
        self.romeo.sessions.accept(self.now, self.id.unwrap()).unwrap();
        self.romeo.sent();
    }

    fn offer_s5b(&mut self) -> Element {
        let asked = self.prepare();
        let features = [FEATURES.as_slice(), &[ns::JINGLE_S5B]].concat();
        self.romeo.receives(self.now, &disco_result(asked[0].attr("id").unwrap(), &features));
        let offer = self.romeo.sent().remove(0);
        self.sid = find(&offer, "jingle").attr("sid").unwrap().to_owned();
        self.romeo.receives(self.now, &ack(&offer));
        offer
    }

    /// As responder, with the bytestream open in band.
    fn ring_open(&mut self) {
        self.ring();
        self.romeo.sessions.accept(self.now, self.id.unwrap()).unwrap();
        self.romeo.sent();
        let open = "<open xmlns='http://jabber.org/protocol/ibb' sid='vj3hs98y' block-size='4096'/>";
        assert_eq!(self.hears(JULIET, open), ["result"]);
    }

    fn propose_move(&mut self) -> Vec<String> {
        let replace = content("name='xmlstream'", &s5b("moved", CANDIDATE));
        self.hears(JULIET, &jingle("transport-replace", "851ba2", &replace))
    }

    fn fail_to_dial(&mut self) {
        self.dialled(Err("refused".to_owned()));
        self.romeo.sent();
    }

    fn dialled(&mut self, result: Result<(), String>) {
        let dialled = std::mem::take(&mut self.romeo.effects).into_iter().find_map(|effect| match effect {
            Effect::Dial(token, ..) => Some(token),
            _ => None,
        });
        let address = "192.0.2.7:5086".parse().unwrap();
        let connection = Connection { socket: SocketId(1), local: address, remote: address };
        let result = result.map(|()| connection);
        assert!(self.romeo.sessions.handle_dialed(self.now, dialled.unwrap(), result));
    }

    fn say_candidate_error(&mut self, bytestream: &str) -> Vec<String> {
        let word = content("name='xmlstream'", &s5b(bytestream, "<candidate-error/>"));
        self.hears(JULIET, &jingle("transport-info", &self.sid.clone(), &word))
    }

    fn hears(&mut self, from: &str, payload: &str) -> Vec<String> {
        let mut sent = self.romeo.hears(self.now, from, payload);
        // His own server, about relays.
        sent.retain(|line| line != "get query");
        sent
    }

    fn state(&self) -> &'static str {
        self.id.map_or("none", |id| self.romeo.state(id))
    }

    /// A request about the session.
    fn request(&self, action: &str, says: Says) -> String {
        let transport = TRANSPORT.replace("vj3hs98y", &self.bytestream);
        let name = match says {
            Says::Right => "name='xmlstream'",
            Says::Wrong => "name='another'",
        };
        let full = format!("{DESCRIPTION}{transport}{SECURITY}");
        let children = match (action, says) {
            ("session-initiate", Says::Wrong) => String::new(),
            ("session-initiate", Says::Right) => return initiate(&self.sid),
            ("session-accept", _) => content(name, &full),
            ("session-terminate", Says::Right) => "<reason><success/></reason>".to_owned(),
            ("session-terminate", Says::Wrong) => "<reason><because-i-can/></reason>".to_owned(),
            ("session-info", Says::Right) => String::new(),
            ("session-info", Says::Wrong) => "<ringing xmlns='urn:xmpp:jingle:apps:rtp:info:1'/>".to_owned(),
            // Something that is there already can't be added.
            ("content-add", Says::Right) => content("name='another'", &full),
            ("content-add", Says::Wrong) => content("name='xmlstream'", &full),
            ("content-modify", _) => content(&format!("{name} senders='initiator'"), ""),
            ("security-info", _) => content(name, SECURITY),
            ("transport-replace", _) => content(name, &transport),
            _ => content(name, ""),
        };
        jingle(action, &self.sid, &children)
    }
}

const UNKNOWN_SESSION: &str = "error cancel item-not-found unknown-session";
const OUT_OF_ORDER: &str = "error wait unexpected-request out-of-order";
const UNSUPPORTED_INFO: &str = "error modify feature-not-implemented unsupported-info";
const BAD_REQUEST: &str = "error cancel bad-request";
const NO_SUCH_CONTENT: &str = "error cancel item-not-found";

/// What is sent in answer, and the state afterwards; `None`: the same as before.
type Expected = (&'static [&'static str], Option<&'static str>);

/// What the peer's request leads to.
fn expected(at: At, action: &str, says: Says) -> Expected {
    use Says::{Right, Wrong};
    let known = !matches!(at, At::None | At::Preparing | At::Gathering | At::Ended);
    let offered = matches!(at, At::OfferedUnacked | At::Offered);
    match (action, says) {
        ("session-dance", _) | ("session-initiate", Wrong) => (&[BAD_REQUEST], None),
        ("session-initiate", Right) if !known => (&["result"], None),
        // The same sid: the lower JID overrules, which is Juliet's.
        ("session-initiate", Right) if at == At::OfferedUnacked => {
            (&["result", "set session-accept"], Some("active as responder"))
        }
        ("session-initiate", Right) => (&[OUT_OF_ORDER], None),
        _ if !known => (&[UNKNOWN_SESSION], None),

        ("session-accept", Right) if offered => {
            (&["result", "set security-info", "set open"], Some("active as initiator"))
        }
        ("session-accept", Wrong) if offered => {
            (&[BAD_REQUEST, "set session-terminate general-error"], Some("ended"))
        }
        ("session-accept", _) => (&[OUT_OF_ORDER], None),
        ("session-terminate", _) => (&["result"], Some("ended")),
        ("session-info", Right) => (&["result"], None),
        ("session-info", Wrong) => (&[UNSUPPORTED_INFO], None),

        ("security-info", Right) => (&["result"], None),
        ("description-info" | "transport-info", Right) => (&[UNSUPPORTED_INFO], None),
        ("transport-replace", Right) if matches!(at, At::Connecting | At::Unconnected) => {
            (&["result", "set transport-accept"], None)
        }
        ("transport-replace", Right) if at == At::Replacing => (&["error cancel conflict tie-break"], None),
        // Without a <transport/>.
        ("transport-accept", Right) if at == At::Replacing => (
            &[BAD_REQUEST, "set session-terminate connectivity-error", "set session-initiate"],
            Some("offered"),
        ),
        ("transport-reject", Right) if at == At::Replacing => {
            (&["result", "set session-terminate connectivity-error", "set session-initiate"], Some("offered"))
        }
        ("transport-accept" | "transport-reject", Wrong) if at == At::Replacing => (&[NO_SUCH_CONTENT], None),
        ("transport-replace", Right) => (&["result", "set transport-reject"], None),
        ("content-add", Right) => (&["result", "set content-reject"], None),
        ("content-add", Wrong) => (&[BAD_REQUEST], None),
        ("content-modify", Right) => (&["result", "set content-modify"], None),
        ("content-remove", Right) => (&["result", "set session-terminate success"], Some("ended")),
        ("transport-accept" | "transport-reject" | "content-accept" | "content-reject", _) => {
            (&[OUT_OF_ORDER], None)
        }
        (_, Wrong) => (&[NO_SUCH_CONTENT], None),
        (_, Right) => panic!("nothing is expected of {action}"),
    }
}

#[test]
fn every_action_in_every_state_is_answered_as_it_must_be() {
    for at in STATES {
        for action in ACTIONS {
            for says in [Says::Right, Says::Wrong] {
                let mut scene = Scene::set(at);
                let before = scene.state();
                let request = scene.request(action, says);
                let sent = scene.hears(JULIET, &request);
                let (answer, after) = expected(at, action, says);
                assert_eq!(sent, answer, "{at:?}, {action}, {says:?}");
                assert_eq!(scene.state(), after.unwrap_or(before), "{at:?}, {action}, {says:?}");
                let rings = action == "session-initiate" && answer == ["result"];
                assert_eq!(scene.romeo.incoming.len(), usize::from(rings), "{at:?}, {action}, {says:?}");
            }
        }
    }
}

#[test]
fn nobody_but_the_peer_can_reach_a_session() {
    for stranger in
        ["juliet@capulet.lit/chamber", "mallory@montague.lit/orchard", "juliet@capulet.lit", ROMEO]
    {
        for (at, action, says) in cells() {
            let mut scene = Scene::set(at);
            let before = scene.state();
            let request = scene.request(action, says);
            let sent = scene.hears(stranger, &request);
            let (answer, _) = match stranger.contains('/') {
                true => expected(At::None, action, says),
                false => ([BAD_REQUEST].as_slice(), None),
            };
            assert_eq!(sent, answer, "{stranger}, {at:?}, {action}, {says:?}");
            assert_eq!(scene.state(), before, "{stranger}, {at:?}, {action}, {says:?}");

            // And the session goes on as if nothing had been.
            if before == "offered" {
                let accept = scene.request("session-accept", Says::Right);
                assert_eq!(scene.hears(JULIET, &accept), ["result", "set security-info", "set open"]);
            }
        }
    }
}

fn cells() -> impl Iterator<Item = (At, &'static str, Says)> {
    let says = [Says::Right, Says::Wrong];
    let row = move |at| ACTIONS.into_iter().flat_map(move |action| says.map(|says| (at, action, says)));
    STATES.into_iter().flat_map(row)
}

#[test]
fn a_request_that_names_no_content_is_refused_where_one_is_needed() {
    for at in [At::Offered, At::Ringing, At::ActiveInitiator, At::ActiveResponder] {
        for action in [
            "security-info",
            "description-info",
            "transport-info",
            "transport-replace",
            "content-add",
            "content-modify",
            "content-remove",
        ] {
            let mut scene = Scene::set(at);
            let before = scene.state();
            let request = jingle(action, &scene.sid, "");
            assert_eq!(scene.hears(JULIET, &request), [BAD_REQUEST], "{at:?}, {action}");
            assert_eq!(scene.state(), before);
        }
    }
}

#[test]
fn a_security_info_must_choose_a_method_that_we_have() {
    let mut scene = Scene::set(At::ActiveResponder);
    for security in [
        "",
        "<security xmlns='urn:xmpp:jingle:security:xtls:0'><method name='srp'/></security>",
        "<security xmlns='urn:xmpp:jingle:security:stub:0'/>",
    ] {
        let info = jingle("security-info", "851ba2", &content("name='xmlstream'", security));
        assert_eq!(scene.hears(JULIET, &info), [UNSUPPORTED_INFO], "{security}");
    }
}

#[test]
fn a_transport_replace_is_rejected_with_the_transport_that_it_offered() {
    let mut scene = Scene::set(At::ActiveResponder);
    let s5b = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='new'/>";
    let replace = jingle("transport-replace", "851ba2", &content("name='xmlstream'", s5b));
    let iq = format!("<iq xmlns='jabber:client' type='set' id='x' from='{JULIET}'>{replace}</iq>");
    scene.romeo.receives(scene.now, &iq.parse().unwrap());
    let sent = scene.romeo.sent();
    let transport = find(&sent[1], "transport");
    assert!(transport.has_ns("urn:xmpp:jingle:transports:s5b:1") && transport.attr("sid") == Some("new"));

    let without = jingle("transport-replace", "851ba2", &content("name='xmlstream'", ""));
    assert_eq!(scene.hears(JULIET, &without), [BAD_REQUEST]);
}

#[test]
fn a_stream_stays_open_in_both_directions() {
    let mut scene = Scene::set(At::ActiveResponder);
    let both = jingle("content-modify", "851ba2", &content("name='xmlstream' senders='both'", ""));
    assert_eq!(scene.hears(JULIET, &both), ["result"], "there is nothing to contradict");

    let one_way = jingle("content-modify", "851ba2", &content("name='xmlstream' senders='initiator'", ""));
    let iq = format!("<iq xmlns='jabber:client' type='set' id='x' from='{JULIET}'>{one_way}</iq>");
    scene.romeo.receives(scene.now, &iq.parse().unwrap());
    let sent = scene.romeo.sent();
    // Required here, though it is the default (XEP-0166 #def-content).
    assert_eq!(find(&sent[1], "content").attr("senders"), Some("both"));
}

#[test]
fn an_acknowledgement_that_never_comes_is_not_waited_for_where_nothing_depends_on_it() {
    let mut scene = Scene::set(At::ActiveResponder);
    scene.romeo.sessions.requests.drain();
    for _ in 0..100 {
        for action in ["content-add", "content-modify", "transport-replace"] {
            let request = scene.request(action, Says::Right);
            assert_eq!(scene.hears(JULIET, &request).len(), 2);
        }
        let elsewhere = jingle(
            "session-initiate",
            "other",
            &content("name='a'", &format!("<description xmlns='urn:a'/>{TRANSPORT}")),
        );
        assert_eq!(
            scene.hears(JULIET, &elsewhere),
            ["result", "set session-terminate unsupported-applications"]
        );
    }
    assert!(scene.romeo.sessions.requests.is_empty(), "a peer can make us remember what it never answers");
}
