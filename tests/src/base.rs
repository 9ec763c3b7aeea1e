//! The base image, and stores that start with it.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mica_testkit::{Mica, User, needs_root, peer};

use crate::Disk;

const BUSYBOX: &str = "/usr/bin/busybox";

/// What turns the packed busybox into an image with a shell and users.
const DOCKERFILE: &str = r#"FROM packed
RUN ["/usr/bin/busybox", "sh", "-c", "busybox mkdir -p /bin && busybox --install -s /bin"]
RUN <<END
printf 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n' > /etc/passwd
printf 'root:x:0:\nann:x:1001:\nwheel:x:10:ann\n' > /etc/group
END
ENTRYPOINT []
"#;

/// The store and the archive that the others are made from.
struct Template {
    store: PathBuf,
    archive: PathBuf,
}

/// Made once per binary under test, beside the tests: test programs share it.
fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let test = std::env::current_exe().expect("a test is a file");
        let all = test.ancestors().nth(2).expect("a test is in <profile>/deps").join("mica-tests-base");
        let mica = Mica::new();
        let shared = all.join(version_of(&mica));
        std::fs::create_dir_all(&shared).expect("room beside the tests");
        let lock = File::create(all.join("lock")).expect("room beside the tests");
        lock.lock().expect("a lock");
        let template = Template { store: shared.join("store"), archive: shared.join("base.tar") };
        // Written last: without it the store is not complete.
        if !template.archive.exists() {
            remove_old(&all);
            let _ = std::fs::remove_dir_all(&template.store);
            make(mica.env("MICA_ROOT", &template.store), &template.archive);
        }
        template
    })
}

/// What changes with the binary under test.
fn version_of(mica: &Mica) -> String {
    let command = mica.command(["version"]);
    let found = std::fs::metadata(command.get_program()).expect("the binary");
    format!("{}-{}-{}", found.len(), found.mtime(), found.mtime_nsec())
}

/// Removes what was made for binaries that nobody has tested for an hour.
fn remove_old(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|found| found.modified());
        let old = changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 3600));
        if old && entry.path().is_dir() {
            // Room is all it costs if it stays.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn make(mica: Mica, archive: &Path) {
    let busybox = peer::find("busybox").expect("looked for before");
    if busybox == Path::new(BUSYBOX) {
        mica.run(["pack", BUSYBOX, "-t", "packed"]).success();
    } else {
        // The Dockerfile names the usual place.
        let copy = mica.write("busybox", std::fs::read(busybox).expect("busybox"));
        std::fs::set_permissions(copy, Permissions::from_mode(0o755)).expect("our own file");
        let dockerfile = mica.write("Dockerfile", format!("FROM scratch\nCOPY busybox {BUSYBOX}\n"));
        let context = dockerfile.parent().and_then(Path::to_str).expect("our own path");
        mica.run(["build", "-q", "-t", "packed", context]).success();
    }
    mica.run_with_input(["build", "-q", "-t", "base", "-"], DOCKERFILE).success();
    mica.run(["rmi", "packed"]).success();
    mica.run(["save", "-o", archive.to_str().expect("a path of ours"), "base"]).success();
}

/// A store that holds the image `base`, or a counted skip: it needs root and busybox.
#[track_caller]
pub fn with_base() -> Option<Mica> {
    if !needs_root() {
        return None;
    }
    peer::busybox()?;
    let mica = Mica::new();
    copy_store(&template().store, &mica.root());
    Some(mica)
}

/// A store on this disk that holds the image `base`, or a counted skip: it needs busybox.
#[track_caller]
pub fn with_base_on(disk: &Disk) -> Option<Mica> {
    peer::busybox()?;
    let mica = Mica::new().root_at(disk.path().join("root"));
    copy_store(&template().store, &mica.root());
    // A power cut must find what a store on a real disk would have had for long.
    let root = File::open(mica.root()).expect("our own copy");
    rustix::fs::syncfs(&root).expect("a disk that takes it");
    Some(mica)
}

/// Copies a store that nobody uses.
#[track_caller]
pub fn copy_store(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} is copied", from.display());
}

/// A store of another user that holds the image `base`: loaded, because ids differ.
#[track_caller]
pub fn with_base_as(user: &User) -> Option<Mica> {
    if !needs_root() {
        return None;
    }
    peer::busybox()?;
    let mica = Mica::as_user(user);
    let archive = mica.write("base.tar", std::fs::read(&template().archive).expect("the base's archive"));
    mica.run(["load", "-q", "-i", archive.to_str().expect("our own path")]).success();
    std::fs::remove_file(archive).expect("our own file");
    Some(mica)
}

/// An empty store, or a counted skip: it needs root.
#[track_caller]
pub fn empty() -> Option<Mica> {
    needs_root().then(Mica::new)
}
