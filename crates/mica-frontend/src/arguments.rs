//! Where the values of variables come from: the command line, global ARGs, predefined arguments (build.md 2.3, 2.4).

use std::collections::BTreeMap;

use mica_dockerfile::expand::Environment;
use mica_dockerfile::{Command, DidYouMean, Dockerfile, GlobalArg, Instruction, Stage};
use mica_oci::Platform;
use mica_solve::{Remote, SourceOp};

use crate::{ConvertError, ConvertRequest, NamedContext, Problem, Resolver};

/// The argument that fixes the times of what a build makes.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Proxies reach every RUN without being declared (V19).
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// May be declared in a Dockerfile, but speak to the builder only (V20).
const NEVER_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Whether an ARG of this name takes part in the environment of RUN.
pub(crate) fn is_environment(name: &str) -> bool {
    !NEVER_ENVIRONMENT.contains(&name)
}

/// Variables with values, in the order of their last definition: the order in which processes get them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables(Vec<(String, String)>);

impl Variables {
    /// The variables of `NAME=value` entries.
    pub(crate) fn of(entries: &[String]) -> Self {
        let mut variables = Self::default();
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            variables.set(name, value);
        }
        variables
    }

    /// The value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Defines; the last definition wins, whoever made it (V12).
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// `NAME=value` entries.
    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Environment for Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }
}

/// Everything that is known before the first FROM.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// `--build-arg`.
    build: BTreeMap<String, String>,
    /// Predefined and global ones: what FROM sees, and what a bare ARG picks up.
    pub(crate) global: Variables,
    /// What FROM would see if no global ARG were given a value; nothing if that cannot even be expanded.
    pub(crate) defaults: Option<Variables>,
    /// SOURCE_DATE_EPOCH as a number.
    pub(crate) epoch: Option<i64>,
}

impl Arguments {
    /// Collects them. Errors are those of the defaults of global ARGs and of SOURCE_DATE_EPOCH.
    pub(crate) fn collect(
        request: &ConvertRequest<'_>,
        dockerfile: &Dockerfile,
        resolver: &dyn Resolver,
    ) -> Result<Self, ConvertError> {
        let mut build: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in request.build_args {
            if let Some(value) = value {
                build.insert(name.clone(), value.clone());
            }
        }
        if let Some(epoch) = request.epoch {
            build.entry(EPOCH.to_owned()).or_insert_with(|| epoch.to_string());
        }
        let last_name = dockerfile.stages.last().and_then(|stage| stage.name.as_deref());
        let stage = request.target.or(last_name).unwrap_or("default");
        let mut global = predefined(request, stage);
        for name in global.names().map(str::to_owned).collect::<Vec<_>>() {
            if let Some(value) = build.get(&name) {
                global.set(&name, value);
            }
        }
        let declare_all = |mut global: Variables, build: &BTreeMap<String, String>| {
            for arg in &dockerfile.global_args {
                declare_global(&mut global, arg, build, dockerfile.escape)?;
            }
            Ok::<_, ConvertError>(global)
        };
        let defaults = declare_all(global.clone(), &BTreeMap::new()).ok();
        let global = declare_all(global, &build)?;
        let mut arguments = Self { build, global, defaults, epoch: None };
        arguments.settle_epoch(request, dockerfile, resolver)?;
        Ok(arguments)
    }

    /// The value of `--build-arg`.
    pub(crate) fn build(&self, name: &str) -> Option<&str> {
        self.build.get(name).map(String::as_str)
    }

    /// The proxies given as build arguments, in both cases (V19). Values of names in other cases win in name order.
    pub(crate) fn proxies(&self) -> Vec<String> {
        let mut entries = Vec::new();
        for proxy in PROXIES {
            let value = self.build.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(proxy));
            if let Some((_, value)) = value {
                entries.push(format!("{proxy}={value}"));
                entries.push(format!("{}={value}", proxy.to_ascii_lowercase()));
            }
        }
        entries
    }

    /// Turns SOURCE_DATE_EPOCH, whatever it names, into seconds, and shows stages that number (V21).
    fn settle_epoch(
        &mut self,
        request: &ConvertRequest<'_>,
        dockerfile: &Dockerfile,
        resolver: &dyn Resolver,
    ) -> Result<(), ConvertError> {
        let global = self.global.value(EPOCH).filter(|value| !value.is_empty());
        let Some(value) = self.build(EPOCH).or(global).map(str::to_owned) else {
            return Ok(());
        };
        self.epoch = match value.parse::<i64>() {
            Ok(seconds) => Some(seconds),
            Err(_) if value.is_empty() => None,
            Err(_) if value == "context" => request.context_time,
            Err(_) => named_epoch(&value, request, dockerfile, resolver)?,
        };
        let declared = self.global.value(EPOCH).is_some();
        match self.epoch {
            Some(seconds) => {
                let text = seconds.to_string();
                if declared {
                    self.global.set(EPOCH, &text);
                }
                self.build.entry(EPOCH.to_owned()).and_modify(|value| *value = text);
            }
            None => {
                self.global.remove(EPOCH);
                self.build.remove(EPOCH);
            }
        }
        Ok(())
    }
}

/// An epoch that is the name of a context or of a stage with one remote ADD.
fn named_epoch(
    name: &str,
    request: &ConvertRequest<'_>,
    dockerfile: &Dockerfile,
    resolver: &dyn Resolver,
) -> Result<Option<i64>, ConvertError> {
    let context = resolver.named_context(name, &request.platform).map_err(|source| {
        Problem::Unresolved { name: name.to_owned(), source, suggestion: DidYouMean::default() }.nowhere()
    })?;
    match context {
        Some(NamedContext::Remote { source, .. }) => {
            return time_of(resolver, name, &source).map_err(Problem::nowhere);
        }
        // A directory has no time of its own, and an image is no source either.
        Some(NamedContext::Local { .. } | NamedContext::Image(_)) => return Ok(None),
        None => {}
    }
    let stage = dockerfile
        .stages
        .iter()
        .find(|stage| stage.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    match stage {
        Some(stage) => {
            let at = stage.origin.location;
            let source = only_remote_add(stage).ok_or_else(|| Problem::Epoch(name.to_owned()).at(at))?;
            time_of(resolver, name, &source).map_err(|problem| problem.at(at))
        }
        None => Err(Problem::Epoch(name.to_owned()).nowhere()),
    }
}

fn time_of(resolver: &dyn Resolver, name: &str, source: &SourceOp) -> Result<Option<i64>, Problem> {
    resolver.time(source).map_err(|source| Problem::Unresolved {
        name: name.to_owned(),
        source,
        suggestion: DidYouMean::default(),
    })
}

/// What a stage has that is `FROM scratch` and one ADD of something remote.
fn only_remote_add(stage: &Stage) -> Option<SourceOp> {
    let [Command { instruction: Instruction::Add(add), .. }] = stage.commands.as_slice() else { return None };
    let [source] = add.sources.as_slice() else { return None };
    match Remote::parse(source).ok()?? {
        Remote::Http(http) => Some(SourceOp::Http(http)),
        Remote::Git(git) => Some(SourceOp::Git(git)),
    }
}

/// V18.
fn predefined(request: &ConvertRequest<'_>, stage: &str) -> Variables {
    let mut variables = Variables::default();
    for (prefix, platform) in [("BUILD", &request.build_platform), ("TARGET", &request.platform)] {
        let platform = platform.normalised();
        let Platform { ref architecture, ref os, ref os_version, ref variant, .. } = platform;
        for (suffix, value) in [
            ("PLATFORM", platform.to_string().as_str()),
            ("OS", os),
            ("OSVERSION", os_version.as_deref().unwrap_or_default()),
            ("ARCH", architecture),
            ("VARIANT", variant.as_deref().unwrap_or_default()),
        ] {
            variables.set(&format!("{prefix}{suffix}"), value);
        }
    }
    variables.set("TARGETSTAGE", stage);
    variables
}

/// One ARG before the first FROM; an error in the default does not matter if it is not used (V13).
fn declare_global(
    global: &mut Variables,
    arg: &GlobalArg,
    build: &BTreeMap<String, String>,
    escape: char,
) -> Result<(), ConvertError> {
    for item in &arg.items {
        let value = match (build.get(&item.name), &item.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => {
                crate::text::word(default, global, escape).map_err(|p| p.at(arg.origin.location))?
            }
            (None, None) => continue,
        };
        global.set(&item.name, &value);
    }
    Ok(())
}
