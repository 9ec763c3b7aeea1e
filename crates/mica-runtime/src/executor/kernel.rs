//! `/proc`, `/sys` and `/sys/fs/cgroup`: what the kernel shows, less what a container has no business with.
//!
//! Everything below a fresh proc or sysfs is looked up from that mount's own descriptor, never
//! through the image's tree (CVE-2025-52881).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use mica_sys::mount::{self, MountAttr, TmpfsOptions};
use mica_sys::root::{MountpointKind, Root};
use rustix::fs::{CWD, Mode, OFlags};

use super::mounts::{INERT, Tree, standard_target};
use super::scene::Scene;
use super::{Step, StepError, devices};
use crate::cgroup;
use crate::plan::{Ids, Network, Plan};

const PROC_MASKED: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const SYS_MASKED: [&str; 3] = ["firmware", "devices/virtual/powercap", "fs/selinux"];

/// Files of a surrounding proc that tell nothing about any process.
const PROC_HARMLESS: [&str; 8] =
    ["cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "uptime", "version"];

const READ_ONLY: MountAttr = MountAttr { read_only: true, ..INERT };

/// Covers for what is masked: `/dev/null` for files, one empty read-only directory for directories.
struct Masks<'a> {
    null: &'a OwnedFd,
    empty: Option<OwnedFd>,
}

impl<'a> Masks<'a> {
    fn new(null: &'a OwnedFd) -> Self {
        Self { null, empty: None }
    }

    /// Covers an entry, if it is there.
    fn cover(&mut self, root: &Root, path: &str) -> Result<(), StepError> {
        let step = || format!("mask {path}");
        let Some(entry) = entry(root, path).step(step())? else { return Ok(()) };
        if devices::kind_of(&entry)? == MountpointKind::File {
            let cover = mount::open_tree_clone(self.null.as_fd(), false).step(step())?;
            return mount::attach(cover.as_fd(), entry.as_fd()).step(step());
        }
        if let Some(empty) = &self.empty {
            let cover = mount::open_tree_clone(empty.as_fd(), false).step(step())?;
            return mount::attach(cover.as_fd(), entry.as_fd()).step(step());
        }
        let options = TmpfsOptions { size_bytes: Some(0), mode: 0o755, attr: READ_ONLY };
        let cover = mount::tmpfs_with(&options).step(step())?;
        mount::attach(cover.as_fd(), entry.as_fd()).step(step())?;
        self.empty = Some(cover);
        Ok(())
    }
}

/// Opens an entry without following links; `None` if this kernel has none.
fn entry(root: &Root, path: &str) -> io::Result<Option<OwnedFd>> {
    match root.open_at(path.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Mounts `/proc`; in the new pid namespace. A container around us that masks its own keeps us from having
/// a whole one.
pub(super) fn mount_proc(plan: &Plan, tree: &Tree, notices: &mut Vec<String>) -> Result<(), StepError> {
    let proc = match mount::pseudo("proc", &[], INERT) {
        Ok(proc) => Root::from_fd(proc),
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied && plan.ids != Ids::Root => {
            return reduced_proc(notices, &tree.proc);
        }
        Err(error) => return Err(error).step("mount /proc"),
    };
    mount::attach(proc.as_fd(), tree.proc.as_fd()).step("mount /proc")?;
    if plan.insecure {
        return Ok(());
    }
    for path in PROC_READ_ONLY {
        make_read_only(&proc, path)?;
    }
    let mut masks = Masks::new(&tree.null);
    PROC_MASKED.iter().try_for_each(|path| masks.cover(&proc, path))
}

/// A `/proc` without processes. The surrounding one cannot be shown instead: it has processes of the
/// same user outside the container, and through `/proc/<pid>/root` their files.
fn reduced_proc(notices: &mut Vec<String>, target: &OwnedFd) -> Result<(), StepError> {
    let step = "mount a reduced /proc";
    let options = TmpfsOptions { size_bytes: Some(1 << 20), mode: 0o555, attr: INERT };
    let proc = Root::from_fd(mount::tmpfs_with(&options).step(step)?);
    mount::attach(proc.as_fd(), target.as_fd()).step(step)?;
    for name in PROC_HARMLESS {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(source) = rustix::fs::openat(CWD, format!("/proc/{name}"), flags, Mode::empty()) else {
            continue;
        };
        match devices::kind_of(&source)? {
            MountpointKind::File => drop(proc.create_file(name.as_bytes(), 0o444).step(step)?),
            MountpointKind::Directory => proc.create_dir(name.as_bytes(), 0o555).step(step)?,
        }
        let clone = mount::open_tree_clone(source.as_fd(), true).step(step)?;
        mount::set_attr(clone.as_fd(), READ_ONLY, true).step(step)?;
        if let Some(place) = entry(&proc, name).step(step)? {
            mount::attach(clone.as_fd(), place.as_fd()).step(step)?;
        }
    }
    mount::set_attr(proc.as_fd(), READ_ONLY, false).step(step)?;
    let notice = "/proc has no processes: the container mica itself runs in hides parts of its own /proc";
    notices.push(notice.into());
    Ok(())
}

/// Makes a part of a mount read-only.
fn make_read_only(root: &Root, path: &str) -> Result<(), StepError> {
    let step = || format!("make {path} read-only");
    let Some(entry) = entry(root, path).step(step())? else { return Ok(()) };
    let clone = mount::open_tree_clone(entry.as_fd(), true).step(step())?;
    mount::set_attr(clone.as_fd(), READ_ONLY, true).step(step())?;
    mount::attach(clone.as_fd(), entry.as_fd()).step(step())
}

/// Mounts `/sys`, read-only, and the container's view of its cgroups in it.
pub(super) fn mount_sys(
    plan: &Plan,
    scene: &mut Scene,
    root: &Root,
    null: &OwnedFd,
) -> Result<(), StepError> {
    let target = standard_target(scene, root, "sys")?;
    let attr = MountAttr { read_only: !plan.insecure, ..INERT };
    // sysfs shows a network namespace; a user namespace may mount it only with one of its own.
    let fresh = if plan.ids == Ids::Root || plan.network == Network::None {
        mount::pseudo("sysfs", &[], attr).ok()
    } else {
        None
    };
    let sys = match fresh {
        Some(sys) => sys,
        None => {
            let sys = mount::open_tree_clone_path(Path::new("/sys"), true).step("bind /sys")?;
            mount::set_attr(sys.as_fd(), READ_ONLY, true).step("make /sys read-only")?;
            sys
        }
    };
    let sys = Root::from_fd(sys);
    mount::attach(sys.as_fd(), target.as_fd()).step("mount /sys")?;
    if let Err(error) = mount_cgroup(plan, scene, &sys) {
        scene.notices.push(format!("/sys/fs/cgroup is empty: {}", error.reason));
    }
    if plan.insecure {
        return Ok(());
    }
    let mut masks = Masks::new(null);
    SYS_MASKED.iter().try_for_each(|path| masks.cover(&sys, path))?;
    mask_thermal(&sys, &mut masks)
}

/// Counters that tell co-tenants apart; not on every machine, so one look comes first.
fn mask_thermal(sys: &Root, masks: &mut Masks<'_>) -> Result<(), StepError> {
    let first = "devices/system/cpu/cpu0/thermal_throttle";
    if entry(sys, first).step("look for thermal counters")?.is_none() {
        return Ok(());
    }
    for cpu in sys.read_dir(b"devices/system/cpu").step("list processors")? {
        let name = String::from_utf8_lossy(&cpu.name);
        if name.strip_prefix("cpu").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            masks.cover(sys, &format!("devices/system/cpu/{name}/thermal_throttle"))?;
        }
    }
    Ok(())
}

fn mount_cgroup(plan: &Plan, scene: &mut Scene, sys: &Root) -> Result<(), StepError> {
    let step = "mount /sys/fs/cgroup";
    let views = cgroup::views(&scene.cgroup);
    let Some(target) = entry(sys, "fs/cgroup").step(step)? else { return Ok(()) };
    let show = |view: &cgroup::View, target: &OwnedFd| {
        let clone = mount::open_tree_clone_path(&view.directory, true).step(step)?;
        let writable = plan.insecure && view.is_containers;
        let attr = if writable { INERT } else { READ_ONLY };
        mount::set_attr(clone.as_fd(), attr, true).step(step)?;
        mount::attach(clone.as_fd(), target.as_fd()).step(step)
    };
    if let [view] = views.as_slice()
        && view.name.is_empty()
    {
        return show(view, &target);
    }
    if views.is_empty() {
        return Ok(());
    }
    let options = TmpfsOptions { size_bytes: Some(1 << 20), mode: 0o755, attr: INERT };
    let tmpfs = Root::from_fd(mount::tmpfs_with(&options).step(step)?);
    mount::attach(tmpfs.as_fd(), target.as_fd()).step(step)?;
    for view in &views {
        tmpfs.create_dir(view.name.as_bytes(), 0o755).step(step)?;
        if let Some(target) = entry(&tmpfs, &view.name).step(step)? {
            show(view, &target)?;
        }
    }
    mount::set_attr(tmpfs.as_fd(), READ_ONLY, false).step(step)
}
