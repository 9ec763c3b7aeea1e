//! The same input gives the same image, wherever and whenever it is built.

use std::os::unix::process::CommandExt;
use std::process::Command;

use mica_testkit::{Mica, Output};
use mica_tests::{Build, with_base};

const DOCKERFILE: &str = concat!(
    "FROM base\nWORKDIR /w\nCOPY . .\nCOPY --chmod=600 <<END /etc/conf\nx\nEND\nENV A=1\n",
    "ADD a.tar /t/\nCOPY --link f /linked/\nCMD [\"/bin/sh\"]\n",
);

const FILES: &str = concat!(
    "mkdir -p d; echo f > f; echo g > d/g; ln -s g d/l; ln f d/h; chmod 751 d; tar --mtime=@5 -cf a.tar f;",
    "touch -h -d @1500000000.123456789 f d/g d/l a.tar Dockerfile d .",
);

/// Builds under a umask of mica's own.
#[track_caller]
fn under_umask(mica: &Mica, umask: u32) -> Output {
    let context = mica.work().join("context");
    let command = mica.command(["build", "-q", context.to_str().unwrap()]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("umask {umask:03o}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear().process_group(0);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    mica.run(["images", "-q", "--no-trunc"]).success()
}

#[test]
fn two_stores_give_one_image() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    let first = Build::new(&one, DOCKERFILE).prepare(FILES).id();
    let second = Build::new(&two, DOCKERFILE).prepare(FILES).id();
    assert_eq!(first, second);
}

#[test]
fn the_umask_does_not_matter() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    let context = |mica: &Mica| drop(Build::new(mica, DOCKERFILE).prepare(FILES));
    context(&one);
    context(&two);
    let open = under_umask(&one, 0o000).stdout_text();
    let closed = under_umask(&two, 0o077).stdout_text();
    assert_eq!(open, closed);
}

#[test]
fn archives_are_equal_byte_by_byte() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    let archive = |mica: &Mica, kind: &str| {
        let file = mica.work().join("out.tar");
        let output = format!("type={kind},dest={}", file.display());
        Build::new(mica, DOCKERFILE).prepare(FILES).option("-t", "x").option("-o", &output).run().success();
        std::fs::read(file).unwrap()
    };
    for kind in ["oci", "docker", "tar"] {
        assert!(archive(&one, kind) == archive(&two, kind), "type={kind} differs");
    }
}

#[test]
fn a_packed_image_depends_on_its_programs_only() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    let first = one.run(["pack", "/bin/ls", "-t", "a"]).success().line();
    let second = two.run(["pack", "/bin/ls", "-t", "b"]).success().line();
    assert_eq!(first, second);
}
