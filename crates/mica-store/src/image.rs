//! Images: names, and the manifests or indexes they point at.
//!
//! An image is kept with or without names: a name that moves leaves the old image dangling. Publishing is the one
//! operation that makes things durable (see module `durable`); publishing what is already there writes nothing.

use std::collections::BTreeSet;

use mica_oci::{Descriptor, Digest, ImageId, Reference};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::db::{Strength, Write};
use crate::error::StoreError;
use crate::layer::parsed;
use crate::{LayerId, Lease, Store, now};

/// One name, or one image without names.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// The name; `None` if the image has none, or was not looked up by name.
    pub name: Option<Reference>,
    /// The manifest or index: media type, digest and size.
    pub target: Descriptor,
    /// What docker prints as IMAGE ID: digest of the config, or of the index.
    pub image_id: ImageId,
    /// When it appeared in this store, nanoseconds since 1970.
    pub created_here: i64,
}

/// What an image needs from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageContents {
    /// What docker prints as IMAGE ID: digest of the config, or of the index.
    pub image_id: ImageId,
    /// Every blob to keep: index, manifests, configs, attestations, and compressed layers if they are kept.
    pub blobs: Vec<Digest>,
    /// The unpacked layers of each manifest.
    pub manifests: Vec<ManifestLayers>,
}

/// The unpacked layers of one manifest, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestLayers {
    /// The manifest.
    pub manifest: Digest,
    /// Its layers.
    pub layers: Vec<LayerId>,
}

/// What a publish changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Names that pointed at another image before, with that image.
    pub moved: Vec<(Reference, ImageId)>,
    /// Whether everything was there already; nothing was written then.
    pub unchanged: bool,
}

pub(crate) const SELECT_NAMED: &str = "SELECT names.name, images.digest, media_type, size, image_id, created
    FROM names JOIN images ON images.digest = names.image";
pub(crate) const SELECT_IMAGE: &str = "SELECT NULL, digest, media_type, size, image_id, created FROM images";

impl Store {
    /// Makes an image appear under `names`, or dangling if there are none. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::BlobGone`] or [`StoreError::LayerGone`] if something of `contents` is not here.
    pub fn publish(
        &self,
        names: &[Reference],
        target: &Descriptor,
        contents: &ImageContents,
        lease: &Lease,
    ) -> Result<Published, StoreError> {
        self.flush_touched();
        if self.is_published(names, target, contents)? {
            return Ok(Published { moved: Vec::new(), unchanged: true });
        }
        // Nothing the image needs may be collected between the sync and the transaction.
        let layers: Vec<LayerId> =
            contents.manifests.iter().flat_map(|manifest| manifest.layers.iter().copied()).collect();
        lease.protect_layers(&layers)?;
        lease.protect_blobs(&contents.blobs)?;
        let synced = self.sync()?;
        self.database().write(Strength::Full, |write| {
            self.clear_unsynced(write, synced)?;
            write_image(write, target, contents)?;
            let moved = point_names(write, names, &target.digest)?;
            drop_superseded(write, target, &contents.image_id)?;
            Ok(Published { moved, unchanged: false })
        })
    }

    /// Gives an image that is already here another name. Durable when it returns.
    pub fn tag(&self, target: &Digest, name: &Reference) -> Result<Published, StoreError> {
        let known = self.image_by_name(name)?;
        if known.is_some_and(|known| known.target.digest == *target) {
            return Ok(Published { moved: Vec::new(), unchanged: true });
        }
        self.database().write(Strength::Full, |write| {
            let exists = write.sql(|sql| {
                sql.prepare_cached("SELECT 1 FROM images WHERE digest = ?1")?.exists([target.to_string()])
            })?;
            if !exists {
                return Err(StoreError::BlobGone(target.clone()));
            }
            let moved = point_names(write, std::slice::from_ref(name), target)?;
            Ok(Published { moved, unchanged: false })
        })
    }

    /// Returns the image that a name points at.
    pub fn image_by_name(&self, name: &Reference) -> Result<Option<ImageRecord>, StoreError> {
        let text = name.to_string();
        self.database().read(|sql| {
            let select = format!("{SELECT_NAMED} WHERE names.name = ?1");
            sql.prepare_cached(&select)?.query_row([text], image_record).optional()
        })
    }

    /// Returns every name, and every image without one; newest first.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        self.database().read(all_images)
    }

    /// Returns the names of an image, sorted.
    pub fn image_names(&self, target: &Digest) -> Result<Vec<Reference>, StoreError> {
        self.database().read(|sql| names_of(sql, target))
    }

    /// Returns what an image needs; `None` if it is not here.
    pub fn image_contents(&self, target: &Digest) -> Result<Option<ImageContents>, StoreError> {
        self.database().read(|sql| read_contents(sql, target))
    }

    fn is_published(
        &self,
        names: &[Reference],
        target: &Descriptor,
        contents: &ImageContents,
    ) -> Result<bool, StoreError> {
        self.database().read(|sql| {
            let digest = target.digest.to_string();
            for name in names {
                let select = "SELECT 1 FROM names WHERE name = ?1 AND image = ?2";
                if !sql.prepare_cached(select)?.exists(params![name.to_string(), digest])? {
                    return Ok(false);
                }
            }
            Ok(read_contents(sql, &target.digest)?.is_some_and(|known| covers(&known, contents)))
        })
    }
}

/// Whether an image here has everything that `wanted` has.
fn covers(known: &ImageContents, wanted: &ImageContents) -> bool {
    let blobs: BTreeSet<&Digest> = known.blobs.iter().collect();
    known.image_id == wanted.image_id
        && wanted.blobs.iter().all(|blob| blobs.contains(blob))
        && wanted
            .manifests
            .iter()
            .all(|manifest| manifest.layers.is_empty() || known.manifests.contains(manifest))
}

fn write_image(write: &Write<'_>, target: &Descriptor, contents: &ImageContents) -> Result<(), StoreError> {
    let digest = target.digest.to_string();
    write.sql(|sql| {
        let insert =
            "INSERT INTO images(digest, media_type, size, image_id, created) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT(digest) DO UPDATE SET image_id = excluded.image_id";
        sql.prepare_cached(insert)?.execute(params![
            digest,
            target.media_type,
            target.size.cast_signed(),
            contents.image_id.to_string(),
            now()
        ])
    })?;
    for blob in &contents.blobs {
        let text = blob.to_string();
        let found = write.sql(|sql| {
            let select = "SELECT 1 FROM blobs WHERE digest = ?1 AND unsynced IS NULL";
            sql.prepare_cached(select)?.exists([&text])
        })?;
        if !found {
            return Err(StoreError::BlobGone(blob.clone()));
        }
        write.sql(|sql| {
            let insert = "INSERT OR IGNORE INTO image_blobs(image, digest) VALUES (?1, ?2)";
            sql.prepare_cached(insert)?.execute(params![digest, text])
        })?;
    }
    contents.manifests.iter().try_for_each(|manifest| write_layers(write, &digest, manifest))
}

fn write_layers(write: &Write<'_>, image: &str, manifest: &ManifestLayers) -> Result<(), StoreError> {
    let name = manifest.manifest.to_string();
    for (position, layer) in manifest.layers.iter().enumerate() {
        let found = write.sql(|sql| {
            sql.prepare_cached("SELECT 1 FROM layers WHERE id = ?1 AND unsynced IS NULL")?.exists([layer])
        })?;
        if !found {
            return Err(StoreError::LayerGone(*layer));
        }
        write.sql(|sql| {
            let insert = "INSERT OR REPLACE INTO image_layers(image, manifest, position, layer)
                VALUES (?1, ?2, ?3, ?4)";
            sql.prepare_cached(insert)?.execute(params![image, name, position as i64, layer])
        })?;
    }
    Ok(())
}

/// Points names at an image; returns those that pointed elsewhere.
fn point_names(
    write: &Write<'_>,
    names: &[Reference],
    target: &Digest,
) -> Result<Vec<(Reference, ImageId)>, StoreError> {
    let mut moved = Vec::new();
    for name in names {
        let text = name.to_string();
        let before = write.sql(|sql| {
            let select = format!("{SELECT_NAMED} WHERE names.name = ?1");
            sql.prepare_cached(&select)?.query_row([&text], image_record).optional()
        })?;
        if let Some(before) = before
            && before.target.digest != *target
        {
            moved.push((name.clone(), before.image_id));
        }
        write.sql(|sql| {
            let upsert = "INSERT INTO names(name, image) VALUES (?1, ?2)
                ON CONFLICT(name) DO UPDATE SET image = excluded.image";
            sql.prepare_cached(upsert)?.execute(params![text, target.to_string()])
        })?;
    }
    Ok(moved)
}

/// Deletes nameless images with the same image ID under another manifest: the same image in another wrapping would
/// only show as a second `<none>` with the same ID.
fn drop_superseded(write: &Write<'_>, target: &Descriptor, image_id: &ImageId) -> Result<(), StoreError> {
    write.sql(|sql| {
        let delete = "DELETE FROM images WHERE image_id = ?1 AND digest <> ?2
            AND NOT EXISTS (SELECT 1 FROM names WHERE names.image = images.digest)
            AND NOT EXISTS (SELECT 1 FROM containers WHERE containers.image = images.digest)";
        sql.prepare_cached(delete)?.execute(params![image_id.to_string(), target.digest.to_string()])
    })?;
    Ok(())
}

/// Every name, and every image without one; newest first, then by name.
pub(crate) fn all_images(sql: &Transaction<'_>) -> rusqlite::Result<Vec<ImageRecord>> {
    let select = format!(
        "{SELECT_NAMED} UNION ALL {SELECT_IMAGE}
         WHERE NOT EXISTS (SELECT 1 FROM names WHERE names.image = images.digest)
         ORDER BY 6 DESC, 1"
    );
    sql.prepare_cached(&select)?.query_map([], image_record)?.collect()
}

/// The names of an image, sorted.
pub(crate) fn names_of(sql: &Transaction<'_>, target: &Digest) -> rusqlite::Result<Vec<Reference>> {
    sql.prepare_cached("SELECT name FROM names WHERE image = ?1 ORDER BY name")?
        .query_map([target.to_string()], |row| parsed(row, 0))?
        .collect()
}

fn read_contents(sql: &Transaction<'_>, target: &Digest) -> rusqlite::Result<Option<ImageContents>> {
    let digest = target.to_string();
    let image_id: Option<ImageId> = sql
        .prepare_cached("SELECT image_id FROM images WHERE digest = ?1")?
        .query_row([&digest], |row| parsed(row, 0))
        .optional()?;
    let Some(image_id) = image_id else { return Ok(None) };
    let blobs = sql
        .prepare_cached("SELECT digest FROM image_blobs WHERE image = ?1 ORDER BY digest")?
        .query_map([&digest], |row| parsed(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut manifests: Vec<ManifestLayers> = Vec::new();
    let select = "SELECT manifest, layer FROM image_layers WHERE image = ?1 ORDER BY manifest, position";
    let mut statement = sql.prepare_cached(select)?;
    let mut rows = statement.query([&digest])?;
    while let Some(row) = rows.next()? {
        let (manifest, layer): (Digest, LayerId) = (parsed(row, 0)?, row.get(1)?);
        match manifests.last_mut() {
            Some(last) if last.manifest == manifest => last.layers.push(layer),
            _ => manifests.push(ManifestLayers { manifest, layers: vec![layer] }),
        }
    }
    Ok(Some(ImageContents { image_id, blobs, manifests }))
}

/// A row of [`SELECT_NAMED`] or [`SELECT_IMAGE`].
pub(crate) fn image_record(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    let name = match row.get_ref(0)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(parsed(row, 0)?),
    };
    let media_type: String = row.get(2)?;
    Ok(ImageRecord {
        name,
        target: Descriptor::new(media_type, parsed(row, 1)?, row.get::<_, i64>(3)?.cast_unsigned()),
        image_id: parsed(row, 4)?,
        created_here: row.get(5)?,
    })
}
