//! The cases, and what runs them: as root, and as a user in a user namespace with one id and with a range.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mica_runtime::output::Collected;
use mica_runtime::{
    Capability, Ids, MountSource, Network, Plan, PlanMount, RuntimeError, Seccomp, Stdio, resolve_user, spawn,
};
use mica_sys::namespace::{self, IdMode, IdRange};
use mica_sys::root::Root;

type Case = (&'static str, fn(&World));

/// Where a case runs.
struct World {
    ids: Ids,
    rootfs: PathBuf,
}

const CASES: &[Case] = &[
    ("a command runs and its exit code comes back", exit_codes),
    ("a program that cannot be executed is explained", exec_failures),
    ("the confinement is that of the contract", confinement),
    ("devices and terminals are there", devices),
    ("mountpoints are gone afterwards", mountpoint_hygiene),
    ("a user without rights has none", plain_user),
    ("no descriptor of the caller is seen", descriptors),
    ("init reaps and passes signals on", init),
    ("a read-only root stays so", read_only_root),
    ("a terminal is the controlling one", terminal),
    ("a killed caller takes the container along", killed_caller),
    ("limits hold or are reported", limits),
    ("a descriptor is no working directory", magic_link_cwd),
    ("a container can be frozen", freezing),
];

pub(crate) fn main(args: &[String]) {
    let Some(busybox) =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
    else {
        return eprintln!("SKIP: no busybox here");
    };
    if let Some(world) = args.get(1).filter(|arg| arg.starts_with("world=")) {
        return in_world(world, &PathBuf::from(&args[2]));
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIP: needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    make_open(directory.path());
    // The test binary must be reachable by the users too.
    let program = directory.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut failed = false;
    for (world, uid) in [("root", 0), ("single", 61_001), ("subordinate", 61_002)] {
        let rootfs = directory.path().join(world).join("rootfs");
        make_rootfs(&rootfs, busybox, uid);
        let mut command = std::process::Command::new(&program);
        command.arg(format!("world={world}")).arg(&rootfs).current_dir("/").uid(uid).gid(uid);
        failed |= !command.status().unwrap().success();
    }
    assert!(!failed, "some cases failed");
}

fn make_open(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn make_rootfs(rootfs: &Path, busybox: &str, uid: u32) {
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::create_dir_all(rootfs.join("etc")).unwrap();
    fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
    for applet in [
        "hostname", "sh", "true", "cat", "id", "ls", "sleep", "mount", "mknod", "tty", "touch", "grep",
        "stat", "kill",
    ] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
        .unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nann:x:1000:\nstaff:x:50:ann\n").unwrap();
    fs::write(rootfs.join("etc/noexec"), "data").unwrap();
    fs::write(rootfs.join("bin/badinterp"), "#!/no/such/interpreter\n").unwrap();
    for file in ["bin/badinterp", "bin/busybox"] {
        make_open(&rootfs.join(file));
    }
    let chown = std::process::Command::new("chown")
        .arg("-R")
        .arg(format!("{uid}:{uid}"))
        .arg(rootfs.parent().unwrap())
        .status();
    assert!(chown.unwrap().success());
}

/// Enters the namespaces of a world and runs all cases in it.
fn in_world(world: &str, rootfs: &Path) {
    let (ids, mode) = match world {
        "world=root" => (Ids::Root, IdMode::Root),
        "world=single" => (Ids::Single, IdMode::SingleId),
        _ => {
            let range = IdRange { start: 700_000, count: 65_536 };
            (Ids::Subordinate, IdMode::SubordinateIds { uid_range: range, gid_range: range })
        }
    };
    if let Err(error) = namespace::enter_user_namespace(&mode) {
        return eprintln!("SKIP: {world}: {error}");
    }
    namespace::unshare_mounts().unwrap();
    let world_name = world;
    let world = World { ids, rootfs: rootfs.to_owned() };
    let mut failed = false;
    for (name, case) in CASES {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&world)));
        eprintln!("{world_name}: {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        failed |= outcome.is_err();
    }
    // The median of a small sample, for the eye; benchmarks are elsewhere.
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            world.run(world.plan(&["/bin/true"]));
            start.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("{world_name}: /bin/true in {:?} (median of 21)", times[10]);
    std::process::exit(i32::from(failed));
}

/// What a run gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
    notices: Vec<String>,
}

impl World {
    fn plan(&self, args: &[&str]) -> Plan {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut plan = Plan::new(format!("test-{}", std::process::id()), &self.rootfs, args);
        plan.ids = self.ids;
        plan
    }

    fn sh(&self, script: &str) -> Plan {
        self.plan(&["sh", "-c", script])
    }

    fn run(&self, plan: Plan) -> Ran {
        let running = spawn(&plan, Stdio::captured(), &mica_runtime::Runtime::Own).unwrap();
        let notices = running.notices().to_vec();
        let mut output = Collected::default();
        let status = running.wait_with_output(&mut output, &|| false).unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        Ran { code: status.code, out, err, notices }
    }
}

fn exit_codes(world: &World) {
    assert_eq!(world.run(world.plan(&["true"])).code, 0);
    let ran = world.run(world.sh("echo out; echo err >&2; exit 3"));
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"));
    assert_eq!(world.run(world.sh("kill -9 $$; true")).code, 0, "process 1 cannot kill itself");
    assert_eq!(world.run(world.sh("echo $HOME $PWD $$; hostname")).out, "/ / 1\nmica\n");
    let ran = world.run(world.sh("ls -d /proc/[0-9]*"));
    assert_eq!(ran.out, "/proc/1\n", "processes of others are seen");
}

fn exec_failures(world: &World) {
    let fails = |program: &str| match spawn(
        &world.plan(&[program]),
        Stdio::captured(),
        &mica_runtime::Runtime::Own,
    ) {
        Err(RuntimeError::Exec(failure)) => (failure.exit_code(), failure.to_string()),
        other => panic!("{program}: {other:?}"),
    };
    assert_eq!(fails("foo"), (127, "exec: \"foo\": executable file not found in $PATH".into()));
    assert_eq!(fails("/foo"), (127, "exec: \"/foo\": stat /foo: no such file or directory".into()));
    assert_eq!(fails("/etc/noexec"), (126, "exec: \"/etc/noexec\": permission denied".into()));
    assert_eq!(fails("badinterp"), (127, "exec /bin/badinterp: no such file or directory".into()));
}

fn confinement(world: &World) {
    let script = "cat /proc/self/status; echo == ; cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts | wc -c;
        ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep -c . ;
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper; do echo x 2>/dev/null > $f && echo WROTE $f; done;
        mount -t tmpfs x /bin 2>/dev/null && echo MOUNTED; mknod /n b 8 0 2>/dev/null && echo NODE; ls /dev; true";
    let script = script.replace("wc -c", "busybox wc -c");
    let ran = world.run(world.sh(&script));
    let status = |name: &str| {
        let line = ran
            .out
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name}: {}", ran.err));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(status(set), "00000000800405fb", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!((status("Seccomp:"), status("NoNewPrivs:")), ("2".into(), "0".into()));
    let rest = ran.out.split("==\n").nth(1).unwrap();
    let dev = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    assert_eq!(rest, format!("0\n0\n{dev}"));
    let mut plan = world.plan(&["grep", "NoNewPrivs", "/proc/self/status"]);
    plan.no_new_privileges = true;
    assert_eq!(world.run(plan).out, "NoNewPrivs:\t1\n");
    let mut plan = world.plan(&["grep", "Seccomp:", "/proc/self/status"]);
    plan.seccomp = Seccomp::Unconfined;
    assert_eq!(world.run(plan).out, "Seccomp:\t0\n");
}

fn devices(world: &World) {
    let mut plan = world.sh("echo a > /dev/null && busybox head -c 4 /dev/zero | busybox wc -c; busybox stat -c %a /dev/null /dev/shm; grep /dev/shm /proc/mounts");
    plan.shm_size_bytes = 8 << 20;
    let ran = world.run(plan);
    assert!(ran.out.starts_with("4\n666\n1777\n"), "{} {}", ran.out, ran.err);
    assert!(ran.out.contains("size=8192k"), "{}", ran.out);
    let mut plan = world.plan(&["busybox", "mknod", "/made", "c", "1", "3"]);
    plan.capabilities.push("MKNOD".parse::<Capability>().unwrap());
    if world.ids == Ids::Root {
        assert_eq!(world.run(plan.clone()).code, 0);
        plan.args = [
            "sh",
            "-c",
            "cat /made; busybox mknod /dev/made c 1 3; cat /dev/made; cat /dev/null && echo fine",
        ]
        .map(String::from)
        .to_vec();
        let ran = world.run(plan);
        assert_eq!(ran.out, "fine\n");
        assert_eq!(ran.err.matches("Permission denied").count(), 2, "{}", ran.err);
        fs::remove_file(world.rootfs.join("made")).unwrap();
    }
}

fn mountpoint_hygiene(world: &World) {
    let before = fs::metadata(world.rootfs.join("etc")).unwrap().modified().unwrap();
    let outside = world.rootfs.with_file_name("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("sub/file"), "bound").unwrap();
    std::os::unix::fs::symlink("/etc", outside.join("escape")).unwrap();
    let bind = |target: &str, sub: &[u8]| PlanMount {
        target: target.into(),
        source: MountSource::Bind { host: outside.clone(), sub: Some(sub.to_vec()), recursive: true },
        read_only: true,
        nosuid: true,
        noexec: false,
    };
    let memory = |target: &str, source: MountSource| PlanMount { source, ..bind(target, b"") };
    let mut plan = world.sh(
        "cat /etc/hosts /deep/er/file /run/secret; busybox stat -c %a /run/secret; touch /deep/er/file 2>&1; \
         echo x > /cache/x && echo wrote; ls /etc",
    );
    plan.hosts_file = Some(b"hosts\n".to_vec());
    plan.resolv_conf = Some(b"resolv\n".to_vec());
    let file = MountSource::File { content: b"secret\n".to_vec(), mode: 0o400, uid: 0, gid: 0 };
    let tmpfs = MountSource::Tmpfs { size_bytes: Some(1 << 20), mode: Some(0o1777) };
    let mut cache = memory("/cache", tmpfs);
    cache.read_only = false;
    plan.mounts = vec![bind("/deep/er", b"sub"), memory("/run/secret", file), cache];
    let ran = world.run(plan);
    assert!(ran.out.starts_with("hosts\nboundsecret\n400\n"), "{} {}", ran.out, ran.err);
    assert!(
        ran.out.contains("Read-only file system\nwrote\n") && ran.out.contains("resolv.conf"),
        "{}",
        ran.out
    );
    for path in ["etc/hosts", "etc/resolv.conf", "deep", "run", "cache", "proc", "sys", "dev"] {
        assert!(!world.rootfs.join(path).exists(), "{path} is left");
    }
    assert_eq!(fs::metadata(world.rootfs.join("etc")).unwrap().modified().unwrap(), before);
    let mut plan = world.plan(&["true"]);
    plan.mounts = vec![bind("/x", b"escape/passwd")];
    let refused = spawn(&plan, Stdio::captured(), &mica_runtime::Runtime::Own);
    assert!(matches!(refused, Err(RuntimeError::Setup { .. })), "a link led out of a bind source");
    assert!(!world.rootfs.join("x").exists() && !world.rootfs.join("proc").exists());
    let _ = fs::remove_dir_all(outside);
}

fn plain_user(world: &World) {
    let mut plan = world.sh("id; grep -E 'Cap(Eff|Prm|Inh)' /proc/self/status; echo $HOME");
    plan.user = resolve_user(&Root::open(&world.rootfs).unwrap(), "ann", &[]).unwrap();
    let ran = world.run(plan);
    if world.ids == Ids::Single {
        assert!(ran.notices.iter().any(|notice| notice.contains("single id")), "{:?}", ran.notices);
        assert!(ran.out.starts_with("uid=0(root)"), "{}", ran.out);
        return;
    }
    assert!(ran.out.starts_with("uid=1000(ann) gid=1000(ann) groups=50(staff)"), "{} {}", ran.out, ran.err);
    assert_eq!(ran.out.matches("0000000000000000").count(), 3, "{}", ran.out);
    assert!(ran.out.ends_with("/home/ann\n"), "{}", ran.out);
}

fn descriptors(world: &World) {
    let keep: Vec<_> = (0..200)
        .map(|_| {
            let file = fs::File::open("/etc").unwrap();
            rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
            file
        })
        .collect();
    // `ls` itself opens the directory as 3.
    assert_eq!(world.run(world.plan(&["ls", "/proc/self/fd"])).out, "0\n1\n2\n3\n");
    drop(keep);
}

fn init(world: &World) {
    let mut plan =
        world.sh("echo $PPID; trap 'echo term; exit 9' TERM; kill -TERM 1; busybox sleep 1 & wait; exit 4");
    plan.init = true;
    let ran = world.run(plan);
    assert_eq!((ran.code, ran.out.as_str()), (9, "1\nterm\n"));
}

fn read_only_root(world: &World) {
    let mut plan = world.sh("touch /x; echo $?");
    plan.read_only = true;
    plan.hosts_file = Some(Vec::new());
    let ran = world.run(plan);
    assert!(ran.err.contains("Read-only file system") && ran.out == "1\n", "{} {}", ran.out, ran.err);
    assert!(!world.rootfs.join("etc/hosts").exists() && !world.rootfs.join("proc").exists());
}

fn terminal(world: &World) {
    let mut plan = world.sh("tty; ls /dev/console; busybox stty size; echo hi > /dev/tty");
    plan.terminal = true;
    let running = spawn(&plan, Stdio::default(), &mica_runtime::Runtime::Own).unwrap();
    running.resize(33, 44).unwrap();
    let pty = fs::File::from(running.pty.as_ref().unwrap().try_clone().unwrap());
    let mut text = Vec::new();
    // EIO at the end.
    let _ = std::io::Read::read_to_end(&mut { pty }, &mut text);
    assert_eq!(running.wait().unwrap().code, 0);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/dev/pts/0\r\n/dev/console\r\n") && text.ends_with("hi\r\n"), "{text:?}");
}

fn killed_caller(world: &World) {
    // A caller of its own: a forked copy of this process.
    let marker = world.rootfs.join("alive");
    match mica_sys::process::fork().unwrap() {
        mica_sys::process::Fork::Child => {
            let running =
                spawn(&world.sh("touch /alive; sleep 60"), Stdio::captured(), &mica_runtime::Runtime::Own);
            std::mem::forget(running);
            std::thread::sleep(Duration::from_secs(60));
            mica_sys::process::exit_now(0);
        }
        mica_sys::process::Fork::Parent(child) => {
            let started = Instant::now();
            while !marker.exists() {
                assert!(started.elapsed() < Duration::from_secs(10));
                std::thread::sleep(Duration::from_millis(5));
            }
            mica_sys::process::pidfd_signal(child.pidfd(), 9).unwrap();
            child.wait().unwrap();
        }
    }
    fs::remove_file(marker).unwrap();
    let started = Instant::now();
    // The helper removes /proc last.
    while world.rootfs.join("proc").exists() {
        assert!(started.elapsed() < Duration::from_secs(2), "the container survived its caller");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn limits(world: &World) {
    let mut plan = world.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>&1; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; wait");
    plan.limits.pids = Some(5);
    let ran = world.run(plan);
    if ran.notices.is_empty() {
        assert!(ran.out.contains("can't fork") || ran.err.contains("can't fork"), "{} {}", ran.out, ran.err);
    } else {
        assert!(ran.notices[0].starts_with("the limit of processes is not set: "), "{:?}", ran.notices);
        assert_ne!(world.ids, Ids::Root, "{:?}", ran.notices);
    }
}

fn magic_link_cwd(world: &World) {
    for number in 3..12 {
        let mut plan = world.plan(&["ls"]);
        plan.cwd = format!("/proc/self/fd/{number}");
        let refused = spawn(&plan, Stdio::captured(), &mica_runtime::Runtime::Own);
        assert!(matches!(refused, Err(RuntimeError::Setup { .. })), "{number}: {refused:?}");
    }
}

fn freezing(world: &World) {
    let mut plan = world.sh("while true; do echo x >> /count; done");
    plan.limits.freezable = true;
    plan.network = Network::Host;
    let running = spawn(&plan, Stdio::captured(), &mica_runtime::Runtime::Own).unwrap();
    let count = world.rootfs.join("count");
    std::thread::sleep(Duration::from_millis(100));
    let frozen = running.freeze().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let before = fs::metadata(&count).unwrap().len();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::metadata(&count).unwrap().len(), before);
    frozen.thaw().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_ne!(fs::metadata(&count).unwrap().len(), before);
    running.kill(9).unwrap();
    assert_eq!(running.wait().unwrap().code, 137);
    fs::remove_file(count).unwrap();
}
