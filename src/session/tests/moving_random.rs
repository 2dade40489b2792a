//! A stream moves while both sides write and read as chance will have it, whatever is slow and whatever can't be reached:
//! every byte arrives once and in order, and both sides agree on where the stream ends up.

use super::{
    net::{Got, Path, User},
    random::Random,
    *,
};
use crate::{IbbConfig, Start};

const SEEDS: u64 = 300;
/// A game that takes longer has come to a standstill.
const STEPS: usize = 20_000;

/// Which way the stream went in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verdict {
    InBand,
    Moved,
}

struct Game {
    random: Random,
    pair: Pair,
    users: [User; 2],
    /// What each is to say, and how much of it it has said.
    speeches: [Vec<u8>; 2],
    said: [usize; 2],
    heard: [Vec<u8>; 2],
    /// Whether each has read to the end, and has shut down.
    at_end: [bool; 2],
    shut: [bool; 2],
    /// One in so many steps, a user reads.
    slowness: [usize; 2],
    closes_early: [bool; 2],
    moves_at: usize,
}

impl Game {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (block_size, receive_buffer) = (8 + random.below(60) as u16, 1 + random.below(200));
        let fixed_window = Some(1 + random.below(4));
        let mut pair = Pair::s5b(|_, mut config| {
            config.ibb = IbbConfig { block_size, fixed_window, receive_buffer, ..IbbConfig::default() };
            config.start(Start::Fast)
        });
        for side in [Romeo, Juliet] {
            pair.net.has_proxy[side as usize] = random.below(3) == 0;
            for host in ["10.0.0.1", "10.0.1.1", "proxy.montague.lit", "proxy.capulet.lit"] {
                if random.below(3) == 0 {
                    pair.net.block(side, host);
                }
            }
        }
        pair.net.refuses_activation = random.below(4) == 0;
        let romeos = pair.connect(Romeo);
        pair.run();
        let juliets = pair.accept(Juliet);
        pair.run();
        pair.net.random = Some(Random::new(seed + 1));
        let speech = |random: &mut Random| {
            let length = random.below(2500);
            (0..length).map(|_| random.below(256) as u8).collect::<Vec<_>>()
        };
        Self {
            speeches: [speech(&mut random), speech(&mut random)],
            said: [0; 2],
            heard: Default::default(),
            at_end: [false; 2],
            shut: [false; 2],
            slowness: [1 + random.below(12), 1 + random.below(12)],
            closes_early: [random.below(3) == 0, random.below(3) == 0],
            moves_at: random.below(200),
            users: [User::new(Romeo, romeos), User::new(Juliet, juliets)],
            random,
            pair,
        }
    }

    fn play(&mut self) -> Verdict {
        let mut step = 0;
        while self.shut != [true; 2] || self.at_end != [true; 2] {
            if step == self.moves_at {
                let (now, id) = (self.pair.now, self.users[0].id);
                self.pair.end(Romeo).sessions.start_move(now, id);
                self.pair.collect();
            }
            self.step();
            step += 1;
            assert!(step < STEPS, "{}", self.stuck());
        }
        assert!(self.heard[0] == self.speeches[1], "what Romeo heard");
        assert!(self.heard[1] == self.speeches[0], "what Juliet heard");
        // A direction without bytes may end in band, though the other has moved.
        let moved = self.users.iter().any(|user| user.reads == Path::Socket);
        let (romeos, juliets) = (self.users[0].id, self.users[1].id);
        self.pair.terminate(Juliet, juliets, Reason::Success, None);
        self.pair.leave(romeos, juliets);
        if moved { Verdict::Moved } else { Verdict::InBand }
    }

    fn stuck(&self) -> String {
        let heard = self.heard.each_ref().map(Vec::len);
        let lengths = self.speeches.each_ref().map(Vec::len);
        let Self { said, at_end, shut, users, pair, .. } = self;
        let paths = users.each_ref().map(|user| (user.writes, user.reads));
        let tail = &pair.log[pair.log.len().saturating_sub(30)..];
        format!("{lengths:?}, said {said:?}, heard {heard:?}, {at_end:?} {shut:?} {paths:?} {tail:#?}")
    }

    fn step(&mut self) {
        let side = if self.random.below(2) == 0 { Romeo } else { Juliet };
        match self.random.below(8) {
            0..3 => drop(self.pair.deliver(side)),
            3 => {
                if self.pair.net.next_event().is_some() && self.random.below(4) == 0 {
                    self.pair.happen();
                    self.pair.advance(Duration::ZERO);
                } else {
                    let by = self.random.below(20) as u64;
                    self.pass(Duration::from_millis(by));
                }
            }
            4 | 5 => self.speak(side),
            _ if self.random.below(self.slowness[side as usize]) == 0 => self.listen(side),
            _ => {}
        }
    }

    /// Nothing happens later than it is due.
    fn pass(&mut self, by: Duration) {
        let until = self.pair.now + by;
        while self.pair.net.next_event().is_some_and(|at| at <= until) {
            self.pair.happen();
        }
        let rest = until.saturating_duration_since(self.pair.now);
        self.pair.advance(rest);
    }

    fn speak(&mut self, side: Side) {
        let index = side as usize;
        if self.shut[index] {
            return;
        }
        let rest = &self.speeches[index][self.said[index]..];
        if rest.is_empty() {
            // A user that is in no hurry hears the other out.
            if self.closes_early[index] || self.heard[index].len() == self.speeches[1 - index].len() {
                let done = self.users[index].shutdown(&mut self.pair);
                self.shut[index] = done.unwrap_or_else(|error| panic!("{side:?}: {error}: {}", self.stuck()));
            }
            return;
        }
        let chunk = rest[..rest.len().min(1 + self.random.below(300))].to_vec();
        self.said[index] += self.users[index].write(&mut self.pair, &chunk).unwrap();
        if self.random.below(3) == 0 || self.said[index] == self.speeches[index].len() {
            self.users[index].flush(&mut self.pair).unwrap();
        }
    }

    fn listen(&mut self, side: Side) {
        let index = side as usize;
        if self.at_end[index] {
            return;
        }
        let at_most = 1 + self.random.below(400);
        match self.users[index].read(&mut self.pair, at_most).unwrap() {
            Got::Bytes(bytes) => self.heard[index].extend(bytes),
            Got::Nothing => {}
            Got::End => self.at_end[index] = true,
        }
    }
}

#[test]
fn every_byte_of_a_stream_that_moves_arrives_once_and_in_order() {
    let mut verdicts = [0; 2];
    for seed in 0..SEEDS {
        let played = std::panic::catch_unwind(|| Game::new(seed).play());
        match played.unwrap_or_else(|_| panic!("seed {seed}")) {
            Verdict::InBand => verdicts[0] += 1,
            Verdict::Moved => verdicts[1] += 1,
        }
    }
    assert!(verdicts.iter().all(|count| *count > 50), "in band, moved: {verdicts:?}");
}
