//! How hard a secret is to guess, estimated for somebody who knows how people make them up.

use std::{collections::HashSet, fmt};

use zeroize::Zeroizing;

/// In tenths of a bit: 60 bits. At 4096 iterations for each guess, the least that a responder may ask for, they
/// outlast whoever guesses.
const NEEDED: u32 = 600;

/// Tenths of a bit for a word: short lists for dice have 1296 of them, which is 10.3 bits; people choose among less.
const WORD: u32 = 100;
/// For a word of one or two letters, of which there are a dozen.
const SHORT_WORD: u32 = 30;
/// For a letter among digits and symbols: one of 26, whatever its case.
const LETTER: u32 = 47;
const DIGIT: u32 = 33;
/// People use half of the 32 symbols.
const SYMBOL: u32 = 40;

/// From so many letters on, they are a word rather than chance.
const WORD_LETTERS: usize = 3;

/// Rows along which fingers slide, beside the alphabet and the digits.
const ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// The estimate, and what it is made of.
#[derive(Debug, Default)]
pub(super) struct Strength {
    tenths: u32,
    words: usize,
    digits: usize,
    others: usize,
    /// Letters, digits and symbols that count something.
    own: usize,
    /// Those that count nothing, since what is before them foretells them.
    foretold: usize,
}

impl Strength {
    /// Words count once, wherever they are again. What continues a sequence (`abc`, `321`, `aaa`, `qwe`), and two
    /// neighbours that were neighbours before, count nothing.
    pub(super) fn of(text: &str) -> Self {
        let lower_case = Zeroizing::new(text.to_ascii_lowercase());
        let mut estimate = Estimate::default();
        for (token, lower_case) in text.split(is_separator).zip(lower_case.split(is_separator)) {
            estimate.token(&pieces(token, lower_case));
        }
        estimate.strength
    }

    pub(super) fn is_enough(&self) -> bool {
        self.tenths >= NEEDED
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenths, words, digits, others, own, foretold } = self;
        if foretold > own {
            f.write_str("it repeats itself or is a sequence")?;
        } else if digits + others == 0 {
            match words {
                1 => f.write_str("it is one word")?,
                _ => write!(f, "it is {words} different words")?,
            }
        } else if words + others == 0 {
            f.write_str("it is digits only, and few of them")?;
        } else {
            f.write_str("it is too short")?;
        }
        write!(f, ", worth about {} bits of the {} that are needed", tenths / 10, NEEDED / 10)
    }
}

/// What is between words is known.
fn is_separator(character: char) -> bool {
    matches!(character, ' ' | '-' | '_' | '.' | ',')
}

#[derive(Default)]
struct Estimate<'a> {
    strength: Strength,
    words: HashSet<&'a str>,
    neighbours: HashSet<(char, char)>,
    /// The last two, the later one last.
    last: [Option<char>; 2],
}

impl<'a> Estimate<'a> {
    /// What is between two separators.
    fn token(&mut self, pieces: &[&'a str]) {
        for piece in pieces {
            let letters = piece.chars().all(|character| character.is_ascii_alphabetic());
            if letters && (pieces.len() == 1 || piece.len() >= WORD_LETTERS) {
                self.word(piece);
            } else {
                piece.chars().for_each(|character| self.character(character));
            }
        }
    }

    fn word(&mut self, word: &'a str) {
        let letters = word.len();
        let own = word.chars().filter(|letter| !self.foretells(*letter)).count();
        if !self.words.insert(word) || (letters >= WORD_LETTERS && own < WORD_LETTERS) {
            self.strength.foretold += letters;
            return;
        }
        self.strength.words += 1;
        self.strength.own += letters;
        self.strength.tenths += if letters >= WORD_LETTERS { WORD } else { SHORT_WORD };
    }

    fn character(&mut self, character: char) {
        let [_, before] = self.last;
        let known = before.is_some_and(|before| !self.neighbours.insert((before, character)));
        if self.foretells(character) || known {
            self.strength.foretold += 1;
            return;
        }
        self.strength.own += 1;
        self.strength.tenths += match character {
            '0'..='9' => DIGIT,
            'a'..='z' => LETTER,
            _ => SYMBOL,
        };
        match character {
            '0'..='9' => self.strength.digits += 1,
            _ => self.strength.others += 1,
        }
    }

    /// Whether the step to this character is the same as the one before.
    fn foretells(&mut self, character: char) -> bool {
        let [earlier, before] = self.last;
        self.last = [before, Some(character)];
        match (earlier, before) {
            (Some(earlier), Some(before)) => {
                [position_by_code, position_on_keyboard].into_iter().any(|position| {
                    let step = step(position, earlier, before);
                    step.is_some() && step == self::step(position, before, character)
                })
            }
            _ => false,
        }
    }
}

/// To the same or to a neighbour.
fn step(position: fn(char) -> i32, from: char, to: char) -> Option<i32> {
    let step = position(to) - position(from);
    (-1..=1).contains(&step).then_some(step)
}

fn position_by_code(character: char) -> i32 {
    u8::try_from(character).map_or(0, i32::from)
}

/// Rows are far from each other, and so is whatever is on none.
fn position_on_keyboard(character: char) -> i32 {
    const APART: i32 = 1000;
    let rows = ROWS.iter().zip(1..);
    let mut places = rows.filter_map(|(row, number)| Some((row.find(character)?, number)));
    match places.next() {
        Some((place, number)) => number * APART + i32::try_from(place).unwrap_or(0),
        None => -APART * position_by_code(character),
    }
}

/// Runs of letters, of digits, of the rest; `CamelCase` is two. The lower-case text has no more and no less bytes.
fn pieces<'a>(token: &str, lower_case: &'a str) -> Vec<&'a str> {
    let neighbours = token.char_indices().zip(token.char_indices().skip(1));
    let ends = neighbours.filter_map(|((_, before), (at, character))| {
        let hump = before.is_ascii_lowercase() && character.is_ascii_uppercase();
        (hump || kind(before) != kind(character)).then_some(at)
    });
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in ends.chain([token.len()]) {
        pieces.extend(lower_case.get(start..end).filter(|piece| !piece.is_empty()));
        start = end;
    }
    pieces
}

fn kind(character: char) -> u8 {
    match character {
        'a'..='z' | 'A'..='Z' => 0,
        '0'..='9' => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimated(text: &str) -> String {
        let strength = Strength::of(text);
        assert!(!strength.is_enough(), "{text}: {strength}");
        strength.to_string().replace(" of the 60 that are needed", "")
    }

    fn passes(text: &str) {
        let strength = Strength::of(text);
        assert!(strength.is_enough(), "{text}: {strength}");
    }

    #[test]
    fn six_different_words_are_enough_and_five_are_not() {
        passes("clumsy walnut orbit seventy lantern mischief");
        passes("ClumsyWalnutOrbitSeventyLanternMischief");
        passes("CLUMSY-walnut-Orbit-seventy-lantern-mischief");
        assert_eq!(
            estimated("clumsy walnut orbit seventy lantern"),
            "it is 5 different words, worth about 50 bits"
        );
        assert_eq!(
            estimated("walnut walnut orbit seventy lantern Walnut"),
            "it is 4 different words, worth about 40 bits"
        );
        assert_eq!(estimated("CorrectHorseBatteryStaple"), "it is 4 different words, worth about 40 bits");
    }

    #[test]
    fn a_long_word_is_one_word() {
        assert_eq!(estimated("honorificabilitudinitatibus"), "it is one word, worth about 10 bits");
        assert_eq!(estimated("to be or not to be"), "it is 4 different words, worth about 19 bits");
    }

    #[test]
    fn words_with_digits_and_symbols_are_still_words() {
        assert_eq!(estimated("Tr0ub4dor&3"), "it is too short, worth about 42 bits");
        assert_eq!(estimated("walnut1-orbit2-lantern3-clumsy4"), "it is too short, worth about 53 bits");
        assert_eq!(estimated("Password1!"), "it is too short, worth about 17 bits");
    }

    #[test]
    fn digits_are_worth_as_much_as_they_are() {
        assert_eq!(estimated("8675309"), "it is digits only, and few of them, worth about 23 bits");
        passes("8053 1946 2771 5039 6284");
    }

    #[test]
    fn repetitions_and_sequences_are_worth_next_to_nothing() {
        for (text, bits) in [
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0),
            ("abcdefghijklmnopqrstuvwxyz", 0),
            ("qwertyuiopasdfghjklzxcvbnm", 10),
            ("1234567890123456789012345678", 13),
            ("abcd1234abcd1234abcd1234abcd1234", 6),
            ("x7x7x7x7x7x7x7x7x7x7x7x7x7", 12),
            ("9-8-7-6-5-4-3-2-1-0", 6),
        ] {
            let why = estimated(text);
            let worth = why.rsplit_once("about ").unwrap().1;
            assert!(worth == format!("{bits} bits"), "{text}: {why}");
        }
        let repeated = estimated("x7x7x7x7x7x7x7x7x7x7x7x7x7");
        assert!(repeated.starts_with("it repeats itself or is a sequence"), "{repeated}");
    }

    #[test]
    fn what_a_password_manager_makes_is_enough() {
        passes("x9$kQ!z2@Lm#7wPv");
        passes("3kfa-p7wd-x2ce-m5yu");
    }
}
