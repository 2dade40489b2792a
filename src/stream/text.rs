//! Text between two tags, read and written many bytes at a time.
//!
//! The XML library looks at each byte of a text several times: 64 KiB of it take longer there than their encryption. Nearly all
//! text is plain, and that is found out here for a chunk at once. Whatever else there is remains the library's, and so does
//! every error.

use memchr::{memchr, memchr2, memchr3};

/// Bytes that are looked at together: a few registers, so that the compiler can do without a loop.
const CHUNK: usize = 32;

/// Bytes of a text that is written that are searched at a time. Of a carriage return in each line, each would otherwise be
/// searched for through all of the rest.
const WINDOW: usize = 512;

/// Bytes behind a `]`, or behind 0xef, that say what it means.
const BEHIND: usize = 2;

/// The longest reference that is resolved here, `&quot;`.
const REFERENCE: usize = 6;

/// Text at the front of `bytes`, and how many of them it took. It is empty where the XML library has to look first.
pub(super) fn read(bytes: &[u8]) -> (String, usize) {
    let end = memchr(b'<', bytes).unwrap_or(bytes.len());
    let inside = bytes.get(..end).unwrap_or_default();
    // Nearly always, and quicker to find out of all of it than of each piece between two references.
    match clean(inside) {
        Some(text) => resolve(bytes, end, |used| unreferenced(text.get(used..).unwrap_or_default())),
        None => resolve(bytes, end, |used| plain(bytes.get(used..).unwrap_or_default())),
    }
}

/// Puts together what is `plain` from a place on, and what the references behind it stand for.
fn resolve<'a>(bytes: &[u8], end: usize, plain: impl Fn(usize) -> &'a str) -> (String, usize) {
    let mut text = String::new();
    let mut used = 0;
    loop {
        let plain = plain(used);
        let reference = bytes.get(used + plain.len()..).and_then(reference);
        if reference.is_some() && used == 0 {
            // Room for all of it at once. It takes no more than on the wire.
            text.reserve(end);
        }
        text.push_str(plain);
        used += plain.len();
        let Some((character, length)) = reference else { return (text, used) };
        text.push(character);
        used += length;
    }
}

/// All of `bytes`, if there is nothing in them but references that does not mean itself.
fn clean(bytes: &[u8]) -> Option<&str> {
    if contains(bytes, is_special_inside) { None } else { std::str::from_utf8(bytes).ok() }
}

/// The front of a text without a reference.
fn unreferenced(text: &str) -> &str {
    memchr(b'&', text.as_bytes()).and_then(|end| text.get(..end)).unwrap_or(text)
}

/// How many bytes are missing of the character that all of `bytes` is the beginning of.
pub(super) fn missing(bytes: &[u8]) -> Option<usize> {
    let width: usize = match bytes.first()? {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let is_begun = std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none());
    width.checked_sub(bytes.len()).filter(|missing| *missing > 0 && is_begun)
}

/// The front of a text that is written as it is.
pub(super) fn unescaped(text: &str) -> &str {
    let bytes = text.as_bytes();
    let mut clean = 0;
    // What is behind the end is searched again next time: so it must not be much.
    for window in bytes.chunks(WINDOW) {
        let end = memchr3(b'<', b'>', b'&', window).unwrap_or(window.len());
        let rest = bytes.get(clean..).unwrap_or_default();
        let harmless = position(rest, end, is_special, is_harmless);
        clean += harmless;
        if harmless < window.len() {
            break;
        }
    }
    text.get(..clean).unwrap_or_default()
}

/// The front of `bytes` that means itself.
fn plain(bytes: &[u8]) -> &str {
    let is_harmless = |rest: &[u8]| {
        is_harmless(rest) || matches!(rest, [b']', next, behind, ..] if (*next, *behind) != (b']', b'>'))
    };
    let end = memchr2(b'<', b'&', bytes).unwrap_or(bytes.len());
    let bytes = bytes.get(..position(bytes, end, is_special_inside, is_harmless)).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_else(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        std::str::from_utf8(valid).unwrap_or_default()
    })
}

/// What is no markup, and may be no character of XML, or is not read as it is written.
fn is_special(byte: u8) -> bool {
    let is_control = (byte < 0x20) & (byte != b'\t') & (byte != b'\n');
    // U+FFFE and U+FFFF begin with 0xef.
    is_control | (byte == 0xef)
}

/// The same where text is read: a bracket may be the first of `]]>`.
fn is_special_inside(byte: u8) -> bool {
    (byte == b']') | is_special(byte)
}

/// Whether a character that begins with 0xef is not U+FFFE or U+FFFF.
fn is_harmless(bytes: &[u8]) -> bool {
    matches!(bytes, [0xef, second, third, ..] if *second != 0xbf || *third < 0xbe)
}

/// Whether any byte is `suspicious`.
fn contains(bytes: &[u8], suspicious: impl Fn(u8) -> bool) -> bool {
    let any = |chunk: &[u8]| chunk.iter().fold(false, |any, &byte| any | suspicious(byte));
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    // What is left behind the chunks is part of a last one, too, but where there is none.
    chunks.iter().any(|chunk| any(chunk))
        || bytes.last_chunk::<CHUNK>().map_or_else(|| any(rest), |last| any(last))
}

/// Where before `end` the first byte is that is `suspicious` and, with those behind it, not `harmless`; `end` if there is none.
fn position(
    bytes: &[u8],
    end: usize,
    suspicious: impl Fn(u8) -> bool,
    harmless: impl Fn(&[u8]) -> bool,
) -> usize {
    // Nearly always, and quicker than to look for the place.
    if !contains(bytes.get(..end).unwrap_or_default(), &suspicious) {
        return end;
    }
    let bytes = bytes.get(..end + BEHIND).unwrap_or(bytes);
    let mut start = 0;
    loop {
        let rest = bytes.get(start..).unwrap_or_default();
        let (chunks, _) = rest.as_chunks::<CHUNK>();
        let is_clean = |chunk: &&[u8; CHUNK]| !chunk.iter().fold(false, |any, &byte| any | suspicious(byte));
        let clean = chunks.iter().take_while(is_clean).count() * CHUNK;
        let tail = rest.get(clean..).unwrap_or_default();
        let Some(found) = tail.iter().position(|&byte| suspicious(byte)) else {
            return end;
        };
        let place = start + clean + found;
        if !bytes.get(place..).is_some_and(&harmless) {
            return place.min(end);
        }
        start = place + 1;
    }
}

/// What a reference at the front of `bytes` stands for, and its length, if it is one that every XML document knows (XML 1.0
/// §4.6).
fn reference(bytes: &[u8]) -> Option<(char, usize)> {
    let inside = bytes.strip_prefix(b"&")?;
    let end = inside.iter().take(REFERENCE - 1).position(|&byte| byte == b';')?;
    let character = match inside.get(..end)? {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        _ => return None,
    };
    Some((character, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (String, usize) {
        read(text.as_bytes())
    }

    #[test]
    fn plain_text_is_taken_up_to_the_next_tag() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let text = "x".repeat(length);
            assert_eq!(read_text(&format!("{text}</body>")), (text.clone(), length));
            assert_eq!(read_text(&text), (text, length), "all there is");
        }
    }

    #[test]
    fn references_that_every_document_knows_are_resolved() {
        let (text, used) = read_text("&lt;a&gt; &amp;amp; &quot;b&quot; &apos;c&apos;<");
        assert_eq!((text.as_str(), used), ("<a> &amp; \"b\" 'c'", 47));
    }

    #[test]
    fn references_are_resolved_among_what_needs_a_closer_look_too() {
        let (text, used) = read_text("a[1] &amp; ， &lt;\u{e9}&gt;]</body>");
        assert_eq!((text.as_str(), used), ("a[1] & ， <\u{e9}>]", 26));
        let cut = "soft &amp; \u{e9}&lt;\u{e9}";
        assert_eq!(read(&cut.as_bytes()[..cut.len() - 1]), ("soft & \u{e9}<".to_owned(), cut.len() - 2));
    }

    #[test]
    fn other_references_are_left() {
        for reference in ["&#x41;", "&nbsp;", "&am", "&", "&;", "&apos", "&AMP;"] {
            assert_eq!(read_text(&format!("a{reference}")), ("a".to_owned(), 1), "{reference}");
        }
    }

    #[test]
    fn what_needs_a_closer_look_is_left() {
        for special in ["\r\n", "\0", "\u{1f}", "]]>", "\u{fffe}", "\u{ffff}", "<![CDATA[x]]>"] {
            for before in ["", "soft ", &"w".repeat(CHUNK), &"w".repeat(2 * CHUNK - 1)] {
                let text = format!("{before}{special} and more of it, so that it is not the end");
                assert_eq!(read_text(&text), (before.to_owned(), before.len()), "{special:?}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_it_is_taken() {
        let text = "a[1]] = b[2] > 3, tab\t, line\n, ｆｕｌｌ ｗｉｄｔｈ，\u{fffd}, żółw";
        assert_eq!(read_text(&format!("{text}<")), (text.to_owned(), text.len()));
    }

    #[test]
    fn a_bracket_is_left_until_it_is_known_what_follows() {
        assert_eq!(read_text("a]"), ("a".to_owned(), 1));
        assert_eq!(read_text("a]]"), ("a".to_owned(), 1));
        assert_eq!(read_text("a]]]>"), ("a]".to_owned(), 2));
    }

    #[test]
    fn what_is_no_utf8_is_left() {
        assert_eq!(read(b"soft\xffwhat"), ("soft".to_owned(), 4));
        assert_eq!(read(b"soft\xc3"), ("soft".to_owned(), 4), "half a character");
    }

    #[test]
    fn a_character_in_pieces_says_how_much_is_missing() {
        for character in ["é", "，", "€", "🌹"] {
            let bytes = character.as_bytes();
            for (count, _) in bytes.iter().enumerate().skip(1) {
                assert_eq!(missing(bytes.get(..count).unwrap()), Some(bytes.len() - count), "{character}");
            }
            assert_eq!(missing(bytes), None);
        }
        for other in [&b""[..], b"a", b"\xff", b"\xc3a", b"\x80", b"\xe2\x82a"] {
            assert_eq!(missing(other), None, "{other:?}");
        }
    }

    #[test]
    fn text_is_written_as_it_is_up_to_what_has_to_be_escaped() {
        for special in ["<", ">", "&", "\r", "\0", "\u{fffe}"] {
            for before in ["", "soft ", &"é".repeat(CHUNK), &"w".repeat(2 * CHUNK - 1)] {
                assert_eq!(unescaped(&format!("{before}{special}window")), before, "{special:?}");
            }
        }
        let plain = "]] 'quoted' \"twice\"\t\n，\u{fffd}";
        assert_eq!(unescaped(plain), plain);
    }

    #[test]
    fn what_lies_across_two_windows_is_written_like_the_rest() {
        for before in WINDOW - 3..=WINDOW + 1 {
            let before = "w".repeat(before);
            for harmless in ["，", "\u{fffd}", "🌹", "é"] {
                let text = format!("{before}{harmless}").repeat(3);
                assert_eq!(unescaped(&text), text, "{}", before.len());
                assert_eq!(unescaped(&format!("{text}&{text}")), text, "{}", before.len());
            }
            for special in ["<", "\r", "\u{fffe}", "\u{ffff}"] {
                assert_eq!(unescaped(&format!("{before}{special}window")), before, "{special:?}");
            }
        }
    }
}
