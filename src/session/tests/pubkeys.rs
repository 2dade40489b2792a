//! Certificates are not told where servers could replace them (jingle-xtls #exchange).

use super::*;
use crate::Callers;

fn answer_to(config: Config, namespace: &str) -> Vec<String> {
    let now = Instant::now();
    let mut juliet = End::new(Juliet, config, now);
    let asked = format!(
        "<iq xmlns='jabber:client' type='get' id='hf7634k' from='{ROMEO}' to='{JULIET}'>\
         <pubkeys xmlns='{namespace}'/></iq>"
    );
    assert!(juliet.receives(now, &asked.parse().unwrap()).is_none(), "the bot never hears of it");
    let sent = juliet.sent();
    sent.iter().filter(|stanza| stanza.attr("id") == Some("hf7634k")).map(describe).collect()
}

#[test]
fn nobody_gets_a_certificate_over_the_servers() {
    for namespace in ["urn:xmpp:tmp:pubkey", "urn:xmpp:pubkey:2"] {
        assert_eq!(answer_to(config(Juliet), namespace), ["error cancel not-allowed"]);
    }
}

#[test]
fn a_bot_that_is_not_there_for_everybody_does_not_show_that_it_knows_of_certificates() {
    for callers in [Callers::Only([].into()), Callers::Roster, Callers::filter(|_| true)] {
        let config = config(Juliet).callers(callers);
        assert_eq!(answer_to(config, "urn:xmpp:tmp:pubkey"), ["error cancel service-unavailable"]);
    }
}
