//! docker's `manifests/` folder: lists of manifests that are being put together (build.md 8.1).
//!
//! One folder per list, one JSON file per manifest in it; docker's own command reads and writes the same.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mica_oci::{Descriptor, Document, Manifest, Reference, media_type};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::RegistryError;
use super::manifest::FetchedManifest;

/// The folder.
#[derive(Debug, Clone)]
pub struct ManifestLists {
    root: PathBuf,
}

/// One manifest of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListItem {
    /// Where it is.
    #[serde(rename = "Ref")]
    pub reference: String,
    /// Its descriptor with platform.
    pub descriptor: Descriptor,
    /// Its bytes, base64.
    #[serde(default)]
    raw: String,
    #[serde(rename = "SchemaV2Manifest", default, skip_serializing_if = "Option::is_none")]
    docker: Option<Value>,
    #[serde(rename = "OCIManifest", default, skip_serializing_if = "Option::is_none")]
    oci: Option<Value>,
}

impl ListItem {
    /// An item of a fetched manifest; its descriptor has the platform.
    pub fn new(reference: &Reference, descriptor: Descriptor, fetched: &FetchedManifest) -> Self {
        let parsed = serde_json::from_slice(&fetched.bytes).ok();
        let is_docker = fetched.descriptor.media_type == media_type::DOCKER_MANIFEST;
        let (docker, oci) = if is_docker { (parsed, None) } else { (None, parsed) };
        Self {
            reference: reference.to_string(),
            descriptor,
            raw: STANDARD.encode(&fetched.bytes),
            docker,
            oci,
        }
    }

    /// The manifest's bytes and what they say; `None` if the file was tampered with.
    pub fn manifest(&self) -> Option<(Vec<u8>, Manifest)> {
        let bytes = STANDARD.decode(&self.raw).ok()?;
        let is_whole = mica_oci::Digest::of(&bytes) == self.descriptor.digest;
        match Document::parse(&bytes, "") {
            Ok(Document::Manifest(manifest)) if is_whole => Some((bytes, manifest)),
            _ => None,
        }
    }
}

impl ManifestLists {
    /// The lists in docker's configuration folder.
    pub fn of(config: &Path) -> Self {
        Self { root: config.join("manifests") }
    }

    fn folder(&self, list: &Reference) -> PathBuf {
        self.root.join(file_name(list))
    }

    /// The manifests of a list, `None` if there is no such list.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn items(&self, list: &Reference) -> Result<Option<Vec<ListItem>>, RegistryError> {
        let folder = self.folder(list);
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(&folder) {
            Ok(listing) => listing.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&folder, error)),
        };
        paths.sort();
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path).map_err(|error| failed(path, error))?;
            serde_json::from_slice(&bytes).map_err(|error| failed(path, error.into()))
        };
        paths.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Puts a manifest into a list, which is made if it is not there; one of the same name is replaced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&self, list: &Reference, item: &Reference, value: &ListItem) -> Result<(), RegistryError> {
        let folder = self.folder(list);
        std::fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        let path = folder.join(file_name(item));
        let bytes = serde_json::to_vec(value).map_err(|error| failed(&path, error.into()))?;
        let beside = self.root.join(format!(".{}", std::process::id()));
        let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|error| failed(&path, error))
    }

    /// Removes a list; `false` if there is none.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn remove(&self, list: &Reference) -> Result<bool, RegistryError> {
        let folder = self.folder(list);
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(&folder, error)),
        }
    }
}

/// `localhost:5077/it/q:ml` is `localhost-5077_it_q-ml`. References have no `..` and begin with a letter or digit.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn failed(path: &Path, source: io::Error) -> RegistryError {
    RegistryError::Settings { path: path.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_where_docker_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let lists = ManifestLists::of(folder.path());
        let (list, item): (Reference, Reference) =
            ("localhost:5077/it/q:ml".parse().unwrap(), "localhost:5077/it/q:1".parse().unwrap());
        let bytes = Manifest::image(Descriptor::of("c", b"{}"), Vec::new()).to_bytes();
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        let document = Document::parse(&bytes, "").unwrap();
        let fetched = FetchedManifest { descriptor: descriptor.clone(), bytes: bytes.clone(), document };
        assert_eq!(lists.items(&list).unwrap(), None);
        lists.put(&list, &item, &ListItem::new(&item, descriptor, &fetched)).unwrap();
        assert!(folder.path().join("manifests/localhost-5077_it_q-ml/localhost-5077_it_q-1").exists());
        let items = lists.items(&list).unwrap().unwrap();
        assert_eq!(items[0].manifest().unwrap().0, bytes);
        assert!(lists.remove(&list).unwrap() && !lists.remove(&list).unwrap());
    }
}
