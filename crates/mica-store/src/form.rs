//! Forms: how a local manifest looked when it last left this store.
//!
//! A form is a text that names compressor, level, media types and times. Pushing the same image in the same form
//! again gives the same remote manifest, without compressing to find out.

use mica_oci::{Descriptor, Digest};
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::Store;
use crate::db::Strength;
use crate::error::StoreError;

/// What left: a manifest and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoteForm {
    /// The manifest as it was sent.
    pub manifest: Descriptor,
    /// The layers as they were sent.
    pub layers: Vec<Descriptor>,
}

impl Store {
    /// Returns how `manifest` looked in a form, if it ever left in it.
    pub fn form(&self, manifest: &Digest, form: &str) -> Result<Option<RemoteForm>, StoreError> {
        let text = self.database().read(|sql| {
            sql.prepare_cached("SELECT remote FROM forms WHERE manifest = ?1 AND form = ?2")?
                .query_row(params![manifest.to_string(), form], |row| row.get::<_, String>(0))
                .optional()
        })?;
        // A form is a cache: one that cannot be read is made again.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Remembers how `manifest` looked in a form.
    pub fn remember_form(
        &self,
        manifest: &Digest,
        form: &str,
        remote: &RemoteForm,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(remote).expect("descriptors are JSON");
        self.database().write(Strength::Normal, |write| {
            write.sql(|sql| {
                sql.prepare_cached(
                    "INSERT OR REPLACE INTO forms(manifest, form, remote) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![manifest.to_string(), form, text])
            })?;
            Ok(())
        })
    }
}
