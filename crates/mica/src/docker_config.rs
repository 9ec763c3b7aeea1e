//! What mica reads of docker's `config.json`: proxies for builds and default formats (build.md Y20).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// The part of the file that matters here. A missing or broken file is an empty one: docker warns and goes on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DockerConfig {
    /// By daemon address; `default` for all.
    pub proxies: BTreeMap<String, Proxies>,
    /// Default of `images --format`.
    pub images_format: Option<String>,
    /// Default of `ps --format`.
    pub ps_format: Option<String>,
}

/// Proxies for builds and containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Proxies {
    /// `HTTP_PROXY`.
    pub http_proxy: String,
    /// `HTTPS_PROXY`.
    pub https_proxy: String,
    /// `NO_PROXY`.
    pub no_proxy: String,
    /// `FTP_PROXY`.
    pub ftp_proxy: String,
    /// `ALL_PROXY`.
    pub all_proxy: String,
}

impl DockerConfig {
    /// Reads `config.json` of a directory.
    pub(crate) fn read(directory: &Path) -> Self {
        let bytes = std::fs::read(directory.join("config.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The proxy variables, upper and lower case, as docker gives them to builds and containers.
    pub(crate) fn proxy_variables(&self) -> Vec<(String, String)> {
        let Some(proxies) = self.proxies.get("default") else { return Vec::new() };
        let named = [
            ("HTTP_PROXY", &proxies.http_proxy),
            ("HTTPS_PROXY", &proxies.https_proxy),
            ("NO_PROXY", &proxies.no_proxy),
            ("FTP_PROXY", &proxies.ftp_proxy),
            ("ALL_PROXY", &proxies.all_proxy),
        ];
        named
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .flat_map(|(name, value)| {
                [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_proxies_become_variables_in_both_cases() {
        let config: DockerConfig = serde_json::from_str(
            r#"{"auths":{},"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"a"}},"psFormat":"x"}"#,
        )
        .unwrap();
        let names: Vec<String> = config.proxy_variables().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"]);
        assert_eq!(config.ps_format.as_deref(), Some("x"));
    }
}
