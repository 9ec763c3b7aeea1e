//! Rules: `alice=pull,push:team/**`.

use std::fmt;
use std::str::FromStr;

/// Something that can be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read manifests, blobs, tags and referrers; see the repository in the catalog.
    Pull,
    /// Upload, and move tags.
    Push,
    /// Delete tags, manifests and blobs.
    Delete,
}

/// Several of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u8);

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody, with a password or not.
    Anonymous,
    /// Everybody with a password.
    Users,
    /// One user.
    User(String),
}

/// Somebody may do something in some repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Who.
    pub who: Who,
    /// What.
    pub rights: Rights,
    /// Where: `*` stands for what has no slash, `**` for anything.
    pub repositories: String,
}

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form WHO=RIGHT[,RIGHT][:REPOSITORIES], with the rights pull, push, delete, all")]
pub struct RuleError(String);

impl Right {
    fn bit(self) -> u8 {
        match self {
            Self::Pull => 1,
            Self::Push => 2,
            Self::Delete => 4,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        })
    }
}

impl Rights {
    /// All of them.
    pub const ALL: Self = Self(7);

    /// Whether this one is among them.
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }
}

impl FromStr for Rights {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.split(',').try_fold(Self::default(), |rights, word| {
            let more = match word {
                "pull" => Right::Pull.bit(),
                // Who pushes looks first what is there already.
                "push" => Right::Push.bit() | Right::Pull.bit(),
                "delete" => Right::Delete.bit(),
                "all" => Self::ALL.0,
                _ => return Err(()),
            };
            Ok(Self(rights.0 | more))
        })
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let error = || RuleError(text.to_owned());
        let (who, what) = text.split_once('=').ok_or_else(error)?;
        let (rights, repositories) = what.split_once(':').unwrap_or((what, "**"));
        let who = match who {
            "" => return Err(error()),
            "anonymous" => Who::Anonymous,
            "users" => Who::Users,
            name => Who::User(name.to_owned()),
        };
        if repositories.is_empty() {
            return Err(error());
        }
        Ok(Self { who, rights: rights.parse().map_err(|()| error())?, repositories: repositories.to_owned() })
    }
}

impl Rule {
    pub(super) fn everything_for_users() -> Self {
        Self { who: Who::Users, rights: Rights::ALL, repositories: "**".to_owned() }
    }

    pub(super) fn applies(&self, user: Option<&str>, repository: &str) -> bool {
        let who = match &self.who {
            Who::Anonymous => true,
            Who::Users => user.is_some(),
            Who::User(name) => user == Some(name),
        };
        who && matches(&self.repositories, repository)
    }
}

/// Whether a pattern means a repository: `*` stops at a slash, `**` does not.
///
/// Patterns are the owner's, and names at most 255 characters, so trying everything after a star is cheap enough.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    fits(pattern.as_bytes(), name.as_bytes())
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=name.len()).any(|at| fits(rest, &name[at..])),
        [b'*', rest @ ..] => {
            let end = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
            (0..=end).any(|at| fits(rest, &name[at..]))
        }
        [first, rest @ ..] => {
            name.split_first().is_some_and(|(byte, name)| byte == first && fits(rest, name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_who_may_do_what_where() {
        let rule: Rule = "alice=push:team/*".parse().unwrap();
        assert!(
            rule.rights.has(Right::Push) && rule.rights.has(Right::Pull) && !rule.rights.has(Right::Delete)
        );
        assert!(rule.applies(Some("alice"), "team/app"));
        assert!(!rule.applies(Some("alice"), "team/app/sub"));
        assert!(!rule.applies(Some("bob"), "team/app"));
        assert!(!rule.applies(None, "team/app"));
        let rule: Rule = "anonymous=pull".parse().unwrap();
        assert!(rule.applies(None, "any/thing"));
        let rule: Rule = "users=all:a/**/z".parse().unwrap();
        assert!(rule.applies(Some("x"), "a/b/c/z") && !rule.applies(Some("x"), "a/z2"));
    }

    #[test]
    fn texts_that_are_no_rules_are_refused() {
        for text in ["", "alice", "=pull", "alice=", "alice=write", "alice=pull:", "alice=pull,,push"] {
            assert!(text.parse::<Rule>().is_err(), "{text:?}");
        }
    }
}
