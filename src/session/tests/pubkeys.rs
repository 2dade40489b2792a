//! Certificates are not told where servers could replace them (jingle-xtls #exchange).

use super::*;

#[test]
fn nobody_gets_a_certificate_over_the_servers() {
    for namespace in ["urn:xmpp:tmp:pubkey", "urn:xmpp:pubkey:2"] {
        let now = Instant::now();
        let mut juliet = End::new(Juliet, config(Juliet), now);
        let asked = format!(
            "<iq xmlns='jabber:client' type='get' id='hf7634k' from='{ROMEO}' to='{JULIET}'>\
             <pubkeys xmlns='{namespace}'/></iq>"
        );
        juliet.receives(now, &asked.parse().unwrap());
        let refusal = juliet.sent().remove(0);
        let error = refusal.get_child("error", "jabber:client").unwrap();
        assert_eq!((refusal.attr("id"), error.attr("type")), (Some("hf7634k"), Some("cancel")));
        assert!(error.has_child("not-allowed", "urn:ietf:params:xml:ns:xmpp-stanzas"));
    }
}
