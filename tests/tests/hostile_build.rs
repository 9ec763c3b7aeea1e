//! Contexts and Dockerfiles that attack (security.md section 1.4).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mica_testkit::{Mica, Output, peer};
use mica_tests::{Build, Canary, SECRET, TarMaker, measured, with_base, with_ids};

/// Stores with `base`: root's, and that of a user with subordinate ids.
fn stores() -> Vec<(&'static str, Mica)> {
    let root = with_base().map(|mica| ("root", mica));
    let user = with_ids().map(|mica| ("with ids", mica));
    root.into_iter().chain(user).collect()
}

/// Demands that a build ended by itself, and that the host is as it was.
#[track_caller]
fn safe(what: &str, output: &Output, canary: &Canary) {
    let said = output.stderr_text();
    assert!([0, 1].contains(&output.code()) && !said.contains("panicked"), "{what}: {said}");
    canary.check(what);
    assert!(
        !said.contains(SECRET) && !output.stdout_text().contains(SECRET),
        "{what}: the secret is in {said}"
    );
}

/// Demands that the secret was never copied into the store or the outputs.
#[track_caller]
fn not_kept(what: &str, mica: &Mica) {
    let kept =
        Command::new("grep").args(["-raFl", SECRET]).arg(mica.root()).arg(mica.work()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "{what}: the secret was copied");
}

#[test]
fn links_of_a_context_lead_nowhere() {
    let canary = Canary::new();
    let script = format!(
        "ln -s {0}/file l; ln -s {0} d; ln -s / r; ln -s ../../../../../../../..{0}/file up",
        canary.text()
    );
    for (who, mica) in stores() {
        for copy in [
            "COPY l /x",
            "COPY d /x",
            "COPY d/file /x",
            "COPY d/ /x",
            "COPY up /x",
            "COPY ../up /x",
            "ADD l /x",
            "COPY . /x",
            "COPY * /x",
            "COPY d/* /x",
            "COPY r/etc/passwd /x",
            "COPY r /x",
        ] {
            let build = Build::new(&mica, format!("FROM scratch\n{copy}\n")).prepare(&script);
            safe(&format!("row 36: {copy} ({who})"), &build.run(), &canary);
        }
        for (name, content) in [("Dockerfile", ""), (".dockerignore", "FROM scratch\nCOPY . /\n")] {
            let build = Build::new(&mica, content);
            let file = build.context().join(name);
            let _ = std::fs::remove_file(&file);
            std::os::unix::fs::symlink(canary.path().join("file"), &file).unwrap();
            safe(&format!("row 36: {name} is a link ({who})"), &build.run(), &canary);
        }
        let tar = TarMaker::new()
            .file("Dockerfile", b"FROM scratch\nCOPY l d/file /x/\n")
            .symlink("l", &format!("{}/file", canary.text()))
            .symlink("d", canary.text())
            .finish();
        safe("row 36: a context that is a tar", &mica.run_with_input(["build", "-"], tar), &canary);
        not_kept(&format!("row 36 ({who})"), &mica);
    }
}

#[test]
fn links_in_a_stage_lead_nowhere() {
    let canary = Canary::new();
    let target = canary.text();
    for (who, mica) in stores() {
        for step in [
            "COPY f /d/new",
            "COPY f /d/file",
            "COPY --chown=7:7 --chmod=777 f /d/",
            "COPY f /l",
            "ADD t.tar /d/",
            "ADD t.tar /",
            "WORKDIR /d/new/deep",
            "COPY --link f /d/new",
            "COPY <<E /d/file\nevil\nE",
            "RUN echo evil > /d/file",
            "COPY --from=base /etc/passwd /d/file",
            "COPY --from=base /etc /d/",
            "COPY --parents f /d/",
            "WORKDIR /d\nCOPY f new",
        ] {
            let links = format!(
                "RUN ln -s {target} /d && ln -s {target}/file /l && ln -s ../../../../..{target} /up"
            );
            let build = Build::new(&mica, format!("FROM base\n{links}\n{step}\n")).file("f", "evil").prepare(
                &format!(
                    "mkdir t; echo evil > t/file; ln -s {target} t/d; tar -C t -cf t.tar d file; rm -r t"
                ),
            );
            safe(&format!("row 37: {step} ({who})"), &build.run(), &canary);
        }
        for source in ["/d/file", "/l", "/d/", "/up/file"] {
            let dockerfile = format!(
                "FROM base AS a\nRUN ln -s {target} /d; ln -s {target}/file /l; ln -s ../../../../..{target} /up\n\
                 FROM scratch\nCOPY --from=a {source} /x\n"
            );
            safe(&format!("row 37: from {source} ({who})"), &Build::new(&mica, dockerfile).run(), &canary);
        }
        not_kept(&format!("row 37 ({who})"), &mica);
    }
}

#[test]
fn sources_of_mounts_stay_where_they_are_from() {
    let canary = Canary::new();
    let target = canary.text();
    for (who, mica) in stores() {
        for mount in [
            "type=bind,source=d,target=/m",
            "type=bind,source=d/file,target=/m",
            "type=bind,source=l,target=/m",
            "type=bind,source=../../..,target=/m",
            "type=bind,from=evil,source=/d,target=/m",
            "type=bind,from=evil,source=/d,target=/m,rw",
            "type=bind,from=evil,source=/l,target=/m",
            "type=cache,from=evil,source=/d,target=/m",
            "type=tmpfs,target=/d/new",
            "type=cache,target=/d/new",
            "type=secret,id=s,target=/d/file",
            "type=secret,id=s,target=/l",
            "type=bind,target=/d",
            "type=tmpfs,target=/up/../../../../../../..//new",
        ] {
            let dockerfile = format!(
                "FROM base AS evil\nRUN ln -s {target} /d; ln -s {target}/file /l; ln -s ../../../..{target} /up\n\
                 FROM evil\nRUN --mount={mount} find /m -type f | xargs cat; echo evil > /m/file; echo evil > /m; true\n"
            );
            let secret = format!("id=s,src={}", mica.write("s", "a secret of the step's own").display());
            let build = Build::new(&mica, dockerfile).option("--secret", &secret);
            let build = build.prepare(&format!("ln -s {target} d; ln -s {target}/file l"));
            safe(&format!("row 38: {mount} ({who})"), &build.run(), &canary);
        }
        not_kept(&format!("row 38 ({who})"), &mica);
    }
}

#[test]
fn a_source_that_is_exchanged_all_the_time_stays_inside() {
    let Some(mica) = with_base() else { return };
    let canary = Canary::new();
    let build =
        Build::new(&mica, "FROM base\nARG N\nRUN --mount=source=d,target=/m cat /m/file; true\nCOPY d /c/\n");
    let context = build.context();
    std::fs::create_dir(context.join("d")).unwrap();
    std::fs::write(context.join("d/file"), "inside").unwrap();
    std::os::unix::fs::symlink(canary.path(), context.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let exchanging = std::thread::spawn({
        let (stop, context) = (stop.clone(), context.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                let cwd = rustix::fs::CWD;
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(cwd, context.join("d"), cwd, context.join("link"), flags).unwrap();
            }
        }
    });
    for round in 0..12 {
        let argument = format!("N={round}");
        let arguments = ["build", "--progress=plain", "--build-arg", &argument, context.to_str().unwrap()];
        safe("row 38: exchanged", &mica.run(arguments), &canary);
    }
    stop.store(true, Ordering::Relaxed);
    exchanging.join().unwrap();
    std::fs::remove_dir_all(context).unwrap();
    not_kept("row 38: exchanged", &mica);
}

#[test]
fn the_id_of_a_cache_mount_is_no_path() {
    let canary = Canary::new();
    for (who, mica) in stores() {
        for id in [
            format!("../../../../../../../..{}", canary.text()),
            canary.text().to_owned(),
            "..".into(),
            "/".into(),
            ".".into(),
            "x".repeat(5000),
        ] {
            let dockerfile = format!(
                "FROM base\nRUN --mount=type=cache,id={id},target=/c echo evil > /c/file; cat /c/file\n"
            );
            let output = Build::new(&mica, dockerfile).run();
            safe(&format!("row 39: {id:.40} ({who})"), &output, &canary);
            assert_eq!(output.code(), 0, "{id:.40}: {}", output.stderr_text());
        }
        let names = std::fs::read_dir(mica.root().join("cache-mounts")).unwrap();
        for name in names.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            assert!(name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        }
    }
}

#[test]
fn a_value_brings_no_options() {
    let Some(mica) = with_base() else { return };
    let canary = Canary::new();
    let target = canary.text();
    let context = mica.work().join("context");
    std::fs::create_dir_all(&context).unwrap();
    for mount in [
        format!("type=bind,source=/x:{target},target=/m"),
        format!("\"type=bind,source={target}\",target=/m"),
        format!("type=tmpfs,target=/m,size=1m:source={target}"),
        "type=bind,target=/m,bind-propagation=rshared".to_owned(),
        "type=bind,target=/m,options=exec".to_owned(),
        "type=bind,target=/m,rw=true,dev".to_owned(),
        "type=cache,target=/m,mode=0777:exec".to_owned(),
        "type=bind,source=x\\,rw,target=/m".to_owned(),
    ] {
        let output = Build::again(&mica, format!("FROM base\nRUN --mount={mount} cat /m/file\n")).run();
        assert_eq!(output.code(), 1, "row 40: {mount}: {}", output.stderr_text());
        canary.check(&mount);
    }
    let volume = format!("{target}:/m:ro,rw,exec,suid,dev,rshared");
    for arguments in
        [&["-v", &volume][..], &["--tmpfs", "/m:lowerdir=/,exec"], &["--mount", "type=bind,src=/,dst=/m,foo"]]
    {
        let arguments = [&["run", "--rm"][..], arguments, &["base", "true"]].concat();
        assert_eq!(mica.run(&arguments).code(), 125, "row 40: {arguments:?}");
    }
}

#[test]
fn mount_points_are_removed_where_they_were_made() {
    for (who, mica) in stores() {
        let outside = mica_testkit::temp_dir();
        let kept = outside.path().join("b/c");
        std::fs::create_dir_all(&kept).unwrap();
        for path in [outside.path(), &outside.path().join("b"), &kept] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let path = outside.path().display();
        for kind in ["tmpfs", "cache", "bind"] {
            let dockerfile = format!(
                "FROM base\nRUN --mount=type={kind},target=/a/b/c mv /a /z && ln -s {path} /a && ls -l /a\n"
            );
            Build::new(&mica, dockerfile).run();
            assert!(kept.exists(), "row 41: {kind} ({who})");
        }
    }
}

#[test]
fn privileges_are_given_by_flag_only() {
    let Some(mica) = with_base() else { return };
    for (dockerfile, gist) in [
        ("FROM base\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("FROM base\nRUN --security=INSECURE true\n", "INSECURE"),
        ("FROM base\nRUN --security=2 true\n", "2"),
        ("FROM base\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM base\nRUN --network=container:x true\n", "container:x"),
        ("FROM base\nRUN --device=/dev/kmsg true\n", ""),
    ] {
        Build::new(&mica, dockerfile).fails(gist);
    }
    let unknown = Build::new(&mica, "FROM base\n").option("--allow", "everything").run();
    assert_ne!(unknown.code(), 0, "{}", unknown.stderr_text());
}

#[test]
fn a_working_directory_is_inside() {
    let canary = Canary::new();
    for (who, mica) in stores() {
        for number in (0..24).chain([100, 255]) {
            for place in [format!("/proc/self/fd/{number}"), format!("/dev/fd/{number}/..")] {
                // A layer of its own, then a step in it: both must stay in the image.
                let up = format!("../../../../../../..{}/file", canary.text());
                let output = mica.run([
                    "run",
                    "--rm",
                    "-w",
                    &place,
                    "base",
                    "sh",
                    "-c",
                    &format!("cat {up}; echo evil > {up}"),
                ]);
                assert_ne!(output.code(), 0, "row 43: {place} ({who})");
                safe_run("row 43", &output, &canary);
            }
        }
        for place in ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/root", "/proc/self/cwd"] {
            let dockerfile =
                format!("FROM base\nWORKDIR {place}\nRUN cat ../../../../..{0}/file; pwd\n", canary.text());
            safe(&format!("row 43: WORKDIR {place} ({who})"), &Build::new(&mica, dockerfile).run(), &canary);
        }
    }
}

#[track_caller]
fn safe_run(what: &str, output: &Output, canary: &Canary) {
    canary.check(what);
    assert!(!output.stdout_text().contains(SECRET), "{what}");
    assert!(!output.stderr_text().contains("panicked"), "{what}: {}", output.stderr_text());
}

#[test]
fn a_secret_is_kept_nowhere() {
    let runtimes = [None, Some("runc")];
    for (who, mica) in stores() {
        for runtime in runtimes {
            let program = runtime.and_then(peer::find);
            if runtime.is_some() && (program.is_none() || who != "root") {
                continue;
            }
            let secret = mica.write("../home/secret", "value-of-the-secret-91c2");
            let option = format!("id=s,src={}", secret.display());
            // The file is looked for while the step runs: on disk it would be below the store.
            let dockerfile = concat!(
                "FROM base\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=TOKEN ",
                "test \"$(cat /run/secrets/s)\" = \"$TOKEN\" && sleep 3\n",
            );
            let build = Build::new(&mica, dockerfile);
            let context = build.context();
            let mut arguments = vec!["build", "--no-cache", "--secret", &option, context.to_str().unwrap()];
            if let Some(program) = &program {
                arguments.extend(["--runtime", program.to_str().unwrap()]);
            }
            let running = mica.spawn(arguments);
            std::thread::sleep(std::time::Duration::from_millis(1500));
            let during = found(&mica, "value-of-the-secret");
            let output = running.wait().success();
            assert_eq!(during, "", "row 47: on disk while the step runs ({who}, {runtime:?})");
            assert_eq!(
                found(&mica, "value-of-the-secret"),
                "",
                "row 47: on disk afterwards ({who}, {runtime:?})"
            );
            assert!(!output.stderr_text().contains("value-of-the-secret"), "{}", output.stderr_text());
        }
    }
}

fn found(mica: &Mica, text: &str) -> String {
    let found = Command::new("grep").args(["-raFl", text]).arg(mica.root()).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[test]
fn the_caller_s_environment_stays_outside() {
    let agent = mica_testkit::temp_dir();
    let socket = agent.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let Some(mica) = with_base() else { return };
    let mica = mica.env("HOST_ONLY", "leaked").env("SSH_AUTH_SOCK", &socket).env("LD_PRELOAD_X", "leaked");
    let tree = Build::new(&mica, "FROM base\nRUN env > /env; find / -xdev -type s > /sockets; true\n")
        .succeeds()
        .tree();
    let text = tree.text("/env");
    assert!(!text.contains("leaked") && !text.contains("SSH_AUTH_SOCK"), "{text}");
    assert_eq!(tree.text("/sockets"), "");
    let ran = mica.run(["run", "--rm", "base", "env"]).success().stdout_text();
    assert!(!ran.contains("leaked") && !ran.contains("SSH_AUTH_SOCK"), "{ran}");
    // An image cannot ask for them either.
    for entry in ["HOST_ONLY", "*", "HOST_*", "=x", ""] {
        let mut image = mica_tests::ImageArchive::new(&[TarMaker::new().file("f", b"").finish()]);
        image.config["config"]["Env"] = serde_json::json!([entry, "PATH=/bin"]);
        let archive = mica.write("env.tar", image.oci());
        if mica.run(["load", "-q", "-i", archive.to_str().unwrap()]).code() != 0 {
            continue;
        }
        let dockerfile = "FROM hostile\nCOPY --from=base / /\nRUN env > /env\n";
        let build = Build::new(&mica, dockerfile).run();
        if build.code() == 0 {
            let text = Build::again(&mica, dockerfile).succeeds().tree().text("/env");
            assert!(!text.contains("leaked"), "row 48: {entry}: {text}");
        }
        Build::new(&mica, "FROM hostile\nCOPY --from=base / /\n").option("-t", "with-shell").run();
        let ran = mica.run(["run", "--rm", "with-shell", "env"]);
        assert!(!ran.stdout_text().contains("leaked"), "row 48: {entry}: {}", ran.stdout_text());
    }
}

#[test]
fn hostile_dockerfiles_are_errors() {
    let Some(mica) = with_base() else { return };
    let long = "x".repeat(16 << 20);
    let cases = [
        (
            "nested expansions",
            format!("FROM scratch\nARG A=${{A:-{}{}\n", "${A:-".repeat(20_000), "}".repeat(20_001)),
        ),
        ("a line of 16 MiB", format!("FROM scratch\nLABEL a={long}\n")),
        ("a line over the limit", format!("FROM scratch\nLABEL a={}\n", "x".repeat(70_000))),
        ("a heredoc without end", "FROM scratch\nRUN <<E\nx\n".to_owned()),
        ("10 000 heredocs", format!("FROM scratch\nRUN {}\n", "<<E ".repeat(10_000))),
        (
            "stages in a circle",
            "FROM b AS a\nCOPY --from=b /x /x\nFROM a AS b\nCOPY --from=a /x /x\n".to_owned(),
        ),
        ("a stage from itself", "FROM scratch AS a\nCOPY --from=a /x /x\n".to_owned()),
        ("no text", "\0\u{1}\u{2}\u{1b}[31m\n".to_owned()),
        ("an instruction that is an escape code", "FROM scratch\n\u{1b}]0;title\u{7} x\n".to_owned()),
        ("an argument that is an escape code", "FROM scratch\nCOPY \u{1b}]0;t\u{7} /x\n".to_owned()),
        ("a stage that is an escape code", "FROM scratch AS \u{1b}[31m\n".to_owned()),
        ("a base that is an escape code", "FROM \u{1b}[31m\n".to_owned()),
        ("deep JSON", format!("FROM scratch\nCMD {}{}\nRUN x\n", "[".repeat(100_000), "]".repeat(100_000))),
        ("only continued lines", format!("FROM scratch\nRUN {}", "\\\n".repeat(100_000))),
    ];
    for (what, dockerfile) in &cases {
        let build = Build::new(&mica, dockerfile);
        let context = build.context();
        let Some((output, peak)) = measured(&mica, &["build", "--progress=plain", context.to_str().unwrap()])
        else {
            return;
        };
        let said = output.stderr_text();
        assert_eq!(output.code(), 1, "row 49: {what}: {said:.2000}");
        assert!(
            !said.contains("panicked") && !said.contains('\u{1b}') && !said.contains('\u{7}'),
            "row 49: {what}: {said:?}"
        );
        assert!(peak < 256 << 10, "row 49: {what}: {peak} KiB");
    }
    let large = Build::new(&mica, format!("FROM scratch\n{}", "# a comment\n".repeat(1 << 20)));
    large.fails("larger than 10485760 bytes");
    let ignore =
        Build::new(&mica, "FROM scratch\nCOPY . /\n").file(".dockerignore", "x\n".repeat(600_000)).run();
    assert_eq!(ignore.code(), 1, "{}", ignore.stderr_text());
    assert!(ignore.stderr_text().contains(".dockerignore"), "{}", ignore.stderr_text());
}

#[test]
fn files_that_are_none_do_not_block() {
    let Some(mica) = with_base() else { return };
    for name in ["Dockerfile", ".dockerignore"] {
        // A link out of the context is none in it: no Dockerfile is an error, no ignore file is not.
        let scripts = ["mkfifo", "mkdir", "ln -s /dev/zero"];
        for script in scripts.into_iter().take(if name == "Dockerfile" { 3 } else { 2 }) {
            let build = Build::new(&mica, "FROM scratch\nCOPY . /\n")
                .prepare(&format!("rm -f {name}; {script} {name}"));
            let context = build.context();
            let Some((output, peak)) = measured(&mica, &["build", context.to_str().unwrap()]) else { return };
            assert_eq!(output.code(), 1, "row 16: {script} {name}: {}", output.stderr_text());
            assert!(peak < 256 << 10, "row 16: {script} {name}: {peak} KiB");
        }
    }
    let zero = mica.run(["build", "-f", "/dev/zero", "."]);
    assert_eq!(zero.code(), 1, "{}", zero.stderr_text());
    let tree = Build::new(&mica, "FROM scratch\nCOPY p /p\n").prepare("mkfifo p").succeeds().tree();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&tree.lstat("/p").file_type()));
}

#[test]
fn a_step_that_prints_without_end_costs_little() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM base\nRUN head -c 150000000 /dev/zero\n");
    let context = build.context();
    let Some((output, peak)) = measured(&mica, &["build", "--progress=plain", context.to_str().unwrap()])
    else {
        return;
    };
    assert_eq!(output.code(), 0);
    assert!(peak < 128 << 10, "{peak} KiB");
}
