//! `/dev`: six devices, the links every program expects, terminals, shared memory, message queues.

use std::os::fd::{AsFd, OwnedFd};

use mica_sys::mount::{self, MountAttr, TmpfsOptions};
use mica_sys::root::{MountpointKind, Root};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::mounts::{INERT, standard_target};
use super::scene::{Scene, Terminal, open_terminal};
use super::{Step, StepError};
use crate::plan::{Ids, Plan};

/// Character devices: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The group of terminals in every distribution.
const TTY_GROUP: &str = "5";

/// Mounts `/dev` and what is below it.
pub(super) fn mount_dev(plan: &Plan, scene: &mut Scene, root: &Root) -> Result<Option<Terminal>, StepError> {
    let target = standard_target(scene, root, "dev")?;
    let attr = MountAttr { nosuid: true, noexec: true, ..MountAttr::default() };
    let options = TmpfsOptions { size_bytes: Some(64 << 20), mode: 0o755, attr };
    let tmpfs = mount::tmpfs_with(&options).step("mount /dev")?;
    let dev = Root::from_fd(tmpfs);
    for (name, destination) in LINKS {
        dev.symlink(destination.as_bytes(), name.as_bytes()).step(format!("make /dev/{name}"))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        dev.create_dir(name.as_bytes(), 0o755).step(format!("make /dev/{name}"))?;
    }
    // Who may make nodes must not find a place to open them: then the standard ones are bind mounts
    // and the directory is nodev.
    let makes_nodes = plan.capabilities.iter().any(|capability| capability.name() == "CAP_MKNOD");
    let own_nodes = plan.ids == Ids::Root && (!makes_nodes || plan.insecure) && make_nodes(&dev)?;
    mount::attach(dev.as_fd(), target.as_fd()).step("mount /dev")?;
    if !own_nodes {
        bind_nodes(&dev, scene)?;
    }
    let pts = mount_pts(&dev, plan)?;
    mount_shm(&dev, plan)?;
    mount_mqueue(&dev, scene)?;
    if !plan.terminal {
        return Ok(None);
    }
    let terminal = open_terminal(&pts, plan.terminal_size)?;
    dev.create_file(b"console", 0o620).step("make /dev/console")?;
    let console = mount::open_tree_clone(terminal.slave.as_fd(), false).step("bind /dev/console")?;
    attach_in(&dev, "console", &console)?;
    Ok(Some(terminal))
}

/// Makes the nodes in the still detached tmpfs; `false` where the kernel forbids it.
fn make_nodes(dev: &Root) -> Result<bool, StepError> {
    for (name, major, minor) in DEVICES {
        let made = dev.mknod(name.as_bytes(), FileType::CharacterDevice, 0o666, major, minor);
        match made {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                // Nothing is left from before: the first refusal is the first call.
                return Ok(false);
            }
            other => other.step(format!("make /dev/{name}"))?,
        }
    }
    Ok(true)
}

/// Shows the host's nodes instead of own ones.
fn bind_nodes(dev: &Root, scene: &mut Scene) -> Result<(), StepError> {
    for (name, major, minor) in DEVICES {
        let step = format!("bind /dev/{name}");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(node) = rustix::fs::openat(CWD, format!("/dev/{name}"), flags, Mode::empty()) else {
            scene.notices.push(format!("/dev/{name} is missing: this machine has none"));
            continue;
        };
        if !mount::is_char_device(node.as_fd(), major, minor).step(step.clone())? {
            return Err(StepError::new(step, "it is another device on this machine"));
        }
        dev.create_file(name.as_bytes(), 0o666).step(step.clone())?;
        let clone = mount::open_tree_clone(node.as_fd(), false).step(step)?;
        attach_in(dev, name, &clone)?;
    }
    let attr = MountAttr { nodev: true, ..MountAttr::default() };
    mount::set_attr(dev.as_fd(), attr, false).step("forbid other devices in /dev")
}

fn attach_in(dev: &Root, name: &str, mount: &OwnedFd) -> Result<(), StepError> {
    let step = || format!("mount /dev/{name}");
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let target = dev.open_at(name.as_bytes(), flags, Mode::empty()).step(step())?;
    mount::attach(mount.as_fd(), target.as_fd()).step(step())
}

fn mount_pts(dev: &Root, plan: &Plan) -> Result<Root, StepError> {
    let attr = MountAttr { nosuid: true, noexec: true, ..MountAttr::default() };
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
    // Where group 5 is not mapped the terminals belong to whoever opens them.
    let count = if plan.ids == Ids::Single { 3 } else { 4 };
    let pts = mount::pseudo("devpts", &options[..count], attr)
        .or_else(|_| mount::pseudo("devpts", &options[..3], attr))
        .step("mount /dev/pts")?;
    attach_in(dev, "pts", &pts)?;
    Ok(Root::from_fd(pts))
}

fn mount_shm(dev: &Root, plan: &Plan) -> Result<(), StepError> {
    let options = TmpfsOptions { size_bytes: Some(plan.shm_size_bytes), mode: 0o1777, attr: INERT };
    let shm = mount::tmpfs_with(&options).step("mount /dev/shm")?;
    attach_in(dev, "shm", &shm)
}

fn mount_mqueue(dev: &Root, scene: &mut Scene) -> Result<(), StepError> {
    match mount::pseudo("mqueue", &[], INERT) {
        Ok(mqueue) => attach_in(dev, "mqueue", &mqueue),
        Err(error) => {
            scene.notices.push(format!("/dev/mqueue is empty: {error}"));
            Ok(())
        }
    }
}

/// Opens the host's `/dev/null` after making sure that it is the one (CVE-2025-31133).
pub(super) fn null() -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty()).step("open /dev/null")?;
    if mount::is_char_device(null.as_fd(), 1, 3).step("look at /dev/null")? {
        return Ok(null);
    }
    Err(StepError::new("use /dev/null", "it is not the null device"))
}

/// The kind of target a bind mount over an open entry needs.
pub(super) fn kind_of(entry: &OwnedFd) -> Result<MountpointKind, StepError> {
    let stat = rustix::fs::fstat(entry).step("look at a mount target")?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if directory { MountpointKind::Directory } else { MountpointKind::File })
}
