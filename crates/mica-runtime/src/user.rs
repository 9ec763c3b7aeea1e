//! Who a process runs as: `USER` of an image against its own passwd and group files.
//!
//! The files are the image's and nobody vouches for them: opened inside the root, regular, bounded in
//! size and line length. Digits are always a number, never a name (CVE-2024-40635, CVE-2024-9676).

use mica_sys::root::Root;
use serde::{Deserialize, Serialize};

/// Limit of a passwd or group file.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Limit of one line; longer ones are passed over.
const MAX_LINE_BYTES: usize = 4096;

/// A user as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` if unknown.
    pub home: String,
}

impl ResolvedUser {
    /// Returns root as it is without a passwd file.
    pub fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new(), home: "/".into() }
    }
}

/// Why a user could not be resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// No such name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such name.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number that is no id.
    #[error("{0}: uids and gids must be in range 0-2147483647")]
    OutOfRange(String),
    /// A file could not be read.
    #[error("cannot read /{file} of the image")]
    Read {
        /// Path in the image.
        file: &'static str,
        /// The refusal.
        source: std::io::Error,
    },
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct GroupEntry {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid` and mixtures of them; empty is root.
///
/// build.md R8: a lone uid takes gid and supplementary groups of its passwd entry, else gid 0. With an
/// explicit group there are no other supplementary groups but `extra_groups` (names or numbers).
pub fn resolve_user(root: &Root, spec: &str, extra_groups: &[String]) -> Result<ResolvedUser, UserError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read_passwd(root)?;
    let number = id(user)?;
    let entry = passwd.iter().find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    let uid = match (number, entry) {
        (Some(uid), _) => uid,
        (None, Some(entry)) => entry.uid,
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    // The group file is read only if something depends on it.
    let needs_groups = group.is_some() || entry.is_some() || !extra_groups.is_empty();
    let groups_file = if needs_groups { read_groups(root)? } else { Vec::new() };
    let mut groups = Vec::new();
    let gid = match (group, entry) {
        (Some(group), _) => find_group(&groups_file, group)?,
        (None, Some(entry)) => {
            let member = |group: &&GroupEntry| group.members.contains(&entry.name);
            groups.extend(groups_file.iter().filter(member).map(|group| group.gid));
            entry.gid
        }
        (None, None) => 0,
    };
    for extra in extra_groups {
        groups.push(find_group(&groups_file, extra)?);
    }
    // The primary group is in the list of groups as well, as with every login: whoever drops it by setgid(2) must not
    // lose what belongs to it (CVE-2022-2989).
    groups.insert(0, gid);
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    let home = entry.map(|entry| entry.home.clone()).filter(|home| !home.is_empty());
    Ok(ResolvedUser { uid, gid, groups, home: home.unwrap_or_else(|| "/".into()) })
}

/// Returns the id if the text is a number, `None` if it is a name.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= i32::MAX as u32 => Ok(Some(id)),
        _ => Err(UserError::OutOfRange(text.to_owned())),
    }
}

fn find_group(groups: &[GroupEntry], spec: &str) -> Result<u32, UserError> {
    if let Some(gid) = id(spec)? {
        return Ok(gid);
    }
    let found = groups.iter().find(|group| group.name == spec);
    found.map(|group| group.gid).ok_or_else(|| UserError::NoGroup(spec.to_owned()))
}

/// Returns the lines of a file split at colons; no file, no lines.
fn records(root: &Root, file: &'static str) -> Result<Vec<Vec<String>>, UserError> {
    let bytes = match root.read(file.as_bytes(), MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => return Ok(Vec::new()),
            _ => return Err(UserError::Read { file, source: error }),
        },
    };
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| line.len() <= MAX_LINE_BYTES);
    let fields =
        |line: &[u8]| String::from_utf8_lossy(line).trim().split(':').map(str::to_owned).collect::<Vec<_>>();
    Ok(lines.map(fields).filter(|fields| !fields[0].is_empty() && !fields[0].starts_with('#')).collect())
}

fn read_passwd(root: &Root) -> Result<Vec<PasswdEntry>, UserError> {
    let entry = |fields: &Vec<String>| {
        Some(PasswdEntry {
            name: fields[0].clone(),
            uid: id(fields.get(2)?).ok()??,
            gid: id(fields.get(3)?).ok()??,
            home: fields.get(5).cloned().unwrap_or_default(),
        })
    };
    Ok(records(root, "etc/passwd")?.iter().filter_map(entry).collect())
}

fn read_groups(root: &Root) -> Result<Vec<GroupEntry>, UserError> {
    let entry = |fields: &Vec<String>| {
        let members = fields.get(3).map(String::as_str).unwrap_or_default();
        Some(GroupEntry {
            name: fields[0].clone(),
            gid: id(fields.get(2)?).ok()??,
            members: members.split(',').map(|name| name.trim().to_owned()).collect(),
        })
    };
    Ok(records(root, "etc/group")?.iter().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(passwd: &str, group: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(directory.path().join("etc/group"), group).unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:\n123:x:9:9::/x:\nbad\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:ann,bob\nann:x:1001:\nwheel:x:51:bob,ann\n";

    fn resolve(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let (_directory, root) = image(PASSWD, GROUP);
        let user = resolve_user(&root, spec, &[]).map_err(|error| error.to_string())?;
        Ok((user.uid, user.gid, user.groups, user.home))
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        assert_eq!(resolve("ann").unwrap(), (1000, 1001, vec![1001, 50, 51], "/home/ann".into()));
        assert_eq!(resolve("1000").unwrap(), resolve("ann").unwrap());
        assert_eq!(resolve("").unwrap(), (0, 0, vec![0], "/root".into()));
    }

    #[test]
    fn an_explicit_group_replaces_all_others() {
        assert_eq!(resolve("ann:staff").unwrap(), (1000, 50, vec![50], "/home/ann".into()));
        assert_eq!(resolve("77:88").unwrap(), (77, 88, vec![88], "/".into()));
    }

    #[test]
    fn digits_are_a_number_even_if_a_user_has_that_name() {
        assert_eq!(resolve("123").unwrap(), (123, 0, vec![0], "/".into()));
        assert!(resolve("4294967296").unwrap_err().contains("must be in range"));
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            resolve("nosuch").unwrap_err(),
            "unable to find user nosuch: no matching entries in passwd file"
        );
        assert_eq!(
            resolve("ann:g").unwrap_err(),
            "unable to find group g: no matching entries in group file"
        );
    }

    #[test]
    fn a_passwd_that_is_a_fifo_or_a_link_out_is_not_read() {
        let (directory, root) = image("", "");
        root.remove(b"etc/passwd").unwrap();
        root.mknod(b"etc/passwd", rustix::fs::FileType::Fifo, 0o644, 0, 0).unwrap();
        assert!(matches!(resolve_user(&root, "ann", &[]), Err(UserError::Read { .. })));
        root.remove(b"etc/passwd").unwrap();
        std::fs::write(directory.path().parent().unwrap().join("mica-passwd"), PASSWD).unwrap();
        root.symlink(b"../../mica-passwd", b"etc/passwd").unwrap();
        assert!(matches!(resolve_user(&root, "ann", &[]), Err(UserError::NoUser(_))));
    }

    #[test]
    fn an_image_without_files_has_numbers_only() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(resolve_user(&root, "5", &[]).unwrap().uid, 5);
        assert!(resolve_user(&root, "root", &[]).is_err());
    }
}
