//! When a step is taken from the cache, and when it must not be.

use mica_testkit::Mica;
use mica_tests::{Build, Built, holds, with_base};

/// What a step is called in the plain progress of the second build.
const LAST: &str = "RUN echo last";

const COPIES: &str = "FROM base\nCOPY d/f /x/\nRUN echo last\n";

/// Builds twice, the context changed by a script between; answers the second result.
#[track_caller]
fn after<'a>(mica: &'a Mica, dockerfile: &str, prepare: &str, change: &str, changed: &str) -> Built<'a> {
    Build::new(mica, dockerfile).prepare(prepare).succeeds();
    Build::again(mica, changed).prepare(change).succeeds()
}

#[test]
fn what_a_file_is_decides_about_its_copy() {
    let Some(mica) = with_base() else { return };
    let prepare = "mkdir d; echo 1 > d/f";
    let cases = [
        ("touch -d @1000000000 d/f", true, "touched only"),
        ("chmod 600 d/f", false, "mode"),
        ("chown 5:5 d/f", true, "owner on the host"),
        ("echo 2 > d/f", false, "bytes"),
        ("echo more > d/other; touch d", true, "another file"),
        ("mv d/f d/g; cp d/g d/f", true, "another inode"),
    ];
    for (change, hit, what) in cases {
        let built = after(&mica, COPIES, prepare, change, COPIES);
        assert_eq!(built.cached("COPY d/f"), hit, "{what}");
        assert_eq!(built.cached(LAST), hit, "{what}: the step after it");
        mica.run(["builder", "prune", "-a", "-f"]).success();
    }
}

#[test]
fn the_name_counts_and_the_directory_does_not() {
    let Some(mica) = with_base() else { return };
    let prepare = "mkdir d e; echo 1 > d/f; echo 1 > e/f; echo 1 > d/g";
    let other_directory = after(&mica, COPIES, prepare, "", "FROM base\nCOPY e/f /x/\nRUN echo last\n");
    assert!(other_directory.cached("COPY e/f"));
    let other_name = after(&mica, COPIES, prepare, "", "FROM base\nCOPY d/g /x/\nRUN echo last\n");
    assert!(!other_name.cached("COPY d/g"));
    let other_place = after(&mica, COPIES, prepare, "", "FROM base\nCOPY d/f /y/\nRUN echo last\n");
    assert!(!other_place.cached("COPY d/f"));
}

#[test]
fn a_directory_is_its_names_and_contents() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nCOPY d /x/\nRUN echo last\n";
    let prepare = "mkdir -p d/e; echo 1 > d/f; ln -s f d/l";
    let cases = [
        ("touch d/f d/e d", true),
        ("mv d/f d/g", false),
        ("ln -sf e d/l", false),
        ("chmod 700 d/e", false),
        ("touch d/new", false),
        ("rm d/f; echo 1 > d/f", true),
    ];
    for (change, hit) in cases {
        let built = after(&mica, dockerfile, prepare, change, dockerfile);
        assert_eq!(built.cached("COPY d"), hit, "{change}");
        mica.run(["builder", "prune", "-a", "-f"]).success();
    }
}

#[test]
fn how_a_dockerfile_is_written_does_not_matter() {
    let Some(mica) = with_base() else { return };
    let first = "FROM base\nRUN echo last\n";
    let cases = [
        ("# comment\n\nfrom   base\nrun    echo last\n", true),
        ("FROM base\nLABEL a=b\nEXPOSE 80\nCMD [\"x\"]\nARG NONE\nRUN echo last\n", true),
        ("FROM base\nRUN echo last\nENV A=1\n", true),
        ("FROM base AS name\nRUN echo last\n", true),
        ("FROM base\nENV A=1\nRUN echo last\n", false),
        ("FROM base\nUSER 5\nRUN echo last\n", false),
        ("FROM base\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo last\n", false),
        ("FROM base\nARG B=1\nRUN echo last\n", false),
        ("FROM base\nWORKDIR /w\nRUN echo last\n", false),
        ("FROM base\nRUN --network=none echo last\n", false),
    ];
    Build::new(&mica, first).succeeds();
    for (dockerfile, hit) in cases {
        let title =
            if dockerfile.contains("--network") { "RUN --network=none echo last" } else { "echo last" };
        assert_eq!(Build::new(&mica, dockerfile).succeeds().cached(title), hit, "{dockerfile:?}");
    }
    let heredoc = "FROM base\nCOPY <<A /f\nx\nA\n";
    let renamed = "FROM base\nCOPY <<B /f\nx\nB\n";
    assert!(!after(&mica, heredoc, "", "", renamed).cached("COPY <<B"));
}

#[test]
fn a_hit_keeps_the_old_layer_and_the_image() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nCOPY f /f\nRUN date > /when\n";
    let first = Build::new(&mica, dockerfile).prepare("echo 1 > f").id();
    let second = Build::again(&mica, dockerfile).prepare("sleep 1.1; touch f").id();
    assert_eq!(first, second);
}

#[test]
fn copies_between_stages_go_by_content() {
    let Some(mica) = with_base() else { return };
    let dockerfile = |text: &str| {
        format!(
            "FROM base AS a\nRUN echo {text} > /ignored; echo same > /f\nFROM base\nCOPY --from=a /f /f\nRUN echo last\n"
        )
    };
    Build::new(&mica, dockerfile("1")).succeeds();
    let built = Build::new(&mica, dockerfile("2")).succeeds();
    assert!(!built.cached("RUN echo 2"));
    assert!(built.cached("COPY --from=a /f /f") && built.cached(LAST));
}

#[test]
fn bind_mounts_count_only_what_they_mount() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN --mount=source=d,target=/m cat /m/f\n";
    let title = "RUN --mount=source=d";
    let prepare = "mkdir d; echo 1 > d/f; echo 1 > other";
    assert!(after(&mica, dockerfile, prepare, "echo 2 > other", dockerfile).cached(title));
    assert!(!after(&mica, dockerfile, prepare, "echo 2 > d/f", dockerfile).cached(title));
}

#[test]
fn the_key_of_a_linked_copy_has_no_parent() {
    let Some(mica) = with_base() else { return };
    let dockerfile = |text: &str| format!("FROM base\nRUN echo {text} > /f\nCOPY --link g /g\n");
    let first = Build::new(&mica, dockerfile("1")).file("g", "");
    first.succeeds();
    let built = Build::new(&mica, dockerfile("2")).file("g", "").succeeds();
    assert!(built.cached("COPY --link g /g"));
    assert_eq!(built.tree().text("/f"), "2\n");
}

#[test]
fn no_cache_runs_every_step_and_still_records_it() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nCOPY f /f\nRUN echo last\n";
    Build::new(&mica, dockerfile).file("f", "").succeeds();
    let fresh = Build::again(&mica, dockerfile).flag("--no-cache").succeeds();
    assert!(!fresh.cached("COPY f /f") && !fresh.cached(LAST));
    let again = Build::again(&mica, dockerfile).succeeds();
    assert!(again.cached("COPY f /f") && again.cached(LAST));
}

#[test]
fn the_cache_can_be_off_for_one_stage() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base AS a\nRUN echo one > /f\nFROM base AS b\nRUN echo two\nCOPY --from=a /f /f\n";
    Build::new(&mica, dockerfile).succeeds();
    let built = Build::new(&mica, dockerfile).option("--no-cache-filter", "a").succeeds();
    assert!(!built.cached("RUN echo one") && built.cached("RUN echo two"));
    let both = Build::new(&mica, dockerfile).flag("--no-cache").option("--no-cache-filter", "a");
    both.fails("--no-cache and --no-cache-filter cannot currently be used together");
}

#[test]
fn a_retagged_base_is_the_same_base() {
    let Some(mica) = with_base() else { return };
    mica.run(["tag", "base", "other:2"]).success();
    Build::new(&mica, "FROM base\nRUN echo last\n").succeeds();
    assert!(Build::new(&mica, "FROM other:2\nRUN echo last\n").succeeds().cached(LAST));
}

#[test]
fn two_builds_at_once_share_a_step() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN --mount=type=cache,id=n,target=/c sleep 0.5; echo ran >> /c/log\n";
    let directory = mica.work().join("shared");
    mica.write("shared/Dockerfile", dockerfile);
    let directory = directory.to_str().unwrap();
    let builds: Vec<_> = (0..3).map(|_| mica.spawn(["build", "-q", directory])).collect();
    let ids: Vec<String> = builds.into_iter().map(|build| build.wait().success().line()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let log = "FROM base\nRUN --mount=type=cache,id=n,target=/c cp /c/log /log\n";
    assert_eq!(Build::new(&mica, log).succeeds().tree().text("/log"), "ran\n");
}

#[test]
fn pruning_makes_every_step_run_again() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN echo last > /f\n";
    let first = Build::new(&mica, dockerfile).run().success();
    let pruned = mica.run(["builder", "prune", "-a", "-f"]).success();
    holds(&pruned.stdout_text(), &["Total:"]);
    assert!(!Build::new(&mica, dockerfile).succeeds().cached(LAST), "{}", first.stderr_text());
}
