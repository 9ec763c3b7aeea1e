//! Sources beyond the machine: web servers and git repositories, in ADD and as contexts.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mica_testkit::{Mica, skip};
use mica_tests::{Answer, Build, Tree, Web, empty, holds};

const MODIFIED: &str = "Wed, 06 May 2020 07:08:09 GMT";
const MODIFIED_SECONDS: i64 = 1_588_748_889;
const COMMITTED_SECONDS: i64 = 1_704_164_645;

/// A repository with a tag, a subdirectory and a link that leads out, served as plain files; `None` without git.
struct Repository {
    web: Web,
    work: PathBuf,
}

impl Repository {
    fn new(mica: &Mica) -> Option<Self> {
        if Command::new("git").arg("--version").output().is_err() {
            skip("git is not installed");
            return None;
        }
        let work = mica.work().join("repo");
        std::fs::create_dir_all(&work).unwrap();
        let script = "git init -q -b main . && git config user.email a@b && git config user.name n
            mkdir -p sub/deep && echo one > a.txt && echo deep > sub/deep/f && ln -s /etc sub/link
            printf '#!/bin/sh\\n' > run.sh && chmod 777 run.sh
            printf 'FROM scratch\\nCOPY . /all/\\n' > Dockerfile
            git add -A && git commit -qm one && git tag v1 && git tag -a v1a -m annotated";
        shell(&work, script);
        let web = Web::start();
        web.folder(mica.work());
        let repository = Self { web, work };
        repository.publish();
        Some(repository)
    }

    fn publish(&self) {
        shell(
            &self.work,
            "rm -rf ../x.git && git clone -q --bare . ../x.git && git -C ../x.git update-server-info",
        );
    }

    fn url(&self, rest: &str) -> String {
        format!("{}{rest}", self.web.url("/x.git"))
    }
}

fn shell(directory: &Path, script: &str) {
    let done = Command::new("/bin/sh")
        .args(["-euc", script])
        .current_dir(directory)
        .env("GIT_COMMITTER_DATE", "2024-01-02T03:04:05Z")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn head(repository: &Repository) -> String {
    let done =
        Command::new("git").args(["rev-parse", "HEAD"]).current_dir(&repository.work).output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_download_is_private_dated_and_asked_for_again_only_if_it_changed() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    web.file("/f.txt", "one\n", &[("ETag", "\"1\""), ("Last-Modified", MODIFIED)]);
    let dockerfile = format!("FROM scratch\nADD {} /d/\n", web.url("/f.txt?x=1"));
    web.file("/f.txt?x=1", "one\n", &[("ETag", "\"1\""), ("Last-Modified", MODIFIED)]);
    let tree = Build::new(&mica, &dockerfile).succeeds().tree();
    let found = tree.lstat("/d/f.txt");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.mtime()), (0o600, 0, MODIFIED_SECONDS));
    assert_eq!(tree.text("/d/f.txt"), "one\n");
    web.log();
    assert!(Build::new(&mica, &dockerfile).succeeds().cached("ADD"));
    assert_eq!(web.log(), ["GET /f.txt?x=1 304"]);
    web.file("/f.txt?x=1", "two\n", &[("ETag", "\"2\"")]);
    let tree = Build::new(&mica, &dockerfile).succeeds().tree();
    assert_eq!((tree.text("/d/f.txt"), tree.lstat("/d/f.txt").mtime()), ("two\n".to_owned(), 0));
}

#[test]
fn a_server_without_etags_is_asked_by_time() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    web.file("/f", "one", &[("Last-Modified", MODIFIED)]);
    let dockerfile = format!("FROM scratch\nADD {} /\n", web.url("/f"));
    let first = Build::new(&mica, &dockerfile).id();
    assert_eq!(Build::new(&mica, &dockerfile).id(), first);
    assert_eq!(web.log(), ["GET /f 200", "GET /f 304"]);
}

#[test]
fn a_checksum_is_verified_and_then_nobody_is_asked_again() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    web.file("/f", "one\n", &[]);
    let right = "sha256:2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806";
    let dockerfile = format!("FROM scratch\nADD --checksum={right} {} /\n", web.url("/f"));
    let first = Build::new(&mica, &dockerfile).id();
    web.answer("/f", Answer::Status(500));
    assert_eq!(Build::new(&mica, &dockerfile).id(), first);
    assert_eq!(web.log(), ["GET /f 200"]);
    web.file("/g", "two\n", &[]);
    let wrong = format!("FROM scratch\nADD --checksum={right} {} /\n", web.url("/g"));
    let failed = Build::new(&mica, wrong).fails("digest mismatch for http://");
    holds(&failed.stderr_text(), &[&format!("(expected: {right})"), "Dockerfile:2"]);
}

#[test]
fn what_a_server_refuses_fails_the_build_and_says_how() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    let add = |path: &str| format!("FROM scratch\nADD {} /\n", web.url(path));
    Build::new(&mica, add("/nothing")).fails("invalid response status 404");
    web.answer("/loop", Answer::Redirect("/loop".into()));
    Build::new(&mica, add("/loop")).fails("redirects more than 5 times");
    assert_eq!(web.log().len(), 1 + 6);
    web.answer("/file", Answer::Redirect("file:///etc/passwd".into()));
    Build::new(&mica, add("/file")).fails("which is not followed");
    web.answer("/hop", Answer::Redirect("/there".into()));
    web.file("/there", "hi", &[]);
    assert_eq!(
        Build::new(&mica, add("/hop")).succeeds().tree().text("/hop"),
        "hi",
        "named as it was asked for"
    );
    let nobody = "FROM scratch\nADD http://127.0.0.1:9/x /\n";
    Build::new(&mica, nobody).fails("cannot get http://127.0.0.1:9/x");
}

#[test]
fn an_interrupt_ends_the_wait_for_a_silent_server() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    web.answer("/silent", Answer::Silence);
    let build = Build::new(&mica, format!("FROM scratch\nADD {} /\n", web.url("/silent")));
    let mut child = mica.command(["build", build.context().to_str().unwrap()]).spawn().unwrap();
    let begun = Instant::now();
    while web.log().is_empty() && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn downloads_are_unpacked_only_if_asked_for() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    let work = mica.work();
    shell(&work, "mkdir t && echo in > t/in && tar -C t -czf t.tgz in");
    web.file("/t.tgz", std::fs::read(work.join("t.tgz")).unwrap(), &[]);
    let url = web.url("/t.tgz");
    let tree = Build::new(&mica, format!("FROM scratch\nADD {url} /p/\nADD --unpack=true {url} /u/\n"))
        .succeeds()
        .tree();
    assert_eq!((tree.names("/p"), tree.names("/u")), (vec!["t.tgz".to_owned()], vec!["in".to_owned()]));
}

#[test]
fn a_commit_is_added_by_branch_tag_query_or_its_own_name() {
    let Some(mica) = empty() else { return };
    let Some(repository) = Repository::new(&mica) else { return };
    let commit = head(&repository);
    let lines = [
        format!("ADD {} /head", repository.url("")),
        format!("ADD {} /sub", repository.url("#v1:sub/deep")),
        format!("ADD {} /tag", repository.url("?tag=v1a")),
        format!("ADD {} /commit", repository.url(&format!("#{commit}"))),
        format!("ADD --keep-git-dir --checksum={} {} /kept", &commit[..12], repository.url("?branch=main")),
        format!("ADD {} /dated", repository.url("?mtime=commit")),
    ];
    let dockerfile = format!("FROM scratch\n{}\n", lines.join("\n"));
    let tree = Build::new(&mica, &dockerfile).succeeds().tree();
    assert_eq!(tree.names("/head"), ["Dockerfile", "a.txt", "run.sh", "sub"]);
    assert_eq!((tree.names("/head"), tree.names("/head")), (tree.names("/tag"), tree.names("/commit")));
    assert_eq!(tree.names("/sub"), ["f"]);
    assert!(tree.has("/kept/.git/HEAD") && !tree.has("/kept/.git/FETCH_HEAD"));
    assert_eq!(
        (tree.mode("/head/a.txt"), tree.mode("/head/run.sh"), tree.mode("/head/sub")),
        (0o644, 0o755, 0o755)
    );
    assert_eq!(
        (tree.lstat("/head/a.txt").mtime(), tree.lstat("/dated/a.txt").mtime()),
        (0, COMMITTED_SECONDS)
    );
    assert_eq!(tree.link("/head/sub/link"), "/etc");
}

#[test]
fn a_branch_that_moves_is_a_miss_and_one_that_does_not_a_hit() {
    let Some(mica) = empty() else { return };
    let Some(repository) = Repository::new(&mica) else { return };
    let dockerfile = format!("FROM scratch\nADD {} /r\n", repository.url("#main"));
    let first = Build::new(&mica, &dockerfile).id();
    assert!(Build::new(&mica, &dockerfile).succeeds().cached("ADD"));
    shell(&repository.work, "echo two > a.txt && git commit -qam two");
    repository.publish();
    let tree = Build::new(&mica, &dockerfile).succeeds().tree();
    assert_eq!(tree.text("/r/a.txt"), "two\n");
    assert_ne!(Build::new(&mica, &dockerfile).id(), first);
}

#[test]
fn repositories_that_lead_astray_are_refused() {
    let Some(mica) = empty() else { return };
    let Some(repository) = Repository::new(&mica) else { return };
    let add = |rest: &str| format!("FROM scratch\nADD {} /r\n", repository.url(rest));
    Build::new(&mica, add("#nosuch")).fails("repository does not contain ref nosuch");
    Build::new(&mica, add("#:sub/link")).fails("is no directory of the repository");
    Build::new(&mica, add("#:../..")).fails("invalid git subdirectory");
    Build::new(&mica, add("#--upload-pack=touch${IFS}x")).fails("invalid git reference");
    Build::new(&mica, add("?checksum=0123abc")).fails("expected checksum to match 0123abc");
    Build::new(&mica, "FROM scratch\nADD ext::sh -c id /r\n").fails("not found");
    // a file:// in a Dockerfile is a path, and a submodule may not name one at all
    let file = format!("FROM scratch\nADD file://{} /r\n", repository.work.display());
    Build::new(&mica, file).fails("not found");
    let script = "git -c protocol.file.allow=always submodule add -q file://$PWD/../x.git module && git commit -qm module";
    shell(&repository.work, script);
    repository.publish();
    Build::new(&mica, add("")).fails("transport 'file' not allowed");
    Build::new(&mica, add("?submodules=false")).succeeds();
}

#[test]
fn submodules_come_along_without_their_git_files() {
    let Some(mica) = empty() else { return };
    let Some(repository) = Repository::new(&mica) else { return };
    let url = repository.url("");
    shell(&repository.work, &format!("git submodule add -q {url} module && git commit -qm module"));
    repository.publish();
    let tree = Build::new(&mica, format!("FROM scratch\nADD {url} /r\n")).succeeds().tree();
    assert_eq!(tree.text("/r/module/a.txt"), "one\n");
    assert!(!tree.has("/r/module/.git") && !tree.has("/r/.git"));
}

#[test]
fn a_repository_is_a_context_whose_commit_dates_the_image() {
    let Some(mica) = empty() else { return };
    let Some(repository) = Repository::new(&mica) else { return };
    let of = |context: &str| {
        let tar = mica.work().join("out.tar");
        let output = format!("type=tar,dest={}", tar.display());
        mica.run(["build", "-t", "r", "--load", "-o", &output, context]).success();
        Tree::extract(&tar)
    };
    assert_eq!(of(&repository.url("#v1")).names("/all"), ["Dockerfile", "a.txt", "run.sh", "sub"]);
    let created = mica.run(["inspect", "-f", "{{.Created}}", "r"]).success().line();
    assert_eq!(created, "2024-01-02T03:04:05Z");
    let local = format!("{}#main", repository.work.display());
    assert_eq!(of(&local).text("/all/a.txt"), "one\n");
    assert_eq!(of(&format!("file://{}", repository.work.display())).text("/all/a.txt"), "one\n");
    let missing = repository.url("#main:sub");
    mica.run(["build", &missing]).exits(1).complains("open Dockerfile: no such file or directory");
}

#[test]
fn urls_and_archives_are_contexts_and_dockerfiles() {
    let Some(mica) = empty() else { return };
    let web = Web::start();
    let work = mica.work();
    shell(
        &work,
        "mkdir c && echo hi > c/f && printf 'FROM scratch\\nCOPY f /f\\n' > c/Dockerfile && tar -C c -cJf c.txz .",
    );
    web.file("/c.txz", std::fs::read(work.join("c.txz")).unwrap(), &[("Last-Modified", MODIFIED)]);
    web.file("/text", "FROM scratch\nCOPY <<EOF /g\ntext\nEOF\n", &[]);
    let tar = work.join("out.tar");
    let output = format!("type=tar,dest={}", tar.display());
    mica.run(["build", "-o", &output, &web.url("/c.txz")]).success();
    assert_eq!(Tree::extract(&tar).text("/f"), "hi\n");
    mica.run(["build", "-o", &output, work.join("c.txz").to_str().unwrap()]).success();
    assert_eq!(Tree::extract(&tar).text("/f"), "hi\n");
    mica.run(["build", "-o", &output, &web.url("/text")]).success();
    assert_eq!(Tree::extract(&tar).text("/g"), "text\n");
    mica.run(["build", "-o", &output, "-f", &web.url("/text"), work.join("c").to_str().unwrap()]).success();
    assert_eq!(Tree::extract(&tar).text("/g"), "text\n");
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=context";
    mica.run(["build", "-q", "-t", "dated", epoch, &web.url("/c.txz")]).success();
    assert_eq!(mica.run(["inspect", "-f", "{{.Created}}", "dated"]).success().line(), "2020-05-06T07:08:09Z");
}

#[test]
fn named_contexts_may_be_far_away() {
    let Some(mica) = empty() else { return };
    let Some(repository) = Repository::new(&mica) else { return };
    repository.web.file("/f", "far", &[]);
    let tree =
        Build::new(&mica, "FROM repo AS r\nFROM scratch\nCOPY --from=r /a.txt /\nCOPY --from=file /f /\n")
            .option("--build-context", &format!("repo={}", repository.url("")))
            .option("--build-context", &format!("file={}", repository.web.url("/f")))
            .succeeds()
            .tree();
    assert_eq!((tree.text("/a.txt"), tree.text("/f")), ("one\n".to_owned(), "far".to_owned()));
}
