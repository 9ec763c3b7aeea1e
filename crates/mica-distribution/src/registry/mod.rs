//! The client of registries: from a reference to servers, credentials, manifests and blobs (registry.md section 6).
//!
//! Blocking: every call runs on the thread of its caller, transfers of several blobs on several threads. The files of
//! docker, containerd and podman decide about mirrors, TLS and credentials; [`Registries::explain`] says which did.
//!
//! | question | module |
//! |---|---|
//! | which server, with what TLS? | `route`, `files`, `certificates` |
//! | who are we there? | `credentials`, `helper`, `login` |
//! | what decided all that? | `explain` |
//! | may we? | `challenge`, `token` |
//! | one request, until it is answered | `client`, `retry` |
//! | what is asked | `manifest`, `download`, `upload`, `tags`, `search` |
//! | which manifests are put together | `lists` |

mod certificates;
mod challenge;
mod client;
mod credentials;
mod download;
mod error;
mod explain;
mod files;
mod helper;
mod lists;
mod login;
mod manifest;
mod retry;
mod route;
mod search;
mod settings;
mod tags;
mod token;
mod upload;

pub use client::{Registries, Repository};
pub use credentials::{Credential, FoundCredential};
pub use download::BlobSink;
pub use error::{Refusal, RefusalDetail, RegistryError};
pub use explain::{ExplainedServer, Explanation};
pub use lists::{ListItem, ManifestLists};
pub use login::{Kept, forget_credential, keep_credential};
pub use manifest::{FetchedManifest, ManifestName};
pub use search::SearchResult;
pub use settings::{CredentialFile, CredentialKind, RegistrySettings, credential_key, server_name};
pub use upload::{BlobBytes, Pushed, Upload, UploadSession};
