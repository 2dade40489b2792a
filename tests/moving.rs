//! A live stream that begins in band and moves to SOCKS5 (transport-replace in the active session), and loses nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::Duration;

use futures::{SinkExt, Stream, StreamExt, future};
use jingle_xmlstream::{
    CandidateType, Candidates, Config, E2eStream, Endpoint, Start, StreamSender, TransportInfo,
};
use mock_server::Verdict;
use support::{
    JULIET, ROMEO, World, body, config, element, jid, message,
    s5b::{JINGLE_S5B, assert_flow, close, closed_port, redirect},
    s5b_config, streams, talk, wire, within,
};
use tokio_xmpp::IqRequest;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

fn fast(candidates: Candidates) -> Config {
    s5b_config().start(Start::Fast).s5b(support::s5b(|s5b| s5b.candidates = candidates))
}

async fn fast_pair(world: &World) -> (Endpoint, Endpoint) {
    world.pair_of(fast(Candidates::All), s5b_config()).await
}

fn method(stream: &E2eStream) -> &'static str {
    stream.transport().unwrap().method()
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.below(2);
        dice
    }

    /// Xorshift.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

// ---- traffic -------------------------------------------------------------------------------

/// The last message of a side.
const END: &str = "end";

/// Messages that a side sends at least, beside those while it waits for the move.
const AT_LEAST: u64 = 20;

/// Message number `number` of a side: its number, and as much more as the dice say.
fn numbered(number: u64, dice: &mut Dice) -> String {
    let sizes = [0, 0, 10, 100, 1000, 4000, 9000, 30_000];
    let size = sizes[usize::try_from(dice.below(8)).unwrap()];
    let size = usize::try_from(dice.below(size + 1)).unwrap();
    format!("{number} {}", "x".repeat(size))
}

/// Sends at full rate until it is told that it is enough, and some more.
async fn speak(mut sender: StreamSender, mut dice: Dice, enough: impl Future) -> u64 {
    let mut enough = std::pin::pin!(future::maybe_done(enough));
    let (mut number, mut left) = (0, AT_LEAST);
    while left > 0 {
        sender.send(message(&numbered(number, &mut dice))).await.unwrap();
        number += 1;
        if futures::poll!(enough.as_mut()).is_ready() {
            left -= 1;
        }
    }
    sender.send(message(END)).await.unwrap();
    number
}

/// Takes what the other side says; all of it has to come, once and in order.
async fn listen(
    mut heard: impl Stream<Item = Result<xmpp_parsers::stanza::Stanza, jingle_xmlstream::Error>> + Unpin,
    mut dice: Dice,
) -> u64 {
    let mut number = 0;
    loop {
        let message = body(&heard.next().await.unwrap().unwrap());
        if message == END {
            return number;
        }
        // Not assert_eq: what is wrong is shown by the numbers.
        assert!(message == numbered(number, &mut dice), "message {number} is {:.40}", message);
        number += 1;
    }
}

/// Both talk at full rate until both have moved, or for whatever else `enough` waits.
async fn converse<F: Future>(
    romeos: &mut E2eStream,
    juliets: &mut E2eStream,
    seed: u64,
    enough: impl Fn(&E2eStream) -> F,
) {
    let dice = |side| Dice::new(seed * 2 + side);
    let (romeo_waits, juliet_waits) = (enough(romeos), enough(juliets));
    let (romeos_sender, juliets_sender) = (romeos.sender(), juliets.sender());
    let (said, heard, other_said, other_heard) = within(async {
        tokio::join!(
            speak(romeos_sender, dice(0), romeo_waits),
            listen(juliets, dice(0)),
            speak(juliets_sender, dice(1), juliet_waits),
            listen(romeos, dice(1)),
        )
    })
    .await;
    assert_eq!((said, other_said), (heard, other_heard));
}

fn moved(stream: &E2eStream) -> impl Future<Output = TransportInfo> + use<> {
    let mut moves = stream.moves();
    async move { moves.next().await.unwrap() }
}

// ---- a move ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_stream_that_starts_fast_moves() {
    let world = World::start().await;
    let (romeo, juliet) = fast_pair(&world).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    for stream in [&romeos, &juliets] {
        let mut moves = stream.moves();
        let moved = within(moves.next()).await.unwrap();
        assert_eq!(moved.candidate(), Some(CandidateType::Direct));
        assert_eq!(within(moves.next()).await, None, "one move is all");
        assert_eq!(stream.transport(), Some(moved));
        let began = &stream.info().negotiated.as_ref().unwrap().transport;
        assert_eq!(began.method(), "ibb", "what it began on is history");
    }
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;

    let (closes, rest): (Vec<_>, Vec<_>) =
        world.ladder_of_the_session().into_iter().partition(|line| line.contains("ibb close"));
    // Each ends its direction with one, unless the other's came first: then the answer to that does.
    assert!(
        closes.contains(&"romeo> iq set ibb close".to_owned())
            || closes.contains(&"juliet> iq set ibb close".to_owned())
    );
    assert!(matches!(closes.len(), 2 | 4), "{closes:?}");
    // Romeo's candidate has the higher priority: he need not try hers when she has chosen it.
    let rest: Vec<_> = rest.iter().map(|line| line.replace("candidate-error", "candidate-used")).collect();
    assert_flow(
        &rest,
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "romeo> iq set ibb open",
            "juliet> iq result (ibb open)",
            "romeo> iq set jingle transport-replace",
            "juliet> iq result (transport-replace)",
            "juliet> iq set jingle transport-accept",
            "romeo> iq result (transport-accept)",
            "romeo> iq set jingle transport-info candidate-used",
            "juliet> iq result (transport-info candidate-used)",
            "juliet> iq set jingle transport-info candidate-used",
            "romeo> iq result (transport-info candidate-used)",
        ],
    );
}

/// 200 moves, each in the middle of a conversation at full rate: every message once and in order, in either direction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_loses_nothing_and_repeats_nothing() {
    const MOVES: u64 = 200;
    // Whose connection it is, and from where.
    let ways = [
        (Candidates::All, Candidates::All),
        (Candidates::None, Candidates::All),
        (Candidates::All, Candidates::None),
        (Candidates::AfterAccept, Candidates::All),
    ];
    let world = World::start().await;
    let mut couples = Vec::new();
    for (number, (romeos, juliets)) in ways.into_iter().enumerate() {
        let romeo = world.bot(&format!("romeo{number}@montague.lit/orchard"), fast(romeos)).await;
        let juliet = world.bot(&format!("juliet{number}@capulet.lit/balcony"), fast(juliets)).await;
        let first_seed = MOVES / ways.len() as u64 * number as u64;
        let world = World { server: world.server.clone() };
        couples.push(tokio::spawn(async move {
            for seed in first_seed..first_seed + MOVES / ways.len() as u64 {
                move_once(&world, &romeo, &juliet, seed).await;
            }
        }));
    }
    for couple in couples {
        couple.await.unwrap();
    }
}

async fn move_once(world: &World, romeo: &Endpoint, juliet: &Endpoint, seed: u64) {
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    for bot in [romeo, juliet] {
        let mut delay = || Duration::from_millis([0, 0, 1, 3, 10][usize::try_from(dice.below(5)).unwrap()]);
        world.server.delay(&bot.jid().unwrap(), delay(), delay());
    }
    // Who asks for the move is not always the same.
    let (initiator, responder) = if dice.below(2) == 0 { (romeo, juliet) } else { (juliet, romeo) };
    let mut proposal = world.hold(initiator.jid().unwrap().as_str(), "transport-replace");
    let (mut initiators, mut responders) = streams(initiator, responder).await;
    let some_time = Duration::from_millis(dice.below(80));
    tokio::join!(converse(&mut initiators, &mut responders, seed, moved), async {
        proposal.caught().await;
        tokio::time::sleep(some_time).await;
        proposal.release();
    });
    for stream in [&initiators, &responders] {
        assert_eq!(stream.transport().unwrap().candidate(), Some(CandidateType::Direct), "seed {seed}");
    }
    // In either order, and while the other still says something.
    match dice.below(3) {
        0 => close(initiators, responders).await,
        1 => leave(initiators, responders).await,
        _ => leave(responders, initiators).await,
    }
}

/// One says a last word and closes, the other hears it.
async fn leave(mut leaving: E2eStream, mut staying: E2eStream) {
    leaving.send(message("farewell")).await.unwrap();
    let (left, heard) = within(future::join(leaving.close(), staying.next())).await;
    left.unwrap();
    assert_eq!(body(&heard.unwrap().unwrap()), "farewell");
    assert!(within(staying.next()).await.is_none());
    within(staying.close()).await.unwrap();
}

/// Once nothing is left in band, the servers are not needed.
#[tokio::test]
async fn a_stream_that_has_moved_outlives_the_server() {
    let world = World::start().await;
    let so_long = support::timeouts(|timeouts| timeouts.close = Duration::from_secs(2));
    let romeos_config = fast(Candidates::All).timeouts(so_long);
    let (romeo, juliet) = world.pair_of(romeos_config, s5b_config().timeouts(so_long)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    within(future::join(moved(&romeos), moved(&juliets))).await;
    talk(&mut romeos, &mut juliets).await;
    // What was said last in band was answered, and the answers have come.
    for (bot, who, other) in [(&romeo, "romeo", "juliet"), (&juliet, "juliet", "romeo")] {
        if world.count(&format!("{who}> iq set ibb close")) > 0 {
            world.wait_for(&format!("{other}> iq result (ibb close)")).await;
        }
        let ping = IqRequest::Get(element("<ping xmlns='urn:xmpp:ping'/>"));
        within(bot.send_iq(None, ping)).await.unwrap();
    }
    world.server.refuse(true);
    for bot in [ROMEO, JULIET] {
        assert!(world.server.cut(&jid(bot)));
    }
    converse(&mut romeos, &mut juliets, 0, |_| future::ready(())).await;
    close(romeos, juliets).await;
}

// ---- moves that come to nothing ------------------------------------------------------------

/// Juliet takes nothing but in-band bytestreams, though her server says otherwise.
#[tokio::test]
async fn a_move_that_is_rejected_leaves_the_stream_where_it_is() {
    let world = World::start().await;
    world.server.intercept(announce_s5b());
    let (romeo, juliet) = world.pair_of(fast(Candidates::All), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    stays(&world, &mut romeos, &mut juliets, "romeo> iq result (transport-reject)").await;
    assert_eq!(within(romeos.moves().next()).await, None, "there will be no move");
    close(romeos, juliets).await;
}

/// An intercept that adds SOCKS5 to what service discovery finds.
fn announce_s5b() -> impl FnMut(&mock_server::Route, &xmpp_parsers::minidom::Element) -> Verdict + Send {
    move |_, stanza| {
        if stanza.attr("type") != Some("result") || !stanza.has_child("query", wire::DISCO_INFO) {
            return Verdict::Deliver;
        }
        let mut stanza = stanza.clone();
        let query = stanza.get_child_mut("query", wire::DISCO_INFO).unwrap();
        query.append_child(element(&format!("<feature xmlns='{}' var='{JINGLE_S5B}'/>", wire::DISCO_INFO)));
        Verdict::Replace(stanza)
    }
}

#[tokio::test]
async fn a_move_that_is_answered_with_an_error_leaves_the_stream_where_it_is() {
    let world = World::start().await;
    world.server.intercept(|_, stanza| match wire::action(stanza) {
        Some("transport-replace") => {
            let condition = DefinedCondition::FeatureNotImplemented;
            Verdict::Bounce(StanzaError::new(ErrorType::Cancel, condition, "en", "what is that?"))
        }
        _ => Verdict::Deliver,
    });
    let (romeo, juliet) = fast_pair(&world).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    let refused = "juliet> iq error feature-not-implemented (transport-replace) [injected]";
    stays(&world, &mut romeos, &mut juliets, refused).await;
    assert_eq!(within(romeos.moves().next()).await, None, "there will be no move");
    close(romeos, juliets).await;
}

#[tokio::test]
async fn a_move_that_finds_no_way_leaves_the_stream_where_it_is() {
    let world = World::start().await;
    world.server.intercept(redirect(closed_port().await));
    let (romeo, juliet) = fast_pair(&world).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    let failed = "romeo> iq result (transport-info candidate-error)";
    stays(&world, &mut romeos, &mut juliets, failed).await;
    assert_eq!(within(romeos.moves().next()).await, None, "there will be no move");
    assert_eq!(world.count("juliet> iq result (transport-info candidate-error)"), 1);
    close(romeos, juliets).await;
}

/// Nobody answers the transport-replace: the stream does not wait for it.
#[tokio::test]
async fn a_move_that_nobody_answers_leaves_the_stream_where_it_is() {
    let world = World::start().await;
    let (romeo, juliet) = fast_pair(&world).await;
    let mut replace = world.hold(ROMEO, "transport-replace");
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    replace.caught().await;
    let lost = "romeo> iq set jingle transport-replace [dropped]";
    stays(&world, &mut romeos, &mut juliets, lost).await;
    assert!(futures::poll!(romeos.moves().next()).is_pending(), "an answer may still come");
    close(romeos, juliets).await;
}

/// Everything arrives before, while and after this happens, and nothing moves.
async fn stays(world: &World, romeos: &mut E2eStream, juliets: &mut E2eStream, happens: &str) {
    converse(romeos, juliets, 1, |_| world.wait_for(happens)).await;
    converse(romeos, juliets, 2, |_| future::ready(())).await;
    assert_eq!((method(romeos), method(juliets)), ("ibb", "ibb"));
    // Juliet can't know that he won't try again.
    assert!(futures::poll!(juliets.moves().next()).is_pending());
    assert_eq!(world.sent("iq set ibb close"), 0);
}

// ---- closing in the middle of it -----------------------------------------------------------

/// One side closes while the server holds back this sender's words from the first such request on, which then arrive.
async fn closes_while_held(sender: &str, what: &'static str) {
    for leaver in [ROMEO, JULIET] {
        let world = World::start().await;
        let (romeo, juliet) = fast_pair(&world).await;
        let mut held = world.hold_from(sender, what);
        let (romeos, juliets) = streams(&romeo, &juliet).await;
        held.caught().await;
        let (leaving, staying) = if leaver == ROMEO { (romeos, juliets) } else { (juliets, romeos) };
        // The first of these is under way when the second begins.
        tokio::join!(leave(leaving, staying), async { held.release() });
        world.wait_for_end().await;
        let ends = world.server.record();
        let ends: Vec<_> =
            ends.iter().filter(|it| it.name.contains("set jingle session-terminate")).collect();
        assert!(ends.iter().all(|end| end.name.ends_with("success")), "{leaver} leaves: {ends:?}");
    }
}

#[tokio::test]
async fn a_stream_can_close_while_the_move_is_proposed() {
    closes_while_held(ROMEO, "transport-replace").await;
}

#[tokio::test]
async fn a_stream_can_close_while_the_move_is_agreed_upon() {
    closes_while_held(JULIET, "transport-accept").await;
}

#[tokio::test]
async fn a_stream_can_close_while_the_initiator_has_not_heard_which_candidate_is_used() {
    closes_while_held(JULIET, "candidate-used").await;
}

#[tokio::test]
async fn a_stream_can_close_while_the_responder_has_not_heard_which_candidate_is_used() {
    closes_while_held(ROMEO, "candidate-used").await;
}

/// At any moment of a move one side says a last word and closes: it is heard, and the close is in good order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_can_close_at_any_moment_of_a_move() {
    const CLOSES: u64 = 60;
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(fast(Candidates::All), fast(Candidates::All)).await;
    for seed in 0..CLOSES {
        let mut dice = Dice::new(seed);
        for bot in [ROMEO, JULIET] {
            let delay = Duration::from_millis(dice.below(4));
            world.server.delay(&jid::<jid::Jid>(bot), delay, delay);
        }
        let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
        let exchanges = dice.below(12);
        for _ in 0..exchanges {
            talk(&mut romeos, &mut juliets).await;
        }
        if dice.below(2) == 0 { leave(romeos, juliets).await } else { leave(juliets, romeos).await }
    }
}
