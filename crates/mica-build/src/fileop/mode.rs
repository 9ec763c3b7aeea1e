//! `--chmod` (build.md C14): octal bits, or the symbolic clauses of chmod(1) as BSD's setmode(3) understands them.

use mica_solve::ModeChange;

/// A mode that is neither octal nor symbolic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
pub struct BadMode(pub String);

/// What `X` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Other,
}

/// A `--chmod` ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Keep,
    Octal(u32),
    Symbolic(SymbolicMode),
}

impl Change {
    pub(super) fn parse(change: Option<&ModeChange>) -> Result<Self, BadMode> {
        Ok(match change {
            None => Self::Keep,
            Some(ModeChange::Octal(mode)) => Self::Octal(mode & 0o7777),
            Some(ModeChange::Symbolic(text)) => Self::Symbolic(text.parse()?),
        })
    }

    pub(super) fn apply(&self, mode: u32, kind: Kind) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Octal(mode) => *mode,
            Self::Symbolic(symbolic) => symbolic.apply(mode, kind == Kind::Directory),
        }
    }

    /// The mode of directories made on the way: only octal bits reach them (C6).
    pub(super) fn of_parents(&self) -> u32 {
        if let Self::Octal(mode) = self { mode & 0o777 } else { 0o755 }
    }
}

const STICKY: u32 = 0o1000;
const SET_IDS: u32 = 0o6000;
const EXECUTE: u32 = 0o111;
/// What `a` and a missing "who" mean; sticky only where `t` is written.
const ALL: u32 = 0o6777;

/// Symbolic clauses, parsed: `u=rwX,go=rX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolicMode(Vec<Step>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Set(u32),
    Clear(u32),
    /// `X`: set if the mode had an execute bit before, or for a directory.
    SetIfExecutable(u32),
    /// `g=u`: combine with the bits of another class; `shift` is where those are.
    Copy {
        shift: u32,
        who: u32,
        operation: Operation,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Add,
    Remove,
    Assign,
}

impl SymbolicMode {
    /// Returns `mode` (`0o7777`) changed.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let executable = is_directory || mode & EXECUTE != 0;
        self.0.iter().fold(mode, |mode, step| match *step {
            Step::Set(bits) => mode | bits,
            Step::Clear(bits) => mode & !bits,
            Step::SetIfExecutable(bits) if executable => mode | bits,
            Step::SetIfExecutable(_) => mode,
            Step::Copy { shift, who, operation } => {
                let from = mode >> shift & 0o7;
                let bits = (from << 6 | from << 3 | from) & who;
                match operation {
                    Operation::Add => mode | bits,
                    Operation::Remove => mode & !bits,
                    Operation::Assign => mode & !(who & 0o777) | bits,
                }
            }
        })
    }
}

impl std::str::FromStr for SymbolicMode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut steps).ok_or_else(|| BadMode(text.to_owned()))?;
        }
        Ok(Self(steps))
    }
}

/// Parses `[ugoa]*([-+=][rwxXstugo]*)+`.
fn parse_clause(clause: &str, steps: &mut Vec<Step>) -> Option<()> {
    let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let who = clause[..clause.len() - rest.len()].chars().fold(0, |who, letter| {
        who | match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o007,
            _ => ALL,
        }
    });
    let mut letters = rest.chars().peekable();
    letters.peek()?;
    while let Some(operation) = letters.next() {
        let operation = match operation {
            '+' => Operation::Add,
            '-' => Operation::Remove,
            '=' => Operation::Assign,
            _ => return None,
        };
        let mut permissions = String::new();
        while let Some(letter) = letters.next_if(|letter| "rwxXstugo".contains(*letter)) {
            permissions.push(letter);
        }
        push_steps(who, operation, &permissions, steps);
    }
    Some(())
}

fn push_steps(who: u32, operation: Operation, permissions: &str, steps: &mut Vec<Step>) {
    // For others alone `s` and `t` mean nothing.
    let special = who == 0 || who & !0o007 != 0;
    let class = if who == 0 { ALL } else { who };
    let (mut bits, mut conditional, mut copies) = (0, 0, Vec::new());
    for letter in permissions.chars() {
        match letter {
            'r' => bits |= 0o444 & class,
            'w' => bits |= 0o222 & class,
            'x' => bits |= EXECUTE & class,
            'X' if operation == Operation::Remove => bits |= EXECUTE & class,
            'X' => conditional |= EXECUTE & class,
            's' if special => bits |= SET_IDS & class,
            't' if special => bits |= STICKY,
            'u' => copies.push(6),
            'g' => copies.push(3),
            'o' => copies.push(0),
            _ => {}
        }
    }
    match operation {
        Operation::Remove => steps.push(Step::Clear(bits)),
        Operation::Add => steps.push(Step::Set(bits)),
        // `g=u` reads its bits before anything is cleared, so clearing is left to the copy.
        Operation::Assign if !copies.is_empty() && bits == 0 => {}
        Operation::Assign => {
            let sticky = if permissions.contains('t') { STICKY } else { 0 };
            steps.extend([Step::Clear(class | sticky), Step::Set(bits)]);
        }
    }
    if conditional != 0 {
        steps.push(Step::SetIfExecutable(conditional));
    }
    steps.extend(copies.into_iter().map(|shift| Step::Copy { shift, who: class, operation }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, mode: u32, is_directory: bool) -> u32 {
        text.parse::<SymbolicMode>().unwrap().apply(mode, is_directory)
    }

    #[test]
    fn clauses_change_modes_as_chmod_does() {
        for (text, mode, directory, expected) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("go=u-w", 0o700, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("=r", 0o4777, false, 0o444),
            ("u+x-w", 0o600, false, 0o500),
            ("u-X", 0o711, false, 0o611),
            ("a+X", 0o644, false, 0o644),
        ] {
            assert_eq!(apply(text, mode, directory), expected, "{text} on {mode:o}");
        }
    }

    #[test]
    fn malformed_modes_are_refused() {
        for text in ["", "u", "rwx", "u=rwz", "u=r,", "08", "u!r"] {
            assert!(text.parse::<SymbolicMode>().is_err(), "{text}");
        }
        let text = BadMode("08".to_owned()).to_string();
        assert_eq!(text, "invalid chmod parameter: '08'. it should be octal string and between 0 and 07777");
    }

    #[test]
    fn only_octal_bits_reach_the_parents() {
        let octal = Change::parse(Some(&ModeChange::Octal(0o4700))).unwrap();
        assert_eq!((octal.of_parents(), octal.apply(0o644, Kind::Other)), (0o700, 0o4700));
        let symbolic = Change::parse(Some(&ModeChange::Symbolic("a+x".into()))).unwrap();
        assert_eq!(symbolic.of_parents(), 0o755);
    }
}
