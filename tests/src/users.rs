//! Stores of users without privileges.

use mica_testkit::{Mica, User, needs_root, skip};

use crate::with_base_as;

/// Whether this user may make user namespaces here; reports the skip if not.
fn may_unshare(user: &User) -> bool {
    let id = user.uid.to_string();
    let tried = std::process::Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &user.gid.to_string(), "--clear-groups", "unshare", "-Ur", "true"])
        .output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        skip("this machine lets users make no user namespaces");
    }
    may
}

/// A store with `base` of a user with subordinate ids; a counted skip if there is none.
pub fn with_ids() -> Option<Mica> {
    if !needs_root() {
        return None;
    }
    let user = User::with_subordinate_ids().filter(may_unshare)?;
    with_base_as(&user)
}

/// A store with `base` of a user without subordinate ids; a counted skip if there is none.
pub fn without_ids() -> Option<Mica> {
    if !needs_root() {
        return None;
    }
    let user = User::without_subordinate_ids().filter(may_unshare)?;
    with_base_as(&user)
}

/// Empty stores, with what their owner is called: root, a user with subordinate ids, one without.
/// Who is not there is a counted skip.
pub fn empty_stores() -> Vec<(&'static str, Mica)> {
    if !needs_root() {
        return Vec::new();
    }
    let with = User::with_subordinate_ids().filter(may_unshare);
    let without = User::without_subordinate_ids().filter(may_unshare);
    let users = [("with ids", with), ("without ids", without)];
    let users = users.into_iter().filter_map(|(name, user)| Some((name, Mica::as_user(&user?))));
    std::iter::once(("root", Mica::new())).chain(users).collect()
}
