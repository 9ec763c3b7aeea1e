//! Images as archives: round trips, other tools, damage.

use std::path::{Path, PathBuf};
use std::process::Command;

use mica_testkit::{Mica, peer, temp_dir};
use mica_tests::{Build, Tree, holds, with_base};
use serde_json::{Value, json};

const DOCKERFILE: &str = concat!(
    "FROM base\nRUN mkdir /d && echo hi > /d/f && ln /d/f /d/g && ln -s f /d/l && chown 5:6 /d/f\n",
    "RUN rm /etc/group && echo 2 > /etc/passwd\nENV A=1\nCMD [\"cat\", \"/d/f\"]\n",
);

fn path(path: &Path) -> &str {
    path.to_str().expect("our own path")
}

/// The image ID and diff IDs that `mica inspect` shows.
#[track_caller]
fn identity(mica: &Mica, name: &str) -> (String, Vec<String>) {
    let found = mica.run(["image", "inspect", name]).success().json()[0].take();
    let layers = found["RootFS"]["Layers"].as_array().expect("layers");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&found["Id"]), layers.iter().map(text).collect())
}

#[track_caller]
fn peer_says(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("a peer starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {error}", program.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The three archives mica writes of the test's image, as copy sources of skopeo.
fn archives(mica: &Mica) -> Vec<(PathBuf, &'static str)> {
    let save = mica.work().join("save.tar");
    Build::new(mica, DOCKERFILE).option("-t", "foo/x:1").run().success();
    mica.run(["save", "-o", path(&save), "foo/x:1"]).success();
    let mut all = vec![(save.clone(), "docker-archive:"), (save, "oci-archive:")];
    for (kind, transport) in [("oci", "oci-archive:"), ("docker", "docker-archive:")] {
        let tar = mica.work().join(format!("{kind}.tar"));
        let output = format!("type={kind},dest={}", path(&tar));
        Build::new(mica, DOCKERFILE).option("-t", "foo/x:1").option("-o", &output).run().success();
        all.push((tar, transport));
    }
    all
}

#[test]
fn a_saved_image_can_be_loaded_elsewhere() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    Build::new(&one, DOCKERFILE).option("-t", "x").run().success();
    one.run(["tag", "x", "y:2"]).success();
    let saved = one.run(["save", "x", "y:2", "base"]).success().stdout;
    let loaded = two.run_with_input(["load"], saved.clone()).success().stdout_text();
    holds(&loaded, &["Loaded image: x:latest\n", "Loaded image: y:2\n", "Loaded image: base:latest\n"]);
    assert_eq!(identity(&one, "x"), identity(&two, "x"));
    assert_eq!(two.run(["save", "x", "y:2", "base"]).success().stdout, saved, "byte by byte");
    assert_eq!(two.run(["run", "--rm", "y:2"]).success().line(), "hi");
}

#[test]
fn a_save_is_a_docker_archive_and_an_image_layout() {
    let Some(mica) = with_base() else { return };
    let file = mica.work().join("b.tar");
    mica.run(["save", "-o", path(&file), "base"]).success();
    let tree = Tree::extract(&file);
    for name in ["oci-layout", "index.json", "manifest.json", "repositories", "blobs/sha256"] {
        assert!(tree.has(name), "{name}");
    }
    let manifest: Value = serde_json::from_str(&tree.text("manifest.json")).unwrap();
    let (id, layers) = identity(&mica, "base");
    assert_eq!(manifest[0]["Config"], json!(id.replace("sha256:", "blobs/sha256/")));
    assert_eq!(manifest[0]["RepoTags"], json!(["base:latest"]));
    let paths: Vec<String> = layers.iter().map(|layer| layer.replace("sha256:", "blobs/sha256/")).collect();
    assert_eq!(manifest[0]["Layers"], json!(paths), "uncompressed, named by diff ID");
    let repositories: Value = serde_json::from_str(&tree.text("repositories")).unwrap();
    assert!(repositories["base"]["latest"].is_string());
}

#[test]
fn loads_accept_every_compression() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    Build::new(&one, DOCKERFILE).option("-t", "x").run().success();
    let saved = one.work().join("x.tar");
    one.run(["save", "-o", path(&saved), "x"]).success();
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let Some(program) = peer::find(program) else { continue };
        let packed = Command::new(&program).arg("-c").arg(&saved).output().unwrap().stdout;
        two.run_with_input(["load", "-q"], packed).success();
        assert_eq!(identity(&one, "x"), identity(&two, "x"), "{}", program.display());
        two.run(["rmi", "x"]).success();
    }
}

#[test]
fn a_moved_tag_is_said() {
    let Some(mica) = with_base() else { return };
    let saved = mica.run(["save", "base"]).success().stdout;
    Build::new(&mica, "FROM base\nENV OTHER=1\n").option("-t", "base").run().success();
    let loaded = mica.run_with_input(["load"], saved).success();
    let said = loaded.stdout_text() + &loaded.stderr_text();
    holds(
        &said,
        &["The image base:latest already exists, renaming the old one with ID sha256:", "to empty string"],
    );
}

#[test]
fn skopeo_reads_what_mica_writes() {
    let Some(mica) = with_base() else { return };
    let Some(skopeo) = peer::need("skopeo") else { return };
    let written = archives(&mica);
    let (id, layers) = identity(&mica, "foo/x:1");
    for (archive, transport) in written {
        let source = format!("{transport}{}", path(&archive));
        let config: Value =
            serde_json::from_str(&peer_says(&skopeo, &["inspect", "--config", &source])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(layers), "{source}");
        let raw = peer_says(&skopeo, &["inspect", "--raw", &source]);
        assert!(raw.contains(&id), "{source} has the config {id}: {raw}");
        let copy = temp_dir();
        peer_says(&skopeo, &["--insecure-policy", "copy", &source, &format!("dir:{}", path(copy.path()))]);
    }
}

#[test]
fn mica_reads_what_skopeo_writes() {
    let (Some(one), Some(two)) = (with_base(), with_base()) else { return };
    let Some(skopeo) = peer::need("skopeo") else { return };
    Build::new(&one, DOCKERFILE).option("-t", "foo/x:1").run().success();
    let saved = one.work().join("save.tar");
    one.run(["save", "-o", path(&saved), "foo/x:1"]).success();
    let source = format!("docker-archive:{}", path(&saved));
    for transport in ["docker-archive", "oci-archive"] {
        let file = two.work().join(format!("{transport}.tar"));
        let target = format!("{transport}:{}:docker.io/foo/x:1", path(&file));
        peer_says(&skopeo, &["--insecure-policy", "copy", &source, &target]);
        let loaded = two.run(["load", "-i", path(&file)]).success().stdout_text();
        holds(&loaded, &["Loaded image: foo/x:1"]);
        assert_eq!(identity(&two, "foo/x:1").1, identity(&one, "foo/x:1").1, "{transport}");
        assert_eq!(two.run(["run", "--rm", "foo/x:1"]).success().line(), "hi");
        two.run(["rmi", "foo/x:1"]).success();
    }
}

/// A registry of crane's own on the loopback, gone when dropped.
struct Registry {
    process: std::process::Child,
    address: String,
}

impl Registry {
    fn start(crane: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port").to_string();
        let process = Command::new(crane)
            .args(["registry", "serve", "--address", &address])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("crane starts");
        for _ in 0..200 {
            if std::net::TcpStream::connect(&address).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { process, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn crane_reads_what_mica_writes_and_the_other_way_round() {
    let (Some(mica), Some(other)) = (with_base(), with_base()) else { return };
    let Some(crane) = peer::need("crane") else { return };
    let registry = Registry::start(&crane);
    let written = archives(&mica);
    let (id, layers) = identity(&mica, "foo/x:1");
    let name = format!("{}/x:1", registry.address);
    for (archive, transport) in &written {
        if *transport == "docker-archive:" {
            peer_says(&crane, &["validate", "--tarball", path(archive)]);
            peer_says(&crane, &["push", path(archive), &name]);
        } else {
            let layout = Tree::extract(archive);
            peer_says(&crane, &["push", path(&layout.path("/")), &name]);
        }
        let config: Value = serde_json::from_str(&peer_says(&crane, &["config", &name])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(layers), "{}", archive.display());
        let manifest: Value = serde_json::from_str(&peer_says(&crane, &["manifest", &name])).unwrap();
        assert_eq!(manifest["config"]["digest"], json!(id), "{}", archive.display());
    }
    let pulled = other.work().join("pulled.tar");
    peer_says(&crane, &["pull", "--format", "tarball", &name, path(&pulled)]);
    let loaded = other.run(["load", "-i", path(&pulled)]).success().stdout_text();
    holds(&loaded, &["Loaded image: "]);
    assert_eq!(identity(&other, &id), (id.clone(), layers.clone()));
    let layout = other.work().join("pulled");
    peer_says(&crane, &["pull", "--format", "oci", &name, path(&layout)]);
    let context = format!("pulled=oci-layout://{}", path(&layout));
    let built = Build::new(&other, "FROM pulled\nRUN cat /d/f > /copied\n");
    assert_eq!(built.option("--build-context", &context).succeeds().tree().text("/copied"), "hi\n");
}

#[test]
fn podman_runs_what_mica_writes() {
    let Some(mica) = with_base() else { return };
    let Some(podman) = peer::need("podman") else { return };
    let store = temp_dir();
    let (root, run) = (store.path().join("root"), store.path().join("run"));
    let common = ["--root", path(&root), "--runroot", path(&run), "--storage-driver", "vfs"];
    let podman_says = |arguments: &[&str]| peer_says(&podman, &[&common, arguments].concat());
    let written = archives(&mica);
    let (id, layers) = identity(&mica, "foo/x:1");
    for (archive, _) in written.iter().skip(1) {
        podman_says(&["load", "-q", "-i", path(archive)]);
        let found: Value = serde_json::from_str(&podman_says(&["image", "inspect", "foo/x:1"])).unwrap();
        assert_eq!(found[0]["Id"], json!(id.trim_start_matches("sha256:")), "{}", archive.display());
        assert_eq!(found[0]["RootFS"]["Layers"], json!(layers), "{}", archive.display());
        podman_says(&["rmi", "-f", "foo/x:1"]);
    }
    podman_says(&["load", "-q", "-i", path(&written[0].0)]);
    for format in ["docker-archive", "oci-archive"] {
        let file = mica.work().join(format!("podman-{format}.tar"));
        podman_says(&["save", "-q", "--format", format, "-o", path(&file), "foo/x:1"]);
        let Some(other) = with_base() else { return };
        other.run(["load", "-i", path(&file)]).success();
        assert_eq!(identity(&other, "foo/x:1").1, layers, "{format}");
    }
}

#[test]
fn a_file_system_can_be_imported_and_exported() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, DOCKERFILE).succeeds();
    let tree = built.tree();
    let tar = mica.work().join("result.tar");
    let id = mica
        .run(["import", "-c", "CMD [\"cat\", \"/d/f\"]", "-m", "why", path(&tar), "imported:1"])
        .success();
    assert!(id.line().starts_with("sha256:"));
    let history = mica.run(["history", "imported:1"]).success().stdout_text();
    holds(&history, &["why"]);
    mica.run(["run", "--name", "one", "imported:1"]).success();
    let exported = mica.work().join("export.tar");
    mica.run(["export", "-o", path(&exported), "one"]).success();
    let back = Tree::extract(&exported);
    assert_eq!(back.text("/d/f"), tree.text("/d/f"));
    assert_eq!((back.owner("/d/f"), back.link("/d/l")), ((5, 6), "f".to_owned()));
    let streamed = mica.run(["export", "one"]).success().stdout;
    let piped = mica.run_with_input(["import", "-", "piped"], streamed).success();
    assert!(piped.line().starts_with("sha256:"));
}

/// Saves `base`, lets a script change the unpacked archive, and loads the result.
fn load_changed(mica: &Mica, script: &str) -> mica_testkit::Output {
    let file = mica.work().join("b.tar");
    mica.run(["save", "-o", path(&file), "base"]).success();
    let tree = Tree::extract(&file);
    let done = Command::new("/bin/sh").args(["-euc", script]).current_dir(tree.path("/")).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    let packed = Command::new("tar").arg("-cPC").arg(tree.path("/")).arg(".").output().unwrap().stdout;
    mica.run(["rmi", "base"]).success();
    mica.run(["builder", "prune", "-a", "-f"]).success();
    mica.run(["system", "gc"]).success();
    mica.run_with_input(["load"], packed)
}

#[test]
fn damaged_archives_are_refused() {
    let layer = "l=$(sed 's/.*\"Layers\":\\[\"\\([^\"]*\\)\".*/\\1/' manifest.json); chmod u+w $l;";
    let cases = [
        ("rm manifest.json index.json oci-layout".to_owned(), "does not contain a manifest.json"),
        (format!("{layer} printf x | dd of=$l bs=1 seek=700 conv=notrunc 2>/dev/null"), ""),
        (format!("{layer} truncate -s 1000 $l"), ""),
        (format!("{layer} rm $l"), ""),
        (
            "sed -i 's/\"Layers\":\\[\"[^\"]*\",/\"Layers\":[/' manifest.json; rm index.json oci-layout"
                .to_owned(),
            "layers length mismatch",
        ),
        (
            "sed -i 's/\"Config\":\"/&..\\/..\\/..\\/..\\/etc\\//' manifest.json; rm index.json oci-layout"
                .to_owned(),
            "",
        ),
        ("echo '[' > manifest.json; rm index.json oci-layout".to_owned(), ""),
        ("head -c 20000000 /dev/zero > manifest.json; rm index.json oci-layout".to_owned(), ""),
    ];
    for (script, gist) in cases {
        let Some(mica) = with_base() else { return };
        let output = load_changed(&mica, &script);
        assert_eq!(output.code(), 1, "{script}: {}{}", output.stdout_text(), output.stderr_text());
        holds(&output.stderr_text(), &[gist]);
        assert_eq!(mica.run(["images", "-q"]).success().stdout_text(), "", "{script}");
        mica.run(["system", "check"]).success();
    }
}

#[test]
fn hostile_layers_write_nothing_outside() {
    let Some(mica) = with_base() else { return };
    let outside = mica.work().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let victim = path(&outside).to_owned();
    let scripts = [
        format!("echo x > f; tar -cPf ../l.tar --transform 's,^f,../../../../../../../..{victim}/f,' f"),
        format!("echo x > f; tar -cPf ../l.tar --transform 's,^f,{victim}/f,' f"),
        format!("ln -s {victim} d; tar -cf ../l.tar d; rm d; mkdir d; echo x > d/f; tar -rf ../l.tar d/f"),
        format!(
            "ln -s ../../../../../../../..{victim} d; tar -cf ../l.tar d; rm d; mkdir d; echo x > d/f; tar -rf ../l.tar d/f"
        ),
    ];
    for script in scripts {
        let folder = mica.work().join("make");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let done = Command::new("/bin/sh").args(["-euc", &script]).current_dir(&folder).status().unwrap();
        assert!(done.success(), "{script}");
        let tar = mica.work().join("l.tar");
        // Refused, or applied inside the image: both are safe.
        mica.run(["import", path(&tar), "hostile"]);
        let build = Build::new(&mica, "FROM base\nADD l.tar /t/\n");
        std::fs::copy(&tar, build.context().join("l.tar")).unwrap();
        build.run();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{script}");
    }
}

#[test]
fn a_terminal_gets_no_archive() {
    let Some(mica) = with_base() else { return };
    let Some(script) = peer::need("script") else { return };
    let command = mica.command([""]);
    let line = format!("{} save base", path(Path::new(command.get_program())));
    let output = Command::new(script)
        .args(["-qefc", &line, "/dev/null"])
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    holds(&String::from_utf8_lossy(&output.stdout), &["cowardly refusing to save to a terminal"]);
}
