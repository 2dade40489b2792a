//! Recorded exchanges: `fixtures/sasl/`.

use std::{fs, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    by_hand::{Computed, auth_message, value},
    *,
};

/// A file.
struct Transcript {
    name: String,
    lines: Vec<(String, String)>,
}

impl Transcript {
    fn all() -> Vec<Self> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/sasl");
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "txt")).map(read).collect()
    }

    fn named(name: &str) -> Self {
        Self::all().into_iter().find(|transcript| transcript.name == name).expect(name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|(line, value)| (line == name).then_some(value.as_str()))
    }

    fn the(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    fn mechanism(&self) -> Mechanism {
        Mechanism::named(self.the("mechanism")).unwrap()
    }

    fn secret(&self) -> Secret {
        self.the("secret").parse().unwrap()
    }

    fn binding(&self, name: &str) -> Binding {
        let hex = self.the(name);
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        Binding(Zeroizing::new(std::array::from_fn(byte)))
    }

    /// The proof and the signature that follow from a secret.
    fn computed(&self, hash: Hash, secret: &str) -> (String, String) {
        let computed = Computed::new(hash, secret, self.the("challenge"));
        let signed = auth_message(self.the("auth"), self.the("challenge"), self.the("response"));
        let encode = |bytes: Vec<u8>| BASE64_STANDARD.encode(bytes);
        (encode(computed.proof(&signed)), encode(computed.signature(&signed)))
    }

    fn proof(&self) -> String {
        value(self.the("response"), "p=")
    }
}

fn read(file: PathBuf) -> Transcript {
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{file:?}: {line}"));
        (name.to_owned(), value.trim_start().to_owned())
    });
    Transcript { name: file.file_stem().unwrap().to_str().unwrap().to_owned(), lines: lines.collect() }
}

#[test]
fn keys_are_derived_as_in_the_example_of_rfc_7677() {
    let transcript = Transcript::named("rfc7677");
    let (proof, signature) = transcript.computed(Hash::Sha256, transcript.the("secret"));
    assert_eq!(proof, transcript.proof());
    assert_eq!(format!("v={signature}"), transcript.the("success"));
}

#[test]
fn recorded_proofs_and_signatures_follow_from_the_secret() {
    for name in ["scram-sha-256-plus", "scram-sha-512-plus"] {
        let transcript = Transcript::named(name);
        let hash = Hash::of(transcript.mechanism()).unwrap();
        let (proof, signature) = transcript.computed(hash, transcript.the("secret"));
        assert_eq!(proof, transcript.proof());
        assert_eq!(format!("v={signature}"), transcript.the("success"));
        let bound = BASE64_STANDARD.decode(value(transcript.the("response"), "c=")).unwrap();
        assert_eq!(bound.strip_prefix(b"p=tls-exporter,,"), Some(&transcript.binding("binding").0[..]));
    }
}

#[test]
fn the_recorded_wrong_proof_follows_from_the_wrong_secret() {
    let transcript = Transcript::named("wrong-secret");
    let proof = |secret| transcript.computed(Hash::Sha256, secret).0;
    assert_eq!(proof(transcript.the("initiator-secret")), transcript.proof());
    assert_ne!(proof(transcript.the("secret")), transcript.proof());
}

#[test]
fn the_recorded_relayed_proof_is_right_but_for_the_connection() {
    let transcript = Transcript::named("relayed");
    assert_eq!(transcript.computed(Hash::Sha256, transcript.the("secret")).0, transcript.proof());
    let bound = BASE64_STANDARD.decode(value(transcript.the("response"), "c=")).unwrap();
    assert!(bound.ends_with(&transcript.binding("initiator-binding").0[..]));
}

#[test]
fn responders_answer_what_is_recorded_as_they_should() {
    let mut played = Vec::new();
    for transcript in Transcript::all().into_iter().filter(|file| file.get("at") == Some("responder")) {
        let answer = play_to_responder(&transcript);
        let name = transcript.name;
        match answer {
            Ok(reply) => assert!(name.starts_with("external"), "{name}: {reply:?}"),
            // A successful exchange is not successful again.
            Err(refusal) if name.starts_with("scram-") => {
                assert_eq!(why(&refusal.error), Transcript::named("replayed").the("error"), "{name}");
            }
            Err(refusal) => {
                let file = Transcript::named(&name);
                assert_eq!(refusal.condition, file.the("failure"), "{name}");
                assert_eq!(why(&refusal.error), file.the("error"), "{name}");
            }
        }
        played.push(name);
    }
    assert_eq!(played.len(), 13, "{played:?}");
}

/// Its last answer.
fn play_to_responder(transcript: &Transcript) -> Result<Reply, Refusal> {
    let mut juliet = match transcript.mechanism() {
        Mechanism::External => Responder::external(&peer()),
        scram => responder(scram, &transcript.secret(), &transcript.binding("binding")),
    };
    let reply = juliet.step(transcript.the("auth").as_bytes())?;
    match transcript.get("response") {
        Some(response) => juliet.step(response.as_bytes()),
        None => Ok(reply),
    }
}

#[test]
fn initiators_refuse_what_is_recorded_as_they_should() {
    let mut played = 0;
    for transcript in Transcript::all().into_iter().filter(|file| file.get("at") == Some("initiator")) {
        let mut romeo =
            initiator(transcript.mechanism(), &transcript.secret(), &transcript.binding("binding"));
        romeo.initial_response().unwrap();
        let error = match transcript.get("challenge") {
            Some(challenge) => romeo.challenge(challenge.as_bytes()).unwrap_err(),
            None => romeo.success(Some(transcript.the("success").as_bytes())).unwrap_err(),
        };
        assert_eq!(why(&error), transcript.the("error"), "{}", transcript.name);
        played += 1;
    }
    assert_eq!(played, 6);
}
