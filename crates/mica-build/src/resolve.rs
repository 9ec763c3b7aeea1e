//! Finding base images: in the store, in their registry, or in an OCI layout given as a named context.

use std::cell::RefCell;
use std::collections::HashMap;

use mica_api::{Cancel, Class, Error, NamedContext as Given, TransferUpdate};
use mica_distribution::{Directory, FoundImage, read_images};
use mica_frontend::{NamedContext, ResolveError, ResolvedBase, Resolver};
use mica_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference};
use mica_solve::{Remote, SourceOp};
use mica_store::{LayerId, Lease, StoreError};

use crate::Workshop;
use crate::intake::bring_in;
use crate::progress::{Progress, Step};
use crate::registry::{PullOrder, Transfers, WantedPlatform, pull};
use crate::remote::Remotes;

/// The most bytes an image config may have (security.md section 5).
const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

/// Answers the frontend's questions, and says so as `[internal] load metadata for …`.
pub(crate) struct Bases<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) lease: &'a Lease,
    pub(crate) named: &'a [(String, Given)],
    pub(crate) remotes: &'a Remotes<'a>,
    pub(crate) progress: &'a Progress<'a>,
    pub(crate) cancel: &'a Cancel,
    /// Whether tags are asked for again although they are here (K10).
    pub(crate) pull: bool,
    pub(crate) known: RefCell<HashMap<(String, Platform), ResolvedBase>>,
    /// The layers of every image resolved, by manifest: what `Op::Source(Image)` stands for.
    pub(crate) layers: RefCell<HashMap<Digest, Vec<LayerId>>>,
}

impl Resolver for Bases<'_> {
    fn named_context(&self, name: &str, platform: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        let with_platform = format!("{name}::{platform}");
        let given = self.named.iter().rfind(|(key, _)| *key == with_platform);
        let Some((key, given)) = given.or_else(|| self.named.iter().rfind(|(key, _)| is_named(key, name)))
        else {
            return Ok(None);
        };
        match given {
            Given::Directory(_) => Ok(Some(NamedContext::Local { name: key.clone() })),
            Given::Remote(url) => {
                let remote =
                    Remote::parse_context(url).map_err(|error| ResolveError::caused_by(&**url, error))?;
                let source = match remote {
                    Some(Remote::Http(http)) => SourceOp::Http(http),
                    Some(Remote::Git(git)) => SourceOp::Git(git),
                    None => {
                        return Err(ResolveError::new(format!("{url} is neither a URL nor a repository")));
                    }
                };
                Ok(Some(NamedContext::Remote { url: url.clone(), source }))
            }
            Given::Image(reference) => {
                self.image(&reference.to_string(), platform).map(Box::new).map(NamedContext::Image).map(Some)
            }
            Given::OciLayout { path, tag, digest } => {
                let step =
                    self.progress.internal(format!("[context {key}] load metadata for {}", path.display()));
                let found = self.layout(path, tag.as_deref(), digest.as_ref(), platform);
                match &found {
                    Ok(_) => step.done(),
                    Err(error) => step.failed(error.to_string()),
                }
                found.map(Box::new).map(NamedContext::Image).map(Some)
            }
        }
    }

    fn image(&self, reference: &str, platform: &Platform) -> Result<ResolvedBase, ResolveError> {
        let key = (reference.to_owned(), platform.clone());
        if let Some(base) = self.known.borrow().get(&key) {
            return Ok(base.clone());
        }
        let step = self.progress.internal(format!("[internal] load metadata for {reference}"));
        match self.found(reference, platform, &step) {
            Ok(base) => {
                step.done();
                self.known.borrow_mut().insert(key, base.clone());
                Ok(base)
            }
            Err(error) => {
                step.failed(error.to_string());
                Err(error)
            }
        }
    }

    fn time(&self, source: &SourceOp) -> Result<Option<i64>, ResolveError> {
        self.time_of(source).map_err(|error| ResolveError::new(error.to_string()))
    }
}

impl Bases<'_> {
    fn time_of(&self, source: &SourceOp) -> Result<Option<i64>, mica_api::Error> {
        match source {
            SourceOp::Git(_) => self.remotes.git_time(source).map(Some),
            SourceOp::Http(_) => Ok(self.remotes.resolve(source)?.seconds),
            SourceOp::Image { .. } | SourceOp::Local(_) => Ok(None),
        }
    }
}

/// Whether `--build-context key=…` is meant by `name`: they are compared as references, so `alpine` is `alpine:latest`.
fn is_named(key: &str, name: &str) -> bool {
    let normal = |text: &str| text.parse::<Reference>().map(Reference::or_latest);
    key == name || matches!((normal(key), normal(name)), (Ok(key), Ok(name)) if key == name)
}

impl Bases<'_> {
    /// An image of the store, or of its registry (K10).
    fn found(&self, text: &str, platform: &Platform, step: &Step<'_>) -> Result<ResolvedBase, ResolveError> {
        let reference: Reference = text.parse().map_err(|error| ResolveError::caused_by(text, error))?;
        let reference = reference.or_latest();
        if !self.pull
            && let Some(base) = self.stored(&reference, platform)?
        {
            return Ok(base);
        }
        let tell = |update: TransferUpdate| step.transfer(&update);
        let transfers =
            Transfers { workshop: self.workshop, lease: self.lease, cancel: self.cancel, tell: &tell };
        let wanted = WantedPlatform::OfIndex(platform);
        let order = PullOrder { reference: &reference, platform: wanted, pinned: !self.pull };
        let pulled = pull(transfers, order);
        for remark in self.workshop.registries.take_remarks() {
            self.progress.notice(format!("WARNING: {remark}"));
        }
        pulled.map_err(|error| not_had(&reference, &error))?;
        self.stored(&reference, platform)?.ok_or_else(|| {
            ResolveError::new(format!(
                "{reference}: no match for platform in manifest: it is not for {platform}"
            ))
        })
    }

    /// An image of the store, protected by the build's lease; `None` if it has no content for the platform.
    fn stored(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<ResolvedBase>, ResolveError> {
        let failed = |error| ResolveError::caused_by(reference.to_string(), error);
        let Some(record) = self.workshop.store.image_by_name(reference).map_err(failed)? else {
            return Ok(None);
        };
        self.protect(&record.target.digest).map_err(failed)?;
        let bytes = self.blob(&record.target.digest, Document::LIMIT_BYTES as u64)?;
        let document = Document::parse(&bytes, &record.target.media_type);
        let document = document.map_err(|error| ResolveError::caused_by(reference.to_string(), error))?;
        let (digest, manifest) = match document {
            Document::Manifest(manifest) => (record.target.digest.clone(), manifest),
            Document::Index(index) => {
                let fits = |entry: &&Descriptor| {
                    self.is_here(&entry.digest)
                        && entry.platform.as_ref().is_some_and(|candidate| candidate.matches(platform))
                };
                let Some(entry) = index.manifests.iter().find(fits) else { return Ok(None) };
                (entry.digest.clone(), self.manifest(&entry.digest)?)
            }
        };
        self.resolved(reference.to_string(), digest, &manifest).map(Some)
    }

    /// Whether the layers of a manifest are here; of one without layers the store lists nothing.
    fn is_here(&self, manifest: &Digest) -> bool {
        self.layers.borrow().contains_key(manifest)
            || self.manifest(manifest).is_ok_and(|manifest| manifest.layers.is_empty())
    }

    /// Nothing of the image is collected while the build runs; notes which layers its manifests have.
    fn protect(&self, target: &Digest) -> Result<(), StoreError> {
        let Some(contents) = self.workshop.store.image_contents(target)? else { return Ok(()) };
        self.lease.protect_blobs(&contents.blobs)?;
        for manifest in contents.manifests {
            self.lease.protect_layers(&manifest.layers)?;
            self.layers.borrow_mut().insert(manifest.manifest, manifest.layers);
        }
        Ok(())
    }

    fn manifest(&self, digest: &Digest) -> Result<Manifest, ResolveError> {
        let bytes = self.blob(digest, Document::LIMIT_BYTES as u64)?;
        match Document::parse(&bytes, "") {
            Ok(Document::Manifest(manifest)) => Ok(manifest),
            Ok(Document::Index(_)) => Err(ResolveError::new(format!("{digest} is an index in an index"))),
            Err(error) => Err(ResolveError::caused_by(digest.to_string(), error)),
        }
    }

    fn blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, ResolveError> {
        self.workshop
            .store
            .read_blob(digest, limit_bytes)
            .map_err(|error| ResolveError::caused_by(digest.to_string(), error))
    }

    fn resolved(
        &self,
        reference: String,
        digest: Digest,
        manifest: &Manifest,
    ) -> Result<ResolvedBase, ResolveError> {
        let bytes = self.blob(&manifest.config.digest, CONFIG_LIMIT_BYTES)?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|error| ResolveError::caused_by(format!("config of {reference}"), error))?;
        Ok(ResolvedBase { reference, manifest: digest, config, layers_count: manifest.layers.len() })
    }

    /// An image of an OCI layout: its layers come into the store, so that everything after is as with stored images.
    fn layout(
        &self,
        path: &std::path::Path,
        tag: Option<&str>,
        digest: Option<&Digest>,
        platform: &Platform,
    ) -> Result<ResolvedBase, ResolveError> {
        let name = format!("oci-layout://{}", path.display());
        let files = Directory::open(path).map_err(|error| ResolveError::caused_by(&*name, error))?;
        let images = read_images(&files, None).map_err(|error| ResolveError::caused_by(&*name, error))?;
        let image = pick(&images, tag, digest)
            .ok_or_else(|| ResolveError::new(format!("{name}: no entry {}", tag.unwrap_or("latest"))))?;
        let matching = image.manifests.iter().find(|found| found.config.platform().matches(platform));
        let found =
            matching.or(image.manifests.first().filter(|_| image.manifests.len() == 1)).ok_or_else(|| {
                let has: Vec<String> =
                    image.manifests.iter().map(|found| found.config.platform().to_string()).collect();
                ResolveError::new(format!("{name} has {}, not {platform}", has.join(", ")))
            })?;
        let local = bring_in(self.workshop, &files, found, self.lease, self.cancel, None)
            .map_err(|error| ResolveError::caused_by(&*name, error))?;
        self.layers.borrow_mut().insert(local.descriptor.digest.clone(), local.layers);
        self.resolved(name, local.descriptor.digest, &local.manifest)
    }
}

/// O3: the entry asked for, else `latest`, else the only one.
fn pick<'a>(images: &'a [FoundImage], tag: Option<&str>, digest: Option<&Digest>) -> Option<&'a FoundImage> {
    if let Some(digest) = digest {
        return images
            .iter()
            .find(|image| image.target.as_ref().is_some_and(|target| target.digest == *digest));
    }
    let tagged = |wanted: &str| {
        images.iter().find(|image| {
            image.tag.as_deref() == Some(wanted)
                || image.names.iter().any(|name| name.tag().is_some_and(|tag| tag.as_str() == wanted))
        })
    };
    match tag {
        Some(tag) => tagged(tag),
        None => tagged("latest").or(images.first().filter(|_| images.len() == 1)),
    }
}

/// BuildKit's words, and why.
fn not_had(reference: &Reference, error: &Error) -> ResolveError {
    let mut text = format!("failed to resolve source metadata for {reference}: ");
    match error.class {
        // `pull` has docker's words for it, a build has BuildKit's
        Class::NotFound if error.message.ends_with("not found: manifest unknown") => {
            text.push_str(&format!("{reference}: not found"));
        }
        Class::NotFound if !error.message.contains("not found") => {
            text.push_str(&format!("{}: not found", error.message));
        }
        _ => text.push_str(&error.message),
    }
    if let Some(why) = &error.why {
        text.push_str(&format!(": {why}"));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!(" ({hint})"));
    }
    ResolveError::new(text)
}
