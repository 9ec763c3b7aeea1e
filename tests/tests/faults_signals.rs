//! Signals, readers that go away, holders of locks that do not move: row 24 of docs/security.md section 2.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::Mica;
use mica_testkit::fault::{Chance, duration_of, rounds};
use mica_tests::{Build, Disk, Watched, holds, nothing_runs, until_shown, with_base, with_base_on};
use rustix::process::{Pid, Signal};

#[test]
fn an_interrupted_build_ends_at_once_and_cleanly() {
    let Some(mica) = with_base() else { return };
    let watched = Watched::new(&mica, &["base"]);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let build = Build::new(&mica, "FROM base\nRUN echo started; sleep 100\n");
        let log = mica.work().join("log");
        let mut command = mica.command(["build", "--progress=plain"]);
        command.arg(build.context()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        until_shown(&log, " started\n");
        let asked = Instant::now();
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{}", std::fs::read_to_string(&log).unwrap());
        assert!(asked.elapsed() < Duration::from_secs(5));
        nothing_runs(&mica);
        for folder in ["active", "leases"] {
            assert_eq!(std::fs::read_dir(mica.root().join(folder)).unwrap().count(), 0, "{folder}");
        }
    }
    watched.is_clean();
}

#[test]
fn every_command_can_be_interrupted_at_any_moment() {
    let Some(disk) = Disk::memory() else { return };
    let Some(mica) = with_base_on(&disk) else { return };
    let build = Build::new(&mica, "FROM base\nCOPY . /d\nRUN seq 1000 > /f\n").prepare("seq 100000 > f");
    let context = build.context().to_str().unwrap().to_owned();
    let archive = mica.work().join("x.tar");
    let archive = archive.to_str().unwrap();
    mica.run(["save", "-o", archive, "base"]).success();
    let commands: [&[&str]; 5] = [
        &["build", "-q", "-t", "x", &context],
        &["load", "-q", "-i", archive],
        &["run", "--rm", "base", "true"],
        &["builder", "prune", "-af"],
        &["save", "base"],
    ];
    let watched = Watched::new(&mica, &["base"]);
    let mut chance = Chance::new();
    for round in 0..rounds() {
        let arguments = commands[round % commands.len()];
        let within = duration_of(&mica, arguments);
        mica.run(["builder", "prune", "-af"]).success();
        let signal = [Signal::INT, Signal::TERM, Signal::HUP][round % 3];
        let running = mica.spawn(arguments);
        std::thread::sleep(chance.delay(within));
        running.signal(signal);
        let output = running.wait();
        let expected = [0, 1, 128 + signal.as_raw()];
        assert!(expected.contains(&output.code()), "round {round}: {arguments:?} exits {}", output.code());
        assert!(!output.stderr_text().contains("panicked"), "{output:?}");
        watched.is_sound(&format!("round {round}: {arguments:?}"));
    }
    for undo in [&["rmi", "x"][..], &["image", "prune", "-f"], &["builder", "prune", "-af"]] {
        mica.run(undo);
    }
    let ids = mica.run(["ps", "-aq"]).success().stdout_text();
    ids.lines().for_each(|id| drop(mica.run(["rm", id]).success()));
    watched.is_clean();
}

#[test]
fn an_interrupted_export_leaves_no_file() {
    let Some(mica) = with_base() else { return };
    Build::new(&mica, "FROM base\nRUN head -c 60000000 /dev/urandom > /big\n").succeeds();
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

/// A store whose output of every kind is longer than a pipe takes.
fn with_much_to_say() -> Option<(Mica, Vec<Vec<&'static str>>)> {
    let mica = with_base()?;
    let script = "seq 200000; head -c 300000 /dev/zero > /f";
    mica.run(["run", "--name", "worker", "base", "sh", "-c", script]).success();
    let commands = [
        "images",
        "ps -a",
        "inspect base",
        "history base",
        "system df -v",
        "info",
        "logs worker",
        "save base",
        "export worker",
        "cp worker:/ -",
        "--help",
    ];
    Some((mica, commands.into_iter().map(|command| command.split(' ').collect()).collect()))
}

#[test]
fn a_reader_that_goes_away_ends_a_command_in_silence() {
    let Some((mica, commands)) = with_much_to_say() else { return };
    let mut broken = 0;
    for arguments in commands {
        let mut command = mica.command(&arguments);
        let mut child = command.spawn().unwrap();
        // Like `head -c 1`.
        let mut byte = [0];
        child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 141)), "{arguments:?} exits {code:?}");
        broken += usize::from(code == Some(141));
    }
    assert!(broken >= 4, "only {broken} commands noticed");
    nothing_runs(&mica);
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let Some((mica, commands)) = with_much_to_say() else { return };
    let run = "run --rm base echo hi".split(' ').collect();
    for arguments in commands.into_iter().chain([run]) {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = mica.command(&arguments).stdout(full).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1..=125)), "{arguments:?}: {said}");
        holds(&said, &["error: ", "No space left on device"]);
    }
    nothing_runs(&mica);
}

#[test]
fn closed_standard_streams_hurt_nothing() {
    let Some((mica, commands)) = with_much_to_say() else { return };
    for arguments in commands {
        // The files that are opened first must not be taken for the streams.
        let script = "exec \"$@\" <&- >&- 2>&-";
        let output = mica.run_under(&["/bin/sh", "-c", script, "sh"], &arguments);
        assert!((0..=125).contains(&output.code()), "{arguments:?} exits {}", output.code());
    }
    mica.run(["system", "check"]).success();
    assert_eq!(mica.run(["run", "--rm", "base", "echo", "hi"]).success().line(), "hi");
}

/// Sends a signal to this process alone.
fn send(child: &std::process::Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).expect("our own child");
}

/// Stops a build in the middle of a step, so that it holds what it holds.
#[test]
fn a_stopped_build_is_named_by_those_that_wait_for_it_and_blocks_nobody_else() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN echo started; sleep 2; echo done > /f\n";
    let log = mica.work().join("log");
    let context = Build::new(&mica, dockerfile).context();
    let start = |log: &PathBuf| {
        let mut command = mica.command(["build", "--progress=plain"]);
        command.arg(&context).stderr(std::fs::File::create(log).unwrap()).stdout(Stdio::null());
        command.spawn().unwrap()
    };
    let mut holder = start(&log);
    until_shown(&log, " started\n");
    send(&holder, Signal::STOP);
    let reads: [&[&str]; 5] =
        [&["images"], &["ps", "-a"], &["system", "df"], &["system", "gc"], &["run", "--rm", "base", "true"]];
    for arguments in reads {
        mica.run(arguments).success();
    }
    Build::again(&mica, "FROM base\nRUN echo other > /f\n").run().success();
    mica.write("context/Dockerfile", dockerfile);
    let waiting_log = mica.work().join("waiting");
    let mut waiting = start(&waiting_log);
    until_shown(&waiting_log, &format!("waiting for process {}", holder.id()));
    // Who waits can give up.
    send(&waiting, Signal::INT);
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    send(&holder, Signal::CONT);
    assert!(holder.wait().unwrap().success());
    nothing_runs(&mica);
}

#[test]
fn a_stopped_collector_is_named_and_waited_for() {
    let Some(mica) = with_base() else { return };
    // The lock as a collector takes it, held by a process that does not move.
    let lock = mica.root().join("locks/gc");
    let script =
        "echo $$ > \"$0\"; exec 9<>\"$0\"; flock 9; printf %s $$ > \"$0\"; echo held; exec sleep 100";
    let mut holder =
        Command::new("/bin/sh").args(["-c", script]).arg(&lock).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 5];
    holder.stdout.take().unwrap().read_exact(&mut word).unwrap();
    let waiting_log = mica.work().join("waiting");
    let mut command = mica.command(["builder", "prune", "-af"]);
    let mut waiting = command.stderr(std::fs::File::create(&waiting_log).unwrap()).spawn().unwrap();
    until_shown(&waiting_log, &format!("waiting for process {}, which is collecting", holder.id()));
    mica.run(["images"]).success();
    mica.run(["run", "--rm", "base", "true"]).success();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(100);
    while waiting.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the collector never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(waiting.wait().unwrap().success(), "{}", std::fs::read_to_string(&waiting_log).unwrap());
}
