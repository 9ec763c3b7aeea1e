//! Commands that are killed, interrupted, starved and run at the same time.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mica_testkit::fault::{Chance, duration_of, kill_on_the_way};
use mica_testkit::{Mica, TempDir, skip, temp_dir};
use mica_tests::{Build, holds, with_base};
use rustix::process::Signal;

const DOCKERFILE: &str = concat!(
    "FROM base AS a\nRUN for i in $(seq 40); do echo $i > /f$i; done\nFROM base\nCOPY d /d\n",
    "COPY --from=a /f1 /f1\nRUN mkdir /x && echo 1 > /x/y && rm -r /d/e\nWORKDIR /w\n",
);

/// `MICA_FAULT_ROUNDS`, or 10.
fn rounds() -> usize {
    std::env::var("MICA_FAULT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10)
}

/// A context with a hundred files; answers its path.
fn context(mica: &Mica) -> String {
    let build = Build::new(mica, DOCKERFILE).prepare(
        "mkdir -p d/e; for i in $(seq 100); do echo $i > d/e/$i; done; head -c 2000000 /dev/urandom > d/big",
    );
    build.context().to_str().expect("our own path").to_owned()
}

/// The files that the store may not gather, as `folder size name`. Journals are left out: each build keeps one.
fn contents(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["layers", "content", "active", "trash", "tmp", "leases", "containers"] {
        let mut pending = vec![root.join(folder)];
        while let Some(directory) = pending.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries {
                let entry = entry.expect("a readable store");
                let kind = entry.file_type().expect("a readable store");
                if kind.is_dir() {
                    pending.push(entry.path());
                } else {
                    let length = entry.metadata().expect("a readable store").len();
                    found.push(format!(
                        "{folder} {length} {}",
                        String::from_utf8_lossy(entry.file_name().as_bytes())
                    ));
                }
            }
        }
    }
    found.sort();
    found
}

/// Mounts of this machine below a directory, and processes that name it.
fn left_behind(root: &Path) -> (Vec<String>, Vec<String>) {
    let name = root.to_str().expect("our own path");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("proc");
    let mounts = mounts.lines().filter(|line| line.contains(name)).map(str::to_owned).collect();
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let root_of = std::fs::read_link(entry.path().join("root")).unwrap_or_default();
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let ours = environment.windows(name.len()).any(|part| part == name.as_bytes());
        if ours || root_of.starts_with(root) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            processes.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    (mounts, processes)
}

#[track_caller]
fn nothing_is_left_behind(mica: &Mica) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (mounts, processes) = left_behind(&mica.root());
        if mounts.is_empty() && processes.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left: {mounts:?} {processes:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills a command again and again; afterwards the store is sound, the command works, and nothing is left.
fn survives_kills(mica: &Mica, arguments: &[&str], undo: &[&[&str]]) {
    let within = duration_of(mica, arguments);
    let clean = |mica: &Mica| {
        for command in undo {
            mica.run(*command);
        }
        mica.run(["system", "gc"]).success();
        contents(&mica.root())
    };
    let before = clean(mica);
    let mut chance = Chance::new();
    for round in 0..rounds() {
        kill_on_the_way(mica, arguments, within, &mut chance);
        let check = mica.run(["system", "check"]);
        assert_eq!(check.code(), 0, "round {round}: {}{}", check.stdout_text(), check.stderr_text());
        if round % 3 == 0 {
            mica.run(arguments).success();
        }
        for command in undo {
            mica.run(*command);
        }
    }
    mica.run(arguments).success();
    mica.run(["system", "check"]).success();
    let after = clean(mica);
    let extra: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(after.len(), before.len(), "the store grew: {extra:?}");
    nothing_is_left_behind(mica);
}

#[test]
fn a_build_can_be_killed_at_any_moment() {
    let Some(mica) = with_base() else { return };
    let context = context(&mica);
    let arguments = ["build", "-q", "-t", "x", &context];
    survives_kills(
        &mica,
        &arguments,
        &[&["rmi", "-f", "x"], &["image", "prune", "-f"], &["builder", "prune", "-af"]],
    );
}

#[test]
fn a_load_can_be_killed_at_any_moment() {
    let Some(mica) = with_base() else { return };
    let context = context(&mica);
    mica.run(["build", "-q", "-t", "x", &context]).success();
    let archive = mica.work().join("x.tar");
    let archive = archive.to_str().unwrap();
    mica.run(["save", "-o", archive, "x"]).success();
    mica.run(["rmi", "x"]).success();
    mica.run(["builder", "prune", "-af"]).success();
    let undo: &[&[&str]] = &[&["rmi", "-f", "x"], &["image", "prune", "-f"]];
    survives_kills(&mica, &["load", "-q", "-i", archive], undo);
}

#[test]
fn a_commit_can_be_killed_at_any_moment() {
    let Some(mica) = with_base() else { return };
    let script = "for i in $(seq 200); do echo $i > /f$i; done";
    mica.run(["run", "--name", "worker", "base", "sh", "-c", script]).success();
    let undo: &[&[&str]] = &[&["rmi", "-f", "made"], &["image", "prune", "-f"]];
    survives_kills(&mica, &["commit", "worker", "made"], undo);
}

#[test]
fn a_gc_can_be_killed_at_any_moment() {
    let Some(mica) = with_base() else { return };
    let context = context(&mica);
    let fill = |mica: &Mica| {
        mica.run(["build", "-q", "-t", "x", &context]).success();
        mica.run(["rmi", "x"]).success();
    };
    fill(&mica);
    let within = duration_of(&mica, &["builder", "prune", "-af"]);
    let before = contents(&mica.root());
    let mut chance = Chance::new();
    for _ in 0..rounds().div_ceil(2) {
        fill(&mica);
        kill_on_the_way(&mica, &["builder", "prune", "-af"], within, &mut chance);
        mica.run(["system", "check"]).success();
        assert_eq!(mica.run(["run", "--rm", "base", "echo", "hi"]).success().line(), "hi");
    }
    mica.run(["builder", "prune", "-af"]).success();
    mica.run(["system", "gc"]).success();
    assert_eq!(contents(&mica.root()).len(), before.len());
}

#[test]
fn a_killed_run_leaves_nothing_running() {
    let Some(mica) = with_base() else { return };
    let arguments = ["run", "--rm", "base", "sh", "-c", "sleep 100 & sleep 0.1"];
    let within = duration_of(&mica, &arguments);
    let mut chance = Chance::new();
    for _ in 0..rounds() {
        kill_on_the_way(&mica, &arguments, within, &mut chance);
    }
    nothing_is_left_behind(&mica);
    let ids = mica.run(["ps", "-aq"]).success().stdout_text();
    for id in ids.lines() {
        mica.run(["rm", "-f", id]).success();
    }
    mica.run(["system", "gc"]).success();
    mica.run(["system", "check"]).success();
    assert_eq!(std::fs::read_dir(mica.root().join("containers")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(mica.root().join("active")).unwrap().count(), 0);
}

/// Waits until the plain progress of a command that writes it to a file shows a text.
#[track_caller]
fn until_shown(file: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(file).unwrap_or_default().contains(text) {
        assert!(
            Instant::now() < deadline,
            "{text:?} is not shown: {}",
            std::fs::read_to_string(file).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupted_build_ends_at_once_and_cleanly() {
    let Some(mica) = with_base() else { return };
    for signal in [Signal::INT, Signal::TERM] {
        let build = Build::new(&mica, "FROM base\nRUN echo started; sleep 100\n");
        let log = mica.work().join("log");
        let mut command = mica.command(["build", "--progress=plain"]);
        command.arg(build.context()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        until_shown(&log, "started");
        let asked = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            status.code(),
            Some(if signal == Signal::INT { 130 } else { 143 }),
            "{}",
            std::fs::read_to_string(&log).unwrap()
        );
        assert!(asked.elapsed() < Duration::from_secs(5));
        nothing_is_left_behind(&mica);
        assert_eq!(std::fs::read_dir(mica.root().join("active")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(mica.root().join("leases")).unwrap().count(), 0);
    }
}

#[test]
fn an_interrupted_export_leaves_no_file() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN head -c 60000000 /dev/urandom > /big\n";
    Build::new(&mica, dockerfile).succeeds();
    let out = mica.work().join("out");
    std::fs::create_dir(&out).unwrap();
    let output = format!("type=oci,dest={}", out.join("x.tar").display());
    let context = mica.work().join("context");
    let running = mica.spawn(["build", "-o", &output, context.to_str().unwrap()]);
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::INT);
    let ended = running.wait();
    let left: Vec<PathBuf> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    if ended.code() == 0 {
        assert_eq!(left, [out.join("x.tar")]);
    } else {
        assert_eq!((ended.code(), left), (130, Vec::new()), "{}", ended.stderr_text());
    }
}

/// A small file system of its own, unmounted and removed when dropped.
struct Small {
    directory: TempDir,
}

impl Small {
    fn new(size: &str) -> Option<Self> {
        let small = Self { directory: temp_dir() };
        let script =
            "truncate -s $1 image; mkfs.ext4 -q -m 0 image; mkdir mounted; mount -o loop image mounted";
        let made = Command::new("sh")
            .args(["-euc", script, "sh", size])
            .current_dir(small.directory.path())
            .output();
        if made.is_ok_and(|output| output.status.success()) {
            return Some(small);
        }
        skip("cannot make a small file system (mkfs.ext4, loop devices)");
        None
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // A failing test may have left processes in it: detached, it goes with them.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn a_full_disk_is_said_and_forgotten() {
    let Some(mica) = with_base() else { return };
    let Some(small) = Small::new("24M") else { return };
    let root = small.path().join("root");
    let copied = Command::new("cp").arg("-a").arg(mica.root()).arg(&root).status().unwrap();
    assert!(copied.success());
    let archive = mica.work().join("big.tar");
    Build::new(&mica, "FROM base\nRUN head -c 30000000 /dev/urandom > /big\n")
        .option("-t", "big")
        .run()
        .success();
    mica.run(["save", "-o", archive.to_str().unwrap(), "big"]).success();
    let mica = mica.env("MICA_ROOT", &root);
    let build = Build::new(&mica, "FROM base\nRUN head -c 30000000 /dev/urandom > /big\n");
    build.run().exits(1).complains("exit code: 1");
    let copy = Build::new(&mica, "FROM base\nCOPY big /\n").prepare("head -c 30000000 /dev/urandom > big");
    let copied = copy.run().exits(1);
    let loaded = mica.run(["load", "-i", archive.to_str().unwrap()]).exits(1);
    for failed in [copied, loaded] {
        holds(&failed.stderr_text().to_lowercase(), &["no space left on device"]);
    }
    mica.run(["system", "gc"]).success();
    mica.run(["system", "check"]).success();
    Build::new(&mica, "FROM base\nRUN echo fits > /f\n").run().success();
    assert_eq!(mica.run(["run", "--rm", "base", "echo", "hi"]).success().line(), "hi");
}

#[test]
fn many_commands_at_once_do_not_hurt_each_other() {
    let Some(mica) = with_base() else { return };
    let archive = mica.work().join("base.tar");
    mica.run(["save", "-o", archive.to_str().unwrap(), "base"]).success();
    let archive = archive.to_str().unwrap();
    let directories: Vec<String> = (0..3)
        .map(|number| {
            let dockerfile = format!("FROM base\nRUN echo shared > /s\nRUN echo {number} > /n\n");
            let file = mica.write(format!("many{number}/Dockerfile"), dockerfile);
            file.parent().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    let mut running = Vec::new();
    for (number, directory) in directories.iter().enumerate() {
        running.push(mica.spawn(["build", "-q", "-t", &format!("x{number}"), directory]));
        running.push(mica.spawn(["load", "-q", "-i", archive]));
        running.push(mica.spawn(["run", "--rm", "base", "true"]));
        running.push(mica.spawn(["system", "gc"]));
        running.push(mica.spawn(["image", "prune", "-f"]));
        running.push(mica.spawn(["images"]));
    }
    for command in running {
        let output = command.wait();
        // One collects for all; the others may say so.
        let said = output.stderr_text();
        assert!(output.code() == 0 || said.contains("another process is already collecting"), "{output:?}");
    }
    for number in 0..3 {
        let output = mica.run(["run", "--rm", &format!("x{number}"), "cat", "/s", "/n"]).success();
        assert_eq!(output.stdout_text(), format!("shared\n{number}\n"));
    }
    mica.run(["system", "check"]).success();
    nothing_is_left_behind(&mica);
}

#[test]
fn a_store_that_cannot_be_used_is_explained() {
    let Some(mica) = with_base() else { return };
    let file = mica.work().join("file");
    std::fs::write(&file, "").unwrap();
    let odd = Mica::new().env("MICA_ROOT", &file);
    let refused = odd.run(["images"]);
    assert_ne!(refused.code(), 0);
    holds(&refused.stderr_text(), &[file.to_str().unwrap()]);
    let meta = mica.root().join("store.json");
    let text = std::fs::read_to_string(&meta).unwrap();
    assert!(text.contains("overlay"), "{text}");
    std::fs::write(&meta, "{").unwrap();
    let damaged = mica.run(["images"]);
    assert_ne!(damaged.code(), 0, "{}", damaged.stdout_text());
    assert!(!damaged.stderr_text().contains("panicked"));
}
