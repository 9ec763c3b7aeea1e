//! Looking at images, naming them, and removing them.

use mica_testkit::Mica;
use mica_tests::{Build, holds, json_lines, with_base};
use serde_json::json;

/// Two images: `one` with 100 kB of its own, `two` (also `two:x`) on top of it.
fn with_family() -> Option<Mica> {
    let mica = with_base()?;
    let one = "FROM base\nRUN head -c 100000 /dev/zero > /z\nLABEL a=b\n";
    Build::new(&mica, one).option("-t", "one").run().success();
    let two = "FROM one\nRUN echo 2 > /two\n";
    Build::new(&mica, two).option("-t", "two").option("-t", "two:x").run().success();
    Some(mica)
}

#[track_caller]
fn lines(mica: &Mica, arguments: &[&str]) -> Vec<String> {
    mica.run(arguments).success().stdout_text().lines().map(str::to_owned).collect()
}

#[track_caller]
fn refused(mica: &Mica, arguments: &[&str], gist: &str) {
    mica.run(arguments).exits(1).complains(gist);
}

#[test]
fn the_list_has_docker_s_columns_and_order() {
    let Some(mica) = with_family() else { return };
    let table = lines(&mica, &["images"]);
    let words: Vec<Vec<&str>> = table.iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    let names: Vec<&[&str]> = words[1..].iter().map(|row| &row[..2]).collect();
    assert_eq!(names, [["two", "latest"], ["two", "x"], ["one", "latest"], ["base", "latest"]]);
    assert!(words[1..].iter().all(|row| row[2].len() == 12 && row.last().unwrap().ends_with("MB")));
    assert!(table[1].contains(" ago"));
    let digests = lines(&mica, &["images", "--digests", "--no-trunc"]);
    assert!(digests[0].contains("DIGEST") && digests[1].matches("sha256:").count() == 2);
    // Ages may differ by a second.
    let rows =
        |verb: &[&str]| lines(&mica, &[verb, &["--format", "{{.Repository}} {{.Tag}} {{.ID}}"]].concat());
    assert_eq!(rows(&["image", "ls"]), rows(&["images"]));
}

#[test]
fn lists_can_be_filtered_and_formatted() {
    let Some(mica) = with_family() else { return };
    let names = |arguments: &[&str]| {
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        lines(&mica, &[&format, arguments].concat())
    };
    assert_eq!(names(&["one"]), ["one:latest"]);
    assert_eq!(names(&["two:x"]), ["two:x"]);
    assert_eq!(names(&["-f", "reference=t*"]), ["two:latest", "two:x"]);
    assert_eq!(names(&["-f", "label=a=b", "-f", "reference=o*"]), ["one:latest"]);
    assert_eq!(names(&["-f", "label!=a"]), ["base:latest"]);
    assert_eq!(names(&["-f", "before=one"]), ["base:latest"]);
    assert_eq!(names(&["-f", "since=one"]), ["two:latest", "two:x"]);
    assert_eq!(names(&["-f", "dangling=true"]), Vec::<String>::new());
    let ids = lines(&mica, &["images", "-q", "--no-trunc", "one"]);
    assert_eq!(ids, [mica.run(["inspect", "-f", "{{.Id}}", "one"]).success().line()]);
    let json = json_lines(&mica.run(["images", "--format", "json", "one"]).success());
    assert_eq!(
        (&json[0]["Repository"], &json[0]["Tag"], &json[0]["Containers"]),
        (&json!("one"), &json!("latest"), &json!("0"))
    );
    let table = lines(&mica, &["images", "--format", "table {{.Tag}}\\t{{.Size}}", "two"]);
    assert!(table[0].starts_with("TAG       SIZE"), "{table:?}");
    let sizes = lines(&mica, &["images", "--format", "{{.SharedSize}} {{.UniqueSize}} {{.Size}}", "two:x"]);
    assert_eq!(sizes[0].split(' ').nth(1), Some("2B"), "{sizes:?}");
    refused(&mica, &["images", "-f", "nosuch=1"], "invalid filter");
    refused(&mica, &["images", "--format", "{{.Nosuch}}"], "Nosuch");
}

#[test]
fn inspection_answers_templates_and_json() {
    let Some(mica) = with_family() else { return };
    let inspect = |template: &str| mica.run(["image", "inspect", "-f", template, "one"]).success().line();
    assert_eq!(inspect("{{.Os}}/{{.Architecture}}"), "linux/amd64".replace("amd64", architecture()));
    assert_eq!(inspect("{{json .Config.Labels}}"), "{\"a\":\"b\"}");
    assert_eq!(inspect("{{join .RepoTags \", \"}}"), "one:latest");
    assert_eq!(inspect("{{upper \"x\"}} {{len .RootFS.Layers}}"), "X 4");
    assert_eq!(
        inspect("{{range .Config.Env}}{{println .}}{{end}}"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    assert_eq!(inspect("{{index .Config.Labels \"a\"}}"), "b");
    let both = mica.run(["inspect", "one", "two"]).success().json();
    assert_eq!(both.as_array().unwrap().len(), 2);
    for key in [
        "Id",
        "RepoTags",
        "RepoDigests",
        "Created",
        "Architecture",
        "Os",
        "Size",
        "RootFS",
        "Config",
        "Metadata",
    ] {
        assert!(!both[0][key].is_null(), "no {key} in {}", both[0]);
    }
    let missing = mica.run(["image", "inspect", "one", "nosuch"]).exits(1).complains("No such image: nosuch");
    assert_eq!(missing.json().as_array().unwrap().len(), 1, "what is there is shown");
    mica.run(["inspect", "nosuch"]).exits(1).complains("No such object: nosuch");
    let id = inspect("{{.Id}}");
    let short = &id["sha256:".len()..][..12];
    assert_eq!(mica.run(["inspect", "-f", "{{.Id}}", short]).success().line(), id);
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[test]
fn history_is_newest_first() {
    let Some(mica) = with_family() else { return };
    let table = lines(&mica, &["history", "two"]);
    assert_eq!(
        table[0].split_whitespace().collect::<Vec<_>>(),
        ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    );
    assert!(
        table[1].contains("RUN /bin/sh -c echo 2 > /two # buildkit") && table[2].starts_with("<missing>")
    );
    assert!(table[3].contains("RUN /bin/sh -c head -c 100000 /dev/zero > /z… "), "{}", table[3]);
    let full = lines(&mica, &["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}", "two"]);
    assert_eq!(full[2], "RUN /bin/sh -c head -c 100000 /dev/zero > /z # buildkit|100kB");
    let exact = lines(&mica, &["history", "--human=false", "--format", "{{.Size}}", "two"]);
    assert_eq!(exact[2], "100000");
    assert_eq!(lines(&mica, &["history", "-q", "two"])[1], "<missing>");
    refused(&mica, &["history", "nosuch"], "No such image: nosuch");
}

#[test]
fn a_tag_goes_before_the_image() {
    let Some(mica) = with_family() else { return };
    let id = mica.run(["inspect", "-f", "{{.Id}}", "two"]).success().line();
    assert_eq!(lines(&mica, &["rmi", "two:x"]), ["Untagged: two:x"]);
    let removed = lines(&mica, &["rmi", "two"]);
    assert_eq!(removed[..2], ["Untagged: two:latest".to_owned(), format!("Deleted: {id}")]);
    assert!(removed[1..].iter().all(|line| line.starts_with("Deleted: sha256:")), "{removed:?}");
    assert_eq!(
        mica.run(["run", "--rm", "one", "wc", "-c", "/z"]).success().line(),
        "100000 /z",
        "shared layers stay"
    );
    refused(&mica, &["rmi", "two"], "No such image: two");
    let by_id = mica.run(["inspect", "-f", "{{.Id}}", "one"]).success().line();
    holds(
        &lines(&mica, &["rmi", &by_id]).join("\n"),
        &["Untagged: one:latest", &format!("Deleted: {by_id}")],
    );
    mica.run(["system", "check"]).success();
}

#[test]
fn an_image_with_several_names_is_not_removed_by_its_id() {
    let Some(mica) = with_family() else { return };
    let id = mica.run(["inspect", "-f", "{{.Id}}", "two"]).success().line();
    refused(&mica, &["rmi", &id], "must be forced");
    holds(
        &lines(&mica, &["rmi", "-f", &id]).join("\n"),
        &["Untagged: two:latest", "Untagged: two:x", "Deleted: "],
    );
}

#[test]
fn an_image_that_a_container_uses_stays() {
    let Some(mica) = with_family() else { return };
    mica.run(["run", "--name", "user", "two", "true"]).success();
    refused(&mica, &["rmi", "two:latest", "two:x"], "container");
    mica.run(["image", "prune", "-a", "-f"]).success();
    assert!(!lines(&mica, &["images", "-q", "-a"]).is_empty());
    mica.run(["rm", "user"]).success();
    mica.run(["rmi", "two:x"]).success();
}

#[test]
fn names_move_and_leave_the_old_image_without_one() {
    let Some(mica) = with_family() else { return };
    Build::new(&mica, "FROM base\nENV NEW=1\n").option("-t", "one").run().success();
    let dangling = lines(&mica, &["images", "-f", "dangling=true", "--format", "{{.Repository}} {{.Tag}}"]);
    assert_eq!(dangling, ["<none> <none>"]);
    assert!(!lines(&mica, &["images"]).join("\n").contains("<none>"));
    let pruned = mica.run_with_input(["image", "prune"], "y\n").success();
    let said = pruned.stdout_text();
    holds(
        &said,
        &["WARNING! This will remove all dangling images.", "Are you sure you want to continue? [y/N]"],
    );
    holds(&said, &["Deleted Images:\n", "deleted: sha256:", "\nTotal reclaimed space: "]);
    assert!(lines(&mica, &["images", "-q", "-f", "dangling=true"]).is_empty());
    refused(&mica, &["tag", "nosuch", "x"], "No such image: nosuch");
    refused(&mica, &["tag", "one", "UPPER"], "invalid reference format");
}

#[test]
fn a_prune_that_is_not_confirmed_removes_nothing() {
    let Some(mica) = with_family() else { return };
    let before = lines(&mica, &["images"]);
    mica.run_with_input(["image", "prune", "-a"], "n\n");
    assert_eq!(lines(&mica, &["images", "-q"]).len() + 1, before.len());
}

/// The bytes of a size as mica prints them, when they have few enough digits to be exact.
fn bytes(text: &str) -> f64 {
    let text = text.split(' ').next().unwrap_or_default();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other:?} in {text}"),
    };
    digits.parse::<f64>().unwrap_or_else(|error| panic!("{error}: {text}")) * unit
}

#[track_caller]
fn reclaimable(mica: &Mica, kind: &str) -> f64 {
    let rows = lines(mica, &["system", "df", "--format", "{{.Type}}|{{.Reclaimable}}"]);
    let row = rows.iter().find_map(|row| row.strip_prefix(&format!("{kind}|"))).expect("a row").to_owned();
    bytes(&row)
}

#[track_caller]
fn reclaimed(said: &str) -> f64 {
    let line = said.lines().find(|line| line.starts_with("Total")).unwrap_or_else(|| panic!("{said}"));
    bytes(line.split(':').nth(1).expect("a size").trim())
}

#[test]
fn prunes_free_what_the_disk_usage_announced() {
    let Some(mica) = with_family() else { return };
    mica.run(["rmi", "two", "two:x"]).success();
    for (kind, prune) in
        [("Images", &["image", "prune", "-a", "-f"][..]), ("Build Cache", &["builder", "prune", "-a", "-f"])]
    {
        let announced = reclaimable(&mica, kind);
        let before = stored_bytes(&mica);
        let freed = reclaimed(&mica.run(prune).success().stdout_text());
        let after = stored_bytes(&mica);
        assert!(
            (announced - freed).abs() <= announced * 0.01,
            "{kind}: announced {announced}, freed {freed}"
        );
        let gone = (before - after) as f64;
        assert!((gone - freed).abs() <= 20_000.0 + freed * 0.1, "{kind}: said {freed}, gone {gone}");
    }
}

/// What layers and blobs take, rounded up to blocks as the file system does.
fn stored_bytes(mica: &Mica) -> i64 {
    let root = mica.root();
    let folders = ["layers", "content", "trash"].map(|name| root.join(name));
    let output = std::process::Command::new("du").args(["-s", "--block-size=1", "-c"]).args(folders).output();
    let text = String::from_utf8_lossy(&output.expect("the system has du").stdout).into_owned();
    text.lines().last().and_then(|line| line.split('\t').next()?.parse().ok()).expect("a total")
}

#[test]
fn everything_unused_can_be_removed() {
    let Some(mica) = with_family() else { return };
    mica.run(["run", "--name", "gone", "one", "true"]).success();
    let said = mica.run_with_input(["system", "prune", "-a"], "y\n").success().stdout_text();
    holds(&said, &["WARNING! This will remove:", "Total reclaimed space: "]);
    assert!(lines(&mica, &["images", "-q", "-a"]).is_empty());
    assert!(lines(&mica, &["ps", "-a", "-q"]).is_empty());
    mica.run(["system", "gc"]).success();
    let left = std::fs::read_dir(mica.root().join("layers")).unwrap().count();
    assert_eq!(left, 0);
    mica.run(["system", "check"]).success();
}

#[test]
fn damage_is_found_and_named() {
    let Some(mica) = with_family() else { return };
    mica.run(["system", "check"]).success();
    let layers = mica.root().join("layers");
    let damaged = std::fs::read_dir(&layers)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("fs/z"))
        .find(|path| path.exists())
        .expect("the layer of `one`");
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[500] = 1;
    std::fs::write(&damaged, bytes).unwrap();
    let found = mica.run(["system", "check"]).exits(1);
    let said = found.stdout_text() + &found.stderr_text();
    holds(&said, &["one"]);
}

#[test]
fn mistakes_are_answered_with_the_nearest_command() {
    let Some(mica) = with_base() else { return };
    let said = mica.run(["biuld", "."]);
    assert_ne!(said.code(), 0);
    holds(&said.stderr_text(), &["biuld", "build"]);
    let help = mica.run(["--help"]).success().stdout_text();
    holds(&help, &["build", "run", "images"]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(mica.run(["completion", shell]).success().stdout.len() > 200, "{shell}");
    }
    let version = mica.run(["version"]).success().stdout_text();
    holds(&version, &["Version:"]);
    let info = mica.run(["info", "--format", "{{.Driver}}"]).success().line();
    assert!(info.starts_with("overlay"), "{info}");
}

#[test]
fn called_docker_it_answers_as_docker() {
    let Some(mica) = with_base() else { return };
    let program = mica.command([""]);
    let link = mica.work().join("docker");
    std::os::unix::fs::symlink(program.get_program(), &link).unwrap();
    let output = std::process::Command::new(&link)
        .args(["image", "ls", "-q"])
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim().len(), 12);
}
