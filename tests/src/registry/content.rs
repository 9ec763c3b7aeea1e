//! What tests push: blobs, images, manifests.

use mica_oci::{Algorithm, Digest, Hasher, media_type};
use serde_json::{Value, json};

use super::{Registry, Reply};

/// `sha256:…`
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// `sha512:…`
pub fn sha512(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish().to_string()
}

/// A manifest with what it names.
#[derive(Debug, Clone)]
pub struct Image {
    /// Config and layers.
    pub blobs: Vec<Vec<u8>>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

impl Image {
    /// An image whose content depends on `seed`.
    pub fn new(seed: &str) -> Self {
        Self::with(seed, json!({}))
    }

    /// The same with more in its manifest.
    pub fn with(seed: &str, more: Value) -> Self {
        let blobs =
            vec![format!("{{\"seed\":\"{seed}\"}}").into_bytes(), format!("layer of {seed}").into_bytes()];
        let part = |media_type: &str, bytes: &Vec<u8>| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": part(media_type::OCI_CONFIG, &blobs[0]),
            "layers": [part(media_type::OCI_LAYER, &blobs[1])],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            manifest[key] = value.clone();
        }
        Self { blobs, manifest: manifest.to_string().into_bytes() }
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// A descriptor of the manifest.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": media_type::OCI_MANIFEST, "digest": self.digest(), "size": self.manifest.len() })
    }
}

impl Registry {
    /// Pushes a blob in two requests.
    ///
    /// # Panics
    /// If the upload is not begun.
    #[track_caller]
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> Reply {
        let location = self.begin(repository);
        self.ask("PUT", &with(&location, &format!("digest={}", digest(bytes)))).body(bytes).send()
    }

    /// Begins an upload; returns its path.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn begin(&self, repository: &str) -> String {
        let reply = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/")).send().is(202);
        location(&reply)
    }

    /// Pushes blobs and manifest.
    ///
    /// # Panics
    /// If a blob is refused.
    #[track_caller]
    pub fn push(&self, repository: &str, name: &str, image: &Image) -> Reply {
        for blob in &image.blobs {
            self.push_blob(repository, blob).is(201);
        }
        self.put_manifest(repository, name, media_type::OCI_MANIFEST, &image.manifest)
    }

    /// Pushes a manifest alone.
    pub fn put_manifest(&self, repository: &str, name: &str, media_type: &str, bytes: &[u8]) -> Reply {
        self.ask("PUT", &format!("/v2/{repository}/manifests/{name}"))
            .header("Content-Type", media_type)
            .body(bytes)
            .send()
    }
}

/// The path of a `Location` header, absolute or not.
pub fn location(reply: &Reply) -> String {
    let text = reply.get("location").unwrap_or_default();
    match text.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or_else(String::new, |at| rest[at..].to_owned()),
        None => text.to_owned(),
    }
}

/// A path with one more parameter.
pub fn with(path: &str, parameter: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{parameter}")
}
