//! A large COPY that runs again shares its files with what it made before (decision 0016), and nobody can tell.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use mica_testkit::{Mica, User};
use mica_tests::{Build, with_base, with_base_as};

const DOCKERFILE: &str = "FROM base\nWORKDIR /w\nCOPY app /w/app\n";

/// Three hundred files as old as can be; some with twins, set-id bits, owners of their own or where nothing is shared.
const FILES: &str = concat!(
    "mkdir app; cd app; for d in 1 2 3; do mkdir -p $d; for f in $(seq 100); do echo $d $f > $d/$f.txt; done; done;",
    "ln 1/1.txt 1/twin; chmod 4755 2/1.txt; chmod 600 2/2.txt; ln -s 1.txt 2/link; echo 1 > changing;",
    "find . -exec touch -h -d @1500000000 {} +",
);

fn build(mica: &Mica) -> Build<'_> {
    Build::new(mica, DOCKERFILE).prepare(FILES)
}

/// Rebuilds after `script` has changed the context; returns the image ID.
fn rebuild(mica: &Mica, script: &str) -> String {
    Build::again(mica, DOCKERFILE).prepare(script).id()
}

/// How many names the file has in each layer that has it, and where that is.
fn copies(mica: &Mica, path: &str) -> Vec<(u64, PathBuf)> {
    let layers = fs::read_dir(mica.root().join("layers")).unwrap();
    let files = layers.map(|layer| layer.unwrap().path().join("fs").join(path));
    let mut found: Vec<_> =
        files.filter_map(|file| Some((fs::symlink_metadata(&file).ok()?.nlink(), file))).collect();
    found.sort();
    found
}

fn names(mica: &Mica, path: &str) -> Vec<u64> {
    copies(mica, path).into_iter().map(|(names, _)| names).collect()
}

#[test]
fn what_did_not_change_is_shared_and_the_image_is_what_an_empty_store_gives() {
    let (Some(mica), Some(other)) = (with_base(), with_base()) else { return };
    let change =
        "cd app; echo 2 > changing; echo new > 1/new; rm 3/7.txt; touch -d @1600000000 changing 1/new 1 3 .";
    let first = build(&mica).id();
    let second = rebuild(&mica, change);
    assert_ne!(first, second);
    assert_eq!(names(&mica, "w/app/1/2.txt"), [2, 2]);
    assert_eq!(names(&mica, "w/app/changing"), [1, 1]);
    assert_eq!(names(&mica, "w/app/2/1.txt"), [1, 1], "set-id files stay alone");
    assert_eq!(names(&mica, "w/app/1/twin"), [2, 2], "twins of the context are twins in each layer only");
    rebuild(&mica, "cd app; rm 1/twin; touch -h -d @1600000000 1");
    assert_eq!(names(&mica, "w/app/1/1.txt"), [1, 2, 2], "what was a twin is not shared either");

    drop(build(&other));
    assert_eq!(rebuild(&other, change), second);
    mica.run(["system", "check"]).success();
}

#[test]
fn files_whose_names_programs_count_are_not_shared() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nCOPY . /\n";
    let files = concat!(
        "mkdir -p etc/cron.d app; for f in $(seq 300); do echo $f > app/$f; done; echo '* * * * *' > etc/cron.d/job;",
        "find . -exec touch -d @1500000000 {} +",
    );
    Build::new(&mica, dockerfile).prepare(files).id();
    Build::again(&mica, dockerfile).prepare("echo x > app/1").id();
    assert_eq!(names(&mica, "app/2"), [2, 2]);
    assert_eq!(names(&mica, "etc/cron.d/job"), [1, 1]);
}

#[test]
fn without_a_cache_everything_is_copied() {
    let Some(mica) = with_base() else { return };
    build(&mica).id();
    Build::again(&mica, DOCKERFILE).prepare("echo 2 > app/changing").flag("--no-cache").id();
    assert_eq!(names(&mica, "w/app/1/2.txt"), [1, 1]);
}

#[test]
fn a_damaged_file_is_not_passed_on() {
    let Some(mica) = with_base() else { return };
    build(&mica).id();
    for (_, file) in copies(&mica, "w/app/1/2.txt") {
        fs::write(file, "9 9\n").unwrap();
    }
    let failed = Build::again(&mica, DOCKERFILE)
        .prepare("echo 2 > app/changing")
        .fails("not what the layer table says");
    assert!(failed.stderr_text().contains("mica system check --repair"), "{}", failed.stderr_text());
    mica.run(["system", "check", "--repair"]);
    let tree = Build::again(&mica, DOCKERFILE).succeeds().tree();
    assert_eq!(tree.text("/w/app/1/2.txt"), "1 2\n");
}

#[test]
fn a_changed_mode_is_not_passed_on() {
    let (Some(mica), Some(other)) = (with_base(), with_base()) else { return };
    build(&mica).id();
    for (_, file) in copies(&mica, "w/app/1/2.txt") {
        assert!(Command::new("chmod").arg("777").arg(file).status().unwrap().success());
    }
    let change = "echo 2 > app/changing; touch -d @1600000000 app/changing app";
    let second = rebuild(&mica, change);
    drop(build(&other));
    assert_eq!(rebuild(&other, change), second);
}

#[test]
fn a_collected_layer_is_not_missed() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM scratch\nCOPY app /w/app\n";
    Build::new(&mica, dockerfile).prepare(FILES).id();
    mica.run(["system", "prune", "-af"]).success();
    let tree = Build::again(&mica, dockerfile).prepare("echo 2 > app/changing").succeeds().tree();
    assert_eq!(tree.text("/w/app/1/2.txt"), "1 2\n");
}

#[test]
fn users_share_as_well_and_a_run_writes_to_a_copy() {
    let dockerfile = "FROM base\nCOPY app /w/app\nRUN echo x >> /w/app/3/3.txt\n";
    for user in [User::with_subordinate_ids(), User::without_subordinate_ids()].into_iter().flatten() {
        let Some(mica) = with_base_as(&user) else { continue };
        Build::new(&mica, dockerfile).prepare(&format!("{FILES}; chmod -R a+rX ..")).id();
        let tree = Build::again(&mica, dockerfile).prepare("echo 2 > app/changing").succeeds().tree();
        assert_eq!(names(&mica, "w/app/1/2.txt"), [2, 2]);
        // Steps that end within the same second make the same layer.
        let mut copies = names(&mica, "w/app/3/3.txt");
        assert!([3, 4].contains(&copies.len()), "{copies:?}");
        copies.dedup();
        assert_eq!(copies, [1, 2]);
        assert_eq!(
            (tree.text("/w/app/3/3.txt"), tree.text("/w/app/3/4.txt")),
            ("3 3\nx\n".into(), "3 4\n".into())
        );
        mica.run(["system", "check"]).success();
    }
}
