//! Searching a registry by its old interface, the only one there is for that: docker.io has it, others may.

use mica_api::Cancel;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::client::{Ask, Registries, Target, read_limited, refusal};
use super::error::RegistryError;
use super::login::reference_at;
use super::settings::HUB;
use crate::http::Payload;

/// Where docker.io answers searches.
const HUB_INDEX: &str = "index.docker.io";
/// The most an answer may have.
const ANSWER_LIMIT_BYTES: usize = 4 << 20;

/// One repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// Its name.
    pub name: String,
    /// What its owner says about it.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default, rename = "star_count")]
    pub stars: u64,
    /// Whether docker vouches for it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<SearchResult>,
}

impl Registries {
    /// Repositories that match a term: `tomcat`, or `HOST/tomcat` for another registry than docker.io.
    ///
    /// # Errors
    /// The registry has no search, or cannot be asked.
    pub fn search(
        &self,
        term: &str,
        limit: u32,
        cancel: &Cancel,
    ) -> Result<Vec<SearchResult>, RegistryError> {
        let (host, term) = match term.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (HUB, term),
        };
        let mut query = Url::parse("http://query/").expect("a constant URL");
        query.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
        let path = format!("search?{}", query.query().unwrap_or_default());
        let repository = self.repository(&reference_at(host)?)?;
        repository.own(cancel, async |endpoint| {
            let mut endpoint = endpoint.clone();
            endpoint.path = "/v1".to_owned();
            if host == HUB {
                endpoint.authority = HUB_INDEX.to_owned();
            }
            let ask = Ask {
                method: Method::GET,
                target: Target::Root(&path),
                headers: HeaderMap::new(),
                payload: Payload::None,
                scopes: Vec::new(),
                retries: true,
            };
            let response = self.ask(&endpoint, &ask, cancel).await?;
            if !response.status().is_success() {
                return Err(refusal(response, &endpoint, &format!("cannot search {host}"), false).await);
            }
            let bytes = read_limited(response, ANSWER_LIMIT_BYTES, &endpoint.host).await?;
            let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Answer {
                host: host.to_owned(),
                problem: format!("answers a search with something else: {error}"),
            })?;
            Ok(answer.results)
        })
    }
}
