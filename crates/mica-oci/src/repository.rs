//! Repositories: the name spaces of a registry.

use std::fmt;
use std::str::FromStr;

use crate::reference::valid_repository;

/// A repository within a registry: `library/alpine`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Box<str>);

/// Why a text is not the name of a repository.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepositoryError {
    /// Outside the grammar of the distribution specification.
    #[error(
        "invalid repository name: components are lower-case letters and digits, separated by . _ __ or -"
    )]
    Form,
    /// More than 255 characters.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
}

impl Repository {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        if text.len() > 255 {
            return Err(RepositoryError::TooLong);
        }
        if valid_repository(text) { Ok(Self(text.into())) } else { Err(RepositoryError::Form) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_or_shout_are_refused() {
        for text in
            ["", "/", "a/", "/a", "a//b", "..", "a/../b", "A", "a-/b", "-a", "a___b", "a\0", "a b", "a%2f"]
        {
            assert_eq!(text.parse::<Repository>(), Err(RepositoryError::Form), "{text:?}");
        }
        assert_eq!("a".repeat(256).parse::<Repository>(), Err(RepositoryError::TooLong));
        assert!("a/b__c/d--e/f.0".parse::<Repository>().is_ok());
    }
}
