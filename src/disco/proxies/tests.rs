use super::*;
use crate::wire::ns;

const SERVER: &str = "capulet.lit";
const PROXY_INFO: &str = "<identity category='proxy' type='bytestreams' name='Relay'/>";

fn jid(jid: &str) -> Jid {
    jid.parse().unwrap()
}

fn proxy(jid: &str, host: &str) -> Proxy {
    Proxy { jid: jid.parse().unwrap(), host: host.to_owned(), port: 7625 }
}

fn query(namespace: &str, inner: &str) -> Element {
    format!("<query xmlns='{namespace}'>{inner}</query>").parse().unwrap()
}

fn items<'a>(jids: impl IntoIterator<Item = &'a str>) -> Element {
    let items = jids.into_iter().map(|jid| format!("<item jid='{jid}'/>"));
    query(ns::DISCO_ITEMS, &items.collect::<String>())
}

fn streamhosts<'a>(jid: &str, hosts: impl IntoIterator<Item = &'a str>) -> Element {
    let hosts = hosts.into_iter().map(|host| format!("<streamhost jid='{jid}' host='{host}' port='7625'/>"));
    query(ns::BYTESTREAMS, &hosts.collect::<String>())
}

/// A search and its clock.
struct Seeker {
    proxies: Proxies,
    now: Instant,
}

impl Seeker {
    fn new(source: &Source) -> Self {
        Self { proxies: Proxies::new(source), now: Instant::now() }
    }

    fn these(jids: &[&str]) -> Self {
        Self::new(&Source::These(jids.iter().map(|it| jid(it)).collect()))
    }

    fn look(&mut self) -> Vec<Ask> {
        self.proxies.look(self.now, &jid(SERVER))
    }

    fn answer(&mut self, ask: &Ask, answer: impl Into<Option<Element>>) -> Vec<Ask> {
        self.proxies.handle_answer(self.now, ask, answer.into().as_ref())
    }

    /// Everybody asked answers as `world` has it, until nothing is asked any more.
    fn run(&mut self, mut asks: Vec<Ask>, world: impl Fn(&Ask) -> Option<Element>) -> usize {
        let mut asked = 0;
        while let Some(ask) = asks.pop() {
            asked += 1;
            asks.extend(self.answer(&ask, world(&ask)));
        }
        asked
    }
}

#[test]
fn every_request_asks_for_what_it_says() {
    for (ask, namespace) in [
        (Ask::Items(jid("a.lit")), ns::DISCO_ITEMS),
        (Ask::Info(jid("a.lit")), ns::DISCO_INFO),
        (Ask::Address(jid("a.lit")), ns::BYTESTREAMS),
    ] {
        assert_eq!((ask.to(), ask.query()), (&jid("a.lit"), query(namespace, "")));
    }
}

#[test]
fn a_proxy_of_the_server_is_found_in_three_steps() {
    let mut seeker = Seeker::new(&Source::Discover);
    assert_eq!(seeker.proxies.found(), None);

    let asked = seeker.look();
    assert_eq!(asked, [Ask::Items(jid(SERVER))]);
    let asked = seeker.answer(&asked[0], items(["rooms.capulet.lit", "proxy.capulet.lit"]));
    assert_eq!(asked, [Ask::Info(jid("rooms.capulet.lit")), Ask::Info(jid("proxy.capulet.lit"))]);

    let rooms = query(ns::DISCO_INFO, "<identity category='conference' type='text'/>");
    assert_eq!(seeker.answer(&asked[0], rooms), []);
    let asked = seeker.answer(&asked[1], query(ns::DISCO_INFO, PROXY_INFO));
    assert_eq!(asked, [Ask::Address(jid("proxy.capulet.lit"))]);
    assert_eq!((seeker.proxies.found(), seeker.proxies.so_far()), (None, &[][..]));

    assert_eq!(seeker.answer(&asked[0], streamhosts("proxy.capulet.lit", ["192.0.2.1"])), []);
    let expected = [proxy("proxy.capulet.lit", "192.0.2.1")];
    assert_eq!(seeker.proxies.found(), Some(&expected[..]));
    assert_eq!(seeker.proxies.so_far(), expected);
}

#[test]
fn configured_proxies_are_asked_for_their_addresses_at_once_each() {
    let mut seeker = Seeker::these(&["a.lit", "b.lit", "a.lit"]);
    let asked = seeker.look();
    assert_eq!(asked, [Ask::Address(jid("a.lit")), Ask::Address(jid("b.lit"))]);

    seeker.answer(&asked[1], streamhosts("b.lit", ["192.0.2.2"]));
    assert_eq!(seeker.proxies.found(), None, "one answer is missing");
    assert_eq!(seeker.proxies.so_far(), [proxy("b.lit", "192.0.2.2")]);

    seeker.answer(&asked[0], None);
    assert_eq!(seeker.proxies.found(), Some(&[proxy("b.lit", "192.0.2.2")][..]));
}

#[test]
fn nobody_is_asked_where_no_proxies_are_wanted() {
    let mut seeker = Seeker::these(&[]);
    assert_eq!(seeker.look(), []);
    assert_eq!(seeker.proxies.found(), Some(&[][..]));
}

#[test]
fn an_error_at_any_step_ends_the_search_there() {
    let world = |ask: &Ask| match ask {
        Ask::Items(_) => items(["proxy.capulet.lit"]),
        Ask::Info(_) => query(ns::DISCO_INFO, PROXY_INFO),
        Ask::Address(_) => streamhosts("proxy.capulet.lit", ["192.0.2.1"]),
    };
    let another = Element::bare("open", ns::IBB);
    for bad in [None, Some(another), Some(query(ns::BYTESTREAMS, "<streamhost jid='a.lit'/>"))] {
        for step in 0..3 {
            let mut seeker = Seeker::new(&Source::Discover);
            let mut asked = seeker.look();
            for _ in 0..step {
                asked = seeker.answer(&asked[0], world(&asked[0]));
            }
            assert_eq!(seeker.proxies.found(), None);
            assert_eq!(seeker.answer(&asked[0], bad.clone()), []);
            assert_eq!(seeker.proxies.found(), Some(&[][..]));
        }
    }
}

#[test]
fn a_server_with_a_thousand_proxies_is_asked_about_the_first_few() {
    let jids: Vec<_> = (0..1000).map(|n| format!("proxy{n}.lit")).collect();
    let mut seeker = Seeker::new(&Source::Discover);
    let asked = seeker.look();
    let asked = seeker.run(asked, |ask| match ask {
        Ask::Items(_) => Some(items(jids.iter().map(String::as_str))),
        Ask::Info(_) => Some(query(ns::DISCO_INFO, PROXY_INFO)),
        Ask::Address(jid) => Some(streamhosts(jid.as_str(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"])),
    });
    assert_eq!(asked, 1 + 2 * MAX_PROXIES_ASKED);
    assert_eq!(seeker.proxies.so_far().len(), MAX_PROXIES);

    let mut seeker = Seeker::these(&jids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(seeker.look().len(), MAX_PROXIES_ASKED);
}

#[test]
fn two_addresses_of_a_proxy_are_kept_and_none_twice() {
    for (hosts, expected) in [
        (["192.0.2.1", "2001:db8::1", "192.0.2.3"], &["192.0.2.1", "2001:db8::1"][..]),
        (["192.0.2.1", "192.0.2.1", "192.0.2.3"], &["192.0.2.1"]),
    ] {
        let mut seeker = Seeker::these(&["a.lit"]);
        let asked = seeker.look();
        seeker.answer(&asked[0], streamhosts("a.lit", hosts));
        let expected: Vec<_> = expected.iter().map(|host| proxy("a.lit", host)).collect();
        assert_eq!(seeker.proxies.found(), Some(&expected[..]));
    }
}

#[test]
fn an_address_of_another_than_who_was_asked_is_left_out() {
    let mut seeker = Seeker::these(&["a.lit"]);
    let asked = seeker.look();
    let answer = "<streamhost jid='stranger@elsewhere.lit/spy' host='192.0.2.6' port='7625'/>\
                  <streamhost jid='sub.a.lit' host='192.0.2.7' port='7625'/>\
                  <streamhost jid='a.lit' host='192.0.2.1' port='7625'/>";
    seeker.answer(&asked[0], query(ns::BYTESTREAMS, answer));
    assert_eq!(seeker.proxies.found(), Some(&[proxy("a.lit", "192.0.2.1")][..]));
}

#[test]
fn a_search_that_runs_or_is_complete_is_not_begun_again() {
    let mut seeker = Seeker::these(&["a.lit"]);
    let asked = seeker.look();
    assert_eq!(seeker.look(), []);

    seeker.answer(&asked[0], None);
    seeker.now += VALIDITY - Duration::from_millis(1);
    assert_eq!(seeker.look(), []);
}

#[test]
fn after_an_hour_the_search_begins_again_and_the_old_ones_are_used_meanwhile() {
    let mut seeker = Seeker::these(&["a.lit"]);
    let asked = seeker.look();
    seeker.answer(&asked[0], streamhosts("a.lit", ["192.0.2.1"]));

    seeker.now += VALIDITY;
    let asked = seeker.look();
    assert_eq!(asked, [Ask::Address(jid("a.lit"))]);
    assert_eq!(seeker.proxies.found(), None);
    assert_eq!(seeker.proxies.so_far(), [proxy("a.lit", "192.0.2.1")]);

    seeker.answer(&asked[0], streamhosts("a.lit", ["192.0.2.2"]));
    assert_eq!(seeker.proxies.found(), Some(&[proxy("a.lit", "192.0.2.2")][..]));
}

#[test]
fn a_new_session_with_the_server_starts_from_nothing() {
    let mut seeker = Seeker::these(&["a.lit", "b.lit"]);
    let asked = seeker.look();
    seeker.answer(&asked[0], streamhosts("a.lit", ["192.0.2.1"]));

    seeker.proxies.reset();
    assert_eq!((seeker.proxies.found(), seeker.proxies.so_far()), (None, &[][..]));
    seeker.answer(&asked[1], streamhosts("b.lit", ["192.0.2.2"]));
    assert_eq!(seeker.proxies.so_far(), [], "the answer is to a request of the old session");
    assert_eq!(seeker.look(), asked);
}

#[test]
fn an_answer_that_was_not_asked_for_or_comes_twice_changes_nothing() {
    let mut seeker = Seeker::these(&["a.lit", "b.lit"]);
    let asked = seeker.look();
    let stranger = Ask::Address(jid("c.lit"));
    assert_eq!(seeker.answer(&stranger, streamhosts("c.lit", ["192.0.2.3"])), []);
    assert_eq!(seeker.answer(&Ask::Items(jid("a.lit")), items(["c.lit"])), []);
    assert_eq!(seeker.proxies.so_far(), []);

    seeker.answer(&asked[0], streamhosts("a.lit", ["192.0.2.1"]));
    seeker.answer(&asked[0], streamhosts("a.lit", ["192.0.2.2"]));
    assert_eq!(seeker.proxies.so_far(), [proxy("a.lit", "192.0.2.1")]);
    assert_eq!(seeker.proxies.found(), None);
}
