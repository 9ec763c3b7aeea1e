//! The build cache as an operator sees it: what `du` announces, `prune` frees; builds beside it never notice.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mica_testkit::Mica;
use mica_tests::{Build, Web, holds, json_lines, with_base};
use serde_json::Value;

/// A tool stage of 200 kB that is copied from, and one of 300 kB on it; a cache mount of 500 kB.
const DOCKERFILE: &str = "FROM base AS tool\nRUN mkdir /w && head -c 200000 /dev/urandom > /w/tool\n\
    RUN head -c 300000 /dev/urandom > /w/other\nFROM base\nCOPY --from=tool /w/tool /tool\n\
    COPY --from=tool /w/other /other\n\
    RUN --mount=type=cache,id=m,target=/c head -c 500000 /dev/zero > /c/x && echo made > /made\n";

fn built() -> Option<Mica> {
    let mica = with_base()?;
    mica.run(["builder", "prune", "-af"]).success();
    Build::new(&mica, DOCKERFILE).option("-t", "app").id();
    Some(mica)
}

/// The parts of the cache.
fn parts(mica: &Mica, filters: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["buildx", "du", "--format", "json"];
    arguments.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
    json_lines(&mica.run(arguments).success())
}

fn descriptions(parts: &[Value]) -> Vec<&str> {
    parts.iter().map(|part| part["Description"].as_str().unwrap()).collect()
}

fn prune(mica: &Mica, options: &[&str]) -> String {
    mica.run([&["builder", "prune", "-f"], options].concat()).success().stdout_text()
}

/// A size as docker prints it.
#[track_caller]
fn bytes(text: &str) -> f64 {
    let text = text.trim().trim_end_matches('*');
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or_else(|| panic!("size {text:?}"));
    let unit = match &text[end..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("unit {other:?}"),
    };
    text[..end].parse::<f64>().unwrap() * unit
}

/// The size after a word: `Total:`.
#[track_caller]
fn total(text: &str, word: &str) -> f64 {
    let line =
        text.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word} in {text}"));
    bytes(&line[word.len()..])
}

/// What everything but the metadata takes, in blocks, as the system's own program counts it.
fn disk_bytes(mica: &Mica) -> f64 {
    let folders =
        ["layers", "content", "cache-mounts", "contexts", "trash"].map(|name| mica.root().join(name));
    let output = Command::new("du").args(["-s", "--block-size=1", "-c"]).args(folders).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap().split('\t').next().unwrap().parse().unwrap()
}

#[track_caller]
fn close(announced: f64, found: f64) {
    // Two sizes of four digits, and the blocks of directories that grew or shrank.
    assert!((announced - found).abs() <= 10_000.0 + announced * 0.01, "announced {announced}, found {found}");
}

/// `system df`'s size and reclaimable bytes of the build cache.
fn df(mica: &Mica) -> (f64, f64) {
    let rows = json_lines(&mica.run(["system", "df", "--format", "json"]).success());
    let row = rows.iter().find(|row| row["Type"] == "Build Cache").unwrap();
    let reclaimable = row["Reclaimable"].as_str().unwrap().split(' ').next().unwrap();
    (bytes(row["Size"].as_str().unwrap()), bytes(reclaimable))
}

#[test]
fn a_prune_frees_on_disk_what_du_and_df_announced() {
    let Some(mica) = built() else { return };
    let du = mica.run(["buildx", "du"]).success().stdout_text();
    let announced = total(&du, "Reclaimable:");
    assert!(announced > 1_000_000.0, "{du}");
    close(total(&du, "Private:"), df(&mica).0);
    close(announced, df(&mica).1);
    close(total(&du, "Total:"), total(&du, "Shared:") + total(&du, "Private:"));
    let rows: f64 = parts(&mica, &[]).iter().map(|part| bytes(part["Size"].as_str().unwrap())).sum();
    close(total(&du, "Total:"), rows);

    let before = disk_bytes(&mica);
    let said = prune(&mica, &["-a"]);
    close(announced, total(&said, "Total:"));
    close(announced, before - disk_bytes(&mica));
    assert!(parts(&mica, &[]).is_empty());
    assert_eq!(df(&mica), (0.0, 0.0));
    mica.run(["run", "--rm", "app", "cat", "/made"]).success();
    mica.run(["system", "check"]).success();
}

#[test]
fn without_all_the_steps_of_images_stay_known() {
    let Some(mica) = built() else { return };
    let said = prune(&mica, &[]);
    assert!(said.starts_with("ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED\n"), "{said}");
    assert!(total(&said, "Total:") > 1_000_000.0, "{said}");
    let left = parts(&mica, &[]);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|part| part["Shared"] == true), "{left:?}");
    let again = Build::again(&mica, DOCKERFILE).run().success();
    holds(&again.stderr_text(), &["CACHED"]);
    assert!(parts(&mica, &["type=exec.cachemount"]).is_empty(), "nothing ran");
    let all = prune(&mica, &["-a"]);
    assert_eq!(total(&all, "Total:"), 0.0, "the image still has the layers: {all}");
    assert_eq!(all.lines().count(), 2 + left.len(), "{all}");
}

#[test]
fn filters_choose_by_type_text_use_and_age() {
    let Some(mica) = built() else { return };
    let everything = parts(&mica, &[]).len();
    let mounts = parts(&mica, &["type=exec.cachemount"]);
    assert_eq!(descriptions(&mounts), ["cached mount with id \"m\""]);
    assert_eq!(descriptions(&parts(&mica, &["mutable=true"])), descriptions(&mounts));
    assert_eq!(parts(&mica, &["immutable=true"]).len(), everything - 1);
    assert_eq!(parts(&mica, &["shared=true"]).len() + parts(&mica, &["private=true"]).len(), everything);
    let tool = parts(&mica, &["description~=> /w/other"]);
    assert_eq!(tool.len(), 1, "{tool:?}");
    let (id, parent) = (tool[0]["ID"].as_str().unwrap(), tool[0]["Parents"][0].as_str().unwrap());
    holds(descriptions(&parts(&mica, &[&format!("id={parent}")]))[0], &["> /w/tool"]);
    assert_eq!(parts(&mica, &[&format!("parents={parent}")]).len(), 1);
    assert!(parts(&mica, &["until=24h"]).is_empty());
    for (filter, message) in [("until=x", "expects a duration"), ("color=red", "invalid filter 'color'")] {
        mica.run(["builder", "prune", "-f", "--filter", filter]).exits(1).complains(message);
    }
    assert_eq!(total(&prune(&mica, &["-a", "--filter", "until=24h"]), "Total:"), 0.0);
    assert_eq!(parts(&mica, &[]).len(), everything, "nothing is that old");

    holds(&prune(&mica, &["--filter", &format!("id=^{id}$")]), &[id]);
    let left = parts(&mica, &[]);
    assert_eq!(left.len(), everything - 1);
    holds(&prune(&mica, &["--filter", "type=exec.cachemount"]), &["*"]);
    assert_eq!(parts(&mica, &[]).len(), everything - 2);
    let until = prune(&mica, &["-a", "--filter", "until=0s"]);
    assert!(parts(&mica, &[]).is_empty(), "{until}");
}

#[test]
fn limits_keep_what_was_used_last() {
    let Some(mica) = built() else { return };
    for option in ["--max-used-space=1gb", "--min-free-space=1", "--keep-storage=1gb"] {
        assert_eq!(prune(&mica, &["-a", option]), "Total:\t0B\n", "{option}");
    }
    let before = total(&mica.run(["buildx", "du"]).success().stdout_text(), "Private:");
    let said = prune(&mica, &["--max-used-space=600kb"]);
    let after = mica.run(["buildx", "du"]).success().stdout_text();
    let left = total(&after, "Private:");
    assert!(left <= 600.0 * 1024.0 && left > 0.0, "{said}{after}");
    close(before - left, total(&said, "Total:"));
    assert_eq!(parts(&mica, &["type=exec.cachemount"]).len(), 1, "used last: {after}");
    prune(&mica, &["--max-used-space=1"]);
    assert!(parts(&mica, &["private=true"]).is_empty());
}

#[test]
fn what_a_running_build_uses_stays() {
    let Some(mica) = with_base() else { return };
    prune(&mica, &["-a"]);
    let dockerfile = "FROM base AS tool\nRUN echo kept > /kept\nFROM base\n\
        RUN --mount=type=cache,id=m,target=/c echo mounted > /c/f && while [ ! -e /c/go ]; do sleep 0.1; done && cat /c/f\n\
        COPY --from=tool /kept /kept\n";
    mica.write("held/Dockerfile", dockerfile);
    let build = mica.spawn(["build", "--progress=plain", mica.work().join("held").to_str().unwrap()]);
    let mut running = Vec::new();
    mica_tests::until("the step runs", || {
        running = parts(&mica, &["inuse=true"]);
        running.iter().any(|part| part["Type"] == "exec.cachemount")
            && running.iter().any(|part| part["Type"] == "regular")
    });
    assert!(running.iter().all(|part| part["Reclaimable"] == false), "{running:?}");
    assert_eq!(prune(&mica, &["-a"]), "Total:\t0B\n");
    assert_eq!(parts(&mica, &["inuse=true"]).len(), running.len());
    let mounts = mica.root().join("cache-mounts");
    let go = find(&mounts, "f").unwrap().with_file_name("go");
    std::fs::write(go, "").unwrap();
    build.wait().success();
}

fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        if entry.file_name() == name { Some(entry.path()) } else { find(&entry.path(), name) }
    })
}

/// A small disk, gone when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(mica: &Mica, size: &str) -> Option<Self> {
        let folder = mica.work().join("disk");
        std::fs::create_dir(&folder).unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&folder).status();
        if !mounted.is_ok_and(|status| status.success()) {
            mica_testkit::skip("cannot mount a tmpfs");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What cannot be unmounted is reported by whoever looks for leftovers.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn builds_stay_within_their_share_of_the_disk() {
    let Some(mica) = with_base() else { return };
    let Some(disk) = Disk::new(&mica, "64m") else { return };
    let archive = mica.work().join("base.tar");
    mica.run(["save", "-o", archive.to_str().unwrap(), "base"]).success();
    let mica = mica.env("MICA_ROOT", disk.0.join("store"));
    mica.run(["load", "-i", archive.to_str().unwrap()]).success();
    // Ten times 10 MB: without anybody cutting back, 64 MB are full after six.
    let ran = |n: usize| {
        let dockerfile =
            format!("FROM base\nRUN head -c 10000000 /dev/urandom > /f; echo number {n} ran$((1))\n");
        let build = Build::new(&mica, dockerfile).option("--output", "type=cacheonly").run().success();
        build.stderr_text().contains(&format!("number {n} ran1"))
    };
    (0..10).for_each(|n| assert!(ran(n)));
    assert!(!ran(9), "what was used last is kept");
    let left = parts(&mica, &["type=regular"]);
    holds(&descriptions(&left).join("\n"), &["number 9"]);
    assert!((2..6).contains(&left.len()), "{left:?}");
    assert!(ran(0), "the oldest went first");
    mica.run(["run", "--rm", "base", "true"]).success();
    mica.run(["system", "check"]).success();
}

/// Stops the other thread, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn builds_never_notice_a_prune_beside_them() {
    const ROUNDS: usize = 20;
    let Some(mica) = with_base() else { return };
    let (prunes, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                mica.run(["builder", "prune", "-af"]).success();
                prunes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        let mut builds = 0;
        while builds < ROUNDS || prunes.load(Ordering::Relaxed) < ROUNDS {
            let dockerfile = format!(
                "FROM base AS one\nRUN echo {n} > /one\nFROM base AS two\nCOPY --from=one /one /two\n\
                 RUN --mount=type=cache,id=m,target=/c echo {n} > /c/x && cat /c/x >> /two\n\
                 FROM base\nCOPY --from=one /one /one\nCOPY --from=two /two /two\n",
                n = builds % 3
            );
            mica.write("beside/Dockerfile", dockerfile);
            let context = mica.work().join("beside");
            let output = mica.run(["build", "--progress=plain", "-t", "beside", context.to_str().unwrap()]);
            output.success();
            let n = builds % 3;
            let text = mica.run(["run", "--rm", "beside", "cat", "/one", "/two"]).success().stdout_text();
            assert_eq!(text, format!("{n}\n{n}\n{n}\n"));
            builds += 1;
        }
    });
    mica.run(["system", "check"]).success();
}

#[test]
fn what_was_fetched_has_its_type_and_is_forgotten_with_its_record() {
    let Some(mica) = with_base() else { return };
    prune(&mica, &["-a"]);
    let web = Web::start();
    web.file("/f", "fetched\n", &[("ETag", "\"1\"")]);
    let mut dockerfile = format!("FROM base\nADD {} /f\n", web.url("/f"));
    if let Some(repository) = repository(&mica, &web) {
        dockerfile.push_str(&format!("ADD {repository} /r/\n"));
    }
    Build::new(&mica, &dockerfile).id();
    let checkouts = parts(&mica, &["type=source.git.checkout"]);
    assert_eq!(checkouts.len(), dockerfile.matches("x.git").count(), "{checkouts:?}");
    assert!(checkouts.iter().all(|part| bytes(part["Size"].as_str().unwrap()) > 0.0), "{checkouts:?}");
    assert_eq!(parts(&mica, &["type=regular", &format!("description~={}", web.url("/f"))]).len(), 2);
    let asked = || web.log().into_iter().filter(|line| line.starts_with("GET /f ")).collect::<Vec<_>>();
    assert_eq!(asked(), ["GET /f 200"]);
    Build::again(&mica, &dockerfile).id();
    assert_eq!(asked(), ["GET /f 304"]);
    prune(&mica, &["-a"]);
    assert!(parts(&mica, &[]).is_empty());
    Build::again(&mica, &dockerfile).id();
    assert_eq!(asked(), ["GET /f 200"], "there is nothing to compare with");
}

/// The URL of a repository with one commit; `None` without git.
fn repository(mica: &Mica, web: &Web) -> Option<String> {
    let script = "git init -q -b main repo && cd repo && git config user.email a@b && git config user.name n
        echo one > a.txt && git add -A && git commit -qm one
        git clone -q --bare . ../x.git && git -C ../x.git update-server-info";
    let mut command = Command::new("/bin/sh");
    command.args(["-euc", script]).current_dir(mica.work()).env("GIT_CONFIG_GLOBAL", "/dev/null");
    if Command::new("git").arg("--version").output().is_err() {
        mica_testkit::skip("git is not installed");
        return None;
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    web.folder(mica.work());
    Some(web.url("/x.git"))
}

#[test]
fn what_is_known_of_a_context_is_cache_too() {
    let Some(mica) = with_base() else { return };
    prune(&mica, &["-a"]);
    let mut build = Build::new(&mica, "FROM base\nCOPY . /all\n");
    for n in 0..50 {
        build = build.file(&format!("f{n}"), [n; 70_000]);
    }
    build.option("-t", "all").id();
    // Files as new as the look at them could still change unseen, so only a later build writes down what it saw.
    mica_tests::until("the files are old enough", || {
        Build::again(&mica, "FROM base\nCOPY . /all\n").id();
        !parts(&mica, &["type=source.local"]).is_empty()
    });
    let before = disk_bytes(&mica);
    let said = prune(&mica, &["--filter", "type=source.local"]);
    close(total(&said, "Total:"), before - disk_bytes(&mica));
    assert!(parts(&mica, &["type=source.local"]).is_empty(), "{said}");
    Build::again(&mica, "FROM base\nCOPY . /all\n").id();
}

#[test]
fn old_journals_go_with_new_builds() {
    let Some(mica) = with_base() else { return };
    let journals = mica.root().join("journals");
    std::fs::create_dir_all(&journals).unwrap();
    for n in 0..150 {
        let journal = std::fs::File::create(journals.join(format!("old-{n}"))).unwrap();
        let day = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        journal.set_modified(day).unwrap();
    }
    Build::new(&mica, "FROM base\nRUN true\n").id();
    let names: Vec<_> =
        std::fs::read_dir(&journals).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 100);
    assert!(names.iter().any(|name| !name.to_string_lossy().starts_with("old-")), "the newest is kept");
}
