//! `mica manifest inspect`: a manifest or a list, from the client or a registry.

use mica_api::{Class, Error};
use mica_engine::{FetchedManifest, ListItem, ManifestName};
use mica_oci::{Descriptor, Document, Reference, media_type};
use serde::Serialize as _;
use serde_json::{Value, json};

use super::{item_of, lists, named, no_such, registries};
use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;

/// Show a manifest or an index, of a registry or as it is put together here
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Accept registries without TLS or with any certificate
    #[arg(long)]
    insecure: bool,
    /// Show descriptors and contents too
    #[arg(short, long)]
    verbose: bool,
    /// A list that is put together here, and an image; or an image alone
    #[arg(value_name = "[LIST] NAME")]
    names: Vec<String>,
}

impl Verb for InspectArgs {
    const USAGE: &'static str = "[OPTIONS] [LIST] NAME";

    fn run(self, cx: &Cx) -> Outcome {
        let text = match &self.names[..] {
            [name] => self.of_name(cx, &named(name)?)?,
            [list, name] => self.of_list(cx, &named(list)?, &named(name)?)?,
            _ => return Err(Failure::new(Class::Invalid, "'manifest inspect' takes one or two names")),
        };
        cx.out.line(&text)?;
        Ok(Status::default())
    }
}

impl InspectArgs {
    fn of_list(&self, cx: &Cx, list: &Reference, name: &Reference) -> Result<String, Failure> {
        let items = lists(cx).items(list).map_err(super::failed)?;
        let items = items.ok_or_else(|| no_list(list))?;
        let found = items.into_iter().find(|item| item.reference == name.to_string());
        let item = found.ok_or_else(|| no_list(name))?;
        if self.verbose {
            return indented(&json!(item), "\t");
        }
        let bytes = item.manifest().map(|(bytes, _)| bytes).unwrap_or_default();
        indented(&serde_json::from_slice(&bytes).unwrap_or_default(), "\t")
    }

    fn of_name(&self, cx: &Cx, name: &Reference) -> Result<String, Failure> {
        if let Some(items) = lists(cx).items(name).map_err(super::failed)? {
            if self.verbose {
                return indented(&json!(items), "\t");
            }
            let descriptors: Vec<&Descriptor> = items.iter().map(|item| &item.descriptor).collect();
            return indented(&list_of(&descriptors, media_type::DOCKER_MANIFEST_LIST), "   ");
        }
        let registries = registries(cx, self.insecure);
        let repository = registries.repository(name).map_err(super::failed)?;
        let fetched = repository.manifest(&repository.named(), &cx.cancel);
        let fetched = fetched.map_err(|error| no_such(name, error))?;
        match &fetched.document {
            Document::Manifest(_) if self.verbose => {
                indented(&json!(item_of(cx, &repository, name, &fetched)?), "\t")
            }
            Document::Manifest(_) => indented(&read(&fetched.bytes)?, "\t"),
            Document::Index(index) if self.verbose => {
                let mut all = Vec::new();
                for entry in &index.manifests {
                    let found = repository.manifest(&ManifestName::Digest(entry.digest.clone()), &cx.cancel);
                    all.push(detailed(name, entry, &found.map_err(super::failed)?));
                }
                indented(&Value::Array(all), "\t")
            }
            Document::Index(index) => {
                let entries: Vec<&Descriptor> = index.manifests.iter().collect();
                indented(&list_of(&entries, &fetched.descriptor.media_type), "   ")
            }
        }
    }
}

/// An entry of an index with its bytes: also of what is no image, like attestations.
fn detailed(name: &Reference, entry: &Descriptor, fetched: &FetchedManifest) -> Value {
    json!(ListItem::new(&name.with_digest(entry.digest.clone()), entry.clone(), fetched))
}

fn no_list(name: &Reference) -> Error {
    Error::new(Class::NotFound, format!("No such manifest: {}", name.familiar()))
}

fn read(bytes: &[u8]) -> Result<Value, Failure> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map_err(|error| Failure::new(Class::Corrupt, format!("the manifest is no JSON: {error}")))
}

/// docker's rendering of lists: without annotations.
fn list_of(descriptors: &[&Descriptor], kind: &str) -> Value {
    let entries: Vec<Value> = descriptors
        .iter()
        .map(|descriptor| {
            json!({
                "mediaType": descriptor.media_type,
                "size": descriptor.size,
                "digest": descriptor.digest,
                "platform": descriptor.platform,
            })
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries })
}

fn indented(value: &Value, indent: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter));
    written.map_err(|error| Failure::new(Class::Internal, error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
