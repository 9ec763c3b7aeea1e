//! What is taken of a copied directory: `--exclude` and the pattern of `--parents` (build.md C17, C18).

use std::io;

use mica_dockerfile::ignore::Patterns;

use super::{Node, SelectError};

/// Decides about every path below a selected one.
#[derive(Debug, Default)]
pub struct Filter {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

/// What happens to a path below a selected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is copied.
    Take,
    /// A directory that exists in the copy only if something below it is taken.
    Descend,
    /// It is not copied, nor is anything below it.
    Leave,
}

impl Filter {
    pub(super) fn new(include: Option<Patterns>, exclude: &[String]) -> Result<Self, SelectError> {
        let exclude = if exclude.is_empty() { None } else { Some(parse(exclude)?) };
        Ok(Self { include, exclude })
    }

    pub(super) fn include_pattern(pattern: &str) -> Result<Patterns, SelectError> {
        parse(&[pattern.to_owned()])
    }

    /// Decides about a path relative to the selected one, which itself (`""`) is always taken: patterns do not affect
    /// what a source names directly (C18).
    pub fn judge(&self, relative: &[u8], node: &Node<'_>) -> Verdict {
        if relative.is_empty() || (self.include.is_none() && self.exclude.is_none()) {
            return Verdict::Take;
        }
        let path = String::from_utf8_lossy(relative);
        if let Some(exclude) = &self.exclude
            && exclude.matches(&path)
        {
            let hidden = !node.is_directory() || !exclude.could_reinclude_below(&path);
            return if hidden { Verdict::Leave } else { Verdict::Descend };
        }
        match &self.include {
            Some(include) if !include.matches(&path) => {
                if node.is_directory() {
                    Verdict::Descend
                } else {
                    Verdict::Leave
                }
            }
            _ => Verdict::Take,
        }
    }
}

fn parse(patterns: &[String]) -> Result<Patterns, SelectError> {
    Patterns::from_lines(patterns).map_err(|error| SelectError::Filter {
        pattern: patterns.join(","),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}
