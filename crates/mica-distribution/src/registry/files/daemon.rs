//! docker's `daemon.json`: mirrors of docker.io, and registries that need not be secure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::read;
use crate::registry::error::RegistryError;

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Text {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

/// What it says about registries.
#[derive(Debug)]
pub(in crate::registry) struct DaemonFile {
    pub(in crate::registry) path: PathBuf,
    pub(in crate::registry) mirrors: Vec<String>,
    insecure: Vec<String>,
}

impl DaemonFile {
    pub(in crate::registry) fn read(path: &Path) -> Result<Option<Self>, RegistryError> {
        read(path, |text| {
            let text: Text = serde_json::from_str(text)?;
            let (mirrors, insecure) = (text.registry_mirrors, text.insecure_registries);
            Ok(Self { path: path.to_owned(), mirrors, insecure })
        })
    }

    /// Whether a host is named, or its address is in a network that is. Names are not resolved.
    pub(in crate::registry) fn is_insecure(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.insecure.iter().any(|entry| {
            entry == host || entry == name || name.parse().is_ok_and(|address| is_within(address, entry))
        })
    }
}

/// Whether an address is in a network like `10.0.0.0/8`.
fn is_within(address: IpAddr, network: &str) -> bool {
    let Some((start, bits)) = network.split_once('/') else { return false };
    let (Ok(start), Ok(bits)) = (start.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (address, start) {
        (IpAddr::V4(address), IpAddr::V4(start)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            address.to_bits() & mask == start.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(start)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            address.to_bits() & mask == start.to_bits() & mask
        }
        _ => false,
    }
}
