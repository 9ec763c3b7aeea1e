//! The checked syntax tree of a Dockerfile: what the instructions say, before any variable is known.
//!
//! Text fields are *unexpanded* unless a comment says otherwise: they still hold quotes, escapes and
//! `$variables`, to be run through [`crate::expand`] where build.md 2.1 (V1) says so. Lists that were
//! written as a JSON array hold the decoded strings, which are expanded all the same.
//!
//! What can be wrong without knowing a variable has been refused by the parser already: unknown
//! flags, word counts, durations, JSON of the wrong shape, malformed stage names.

use std::borrow::Cow;
use std::time::Duration;

/// A range of physical lines: 1-based, both ends inclusive; heredoc terminators belong to it (P24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Location {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// The other parser directives.
    pub directives: Directives,
    /// The ARG instructions before the first FROM, in order.
    pub global_args: Vec<GlobalArg>,
    /// The stages; never empty.
    pub stages: Vec<Stage>,
    /// The text as read (BOM removed, line ends untouched), for [`crate::excerpt::frame`] and provenance.
    pub source: String,
    /// Findings of the parser itself; the other lint rules look at the tree.
    pub warnings: Vec<Warning>,
}

/// The parser directives besides `escape` (P6-P11).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// The frontend image: first word of `syntax`, in any of its spellings (P10).
    pub syntax: Option<String>,
    /// What `check` asks for.
    pub check: Option<CheckOptions>,
}

/// The `check` directive, the comment `# check=…` above one instruction, and `BUILDKIT_DOCKERFILE_CHECK` (P11).
///
/// Made by [`crate::parse_check_options`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Rules not to report.
    pub skip: RuleSet,
    /// Whether findings fail the build; `None` if not said.
    pub error: Option<bool>,
    /// Experimental rules to turn on.
    pub experimental: RuleSet,
}

/// A choice of lint rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RuleSet {
    /// The option was not given.
    #[default]
    Unset,
    /// `all`.
    All,
    /// These, as written.
    Named(Vec<String>),
}

/// One finding of the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Lint rule, such as `NoEmptyContinuation`.
    pub rule: &'static str,
    /// Text of the finding.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// What every instruction has, whatever it says: FROM, global ARG and commands alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Its lines.
    pub location: Location,
    /// The instruction as BuildKit titles its step: the logical line, comments removed, continuation
    /// lines joined with nothing; the keyword as written. A RUN that is one heredoc ends with
    /// ` (first line...)` (P34). Unexpanded.
    pub original: String,
    /// The keyword as written (lint rule ConsistentInstructionCasing).
    pub keyword: String,
    /// The comment lines directly above, without `#` and the blanks after it (P11, descriptions of L3).
    pub comments: Vec<String>,
}

/// An ARG before the first FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArg {
    /// Its words, at least one.
    pub items: Vec<ArgItem>,
    /// Where it stands.
    pub origin: Origin,
}

/// A FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Name after AS, lower-cased (F2).
    pub name: Option<String>,
    /// Name after AS as written (lint rule StageNameCasing).
    pub written_name: Option<String>,
    /// The word between base and name as written: `AS`, `as` (lint rule FromAsCasing).
    pub as_keyword: Option<String>,
    /// The base, unexpanded: stage, named context, `scratch` or image.
    pub base: String,
    /// Value of `--platform`, unexpanded; `Some("")` for `--platform=`.
    pub platform: Option<String>,
    /// The instructions after FROM.
    pub commands: Vec<Command>,
    /// Where the FROM stands.
    pub origin: Origin,
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it says.
    pub instruction: Instruction,
    /// Where it stands.
    pub origin: Origin,
}

/// An instruction other than FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// ADD.
    Add(AddCopy),
    /// COPY.
    Copy(AddCopy),
    /// RUN.
    Run(Run),
    /// ENV; at least one pair. All are expanded with the environment from before the instruction (V11).
    Env(Vec<KeyValue>),
    /// LABEL; at least one pair.
    Label(Vec<KeyValue>),
    /// ARG; at least one item, processed one after the other (V11).
    Arg(Vec<ArgItem>),
    /// CMD. Not expanded.
    Cmd(ShellOrExec),
    /// ENTRYPOINT. Not expanded.
    Entrypoint(ShellOrExec),
    /// SHELL; at least one word. Not expanded.
    Shell(Vec<String>),
    /// WORKDIR, unexpanded.
    Workdir(String),
    /// USER, unexpanded.
    User(String),
    /// EXPOSE: words, unexpanded; each may become several ([`crate::expand::words`]), then see [`crate::ports`].
    Expose(Vec<String>),
    /// VOLUME: at least one, none blank; unexpanded.
    Volume(Vec<String>),
    /// STOPSIGNAL, unexpanded; check with [`crate::check_stop_signal`] after expansion.
    StopSignal(String),
    /// HEALTHCHECK. Not expanded.
    Healthcheck(Healthcheck),
    /// ONBUILD.
    Onbuild(Onbuild),
    /// MAINTAINER. Not expanded.
    Maintainer(String),
}

impl Instruction {
    /// The keyword in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Copy(_) => "COPY",
            Self::Run(_) => "RUN",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Shell(_) => "SHELL",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Onbuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// A command line in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellOrExec {
    /// One string for the shell.
    Shell(String),
    /// An argument vector, from JSON; may be empty (`CMD []`).
    Exec(Vec<String>),
}

/// `key=value` of ENV and LABEL. Both are unexpanded, quotes still in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// Whether it was written as `KEY value` (P23; lint rule LegacyKeyValueFormat).
    pub legacy: bool,
}

/// `name` or `name=default` of ARG. Both are unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgItem {
    /// Name.
    pub name: String,
    /// Default; `Some("")` for `name=`.
    pub default: Option<String>,
}

/// COPY and ADD, whose flags mostly agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddCopy {
    /// Ordinary sources, unexpanded, in order. Heredocs come after all of them (P33).
    pub sources: Vec<String>,
    /// Destination, unexpanded.
    pub destination: String,
    /// Heredoc sources, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--from`: stage name, index, context or image; holds no variable (V3). COPY only.
    pub from: Option<String>,
    /// `--chown`, unexpanded.
    pub chown: Option<String>,
    /// `--chmod`, unexpanded; after expansion see [`crate::chmod::Chmod`].
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order; never expanded.
    pub exclude: Vec<String>,
    /// `--keep-git-dir`; `None` if not given. ADD only.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, unexpanded. ADD only.
    pub checksum: Option<String>,
    /// `--unpack`; `None` if not given. ADD only.
    pub unpack: Option<bool>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command without heredoc bodies. [`Run::script`] says what is to be executed.
    pub command: ShellOrExec,
    /// Heredocs named on the command line, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values in order, unexpanded, checked as far as possible; see [`crate::mounts::parse_mount`].
    pub mounts: Vec<String>,
    /// `--network`; `None` if not given.
    pub network: Option<NetworkMode>,
    /// `--security`; `None` if not given.
    pub security: Option<SecurityMode>,
}

/// What a RUN executes (P29, P30).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunScript<'a> {
    /// Argument vector, no shell.
    Exec(&'a [String]),
    /// SHELL plus this text: the command line, or the body of a single heredoc, or the command line
    /// with all bodies and terminators put back.
    Shell(Cow<'a, str>),
    /// A single heredoc starting with `#!`: write `body` mode 0755 to `/dev/pipes/<name>` and run
    /// SHELL plus that path.
    File {
        /// The delimiter.
        name: &'a str,
        /// The script, tabs removed if the token was `<<-`.
        body: Cow<'a, str>,
    },
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// `default`.
    Default,
    /// `none`: loopback only.
    None,
    /// `host`: needs an entitlement.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityMode {
    /// `sandbox`.
    Sandbox,
    /// `insecure`: needs an entitlement.
    Insecure,
}

/// A heredoc: `<<NAME` and the lines up to `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Delimiter without quotes.
    pub name: String,
    /// The lines as written, each with its line end. [`Heredoc::content`] is what the user means.
    pub body: String,
    /// Whether variables in a COPY or ADD body are expanded: false if the delimiter has quotes (P28).
    /// RUN never expands.
    pub expand: bool,
    /// Whether it was written `<<-`: leading tabs do not count (P27).
    pub strip_tabs: bool,
    /// The number before `<<`; 0 if none.
    pub file_descriptor: u32,
}

/// HEALTHCHECK. `None` of a field means "not given, or zero": absent from the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`.
    Disabled,
    /// `HEALTHCHECK CMD …`.
    Command {
        /// The command.
        command: ShellOrExec,
        /// `--interval`.
        interval: Option<Duration>,
        /// `--timeout`.
        timeout: Option<Duration>,
        /// `--start-period`.
        start_period: Option<Duration>,
        /// `--start-interval`.
        start_interval: Option<Duration>,
        /// `--retries`.
        retries: Option<u32>,
    },
}

/// ONBUILD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger as stored in `config.OnBuild`, heredoc bodies and terminators appended on lines of
    /// their own. Parse it with [`crate::parse_instruction`] when it fires; it has not been looked at
    /// beyond its keyword.
    pub text: String,
}

impl Heredoc {
    /// The body as the user means it: without leading tabs if written `<<-`.
    pub fn content(&self) -> Cow<'_, str> {
        if !self.strip_tabs {
            return Cow::Borrowed(&self.body);
        }
        Cow::Owned(self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect())
    }
}
