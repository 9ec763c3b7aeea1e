//! The image of a result in the form that an output asks for: annotations, media types, times (build.md 5.4, 5.5, 6.6).

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::sync::Arc;
use std::thread;

use mica_api::{AnnotationTarget, Cancel, Class, Error, ImageForm};
use mica_archive::{Entry, Table, TarFormat, Timestamp, View};
use mica_frontend::Converted;
use mica_oci::Platform;
use mica_store::{LayerId, Lease, StoreError};
use mica_sys::root::Root;

use crate::Workshop;
use crate::intake::bring_in_layer;
use crate::publish::{ImageDraft, ManifestForm, write_image};

/// What images are made with.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) lease: &'a Lease,
    pub(crate) cancel: &'a Cancel,
}

/// An image, written but without names.
pub(crate) struct Rendition {
    pub(crate) draft: ImageDraft,
    /// Its layers: those of the result, or rewritten ones.
    pub(crate) stack: Vec<LayerId>,
    pub(crate) form: ManifestForm,
    /// Annotations of the manifest's descriptor.
    pub(crate) descriptor_annotations: BTreeMap<String, String>,
}

impl Rendition {
    /// Makes the image of a result.
    ///
    /// # Errors
    /// Annotations of an index where there is none, layers that are gone, a store that refuses.
    pub(crate) fn make(
        tools: Tools<'_>,
        converted: &Converted,
        stack: &[LayerId],
        asked: &ImageForm,
    ) -> Result<Self, Error> {
        let platform = converted.config.platform();
        let annotations = Annotations::of(asked, &platform)?;
        let epoch = converted.epoch.filter(|_| asked.rewrite_timestamp);
        let stack = match epoch {
            Some(epoch) => rewrite(tools, stack, converted.base_layers, epoch)?,
            None => stack.to_vec(),
        };
        let form = ManifestForm {
            docker_media_types: asked.docker_media_types,
            annotations: annotations.manifest,
            rewritten: epoch.map(|epoch| (converted.base_layers, epoch)),
        };
        let draft = write_image(tools.workshop, converted.config.clone(), &stack, &form, tools.lease)?;
        Ok(Self { draft, stack, form, descriptor_annotations: annotations.descriptor })
    }
}

struct Annotations {
    manifest: BTreeMap<String, String>,
    descriptor: BTreeMap<String, String>,
}

impl Annotations {
    /// Those that are for this platform (N1).
    fn of(form: &ImageForm, platform: &Platform) -> Result<Self, Error> {
        let mut all = Self { manifest: BTreeMap::new(), descriptor: BTreeMap::new() };
        for annotation in &form.annotations {
            if annotation.platform.as_ref().is_some_and(|wanted| !wanted.matches(platform)) {
                continue;
            }
            let target = match annotation.target {
                AnnotationTarget::Manifest => &mut all.manifest,
                AnnotationTarget::ManifestDescriptor => &mut all.descriptor,
                AnnotationTarget::Index | AnnotationTarget::IndexDescriptor => {
                    let problem = "index annotations not supported for single platform export";
                    return Err(
                        Error::new(Class::Invalid, problem).why(format!("annotation {}", annotation.key))
                    );
                }
            };
            target.insert(annotation.key.clone(), annotation.value.clone());
        }
        Ok(all)
    }
}

/// G12: the layers of this build with no time after the epoch; layers that have none stay the same.
fn rewrite(tools: Tools<'_>, stack: &[LayerId], first: usize, epoch: i64) -> Result<Vec<LayerId>, Error> {
    let store = &tools.workshop.store;
    let mut rewritten = stack[..first.min(stack.len())].to_vec();
    let mut below = View::empty();
    for id in &rewritten {
        below.push(store.table(*id)?);
    }
    for id in &stack[rewritten.len()..] {
        let table = store.table(*id)?;
        let id = if table.entries().iter().any(|entry| is_after(entry, epoch)) {
            let record = store.layer(*id)?.ok_or(StoreError::LayerGone(*id))?;
            clamp(tools, &table, &store.state().layer_fs(record.id), &below, epoch)?
        } else {
            *id
        };
        below.push(store.table(id)?);
        rewritten.push(id);
    }
    Ok(rewritten)
}

fn is_after(entry: &Entry, epoch: i64) -> bool {
    entry.mtime > Timestamp { seconds: epoch, nanoseconds: 0 }
}

/// A layer like another one but for its times: written as a tar and unpacked beside it.
fn clamp(
    tools: Tools<'_>,
    table: &Arc<Table>,
    files: &std::path::Path,
    below: &View,
    epoch: i64,
) -> Result<LayerId, Error> {
    let failed = |error: io::Error| {
        Error::new(Class::of_io(&error), "cannot rewrite the times of a layer").why(error.to_string())
    };
    let entries = table.entries().iter().cloned().map(|mut entry| {
        if is_after(&entry, epoch) {
            entry.mtime = Timestamp { seconds: epoch, nanoseconds: 0 };
        }
        entry
    });
    let clamped = Table::from_entries(entries.collect())
        .map_err(|error| Error::new(Class::Internal, "cannot list a layer").why(error.to_string()))?;
    let root = Root::open(files).map_err(failed)?;
    let (mut reader, writer) = io::pipe().map_err(failed)?;
    thread::scope(|scope| {
        let cancel = tools.cancel;
        let produce = thread::Builder::new().spawn_scoped(scope, move || {
            let mut writer = BufWriter::with_capacity(256 << 10, writer);
            mica_archive::write_tar(&clamped, &root, &mut writer, TarFormat::V1, &|| cancel.is_cancelled())
                .map_err(io::Error::other)?;
            writer.flush()
        });
        let produce = produce.map_err(failed)?;
        let layer = bring_in_layer(tools.workshop, &mut reader, Some(below), None, tools.lease, cancel);
        drop(reader);
        let produced = produce.join().map_err(|_| io::Error::other("the tar writer panicked"));
        let layer = layer?;
        produced.map_err(failed)?.map_err(failed)?;
        Ok(layer.id)
    })
}
