//! Mounts as descriptors: made detached, configured while nobody sees them, attached by descriptor.
//!
//! Everything goes through the mount API of Linux 5.2 (`fsopen`, `fsmount`, `open_tree`, `move_mount`) and
//! `mount_setattr` of 5.12, so no target is named by a path an image could have changed, an overlay may
//! have hundreds of lower directories, and the kernel's own explanation of a failure can be read.

mod overlay;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

pub use overlay::{OverlayCall, OverlaySpec, overlay};

/// Why a file system could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {file_system}: {step}{}", if explanation.is_empty() { String::new() } else { format!(": {explanation}") })]
pub struct MountError {
    /// Type of the file system.
    pub file_system: String,
    /// The call or option that was refused.
    pub step: String,
    /// What the kernel wrote about it, if anything.
    pub explanation: String,
    /// The error number.
    #[source]
    pub source: io::Error,
}

/// Attributes of a mount, to be added to those it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttr {
    /// No writes through this mount.
    pub read_only: bool,
    /// Set-user-id and file capabilities have no effect.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl MountAttr {
    fn bits(self) -> MountAttrFlags {
        let mut bits = MountAttrFlags::empty();
        bits.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        bits.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.nosuid);
        bits.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.nodev);
        bits.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.noexec);
        bits
    }
}

/// A file system being configured.
struct Context {
    file_system: &'static str,
    fd: OwnedFd,
}

impl Context {
    fn open(file_system: &'static str) -> Result<Self, MountError> {
        match rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self { file_system, fd }),
            Err(errno) => Err(MountError {
                file_system: file_system.into(),
                step: "fsopen".into(),
                explanation: String::new(),
                source: errno.into(),
            }),
        }
    }

    /// Adds the kernel's explanation to an error of one step.
    fn check<T>(&self, step: &str, result: Result<T, Errno>) -> Result<T, MountError> {
        result.map_err(|errno| MountError {
            file_system: self.file_system.into(),
            step: step.into(),
            explanation: self.explanation(),
            source: errno.into(),
        })
    }

    /// Reads the messages the kernel left in the context: lines like `e overlay: Unknown parameter`.
    fn explanation(&self) -> String {
        let mut lines = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            lines.push(text.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        }
        lines.join("; ")
    }

    fn set(&self, key: &str, value: &str) -> Result<(), MountError> {
        let set = rustix::mount::fsconfig_set_string(&self.fd, key, value);
        self.check(&format!("{key}={value}"), set)
    }

    fn set_path(&self, key: &str, path: &Path) -> Result<(), MountError> {
        let set = rustix::mount::fsconfig_set_string(&self.fd, key, path);
        self.check(&format!("{key}={}", path.display()), set)
    }

    fn flag(&self, key: &str) -> Result<(), MountError> {
        let set = rustix::mount::fsconfig_set_flag(&self.fd, key);
        self.check(key, set)
    }

    fn mount(&self, attr: MountAttr) -> Result<OwnedFd, MountError> {
        self.check("create", rustix::mount::fsconfig_create(&self.fd))?;
        let mount = rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attr.bits());
        self.check("fsmount", mount)
    }
}

/// Makes a detached tmpfs; without a size it may take half the memory.
pub fn tmpfs(size_bytes: Option<u64>, mode: u32) -> io::Result<OwnedFd> {
    let options = TmpfsOptions { size_bytes, mode, attr: MountAttr::default() };
    tmpfs_with(&options).map_err(|error| error.source)
}

/// What a tmpfs is to be.
#[derive(Debug, Clone, Copy)]
pub struct TmpfsOptions {
    /// Upper limit; `None` is half the memory.
    pub size_bytes: Option<u64>,
    /// Mode of its root directory.
    pub mode: u32,
    /// Attributes of the mount.
    pub attr: MountAttr,
}

/// Makes a detached tmpfs with attributes.
pub fn tmpfs_with(options: &TmpfsOptions) -> Result<OwnedFd, MountError> {
    let context = Context::open("tmpfs")?;
    context.set("source", "tmpfs")?;
    context.set("mode", &format!("{:o}", options.mode))?;
    if let Some(size_bytes) = options.size_bytes {
        context.set("size", &size_bytes.to_string())?;
    }
    context.mount(options.attr)
}

/// Makes a detached mount of a file system that needs no device (proc, sysfs, devpts, mqueue, cgroup2).
pub fn pseudo(
    file_system: &'static str,
    options: &[(&str, &str)],
    attr: MountAttr,
) -> Result<OwnedFd, MountError> {
    let context = Context::open(file_system)?;
    context.set("source", file_system)?;
    for (key, value) in options {
        if value.is_empty() { context.flag(key)? } else { context.set(key, value)? }
    }
    context.mount(attr)
}

/// Attaches a detached mount over an open directory or file.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Attaches a detached mount over a path of the host (links followed, so for trusted paths only).
pub fn attach_path(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(rustix::mount::move_mount(mount, c"", CWD, target, flags)?)
}

/// Clones the mount an open directory or file is on, with it as root: a detached bind mount.
///
/// With `recursive` the mounts below come along; a user namespace may not leave out those it inherited
/// (`EINVAL`).
pub fn open_tree_clone(source: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(source, c"", flags)?)
}

/// Clones the mount a path of the host is on; see [`open_tree_clone`].
pub fn open_tree_clone_path(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(CWD, source, flags)?)
}

/// Adds attributes to a mount.
pub fn set_attr(mount: BorrowedFd<'_>, attr: MountAttr, recursive: bool) -> io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: attr.bits().bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    setattr(mount, &attributes, recursive)
}

/// Makes a mount writable again that [`set_attr`] has made read-only.
pub fn clear_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    setattr(mount, &attributes, false)
}

/// Gives a detached mount the id mapping of a user namespace ("idmapped mount").
///
/// Linux 5.12 and a file system that supports it. Call it between `open_tree` and `move_mount`: a mount
/// that is already visible is refused with `EINVAL`.
pub fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(userns.as_raw_fd().cast_unsigned()),
    };
    setattr(mount, &attributes, false)
}

fn setattr(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` is initialised and outlives the call, and the length passed is its own size;
    // the path is a 'static C string; the kernel reads both and keeps neither. The descriptor is
    // borrowed for the whole call, and so is the one a caller has put into `userns_fd`.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    crate::check(rc).map(drop)
}

/// Detaches the mount at a path of the host; it disappears when its last user does.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Detaches the mount whose root an open directory is. Leaves the working directory in it.
pub fn detach_fd(mount: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(mount)?;
    Ok(rustix::mount::unmount(c".", UnmountFlags::DETACH)?)
}

/// Makes all mounts of this mount namespace private: nothing mounted here shows anywhere else.
pub fn make_private_recursive() -> io::Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Makes an open directory (the root of a mount of this namespace) the root of the mount namespace and
/// drops the old one. The caller's root and working directory become the new root.
pub fn pivot_into(new_root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(new_root)?;
    // The old root lands on top of the new one, from where it is detached: no directory is needed for it.
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Returns whether an open file is the character device with these numbers.
pub fn is_char_device(file: BorrowedFd<'_>, major: u32, minor: u32) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file.as_fd())?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    Ok(kind == rustix::fs::FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_option_is_explained_by_the_kernel() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIP: needs root");
        }
        let context = Context::open("tmpfs").unwrap();
        let error = context.set("bogus", "1").unwrap_err();
        assert!(error.to_string().starts_with("cannot mount tmpfs: bogus=1: "), "{error}");
        assert!(error.explanation.contains("bogus"), "{error}");
    }
}
