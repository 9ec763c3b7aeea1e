//! The tags of a repository.

use mica_api::Cancel;
use mica_oci::Tag;
use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::client::{Repository, read_limited};
use super::error::RegistryError;
use super::route::Endpoint;

/// The most one page may have.
const PAGE_LIMIT_BYTES: usize = 8 << 20;
/// The most pages that are read: a registry that always names another one must end somewhere.
const PAGES_MAX: usize = 10_000;
/// How many tags are asked for at once.
const PER_PAGE: usize = 1000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository<'_> {
    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// There is no such repository, or nobody can be asked.
    pub fn tags(&self, cancel: &Cancel) -> Result<Vec<Tag>, RegistryError> {
        self.first(false, cancel, async |endpoint| {
            let mut tags = Vec::new();
            let mut path = format!("/tags/list?n={PER_PAGE}");
            for _ in 0..PAGES_MAX {
                let (page, next) = self.page(endpoint, &path, cancel).await?;
                // what is no tag cannot be asked for either
                tags.extend(page.iter().filter_map(|text| text.parse::<Tag>().ok()));
                match next {
                    Some(query) => path = format!("/tags/list?{query}"),
                    None => break,
                }
            }
            Ok(tags)
        })
    }

    async fn page(
        &self,
        endpoint: &Endpoint,
        path: &str,
        cancel: &Cancel,
    ) -> Result<(Vec<String>, Option<String>), RegistryError> {
        let doing = format!("cannot list the tags of {}", self.reference.familiar_name());
        let response = self.ask_to_pull(Method::GET, endpoint, path, HeaderMap::new(), cancel).await?;
        if !response.status().is_success() {
            return Err(self.refused(endpoint, response, &doing, cancel).await);
        }
        let link = response.headers().get(LINK).and_then(|value| value.to_str().ok()).and_then(next_query);
        let bytes = read_limited(response, PAGE_LIMIT_BYTES, &endpoint.host).await?;
        let page: Page = serde_json::from_slice(&bytes).map_err(|error| RegistryError::Answer {
            host: endpoint.host.clone(),
            problem: format!("lists tags as something else: {error}"),
        })?;
        Ok((page.tags.unwrap_or_default(), link))
    }
}

/// The query of `</v2/x/tags/list?last=b&n=2>; rel="next"`: only that, so that no page leads elsewhere.
fn next_query(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then(|| target.split_once('?').map(|(_, query)| query.to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_below_the_same_repository() {
        let link = "<https://evil.example/v2/x/tags/list?last=b&n=2>; rel=\"next\"";
        assert_eq!(next_query(link).as_deref(), Some("last=b&n=2"));
        assert_eq!(next_query("<x>; rel=\"prev\""), None);
    }
}
