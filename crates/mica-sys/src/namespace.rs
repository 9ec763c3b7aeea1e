//! Entering namespaces.
//!
//! A rootless mica enters its user namespace once, early and single-threaded, without re-executing
//! itself: [`enter_user_namespace`]. The id maps of subordinate ids can only be written by the set-user-id
//! helpers `newuidmap` and `newgidmap`, from outside the new namespace; so a child is forked before and waits:
//!
//! ```text
//! mica ── fork ──► child            waits for the byte
//!   │ unshare(CLONE_NEWUSER)
//!   │ ── byte ─────► child          runs newuidmap <mica> …, newgidmap <mica> …
//!   │ ◄── text/EOF ─ child          what went wrong, or nothing
//!   └ uid 0 inside, same pid
//! ```

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::process::{Fork, fork};

/// A range of subordinate ids: `start` and the ids after it, `count` in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id on the host.
    pub start: u32,
    /// Number of ids.
    pub count: u32,
}

/// The ids a mica process can give to files and processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMode {
    /// All of them: we are root, no user namespace is needed.
    Root,
    /// Root inside is the caller, 1 and up are the caller's subordinate ids.
    SubordinateIds {
        /// User ids from `/etc/subuid`.
        uid_range: IdRange,
        /// Group ids from `/etc/subgid`.
        gid_range: IdRange,
    },
    /// Root inside is the caller, and there is no other id.
    SingleId,
}

/// Why the user namespace could not be entered.
///
/// After any of these but `Unshare` the process is of no use: it may be in a namespace without ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserNamespaceError {
    /// The kernel, or a security module, allows none (or this process has threads: `EINVAL`).
    #[error("cannot create a user namespace")]
    Unshare(#[source] io::Error),
    /// The caller's only id could not be mapped.
    #[error("cannot write {file}")]
    Map {
        /// The file below /proc.
        file: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// newuidmap or newgidmap is not installed or refused the ranges; the text is its own.
    #[error("cannot map subordinate ids: {0}")]
    Helper(String),
    /// The process that runs the helpers could not be made or spoken to.
    #[error("cannot start the helper that maps ids")]
    Fork(#[source] io::Error),
    /// The mapped ids could not be taken.
    #[error("cannot become root of the user namespace")]
    BecomeRoot(#[source] io::Error),
}

/// Gives this process its own mount namespace in which nothing propagates to or from any other.
pub fn unshare_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    crate::mount::make_private_recursive()
}

/// Moves the calling thread into new namespaces.
///
/// `CLONE_FILES` is refused: other threads may count on sharing descriptors with this one.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(rustix::io::Errno::INVAL.into());
    }
    // SAFETY: the descriptor table stays shared (checked above), so no I/O safety promise is broken.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Returns to a mount namespace by its descriptor (`/proc/self/ns/mnt`); root and working directory
/// become its root. Only for a process with one thread.
pub fn enter_mount_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?)
}

/// Makes a single-threaded process root of a new user namespace; its pid stays the same.
pub fn enter_user_namespace(mode: &IdMode) -> Result<(), UserNamespaceError> {
    match mode {
        IdMode::Root => Ok(()),
        IdMode::SingleId => enter_with_single_id(),
        IdMode::SubordinateIds { uid_range, gid_range } => enter_with_ranges(*uid_range, *gid_range),
    }
}

fn enter_with_single_id() -> Result<(), UserNamespaceError> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    unshare(UnshareFlags::NEWUSER).map_err(UserNamespaceError::Unshare)?;
    // Without "deny" the kernel does not let an unprivileged process map a group (CVE-2014-8989).
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    become_root()
}

fn write_map(file: &'static str, text: &str) -> Result<(), UserNamespaceError> {
    std::fs::write(file, text).map_err(|source| UserNamespaceError::Map { file, source })
}

fn become_root() -> Result<(), UserNamespaceError> {
    let root_group = rustix::process::Gid::ROOT;
    rustix::thread::set_thread_res_gid(root_group, root_group, root_group)
        .and_then(|()| {
            let root = rustix::process::Uid::ROOT;
            rustix::thread::set_thread_res_uid(root, root, root)
        })
        .map_err(|errno| UserNamespaceError::BecomeRoot(errno.into()))
}

fn enter_with_ranges(uids: IdRange, gids: IdRange) -> Result<(), UserNamespaceError> {
    let (mut go_receive, mut go_send) = io::pipe().map_err(UserNamespaceError::Fork)?;
    let (mut result_receive, mut result_send) = io::pipe().map_err(UserNamespaceError::Fork)?;
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let pid = rustix::process::getpid().as_raw_nonzero().to_string();

    let child = match fork().map_err(UserNamespaceError::Fork)? {
        Fork::Child => {
            drop((go_send, result_receive));
            // EOF instead of the byte: the parent could not unshare and wants nothing of us.
            if go_receive.read_exact(&mut [0]).is_ok() {
                let failure = map_with_helper("newuidmap", &pid, uid, uids)
                    .and_then(|()| map_with_helper("newgidmap", &pid, gid, gids));
                if let Err(text) = failure {
                    // If the parent is gone nobody is left to tell.
                    let _ = result_send.write_all(text.as_bytes());
                }
            }
            crate::process::exit_now(0);
        }
        Fork::Parent(child) => child,
    };
    drop((go_receive, result_send));
    let unshared = unshare(UnshareFlags::NEWUSER).map_err(UserNamespaceError::Unshare);
    if unshared.is_ok() {
        go_send.write_all(&[1]).map_err(UserNamespaceError::Fork)?;
    }
    drop(go_send);
    let mut failure = String::new();
    let read = result_receive.read_to_string(&mut failure);
    let waited = child.wait();
    unshared?;
    read.map_err(UserNamespaceError::Fork)?;
    waited.map_err(UserNamespaceError::Fork)?;
    if failure.is_empty() { become_root() } else { Err(UserNamespaceError::Helper(failure)) }
}

/// Runs one set-user-id helper: id 0 is the caller, 1 and up the range.
fn map_with_helper(helper: &str, pid: &str, own_id: u32, range: IdRange) -> Result<(), String> {
    let (own_id, start, count) = (own_id.to_string(), range.start.to_string(), range.count.to_string());
    let output = Command::new(OsStr::new(helper))
        .args([pid, "0", &own_id, "1", "1", &start, &count])
        .output()
        .map_err(|error| format!("{helper}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{helper}: {}", output.status);
    }
    Err(text)
}

/// Returns the ranges a user has in the text of `/etc/subuid` or `/etc/subgid`, in file order.
///
/// subuid(5): `name-or-uid:start:count` per line. Lines that are not like that are passed over, as
/// newuidmap does. Empty ranges, and ranges beyond the last id, are left out.
pub fn subordinate_ranges(user: &str, uid: u32, file_text: &str) -> Vec<IdRange> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let fits = count > 0 && start.checked_add(count).is_some();
        let ours = owner == uid || (!user.is_empty() && owner == user);
        (fields.next().is_none() && fits && ours).then_some(IdRange { start, count })
    };
    file_text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# comment\nann:100000:65536\n1001:300000:10\nbob:1:1\nann:x:1\nann:5\nann:4294967295:2\nann:9:0\n";
        let ranges = subordinate_ranges("ann", 1001, text);
        let expected = [IdRange { start: 100_000, count: 65_536 }, IdRange { start: 300_000, count: 10 }];
        assert_eq!(ranges, expected);
        assert!(subordinate_ranges("", 7, ":1:1\n").is_empty());
    }
}
