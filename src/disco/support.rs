//! What a peer supports, as far as it matters here.

use std::collections::BTreeSet;

use xmpp_parsers::minidom::Element;

use crate::{
    error::PeerIncompatible,
    wire::{
        jingle::{Dialect, Malformed},
        ns,
    },
};

/// Features in one answer. Programs of today list 30 to 100.
pub(crate) const MAX_FEATURES: usize = 512;

/// The features that anybody here asks about; others are not kept.
const RELEVANT: [&str; 8] = [
    ns::JINGLE,
    ns::JINGLE_0,
    ns::XMLSTREAM,
    ns::JINGLE_IBB,
    ns::JINGLE_IBB_0,
    ns::JINGLE_S5B,
    ns::XTLS,
    ns::EARLY_DATA,
];

/// The features of a peer, reduced to those that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Support {
    features: BTreeSet<&'static str>,
}

/// The version of in-band bytestreams to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum InBand {
    #[default]
    V1,
    /// The one that XEP-0247 prints, `…:ibb:0`.
    V0,
}

/// Whether a peer takes what is sent before it has answered: data behind `<open/>`, stanzas behind a stream header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EarlyData {
    /// It says so.
    Announced,
    /// Nothing is known of it.
    #[default]
    Unknown,
}

/// What a session with a peer will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The Jingle namespaces to speak.
    pub(crate) dialect: Dialect,
    /// Whether the peer does in-band bytestreams (XEP-0261), which XEP-0247 demands, though a bot's user may not.
    pub(crate) ibb: Option<InBand>,
    /// Whether the peer does SOCKS5 bytestreams (XEP-0260).
    pub(crate) s5b: bool,
    /// Whether the peer does XTLS.
    pub(crate) xtls: bool,
    pub(crate) early_data: EarlyData,
}

impl Support {
    /// Reads the features of a disco#info answer.
    pub(crate) fn parse(answer: &Element) -> Result<Self, Malformed> {
        if !answer.is("query", ns::DISCO_INFO) {
            return Err(Malformed::new("the answer to disco#info is no disco#info"));
        }
        let features = || answer.children().filter(|child| child.is("feature", ns::DISCO_INFO));
        if features().count() > MAX_FEATURES {
            return Err(Malformed(format!(
                "the answer to disco#info lists more than {MAX_FEATURES} features"
            )));
        }
        Ok(Self::of(features().filter_map(|feature| feature.attr("var"))))
    }

    /// Of these features, what matters here.
    pub(super) fn of<'a>(features: impl Iterator<Item = &'a str>) -> Self {
        let named: BTreeSet<_> = features.collect();
        Self { features: RELEVANT.into_iter().filter(|feature| named.contains(feature)).collect() }
    }

    fn has(&self, feature: &str) -> bool {
        self.features.contains(feature)
    }

    /// How to talk to this peer.
    ///
    /// # Errors
    ///
    /// Names the first feature that the peer lacks.
    pub(crate) fn require(&self, xtls_required: bool) -> Result<Needs, PeerIncompatible> {
        let missing = |feature: &str| PeerIncompatible::MissingFeature(feature.to_owned());

        let dialect = match (self.has(ns::JINGLE), self.has(ns::JINGLE_0)) {
            (true, _) => Dialect::V1,
            (false, true) => Dialect::V0,
            (false, false) => return Err(missing(ns::JINGLE)),
        };
        if !self.has(ns::XMLSTREAM) {
            return Err(missing(ns::XMLSTREAM));
        }
        let ibb = match (self.has(ns::JINGLE_IBB), self.has(ns::JINGLE_IBB_0)) {
            (true, _) => Some(InBand::V1),
            (false, true) => Some(InBand::V0),
            (false, false) => None,
        };
        let s5b = self.has(ns::JINGLE_S5B);
        if ibb.is_none() && !s5b {
            return Err(missing(ns::JINGLE_IBB));
        }
        let xtls = self.has(ns::XTLS);
        if xtls_required && !xtls {
            return Err(missing(ns::XTLS));
        }
        let early_data = if self.has(ns::EARLY_DATA) { EarlyData::Announced } else { EarlyData::Unknown };
        Ok(Needs { dialect, ibb, s5b, xtls, early_data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(features: &[&str]) -> Element {
        let features = features.iter().map(|feature| {
            Element::builder("feature", ns::DISCO_INFO).attr(rxml::xml_ncname!("var").into(), *feature)
        });
        Element::builder("query", ns::DISCO_INFO).append_all(features).build()
    }

    fn support(features: &[&str]) -> Support {
        Support::parse(&answer(features)).unwrap()
    }

    fn uses(dialect: Dialect, ibb: Option<InBand>, s5b: bool, xtls: bool) -> Needs {
        Needs { dialect, ibb, s5b, xtls, early_data: EarlyData::Unknown }
    }

    #[test]
    fn early_data_is_for_those_who_say_that_they_take_it() {
        let usual = [ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB, ns::XTLS];
        assert_eq!(support(&usual).require(true).unwrap().early_data, EarlyData::Unknown);

        let all = [ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB, ns::XTLS, ns::EARLY_DATA];
        assert_eq!(support(&all).require(true).unwrap().early_data, EarlyData::Announced);
    }

    #[test]
    fn the_first_missing_feature_is_named() {
        let all = [ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB, ns::XTLS];
        for missing in all {
            let rest: Vec<_> = all.into_iter().filter(|feature| *feature != missing).collect();
            let error = support(&rest).require(true).unwrap_err();
            assert_eq!(error, PeerIncompatible::MissingFeature(missing.to_owned()));
        }
        assert!(support(&all).require(true).is_ok());
    }

    #[test]
    fn xtls_may_be_missing_where_it_is_not_required() {
        let needs = support(&[ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB]).require(false).unwrap();
        assert_eq!(needs, uses(Dialect::V1, Some(InBand::V1), false, false));
    }

    #[test]
    fn the_namespaces_that_xep_0247_prints_are_enough() {
        let needs =
            support(&[ns::JINGLE_0, ns::XMLSTREAM, ns::JINGLE_IBB_0, ns::XTLS]).require(true).unwrap();
        assert_eq!(needs, uses(Dialect::V0, Some(InBand::V0), false, true));
    }

    #[test]
    fn the_registered_namespaces_are_preferred() {
        let all = [ns::JINGLE_0, ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB_0, ns::JINGLE_IBB];
        let needs = support(&all).require(false).unwrap();
        assert_eq!(needs, uses(Dialect::V1, Some(InBand::V1), false, false));
    }

    #[test]
    fn one_transport_is_enough() {
        let needs = support(&[ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_IBB, ns::JINGLE_S5B]).require(false);
        assert_eq!(needs, Ok(uses(Dialect::V1, Some(InBand::V1), true, false)));

        let needs = support(&[ns::JINGLE, ns::XMLSTREAM, ns::JINGLE_S5B]).require(false);
        assert_eq!(needs, Ok(uses(Dialect::V1, None, true, false)));
    }

    #[test]
    fn huge_answers_and_other_elements_are_refused() {
        assert!(Support::parse(&answer(&["a"; MAX_FEATURES])).is_ok());
        assert!(Support::parse(&answer(&["a"; MAX_FEATURES + 1])).is_err());
        assert!(Support::parse(&Element::bare("query", ns::IBB)).is_err());
    }
}
