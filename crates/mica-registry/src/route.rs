//! From a path to what is meant by it. Pure; every name is parsed here, and no other module sees a raw path.
//!
//! The path is split, then each part is decoded, once, before anything is looked for in it: `/v2/%61/tags/list` and
//! `/v2/a/tags/list` get the same decision, and what was decoded has to pass the grammar of names like everything else.

use mica_oci::{Digest, Repository, Tag};

use crate::error::{Code, Refusal};

/// What names a manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ManifestName {
    Tag(Tag),
    Digest(Digest),
}

/// The capability to go on with an upload: 128 random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(String);

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Repository),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Repository, ManifestName),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Repository, UploadId),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Repository, Digest),
    /// `/livez`: the process answers.
    Live,
    /// `/readyz`: the storage takes writes.
    Ready,
    /// `/metrics`
    Metrics,
    /// `/token`
    Token,
    /// `/`: for people.
    Overview,
    /// `/repositories/<name>`: for people.
    Contents(Repository),
}

impl Route {
    /// The repository that rights are needed in.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Tags(repository)
            | Self::Manifest(repository, _)
            | Self::Blob(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _)
            | Self::Referrers(repository, _)
            | Self::Contents(repository) => Some(repository),
            Self::Base
            | Self::Catalog
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Token
            | Self::Overview => None,
        }
    }
}

impl UploadId {
    const DIGITS: usize = 32;

    /// A new one, from the kernel's random numbers.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0_u8; Self::DIGITS / 2];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Reads one; `None` for what this registry never gave out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (hex && text.len() == Self::DIGITS).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Reads the path of a request.
///
/// # Errors
/// What the client is told: nothing of that kind is served here, or a name in it is none.
pub(crate) fn parse(path: &str) -> Result<Route, Refusal> {
    match path {
        "/v2" | "/v2/" => return Ok(Route::Base),
        "/v2/_catalog" => return Ok(Route::Catalog),
        "/livez" | "/healthz" => return Ok(Route::Live),
        "/readyz" => return Ok(Route::Ready),
        "/metrics" => return Ok(Route::Metrics),
        "/token" => return Ok(Route::Token),
        "/" => return Ok(Route::Overview),
        _ => {}
    }
    if let Some(name) = path.strip_prefix("/repositories/") {
        let parts: Option<Vec<String>> = name.split('/').map(decode).collect();
        let parts = parts.unwrap_or_default();
        return repository(&parts.iter().map(String::as_str).collect::<Vec<_>>()).map(Route::Contents);
    }
    let rest = path.strip_prefix("/v2/").ok_or_else(nowhere)?;
    let parts: Option<Vec<String>> = rest.split('/').map(decode).collect();
    let parts = parts.ok_or_else(|| Refusal::bad(Code::NameInvalid, "the path is not valid"))?;
    in_repository(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The last words of a path say what it is about, because a repository may be called `a/tags/list` in part.
fn in_repository(parts: &[&str]) -> Result<Route, Refusal> {
    let name = |words: usize| repository(&parts[..parts.len() - words]);
    match parts {
        [.., _, "blobs", "uploads"] => Ok(Route::Uploads(name(2)?)),
        [.., _, "blobs", "uploads", ""] => Ok(Route::Uploads(name(3)?)),
        [.., _, "blobs", "uploads", id] => {
            let repository = name(3)?;
            let id = UploadId::parse(id).ok_or_else(unknown_upload)?;
            Ok(Route::Upload(repository, id))
        }
        [.., _, "tags", "list"] => Ok(Route::Tags(name(2)?)),
        [.., _, "blobs", digest] => Ok(Route::Blob(name(2)?, parse_digest(digest)?)),
        [.., _, "referrers", digest] => Ok(Route::Referrers(name(2)?, parse_digest(digest)?)),
        [.., _, "manifests", reference] => Ok(Route::Manifest(name(2)?, manifest_name(reference)?)),
        _ => Err(nowhere()),
    }
}

fn repository(parts: &[&str]) -> Result<Repository, Refusal> {
    parts
        .join("/")
        .parse()
        .map_err(|error: mica_oci::RepositoryError| Refusal::bad(Code::NameInvalid, error.to_string()))
}

/// Reads a digest of a path or a query.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: mica_oci::DigestError| Refusal::bad(Code::DigestInvalid, error.to_string()))
}

fn manifest_name(text: &str) -> Result<ManifestName, Refusal> {
    if text.contains(':') {
        return parse_digest(text).map(ManifestName::Digest);
    }
    parse_tag(text).map(ManifestName::Tag)
}

/// Reads a tag of a path or a query.
pub(crate) fn parse_tag(text: &str) -> Result<Tag, Refusal> {
    text.parse().map_err(|_| {
        Refusal::bad(
            Code::TagInvalid,
            "a tag is at most 128 letters, digits, dots, hyphens and underscores, and does not begin with . or -",
        )
    })
}

pub(crate) fn unknown_upload() -> Refusal {
    Refusal::missing(Code::BlobUploadUnknown, "no such upload; it ended, expired, or never was")
}

fn nowhere() -> Refusal {
    Refusal::missing(Code::NameUnknown, "nothing is served under this path")
}

/// Percent-decoding, once. `None` for escapes that are none, and for what is no text.
pub(crate) fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (escape, after) = after.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(escape[0])? * 16 + digit(escape[1])?;
        bytes.push(u8::try_from(value).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The values of a query string, decoded, in order. Broken pairs are left out.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the `?`.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
                })
                .collect(),
        )
    }

    /// The first value of a key.
    pub(crate) fn get<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }

    /// All values of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn paths_lead_where_they_say() {
        let repository: Repository = "a/b".parse().unwrap();
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(parse("/v2/").unwrap(), Route::Base);
        assert_eq!(parse("/v2/a/b/tags/list").unwrap(), Route::Tags(repository.clone()));
        assert_eq!(parse("/v2/%61/b/tags/list").unwrap(), Route::Tags(repository.clone()));
        assert_eq!(
            parse(&format!("/v2/a/b/blobs/sha256:{HEX}")).unwrap(),
            Route::Blob(repository.clone(), digest)
        );
        assert_eq!(parse("/v2/a/b/blobs/uploads/").unwrap(), Route::Uploads(repository.clone()));
        assert_eq!(
            parse("/v2/a/b/manifests/v1").unwrap(),
            Route::Manifest(repository, ManifestName::Tag("v1".parse().unwrap()))
        );
        let odd = parse("/v2/tags/list/tags/list").unwrap();
        assert_eq!(odd, Route::Tags("tags/list".parse().unwrap()));
    }

    #[test]
    fn names_that_are_none_are_refused_with_the_code_of_the_specification() {
        for (path, status, code) in [
            ("/v2/UPPER/Case/tags/list", 400, Code::NameInvalid),
            ("/v2/a-/b/tags/list", 400, Code::NameInvalid),
            ("/v2/a%00b/tags/list", 400, Code::NameInvalid),
            ("/v2/a%zz/tags/list", 400, Code::NameInvalid),
            ("/v2//a/tags/list", 400, Code::NameInvalid),
            ("/v2/../../../etc/passwd", 404, Code::NameUnknown),
            ("/v2/%2e%2e/%2e%2e/evil/blobs/uploads/", 400, Code::NameInvalid),
            ("/v2/a/manifests/..%2f..%2fevil", 400, Code::TagInvalid),
            ("/v2/a/blobs/sha256:..%2f..%2fetc%2fpasswd", 400, Code::DigestInvalid),
            ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, Code::DigestInvalid),
            ("/v2/a/blobs/sha256:e3b0", 400, Code::DigestInvalid),
            ("/v2/a/manifests/sha256:baddigeststring", 400, Code::DigestInvalid),
            ("/v2/a/referrers/sha256:zz", 400, Code::DigestInvalid),
            ("/v2/a/blobs/uploads/..", 404, Code::BlobUploadUnknown),
            ("//v2//c", 404, Code::NameUnknown),
        ] {
            let refusal = parse(path).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (status, code), "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_an_answer(path in "\\PC{0,80}") {
            let _answer = parse(&path);
        }

        #[test]
        fn no_name_climbs(path in "/v2/[a-z.%/2ef]{0,40}/(tags/list|blobs/uploads/)") {
            if let Ok(Route::Tags(repository) | Route::Uploads(repository)) = parse(&path) {
                prop_assert!(!repository.as_str().split('/').any(|part| part.is_empty() || part.starts_with('.')));
            }
        }
    }
}
