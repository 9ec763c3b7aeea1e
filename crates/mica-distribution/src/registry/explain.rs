//! Which servers stand for a name, and what decided it.

use mica_api::Cancel;
use mica_oci::Reference;

use super::client::Registries;
use super::credentials::existing;
use super::error::RegistryError;
use super::files::registries::MirrorUse;
use super::route::{Endpoint, Scheme, route};

/// One server that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedServer {
    /// `https://registry-1.docker.io/v2/library/alpine`.
    pub url: String,
    /// What it is asked for.
    pub role: &'static str,
    /// How it is talked to.
    pub transport: &'static str,
    /// Who we are there; `None` if nobody.
    pub credential: Option<String>,
    /// What decided all this: files and rules.
    pub reasons: Vec<String>,
}

/// How a repository is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// In the order they are asked.
    pub servers: Vec<ExplainedServer>,
    /// Files with credentials that exist, in the order they are asked.
    pub credential_files: Vec<std::path::PathBuf>,
}

impl Registries {
    /// Says how a repository would be reached. Only credential helpers are asked, no server.
    ///
    /// # Errors
    /// The user's files cannot be read, or block the registry.
    pub fn explain(&self, reference: &Reference, cancel: &Cancel) -> Result<Explanation, RegistryError> {
        let mut servers = Vec::new();
        for endpoint in route(&self.settings, reference)? {
            let credential = self.credential(&endpoint, cancel)?.map(|found| found.source);
            servers.push(explained(&endpoint, credential));
        }
        Ok(Explanation { servers, credential_files: existing(&self.settings) })
    }
}

fn explained(endpoint: &Endpoint, credential: Option<String>) -> ExplainedServer {
    let scheme = match endpoint.scheme {
        Scheme::Https | Scheme::HttpsFirst => "https",
        Scheme::Http | Scheme::HttpFirst => "http",
    };
    ExplainedServer {
        url: format!("{scheme}://{}{}/{}", endpoint.authority, endpoint.path, endpoint.repository),
        role: match (endpoint.mirror, endpoint.resolves) {
            (None, _) => "the registry itself",
            (Some(MirrorUse::DigestOnly), _) | (Some(_), false) => "a mirror, for digests",
            (Some(MirrorUse::TagOnly), _) => "a mirror, for tags",
            (Some(MirrorUse::All), _) => "a mirror",
        },
        transport: match (endpoint.scheme, endpoint.tls.unverified) {
            (Scheme::Https, false) => "TLS",
            (Scheme::Https, true) => "TLS, any certificate",
            (Scheme::Http, _) => "plain HTTP",
            (Scheme::HttpFirst, _) => "plain HTTP, then TLS",
            (Scheme::HttpsFirst, _) => "TLS with any certificate, then plain HTTP",
        },
        credential,
        reasons: endpoint.reasons.clone(),
    }
}
