//! Two users who start, use and end sessions as chance will have it, on a network that is slow and in order.

use super::*;

const SEEDS: u64 = 100;
const STEPS: usize = 300;

/// xorshift64*, to run the same on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

struct Game {
    random: Random,
    pair: Pair,
    /// The sessions that each user holds.
    held: [Vec<SessionId>; 2],
    servers: Servers,
}

/// Whether the sessions with the servers come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Servers {
    Steady,
    Fickle,
}

impl Game {
    fn new(seed: u64, servers: Servers) -> Self {
        let pair = Pair::with(|_, mut config| {
            config.ibb = crate::IbbConfig {
                block_size: 8,
                fixed_window: Some(2),
                receive_buffer: 16,
                ..Default::default()
            };
            config.limits.sessions = 4;
            config
        });
        Self { random: Random::new(seed), pair, held: Default::default(), servers }
    }

    fn step(&mut self) {
        let side = if self.random.below(2) == 0 { Romeo } else { Juliet };
        let now = self.pair.now;
        if self.servers == Servers::Fickle && self.random.below(20) == 0 {
            return self.pair.trouble(&mut self.random);
        }
        if self.random.below(2) == 0 {
            self.pair.deliver(side);
            return;
        }
        match (self.random.below(12), self.any(side)) {
            (0, _) => {
                let peer = self.pair.end(side.other()).jid.clone();
                self.held[side as usize].extend(self.pair.end(side).sessions.connect(now, peer, None).ok());
            }
            (1 | 2, _) => {
                if let Some(id) = self.pair.end(side).incoming.pop_front() {
                    if self.random.below(5) == 0 {
                        return self.pair.release(side, id);
                    }
                    self.held[side as usize].push(id);
                    // It may have ended in the meantime.
                    drop(self.pair.end(side).sessions.accept(now, id));
                }
            }
            (3..6, Some(id)) => drop(self.pair.write(side, id, b"twelve bytes")),
            (6, Some(id)) => drop(self.pair.end(side).sessions.flush(now, id)),
            (7 | 8, Some(id)) => drop(self.pair.end(side).sessions.read(now, id, &mut [0; 9])),
            (9, Some(id)) => drop(self.pair.shutdown(side, id)),
            (10, Some(id)) if self.random.below(4) == 0 => {
                self.pair.release(side, id);
                self.held[side as usize].retain(|held| *held != id);
            }
            (11, _) if self.servers == Servers::Fickle && self.random.below(3) == 0 => {
                let peer = self.pair.end(side.other()).jid.clone();
                let begun = self.pair.end(side).sessions.connect_to_resume(now, peer, None);
                self.held[side as usize].extend(begun.ok());
            }
            (11, _) => self.pair.advance(Duration::from_millis(self.random.below(4000) as u64)),
            _ => {}
        }
        self.pair.collect();
    }

    fn any(&mut self, side: Side) -> Option<SessionId> {
        let count = self.held[side as usize].len();
        (count > 0).then(|| self.held[side as usize][self.random.below(count)])
    }

    /// There is a stream that the other one may carry on, and that was lost.
    fn resume_anything(&mut self, side: Side) {
        let (now, other) = (self.pair.now, self.pair.end(side.other()).jid.clone());
        self.pair.end(side).sessions.expect_resumption(&other.to_bare());
        self.pair.end(side).sessions.look_out_for(now, &other);
    }

    /// As the driver does; says how many that were.
    fn let_in_who_resumes(&mut self) -> usize {
        let now = self.pair.now;
        let mut count = 0;
        for side in [Romeo, Juliet] {
            while let Some(id) = self.pair.end(side).resumptions.pop_front() {
                self.held[side as usize].push(id);
                // It may have ended in the meantime.
                drop(self.pair.end(side).sessions.accept(now, id));
                count += 1;
            }
        }
        self.pair.collect();
        count
    }

    fn let_go_of_everything(&mut self) {
        for side in [Romeo, Juliet] {
            let offered = std::mem::take(&mut self.pair.end(side).incoming);
            for id in std::mem::take(&mut self.held[side as usize]).into_iter().chain(offered) {
                self.pair.release(side, id);
            }
        }
    }
}

#[test]
fn whatever_two_users_do_both_see_the_same_end_and_nothing_is_left_of_it() {
    let mut seen = String::new();
    for seed in 0..SEEDS {
        let mut game = Game::new(seed, Servers::Steady);
        for _ in 0..STEPS {
            game.step();
        }
        seen.extend(game.pair.take_log());
        for side in [Romeo, Juliet] {
            for id in game.held[side as usize].clone() {
                game.pair.terminate(side, id, Reason::Gone, None);
            }
        }
        game.pair.run();
        for end in &game.pair.ends {
            assert!(end.sessions.live().iter().all(|id| end.incoming.contains(id)), "seed {seed}");
            assert!(end.incoming.iter().all(|id| end.state(*id) == "ended"), "seed {seed}");
        }
        game.let_go_of_everything();
        game.pair.run();
        assert!(game.pair.ends.iter().all(End::is_clean), "seed {seed}: {:#?}", game.pair.log);
    }
    // Otherwise it shows nothing.
    for line in
        ["data 5", "set close", "session-terminate cancel", "tie-break", "unknown-session", "busy", "decline"]
    {
        assert!(seen.contains(line), "{line} did not happen");
    }
}

#[test]
fn whatever_becomes_of_their_servers_what_is_over_for_one_is_over_for_the_other_and_nothing_is_left() {
    let (mut seen, mut resumed) = (String::new(), 0);
    for seed in 0..SEEDS {
        let mut game = Game::new(seed, Servers::Fickle);
        for side in [Romeo, Juliet] {
            game.resume_anything(side);
        }
        for _ in 0..STEPS {
            game.step();
            resumed += game.let_in_who_resumes();
        }
        game.pair.calm();
        seen.extend(game.pair.take_log());
        for side in [Romeo, Juliet] {
            for id in game.held[side as usize].clone() {
                game.pair.terminate(side, id, Reason::Gone, None);
            }
            let other = game.pair.end(side.other()).jid.to_bare();
            game.pair.end(side).sessions.stop_looking_out_for(&other);
            game.pair.end(side).sessions.forget_resumption(&other);
        }
        // What was lost on the way is made up for by deadlines.
        game.pair.live(Duration::from_secs(700));
        game.let_in_who_resumes();
        for end in &game.pair.ends {
            assert!(end.incoming.iter().all(|id| end.state(*id) == "ended"), "seed {seed}");
        }
        game.let_go_of_everything();
        game.pair.live(Duration::from_secs(60));
        assert!(game.pair.ends.iter().all(End::is_clean), "seed {seed}: {:#?}", game.pair.log);
    }
    for line in ["data 5", "connectivity-error", "session-terminate busy", "presence to"] {
        assert!(seen.contains(line), "{line} did not happen");
    }
    assert!(resumed > 50, "{resumed}");
}
