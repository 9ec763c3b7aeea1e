//! One build from request to reply.

use std::cell::RefCell;
use std::sync::Mutex;

use mica_api::{
    BuildContext, BuildReply, BuildRequest, CacheDestination, Cancel, Class, Error, Event, EventSink,
    ImageForm, NoCache, Output, RegistryPush, TransferUpdate,
};
use mica_dockerfile::{Location, excerpt};
use mica_frontend::{ConvertError, ConvertRequest, Converted, Problem, convert};
use mica_oci::{Descriptor, ImageId, Platform};
use mica_runtime::Runtime;
use mica_solve::{Graph, NetworkMode, Op, SourceOp};
use mica_store::{LayerId, Lease};

use crate::cache::{self, CacheEntry, Imports};
use crate::contexts::{LocalContexts, MAIN};
use crate::execute::{Execution, Failure};
use crate::inputs::{self, Inputs};
use crate::lookup::{Known, look_up};
use crate::operation::Operations;
use crate::progress::Progress;
use crate::publish::{ImageDraft, publish_manifest};
use crate::registry::{Transfers, push_draft};
use crate::remote::Remotes;
use crate::rendition::{Rendition, Tools};
use crate::resolve::Bases;
use crate::{Workshop, check_command, export};

/// Builds an image.
///
/// # Errors
/// What is wrong with the request, the Dockerfile or a step; of a step with the excerpt that shows it (build.md P35).
pub fn build(
    workshop: &Workshop,
    request: BuildRequest,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<BuildReply, Error> {
    build_until(workshop, request, cancel, events).map_err(|error| match cancel.check() {
        // whatever stood in the way was there because the caller gave up
        Err(cancelled) => cancelled.into(),
        Ok(()) => error,
    })
}

fn build_until(
    workshop: &Workshop,
    mut request: BuildRequest,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<BuildReply, Error> {
    let lease = workshop.store.lease()?;
    let progress = Progress::new(events, workshop.store.create_journal(&lease.id().to_string()).ok());
    let context = std::mem::replace(&mut request.context, BuildContext::Directory(".".into()));
    let dockerfile = std::mem::replace(&mut request.dockerfile, mica_api::DockerfileSource::Default);
    let remotes = Remotes::new(workshop, &lease, &request.secrets, &request.ssh, cancel);
    let mut inputs = match &context {
        // what is fetched first has a step of its own
        BuildContext::Remote(_) => {
            let context = (context, keeps_git_directory(&request.build_args));
            inputs::open(context, dockerfile, &remotes, &progress)?
        }
        _ => {
            let name = inputs::title_of(&dockerfile);
            load_definition(&progress, &name, || {
                inputs::open((context, false), dockerfile, &remotes, &progress)
            })?
        }
    };
    let build = Build { workshop, request: &request, lease: &lease, progress: &progress, cancel };
    let bases = Bases {
        workshop,
        remotes: &remotes,
        lease: &lease,
        named: &request.named_contexts,
        progress: &progress,
        cancel,
        pull: request.pull,
        known: RefCell::default(),
        layers: RefCell::default(),
    };
    let converted = build.convert(&inputs, &bases)?;
    if let Some(violation) = &converted.violation {
        return Err(Error::new(Class::Build, violation.clone()));
    }
    if inputs.source.is_none() {
        load_ignore(&progress, &inputs);
    }
    let contexts = LocalContexts::open(&workshop.store, &mut inputs, &request.named_contexts, cancel)?;
    let (stack, entries) = build.execute(&converted, &inputs, &contexts, &bases)?;
    contexts.save();
    let reply = build.finish(converted, &stack, &entries)?;
    build.write_caches(&stack, &entries)?;
    Ok(reply)
}

/// The page of a Dockerfile rule: `FromAsCasing` is at `…/from-as-casing/`, `JSONArgsRecommended` at `…/json-args-…`.
fn page_of(rule: &str) -> String {
    let letters: Vec<char> = rule.chars().collect();
    let mut name = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| letters[index]);
        let ends_word = before.is_some_and(char::is_lowercase);
        let ends_acronym = before.is_some() && letters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (ends_word || ends_acronym) {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    format!("https://docs.docker.com/go/dockerfile/rule/{name}/")
}

/// V20: `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
fn keeps_git_directory(build_args: &[(String, String)]) -> bool {
    let given = build_args.iter().rfind(|(name, _)| name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    given.is_some_and(|(_, value)| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn load_definition(
    progress: &Progress<'_>,
    name: &str,
    open: impl FnOnce() -> Result<Inputs, Error>,
) -> Result<Inputs, Error> {
    let step = progress.internal(format!("[internal] load build definition from {name}"));
    match open() {
        Ok(inputs) => {
            step.status("transferring dockerfile:", inputs.dockerfile.len() as u64);
            step.done();
            Ok(inputs)
        }
        Err(error) => {
            step.failed(error.message.clone());
            Err(error)
        }
    }
}

fn load_ignore(progress: &Progress<'_>, inputs: &Inputs) {
    let step = progress.internal("[internal] load .dockerignore");
    step.status("transferring context:", inputs.ignore_bytes);
    step.done();
}

struct Build<'a> {
    workshop: &'a Workshop,
    request: &'a BuildRequest,
    lease: &'a Lease,
    progress: &'a Progress<'a>,
    cancel: &'a Cancel,
}

impl Build<'_> {
    fn convert(&self, inputs: &Inputs, bases: &Bases<'_>) -> Result<Converted, Error> {
        let build_args: Vec<(String, Option<String>)> =
            self.request.build_args.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
        let platform = self.request.platform.clone().unwrap_or_else(Platform::host);
        let request = ConvertRequest {
            target: self.request.target.as_deref(),
            build_args: &build_args,
            explicit_platform: self.request.platform.is_some(),
            platform,
            labels: &self.request.labels,
            no_cache: match &self.request.no_cache {
                NoCache::Off => mica_frontend::NoCache::Off,
                NoCache::All => mica_frontend::NoCache::All,
                NoCache::Stages(stages) => mica_frontend::NoCache::Stages(stages),
            },
            network: self.network()?,
            allow_host_network: self.request.entitlements.host_network,
            allow_insecure: self.request.entitlements.insecure,
            cgroup_parent: self.request.cgroup_parent.as_deref(),
            extra_hosts: &self.request.extra_hosts,
            shm_bytes: self.request.shm_bytes,
            ulimits: &self.request.ulimits,
            main_context: inputs.source.clone(),
            context_time: inputs.seconds,
            ignored: inputs.ignore.as_ref(),
            ..ConvertRequest::new(&inputs.dockerfile)
        };
        let converted = convert(&request, bases);
        let warnings = match &converted {
            Ok(converted) => &converted.warnings,
            Err(error) => &error.warnings,
        };
        for warning in warnings {
            self.progress.tell(Event::Warning {
                title: warning.rule.to_string(),
                message: warning.message.clone(),
                line: Some(warning.location.start),
                url: Some(page_of(warning.rule)),
                excerpt: Some(frame(inputs, warning.location)),
            });
        }
        converted.map_err(|error| convert_error(&error, inputs))
    }

    fn network(&self) -> Result<NetworkMode, Error> {
        match self.request.network.as_deref() {
            None | Some("default" | "") => Ok(NetworkMode::Default),
            Some("none") => Ok(NetworkMode::None),
            Some("host") => Ok(NetworkMode::Host),
            Some(other) => Err(Error::new(Class::Invalid, format!("invalid network mode {other:?}"))),
        }
    }

    fn execute(
        &self,
        converted: &Converted,
        inputs: &Inputs,
        contexts: &LocalContexts,
        bases: &Bases<'_>,
    ) -> Result<(Vec<LayerId>, Vec<CacheEntry>), Error> {
        let Some(target) = converted.target else { return Ok((Vec::new(), Vec::new())) };
        let runtime = match &self.request.runtime {
            Some(path) => Runtime::External(path.clone()),
            None => self.workshop.runtime.clone(),
        };
        let begun = bases.remotes.resolve_all(&converted.graph, self.progress);
        let mut known = self.look_up(&converted.graph, contexts, bases)?;
        let imports =
            Imports::open(self.workshop, self.lease, self.cancel, self.progress, &self.request.cache_from);
        imports.settle(&mut known, &converted.graph, target)?;
        // a failing step stops the others of this build, not whatever else the caller's flag guards
        let stop = self.cancel.child();
        let operations = Operations {
            workshop: self.workshop,
            lease: self.lease,
            graph: &converted.graph,
            contexts,
            remotes: bases.remotes,
            secrets: &self.request.secrets,
            agents: &self.request.ssh,
            resources: &self.request.resources,
            log_limits: self.request.log_limits,
            runtime: &runtime,
            progress: self.progress,
            cancel: &stop,
            views: Mutex::default(),
        };
        let execution =
            Execution::new(operations, known, begun, inputs.source.as_ref(), (&imports, self.cancel));
        let stack = execution.run(target).map_err(|failure| step_error(failure, &converted.graph, inputs))?;
        let entries = if self.request.cache_to.is_empty() { Vec::new() } else { execution.entries() };
        Ok((stack, entries))
    }

    /// Writes `--cache-to`. Inline ones are part of the image already.
    fn write_caches(&self, stack: &[LayerId], entries: &[CacheEntry]) -> Result<(), Error> {
        for to in &self.request.cache_to {
            let wanted = |entry: &&CacheEntry| to.max || stack.starts_with(&entry.layers);
            let entries: Vec<CacheEntry> = entries.iter().filter(wanted).cloned().collect();
            let Self { workshop, lease, cancel, .. } = *self;
            let (step, written) = match &to.destination {
                CacheDestination::Inline => continue,
                CacheDestination::Local { directory, tag, reset } => {
                    let step = self.progress.internal("exporting cache to client directory");
                    let place = (directory.as_path(), tag.as_str(), *reset);
                    let written = cache::write_local(workshop, place, to, &entries, lease, cancel, &step);
                    (step, written)
                }
                CacheDestination::Registry(name) => {
                    let step = self.progress.internal("exporting cache to registry");
                    let tell = |update: TransferUpdate| step.transfer(&update);
                    let transfers = Transfers { workshop, lease, cancel, tell: &tell };
                    let written = cache::write_registry(transfers, name, to, &entries);
                    (step, written)
                }
            };
            match written {
                Ok(()) => step.done(),
                Err(error) => {
                    step.failed(error.to_string());
                    self.cancel.check()?;
                    if !to.ignore_error {
                        return Err(error.context("cannot export the cache"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Scans local contexts as far as keys need them, shown as `[internal] load build context`.
    fn look_up(
        &self,
        graph: &Graph,
        contexts: &LocalContexts,
        bases: &Bases<'_>,
    ) -> Result<Vec<Known>, Error> {
        let is_local = |op: &Op| matches!(op, Op::Source(SourceOp::Local(local)) if local.name == MAIN);
        let uses_context = graph.iter().any(|(_, vertex)| is_local(&vertex.op));
        let step = uses_context.then(|| self.progress.internal("[internal] load build context"));
        let known = look_up(self.workshop, graph, contexts, &bases.layers.borrow(), bases.remotes);
        // who gave up has no interest in the file that could not be read any more
        self.cancel.check()?;
        if let Some(step) = step {
            let bytes = contexts.get(MAIN).map_or(0, crate::context::LocalContext::bytes_hashed);
            step.status("transferring context:", bytes);
            step.done();
        }
        known
    }

    /// Names the result and writes it where it was asked for.
    fn finish(
        &self,
        mut converted: Converted,
        stack: &[LayerId],
        entries: &[CacheEntry],
    ) -> Result<BuildReply, Error> {
        if self.request.cache_to.iter().any(|to| to.destination == CacheDestination::Inline) {
            cache::embed(&mut converted.config, stack, entries);
        }
        let default = [Output::Store { form: ImageForm::default() }];
        let outputs = if self.request.outputs.is_empty() { &default[..] } else { &self.request.outputs };
        let (reply, is_durable) = self.write_images(&converted, stack, outputs)?;
        let platform = converted.config.platform();
        let files = export::Files { stack, platform: &platform, epoch: converted.epoch };
        for output in outputs {
            export::files(self.workshop, output, &files, self.lease, self.progress, self.cancel)?;
        }
        if !is_durable {
            // nothing was published, but the cache records of this build are to outlive a power cut all the same
            self.workshop.store.make_durable()?;
        }
        Ok(reply)
    }

    /// Writes the outputs that are images; says whether one was published, and with it all that was stored.
    fn write_images(
        &self,
        converted: &Converted,
        stack: &[LayerId],
        outputs: &[Output],
    ) -> Result<(BuildReply, bool), Error> {
        let build_id = self.lease.id().to_string();
        let mut reply = BuildReply { image_id: None, manifest: None, build_id, names: Vec::new() };
        let mut is_published = false;
        let Self { workshop, lease, progress, cancel, .. } = *self;
        for output in outputs {
            let (Output::Store { form } | Output::Archive { form, .. } | Output::Registry { form, .. }) =
                output
            else {
                continue;
            };
            let image = Rendition::make(Tools { workshop, lease, cancel }, converted, stack, form)?;
            let config = image.draft.manifest.config.digest.clone();
            let mut names = self.request.tags.clone();
            let manifest = match output {
                Output::Archive { layout, destination, names: more, compression, .. } => {
                    names.extend(more.iter().cloned());
                    let archive = export::Archive {
                        layout: *layout,
                        destination,
                        names: names.clone(),
                        compression: *compression,
                        form: &image.form,
                        descriptor_annotations: image.descriptor_annotations,
                    };
                    export::archive(workshop, &archive, &image.draft, lease, progress, cancel)?
                }
                Output::Registry { push, .. } => {
                    if !push.by_digest.is_empty() {
                        names.clone_from(&push.by_digest);
                    }
                    let pushed = self.push(&image.draft, push)?;
                    // what others will find is what the build is asked for
                    reply.manifest = None;
                    pushed
                }
                _ => {
                    self.store(&image.draft, &image.stack)?;
                    is_published |= !names.is_empty();
                    image.draft.descriptor
                }
            };
            for name in names {
                if !reply.names.contains(&name) {
                    reply.names.push(name);
                }
            }
            if reply.manifest.is_none() {
                reply.image_id = Some(config);
                reply.manifest = Some(manifest);
            }
        }
        Ok((reply, is_published))
    }

    /// Sends the image to the registries of its names; returns the manifest there.
    fn push(&self, draft: &ImageDraft, push: &RegistryPush) -> Result<Descriptor, Error> {
        let by_digest = !push.by_digest.is_empty();
        let names = if by_digest { &push.by_digest } else { &self.request.tags };
        if names.is_empty() {
            return Err(Error::new(Class::Invalid, "tag is needed when pushing to registry").hint("-t NAME"));
        }
        let step = self.progress.internal("pushing image");
        let tell = |update: TransferUpdate| step.transfer(&update);
        let Self { workshop, lease, cancel, .. } = *self;
        let transfers = Transfers { workshop, lease, cancel, tell: &tell };
        let mut sent = None;
        for name in names {
            match push_draft(transfers, draft, (name, by_digest), push) {
                Ok(descriptor) => {
                    step.status(format!("pushing manifest for {name}@{}", descriptor.digest), 0);
                    sent = Some(descriptor);
                }
                Err(error) => {
                    step.failed(error.message.clone());
                    return Err(error.context(format!("failed to push {name}")));
                }
            }
        }
        for remark in workshop.registries.take_remarks() {
            self.progress.notice(format!("WARNING: {remark}"));
        }
        step.done();
        sent.ok_or_else(|| Error::new(Class::Internal, "nothing was pushed"))
    }

    /// Says what would stop the image's own command, so that nobody learns it from the first `run`.
    fn warn_about_command(&self, draft: &ImageDraft, stack: &[LayerId]) -> Result<(), Error> {
        let mounted = self.workshop.mount(stack, self.lease)?;
        if let Some((problem, advice)) = check_command(&draft.config, mounted.root()) {
            let advice = advice.map(|advice| format!(" ({advice})")).unwrap_or_default();
            self.progress.tell(Event::Warning {
                title: "CommandCannotStart".to_owned(),
                message: format!("The image's command cannot start: {problem}{advice}"),
                line: None,
                url: None,
                excerpt: None,
            });
        }
        Ok(())
    }

    fn store(&self, draft: &ImageDraft, stack: &[LayerId]) -> Result<(), Error> {
        let step = self.progress.internal("exporting to image");
        step.status("exporting layers", 0);
        match publish_manifest(self.workshop, draft, &self.request.tags, self.lease) {
            Ok(published) => {
                let ImageId(id) = &published.image_id;
                step.status(format!("writing image {id}"), 0);
                for name in &self.request.tags {
                    step.status(format!("naming to {name}"), 0);
                }
                step.done();
                // an image that was there already has had its warning
                if published.published.unchanged { Ok(()) } else { self.warn_about_command(draft, stack) }
            }
            Err(error) => {
                step.failed(error.message.clone());
                Err(error)
            }
        }
    }
}

/// P35: what is wrong with the Dockerfile, and the lines to look at.
fn convert_error(error: &ConvertError, inputs: &Inputs) -> Error {
    let mut shown = Error::new(Class::Build, error.to_string());
    shown.excerpt = error.location.map(|location| frame(inputs, location));
    if let Problem::NotAllowed(entitlement) = &*error.problem {
        shown = shown.hint(format!("--allow {entitlement}"));
    }
    shown
}

fn frame(inputs: &Inputs, location: Location) -> String {
    excerpt::frame(&inputs.file_name, &String::from_utf8_lossy(&inputs.dockerfile), location)
}

fn step_error(failure: Failure, graph: &Graph, inputs: &Inputs) -> Error {
    let Failure { vertex, mut error } = failure;
    if error.class != Class::Cancelled && error.excerpt.is_none() {
        let lines = graph.vertex(vertex).lines;
        error.excerpt = lines.map(|(start, end)| frame(inputs, Location { start, end }));
        error.class = Class::Build;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_the_pages_of_their_documentation() {
        let name = |rule: &str| page_of(rule).rsplit('/').nth(1).map(str::to_owned);
        assert_eq!(name("FromAsCasing").as_deref(), Some("from-as-casing"));
        assert_eq!(name("JSONArgsRecommended").as_deref(), Some("json-args-recommended"));
        assert_eq!(name("LegacyKeyValueFormat").as_deref(), Some("legacy-key-value-format"));
    }
}
