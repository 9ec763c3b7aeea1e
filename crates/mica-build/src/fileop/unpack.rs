//! ADD of a local archive: unpacked into the destination (build.md A1).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom};

use mica_api::Cancelled;
use mica_archive::{ApplyError, ExtractOptions, Extracted, OwnerPolicy, Timestamp, extract, is_tar, path};
use mica_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use super::copy::{Job, still_is};
use super::destination::Destination;
use super::{FileOpError, seconds, shown};
use crate::context::Identity;
use crate::select::{NodeKind, TreeError};

/// What became of a source that may be an archive.
pub(super) enum Unpacked {
    /// It is none, and is to be copied.
    NoArchive,
    /// Unpacked; whether the archive was what its digest says.
    Done { unchanged: bool },
}

/// Unpacks a source that is a tar archive, compressed or not; decided by its content, never by its name.
pub(super) fn try_unpack(
    job: &Job<'_>,
    source: &[u8],
    writer: &mut Destination<'_>,
) -> Result<Unpacked, FileOpError> {
    let node = job.source.tree.get(source)?;
    let is_file = node.is_some_and(|node| matches!(node.kind, NodeKind::File { .. }));
    let (true, Some(files)) = (is_file, job.source.files) else { return Ok(Unpacked::NoArchive) };
    let io = |error| FileOpError::Tree(TreeError::io("read", source)(error));
    let mut file = files.open_file_nofollow(source).map_err(io)?;
    if !is_tar(&file).map_err(io)? {
        return Ok(Unpacked::NoArchive);
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let before = Identity::of(&rustix::fs::fstat(&file).map_err(|error| io(error.into()))?);
    // The mode of --chmod reaches neither the destination nor what is unpacked (C14).
    writer.begin(seconds(job.action.created_seconds), 0o755, job.owner);
    let directory = writer.resolve(job.action.destination.as_bytes())?;
    writer.ensure_directory(&directory)?;
    unpack(job, &file, (source, &directory), writer)?;
    let unchanged = still_is(job.source.tree.expectation(source), &file, &before).map_err(io)?;
    Ok(Unpacked::Done { unchanged })
}

fn unpack(
    job: &Job<'_>,
    archive: &File,
    (source, directory): (&[u8], &[u8]),
    writer: &mut Destination<'_>,
) -> Result<(), FileOpError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = writer.open_to_others().open_at(directory, flags, Mode::empty());
    let root = Root::from_fd(opened.map_err(FileOpError::io("open", directory))?);
    let options = ExtractOptions {
        chown: job.owner.map(|ids| (ids.uid, ids.gid)),
        owners: writer.owners(),
        devices: true,
        ..ExtractOptions::default()
    };
    // The coarse clock is the one that file times are taken from.
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let start = Timestamp { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 };
    let extracted =
        extract(archive, &root, &options, &|| job.cancel.is_cancelled()).map_err(|error| match error {
            ApplyError::Cancelled => FileOpError::Cancelled(Cancelled),
            error => FileOpError::Unpack { path: shown(source), source: Box::new(error) },
        })?;
    date_directories(directory, &extracted, start, writer)?;
    if writer.owners() == OwnerPolicy::Ledger {
        writer.record(directory, extracted.owners);
    }
    writer.skip_devices(extracted.skipped_devices);
    Ok(())
}

/// Directories that were only written into get the time of the action: those that the archive dates are older than
/// `start` by now, the others are not.
fn date_directories(
    directory: &[u8],
    extracted: &Extracted,
    start: Timestamp,
    writer: &mut Destination<'_>,
) -> Result<(), FileOpError> {
    let parents: BTreeSet<&[u8]> = extracted.owners.keys().filter_map(|path| path::parent(path)).collect();
    for parent in parents {
        let path = path::join(directory, parent);
        if let Some(stat) = writer.lstat(&path)?
            && Identity::of(&stat).mtime >= start
        {
            writer.touch(&path);
        }
    }
    Ok(())
}
