//! From a directory of changes to a layer of the store: hashed once, adopted, protected by the lease.

use std::path::Path;
use std::sync::Arc;

use mica_api::{Cancel, Class, Error};
use mica_archive::{Table, WriteError};
use mica_store::{LayerId, LayerRecord, Lease, StagedLayer};
use mica_sys::root::Root;

use crate::Workshop;

/// Changes that are on disk but no layer yet.
#[derive(Debug)]
pub struct Draft<'a> {
    /// A directory on the store's file system that holds `fs`; it is used up.
    pub directory: &'a Path,
    /// What the changes are; files without digests.
    pub table: Table,
}

/// Makes a layer of a draft: one pass over its files for diff ID and content digests, then into the store.
///
/// Durable only after the next publish, like everything a build makes on the way (ARCHITECTURE.md, durability).
///
/// # Errors
/// When files cannot be read, the table cannot be written, or the store refuses.
pub fn finish_layer(
    workshop: &Workshop,
    draft: Draft<'_>,
    lease: &Lease,
    cancel: &Cancel,
) -> Result<LayerRecord, Error> {
    let fs_path = draft.directory.join("fs");
    let root = Root::open(&fs_path).map_err(|error| unreadable(&fs_path, &error))?;
    let finalized = mica_archive::finalize(draft.table, &root, &|| cancel.is_cancelled())
        .map_err(|error| cancel.check().map_or_else(Error::from, |()| unhashed(&error)))?;
    let staged = StagedLayer {
        directory: draft.directory,
        id: LayerId::random(),
        diff_id: finalized.diff_id,
        tar_bytes: finalized.tar_bytes,
        table: Arc::new(finalized.table),
    };
    Ok(workshop.store.adopt_layer(staged, lease)?)
}

fn unhashed(error: &WriteError) -> Error {
    let text = format!("cannot hash a new layer: {error}");
    match error {
        // The file is a hard link to one of an earlier layer, which is not what it was.
        WriteError::Damaged(_) => {
            Error::new(Class::Corrupt, text).hint("`mica system check --repair` removes the damaged layer")
        }
        _ => Error::new(Class::Internal, text),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Class::of_io(error), format!("cannot finish the layer at {}", path.display()))
        .why(error.to_string())
}
