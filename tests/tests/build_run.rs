//! RUN: the environment of a step, its mounts, and what it leaves.

use mica_tests::{Build, holds, with_base};
use serde_json::json;

#[test]
fn a_step_sees_what_it_should() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nRUN hostname > /hostname; umask > /umask; id > /id; cat > /stdin; env > /env; pwd > /pwd\n",
        "RUN cat /etc/hosts > /hosts; mount > /mounts; grep -e CapEff -e Seccomp: /proc/self/status > /status\n",
        "USER ann\nRUN id > /tmp/id; echo $HOME > /tmp/home\n",
        "USER 77\nRUN id > /tmp/id2; echo $HOME > /tmp/home2\n",
    );
    let build = Build::new(&mica, dockerfile).option("--add-host", "there:10.1.2.3");
    let tree = build.succeeds().tree();
    assert_eq!(
        (tree.text("/hostname").as_str(), tree.text("/umask").as_str()),
        ("buildkitsandbox\n", "0022\n")
    );
    assert!(tree.text("/id").starts_with("uid=0(root) gid=0(root)"));
    assert_eq!((tree.text("/stdin").as_str(), tree.text("/pwd").as_str()), ("", "/\n"));
    holds(
        &tree.text("/env"),
        &["HOME=/root\n", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"],
    );
    let hosts = tree.text("/hosts");
    assert!(
        hosts
            .starts_with("127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    );
    holds(&hosts, &["10.1.2.3\tthere\n"]);
    holds(
        &tree.text("/mounts"),
        &[" /proc ", " /sys ", " /dev ", " /dev/pts ", " /dev/shm ", " /dev/mqueue "],
    );
    holds(&tree.text("/status"), &["CapEff:\t00000000800405fb\n", "Seccomp:\t2\n"]);
    holds(&tree.text("/tmp/id"), &["uid=1000(ann) gid=1001(ann)", "10(wheel)"]);
    assert_eq!(tree.text("/tmp/home"), "/home/ann\n");
    assert!(tree.text("/tmp/id2").starts_with("uid=77 gid=0(root)"));
    assert_eq!(tree.text("/tmp/home2"), "/\n");
}

#[test]
fn users_and_groups_that_do_not_exist_are_named() {
    let Some(mica) = with_base() else { return };
    let user = Build::new(&mica, "FROM base\nUSER nosuch\nRUN true\n");
    user.fails("unable to find user nosuch: no matching entries in passwd file");
    let group = Build::new(&mica, "FROM base\nUSER ann:g\nRUN true\n");
    group.fails("unable to find group g: no matching entries in group file");
    Build::new(&mica, "FROM base\nUSER nosuch\n").succeeds();
}

#[test]
fn a_failing_step_ends_the_build() {
    let Some(mica) = with_base() else { return };
    Build::new(&mica, "FROM base\nRUN exit 3\n")
        .fails("process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3");
    Build::new(&mica, "FROM base\nRUN [\"/bin/false\", \"x\"]\n")
        .fails("process \"/bin/false x\" did not complete successfully: exit code: 1");
    assert_eq!(mica.run(["images", "-q"]).success().stdout_text().lines().count(), 1);
}

#[test]
fn a_step_without_changes_is_a_layer_of_nothing() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nRUN --mount=type=tmpfs,target=/q/w --mount=type=cache,target=/r/s ",
        "--mount=type=secret,id=s,target=/u/v --mount=type=bind,target=/m/n true\n",
    );
    let secret = mica.write("secret", "x");
    let secret = format!("id=s,src={}", secret.display());
    let built = Build::new(&mica, dockerfile).file("f", "").option("--secret", &secret).succeeds();
    let config = built.stored_config();
    let last = config["rootfs"]["diff_ids"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last, json!("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"));
    let tree = built.tree();
    for path in ["/q", "/r", "/u", "/m", "/etc/hosts", "/etc/resolv.conf", "/run"] {
        assert!(!tree.has(path), "{path} is left");
    }
}

#[test]
fn processes_end_with_their_step() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN (sleep 1; echo late > /late) & echo now > /now\nRUN sleep 1.2\n";
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert!(tree.has("/now") && !tree.has("/late"));
}

#[test]
fn a_bind_mount_is_read_only_or_thrown_away() {
    let Some(mica) = with_base() else { return };
    let failed =
        Build::new(&mica, "FROM base\nRUN --mount=type=bind,target=/m echo x > /m/new\n").file("f", "f");
    failed.fails("Read-only file system");
    let dockerfile = concat!(
        "FROM base\nRUN --mount=target=/m,rw echo x > /m/new && cp /m/f /copy\n",
        "RUN --mount=source=d/f,target=/one cp /one /two\n",
        "RUN --mount=from=base,source=/etc,target=/e cp /e/passwd /p\n",
    );
    let build = Build::new(&mica, dockerfile).file("f", "f").file("d/f", "df");
    let context = build.context();
    let tree = build.succeeds().tree();
    assert_eq!((tree.text("/copy").as_str(), tree.text("/two").as_str()), ("f", "df"));
    assert!(!tree.has("/m") && !tree.has("/one") && tree.has("/p"));
    assert!(!context.join("new").exists());
    let missing = Build::new(&mica, "FROM base\nRUN --mount=source=x,target=/m true\n");
    missing.fails("\"/x\": not found");
}

#[test]
fn a_cache_mount_persists_and_is_not_in_the_image() {
    let Some(mica) = with_base() else { return };
    let run = |text: &str| {
        format!("FROM base\nRUN --mount=type=cache,id=c,target=/c echo {text} >> /c/log; cp /c/log /log\n")
    };
    Build::new(&mica, run("1")).succeeds();
    let tree = Build::new(&mica, run("2")).flag("--no-cache").succeeds().tree();
    assert_eq!(tree.text("/log"), "1\n2\n");
    assert!(!tree.has("/c"));
    let dockerfile = concat!(
        "FROM base AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM base\n",
        "RUN --mount=type=cache,target=/k,from=seed,source=/s,mode=0700,uid=5,gid=6 cat /k/f > /f; stat -c '%a %u %g' /k >> /f\n",
    );
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert!(tree.text("/f").starts_with("seed\n"));
}

#[test]
fn locked_cache_mounts_are_used_one_after_the_other() {
    let Some(mica) = with_base() else { return };
    let step = "RUN --mount=type=cache,id=l,target=/c,sharing=locked \
                echo start >> /c/log; sleep 0.2; echo end >> /c/log; cp /c/log /log\n";
    let dockerfile = format!(
        "FROM base AS a\nENV S=a\n{step}FROM base AS b\nENV S=b\n{step}FROM scratch\n\
         COPY --from=a /log /a\nCOPY --from=b /log /b\n"
    );
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    let longest = if tree.text("/a").len() > tree.text("/b").len() { "/a" } else { "/b" };
    assert_eq!(tree.text(longest), "start\nend\nstart\nend\n");
}

#[test]
fn secrets_are_files_variables_and_never_part_of_the_result() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nRUN --mount=type=secret,id=s stat -c '%a %u %g' /run/secrets/s > /meta && ",
        "wc -c < /run/secrets/s > /size\nRUN --mount=type=secret,id=s,env=TOKEN test -n \"$TOKEN\" && test ! -e /run/secrets/s\n",
    );
    let secret = |text: &str| format!("id=s,src={}", mica.write("secret", text).display());
    let built = Build::new(&mica, dockerfile).option("--secret", &secret("hunter2")).succeeds();
    let tree = built.tree();
    assert_eq!((tree.text("/meta").as_str(), tree.text("/size").as_str()), ("400 0 0\n", "7\n"));
    assert!(!tree.has("/run"));
    assert!(!built.stored_config().to_string().contains("hunter2"));
    let other = Build::new(&mica, dockerfile).option("--secret", &secret("changed")).succeeds();
    assert!(other.cached("RUN --mount=type=secret,id=s stat"));
    let required = "FROM base\nRUN --mount=type=secret,id=s,required true\n";
    Build::new(&mica, required).fails("secret s: not found");
    let optional = "FROM base\nRUN --mount=type=secret,id=s test ! -e /run/secrets/s\n";
    Build::new(&mica, optional).succeeds();
}

#[test]
fn mounts_that_cannot_be_are_explained() {
    let Some(mica) = with_base() else { return };
    let cases = [
        ("--mount=type=foo", "unsupported mount type \"foo\""),
        ("--mount=foo=1,target=/x", "unexpected key 'foo' in 'foo=1'"),
        ("--mount=type=bind,target=/x,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("--mount=type=cache,foo,target=/x", "invalid field 'foo' must be a key=value pair"),
        ("--mount=type=cache,target=/x,sharing=foo", "unsupported sharing value \"foo\""),
        ("--mount=type=tmpfs,target=/", "invalid mount target \"/\""),
        ("--mount=type=secret", "invalid secret mount. one of source, target required"),
        ("--mount=type=ssh,required", "unset ssh forward key default"),
        (
            "--mount=from=$X,target=/x",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("--network=foo", "invalid network mode \"foo\""),
        ("--network=host", "network.host is not allowed"),
        ("--security=insecure", "security.insecure is not allowed"),
    ];
    for (flag, gist) in cases {
        Build::new(&mica, format!("FROM base\nRUN {flag} true\n")).fails(gist);
    }
}

#[test]
fn a_step_may_have_no_network() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN --network=none ls /sys/class/net > /f; ip -o link | wc -l > /n\n";
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert_eq!(tree.text("/n"), "1\n");
}

#[test]
fn equal_steps_of_one_build_run_once() {
    let Some(mica) = with_base() else { return };
    let step = "RUN --mount=type=cache,id=d,target=/c echo ran >> /c/log; cp /c/log /log\n";
    let dockerfile = format!(
        "FROM base AS a\n{step}RUN echo a > /a\nFROM base AS b\n{step}RUN echo b > /b\n\
         FROM base\nCOPY --from=a /log /la\nCOPY --from=b /log /lb\n\
         RUN --mount=type=cache,id=d,target=/c cp /c/log /log\n"
    );
    assert_eq!(Build::new(&mica, dockerfile).succeeds().tree().text("/log"), "ran\n");
}

#[test]
fn removals_are_in_the_layer() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nRUN mkdir -p /d/e && touch /d/a /d/b /d/e/x\nRUN rm /d/a && rm -r /d/e && mkdir /d/e && touch /d/e/y\n",
        "RUN mv /d /moved\n",
    );
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert_eq!(tree.files("/moved"), ["b", "e/y"]);
    assert!(!tree.has("/d"));
    let next = Build::new(&mica, "FROM result\nRUN ls -R /moved > /list; test ! -e /d\n").succeeds().tree();
    assert_eq!(next.text("/list"), "/moved:\nb\ne\n\n/moved/e:\ny\n");
}

#[test]
fn source_date_epoch_is_the_time_of_everything_new() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nWORKDIR /w\nCOPY f /f\nENV A=1\n";
    let plain = Build::new(&mica, dockerfile).file("f", "").prepare("touch -d @1500000000 f").succeeds();
    assert_eq!(plain.stored_config()["created"], json!("1970-01-01T00:00:00Z"));
    let build = Build::new(&mica, dockerfile).file("f", "").prepare("touch -d @1500000000 f");
    let built = build.option("--build-arg", "SOURCE_DATE_EPOCH=1000000000").flag("--no-cache").succeeds();
    let config = built.stored_config();
    assert_eq!(config["created"], json!("2001-09-09T01:46:40Z"));
    for entry in config["history"].as_array().unwrap().iter().rev().take(3) {
        assert_eq!(entry["created"], json!("2001-09-09T01:46:40Z"), "{entry}");
    }
    assert!(!config["config"].to_string().contains("SOURCE_DATE_EPOCH"));
}
