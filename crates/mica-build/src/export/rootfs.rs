//! The root file system of a result as files or as a tar (build.md X7, X8).

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use mica_api::{Cancel, Class, Destination, Error};
use mica_archive::{Entry, Kind, Table, Timestamp, View};
use mica_solve::{CopyAction, FileAction, FileOp, Input, Owner, OwnerId};
use mica_store::Lease;
use mica_sys::root::Root;
use rustix::fs::FileType;

use super::{Files, OutputFile};
use crate::Workshop;
use crate::fileop::{self, FileOptions, SourceTree};

/// X7: into a directory, over what is there; owners are the caller's. A mirror has nothing else in the end.
pub(super) fn copy_to(
    workshop: &Workshop,
    files: &Files<'_>,
    (directory, mirror): (&Path, bool),
    lease: &Lease,
    cancel: &Cancel,
) -> Result<(), Error> {
    let refused = |error: std::io::Error| {
        Error::new(Class::of_io(&error), format!("cannot write to {}", directory.display()))
            .why(error.to_string())
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refused)?;
    let destination = Root::open(directory).map_err(refused)?;
    let mounted = workshop.mount(files.stack, lease)?;
    let view = View::stack([Arc::new(listing(&workshop.view(files.stack)?, files.epoch)?)]);
    if mirror {
        remove_others(&destination, &view, cancel)?;
    }
    let caller = Owner { user: OwnerId::Id(0), group: Some(OwnerId::Id(0)) };
    let everything = CopyAction {
        owner: Some(caller),
        created_seconds: files.epoch.unwrap_or(0),
        ..CopyAction::new(Input::Vertex(0), "/", "/")
    };
    let op = FileOp { base: Input::Scratch, actions: vec![FileAction::Copy(everything)] };
    let options = FileOptions::new(workshop.is_single_id(), cancel);
    fileop::run(&op, &destination, &|_| SourceTree::snapshot(&view, mounted.root()), &options)
        .map(|_| ())
        .map_err(|error| Error::from_fault(&error))
}

/// Removes what a result does not have, or has as something else than a directory.
fn remove_others(destination: &Root, view: &View, cancel: &Cancel) -> Result<(), Error> {
    let refused = |path: &[u8], error: std::io::Error| {
        let path = String::from_utf8_lossy(path).into_owned();
        Error::new(Class::of_io(&error), format!("cannot remove /{path}")).why(error.to_string())
    };
    let mut waiting = vec![Vec::new()];
    while let Some(directory) = waiting.pop() {
        cancel.check()?;
        for item in destination.read_dir(&directory).map_err(|error| refused(&directory, error))? {
            let mut path = directory.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&item.name);
            match view.get(&path).map(|entry| &entry.kind) {
                Some(Kind::Directory { .. }) if item.file_type == FileType::Directory => waiting.push(path),
                Some(kind)
                    if !matches!(kind, Kind::Directory { .. }) && item.file_type != FileType::Directory => {}
                _ => destination.remove_all(&path).map_err(|error| refused(&path, error))?,
            }
        }
    }
    Ok(())
}

/// X8: as one tar.
pub(super) fn write_to(
    workshop: &Workshop,
    files: &Files<'_>,
    destination: &Destination,
    lease: &Lease,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mounted = workshop.mount(files.stack, lease)?;
    let mut output = OutputFile::open(destination)?;
    let listing = listing(&workshop.view(files.stack)?, files.epoch)?;
    write_listing(&listing, mounted.root(), &mut output, cancel)?;
    output.commit()
}

/// Writes a merged tree as one tar; `root` shows the same tree.
///
/// # Errors
/// When files cannot be read or the output refuses.
pub fn rootfs_tar(view: &View, root: &Root, output: &mut dyn Write, cancel: &Cancel) -> Result<(), Error> {
    write_listing(&listing(view, None)?, root, output, cancel)
}

/// What is there in the end, as one layer, all of it as old as the epoch if there is one.
fn listing(view: &View, epoch: Option<i64>) -> Result<Table, Error> {
    let mut entries = visible(view);
    if let Some(seconds) = epoch {
        entries.iter_mut().for_each(|entry| entry.mtime = Timestamp { seconds, nanoseconds: 0 });
    }
    Table::from_entries(entries).map_err(|error| {
        Error::new(Class::Internal, "cannot list the root file system").why(error.to_string())
    })
}

fn write_listing(table: &Table, root: &Root, output: &mut dyn Write, cancel: &Cancel) -> Result<(), Error> {
    mica_archive::write_tar(table, root, output, mica_archive::TarFormat::V1, &|| cancel.is_cancelled())
        .map(|_| ())
        .map_err(|error| {
            let failed = Error::new(Class::Internal, "cannot write the root file system");
            match std::error::Error::source(&error) {
                Some(cause) => failed.why(format!("{error}: {cause}")),
                None => failed.why(error.to_string()),
            }
        })
}

/// What is there in the end, as one layer: names of one file stay hard links of it.
fn visible(view: &View) -> Vec<Entry> {
    let mut files: HashMap<(usize, &[u8]), &[u8]> = HashMap::new();
    let mut entries: Vec<Entry> = Vec::with_capacity(view.len());
    for found in view.walk_located(b"") {
        let mut entry = found.content.clone();
        entry.path.clone_from(&found.entry.path);
        match &mut entry.kind {
            Kind::Whiteout => continue,
            Kind::Directory { opaque } => *opaque = false,
            Kind::File { .. } => match files.entry((found.layer, found.content.path.as_slice())) {
                Vacant(first) => {
                    first.insert(&found.entry.path);
                }
                Occupied(first) => entry.kind = Kind::Hardlink { target: first.get().to_vec() },
            },
            _ => {}
        }
        entries.push(entry);
    }
    entries
}
