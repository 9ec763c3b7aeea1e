//! Moving image graphs in and out: OCI layouts (directories and tars) and docker archives.
//!
//! Here: what an archive contains, and how one is written. Not here: where layers are kept and unpacked (the caller
//! passes readers and takes readers). Registries are later work; their client will live beside these modules.

mod archive;
mod files;
mod found;
mod http;

pub use archive::{
    ArchiveBlob, ArchiveError, ArchiveImage, ArchiveKind, BlobBody, Producer, add_to_layout, write_archive,
    write_layout,
};
pub use files::{Directory, FilesError, ImageFiles, OpenFile, TarFile};
pub use found::{
    FoundImage, FoundLayer, FoundManifest, ReadError, blob_file, read_blob, read_images, read_index,
};
pub use http::{HttpClient, HttpError, HttpResponse, Proxies};
