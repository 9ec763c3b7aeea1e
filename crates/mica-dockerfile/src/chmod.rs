//! `--chmod`: octal or symbolic (C14), applied over a mode with no umask.

/// A change of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// These bits, 0-07777.
    Octal(u32),
    /// Clauses as in chmod(1).
    Symbolic(Symbolic),
}

/// Symbolic clauses such as `u=rwX,go=rX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbolic {
    text: String,
    steps: Vec<Step>,
}

/// A text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChmodError {
    /// It begins like a number.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    NotOctal(String),
    /// It does not.
    #[error("invalid chmod parameter: '{0}'. invalid syntax")]
    Syntax(String),
}

/// One thing done to the bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Set(u32),
    Clear(u32),
    /// Set these if the original is executable for anyone, or a directory.
    SetIfExecutable(u32),
    /// Combine the bits of one class of users with those of the classes in the mask.
    Copy {
        from: Who,
        to: u32,
        operator: Operator,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Assign,
}

/// A class of users: how far its bits are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    User = 6,
    Group = 3,
    Other = 0,
}

const STICKY: u32 = 0o1000;
/// What `a`, or nothing, means: everything but the sticky bit.
const ALL: u32 = 0o6777;
const OTHER: u32 = 0o007;
const EXECUTE: u32 = 0o111;

impl Chmod {
    /// Parses an expanded `--chmod`.
    ///
    /// # Errors
    /// [`ChmodError`] in the reference's words.
    pub fn parse(text: &str) -> Result<Self, ChmodError> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(ChmodError::NotOctal(text.to_owned())),
            };
        }
        let steps = symbolic(text).ok_or_else(|| ChmodError::Syntax(text.to_owned()))?;
        Ok(Self::Symbolic(Symbolic { text: text.to_owned(), steps }))
    }

    /// Returns the new permission bits of a file that has `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(symbolic) => symbolic.apply(mode & 0o7777, is_directory),
        }
    }
}

impl Symbolic {
    /// The clauses as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn apply(&self, original: u32, is_directory: bool) -> u32 {
        let executable = is_directory || original & EXECUTE != 0;
        self.steps.iter().fold(original, |mode, step| match *step {
            Step::Set(bits) => mode | bits,
            Step::Clear(bits) => mode & !bits,
            Step::SetIfExecutable(bits) => {
                if executable {
                    mode | bits
                } else {
                    mode
                }
            }
            Step::Copy { from, to, operator } => {
                let bits = mode >> (from as u32) & OTHER;
                let spread = (bits << 6 | bits << 3 | bits) & to;
                match operator {
                    Operator::Add => mode | spread,
                    Operator::Remove => mode & !spread,
                    Operator::Assign => mode & !to | spread,
                }
            }
        })
    }
}

/// Reads all clauses.
fn symbolic(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for clause in text.split(',') {
        let length = clause.find(|c| !matches!(c, 'a' | 'u' | 'g' | 'o')).unwrap_or(clause.len());
        let (classes, mut actions) = clause.split_at(length);
        let who = classes.chars().fold(0, |who, class| {
            who | match class {
                'a' => ALL,
                'u' => 0o4700,
                'g' => 0o2070,
                _ => OTHER,
            }
        });
        if actions.is_empty() {
            return None;
        }
        while !actions.is_empty() {
            actions = action(actions, who, &mut steps)?;
        }
    }
    Some(steps)
}

/// Reads an operator and what it is applied to; returns what follows. `who` is 0 if no class was named.
fn action<'a>(text: &'a str, who: u32, steps: &mut Vec<Step>) -> Option<&'a str> {
    let operator = match text.as_bytes()[0] {
        b'+' => Operator::Add,
        b'-' => Operator::Remove,
        b'=' => Operator::Assign,
        _ => return None,
    };
    let mut affected = if who == 0 { ALL } else { who };
    let only_other = who == OTHER;
    let rest = &text[1..];
    // A copy replaces the bits by itself, and may need them: `ug=u`.
    if operator == Operator::Assign && !rest.starts_with(['u', 'g', 'o']) {
        steps.push(Step::Clear(affected));
    }
    let length = rest.find(['+', '-', '=']).unwrap_or(rest.len());
    for permission in rest[..length].chars() {
        let bits = match permission {
            'r' => 0o444,
            'w' => 0o222,
            'x' => EXECUTE,
            'X' if operator == Operator::Remove => EXECUTE,
            'X' => {
                steps.push(Step::SetIfExecutable(affected & EXECUTE));
                continue;
            }
            's' if only_other => 0,
            's' => 0o6000,
            't' if only_other => 0,
            't' => {
                affected |= STICKY;
                STICKY
            }
            'u' | 'g' | 'o' => {
                steps.push(Step::Copy { from: class(permission), to: affected & 0o777, operator });
                continue;
            }
            _ => return None,
        };
        let bits = bits & affected;
        steps.push(if operator == Operator::Remove { Step::Clear(bits) } else { Step::Set(bits) });
    }
    Some(&rest[length..])
}

fn class(letter: char) -> Who {
    match letter {
        'u' => Who::User,
        'g' => Who::Group,
        _ => Who::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, mode: u32, is_directory: bool) -> u32 {
        Chmod::parse(text).unwrap().apply(mode, is_directory)
    }

    #[test]
    fn octal_modes_replace_all_bits() {
        assert_eq!(Chmod::parse("0755"), Ok(Chmod::Octal(0o755)));
        assert_eq!(changed("4755", 0o644, false), 0o4755);
        assert_eq!(changed("0", 0o7777, true), 0);
    }

    #[test]
    fn numbers_that_are_not_modes_are_refused() {
        for text in ["08", "10000", "64a", "7 "] {
            let error = Chmod::parse(text).unwrap_err().to_string();
            assert!(error.contains("it should be octal string and between 0 and 07777"), "{error}");
        }
    }

    #[test]
    fn symbolic_modes_change_what_is_there() {
        let cases = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o100, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("-w", 0o666, false, 0o444),
            ("a=r", 0o4777, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("u+s,g-s", 0o2755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("go=u-w", 0o755, false, 0o755),
            ("g=u", 0o740, false, 0o770),
            ("o+g", 0o751, false, 0o755),
            ("ug-x+r", 0o311, false, 0o641),
            ("ug=u", 0o750, false, 0o770),
            ("a-X", 0o755, false, 0o644),
        ];
        for (text, mode, is_directory, expected) in cases {
            assert_eq!(changed(text, mode, is_directory), expected, "{text} on {mode:o}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "rwx", "u", "u+q", "u=r,", ",u=r", "u+r,g", "é+x", "+r-,"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
