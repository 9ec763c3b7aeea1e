//! Blobs from a registry: small ones into memory, others to whoever keeps them, resumed when the connection breaks.

use std::io;

use mica_api::Cancel;
use mica_oci::{Descriptor, Hasher};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response};

use super::client::{Repository, read_limited};
use super::error::RegistryError;
use super::retry;
use super::route::Endpoint;
use crate::HttpError;
use crate::http::unless_silent;

/// Takes the bytes of a blob in order.
pub trait BlobSink {
    /// How many bytes it has.
    fn at(&self) -> u64;
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk, or more bytes than the blob has.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Forgets what it has: the server starts from the beginning.
    ///
    /// # Errors
    /// The disk.
    fn restart(&mut self) -> io::Result<()>;
}

/// Why a stream of bytes ended early.
enum Broken {
    /// Another attempt may do better.
    Passing(RegistryError),
    /// No attempt will.
    Final(RegistryError),
}

impl Repository<'_> {
    /// A small blob, verified.
    ///
    /// # Errors
    /// It is larger than `limit_bytes`, has another digest, or nobody has it.
    pub fn blob(
        &self,
        descriptor: &Descriptor,
        limit_bytes: usize,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, RegistryError> {
        self.first(true, cancel, async |endpoint| {
            let response = self.ask_for_blob(endpoint, descriptor, 0, cancel).await?;
            let bytes = read_limited(response, limit_bytes, &endpoint.host).await?;
            let mut hasher = Hasher::new(descriptor.digest.algorithm());
            hasher.update(&bytes);
            let actual = hasher.finish();
            if actual != descriptor.digest {
                let (host, expected) = (endpoint.host.clone(), descriptor.digest.clone());
                return Err(RegistryError::Digest { host, expected, actual });
            }
            Ok(bytes)
        })
    }

    /// Brings a blob into a sink, from where the sink stopped before. The caller checks the digest.
    ///
    /// # Errors
    /// Nobody has it, or every attempt broke without bringing anything; what arrived stays in the sink.
    pub fn download(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let (own, mirrors) = self.endpoints.split_last().expect("a route ends at the registry itself");
        for mirror in mirrors.iter().filter(|mirror| mirror.serves(true)) {
            match self.download_from(mirror, descriptor, sink, cancel) {
                Err(error) if error.may_try_elsewhere() => {}
                done => return done,
            }
        }
        self.download_from(own, descriptor, sink, cancel)
    }

    fn download_from(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
        sink: &mut dyn BlobSink,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let mut attempt = 1;
        while sink.at() < descriptor.size || descriptor.size == 0 {
            let before = sink.at();
            let streamed = self.registries.wait(&endpoint.host, cancel, async {
                let response = self.ask_for_blob(endpoint, descriptor, before, cancel).await?;
                Ok(stream(endpoint, response, descriptor, sink).await)
            })?;
            match streamed {
                Ok(()) => return Ok(()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Passing(error)) => {
                    if sink.at() > before {
                        attempt = 1;
                    } else if attempt == retry::ATTEMPTS {
                        return Err(error);
                    }
                    let pause = retry::pause(attempt, None, retry::random());
                    self.registries.wait(&endpoint.host, cancel, async {
                        tokio::time::sleep(pause).await;
                        Ok(())
                    })?;
                    attempt += 1;
                }
            }
        }
        Ok(())
    }

    async fn ask_for_blob(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
        from: u64,
        cancel: &Cancel,
    ) -> Result<Response, RegistryError> {
        let path = format!("/blobs/{}", descriptor.digest);
        let doing = format!("cannot pull {} of {}", descriptor.digest, self.reference.familiar_name());
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-")).expect("digits");
            headers.insert(RANGE, range);
        }
        let response = self.ask_to_pull(Method::GET, endpoint, &path, headers, cancel).await?;
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            _ => Err(self.refused(endpoint, response, &doing, cancel).await),
        }
    }
}

/// Moves an answer's body to the sink; says whether breaking off is final.
async fn stream(
    endpoint: &Endpoint,
    mut response: Response,
    descriptor: &Descriptor,
    sink: &mut dyn BlobSink,
) -> Result<(), Broken> {
    let disk = |source| Broken::Final(RegistryError::Disk { action: "write", source });
    let answer = |problem: String| RegistryError::Answer { host: endpoint.host.clone(), problem };
    let begins = match response.status().as_u16() {
        206 => range_start(response.headers()),
        416 => None,
        _ => Some(0),
    };
    if begins != Some(sink.at()) {
        sink.restart().map_err(disk)?;
        if begins != Some(0) {
            return Err(Broken::Passing(answer("answers a request for a part with another part".to_owned())));
        }
    }
    let url = response.url().clone();
    loop {
        let piece = unless_silent(response.chunk(), &url).await;
        let piece = piece.and_then(|piece| piece.map_err(|source| HttpError::transport(&url, source)));
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => return Err(Broken::Passing(RegistryError::of_http(&endpoint.host, error))),
        };
        if sink.at() + piece.len() as u64 > descriptor.size {
            let problem = format!("sends more than the {} bytes of {}", descriptor.size, descriptor.digest);
            sink.restart().map_err(disk)?;
            return Err(Broken::Final(answer(problem)));
        }
        sink.take(&piece).map_err(disk)?;
    }
    if sink.at() < descriptor.size {
        let problem =
            format!("sends {} of the {} bytes of {}", sink.at(), descriptor.size, descriptor.digest);
        return Err(Broken::Passing(answer(problem)));
    }
    Ok(())
}

/// Where a part begins: `bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_begin_where_they_say() {
        let start = |text: &'static str| {
            range_start(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]))
        };
        assert_eq!(start("bytes 5-9/10"), Some(5));
        assert_eq!((start("bytes */10"), start("items 5-9/10")), (None, None));
    }
}
