//! Writing images: an OCI layout, a docker archive, or both in one tar (build.md X5, X6, Y12).

mod layout;
mod ustar;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use mica_oci::{Descriptor, Digest, Index, Reference, annotation};
use serde_json::json;

pub use layout::{add_to_layout, write_layout};
pub(crate) use ustar::{Header, padding};

/// What a tar of images is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// `-o type=oci`: layout only.
    Oci,
    /// `-o type=docker`: layout and `manifest.json`.
    Docker,
    /// `save`: both, and the legacy `repositories`.
    Save,
}

/// One image of an archive.
#[derive(Debug, Clone)]
pub struct ArchiveImage {
    /// Names; none for an image saved by ID.
    pub names: Vec<Reference>,
    /// The manifest or index.
    pub target: Descriptor,
    /// Config and layers of the image that docker archives show: the only one, or the first of an index.
    pub docker: Option<(Digest, Vec<Descriptor>)>,
    /// Value of the `created` annotation.
    pub created: Option<String>,
}

/// One blob of an archive.
pub struct ArchiveBlob<'a> {
    /// Its length.
    pub size_bytes: u64,
    /// Its bytes.
    pub body: BlobBody<'a>,
}

/// Writes the bytes of a blob.
pub type Producer<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// The bytes of a blob.
pub enum BlobBody<'a> {
    /// In memory.
    Bytes(Vec<u8>),
    /// Made when asked for: writes exactly the announced number of bytes.
    Produce(Producer<'a>),
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The output refused.
    #[error("cannot write the image archive")]
    Write(#[source] io::Error),
    /// A blob made another number of bytes than announced.
    #[error("blob {digest} has {actual} bytes instead of {expected}")]
    Size {
        /// Which.
        digest: Digest,
        /// Announced.
        expected: u64,
        /// Made.
        actual: u64,
    },
}

impl mica_api::Fault for ArchiveError {
    fn class(&self) -> mica_api::Class {
        match self {
            Self::Write(error) => mica_api::Class::of_io(error),
            Self::Size { .. } => mica_api::Class::Corrupt,
        }
    }
}

/// The version file of OCI layouts.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes a tar with the images and blobs given: `blobs/` sorted by digest, then the top-level files, all times 0.
///
/// # Errors
/// [`ArchiveError`] when the output refuses or a blob is not as long as announced.
pub fn write_archive(
    output: &mut dyn Write,
    kind: ArchiveKind,
    images: &[ArchiveImage],
    blobs: &BTreeMap<Digest, ArchiveBlob<'_>>,
) -> Result<(), ArchiveError> {
    let mut tar = TarOutput { output };
    tar.directory("blobs/")?;
    for (name, digests) in by_algorithm(blobs) {
        tar.directory(&format!("blobs/{name}/"))?;
        for (digest, blob) in digests {
            tar.blob(&format!("blobs/{name}/{}", digest.hex()), digest, blob)?;
        }
    }
    for (name, mode, bytes) in top_level_files(kind, images) {
        tar.file(name, mode, &bytes)?;
    }
    tar.output.write_all(&[0; 1024]).map_err(ArchiveError::Write)?;
    tar.output.flush().map_err(ArchiveError::Write)
}

fn by_algorithm<'a, 'b>(
    blobs: &'a BTreeMap<Digest, ArchiveBlob<'b>>,
) -> BTreeMap<&'static str, Vec<(&'a Digest, &'a ArchiveBlob<'b>)>> {
    let mut sorted: BTreeMap<&'static str, Vec<_>> = BTreeMap::new();
    for (digest, blob) in blobs {
        sorted.entry(digest.algorithm().name()).or_default().push((digest, blob));
    }
    sorted
}

/// Names, modes and bytes of the files beside `blobs/`, sorted.
pub(crate) fn top_level_files(
    kind: ArchiveKind,
    images: &[ArchiveImage],
) -> Vec<(&'static str, u32, Vec<u8>)> {
    let mut files = vec![("index.json", 0o644, index_json(images))];
    if kind != ArchiveKind::Oci {
        files.push(("manifest.json", 0o644, manifest_json(images)));
    }
    files.push(("oci-layout", 0o444, OCI_LAYOUT.to_vec()));
    if kind == ArchiveKind::Save
        && let Some(bytes) = repositories_json(images)
    {
        files.push(("repositories", 0o644, bytes));
    }
    files
}

/// `index.json`: one descriptor per tag, or one without a name (X5).
fn index_json(images: &[ArchiveImage]) -> Vec<u8> {
    let mut entries = Vec::new();
    for image in images {
        let mut plain = image.target.clone();
        if let Some(created) = &image.created {
            plain.annotations.insert(annotation::CREATED.to_owned(), created.clone());
        }
        if image.names.is_empty() {
            entries.push(plain);
            continue;
        }
        for name in &image.names {
            let mut named = plain.clone();
            named.annotations.insert(annotation::IMAGE_NAME.to_owned(), name.to_string());
            if let Some(tag) = name.tag() {
                named.annotations.insert(annotation::REF_NAME.to_owned(), tag.to_string());
            }
            entries.push(named);
        }
    }
    serde_json::to_vec(&Index::new(entries)).expect("an index has only string keys")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// `manifest.json` of docker archives (X6).
fn manifest_json(images: &[ArchiveImage]) -> Vec<u8> {
    let entries: Vec<_> = images
        .iter()
        .filter_map(|image| {
            let (config, layers) = image.docker.as_ref()?;
            let names: Vec<String> =
                image.names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
            let tags = if names.is_empty() { serde_json::Value::Null } else { json!(names) };
            let paths: Vec<String> = layers.iter().map(|layer| blob_path(&layer.digest)).collect();
            Some(json!({ "Config": blob_path(config), "RepoTags": tags, "Layers": paths }))
        })
        .collect();
    serde_json::to_vec(&entries).expect("values have only string keys")
}

/// `repositories`: repository, tag, and the hex of the topmost layer, as docker writes it.
fn repositories_json(images: &[ArchiveImage]) -> Option<Vec<u8>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let Some((_, layers)) = &image.docker else { continue };
        let Some(top) = layers.last() else { continue };
        for name in &image.names {
            if let Some(tag) = name.tag() {
                let tags = repositories.entry(name.familiar_name()).or_default();
                tags.insert(tag.to_string(), top.digest.hex().to_owned());
            }
        }
    }
    (!repositories.is_empty()).then(|| serde_json::to_vec(&repositories).expect("keys are strings"))
}

struct TarOutput<'a> {
    output: &'a mut dyn Write,
}

impl TarOutput<'_> {
    fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        let header = Header { name, mode: 0o755, size_bytes: 0, directory: true };
        self.output.write_all(&header.to_bytes()).map_err(ArchiveError::Write)
    }

    fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), ArchiveError> {
        let header = Header { name, mode, size_bytes: bytes.len() as u64, directory: false };
        self.output
            .write_all(&header.to_bytes())
            .and_then(|()| self.output.write_all(bytes))
            .and_then(|()| self.output.write_all(padding(bytes.len() as u64)))
            .map_err(ArchiveError::Write)
    }

    fn blob(&mut self, name: &str, digest: &Digest, blob: &ArchiveBlob<'_>) -> Result<(), ArchiveError> {
        let produce = match &blob.body {
            BlobBody::Bytes(bytes) => return self.file(name, 0o444, bytes),
            BlobBody::Produce(produce) => produce,
        };
        let header = Header { name, mode: 0o444, size_bytes: blob.size_bytes, directory: false };
        self.output.write_all(&header.to_bytes()).map_err(ArchiveError::Write)?;
        let mut counted = Counted { output: self.output, bytes: 0 };
        produce(&mut counted).map_err(ArchiveError::Write)?;
        let actual = counted.bytes;
        if actual != blob.size_bytes {
            return Err(ArchiveError::Size { digest: digest.clone(), expected: blob.size_bytes, actual });
        }
        self.output.write_all(padding(actual)).map_err(ArchiveError::Write)
    }
}

/// Counts what passes through.
struct Counted<'a> {
    output: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl<'a> BlobBody<'a> {
    /// A body read from a file or another reader that can be opened again.
    pub fn reader<R: Read + 'a>(open: impl Fn() -> io::Result<R> + 'a) -> Self {
        Self::Produce(Box::new(move |output| {
            let mut input = open()?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = input.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                output.write_all(&buffer[..count])?;
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageFiles as _, TarFile, read_images};
    use mica_oci::{ImageConfig, Manifest, Platform, media_type};

    fn archive(kind: ArchiveKind, names: &[&str]) -> Vec<u8> {
        let config = ImageConfig::scratch(&Platform::new("linux", "amd64", None)).to_bytes();
        let manifest =
            Manifest::image(Descriptor::of(media_type::OCI_CONFIG, &config), Vec::new()).to_bytes();
        let target = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
        let image = ArchiveImage {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            target: target.clone(),
            docker: Some((Digest::of(&config), Vec::new())),
            created: Some("1970-01-01T00:00:00Z".to_owned()),
        };
        let blob =
            |bytes: Vec<u8>| ArchiveBlob { size_bytes: bytes.len() as u64, body: BlobBody::Bytes(bytes) };
        let blobs = BTreeMap::from([(Digest::of(&config), blob(config)), (target.digest, blob(manifest))]);
        let mut bytes = Vec::new();
        write_archive(&mut bytes, kind, &[image], &blobs).unwrap();
        bytes
    }

    fn opened(bytes: &[u8]) -> TarFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        TarFile::index(file).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_with_its_names() {
        for kind in [ArchiveKind::Oci, ArchiveKind::Docker, ArchiveKind::Save] {
            let files = opened(&archive(kind, &["a:1", "user/b:2"]));
            let images = read_images(&files, None).unwrap();
            let names: Vec<String> =
                images.iter().flat_map(|image| &image.names).map(Reference::familiar).collect();
            assert_eq!(names, ["a:1", "user/b:2"], "{kind:?}");
        }
    }

    #[test]
    fn only_docker_archives_have_a_manifest_json_and_only_save_writes_repositories() {
        for (kind, manifest) in
            [(ArchiveKind::Oci, false), (ArchiveKind::Docker, true), (ArchiveKind::Save, true)]
        {
            let files = opened(&archive(kind, &["a:1"]));
            assert_eq!(files.open("manifest.json").unwrap().is_some(), manifest, "{kind:?}");
            assert!(files.open("repositories").unwrap().is_none(), "no layers, no legacy id");
        }
    }

    #[test]
    fn a_blob_of_another_length_is_an_error_and_not_a_broken_tar() {
        let digest = Digest::of(b"x");
        let body = BlobBody::Produce(Box::new(|output| output.write_all(b"xy")));
        let blobs = BTreeMap::from([(digest, ArchiveBlob { size_bytes: 1, body })]);
        let error = write_archive(&mut Vec::new(), ArchiveKind::Oci, &[], &blobs).unwrap_err();
        assert!(matches!(error, ArchiveError::Size { expected: 1, actual: 2, .. }));
    }
}
