//! Damage for tests of what reads what others wrote. The same seed does the same.

/// Numbers by xorshift.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From 0 up to, and not including, `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }

    /// The bytes with up to three changes: one is another, some are missing, some come twice, or this is put in.
    pub(crate) fn damaged(&mut self, bytes: &[u8], words: &[&str]) -> Vec<u8> {
        let mut damaged = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let from = self.below(damaged.len());
            let to = (from + self.below(12)).min(damaged.len());
            match self.below(5) {
                0 if from < damaged.len() => damaged[from] = self.below(256) as u8,
                1 => drop(damaged.drain(from..to)),
                2 => {
                    let again = damaged[from..to].to_vec();
                    damaged.splice(to..to, again);
                }
                3 => damaged.truncate(from),
                _ => {
                    let word = words[self.below(words.len())].bytes();
                    damaged.splice(from..to, word);
                }
            }
        }
        damaged
    }
}
