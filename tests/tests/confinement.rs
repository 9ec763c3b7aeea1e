//! What a container may do: security.md section 3, asked for from inside by a static probe, in `run` and in RUN steps,
//! as root and as a user with subordinate ids.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mica_testkit::{Mica, Output};
use mica_tests::{Tree, compile, with_base, with_ids};

/// `800405fb`.
const CAPABILITIES: &str = "00000000800405fb";
const NONE: &str = "0000000000000000";

/// What the probe said.
struct Report {
    place: String,
    text: String,
}

impl Report {
    #[track_caller]
    fn new(place: &str, text: String) -> Self {
        assert!(text.ends_with("end\n"), "{place}: the probe did not end:\n{text}");
        Self { place: place.to_owned(), text }
    }

    /// All values of a key.
    fn all(&self, key: &str) -> Vec<&str> {
        let values = self.text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        values.collect()
    }

    #[track_caller]
    fn one(&self, key: &str) -> &str {
        let all = self.all(key);
        assert_eq!(all.len(), 1, "{}: {key}: {all:?}", self.place);
        all[0]
    }

    #[track_caller]
    fn is(&self, key: &str, values: &[&str]) {
        let found = self.one(key);
        assert!(values.contains(&found), "{}: {key} is {found}, want one of {values:?}", self.place);
    }

    /// A field of `/proc/self/status`.
    #[track_caller]
    fn status(&self, field: &str, value: &str) {
        let prefix = format!("{field}:\t");
        let found = self.all("status").into_iter().find_map(|line| line.strip_prefix(prefix.as_str()));
        assert_eq!(found, Some(value), "{}: {field}", self.place);
    }
}

/// A store with the image `probe`, which is `base` and the probe.
#[track_caller]
fn with_probe(mica: Mica) -> Option<Mica> {
    let probe = compile("probe")?;
    let program = mica.write("probe/probe", std::fs::read(probe).unwrap());
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    mica.write("probe/Dockerfile", "FROM base\nCOPY probe /probe\n");
    let context = mica.work().join("probe");
    mica.run(["build", "-q", "-t", "probe", context.to_str().unwrap()]).success();
    Some(mica)
}

/// Runs mica with 200 descriptors it did not ask for.
#[track_caller]
fn with_descriptors(mica: &Mica, arguments: &[&str]) -> Output {
    let mut words: Vec<String> =
        ["-c", "for n in $(seq 10 209); do eval \"exec $n</etc\"; done; exec \"$@\"", "bash"]
            .map(str::to_owned)
            .to_vec();
    let plain = mica.command(arguments);
    words.push(plain.get_program().to_str().unwrap().to_owned());
    words.extend(arguments.iter().map(|&word| word.to_owned()));
    mica.run_program(Path::new("/bin/bash"), words)
}

fn by_run(mica: &Mica, place: &str, options: &[&str]) -> Report {
    let arguments = [&["run", "--rm"][..], options, &["probe", "/probe"]].concat();
    Report::new(&format!("run {place}"), with_descriptors(mica, &arguments).success().stdout_text())
}

fn by_step(mica: &Mica, place: &str, user: &str) -> Report {
    let dockerfile =
        format!("FROM probe\n{user}\nRUN [\"/bin/sh\", \"-c\", \"exec /probe > /tmp/report\"]\n");
    mica.write("step/Dockerfile", dockerfile);
    let context = mica.work().join("step");
    let tar = mica.work().join("step.tar");
    let output = format!("type=tar,dest={}", tar.display());
    with_descriptors(mica, &["build", "--no-cache", "-q", "-o", &output, context.to_str().unwrap()])
        .success();
    Report::new(&format!("RUN {place}"), Tree::extract(&tar).text("/tmp/report"))
}

/// Calls `check` with everything a container of root's in it says, in all four places.
fn everywhere(check: impl Fn(&Report)) {
    for (who, mica) in [("as root", with_base()), ("as a user", with_ids())] {
        let Some(mica) = mica.and_then(with_probe) else { continue };
        check(&by_run(&mica, who, &[]));
        check(&by_step(&mica, who, ""));
    }
}

#[test]
fn the_table_of_confinement_is_true() {
    everywhere(|report| {
        rights(report);
        system_calls(report);
        devices(report);
        files_of_the_kernel(report);
        surroundings(report);
    });
}

fn rights(report: &Report) {
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        report.status(field, CAPABILITIES);
    }
    report.status("CapInh", NONE);
    report.status("CapAmb", NONE);
    report.status("NoNewPrivs", "0");
    report.status("Seccomp", "2");
    let filters = report.all("status").into_iter().find_map(|line| line.strip_prefix("Seccomp_filters:\t"));
    assert!(filters.is_none_or(|count| count.trim().parse::<u32>().unwrap() >= 1), "{}", report.place);
}

fn system_calls(report: &Report) {
    let refused = [
        "unshare-user",
        "unshare-mount",
        "clone-user",
        "mount",
        "umount2",
        "pivot_root",
        "fsopen",
        "open_tree",
        "move_mount",
        "mount_setattr",
        "setns",
        "kcmp",
        "pidfd_getfd",
        "personality",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "acct",
        "swapon",
        "swapoff",
        "quotactl",
        "clock_settime",
        "settimeofday",
        "syslog",
        "vhangup",
        "fanotify_init",
        "lookup_dcookie",
        "socket-packet",
        "socket-icmp",
        "mknod",
        "sethostname",
        "socket-alg",
        "socket-vsock",
    ];
    for name in refused {
        report.is(&format!("call:{name}"), &["EPERM"]);
    }
    for name in ["userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"] {
        report.is(&format!("call:{name}"), &["EPERM", "ENOSYS"]);
    }
    for name in ["clone3", "newer-than-everything"] {
        report.is(&format!("call:{name}"), &["ENOSYS"]);
    }
    for name in ["ptrace", "process_vm_readv", "socket-unix", "chroot"] {
        report.is(&format!("call:{name}"), &["ALLOWED"]);
    }
    if cfg!(target_arch = "x86_64") {
        for name in ["iopl", "ioperm"] {
            report.is(&format!("call:{name}"), &["EPERM"]);
        }
        // Kernels without the 32-bit calls kill who tries.
        report.is("call:socketcall-alg", &["EPERM", "ENOSYS", "KILLED"]);
    }
    report.is("call:mknod-open", &["EPERM"]);
    report.is("call:kmem", &["ENOENT"]);
}

fn devices(report: &Report) {
    let found: BTreeSet<&str> = report.all("dev").into_iter().collect();
    let expected = [
        "null char 1:3",
        "zero char 1:5",
        "full char 1:7",
        "random char 1:8",
        "urandom char 1:9",
        "tty char 5:0",
        "ptmx link pts/ptmx",
        "fd link /proc/self/fd",
        "stdin link /proc/self/fd/0",
        "stdout link /proc/self/fd/1",
        "stderr link /proc/self/fd/2",
        "pts dir",
        "shm dir",
        "mqueue dir",
    ];
    assert_eq!(found, expected.into_iter().collect::<BTreeSet<_>>(), "{}", report.place);
    let dev = mount_of(report, "/dev");
    for option in ["nosuid", "noexec", "mode=755"] {
        assert!(dev.contains(&option), "{}: {dev:?}", report.place);
    }
}

/// The options of what is mounted at a path, the last one if there are several.
#[track_caller]
fn mount_of<'a>(report: &'a Report, path: &str) -> Vec<&'a str> {
    let mounts = report.all("mount");
    let found = mounts.iter().rev().find(|line| line.split(' ').nth(1) == Some(path));
    let line = found.unwrap_or_else(|| panic!("{}: nothing at {path}: {mounts:#?}", report.place));
    let mut fields = line.split(' ').skip(2);
    let kind = fields.next().unwrap();
    std::iter::once(kind).chain(fields.next().unwrap().split(',')).collect()
}

fn files_of_the_kernel(report: &Report) {
    for line in report.all("masked") {
        assert!(!line.ends_with("SHOWN"), "{}: {line}", report.place);
    }
    assert_eq!(report.all("masked").len(), 14, "{}", report.place);
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"] {
        if Path::new(path).exists() {
            assert!(mount_of(report, path).contains(&"ro"), "{}: {path}", report.place);
        }
    }
    // What is left are files that change nothing but their reader, and pressure triggers.
    let harmless =
        |path: &&&str| ["/proc/pressure/", "/proc/net/"].iter().any(|prefix| path.starts_with(prefix));
    let writable = report.all("writable");
    let bad: Vec<_> = writable.iter().filter(|path| !harmless(path)).collect();
    assert!(bad.is_empty(), "{}: writable: {bad:?}", report.place);
    for line in report
        .all("mount")
        .iter()
        .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
    {
        assert!(
            line.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"),
            "{}: {line}",
            report.place
        );
    }
    for address in report.all("kallsyms") {
        assert_eq!(address, "0000000000000000", "{}", report.place);
    }
}

fn surroundings(report: &Report) {
    let descriptors: Vec<&str> =
        report.all("fd").into_iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(descriptors, ["0", "1", "2"], "{}", report.place);
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let inside = report.all("ns").into_iter().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        assert!(
            inside.is_some_and(|inside| Path::new(inside) != host),
            "{}: {kind}: {inside:?}",
            report.place
        );
    }
    let map = report.all("uid_map").join("\n");
    if report.place.ends_with("as a user") {
        let first: Vec<&str> = map.lines().next().unwrap().split_whitespace().collect();
        assert_eq!((first[0], first[2]), ("0", "1"), "{}: {map}", report.place);
        assert_ne!(first[1], "0", "{}: root is not root", report.place);
        let size: u64 =
            map.lines().map(|line| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()).sum();
        assert!(size <= 65_537, "{}: {map}", report.place);
    }
    let names: BTreeSet<&str> =
        report.all("env").into_iter().map(|line| line.split('=').next().unwrap()).collect();
    // The last two are the shell's that starts the probe in a step.
    let known = ["PATH", "HOME", "HOSTNAME", "TERM", "container", "PWD", "SHLVL"];
    assert!(names.iter().all(|name| known.contains(name)), "{}: {names:?}", report.place);
    assert_eq!(report.one("oom"), "0", "{}", report.place);
    assert_eq!(report.one("cwd"), "/", "{}", report.place);
    for line in report.all("rlimit") {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields[0] == "core" {
            assert_eq!(fields[1], "0", "{}: {line}", report.place);
        }
    }
    let pids = report.all("pids.max");
    if report.place.starts_with("run as root") {
        assert!(pids.contains(&"2048"), "{}: {pids:?}", report.place);
    }
}

#[test]
fn another_user_has_no_capabilities() {
    for mica in [with_base(), with_ids()].into_iter().flatten() {
        let Some(mica) = with_probe(mica) else { return };
        for report in [by_run(&mica, "-u ann", &["-u", "ann"]), by_step(&mica, "USER ann", "USER ann")] {
            for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                report.status(field, NONE);
            }
            report.status("CapBnd", CAPABILITIES);
            system_calls_of_a_user(&report);
        }
    }
}

fn system_calls_of_a_user(report: &Report) {
    for name in ["mount", "unshare-user", "setns", "bpf", "mknod", "chroot", "socket-packet"] {
        // Some are refused before the filter is asked: a user may not write to `/` either.
        report.is(&format!("call:{name}"), &["EPERM", "EACCES"]);
    }
}

#[test]
fn flags_change_what_they_say_and_nothing_else() {
    let Some(mica) = with_base().and_then(with_probe) else { return };
    let report = by_run(&mica, "no-new-privileges", &["--security-opt", "no-new-privileges"]);
    report.status("NoNewPrivs", "1");
    report.status("CapEff", CAPABILITIES);
    let report = by_run(&mica, "NET_RAW", &["--cap-add", "NET_RAW"]);
    report.is("call:socket-icmp", &["ALLOWED"]);
    report.is("call:mount", &["EPERM"]);
    let report = by_run(&mica, "MKNOD", &["--cap-add", "MKNOD"]);
    report.is("call:mknod-open", &["EPERM", "EACCES"]);
    let report = by_run(&mica, "no network", &["--network", "none"]);
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = report.all("ns").into_iter().find_map(|line| line.strip_prefix("net ")).unwrap();
    assert_ne!(Path::new(inside), host);
    files_of_the_kernel(&report);
    let report = by_run(&mica, "pids", &["--pids-limit", "77"]);
    assert!(report.all("pids.max").contains(&"77"), "{:?}", report.all("pids.max"));
}

#[test]
fn limits_are_never_above_the_caller_s() {
    let Some(mica) = with_base().and_then(with_probe) else { return };
    let plain = mica.command(["run", "--rm", "probe", "/probe"]);
    let mut command = Command::new("/usr/bin/prlimit");
    command
        .args(["--nofile=512:1024", "--nproc=4000:5000", "--core=100:200"])
        .arg(plain.get_program())
        .args(plain.get_args());
    let variables = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let output = command.env_clear().envs(variables).process_group(0).output().unwrap();
    let report = Report::new("under prlimit", String::from_utf8(output.stdout).unwrap());
    let limits = report.all("rlimit");
    let hard = |name: &str| {
        limits
            .iter()
            .find(|line| line.starts_with(name))
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    assert!((1..=1024).contains(&hard("nofile")), "{limits:?}");
    assert!((1..=5000).contains(&hard("nproc")), "{limits:?}");
    assert!((0..=200).contains(&hard("core")), "{limits:?}");
}

#[test]
fn a_fork_bomb_ends_at_the_limit() {
    let Some(mica) = with_base() else { return };
    let script = "i=0; while [ $i -lt 300 ]; do sleep 20 & i=$((i+1)); done; echo all";
    let output = mica.run(["run", "--rm", "--pids-limit", "100", "base", "sh", "-c", script]);
    assert!(!output.stdout_text().contains("all"), "{}", output.stderr_text());
    mica.run(["run", "--rm", "base", "true"]).success();
}

#[test]
fn the_store_is_its_owner_s_alone() {
    for mica in [with_base(), with_ids()].into_iter().flatten() {
        let running = mica.spawn(["run", "--rm", "base", "sleep", "4"]);
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&mica.root()), 0o700);
        let mut sockets = 0;
        let mut pending = vec![mica.root().join("containers")];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
                    assert_eq!(mode(&entry.path()) & 0o077, 0, "{}", entry.path().display());
                    sockets += 1;
                } else if kind.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        assert_eq!(sockets, 1, "the container's control socket");
        running.wait().success();
    }
}

#[test]
fn a_filter_that_cannot_be_had_stops_the_run() {
    let Some(mica) = with_base() else { return };
    let profile = mica.write("profile.json", r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#);
    let option = format!("seccomp={}", profile.display());
    mica.run(["run", "--rm", "--security-opt", &option, "base", "true"]).exits(125);
    mica.run(["run", "--rm", "--security-opt", "seccomp=/nonexistent", "base", "true"]).exits(125);
    mica.run(["run", "--rm", "--security-opt", "apparmor=docker-default", "base", "true"]).exits(125);
    mica.run(["run", "--rm", "--security-opt", "label=type:x", "base", "true"]).exits(125);
}
