//! `mica run` and the containers it leaves.

use std::process::{Command, Stdio};

use mica_testkit::{Mica, Output, peer};
use mica_tests::{Build, holds, until, with_base};
use serde_json::json;

/// Runs a script of the shell in a container that is removed.
#[track_caller]
fn shell(mica: &Mica, options: &[&str], script: &str) -> Output {
    mica.run([&["run", "--rm"], options, &["base", "sh", "-c", script]].concat())
}

#[track_caller]
fn status(mica: &Mica, name: &str) -> String {
    let filter = format!("name={name}");
    mica.run(["ps", "-a", "--filter", &filter, "--format", "{{.State}} {{.Status}}"]).success().line()
}

#[test]
fn exit_codes_are_passed_on() {
    let Some(mica) = with_base() else { return };
    shell(&mica, &[], "exit 0").exits(0);
    shell(&mica, &[], "exit 1").exits(1);
    shell(&mica, &[], "exit 200").exits(200);
    shell(&mica, &[], "sh -c 'kill -9 $$'; exit $?").exits(137);
    mica.run(["run", "--rm", "base", "nosuchprogram"])
        .exits(127)
        .complains("executable file not found in $PATH");
    mica.run(["run", "--rm", "base", "/etc"]).exits(126).complains("permission denied");
    mica.run(["run", "--rm", "nosuch:1", "true"])
        .exits(125)
        .complains("Unable to find image 'nosuch:1' locally");
    mica.run(["run", "--rm", "-v", "relative:", "base", "true"]).exits(125);
    mica.run(["run", "--no-such-flag", "base"]).exits(125).complains("unknown flag: --no-such-flag");
    assert_eq!(
        mica.run(["ps", "-aq"]).success().stdout_text(),
        "",
        "nothing is left by --rm and by failures"
    );
}

#[test]
fn streams_are_kept_apart_and_input_arrives() {
    let Some(mica) = with_base() else { return };
    let output = shell(&mica, &[], "echo out; echo err >&2").success();
    assert_eq!((output.stdout_text().as_str(), output.stderr_text().as_str()), ("out\n", "err\n"));
    let piped = mica.run_with_input(["run", "--rm", "-i", "base", "cat"], "a\nb").success();
    assert_eq!(piped.stdout_text(), "a\nb");
    let deaf = mica.run_with_input(["run", "--rm", "base", "cat"], "a\nb").success();
    assert_eq!(deaf.stdout_text(), "");
    let much = mica.run(["run", "--rm", "base", "head", "-c", "3000000", "/dev/zero"]).success();
    assert_eq!(much.stdout.len(), 3_000_000);
}

#[test]
fn a_terminal_is_a_terminal_inside_too() {
    let Some(mica) = with_base() else { return };
    let Some(script) = peer::need("script") else { return };
    let command = mica.command([""]);
    let inner = "tty; test -t 0 && test -t 1 && echo yes; stty size; exit 3";
    let line = format!(
        "stty rows 30 cols 90; {} run --rm -it base sh -c '{inner}'",
        command.get_program().to_str().unwrap()
    );
    let output = Command::new(script)
        .args(["-qefc", &line, "/dev/null"])
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    holds(&text, &["/dev/pts/", "yes\r\n", "30 90\r\n"]);
    let deaf = mica.run(["run", "--rm", "-it", "base", "true"]).complains("the input device is not a TTY");
    assert_ne!(deaf.code(), 0);
}

#[test]
fn environment_directory_and_user_can_be_given() {
    let Some(mica) = with_base() else { return };
    let mica = mica.env("FORWARDED", "f");
    let env =
        shell(&mica, &["-e", "A=1", "-e", "FORWARDED", "-e", "UNSET_HERE"], "env").success().stdout_text();
    holds(&env, &["A=1\n", "FORWARDED=f\n", "HOME=/root\n", "HOSTNAME="]);
    assert!(!env.contains("UNSET_HERE"));
    assert_eq!(shell(&mica, &["-w", "/new/dir"], "pwd").success().line(), "/new/dir");
    let id = shell(&mica, &["-u", "ann"], "id; echo $HOME").success().stdout_text();
    holds(&id, &["uid=1000(ann) gid=1001(ann)", "10(wheel)", "/home/ann\n"]);
    holds(&shell(&mica, &["-u", "7:8"], "id").success().stdout_text(), &["uid=7 gid=8"]);
    let nobody = shell(&mica, &["-u", "nosuch"], "id");
    assert!([125, 126].contains(&nobody.code()));
    holds(&nobody.stderr_text(), &["unable to find user nosuch"]);
    assert_eq!(shell(&mica, &["-h", "host"], "hostname").success().line(), "host");
    let pinned = mica.run(["run", "--rm", "--entrypoint", "echo", "base", "a", "b"]).success();
    assert_eq!(pinned.line(), "a b");
}

#[test]
fn directories_can_be_mounted() {
    let Some(mica) = with_base() else { return };
    let file = mica.write("v/f", "outside\n");
    let folder = file.parent().unwrap().to_str().unwrap();
    let volume = format!("{folder}:/v");
    assert_eq!(shell(&mica, &["-v", &volume], "cat /v/f; echo new > /v/g").success().line(), "outside");
    assert_eq!(std::fs::read_to_string(format!("{folder}/g")).unwrap(), "new\n");
    shell(&mica, &["-v", &format!("{volume}:ro")], "echo x > /v/h")
        .exits(1)
        .complains("Read-only file system");
    let one = format!("{folder}/f:/etc/one");
    assert_eq!(shell(&mica, &["-v", &one], "cat /etc/one").success().line(), "outside");
    let long = format!("type=bind,src={folder},dst=/m,readonly");
    assert_eq!(shell(&mica, &["--mount", &long], "cat /m/f").success().line(), "outside");
    let tmpfs = shell(&mica, &["--tmpfs", "/t:size=1m"], "grep ' /t ' /proc/mounts; echo x > /t/x").success();
    holds(&tmpfs.stdout_text(), &["tmpfs /t tmpfs rw,nosuid,nodev,noexec", "size=1024k"]);
    mica.run(["run", "--rm", "-v", "/no/such/place:/m:ro", "base", "true"]);
    assert!(!std::path::Path::new("/no").exists() || std::fs::remove_dir_all("/no").is_ok());
}

#[test]
fn the_root_can_be_read_only() {
    let Some(mica) = with_base() else { return };
    shell(&mica, &["--read-only"], "echo x > /f").exits(1).complains("Read-only file system");
    shell(&mica, &["--read-only", "--tmpfs", "/tmp"], "echo x > /tmp/f && echo x > /dev/shm/f").success();
}

#[test]
fn containers_are_confined() {
    let Some(mica) = with_base() else { return };
    let state = |options: &[&str]| shell(&mica, options, "cat /proc/self/status").success().stdout_text();
    let usual = state(&[]);
    holds(
        &usual,
        &[
            "CapEff:\t00000000800405fb\n",
            "CapBnd:\t00000000800405fb\n",
            "Seccomp:\t2\n",
            "CapAmb:\t0000000000000000\n",
        ],
    );
    holds(&state(&["--cap-drop", "ALL"]), &["CapEff:\t0000000000000000\n"]);
    holds(&state(&["--cap-drop", "all", "--cap-add", "CHOWN"]), &["CapEff:\t0000000000000001\n"]);
    holds(&state(&["--cap-add", "NET_RAW"]), &["CapEff:\t00000000800425fb\n"]);
    holds(&state(&["--security-opt", "seccomp=unconfined"]), &["Seccomp:\t0\n"]);
    holds(&state(&["--security-opt", "no-new-privileges"]), &["NoNewPrivs:\t1\n"]);
    holds(&state(&["-u", "ann"]), &["CapEff:\t0000000000000000\n"]);
    let bad = mica.run(["run", "--rm", "--cap-add", "NOSUCH", "base", "true"]).exits(125);
    holds(&bad.stderr_text(), &["NOSUCH"]);
    let mounts = shell(&mica, &[], "cat /proc/mounts").success().stdout_text();
    for path in ["/proc/sys", "/proc/bus", "/proc/irq", "/sys"] {
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(path))
            .unwrap_or_else(|| panic!("{path}: {mounts}"));
        assert!(line.split(' ').nth(3).unwrap().starts_with("ro"), "{line}");
    }
    for (script, why) in [
        ("cat /proc/kcore > /dev/null && test -s /proc/kcore", "kernel memory"),
        ("test -s /proc/keys", "keys"),
        ("ls /sys/firmware | grep .", "firmware"),
        ("mount -t tmpfs none /mnt", "mounting"),
        ("mknod /m b 8 0 && cat /m", "devices"),
        ("unshare -U true", "user namespaces"),
        ("chroot / unshare -m true", "mount namespaces"),
        ("echo 1 > /proc/sys/kernel/panic", "kernel settings"),
        ("hostname other", "the host name"),
        ("kill -0 2>/dev/null $(($$ + 10000))", "other processes"),
    ] {
        assert_ne!(shell(&mica, &[], script).code(), 0, "{why}: `{script}` works");
    }
    let count = shell(&mica, &[], "ls /proc | grep -c '^[0-9]'").success().line();
    assert!(count.parse::<u32>().unwrap() < 8, "a process namespace of its own: {count}");
}

#[test]
fn no_descriptor_of_mica_s_is_inherited() {
    let Some(mica) = with_base() else { return };
    let listed = shell(&mica, &[], "for fd in /proc/self/fd/*; do echo ${fd##*/}; done; ls /proc/1/fd; true")
        .success();
    let numbers: Vec<u32> = listed.stdout_text().lines().filter_map(|line| line.parse().ok()).collect();
    // The shell opens the directory itself while it expands.
    assert!(numbers.iter().filter(|number| **number > 2).count() <= 1, "{numbers:?}");
    assert!(numbers.len() >= 6, "{numbers:?}");
    let built = Build::new(&mica, "FROM base\nRUN ls /proc/1/fd > /fds; true\n").succeeds();
    let inside = built.tree().text("/fds");
    // The shell keeps its own from 10 on.
    assert_eq!(
        inside
            .lines()
            .filter(|line| line.parse::<u32>().is_ok_and(|number| (3..10).contains(&number)))
            .count(),
        0,
        "{inside}"
    );
}

#[test]
fn limits_and_networks_can_be_set() {
    let Some(mica) = with_base() else { return };
    let links = shell(&mica, &["--network", "none"], "ip -o link | wc -l").success().line();
    assert_eq!(links, "1");
    shell(&mica, &["--network", "host"], "true").success();
    let files = shell(&mica, &["--ulimit", "nofile=64"], "ulimit -n").success().line();
    assert_eq!(files, "64");
    let shm =
        shell(&mica, &["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'").success().line();
    assert_eq!(shm, "1024");
    let hosts = shell(&mica, &["--add-host", "there:10.1.2.3"], "cat /etc/hosts").success().stdout_text();
    holds(&hosts, &["10.1.2.3\tthere\n"]);
    let pids = shell(&mica, &["--pids-limit", "10"], "for i in $(seq 30); do sleep 1 & done; wait");
    let said = pids.stderr_text();
    assert!(said.contains("can't fork") || said.contains("pids"), "limited, or said that it is not: {said}");
}

#[test]
fn containers_are_listed_and_removed() {
    let Some(mica) = with_base() else { return };
    mica.run(["run", "--name", "first", "base", "sh", "-c", "exit 7"]).exits(7);
    mica.run(["run", "base", "true"]).success();
    assert_eq!(mica.run(["ps", "-q"]).success().stdout_text(), "");
    let table = mica.run(["ps", "-a"]).success().stdout_text();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    holds(&table, &["\"sh -c 'exit 7'\"", "Exited (7) ", "first"]);
    let names = mica.run(["ps", "-a", "--format", "{{.Names}}"]).success().stdout_text();
    let random = names.lines().find(|name| *name != "first").unwrap();
    assert!(random.contains('_'), "{random}");
    mica.run(["run", "--name", "first", "base", "true"]).exits(125).complains("already in use");
    let inspected = mica.run(["inspect", "first"]).success().json()[0].take();
    assert_eq!(
        (&inspected["State"]["ExitCode"], &inspected["State"]["Status"]),
        (&json!(7), &json!("exited"))
    );
    assert_eq!((&inspected["Name"], &inspected["Path"]), (&json!("/first"), &json!("sh")));
    assert_eq!(mica.run(["rm", "first", random]).success().stdout_text(), format!("first\n{random}\n"));
    mica.run(["rm", "first"]).exits(1).complains("No such container: first");
    assert_eq!(mica.run(["ps", "-aq"]).success().stdout_text(), "");
    let left = std::fs::read_dir(mica.root().join("containers")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn logs_say_what_was_printed() {
    let Some(mica) = with_base() else { return };
    mica.run([
        "run",
        "--name",
        "talker",
        "base",
        "sh",
        "-c",
        "echo one; echo two >&2; sleep 0.2; echo three",
    ])
    .success();
    let logs = mica.run(["logs", "talker"]).success();
    assert_eq!((logs.stdout_text().as_str(), logs.stderr_text().as_str()), ("one\nthree\n", "two\n"));
    assert_eq!(mica.run(["logs", "-n", "1", "talker"]).success().stdout_text(), "three\n");
    let stamped = mica.run(["logs", "-t", "talker"]).success().stdout_text();
    assert!(stamped.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "{stamped}");
}

#[test]
fn a_changed_container_becomes_an_image() {
    let Some(mica) = with_base() else { return };
    let script = "echo a > /f; rm /etc/group; echo b >> /etc/passwd; mkdir /d; ln -s /f /d/l";
    mica.run(["run", "--name", "worker", "base", "sh", "-c", script]).success();
    let mut changes: Vec<String> =
        mica.run(["diff", "worker"]).success().stdout_text().lines().map(str::to_owned).collect();
    changes.sort();
    assert_eq!(changes, ["A /d", "A /d/l", "A /f", "C /etc", "C /etc/passwd", "D /etc/group"]);
    let arguments = [
        "commit",
        "-a",
        "ann",
        "-m",
        "why",
        "-c",
        "ENV A=1",
        "-c",
        "CMD [\"cat\", \"/f\"]",
        "worker",
        "made:1",
    ];
    let id = mica.run(arguments).success().line();
    assert!(id.starts_with("sha256:") && id.len() == 71);
    assert_eq!(mica.run(["run", "--rm", "made:1"]).success().line(), "a");
    let found = mica.run(["image", "inspect", "made:1"]).success().json()[0].take();
    assert_eq!((&found["Id"], &found["Author"]), (&json!(id), &json!("ann")));
    holds(&found["Config"]["Env"].to_string(), &["A=1"]);
    let history =
        mica.run(["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "made:1"]).success();
    assert_eq!(history.stdout_text().lines().next().unwrap(), format!("sh -c {script}|why"));
    shell(&mica, &[], "true").success();
    mica.run(["run", "--rm", "made:1", "test", "-e", "/etc/group"]).exits(1);
    mica.run(["commit", "-c", "RUN x", "worker"]).exits(1).complains("is not a valid change command");
}

#[test]
fn files_go_in_and_out() {
    let Some(mica) = with_base() else { return };
    mica.run([
        "run",
        "--name",
        "box",
        "base",
        "sh",
        "-c",
        "mkdir /d && echo a > /d/f && ln -s /etc/passwd /d/l",
    ])
    .success();
    let out = mica.work().join("out");
    let out_text = out.to_str().unwrap();
    mica.run(["cp", "box:/d", out_text]).success();
    assert_eq!(std::fs::read_to_string(out.join("f")).unwrap(), "a\n");
    assert_eq!(std::fs::read_link(out.join("l")).unwrap().to_str(), Some("/etc/passwd"));
    let new = mica.write("new", "n\n");
    mica.run(["cp", new.to_str().unwrap(), "box:/d/"]).success();
    let tar = mica.run(["cp", "box:/d/new", "-"]).success().stdout;
    assert!(String::from_utf8_lossy(&tar).contains("new"));
    mica.run_with_input(["cp", "-", "box:/d"], tar).success();
    mica.run(["cp", "box:/nosuch", out_text]).exits(1).complains("/nosuch");
    mica.run(["commit", "box", "boxed"]).success();
    assert_eq!(mica.run(["run", "--rm", "boxed", "cat", "/d/new"]).success().line(), "n");
}

#[test]
fn copying_in_never_leaves_the_container() {
    let Some(mica) = with_base() else { return };
    let outside = mica.work().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let script =
        format!("ln -s {} /abs; ln -s ../../../../../../..{} /rel", outside.display(), outside.display());
    mica.run(["run", "--name", "trap", "base", "sh", "-c", &script]).success();
    let new = mica.write("new", "n\n");
    mica.run(["cp", new.to_str().unwrap(), "trap:/abs/"]);
    mica.run(["cp", new.to_str().unwrap(), "trap:/rel/x"]);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn signals_reach_the_program() {
    let Some(mica) = with_base() else { return };
    let script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let running = mica.spawn(["run", "--name", "waiter", "base", "sh", "-c", script]);
    until("the program is ready", || mica.run(["logs", "waiter"]).stdout_text().contains("ready"));
    assert!(status(&mica, "waiter").starts_with("running Up "));
    mica.run(["rm", "waiter"]).exits(1).complains("running");
    running.signal(rustix::process::Signal::TERM);
    let output = running.wait().exits(5);
    assert_eq!(output.stdout_text(), "ready\ngot\n");
}

#[test]
fn a_container_is_seen_as_it_is_after_mica_was_killed() {
    let Some(mica) = with_base() else { return };
    let running = mica.spawn(["run", "--name", "orphan", "base", "sleep", "100"]);
    until("it runs", || status(&mica, "orphan").starts_with("running"));
    let process = mica.run(["inspect", "-f", "{{.State.Pid}}", "orphan"]).success().line();
    running.kill();
    until("it is seen to have ended", || !status(&mica, "orphan").starts_with("running"));
    let seen = status(&mica, "orphan");
    assert!(seen.starts_with("dead") || seen.starts_with("exited"), "{seen}");
    until("nothing runs on", || !std::path::Path::new(&format!("/proc/{process}")).exists());
    mica.run(["rm", "orphan"]).success();
    mica.run(["system", "check"]).success();
}

#[test]
fn a_killed_program_is_removed_by_force() {
    let Some(mica) = with_base() else { return };
    let running = mica.spawn(["run", "--name", "victim", "base", "sleep", "100"]);
    until("it runs", || status(&mica, "victim").starts_with("running"));
    mica.run(["rm", "-f", "victim"]).success();
    running.wait().exits(137);
    assert_eq!(mica.run(["ps", "-aq"]).success().stdout_text(), "");
}

#[test]
fn a_gc_leaves_what_a_container_uses() {
    let Some(mica) = with_base() else { return };
    let running =
        mica.spawn(["run", "--rm", "--name", "user", "base", "sh", "-c", "sleep 1; cat /etc/passwd"]);
    until("it runs", || status(&mica, "user").starts_with("running"));
    mica.run(["rmi", "-f", "base"]);
    mica.run(["builder", "prune", "-af"]).success();
    mica.run(["system", "gc"]).success();
    assert!(running.wait().success().stdout_text().starts_with("root:x:0:0"));
    mica.run(["system", "check"]).success();
}

#[test]
fn other_runtimes_give_the_same_container() {
    let Some(mica) = with_base() else { return };
    let mut tried = 0;
    for runtime in ["runc", "crun", "youki"] {
        let Some(program) = peer::find(runtime) else { continue };
        let output = mica.run([
            "run",
            "--rm",
            "--runtime",
            program.to_str().unwrap(),
            "base",
            "sh",
            "-c",
            "echo hi; exit 4",
        ]);
        if output.code() != 4 && output.stderr_text().contains("cgroup") {
            mica_testkit::skip(&format!("{runtime} cannot use this machine's control groups"));
            continue;
        }
        assert_eq!(output.exits(4).stdout_text(), "hi\n", "{runtime}");
        tried += 1;
    }
    if tried == 0 {
        mica_testkit::skip("no other runtime");
    }
}
