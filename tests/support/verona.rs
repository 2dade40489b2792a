//! Romeo and Juliet, whom they trust, and what they say to Mallory between them.

use std::{collections::HashSet, fs, path::PathBuf};

use futures::future;
use jid::BareJid;
use jingle_xmlstream::{
    Config, E2eStream, Endpoint, Error, Fingerprint, Identity, KnownPeers, SecurityError, Trust,
};
use tempfile::TempDir;

use super::{JULIET, ROMEO, World, attempt, impostor::Impostor, in_band, streams, talk, wire, within};

/// All that Mallory ever hears, by his own bots: nothing about whom his victims trust.
const TOLD: [&str; 6] = [
    // His stream was up when somebody was asked about it.
    "the peer ended the XML stream with not-authorized (you could not be authenticated)",
    "the peer refused us on security grounds: its log says why",
    "the peer refused us on security grounds (certificate_unknown): its log says why",
    "the peer refused us on security grounds (you could not be authenticated): its log says why",
    // What he finds out himself: that they share a secret, and that it is not his.
    "expects us to prove a shared secret, and there is none for it: agree on one and set it at both ends",
    "was expected to know our shared secret, and knows another: set the same at both ends",
];

/// Romeo or Juliet.
pub struct Person {
    pub account: BareJid,
    pub identity: Identity,
    /// Whom they know.
    pub file: PathBuf,
}

pub struct Verona {
    pub world: World,
    pub romeo: Person,
    pub juliet: Person,
    _folder: TempDir,
}

/// Both online.
pub struct Couple {
    pub romeo: Endpoint,
    pub juliet: Endpoint,
}

/// What one of them said to a stream, and whom they took Mallory for.
pub struct Refusal<'a> {
    pub by: &'a Person,
    pub of: &'a Person,
    pub is_initiator: bool,
    pub presented: &'a Fingerprint,
    pub error: Error,
}

impl Person {
    fn new(jid: &str, identity: Identity, folder: &TempDir) -> Self {
        let account = jid.parse::<jid::Jid>().unwrap().to_bare();
        let file = folder.path().join(format!("known-to-{}.toml", account.node().unwrap()));
        Self { account, identity, file }
    }

    pub fn known(&self) -> KnownPeers {
        KnownPeers::open(&self.file).unwrap()
    }

    /// What is in the file, if there is one.
    pub fn written(&self) -> Option<String> {
        fs::read_to_string(&self.file).ok()
    }

    pub fn config(&self, trust: Trust) -> Config {
        in_band(Config::new(self.identity.clone(), trust))
    }
}

impl Verona {
    pub async fn start() -> Self {
        Self::with(Identity::generate().unwrap(), Identity::generate().unwrap()).await
    }

    pub async fn with(romeos: Identity, juliets: Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            world: World::start().await,
            romeo: Person::new(ROMEO, romeos, &folder),
            juliet: Person::new(JULIET, juliets, &folder),
            _folder: folder,
        }
    }

    /// Both with a policy, made from the known peers and of the other one.
    pub async fn couple(&self, trust: impl Fn(KnownPeers, &Person) -> Trust) -> Couple {
        self.couple_with(trust, |config| config).await
    }

    pub async fn couple_with(
        &self,
        trust: impl Fn(KnownPeers, &Person) -> Trust,
        change: impl Fn(Config) -> Config,
    ) -> Couple {
        let romeos = change(self.romeo.config(trust(self.romeo.known(), &self.juliet)));
        let juliets = change(self.juliet.config(trust(self.juliet.known(), &self.romeo)));
        let (romeo, juliet) = self.world.pair_of(romeos, juliets).await;
        Couple { romeo, juliet }
    }

    /// Mallory's certificates bear the right addresses: everybody can write those into his own.
    pub async fn mallory(&self) -> Impostor {
        self.mallory_with(|config| config).await
    }

    pub async fn mallory_with(&self, change: impl Fn(Config) -> Config) -> Impostor {
        let own = |person: &Person| Identity::generate_for(&person.account).unwrap();
        self.world.put_between(own(&self.romeo), own(&self.juliet), change).await
    }

    /// What both files say.
    pub fn written(&self) -> [Option<String>; 2] {
        [self.romeo.written(), self.juliet.written()]
    }

    /// Each calls the other with Mallory in between, and neither gets a stream.
    pub async fn refusals<'a>(&'a self, couple: &Couple, mallory: &'a Impostor) -> Vec<Refusal<'a>> {
        let of_romeo = |is_initiator, error| Refusal {
            by: &self.romeo,
            of: &self.juliet,
            is_initiator,
            presented: &mallory.juliets,
            error,
        };
        let of_juliet = |is_initiator, error| Refusal {
            by: &self.juliet,
            of: &self.romeo,
            is_initiator,
            presented: &mallory.romeos,
            error,
        };
        let (romeo, juliet) = attempt(&couple.romeo, &couple.juliet).await;
        let first = [of_romeo(true, romeo.unwrap_err()), of_juliet(false, juliet.unwrap_err())];
        let (juliet, romeo) = attempt(&couple.juliet, &couple.romeo).await;
        let second = [of_juliet(true, juliet.unwrap_err()), of_romeo(false, romeo.unwrap_err())];
        first.into_iter().chain(second).collect()
    }

    /// Both refuse him for this, as initiator and as responder, tell their users all about it and him nothing, and have
    /// said nothing to him.
    pub async fn assert_caught(
        &self,
        couple: &Couple,
        mallory: &Impostor,
        is_expected: impl Fn(&SecurityError) -> bool,
    ) {
        let before = self.written();
        for refusal in self.refusals(couple, mallory).await {
            refusal.assert_security(&is_expected);
        }
        assert_eq!(self.written(), before, "nothing is learnt from him");
        self.assert_he_got_nothing(mallory).await;
    }

    pub async fn assert_he_got_nothing(&self, mallory: &Impostor) {
        assert_eq!(mallory.read(), Vec::<String>::new());
        let refusals = mallory.refusals(2).await;
        assert!(!refusals.is_empty());
        for refusal in refusals {
            assert!(TOLD.iter().any(|told| refusal.contains(told)), "{refusal}");
        }
        self.assert_ends_without_a_word().await;
    }

    /// Waits until each session that was offered is ended by one side or the other.
    async fn all_sessions_over(&self) {
        let mut recorded = self.world.server.subscribe();
        let sessions = |action| -> HashSet<String> {
            let record = self.world.server.record();
            let requests = record.iter().filter(|recorded| wire::action(&recorded.element) == Some(action));
            let jingles = requests.filter_map(|recorded| recorded.element.get_child("jingle", wire::JINGLE));
            jingles.map(|jingle| jingle.attr("sid").unwrap().to_owned()).collect()
        };
        while sessions("session-initiate") != sessions("session-terminate") {
            // One that was missed is in the record all the same.
            let _ = recorded.recv().await;
        }
    }

    /// No session was ended with words: those would say whom the victim trusts.
    pub async fn assert_ends_without_a_word(&self) {
        within(self.all_sessions_over()).await;
        let record = self.world.server.record();
        let ends = record
            .iter()
            .filter(|recorded| [ROMEO, JULIET].contains(&recorded.from.as_str()))
            .filter(|recorded| wire::action(&recorded.element) == Some("session-terminate"));
        for end in ends {
            let jingle = end.element.get_child("jingle", wire::JINGLE).unwrap();
            let reason = jingle.get_child("reason", wire::JINGLE).unwrap();
            assert!(!reason.has_child("text", wire::JINGLE), "{}", String::from(&*end.element));
        }
    }
}

impl Refusal<'_> {
    #[track_caller]
    pub fn assert_security(&self, is_expected: impl Fn(&SecurityError) -> bool) {
        let Error::Security(error) = &self.error else { panic!("{}: {:?}", self.role(), self.error) };
        assert!(is_expected(error), "{}: {error}", self.role());
        let text = error.to_string();
        for fragment in self.fragments(error) {
            assert!(text.contains(&fragment), "{fragment:?} is not in {text:?}");
        }
    }

    fn role(&self) -> String {
        let role = if self.is_initiator { "initiator" } else { "responder" };
        format!("{} as {role}", self.by.account)
    }

    /// What the text must say: what was expected, what came, and what the user can do.
    fn fragments(&self, error: &SecurityError) -> [String; 3] {
        let (presented, peer) = (self.presented, &self.of.account);
        let genuine = self.of.identity.fingerprint();
        let genuine_key = self.of.identity.key();
        match error {
            SecurityError::KeyChanged { .. } => [
                format!("the certificate of {peer} changed: expected {genuine}"),
                format!("presented {presented}"),
                "compare it over another way, then add it to the known peers".into(),
            ],
            SecurityError::NotListed { .. } => [
                format!("{peer} is expected to be a known peer"),
                format!("presented {presented}, which nothing is known of"),
                "compare it over another way and add it to the known peers".into(),
            ],
            SecurityError::NotPinned { pinned, .. } => [
                match pinned.first().is_some_and(|pin| pin.starts_with("key ")) {
                    true => format!("the pinned ones (key {genuine_key})"),
                    false => format!("the pinned ones ({genuine})"),
                },
                format!("the certificate {presented} is not among"),
                "pin it if it is the peer's, once you have compared it".into(),
            ],
            SecurityError::NotIssued { why, .. } => [
                format!("{peer} is expected to have a certificate of a trusted authority"),
                format!("presented {presented}: {why}"),
                "get it one, or add it to the known peers".into(),
            ],
            SecurityError::Revoked { .. } => [
                format!("the certificate {presented} of {peer}"),
                "was revoked".into(),
                "the peer needs a new one, which then has to be verified".into(),
            ],
            SecurityError::UserRefused { .. } => [
                format!("the user was asked about {peer}"),
                format!("with {presented} and did not accept it"),
                "answer otherwise next time".into(),
            ],
            SecurityError::Insufficient { .. } => [
                format!("{peer} is expected to be verified"),
                "is first-use".into(),
                format!(
                    "share a secret with it, compare the verification code or the fingerprint {presented}"
                ),
            ],
            SecurityError::SecretNotOffered { .. } => [
                format!("{peer} is expected to prove the shared secret"),
                "offers no SASL".into(),
                "give it the same secret".into(),
            ],
            SecurityError::SecretMismatch { .. } => [
                format!("{peer} was expected to know our shared secret"),
                "knows another".into(),
                "set the same at both ends".into(),
            ],
            SecurityError::PeerRefused(_) => [
                "the peer refused us on security grounds".into(),
                "you could not be authenticated".into(),
                "get to know our certificate, or share a secret".into(),
            ],
            other => panic!("unexpected: {other}"),
        }
    }
}

impl Couple {
    pub async fn streams(&self) -> (E2eStream, E2eStream) {
        streams(&self.romeo, &self.juliet).await
    }

    /// Speak with each other, in both roles, and hang up.
    pub async fn meet(&self) {
        for (one, other) in [(&self.romeo, &self.juliet), (&self.juliet, &self.romeo)] {
            let (mut ones, mut others) = streams(one, other).await;
            talk(&mut ones, &mut others).await;
            hang_up(ones, others).await;
        }
    }
}

pub async fn hang_up(one: E2eStream, other: E2eStream) {
    let (one, other) = within(future::join(one.close(), other.close())).await;
    one.unwrap();
    other.unwrap();
}
