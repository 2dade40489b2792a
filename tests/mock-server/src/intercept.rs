//! Closures of a test that judge every stanza on its way.

use std::sync::{Arc, Mutex, PoisonError};

use xmpp_parsers::{jid::Jid, minidom::Element, stanza_error::StanzaError};

/// Between whom a stanza travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The full JID of the sender.
    pub from: Jid,
    /// The addressee: a full JID, or a bare one or a domain for what the server itself answers.
    pub to: Jid,
}

/// What an intercept wants done with a stanza.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Deliver it as it is.
    Deliver,
    /// Deliver this instead, to the same addressee, with whatever `from`, `to` and `id` it has.
    Replace(Element),
    /// Deliver it and then these, each to its own `to` (default: the same addressee), `from` the same sender unless they
    /// say otherwise. Other intercepts do not see them.
    Also(Vec<Element>),
    /// Deliver nothing and say nothing.
    Drop,
    /// Do not deliver it; answer the sender with this error in the addressee's name.
    Bounce(StanzaError),
    /// Do not deliver it; answer the sender with this stanza in the addressee's name. The id and the addresses are filled
    /// in, and `type='result'` where an iq has no type. This is how a test plays a service (a SOCKS5 proxy, say).
    Reply(Element),
    /// Deliver it; then close this client's TCP connections without a word, once all is written that was for it.
    CutAfter(Jid),
}

/// Names one intercept, to take it away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterceptId(u64);

type Judge = dyn FnMut(&Route, &Element) -> Verdict + Send;

/// The intercepts in force, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Intercepts {
    stack: Mutex<Stack>,
}

#[derive(Default)]
struct Stack {
    next_id: u64,
    /// Shared, so that a closure runs outside the lock and may itself call the server.
    judges: Arc<Vec<(InterceptId, Arc<Mutex<Judge>>)>>,
}

/// The sum of all verdicts on one stanza.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) stanza: Element,
    pub(crate) fate: Fate,
    /// Sent in addition, whatever becomes of the stanza.
    pub(crate) extras: Vec<Element>,
    /// Whose connections are closed then.
    pub(crate) cut: Vec<Jid>,
}

#[derive(Debug)]
pub(crate) enum Fate {
    Deliver,
    /// Deliver; the stanza is not what the sender sent.
    DeliverAltered,
    Drop,
    Bounce(StanzaError),
    Reply(Element),
}

impl Intercepts {
    pub(crate) fn add(&self, judge: impl FnMut(&Route, &Element) -> Verdict + Send + 'static) -> InterceptId {
        let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        let id = InterceptId(stack.next_id);
        stack.next_id += 1;
        Arc::make_mut(&mut stack.judges).push((id, Arc::new(Mutex::new(judge))));
        id
    }

    pub(crate) fn remove(&self, id: InterceptId) {
        let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut stack.judges).retain(|(other, _)| *other != id);
    }

    pub(crate) fn clear(&self) {
        let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        stack.judges = Arc::default();
    }

    /// Asks each intercept in turn; one that does not deliver ends it.
    pub(crate) fn judge(&self, route: &Route, mut stanza: Element) -> Judgement {
        let judges = self.stack.lock().unwrap_or_else(PoisonError::into_inner).judges.clone();
        let mut fate = Fate::Deliver;
        let mut extras = Vec::new();
        let mut cut = Vec::new();
        for (_, judge) in judges.iter() {
            let verdict = {
                let mut judge = judge.lock().unwrap_or_else(PoisonError::into_inner);
                (*judge)(route, &stanza)
            };
            match verdict {
                Verdict::Deliver => {}
                Verdict::Replace(other) => {
                    stanza = other;
                    fate = Fate::DeliverAltered;
                }
                Verdict::Also(more) => extras.extend(more),
                Verdict::CutAfter(jid) => cut.push(jid),
                Verdict::Drop => return Judgement { stanza, fate: Fate::Drop, extras, cut },
                Verdict::Bounce(error) => {
                    return Judgement { stanza, fate: Fate::Bounce(error), extras, cut };
                }
                Verdict::Reply(reply) => return Judgement { stanza, fate: Fate::Reply(reply), extras, cut },
            }
        }
        Judgement { stanza, fate, extras, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route {
            from: "romeo@montague.lit/orchard".parse().unwrap(),
            to: "juliet@capulet.lit/balcony".parse().unwrap(),
        }
    }

    fn message(body: &str) -> Element {
        format!("<message xmlns='jabber:client'><body>{body}</body></message>").parse().unwrap()
    }

    #[test]
    fn each_intercept_sees_what_the_one_before_made_of_the_stanza() {
        let intercepts = Intercepts::default();
        intercepts.add(|_, _| Verdict::Replace(message("second")));
        intercepts.add(|_, stanza| {
            assert_eq!(*stanza, message("second"));
            Verdict::Also(vec![message("third")])
        });
        let judgement = intercepts.judge(&route(), message("first"));
        assert_eq!(judgement.stanza, message("second"));
        assert!(matches!(judgement.fate, Fate::DeliverAltered));
        assert_eq!(judgement.extras, [message("third")]);
    }

    #[test]
    fn a_drop_ends_the_asking_and_a_removed_intercept_is_not_asked() {
        let intercepts = Intercepts::default();
        let dropping = intercepts.add(|_, _| Verdict::Drop);
        intercepts.add(|_, stanza| Verdict::Replace(stanza.clone()));
        assert!(matches!(intercepts.judge(&route(), message("a")).fate, Fate::Drop));
        intercepts.remove(dropping);
        assert!(matches!(intercepts.judge(&route(), message("a")).fate, Fate::DeliverAltered));
        intercepts.clear();
        assert!(matches!(intercepts.judge(&route(), message("a")).fate, Fate::Deliver));
    }
}
