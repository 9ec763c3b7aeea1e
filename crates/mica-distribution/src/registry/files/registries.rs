//! podman's `registries.conf`: mirrors, other locations, insecure and blocked registries.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::read;
use crate::registry::error::RegistryError;

/// For what a mirror is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::registry) enum MirrorUse {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorText {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<MirrorUse>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct EntryText {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorText>,
}

#[derive(Debug, Default, Deserialize)]
struct Text {
    #[serde(default)]
    registry: Vec<EntryText>,
}

/// One `[[registry]]`.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Entry {
    pub(in crate::registry) file: PathBuf,
    pub(in crate::registry) prefix: String,
    location: Option<String>,
    pub(in crate::registry) insecure: bool,
    pub(in crate::registry) blocked: bool,
    pub(in crate::registry) mirrors: Vec<Mirror>,
}

/// One `[[registry.mirror]]`.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Mirror {
    location: String,
    pub(in crate::registry) insecure: bool,
    pub(in crate::registry) used: MirrorUse,
}

/// All files together.
#[derive(Debug, Default)]
pub(in crate::registry) struct RegistriesFile {
    entries: Vec<Entry>,
}

impl RegistriesFile {
    /// Reads files, and the `*.conf` of directories by name; what is said later about a prefix wins.
    pub(in crate::registry) fn read(paths: &[PathBuf]) -> Result<Self, RegistryError> {
        let mut all = Self::default();
        for path in paths {
            let Ok(listing) = std::fs::read_dir(path) else {
                all.add(path)?;
                continue;
            };
            let mut files: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
            files.sort();
            files.iter().try_for_each(|file| all.add(file))?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<(), RegistryError> {
        let text = read(path, |text| Ok(toml::from_str::<Text>(text)?))?;
        for entry in text.unwrap_or_default().registry {
            let Some(prefix) = entry.prefix.filter(|text| !text.is_empty()).or(entry.location.clone()) else {
                continue;
            };
            let default = if entry.mirror_by_digest_only { MirrorUse::DigestOnly } else { MirrorUse::All };
            let mirrors = entry.mirror.into_iter().map(|mirror| Mirror {
                location: mirror.location,
                insecure: mirror.insecure,
                used: mirror.pull_from_mirror.unwrap_or(default),
            });
            let entry = Entry {
                file: path.to_owned(),
                prefix: prefix.clone(),
                location: entry.location.filter(|text| !text.is_empty()),
                insecure: entry.insecure,
                blocked: entry.blocked,
                mirrors: mirrors.collect(),
            };
            self.entries.retain(|known| known.prefix != prefix);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// The entry with the longest prefix of `registry/repository`.
    pub(in crate::registry) fn find(&self, registry: &str, repository: &str) -> Option<Entry> {
        let name = format!("{registry}/{repository}");
        let matching = self.entries.iter().filter(|entry| covers(&entry.prefix, &name).is_some());
        matching.max_by_key(|entry| entry.prefix.len()).cloned()
    }
}

/// What is left of a name after a prefix that covers it, on component borders: `*.corp` covers hosts.
fn covers<'a>(prefix: &str, name: &'a str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let (host, _) = name.split_once('/')?;
        let bare = host.split(':').next().unwrap_or(host);
        return bare.ends_with(domain).then_some(&name[host.len()..]);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

impl Entry {
    /// Where the registry itself is, under another name perhaps.
    pub(in crate::registry) fn rewritten(&self, registry: &str, repository: &str) -> (String, String) {
        match self.location.as_deref().filter(|_| !self.prefix.starts_with('*')) {
            Some(location) => replaced(location, &self.prefix, registry, repository),
            None => (registry.to_owned(), repository.to_owned()),
        }
    }
}

impl Mirror {
    pub(in crate::registry) fn rewritten(
        &self,
        entry: &Entry,
        registry: &str,
        repository: &str,
    ) -> (String, String) {
        replaced(&self.location, &entry.prefix, registry, repository)
    }
}

fn replaced(location: &str, prefix: &str, registry: &str, repository: &str) -> (String, String) {
    let name = format!("{registry}/{repository}");
    let rest = covers(prefix, &name).unwrap_or_default();
    let whole = format!("{}{rest}", location.trim_end_matches('/'));
    match whole.split_once('/') {
        Some((host, repository)) => (host.to_owned(), repository.to_owned()),
        None => (whole, repository.to_owned()),
    }
}
