//! From a request to a graph and a config: parse, plan, then stage after stage in the order of the Dockerfile.

use std::collections::HashMap;

use mica_dockerfile::{Dockerfile, Location, Warning};
use mica_oci::{ImageConfig, Platform};
use mica_solve::{CopyAction, FileAction, FileOp, Graph, Input, LocalSource, Op, SourceOp, Vertex, VertexId};

use crate::arguments::Arguments;
use crate::lint::{self, Findings};
use crate::plan::{self, Base, Plan, Planned, Source};
use crate::stage::{StageConverter, StageState};
use crate::text::Unset;
use crate::title::{self, Steps};
use crate::{ConvertError, ConvertRequest, Problem, Resolver, history};

/// The main build context, as a local source.
const MAIN_CONTEXT: &str = "context";

/// A converted Dockerfile.
#[derive(Debug, Clone)]
pub struct Converted {
    /// What is to be done; every vertex is needed by the target.
    pub graph: Graph,
    /// The vertex with the files of the image; `None`: there are none (`FROM scratch` and no more).
    pub target: Option<VertexId>,
    /// The config, complete but for `rootfs.diff_ids`.
    pub config: ImageConfig,
    /// How many layers of the image are those of its base image: the others are new.
    pub base_layers: usize,
    /// Name of the stage that was built, if it has one.
    pub stage: Option<String>,
    /// SOURCE_DATE_EPOCH as a number, if there is one (V21): exporters clamp to it.
    pub epoch: Option<i64>,
    /// Findings (L4).
    pub warnings: Vec<Warning>,
    /// Why they fail the build, if they do (P12).
    pub violation: Option<String>,
}

/// Converts a Dockerfile.
///
/// # Errors
/// [`ConvertError`]: the Dockerfile is wrong, or something it needs cannot be had.
pub fn convert(request: &ConvertRequest<'_>, resolver: &dyn Resolver) -> Result<Converted, ConvertError> {
    let dockerfile = mica_dockerfile::parse(request.dockerfile).map_err(|error| {
        let location = error.location;
        ConvertError { location, ..Problem::Parse(error).nowhere() }
    })?;
    refuse_custom_frontend(request, &dockerfile)?;
    let mut findings = Findings::new(request, &dockerfile)?;
    let converted = convert_stages(request, &dockerfile, resolver, &mut findings);
    let (warnings, violation) = findings.finish();
    match converted {
        Ok(converted) => Ok(Converted { warnings, violation, ..converted }),
        Err(error) => Err(ConvertError { warnings, ..error }),
    }
}

/// All but what was found, which is told whether there is a result or not.
fn convert_stages(
    request: &ConvertRequest<'_>,
    dockerfile: &Dockerfile,
    resolver: &dyn Resolver,
    findings: &mut Findings,
) -> Result<Converted, ConvertError> {
    lint::whole_file(findings, dockerfile);
    let arguments = Arguments::collect(request, dockerfile, resolver)?;
    lint::default_bases(findings, dockerfile, arguments.defaults.as_ref());
    let plan = plan::plan(request, dockerfile, &arguments, resolver, findings)?;
    // a commit has one time; that of a tar's newest member or of a download is only for those who ask for it (G11a)
    let commit = request.context_time.filter(|_| request.main_context.is_some());
    let seconds = arguments.epoch.or(commit).unwrap_or(0);
    let converter = Converter {
        request,
        dockerfile,
        arguments: &arguments,
        resolver,
        seconds,
        graph: Graph::default(),
        finished: plan.stages.iter().map(|_| None).collect(),
        external: HashMap::new(),
        single: plan.stages.iter().flatten().count() == 1,
        findings,
    };
    converter.run(&plan)
}

/// P10: the built-in frontend answers to every docker/dockerfile; nothing else is fetched.
fn refuse_custom_frontend(request: &ConvertRequest<'_>, dockerfile: &Dockerfile) -> Result<(), ConvertError> {
    let argument = request
        .build_args
        .iter()
        .rfind(|(name, _)| name == "BUILDKIT_SYNTAX")
        .and_then(|(_, v)| v.as_deref());
    let argument = argument.and_then(|value| value.split_whitespace().next());
    let Some(syntax) = argument.or(dockerfile.directives.syntax.as_deref()) else {
        return Ok(());
    };
    let repository = syntax.split(['@', ':']).next().unwrap_or_default();
    let path = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"]
        .iter()
        .find_map(|registry| repository.strip_prefix(registry))
        .unwrap_or(repository);
    if path.starts_with("docker/dockerfile") {
        Ok(())
    } else {
        Err(Problem::CustomFrontend(syntax.to_owned()).nowhere())
    }
}

/// What the stages share.
pub(crate) struct Converter<'a> {
    pub(crate) request: &'a ConvertRequest<'a>,
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) arguments: &'a Arguments,
    resolver: &'a dyn Resolver,
    /// The time of everything new (G11, G11a).
    pub(crate) seconds: i64,
    pub(crate) graph: Graph,
    /// Stages that are done, by index.
    finished: Vec<Option<StageState>>,
    /// Images and contexts that are no stage, by the name that instructions use.
    external: HashMap<String, Option<VertexId>>,
    /// Whether only one stage is needed: its name is then left out of titles.
    single: bool,
    pub(crate) findings: &'a mut Findings,
}

impl Converter<'_> {
    fn run(mut self, plan: &Plan<'_>) -> Result<Converted, ConvertError> {
        let mut base_layers = vec![0; plan.stages.len()];
        for (index, planned) in plan.stages.iter().enumerate() {
            let Some(planned) = planned else { continue };
            base_layers[index] = match &planned.base {
                Base::Stage(base) => base_layers[*base],
                Base::Source(Source::Image(image)) | Base::Replaced { source: Source::Image(image), .. } => {
                    image.layers_count
                }
                Base::Source(_) | Base::Replaced { .. } => 0,
            };
            let state = self.stage(index, planned)?;
            self.finished[index] = Some(state);
        }
        let state = self.finished[plan.target].take().expect("the target is reached from itself");
        let mut config = state.config;
        finish(self.request, &mut config);
        Ok(Converted {
            graph: self.graph,
            target: state.root,
            config,
            base_layers: base_layers[plan.target],
            stage: self.dockerfile.stages[plan.target].name.clone(),
            epoch: self.arguments.epoch,
            warnings: Vec::new(),
            violation: None,
        })
    }

    /// The files of a stage that is done; `None` if it is not.
    pub(crate) fn finished(&self, index: usize) -> Option<Option<VertexId>> {
        self.finished[index].as_ref().map(|state| state.root)
    }

    fn stage(&mut self, index: usize, planned: &Planned<'_>) -> Result<StageState, ConvertError> {
        let location = planned.stage.origin.location;
        let mut steps = self.steps(index, planned);
        let state = match &planned.base {
            Base::Stage(base) => {
                let state = self.finished[*base].clone().expect("bases come earlier and are needed");
                state.handed_on()
            }
            Base::Source(source) => self.base(planned, source, &mut steps),
            Base::Replaced { name, source } => return Ok(self.replaced(planned, name, source)),
        };
        let ignore_cache = self.request.no_cache.covers(planned.stage.name.as_deref());
        let mut stage = StageConverter {
            shared: self,
            state,
            index,
            steps,
            ignore_cache,
            has_cmd: false,
            in_trigger: true,
            unset: Unset::default(),
        };
        for trigger in &planned.triggers {
            stage.instruction(trigger).map_err(|problem| problem.at(location))?;
        }
        stage.in_trigger = false;
        for command in &planned.stage.commands {
            stage.instruction(command).map_err(|problem| problem.at(command.origin.location))?;
        }
        Ok(stage.state)
    }

    fn steps(&self, index: usize, planned: &Planned<'_>) -> Steps {
        let from = matches!(
            planned.base,
            Base::Source(Source::Local { .. } | Source::Remote { .. } | Source::Image(_))
        );
        let commands = planned.triggers.iter().chain(&planned.stage.commands);
        let total = usize::from(from) + commands.filter(|command| title::is_step(command)).count();
        let stage = (!self.single).then(|| plan::display_name(planned.stage, index));
        Steps { stage, platform: None, total, done: 0 }
    }

    /// The start of a stage whose FROM is no stage.
    fn base(&mut self, planned: &Planned<'_>, source: &Source, steps: &mut Steps) -> StageState {
        let target = self.request.platform.normalised();
        let platform = planned.platform.clone().unwrap_or_else(|| target.clone());
        if self.request.multi_platform {
            steps.platform = Some(platform.to_string());
        }
        let location = planned.stage.origin.location;
        match source {
            // FROM --platform means nothing to scratch (F6).
            Source::Scratch => StageState::from_base(None, ImageConfig::scratch(&target), target),
            Source::Local { name } => {
                self.local_stage(name, platform, format!("{}FROM {name}", steps.next()), location)
            }
            Source::Remote { url, source } => {
                let title = format!("{}FROM {url}", steps.next());
                self.remote_stage(url, source, platform, title, location)
            }
            Source::Image(image) => {
                lint::base_platform(self.findings, planned, &platform, &image.config.platform());
                let name = format!("{}FROM {}", steps.next(), image.reference);
                self.image_stage(image, platform, name, Some(location))
            }
        }
    }

    /// A stage that is a named context instead (F4).
    fn replaced(&mut self, planned: &Planned<'_>, name: &str, source: &Source) -> StageState {
        let platform = planned.platform.clone().unwrap_or_else(|| self.request.platform.normalised());
        match source {
            Source::Scratch => StageState::from_base(None, ImageConfig::scratch(&platform), platform),
            Source::Local { name: context } => {
                let location = planned.stage.origin.location;
                self.local_stage(context, platform, format!("[context {name}] copy"), location)
            }
            Source::Remote { url, source } => {
                let title = format!("[context {name}] {url}");
                self.remote_stage(url, source, platform, title, planned.stage.origin.location)
            }
            Source::Image(image) => {
                let platform = if image.config.os.is_empty() { platform } else { image.config.platform() };
                self.image_stage(image, platform, format!("[context {name}] {}", image.reference), None)
            }
        }
    }

    /// A directory as a base: one layer with all that is in it, and a history that tells of it.
    fn local_stage(&mut self, context: &str, platform: Platform, title: String, at: Location) -> StageState {
        let files = self.local(context);
        let root = self.copy_of(files, title, at);
        let mut config = ImageConfig::scratch(&platform);
        config.created = Some(history::timestamp(self.seconds));
        history::complete(&mut config, 1, &format!("FROM {context}"));
        StageState::from_base(Some(root), config, platform)
    }

    /// A repository or a file as a base: one layer with it.
    fn remote_stage(
        &mut self,
        url: &str,
        source: &SourceOp,
        platform: Platform,
        title: String,
        at: Location,
    ) -> StageState {
        let root = self.source(source, title, Some(at));
        let mut config = ImageConfig::scratch(&platform);
        config.created = Some(history::timestamp(self.seconds));
        history::complete(&mut config, 1, &format!("FROM {url}"));
        StageState::from_base(Some(root), config, platform)
    }

    fn image_stage(
        &mut self,
        image: &crate::ResolvedBase,
        platform: Platform,
        name: String,
        location: Option<Location>,
    ) -> StageState {
        let mut config = image.config.clone();
        history::complete(&mut config, image.layers_count, &format!("FROM {}", image.reference));
        let root = self.image(image, &platform, name, location);
        StageState::from_base(root, config, platform)
    }

    /// The vertex of an image; none for an image without layers.
    fn image(
        &mut self,
        image: &crate::ResolvedBase,
        platform: &Platform,
        name: String,
        location: Option<Location>,
    ) -> Option<VertexId> {
        if image.layers_count == 0 {
            return None;
        }
        let source = SourceOp::Image {
            reference: image.reference.clone(),
            manifest: image.manifest.clone(),
            platform: platform.normalised(),
        };
        Some(self.source(&source, name, location))
    }

    /// The main build context.
    pub(crate) fn main_context(&mut self) -> VertexId {
        match &self.request.main_context {
            Some(source) => self.source(source, "[internal] load remote build context".to_owned(), None),
            None => self.local(MAIN_CONTEXT),
        }
    }

    /// The vertex of something that is no directory of the client.
    pub(crate) fn source(&mut self, source: &SourceOp, name: String, at: Option<Location>) -> VertexId {
        let lines = at.map(|at| (at.start, at.end));
        let op = Op::Source(source.clone());
        self.graph.add(Vertex { op, inputs: Vec::new(), name, ignore_cache: false, lines })
    }

    fn local(&mut self, name: &str) -> VertexId {
        let title = if name == MAIN_CONTEXT {
            "[internal] load build context".to_owned()
        } else {
            format!("[context {name}] load from client")
        };
        self.source(&SourceOp::Local(LocalSource { name: name.to_owned() }), title, None)
    }

    /// A root file system with all files of a directory of the client.
    fn copy_of(&mut self, files: VertexId, name: String, at: Location) -> VertexId {
        let op = Op::File(FileOp {
            base: Input::Scratch,
            actions: vec![FileAction::Copy(CopyAction {
                created_seconds: self.seconds,
                ..CopyAction::new(Input::Vertex(0), "/", "/")
            })],
        });
        self.graph.add(Vertex {
            op,
            inputs: vec![files],
            name,
            ignore_cache: false,
            lines: Some((at.start, at.end)),
        })
    }

    /// The files that a `--from` means which is no stage: always for the target platform (C15).
    pub(crate) fn external(&mut self, from: &str) -> Result<Option<VertexId>, Problem> {
        if let Some(known) = self.external.get(from) {
            return Ok(*known);
        }
        let platform = self.request.platform.normalised();
        let names = self.dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
        let files = match plan::source(self.resolver, from, &platform, names)? {
            Source::Scratch => None,
            Source::Local { name } => Some(self.local(&name)),
            Source::Remote { url, source } => {
                Some(self.source(&source, format!("[context {from}] {url}"), None))
            }
            Source::Image(image) => self.image(&image, &platform, format!("FROM {}", image.reference), None),
        };
        self.external.insert(from.to_owned(), files);
        Ok(files)
    }
}

/// What the command line adds to the config of the target, and its times.
fn finish(request: &ConvertRequest<'_>, config: &mut ImageConfig) {
    for (name, value) in request.labels {
        config.config.labels.insert(name.clone(), value.clone());
    }
    let silent = config.os.is_empty() || config.architecture.is_empty();
    let mut platform =
        if request.explicit_platform || silent { request.platform.clone() } else { config.platform() };
    if platform.os_version.is_none() {
        platform.os_version = config.os_version.take();
    }
    if platform.os_features.is_empty() {
        platform.os_features = std::mem::take(&mut config.os_features);
    }
    config.set_platform(&platform);
    config.created = config.history().iter().rev().find_map(|entry| entry.created.clone());
}
