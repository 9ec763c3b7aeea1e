//! ADD of a file from a web server.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use mica_api::{Class, Error};
use mica_distribution::HttpResponse;
use mica_oci::{Algorithm, Digest, Hasher};
use mica_solve::{CacheKey, HttpSource, KeyHasher};
use mica_store::{Fetched, LayerId};

use super::{Found, Remotes, Resolved};
use crate::hit::find;

/// The most bytes a file may have (security.md section 5: a layer).
const LIMIT_BYTES: u64 = 64 << 30;
/// The mode of downloaded files (A3).
const MODE: u32 = 0o600;

/// A file that was fetched.
#[derive(Debug)]
pub(super) struct Body {
    /// A directory with nothing but the file.
    directory: PathBuf,
    digest: Digest,
    seconds: Option<i64>,
}

impl Remotes<'_> {
    pub(super) fn resolve_http(&self, source: &HttpSource) -> Result<Resolved, Error> {
        if let Some(checksum) = &source.checksum {
            let key = key_by_checksum(source, checksum);
            return Ok(Resolved { key, seconds: None, found: Found::Http(None) });
        }
        let known = match self.workshop.store.fetched(&source.url)? {
            Some(known) => {
                find(self.workshop, CacheKey::from_bytes(known.content), self.lease)?.map(|_| known)
            }
            None => None,
        };
        let mut headers = Vec::new();
        if let Some(known) = &known {
            match (&known.etag, &known.last_modified) {
                (Some(etag), _) => headers.push(("If-None-Match", etag.as_str())),
                (None, Some(time)) => headers.push(("If-Modified-Since", time.as_str())),
                (None, None) => {}
            }
        }
        let response = self.workshop.http.get(&source.url, &headers, self.cancel)?;
        if let (304, Some(known)) = (response.status(), &known) {
            let key = CacheKey::from_bytes(known.content);
            let seconds = known.last_modified.as_deref().and_then(seconds);
            return Ok(Resolved { key, seconds, found: Found::Http(None) });
        }
        let header = |name: &str| response.header(name).map(str::to_owned);
        let (etag, last_modified) = (header("etag"), header("last-modified"));
        let body = self.download(source, response)?;
        let key = key(source, &body);
        self.workshop
            .store
            .note_fetched(&source.url, &Fetched { etag, last_modified, content: *key.as_bytes() })?;
        Ok(Resolved { key, seconds: body.seconds, found: Found::Http(Some(body)) })
    }

    pub(super) fn fetch_http(&self, source: &HttpSource, body: Option<&Body>) -> Result<LayerId, Error> {
        match body {
            Some(body) => self.import(&body.directory, &[], 0),
            None => {
                let response = self.workshop.http.get(&source.url, &[], self.cancel)?;
                let body = self.download(source, response)?;
                self.import(&body.directory, &[], 0)
            }
        }
    }

    /// Writes a body to where it can become a layer, and looks at what it is.
    fn download(&self, source: &HttpSource, mut response: HttpResponse<'_>) -> Result<Body, Error> {
        if !(200..300).contains(&response.status()) {
            return Err(Error::new(Class::Build, format!("invalid response status {}", response.status())));
        }
        let seconds = response.header("last-modified").and_then(seconds);
        let directory = self.lease.scratch()?;
        let failed = |error: io::Error| {
            Error::new(Class::of_io(&error), format!("cannot fetch {}", source.url)).why(error.to_string())
        };
        let mut file = File::create_new(directory.join(&source.file_name)).map_err(failed)?;
        let digest = copy_hashing(&mut response, &mut file).map_err(failed)?;
        if let Some(expected) = &source.checksum
            && digest != *expected
        {
            let text = format!("digest mismatch for {}: {digest} (expected: {expected})", source.url);
            return Err(Error::new(Class::Build, text));
        }
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        let time = Duration::from_secs(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0));
        file.set_modified(UNIX_EPOCH + time).map_err(failed)?;
        Ok(Body { directory, digest, seconds })
    }
}

fn copy_hashing(from: &mut dyn Read, to: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += count as u64;
        if total > LIMIT_BYTES {
            return Err(io::Error::other(format!("the file is larger than {LIMIT_BYTES} bytes")));
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
}

/// What a file is: its name, its bytes, its time.
fn key(source: &HttpSource, body: &Body) -> CacheKey {
    let mut hasher = KeyHasher::new("http");
    hasher.json(&(&source.file_name, &body.digest, body.seconds));
    hasher.finish()
}

/// With a checksum the server need not be asked.
fn key_by_checksum(source: &HttpSource, checksum: &Digest) -> CacheKey {
    let mut hasher = KeyHasher::new("http checksum");
    hasher.json(&(&source.file_name, checksum));
    hasher.finish()
}

/// `Last-Modified` as seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_read() {
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(seconds("yesterday"), None);
    }
}
