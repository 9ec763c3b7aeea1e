//! Crashes at every single step, disks that refuse, and power cuts.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use mica_store::{CheckMode, GcRequest, PruneImages, Store};
use support::{assert_complete, name, open, role, try_publish};
use tempfile::TempDir;

/// System calls that change what a later process sees.
const CHANGES: &str = "rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,pwrite64,fsync,fdatasync,syncfs,ftruncate,openat";

fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        eprintln!("SKIP: strace is not installed");
    }
    found
}

/// Runs this test in a role under strace with a fault injected.
fn traced(inject: &str, test: &str, role: &str, root: &Path) -> Output {
    let calls = inject.split_once(':').unwrap().0;
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P"])
        .arg(root)
        .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")])
        .args(store_paths(root))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .envs(support::role_environment(role, root))
        .output()
        .unwrap()
}

/// `-P` arguments for the files whose calls count: strace would otherwise count those of the dynamic linker.
fn store_paths(root: &Path) -> Vec<std::ffi::OsString> {
    let mut paths = vec![
        root.join("mica.db"),
        root.join("mica.db-wal"),
        root.join("leases"),
        root.join("layers"),
        root.join("content/ingest"),
        root.join("content/blobs/sha256"),
        root.join("tmp"),
        root.join("trash"),
        root.join("active"),
        root.join("locks"),
    ];
    paths.push(root.join("locks/gc"));
    paths.into_iter().flat_map(|path| ["-P".into(), path.into_os_string()]).collect()
}

fn assert_sound(store: &Store) {
    assert_eq!(store.check(CheckMode::Report, &mut |_| ()).unwrap().findings, []);
    for image in store.images().unwrap() {
        assert_complete(store, &image.target.digest);
    }
}

/// Plays `role`, killed at its first, second, … system call until it gets through; checks the store each time.
fn killed_at_every_step(test: &str, role: &str, root: &Path) -> u32 {
    for step in 1..400 {
        let output = traced(&format!("{CHANGES}:signal=KILL:when={step}"), test, role, root);
        let store = open(root);
        assert_sound(&store);
        assert!(store.image_by_name(&name("app:before")).unwrap().is_some(), "lost at step {step}");
        if output.status.success() {
            store.collect(&GcRequest { images: PruneImages::Dangling, ..GcRequest::default() }).unwrap();
            assert_sound(&store);
            return step;
        }
    }
    panic!("{role} never got through");
}

fn play(role: &str, store: &Store) {
    match role {
        "publish" => {
            // Always something new: what an earlier attempt left must not shorten the way.
            let content = format!("{}", std::process::id());
            try_publish(store, "app:new", &content).unwrap();
        }
        "collect" => {
            let request = GcRequest { images: PruneImages::Dangling, ..GcRequest::default() };
            let report = store.collect(&request).unwrap();
            assert!(report.problems.is_empty(), "{report:?}");
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_crash_at_any_step_of_publish_or_collect_loses_nothing() {
    if let Some((role, store)) = role() {
        return play(&role, &store);
    }
    if !has_strace() {
        return;
    }
    let test = "a_crash_at_any_step_of_publish_or_collect_loses_nothing";
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("store");
    try_publish(&open(&root), "app:before", "before").unwrap();
    let steps = killed_at_every_step(test, "publish", &root);
    eprintln!("publish: killed at each of {steps} steps");
    assert!(steps > 8, "strace saw only {steps} steps");
    try_publish(&open(&root), "app:new", "dangling afterwards").unwrap();
    try_publish(&open(&root), "app:new", "new").unwrap();
    let steps = killed_at_every_step(test, "collect", &root);
    eprintln!("collect: killed at each of {steps} steps");
    assert!(steps > 4, "strace saw only {steps} steps");
}

#[test]
fn a_disk_that_refuses_to_sync_is_never_reported_as_success() {
    if let Some((role, store)) = role() {
        return play(&role, &store);
    }
    if !has_strace() {
        return;
    }
    let test = "a_disk_that_refuses_to_sync_is_never_reported_as_success";
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("store");
    try_publish(&open(&root), "app:before", "before").unwrap();
    for call in ["syncfs", "fsync"] {
        let output = traced(&format!("{call}:error=EIO:when=1"), test, "publish", &root);
        assert!(!output.status.success(), "{call} failed unnoticed");
        let store = open(&root);
        assert!(store.image_by_name(&name("app:new")).unwrap().is_none(), "{call}");
        assert_sound(&store);
        if call == "syncfs" {
            // A second sync would succeed over lost data: nothing may be left that it could bless.
            let database = rusqlite::Connection::open(root.join("mica.db")).unwrap();
            let count = "SELECT count(*) FROM layers WHERE unsynced IS NOT NULL";
            assert_eq!(database.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        }
    }
    try_publish(&open(&root), "app:new", "new").unwrap();
    assert_sound(&open(&root));
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// An ext4 image mounted at a directory; unmounted on drop.
struct Disk {
    mount: TempDir,
}

impl Disk {
    fn mount(image: &Path) -> Option<Self> {
        let mount = TempDir::new().unwrap();
        let arguments = ["-o", "loop", image.to_str().unwrap(), mount.path().to_str().unwrap()];
        run("mount", &arguments).then_some(Self { mount })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.mount.path().to_str().unwrap()]);
    }
}

#[test]
fn what_was_published_survives_a_power_cut() {
    if let Some((role, store)) = role() {
        try_publish(&store, &format!("app:{role}"), &role).unwrap();
        // Killed without any chance to write more.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
    let directory = TempDir::new().unwrap();
    let image = directory.path().join("disk");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    if !run("mkfs.ext4", &["-q", image.to_str().unwrap()]) {
        return eprintln!("SKIP: mkfs.ext4 is not installed");
    }
    let Some(disk) = Disk::mount(&image) else { return eprintln!("SKIP: cannot mount a disk image") };
    let root = disk.mount.path().join("store");
    for round in 0..5 {
        let mut child =
            support::spawn("what_was_published_survives_a_power_cut", &format!("r{round}"), &root);
        assert!(!child.wait().unwrap().success());
        // What is in the image now is what the disk had when the power went.
        let copy = directory.path().join("copy");
        fs::copy(&image, &copy).unwrap();
        let after = Disk::mount(&copy).unwrap();
        let store = open(&after.mount.path().join("store"));
        for tag in 0..=round {
            let image = store.image_by_name(&name(&format!("app:r{tag}"))).unwrap();
            assert_complete(&store, &image.unwrap_or_else(|| panic!("r{tag} is lost")).target.digest);
        }
        assert_sound(&store);
        store.collect(&GcRequest::default()).unwrap();
        assert_sound(&store);
        try_publish(&store, "app:next", "next").unwrap();
    }
}
