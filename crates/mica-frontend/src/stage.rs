//! One stage while its instructions are converted: its files so far, its config so far, its variables.

use mica_dockerfile::{Command, Location, expand};
use mica_oci::{ImageConfig, Platform};
use mica_solve::{Input, Op, Vertex, VertexId};

use crate::Problem;
use crate::arguments::Variables;
use crate::convert::Converter;
use crate::history::{self, Layer};
use crate::lint::Seen;
use crate::text::{self, Unset};
use crate::title::{self, Steps};

/// What earlier instructions left to later ones, and stages to the stages built from them.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    /// The files; `None` is an empty root.
    pub(crate) root: Option<VertexId>,
    /// The config, history included; layers are counted by the history alone.
    pub(crate) config: ImageConfig,
    /// ENV and ARG in one name space (V12).
    pub(crate) variables: Variables,
    /// Declared ARGs with the values they were declared with, redeclared ones once (V23).
    pub(crate) declared: Vec<(String, String)>,
    /// What the stage is for.
    pub(crate) platform: Platform,
    /// What findings are made of.
    pub(crate) seen: Seen,
}

impl StageState {
    /// A stage that starts from files and a config: PATH and working directory are made certain (G3).
    pub(crate) fn from_base(root: Option<VertexId>, mut config: ImageConfig, platform: Platform) -> Self {
        config.created = None;
        forget_other_tools(&mut config);
        config.config.on_build.clear();
        config.rootfs.diff_ids = None;
        config.ensure_path();
        let workdir = &mut config.config.working_dir;
        if !workdir.is_empty() && !workdir.starts_with('/') {
            *workdir = crate::paths::join("/", workdir);
        }
        let variables = Variables::of(&config.config.env);
        Self { root, config, variables, declared: Vec::new(), platform, seen: Seen::default() }
    }

    /// What a stage built from this one starts with (V15): ARGs too, but where an ENV has the same name, that.
    pub(crate) fn handed_on(mut self) -> Self {
        self.config.config.on_build.clear();
        self.seen = self.seen.handed_on();
        for (name, value) in self.config.config.env.iter().filter_map(|entry| entry.split_once('=')) {
            self.variables.set(name, value);
        }
        self
    }

    /// `<W>`: the current working directory, absolute but not always clean.
    pub(crate) fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }

    /// Remembers an ARG; a redeclared one keeps its place (V23).
    pub(crate) fn declare(&mut self, name: &str, value: Option<&str>) {
        let value = value.unwrap_or_default();
        match self.declared.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.declared.push((name.to_owned(), value.to_owned())),
        }
    }
}

/// Removes what only the base's builder understood, such as its inline cache, and empty maps, which are left out (G2).
fn forget_other_tools(config: &mut ImageConfig) {
    config.extra.clear();
    config.config.extra.clear();
    for entry in config.history.iter_mut().flatten() {
        entry.extra.clear();
    }
    config.config.exposed_ports.take_if(|ports| ports.is_empty());
    config.config.volumes.take_if(|volumes| volumes.is_empty());
}

/// The inputs of a vertex being made.
#[derive(Debug, Default)]
pub(crate) struct Inputs(pub(crate) Vec<VertexId>);

impl Inputs {
    /// The input that stands for a vertex, or for an empty root; a vertex used twice is one input.
    pub(crate) fn add(&mut self, vertex: Option<VertexId>) -> Input {
        let Some(vertex) = vertex else {
            return Input::Scratch;
        };
        let known = self.0.iter().position(|input| *input == vertex);
        Input::Vertex(known.unwrap_or_else(|| {
            self.0.push(vertex);
            self.0.len() - 1
        }))
    }
}

/// A stage being converted.
pub(crate) struct StageConverter<'c, 'a> {
    /// What all stages share.
    pub(crate) shared: &'c mut Converter<'a>,
    /// Where the stage is.
    pub(crate) state: StageState,
    /// Index in the Dockerfile.
    pub(crate) index: usize,
    /// Names of its steps.
    pub(crate) steps: Steps,
    /// Whether the cache is not asked (K10).
    pub(crate) ignore_cache: bool,
    /// Whether CMD was seen: ENTRYPOINT then leaves it alone (I11).
    pub(crate) has_cmd: bool,
    /// Whether the instructions are ONBUILD triggers.
    pub(crate) in_trigger: bool,
    /// What the instruction lacked.
    pub(crate) unset: Unset,
}

impl StageConverter<'_, '_> {
    /// Expands one field with the variables of the stage.
    pub(crate) fn word(&self, text: &str) -> Result<String, Problem> {
        let expanded = expand::word(text, &self.state.variables, self.shared.dockerfile.escape)?;
        Ok(self.unset.note(expanded, &self.state.variables))
    }

    /// Adds the history entry of an instruction.
    pub(crate) fn commit(&mut self, created_by: String, layer: Layer) {
        history::commit(&mut self.state.config, created_by, layer, self.shared.seconds);
    }

    /// The name of the next step, with the prefix of the stage.
    pub(crate) fn next_title(&mut self, instruction: &str) -> (String, String) {
        if self.shared.request.multi_platform {
            let told = self.state.variables.value("TARGETPLATFORM").map(str::to_owned);
            self.steps.platform = Some(title::platform_prefix(&self.state.platform, told.as_deref()));
        }
        let mut prefix = self.steps.next();
        if self.in_trigger {
            prefix.push_str("ONBUILD ");
        }
        (prefix, title::upper_case_keyword(instruction))
    }

    /// The title of an instruction whose quotes disappear, as in COPY and WORKDIR.
    pub(crate) fn expanded_title(&self, command: &Command) -> String {
        let original = &command.origin.original;
        text::word(original, &self.state.variables, self.shared.dockerfile.escape)
            .unwrap_or_else(|_| original.clone())
    }

    /// The title of RUN: variables replaced, quotes kept, because they say how the shell will read it.
    pub(crate) fn shown(&self, text: &str) -> String {
        text::shown(text, &self.state.variables, self.shared.dockerfile.escape)
    }

    /// Adds a vertex with the current lines and cache policy.
    pub(crate) fn add(
        &mut self,
        op: Op,
        inputs: Inputs,
        name: String,
        at: Location,
        ignore_cache: bool,
    ) -> VertexId {
        let lines = Some((at.start, at.end));
        self.shared.graph.add(Vertex { op, inputs: inputs.0, name, ignore_cache, lines })
    }
}
