//! Disks that lose power, are full, run out of inodes, become read-only: rows 9, 10 and 12 to 15 of docs/security.md
//! section 2.

use std::path::Path;

use mica_testkit::fault::{Chance, duration_of, kill_on_the_way, rounds};
use mica_testkit::{Mica, Output};
use mica_tests::{
    Build, Disk, Watched, explained, has_strace, holds, nothing_runs, until_shown, with_base_on,
};

/// Big enough for the base image and little else.
const SMALL: &str = "24M";

/// A command that changes the store, and how to take that back.
struct Change {
    what: &'static str,
    arguments: Vec<String>,
    undo: &'static [&'static [&'static str]],
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// One of every kind; what they need is made in the store of `mica`, which is then complete.
fn changes(mica: &Mica) -> Vec<Change> {
    let image: &[&[&str]] = &[&["rmi", "-f", "x"], &["image", "prune", "-f"], &["builder", "prune", "-af"]];
    let build = Build::new(
        mica,
        "FROM base\nCOPY . /d\nRUN --mount=type=cache,target=/c seq 30000 > /c/x; seq 30000 > /f\n",
    )
    .prepare("seq 30000 > big; mkdir e; for i in $(seq 40); do echo $i > e/$i; done");
    let context = build.context().to_str().expect("our own path").to_owned();
    mica.run(["build", "-q", "-t", "x", &context]).success();
    let archive = mica.work().join("x.tar").to_str().expect("our own path").to_owned();
    mica.run(["save", "-o", &archive, "x"]).success();
    image.iter().for_each(|undo| drop(mica.run(*undo)));
    mica.run(["run", "--name", "worker", "base", "sh", "-c", "seq 30000 > /f"]).success();
    let change = |what, arguments, undo| Change { what, arguments, undo };
    vec![
        change("build", [words("build -q -t x"), vec![context]].concat(), image),
        change("load", [words("load -q -i"), vec![archive]].concat(), image),
        change("commit", words("commit worker x"), image),
        change("tag", words("tag base x"), image),
        change("run", words("run --name one base seq 20000"), &[&["rm", "-f", "one"]]),
    ]
}

impl Change {
    fn make(&self, mica: &Mica) -> Output {
        mica.run(&self.arguments)
    }

    fn take_back(&self, mica: &Mica) {
        // There may be nothing to remove.
        self.undo.iter().for_each(|undo| drop(mica.run(*undo)));
    }
}

/// The fault happens to every change in turn; it is explained, harmless, and over when the cause is. Answers how many
/// of them failed.
fn each_change_fails_and_recovers(disk: &Disk, mica: &Mica, fault: impl Fn(&Change) -> Output) -> usize {
    let mut failed = 0;
    let changes = changes(mica);
    let watched = Watched::new(mica, &["base"]);
    for change in &changes {
        let output = fault(change);
        disk.make_room();
        if output.code() != 0 {
            explained(output);
            failed += 1;
        }
        watched.is_sound(change.what);
        change.take_back(mica);
        change.make(mica).success();
        change.take_back(mica);
    }
    watched.is_clean();
    mica.run(["rm", "worker"]).success();
    failed
}

#[test]
fn what_was_reported_done_survives_a_power_cut() {
    let Some(disk) = Disk::ext4("48M", &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let changes = changes(&mica);
    for change in &changes {
        change.make(&mica).success();
        let after = disk.after_power_cut();
        let rebooted = Mica::new().root_at(after.path().join("root"));
        rebooted.run(["system", "check"]).success();
        // What a container printed is written without syncing, as docker does.
        if change.what != "run" {
            let saved = |mica: &Mica| mica.run(["save", "x"]).success().stdout;
            assert!(saved(&rebooted) == saved(&mica), "{}", change.what);
        }
        rebooted.run(["run", "--rm", "base", "true"]).success();
        rebooted.run(["system", "gc"]).success();
        rebooted.run(["system", "check"]).success();
        change.take_back(&mica);
    }
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_sound_store() {
    let Some(disk) = Disk::ext4("32M", &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let changes = changes(&mica);
    let base = mica.run(["save", "base"]).success().stdout;
    let mut chance = Chance::new();
    let times: Vec<_> = changes
        .iter()
        .map(|change| {
            let arguments: Vec<&str> = change.arguments.iter().map(String::as_str).collect();
            let within = duration_of(&mica, &arguments);
            change.take_back(&mica);
            within
        })
        .collect();
    for round in 0..rounds() {
        let (change, within) = (&changes[round % changes.len()], times[round % changes.len()]);
        let arguments: Vec<&str> = change.arguments.iter().map(String::as_str).collect();
        kill_on_the_way(&mica, &arguments, within, &mut chance);
        let after = disk.after_power_cut();
        let rebooted = Mica::new().root_at(after.path().join("root"));
        let watched = Watched::new(&rebooted, &["base"]);
        watched.is_sound(&format!("round {round}: {}", change.what));
        assert!(rebooted.run(["save", "base"]).success().stdout == base, "round {round}: {}", change.what);
        rebooted.run(["run", "--rm", "base", "true"]).success();
        change.take_back(&rebooted);
        change.make(&rebooted).success();
        change.take_back(&rebooted);
        watched.is_clean();
        change.take_back(&mica);
    }
}

#[test]
fn a_full_disk_is_explained_and_forgotten() {
    let Some(disk) = Disk::ext4(SMALL, &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    // From "nothing fits" to "almost everything fits".
    let steps = [0_u64, 16, 48, 96, 160, 256, 384, 512, 768, 1024];
    let mut failed = 0;
    let stride = steps.len().div_ceil(rounds().div_ceil(2)).max(1);
    for kilobytes in steps.into_iter().step_by(stride) {
        failed += each_change_fails_and_recovers(&disk, &mica, |change| {
            disk.leave_free(kilobytes << 10);
            change.make(&mica)
        });
    }
    assert!(failed > 5, "only {failed} changes failed: nothing was tested");
}

#[test]
fn a_full_disk_can_still_be_read() {
    let Some(disk) = Disk::ext4(SMALL, &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    mica.run(["run", "--name", "worker", "base", "echo", "said"]).success();
    disk.leave_free(0);
    let reads: [&[&str]; 6] = [
        &["images"],
        &["ps", "-a"],
        &["inspect", "base"],
        &["logs", "worker"],
        &["history", "base"],
        &["save", "base"],
    ];
    for arguments in reads {
        let output = mica.run(arguments);
        // The database's shared memory needs a block; without one the command says so.
        if output.code() != 0 {
            explained(output);
        }
    }
    disk.make_room();
    mica.run(["system", "check"]).success();
    assert_eq!(mica.run(["logs", "worker"]).success().line(), "said");
}

/// Row 13: the disk fills up under a container; the log is lost, the container and what it prints are not.
#[test]
fn a_container_outlives_a_disk_that_fills_up() {
    let Some(disk) = Disk::ext4(SMALL, &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let printed = mica.work().join("printed");
    let script = "echo ready; read line; seq 20000; echo $line";
    let mut command = mica.command(["run", "-i", "--name", "long", "base", "sh", "-c", script]);
    command.stdin(std::process::Stdio::piped()).stdout(std::fs::File::create(&printed).unwrap());
    let mut child = command.spawn().unwrap();
    until_shown(&printed, "ready");
    disk.leave_free(0);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go on\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    holds(&said, &["cannot write the container's log any more", "No space left on device"]);
    let shown = std::fs::read_to_string(&printed).unwrap();
    assert!(shown.ends_with("20000\ngo on\n"), "{} bytes", shown.len());
    disk.make_room();
    mica.run(["system", "check"]).success();
    mica.run(["rm", "long"]).success();
    nothing_runs(&mica);
}

/// Row 13: a step's own disk use, and that of its cache mount, is the step's failure.
#[test]
fn a_step_that_fills_the_disk_fails_alone() {
    let Some(disk) = Disk::ext4(SMALL, &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let watched = Watched::new(&mica, &["base"]);
    for target in ["/big", "/cache/big"] {
        let dockerfile = format!(
            "FROM base\nRUN --mount=type=cache,target=/cache head -c 40000000 /dev/urandom > {target}\n"
        );
        let failed = explained(Build::new(&mica, dockerfile).run());
        holds(&failed.stderr_text(), &["exit code: 1"]);
        mica.run(["builder", "prune", "-af"]).success();
        watched.is_sound(target);
    }
    Build::new(&mica, "FROM base\nRUN echo fits > /f\n").run().success();
    mica.run(["image", "prune", "-f"]).success();
    mica.run(["builder", "prune", "-af"]).success();
    watched.is_clean();
}

#[test]
fn running_out_of_inodes_is_explained_and_forgotten() {
    let Some(disk) = Disk::ext4("32M", &["-N", "1400"]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let hoard = disk.path().join("hoard");
    let mut failed = 0;
    for left in [0, 6, 20, 45].into_iter().take(rounds().div_ceil(3)) {
        failed += each_change_fails_and_recovers(&disk, &mica, |change| {
            take_inodes(&disk, &hoard, left);
            let output = change.make(&mica);
            std::fs::remove_dir_all(&hoard).unwrap();
            output
        });
    }
    assert!(failed > 2, "only {failed} changes failed: nothing was tested");
}

/// Makes empty files until only so many more are possible.
fn take_inodes(disk: &Disk, hoard: &Path, left: u64) {
    std::fs::create_dir(hoard).unwrap();
    for number in 0_u64.. {
        if rustix::fs::statvfs(disk.path()).unwrap().f_ffree <= left {
            return;
        }
        std::fs::write(hoard.join(number.to_string()), "").unwrap();
    }
}

#[test]
fn an_exceeded_quota_is_explained_and_forgotten() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if !has_strace() {
        return;
    }
    let mut failed = 0;
    // The first files are opened by the loader of programs, which has its own way to fail.
    for (call, first) in
        [("mkdirat", 3), ("pwrite64", 3), ("openat", 16)].into_iter().take(rounds().div_ceil(3))
    {
        let inject = format!("inject={call}:error=EDQUOT:when={first}+");
        let set = format!("trace={call}");
        failed += each_change_fails_and_recovers(&disk, &mica, |change| {
            let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &set, "-e", &inject];
            mica.run_under(&wrapper, &change.arguments)
        });
    }
    assert!(failed > 2, "only {failed} changes failed: nothing was tested");
}

#[test]
fn a_read_only_store_can_be_read_and_refuses_the_rest() {
    let Some(disk) = Disk::ext4("48M", &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let changes = changes(&mica);
    let base = mica.run(["save", "base"]).success().stdout;
    let watched = Watched::new(&mica, &["base"]);
    disk.remount("ro");
    let reads: [&[&str]; 8] = [
        &["images"],
        &["ps", "-a"],
        &["inspect", "base"],
        &["history", "base"],
        &["logs", "worker"],
        &["system", "df"],
        &["system", "check"],
        &["info"],
    ];
    for arguments in reads {
        mica.run(arguments).success();
    }
    assert!(mica.run(["save", "base"]).success().stdout == base);
    for change in &changes {
        let said = explained(change.make(&mica)).stderr_text().to_lowercase();
        holds(&said, &["read-only"]);
    }
    for arguments in [["rmi", "base"], ["system", "gc"], ["rm", "worker"]] {
        let said = explained(mica.run(arguments)).stderr_text().to_lowercase();
        holds(&said, &["read-only"]);
    }
    disk.remount("rw");
    for change in &changes {
        change.make(&mica).success();
        change.take_back(&mica);
    }
    watched.is_clean();
}

/// Row 15: the disk becomes read-only while a command works.
#[test]
fn a_store_that_becomes_read_only_on_the_way_stays_sound() {
    let Some(disk) = Disk::ext4("48M", &[]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let watched = Watched::new(&mica, &["base"]);
    let dockerfile = "FROM base\nRUN echo started; sleep 1\nRUN seq 1000 > /f\n";
    let log = mica.work().join("log");
    let build = Build::new(&mica, dockerfile);
    let mut command = mica.command(["build", "--progress=plain"]);
    command.arg(build.context()).stderr(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    until_shown(&log, " started\n");
    // What a failing disk does: the kernel goes on reading and refuses to write (errors=remount-ro).
    let emergency =
        std::process::Command::new("mount").args(["-o", "remount,abort"]).arg(disk.path()).status().unwrap();
    let status = child.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    if emergency.success() {
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        mica.run(["images"]).success();
        let after = disk.after_power_cut();
        let rebooted = Mica::new().root_at(after.path().join("root"));
        rebooted.run(["system", "check"]).success();
        rebooted.run(["system", "gc"]).success();
        Build::new(&rebooted, dockerfile).run().success();
    } else {
        assert!(status.success(), "{said}");
        mica.run(["builder", "prune", "-af"]).success();
        watched.is_clean();
    }
}

#[test]
fn a_full_disk_can_be_cleaned_up() {
    let Some(disk) = Disk::ext4(SMALL, &["-b", "4096"]) else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let removals: [&[&str]; 6] = [
        &["rmi", "x"],
        &["rm", "worker"],
        &["image", "prune", "-af"],
        &["builder", "prune", "-af"],
        &["system", "prune", "-af"],
        &["system", "gc"],
    ];
    let before = mica.work().join("before");
    mica.run(["run", "--name", "worker", "base", "sh", "-c", "seq 100000 > /f"]).success();
    Build::new(&mica, "FROM base\nRUN seq 100000 > /f\n").option("-t", "x").id();
    // Sets the reserve aside.
    mica.run(["system", "gc"]).success();
    mica_tests::copy_store(&mica.root(), &before);
    for removal in removals {
        disk.leave_free(0);
        let free = disk.free_bytes();
        mica.run(removal).success();
        if removal != ["system", "gc"] {
            assert!(disk.free_bytes() > free, "{removal:?}");
        }
        disk.make_room();
        mica.run(["system", "check"]).success();
        std::fs::remove_dir_all(mica.root()).unwrap();
        mica_tests::copy_store(&before, &mica.root());
        mica.run(["system", "gc"]).success();
    }
}
