//! Image archives made by hand: right in every detail that a test does not change.

use mica_oci::Digest;
use serde_json::{Value, json};

use crate::TarMaker;

/// An OCI layout or docker archive of one image.
#[derive(Debug, Clone)]
pub struct ImageArchive {
    /// The image config; the diff IDs are right.
    pub config: Value,
    /// The manifest, without `config` and `layers`, which [`ImageArchive::oci`] fills in where they are missing.
    pub manifest: Value,
    /// The blobs of the layers as they are stored, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// What the image is called.
    pub name: String,
}

impl ImageArchive {
    /// An image of uncompressed layers, called `hostile:latest`.
    pub fn new(layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        Self { config, manifest, layers: layers.to_vec(), name: "hostile:latest".to_owned() }
    }

    /// Bytes of the config.
    pub fn config_bytes(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    /// The manifest with right descriptors where the test gave none.
    pub fn manifest_bytes(&self) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<Value> = self.layers.iter().map(|layer| descriptor(kind, layer)).collect();
        let known = manifest.as_object_mut().expect("a manifest is an object");
        let config = descriptor("application/vnd.oci.image.config.v1+json", &self.config_bytes());
        known.entry("config").or_insert(config);
        known.entry("layers").or_insert(json!(layers));
        manifest.to_string().into_bytes()
    }

    /// The tar of an OCI layout.
    pub fn oci(&self) -> Vec<u8> {
        let bytes = self.manifest_bytes();
        self.oci_with(&bytes, &descriptor("application/vnd.oci.image.manifest.v1+json", &bytes))
    }

    /// The tar of an OCI layout with this manifest or index, which `target` describes.
    pub fn oci_with(&self, document: &[u8], target: &Value) -> Vec<u8> {
        let mut target = target.clone();
        target["annotations"] =
            json!({"io.containerd.image.name": format!("docker.io/library/{}", self.name)});
        let index = json!({"schemaVersion": 2, "manifests": [target]});
        self.layout(index.to_string().as_bytes(), &[document])
    }

    /// The tar of an OCI layout with this `index.json`, and more blobs than the image's own.
    pub fn layout(&self, index: &[u8], documents: &[&[u8]]) -> Vec<u8> {
        let mut tar = TarMaker::new()
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index);
        let config = self.config_bytes();
        let own = self.layers.iter().map(Vec::as_slice).chain([config.as_slice()]);
        let mut stored: Vec<Digest> = Vec::new();
        for blob in own.chain(documents.iter().copied()) {
            let digest = Digest::of(blob);
            if !stored.contains(&digest) {
                tar = tar.file(&format!("blobs/sha256/{}", digest.hex()), blob);
                stored.push(digest);
            }
        }
        tar.finish()
    }

    /// The tar of a docker archive.
    pub fn docker(&self) -> Vec<u8> {
        let mut tar = TarMaker::new();
        let config = self.config_bytes();
        let config_file = format!("{}.json", Digest::of(&config).hex());
        tar = tar.file(&config_file, &config);
        let mut files = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            files.push(format!("{index}/layer.tar"));
            tar = tar.file(&files[index], layer);
        }
        let manifest = json!([{"Config": config_file, "RepoTags": [self.name], "Layers": files}]);
        tar.file("manifest.json", manifest.to_string().as_bytes()).finish()
    }
}

/// A right descriptor of these bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}
