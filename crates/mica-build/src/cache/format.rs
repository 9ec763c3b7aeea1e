//! BuildKit's container for caches (build.md E4, E5): which layers there are, and which keys they answer.
//!
//! A vertex of mica has two keys. Its record under the content key holds the layers; its record under the definition
//! key has the first as its input, through a selector that only mica writes.

use std::collections::HashMap;

use mica_oci::Digest;
use mica_solve::CacheKey;
use serde::{Deserialize, Serialize};

/// The media type of the config blob.
pub(super) const CONFIG_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The key of an image's config with an inline cache.
pub(super) const INLINE_KEY: &str = "moby.buildkit.cache.v0";
/// The annotation of a layer with its diff ID.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// The annotation of a layer with when it was made.
pub(super) const CREATED_AT: &str = "buildkit/createdat";
/// The selector that leads from a definition to its content.
const SELECTOR: &str = "mica.content";

/// The config blob.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) records: Vec<CacheRecord>,
}

/// A layer on top of another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CacheLayer {
    pub(super) blob: Digest,
    /// Index of the layer below; -1 for none. 0 is not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) parent: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A key and its results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CacheRecord {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<CacheResult>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) chains: Vec<ChainedResult>,
    pub(super) digest: Digest,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<Vec<CacheInput>>,
}

/// A result: the topmost of its layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CacheResult {
    pub(super) layer: usize,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
}

/// A result as a list of layers, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ChainedResult {
    #[serde(default)]
    pub(super) layers: Vec<usize>,
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<String>,
}

/// What a key was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CacheInput {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) selector: String,
    pub(super) link: usize,
}

/// What a record of mica answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The content key.
    pub(super) content: CacheKey,
    /// Indexes of layers, lowest first.
    pub(super) layers: Vec<usize>,
}

/// A key as a digest.
pub(super) fn digest_of(key: &CacheKey) -> Digest {
    Digest::from_sha256(*key.as_bytes())
}

/// Adds the two records of a vertex whose topmost layer has this index.
pub(super) fn add_records(
    records: &mut Vec<CacheRecord>,
    content: &CacheKey,
    definition: &CacheKey,
    results: &CacheRecord,
) {
    let known =
        |records: &[CacheRecord], digest: &Digest| records.iter().position(|record| record.digest == *digest);
    let content = digest_of(content);
    let link = known(records, &content).unwrap_or_else(|| {
        records.push(CacheRecord { digest: content.clone(), inputs: Vec::new(), ..results.clone() });
        records.len() - 1
    });
    let definition = digest_of(definition);
    if known(records, &definition).is_none() {
        let inputs = vec![vec![CacheInput { selector: SELECTOR.to_owned(), link }]];
        records.push(CacheRecord { digest: definition, inputs, ..results.clone() });
    }
}

/// What the records of a cache answer, by key of either kind. Records that make no sense answer nothing.
pub(super) fn answers(config: &CacheConfig) -> HashMap<[u8; 32], Answer> {
    let key = |digest: &Digest| -> Option<CacheKey> {
        let hex = digest.hex();
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
        Some(CacheKey::from_bytes(bytes?.try_into().ok()?))
    };
    let mut found = HashMap::new();
    for record in &config.records {
        let Some(own) = key(&record.digest) else { continue };
        let linked = match record.inputs.as_slice() {
            [inputs] => inputs.iter().find(|input| input.selector == SELECTOR),
            _ => None,
        };
        let content = match linked {
            Some(input) => config.records.get(input.link).and_then(|record| key(&record.digest)),
            None => Some(own),
        };
        let layers = match (record.layers.first(), record.chains.first()) {
            (Some(result), _) => chain(&config.layers, result.layer),
            (None, Some(result)) => Some(result.layers.clone()),
            (None, None) => None,
        };
        if let (Some(content), Some(layers)) = (content, layers) {
            found.insert(*own.as_bytes(), Answer { content, layers });
        }
    }
    found
}

/// The layers below a layer and itself, lowest first; `None` if they go round in circles or lead nowhere.
fn chain(layers: &[CacheLayer], top: usize) -> Option<Vec<usize>> {
    let mut found = vec![top];
    let mut layer = layers.get(top)?;
    while layer.parent >= 0 {
        let parent = usize::try_from(layer.parent).ok()?;
        if found.len() > layers.len() {
            return None;
        }
        found.push(parent);
        layer = layers.get(parent)?;
    }
    found.reverse();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(byte: &str) -> Digest {
        Digest::of(byte.as_bytes())
    }

    #[test]
    fn a_parent_of_zero_is_left_out_as_the_reference_does() {
        let config = CacheConfig {
            layers: vec![
                CacheLayer { blob: blob("a"), parent: -1 },
                CacheLayer { blob: blob("b"), parent: 0 },
            ],
            records: Vec::new(),
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(text.matches("parent").count(), 1, "{text}");
        assert_eq!(serde_json::from_str::<CacheConfig>(&text).unwrap(), config);
    }

    #[test]
    fn both_keys_lead_to_the_content_and_its_layers() {
        let (content, definition) = (CacheKey::from_bytes([1; 32]), CacheKey::from_bytes([2; 32]));
        let layers =
            vec![CacheLayer { blob: blob("a"), parent: -1 }, CacheLayer { blob: blob("b"), parent: 0 }];
        let results = CacheRecord {
            layers: vec![CacheResult { layer: 1, created_at: None }],
            chains: Vec::new(),
            digest: blob("unused"),
            inputs: Vec::new(),
        };
        let mut records = Vec::new();
        add_records(&mut records, &content, &definition, &results);
        add_records(&mut records, &content, &definition, &results);
        assert_eq!(records.len(), 2);
        let answers = answers(&CacheConfig { layers, records });
        let answer = Answer { content, layers: vec![0, 1] };
        assert_eq!(answers[content.as_bytes()], answer);
        assert_eq!(answers[definition.as_bytes()], answer);
    }

    #[test]
    fn circles_and_dangling_indexes_answer_nothing() {
        let layers =
            vec![CacheLayer { blob: blob("a"), parent: 1 }, CacheLayer { blob: blob("b"), parent: 0 }];
        let record = |layer: usize, byte: &str| CacheRecord {
            layers: vec![CacheResult { layer, created_at: None }],
            chains: Vec::new(),
            digest: blob(byte),
            inputs: vec![vec![CacheInput { selector: SELECTOR.to_owned(), link: 99 }]],
        };
        let config = CacheConfig { layers, records: vec![record(0, "x"), record(7, "y")] };
        assert!(answers(&config).is_empty());
    }
}
