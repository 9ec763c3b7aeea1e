//! COPY and ADD: what lands where, with which mode, owner and time.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Command;

use mica_tests::{Build, with_base};
use serde_json::json;

/// 2001-09-09 01:46:40 UTC.
const TIME: i64 = 1_000_000_000;

#[test]
fn a_directory_is_copied_as_its_contents() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, "FROM scratch\nCOPY d /x\n").file("d/a", "a").file("d/e/b", "b").succeeds();
    assert_eq!(built.tree().files("/"), ["x/a", "x/e/b"]);
}

#[test]
fn the_top_directory_keeps_its_own_mode_and_takes_the_time() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN mkdir -m 0711 /old\nCOPY d /new\nCOPY d /old\n";
    let build = Build::new(&mica, dockerfile).prepare(
        "mkdir -p d/in; echo x > d/f; chown 9:9 d d/f; chmod 4750 d/f; chmod 0700 d d/in; touch -d @1000000000 d/f d/in d",
    );
    let tree = build.succeeds().tree();
    assert_eq!((tree.mode("/new"), tree.lstat("/new").mtime()), (0o755, TIME));
    assert_eq!((tree.mode("/old"), tree.lstat("/old").mtime()), (0o711, TIME));
    assert_eq!((tree.mode("/new/f"), tree.lstat("/new/f").mtime()), (0o4750, TIME));
    assert_eq!((tree.mode("/new/in"), tree.lstat("/new/in").mtime()), (0o700, TIME));
    assert_eq!((tree.owner("/new"), tree.owner("/new/f")), ((0, 0), (0, 0)));
}

#[test]
fn several_sources_without_a_slash_overwrite_each_other() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM scratch\nCOPY a b /x\n").file("a", "a").file("b", "b");
    assert_eq!(build.succeeds().tree().text("/x"), "b");
}

#[test]
fn a_missing_source_fails_and_a_pattern_without_match_does_not() {
    let Some(mica) = with_base() else { return };
    Build::new(&mica, "FROM scratch\nCOPY nope /x\n").fails("\"/nope\": not found");
    let tree = Build::new(&mica, "FROM scratch\nCOPY nope* /x\n").succeeds().tree();
    assert!(!tree.has("/x"));
}

#[test]
fn patterns_follow_go_s_rules() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM scratch\nCOPY *.t[xy]t /a/\nCOPY d?/[[]x /b/\nCOPY .h* /c/\nCOPY d* /d/\n";
    let build =
        Build::new(&mica, dockerfile).prepare("mkdir d1 d2; touch 1.txt 2.tyt 3.tzt d1/[x d1/y d2/z .hidden");
    let tree = build.succeeds().tree();
    assert_eq!(tree.files("/"), ["a/1.txt", "a/2.tyt", "b/[x", "c/.hidden", "d/[x", "d/y", "d/z"]);
}

#[test]
fn links_are_followed_when_named_and_copied_when_inside() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM scratch\nCOPY l d /x/\n")
        .prepare("echo f > f; ln -s f l; mkdir d; echo q > d/q; ln -s q d/l2");
    let tree = build.succeeds().tree();
    assert!(tree.lstat("/x/l").is_file());
    assert_eq!((tree.text("/x/l").as_str(), tree.text("/x/q").as_str()), ("f\n", "q\n"));
    assert_eq!(tree.link("/x/l2"), "q");
}

#[test]
fn nothing_outside_the_context_is_read() {
    let Some(mica) = with_base() else { return };
    let links = "ln -s /etc/passwd evil; ln -s ../../../../../../etc out";
    Build::new(&mica, "FROM scratch\nCOPY evil /x\n").prepare(links).fails("not found");
    Build::new(&mica, "FROM scratch\nCOPY out/passwd /x\n").prepare(links).fails("not found");
    Build::new(&mica, "FROM scratch\nCOPY ../../etc/passwd /x\n").fails("not found");
    let build = Build::new(&mica, "FROM scratch\nCOPY ../a /x\n").file("a", "a");
    assert_eq!(build.succeeds().tree().text("/x"), "a");
}

#[test]
fn links_in_the_destination_stay_inside_the_root() {
    let Some(mica) = with_base() else { return };
    let outside = mica.work().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let dockerfile = format!(
        "FROM base\nRUN ln -s {} /s && ln -s ../../../../.. /up\nCOPY a /s/\nCOPY a /up/b\n",
        outside.display()
    );
    let tree = Build::new(&mica, dockerfile).file("a", "a").succeeds().tree();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "the host's directory is untouched");
    assert_eq!(tree.text("/b"), "a");
    assert!(tree.has(&format!("{}/a", outside.display())) || tree.path("/s").is_symlink());
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let Some(mica) = with_base() else { return };
    Build::new(&mica, "FROM scratch\nCOPY f /x\nCOPY d /x\n")
        .file("f", "")
        .file("d/a", "")
        .fails("cannot copy to non-directory");
    Build::new(&mica, "FROM scratch\nCOPY d/x /t/x/\nCOPY f/x /t/\n")
        .file("f/x", "")
        .file("d/x/a", "")
        .fails("cannot replace to directory");
}

#[test]
fn owners_are_the_flag_s_and_never_the_user_s() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nUSER 5\nCOPY f /a\nCOPY --chown=7 f /b\nCOPY --chown=ann f /c\nCOPY --chown=ann:wheel f /new/d\n",
        "COPY --chown=nosuch f /e\nARG O=3:4\nCOPY --chown=$O f /f\n",
    );
    let tree = Build::new(&mica, dockerfile).file("f", "").succeeds().tree();
    let expected = [
        ("/a", (0, 0)),
        ("/b", (7, 7)),
        ("/c", (1000, 1001)),
        ("/new", (1000, 10)),
        ("/new/d", (1000, 10)),
        ("/e", (0, 0)),
        ("/f", (3, 4)),
    ];
    for (path, owner) in expected {
        assert_eq!(tree.owner(path), owner, "{path}");
    }
    Build::new(&mica, "FROM scratch\nCOPY --chown=nosuch f /\n").file("f", "").fails("invalid user index");
}

#[test]
fn modes_are_octal_or_symbolic() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(
        &mica,
        "FROM scratch\nCOPY --chmod=u=rwX,go=rX d /a\nCOPY --chmod=750 d/f /n/b\nCOPY --chmod=2640 d/f /c\n",
    );
    let tree =
        build.prepare("mkdir -p d/e; touch d/f d/x; chmod 600 d/f; chmod 700 d/x d/e").succeeds().tree();
    assert_eq!((tree.mode("/a/f"), tree.mode("/a/x"), tree.mode("/a/e")), (0o644, 0o755, 0o755));
    assert_eq!((tree.mode("/n/b"), tree.mode("/n"), tree.mode("/c")), (0o750, 0o750, 0o2640));
    let bad = Build::new(&mica, "FROM scratch\nCOPY --chmod=08 f /\n").file("f", "");
    bad.fails("invalid chmod parameter: '08'. it should be octal string and between 0 and 07777");
}

#[test]
fn parents_are_recreated_from_the_pivot_on() {
    let Some(mica) = with_base() else { return };
    let dockerfile =
        "FROM scratch\nCOPY --parents x/./y/z /d/\nCOPY --parents x/y/z /e/\nCOPY --parents **/*.md /f/\n";
    let build = Build::new(&mica, dockerfile).prepare("mkdir -p x/y; touch x/y/z x/y/r.md; chmod 700 x/y");
    let tree = build.succeeds().tree();
    assert_eq!(tree.files("/"), ["d/y/z", "e/x/y/z", "f/x/y/r.md"]);
    assert_eq!(tree.mode("/d/y"), 0o700);
}

#[test]
fn exclusions_apply_inside_directories_only() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM scratch\nCOPY --exclude=*.txt d /x\nCOPY --exclude=*.txt d/* /y/\n";
    let tree = Build::new(&mica, dockerfile).file("d/a.txt", "").file("d/b.md", "").succeeds().tree();
    assert_eq!(tree.files("/"), ["x/b.md", "y/a.txt", "y/b.md"]);
}

#[test]
fn a_linked_copy_replaces_links_of_the_destination() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN mkdir /a && ln -s /a /s\nCOPY --link f /s/\n";
    let tree = Build::new(&mica, dockerfile).file("f", "").succeeds().tree();
    assert!(tree.lstat("/s").is_dir());
    assert!(!tree.has("/a/f"));
    let followed = "FROM base\nRUN mkdir /a && ln -s /a /s\nCOPY f /s/\n";
    let tree = Build::new(&mica, followed).file("f", "").succeeds().tree();
    assert!(tree.has("/a/f") && tree.lstat("/s").is_symlink());
}

#[test]
fn stages_are_copied_from_by_index_and_by_name() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base AS One\nRUN mkdir /d && echo 1 > /d/f && chown 3:4 /d/f && ln /d/f /d/g\n",
        "FROM scratch\nCOPY --from=0 /d /a\nCOPY --from=ONE /d/f /b\n",
    );
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert_eq!((tree.owner("/a/f"), tree.owner("/b")), ((3, 4), (3, 4)));
    assert_eq!(tree.lstat("/a/f").ino(), tree.lstat("/a/g").ino(), "hard links stay linked");
    let later = "FROM base AS a\nCOPY --from=b /x /\nFROM base AS b\n";
    Build::new(&mica, later)
        .option("--target", "a")
        .fails("it needs to be defined before current stage \"a\"");
    Build::new(&mica, "FROM base\nCOPY --from=5 /x /\n").fails("invalid stage index 5");
}

#[test]
fn contexts_can_be_named() {
    let Some(mica) = with_base() else { return };
    mica.write("other/f", "other\n");
    mica.write("other/.dockerignore", "hidden\n");
    mica.write("other/hidden", "");
    let value = format!("other={}", mica.work().join("other").display());
    let build =
        Build::new(&mica, "FROM scratch\nCOPY --from=other . /o/\n").option("--build-context", &value);
    assert_eq!(build.succeeds().tree().files("/o"), [".dockerignore", "f"]);
    let image = Build::new(&mica, "FROM x\nRUN true\n").option("--build-context", "x=docker-image://base");
    image.succeeds();
    let stage = Build::new(&mica, "FROM nosuch AS dep\nRUN false\nFROM scratch\nCOPY --from=dep f /\n");
    let stage = stage.option("--build-context", &value.replace("other=", "dep="));
    assert_eq!(stage.succeeds().tree().text("/f"), "other\n");
}

#[test]
fn archives_are_unpacked_by_add_and_by_their_content() {
    let Some(mica) = with_base() else { return };
    let pack = concat!(
        "mkdir in; echo 1 > in/f; chmod 640 in/f; touch -d @1000000000 in/f;",
        "tar --owner=3 --group=4 -cf a.tar in; tar --owner=3 --group=4 -czf b.dat in; tar -cf - in | xz > c.txz;",
        "tar -cf - in | bzip2 > e.tbz; echo text | gzip > t.gz; mkdir d; cp a.tar d/",
    );
    let dockerfile = concat!(
        "FROM scratch\nADD a.tar /a\nADD b.dat /b\nADD c.txz /c\nADD e.tbz /e\nADD t.gz /t/\nADD d /d\n",
        "ADD --unpack=false a.tar /raw\nADD --chown=8 a.tar /own\nCOPY a.tar /copied\n",
    );
    let tree = Build::new(&mica, dockerfile).prepare(pack).succeeds().tree();
    for path in ["/a/in/f", "/b/in/f", "/c/in/f", "/e/in/f"] {
        assert_eq!(tree.text(path), "1\n", "{path}");
    }
    assert_eq!(
        (tree.mode("/a/in/f"), tree.owner("/a/in/f"), tree.lstat("/a/in/f").mtime()),
        (0o640, (3, 4), TIME)
    );
    assert_eq!(tree.owner("/own/in/f"), (8, 8));
    assert!(tree.lstat("/t/t.gz").is_file() && tree.lstat("/d/a.tar").is_file());
    assert!(tree.lstat("/raw").is_file() && tree.lstat("/copied").is_file());
}

#[test]
fn zstd_archives_are_unpacked_too() {
    let Some(mica) = with_base() else { return };
    if !Command::new("zstd").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return mica_testkit::skip("no zstd");
    }
    let build =
        Build::new(&mica, "FROM scratch\nADD a /a\n").prepare("echo 1 > f; tar -cf - f | zstd -q > a");
    assert_eq!(build.succeeds().tree().text("/a/f"), "1\n");
}

#[test]
fn history_shows_the_flags_that_change_files() {
    let Some(mica) = with_base() else { return };
    let dockerfile =
        "FROM scratch\nARG D=z\nCOPY --chown=1:2 --chmod=640 --link a b /$D/\nADD a /y\nCOPY <<EOF /h\nEOF\n";
    let built = Build::new(&mica, dockerfile).file("a", "").file("b", "").succeeds();
    assert_eq!(
        built.history(),
        [
            "ARG D=z",
            "COPY --chown=1:2 --chmod=640 a b /z/ # buildkit",
            "ADD a /y # buildkit",
            "COPY <<EOF /h # buildkit"
        ]
    );
    assert_eq!(built.stored_config()["history"][1]["comment"], json!("buildkit.dockerfile.v0"));
}

#[test]
fn holes_pipes_and_odd_names_survive() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base AS a\nCOPY . /c/\nFROM scratch\nCOPY --from=a /c /d\n";
    let build = Build::new(&mica, dockerfile)
        .prepare("truncate -s 20M sparse; printf end >> sparse; mkfifo pipe; printf x > 'name with ünicode'");
    let tree = build.succeeds().tree();
    assert_eq!(tree.lstat("/d/sparse").len(), 20 * 1024 * 1024 + 3);
    assert!(tree.text("/d/name with ünicode") == "x" && tree.lstat("/d/pipe").file_type().is_fifo());
}

/// Whether `getcap` sees a capability on a file.
fn has_capability(file: &std::path::Path) -> bool {
    let shown = Command::new("getcap").arg(file).output();
    shown.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("cap_net_raw"))
}

#[test]
fn file_capabilities_of_an_archive_survive() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base AS a\nADD a.tar /c/\nRUN true\nFROM scratch\nCOPY --from=a /c /d\n";
    let build = Build::new(&mica, dockerfile).prepare(
        "touch cap; setcap cap_net_raw+ep cap || true; tar --xattrs --xattrs-include='*' -cf a.tar cap",
    );
    if !has_capability(&build.context().join("cap")) {
        return mica_testkit::skip("cannot set file capabilities here");
    }
    assert!(has_capability(&build.succeeds().tree().path("/d/cap")));
}

#[test]
fn file_capabilities_of_the_context_survive() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM scratch\nCOPY cap /d/\nCOPY . /all/\n")
        .prepare("touch cap; setcap cap_net_raw+ep cap || true");
    if !has_capability(&build.context().join("cap")) {
        return mica_testkit::skip("cannot set file capabilities here");
    }
    assert!(has_capability(&build.succeeds().tree().path("/d/cap")));
}
