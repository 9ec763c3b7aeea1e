//! Wildcard matching in linear time: the engine below ignore patterns and `${name#pattern}`.
//!
//! A pattern is a list of [`Token`]s, run as a nondeterministic automaton: each character costs at most
//! one visit per token, whatever the pattern, so hostile patterns cannot make it backtrack.

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// This character.
    Literal(char),
    /// Any one character but this.
    AnyBut(char),
    /// Any one character of a set.
    Class(Class),
    /// Any run of characters, the given one not among them; possibly empty.
    RunBut(char),
    /// Any run of any characters; possibly empty.
    Run,
    /// The next token may be left out.
    Optional,
    /// Any run of characters ending with a slash.
    ThroughSlash,
}

/// `[a-z]`, `[^x]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    /// Whether the ranges are those that do not match.
    pub(crate) negated: bool,
    /// Inclusive ranges.
    pub(crate) ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != self.negated
    }
}

/// An automaton at work. State `i` means "tokens before `i` have matched"; its value is where the
/// earliest match that got there began.
pub(crate) struct Matcher<'a> {
    tokens: &'a [Token],
    starts: Vec<usize>,
    next: Vec<usize>,
}

/// No match is in this state.
const NONE: usize = usize::MAX;

impl<'a> Matcher<'a> {
    /// Returns an automaton that has not begun to match.
    pub(crate) fn new(tokens: &'a [Token]) -> Self {
        let states = tokens.len() + 1;
        Self { tokens, starts: vec![NONE; states], next: vec![NONE; states] }
    }

    /// Begins a match at the current character, which is number `at`.
    pub(crate) fn begin(&mut self, at: usize) {
        enter(self.tokens, &mut self.starts, 0, at);
    }

    /// Reads one character.
    pub(crate) fn step(&mut self, c: char) {
        self.next.fill(NONE);
        for (state, token) in self.tokens.iter().enumerate() {
            let start = self.starts[state];
            if start == NONE {
                continue;
            }
            let (stays, advances) = match token {
                Token::Literal(expected) => (false, *expected == c),
                Token::AnyBut(excluded) => (false, *excluded != c),
                Token::Class(class) => (false, class.contains(c)),
                Token::RunBut(excluded) => (*excluded != c, false),
                Token::Run => (true, false),
                Token::Optional => (false, false),
                Token::ThroughSlash => (true, c == '/'),
            };
            if stays {
                enter(self.tokens, &mut self.next, state, start);
            }
            if advances {
                enter(self.tokens, &mut self.next, state + 1, start);
            }
        }
        std::mem::swap(&mut self.starts, &mut self.next);
    }

    /// Returns where the earliest match that is complete at this point began.
    pub(crate) fn accepted(&self) -> Option<usize> {
        self.starts.last().copied().filter(|&start| start != NONE)
    }

    /// Returns where the earliest match still possible, or complete now, began.
    pub(crate) fn earliest(&self) -> Option<usize> {
        self.starts.iter().copied().min().filter(|&start| start != NONE)
    }

    /// Forgets all matches that began after `start`.
    pub(crate) fn keep_only(&mut self, start: usize) {
        for value in &mut self.starts {
            if *value != start {
                *value = NONE;
            }
        }
    }
}

/// Enters a state and all those reachable from it without reading.
fn enter(tokens: &[Token], starts: &mut [usize], mut state: usize, start: usize) {
    loop {
        if start >= starts[state] {
            return;
        }
        starts[state] = start;
        match tokens.get(state) {
            Some(Token::RunBut(_) | Token::Run) => state += 1,
            Some(Token::Optional) => {
                enter_optional(starts, state, start);
                state += 2;
                if state >= starts.len() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Enters the token after an [`Token::Optional`]; it always reads something, so nothing follows from it.
fn enter_optional(starts: &mut [usize], state: usize, start: usize) {
    if let Some(value) = starts.get_mut(state + 1) {
        *value = start.min(*value);
    }
}
