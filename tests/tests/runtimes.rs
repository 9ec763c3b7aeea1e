//! Other OCI runtimes with the same bundle: runc and crun, for `run` and for RUN steps.

use std::path::{Path, PathBuf};

use mica_testkit::{Mica, Output, peer, skip};
use mica_tests::with_base;

/// A way to start mica in which a runtime works.
struct Place {
    name: &'static str,
    program: PathBuf,
    /// Whether only a pure cgroup2 may be at `/sys/fs/cgroup`.
    unified: bool,
}

impl Place {
    fn run(&self, mica: &Mica, arguments: &[&str]) -> Output {
        let program = self.program.to_str().unwrap();
        let (verb, rest) = arguments.split_first().unwrap();
        let plain = mica.command([&[*verb, "--runtime", program], rest].concat());
        if !self.unified {
            return mica.run(plain.get_args());
        }
        // crun refuses hosts on which both versions of control groups are mounted.
        let script = "mount --make-rprivate / && { umount -R /sys/fs/cgroup || umount -lR /sys/fs/cgroup; } && \
                      mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
        let mut words = vec![
            "-m".into(),
            "sh".into(),
            "-ec".into(),
            script.into(),
            "sh".into(),
            plain.get_program().to_owned(),
        ];
        words.extend(plain.get_args().map(ToOwned::to_owned));
        mica.run_program(Path::new("/usr/bin/unshare"), words)
    }
}

fn places() -> Vec<Place> {
    let hybrid = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let places = [("runc", false), ("crun", hybrid)];
    places
        .into_iter()
        .filter_map(|(name, unified)| Some(Place { name, program: peer::need(name)?, unified }))
        .collect()
}

/// Whether this runtime can make any container here; a counted skip if not.
fn works(place: &Place, mica: &Mica) -> bool {
    let output = place.run(mica, &["run", "--rm", "base", "true"]);
    let said = output.stderr_text();
    let machine = output.code() != 0 && (said.contains("cgroup") || said.contains("RLIM"));
    if machine {
        skip(&format!("{} does not work here: {said}", place.name));
    }
    !machine
}

#[test]
fn other_runtimes_run_the_same_container() {
    let Some(mica) = with_base() else { return };
    for place in places().iter().filter(|place| works(place, &mica)) {
        let name = place.name;
        let run = |arguments: &[&str]| place.run(&mica, &[&["run", "--rm"], arguments].concat());
        assert_eq!(run(&["base", "sh", "-c", "echo hi; exit 4"]).exits(4).stdout_text(), "hi\n", "{name}");
        let status = run(&["base", "cat", "/proc/self/status"]).success().stdout_text();
        for line in [
            "CapEff:\t00000000800405fb",
            "CapBnd:\t00000000800405fb",
            "CapInh:\t0000000000000000",
            "Seccomp:\t2",
            "NoNewPrivs:\t0",
        ] {
            assert!(status.contains(line), "{name}: no {line:?} in {status}");
        }
        let user = run(&[
            "-u",
            "ann",
            "-e",
            "A=1",
            "-w",
            "/tmp",
            "-h",
            "there",
            "base",
            "sh",
            "-c",
            "id; pwd; hostname; echo $A $HOME",
        ]);
        assert_eq!(
            user.success().stdout_text(),
            "uid=1000(ann) gid=1001(ann) groups=10(wheel),1001(ann)\n/tmp\nthere\n1 /home/ann\n",
            "{name}"
        );
        for (script, why) in [
            ("unshare -U true", "user namespaces"),
            ("mknod /m b 8 0", "devices"),
            ("echo 1 > /proc/sys/kernel/panic", "kernel settings"),
            ("test -s /proc/keys", "keys"),
            ("ls /sys/firmware | grep .", "firmware"),
            ("mount -t tmpfs none /mnt", "mounting"),
        ] {
            assert_ne!(run(&["base", "sh", "-c", script]).code(), 0, "{name}: {why}");
        }
        assert_eq!(run(&["base", "sh", "-c", "ulimit -c"]).success().line(), "0", "{name}: core files");
        let mounted = mica.write("mounted/f", "here");
        let volume = format!("{}:/m:ro", mounted.parent().unwrap().display());
        let output = run(&[
            "-v",
            &volume,
            "--tmpfs",
            "/t",
            "base",
            "sh",
            "-c",
            "cat /m/f; touch /t/x && ! touch /m/x 2>/dev/null",
        ]);
        assert_eq!(output.success().stdout_text(), "here", "{name}");
    }
}

#[test]
fn other_runtimes_run_the_same_steps() {
    let Some(mica) = with_base() else { return };
    mica.write("c/Dockerfile", concat!(
        "FROM base\nRUN echo one > /one && rm /etc/group\n",
        "RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/t --mount=type=secret,id=s,required ",
        "--mount=target=/ctx cp /run/secrets/s /cache/copy && cp /ctx/f /f && touch /t/x\n",
        "RUN --network=none ls /sys/class/net > /net\nUSER ann\nRUN id -u > /tmp/id\n",
    ));
    let context = mica.write("c/f", "f");
    let context = context.parent().unwrap().to_str().unwrap();
    let secret = format!("id=s,src={}", mica.write("secret", "x").display());
    let build = |place: Option<&Place>| {
        let arguments =
            ["build", "-q", "--no-cache", "--secret", &secret, "-o", "type=tar,dest=out.tar", context];
        match place {
            Some(place) => place.run(&mica, &arguments).success(),
            None => mica.run(arguments).success(),
        };
        entries(&mica.work().join("out.tar"))
    };
    let own = build(None);
    for place in places().iter().filter(|place| works(place, &mica)) {
        assert_eq!(build(Some(place)), own, "{} makes the same files", place.name);
        mica.write("fail/Dockerfile", "FROM base\nRUN exit 7\n");
        let failing = mica.work().join("fail");
        place.run(&mica, &["build", failing.to_str().unwrap()]).exits(1).complains("exit code: 7");
    }
}

/// Mode, owner, size and name of everything in a tar; times are those of the steps.
fn entries(tar: &Path) -> Vec<String> {
    let listed =
        std::process::Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(tar).output().unwrap();
    assert!(listed.status.success());
    let without_time = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        [&fields[..3], &fields[5..]].concat().join(" ")
    };
    let mut entries: Vec<String> =
        String::from_utf8_lossy(&listed.stdout).lines().map(without_time).collect();
    entries.sort();
    entries
}
