//! Who may do what: names and passwords, and rules about repositories.
//!
//! Every decision is made from a parsed request (security.md row 35): the repository that is checked is the one that is
//! looked up, and it is checked before anything is looked up, so that what is forbidden looks like what is absent.

mod passwords;
mod rules;
pub(crate) mod tokens;

use std::path::Path;
use std::sync::OnceLock;

use mica_oci::Repository;

pub use self::passwords::{AccessError, Passwords};
pub(crate) use self::rules::matches;
pub use self::rules::{Right, Rights, Rule, Who};
use self::tokens::{Grant, Tokens};
use crate::error::{Code, Refusal};
use crate::storage::writer::now;

/// Who may do what in a registry.
#[derive(Debug, Default)]
pub struct Access {
    passwords: Option<Passwords>,
    rules: Vec<Rule>,
    tokens: OnceLock<Tokens>,
}

/// Who sent a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name that a password proved.
    pub(crate) user: Option<String>,
    /// What a token was issued for; `None` for who came with a password or with nothing.
    grants: Option<Vec<Grant>>,
}

impl Identity {
    /// Whether a token was shown.
    pub(crate) fn has_token(&self) -> bool {
        self.grants.is_some()
    }
}

/// What is known of a request before it is known who sent it.
pub(crate) struct Credentials<'a> {
    /// The `Authorization` header.
    pub(crate) header: Option<&'a str>,
    /// The name that the client knows this registry by.
    pub(crate) host: &'a str,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self::default()
    }

    /// Users with passwords. Without any rule, every user may do everything and others nothing.
    pub fn with_passwords(passwords: Passwords, rules: Vec<Rule>) -> Self {
        let rules = if rules.is_empty() { vec![Rule::everything_for_users()] } else { rules };
        Self { passwords: Some(passwords), rules, tokens: OnceLock::new() }
    }

    /// Nobody has a password, and the rules say what everybody may do.
    pub fn without_passwords(rules: Vec<Rule>) -> Self {
        Self { passwords: None, rules, tokens: OnceLock::new() }
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.passwords.is_none() && self.rules.is_empty()
    }

    /// Reads or makes the key of the tokens, where there are users to give them to.
    pub(crate) fn prepare(&self, key: &Path) -> std::io::Result<()> {
        if self.passwords.is_some() {
            let tokens = Tokens::open(key)?;
            // Only ever called once; a second key would be that of the same file.
            let _same = self.tokens.set(tokens);
        }
        Ok(())
    }

    /// Finds out who sent a request.
    ///
    /// # Errors
    /// The credentials are wrong, or too many are being checked.
    pub(crate) async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, Refusal> {
        let (Some(passwords), Some(header)) = (&self.passwords, credentials.header) else {
            return Ok(Identity::default());
        };
        if let Some(token) =
            header.get(..7).filter(|word| word.eq_ignore_ascii_case("bearer ")).map(|_| &header[7..])
        {
            let claims =
                self.tokens.get().and_then(|tokens| tokens.verify(token.trim(), credentials.host, now()));
            let claims =
                claims.ok_or_else(|| unauthorized("the token is not valid any more, or never was"))?;
            // A user who is not in the file any more is nobody, whatever was promised.
            let user = Some(claims.sub).filter(|user| passwords.knows(user));
            return Ok(Identity { user, grants: Some(claims.access) });
        }
        let user = passwords.check(header).await.map_err(|error| match error {
            passwords::CheckError::Wrong => unauthorized("the user or the password is wrong")
                .header(hyper::header::WWW_AUTHENTICATE, BASIC),
            passwords::CheckError::Busy => Refusal::new(
                hyper::StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                "too many passwords are being checked; try again in a second",
            )
            .header(hyper::header::RETRY_AFTER, "1"),
        })?;
        Ok(Identity { user: Some(user), grants: None })
    }

    /// Whether somebody has a right in a repository.
    pub(crate) fn allows(&self, who: &Identity, repository: &Repository, right: Right) -> bool {
        let granted = who.grants.as_ref().is_none_or(|grants| {
            grants.iter().any(|grant| grant.name == repository.as_str() && grant.has(right))
        });
        granted && self.rules_allow(who, repository, right)
    }

    fn rules_allow(&self, who: &Identity, repository: &Repository, right: Right) -> bool {
        let applies = |rule: &Rule| rule.applies(who.user.as_deref(), repository.as_str());
        self.is_open() || self.rules.iter().any(|rule| rule.rights.has(right) && applies(rule))
    }

    /// Refuses somebody who has not this right.
    ///
    /// # Errors
    /// 401 for strangers, who may try again with a password, and for tokens of something else; 403 for users who may not.
    pub(crate) fn demand(
        &self,
        who: &Identity,
        repository: &Repository,
        right: Right,
    ) -> Result<(), Refusal> {
        if self.allows(who, repository, right) {
            return Ok(());
        }
        let may_try_again = self.passwords.is_some()
            && (who.user.is_none() || (who.grants.is_some() && self.rules_allow(who, repository, right)));
        if may_try_again {
            return Err(unauthorized("log in first, or with the right to do this"));
        }
        let name = who.user.as_deref().unwrap_or("nobody");
        let message = format!("{name} is not allowed to {right} in {repository}");
        Err(Refusal::new(hyper::StatusCode::FORBIDDEN, Code::Denied, message))
    }

    /// Refuses strangers where there are users: how clients find out whether to log in.
    ///
    /// # Errors
    /// 401.
    pub(crate) fn demand_user(&self, who: &Identity) -> Result<(), Refusal> {
        let is_stranger = who.user.is_none() && who.grants.is_none();
        match self.passwords.is_some() && is_stranger {
            true => Err(unauthorized("log in first")),
            false => Ok(()),
        }
    }

    /// A token for what somebody asked for, as far as they may have it.
    ///
    /// # Errors
    /// There are no users here, and so no tokens.
    pub(crate) fn issue(&self, who: &Identity, host: &str, wanted: Vec<Grant>) -> Result<String, Refusal> {
        let tokens = self.tokens.get().ok_or_else(|| {
            Refusal::missing(Code::Unsupported, "nobody needs a token here: there are no users")
        })?;
        let allowed = wanted.into_iter().filter_map(|grant| {
            let repository: Repository = grant.name.parse().ok()?;
            let rights = [Right::Pull, Right::Push, Right::Delete].into_iter();
            let rights =
                rights.filter(|right| grant.has(*right) && self.rules_allow(who, &repository, *right));
            let rights: Vec<String> = rights.map(|right| right.to_string()).collect();
            (!rights.is_empty()).then_some(Grant { actions: rights, ..grant })
        });
        Ok(tokens.issue(who.user.as_deref().unwrap_or_default(), host, allowed.collect(), now()))
    }

    /// Whether tokens are given out.
    pub(crate) fn has_users(&self) -> bool {
        self.passwords.is_some()
    }
}

/// How clients are asked for a password.
pub(crate) const BASIC: &str = "Basic realm=\"registry\", charset=\"UTF-8\"";

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(hyper::StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
}
