//! In-band bytestreams between two ends in memory, in virtual time.

mod closing;
mod early;
mod limits;
mod random;
mod sequence;

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use xmpp_parsers::{
    minidom::Element,
    stanza_error::{DefinedCondition, StanzaError},
};

use super::{Ibb, Output, Read, Request, ibb};
use crate::{
    Error, IbbConfig, PeerMisbehaved, Step, Timeouts, TransportError,
    disco::InBand,
    wire::{
        errors,
        ibb::{Close, Data, Open, data_element},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The initiator: opens.
    Romeo,
    /// The responder.
    Juliet,
}
use Side::{Juliet, Romeo};

impl Side {
    fn other(self) -> Self {
        match self {
            Romeo => Juliet,
            Juliet => Romeo,
        }
    }
}

/// An iq, without its addresses.
#[derive(Clone, Debug)]
enum Packet {
    Set(String, Element),
    Reply(String, Result<(), StanzaError>),
}

/// Two ends of a bytestream; what one sends waits until the test delivers it.
struct Pair {
    now: Instant,
    timeouts: Timeouts,
    ends: [Ibb; 2],
    /// What is on the way to each.
    inbox: [VecDeque<Packet>; 2],
    /// What each waits for.
    asked: [HashMap<String, Request>; 2],
    failed: [Option<Error>; 2],
    next_id: u32,
    log: Vec<String>,
}

impl Pair {
    /// Negotiated, with `<open/>` on its way.
    fn new(romeo: IbbConfig, juliet: IbbConfig) -> Self {
        let (now, timeouts) = (Instant::now(), Timeouts::default());
        let offer = ibb::Offer::new("ch3d9s71".to_owned(), InBand::V1, &romeo);
        let accepted = ibb::Offer::from_peer(&offer.to_element(), &juliet).unwrap().unwrap();
        let agreed = offer.narrowed(&accepted.to_element()).unwrap();
        let ends =
            [Ibb::open(agreed, now, &romeo, &timeouts), Ibb::await_open(accepted, now, &juliet, &timeouts)];
        let mut pair = Self {
            now,
            timeouts,
            ends,
            inbox: Default::default(),
            asked: Default::default(),
            failed: Default::default(),
            next_id: 0,
            log: Vec::new(),
        };
        pair.collect();
        pair
    }

    /// With blocks of 4 bytes, a window of 4, and 16 bytes of receive buffer.
    fn small() -> Self {
        let mut pair = Self::new(small(), small());
        pair.run();
        pair.log.clear();
        pair
    }

    fn end(&mut self, side: Side) -> &mut Ibb {
        &mut self.ends[side as usize]
    }

    /// Takes what both want to send.
    fn collect(&mut self) {
        for side in [Romeo, Juliet] {
            while let Some(output) = self.end(side).poll_output() {
                let packet = match output {
                    Output::Request(request, payload) => {
                        self.next_id += 1;
                        let id = format!("iq{}", self.next_id);
                        self.asked[side as usize].insert(id.clone(), request);
                        Packet::Set(id, payload)
                    }
                    Output::Reply(id, reply) => Packet::Reply(id, reply),
                    Output::Open | Output::Progress => continue,
                    Output::Failed(error) => {
                        self.failed[side as usize] = Some(error);
                        continue;
                    }
                    other => panic!("an in-band bytestream has no use for {other:?}"),
                };
                self.log.push(format!("{}: {}", name(side), describe(&packet)));
                self.inbox[side.other() as usize].push_back(packet);
            }
        }
    }

    /// Delivers the oldest packet on its way to this end; false if there is none.
    fn deliver(&mut self, to: Side) -> bool {
        let Some(packet) = self.inbox[to as usize].pop_front() else { return false };
        self.hand_over(to, packet);
        true
    }

    fn hand_over(&mut self, to: Side, packet: Packet) {
        let now = self.now;
        match packet {
            Packet::Set(id, payload) => {
                let ibb = &mut self.ends[to as usize];
                match payload.name() {
                    "open" => ibb.handle_open(id, &Open::parse(&payload).unwrap()),
                    "data" => ibb.handle_data(now, id, Data::parse(&payload)),
                    "close" => ibb.handle_close(now, id),
                    other => panic!("<{other}/>"),
                }
            }
            Packet::Reply(id, reply) => {
                if let Some(request) = self.asked[to as usize].remove(&id) {
                    self.end(to).handle_reply(now, request, reply);
                }
            }
        }
        self.collect();
    }

    /// Delivers everything, and what it leads to.
    fn run(&mut self) {
        while self.deliver(Romeo) || self.deliver(Juliet) {}
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        for side in [Romeo, Juliet] {
            self.end(side).handle_timeout(now);
        }
        self.collect();
    }

    fn write(&mut self, side: Side, bytes: &[u8]) -> Result<usize, Error> {
        let now = self.now;
        let written = self.end(side).write(now, bytes);
        self.collect();
        written
    }

    fn flush(&mut self, side: Side) -> Result<bool, Error> {
        let now = self.now;
        let flushed = self.end(side).flush(now);
        self.collect();
        flushed
    }

    /// Writes all of it, which must fit, and asks for it to be sent.
    fn send(&mut self, side: Side, bytes: &[u8]) {
        assert_eq!(self.write(side, bytes).unwrap(), bytes.len());
        self.flush(side).unwrap();
    }

    fn read(&mut self, side: Side, at_most: usize) -> Result<Read, Error> {
        let read = self.end(side).read(&mut vec![0; at_most]);
        self.collect();
        read
    }

    /// Reads all that is there, and what comes after it.
    fn drain(&mut self, side: Side) -> (Vec<u8>, Result<Read, Error>) {
        let mut all = Vec::new();
        loop {
            let mut buffer = [0; 7];
            let read = self.end(side).read(&mut buffer);
            self.collect();
            match read {
                Ok(Read::Data(count)) => all.extend_from_slice(&buffer[..count]),
                end => return (all, end),
            }
        }
    }

    /// Reads all that is there; more may come.
    fn received(&mut self, side: Side) -> String {
        let (bytes, then) = self.drain(side);
        assert!(matches!(then, Ok(Read::Pending)), "{then:?}");
        String::from_utf8(bytes).unwrap()
    }

    fn shutdown(&mut self, side: Side) -> Result<bool, Error> {
        let now = self.now;
        let done = self.end(side).shutdown(now);
        self.collect();
        done
    }

    /// The peer of `to` sends something of its own making.
    fn inject(&mut self, to: Side, payload: Element) {
        self.hand_over(to, Packet::Set("x1".to_owned(), payload));
    }

    fn inject_data(&mut self, to: Side, seq: u32, bytes: &[u8]) {
        self.inject(to, data_element("ch3d9s71", bytes, seq));
    }

    fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn failure(&self, side: Side) -> &Error {
        self.failed[side as usize].as_ref().expect("it did not fail")
    }
}

fn small() -> IbbConfig {
    IbbConfig { block_size: 4, fixed_window: Some(4), receive_buffer: 16, ..IbbConfig::default() }
}

fn name(side: Side) -> &'static str {
    match side {
        Romeo => "romeo",
        Juliet => "juliet",
    }
}

fn describe(packet: &Packet) -> String {
    match packet {
        Packet::Set(_, payload) if payload.name() == "data" => {
            let data = Data::parse(payload).unwrap();
            format!("data {} ({})", data.seq, data.bytes.len())
        }
        Packet::Set(_, payload) if payload.name() == "open" => {
            format!("open {}", payload.attr("block-size").unwrap())
        }
        Packet::Set(_, payload) => payload.name().to_owned(),
        Packet::Reply(_, Ok(())) => "result".to_owned(),
        Packet::Reply(_, Err(error)) => format!("error {}", condition(error)),
    }
}

fn condition(error: &StanzaError) -> String {
    format!("{:?} {:?}", error.type_, error.defined_condition).to_lowercase()
}

#[test]
fn the_initiator_opens_with_the_smaller_block_size_and_bytes_go_both_ways() {
    let juliets = IbbConfig { block_size: 3, ..small() };
    let mut pair = Pair::new(small(), juliets);
    assert!(!pair.ends[0].is_open() && !pair.ends[1].is_open());
    assert_eq!(pair.write(Romeo, b"too early").unwrap(), 0);
    pair.run();
    pair.send(Romeo, b"hello");
    pair.run();
    pair.send(Juliet, b"ciao");
    pair.run();
    assert_eq!(
        pair.take_log(),
        [
            "romeo: open 3",
            "juliet: result",
            "romeo: data 0 (3)",
            "romeo: data 1 (2)",
            "juliet: result",
            "juliet: result",
            "juliet: data 0 (3)",
            "juliet: data 1 (1)",
            "romeo: result",
            "romeo: result",
        ]
    );
    assert_eq!(pair.received(Juliet), "hello");
    assert_eq!(pair.received(Romeo), "ciao");
}

#[test]
fn what_is_written_is_cut_into_full_blocks_until_it_is_flushed() {
    let mut pair = Pair::small();
    assert_eq!(pair.write(Romeo, b"sixbyt").unwrap(), 6);
    assert_eq!(pair.take_log(), ["romeo: data 0 (4)"]);
    assert_eq!(pair.write(Romeo, b"e").unwrap(), 1);
    assert_eq!(pair.take_log(), [""; 0]);
    assert!(pair.flush(Romeo).unwrap());
    assert_eq!(pair.take_log(), ["romeo: data 1 (3)"]);
}

#[test]
fn an_unanswered_or_missing_open_times_out() {
    for answered_by_nobody in [Romeo, Juliet] {
        let mut pair = Pair::new(small(), small());
        let due = pair.end(answered_by_nobody).poll_timeout().unwrap();
        assert_eq!(due, pair.now + pair.timeouts.transport);
        pair.advance(pair.timeouts.transport - Duration::from_millis(1));
        assert!(pair.failed[answered_by_nobody as usize].is_none());
        pair.advance(Duration::from_millis(1));
        let error = pair.failure(answered_by_nobody);
        assert!(matches!(error, Error::Timeout(Step::Transport, given) if *given == pair.timeouts.transport));
        assert_eq!(pair.end(answered_by_nobody).poll_timeout(), None);
    }
}

#[test]
fn a_wrong_open_is_refused_and_a_right_one_still_taken() {
    let open =
        |block_size, message_mode| Open { block_size, sid: "ch3d9s71".to_owned(), message_mode }.to_element();
    let mut pair = Pair::new(small(), small());
    pair.take_log();
    for (wrong, reply) in [
        (open(5, false), "juliet: error modify resourceconstraint"),
        (open(3, false), "juliet: error modify resourceconstraint"),
        (open(65540, false), "juliet: error modify resourceconstraint"),
        (open(4, true), "juliet: error cancel notacceptable"),
    ] {
        pair.inject(Juliet, wrong);
        assert_eq!(pair.take_log(), [reply]);
        assert!(!pair.end(Juliet).is_open());
    }
    pair.inject(Juliet, open(4, false));
    assert_eq!(pair.take_log(), ["juliet: result"]);
    assert!(pair.end(Juliet).is_open());
    pair.inject(Juliet, open(4, false));
    assert_eq!(pair.take_log(), ["juliet: error cancel unexpectedrequest"]);
    pair.inject(Romeo, open(4, false));
    assert_eq!(pair.take_log(), ["romeo: error cancel unexpectedrequest"], "the initiator opens");
}

#[test]
fn a_refused_open_fails_the_bytestream() {
    let mut pair = Pair::new(small(), small());
    let Some(Packet::Set(id, _)) = pair.inbox[1].pop_front() else { panic!() };
    pair.take_log();
    let refusal = errors::resource_constraint(xmpp_parsers::stanza_error::ErrorType::Modify);
    pair.hand_over(Romeo, Packet::Reply(id, Err(refusal)));
    assert!(matches!(pair.failure(Romeo), Error::Transport(TransportError::Refused(_))));
    assert_eq!(pair.take_log(), [""; 0], "nothing is open, so nothing is closed");
}

#[test]
fn an_offer_needs_a_sid_and_a_block_size_and_iqs() {
    use xmpp_parsers::minidom::Element;
    let judge = |attributes: &str| {
        let offer = format!("<transport xmlns='urn:xmpp:jingle:transports:ibb:1' {attributes}/>");
        ibb::Offer::from_peer(&offer.parse::<Element>().unwrap(), &IbbConfig::default()).unwrap()
    };
    for (attributes, complaint) in [
        ("sid='a'", "<transport/> without block-size"),
        ("block-size='4096'", "<transport/> without sid"),
        ("sid='a' block-size='0'", "the attribute block-size is invalid"),
        ("sid='a' block-size='-1'", "the attribute block-size is invalid"),
        ("sid='a' block-size='many'", "the attribute block-size is invalid"),
        ("sid='' block-size='1'", "the attribute sid is invalid"),
        ("sid='a' block-size='1' stanza='pigeon'", "the attribute stanza is invalid"),
        ("sid='a' block-size='1' stanza='message'", "data in message stanzas, which have no acknowledgement"),
    ] {
        assert_eq!(judge(attributes).unwrap_err(), complaint, "{attributes}");
    }
    let huge = judge("sid='a' block-size='4000000000'").unwrap();
    assert_eq!(huge.to_element().attr("block-size"), Some("65535"));
}

#[test]
fn an_answer_may_narrow_the_offer_and_nothing_else() {
    let config = IbbConfig { block_size: 4096, ..IbbConfig::default() };
    let offer = ibb::Offer::new("a".to_owned(), InBand::V1, &config);
    let judge = |element: &str| {
        let answer = element.parse().unwrap();
        offer.narrowed(&answer).map(|agreed| agreed.to_element().attr("block-size").unwrap().to_owned())
    };
    let ibb =
        |attributes: &str| format!("<transport xmlns='urn:xmpp:jingle:transports:ibb:1' {attributes}/>");
    assert_eq!(judge(&ibb("sid='a' block-size='2048'")).unwrap(), "2048");
    assert_eq!(judge(&ibb("sid='a' block-size='8192'")).unwrap(), "4096", "a larger one is not taken");
    assert_eq!(judge(&ibb("sid='a' block-size='99999'")).unwrap(), "4096");
    assert_eq!(judge(&ibb("sid='a'")).unwrap(), "4096");
    assert_eq!(judge(&ibb("block-size='2048'")).unwrap(), "2048");
    for wrong in [
        ibb("sid='b' block-size='2048'"),
        ibb("sid='a' block-size='0'"),
        ibb("sid='a' block-size='2048' stanza='message'"),
        "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='a'/>".to_owned(),
    ] {
        assert!(judge(&wrong).is_err(), "{wrong}");
    }
}
