//! What must hold after a fault: the criteria of docs/security.md section 2, by their names there.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mica_testkit::{Mica, Output, peer};

/// What a store may weigh more than before, once collected.
const SLACK_BYTES: u64 = 1 << 20;
/// How long processes and mounts of a killed command may stay.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store to which faults happen, and what was in it before.
pub struct Watched<'a> {
    mica: &'a Mica,
    before: Weight,
    /// Images that the faults must not touch, as archives.
    kept: Vec<(String, Vec<u8>)>,
    /// Containers that were there at any time.
    containers: RefCell<BTreeSet<String>>,
}

impl<'a> Watched<'a> {
    /// Collects, and remembers what is left. The named images have to stay as they are.
    #[track_caller]
    pub fn new(mica: &'a Mica, kept: &[&str]) -> Self {
        mica.run(["system", "gc"]).success();
        let kept = kept.iter().map(|name| ((*name).to_owned(), archive(mica, name))).collect();
        Self { mica, before: Weight::of(&mica.root()), kept, containers: RefCell::default() }
    }

    /// G1: every command sees complete objects only, and succeeds.
    ///
    /// `system check` reads every blob and every file of every layer, and compares it with its digest.
    #[track_caller]
    pub fn is_sound(&self, what: &str) {
        let commands: [&[&str]; 4] =
            [&["system", "check"], &["images", "-a"], &["ps", "-a"], &["system", "df"]];
        for command in commands {
            let output = self.mica.run(command);
            let said = output.stdout_text() + &output.stderr_text();
            assert_eq!(output.code(), 0, "{what}: `mica {}`: {said}", command.join(" "));
        }
        let ids = self.mica.run(["ps", "-aq", "--no-trunc"]).success().stdout_text();
        self.containers.borrow_mut().extend(ids.lines().map(str::to_owned));
    }

    /// G3: the images that were to be kept have the very bytes that they had.
    #[track_caller]
    pub fn kept_images_are_equal(&self, what: &str) {
        for (name, before) in &self.kept {
            assert!(archive(self.mica, name) == *before, "{what}: {name} is not what it was");
        }
    }

    /// G3 and G4: kept images are equal; after a collection nothing is left that was not there before.
    ///
    /// The test has removed by then what its command makes when it succeeds.
    #[track_caller]
    pub fn is_clean(&self) {
        self.is_sound("at the end");
        self.kept_images_are_equal("at the end");
        self.mica.run(["system", "gc"]).success();
        let after = Weight::of(&self.mica.root());
        let extra: Vec<&String> =
            after.files.iter().filter(|file| !self.before.files.contains(file)).collect();
        assert!(after.files.len() <= self.before.files.len(), "the store grew: {extra:?}");
        assert!(after.bytes <= self.before.bytes + SLACK_BYTES, "{} bytes: {extra:?}", after.bytes);
        for folder in ["leases", "locks", "active", "tmp", "trash", "content/ingest"] {
            let left = entries_below(&self.mica.root().join(folder));
            assert_eq!(left, [] as [PathBuf; 0], "{folder}");
        }
        nothing_runs(self.mica);
        let cgroups = cgroups_of(&self.containers.borrow());
        assert_eq!(cgroups, [] as [PathBuf; 0]);
    }
}

/// G5: a command that failed says why, with an exit code of its own, and without a panic.
///
/// # Panics
/// If it succeeded, was killed, or says nothing.
#[track_caller]
pub fn explained(output: Output) -> Output {
    let said = output.stderr_text();
    assert!((1..=125).contains(&output.code()), "exit code {}: {output:?}", output.code());
    assert!(said.to_lowercase().contains("error"), "{output:?}");
    assert!(!said.contains("panicked"), "{said}");
    output
}

/// Demands that no process and no mount of this store is left, now or soon.
#[track_caller]
pub fn nothing_runs(mica: &Mica) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (mounts, processes) = left_behind(&mica.root());
        if mounts.is_empty() && processes.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left: {mounts:?} {processes:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a command that writes to a file has written a text.
#[track_caller]
pub fn until_shown(file: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let shown = || std::fs::read_to_string(file).unwrap_or_default();
    while !shown().contains(text) {
        assert!(Instant::now() < deadline, "{text:?} is not shown: {}", shown());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether system calls can be made to fail; reports the skip if not.
pub fn has_strace() -> bool {
    peer::need("strace").is_some()
}

fn archive(mica: &Mica, name: &str) -> Vec<u8> {
    mica.run(["save", name]).success().stdout
}

/// What a store holds.
struct Weight {
    /// `folder size name` of every file and directory.
    files: Vec<String>,
    bytes: u64,
}

impl Weight {
    /// Journals and caches of contexts are left out: each build keeps one. So is the database, which keeps its size.
    fn of(root: &Path) -> Self {
        let mut weight = Self { files: Vec::new(), bytes: 0 };
        for folder in
            ["layers", "content", "active", "trash", "tmp", "leases", "locks", "containers", "volumes"]
        {
            for path in entries_below(&root.join(folder)) {
                let bytes =
                    path.symlink_metadata().map_or(0, |found| if found.is_dir() { 0 } else { found.len() });
                let name =
                    String::from_utf8_lossy(path.file_name().unwrap_or_default().as_bytes()).into_owned();
                weight.files.push(format!("{folder} {bytes} {name}"));
                weight.bytes += bytes;
            }
        }
        weight.files.sort();
        weight
    }
}

/// Everything below a directory.
fn entries_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            found.push(entry.path());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
        }
    }
    found
}

/// Mounts of this machine below a directory, and processes that name it or have it as their root.
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

/// Cgroups of these containers, in whatever hierarchy.
fn cgroups_of(containers: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((directory, depth)) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("mica-").is_some_and(|id| containers.contains(id)) {
                found.push(entry.path());
            } else if depth < 6 {
                pending.push((entry.path(), depth + 1));
            }
        }
    }
    found
}
