//! `mica pack`: programs of this machine with everything they need.

use mica_testkit::needs_root;
use mica_tests::{empty, holds};

#[test]
fn the_list_says_what_would_go_in_and_why() {
    let Some(mica) = empty() else { return };
    let list = mica.run(["pack", "--list", "/bin/ls"]).success().stdout_text();
    assert!(list.starts_with("PATH"), "{list}");
    holds(&list, &["SIZE", "WHY", "asked for", "libc.so.6", "loads /", "library of"]);
    let images = mica.run(["images", "-q"]).success().stdout_text();
    assert_eq!(images, "", "nothing was made");
}

#[test]
fn a_dynamic_program_works() {
    let Some(mica) = empty() else { return };
    let id = mica.run(["pack", "ls", "cat", "-t", "tools"]).success().line();
    assert!(id.starts_with("sha256:"));
    let listed = mica.run(["run", "--rm", "--entrypoint", "ls", "tools", "-d", "/usr"]).success().line();
    assert_eq!(listed, "/usr");
    let output = mica.run(["run", "--rm", "--entrypoint", "cat", "tools", "/etc/passwd"]).success();
    assert!(output.stdout_text().starts_with("root:x:0:0:"));
}

#[test]
fn arguments_and_environment_are_kept() {
    let Some(mica) = empty() else { return };
    mica.run(["pack", "/bin/ls", "-t", "a", "-e", "A=1", "--entrypoint=/bin/ls", "--cmd=-d", "--cmd", "/"])
        .success();
    let config = mica.run(["image", "inspect", "a"]).success().json()[0]["Config"].take();
    assert_eq!(config["Cmd"], serde_json::json!(["-d", "/"]));
    assert!(config["Env"].to_string().contains("\"A=1\""));
    assert_eq!(mica.run(["run", "--rm", "a"]).success().line(), "/");
}

#[test]
fn scripts_bring_their_interpreter() {
    let Some(mica) = empty() else { return };
    let script = mica.write("hello", "#!/bin/sh\necho hello $1\n");
    std::process::Command::new("chmod").arg("755").arg(&script).status().unwrap();
    mica.run(["pack", script.to_str().unwrap(), "-t", "hello"]).success();
    assert_eq!(
        mica.run(["run", "--rm", "--entrypoint", script.to_str().unwrap(), "hello", "you"]).success().line(),
        "hello you"
    );
}

#[test]
fn other_files_are_taken_as_they_are() {
    let Some(mica) = empty() else { return };
    let data = mica.write("data/f", "x\n");
    mica.run(["pack", "cat", data.parent().unwrap().to_str().unwrap(), "-t", "c"]).success();
    assert_eq!(
        mica.run(["run", "--rm", "--entrypoint", "cat", "c", data.to_str().unwrap()]).success().line(),
        "x"
    );
}

#[test]
fn what_is_not_there_is_named() {
    if !needs_root() {
        return;
    }
    let Some(mica) = empty() else { return };
    mica.run(["pack", "nosuchprogram", "-t", "x"]).exits(1).complains("nosuchprogram");
    mica.run(["pack", "/no/such/file", "-t", "x"]).exits(1).complains("/no/such/file");
}

#[test]
fn a_single_program_is_the_entrypoint() {
    let Some(mica) = empty() else { return };
    mica.run(["pack", "ls", "-t", "ls"]).success();
    assert_eq!(mica.run(["run", "--rm", "ls", "-d", "/usr"]).success().line(), "/usr");
}
