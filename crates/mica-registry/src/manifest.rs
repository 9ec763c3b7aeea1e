//! What a registry has to know of a manifest before it takes it: its kind, what it needs, what it is about.
//!
//! More lenient than a client that runs the image: unknown keys and odd platforms are the business of whoever pulls.
//! Never lenient where two readers could see two documents (CVE-2021-41190): one kind, no key twice, one media type.

use std::collections::BTreeMap;

use mica_oci::{Digest, media_type};
use serde::Deserialize;

use crate::error::{Code, Refusal};

/// A manifest that can be stored once everything it needs is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checked {
    pub(crate) media_type: String,
    /// What referrers are filtered by.
    pub(crate) artifact_type: Option<String>,
    /// The manifest it refers to, which need not exist.
    pub(crate) subject: Option<Digest>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) needs: Vec<Need>,
}

/// Something a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) kind: NeedKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeedKind {
    /// A config or layer of this repository.
    Blob,
    /// A layer that may live elsewhere: it names URLs, and its type says that registries need not have it.
    ForeignBlob,
    /// A manifest of this repository.
    Manifest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Part>,
    layers: Option<Vec<Part>>,
    manifests: Option<Vec<Part>>,
    subject: Option<Part>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    urls: Option<Vec<String>>,
}

/// Reads a manifest announced as `content_type`.
///
/// # Errors
/// `MANIFEST_INVALID`, with the reason.
pub(crate) fn check(bytes: &[u8], content_type: &str) -> Result<Checked, Refusal> {
    let announced = content_type.split(';').next().unwrap_or_default().trim();
    let document: Document =
        mica_oci::strict::from_slice(bytes).map_err(|error| invalid(format!("not a manifest: {error}")))?;
    if document.fs_layers.is_some() || document.schema_version == Some(1) {
        return Err(invalid("docker's schema 1 is not served; push with a client of this decade"));
    }
    if document.schema_version != Some(2) {
        return Err(invalid("schemaVersion has to be 2"));
    }
    let media_type = agreed_type(&document, announced)?;
    match (document.manifests.is_some(), document.config.is_some() || document.layers.is_some()) {
        (true, true) => Err(invalid("the document has both `manifests` and `config` or `layers`")),
        (true, false) if media_type::is_index(&media_type) => Ok(index(document, media_type)),
        (false, true) if media_type::is_manifest(&media_type) => image(document, media_type),
        _ => Err(invalid(format!("the document is not of the type {media_type}"))),
    }
}

/// The one type that header and document agree on.
fn agreed_type(document: &Document, announced: &str) -> Result<String, Refusal> {
    let inside = document.media_type.as_deref().filter(|text| !text.is_empty());
    if let Some(inside) = inside.filter(|inside| !announced.is_empty() && *inside != announced) {
        return Err(invalid(format!("mediaType is {inside}, but Content-Type is {announced}")));
    }
    let found = inside.unwrap_or(announced);
    let guess = match () {
        () if document.manifests.is_some() => media_type::OCI_INDEX,
        () => media_type::OCI_MANIFEST,
    };
    Ok(if found.is_empty() { guess } else { found }.to_owned())
}

fn index(document: Document, media_type: String) -> Checked {
    let parts = document.manifests.unwrap_or_default();
    let need = |part: Part| Need { digest: part.digest, size: part.size, kind: NeedKind::Manifest };
    Checked {
        media_type,
        artifact_type: document.artifact_type.filter(|text| !text.is_empty()),
        subject: document.subject.map(|part| part.digest),
        annotations: document.annotations.unwrap_or_default(),
        needs: distinct(parts.into_iter().map(need)),
    }
}

fn image(document: Document, media_type: String) -> Result<Checked, Refusal> {
    let config = document.config.ok_or_else(|| invalid("the manifest has no config"))?;
    let own = document.artifact_type.filter(|text| !text.is_empty());
    let artifact_type = own.or_else(|| Some(config.media_type.clone())).filter(|text| !text.is_empty());
    let parts = std::iter::once(config).chain(document.layers.unwrap_or_default());
    Ok(Checked {
        media_type,
        artifact_type,
        subject: document.subject.map(|part| part.digest),
        annotations: document.annotations.unwrap_or_default(),
        needs: distinct(parts.map(|part| Need {
            kind: kind_of(&part),
            digest: part.digest,
            size: part.size,
        })),
    })
}

/// A layer with URLs is not asked for: the image specification lets registries do without it.
fn kind_of(part: &Part) -> NeedKind {
    let foreign = part.media_type.contains("nondistributable") || part.media_type.contains("rootfs.foreign");
    let elsewhere = part.urls.as_ref().is_some_and(|urls| !urls.is_empty());
    if foreign || elsewhere { NeedKind::ForeignBlob } else { NeedKind::Blob }
}

fn distinct(needs: impl Iterator<Item = Need>) -> Vec<Need> {
    let mut seen: Vec<Need> = needs.collect();
    seen.sort_by(|a, b| (&a.digest, a.size).cmp(&(&b.digest, b.size)));
    seen.dedup();
    seen
}

pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::bad(Code::ManifestInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn part(size: u64, more: &str) -> String {
        format!(r#"{{"mediaType":"x/y","digest":"{A}","size":{size}{more}}}"#)
    }

    #[test]
    fn a_manifest_says_what_it_needs_and_what_it_is_about() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{},{}],"subject":{},"annotations":{{"a":"b"}},"new":1}}"#,
            media_type::OCI_MANIFEST,
            part(0, ""),
            part(0, ""),
            part(7, r#","urls":["https://example.org/x"]"#),
            part(9, "")
        );
        let checked = check(text.as_bytes(), media_type::OCI_MANIFEST).unwrap();
        assert_eq!(checked.needs.len(), 2);
        assert_eq!(checked.needs[1].kind, NeedKind::ForeignBlob);
        assert_eq!(checked.artifact_type.as_deref(), Some("x/y"));
        assert!(checked.subject.is_some());
    }

    #[test]
    fn documents_that_two_readers_could_take_for_two_are_refused() {
        let config = part(0, "");
        for (text, content_type) in [
            (format!(r#"{{"schemaVersion":2,"config":{config},"manifests":[]}}"#), media_type::OCI_INDEX),
            (format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#), media_type::OCI_INDEX),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"config":{config}}}"#),
                media_type::OCI_MANIFEST,
            ),
            (format!(r#"{{"schemaVersion":2,"mediaType":"x","config":{config}}}"#), media_type::OCI_MANIFEST),
            (format!(r#"{{"schemaVersion":2,"config":{config}}} "more""#), media_type::OCI_MANIFEST),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
                "application/vnd.docker.distribution.manifest.v1+json",
            ),
            (format!(r#"{{"schemaVersion":2,"config":{config}}}"#), "application/json"),
            (r#"{"schemaVersion":2}"#.to_owned(), media_type::OCI_MANIFEST),
            (
                r#"{"schemaVersion":2,"config":{"digest":"sha256:../../../../etc/passwd","size":1}}"#
                    .to_owned(),
                media_type::OCI_MANIFEST,
            ),
        ] {
            let refusal = check(text.as_bytes(), content_type).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (400, Code::ManifestInvalid), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes: Vec<u8>, content_type in "\\PC{0,20}") {
            let _answer = check(&bytes, &content_type);
        }
    }
}
