//! Images and processes that attack who runs them (security.md section 1.5).

use std::process::Command;

use mica_oci::Digest;
use mica_testkit::{Mica, Output, needs_root, peer};
use mica_tests::{Build, Canary, SECRET, with_base, with_ids};

/// Stores with `base`: root's, and that of a user with subordinate ids.
fn stores() -> Vec<(&'static str, Mica)> {
    let root = with_base().map(|mica| ("root", mica));
    let user = with_ids().map(|mica| ("with ids", mica));
    root.into_iter().chain(user).collect()
}

/// `base` with these changes, as the image `evil`.
#[track_caller]
fn make(mica: &Mica, steps: &str) {
    mica.run_with_input(["build", "-q", "-t", "evil", "-"], format!("FROM base\n{steps}\n")).success();
}

/// `base` with these links, which no step can make because the runtime's own mounts are there.
#[track_caller]
fn make_with_links(mica: &Mica, links: &[(&str, &str)]) {
    let mut tar = mica_tests::TarMaker::new();
    for (name, target) in links {
        tar = tar.symlink(name, target);
    }
    mica.write("evil/links.tar", tar.finish());
    mica.write("evil/Dockerfile", "FROM base\nADD links.tar /\n");
    let context = mica.work().join("evil");
    mica.run(["build", "-q", "-t", "evil", context.to_str().unwrap()]).success();
}

#[track_caller]
fn safe(what: &str, output: &Output, canary: &Canary) {
    canary.check(what);
    assert!(!output.stdout_text().contains(SECRET), "{what}: {}", output.stdout_text());
    assert!(!output.stderr_text().contains("panicked"), "{what}: {}", output.stderr_text());
}

#[test]
fn standard_mounts_go_nowhere_else() {
    let canary = Canary::new();
    let target = canary.text();
    let up = format!("../../../../..{target}");
    for (who, mica) in stores() {
        for links in [
            &[("proc", target)][..],
            &[("sys", target)],
            &[("dev", target)],
            &[("proc", up.as_str())],
            &[("dev", "/tmp/dev"), ("tmp/dev", target)],
            &[("proc", "/sys")],
            &[("dev", "/proc/1/root")],
            &[("proc/self", target), ("dev/null", target), ("dev/console", target), ("dev/pts", target)],
            &[("dev/ptmx", target), ("dev/shm", target), ("dev/mqueue", target), ("sys/fs/cgroup", target)],
        ] {
            make_with_links(&mica, links);
            let what = format!("row 50: {links:?} ({who})");
            let script = "cat /proc/version /proc/self/comm; ls -l /dev; echo evil > /dev/file; echo evil > /proc/file; true";
            let ran = mica.run(["run", "--rm", "evil", "sh", "-c", script]);
            safe(&what, &ran, &canary);
            if ran.code() == 0 {
                let null = mica.run(["run", "--rm", "evil", "stat", "-c", "%t:%T", "/dev/null"]).success();
                assert_eq!(null.line(), "1:3", "row 51: {what}");
                let proc = mica.run(["run", "--rm", "evil", "stat", "-f", "-c", "%t", "/proc"]).success();
                assert_eq!(proc.line(), "9fa0", "row 52: {what}");
            }
            safe(&what, &mica.run_with_input(["build", "-"], format!("FROM evil\nRUN {script}\n")), &canary);
            if let (Some(runc), "root") = (peer::find("runc"), who) {
                let ran = mica.run([
                    "run",
                    "--rm",
                    "--runtime",
                    runc.to_str().unwrap(),
                    "evil",
                    "sh",
                    "-c",
                    script,
                ]);
                safe(&format!("{what} runc"), &ran, &canary);
            }
        }
    }
}

#[test]
fn files_that_mica_brings_go_nowhere_else() {
    let canary = Canary::new();
    let file = format!("{}/file", canary.text());
    for (who, mica) in stores() {
        for links in [
            &[
                ("etc/hosts", file.as_str()),
                ("etc/resolv.conf", file.as_str()),
                ("etc/hostname", file.as_str()),
            ][..],
            &[("etc/hosts", "/etc/passwd"), ("etc/resolv.conf", "hosts")],
            &[("etc/hosts", "hosts")],
            &[("etc/mtab", file.as_str()), ("run", canary.text())],
        ] {
            make_with_links(&mica, links);
            let what = format!("row 53: {links:?} ({who})");
            let script = "cat /etc/hosts; echo evil > /etc/hosts; echo evil > /etc/hostname; true";
            safe(
                &what,
                &mica.run(["run", "--rm", "--add-host", "a:1.2.3.4", "evil", "sh", "-c", script]),
                &canary,
            );
            safe(&what, &mica.run_with_input(["build", "-"], format!("FROM evil\nRUN {script}\n")), &canary);
        }
        mica.write(
            "evil/Dockerfile",
            "FROM scratch\nCOPY --from=base /bin /bin\nCOPY --from=base /usr /usr\nADD links.tar /\n",
        );
        let tar = mica_tests::TarMaker::new().symlink("etc", canary.text()).finish();
        mica.write("evil/links.tar", tar);
        let context = mica.work().join("evil");
        mica.run(["build", "-q", "-t", "evil", context.to_str().unwrap()]).success();
        safe(
            "row 53: /etc is a link",
            &mica.run(["run", "--rm", "evil", "sh", "-c", "ls -l /etc/; echo x > /etc/file"]),
            &canary,
        );
    }
}

#[test]
fn users_are_what_their_numbers_say() {
    let Some(mica) = with_base() else { return };
    for user in [
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "2147483648:4294967296",
        "+0",
        " 0",
        "0x0",
        "99999999999999999999",
        "1:",
        "a:b:c",
    ] {
        let output = mica.run(["run", "--rm", &format!("--user={user}"), "base", "id", "-u"]);
        assert!(output.code() == 125 || output.line() != "0", "row 54: {user:?} is root");
        assert!(output.code() == 125 || user == "1:", "row 54: {user:?}: {}", output.stdout_text());
        let built = Build::new(&mica, format!("FROM base\nUSER {user}\nRUN id -u > /tmp/id\n")).run();
        assert!(!built.stderr_text().contains("panicked"), "{user}: {}", built.stderr_text());
    }
    // A name made of digits is a number, whatever the image's files say.
    make(&mica, "RUN echo '1234:x:0:0::/:/bin/sh' >> /etc/passwd");
    assert_eq!(mica.run(["run", "--rm", "-u", "1234", "evil", "id", "-u"]).success().line(), "1234");
}

#[test]
fn files_of_users_are_read_with_limits() {
    let canary = Canary::new();
    let file = format!("{}/file", canary.text());
    let Some(mica) = with_base() else { return };
    let steps = [
        (
            "a link to the host",
            "RUN rm /etc/passwd /etc/group; ln -s FILE /etc/passwd; ln -s FILE /etc/group",
        ),
        ("pipes", "RUN rm /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group"),
        ("a directory", "RUN rm /etc/passwd; mkdir /etc/passwd"),
        ("a device", "RUN rm /etc/passwd; ln -s /dev/zero /etc/passwd"),
        ("a long line", "RUN (head -c 300000000 /dev/zero | tr '\\0' a; echo) > /etc/passwd"),
        ("many lines", "RUN yes a:x:1:1::/: | head -c 6000000 > /etc/passwd"),
        (
            "a line over 4 KiB",
            "RUN (printf who:x:0:0::; head -c 5000 /dev/zero | tr '\\0' a; echo) > /etc/passwd",
        ),
        ("numbers beyond 32 bits", "RUN echo 'who:x:4294967296:4294967296::/:' > /etc/passwd"),
        ("minus one", "RUN echo 'who:x:4294967295:0::/:' > /etc/passwd"),
        ("not UTF-8", "RUN printf 'who\\377:x:0:0::/:\\n' > /etc/passwd"),
    ];
    for (what, step) in steps {
        make(&mica, &step.replace("FILE", &file));
        let Some((output, peak)) =
            mica_tests::measured(&mica, &["run", "--rm", "-u", "who", "evil", "id", "-u"])
        else {
            return;
        };
        assert_eq!(output.code(), 125, "row 54: {what}: {}{}", output.stdout_text(), output.stderr_text());
        assert!(peak < 256 << 10, "row 54: {what}: {peak} KiB");
        safe(what, &output, &canary);
        // Numbers need no file, but the home and groups may be in it: a good answer or a clear error.
        let by_number = mica.run(["run", "--rm", "-u", "7:7", "evil", "grep", "Uid:", "/proc/self/status"]);
        assert!(
            by_number.stdout_text().contains("\t7\t7\t7") || by_number.stderr_text().contains("/etc/"),
            "{what}"
        );
    }
}

#[test]
fn volumes_and_mounts_stay_inside() {
    let canary = Canary::new();
    for (who, mica) in stores() {
        make(
            &mica,
            &format!(
                "RUN ln -s {0} /d && ln -s {0}/file /l && ln -s /proc /p\nVOLUME /d /l /d/sub",
                canary.text()
            ),
        );
        let own = mica_testkit::temp_dir();
        let bind = format!("{}:/d/inside", own.path().display());
        for options in [
            &[][..],
            &["-v", "data:/d"],
            &["-v", &bind],
            &["--tmpfs", "/d/t"],
            &["-v", "data:/l"],
            &["-w", "/d/new"],
            &["--mount", "type=volume,src=data,dst=/d/vol"],
            &["-v", "data:/p/sys"],
            &["-v", "data:/../../../x"],
            &["--tmpfs", "/proc"],
            &["-v", "data:/proc/self/fd"],
            &["--tmpfs", "/dev/../proc"],
        ] {
            let arguments = [
                &["run", "--rm"][..],
                options,
                &["evil", "sh", "-c", "ls /d/ /l; cat /d/file; echo evil > /d/file; echo evil > /l; true"],
            ]
            .concat();
            safe(&format!("row 55: {options:?} ({who})"), &mica.run(&arguments), &canary);
        }
        for options in [["--tmpfs", "/proc"], ["-v", "data:/p/sys"]] {
            let arguments = [&["run", "--rm"][..], &options, &["evil", "true"]].concat();
            let output = mica.run(&arguments);
            assert_ne!(output.code(), 0, "{options:?} is over /proc");
        }
        let kept = Command::new("grep").args(["-raFl", SECRET]).arg(mica.root()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "row 55 ({who})");
    }
}

#[test]
fn copies_execute_and_follow_nothing() {
    let canary = Canary::new();
    for (who, mica) in stores() {
        let made = mica.work().join("made");
        let evil = format!("printf '#!/bin/sh\\ntouch {}\\n' > /evil && chmod 755 /evil", made.display());
        make(
            &mica,
            &format!(
                "RUN {evil} && mkdir -p /lib/x86_64-linux-gnu /usr/bin && cp /evil /lib/x86_64-linux-gnu/libnss_files.so.2 && \
             for p in tar gzip xz zstd unpigz; do rm -f /bin/$p /usr/bin/$p; cp /evil /usr/bin/$p; done; \
             ln -s {0} /d; ln -s {0}/file /l; mkfifo /p; mkdir /own; echo own > /own/f",
                canary.text()
            ),
        );
        mica.run(["run", "--name", "box", "evil", "true"]).success();
        for source in [
            "box:/l",
            "box:/d",
            "box:/d/file",
            "box:/d/",
            "box:/own/../d/file",
            "box:/proc/1/root/l",
            "box:/../../../../l",
        ] {
            let target = mica.work().join("copied");
            let _ = std::fs::remove_dir_all(&target);
            std::fs::create_dir(&target).unwrap();
            std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            let what = format!("row 56: {source} ({who})");
            safe(&what, &mica.run(["cp", source, target.to_str().unwrap()]), &canary);
            safe(&what, &mica.run(["cp", "-L", source, target.to_str().unwrap()]), &canary);
            for entry in std::fs::read_dir(&target)
                .unwrap()
                .flatten()
                .filter(|entry| entry.file_type().unwrap().is_file())
            {
                assert!(!std::fs::read_to_string(entry.path()).unwrap().contains(SECRET), "{what}");
            }
        }
        let file = mica.write("new", "evil");
        for target in ["box:/l", "box:/d/", "box:/d/file", "box:/own/../d/"] {
            safe(
                &format!("row 56: to {target} ({who})"),
                &mica.run(["cp", file.to_str().unwrap(), target]),
                &canary,
            );
        }
        let exported = mica.run(["export", "box"]).success();
        assert!(!String::from_utf8_lossy(&exported.stdout).contains(SECRET));
        mica.run(["commit", "box", "again"]).success();
        mica.run(["diff", "box"]).success();
        mica.run(["save", "-o", mica.work().join("s.tar").to_str().unwrap(), "again"]).success();
        assert!(!made.exists(), "row 56: something of the image was executed ({who})");
        canary.check("row 56");
    }
}

#[test]
fn groups_are_the_image_s() {
    let Some(mica) = with_base() else { return };
    if !needs_root() {
        return;
    }
    let groups = |user: &str| {
        // The caller is in groups that mean something on the host.
        let plain = mica.command(["run", "--rm", "-u", user, "base", "id", "-G"]);
        let mut command = Command::new("setpriv");
        command.args(["--groups", "0,6,27,999"]).arg(plain.get_program()).args(plain.get_args());
        let variables = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let output = command.env_clear().envs(variables).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(groups("ann"), "1001 10");
    assert_eq!(groups("77"), "0");
    assert_eq!(groups("77:78"), "78");
    assert_eq!(groups("0"), "0");
}

#[test]
fn the_program_cannot_be_overwritten() {
    for (who, mica) in stores() {
        let program = mica.command([""]).get_program().to_owned();
        let before = Digest::of(&std::fs::read(&program).unwrap());
        let script = "for f in /proc/self/exe /proc/1/exe /proc/*/exe; do (echo evil > $f) 2>/dev/null; done; \
                      for n in 0 1 2 3 4 5 6 7 8 9 10 11 12; do (echo evil > /proc/1/fd/$n) 2>/dev/null; done; true";
        mica.run(["run", "--rm", "base", "sh", "-c", script]).success();
        make(
            &mica,
            "RUN printf '#!/proc/self/exe\\n' > /interpreter && chmod 755 /interpreter && ln -s /proc/self/exe /own",
        );
        for command in ["/proc/self/exe", "/interpreter", "/own", "/proc/1/exe"] {
            let output = mica.run(["run", "--rm", "evil", command, "version"]);
            assert!(
                !output.stdout_text().contains("mica"),
                "row 58: {command} ({who}): {}",
                output.stdout_text()
            );
            mica.run(["run", "--rm", "--init", "evil", "sh", "-c", script]);
        }
        let after = Digest::of(&std::fs::read(&program).unwrap());
        assert_eq!(before, after, "row 58 ({who})");
    }
}

#[test]
fn a_terminal_is_the_container_s_own() {
    let (Some(mica), Some(script)) = (with_base(), peer::need("script")) else { return };
    let plain =
        mica.command(["run", "--rm", "-it", "base", "sh", "-c", "tty; ls /dev/pts; ls -l /proc/self/fd/0"]);
    let words: Vec<String> = std::iter::once(plain.get_program())
        .chain(plain.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let output = Command::new(script)
        .args(["-qefc", &format!("tty; {}", words.join(" ")), "/dev/null"])
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let mut lines = text.lines();
    let (host, inside) = (lines.next().unwrap(), lines.next().unwrap().trim_start_matches(['^', '@']));
    assert!(host.starts_with("/dev/pts/"), "{text}");
    assert_eq!(inside, "/dev/pts/0", "row 60: the first of an instance of its own: {text}");
}
