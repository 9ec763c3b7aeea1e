//! Which stages are needed, what they start from, and in which order they can be converted (F3-F11).

use std::collections::HashMap;

use mica_dockerfile::{Command, DidYouMean, Dockerfile, Instruction, Location, Stage, expand};
use mica_oci::{Platform, Reference};
use mica_solve::SourceOp;

use crate::arguments::Arguments;
use crate::lint::Findings;
use crate::{
    ConvertError, ConvertRequest, NamedContext, Problem, ResolveError, ResolvedBase, Resolver, text,
};

/// The base that is no image.
pub(crate) const SCRATCH: &str = "scratch";
/// Names that no context can take from the language.
const RESERVED: [&str; 2] = [SCRATCH, "context"];
/// What people most often mistype.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// What a stage starts from.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// An earlier stage.
    Stage(usize),
    /// A source outside the Dockerfile.
    Source(Source),
    /// The stage *is* this context: its instructions are skipped (F4).
    Replaced {
        /// The name of the stage.
        name: String,
        /// What it is instead.
        source: Source,
    },
}

/// Files from outside the Dockerfile.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// None at all.
    Scratch,
    /// A directory of the client.
    Local {
        /// Name of the context.
        name: String,
    },
    /// A named context that is a file of a web server, or a repository.
    Remote {
        /// As it is shown.
        url: String,
        /// What it is.
        source: SourceOp,
    },
    /// An image.
    Image(Box<ResolvedBase>),
}

/// A stage that the target needs.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    /// The stage.
    pub(crate) stage: &'a Stage,
    /// What FROM names, its variables replaced.
    pub(crate) base_name: String,
    /// Its `FROM --platform`.
    pub(crate) platform: Option<Platform>,
    /// Its base.
    pub(crate) base: Base,
    /// ONBUILD triggers of the base, which run first (I14).
    pub(crate) triggers: Vec<Command>,
}

/// The stages needed; `None` in place of the others, so that indexes are those of the Dockerfile.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// By index of the stage.
    pub(crate) stages: Vec<Option<Planned<'a>>>,
    /// Index of the stage that was asked for.
    pub(crate) target: usize,
}

/// FROM with its variables replaced.
struct Header {
    base: String,
    platform: Option<Platform>,
    base_stage: Option<usize>,
}

/// Finds what the target needs and resolves the bases of that.
pub(crate) fn plan<'a>(
    request: &ConvertRequest<'_>,
    dockerfile: &'a Dockerfile,
    arguments: &Arguments,
    resolver: &dyn Resolver,
    findings: &mut Findings,
) -> Result<Plan<'a>, ConvertError> {
    let headers = headers(dockerfile, arguments, findings)?;
    let target = target(request, dockerfile)?;
    refuse_cycles(dockerfile, &headers)?;
    let mut planner = Planner { request, dockerfile, resolver, headers };
    let stages = planner.reach(target)?;
    Ok(Plan { stages, target })
}

fn headers(
    dockerfile: &Dockerfile,
    arguments: &Arguments,
    findings: &mut Findings,
) -> Result<Vec<Header>, ConvertError> {
    let mut words = FromWords { dockerfile, arguments, findings };
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut headers = Vec::with_capacity(dockerfile.stages.len());
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        let at = |problem: Problem| problem.at(stage.origin.location);
        let (base, _) = words.expand(&stage.base, stage).map_err(at)?;
        if base.is_empty() {
            return Err(at(Problem::BlankBase(stage.base.clone())));
        }
        let platform = words.platform(stage).map_err(at)?;
        // Compared as written: `FROM Foo` is an image even after `AS Foo` (F3).
        let base_stage = known.get(base.as_str()).copied();
        headers.push(Header { base, platform, base_stage });
        if let Some(name) = &stage.name {
            known.insert(name, index);
        }
    }
    Ok(headers)
}

/// The words of FROM, which see only what is known before the first one.
struct FromWords<'w> {
    dockerfile: &'w Dockerfile,
    arguments: &'w Arguments,
    findings: &'w mut Findings,
}

impl FromWords<'_> {
    /// A word with its variables replaced, and what is most like the first of those that nobody declared.
    fn expand(&mut self, word: &str, stage: &Stage) -> Result<(String, DidYouMean), Problem> {
        let global = &self.arguments.global;
        let expanded = expand::word(word, global, self.dockerfile.escape)?;
        let declared = || self.dockerfile.global_args.iter().flat_map(|arg| &arg.items);
        let mut nearest = DidYouMean::default();
        for name in expanded.unset {
            if declared().any(|item| item.name == name) {
                continue;
            }
            let known = global.names().chain(declared().map(|item| item.name.as_str()));
            let near = DidYouMean::among(&name, known);
            let message = format!("FROM argument '{name}' is not declared{near}");
            self.findings.report("UndefinedArgInFrom", stage.origin.location, message);
            nearest = DidYouMean(nearest.0.or(near.0));
        }
        Ok((expanded.text, nearest))
    }

    /// `--platform`, if there is one.
    fn platform(&mut self, stage: &Stage) -> Result<Option<Platform>, Problem> {
        let Some(expression) = stage.platform.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let (value, suggestion) = self.expand(expression, stage)?;
        if value.is_empty() {
            return Err(Problem::EmptyPlatform { expression: expression.to_owned(), suggestion });
        }
        value.parse().map(Some).map_err(|cause: mica_oci::PlatformError| Problem::Platform {
            expression: expression.to_owned(),
            cause: cause.to_string(),
        })
    }
}

fn target(request: &ConvertRequest<'_>, dockerfile: &Dockerfile) -> Result<usize, ConvertError> {
    let stages = &dockerfile.stages;
    let Some(name) = request.target else {
        return Ok(stages.len().saturating_sub(1));
    };
    let wanted = name.to_lowercase();
    stages.iter().rposition(|stage| stage.name.as_deref() == Some(wanted.as_str())).ok_or_else(|| {
        let names = stages.iter().filter_map(|stage| stage.name.as_deref());
        Problem::NoTarget { name: name.to_owned(), suggestion: DidYouMean::among(name, names) }.nowhere()
    })
}

/// The stage that a `--from` means: the latest earlier one of that name (F5), else one that comes too late.
pub(crate) fn stage_of(dockerfile: &Dockerfile, name: &str, current: usize) -> Option<usize> {
    let wanted = name.to_lowercase();
    let named = |stage: &Stage| stage.name.as_deref() == Some(wanted.as_str());
    let (earlier, later) = dockerfile.stages.split_at(current);
    earlier.iter().rposition(named).or_else(|| later.iter().position(named).map(|offset| current + offset))
}

/// What `COPY --from` means: like [`stage_of`], and a number is the index of a stage (C15).
pub(crate) fn copy_source(
    dockerfile: &Dockerfile,
    from: &str,
    current: usize,
) -> Result<Option<usize>, Problem> {
    match from.parse::<i64>() {
        Ok(index) => usize::try_from(index)
            .ok()
            .filter(|index| *index < dockerfile.stages.len())
            .map(Some)
            .ok_or_else(|| Problem::StageIndex(index.to_string())),
        Err(_) => Ok(stage_of(dockerfile, from, current)),
    }
}

/// The stages that an instruction reads files of.
fn stages_read(
    dockerfile: &Dockerfile,
    command: &Command,
    current: usize,
) -> Result<Vec<usize>, ConvertError> {
    match &command.instruction {
        Instruction::Copy(copy) => match &copy.from {
            Some(from) => Ok(copy_source(dockerfile, from, current)
                .map_err(|problem| problem.at(command.origin.location))?
                .into_iter()
                .collect()),
            None => Ok(Vec::new()),
        },
        Instruction::Run(run) => Ok(run
            .mounts
            .iter()
            .filter_map(|mount| text::mount_source(mount))
            .filter_map(|from| stage_of(dockerfile, from, current))
            .collect()),
        _ => Ok(Vec::new()),
    }
}

/// F11, over all stages, needed or not. No recursion: the depth is the author's choice.
fn refuse_cycles(dockerfile: &Dockerfile, headers: &[Header]) -> Result<(), ConvertError> {
    let mut needs: Vec<Vec<usize>> = Vec::with_capacity(headers.len());
    for (index, (stage, header)) in dockerfile.stages.iter().zip(headers).enumerate() {
        let mut list: Vec<usize> = header.base_stage.into_iter().collect();
        for command in &stage.commands {
            list.extend(stages_read(dockerfile, command, index)?);
        }
        needs.push(list);
    }
    /// How far the search has come with a stage.
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; needs.len()];
    for start in 0..needs.len() {
        let mut path: Vec<(usize, usize)> = Vec::new();
        if marks[start] == Mark::New {
            marks[start] = Mark::Open;
            path.push((start, 0));
        }
        while let Some((stage, next)) = path.last_mut() {
            let Some(&need) = needs[*stage].get(*next) else {
                marks[*stage] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[need] {
                Mark::Done => {}
                Mark::Open => return Err(circular(dockerfile, need)),
                Mark::New => {
                    marks[need] = Mark::Open;
                    path.push((need, 0));
                }
            }
        }
    }
    Ok(())
}

fn circular(dockerfile: &Dockerfile, index: usize) -> ConvertError {
    let stage = &dockerfile.stages[index];
    Problem::Circular(display_name(stage, index)).at(stage.origin.location)
}

/// The name of a stage, or `stage-K` (S3).
pub(crate) fn display_name(stage: &Stage, index: usize) -> String {
    stage.name.clone().unwrap_or_else(|| format!("stage-{index}"))
}

struct Planner<'a, 'r> {
    request: &'r ConvertRequest<'r>,
    dockerfile: &'a Dockerfile,
    resolver: &'r dyn Resolver,
    headers: Vec<Header>,
}

impl<'a> Planner<'a, '_> {
    /// Everything the target needs, each stage once.
    fn reach(&mut self, target: usize) -> Result<Vec<Option<Planned<'a>>>, ConvertError> {
        let mut stages: Vec<Option<Planned<'a>>> = self.dockerfile.stages.iter().map(|_| None).collect();
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            if stages[index].is_some() {
                continue;
            }
            let planned = self.stage(index)?;
            // Only earlier stages: reading a later one is an error of the instruction, told with its lines.
            let mut need = |stage: usize| {
                if stage < index {
                    waiting.push(stage);
                }
            };
            match &planned.base {
                Base::Replaced { .. } => {}
                base => {
                    if let Base::Stage(stage) = base {
                        need(*stage);
                    }
                    for command in planned.triggers.iter().chain(&planned.stage.commands) {
                        stages_read(self.dockerfile, command, index)?.into_iter().for_each(&mut need);
                    }
                }
            }
            stages[index] = Some(planned);
        }
        Ok(stages)
    }

    fn stage(&self, index: usize) -> Result<Planned<'a>, ConvertError> {
        let stage = &self.dockerfile.stages[index];
        let header = &self.headers[index];
        let platform = header.platform.clone();
        let wanted = platform.as_ref().unwrap_or(&self.request.platform);
        let location = stage.origin.location;
        let base_name = header.base.clone();
        if let Some(source) = self.replacement(stage, wanted)? {
            let name = display_name(stage, index);
            let base = Base::Replaced { name, source };
            return Ok(Planned { stage, base_name, platform, base, triggers: Vec::new() });
        }
        if let Some(base) = header.base_stage {
            let triggers = self.triggers_of_stage(base, location)?;
            return Ok(Planned { stage, base_name, platform, base: Base::Stage(base), triggers });
        }
        let names = self.dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
        let source =
            source(self.resolver, &header.base, wanted, names).map_err(|problem| problem.at(location))?;
        let triggers = match &source {
            Source::Image(image) => parse_triggers(&image.config.config.on_build, location)?,
            Source::Scratch | Source::Local { .. } | Source::Remote { .. } => Vec::new(),
        };
        Ok(Planned { stage, base_name, platform, base: Base::Source(source), triggers })
    }

    /// A context named like the stage replaces it (F4).
    fn replacement(&self, stage: &Stage, platform: &Platform) -> Result<Option<Source>, ConvertError> {
        let Some(name) = stage.name.as_deref() else {
            return Ok(None);
        };
        let context = named_context(self.resolver, name, platform).map_err(|source| {
            Problem::Unresolved { name: name.to_owned(), source, suggestion: DidYouMean::default() }
                .at(stage.origin.location)
        })?;
        Ok(context.map(Source::from))
    }

    /// ONBUILD written in a stage of this file fires in the stages built from it.
    fn triggers_of_stage(&self, base: usize, location: Location) -> Result<Vec<Command>, ConvertError> {
        let base = &self.dockerfile.stages[base];
        let texts: Vec<String> = base
            .commands
            .iter()
            .filter_map(|command| match &command.instruction {
                Instruction::Onbuild(onbuild) => Some(onbuild.text.clone()),
                _ => None,
            })
            .collect();
        parse_triggers(&texts, location)
    }
}

impl From<NamedContext> for Source {
    fn from(context: NamedContext) -> Self {
        match context {
            NamedContext::Local { name } => Self::Local { name },
            NamedContext::Image(image) => Self::Image(image),
            NamedContext::Remote { url, source } => Self::Remote { url, source },
        }
    }
}

fn parse_triggers(texts: &[String], location: Location) -> Result<Vec<Command>, ConvertError> {
    texts
        .iter()
        .map(|trigger| {
            // Triggers come from another file: the escape character there does not count, and the lines to show are
            // those of FROM.
            let mut command = text::instruction(trigger).map_err(|problem| problem.at(location))?;
            command.origin.location = location;
            Ok(command)
        })
        .collect()
}

fn named_context(
    resolver: &dyn Resolver,
    name: &str,
    platform: &Platform,
) -> Result<Option<NamedContext>, ResolveError> {
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Ok(None);
    }
    resolver.named_context(name, platform)
}

/// What a name that is no stage means: a named context, `scratch`, an image (F3).
pub(crate) fn source<'n>(
    resolver: &dyn Resolver,
    name: &str,
    platform: &Platform,
    stages: impl Iterator<Item = &'n str>,
) -> Result<Source, Problem> {
    if name == SCRATCH {
        return Ok(Source::Scratch);
    }
    let reference: Reference = name.parse().map_err(|cause: mica_oci::ReferenceError| {
        Problem::StageName { name: name.to_owned(), cause: cause.to_string() }
    })?;
    let reference = reference.or_latest();
    let familiar = reference.familiar();
    let short = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let unresolved = |source: ResolveError, suggestion: DidYouMean| Problem::Unresolved {
        name: name.to_owned(),
        source,
        suggestion,
    };
    if let Some(context) =
        named_context(resolver, short, platform).map_err(|cause| unresolved(cause, DidYouMean::default()))?
    {
        return Ok(context.into());
    }
    match resolver.image(&reference.to_string(), platform) {
        Ok(image) => Ok(Source::Image(Box::new(image))),
        Err(cause) => Err(unresolved(cause, DidYouMean::among(name, stages.chain(COMMON_IMAGES)))),
    }
}
