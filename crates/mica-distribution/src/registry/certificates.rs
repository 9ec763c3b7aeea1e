//! `certs.d/<host>/`: certificates of a registry, as docker and podman have them.

use std::path::PathBuf;

use super::error::RegistryError;
use crate::http::TlsProfile;

/// What the directories say about a host, and which files say it: `*.crt` are authorities, `X.cert` and `X.key` are ours.
pub(super) fn of_host(
    directories: &[PathBuf],
    host: &str,
) -> Result<(TlsProfile, Vec<String>), RegistryError> {
    let mut profile = TlsProfile::default();
    let mut reasons = Vec::new();
    for directory in directories {
        let folder = directory.join(host);
        let Ok(listing) = std::fs::read_dir(&folder) else { continue };
        let mut files: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    reasons.push(format!("certificate authority {}", file.display()));
                    profile.authorities.push(file);
                }
                Some("cert") if profile.identity.is_none() => {
                    let key = file.with_extension("key");
                    if !key.exists() {
                        let problem = format!("there is no {} beside it", key.display());
                        return Err(RegistryError::Settings { path: file, source: problem.into() });
                    }
                    reasons.push(format!("client certificate {}", file.display()));
                    profile.identity = Some((file, key));
                }
                _ => {}
            }
        }
    }
    Ok((profile, reasons))
}
