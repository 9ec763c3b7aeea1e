//! Which images have a layer, and under which names: what a registry may have of it already.

use mica_oci::{Digest, Reference};

use crate::error::StoreError;
use crate::layer::parsed;
use crate::{LayerId, Store};

/// One manifest that has a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUse {
    /// The manifest.
    pub manifest: Digest,
    /// Which of its layers it is; the lowest is 0.
    pub position: usize,
    /// The names of the images that have the manifest.
    pub names: Vec<Reference>,
}

impl Store {
    /// Returns every manifest here that has a layer.
    pub fn layer_uses(&self, layer: LayerId) -> Result<Vec<LayerUse>, StoreError> {
        self.database().read(|sql| {
            let select = "SELECT image_layers.manifest, position, names.name FROM image_layers
                LEFT JOIN names ON names.image = image_layers.image
                WHERE layer = ?1 ORDER BY image_layers.manifest, position, names.name";
            let mut statement = sql.prepare_cached(select)?;
            let mut rows = statement.query([layer])?;
            let mut uses: Vec<LayerUse> = Vec::new();
            while let Some(row) = rows.next()? {
                let manifest: Digest = parsed(row, 0)?;
                let position = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
                if uses.last().is_none_or(|last| last.manifest != manifest || last.position != position) {
                    uses.push(LayerUse { manifest, position, names: Vec::new() });
                }
                if let (Some(last), false) =
                    (uses.last_mut(), row.get_ref(2)? == rusqlite::types::ValueRef::Null)
                {
                    last.names.push(parsed(row, 2)?);
                }
            }
            Ok(uses)
        })
    }
}
