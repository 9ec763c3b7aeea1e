//! `mica manifest push` and `rm`: a list becomes an index of a registry, or nothing.

use mica_api::{Class, Error};
use mica_engine::{ListItem, ManifestName, Registries, Repository, Upload};
use mica_oci::{Descriptor, Index, Reference, media_type};

use super::{failed, lists, name_of, named, registries};
use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;

/// Push a list of manifests as an index
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Accept registries without TLS or with any certificate
    #[arg(long)]
    insecure: bool,
    /// Forget the list here once it is pushed
    #[arg(short, long)]
    purge: bool,
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: String,
}

impl Verb for PushArgs {
    const USAGE: &'static str = "[OPTIONS] LIST";

    fn run(self, cx: &Cx) -> Outcome {
        let (list, lists) = (named(&self.list)?, lists(cx));
        let items = lists.items(&list).map_err(failed)?.ok_or_else(|| absent(&list))?;
        let registries = registries(cx, self.insecure);
        let descriptor = send(cx, &registries, &list, &items)?;
        if self.purge {
            lists.remove(&list).map_err(failed)?;
        }
        cx.out.line(&descriptor.digest.to_string())?;
        Ok(Status::default())
    }
}

fn send(
    cx: &Cx,
    registries: &Registries,
    list: &Reference,
    items: &[ListItem],
) -> Result<Descriptor, Failure> {
    let repository = registries.repository(list).map_err(failed)?;
    let mut entries = Vec::new();
    for item in items {
        let from: Reference = item.reference.parse().map_err(|error: mica_oci::ReferenceError| {
            Failure::new(Class::Corrupt, format!("{:?} in the list: {error}", item.reference))
        })?;
        if from.registry() != list.registry() {
            let text = format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                from.registry(),
                list.registry()
            );
            return Err(Failure::new(Class::Invalid, text));
        }
        if from.repository() != list.repository() {
            mount(cx, &repository, &from, item)?;
        }
        entries.push(item.descriptor.clone());
    }
    let is_oci = entries.iter().all(|entry| entry.media_type == media_type::OCI_MANIFEST);
    let mut index = Index::new(entries);
    let kind = if is_oci { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
    index.media_type = kind.to_owned();
    let bytes = index.to_bytes();
    let name = name_of(list).ok_or_else(|| absent(list))?;
    repository.put_manifest(&name, kind, &bytes, &cx.cancel).map_err(failed)?;
    Ok(Descriptor::of(kind, &bytes))
}

/// Brings an image of another repository of the registry into the list's.
fn mount(cx: &Cx, to: &Repository<'_>, from: &Reference, item: &ListItem) -> Result<(), Failure> {
    let Some((bytes, manifest)) = item.manifest() else {
        return Err(Failure::new(Class::Corrupt, format!("the list's copy of {from} is damaged")));
    };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let mounted = to.begin_upload(&blob.digest, Some(from.repository()), &cx.cancel).map_err(failed)?;
        if let Upload::Session(_) = mounted {
            let text = format!("error mounting {} of {}", blob.digest, from.familiar());
            return Err(Error::new(Class::Denied, text)
                .why("the registry does not mount it from there")
                .hint("push the image to the list's own repository")
                .into());
        }
    }
    let name = ManifestName::Digest(item.descriptor.digest.clone());
    to.put_manifest(&name, &item.descriptor.media_type, &bytes, &cx.cancel).map_err(failed)
}

fn absent(list: &Reference) -> Error {
    Error::new(Class::NotFound, format!("No such manifest: {}", list.familiar()))
}

/// Forget lists of manifests that are put together here
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Names of lists
    #[arg(value_name = "LIST")]
    lists: Vec<String>,
}

impl Verb for RmArgs {
    const USAGE: &'static str = "LIST [LIST...]";

    fn run(self, cx: &Cx) -> Outcome {
        let folder = lists(cx);
        for text in &self.lists {
            let list = named(text)?;
            if !folder.remove(&list).map_err(failed)? {
                return Err(absent(&list).into());
            }
        }
        Ok(Status::default())
    }
}
