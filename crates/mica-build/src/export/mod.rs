//! Results that leave: archives of images, and root file systems as files or as a tar (build.md 6.5).
//!
//! Nothing half-written appears under its final name: files are written beside it and renamed when complete and synced.

mod archive;
mod output;
mod rootfs;

use mica_api::{Cancel, Cancelled, Class, Error, Output};
use mica_oci::Reference;
use mica_store::{LayerId, Lease};

use crate::Workshop;
use crate::progress::Progress;
use crate::publish::ImageDraft;

pub use archive::{Exported, archive_images};
pub(crate) use archive::{layer_blob, layer_media_type};
pub use output::OutputFile;
pub use rootfs::rootfs_tar;

/// Writes an image archive, if that is what `output` asks for.
pub(crate) fn archive(
    workshop: &Workshop,
    output: &Output,
    draft: &ImageDraft,
    tags: &[Reference],
    lease: &Lease,
    progress: &Progress<'_>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let Output::Archive { layout, destination, names, compression } = output else { return Ok(()) };
    let name = match layout {
        mica_api::ImageLayout::Oci => "exporting to oci image format",
        mica_api::ImageLayout::Docker => "exporting to docker image format",
    };
    let step = progress.internal(name);
    let names: Vec<Reference> = tags.iter().chain(names).cloned().collect();
    let request = archive::BuildArchive { layout: *layout, destination, names, compression: *compression };
    match archive::build_archive(workshop, &request, draft, lease, cancel)
        .map_err(|error| cause(error, cancel))
    {
        Ok(()) => {
            step.status("exporting layers", 0);
            step.done();
            Ok(())
        }
        Err(error) => {
            step.failed(error.message.clone());
            Err(error)
        }
    }
}

/// Writes the root file system as files or a tar, if that is what `output` asks for.
pub(crate) fn files(
    workshop: &Workshop,
    output: &Output,
    stack: &[LayerId],
    lease: &Lease,
    progress: &Progress<'_>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let (name, written) = match output {
        Output::Local { directory } => {
            let step = progress.internal("exporting to client directory");
            (step, rootfs::copy_to(workshop, stack, directory, lease, cancel))
        }
        Output::Tar { destination } => {
            let step = progress.internal("exporting to client tarball");
            (step, rootfs::write_to(workshop, stack, destination, lease, cancel))
        }
        Output::Store | Output::Archive { .. } | Output::CacheOnly => return Ok(()),
    };
    match written.map_err(|error| cause(error, cancel)) {
        Ok(()) => {
            name.done();
            Ok(())
        }
        Err(error) => {
            name.failed(error.message.clone());
            Err(error)
        }
    }
}

/// What failed because the caller gave up is no failure of the output.
fn cause(error: Error, cancel: &Cancel) -> Error {
    if cancel.is_cancelled() { Error::new(Class::Cancelled, Cancelled.to_string()) } else { error }
}
