//! Results that leave: archives of images, and root file systems as files or as a tar (build.md 6.5).
//!
//! Nothing half-written appears under its final name: files are written beside it and renamed when complete and synced.

mod archive;
mod output;
mod rootfs;

use std::collections::BTreeMap;

use mica_api::{Cancel, Cancelled, Class, Compression, Destination, Error, ImageLayout, Output};
use mica_oci::{Descriptor, Platform, Reference};
use mica_store::{LayerId, Lease};

use crate::Workshop;
use crate::progress::Progress;
use crate::publish::{ImageDraft, ManifestForm};

pub use archive::{Exported, archive_images};
pub(crate) use archive::{layer_blob, layer_media_type, packed_layer};
pub use output::OutputFile;
pub use rootfs::rootfs_tar;

/// An archive to be written.
pub(crate) struct Archive<'a> {
    pub(crate) layout: ImageLayout,
    pub(crate) destination: &'a Destination,
    pub(crate) names: Vec<Reference>,
    pub(crate) compression: Compression,
    pub(crate) form: &'a ManifestForm,
    pub(crate) descriptor_annotations: BTreeMap<String, String>,
}

/// Writes an image archive, and returns the manifest in it.
pub(crate) fn archive(
    workshop: &Workshop,
    archive: &Archive<'_>,
    draft: &ImageDraft,
    lease: &Lease,
    progress: &Progress<'_>,
    cancel: &Cancel,
) -> Result<Descriptor, Error> {
    let name = match archive.layout {
        ImageLayout::Oci => "exporting to oci image format",
        ImageLayout::Docker => "exporting to docker image format",
    };
    let step = progress.internal(name);
    match archive::build_archive(workshop, archive, draft, lease, cancel)
        .map_err(|error| cause(error, cancel))
    {
        Ok(manifest) => {
            step.status("exporting layers", 0);
            step.done();
            Ok(manifest)
        }
        Err(error) => {
            step.failed(error.message.clone());
            Err(error)
        }
    }
}

/// The files of a result.
pub(crate) struct Files<'a> {
    pub(crate) stack: &'a [LayerId],
    pub(crate) platform: &'a Platform,
    /// The time of all of them, in seconds (G13).
    pub(crate) epoch: Option<i64>,
}

impl Files<'_> {
    /// The directory of a platform: `linux_arm_v7` (X7).
    fn folder(&self) -> String {
        self.platform.to_string().replace('/', "_")
    }
}

/// Writes the root file system as files or a tar, if that is what `output` asks for.
pub(crate) fn files(
    workshop: &Workshop,
    output: &Output,
    result: &Files<'_>,
    lease: &Lease,
    progress: &Progress<'_>,
    cancel: &Cancel,
) -> Result<(), Error> {
    let (name, written) = match output {
        Output::Local { directory, mirror, platform_split } => {
            let step = progress.internal("exporting to client directory");
            let directory = match platform_split {
                true => directory.join(result.folder()),
                false => directory.clone(),
            };
            (step, rootfs::copy_to(workshop, result, (&directory, *mirror), lease, cancel))
        }
        Output::Tar { destination } => {
            let step = progress.internal("exporting to client tarball");
            (step, rootfs::write_to(workshop, result, destination, lease, cancel))
        }
        Output::Store { .. } | Output::Registry { .. } | Output::Archive { .. } | Output::CacheOnly => {
            return Ok(());
        }
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
