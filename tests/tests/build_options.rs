//! Options of `mica build` that change what a step may do, how much it gets, and what it is told.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use mica_testkit::{Mica, peer, skip};
use mica_tests::{Build, holds, until, with_base};

/// What a step printed in plain progress, without numbers and times.
fn log(text: &str) -> Vec<String> {
    let is_time =
        |word: &str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.lines()
        .filter_map(|line| {
            line.strip_prefix('#')?.split(' ').nth(1).filter(|word| is_time(word)).map(|_| line)
        })
        .map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned())
        .collect()
}

/// The lines that a RUN prints under some options.
#[track_caller]
fn printed(mica: &Mica, command: &str, options: &[&str]) -> Vec<String> {
    let mut build = Build::new(mica, format!("FROM base\nRUN {command}\n")).flag("--no-cache");
    for option in options {
        build = build.flag(option);
    }
    log(&build.run().success().stderr_text())
}

/// Whether this machine has a controller of cgroup v1; a counted skip if not.
#[track_caller]
fn has_controller(name: &str) -> bool {
    let there = Path::new("/sys/fs/cgroup").join(name).is_dir();
    if !there {
        skip(&format!("no cgroup controller {name} in a hierarchy of its own"));
    }
    there
}

#[test]
fn steps_beyond_the_ordinary_need_an_entitlement() {
    let Some(mica) = with_base() else { return };
    let insecure = "FROM base\nRUN --security=insecure true\n";
    let host = "FROM base\nRUN --network=host true\n";
    let denied = Build::new(&mica, insecure).fails("failed to solve: security.insecure is not allowed");
    holds(&denied.stderr_text(), &[">>> RUN --security=insecure true", "hint: --allow security.insecure"]);
    Build::new(&mica, host).fails("failed to solve: network.host is not allowed");
    Build::new(&mica, host).option("--allow", "security.insecure").fails("network.host is not allowed");
    Build::new(&mica, host).option("--allow", "network.host,security.insecure").run().success();
    Build::new(&mica, host).option("--network", "host").run().success();
    Build::new(&mica, insecure).option("--allow", "device").run().exits(1).complains("devices");
    let unknown = Build::new(&mica, host).option("--allow", "foo").run();
    unknown.exits(1).complains("unknown entitlement foo");
}

#[test]
fn an_insecure_step_has_all_rights() {
    let Some(mica) = with_base() else { return };
    // Two pipes keep no order between them.
    let script = "exec 2>&1; grep -e CapEff -e Seccomp: /proc/self/status; mount | grep ' /sys '; \
                  echo > /proc/sys/kernel/domainname && echo writable; mount -t tmpfs none /mnt && echo mounted";
    let options = ["--allow", "security.insecure"];
    let lines = printed(&mica, &format!("--security=insecure mkdir -p /mnt; {script}"), &options);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mine = status.lines().find(|line| line.starts_with("CapPrm:")).unwrap().replace("CapPrm", "CapEff");
    assert_eq!(lines[..2], [mine, "Seccomp:\t0".to_owned()]);
    assert!(lines[2].contains("(rw,"), "{lines:?}");
    assert_eq!(lines[3..], ["writable", "mounted"]);
    let plain = printed(&mica, &format!("mkdir -p /mnt; {script} || echo refused"), &[]);
    assert!(plain[2].contains("(ro,") && plain.last().is_some_and(|line| line == "refused"), "{plain:?}");
}

#[test]
fn an_insecure_step_may_make_cgroups_and_none_is_left() {
    let Some(mica) = with_base() else { return };
    if !has_controller("pids") {
        return;
    }
    let script = "--security=insecure mkdir -p /sys/fs/cgroup/pids/a/b && echo 5 > /sys/fs/cgroup/pids/a/pids.max && \
                  cat /sys/fs/cgroup/pids/a/pids.max";
    let own = own_cgroup("pids");
    let before = names(&own);
    assert_eq!(printed(&mica, script, &["--allow", "security.insecure"]), ["5"]);
    let new: Vec<String> = names(&own).into_iter().filter(|name| !before.contains(name)).collect();
    assert!(!new.iter().any(|name| name.starts_with("mica-build")), "{new:?}");
}

fn own_cgroup(controller: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let line = text.lines().find(|line| line.split(':').nth(1) == Some(controller)).unwrap();
    Path::new("/sys/fs/cgroup").join(controller).join(line.split(':').nth(2).unwrap().trim_start_matches('/'))
}

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn resources_are_limited() {
    let Some(mica) = with_base() else { return };
    if !["memory", "cpu", "cpuset"].iter().all(|name| has_controller(name)) {
        return;
    }
    let files = "cd /sys/fs/cgroup && cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us \
                 cpu/cpu.cfs_period_us cpuset/cpuset.cpus cpuset/cpuset.mems";
    let limits = "memory=64m,memory-swap=-1,cpu-shares=512,cpu-period=50000,cpu-quota=25000,cpuset-cpus=0";
    let lines = printed(&mica, files, &["--resource", limits, "--resource", "cpuset-mems=0"]);
    assert_eq!(lines, ["67108864", "512", "25000", "50000", "0", "0"]);
    // more than there is: the step is killed
    let hungry = "head -c 60m /dev/zero | tail -c 50m > /dev/null";
    Build::new(&mica, format!("FROM base\nRUN {hungry}\n"))
        .option("--resource", "memory=16m,memory-swap=16m")
        .run()
        .exits(1);
    Build::new(&mica, format!("FROM base\nRUN {hungry}\n")).run().success();
}

#[test]
fn limits_are_not_part_of_the_key_but_what_a_step_can_tell_is() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN true\n";
    Build::new(&mica, dockerfile).run().success();
    assert!(
        Build::new(&mica, dockerfile).option("--resource", "cpu-shares=512").succeeds().cached("RUN true")
    );
    assert!(!Build::new(&mica, dockerfile).option("--cgroup-parent", "p").succeeds().cached("RUN true"));
    assert!(!Build::new(&mica, dockerfile).option("--ulimit", "nofile=64").succeeds().cached("RUN true"));
    assert!(!Build::new(&mica, dockerfile).option("--shm-size", "1m").succeeds().cached("RUN true"));
}

#[test]
fn a_limit_that_cannot_be_set_is_told() {
    let Some(mica) = with_base() else { return };
    let far = Build::new(&mica, "FROM base\nRUN true\n").option("--resource", "cpuset-cpus=4000").run();
    holds(&far.success().stderr_text(), &["the choice of CPUs is not set: "]);
    let upwards = Build::new(&mica, "FROM base\nRUN echo\n").option("--cgroup-parent", "a/../../b").run();
    holds(&upwards.success().stderr_text(), &["the parent cgroup is not used everywhere: "]);
    let wrong = Build::new(&mica, "FROM base\n").option("--resource", "disk=1g").run();
    wrong.exits(1).complains("there is no disk; there are memory, ");
}

#[test]
fn cgroups_of_steps_are_made_in_the_parent_asked_for() {
    let Some(mica) = with_base() else { return };
    if !has_controller("pids") {
        return;
    }
    let parent = Path::new("/sys/fs/cgroup/pids/mica-test-parent");
    mica.write("context/Dockerfile", "FROM base\nRUN sleep 60\n");
    let context = mica.work().join("context");
    let arguments = ["build", "--cgroup-parent", "/mica-test-parent/below", context.to_str().unwrap()];
    let build = mica.spawn(arguments);
    let below = parent.join("below");
    until("the step is in its cgroup", || {
        below.is_dir() && names(&below).iter().any(|name| name.starts_with("mica-build-"))
    });
    build.signal(rustix::process::Signal::INT);
    build.wait();
    assert!(!parent.exists());
}

#[test]
fn ulimits_and_shared_memory_are_set() {
    let Some(mica) = with_base() else { return };
    let script = "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1";
    let lines = printed(&mica, script, &["--ulimit", "nofile=100:200", "--shm-size", "2m"]);
    assert_eq!(lines[..2], ["100", "200"]);
    assert_eq!(lines[2].split_whitespace().nth(1), Some("2048"));
    let more = mica.run_with_input(
        ["build", "--progress=plain", "--ulimit", "nofile=1073741816:1073741816", "-"],
        "FROM base\nRUN ulimit -Hn\n",
    );
    let mine = log(&more.success().stderr_text())[0].parse::<u64>().unwrap();
    assert!(mine < 1_073_741_816, "never above the caller's: {mine}");
}

#[test]
fn hosts_are_added_in_every_form() {
    let Some(mica) = with_base() else { return };
    let options =
        ["--add-host=a:10.0.0.1", "--add-host=b=10.0.0.2", "--add-host=c:[::7]", "--add-host=h:host-gateway"];
    let lines = printed(&mica, "tail -n 4 /etc/hosts", &options);
    assert_eq!(lines, ["10.0.0.1\ta", "10.0.0.2\tb", "::7\tc", "127.0.0.1\th"]);
    Build::new(&mica, "FROM base\n").option("--add-host", "foo").run().exits(1).complains("invalid host foo");
}

#[test]
fn proxies_reach_steps_but_neither_image_nor_key() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN env | grep -i proxy | sort\n";
    let build = Build::new(&mica, dockerfile).option("--build-arg", "HTTP_PROXY=http://p:1").succeeds();
    assert_eq!(log(&build.output.stderr_text()), ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]);
    let image = build.stored_config().to_string();
    assert!(!image.contains("p:1"), "{image}");
    let other = Build::new(&mica, dockerfile).option("--build-arg", "http_proxy=http://q:1").succeeds();
    assert!(other.cached("RUN env"));
}

#[test]
fn arguments_that_control_the_builder_work_or_are_refused() {
    let Some(mica) = with_base() else { return };
    let box_name = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=box"];
    assert_eq!(printed(&mica, "hostname; env | grep BUILDKIT || true", &box_name), ["box"]);
    for argument in ["BUILDKIT_MULTI_PLATFORM=1", "BUILDKIT_ATTEST_SBOM=generator=x"] {
        let name = argument.split('=').next().unwrap();
        Build::new(&mica, "FROM base\n")
            .option("--build-arg", argument)
            .fails(&format!("--build-arg {name} is not supported yet"));
    }
    let strict = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"];
    Build::new(&mica, "FROM base\n").option(strict[0], strict[1]).run().success();
    Build::new(&mica, "FROM base as b\n")
        .option(strict[0], strict[1])
        .fails("lint violation found for rules: FromAsCasing");
    for pair in ["=x", ""] {
        for flag in ["--build-arg", "--label"] {
            let refused = Build::new(&mica, "FROM base\n").option(flag, pair).run();
            refused.exits(1).complains("empty key");
        }
    }
    Build::new(&mica, "FROM base\n").option("--build-arg", "BUILDKIT_SYNTAX=some/frontend").run().exits(1);
    let off = Build::new(&mica, "FROM base\n").option("--build-arg", "BUILDKIT_MULTI_PLATFORM=0");
    off.run().success();
}

#[test]
fn flags_of_the_old_builder_are_accepted_and_said_to_do_nothing() {
    let Some(mica) = with_base() else { return };
    let flags =
        ["--rm", "--force-rm", "--compress", "--squash", "--memory=1g", "--cpu-shares=2", "--isolation=x"];
    let mut build = Build::new(&mica, "FROM base\n");
    for flag in flags {
        build = build.flag(flag);
    }
    let text = build.option("--security-opt", "x").run().success().stderr_text();
    for flag in flags {
        let name = flag.split('=').next().unwrap();
        holds(&text, &[&format!("WARNING: {name} has no effect: ")]);
    }
    holds(&text, &["WARNING: --security-opt has no effect: "]);
}

#[test]
fn several_names_a_dockerfile_on_standard_input_and_stages_without_cache() {
    let Some(mica) = with_base() else { return };
    let context = mica.work().join("context");
    mica.write("context/file", "text");
    let dockerfile = "FROM base AS one\nRUN true\nFROM one AS two\nCOPY file /\nRUN echo two\n";
    let arguments = |extra: &[&'static str]| {
        let mut all = vec!["build", "--progress=plain", "-t", "x:1", "-t", "y", "-f", "-"];
        all.extend(extra);
        all.push(context.to_str().unwrap().to_owned().leak());
        all
    };
    mica.run_with_input(arguments(&[]), dockerfile).success();
    let id = |name: &str| mica.run(["image", "inspect", "-f", "{{.Id}}", name]).success().line();
    assert_eq!(id("x:1"), id("y:latest"));
    let again = mica.run_with_input(arguments(&["--no-cache-filter", "two"]), dockerfile).success();
    let text = again.stderr_text();
    let state = |title: &str| {
        let line = text.lines().find(|line| line.contains(title)).unwrap();
        let number = line.split(' ').next().unwrap();
        text.contains(&format!("\n{number} CACHED\n"))
    };
    assert!(state("RUN true") && !state("COPY file") && !state("RUN echo two"), "{text}");
    let both = mica.run_with_input(arguments(&["--no-cache", "--no-cache-filter=one"]), dockerfile);
    both.exits(1).complains("--no-cache and --no-cache-filter cannot currently be used together");
}

/// An SSH agent; ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_step_uses_the_keys_of_the_callers_agent() {
    let Some(mica) = with_base() else { return };
    let (Some(agent), Some(add), Some(keygen)) =
        (peer::find("ssh-agent"), peer::find("ssh-add"), peer::find("ssh-keygen"))
    else {
        skip("no ssh-agent, ssh-add and ssh-keygen");
        return;
    };
    mica.write("keys/none", "");
    let (socket, key) = (mica.work().join("agent.sock"), mica.work().join("keys/id"));
    let agent = Command::new(agent).arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let _agent = Agent(agent);
    until("the agent listens", || socket.exists());
    let quietly = |command: &mut Command| {
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()));
    };
    quietly(Command::new(keygen).args(["-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f"]).arg(&key));
    quietly(Command::new(&add).arg(&key).env("SSH_AUTH_SOCK", &socket));
    mica.run(["pack", add.to_str().unwrap(), "-t", "ssh-add"]).success();
    let mica = mica.env("SSH_AUTH_SOCK", &socket);
    let step = format!("{} -l; echo $SSH_AUTH_SOCK", add.display());
    let dockerfile = format!(
        "FROM base\nCOPY --from=ssh-add / /\nRUN --mount=type=ssh,required {step}\nRUN ! test -e /run\n"
    );
    let build = Build::new(&mica, &dockerfile).option("--ssh", "default").succeeds();
    let lines = log(&build.output.stderr_text());
    assert!(lines[0].starts_with("256 SHA256:") && lines[0].contains("the key"), "{lines:?}");
    assert_eq!(lines[1..], ["/run/buildkit/ssh_agent.0"]);
    let socket = format!("other={}", socket.display());
    let named = dockerfile.replace("type=ssh,", "type=ssh,id=other,");
    Build::new(&mica, &named).option("--ssh", &socket).run().success();
    Build::new(&mica, &named)
        .flag("--no-cache")
        .option("--ssh", "default")
        .fails("unset ssh forward key other");
    let file = format!("default={}", key.display());
    Build::new(&mica, &dockerfile).option("--ssh", &file).fails("keys are not supported yet");
}
