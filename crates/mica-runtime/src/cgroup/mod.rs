//! Limits for all processes of a container together, on cgroup v1, v2, both at once, or none.
//!
//! Cgroups are optional: a limit that cannot be set here is returned as a notice, the container runs.
//! Directories are made below mica's own cgroup (or beside it: on v2 a cgroup with processes cannot hand
//! controllers down) and kept open, so that they can be removed from any mount namespace.

mod freeze;
mod hierarchy;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::plan::Limits;
pub use freeze::{Frozen, freeze};
use hierarchy::{Hierarchy, Version};

/// How often the removal of a cgroup is tried while the kernel still counts a dying process in it.
const REMOVE_RETRIES: u32 = 50;

/// The cgroups of one container.
#[derive(Debug, Default)]
pub(crate) struct ContainerCgroup {
    groups: Vec<Group>,
    /// See [`Limits::parent`].
    above: Option<String>,
}

/// One directory of one hierarchy.
#[derive(Debug)]
struct Group {
    version: Version,
    parent: OwnedFd,
    name: String,
    path: PathBuf,
    directory: OwnedFd,
    /// Controllers that act in it.
    controllers: Vec<String>,
    /// Directories above it that were made for it, lowest first.
    made_above: Vec<PathBuf>,
}

/// One file to be written for a limit.
struct Setting {
    controller: &'static str,
    /// What the user asked for, for the notice.
    what: &'static str,
    v1: Vec<(&'static str, String)>,
    v2: Vec<(&'static str, String)>,
}

impl ContainerCgroup {
    /// Makes the cgroups that these limits need and sets them; what is impossible becomes a notice.
    pub(crate) fn create(id: &str, limits: &Limits, notices: &mut Vec<String>) -> Self {
        let before = notices.len();
        let made = Self::attempt(id, limits, notices);
        if limits.best_effort {
            notices.truncate(before);
        }
        made
    }

    fn attempt(id: &str, limits: &Limits, notices: &mut Vec<String>) -> Self {
        let mut made = Self { groups: Vec::new(), above: limits.parent.clone() };
        let settings = settings(limits);
        if settings.is_empty() && !limits.freezable && !limits.delegated && limits.parent.is_none() {
            return made;
        }
        let hierarchies = match hierarchy::own() {
            Ok(hierarchies) => hierarchies,
            Err(error) => {
                notices.push(format!("no limits are set: the cgroups of this process are unknown: {error}"));
                return made;
            }
        };
        let name = format!("mica-{id}");
        for setting in &settings {
            if let Err(reason) = made.apply(&hierarchies, &name, setting) {
                notices.push(format!("the {} is not set: {reason}", setting.what));
            }
        }
        if limits.delegated || limits.parent.is_some() {
            made.ensure_all(&hierarchies, &name, notices);
        }
        if limits.freezable && made.ensure(&hierarchies, &name, "freezer").is_err() {
            // Freezing falls back to signals; see `freeze`.
            notices.push("pausing uses signals: there is no cgroup to freeze".into());
        }
        made
    }

    fn apply(&mut self, hierarchies: &[Hierarchy], name: &str, setting: &Setting) -> Result<(), String> {
        let group = self.ensure(hierarchies, name, setting.controller)?;
        let files = if group.version == Version::V1 { &setting.v1 } else { &setting.v2 };
        for (file, value) in files {
            write_at(group.directory.as_fd(), file, value)
                .map_err(|error| format!("writing {file} of {}: {error}", group.path.display()))?;
        }
        Ok(())
    }

    /// Returns the container's cgroup in the hierarchy of a controller, made if needed.
    fn ensure(&mut self, hierarchies: &[Hierarchy], name: &str, controller: &str) -> Result<&Group, String> {
        let hierarchy = hierarchy::of_controller(hierarchies, controller)
            .ok_or_else(|| format!("there is no {controller} cgroup controller here"))?;
        let covers = |group: &Group| {
            group.path.starts_with(&hierarchy.mountpoint)
                && (group.version == Version::V1 || group.controllers.iter().any(|have| have == controller))
        };
        if let Some(known) = self.groups.iter().position(covers) {
            return Ok(&self.groups[known]);
        }
        let group = make(hierarchy, self.above.as_deref(), name, controller)?;
        self.groups.push(group);
        Ok(self.groups.last().expect("it was pushed just now"))
    }

    /// Makes a cgroup in every hierarchy. Where that is impossible is said only if a parent was asked for.
    fn ensure_all(&mut self, hierarchies: &[Hierarchy], name: &str, notices: &mut Vec<String>) {
        let mut refused = None;
        for hierarchy in hierarchies {
            if self.groups.iter().any(|group| group.path.starts_with(&hierarchy.mountpoint)) {
                continue;
            }
            let controller = match hierarchy.version {
                Version::V1 => hierarchy.controllers.first().map_or("", String::as_str),
                // every cgroup of v2 can be frozen: no controller has to be handed down
                Version::V2 => "freezer",
            };
            match make(hierarchy, self.above.as_deref(), name, controller) {
                Ok(group) => self.groups.push(group),
                // ten hierarchies refuse for one reason
                Err(reason) => drop(refused.get_or_insert(reason)),
            }
        }
        if let Some(reason) = refused.filter(|_| self.above.is_some()) {
            notices.push(format!("the parent cgroup is not used everywhere: {reason}"));
        }
    }

    /// Returns the v2 cgroup, into which a process can be cloned.
    pub(crate) fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        let v2 = self.groups.iter().find(|group| group.version == Version::V2);
        v2.map(|group| group.directory.as_fd())
    }

    /// Moves the calling process into all of them.
    pub(crate) fn join(&self, including_v2: bool) -> io::Result<()> {
        for group in &self.groups {
            if group.version == Version::V1 || including_v2 {
                write_at(group.directory.as_fd(), "cgroup.procs", "0")?;
            }
        }
        Ok(())
    }

    /// Returns the directories.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|group| group.path.clone()).collect()
    }

    /// Removes the cgroups; their processes must have been killed.
    pub(crate) fn remove(&mut self) -> Vec<io::Error> {
        self.groups.drain(..).filter_map(|group| group.remove().err()).collect()
    }
}

/// Removes the cgroups of a container whose helper was killed before it could.
///
/// Only empty ones: what the kernel still counts a process in stays, and is found again by the next call. Cgroups
/// made by a `mica` in another cgroup (another login, say) are not found.
pub fn remove_leftovers(id: &str) {
    // Without /proc there is nothing to be found, nor was anything made.
    let Ok(hierarchies) = hierarchy::own() else { return };
    let name = format!("mica-{id}");
    for hierarchy in hierarchies {
        for base in [Some(hierarchy.own.as_path()), hierarchy.own.parent()].into_iter().flatten() {
            if base.starts_with(&hierarchy.mountpoint) {
                // Most hierarchies never had one.
                let _absent = std::fs::remove_dir(base.join(&name));
            }
        }
    }
}

impl Group {
    fn remove(self) -> io::Result<()> {
        let removed = self.remove_directory();
        for directory in &self.made_above {
            // another step may be in it
            let _ = std::fs::remove_dir(directory);
        }
        removed
    }

    fn remove_directory(&self) -> io::Result<()> {
        remove_below(&self.directory)?;
        for _ in 0..REMOVE_RETRIES {
            match rustix::fs::unlinkat(&self.parent, self.name.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(2)),
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Errno::BUSY.into())
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Removes the cgroups that the container made in its own one.
fn remove_below(directory: &OwnedFd) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() != rustix::fs::FileType::Directory || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        remove_below(&rustix::fs::openat(directory, name, flags, Mode::empty())?)?;
        rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Makes the container's directory in one hierarchy, below `parent` if there is one.
fn make(hierarchy: &Hierarchy, parent: Option<&str>, name: &str, controller: &str) -> Result<Group, String> {
    if let Some(parent) = parent {
        let (base, made) = make_parent(hierarchy, parent, controller)?;
        let mut group = make_in(&base, hierarchy.version, name, controller)
            .map_err(|error| format!("making a cgroup in {}: {error}", base.display()))?;
        group.made_above = made;
        return Ok(group);
    }
    let own = hierarchy.own.clone();
    // v2: "no internal processes". The parent is tried when our own cgroup cannot hand the controller down.
    let above = match hierarchy.version {
        Version::V2 if own != hierarchy.mountpoint => own.parent().map(Path::to_owned),
        _ => None,
    };
    let mut reason = String::new();
    for base in std::iter::once(own).chain(above) {
        match make_in(&base, hierarchy.version, name, controller) {
            Ok(group) => return Ok(group),
            Err(error) => reason = format!("making a cgroup in {}: {error}", base.display()),
        }
    }
    Err(reason)
}

/// Makes the directories of a `--cgroup-parent`; returns its place and those that are new, lowest first.
fn make_parent(
    hierarchy: &Hierarchy,
    parent: &str,
    controller: &str,
) -> Result<(PathBuf, Vec<PathBuf>), String> {
    let top = if parent.starts_with('/') { &hierarchy.mountpoint } else { &hierarchy.own };
    let (mut place, mut made) = (top.clone(), Vec::new());
    for part in parent.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err(format!("{parent:?} leads upwards"));
        }
        let existed = place.join(part).is_dir();
        make_in(&place, hierarchy.version, part, controller)
            .map_err(|error| format!("making {}: {error}", place.join(part).display()))?;
        place.push(part);
        if !existed {
            made.insert(0, place.clone());
        }
    }
    Ok((place, made))
}

/// A cpuset of v1 takes no process before it has CPUs and memory: a new one gets those of its parent.
fn inherit_cpuset(parent: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read_at(directory, file)?.trim().is_empty() {
            write_at(directory, file, read_at(parent, file)?.trim())?;
        }
    }
    Ok(())
}

fn make_in(base: &Path, version: Version, name: &str, controller: &str) -> io::Result<Group> {
    let parent = rustix::fs::openat(CWD, base, DIRECTORY, Mode::empty())?;
    let mut controllers = vec![controller.to_owned()];
    // Every v2 cgroup can be frozen; that is no controller.
    if version == Version::V2 && controller != "freezer" {
        let have = read_at(parent.as_fd(), "cgroup.subtree_control")?;
        if !have.split_whitespace().any(|have| have == controller) {
            write_at(parent.as_fd(), "cgroup.subtree_control", &format!("+{controller}"))?;
        }
        controllers.extend(have.split_whitespace().map(str::to_owned));
        controllers.push("freezer".into());
    }
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let directory = rustix::fs::openat(&parent, name, DIRECTORY, Mode::empty())?;
    if version == Version::V1 && controller == "cpuset" {
        inherit_cpuset(parent.as_fd(), directory.as_fd())?;
    }
    let (name, path) = (name.to_owned(), base.join(name));
    Ok(Group { version, parent, name, path, directory, controllers, made_above: Vec::new() })
}

fn write_at(directory: BorrowedFd<'_>, file: &str, value: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory, file, flags, Mode::empty())?);
    file.write_all(value.as_bytes())
}

fn read_at(directory: BorrowedFd<'_>, file: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    io::read_to_string(File::from(rustix::fs::openat(directory, file, flags, Mode::empty())?))
}

/// Translates limits to files; pure.
fn settings(limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |controller, what, v1, v2| settings.push(Setting { controller, what, v1, v2 });
    if let Some(pids) = limits.pids {
        let value = if pids <= 0 { "max".to_owned() } else { pids.to_string() };
        add("pids", "limit of processes", vec![("pids.max", value.clone())], vec![("pids.max", value)]);
    }
    if let Some(bytes) = limits.memory_bytes {
        let value = bytes.to_string();
        let v1 = vec![("memory.limit_in_bytes", value.clone())];
        add("memory", "memory limit", v1, vec![("memory.max", value)]);
    }
    if let Some(total) = limits.memory_and_swap_bytes {
        // v1 limits the sum, v2 the swap alone.
        let swap = u64::try_from(total).map(|total| total.saturating_sub(limits.memory_bytes.unwrap_or(0)));
        let v1 = vec![("memory.memsw.limit_in_bytes", total.to_string())];
        let swap = swap.map_or_else(|_| "max".to_owned(), |swap| swap.to_string());
        add("memory", "swap limit", v1, vec![("memory.swap.max", swap)]);
    }
    if let Some(shares) = limits.cpu_shares {
        // The mapping of runc: 2..262144 to 1..10000.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        let v1 = vec![("cpu.shares", shares.to_string())];
        add("cpu", "CPU weight", v1, vec![("cpu.weight", weight.to_string())]);
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let (quota, period) = (limits.cpu_quota.unwrap_or(-1), limits.cpu_period.unwrap_or(100_000));
        let max = if quota > 0 { quota.to_string() } else { "max".into() };
        let v1 = vec![("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
        add("cpu", "CPU limit", v1, vec![("cpu.max", format!("{max} {period}"))]);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        // On v1 a cpuset takes no process before both files are set.
        let mems = limits.cpuset_mems.clone().unwrap_or_else(|| "0".into());
        let v1 = vec![("cpuset.mems", mems), ("cpuset.cpus", cpus.clone())];
        add("cpuset", "choice of CPUs", v1, vec![("cpuset.cpus", cpus.clone())]);
    }
    if let Some(mems) = &limits.cpuset_mems {
        let files = vec![("cpuset.mems", mems.clone())];
        add("cpuset", "choice of memory nodes", files.clone(), files);
    }
    settings
}

/// One mount of the container's view of `/sys/fs/cgroup`.
#[derive(Debug)]
pub(crate) struct View {
    /// Its name there; empty on a v2-only machine.
    pub(crate) name: String,
    /// The directory shown.
    pub(crate) directory: PathBuf,
    /// Whether that is the container's own cgroup, not mica's.
    pub(crate) is_containers: bool,
}

/// Returns the mounts of the container's view of `/sys/fs/cgroup`.
pub(crate) fn views(container: &ContainerCgroup) -> Vec<View> {
    let Ok(hierarchies) = hierarchy::own() else { return Vec::new() };
    let only_v2 = hierarchies.iter().all(|hierarchy| hierarchy.version == Version::V2);
    let view = |hierarchy: &Hierarchy| {
        let of_container = |group: &&Group| group.path.starts_with(&hierarchy.mountpoint);
        let group = container.groups.iter().find(of_container);
        let directory = group.map_or_else(|| hierarchy.own.clone(), |group| group.path.clone());
        let name = hierarchy.mountpoint.file_name()?.to_str()?.to_owned();
        // A v2 hierarchy beside v1 ones has nothing a program looks for.
        let useful = only_v2 || hierarchy.version == Version::V1;
        let name = if only_v2 { String::new() } else { name };
        useful.then_some(View { name, directory, is_containers: group.is_some() })
    };
    hierarchies.iter().filter_map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files_of_both_versions() {
        let limits = Limits {
            pids: Some(10),
            memory_bytes: Some(1000),
            memory_and_swap_bytes: Some(1500),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            ..Limits::default()
        };
        let settings = settings(&limits);
        let v2: Vec<_> = settings.iter().flat_map(|setting| setting.v2.clone()).collect();
        let expected = [
            ("pids.max", "10"),
            ("memory.max", "1000"),
            ("memory.swap.max", "500"),
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
        ];
        assert_eq!(v2, expected.map(|(file, value)| (file, value.to_owned())));
        let v1: Vec<_> =
            settings.iter().flat_map(|setting| setting.v1.clone()).map(|(file, _)| file).collect();
        assert!(v1.contains(&"memory.memsw.limit_in_bytes") && v1.contains(&"cpu.cfs_quota_us"));
    }
}
