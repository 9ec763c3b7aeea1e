//! distribution's layout: `repositories/<name>/{_layers,_manifests}` with links into `blobs/<algorithm>/<2>/<hex>/data`.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use mica_oci::{Digest, Hasher, Repository, Tag};

use super::{Check, ImportError};
use crate::manifest::{self, Checked};
use crate::route::UploadId;
use crate::storage::Storage;
use crate::storage::changes::{self, Lack, NewBlob, NewManifest, Parts};
use crate::storage::upload::UploadKey;

/// Changes that share a commit.
const TOGETHER: usize = 256;
/// More than any registry takes.
const MANIFEST_MAX: u64 = 16 << 20;

/// What was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Repositories with anything in them.
    pub repositories: usize,
    /// Tags.
    pub tags: usize,
    /// Manifests, tagged or not.
    pub manifests: usize,
    /// Blobs, each once.
    pub blobs: usize,
    /// What was left behind.
    pub skipped: usize,
}

pub(super) struct Importer<'a> {
    pub(super) root: PathBuf,
    pub(super) storage: &'a Storage,
    pub(super) check: Check,
    pub(super) skipped: &'a dyn Fn(&str),
}

/// A manifest on its way.
struct Found {
    digest: Digest,
    bytes: Vec<u8>,
    checked: Checked,
    tags: Vec<Tag>,
}

impl Importer<'_> {
    pub(super) fn run(&self) -> Result<Imported, ImportError> {
        let mut names = Vec::new();
        find_repositories(&self.root.join("repositories"), "", &mut names)?;
        names.sort();
        let mut imported = Imported::default();
        let mut known = HashSet::new();
        for name in names {
            match name.parse::<Repository>() {
                Ok(repository) => self.repository(&repository, &mut known, &mut imported)?,
                Err(error) => self.skip(&mut imported, &format!("{name}: {error}")),
            }
        }
        imported.blobs = known.len();
        Ok(imported)
    }

    fn skip(&self, imported: &mut Imported, what: &str) {
        imported.skipped += 1;
        (self.skipped)(what);
    }

    fn repository(
        &self,
        repository: &Repository,
        known: &mut HashSet<Digest>,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        let folder = self.root.join("repositories").join(repository.as_str());
        self.layers(repository, &folder, known, imported)?;
        let found = self.manifests(repository, &folder, imported)?;
        imported.repositories += usize::from(!found.is_empty());
        self.store(repository, found, imported)
    }

    fn layers(
        &self,
        repository: &Repository,
        folder: &Path,
        known: &mut HashSet<Digest>,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        let digests = linked(&folder.join("_layers"))?;
        for some in digests.chunks(TOGETHER) {
            let mut waiting = Vec::new();
            for digest in some {
                let (name, grace) = (repository.clone(), self.storage.grace);
                if known.contains(digest) {
                    let digest = digest.clone();
                    let mount = self
                        .storage
                        .writer
                        .submit(move |batch| changes::mount(batch, &name, &digest, grace).map(drop));
                    waiting.push(mount);
                    continue;
                }
                match self.bring(repository, digest) {
                    Ok(blob) => {
                        known.insert(digest.clone());
                        let writer = &self.storage.writer;
                        waiting.push(writer.submit(move |batch| changes::add_blob(batch, blob, grace)));
                    }
                    Err(error) => self.skip(imported, &format!("{repository}: blob {digest}: {error}")),
                }
            }
            for change in waiting {
                change
                    .blocking_recv()
                    .map_err(|_| ImportError::Store("the writer has ended".to_owned()))??;
            }
        }
        Ok(())
    }

    fn data(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex).join("data")
    }

    /// Brings a blob's bytes to the folder of uploads, durable, under a name of its own.
    fn bring(&self, repository: &Repository, digest: &Digest) -> io::Result<NewBlob> {
        let source = self.data(digest);
        if self.check == Check::Read {
            let mut hasher = Hasher::new(digest.algorithm());
            io::copy(&mut File::open(&source)?, &mut hasher)?;
            if hasher.finish() != *digest {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its bytes have another digest"));
            }
        }
        let key = UploadKey::new(&UploadId::random()?, repository, "import");
        let file = self.storage.layout.upload(&key);
        if std::fs::hard_link(&source, &file).is_err() {
            std::fs::copy(&source, &file)?;
        }
        let data = File::open(&file)?;
        data.sync_data()?;
        let size = data.metadata()?.len();
        Ok(NewBlob { repository: repository.clone(), digest: digest.clone(), size, file })
    }

    fn manifests(
        &self,
        repository: &Repository,
        folder: &Path,
        imported: &mut Imported,
    ) -> Result<Vec<Found>, ImportError> {
        let mut tags: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
        for name in entries(&folder.join("_manifests/tags"))? {
            let link = folder.join("_manifests/tags").join(&name).join("current/link");
            let digest =
                std::fs::read_to_string(&link).ok().and_then(|text| text.trim().parse::<Digest>().ok());
            match (name.parse::<Tag>(), digest) {
                (Ok(tag), Some(digest)) => tags.entry(digest).or_default().push(tag),
                _ => self.skip(imported, &format!("{repository}: tag {name}: it points nowhere")),
            }
        }
        let mut found = Vec::new();
        for digest in linked(&folder.join("_manifests/revisions"))? {
            match self.manifest(&digest) {
                Ok((bytes, checked)) => {
                    let tags = tags.remove(&digest).unwrap_or_default();
                    found.push(Found { digest, bytes, checked, tags });
                }
                Err(why) => self.skip(imported, &format!("{repository}: manifest {digest}: {why}")),
            }
        }
        for (digest, tags) in tags {
            let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            self.skip(imported, &format!("{repository}: {}: {digest} is missing", names.join(", ")));
        }
        Ok(found)
    }

    fn manifest(&self, digest: &Digest) -> Result<(Vec<u8>, Checked), String> {
        let path = self.data(digest);
        let size = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if size > MANIFEST_MAX {
            return Err(format!("it has {size} bytes"));
        }
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            return Err("its bytes have another digest".to_owned());
        }
        // distribution keeps no type beside the document; what it does not say, its form does.
        let checked = manifest::check(&bytes, "").map_err(|refusal| refusal.message)?;
        Ok((bytes, checked))
    }

    /// Stores manifests, those first that others name.
    fn store(
        &self,
        repository: &Repository,
        mut found: Vec<Found>,
        imported: &mut Imported,
    ) -> Result<(), ImportError> {
        loop {
            let before = found.len();
            let mut left = Vec::new();
            for some in chunks(found) {
                left.extend(self.store_some(repository, some, imported)?);
            }
            if left.is_empty() {
                return Ok(());
            }
            if left.len() == before {
                for (manifest, lack) in left {
                    self.skip(
                        imported,
                        &format!("{repository}: manifest {}: {}", manifest.digest, described(&lack)),
                    );
                }
                return Ok(());
            }
            found = left.into_iter().map(|(manifest, _)| manifest).collect();
        }
    }

    fn store_some(
        &self,
        repository: &Repository,
        found: Vec<Found>,
        imported: &mut Imported,
    ) -> Result<Vec<(Found, Lack)>, ImportError> {
        let mut waiting = Vec::new();
        for manifest in found {
            let new = NewManifest {
                repository: repository.clone(),
                digest: manifest.digest.clone(),
                bytes: manifest.bytes.clone(),
                checked: manifest.checked.clone(),
                tags: manifest.tags.clone(),
                parts: Parts::Present,
            };
            let stored = self.storage.writer.submit(move |batch| changes::put_manifest(batch, &new));
            waiting.push((manifest, stored));
        }
        let mut left = Vec::new();
        for (manifest, stored) in waiting {
            let stored = stored.blocking_recv();
            match stored.map_err(|_| ImportError::Store("the writer has ended".to_owned()))?? {
                Ok(()) => {
                    imported.manifests += 1;
                    imported.tags += manifest.tags.len();
                }
                Err(lack) => left.push((manifest, lack)),
            }
        }
        Ok(left)
    }
}

/// Parts that are stored together.
fn chunks(found: Vec<Found>) -> Vec<Vec<Found>> {
    let mut parts: Vec<Vec<Found>> = Vec::new();
    for manifest in found {
        match parts.last_mut() {
            Some(part) if part.len() < TOGETHER => part.push(manifest),
            _ => parts.push(vec![manifest]),
        }
    }
    parts
}

fn described(lack: &Lack) -> String {
    match lack {
        Lack::Missing(digests) => {
            let names: Vec<String> = digests.iter().map(ToString::to_string).collect();
            format!("{} is missing", names.join(", "))
        }
        Lack::Size { digest, says, has } => {
            format!("it says that {digest} has {says} bytes, but it has {has}")
        }
    }
}

/// Names in a folder; none if it is not there.
fn entries(folder: &Path) -> Result<Vec<String>, ImportError> {
    let failed = |source| ImportError::Io { action: "read", path: folder.to_owned(), source };
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        // Names that are no text are no names of anything here.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The digests below `<folder>/<algorithm>/<hex>/link`.
fn linked(folder: &Path) -> Result<Vec<Digest>, ImportError> {
    let mut digests = Vec::new();
    for algorithm in entries(folder)? {
        for hex in entries(&folder.join(&algorithm))? {
            // A folder without a link is one that was deleted.
            if folder.join(&algorithm).join(&hex).join("link").is_file() {
                digests.extend(format!("{algorithm}:{hex}").parse::<Digest>());
            }
        }
    }
    Ok(digests)
}

/// Repositories are the folders that have `_manifests`, at any depth.
fn find_repositories(folder: &Path, name: &str, names: &mut Vec<String>) -> Result<(), ImportError> {
    // Deeper than any name can be: somebody's loop of links.
    if name.len() > 255 {
        return Ok(());
    }
    for entry in entries(folder)? {
        if entry == "_manifests" {
            names.push(name.to_owned());
        } else if !entry.starts_with('_') && folder.join(&entry).is_dir() {
            let below = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
            find_repositories(&folder.join(&entry), &below, names)?;
        }
    }
    Ok(())
}
