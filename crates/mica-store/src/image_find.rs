//! Finding and removing images the way users name them.
//!
//! Users remove names; what only they kept alive stays until it is collected.

use mica_oci::{Algorithm, DiffId, Digest, ImageId, Reference};
use rusqlite::{OptionalExtension as _, Transaction};

use crate::db::{Strength, Write};
use crate::error::{ImageError, StoreError};
use crate::image::{ImageRecord, SELECT_IMAGE, SELECT_NAMED, image_record, names_of};
use crate::layer::parsed;
use crate::{ContainerId, Store};

/// Whether removal overrides what speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Refuse if the image has several names or a container.
    Careful,
    /// `--force`: the names go; an image with containers stays without a name.
    Forced,
}

/// What a removal did, in docker's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// `Untagged:` lines.
    pub untagged: Vec<Reference>,
    /// `Deleted:` lines; `None` if the image stays, under other names or for a container.
    pub deleted: Option<Deleted>,
}

/// An image that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Its ID.
    pub image_id: ImageId,
    /// Its manifest or index.
    pub target: Digest,
    /// Its layers that nothing else needs, not even the build cache; topmost first, as docker prints them.
    pub layers: Vec<DiffId>,
}

impl Store {
    /// Finds an image by name, by ID or its prefix, or by digest.
    ///
    /// The name is looked at first: an image called `cafe` is found although an ID may start with it.
    pub fn find_image(&self, query: &str) -> Result<ImageRecord, ImageError> {
        let mut candidates = self.database().read(|sql| {
            let by_name = find_by_name(sql, query)?;
            if by_name.is_empty() { find_by_prefix(sql, query) } else { Ok(by_name) }
        })?;
        // One image in two wrappings has one ID: take the newest.
        candidates.dedup_by(|later, first| later.image_id == first.image_id);
        if candidates.len() > 1 {
            let candidates = candidates.iter().map(|image| image.image_id.to_string()).collect();
            return Err(ImageError::Ambiguous { query: query.into(), candidates });
        }
        candidates.pop().ok_or_else(|| ImageError::NotFound { query: query.into() })
    }

    /// Removes a name, and the image if it was its last one.
    pub fn untag(&self, name: &Reference, removal: Removal) -> Result<Removed, ImageError> {
        let query = name.familiar();
        self.give_up_reserve();
        self.database().write(Strength::Full, |write| {
            let select = format!("{SELECT_NAMED} WHERE names.name = ?1");
            let image = write
                .sql(|sql| {
                    sql.prepare_cached(&select)?.query_row([name.to_string()], image_record).optional()
                })?
                .ok_or_else(|| ImageError::NotFound { query: query.clone() })?;
            let target = image.target.digest.clone();
            let is_last = write.sql(|sql| names_of(sql, &target))?.len() == 1;
            let container = write.sql(|sql| container_using(sql, &target))?;
            if let (true, Removal::Careful, Some(container)) = (is_last, removal, &container) {
                return Err(in_use(&query, container, &image));
            }
            write.sql(|sql| {
                sql.prepare_cached("DELETE FROM names WHERE name = ?1")?.execute([name.to_string()])
            })?;
            let deleted = match is_last && container.is_none() {
                true => Some(delete_image(write, image)?),
                false => None,
            };
            Ok(Removed { untagged: vec![name.clone()], deleted })
        })
    }

    /// Removes an image with all its names.
    pub fn remove_image(&self, target: &Digest, removal: Removal) -> Result<Removed, ImageError> {
        self.give_up_reserve();
        self.database().write(Strength::Full, |write| {
            let query = target.to_string();
            let select = format!("{SELECT_IMAGE} WHERE digest = ?1");
            let image = write
                .sql(|sql| sql.prepare_cached(&select)?.query_row([&query], image_record).optional())?
                .ok_or_else(|| ImageError::NotFound { query: query.clone() })?;
            let names = write.sql(|sql| names_of(sql, target))?;
            if removal == Removal::Careful && names.len() > 1 {
                return Err(ImageError::ManyNames { id: image.image_id.0.short().into(), names });
            }
            let container = write.sql(|sql| container_using(sql, target))?;
            if let (Removal::Careful, Some(container)) = (removal, &container) {
                let shown = names.first().map_or(query, Reference::familiar);
                return Err(in_use(&shown, container, &image));
            }
            write.sql(|sql| sql.prepare_cached("DELETE FROM names WHERE image = ?1")?.execute([&query]))?;
            let deleted = match container {
                None => Some(delete_image(write, image)?),
                Some(_) => None,
            };
            Ok(Removed { untagged: names, deleted })
        })
    }

    /// Returns the containers made from an image.
    pub fn containers_of(&self, target: &Digest) -> Result<Vec<ContainerId>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached("SELECT id FROM containers WHERE image = ?1 ORDER BY created")?
                .query_map([target.to_string()], |row| row.get(0))?
                .collect()
        })
    }
}

fn in_use(query: &str, container: &ContainerId, image: &ImageRecord) -> ImageError {
    let id = image.image_id.0.short().to_owned();
    ImageError::InUse { query: query.into(), container: container.clone(), id }
}

fn container_using(sql: &Transaction<'_>, target: &Digest) -> rusqlite::Result<Option<ContainerId>> {
    sql.prepare_cached("SELECT id FROM containers WHERE image = ?1 ORDER BY created LIMIT 1")?
        .query_row([target.to_string()], |row| row.get(0))
        .optional()
}

/// Deletes an image that has no names any more.
pub(crate) fn delete_image(write: &Write<'_>, image: ImageRecord) -> Result<Deleted, StoreError> {
    let target = image.target.digest;
    let digest = target.to_string();
    let layers = write.sql(|sql| {
        let select = "SELECT DISTINCT layers.diff_id, max(image_layers.position)
            FROM image_layers JOIN layers ON layers.id = image_layers.layer
            WHERE image_layers.image = ?1
            AND NOT EXISTS (SELECT 1 FROM image_layers AS other
                WHERE other.layer = layers.id AND other.image <> ?1)
            AND NOT EXISTS (SELECT 1 FROM container_layers WHERE container_layers.layer = layers.id)
            AND NOT EXISTS (SELECT 1 FROM cache_layers WHERE cache_layers.layer = layers.id)
            AND NOT EXISTS (SELECT 1 FROM lease_layers WHERE lease_layers.layer = layers.id)
            GROUP BY layers.diff_id ORDER BY 2 DESC";
        sql.prepare_cached(select)?.query_map([&digest], |row| parsed(row, 0))?.collect()
    })?;
    write.sql(|sql| {
        sql.prepare_cached("DELETE FROM forms WHERE manifest = ?1")?.execute([&digest])?;
        sql.prepare_cached("DELETE FROM images WHERE digest = ?1")?.execute([&digest])
    })?;
    Ok(Deleted { image_id: image.image_id, target, layers })
}

/// By name; a reference with a digest must name the image and fit it.
fn find_by_name(sql: &Transaction<'_>, query: &str) -> rusqlite::Result<Vec<ImageRecord>> {
    let Ok(reference) = query.parse::<Reference>() else { return Ok(Vec::new()) };
    let select = format!("{SELECT_NAMED} WHERE names.name = ?1");
    let named = |name: String| sql.prepare_cached(&select)?.query_row([name], image_record).optional();
    let Some(digest) = reference.digest() else {
        return Ok(named(reference.or_latest().to_string())?.into_iter().collect());
    };
    if let Some(found) = named(reference.to_string())? {
        return Ok(vec![found]);
    }
    let select = format!("{SELECT_IMAGE} WHERE digest = ?1");
    let found = sql.prepare_cached(&select)?.query_row([digest.to_string()], image_record).optional()?;
    let Some(found) = found else { return Ok(Vec::new()) };
    let same_repository = |name: &Reference| name.name() == reference.name();
    let fits = names_of(sql, digest)?.iter().any(same_repository);
    Ok(if fits { vec![found] } else { Vec::new() })
}

/// By image ID, manifest digest, or a prefix of either, newest first.
fn find_by_prefix(sql: &Transaction<'_>, query: &str) -> rusqlite::Result<Vec<ImageRecord>> {
    let (algorithm, hex) = query.split_once(':').unwrap_or((Algorithm::Sha256.name(), query));
    let is_hex = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hex || (algorithm != Algorithm::Sha256.name() && algorithm != Algorithm::Sha512.name()) {
        return Ok(Vec::new());
    }
    let pattern = format!("{algorithm}:{hex}*");
    let select =
        format!("{SELECT_IMAGE} WHERE image_id GLOB ?1 OR digest GLOB ?1 ORDER BY image_id, created DESC");
    sql.prepare_cached(&select)?.query_map([pattern], image_record)?.collect()
}
