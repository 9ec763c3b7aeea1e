//! Test equipment: a command line with a fake engine behind it, goldens, recorded builds.

mod fake;
pub(crate) mod recorded;
pub(crate) mod screen;
mod tars;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::context::Cx;
use crate::environment::Environment;
use crate::output::Out;
use crate::root;

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Runs command lines against a fake engine.
pub(crate) struct Bench {
    terminal: bool,
    environment: Environment,
    calls: Arc<Mutex<String>>,
}

/// What a command line did.
pub(crate) struct Ran {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code.
    pub status: u8,
}

impl Ran {
    /// Everything, as goldens have it.
    pub(crate) fn text(&self) -> String {
        let marker = if self.stderr.is_empty() { "" } else { "--- stderr\n" };
        format!("{}{marker}{}exit {}\n", self.stdout, self.stderr, self.status)
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { terminal: false, environment: Environment::default(), calls: Arc::default() }
    }

    /// Both outputs are terminals.
    pub(crate) fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// What the engine was asked, one line each.
    pub(crate) fn calls(&self) -> String {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn context(&self) -> Cx {
        self.context_to(&Bytes::default(), &Bytes::default())
    }

    fn context_to(&self, stdout: &Bytes, stderr: &Bytes) -> Cx {
        Cx::for_tests(
            Out::of(Arc::clone(stdout), self.terminal),
            Out::of(Arc::clone(stderr), self.terminal),
            self.environment.clone(),
            Box::new(fake::FakeEngine::new(Arc::clone(&self.calls))),
        )
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let (stdout, stderr) = (Bytes::default(), Bytes::default());
        let mut cx = self.context_to(&stdout, &stderr);
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let status = root::run(&mut cx, &args);
        let text = |bytes: &Bytes| String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
        Ran { stdout: text(&stdout), stderr: text(&stderr), status }
    }
}

/// Compares a text with `tests/golden/NAME.txt`; `MICA_BLESS=1` writes it instead.
pub(crate) fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("MICA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} differs from {}; MICA_BLESS=1 accepts it", path.display());
}
