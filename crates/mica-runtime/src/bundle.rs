//! The same plan as an OCI bundle (`config.json`), for runtimes that are not ours.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::capability::Capability;
use crate::error::RuntimeError;
use crate::plan::{Ids, Limits, MountSource, Network, Plan, PlanMount, Seccomp};

/// Writes `config.json`, and the files the plan holds in memory, into a directory of the caller's.
///
/// The default filter is left to the runtime's `seccomp` section only if the plan names a profile: our own
/// is a program, and the format takes rules. A plan with the default filter gets moby's rules in short: the
/// refused calls by name.
pub fn write_bundle(plan: &Plan, directory: &Path) -> Result<(), RuntimeError> {
    let failed = |source| RuntimeError::Bundle { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    let files = write_files(plan, directory).map_err(failed)?;
    let config = config(plan, files).map_err(failed)?;
    // Through the types of the specification: a misspelt field is found here and not by the runtime.
    let spec: oci_spec::runtime::Spec =
        serde_json::from_value(config).map_err(|error| failed(error.into()))?;
    let text = serde_json::to_vec_pretty(&spec).map_err(|error| failed(error.into()))?;
    fs::write(directory.join("config.json"), text).map_err(failed)
}

/// Writes files of the plan; returns all its mounts in the specification's form.
fn write_files(plan: &Plan, directory: &Path) -> io::Result<Vec<Value>> {
    let mut mounts = Vec::new();
    for (target, content) in [("/etc/hosts", &plan.hosts_file), ("/etc/resolv.conf", &plan.resolv_conf)] {
        if let Some(content) = content {
            let host = directory.join(target.replace('/', "_"));
            fs::write(&host, content)?;
            mounts.push(bind(target, &host, &["ro", "nosuid"]));
        }
    }
    for (number, mount) in plan.mounts.iter().enumerate() {
        mounts.push(plan_mount(mount, number, directory)?);
    }
    Ok(mounts)
}

fn bind(target: &str, host: &Path, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind"].into_iter().chain(options.iter().copied()).collect();
    json!({"destination": target, "type": "bind", "source": host, "options": options})
}

fn plan_mount(mount: &PlanMount, number: usize, directory: &Path) -> io::Result<Value> {
    let target = String::from_utf8_lossy(&mount.target);
    let mut options = vec![if mount.read_only { "ro" } else { "rw" }, "nodev"];
    options.extend(mount.nosuid.then_some("nosuid"));
    options.extend(mount.noexec.then_some("noexec"));
    match &mount.source {
        MountSource::Bind { host, sub: None, .. } => Ok(bind(&target, host, &options)),
        MountSource::Bind { host, sub: Some(sub), .. } => {
            // The best a path can do: resolved now, inside the source. Our own executor uses descriptors.
            let inside = mica_sys::root::Root::open(host)?.resolve(sub)?;
            let inside = host.join(String::from_utf8_lossy(&inside).as_ref());
            Ok(bind(&target, &inside, &options))
        }
        MountSource::Tmpfs { size_bytes, mode } => {
            let mut options: Vec<String> = options.into_iter().map(str::to_owned).collect();
            // Without it the runtimes do what we do.
            options.extend(mode.map(|mode| format!("mode={mode:o}")));
            options.extend(size_bytes.map(|size| format!("size={size}")));
            Ok(json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}))
        }
        MountSource::File { content, mode, uid, gid } => {
            let host = directory.join(format!("file-{number}"));
            fs::write(&host, content)?;
            fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(*mode))?;
            if (*uid, *gid) != (0, 0) {
                std::os::unix::fs::chown(&host, Some(*uid), Some(*gid))?;
            }
            Ok(bind(&target, &host, &options))
        }
    }
}

fn config(plan: &Plan, plan_mounts: Vec<Value>) -> io::Result<Value> {
    let mut mounts = standard_mounts(plan);
    mounts.extend(plan_mounts);
    let all: Vec<Capability> = Capability::all().collect();
    let capabilities: Vec<String> =
        if plan.insecure { &all } else { &plan.capabilities }.iter().map(|one| one.name()).collect();
    // A user other than root keeps the bounding set only, as in our own executor.
    let held = if plan.user.uid == 0 { capabilities.clone() } else { Vec::new() };
    let mut env = plan.env.clone();
    if plan.variable("HOME").is_none() {
        env.push(format!("HOME={}", plan.user.home));
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": plan.rootfs, "readonly": plan.read_only},
        "hostname": plan.hostname,
        "process": {
            "terminal": plan.terminal,
            "user": {"uid": plan.user.uid, "gid": plan.user.gid, "additionalGids": plan.user.groups, "umask": 0o022},
            "args": plan.args,
            "env": env,
            "cwd": plan.cwd,
            "noNewPrivileges": plan.no_new_privileges,
            "capabilities": {
                "bounding": capabilities, "effective": held, "permitted": held, "inheritable": [], "ambient": [],
            },
            "rlimits": rlimits(plan),
        },
        "mounts": mounts,
        "linux": linux(plan),
    });
    if let Some((rows, columns)) = plan.terminal_size {
        config["process"]["consoleSize"] = json!({"height": rows, "width": columns});
    }
    if !plan.insecure {
        match &plan.seccomp {
            Seccomp::Unconfined => {}
            Seccomp::Default => config["linux"]["seccomp"] = crate::seccomp::as_rules(&plan.capabilities),
            Seccomp::Profile(path) => {
                let text = fs::read(path)?;
                config["linux"]["seccomp"] = crate::seccomp::profile_as_rules(&text, &plan.capabilities)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
        }
    }
    Ok(config)
}

fn rlimits(plan: &Plan) -> Vec<Value> {
    let limit = |value: Option<u64>| value.unwrap_or(u64::MAX);
    let rlimit = |ulimit: &crate::plan::Ulimit| {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        json!({"type": name, "soft": limit(ulimit.soft), "hard": limit(ulimit.hard)})
    };
    // As in our own executor: no core files unless asked for, and what the caller may have at most stays.
    let core = rustix::process::getrlimit(rustix::process::Resource::Core).maximum;
    let core = json!({"type": "RLIMIT_CORE", "soft": 0, "hard": limit(core)});
    let asked = plan.ulimits.iter().any(|ulimit| ulimit.name == "core");
    plan.ulimits.iter().map(rlimit).chain((!asked).then_some(core)).collect()
}

fn standard_mounts(plan: &Plan) -> Vec<Value> {
    let writable = if plan.insecure { "rw" } else { "ro" };
    let shm_size = format!("size={}", plan.shm_size_bytes);
    let sys = if plan.ids == Ids::Root || plan.network == Network::None {
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", writable]})
    } else {
        bind("/sys", Path::new("/sys"), &["nosuid", "noexec", "nodev", "ro"])
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if plan.ids != Ids::Single {
        pts.push("gid=5");
    }
    vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", shm_size]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        sys,
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", writable]}),
    ]
}

/// The runtime makes its own cgroup below the caller's, or this one.
fn cgroups_path(plan: &Plan) -> Option<String> {
    plan.limits.parent.as_ref().map(|parent| format!("{}/mica-{}", parent.trim_end_matches('/'), plan.id))
}

fn linux(plan: &Plan) -> Value {
    let mut namespaces = vec!["mount", "pid", "ipc", "uts", "cgroup"];
    if plan.network == Network::None {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    let (masked, read_only): (&[&str], &[&str]) =
        if plan.insecure { (&[], &[]) } else { (&MASKED, &READ_ONLY) };
    let mut linux = json!({
        "namespaces": namespaces,
        "resources": resources(&plan.limits),
        "maskedPaths": masked,
        "readonlyPaths": read_only,
    });
    if let Some(path) = cgroups_path(plan) {
        linux["cgroupsPath"] = json!(path);
    }
    linux
}

const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/fs/selinux",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn resources(limits: &Limits) -> Value {
    let mut resources = json!({});
    if let Some(pids) = limits.pids {
        resources["pids"] = json!({"limit": pids});
    }
    if limits.memory_bytes.is_some() || limits.memory_and_swap_bytes.is_some() {
        resources["memory"] = json!({"limit": limits.memory_bytes, "swap": limits.memory_and_swap_bytes});
    }
    if limits.cpu_shares.is_some()
        || limits.cpu_quota.is_some()
        || limits.cpu_period.is_some()
        || limits.cpuset_cpus.is_some()
        || limits.cpuset_mems.is_some()
    {
        resources["cpu"] = json!({
            "shares": limits.cpu_shares, "quota": limits.cpu_quota, "period": limits.cpu_period,
            "cpus": limits.cpuset_cpus, "mems": limits.cpuset_mems,
        });
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_says_what_the_plan_says() {
        let directory = tempfile::tempdir().unwrap();
        let mut plan = Plan::new("x", "/some/root", vec!["true".into()]);
        plan.hosts_file = Some(b"127.0.0.1\tlocalhost\n".to_vec());
        plan.limits.memory_bytes = Some(1 << 20);
        write_bundle(&plan, directory.path()).unwrap();
        let text = fs::read(directory.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(config["root"]["path"], "/some/root");
        assert_eq!(config["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 11);
        assert_eq!(config["linux"]["resources"]["pids"]["limit"], 2048);
        assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        let hosts =
            config["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == "/etc/hosts");
        assert!(hosts.unwrap()["options"].as_array().unwrap().contains(&json!("ro")));
    }
}
