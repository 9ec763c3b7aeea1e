//! What a command works with: streams, settings, and the engine, which is opened when first asked for.

use std::cell::OnceCell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use mica_api::{Cancel, Class, Engine, Error, Timestamp};
use mica_engine::{HttpClient, Registries, RegistrySettings};

use crate::docker_config::DockerConfig;
use crate::engine::EngineOptions;
use crate::environment::Environment;
use crate::failure::{Failure, Status, error_text};
use crate::output::Out;
use crate::root::Globals;
use crate::signals::Watch;

/// Opens the engine.
pub(crate) type Open = fn(&EngineOptions) -> mica_api::Result<Box<dyn Engine>>;

/// The context of one command.
pub(crate) struct Cx {
    /// The name this program was called by: `mica` or `docker`.
    pub program: String,
    /// Flags before the verb.
    pub globals: Globals,
    /// The environment.
    pub environment: Environment,
    /// Standard output.
    pub out: Out,
    /// Standard error.
    pub err: Out,
    /// Whether a person types on standard input.
    pub stdin_is_terminal: bool,
    /// When the command began; ages are relative to it.
    pub now: Timestamp,
    /// Asks the running operation to stop.
    pub cancel: Cancel,
    zone: OnceCell<TimeZone>,
    config: OnceCell<DockerConfig>,
    engine: OnceCell<Box<dyn Engine>>,
    open: Open,
    watch: OnceCell<Option<Watch>>,
}

impl Cx {
    /// The context of this process.
    pub(crate) fn of_process(program: String, open: Open) -> Self {
        Self {
            program,
            globals: Globals::default(),
            environment: Environment::of_process(),
            out: Out::stdout(),
            err: Out::stderr(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            now: Timestamp::now(),
            cancel: Cancel::new(),
            zone: OnceCell::new(),
            config: OnceCell::new(),
            engine: OnceCell::new(),
            open,
            watch: OnceCell::new(),
        }
    }

    /// The engine.
    ///
    /// From then on, signals that ask this process to end trip [`Cx::cancel`].
    ///
    /// # Errors
    /// It cannot be opened, or another one is asked for by `DOCKER_HOST` or a named context.
    pub(crate) fn engine(&self) -> Result<&dyn Engine, Failure> {
        self.watched_engine(false)
    }

    /// The engine, after repairing what keeps its store from being opened.
    ///
    /// # Errors
    /// Those of [`Cx::engine`]; the store cannot be repaired.
    pub(crate) fn repaired_engine(&self) -> Result<&dyn Engine, Failure> {
        self.watched_engine(true)
    }

    fn watched_engine(&self, repair: bool) -> Result<&dyn Engine, Failure> {
        let engine = self.open_engine(repair)?;
        self.watch.get_or_init(|| Watch::start(&self.cancel));
        Ok(engine)
    }

    /// The engine, for an operation that deals with signals itself.
    ///
    /// # Errors
    /// Those of [`Cx::engine`].
    pub(crate) fn engine_with_signals(&self) -> Result<&dyn Engine, Failure> {
        self.open_engine(false)
    }

    fn open_engine(&self, repair: bool) -> Result<&dyn Engine, Failure> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine.as_ref());
        }
        self.refuse_remote_engines()?;
        let (caller, proxies) = (self.environment.caller(), self.environment.proxies());
        let registries = self.registry_settings();
        let options = EngineOptions { root: self.root(), caller, proxies, registries, repair };
        let engine = (self.open)(&options)?;
        Ok(self.engine.get_or_init(|| engine).as_ref())
    }

    /// The engine, if there is a store and it can be opened: for whoever must neither make one nor complain.
    pub(crate) fn existing_engine(&self) -> Option<&dyn Engine> {
        let is_open = self.engine.get().is_some();
        (is_open || self.root().exists()).then(|| self.engine_with_signals().ok()).flatten()
    }

    /// Where the store is.
    fn root(&self) -> PathBuf {
        let given =
            self.globals.root.clone().or_else(|| self.environment.nonempty("MICA_ROOT").map(PathBuf::from));
        let root = given.unwrap_or_else(|| self.environment.default_root());
        std::path::absolute(&root).unwrap_or(root)
    }

    /// The signal that asked this process to stop, if one did.
    pub(crate) fn signal(&self) -> Option<u8> {
        self.watch.get().and_then(Option::as_ref).and_then(Watch::last)
    }

    /// A local socket has nothing behind it that mica needs; another machine cannot be reached yet.
    fn refuse_remote_engines(&self) -> Result<(), Failure> {
        let context = self.globals.context.as_deref().or_else(|| self.environment.nonempty("DOCKER_CONTEXT"));
        if let Some(context) = context.filter(|name| *name != "default") {
            return Err(Error::new(Class::Unsupported, format!("context {context:?} is not supported yet"))
                .why("this version only works on the local store")
                .hint("--context default")
                .into());
        }
        let Some(host) = self.globals.host.as_deref().or_else(|| self.environment.nonempty("DOCKER_HOST"))
        else {
            return Ok(());
        };
        if !host.starts_with("unix://") && !host.starts_with('/') {
            return Err(Error::new(Class::Unsupported, format!("remote engine {host} is not supported yet"))
                .why("this version only works on the local store")
                .hint("unset DOCKER_HOST")
                .into());
        }
        if self.environment.get("DOCKER_CLI_HINTS") != Some("false") {
            self.warn(&format!(
                " hint: the local socket {host} is not used: {} needs no daemon",
                self.program
            ));
        }
        Ok(())
    }

    /// The local time zone.
    pub(crate) fn zone(&self) -> &TimeZone {
        self.zone.get_or_init(TimeZone::system)
    }

    /// The user's `config.json`.
    pub(crate) fn config(&self) -> &DockerConfig {
        self.config.get_or_init(|| DockerConfig::read(&self.config_directory()))
    }

    /// The files that decide about registries.
    pub(crate) fn registry_settings(&self) -> RegistrySettings {
        self.environment.registry_settings(&self.config_directory())
    }

    /// Registries without an engine, for commands that only deal with them.
    ///
    /// Signals that ask this process to end trip [`Cx::cancel`] from then on.
    pub(crate) fn registries(&self) -> Registries {
        self.registries_by(self.registry_settings())
    }

    /// The same with other settings.
    pub(crate) fn registries_by(&self, settings: RegistrySettings) -> Registries {
        self.watch.get_or_init(|| Watch::start(&self.cancel));
        let http = HttpClient::new(self.environment.proxies());
        Registries::new(Arc::new(http), settings)
    }

    /// Where docker's `config.json` is.
    pub(crate) fn config_directory(&self) -> PathBuf {
        let given = self.globals.config.clone();
        given
            .or_else(|| self.environment.nonempty("DOCKER_CONFIG").map(PathBuf::from))
            .or_else(|| self.environment.home().map(|home| home.join(".docker")))
            .unwrap_or_default()
    }

    /// Says something on standard error. If nobody can hear it, the command still goes on.
    pub(crate) fn warn(&self, line: &str) {
        let _unheard = self.err.line(line);
    }

    /// Does the same to several objects: failures are told as they happen, and the others are still served.
    ///
    /// # Errors
    /// Only what ends everything: the engine cannot be opened, or the output is gone.
    pub(crate) fn for_each(
        &self,
        names: &[String],
        mut act: impl FnMut(&dyn Engine, &str) -> Result<(), Failure>,
    ) -> Result<Status, Failure> {
        let engine = self.engine()?;
        let mut status = Status::default();
        for name in names {
            match act(engine, name) {
                Ok(()) => {}
                Err(Failure::Engine(error)) => {
                    let _unheard = self.err.text(&error_text(&error));
                    status = Status(1);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(status)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(out: Out, err: Out, environment: Environment, engine: Box<dyn Engine>) -> Self {
        Self {
            program: "mica".to_owned(),
            globals: Globals::default(),
            environment,
            out,
            err,
            stdin_is_terminal: false,
            now: Timestamp(1_700_000_000_000_000_000),
            cancel: Cancel::new(),
            zone: OnceCell::from(TimeZone::UTC),
            config: OnceCell::from(DockerConfig::default()),
            engine: OnceCell::from(engine),
            open: crate::engine::engine,
            watch: OnceCell::from(None),
        }
    }
}

impl std::fmt::Debug for Cx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cx").field("program", &self.program).finish_non_exhaustive()
    }
}
