//! The image config (build.md 5.1): environment, entrypoint, history, diff IDs.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{DiffId, Digest, ImageId, Platform};

/// The config of an image, keys in BuildKit's order (alphabetical, build.md G1).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Processor.
    #[serde(default)]
    pub architecture: String,
    /// Who made the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What containers of the image start with.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// RFC 3339 time of the last layer; `null` when there is none.
    #[serde(default)]
    pub created: Option<String>,
    /// One entry per instruction, oldest first; `null` when there is none.
    #[serde(default)]
    pub history: Option<Vec<History>>,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Version of the system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// Variant of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Keys of other tools.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What containers start with; empty values are left out (build.md G2).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol` keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Map<String, Value>>>,
    /// `NAME=value`, order of first definition kept.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First part of argv.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Second part of argv, replaced by the words of `run`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that get a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Map<String, Value>>>,
    /// Where processes start.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free labels.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks to stop.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows only: Cmd is one escaped string; BuildKit also sets it for shell forms.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// How to ask whether a container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images built from this one.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// The shell of shell forms.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Keys of other tools (Hostname, Domainname, Tty… of docker's older builder).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Docker's health check; durations are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time one check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two checks in the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// What one instruction did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A remark; `buildkit.dockerfile.v0` for builds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Keys of other tools.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Lowest first; `null` when there is none (build.md G4).
    #[serde(default)]
    pub diff_ids: Option<Vec<DiffId>>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: None }
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    input: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

/// The PATH of images that define none (build.md G3).
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ImageConfig {
    /// The config of `FROM scratch` for a platform (build.md G3).
    pub fn scratch(platform: &Platform) -> Self {
        let mut config = Self::default();
        config.set_platform(platform);
        config.config.env = vec![DEFAULT_PATH.to_owned()];
        config.config.working_dir = "/".to_owned();
        config
    }

    /// Adds the default PATH if the environment has none (build.md G3).
    pub fn ensure_path(&mut self) {
        if self.os != "windows" && !self.config.env.iter().any(|entry| entry.starts_with("PATH=")) {
            self.config.env.push(DEFAULT_PATH.to_owned());
        }
    }

    /// The platform the image says it is for, normalised.
    pub fn platform(&self) -> Platform {
        Platform {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// Makes the image one for `platform`.
    pub fn set_platform(&mut self, platform: &Platform) {
        let platform = platform.normalised();
        self.architecture = platform.architecture;
        self.os = platform.os;
        self.variant = platform.variant;
        self.os_version = platform.os_version;
        self.os_features = platform.os_features;
    }

    /// The diff IDs, lowest first.
    pub fn diff_ids(&self) -> &[DiffId] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// The history, oldest first.
    pub fn history(&self) -> &[History] {
        self.history.as_deref().unwrap_or_default()
    }

    /// Compact JSON, keys alphabetical: the bytes that are stored and hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a config has only string keys")
    }

    /// The image ID that `bytes` have.
    pub fn id_of(bytes: &[u8]) -> ImageId {
        ImageId(Digest::of(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_scratch_image_has_nulls_where_buildkit_has_them() {
        let config = ImageConfig::scratch(&Platform::new("linux", "amd64", None));
        let text = String::from_utf8(config.to_bytes()).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"architecture":"amd64","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:"#,
                r#"/usr/bin:/sbin:/bin"],"WorkingDir":"/"},"created":null,"history":null,"os":"linux","#,
                r#""rootfs":{"type":"layers","diff_ids":null}}"#
            )
        );
    }

    #[test]
    fn unknown_keys_survive_a_round_trip() {
        let text = r#"{"architecture":"amd64","config":{"Hostname":"h","Cmd":null},"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"moby.buildkit.cache.v0":"e30="}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        let again = String::from_utf8(config.to_bytes()).unwrap();
        assert!(again.contains(r#""Hostname":"h""#) && again.contains("moby.buildkit.cache.v0"), "{again}");
    }
}
