//! Commands that are killed: at random moments, and before every system call that changes the disk.
//!
//! Rows 2 to 5 and 7 of docs/security.md section 2. The stores are in memory, where syncing takes no time: what a
//! power cut leaves is asked in `faults_disk.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mica_testkit::Mica;
use mica_testkit::fault::{Chance, duration_of, kill_on_the_way, rounds};
use mica_tests::{
    Build, Disk, Watched, has_strace, nothing_runs, step_was_cached, until_shown, with_base_on,
};
use rustix::process::{Pid, Signal};

const DOCKERFILE: &str = concat!(
    "FROM base AS a\nRUN for i in $(seq 40); do echo $i > /f$i; done\nFROM base\nCOPY d /d\n",
    "COPY --from=a /f1 /f1\nRUN mkdir /x && echo 1 > /x/y && rm -r /d/e\nWORKDIR /w\n",
);

/// What makes a store forget what a build made.
const FORGET_BUILD: &[&[&str]] =
    &[&["rmi", "-f", "x"], &["image", "prune", "-f"], &["builder", "prune", "-af"]];

/// System calls that change the disk, or promise that it has changed.
const CHANGES: &str = "openat,openat2,write,pwrite64,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,\
                       mkdirat,symlinkat,mknodat,ftruncate,fallocate,fsync,fdatasync,syncfs,fsetxattr,fchown,fchmod";

/// A context with fifty files; answers its path.
fn context(mica: &Mica) -> String {
    let build = Build::new(mica, DOCKERFILE)
        .prepare("mkdir -p d/e; for i in $(seq 50); do echo $i > d/e/$i; done; seq 100000 > d/big");
    build.context().to_str().expect("our own path").to_owned()
}

/// An archive of an image `x`, which is not in the store any more; answers its path.
fn archive(mica: &Mica) -> String {
    let context = context(mica);
    mica.run(["build", "-q", "-t", "x", &context]).success();
    let archive = mica.work().join("x.tar").to_str().expect("our own path").to_owned();
    mica.run(["save", "-o", &archive, "x"]).success();
    forget(mica, FORGET_BUILD);
    archive
}

fn forget(mica: &Mica, undo: &[&[&str]]) {
    for command in undo {
        // There may be nothing to remove.
        mica.run(*command);
    }
}

/// Kills a command again and again; the store is sound each time, the command works, nothing is left.
fn survives_kills(mica: &Mica, arguments: &[&str], undo: &[&[&str]]) {
    let within = duration_of(mica, arguments);
    forget(mica, undo);
    let watched = Watched::new(mica, &["base"]);
    let mut chance = Chance::new();
    for round in 0..rounds() {
        kill_on_the_way(mica, arguments, within, &mut chance);
        watched.is_sound(&format!("round {round}"));
        if round % 3 == 0 {
            mica.run(arguments).success();
        }
        forget(mica, undo);
    }
    mica.run(arguments).success();
    forget(mica, undo);
    watched.is_clean();
}

#[test]
fn a_build_can_be_killed_at_any_moment() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let context = context(&mica);
    survives_kills(&mica, &["build", "-q", "-t", "x", &context], FORGET_BUILD);
}

#[test]
fn a_load_can_be_killed_at_any_moment() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let archive = archive(&mica);
    survives_kills(&mica, &["load", "-q", "-i", &archive], FORGET_BUILD);
}

#[test]
fn a_commit_can_be_killed_at_any_moment() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let script = "for i in $(seq 200); do echo $i > /f$i; done";
    mica.run(["run", "--name", "worker", "base", "sh", "-c", script]).success();
    let undo: &[&[&str]] = &[&["rmi", "-f", "made"], &["image", "prune", "-f"]];
    survives_kills(&mica, &["commit", "worker", "made"], undo);
}

#[test]
fn a_run_can_be_killed_at_any_moment() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let arguments = ["run", "--rm", "base", "sh", "-c", "sleep 100 & echo hi > /f; sleep 0.1"];
    let within = duration_of(&mica, &arguments);
    let watched = Watched::new(&mica, &["base"]);
    let mut chance = Chance::new();
    for round in 0..rounds() {
        kill_on_the_way(&mica, &arguments, within, &mut chance);
        watched.is_sound(&format!("round {round}"));
    }
    // Some were killed before they could say whether they are to be removed at their end.
    mica.run(["system", "gc"]).success();
    let ids = mica.run(["ps", "-aq"]).success().stdout_text();
    for id in ids.lines() {
        mica.run(["rm", id]).success();
    }
    watched.is_clean();
}

/// Removals, and what they must leave alone: twenty images that share layers.
#[test]
fn a_removal_can_be_killed_at_any_moment() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let kept: Vec<String> = (0..10).map(|number| format!("kept{number}")).collect();
    let build = |name: &str, number: usize| {
        let dockerfile = format!("FROM base\nRUN echo {} > /a\nRUN echo {name} > /b\n", number % 3);
        Build::new(&mica, dockerfile).option("-t", name).id();
    };
    kept.iter().enumerate().for_each(|(number, name)| build(name, number));
    mica.run(["builder", "prune", "-af"]).success();
    let names: Vec<&str> = kept.iter().map(String::as_str).chain(["base"]).collect();
    let watched = Watched::new(&mica, &names);
    let fill = || (0..3).for_each(|number| build(&format!("gone{number}"), number));
    let removals: [&[&str]; 4] = [
        &["rmi", "gone0", "gone1", "gone2"],
        &["builder", "prune", "-af"],
        &["system", "prune", "-f"],
        &["system", "gc"],
    ];
    fill();
    let within = duration_of(&mica, removals[0]) + duration_of(&mica, removals[1]);
    let mut chance = Chance::new();
    for round in 0..rounds() {
        if round % 4 == 0 {
            fill();
        }
        let removal = removals[round % removals.len()];
        kill_on_the_way(&mica, removal, within, &mut chance);
        watched.is_sound(&format!("round {round}: {removal:?}"));
    }
    forget(
        &mica,
        &[&["rmi", "gone0", "gone1", "gone2"], &["image", "prune", "-f"], &["builder", "prune", "-af"]],
    );
    watched.is_clean();
}

/// Counts, for each system call of [`CHANGES`], how often one process of the command makes it.
fn steps_of(mica: &Mica, arguments: &[&str]) -> BTreeMap<String, usize> {
    let trace = mica.work().join("trace");
    let options = ["strace", "-f", "-qq", "-e", "signal=none", "-o"];
    let set = format!("trace={CHANGES}");
    let wrapper = [&options[..], &[trace.to_str().expect("our own path"), "-e", &set]].concat();
    mica.run_under(&wrapper, arguments).success();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in std::fs::read_to_string(trace).expect("strace wrote it").lines() {
        let mut words = line.split_whitespace();
        let (Some(process), Some(call)) = (words.next(), words.next()) else { continue };
        if let Some((name, _)) = call.split_once('(') {
            *counts.entry((process.to_owned(), name.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in counts {
        let known = most.entry(call).or_insert(0);
        *known = count.max(*known);
    }
    most
}

/// Kills a command before each of its system calls that changes something, or before as many as there is time for.
fn survives_every_step(mica: &Mica, arguments: &[&str], undo: &[&[&str]]) {
    let steps: Vec<(String, usize)> = steps_of(mica, arguments)
        .into_iter()
        .flat_map(|(call, count)| (1..=count).map(move |step| (call.clone(), step)))
        .collect();
    assert!(steps.len() > 20, "strace saw only {steps:?}");
    forget(mica, undo);
    let watched = Watched::new(mica, &["base"]);
    let stride = steps.len().div_ceil(rounds()).max(1);
    // Not always the same ones, when it cannot be all.
    let first = usize::try_from(Chance::new().below(stride as u64)).expect("below a usize");
    for (call, step) in steps.iter().skip(first).step_by(stride) {
        let inject = format!("inject={call}:signal=KILL:when={step}");
        let set = format!("trace={call}");
        mica.run_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &set, "-e", &inject], arguments);
        watched.is_sound(&inject);
        mica.run(arguments).success();
        forget(mica, undo);
    }
    watched.is_clean();
}

#[test]
fn a_build_can_be_killed_before_each_of_its_steps() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if has_strace() {
        let context = context(&mica);
        survives_every_step(&mica, &["build", "-q", "-t", "x", &context], FORGET_BUILD);
    }
}

#[test]
fn a_load_can_be_killed_before_each_of_its_steps() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if has_strace() {
        let archive = archive(&mica);
        survives_every_step(&mica, &["load", "-q", "-i", &archive], FORGET_BUILD);
    }
}

#[test]
fn a_commit_can_be_killed_before_each_of_its_steps() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    if has_strace() {
        mica.run(["run", "--name", "worker", "base", "sh", "-c", "echo 1 > /f"]).success();
        let undo: &[&[&str]] = &[&["rmi", "-f", "made"], &["image", "prune", "-f"]];
        survives_every_step(&mica, &["commit", "worker", "made"], undo);
    }
}

#[test]
fn a_killed_build_takes_its_running_step_with_it() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let dockerfile = "FROM base\nRUN echo finished > /f\nRUN echo started; sleep 100 & sleep 100\n";
    let watched = Watched::new(&mica, &["base"]);
    for round in 0..rounds().div_ceil(5) {
        let build = Build::new(&mica, dockerfile);
        let log = mica.work().join("log");
        let mut command = mica.command(["build", "--progress=plain"]);
        command.arg(build.context()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        // The command is shown too, when the step begins.
        until_shown(&log, " started\n");
        rustix::process::kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        let killed = Instant::now();
        child.wait().unwrap();
        nothing_runs(&mica);
        assert!(killed.elapsed() < Duration::from_secs(5), "round {round}");
        let shown = std::fs::read_to_string(&log).unwrap();
        assert_eq!(step_was_cached(&shown, "RUN echo finished"), round > 0, "finished steps are kept");
        watched.is_sound(&format!("round {round}"));
    }
    mica.run(["builder", "prune", "-af"]).success();
    watched.is_clean();
}

/// What a killed command wrote under a name is complete; what is not complete has no name.
#[test]
fn a_file_that_is_written_is_complete_or_absent() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let context = context(&mica);
    mica.run(["run", "--name", "worker", "base", "sh", "-c", "seq 200000 > /f"]).success();
    let out = mica.work().join("out");
    std::fs::create_dir(&out).unwrap();
    let file = out.join("x.tar");
    let name = file.to_str().unwrap();
    let output = format!("type=oci,dest={name}");
    let writers: [&[&str]; 3] = [
        &["save", "-o", name, "base"],
        &["export", "-o", name, "worker"],
        &["build", "-q", "-o", &output, &context],
    ];
    let watched = Watched::new(&mica, &["base"]);
    let mut chance = Chance::new();
    for arguments in writers {
        let within = duration_of(&mica, arguments);
        let complete = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        for round in 0..rounds().div_ceil(writers.len()) {
            kill_on_the_way(&mica, arguments, within, &mut chance);
            assert_complete_or_absent(&file, &complete, &format!("{arguments:?}, round {round}"));
            let _ = std::fs::remove_file(&file);
        }
        mica.run(arguments).success();
        assert!(std::fs::read(&file).unwrap() == complete, "{arguments:?}");
        std::fs::remove_file(&file).unwrap();
    }
    forget(&mica, FORGET_BUILD);
    watched.is_clean();
}

fn assert_complete_or_absent(file: &Path, complete: &[u8], what: &str) {
    if let Ok(bytes) = std::fs::read(file) {
        assert!(bytes == complete, "{what}: {} of {} bytes", bytes.len(), complete.len());
    }
}
