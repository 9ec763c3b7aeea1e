//! Wildcards of COPY sources: Go's `filepath.Match`, one path component at a time (build.md C11).

/// A pattern that is not well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether a component contains an unescaped `*`, `?` or `[`.
pub(crate) fn has_wildcard(component: &[u8]) -> bool {
    let mut bytes = component.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// One parsed component of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// `*`
    Any,
    /// `?`
    One,
    /// A character.
    Just(u32),
    /// `[a-z]`, `[^a]`
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Component {
    /// Parses one component.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BadPattern> {
        let letters = letters(text);
        let mut rest = letters.as_slice();
        let mut pieces = Vec::new();
        while let Some((&letter, after)) = rest.split_first() {
            rest = after;
            pieces.push(match char::from_u32(letter) {
                Some('*') => Piece::Any,
                Some('?') => Piece::One,
                Some('[') => class(&mut rest)?,
                Some('\\') => {
                    let (&escaped, after) = rest.split_first().ok_or(BadPattern)?;
                    rest = after;
                    Piece::Just(escaped)
                }
                _ => Piece::Just(letter),
            });
        }
        Ok(Self(pieces))
    }

    /// Whether a file name matches.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let name = letters(name);
        let (mut piece, mut letter) = (0, 0);
        // Where the last `*` was, and how much it has eaten: the only place to go back to.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    star = Some((piece + 1, letter));
                    piece += 1;
                    continue;
                }
                Some(other) if letter < name.len() && other.accepts(name[letter]) => {
                    piece += 1;
                    letter += 1;
                    continue;
                }
                None if letter == name.len() => return true,
                _ => {}
            }
            match &mut star {
                Some((after, eaten)) if *eaten < name.len() => {
                    *eaten += 1;
                    (piece, letter) = (*after, *eaten);
                }
                _ => return false,
            }
        }
    }
}

impl Piece {
    fn accepts(&self, letter: u32) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Just(expected) => *expected == letter,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *negated
            }
        }
    }
}

/// Parses a class after its `[`.
fn class(rest: &mut &[u32]) -> Result<Piece, BadPattern> {
    let negated = take(rest, '^');
    let mut ranges = Vec::new();
    while ranges.is_empty() || !take(rest, ']') {
        let low = member(rest)?;
        let high = if take(rest, '-') { member(rest)? } else { low };
        ranges.push((low, high));
    }
    Ok(Piece::Class { negated, ranges })
}

/// Takes the letter if it is next.
fn take(rest: &mut &[u32], letter: char) -> bool {
    let found = rest.first() == Some(&(letter as u32));
    if found {
        *rest = &rest[1..];
    }
    found
}

/// Takes one end of a range: any letter but `-` and `]`, which need a backslash.
fn member(rest: &mut &[u32]) -> Result<u32, BadPattern> {
    if take(rest, '-') || take(rest, ']') {
        return Err(BadPattern);
    }
    take(rest, '\\');
    let (&letter, after) = rest.split_first().ok_or(BadPattern)?;
    *rest = after;
    Ok(letter)
}

/// The characters of a name. A byte that is not UTF-8 is a letter of its own beyond all of Unicode.
fn letters(name: &[u8]) -> Vec<u32> {
    let mut letters = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        letters.extend(chunk.valid().chars().map(|letter| letter as u32));
        letters.extend(chunk.invalid().iter().map(|&byte| 0x11_0000 + u32::from(byte)));
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Component::parse(pattern.as_bytes()).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("*", ".hidden", true),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*.txt", "a.txt.txt", true),
            ("?", "ü", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[[]x", "[x", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            (r"[\-\]]", "]", true),
            ("[]a]", "]", false),
            ("hom*", "home.txt", true),
        ] {
            let parsed = Component::parse(pattern.as_bytes());
            let found = parsed.map(|component| component.matches(name.as_bytes()));
            assert_eq!(found.unwrap_or(false), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn unfinished_patterns_are_refused() {
        for pattern in ["[", "[a", "[a-", "[-a]", "[]a]", "\\", "[^", "a[z-]"] {
            assert_eq!(Component::parse(pattern.as_bytes()), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn a_name_that_is_no_utf8_matches_by_byte() {
        let component = Component::parse(b"a?b").unwrap();
        assert!(component.matches(b"a\xffb"));
        assert!(!matches("a?b", "a\u{fffd}\u{fffd}b"));
    }

    #[test]
    fn a_backslash_hides_a_wildcard() {
        assert!(has_wildcard(b"a*") && has_wildcard(b"[a]") && has_wildcard(br"\\*"));
        assert!(!has_wildcard(br"\*a") && !has_wildcard(b"plain"));
    }
}
