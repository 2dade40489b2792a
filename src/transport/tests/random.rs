//! Two ends that do as chance will have it.

use super::*;

const SEEDS: u64 = 2000;
/// Every schedule comes to its end long before.
const STEPS: usize = 20_000;

/// xorshift64*, to run the same on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// What one end's user has done, and wants to do.
#[derive(Default)]
struct User {
    to_write: usize,
    written: Vec<u8>,
    read: Vec<u8>,
    shutting_down: bool,
    finished: bool,
    seen_end: bool,
}

struct Game {
    random: Random,
    pair: Pair,
    users: [User; 2],
}

impl Game {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut config = || IbbConfig {
            block_size: 1 + random.below(9) as u16,
            fixed_window: (random.below(3) > 0).then(|| 1 + random.below(6)),
            receive_buffer: random.below(40),
            ..IbbConfig::default()
        };
        let (romeo, juliet) = (config(), config());
        let mut game = Self { pair: Pair::new(romeo, juliet), users: Default::default(), random };
        for user in &mut game.users {
            user.to_write = game.random.below(300);
        }
        game
    }

    fn step(&mut self) {
        let side = if self.random.below(2) == 0 { Romeo } else { Juliet };
        match self.random.below(12) {
            0..5 => drop(self.pair.deliver(side)),
            5 | 6 => self.write(side),
            7 => drop(self.pair.flush(side).unwrap()),
            8 | 9 => self.read(side),
            10 if self.users[side as usize].shutting_down => self.shutdown(side),
            10 if self.users[side as usize].to_write == 0 => self.shutdown(side),
            10 if self.random.below(20) == 0 => self.shutdown(side),
            _ => {}
        }
    }

    fn write(&mut self, side: Side) {
        let user = &mut self.users[side as usize];
        if user.shutting_down || user.to_write == 0 {
            return;
        }
        let length = 1 + self.random.below(user.to_write);
        let bytes: Vec<u8> = (0..length).map(|_| self.random.below(256) as u8).collect();
        let taken = self.pair.write(side, &bytes).unwrap();
        user.written.extend_from_slice(&bytes[..taken]);
        user.to_write -= taken;
    }

    fn read(&mut self, side: Side) {
        let mut buffer = vec![0; 1 + self.random.below(30)];
        let read = self.pair.end(side).read(&mut buffer).unwrap();
        self.pair.collect();
        let user = &mut self.users[side as usize];
        match read {
            Read::Data(count) => {
                assert!(!user.seen_end, "data behind the end");
                user.read.extend_from_slice(&buffer[..count]);
            }
            Read::Pending => assert!(!user.seen_end),
            Read::End => user.seen_end = true,
            Read::Socket(socket) => panic!("{socket:?} is to be read from"),
        }
    }

    fn shutdown(&mut self, side: Side) {
        if !self.pair.end(side).is_open() {
            return;
        }
        let done = self.pair.shutdown(side).unwrap();
        let user = &mut self.users[side as usize];
        user.shutting_down = true;
        user.finished |= done;
    }

    fn is_over(&self) -> bool {
        self.users.iter().all(|user| user.finished && user.seen_end)
    }
}

#[test]
fn everything_arrives_in_order_whatever_the_schedule() {
    for seed in 0..SEEDS {
        let mut game = Game::new(seed);
        let mut steps = 0;
        while !game.is_over() {
            steps += 1;
            assert!(steps < STEPS, "seed {seed}: it does not come to an end");
            game.step();
            assert!(game.pair.failed.iter().all(Option::is_none), "seed {seed}: {:?}", game.pair.failed);
        }
        let [romeo, juliet] = &game.users;
        assert!(juliet.read == romeo.written, "seed {seed}: from Romeo to Juliet");
        assert!(romeo.read == juliet.written, "seed {seed}: from Juliet to Romeo");
        assert!(game.pair.asked.iter().all(HashMap::is_empty), "seed {seed}: an unanswered request");
    }
}

#[test]
fn when_a_block_is_lost_both_ends_learn_of_it_and_what_arrived_is_a_start_of_what_was_sent() {
    for seed in 0..SEEDS / 3 {
        let mut game = Game::new(seed);
        game.pair.run();
        for user in &mut game.users {
            user.to_write += 100;
        }
        for _ in 0..40 {
            game.write(Romeo);
            game.pair.flush(Romeo).unwrap();
            game.pair.deliver(Romeo);
            game.read(Juliet);
            if game.random.below(3) > 0 {
                game.pair.deliver(Juliet);
            }
        }
        let lost = game.pair.inbox[1].iter().position(|packet| matches!(packet, Packet::Set(..)));
        let Some(lost) = lost else { continue };
        game.pair.inbox[1].remove(lost);
        // Whoever does not notice by a gap notices by the missing acknowledgement.
        for _ in 0..200 {
            game.pair.run();
            let (read, _) = game.pair.drain(Juliet);
            game.users[1].read.extend(read);
        }
        game.pair.advance(game.pair.timeouts.block_ack);
        game.pair.run();
        assert!(game.pair.failed[0].is_some(), "seed {seed}: Romeo does not know");
        assert!(game.users[0].written.starts_with(&game.users[1].read), "seed {seed}");
    }
}
