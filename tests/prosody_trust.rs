//! Whom two bots believe that meet over a real Prosody.
//!
//! Without `prosody` in PATH nothing is tested, and says so; with CI=true that is a failure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed, as it should")]

#[allow(dead_code, reason = "other test programs use the rest")]
#[path = "support/prosody.rs"]
mod server;
mod support;

use std::path::PathBuf;

use futures::{StreamExt, future};
use jid::BareJid;
use jingle_xmlstream::{
    Callers, Config, DiscoConfig, E2eStream, Encryption, Endpoint, Error, Events, Identity, KnownPeers,
    Level, Reason, Secret, SecurityError, SignallingError, Transports, Trust,
    security::{KnownCertificate, PeerEvent, Verification},
};
use server::{Kind, Prosody, Verona, answer_one_disco, bot, bot_with_events};
use support::{JULIET, ROMEO, attempt, config, in_band, next_stanza, s5b, streams, talk, within};
use tempfile::TempDir;
use xmpp_parsers::{
    iq::Iq,
    presence::{Presence, Type},
    roster::{Roster, Subscription},
    stanza::Stanza,
    stanza_error::DefinedCondition,
};

const MERCUTIO: &str = "mercutio@montague.lit/street";

const SECRET: &str = "clumsy walnut orbit seventy lantern mischief";
const ANOTHER: &str = "velvet onion harbor puzzle cricket thunder";

const XTLS: &str = "urn:xmpp:jingle:security:xtls:0";

/// What a bot keeps from one start to the next.
struct Kept {
    identity: Identity,
    file: PathBuf,
    _folder: TempDir,
}

impl Kept {
    fn of(account: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate_for(&bare(account)).unwrap();
        Self { identity, file: folder.path().join("known-peers.toml"), _folder: folder }
    }

    /// Read anew, as after a restart.
    fn known(&self) -> KnownPeers {
        KnownPeers::open(&self.file).unwrap()
    }

    fn config(&self) -> Config {
        in_band(Config::new(self.identity.clone(), self.known()))
    }

    fn strict(&self) -> Config {
        in_band(Config::new(self.identity.clone(), Trust::strict(self.known())))
    }

    /// What the file says.
    fn listed(&self) -> Vec<KnownCertificate> {
        self.known().certificates().unwrap()
    }

    /// The file lists one certificate: this one of this peer's, verified so.
    #[track_caller]
    fn assert_lists(&self, peer: &str, identity: &Identity, verification: Verification) {
        let listed = self.listed();
        let [only] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!((&only.peer, &only.fingerprint), (&bare(peer), identity.fingerprint()));
        assert_eq!(only.verification, verification);
    }
}

fn bare(jid: &str) -> BareJid {
    support::jid::<jid::FullJid>(jid).to_bare()
}

fn both() -> (Kept, Kept) {
    (Kept::of(ROMEO), Kept::of(JULIET))
}

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

/// What carries the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    Ibb,
    S5b,
}

impl Carrier {
    const EACH: [Self; 2] = [Self::Ibb, Self::S5b];

    fn only(self, config: Config) -> Config {
        match self {
            Self::Ibb => in_band(config),
            Self::S5b => config.transports(Transports::S5b).s5b(s5b(|_| {})),
        }
    }

    #[track_caller]
    fn assert_carries(self, stream: &E2eStream) {
        let expected = if self == Self::Ibb { "ibb" } else { "s5b" };
        assert_eq!(stream.transport().unwrap().method(), expected);
    }
}

/// Two bots meet, talk, and go offline.
async fn meet(prosody: &Prosody, romeo: Config, juliet: Config) -> [Option<Verification>; 2] {
    let (romeo, juliet) =
        future::join(bot(ROMEO, prosody.connector(), romeo), bot(JULIET, prosody.connector(), juliet)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
    let found = [romeos.peer().verification(), juliets.peer().verification()];
    let (one, other) = within(future::join(romeos.close(), juliets.close())).await;
    one.and(other).unwrap();
    within(future::join(romeo.close(), juliet.close())).await;
    found
}

/// Two bots fail to meet, and go offline.
async fn fail_to_meet(prosody: &Prosody, romeo: Config, juliet: Config) -> [Error; 2] {
    let (romeo, juliet) =
        future::join(bot(ROMEO, prosody.connector(), romeo), bot(JULIET, prosody.connector(), juliet)).await;
    let (romeos, juliets) = attempt(&romeo, &juliet).await;
    let errors = [romeos.unwrap_err(), juliets.unwrap_err()];
    within(future::join(romeo.close(), juliet.close())).await;
    errors
}

// ---- secrets ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_shared_secret_is_needed_once() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    for carrier in Carrier::EACH {
        let (romeo, juliet) = both();
        let sharing =
            |kept: &Kept| carrier.only(kept.config()).secret(secret(SECRET)).require(Level::Verified);
        let found = meet(&prosody, sharing(&romeo), sharing(&juliet)).await;
        assert_eq!(found, [Some(Verification::Secret); 2], "{carrier:?}");
        romeo.assert_lists(JULIET, &juliet.identity, Verification::Secret);
        juliet.assert_lists(ROMEO, &romeo.identity, Verification::Secret);

        // Both start again, have no secret any more, and take nobody that they don't know.
        let again = |kept: &Kept| carrier.only(kept.strict()).require(Level::Verified);
        let found = meet(&prosody, again(&romeo), again(&juliet)).await;
        assert_eq!(found, [Some(Verification::Secret); 2], "{carrier:?}");
    }
    assert!(!prosody.received().iter().any(|stanza| stanza.contains("Romeo?")), "the server could read it");
}

#[tokio::test]
async fn another_secret_is_refused_and_nobody_is_remembered() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, juliet) = both();
    let romeos = romeo.config().secret(secret(SECRET));
    let juliets = juliet.config().secret(secret(ANOTHER));
    for error in fail_to_meet(&prosody, romeos, juliets).await {
        assert_shape!(&error, Error::Security(SecurityError::SecretMismatch { .. }) | Error::Terminated(_));
        assert_eq!(error.reason(), Reason::SecurityError, "{error:?}");
    }
    assert_eq!((romeo.listed(), juliet.listed()), (vec![], vec![]));
}

// ---- STARTTLS --------------------------------------------------------------------------------

/// Both talk, encrypted, over this.
async fn assert_encrypted(carrier: Carrier, romeos: &mut E2eStream, juliets: &mut E2eStream) {
    talk(romeos, juliets).await;
    for stream in [romeos, juliets] {
        carrier.assert_carries(stream);
        assert_eq!(stream.info().tls.as_ref().unwrap().version(), "TLSv1.3");
        assert_eq!(stream.peer().jid(), stream.info().peer.as_ref());
    }
}

#[tokio::test]
async fn starttls_on_the_stream_protects_it_whatever_carries_it() {
    for carrier in Carrier::EACH {
        let starttls = || carrier.only(config()).encryption(Encryption::Starttls);
        let Some(verona) = Verona::with(Kind::Unlimited, starttls(), starttls()).await else { return };
        let (mut romeos, mut juliets) = verona.streams().await;
        assert_encrypted(carrier, &mut romeos, &mut juliets).await;
        assert_eq!(verona.count(&["Romeo?"]).await, 0, "the server could read it");
        assert_eq!(verona.count(&["session-initiate"]).await, 1);
        assert_eq!(verona.count(&["session-initiate", XTLS]).await, 0);
    }
}

#[tokio::test]
async fn who_announces_xtls_gets_it_and_who_does_not_gets_starttls() {
    for carrier in Carrier::EACH {
        let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
        let either = || carrier.only(config()).encryption(Encryption::XtlsOrStarttls);
        let mut by_hand = DiscoConfig::default();
        by_hand.answer = false;
        let romeo = bot(ROMEO, prosody.connector(), either()).await;
        let (juliet, mut events) =
            bot_with_events(JULIET, prosody.connector(), either().disco(by_hand)).await;
        let with_xtls = juliet.features();
        let mut without = with_xtls.clone();
        without.retain(|feature| feature != XTLS);
        for features in [&with_xtls, &without] {
            let answering = answer_one_disco(&juliet, &mut events, features);
            let ((mut romeos, mut juliets), ()) = future::join(streams(&romeo, &juliet), answering).await;
            assert_encrypted(carrier, &mut romeos, &mut juliets).await;
        }
        let offers = prosody.stanzas_with(2, &["session-initiate"]).await;
        let with_xtls: Vec<_> = offers.iter().map(|offer| offer.contains(XTLS)).collect();
        assert_eq!(with_xtls, [true, false], "{carrier:?}");
    }
}

#[tokio::test]
async fn a_shared_secret_works_on_starttls_too() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, juliet) = both();
    let sharing = |kept: &Kept| kept.config().encryption(Encryption::Starttls).secret(secret(SECRET));
    let found = meet(&prosody, sharing(&romeo), sharing(&juliet)).await;
    assert_eq!(found, [Some(Verification::Secret); 2]);

    // The certificate is the same for XTLS.
    let found = meet(&prosody, romeo.strict(), juliet.strict()).await;
    assert_eq!(found, [Some(Verification::Secret); 2]);
}

// ---- codes and certificates ------------------------------------------------------------------

#[tokio::test]
async fn people_compare_the_code_and_then_ask_for_certificates() {
    let (romeo, juliet) = both();
    let Some(verona) = Verona::with(Kind::Unlimited, romeo.config(), juliet.config()).await else { return };
    let (romeos, juliets) = verona.streams().await;
    assert_shape!(
        within(romeos.certificates()).await,
        Err(Error::Security(SecurityError::Insufficient { reached: Level::FirstUse, .. }))
    );

    let (one, other) = within(future::join(romeos.verification_code(), juliets.verification_code())).await;
    assert_eq!(one.unwrap(), other.unwrap());
    within(romeos.confirm_code()).await.unwrap();
    romeo.assert_lists(JULIET, &juliet.identity, Verification::Code);
    juliet.assert_lists(ROMEO, &romeo.identity, Verification::FirstUse);

    let told = within(romeos.certificates()).await.unwrap();
    assert_eq!(told, [juliet.identity.certificate().clone()]);
    // While the stream is open, its code and its certificates are nobody else's business.
    assert_eq!(verona.count(&["pubkey"]).await, 0, "the server could read it");
}

// ---- who may call ----------------------------------------------------------------------------

#[tokio::test]
async fn the_roster_says_who_may_call() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let romeo = bot(ROMEO, prosody.connector(), config()).await;
    let mercutio = bot(MERCUTIO, prosody.connector(), config()).await;
    let guarded = config().callers(Callers::Roster);
    let (juliet, mut events) = bot_with_events(JULIET, prosody.connector(), guarded).await;
    // Only who is available hears of requests to subscribe.
    within(juliet.send_presence(Presence::available())).await.unwrap();
    assert_nobody_home(&romeo, &juliet).await;

    ask(&romeo, Type::Subscribe).await;
    let allowed = Presence::new(Type::Subscribed).with_to(bare(ROMEO));
    within(juliet.send_presence(allowed)).await.unwrap();
    pushed(&mut events, |subscription| *subscription == Subscription::From).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    talk(&mut romeos, &mut juliets).await;
    assert_nobody_home(&mercutio, &juliet).await;

    ask(&romeo, Type::Unsubscribe).await;
    pushed(&mut events, |subscription| *subscription != Subscription::From).await;
    assert_nobody_home(&romeo, &juliet).await;
    // Streams that are open stay.
    talk(&mut romeos, &mut juliets).await;
}

/// Asks juliet's server for this change of a subscription.
async fn ask(contact: &Endpoint, change: Type) {
    within(contact.send_presence(Presence::new(change).with_to(bare(JULIET)))).await.unwrap();
}

/// Waits for a roster push that says this about romeo.
async fn pushed(events: &mut Events, is_it: impl Fn(&Subscription) -> bool) {
    loop {
        let Stanza::Iq(Iq::Set { payload, .. }) = next_stanza(events).await else { continue };
        let Ok(Roster { items, .. }) = payload.try_into() else { continue };
        if items.iter().any(|item| item.jid == bare(ROMEO) && is_it(&item.subscription)) {
            return;
        }
    }
}

async fn assert_nobody_home(caller: &Endpoint, bot: &Endpoint) {
    let connected = within(caller.connect(&bot.jid().unwrap())).await;
    let Err(Error::Signalling(SignallingError::PeerUnreachable(error))) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!(error.defined_condition, DefinedCondition::ServiceUnavailable);
}

// ---- other certificates ----------------------------------------------------------------------

#[tokio::test]
async fn a_new_identity_is_refused_with_a_secret_too_and_changes_no_file() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, mut juliet) = both();
    let found = meet(&prosody, romeo.config(), juliet.config()).await;
    assert_eq!(found, [Some(Verification::FirstUse); 2]);
    let before = juliet.identity.clone();

    juliet.identity = Identity::generate_for(&bare(JULIET)).unwrap();
    let sharing = |kept: &Kept| kept.config().secret(secret(SECRET));
    for (romeos, juliets) in [
        (romeo.config(), juliet.config()),
        (sharing(&romeo), sharing(&juliet)),
        (romeo.strict(), juliet.strict()),
    ] {
        let [romeos, juliets] = fail_to_meet(&prosody, romeos, juliets).await;
        let Error::Security(SecurityError::KeyChanged { peer, expected, presented }) = &romeos else {
            panic!("{romeos:?}")
        };
        assert_eq!(*peer, bare(JULIET));
        assert_eq!(
            (expected.as_slice(), presented),
            ([before.fingerprint().clone()].as_slice(), juliet.identity.fingerprint())
        );
        assert_eq!(juliets.reason(), Reason::SecurityError, "{juliets:?}");
        romeo.assert_lists(JULIET, &before, Verification::FirstUse);
    }

    // The user compares the new one, and puts it in place of the old one.
    romeo.known().forget(&bare(JULIET)).unwrap();
    romeo.known().add(&bare(JULIET), juliet.identity.fingerprint().clone(), None).unwrap();
    let [romeos, _] = meet(&prosody, romeo.strict(), juliet.config()).await;
    assert_eq!(romeos, Some(Verification::Compared));
}

#[tokio::test]
async fn a_strict_bot_refuses_strangers_until_their_fingerprint_was_compared() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, juliet) = both();
    let [romeos, juliets] = fail_to_meet(&prosody, romeo.strict(), juliet.config()).await;
    let Error::Security(SecurityError::NotListed { presented, .. }) = &romeos else { panic!("{romeos:?}") };
    assert_eq!(presented, juliet.identity.fingerprint());
    assert_eq!(juliets.reason(), Reason::SecurityError, "{juliets:?}");
    assert_eq!(romeo.listed(), []);

    romeo.known().add(&bare(JULIET), presented.clone(), Some("balcony")).unwrap();
    let [romeos, _] = meet(&prosody, romeo.strict(), juliet.config()).await;
    assert_eq!(romeos, Some(Verification::Compared));
}

#[tokio::test]
async fn a_renewed_certificate_is_known_by_its_key() {
    let Some(prosody) = Prosody::start(Kind::Unlimited).await else { return };
    let (romeo, mut juliet) = both();
    meet(&prosody, romeo.config(), juliet.config()).await;
    let before = juliet.identity.fingerprint().clone();

    juliet.identity = juliet.identity.renew(&bare(JULIET)).unwrap();
    let known = romeo.known();
    let mut news = known.events();
    let strict = in_band(Config::new(romeo.identity.clone(), Trust::strict(known)));
    let [romeos, _] = meet(&prosody, strict, juliet.config()).await;
    assert_eq!(romeos, Some(Verification::Known));
    let event = within(news.next()).await;
    let Some(PeerEvent::Renewed { peer, certificate }) = event else { panic!("{event:?}") };
    assert_eq!((peer, certificate.fingerprint()), (bare(JULIET), juliet.identity.fingerprint()));
    assert_ne!(before, *juliet.identity.fingerprint());

    // From now on it is no news.
    let known = romeo.known();
    let mut news = known.events();
    let strict = in_band(Config::new(romeo.identity.clone(), Trust::strict(known)));
    let [romeos, _] = meet(&prosody, strict, juliet.config()).await;
    assert_eq!(romeos, Some(Verification::Known));
    let event = within(news.next()).await;
    assert!(event.is_none(), "{event:?}");
}
