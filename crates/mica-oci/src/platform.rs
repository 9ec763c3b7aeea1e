//! Platforms: operating system, architecture, variant, and how docker spells and normalises them (build.md G5).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on. Key order is build.md G5's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Go's name of the processor: `amd64`, `arm64`, `arm`…
    pub architecture: String,
    /// Go's name of the system: `linux`, `windows`…
    pub os: String,
    /// Version of the system; only windows uses it.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the system; only windows uses them.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlatformError {
    /// Too many or empty components, or characters outside `[A-Za-z0-9_.-]`.
    #[error("failed to parse platform {0:?}: expected os/architecture[/variant]")]
    Form(String),
    /// One word that is neither a known system nor a known architecture.
    #[error("failed to parse platform {0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
}

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];

const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le",
    "riscv64", "s390x", "wasm",
];

impl Platform {
    /// A normalised platform.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), &variant);
        Self {
            architecture,
            os,
            os_version: None,
            os_features: Vec::new(),
            variant: (!variant.is_empty()).then_some(variant),
        }
    }

    /// The platform this program was compiled for, which is the one it runs on.
    pub fn host() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::new("linux", "amd64", None),
            "aarch64" => Self::new("linux", "arm64", None),
            other => Self::new("linux", other, None),
        }
    }

    /// Whether both name the same machine once normalised; versions of the system are not compared.
    pub fn matches(&self, other: &Self) -> bool {
        let (a, b) = (self.normalised(), other.normalised());
        a.os == b.os && a.architecture == b.architecture && a.variant == b.variant
    }

    /// Whether a machine of this platform runs programs of `other` natively: the same platform, or an older variant
    /// or 32-bit sibling of it.
    pub fn runs(&self, other: &Self) -> bool {
        let (host, image) = (self.normalised(), other.normalised());
        if host.os != image.os {
            return false;
        }
        match (host.architecture.as_str(), image.architecture.as_str()) {
            ("amd64", "386") => true,
            (a, b) if a == b => a != "arm" || host.variant >= image.variant,
            _ => false,
        }
    }

    /// The same platform in docker's normal form.
    pub fn normalised(&self) -> Self {
        Self {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Self::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// `linux_arm_v7`: the form used for directories (build.md X7).
    pub fn directory_name(&self) -> String {
        self.to_string().replace('/', "_")
    }
}

fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", other) => ("amd64", other),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64", ""),
        ("aarch64", other) => ("arm64", other),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let form = || PlatformError::Form(text.chars().take(100).collect());
        let valid = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| valid(part)) {
            return Err(form());
        }
        match parts.as_slice() {
            [one] => one_word(one).ok_or_else(|| PlatformError::Unknown((*one).to_owned())),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(form()),
        }
    }
}

/// `linux` is linux on this machine's processor; `arm64` is that processor on this system.
fn one_word(word: &str) -> Option<Platform> {
    let lower = word.to_ascii_lowercase();
    if lower == "local" {
        return Some(Platform::host());
    }
    if SYSTEMS.contains(&lower.as_str()) || lower == "macos" {
        return Some(Platform::new(&lower, &Platform::host().architecture, None));
    }
    let candidate = Platform::new("linux", &lower, None);
    ARCHITECTURES.contains(&candidate.architecture.as_str()).then_some(candidate)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised_as_docker_does() {
        for (text, expected) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("Linux/AMD64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "linux/", "a/b/c/d", "nope", "linux/arm 64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
