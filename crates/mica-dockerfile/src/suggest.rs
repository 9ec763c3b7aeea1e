//! "Did you mean": the known word nearest to an unknown one.

use std::fmt::{self, Display};

/// A word must be nearer than this many edits.
const TOO_FAR: usize = 3;

/// Longer words are not compared: no keyword is near, and comparing costs the product of the lengths.
const MAX_CHARS: usize = 64;

/// Shown as ` (did you mean WORD?)`, or as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DidYouMean(pub Option<String>);

impl Display for DidYouMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(word) => write!(f, " (did you mean {word}?)"),
            None => Ok(()),
        }
    }
}

impl DidYouMean {
    /// Returns the first of the nearest options, the case as in `options`.
    ///
    /// Nothing if an option equals the word: then the word was not the mistake.
    pub fn among<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Self {
        if word.chars().count() > MAX_CHARS {
            return Self(None);
        }
        let mut best = None;
        let mut best_distance = TOO_FAR;
        for option in options {
            let distance = distance(word, option);
            if distance == 0 {
                return Self(None);
            }
            if distance < best_distance {
                best = Some(option);
                best_distance = distance;
            }
        }
        Self(best.map(str::to_owned))
    }

    /// Like [`DidYouMean::among`], whatever the case; the answer's case is that of the word, if it has one.
    pub fn among_ignoring_case<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Self {
        let lower: Vec<String> = options.into_iter().map(str::to_lowercase).collect();
        let Self(found) = Self::among(&word.to_lowercase(), lower.iter().map(String::as_str));
        let is_upper = word != word.to_lowercase() && word == word.to_uppercase();
        Self(found.map(|option| if is_upper { option.to_uppercase() } else { option }))
    }
}

/// Returns the Levenshtein distance of two words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_in_the_case_they_were_asked_in() {
        let names = ["RUN", "COPY", "ENV"];
        assert_eq!(DidYouMean::among_ignoring_case("RNU", names).0.as_deref(), Some("RUN"));
        assert_eq!(DidYouMean::among_ignoring_case("coppy", names).0.as_deref(), Some("copy"));
        assert_eq!(DidYouMean::among_ignoring_case("WORKDIRR", names).0, None);
    }

    #[test]
    fn nothing_is_suggested_for_a_word_that_exists_or_is_far() {
        assert_eq!(DidYouMean::among("from", ["from", "form"]).0, None);
        assert_eq!(DidYouMean::among("verydifferent", ["from"]).0, None);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
        assert_eq!(distance("ab", ""), 2);
        assert_eq!(distance("same", "same"), 0);
    }
}
