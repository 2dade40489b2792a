//! How many round trips it takes until the first stanza is there, counted in virtual time.
//!
//! The ladders have one flight a line: when it was sent, in round trips since the start, by whom, and what was in it apart from
//! acknowledgements.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, as it should"
)]

mod support;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use jid::Jid;
use jingle_xmlstream::{
    ApiMisuse, Config, Connecting, DiscoConfig, E2eStream, Encryption, Endpoint, Error, Identity, KnownPeers,
    Reason, Secret, SecurityError, Start, Transports, Trust, Verification,
};
use support::{JULIET, ROMEO, body, config, message, s5b_config, virtual_world::VirtualWorld};

const EARLY_DATA: &str = "https://crates.io/crates/jingle-xmlstream#early-data";

const WORDS: &str = "He jests at scars that never felt a wound.";

/// When Romeo says his first words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// As soon as can be.
    First,
    /// Once he has the stream.
    OnceUp,
}

/// What it came to.
struct Outcome {
    /// When the words were there, in round trips.
    heard: f64,
    flights: Vec<String>,
    streams: (E2eStream, E2eStream),
}

/// Romeo opens a stream to Juliet and says something.
async fn say(world: &VirtualWorld, (romeo, juliet): (&Endpoint, &Endpoint), when: When) -> Outcome {
    world.begin_ladder();
    let connecting = romeo.connect(&juliet.jid().unwrap());
    let says = async {
        match when {
            When::First => connecting.first(message(WORDS)).await.unwrap(),
            When::OnceUp => {
                let mut stream = connecting.await.unwrap();
                stream.send(message(WORDS)).await.unwrap();
                stream
            }
        }
    };
    let hears = async {
        let mut stream = juliet.accept().await.unwrap().accept().await.unwrap();
        assert_eq!(body(&stream.next().await.unwrap().unwrap()), WORDS);
        let heard = world.round_trips();
        // What is said at once in return is in the ladder, too.
        tokio::time::sleep(Duration::from_millis(1)).await;
        (stream, heard, world.flights())
    };
    let (romeos, (juliets, heard, flights)) = tokio::join!(says, hears);
    Outcome { heard, flights, streams: (romeos, juliets) }
}

/// Both go on talking, and close: nothing was left undone.
async fn talk_and_close((mut romeos, mut juliets): (E2eStream, E2eStream)) {
    support::talk(&mut romeos, &mut juliets).await;
    let (romeo, juliet) = tokio::join!(romeos.close(), async {
        assert!(juliets.next().await.is_none());
        juliets.close().await
    });
    romeo.unwrap();
    juliet.unwrap();
}

/// Juliet's program takes nothing before its time, and Romeo has known her features since an earlier stream.
async fn with_a_stickler_for_the_letter(
    romeos: Config,
    juliets: Config,
) -> (VirtualWorld, Endpoint, Endpoint) {
    let world = VirtualWorld::default();
    let (romeo, juliet) = (world.bot(ROMEO, romeos), world.bot_without(EARLY_DATA, JULIET, juliets));
    world.introduce(&romeo, &juliet).await;
    let Outcome { flights, streams, .. } = say(&world, (&romeo, &juliet), When::OnceUp).await;
    assert_eq!(flights[0], "0.0 romeo> query");
    talk_and_close(streams).await;
    (world, romeo, juliet)
}

#[tokio::test(start_paused = true)]
async fn by_the_letter_the_first_stanza_is_there_after_three_round_trips_and_a_half() {
    let (world, romeo, juliet) = with_a_stickler_for_the_letter(config(), config()).await;
    let Outcome { heard, flights, streams } = say(&world, (&romeo, &juliet), When::First).await;
    assert_eq!(
        flights,
        [
            "0.0 romeo> session-initiate",
            "0.5 juliet> session-accept",
            "1.0 romeo> security-info, open",
            // ClientHello, and the responder's flight.
            "2.0 romeo> data",
            "2.5 juliet> data",
            // Finished, the stream header, and the words, in one block.
            "3.0 romeo> data",
            // The stream header and the features.
            "3.5 juliet> data",
        ]
    );
    assert_eq!(heard, 3.5);
    talk_and_close(streams).await;
}

#[tokio::test(start_paused = true)]
async fn with_early_data_the_first_stanza_is_there_after_two_round_trips_and_a_half() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(config(), config()).await;
    let Outcome { heard, flights, streams } = say(&world, (&romeo, &juliet), When::First).await;
    assert_eq!(
        flights,
        [
            "0.0 romeo> session-initiate",
            "0.5 juliet> session-accept",
            // ClientHello.
            "1.0 romeo> security-info, open, data",
            "1.5 juliet> data",
            // Finished, the stream header, <enable/> and the words.
            "2.0 romeo> data",
            // The stream header, the features, and <enabled/>.
            "2.5 juliet> data",
        ]
    );
    assert_eq!(heard, 2.5);
    talk_and_close(streams).await;
}

#[tokio::test(start_paused = true)]
async fn words_that_wait_for_the_stream_are_there_a_round_trip_later() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(config(), config()).await;
    let Outcome { heard, streams, .. } = say(&world, (&romeo, &juliet), When::OnceUp).await;
    assert_eq!(heard, 3.5);
    talk_and_close(streams).await;
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_not_known_is_asked_once() {
    let world = VirtualWorld::default();
    let mut disco = DiscoConfig::default();
    disco.features.push("urn:xmpp:ping".to_owned());
    let (romeo, juliet) = world.pair(config(), config().disco(disco)).await;
    for expected in [3.5, 2.5] {
        let Outcome { heard, streams, .. } = say(&world, (&romeo, &juliet), When::First).await;
        assert_eq!(heard, expected);
        talk_and_close(streams).await;
    }
}

#[tokio::test(start_paused = true)]
async fn starting_fast_is_as_fast_as_in_band_alone() {
    let world = VirtualWorld::default();
    let fast = || s5b_config().transports(Transports::Auto).start(Start::Fast);
    let (romeo, juliet) = world.pair(fast(), fast()).await;
    let Outcome { heard, flights, .. } = say(&world, (&romeo, &juliet), When::First).await;
    assert_eq!(heard, 2.5, "{flights:?}");
}

#[tokio::test(start_paused = true)]
async fn starting_fast_by_the_letter_is_as_fast_as_in_band_alone() {
    let fast = || s5b_config().transports(Transports::Auto).start(Start::Fast);
    let (world, romeo, juliet) = with_a_stickler_for_the_letter(fast(), fast()).await;
    let Outcome { heard, flights, .. } = say(&world, (&romeo, &juliet), When::First).await;
    assert_eq!(heard, 3.5, "{flights:?}");
}

#[tokio::test(start_paused = true)]
async fn first_words_keep_their_order_and_come_once() {
    let (world, romeo, juliet) = with_a_stickler_for_the_letter(config(), config()).await;
    let early = VirtualWorld::default();
    let (early_romeo, early_juliet) = early.pair(config(), config()).await;
    for (world, romeo, juliet) in [(&world, &romeo, &juliet), (&early, &early_romeo, &early_juliet)] {
        world.begin_ladder();
        let connecting =
            romeo.connect(&juliet.jid().unwrap()).first(message("1")).first(message("2")).first(message("3"));
        let accepting = async { juliet.accept().await.unwrap().accept().await };
        let (mut romeos, mut juliets) = {
            let (romeos, juliets) = tokio::join!(connecting, accepting);
            (romeos.unwrap(), juliets.unwrap())
        };
        romeos.send(message("4")).await.unwrap();
        romeos.send(message("5")).await.unwrap();
        for expected in ["1", "2", "3", "4", "5"] {
            assert_eq!(body(&juliets.next().await.unwrap().unwrap()), expected);
        }
        talk_and_close((romeos, juliets)).await;
    }
}

/// Romeo says something first to a peer that he is not to talk to before it has shown more than a certificate.
async fn patient_words(world: &VirtualWorld, romeo: &Endpoint, juliet: &Endpoint) -> (E2eStream, E2eStream) {
    let Outcome { heard, streams, .. } = say(world, (romeo, juliet), When::First).await;
    assert!(heard > 2.5, "{heard}");
    streams
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_to_prove_a_secret_hears_nothing_before() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(sharing(config(), JULIET), sharing(config(), ROMEO)).await;
    talk_and_close(patient_words(&world, &romeo, &juliet).await).await;
}

/// The secret of Romeo and Juliet.
fn sharing(config: Config, peer: &str) -> Config {
    let secret = Secret::new("gallop apace you fiery footed steeds 7731").unwrap();
    config.secret_for(support::jid::<Jid>(peer).to_bare(), secret)
}

#[tokio::test(start_paused = true)]
async fn a_secret_verifies_whoever_was_met_before_it_was_shared_and_hears_words() {
    let trust = || Trust::from(KnownPeers::in_memory());
    let [romeos, juliets] = [support::config_with(trust()), support::config_with(trust())];
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(romeos.clone(), juliets.clone()).await;
    talk_and_close(say(&world, (&romeo, &juliet), When::First).await.streams).await;

    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(sharing(romeos, JULIET), sharing(juliets, ROMEO)).await;
    let streams = patient_words(&world, &romeo, &juliet).await;
    for stream in [&streams.0, &streams.1] {
        assert_eq!(stream.peer().verification(), Some(Verification::Secret));
    }
    talk_and_close(streams).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_encrypts_by_starttls_hears_nothing_in_the_clear() {
    let world = VirtualWorld::default();
    let starttls = || config().encryption(Encryption::Starttls);
    let (romeo, juliet) = world.pair(starttls(), starttls()).await;
    talk_and_close(patient_words(&world, &romeo, &juliet).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_the_user_is_asked_about_hears_nothing_before_the_answer() {
    let world = VirtualWorld::default();
    let (trust, mut questions) = Trust::ask(KnownPeers::in_memory());
    let romeos = support::in_band(Config::new(Identity::generate().unwrap(), trust));
    let (romeo, juliet) = world.pair(romeos, config()).await;
    tokio::spawn(async move {
        let question = questions.next().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        question.remember();
    });
    let Outcome { heard, streams, .. } = say(&world, (&romeo, &juliet), When::First).await;
    assert!(heard > 10.0, "{heard}");
    talk_and_close(streams).await;
}

/// What Romeo gets for words that Juliet never heard, and why.
#[track_caller]
fn given_back(result: Result<E2eStream, Error>) -> Error {
    let Err(Error::Undelivered(undelivered)) = result else { panic!("{result:?}") };
    let words: Vec<_> = undelivered.stanzas().iter().map(body).collect();
    assert_eq!(words, ["one", "two"]);
    undelivered.cause().unwrap().clone()
}

fn with_words(connecting: Connecting) -> Connecting {
    connecting.first(message("one")).first(message("two"))
}

#[tokio::test(start_paused = true)]
async fn words_to_a_peer_that_refuses_our_certificate_come_back() {
    let world = VirtualWorld::default();
    let nobody = support::config_with(Trust::pinned([]));
    let (romeo, juliet) = world.pair(config(), nobody).await;
    let connecting = with_words(romeo.connect(&juliet.jid().unwrap()));
    let accepting = async { juliet.accept().await.unwrap().accept().await };
    let (refused, refuses) = tokio::join!(connecting, accepting);
    assert!(matches!(given_back(refused), Error::Security(SecurityError::PeerRefused(_))));
    assert!(matches!(refuses, Err(Error::Security(_))), "{refuses:?}");
}

#[tokio::test(start_paused = true)]
async fn words_to_a_peer_whose_certificate_is_refused_are_never_sent() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(support::config_with(Trust::pinned([])), config()).await;
    let connecting = with_words(romeo.connect(&juliet.jid().unwrap()));
    let accepting = async { juliet.accept().await.unwrap().accept().await };
    let (refuses, refused) = tokio::join!(connecting, accepting);
    assert!(matches!(given_back(refuses), Error::Security(SecurityError::NotPinned { .. })));
    assert!(refused.is_err());
}

/// Its certificate would do, and is not believed all the same: nobody remembers strangers with such addresses.
#[tokio::test(start_paused = true)]
async fn words_to_a_stranger_who_can_not_be_remembered_are_never_sent() {
    let world = VirtualWorld::default();
    let romeo = world.bot(ROMEO, config());
    let juliet = world.bot(&format!("{}@capulet.lit/balcony", "juliet".repeat(100)), config());
    world.introduce(&romeo, &juliet).await;
    world.begin_ladder();
    let connecting = with_words(romeo.connect(&juliet.jid().unwrap()));
    let accepting = async { juliet.accept().await.unwrap().accept().await };
    let (refuses, refused) = tokio::join!(connecting, accepting);
    assert!(matches!(given_back(refuses), Error::Security(SecurityError::Implausible { .. })));
    assert!(refused.is_err());
    let sent = world.ladder().iter().filter(|line| line.what == "romeo> data").count();
    assert_eq!(sent, 1, "the ClientHello, and nothing behind it: {:?}", world.flights());
}

#[tokio::test(start_paused = true)]
async fn words_to_a_peer_that_declines_come_back() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(config(), config()).await;
    let connecting = with_words(romeo.connect(&juliet.jid().unwrap()));
    let declining = async { juliet.accept().await.unwrap().decline(Reason::Busy) };
    let (declined, ()) = tokio::join!(connecting, declining);
    assert!(matches!(given_back(declined), Error::Terminated(why) if why.reason == Reason::Busy));
}

#[tokio::test(start_paused = true)]
async fn words_that_can_not_be_xml_are_given_back_before_anything_is_sent() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(config(), config()).await;
    world.begin_ladder();
    let refused = romeo.connect(&juliet.jid().unwrap()).first(message("\u{1}")).await;
    let Err(Error::Undelivered(undelivered)) = refused else { panic!("{refused:?}") };
    assert!(matches!(undelivered.cause(), Some(Error::ApiMisuse(ApiMisuse::BadStanza(_)))));
    assert_eq!(undelivered.stanzas().len(), 1);
    assert!(world.ladder().is_empty());
}

#[tokio::test(start_paused = true)]
async fn words_of_both_who_call_each_other_at_once_arrive() {
    let world = VirtualWorld::default();
    let (romeo, juliet) = world.pair(config(), config()).await;
    let (romeos, juliets) = tokio::join!(
        romeo.connect(&juliet.jid().unwrap()).first(message("from Romeo")),
        juliet.connect(&romeo.jid().unwrap()).first(message("from Juliet")),
    );
    let (mut romeos, mut juliets) = (romeos.unwrap(), juliets.unwrap());
    assert_eq!(body(&juliets.next().await.unwrap().unwrap()), "from Romeo");
    assert_eq!(body(&romeos.next().await.unwrap().unwrap()), "from Juliet");
    talk_and_close((romeos, juliets)).await;
}
