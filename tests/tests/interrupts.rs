//! Builds that are told to stop: at once, and without a trace.

use std::path::Path;
use std::time::Duration;

use mica_testkit::{Mica, Output, Running, peer};
use mica_tests::{Answer, Web, until, with_base};
use rustix::process::Signal;

/// A word that only the processes of one test have among their arguments.
fn mark(name: &str) -> String {
    format!("0.{}{}", std::process::id(), name.bytes().map(u64::from).sum::<u64>())
}

/// Arguments of processes that contain a word.
fn processes(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // It may have ended meanwhile.
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(word) {
            found.push(line);
        }
    }
    found
}

/// Starts a build of the files in `context/`.
fn start(mica: &Mica, dockerfile: &str, options: &[&str]) -> Running {
    mica.write("context/Dockerfile", dockerfile);
    let context = mica.work().join("context");
    let mut arguments = vec!["build", "--progress=plain"];
    arguments.extend(options);
    arguments.push(context.to_str().unwrap());
    mica.spawn(arguments)
}

/// Demands that a build ends as told, and that nothing of it is left. Ten seconds would be a bug, one may be a busy machine.
#[track_caller]
fn ends(mica: &Mica, mut build: Running, code: i32) -> Output {
    until("the build has ended", || !build.is_running());
    let output = build.wait().exits(code);
    let text = output.stderr_text();
    assert!(text.contains("context canceled") && !text.contains("------"), "{text}");
    clean(mica);
    output
}

/// Demands that no mount, workspace or lease of a store is left.
#[track_caller]
fn clean(mica: &Mica) {
    let root = mica.root();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(mounts) = std::fs::read_to_string(entry.path().join("mountinfo")) else { continue };
        assert!(!mounts.contains(root.to_str().unwrap()), "{}: {mounts}", entry.path().display());
    }
    for directory in ["active", "tmp", "leases"] {
        let left: Vec<_> = std::fs::read_dir(root.join(directory)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    mica.run(["system", "check"]).success();
}

#[test]
fn each_signal_that_asks_to_end_ends_a_step() {
    let Some(mica) = with_base() else { return };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mark = mark(&format!("{signal:?}"));
        let build = start(&mica, &format!("FROM base\nRUN sleep 77{mark}\n"), &[]);
        until("the step runs", || processes(&mark).iter().any(|line| line.starts_with("sleep ")));
        build.signal(signal);
        let text = ends(&mica, build, code).stderr_text();
        assert!(text.contains(" CANCELED\n"), "{text}");
        assert_eq!(processes(&mark), Vec::<String>::new());
    }
}

#[test]
fn steps_that_ignore_signals_and_their_children_end_too() {
    let Some(mica) = with_base() else { return };
    let mark = mark("stubborn");
    let script = format!("trap '' INT TERM HUP; sleep 77{mark} & setsid sleep 78{mark} & wait");
    let build = start(&mica, &format!("FROM base\nRUN {script}\n"), &[]);
    until("all of them run", || {
        processes(&mark).iter().filter(|line| line.starts_with("sleep ")).count() == 2
    });
    build.signal(Signal::INT);
    ends(&mica, build, 130);
    assert_eq!(processes(&mark), Vec::<String>::new());
}

#[test]
fn a_second_signal_kills_at_once_and_the_next_command_cleans_up() {
    let Some(mica) = with_base() else { return };
    let mark = mark("second");
    let mut build = start(&mica, &format!("FROM base\nRUN sleep 77{mark}\n"), &[]);
    until("the step runs", || processes(&mark).iter().any(|line| line.starts_with("sleep ")));
    build.signal(Signal::INT);
    build.signal(Signal::TERM);
    until("the build has ended", || !build.is_running());
    let code = build.wait().code();
    assert!([130, 143].contains(&code), "{code}");
    until("its step ends with it", || processes(&mark).is_empty());
    mica.run(["system", "gc"]).success();
    clean(&mica);
}

#[test]
fn a_context_that_is_being_read_is_given_up() {
    let Some(mica) = with_base() else { return };
    for number in 0..3000 {
        mica.write(format!("context/many/{}/{number}", number % 50), format!("{number}"));
    }
    let large = std::fs::File::create(mica.work().join("context/large")).unwrap();
    // a hole, which takes as long to hash as anything else: minutes in a debug build
    large.set_len(64 << 30).unwrap();
    let build = start(&mica, "FROM base\nCOPY . /all\n", &[]);
    std::thread::sleep(Duration::from_millis(500));
    build.signal(Signal::INT);
    let text = ends(&mica, build, 130).stderr_text();
    assert!(text.contains("[internal] load build context\n") && text.contains(" CANCELED\n"), "{text}");
}

#[test]
fn a_file_that_is_being_copied_is_given_up() {
    let Some(mica) = with_base() else { return };
    let made = "FROM base AS large\nRUN truncate -s 700M /large\n";
    start(&mica, made, &[]).wait().success();
    let build = start(&mica, &format!("{made}FROM base\nCOPY --from=large /large /\n"), &[]);
    std::thread::sleep(Duration::from_millis(300));
    build.signal(Signal::INT);
    ends(&mica, build, 130);
}

#[test]
fn an_export_that_is_given_up_leaves_no_file() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN head -c 100m /dev/urandom > /large\n";
    start(&mica, dockerfile, &[]).wait().success();
    let place = mica.work().join("out");
    std::fs::create_dir(&place).unwrap();
    let shown = place.display();
    let outputs = [
        format!("type=oci,dest={shown}/image.tar"),
        format!("type=docker,dest={shown}/image.tar"),
        format!("type=tar,dest={shown}/files.tar"),
    ];
    for output in outputs {
        let build = start(&mica, dockerfile, &["--output", &output]);
        std::thread::sleep(Duration::from_millis(700));
        build.signal(Signal::INT);
        let output = build.wait();
        // a small image on a fast disk is done before anybody can stop it
        if output.code() != 0 {
            let output = output.exits(130);
            assert!(output.stderr_text().contains("context canceled"));
            assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        }
        clean(&mica);
        empty(&place);
    }
}

fn empty(place: &Path) {
    for entry in std::fs::read_dir(place).unwrap().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
}

#[test]
fn a_source_that_does_not_come_is_given_up() {
    let Some(mica) = with_base() else { return };
    let web = Web::start();
    for path in ["/slow", "/slow.git/info/refs?service=git-upload-pack"] {
        web.answer(path, Answer::Silence);
    }
    for path in ["/slow", "/slow.git"] {
        if path.ends_with(".git") && peer::need("git").is_none() {
            continue;
        }
        let build = start(&mica, &format!("FROM base\nADD {} /slow\n", web.url(path)), &[]);
        until("it has asked", || web.log().iter().any(|line| line.contains(path)));
        build.signal(Signal::INT);
        ends(&mica, build, 130);
        until("its git has ended", || processes(&web.url(path)).is_empty());
    }
}

#[test]
fn a_reader_of_progress_that_goes_away_ends_the_build() {
    let Some(mica) = with_base() else { return };
    let mark = mark("reader");
    mica.write("context/Dockerfile", format!("FROM base\nRUN while true; do echo {mark}; sleep 0.1; done\n"));
    let context = mica.work().join("context");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut build = mica
        .command(["build", "--progress=plain", context.to_str().unwrap()])
        .stderr(writer)
        .spawn()
        .unwrap();
    until("the step runs", || !processes(&mark).is_empty());
    drop(reader);
    until("the build has ended", || build.try_wait().unwrap().is_some());
    assert_eq!(build.wait().unwrap().code(), Some(141));
    assert!(processes(&mark).is_empty());
    clean(&mica);
}
