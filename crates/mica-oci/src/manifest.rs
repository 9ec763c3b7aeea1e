//! Manifests and indexes, and the strict reading of foreign ones (security.md rows 21 and 23).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Descriptor, media_type};

/// Annotation keys that mica reads or writes.
pub mod annotation {
    /// The tag of an entry of `index.json`.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// The full name of an entry of `index.json`.
    pub const IMAGE_NAME: &str = "io.containerd.image.name";
    /// When the image was made.
    pub const CREATED: &str = "org.opencontainers.image.created";
}

/// One config and the layers it goes with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What the manifest is about, when it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keys of newer specifications.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Manifests, usually one per platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What the index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The entries.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Keys of newer specifications.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// A manifest of an image, in OCI types.
    pub fn image(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// Two-space JSON (build.md G15): the bytes that are stored and hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest has only string keys")
    }
}

impl Index {
    /// An index in OCI types.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// Two-space JSON (build.md G15).
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("an index has only string keys")
    }
}

/// A manifest or an index, told apart by what it contains and checked against what it was announced as.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "short-lived: matched on at once, never kept in numbers")]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Larger than the limit.
    #[error("manifest of {0} bytes is over the limit of {limit} bytes", limit = Document::LIMIT_BYTES)]
    TooLarge(usize),
    /// Not JSON, or JSON of another shape.
    #[error("manifest is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    /// Both a manifest and an index (CVE-2021-41190).
    #[error("manifest is ambiguous: it has both `manifests` and `layers` or `config`")]
    Ambiguous,
    /// Neither.
    #[error("document is neither a manifest nor an index")]
    Neither,
    /// The document says it is something else than the descriptor said.
    #[error("manifest says it is {found}, but was announced as {announced}")]
    WrongType {
        /// What the document says.
        found: String,
        /// What the descriptor said.
        announced: String,
    },
}

impl Document {
    /// The most bytes a manifest or index may have (security.md section 5).
    pub const LIMIT_BYTES: usize = 4 << 20;

    /// Reads a document announced as `announced` (empty: no announcement).
    ///
    /// # Errors
    /// [`DocumentError`] when it is too large, malformed, ambiguous or of another type than announced.
    pub fn parse(bytes: &[u8], announced: &str) -> Result<Self, DocumentError> {
        if bytes.len() > Self::LIMIT_BYTES {
            return Err(DocumentError::TooLarge(bytes.len()));
        }
        let keys: Map<String, Value> = crate::strict::from_slice(bytes).map_err(DocumentError::Json)?;
        let index = keys.contains_key("manifests");
        let manifest = keys.contains_key("layers") || keys.contains_key("config");
        if let Some(found) = keys.get("mediaType").and_then(Value::as_str)
            && !announced.is_empty()
            && found != announced
        {
            return Err(DocumentError::WrongType {
                found: found.to_owned(),
                announced: announced.to_owned(),
            });
        }
        let expected = |wanted: bool, is: fn(&str) -> bool| wanted && (announced.is_empty() || is(announced));
        match (index, manifest) {
            (true, true) => Err(DocumentError::Ambiguous),
            (false, false) => Err(DocumentError::Neither),
            (true, false) if expected(true, media_type::is_index) => {
                serde_json::from_slice(bytes).map(Self::Index).map_err(DocumentError::Json)
            }
            (false, true) if expected(true, media_type::is_manifest) => {
                serde_json::from_slice(bytes).map(Self::Manifest).map_err(DocumentError::Json)
            }
            _ => Err(DocumentError::WrongType {
                found: if index { "an index" } else { "an image manifest" }.to_owned(),
                announced: announced.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn a_document_that_is_both_is_refused() {
        let text = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(Document::parse(text, ""), Err(DocumentError::Ambiguous)));
    }

    #[test]
    fn a_document_of_another_type_than_announced_is_refused() {
        let manifest = Manifest::image(Descriptor::of(media_type::OCI_CONFIG, b"{}"), Vec::new());
        let error = Document::parse(&manifest.to_bytes(), media_type::OCI_INDEX).unwrap_err();
        assert!(matches!(error, DocumentError::WrongType { .. }));
        assert!(Document::parse(&manifest.to_bytes(), media_type::OCI_MANIFEST).is_ok());
    }

    #[test]
    fn deep_json_is_an_error_and_no_stack_overflow() {
        let text = format!("{{\"manifests\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(Document::parse(text.as_bytes(), "").is_err());
    }

    #[test]
    fn a_manifest_keeps_unknown_keys() {
        let digest = Digest::of(b"x");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"{digest}","size":1,"new":1}},"layers":[],"also":true}}"#
        );
        let Document::Manifest(manifest) = Document::parse(text.as_bytes(), "").unwrap() else { panic!() };
        let again = String::from_utf8(manifest.to_bytes()).unwrap();
        assert!(again.contains("\"new\": 1") && again.contains("\"also\": true"), "{again}");
    }
}
