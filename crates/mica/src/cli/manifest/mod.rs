//! `mica manifest`: lists of manifests, put together on the client and pushed as an index (build.md 8.1).

mod annotate;
mod create;
mod inspect;
mod push;

pub(crate) use annotate::AnnotateArgs;
pub(crate) use create::CreateArgs;
pub(crate) use inspect::InspectArgs;
pub(crate) use push::{PushArgs, RmArgs};

use mica_api::{Class, Error};
use mica_engine::{
    FetchedManifest, ListItem, ManifestLists, ManifestName, Registries, RegistryError, Repository,
};
use mica_oci::{Document, ImageConfig, Reference};

use crate::cli::pull::parsed;
use crate::context::Cx;
use crate::failure::Failure;

/// The most bytes an image config may have (security.md section 5).
const CONFIG_LIMIT_BYTES: usize = 8 << 20;

fn lists(cx: &Cx) -> ManifestLists {
    ManifestLists::of(&cx.config_directory())
}

fn registries(cx: &Cx, insecure: bool) -> Registries {
    let mut settings = cx.registry_settings();
    settings.insecure = insecure;
    cx.registries_by(settings)
}

/// A name with a tag or digest.
fn named(text: &str) -> Result<Reference, Failure> {
    Ok(parsed(text)?.or_latest())
}

fn failed(error: RegistryError) -> Failure {
    Error::from(error).into()
}

/// docker's words for whatever keeps a manifest from being had, with the reason.
fn no_such(reference: &Reference, error: RegistryError) -> Failure {
    let error = Error::from(error);
    let why = match &error.why {
        Some(why) => format!("{}: {why}", error.message),
        None => error.message.clone(),
    };
    let mut shown =
        Error::new(Class::NotFound, format!("no such manifest: {}", reference.familiar())).why(why);
    shown.hint = error.hint;
    shown.into()
}

/// An image's manifest with its platform.
fn item(cx: &Cx, repository: &Repository<'_>, reference: &Reference) -> Result<ListItem, Failure> {
    let fetched = repository.manifest(&repository.named(), &cx.cancel);
    let fetched = fetched.map_err(|error| no_such(reference, error))?;
    item_of(cx, repository, reference, &fetched)
}

fn item_of(
    cx: &Cx,
    repository: &Repository<'_>,
    reference: &Reference,
    fetched: &FetchedManifest,
) -> Result<ListItem, Failure> {
    let Document::Manifest(manifest) = &fetched.document else {
        let text = format!("{} is a manifest list", reference.familiar());
        return Err(Failure::new(Class::Invalid, text));
    };
    let bytes = repository.blob(&manifest.config, CONFIG_LIMIT_BYTES, &cx.cancel).map_err(failed)?;
    let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(Class::Corrupt, format!("the config of {} is no image config", reference.familiar()))
            .why(error.to_string())
    })?;
    let mut descriptor = fetched.descriptor.clone();
    descriptor.platform = Some(config.platform());
    Ok(ListItem::new(reference, descriptor, fetched))
}

/// By tag or digest.
fn name_of(reference: &Reference) -> Option<ManifestName> {
    let digest = reference.digest().cloned().map(ManifestName::Digest);
    digest.or_else(|| reference.tag().cloned().map(ManifestName::Tag))
}
