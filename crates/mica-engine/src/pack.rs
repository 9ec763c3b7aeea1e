//! `pack`: an image from programs of the host with everything they need, and nothing else.
//!
//! Deterministic: the same files give the same image. Modes and contents are the host's; owners are 0:0 and times 0,
//! because neither should make two machines differ.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use mica_api::{Cancel, Class, Error, PackEntry, PackReply, PackRequest, Result};
use mica_archive::{OwnerLedger, Timestamp};
use mica_build::{Draft, RootFiles, finish_layer, publish_manifest, write_manifest};
use mica_elf::{Closure, FileKind, Files as _, Item, ItemKind, Reason, closure};
use mica_oci::{History, ImageConfig, Platform};
use mica_sys::root::Root;

use crate::LocalEngine;

/// What programs expect of any system; not taken from the host, whose users are nobody's business.
const MINIMUM: &[(&str, &[u8])] = &[
    ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// Directories that every image has, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)];

/// The time of everything packed: 1970, so that the image depends on contents alone.
const EPOCH: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };
/// The same for the config.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// `pack`.
pub(crate) fn pack(engine: &LocalEngine, request: PackRequest, cancel: &Cancel) -> Result<PackReply> {
    let host = Root::open(std::path::Path::new("/"))
        .map_err(|error| Error::new(Class::of_io(&error), "cannot open /").why(error.to_string()))?;
    let files = RootFiles(&host);
    let programs: Vec<Vec<u8>> =
        request.paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    let mut found = closure(&files, &programs);
    add_merged_directories(&files, &mut found);
    refuse_missing(&found)?;
    let mut entries: Vec<PackEntry> = found.items.iter().filter_map(|item| listed(&files, item)).collect();
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    if request.list {
        return Ok(PackReply { entries, image_id: None });
    }
    let lease = engine.store().lease()?;
    let workshop = &engine.workshop;
    let workspace = lease.workspace()?;
    let active = workshop.driver.prepare(&workspace, &[])?;
    write_files(&host, &found, active.root(), cancel)?;
    let draft = workshop.driver.commit(active, &OwnerLedger::new())?;
    let layer = finish_layer(workshop, Draft { directory: &workspace, table: draft.table }, &lease, cancel)?;
    let image = write_manifest(workshop, config(&request), &[layer.id], &lease)?;
    let published = publish_manifest(workshop, &image, &request.tags, &lease)?;
    Ok(PackReply { entries, image_id: Some(published.image_id.0) })
}

/// Where `/bin` is a link to `usr/bin`, programs expect both names: `/bin/sh` must start although `/usr/bin/sh` was asked
/// for. Links at the top whose target is packed come along.
fn add_merged_directories(files: &RootFiles<'_>, found: &mut Closure) {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let path = format!("/{name}").into_bytes();
        let Some(target) = files.link(&path) else { continue };
        let has = |wanted: &[u8]| found.items.iter().any(|item| item.path == wanted);
        let resolved = [b"/".as_slice(), target.strip_prefix(b"/").unwrap_or(&target)].concat();
        if has(&resolved) && !has(&path) {
            let reason = Reason::OnTheWay { to: resolved };
            found.items.push(Item { path, kind: ItemKind::Symlink { target }, reason });
        }
    }
}

fn refuse_missing(found: &Closure) -> Result<()> {
    if found.missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found.missing.iter().map(ToString::to_string).collect();
    Err(Error::new(Class::NotFound, "cannot pack: something that is needed is missing on this machine")
        .why(lines.join("; "))
        .hint("install what is missing, or leave out the program that needs it"))
}

fn listed(files: &RootFiles<'_>, item: &Item) -> Option<PackEntry> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(item.path.clone()));
    let (size_bytes, link) = match &item.kind {
        ItemKind::Directory => return None,
        ItemKind::Symlink { target } => {
            (0, Some(PathBuf::from(std::ffi::OsString::from_vec(target.clone()))))
        }
        ItemKind::File => (files.0.stat(&item.path).ok()?.st_size.cast_unsigned(), None),
    };
    Some(PackEntry { path, size_bytes, reason: item.reason.to_string(), link })
}

fn write_files(host: &Root, found: &Closure, image: &Root, cancel: &Cancel) -> Result<()> {
    let failed = |path: &[u8], error: std::io::Error| {
        let path = String::from_utf8_lossy(path).into_owned();
        Error::new(Class::of_io(&error), format!("cannot pack {path}")).why(error.to_string())
    };
    for item in &found.items {
        cancel.check()?;
        copy_item(host, item, image).map_err(|error| failed(&item.path, error))?;
    }
    for (path, mode) in DIRECTORIES {
        ensure_directory(image, path, *mode).map_err(|error| failed(path.as_bytes(), error))?;
    }
    for (path, bytes) in MINIMUM {
        write_minimum(image, path, bytes).map_err(|error| failed(path.as_bytes(), error))?;
    }
    // directories last: everything written into them touched them
    let directories =
        found.items.iter().filter(|item| item.kind == ItemKind::Directory).map(|item| &item.path[..]);
    let own = DIRECTORIES.iter().map(|(path, _)| path.as_bytes());
    for path in directories.chain(own).chain([&b""[..]]) {
        image.set_times(path, EPOCH_SYS).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

/// [`EPOCH`] as the system call has it.
const EPOCH_SYS: mica_sys::root::Timestamp =
    mica_sys::root::Timestamp { seconds: EPOCH.seconds, nanoseconds: EPOCH.nanoseconds };

fn copy_item(host: &Root, item: &Item, image: &Root) -> std::io::Result<()> {
    match &item.kind {
        ItemKind::Directory => {
            let mode = host.stat(&item.path)?.st_mode & 0o7777;
            match image.create_dir(&item.path, mode) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        }
        ItemKind::Symlink { target } => {
            image.symlink(target, &item.path)?;
            image.set_times(&item.path, EPOCH_SYS)
        }
        ItemKind::File => {
            let mut source = host.open_file(&item.path)?;
            // setuid programs of the host have no business in a base image
            let mode = host.stat(&item.path)?.st_mode & 0o777;
            let mut file = image.create_file(&item.path, mode)?;
            std::io::copy(&mut source, &mut file)?;
            image.set_times(&item.path, EPOCH_SYS)
        }
    }
}

fn ensure_directory(image: &Root, path: &str, mode: u32) -> std::io::Result<()> {
    match image.create_dir(path.as_bytes(), mode) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Files of the minimum give way to what was packed.
fn write_minimum(image: &Root, path: &str, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    if RootFiles(image).stat(path.as_bytes()).is_some_and(|stat| stat.kind == FileKind::File) {
        return Ok(());
    }
    image.create_file(path.as_bytes(), 0o644)?.write_all(bytes)?;
    image.set_times(path.as_bytes(), EPOCH_SYS)
}

fn config(request: &PackRequest) -> ImageConfig {
    let mut config = ImageConfig::scratch(&Platform::host());
    config.config.env.extend(request.env.iter().cloned());
    config.config.entrypoint.clone_from(&request.entrypoint);
    if let ([only], true) = (&request.paths[..], request.entrypoint.is_empty()) {
        config.config.entrypoint = vec![only.display().to_string()];
    }
    config.config.cmd.clone_from(&request.cmd);
    config.created = Some(CREATED.to_owned());
    let names: Vec<String> = request.paths.iter().map(|path| path.display().to_string()).collect();
    config.history = Some(vec![History {
        created: Some(CREATED.to_owned()),
        created_by: format!("mica pack {}", names.join(" ")),
        comment: "mica.pack.v1".to_owned(),
        ..History::default()
    }]);
    config
}
