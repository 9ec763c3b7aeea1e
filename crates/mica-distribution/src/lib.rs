//! Moving image graphs in and out: OCI layouts (directories and tars), docker archives, registries.
//!
//! Here: what an archive or a repository contains, and how it gets there. Not here: where layers are kept and unpacked
//! (the caller passes readers and sinks, and takes readers).

mod archive;
mod files;
mod found;
mod http;
mod registry;

pub use archive::{
    ArchiveBlob, ArchiveError, ArchiveImage, ArchiveKind, BlobBody, Producer, add_to_layout, write_archive,
    write_layout,
};
pub use files::{Directory, FilesError, ImageFiles, OpenFile, TarFile};
pub use found::{
    FoundImage, FoundLayer, FoundManifest, ReadError, blob_file, read_blob, read_images, read_index,
};
pub use http::{HttpClient, HttpError, HttpResponse, Proxies, TlsProfile};
pub use registry::{
    BlobBytes, BlobSink, Credential, CredentialFile, CredentialKind, ExplainedServer, Explanation,
    FetchedManifest, FoundCredential, Kept, ListItem, ManifestLists, ManifestName, Pushed, Refusal,
    RefusalDetail, Registries, RegistryError, RegistrySettings, Repository, SearchResult, Upload,
    UploadSession, credential_key, forget_credential, keep_credential, server_name,
};
