//! RUN (build.md 3.2).

use mica_solve::{CacheSharing, FileAction, Input, MountKind, NetworkMode, SecretEnv, SecurityMode};

use super::support::{Fake, build, build_args, build_with, refused, request};
use crate::{ConvertRequest, convert};

#[test]
fn shell_and_exec_forms_have_their_argv_and_history() {
    let image = build("FROM base\nRUN echo hi > f\nRUN [\"/bin/true\", \"x\"]\n");
    assert_eq!(image.execs()[0].args, ["/bin/sh", "-c", "echo hi > f"]);
    assert_eq!(image.execs()[1].args, ["/bin/true", "x"]);
    assert_eq!(image.new_history(), ["RUN /bin/sh -c echo hi > f # buildkit", "RUN /bin/true x # buildkit"]);
}

#[test]
fn a_run_takes_over_what_the_stage_is() {
    let request = ConvertRequest {
        network: NetworkMode::None,
        extra_hosts: &[("h".to_owned(), "1.2.3.4".to_owned())],
        shm_bytes: Some(1),
        ulimits: &["nofile=1:2".to_owned()],
        ..request("FROM base\nUSER u:g\nWORKDIR /w\nRUN x\n")
    };
    let image = convert(&request, &Fake::new()).unwrap();
    let exec = image.exec();
    assert_eq!(
        (exec.cwd.as_str(), exec.user.as_str(), exec.hostname.as_str()),
        ("/w", "u:g", "buildkitsandbox")
    );
    assert_eq!((exec.network, exec.shm_bytes, exec.root), (NetworkMode::None, Some(1), Input::Vertex(0)));
    assert_eq!((&exec.extra_hosts[..], &exec.ulimits[..]), (request.extra_hosts, request.ulimits));
}

#[test]
fn a_heredoc_is_the_script() {
    let image = build("FROM base\nRUN <<EOF\necho $A\necho b\nEOF\n");
    assert_eq!(image.exec().args[2], "echo $A\necho b\n");
    assert_eq!(image.names()[1], "[2/2] RUN <<EOF (echo $A...)");
    let image = build("FROM base\nRUN cat <<A >x && cat <<B\n1\nA\n2\nB\n");
    assert_eq!(image.exec().args[2], "cat <<A >x && cat <<B\n1\nA\n2\nB");
}

#[test]
fn a_heredoc_that_is_a_program_becomes_a_read_only_file() {
    let image = build("FROM base\nRUN <<E\n#!/bin/awk -f\nBEGIN{}\nE\n");
    let exec = image.exec();
    assert_eq!(exec.args, ["/bin/sh", "-c", "/dev/pipes/E"]);
    assert_eq!((exec.mounts[0].target.as_str(), exec.mounts[0].read_only), ("/dev/pipes", true));
    assert_eq!(exec.mounts[0].kind, MountKind::Bind { from: Input::Vertex(1), source: "/".to_owned() });
    let FileAction::MakeFile(file) = image.actions()[0] else { panic!("a file") };
    assert_eq!(
        (file.path.as_str(), file.mode, &file.data[..]),
        ("/E", 0o755, &b"#!/bin/awk -f\nBEGIN{}\n"[..])
    );
    assert_eq!(image.new_history(), ["RUN /bin/sh -c /dev/pipes/E # buildkit"]);
}

#[test]
fn bind_mounts_come_from_the_context_a_stage_or_an_image() {
    let image = build(concat!(
        "FROM base AS a\nRUN a\nFROM base\nENV S=src\nWORKDIR /w\n",
        "RUN --mount=source=$S/x,target=rel --mount=type=bind,from=A,target=/m,rw --mount=from=base,target=/b ",
        "--mount=from=scratch,target=/s x\n"
    ));
    let mounts = &image.exec().mounts;
    let bind = |from, source: &str| MountKind::Bind { from, source: source.to_owned() };
    assert_eq!((mounts[0].target.as_str(), &mounts[0].kind), ("/w/rel", &bind(Input::Vertex(1), "/src/x")));
    assert_eq!((mounts[1].read_only, &mounts[1].kind), (false, &bind(Input::Vertex(2), "/")));
    assert_eq!((mounts[2].read_only, &mounts[2].kind), (true, &bind(Input::Vertex(3), "/")));
    assert_eq!(mounts[3].kind, bind(Input::Scratch, "/"));
}

#[test]
fn cache_mounts_know_whether_they_were_given_an_id() {
    let dockerfile = "FROM base\nRUN --mount=type=cache,target=/c/ --mount=type=cache,id=x,target=/d,sharing=locked,mode=0700,uid=5,ro x\n";
    let image = build_args(dockerfile, &[("BUILDKIT_CACHE_MOUNT_NS", "ns")]);
    let [first, second] = &image.exec().mounts[..] else { panic!("two mounts") };
    let MountKind::Cache { id, custom_id, sharing, from, mode, .. } = &first.kind else { panic!("a cache") };
    assert_eq!((id.as_str(), *custom_id, *sharing), ("ns//c", false, CacheSharing::Shared));
    assert_eq!((*from, *mode, first.read_only), (Input::Scratch, None, false));
    let MountKind::Cache { id, custom_id, sharing, mode, uid, gid, .. } = &second.kind else {
        panic!("a cache")
    };
    assert_eq!((id.as_str(), *custom_id, *sharing), ("ns/x", true, CacheSharing::Locked));
    assert_eq!((*mode, *uid, *gid, second.read_only), (Some(0o700), 5, 0, true));
}

#[test]
fn secrets_are_files_or_variables_or_both() {
    let image = build(concat!(
        "FROM base\nWORKDIR /w\n",
        "RUN --mount=type=secret,id=a --mount=type=secret,id=b,target=rel,mode=0444,uid=7 ",
        "--mount=type=secret,id=c,env=C --mount=type=secret,id=d,env=D,target=/d,required x\n"
    ));
    let exec = image.exec();
    let targets: Vec<&str> = exec.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/run/secrets/a", "/w/rel", "/d"]);
    let secret =
        |id: &str, mode, uid, required| MountKind::Secret { id: id.to_owned(), mode, uid, gid: 0, required };
    assert_eq!(exec.mounts[0].kind, secret("a", 0o400, 0, false));
    assert_eq!(exec.mounts[1].kind, secret("b", 0o444, 7, false));
    assert_eq!(exec.mounts[2].kind, secret("d", 0o400, 0, true));
    let variable =
        |id: &str, name: &str, required| SecretEnv { id: id.to_owned(), name: name.to_owned(), required };
    assert_eq!(exec.secret_env, [variable("c", "C", false), variable("d", "D", true)]);
    assert_eq!(exec.env, ["PATH=/bin"]);
}

#[test]
fn the_first_agent_socket_is_the_one_that_programs_find() {
    let image = build("FROM base\nRUN --mount=type=ssh --mount=type=ssh,id=k,required x\n");
    let targets: Vec<&str> = image.exec().mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/run/buildkit/ssh_agent.0", "/run/buildkit/ssh_agent.1"]);
    assert_eq!(image.exec().env[1], "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0");
    let own = build("FROM base\nENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh x\n");
    assert_eq!(own.exec().env[1], "SSH_AUTH_SOCK=/own");
}

#[test]
fn wrong_mounts_are_refused_in_the_references_words() {
    for (mount, text) in [
        ("type=foo,target=/x", "unsupported mount type \"foo\""),
        ("foo=1,target=/x", "unexpected key 'foo' in 'foo=1'"),
        ("type=bind,target=/x,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("target=/x,foo", "invalid field 'foo' must be a key=value pair"),
        ("type=cache,target=/x,sharing=foo", "unsupported sharing value \"foo\""),
        ("type=bind,target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=bind,target=/x,uid=1", "uid not allowed for \"bind\" type mounts"),
        ("type=bind,target=/m,mode=0700", "mode not allowed for \"bind\" type mounts"),
        ("type=cache,target=/", "invalid mount target \"/\""),
        ("type=tmpfs", "invalid mount target"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("from=$X,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
        ("from=nostage,target=/x", "nostage: not found"),
    ] {
        refused(&format!("FROM base\nRUN --mount={mount} true\n"), 2, text);
    }
    let dockerfile = "FROM base AS a\nRUN --mount=from=b,target=/x true\nFROM base AS b\n";
    let error =
        convert(&ConvertRequest { target: Some("a"), ..request(dockerfile) }, &Fake::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot mount from stage \"b\" to \"/x\", stage needs to be defined before current command"
    );
}

#[test]
fn a_run_without_a_program_is_refused() {
    refused("FROM base\nRUN []\n", 2, "arguments are required");
}

#[test]
fn networks_and_security_need_to_be_allowed() {
    assert_eq!(build("FROM base\nRUN --network=none x\n").exec().network, NetworkMode::None);
    refused("FROM base\nRUN --network=host x\n", 2, "network.host is not allowed");
    refused("FROM base\nRUN --security=insecure x\n", 2, "security.insecure is not allowed");
    refused("FROM base\nRUN --network=foo x\n", 2, "invalid network mode \"foo\"");
    refused("FROM base\nRUN --device=x true\n", 2, "device feature is only supported");
    let host = ConvertRequest { allow_host_network: true, ..request("FROM base\nRUN --network=host x\n") };
    assert_eq!(convert(&host, &Fake::new()).unwrap().exec().network, NetworkMode::Host);
    assert_eq!(build("FROM base\nRUN --security=sandbox x\n").exec().security, SecurityMode::Sandbox);
    let insecure = ConvertRequest {
        allow_insecure: true,
        cgroup_parent: Some("/p"),
        ..request("FROM base\nRUN --security=insecure x\n")
    };
    let exec = convert(&insecure, &Fake::new()).unwrap();
    assert_eq!(exec.exec().security, SecurityMode::Insecure);
    assert_eq!(exec.exec().cgroup_parent.as_deref(), Some("/p"));
}

#[test]
fn windows_has_another_shell() {
    let mut config = super::support::base();
    config.os = "windows".to_owned();
    let image = build_with("FROM win\nRUN dir\n", &Fake::new().image("win", config));
    assert_eq!(image.exec().args, ["cmd", "/S", "/C", "dir"]);
}
