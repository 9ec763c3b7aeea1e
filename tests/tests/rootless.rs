//! Users without privileges: with subordinate ids, and without.

use mica_testkit::Mica;
use mica_tests::{holds, with_ids, without_ids};

/// Builds, runs, commits, saves and removes, as anybody would.
fn a_day(mica: &Mica) {
    mica.write(
        "c/Dockerfile",
        "FROM base\nWORKDIR /w\nCOPY f .\nRUN echo more >> f && rm /etc/group && mkdir d\nCMD cat /w/f\n",
    );
    let context = mica.write("c/f", "hello\n");
    let context = context.parent().unwrap().to_str().unwrap();
    let first = mica.run(["build", "-q", "-t", "x", context]).success().line();
    assert_eq!(mica.run(["build", "-q", "-t", "x", context]).success().line(), first, "cached");
    assert_eq!(mica.run(["run", "--rm", "x"]).success().stdout_text(), "hello\nmore\n");
    mica.run(["run", "--name", "worker", "x", "sh", "-c", "echo new > /new; exit 3"]).exits(3);
    holds(&mica.run(["diff", "worker"]).success().stdout_text(), &["A /new"]);
    mica.run(["commit", "worker", "y"]).success();
    assert_eq!(mica.run(["run", "--rm", "y", "cat", "/new"]).success().line(), "new");
    mica.run(["run", "--rm", "y", "test", "-e", "/etc/group"]).exits(1);
    let archive = mica.work().join("y.tar");
    let archive = archive.to_str().unwrap();
    mica.run(["save", "-o", archive, "y"]).success();
    mica.run(["rm", "worker"]).success();
    mica.run(["rmi", "y"]).success();
    mica.run(["load", "-i", archive]).success();
    mica.run(["system", "check"]).success();
    mica.run(["system", "prune", "-a", "-f"]).success();
    mica.run(["system", "gc"]).success();
    assert_eq!(
        std::fs::read_dir(mica.root().join("layers")).unwrap().count(),
        0,
        "the user can remove every layer"
    );
}

#[test]
fn a_user_with_subordinate_ids_does_everything() {
    let Some(mica) = with_ids() else { return };
    a_day(&mica);
}

#[test]
fn a_user_with_subordinate_ids_has_owners() {
    let Some(mica) = with_ids() else { return };
    mica.write(
        "c/Dockerfile",
        "FROM base\nRUN touch /f && chown 5:6 /f && stat -c '%u %g' /f\nUSER ann\nRUN id -u > /tmp/id\n",
    );
    let context = mica.work().join("c");
    mica.run(["build", "-q", "-t", "x", context.to_str().unwrap()]).success();
    let seen = mica.run(["run", "--rm", "-u", "0", "x", "stat", "-c", "%u %g", "/f", "/tmp/id"]).success();
    assert_eq!(seen.stdout_text(), "5 6\n1000 1001\n");
    let output = mica.run(["build", "-q", "-o", "-", context.to_str().unwrap()]).success();
    let tar = mica.write("o.tar", output.stdout);
    let listed =
        std::process::Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(tar).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|line| line.contains(" 5/6 ") && line.ends_with(" f")), "{listed}");
}

#[test]
fn a_user_without_subordinate_ids_does_nearly_everything() {
    let Some(mica) = without_ids() else { return };
    a_day(&mica);
}

#[test]
fn a_user_without_subordinate_ids_is_told_what_is_missing() {
    let Some(mica) = without_ids() else { return };
    let info = mica.run(["info"]).success();
    let said = info.stdout_text() + &info.stderr_text();
    holds(&said, &["single"]);
    mica.write("c/Dockerfile", "FROM base\nCOPY --chown=5:6 f /f\nRUN stat -c '%u %g' /f\n");
    let context = mica.write("c/f", "f");
    let context = context.parent().unwrap().to_str().unwrap();
    let output = mica.run(["build", "-q", "-o", "-", context]).success();
    let tar = mica.write("o.tar", output.stdout);
    let listed =
        std::process::Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(tar).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.lines().any(|line| line.contains(" 5/6 ") && line.ends_with(" f")),
        "owners are kept: {listed}"
    );
}

#[test]
fn images_are_the_same_for_everybody() {
    let (Some(many), Some(one)) = (with_ids(), without_ids()) else { return };
    let Some(root) = mica_tests::with_base() else { return };
    let id = |mica: &Mica| {
        mica.write("c/Dockerfile", "FROM base\nWORKDIR /w\nCOPY --chown=5:6 f .\nADD t.tar /t/\n");
        let file = mica.write("c/f", "f\n");
        let context = file.parent().unwrap();
        let script = "chmod 640 f; touch -d @1500000000 f; tar --owner=7 --group=8 --mtime=@5 -cf t.tar f; chmod 644 f t.tar; touch -d @1500000000 f t.tar";
        let made = std::process::Command::new("sh").args(["-euc", script]).current_dir(context).status();
        assert!(made.is_ok_and(|status| status.success()));
        mica.run(["build", "-q", context.to_str().unwrap()]).success().line()
    };
    let expected = id(&root);
    assert_eq!(id(&many), expected);
    assert_eq!(id(&one), expected);
}

#[test]
fn a_user_s_containers_are_confined() {
    let Some(mica) = with_ids() else { return };
    let status = mica.run(["run", "--rm", "base", "cat", "/proc/self/status"]).success().stdout_text();
    holds(&status, &["CapEff:\t00000000800405fb\n", "Seccomp:\t2\n"]);
    let map = mica.run(["run", "--rm", "base", "cat", "/proc/self/uid_map"]).success().stdout_text();
    assert!(!map.trim_start().starts_with("0          0"), "{map}");
}

#[test]
fn the_store_of_another_user_is_refused() {
    let Some(mica) = with_ids() else { return };
    let root = mica.root();
    let as_root = Mica::new().env("MICA_ROOT", &root);
    let refused = as_root.run(["images"]);
    assert_ne!(refused.code(), 0, "{}", refused.stdout_text());
    holds(&refused.stderr_text(), &[root.to_str().unwrap()]);
}
