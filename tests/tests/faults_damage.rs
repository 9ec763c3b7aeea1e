//! A damaged store: row 22 of docs/security.md section 2, one damage per run over every file.
//!
//! `crates/mica-store/tests/damage.rs` asks the same of the library; this asks what a user sees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mica_testkit::Mica;
use mica_testkit::fault::{Chance, rounds};
use mica_tests::{Build, Disk, copy_store, explained, holds, with_base_on};

/// A way to damage a file.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 4] = [
    ("flip", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x20;
        }
        fs::write(path, bytes).unwrap();
    }),
    ("truncate", |path| {
        let length = fs::metadata(path).unwrap().len();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    }),
    ("empty", |path| fs::write(path, "").unwrap()),
    ("remove", |path| fs::remove_file(path).unwrap()),
];

/// Every file with content that is there to be kept.
fn files_of(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (directory.join(entry.file_name()), entry.file_type().unwrap());
            let top = path.components().next().and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file()
                && entry.metadata().unwrap().len() > 0
                && !["journals", "contexts", "locks", "reserve", "mica.db-shm"].contains(&top)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The two images, each with a layer of its own over the same base.
fn make(mica: &Mica) {
    Build::new(mica, "FROM base\nRUN seq 100 > /one\n").option("-t", "one").id();
    Build::new(mica, "FROM base\nRUN seq 200 > /two\n").option("-t", "two").id();
    mica.run(["builder", "prune", "-af"]).success();
}

#[test]
fn every_damaged_file_is_named_and_never_passed_on() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    make(&mica);
    let saved: Vec<Vec<u8>> =
        ["one", "two"].iter().map(|name| mica.run(["save", name]).success().stdout).collect();
    let pristine = disk.path().join("pristine");
    copy_store(&mica.root(), &pristine);
    let all: Vec<(PathBuf, Damage)> = files_of(&pristine)
        .into_iter()
        .flat_map(|file| DAMAGES.map(|damage| (file.clone(), damage)))
        .collect();
    assert!(all.len() > 40, "{all:?}");
    let stride = all.len().div_ceil(rounds()).max(1);
    let first = usize::try_from(Chance::new().below(stride as u64)).expect("below a usize");
    for (file, (kind, damage)) in all.iter().skip(first).step_by(stride) {
        let what = format!("{kind} {}", file.display());
        fs::remove_dir_all(mica.root()).unwrap();
        copy_store(&pristine, &mica.root());
        let path = mica.root().join(file);
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        damage(&path);
        if path.exists() {
            fs::set_permissions(&path, mode).unwrap();
        }
        is_named_and_repaired(&mica, file, &what, &saved);
    }
}

fn is_named_and_repaired(mica: &Mica, file: &Path, what: &str, saved: &[Vec<u8>]) {
    // Exit 0 means the right bytes, before anybody has checked anything.
    for (name, bytes) in ["one", "two"].iter().zip(saved) {
        let output = mica.run(["save", name]);
        match output.code() {
            0 => assert!(output.stdout == *bytes, "{what}: `save {name}` exits 0 with other bytes"),
            _ => drop(explained(output)),
        }
    }
    let check = mica.run(["system", "check"]);
    let said = check.stdout_text() + &check.stderr_text();
    assert!(!said.contains("panicked"), "{what}: {said}");
    let name = file.file_name().and_then(|name| name.to_str()).expect("our own name");
    let is_metadata = name.starts_with("mica.db") || name == "store.json";
    if check.code() == 0 {
        // The log of the metadata may end anywhere; what is lost without store.json is in the metadata too.
        assert!(is_metadata, "{what} is not found: {said}");
    } else {
        assert_eq!(check.code(), 1, "{what}: {said}");
        holds(&said, &[name.trim_end_matches("-wal")]);
    }
    mica.run(["system", "check", "--repair"]);
    mica.run(["system", "check"]).success();
    mica.run(["system", "gc"]).success();
    for (name, bytes) in ["one", "two"].iter().zip(saved) {
        let output = mica.run(["save", name]);
        let said = output.stderr_text();
        match output.code() {
            0 => assert!(output.stdout == *bytes, "{what}: `save {name}` after the repair"),
            _ => assert!(said.contains("No such image"), "{what}: {said}"),
        }
    }
}

#[test]
fn damage_of_one_image_leaves_the_other_alone() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    make(&mica);
    let saved = mica.run(["save", "two"]).success().stdout;
    let upper =
        mica.run(["image", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "one"]).success().line();
    fs::write(Path::new(&upper).join("one"), "something else").unwrap();
    let check = mica.run(["system", "check"]).exits(1);
    holds(&check.stdout_text(), &[&format!("{upper}/one"), "one"]);
    explained(mica.run(["save", "one"]));
    assert!(mica.run(["save", "two"]).success().stdout == saved);
    assert_eq!(mica.run(["run", "--rm", "two", "tail", "-n1", "/two"]).success().line(), "200");
    mica.run(["system", "check", "--repair"]);
    mica.run(["image", "inspect", "one"]).exits(1);
    assert!(mica.run(["save", "two"]).success().stdout == saved);
    mica.run(["system", "check"]).success();
    Build::again(&mica, "FROM base\nRUN seq 100 > /one\n").option("-t", "one").id();
    assert_eq!(mica.run(["run", "--rm", "one", "tail", "-n1", "/one"]).success().line(), "100");
}

#[test]
fn a_store_that_cannot_be_used_is_explained() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let file = mica.work().join("file");
    fs::write(&file, "").unwrap();
    let odd = Mica::new().root_at(&file);
    let refused = explained(odd.run(["images"]));
    holds(&refused.stderr_text(), &[file.to_str().unwrap()]);
    let meta = mica.root().join("store.json");
    let text = fs::read_to_string(&meta).unwrap();
    assert!(text.contains("overlay"), "{text}");
    fs::write(&meta, "{").unwrap();
    let damaged = explained(mica.run(["images"]));
    holds(&damaged.stderr_text(), &["store.json"]);
}
