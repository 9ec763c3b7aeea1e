//! `--chown` (build.md C13): numbers as they are, names from the destination's own passwd and group files.

use std::io;

use mica_solve::{Input, Owner, OwnerId};
use mica_sys::root::Root;

use super::destination::Ids;
use super::{FileOpError, shown};

/// Limits of security.md row 54: a hostile passwd costs no memory.
const FILE_BYTES: u64 = 4 << 20;
const LINE_BYTES: usize = 4 << 10;

/// Returns the ids an owner stands for.
///
/// A name that is not found is 0:0, silently, as in the reference; a name on an empty root is an error.
pub(super) fn resolve(owner: Option<&Owner>, root: &Root, base: Input) -> Result<Option<Ids>, FileOpError> {
    let Some(owner) = owner else { return Ok(None) };
    let named = matches!(owner.user, OwnerId::Name(_)) || matches!(owner.group, Some(OwnerId::Name(_)));
    if named && base == Input::Scratch {
        return Err(FileOpError::NoUsers);
    }
    let mut ids = match &owner.user {
        OwnerId::Id(id) => Ids { uid: *id, gid: *id },
        OwnerId::Name(name) => {
            let line = find(root, b"etc/passwd", name)?.unwrap_or_default();
            Ids { uid: number(&line, 2), gid: number(&line, 3) }
        }
    };
    match &owner.group {
        Some(OwnerId::Id(id)) => ids.gid = *id,
        Some(OwnerId::Name(name)) => {
            if let Some(line) = find(root, b"etc/group", name)? {
                ids.gid = number(&line, 2);
            }
        }
        None => {}
    }
    Ok(Some(ids))
}

/// Returns the first line of a file whose first field is `name`.
fn find(root: &Root, file: &[u8], name: &str) -> Result<Option<Vec<u8>>, FileOpError> {
    let content = match root.read(file, FILE_BYTES) {
        Ok(content) => content,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(FileOpError::Io { action: "open", path: shown(file), error }),
    };
    let is_it = |line: &&[u8]| line.len() <= LINE_BYTES && fields(line).next() == Some(name.as_bytes());
    Ok(content.split(|&byte| byte == b'\n').find(is_it).map(<[u8]>::to_vec))
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b':').map(<[u8]>::trim_ascii)
}

/// The number in a field; 0 for anything else, as for a name that is not found.
fn number(line: &[u8], index: usize) -> u32 {
    let field = fields(line).nth(index).unwrap_or_default();
    let digits = field.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(field).ok().filter(|_| digits).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(passwd: &str, group: &str) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(directory.path().join("etc/group"), group).unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    fn owner(user: OwnerId, group: Option<OwnerId>) -> Owner {
        Owner { user, group }
    }

    fn name(text: &str) -> OwnerId {
        OwnerId::Name(text.to_owned())
    }

    fn ids(uid: u32, gid: u32) -> Option<Ids> {
        Some(Ids { uid, gid })
    }

    #[test]
    fn names_come_from_the_destination() {
        let (_directory, root) = root("root:x:0:0::/:\napp:x:1000:1001::/:\n", "extra:x:77:\n");
        let find = |owner| resolve(Some(&owner), &root, Input::Vertex(0)).unwrap();
        assert_eq!(find(owner(name("app"), None)), ids(1000, 1001));
        assert_eq!(find(owner(name("app"), Some(name("extra")))), ids(1000, 77));
        assert_eq!(find(owner(name("app"), Some(name("nosuch")))), ids(1000, 1001));
        assert_eq!(find(owner(name("nosuch"), None)), ids(0, 0));
        assert_eq!(find(owner(OwnerId::Id(7), None)), ids(7, 7));
        assert_eq!(find(owner(OwnerId::Id(7), Some(OwnerId::Id(8)))), ids(7, 8));
        assert_eq!(resolve(None, &root, Input::Scratch).unwrap(), None);
    }

    #[test]
    fn a_name_on_an_empty_root_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let error = resolve(Some(&owner(name("app"), None)), &root, Input::Scratch).unwrap_err();
        assert_eq!(error.to_string(), "invalid user index: -1");
        assert_eq!(resolve(Some(&owner(OwnerId::Id(7), None)), &root, Input::Scratch).unwrap(), ids(7, 7));
        assert_eq!(resolve(Some(&owner(name("app"), None)), &root, Input::Vertex(0)).unwrap(), ids(0, 0));
    }

    #[test]
    fn a_hostile_passwd_is_not_followed_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/group", directory.path().join("etc/passwd")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(resolve(Some(&owner(name("adm"), None)), &root, Input::Vertex(0)).unwrap(), ids(0, 0));
        let (_directory, root) = self::root(&format!("app:{}:5:5::/:\n", "x".repeat(5000)), "");
        assert_eq!(resolve(Some(&owner(name("app"), None)), &root, Input::Vertex(0)).unwrap(), ids(0, 0));
    }
}
