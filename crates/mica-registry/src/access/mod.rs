//! Who may do what: names and passwords, and rules about repositories.
//!
//! Every decision is made from a parsed request (security.md row 35): the repository that is checked is the one that is
//! looked up, and it is checked before anything is looked up, so that what is forbidden looks like what is absent.

mod passwords;
mod rules;

use mica_oci::Repository;

pub use self::passwords::{AccessError, Passwords};
pub use self::rules::{Right, Rights, Rule, Who};
use crate::error::{Code, Refusal};

/// Who may do what in a registry.
#[derive(Debug, Default)]
pub struct Access {
    passwords: Option<Passwords>,
    rules: Vec<Rule>,
}

/// Who sent a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name that a password proved.
    pub(crate) user: Option<String>,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self::default()
    }

    /// Users with passwords. Without any rule, every user may do everything and others nothing.
    pub fn with_passwords(passwords: Passwords, rules: Vec<Rule>) -> Self {
        let rules = if rules.is_empty() { vec![Rule::everything_for_users()] } else { rules };
        Self { passwords: Some(passwords), rules }
    }

    /// Nobody has a password, and the rules say what everybody may do.
    pub fn without_passwords(rules: Vec<Rule>) -> Self {
        Self { passwords: None, rules }
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.passwords.is_none() && self.rules.is_empty()
    }

    /// Finds out who sent a request.
    ///
    /// # Errors
    /// The credentials are wrong, or too many are being checked.
    pub(crate) async fn authenticate(&self, header: Option<&str>) -> Result<Identity, Refusal> {
        let (Some(passwords), Some(header)) = (&self.passwords, header) else {
            return Ok(Identity::default());
        };
        let user = passwords.check(header).await.map_err(|error| match error {
            passwords::CheckError::Wrong => self.challenge("the user or the password is wrong"),
            passwords::CheckError::Busy => Refusal::new(
                hyper::StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                "too many passwords are being checked; try again in a second",
            )
            .header(hyper::header::RETRY_AFTER, "1"),
        })?;
        Ok(Identity { user: Some(user) })
    }

    /// Whether somebody has a right in a repository.
    pub(crate) fn allows(&self, who: &Identity, repository: &Repository, right: Right) -> bool {
        let applies = |rule: &Rule| rule.applies(who.user.as_deref(), repository.as_str());
        self.is_open() || self.rules.iter().any(|rule| rule.rights.has(right) && applies(rule))
    }

    /// Refuses somebody who has not this right.
    ///
    /// # Errors
    /// 401 for strangers, who may try again with a password, else 403.
    pub(crate) fn demand(
        &self,
        who: &Identity,
        repository: &Repository,
        right: Right,
    ) -> Result<(), Refusal> {
        if self.allows(who, repository, right) {
            return Ok(());
        }
        let message =
            format!("{} is not allowed to {right} in {repository}", who.user.as_deref().unwrap_or("nobody"));
        if who.user.is_none() && self.passwords.is_some() {
            return Err(self.challenge("log in first"));
        }
        Err(Refusal::new(hyper::StatusCode::FORBIDDEN, Code::Denied, message))
    }

    /// Refuses strangers where there are users: how clients find out whether to log in.
    ///
    /// # Errors
    /// 401.
    pub(crate) fn demand_user(&self, who: &Identity) -> Result<(), Refusal> {
        match self.passwords.is_some() && who.user.is_none() {
            true => Err(self.challenge("log in first")),
            false => Ok(()),
        }
    }

    fn challenge(&self, message: &str) -> Refusal {
        Refusal::new(hyper::StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
            .header(hyper::header::WWW_AUTHENTICATE, "Basic realm=\"registry\", charset=\"UTF-8\"")
    }
}
