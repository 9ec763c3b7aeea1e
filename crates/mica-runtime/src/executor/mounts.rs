//! The container's mount tree, from the root file system to the mounts of the plan.
//!
//! Each mount is made detached and attached by the descriptor of a target looked up inside the root. The
//! standard mounts insist on real directories: an image whose `/proc` is a link is refused
//! (CVE-2019-19921 and its kin).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mica_sys::mount::{self, MountAttr, TmpfsOptions};
use mica_sys::root::{MountpointKind, Root};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};

use super::scene::{Scene, Terminal, write_file};
use super::{Step, StepError, devices, kernel};
use crate::plan::{MountSource, Plan, PlanMount};

/// What no standard mount but /dev needs.
pub(super) const INERT: MountAttr = MountAttr { read_only: false, nosuid: true, nodev: true, noexec: true };

/// Mode of a tmpfs that covers nothing and was given none.
const OPEN_TO_ALL: u32 = 0o1777;

/// The tree, complete but for `/proc`.
pub(super) struct Tree {
    /// Its root, attached over the plan's root file system.
    pub(super) root: Root,
    /// Where proc goes.
    pub(super) proc: OwnedFd,
    /// The host's `/dev/null`.
    pub(super) null: OwnedFd,
}

/// Builds the tree; returns it and the terminal.
pub(super) fn build(plan: &Plan, scene: &mut Scene) -> Result<(Tree, Option<Terminal>), StepError> {
    let step = || format!("use the root file system {}", plan.rootfs.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat(CWD, &plan.rootfs, flags, Mode::empty()).step(step())?;
    let mounts = standard_files(plan).into_iter().chain(plan.mounts.iter().cloned()).collect::<Vec<_>>();
    let sources = sources(&mounts, place.as_fd())?;

    let tree = mount::open_tree_clone(place.as_fd(), true).step(step())?;
    // Devices exist in /dev only, whatever the image has in its layers.
    let attr = MountAttr { nodev: !plan.insecure, ..MountAttr::default() };
    mount::set_attr(tree.as_fd(), attr, false).step(step())?;
    mount::attach(tree.as_fd(), place.as_fd()).step(step())?;
    let root = Root::from_fd(tree);
    scene.root = Some(root.try_clone().step(step())?);

    let null = devices::null()?;
    let proc = standard_target(scene, &root, "proc")?;
    let terminal = devices::mount_dev(plan, scene, &root)?;
    kernel::mount_sys(plan, scene, &root, &null)?;
    for (mount, source) in mounts.iter().zip(sources) {
        let covered = root.stat(&mount.target).ok();
        let target = target_of(scene, &root, &proc, mount, source.kind)?;
        if let (MountSource::Tmpfs { mode: None, .. }, Some(covered)) = (&mount.source, covered) {
            let mode = Mode::from_raw_mode(covered.st_mode);
            rustix::fs::chmod(place_of(&source.mount), mode).step(mount_step(mount))?;
        }
        attach_one(plan, mount, source, &target)?;
    }
    Ok((Tree { root, proc, null }, terminal))
}

/// Returns the target of a standard mount; it is made if the image has none.
pub(super) fn standard_target(scene: &mut Scene, root: &Root, name: &str) -> Result<OwnedFd, StepError> {
    let step = format!("mount /{name}");
    match root.lstat(name.as_bytes()) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
        Ok(_) => return Err(StepError::new(step, "the image has something else than a directory there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound && scene.keeps_standard_directories => {
            root.create_dir(name.as_bytes(), 0o755).step(step.clone())?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).step(step),
    }
    scene.stubs.ensure(root, name.as_bytes(), MountpointKind::Directory).step(step)
}

/// The files of the engine in `/etc`.
fn standard_files(plan: &Plan) -> Vec<PlanMount> {
    let file = |target: &str, content: &Vec<u8>| PlanMount {
        target: target.into(),
        source: MountSource::File { content: content.clone(), mode: 0o644, uid: 0, gid: 0 },
        read_only: true,
        nosuid: true,
        noexec: false,
    };
    let hosts = plan.hosts_file.as_ref().map(|content| file("/etc/hosts", content));
    let resolv = plan.resolv_conf.as_ref().map(|content| file("/etc/resolv.conf", content));
    hosts.into_iter().chain(resolv).collect()
}

/// A detached mount and what it needs as its target.
struct Source {
    mount: OwnedFd,
    kind: MountpointKind,
}

/// Opens all sources while the host is in sight. Files are kept in one tmpfs that is attached over `place`
/// for the moment it takes to clone them: before Linux 6.15 a detached mount cannot be cloned.
fn sources(mounts: &[PlanMount], place: BorrowedFd<'_>) -> Result<Vec<Source>, StepError> {
    let files = mounts.iter().any(|mount| matches!(mount.source, MountSource::File { .. }));
    let scratch = if files { Some(attach_scratch(place)?) } else { None };
    let mut sources = Vec::new();
    for (number, mount) in mounts.iter().enumerate() {
        let target = String::from_utf8_lossy(&mount.target);
        let step = format!("mount {target}");
        sources.push(match (&mount.source, &scratch) {
            (MountSource::Bind { host, sub, recursive }, _) => {
                bind(host, sub.as_deref(), *recursive).step(step)?
            }
            (MountSource::Tmpfs { size_bytes, mode }, _) => {
                let mode = mode.unwrap_or(OPEN_TO_ALL);
                let options = TmpfsOptions { size_bytes: *size_bytes, mode, attr: MountAttr::default() };
                let mount = mount::tmpfs_with(&options).step(step)?;
                Source { mount, kind: MountpointKind::Directory }
            }
            (MountSource::File { content, mode, uid, gid }, Some(scratch)) => {
                let file = write_file(scratch, &number.to_string(), content, *mode)?;
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                if !uid.is_root() || !gid.is_root() {
                    rustix::fs::fchown(&file, Some(uid), Some(gid)).step(step.clone())?;
                }
                let mount = mount::open_tree_clone(file.as_fd(), false).step(step)?;
                Source { mount, kind: MountpointKind::File }
            }
            (MountSource::File { .. }, None) => unreachable!("a scratch was made because of this file"),
        });
    }
    if let Some(scratch) = scratch {
        mount::detach_fd(scratch.as_fd()).step("put files of the engine away")?;
    }
    Ok(sources)
}

fn attach_scratch(place: BorrowedFd<'_>) -> Result<Root, StepError> {
    let step = "make room for files of the engine";
    let options = TmpfsOptions { size_bytes: None, mode: 0o700, attr: INERT_BUT_EXEC };
    let scratch = mount::tmpfs_with(&options).step(step)?;
    mount::attach(scratch.as_fd(), place).step(step)?;
    Ok(Root::from_fd(scratch))
}

/// A secret may be a script.
const INERT_BUT_EXEC: MountAttr = MountAttr { noexec: false, ..INERT };

fn bind(host: &std::path::Path, sub: Option<&[u8]>, recursive: bool) -> io::Result<Source> {
    let mut source = rustix::fs::openat(CWD, host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if let Some(sub) = sub {
        source = Root::from_fd(source).open_at(sub, OFlags::PATH, Mode::empty())?;
    }
    let file_type = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
    let directory = file_type == FileType::Directory;
    let kind = if directory { MountpointKind::Directory } else { MountpointKind::File };
    let mount = match mount::open_tree_clone(source.as_fd(), recursive) {
        // A user namespace cannot leave out the mounts below that it inherited.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) && !recursive => {
            mount::open_tree_clone(source.as_fd(), true)?
        }
        other => other?,
    };
    Ok(Source { mount, kind })
}

/// Returns the mount target, looked up inside the root; it is made if the image has none.
///
/// By whatever name or link, it is neither the root nor in `/proc`: proc is attached last, and would hide it.
fn target_of(
    scene: &mut Scene,
    root: &Root,
    proc: &OwnedFd,
    mount: &PlanMount,
    kind: MountpointKind,
) -> Result<OwnedFd, StepError> {
    let step = || mount_step(mount);
    if mount.target.split(|&byte| byte == b'/').find(|part| !part.is_empty()) == Some(b"proc") {
        return Err(StepError::new(step(), IN_PROC));
    }
    let target = scene.stubs.ensure(root, &mount.target, kind).step(step())?;
    let (stat, top) = (rustix::fs::fstat(&target).step(step())?, root.stat(b"").step(step())?);
    if (stat.st_dev, stat.st_ino) == (top.st_dev, top.st_ino) {
        return Err(StepError::new(step(), "the root of the container cannot be a mount target"));
    }
    let path = |fd: &OwnedFd| std::fs::read_link(place_of(fd)).step(step());
    if path(&target)?.starts_with(path(proc)?) {
        return Err(StepError::new(step(), IN_PROC));
    }
    Ok(target)
}

/// A path that leads to what is open.
fn place_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

const IN_PROC: &str = "nothing can be mounted in /proc";

fn mount_step(mount: &PlanMount) -> String {
    format!("mount {}", String::from_utf8_lossy(&mount.target))
}

fn attach_one(plan: &Plan, mount: &PlanMount, source: Source, target: &OwnedFd) -> Result<(), StepError> {
    let attr = MountAttr {
        read_only: mount.read_only,
        nosuid: mount.nosuid,
        nodev: !plan.insecure,
        noexec: mount.noexec,
    };
    mount::set_attr(source.mount.as_fd(), attr, true).step(mount_step(mount))?;
    mount::attach(source.mount.as_fd(), target.as_fd()).step(mount_step(mount))
}
