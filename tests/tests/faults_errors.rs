//! System calls that fail, and limits that are met: rows 16 to 18 of docs/security.md section 2.

use std::path::PathBuf;

use mica_testkit::fault::rounds;
use mica_testkit::{Mica, Output, skip};
use mica_tests::{
    Build, Disk, Watched, explained, has_strace, holds, step_was_cached, with_base, with_base_on, without_ids,
};

/// What makes a store forget an image `x` and how it was made.
const FORGET: [&[&str]; 4] =
    [&["rmi", "-f", "x"], &["rm", "-f", "one"], &["image", "prune", "-f"], &["builder", "prune", "-af"]];

fn forget(mica: &Mica) {
    // There may be nothing to remove.
    FORGET.iter().for_each(|undo| drop(mica.run(*undo)));
}

/// A command of every kind, by its arguments. The files that they need are made.
fn commands(mica: &Mica) -> Vec<Vec<String>> {
    let build = Build::new(mica, "FROM base\nCOPY . /d\nRUN seq 1000 > /f\n").prepare("seq 10000 > f");
    let context = build.context().to_str().expect("our own path").to_owned();
    mica.run(["build", "-q", "-t", "x", &context]).success();
    let archive = mica.work().join("x.tar").to_str().expect("our own path").to_owned();
    mica.run(["save", "-o", &archive, "x"]).success();
    mica.run(["run", "--name", "worker", "base", "sh", "-c", "seq 1000 > /f"]).success();
    forget(mica);
    let again = mica.work().join("again.tar").to_str().expect("our own path").to_owned();
    let lists: [&[&str]; 8] = [
        &["build", "-q", "-t", "x", &context],
        &["load", "-q", "-i", &archive],
        &["commit", "worker", "x"],
        &["run", "--name", "one", "base", "seq", "10"],
        &["save", "-o", &again, "base"],
        &["export", "-o", &again, "worker"],
        &["tag", "base", "x"],
        &["images"],
    ];
    lists.iter().map(|list| list.iter().map(|word| (*word).to_owned()).collect()).collect()
}

/// Every command under this fault either works, completely, or fails and says why; afterwards all is as before.
///
/// Answers how many failed.
fn each_works_or_explains(mica: &Mica, what: &str, fault: impl Fn(&[String]) -> Output) -> usize {
    let commands = commands(mica);
    let again = mica.work().join("again.tar");
    let watched = Watched::new(mica, &["base"]);
    let mut failed = 0;
    for command in &commands {
        let output = fault(command);
        if output.code() != 0 {
            explained(output);
            failed += 1;
        }
        watched.is_sound(&format!("{what}: {command:?}"));
        if command[0] == "save" && again.exists() {
            let saved = std::fs::read(&again).unwrap();
            assert!(
                saved == mica.run(["save", "base"]).success().stdout,
                "{what}: a wrong archive has a name"
            );
        }
        let _ = std::fs::remove_file(&again);
        forget(mica);
        mica.run(command).success();
        forget(mica);
    }
    watched.is_clean();
    mica.run(["rm", "worker"]).success();
    failed
}

/// Row 16: what the disk did not take is not kept, even if it takes the next sync.
#[test]
fn a_disk_that_fails_to_sync_fails_the_command() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if !has_strace() {
        return;
    }
    let mut failed = 0;
    let steps = [1_usize, 2, 3, 4, 6];
    for step in steps.into_iter().take(rounds().div_ceil(4)) {
        let inject = format!("inject=fsync,fdatasync,syncfs:error=EIO:when={step}");
        failed += each_works_or_explains(&mica, &inject, |command| {
            let trace = "trace=fsync,fdatasync,syncfs";
            mica.run_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", trace, "-e", &inject], command)
        });
    }
    assert!(failed > 2, "only {failed} commands failed: nothing was tested");
}

#[test]
fn an_image_that_was_not_synced_is_not_there() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if !has_strace() {
        return;
    }
    let build = Build::new(&mica, "FROM base\nRUN echo 1 > /f\n");
    let context = build.context();
    let inject = "inject=syncfs:error=EIO:when=1";
    let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=syncfs", "-e", inject];
    let arguments = ["build", "-q", "-t", "x", context.to_str().unwrap()];
    let failed = explained(mica.run_under(&wrapper, arguments));
    holds(&failed.stderr_text(), &["Input/output error"]);
    mica.run(["image", "inspect", "x"]).exits(1);
    // The kernel reports such an error once: what was not synced must be made again, not synced again.
    let again = mica.run(["build", "--progress=plain", "-t", "x", context.to_str().unwrap()]).success();
    assert!(!step_was_cached(&again.stderr_text(), "RUN echo 1"), "{}", again.stderr_text());
    mica.run(["system", "check"]).success();
}

/// The database, the tables and the blobs of a store.
fn stored_files(mica: &Mica) -> Vec<String> {
    let root = mica.root();
    let mut found = vec![root.join("mica.db"), root.join("mica.db-wal"), root.join("store.json")];
    for layer in std::fs::read_dir(root.join("layers")).unwrap() {
        found.push(layer.unwrap().path().join("table"));
    }
    for blob in std::fs::read_dir(root.join("content/blobs/sha256")).unwrap() {
        found.push(blob.unwrap().path());
    }
    found.iter().map(|path| path.to_str().expect("our own path").to_owned()).collect()
}

/// Row 16: a file that cannot be read is never taken for an empty one.
#[test]
fn a_disk_that_fails_to_read_fails_the_command() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if !has_strace() {
        return;
    }
    let mut failed = 0;
    let faults = [
        "pread64:error=EIO:when=2+",
        "pread64:error=EIO:when=9",
        "read:error=EIO:when=1",
        "read:error=EIO:when=3",
    ];
    for fault in faults.into_iter().take(rounds().div_ceil(3)) {
        let (call, _) = fault.split_once(':').expect("a call and what happens to it");
        let (inject, trace) = (format!("inject={fault}"), format!("trace={call}"));
        let mut wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject]
            .map(str::to_owned)
            .to_vec();
        // Only the store's files: the loader of programs has no way to say anything.
        for path in stored_files(&mica) {
            wrapper.extend(["-P".to_owned(), path]);
        }
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        failed += each_works_or_explains(&mica, fault, |command| mica.run_under(&wrapper, command));
    }
    assert!(failed > 2, "only {failed} commands failed: nothing was tested");
}

/// Row 17.
#[test]
fn too_few_descriptors_are_explained_and_harmless() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let mut failed = 0;
    let limits = [16, 5, 9, 11, 13, 18, 20, 24, 28, 32, 40, 64, 256];
    for limit in limits.into_iter().take(rounds().div_ceil(2)) {
        let option = format!("--nofile={limit}:{limit}");
        failed +=
            each_works_or_explains(&mica, &option, |command| mica.run_under(&["prlimit", &option], command));
    }
    assert!(failed > 2, "only {failed} commands failed: nothing was tested");
}

/// Row 17: threads and processes that cannot be started. Root has no such limit.
#[test]
fn too_few_processes_are_explained_and_harmless() {
    let Some(mica) = without_ids() else { return };
    let mut failed = 0;
    for limit in [1, 3, 2, 4, 5, 6, 8, 10, 14, 20].into_iter().take(rounds().div_ceil(2)) {
        let option = format!("--nproc={limit}:{limit}");
        failed +=
            each_works_or_explains(&mica, &option, |command| mica.run_under(&["prlimit", &option], command));
    }
    assert!(failed > 2, "only {failed} commands failed: nothing was tested");
}

/// A cgroup with little memory; removed when dropped.
struct LittleMemory(PathBuf);

impl LittleMemory {
    /// Reports the skip if memory cannot be limited here.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("mica-test-{}-{bytes}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (base, limit) in kinds {
            let group = Self(PathBuf::from(base).join(&name));
            if std::fs::create_dir(&group.0).is_ok()
                && std::fs::write(group.0.join(limit), bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        skip("no cgroup with a memory limit can be made");
        None
    }

    /// Runs a command in it.
    fn run(&self, mica: &Mica, arguments: &[String]) -> Output {
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        mica.run_under(&["/bin/sh", "-c", &script, "sh"], arguments)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Row 18: layers of any size go through 128 MiB, page cache included.
#[test]
fn big_layers_need_little_memory() {
    // On a real disk: what is written to one in memory counts as memory.
    let Some(mica) = with_base() else { return };
    let Some(little) = LittleMemory::new(128 << 20) else { return };
    let dockerfile = "FROM base\nRUN head -c 300000000 /dev/zero > /big; echo end >> /big\n";
    let build = Build::new(&mica, dockerfile);
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let archive = mica.work().join("x.tar");
    let name = archive.to_str().unwrap();
    little.run(&mica, &words(&["build", "-q", "-t", "x", build.context().to_str().unwrap()])).success();
    little.run(&mica, &words(&["save", "-o", name, "x"])).success();
    mica.run(["rmi", "x"]).success();
    mica.run(["builder", "prune", "-af"]).success();
    little.run(&mica, &words(&["load", "-q", "-i", name])).success();
    let tail = little.run(&mica, &words(&["run", "--rm", "x", "tail", "-c", "4", "/big"])).success();
    assert_eq!(tail.line(), "end");
}

/// Row 18: the kernel kills mica for want of memory.
#[test]
fn a_command_killed_for_want_of_memory_is_harmless() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let commands = commands(&mica);
    let watched = Watched::new(&mica, &["base"]);
    for megabytes in [1_u64, 2, 3, 4, 6, 8, 12, 16].into_iter().take(rounds()) {
        let Some(little) = LittleMemory::new(megabytes << 20) else { return };
        for command in &commands {
            let output = little.run(&mica, command);
            assert!(!output.stderr_text().contains("panicked"), "{output:?}");
            watched.is_sound(&format!("{megabytes} MiB: {command:?}"));
            forget(&mica);
        }
    }
    for command in &commands {
        mica.run(command).success();
        forget(&mica);
    }
    watched.is_clean();
}
