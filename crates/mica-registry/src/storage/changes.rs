//! Everything that changes the metadata, as functions that run in the writer's transaction.
//!
//! A link whose `expires` is NULL is needed by a manifest of its repository; each function here keeps that so.

use std::path::PathBuf;

use mica_oci::{Digest, Repository, Tag};
use rusqlite::OptionalExtension;

use super::cache::ManifestCache;
use super::writer::{Batch, ChangeError};
use super::{events, quota};
use crate::manifest::{Checked, Need, NeedKind};
use crate::route::ManifestName;

type Result<T> = std::result::Result<T, ChangeError>;

/// How long the collector leaves things alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grace {
    /// After the last reference has gone, or an upload that nothing refers to yet, in seconds.
    pub(crate) unreferenced: i64,
    /// After somebody was told that a blob is here, in seconds.
    pub(crate) lease: i64,
}

impl Grace {
    fn of_upload(self) -> i64 {
        self.unreferenced.max(self.lease)
    }
}

/// A blob whose bytes are durable under another name.
#[derive(Debug)]
pub(crate) struct NewBlob {
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) file: PathBuf,
}

/// A manifest to be stored.
#[derive(Debug)]
pub(crate) struct NewManifest {
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) checked: Checked,
    pub(crate) tags: Vec<Tag>,
    pub(crate) parts: Parts,
}

/// Where the blobs of a manifest are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// In its repository, or it is refused.
    Present,
    /// Fetched when they are asked for.
    Later,
}

/// What keeps a manifest from being stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Not in this repository.
    Missing(Vec<Digest>),
    /// There, but of another size than the manifest says.
    Size { digest: Digest, says: u64, has: u64 },
}

/// Whether something was there to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Done,
    Absent,
}

/// Gives a new blob its name and links it.
pub(crate) fn add_blob(batch: &mut Batch<'_>, blob: NewBlob, grace: Grace) -> Result<()> {
    let digest = blob.digest.to_string();
    let known = batch.sql.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([&digest])?;
    quota::check(batch, &blob.repository, &digest, if known { 0 } else { blob.size })?;
    let place = batch.layout.blob(&blob.digest);
    if known && place.exists() {
        std::fs::remove_file(&blob.file)?;
    } else {
        shelve(batch, &blob)?;
        // A removal that has not been carried out must not take the new file.
        batch.removals.retain(|removed| *removed != blob.digest);
        batch.sql.prepare_cached("DELETE FROM removals WHERE digest = ?1")?.execute([&digest])?;
        batch
            .sql
            .prepare_cached("INSERT INTO blobs (digest, size) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute((&digest, blob.size))?;
    }
    let repository = ensure_repository(batch, &blob.repository)?;
    link(batch, repository, &digest, batch.now + grace.of_upload())
}

fn shelve(batch: &mut Batch<'_>, blob: &NewBlob) -> Result<()> {
    let (shelf, place) = (batch.layout.shelf(&blob.digest), batch.layout.blob(&blob.digest));
    if let Err(error) = std::fs::rename(&blob.file, &place) {
        if error.kind() != std::io::ErrorKind::NotFound || !blob.file.exists() {
            return Err(error.into());
        }
        std::fs::create_dir_all(&shelf)?;
        for folder in shelf.ancestors().skip(1).take(2) {
            batch.shelves.insert(folder.to_owned());
        }
        std::fs::rename(&blob.file, &place)?;
    }
    batch.shelves.insert(shelf);
    batch.placed.push(place);
    Ok(())
}

/// Links a blob that another repository has; `false` if it is gone.
pub(crate) fn mount(
    batch: &mut Batch<'_>,
    repository: &Repository,
    digest: &Digest,
    grace: Grace,
) -> Result<bool> {
    let digest = digest.to_string();
    if !batch.sql.prepare_cached("SELECT 1 FROM links WHERE digest = ?1")?.exists([&digest])? {
        return Ok(false);
    }
    quota::check(batch, repository, &digest, 0)?;
    let repository = ensure_repository(batch, repository)?;
    link(batch, repository, &digest, batch.now + grace.of_upload())?;
    Ok(true)
}

/// Promises that a blob stays for a while; `false` if it is gone.
pub(crate) fn lease(
    batch: &mut Batch<'_>,
    repository: &Repository,
    digest: &Digest,
    grace: Grace,
) -> Result<bool> {
    const SQL: &str = "UPDATE links SET expires = CASE WHEN expires IS NULL THEN NULL \
         ELSE max(expires, ?3) END WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND digest = ?2";
    let until = batch.now + grace.lease;
    let changed = batch.sql.prepare_cached(SQL)?.execute((repository.as_str(), digest.to_string(), until))?;
    Ok(changed > 0)
}

/// Stores a manifest with its tags, unless something it needs is not there.
pub(crate) fn put_manifest(
    batch: &mut Batch<'_>,
    manifest: &NewManifest,
) -> Result<std::result::Result<(), Lack>> {
    let repository = ensure_repository(batch, &manifest.repository)?;
    if manifest.parts == Parts::Present
        && let Some(lack) = lack(batch, repository, &manifest.checked.needs)?
    {
        return Ok(Err(lack));
    }
    let digest = manifest.digest.to_string();
    insert_manifest(batch, repository, &digest, manifest)?;
    for need in &manifest.checked.needs {
        let need = need.digest.to_string();
        batch
            .sql
            .prepare_cached(
                "INSERT INTO needs (repository, manifest, digest) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute((repository, &digest, &need))?;
        batch
            .sql
            .prepare_cached("UPDATE links SET expires = NULL WHERE repository = ?1 AND digest = ?2 AND expires IS NOT NULL")?
            .execute((repository, &need))?;
    }
    for tag in &manifest.tags {
        move_tag(batch, &manifest.repository, repository, tag, &digest)?;
    }
    let name = ManifestName::Digest(manifest.digest.clone());
    batch.stale.push(ManifestCache::key(&manifest.repository, &name));
    if manifest.parts == Parts::Present {
        events::pushed(batch, manifest)?;
    }
    Ok(Ok(()))
}

fn insert_manifest(batch: &Batch<'_>, repository: i64, digest: &str, manifest: &NewManifest) -> Result<()> {
    batch
        .sql
        .prepare_cached("INSERT INTO documents (digest, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute((digest, &manifest.bytes))?;
    let checked = &manifest.checked;
    let annotations = (!checked.annotations.is_empty())
        .then(|| serde_json::to_string(&checked.annotations).expect("a map of texts is JSON"));
    let subject = checked.subject.as_ref().map(ToString::to_string);
    batch
        .sql
        .prepare_cached(
            "INSERT INTO manifests (repository, digest, media_type, size, artifact_type, subject, annotations, touched) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
             ON CONFLICT DO UPDATE SET media_type = excluded.media_type, touched = excluded.touched",
        )?
        .execute((
            repository,
            digest,
            &checked.media_type,
            manifest.bytes.len(),
            &checked.artifact_type,
            subject,
            annotations,
            batch.now,
        ))?;
    Ok(())
}

fn lack(batch: &Batch<'_>, repository: i64, needs: &[Need]) -> Result<Option<Lack>> {
    const BLOB: &str = "SELECT blobs.size FROM links JOIN blobs USING (digest) \
         WHERE links.repository = ?1 AND links.digest = ?2";
    const MANIFEST: &str = "SELECT size FROM manifests WHERE repository = ?1 AND digest = ?2";
    let mut missing = Vec::new();
    for need in needs {
        let question = if need.kind == NeedKind::Manifest { MANIFEST } else { BLOB };
        let size: Option<u64> = batch
            .sql
            .prepare_cached(question)?
            .query_row((repository, need.digest.to_string()), |row| row.get(0))
            .optional()?;
        match size {
            None if need.kind == NeedKind::ForeignBlob => {}
            None => missing.push(need.digest.clone()),
            Some(has) if has != need.size => {
                return Ok(Some(Lack::Size { digest: need.digest.clone(), says: need.size, has }));
            }
            Some(_) => {}
        }
    }
    Ok((!missing.is_empty()).then_some(Lack::Missing(missing)))
}

fn move_tag(
    batch: &mut Batch<'_>,
    name: &Repository,
    repository: i64,
    tag: &Tag,
    digest: &str,
) -> Result<()> {
    touch(batch, repository, tag)?;
    batch
        .sql
        .prepare_cached(
            "INSERT INTO tags (repository, name, digest, moved) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET digest = excluded.digest, moved = excluded.moved",
        )?
        .execute((repository, tag.as_str(), digest, batch.now))?;
    batch.stale.push(ManifestCache::key(name, &ManifestName::Tag(tag.clone())));
    Ok(())
}

/// The manifest that a tag is about to leave counts as used until now.
fn touch(batch: &Batch<'_>, repository: i64, tag: &Tag) -> Result<()> {
    const SQL: &str = "UPDATE manifests SET touched = ?3 WHERE repository = ?1 \
         AND digest = (SELECT digest FROM tags WHERE repository = ?1 AND name = ?2)";
    batch.sql.prepare_cached(SQL)?.execute((repository, tag.as_str(), batch.now))?;
    Ok(())
}

/// Removes a tag; the manifest stays.
pub(crate) fn delete_tag(batch: &mut Batch<'_>, name: &Repository, tag: &Tag) -> Result<Removal> {
    let Some(repository) = find_repository(batch, name)? else { return Ok(Removal::Absent) };
    touch(batch, repository, tag)?;
    let removed = batch
        .sql
        .prepare_cached("DELETE FROM tags WHERE repository = ?1 AND name = ?2")?
        .execute((repository, tag.as_str()))?;
    batch.stale.push(ManifestCache::key(name, &ManifestName::Tag(tag.clone())));
    if removed == 0 {
        return Ok(Removal::Absent);
    }
    events::deleted(batch, name, &ManifestName::Tag(tag.clone()))?;
    Ok(Removal::Done)
}

/// Removes a manifest and its tags; what only it needed expires after the grace.
pub(crate) fn delete_manifest(
    batch: &mut Batch<'_>,
    name: &Repository,
    digest: &Digest,
    grace: Grace,
) -> Result<Removal> {
    const EXPIRE: &str = "UPDATE links SET expires = ?3 WHERE repository = ?1 AND expires IS NULL \
         AND digest IN (SELECT digest FROM needs WHERE repository = ?1 AND manifest = ?2) \
         AND NOT EXISTS (SELECT 1 FROM needs WHERE needs.repository = ?1 \
             AND needs.digest = links.digest AND needs.manifest != ?2)";
    let Some(repository) = find_repository(batch, name)? else { return Ok(Removal::Absent) };
    let text = digest.to_string();
    let key = (repository, &text);
    let removed = batch
        .sql
        .prepare_cached("DELETE FROM manifests WHERE repository = ?1 AND digest = ?2")?
        .execute(key)?;
    if removed == 0 {
        return Ok(Removal::Absent);
    }
    let tags: Vec<String> = batch
        .sql
        .prepare_cached("DELETE FROM tags WHERE repository = ?1 AND digest = ?2 RETURNING name")?
        .query_map(key, |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    batch.sql.prepare_cached(EXPIRE)?.execute((repository, &text, batch.now + grace.unreferenced))?;
    batch.sql.prepare_cached("DELETE FROM needs WHERE repository = ?1 AND manifest = ?2")?.execute(key)?;
    batch
        .sql
        .prepare_cached(
            "DELETE FROM documents WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM manifests WHERE digest = ?1)",
        )?
        .execute([&text])?;
    batch.stale.push(ManifestCache::key(name, &ManifestName::Digest(digest.clone())));
    batch.stale.extend(tags.iter().map(|tag| format!("{name} {tag}")));
    events::deleted(batch, name, &ManifestName::Digest(digest.clone()))?;
    Ok(Removal::Done)
}

/// Removes a blob from a repository; the bytes go when no other repository has it.
pub(crate) fn delete_blob(batch: &mut Batch<'_>, name: &Repository, digest: &Digest) -> Result<Removal> {
    let Some(repository) = find_repository(batch, name)? else { return Ok(Removal::Absent) };
    let text = digest.to_string();
    let removed = batch
        .sql
        .prepare_cached("DELETE FROM links WHERE repository = ?1 AND digest = ?2")?
        .execute((repository, &text))?;
    if removed == 0 {
        return Ok(Removal::Absent);
    }
    forget_blob_without_links(batch, digest)?;
    Ok(Removal::Done)
}

/// Returns the bytes that are freed, if the blob was not linked any more.
pub(super) fn forget_blob_without_links(batch: &mut Batch<'_>, digest: &Digest) -> Result<Option<u64>> {
    let text = digest.to_string();
    let size: Option<u64> = batch
        .sql
        .prepare_cached(
            "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM links WHERE digest = ?1) RETURNING size",
        )?
        .query_row([&text], |row| row.get(0))
        .optional()?;
    let Some(size) = size else { return Ok(None) };
    batch
        .sql
        .prepare_cached("INSERT INTO removals (digest) VALUES (?1) ON CONFLICT DO NOTHING")?
        .execute([&text])?;
    batch.removals.push(digest.clone());
    Ok(Some(size))
}

pub(super) fn find_repository(batch: &Batch<'_>, name: &Repository) -> Result<Option<i64>> {
    let mut statement = batch.sql.prepare_cached("SELECT id FROM repositories WHERE name = ?1")?;
    Ok(statement.query_row([name.as_str()], |row| row.get(0)).optional()?)
}

pub(super) fn ensure_repository(batch: &Batch<'_>, name: &Repository) -> Result<i64> {
    if let Some(id) = find_repository(batch, name)? {
        return Ok(id);
    }
    let mut statement =
        batch.sql.prepare_cached("INSERT INTO repositories (name) VALUES (?1) RETURNING id")?;
    Ok(statement.query_row([name.as_str()], |row| row.get(0))?)
}

/// Makes a blob pullable from a repository; a link that is needed stays without an end.
pub(super) fn link(batch: &Batch<'_>, repository: i64, digest: &str, expires: i64) -> Result<()> {
    const SQL: &str = "INSERT INTO links (repository, digest, expires) \
         SELECT ?1, ?2, CASE WHEN EXISTS (SELECT 1 FROM needs WHERE repository = ?1 AND digest = ?2) \
         THEN NULL ELSE ?3 END WHERE true \
         ON CONFLICT DO UPDATE SET expires = CASE WHEN links.expires IS NULL THEN NULL \
         ELSE max(links.expires, excluded.expires) END";
    batch.sql.prepare_cached(SQL)?.execute((repository, digest, expires))?;
    Ok(())
}
