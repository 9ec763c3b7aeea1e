//! Users without privileges, for tests that start as root.

use std::path::PathBuf;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The user's ID.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// The home directory.
    pub home: PathBuf,
}

impl User {
    /// A user with subordinate ids (`/etc/subuid`, `/etc/subgid`); reports the skip if there is none.
    pub fn with_subordinate_ids() -> Option<Self> {
        let user =
            users().into_iter().find(|user| user.in_file("/etc/subuid") && user.in_file("/etc/subgid"));
        or_skip(user, "no user with subordinate ids (`cargo xtask peers` as root makes one)")
    }

    /// A user without subordinate ids; reports the skip if there is none.
    pub fn without_subordinate_ids() -> Option<Self> {
        let user = users().into_iter().find(|user| !user.in_file("/etc/subuid"));
        or_skip(user, "no user without subordinate ids (`cargo xtask peers` as root makes one)")
    }

    fn in_file(&self, path: &str) -> bool {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.split(':').next());
        names.into_iter().any(|name| name == self.name || name.parse() == Ok(self.uid))
    }
}

fn or_skip(user: Option<User>, reason: &str) -> Option<User> {
    if user.is_none() {
        crate::skip(reason);
    }
    user
}

/// The people in `/etc/passwd`: no system users, not nobody.
fn users() -> Vec<User> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines().filter_map(user).filter(|user| (1000..60_000).contains(&user.uid)).collect()
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.into();
    Some(User { name, uid, gid, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_a_user() {
        let found = user("ann:x:1000:1001:Ann,,:/home/ann:/bin/bash").unwrap();
        assert_eq!((found.uid, found.gid, found.home), (1000, 1001, "/home/ann".into()));
        assert_eq!(user("broken:x"), None);
    }
}
