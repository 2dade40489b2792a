//! Whether a disco#info answer is the one that a hash in somebody's presence stands for (XEP-0115 #ver-proc).

use std::collections::BTreeSet;

use xmpp_parsers::{
    caps::{Caps, compute_disco, hash_caps},
    data_forms::DataForm,
    disco::DiscoInfoResult,
    minidom::Element,
};

use crate::wire::ns;

/// Whether the answer may be kept for everybody who announces this hash.
pub(super) fn answer_matches(caps: &Caps, answer: &Element) -> bool {
    let Some(info) = well_formed(answer) else { return false };
    hash_caps(&compute_disco(&info), caps.hash.clone()).is_ok_and(|computed| computed.hash == caps.ver)
}

/// The answer in the form in which it is hashed, or nothing if the rules of XEP-0115 call it ill-formed.
fn well_formed(answer: &Element) -> Option<DiscoInfoResult> {
    let mut info = DiscoInfoResult::try_from(answer.clone()).ok()?;
    // A form that does not say what it is about is left out of the hash.
    info.extensions.retain(|form| form.form_type().is_some());
    for form in &mut info.extensions {
        form.fields.sort_by(|a, b| a.var.cmp(&b.var));
    }

    let identities = info.identities.iter();
    let identities = identities.map(|it| (&it.category, &it.type_, &it.lang, &it.name));
    let features = answer.children().filter(|child| child.is("feature", ns::DISCO_INFO));
    let forms = info.extensions.iter().map(DataForm::form_type);
    let unique = all_differ(identities) && all_differ(features.map(|it| it.attr("var"))) && all_differ(forms);

    (unique && !texts(&info).any(|text| text.contains('<'))).then_some(info)
}

/// Everything that goes into the hash. It is joined by `<`, so that a text with a `<` in it could stand for
/// two (XEP-0115 #ver-gen).
fn texts(info: &DiscoInfoResult) -> impl Iterator<Item = &String> {
    let identities = info.identities.iter();
    let identities =
        identities.flat_map(|it| [&it.category, &it.type_].into_iter().chain(&it.lang).chain(&it.name));
    let fields = info.extensions.iter().flat_map(|form| &form.fields);
    let fields = fields.flat_map(|field| field.var.iter().chain(&field.values));
    identities.chain(&info.features).chain(fields)
}

fn all_differ<T: Ord>(mut items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.all(|item| seen.insert(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMPLE: &str = include_str!("../../fixtures/xep-0115/disco-result-simple.xml");
    const COMPLEX: &str = include_str!("../../fixtures/xep-0115/disco-result-complex.xml");

    /// The query in a disco#info result, changed, against the hash in its node.
    fn matches(iq: &str, from: &str, to: &str) -> bool {
        assert!(iq.contains(from), "the fixture does not contain {from}");
        let iq: Element =
            iq.replacen(from, to, 1).replacen("<iq", "<iq xmlns='jabber:client'", 1).parse().unwrap();
        let query = iq.get_child("query", ns::DISCO_INFO).unwrap();
        let (node, ver) = query.attr("node").unwrap().split_once('#').unwrap();
        let caps = Element::builder("c", ns::CAPS)
            .attr(rxml::xml_ncname!("hash").into(), "sha-1")
            .attr(rxml::xml_ncname!("node").into(), node)
            .attr(rxml::xml_ncname!("ver").into(), ver)
            .build();
        answer_matches(&Caps::try_from(caps).unwrap(), query)
    }

    #[test]
    fn the_examples_of_xep_0115_match_their_hashes() {
        assert!(matches(SIMPLE, "<query", "<query"));
        assert!(matches(COMPLEX, "<query", "<query"));
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let software = "<field var='software'>\n        <value>Psi</value>\n      </field>";
        let without = COMPLEX.replacen(software, "", 1);
        assert!(matches(&without, "<field var='os'>", &format!("{software}<field var='os'>")));
    }

    #[test]
    fn a_changed_feature_does_not_match() {
        assert!(!matches(SIMPLE, "protocol/muc", "protocol/ibb"));
    }

    #[test]
    fn duplicates_are_ill_formed() {
        for duplicate in [
            "<feature var='http://jabber.org/protocol/muc'/>",
            "<identity category='client' name='Exodus 0.9.1' type='pc'/>",
        ] {
            assert!(!matches(SIMPLE, duplicate, &duplicate.repeat(2)), "{duplicate}");
        }
        let form = &COMPLEX[COMPLEX.find("<x ").unwrap()..COMPLEX.find("</query>").unwrap()];
        assert!(!matches(COMPLEX, form, &form.repeat(2)));
    }

    #[test]
    fn a_form_without_a_hidden_form_type_is_left_out() {
        let form =
            "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE'><value>a</value></field></x>";
        assert!(matches(SIMPLE, "</query>", &format!("{form}</query>")));
        assert!(!matches(COMPLEX, " type='hidden'", ""));
    }

    #[test]
    fn one_text_can_not_stand_for_two() {
        // Hashed as printed, this would be the same as the two features.
        let two = "<feature var='http://jabber.org/protocol/disco#items'/>\n    <feature var='http://jabber.org/protocol/muc'/>";
        let one = "<feature var='http://jabber.org/protocol/disco#items&lt;http://jabber.org/protocol/muc'/>";
        assert!(!matches(SIMPLE, two, one));
    }
}
