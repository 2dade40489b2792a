//! What nobody should send.

use super::*;

/// The stanzas of a folder of fixtures.
fn fixtures(folder: &str) -> Vec<(String, Element)> {
    let directory = format!("{}/fixtures/{folder}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let names = paths.filter(|path| path.extension().is_some_and(|extension| extension == "xml"));
    let names = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    names
        .filter_map(|name| Some((name.clone(), fixture(&format!("{folder}/{name}")).parse().ok()?)))
        .collect()
}

#[test]
fn hostile_stanzas_get_one_answer_and_leave_every_session_as_it_was() {
    let stanzas = fixtures("hostile");
    assert!(stanzas.len() > 30);
    for (name, stanza) in stanzas {
        let (mut pair, romeos, juliets) = Pair::open();
        let now = pair.now;
        let juliet = pair.end(Juliet);
        if juliet.receives(now, &stanza).is_some() {
            continue;
        }
        let sent = juliet.sent();
        assert!(describe(&sent[0]).starts_with("error") || describe(&sent[0]) == "result", "{name}");
        assert!(sent.len() == 1 || describe(&sent[1]).starts_with("set session-terminate"), "{name}");
        assert!(juliet.incoming.is_empty(), "{name} rings");
        assert!(juliet.is_open(juliets));
        pair.send(Romeo, romeos, b"unharmed");
        pair.run();
        assert_eq!(pair.drain(Juliet, juliets).0, b"unharmed", "{name}");
    }
}

#[test]
fn every_stanza_of_the_specifications_is_survived_in_every_order() {
    let mut stanzas = Vec::new();
    for folder in ["xep-0047", "xep-0166", "xep-0247", "xep-0261", "xtls", "peers"] {
        stanzas.extend(fixtures(folder));
    }
    let now = Instant::now();
    for start in 0..stanzas.len() {
        let mut juliet = End::new(Juliet, config(Juliet), now);
        for (_, stanza) in stanzas.iter().cycle().skip(start).take(stanzas.len()) {
            if Stanza::try_from(stanza.clone()).is_err() {
                continue;
            }
            juliet.receives(now, stanza);
            if let Some(id) = juliet.incoming.pop_front() {
                // It may have been terminated at once.
                drop(juliet.sessions.accept(now, id));
            }
            juliet.sent();
        }
        juliet.sessions.handle_timeout(now + Duration::from_secs(3600));
        juliet.sessions.handle_timeout(now + Duration::from_secs(7200));
        assert!(juliet.sessions.live().is_empty());
        assert!(juliet.sessions.requests.is_empty());
    }
}

#[test]
fn every_request_is_answered_once_whatever_is_changed_in_it() {
    let (mut pair, romeos, _) = Pair::open();
    let sid = pair.end(Romeo).sessions.sid(romeos).unwrap().to_owned();
    let requests = [
        initiate("new"),
        jingle("session-info", &sid, ""),
        jingle("transport-replace", &sid, &content("name='xmlstream'", TRANSPORT)),
        jingle("content-modify", &sid, &content("name='xmlstream' senders='none'", "")),
        "<open xmlns='http://jabber.org/protocol/ibb' sid='a' block-size='1'/>".to_owned(),
        "<data xmlns='http://jabber.org/protocol/ibb' sid='a' seq='1'>AAAA</data>".to_owned(),
    ];
    let now = pair.now;
    for request in requests {
        // Whatever is left out: an attribute's quote, a name's letter, a whole value.
        for (from, to) in (0..request.len()).flat_map(|from| [1, 5, 12].map(|length| (from, from + length))) {
            let Some(rest) = request.get(to..) else { continue };
            let iq = format!(
                "<iq xmlns='jabber:client' type='set' id='x1' from='{ROMEO}'>{}{rest}</iq>",
                &request[..from]
            );
            let Some(stanza) = iq.parse::<Element>().ok().filter(|iq| Stanza::try_from(iq.clone()).is_ok())
            else {
                continue;
            };
            let juliet = pair.end(Juliet);
            let back = juliet.receives(now, &stanza);
            let sent = juliet.sent();
            let answers = sent.iter().filter(|stanza| stanza.attr("id") == Some("x1"));
            assert_eq!(answers.count() + usize::from(back.is_some()), 1, "{iq}");
            for id in std::mem::take(&mut juliet.incoming) {
                juliet.sessions.release(now, id);
            }
            juliet.sent();
        }
    }
}
