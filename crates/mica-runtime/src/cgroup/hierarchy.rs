//! Where the cgroup file systems are mounted and where in them this process is.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) mountpoint: PathBuf,
    /// The directory of this process's cgroup, on the host.
    pub(super) own: PathBuf,
    /// v1: those of the mount. v2: those available to the own cgroup's children.
    pub(super) controllers: Vec<String>,
}

/// Returns the hierarchies this process can see.
pub(super) fn own() -> io::Result<Vec<Hierarchy>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let membership = std::fs::read_to_string("/proc/self/cgroup")?;
    let mut hierarchies = parse(&mountinfo, &membership);
    for hierarchy in &mut hierarchies {
        if hierarchy.version == Version::V2 {
            // Absent or unreadable means that there are none to hand down.
            let file = hierarchy.own.join("cgroup.controllers");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            hierarchy.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
    }
    Ok(hierarchies)
}

/// Returns the hierarchy that has a controller; every v2 cgroup can be frozen.
pub(super) fn of_controller<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Option<&'a Hierarchy> {
    let has = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|have| have == controller);
    let v2 = |hierarchy: &&Hierarchy| hierarchy.version == Version::V2 && controller == "freezer";
    hierarchies.iter().find(has).or_else(|| hierarchies.iter().find(v2))
}

/// Joins the two files of /proc; pure.
fn parse(mountinfo: &str, membership: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let mut front = front.split(' ').skip(3);
        let (Some(root), Some(mountpoint)) = (front.next(), front.next()) else { continue };
        let mut back = back.split(' ');
        let (kind, options) = (back.next().unwrap_or_default(), back.nth(1).unwrap_or_default());
        let version = match kind {
            "cgroup" => Version::V1,
            "cgroup2" => Version::V2,
            _ => continue,
        };
        let options: Vec<&str> = options.split(',').collect();
        let Some((controllers, path)) = member(membership, version, &options) else { continue };
        // In a container without its own cgroup namespace the mount shows a part of the hierarchy.
        let Ok(below) = Path::new(path).strip_prefix(root) else { continue };
        let mountpoint = PathBuf::from(mountpoint);
        let own = if below.as_os_str().is_empty() { mountpoint.clone() } else { mountpoint.join(below) };
        let hierarchy = Hierarchy { version, mountpoint, own, controllers };
        if !found.iter().any(|known| known.version == version && known.controllers == hierarchy.controllers) {
            found.push(hierarchy);
        }
    }
    found
}

/// Finds the line of /proc/self/cgroup (`id:controllers:path`) that belongs to a mount.
fn member<'a>(membership: &'a str, version: Version, options: &[&str]) -> Option<(Vec<String>, &'a str)> {
    membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let names: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
        let matches = match version {
            Version::V2 => id == "0",
            Version::V1 => !names.is_empty() && names.iter().all(|name| options.contains(name)),
        };
        matches.then(|| (names.iter().map(|&name| name.to_owned()).collect(), path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/pids rw shared:3 - cgroup cgroup rw,pids
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_machine_has_v1_controllers_and_a_bare_v2() {
        let found = parse(HYBRID, "4:pids:/user\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/init\n");
        let own: Vec<_> = found.iter().map(|hierarchy| hierarchy.own.to_str().unwrap()).collect();
        let expected = [
            "/sys/fs/cgroup/cpu,cpuacct",
            "/sys/fs/cgroup/pids/user",
            "/sys/fs/cgroup/systemd/x",
            "/sys/fs/cgroup/unified/init",
        ];
        assert_eq!(own, expected);
        assert_eq!(of_controller(&found, "pids").unwrap().version, Version::V1);
        assert_eq!(of_controller(&found, "freezer").unwrap().version, Version::V2);
        assert!(of_controller(&found, "memory").is_none());
    }

    #[test]
    fn a_mount_of_a_part_of_the_hierarchy_is_entered_below_it() {
        let mountinfo = "40 30 0:28 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        let found = parse(mountinfo, "4:pids:/docker/abc/sub\n");
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/pids/sub"));
        assert!(parse(mountinfo, "4:pids:/elsewhere\n").is_empty());
    }

    #[test]
    fn no_cgroups_are_no_error() {
        assert!(parse("22 1 8:1 / / rw - ext4 /dev/vda rw\n", "").is_empty());
    }
}
