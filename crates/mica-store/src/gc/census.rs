//! Everything a collection decides on, read in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mica_oci::{Digest, ImageId};
use rusqlite::{Transaction, params};

use super::loose::Loose;
use crate::layer::parsed;
use crate::{LayerId, LeaseId};

/// Who holds what. Layers and blobs are named by their position.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) layers: Vec<Item<LayerId>>,
    pub(super) blobs: Vec<Item<Digest>>,
    pub(super) images: Vec<ImageRow>,
    pub(super) records: Vec<RecordRow>,
    /// Layers of containers.
    pub(super) container_layers: BTreeSet<usize>,
    /// Layers of living leases.
    pub(super) leased_layers: BTreeSet<usize>,
    /// Blobs of living leases.
    pub(super) leased_blobs: BTreeSet<usize>,
    /// What belongs to the build cache and is no layer; measured by whoever wants a plan for it.
    pub(super) loose: Vec<Loose>,
    /// What is free on the disk.
    pub(super) free_bytes: u64,
}

/// A layer or a blob.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) id: T,
    pub(super) bytes: u64,
    /// `false` for what a crash left unsynced: it goes, whoever names it.
    pub(super) is_usable: bool,
}

#[derive(Debug)]
pub(super) struct ImageRow {
    pub(super) target: Digest,
    pub(super) image_id: ImageId,
    pub(super) is_named: bool,
    pub(super) containers: u64,
    pub(super) layers: BTreeSet<usize>,
    pub(super) blobs: BTreeSet<usize>,
}

#[derive(Debug)]
pub(super) struct RecordRow {
    pub(super) record: i64,
    pub(super) last_used: i64,
    pub(super) layers: BTreeSet<usize>,
    /// The layer that the step itself made, if its result is not empty.
    pub(super) top: Option<usize>,
    pub(super) is_usable: bool,
}

impl Census {
    /// Layers of images and containers.
    pub(super) fn shared_layers(&self) -> BTreeSet<usize> {
        let images = self.images.iter().flat_map(|image| &image.layers);
        images.chain(&self.container_layers).copied().collect()
    }

    /// Records whose result is all here, least recently used first.
    pub(super) fn usable_records(&self) -> impl Iterator<Item = &RecordRow> {
        let is_here = |layer: &usize| self.layers[*layer].is_usable;
        self.records.iter().filter(move |record| record.is_usable && record.layers.iter().all(is_here))
    }

    /// Reads the census; leases in `dead` hold nothing.
    pub(super) fn read(
        sql: &Transaction<'_>,
        boot: &str,
        dead: &BTreeSet<LeaseId>,
    ) -> rusqlite::Result<Self> {
        let layers: Vec<Item<LayerId>> = sql
            .prepare_cached(
                "SELECT id, disk_bytes, unsynced IS NULL OR unsynced = ?1 FROM layers ORDER BY seq",
            )?
            .query_map([boot], |row| item(row, row.get(0)?))?
            .collect::<rusqlite::Result<_>>()?;
        let blobs: Vec<Item<Digest>> = sql
            .prepare_cached("SELECT digest, size, unsynced IS NULL OR unsynced = ?1 FROM blobs ORDER BY seq")?
            .query_map([boot], |row| item(row, parsed(row, 0)?))?
            .collect::<rusqlite::Result<_>>()?;
        let layer_at: HashMap<LayerId, usize> =
            layers.iter().enumerate().map(|(position, layer)| (layer.id, position)).collect();
        let blob_at: HashMap<String, usize> =
            blobs.iter().enumerate().map(|(position, blob)| (blob.id.to_string(), position)).collect();
        let images = read_images(sql, &layer_at, &blob_at)?;
        let records = read_records(sql, boot, &layer_at)?;
        let container_layers = layer_set(sql, "SELECT layer FROM container_layers", &layer_at)?;
        let mut census = Self { layers, blobs, images, records, container_layers, ..Self::default() };
        for lease in lease_ids(sql)?.into_iter().filter(|lease| !dead.contains(lease)) {
            let mut statement = sql.prepare_cached("SELECT layer FROM lease_layers WHERE lease = ?1")?;
            for layer in statement.query_map(params![lease], |row| row.get::<_, LayerId>(0))? {
                census.leased_layers.extend(layer_at.get(&layer?));
            }
            let mut statement = sql.prepare_cached("SELECT digest FROM lease_blobs WHERE lease = ?1")?;
            for digest in statement.query_map(params![lease], |row| row.get::<_, String>(0))? {
                census.leased_blobs.extend(blob_at.get(&digest?));
            }
        }
        Ok(census)
    }
}

impl RecordRow {
    /// Whether the whole result is in a set of layers: it belongs to an image, or a process uses it.
    pub(super) fn is_within(&self, held: &BTreeSet<usize>) -> bool {
        !self.layers.is_empty() && self.layers.is_subset(held)
    }
}

/// For each layer the record that it counts for: the one whose step made it. Of several, and of layers that no step
/// made because they came from elsewhere and have no image any more, the one with the fewest layers, then the oldest.
pub(super) fn makers(records: &[&RecordRow], shared: &BTreeSet<usize>, layers: usize) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|position| (records[*position].layers.len(), records[*position].record));
    let mut makers = vec![None; layers];
    for position in &order {
        if let Some(top) = records[*position].top {
            makers[top].get_or_insert(*position);
        }
    }
    for position in order {
        for layer in records[position].layers.difference(shared) {
            makers[*layer].get_or_insert(position);
        }
    }
    makers
}

/// The leases that have a row.
pub(super) fn lease_ids(sql: &Transaction<'_>) -> rusqlite::Result<Vec<LeaseId>> {
    sql.prepare_cached("SELECT id FROM leases")?.query_map([], |row| row.get(0))?.collect()
}

fn item<T>(row: &rusqlite::Row<'_>, id: T) -> rusqlite::Result<Item<T>> {
    Ok(Item { id, bytes: row.get::<_, i64>(1)?.cast_unsigned(), is_usable: row.get(2)? })
}

fn layer_set(
    sql: &Transaction<'_>,
    select: &str,
    layer_at: &HashMap<LayerId, usize>,
) -> rusqlite::Result<BTreeSet<usize>> {
    let mut set = BTreeSet::new();
    for layer in sql.prepare_cached(select)?.query_map([], |row| row.get::<_, LayerId>(0))? {
        set.extend(layer_at.get(&layer?));
    }
    Ok(set)
}

fn read_images(
    sql: &Transaction<'_>,
    layer_at: &HashMap<LayerId, usize>,
    blob_at: &HashMap<String, usize>,
) -> rusqlite::Result<Vec<ImageRow>> {
    let select = "SELECT digest, image_id,
        EXISTS (SELECT 1 FROM names WHERE names.image = images.digest),
        (SELECT count(*) FROM containers WHERE containers.image = images.digest)
        FROM images ORDER BY created DESC, digest";
    let mut images = sql
        .prepare_cached(select)?
        .query_map([], |row| {
            Ok(ImageRow {
                target: parsed(row, 0)?,
                image_id: parsed(row, 1)?,
                is_named: row.get(2)?,
                containers: row.get::<_, i64>(3)?.cast_unsigned(),
                layers: BTreeSet::new(),
                blobs: BTreeSet::new(),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let image_at: HashMap<String, usize> =
        images.iter().enumerate().map(|(position, image)| (image.target.to_string(), position)).collect();
    let mut statement = sql.prepare_cached("SELECT image, layer FROM image_layers")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(image) = image_at.get(&row.get::<_, String>(0)?) {
            images[*image].layers.extend(layer_at.get(&row.get::<_, LayerId>(1)?));
        }
    }
    let mut statement = sql.prepare_cached("SELECT image, digest FROM image_blobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(image) = image_at.get(&row.get::<_, String>(0)?) {
            images[*image].blobs.extend(blob_at.get(&row.get::<_, String>(1)?));
        }
    }
    Ok(images)
}

fn read_records(
    sql: &Transaction<'_>,
    boot: &str,
    layer_at: &HashMap<LayerId, usize>,
) -> rusqlite::Result<Vec<RecordRow>> {
    let select = "SELECT seq, last_used, unsynced IS NULL OR unsynced = ?1 FROM cache_records";
    let mut records: BTreeMap<i64, RecordRow> = sql
        .prepare_cached(select)?
        .query_map([boot], |row| {
            let record = row.get(0)?;
            let (last_used, is_usable) = (row.get(1)?, row.get(2)?);
            Ok((record, RecordRow { record, last_used, layers: BTreeSet::new(), top: None, is_usable }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut statement =
        sql.prepare_cached("SELECT record, layer FROM cache_layers ORDER BY record, position")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(record) = records.get_mut(&row.get(0)?) {
            record.top = layer_at.get(&row.get::<_, LayerId>(1)?).copied();
            record.layers.extend(record.top);
        }
    }
    let mut records: Vec<RecordRow> = records.into_values().collect();
    // Of records used at the same time, the one recorded last goes first: it builds on the others.
    records.sort_by_key(|record| (record.last_used, std::cmp::Reverse(record.record)));
    Ok(records)
}
