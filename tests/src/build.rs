//! One build, and what came out of it.

use std::path::{Path, PathBuf};

use mica_testkit::{Mica, Output};
use serde_json::Value;

use crate::Tree;

/// A build to be run: a Dockerfile, the files beside it, options.
pub struct Build<'a> {
    mica: &'a Mica,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl<'a> Build<'a> {
    /// A build of this Dockerfile, in an empty context.
    #[track_caller]
    pub fn new(mica: &'a Mica, dockerfile: impl AsRef<[u8]>) -> Self {
        let directory = PathBuf::from("context");
        // Tests build several contexts one after the other in one store.
        let _ = std::fs::remove_dir_all(mica.work().join(&directory));
        mica.write(directory.join("Dockerfile"), dockerfile);
        Self { mica, directory, arguments: Vec::new() }
    }

    /// The same context with another Dockerfile.
    #[track_caller]
    pub fn again(mica: &'a Mica, dockerfile: impl AsRef<[u8]>) -> Self {
        let directory = PathBuf::from("context");
        mica.write(directory.join("Dockerfile"), dockerfile);
        Self { mica, directory, arguments: Vec::new() }
    }

    /// Adds a file to the context.
    #[must_use]
    #[track_caller]
    pub fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.mica.write(self.directory.join(path), bytes);
        self
    }

    /// Prepares the context by a script of the shell, run inside it.
    #[must_use]
    #[track_caller]
    pub fn prepare(self, script: &str) -> Self {
        let status = std::process::Command::new("/bin/sh")
            .args(["-euc", script])
            .current_dir(self.context())
            .status()
            .expect("a shell");
        assert!(status.success(), "{script} works");
        self
    }

    /// Adds an option.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds an option without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// Where the context is.
    pub fn context(&self) -> PathBuf {
        self.mica.work().join(&self.directory)
    }

    /// Runs `mica build` with plain progress, whatever it answers.
    #[track_caller]
    pub fn run(self) -> Output {
        let mut arguments = vec!["build".to_owned(), "--progress=plain".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        arguments.push(self.context().to_str().expect("our own path").to_owned());
        self.mica.run(arguments)
    }

    /// Demands that the build fails with exit code 1 and says this.
    #[track_caller]
    pub fn fails(self, gist: &str) -> Output {
        self.run().exits(1).complains(gist)
    }

    /// Demands that the build succeeds; its image is named `result` too.
    #[track_caller]
    pub fn succeeds(self) -> Built<'a> {
        let mica = self.mica;
        let tar = mica.work().join("result.tar");
        let output = format!("type=tar,dest={}", tar.to_str().expect("our own path"));
        let output = self.option("-t", "result").flag("--load").option("--output", &output).run().success();
        Built { mica, output, tar }
    }

    /// Demands that the build succeeds, and answers the image ID alone.
    #[track_caller]
    pub fn id(self) -> String {
        let mut arguments = vec!["build".to_owned(), "-q".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        arguments.push(self.context().to_str().expect("our own path").to_owned());
        self.mica.run(arguments).success().line()
    }
}

/// A build that succeeded.
pub struct Built<'a> {
    mica: &'a Mica,
    /// What the build wrote.
    pub output: Output,
    tar: PathBuf,
}

impl Built<'_> {
    /// The files of the result.
    #[track_caller]
    pub fn tree(&self) -> Tree {
        Tree::extract(&self.tar)
    }

    /// The result's `Config` as `mica inspect` shows it.
    #[track_caller]
    pub fn config(&self) -> Value {
        self.mica.run(["image", "inspect", "result"]).success().json()[0]["Config"].take()
    }

    /// The result's configuration as it is stored.
    #[track_caller]
    pub fn stored_config(&self) -> Value {
        let id = self.mica.run(["image", "inspect", "-f", "{{.Id}}", "result"]).success().line();
        let file = stored_blob(&self.mica.root(), &id);
        serde_json::from_slice(&file).expect("a configuration is JSON")
    }

    /// The history's `created_by` texts, oldest first, without those of the base image.
    #[track_caller]
    pub fn history(&self) -> Vec<String> {
        let config = self.stored_config();
        let entries = config["history"].as_array().cloned().unwrap_or_default();
        let text = |entry: &Value| entry["created_by"].as_str().unwrap_or_default().to_owned();
        let base = ["mica pack", "--install -s /bin", "ann:x:1000:1001", "ENTRYPOINT []"];
        entries.iter().map(text).filter(|text| !base.iter().any(|part| text.contains(part))).collect()
    }

    /// Whether the step whose title contains this text came from the cache.
    #[track_caller]
    pub fn cached(&self, title: &str) -> bool {
        step_was_cached(&self.output.stderr_text(), title)
    }
}

/// The bytes of a blob of a store.
#[track_caller]
fn stored_blob(root: &Path, digest: &str) -> Vec<u8> {
    let hex = digest.trim_start_matches("sha256:");
    std::fs::read(root.join("content/blobs/sha256").join(hex)).expect("a stored blob")
}

/// Whether plain progress shows the step as `CACHED`.
///
/// # Panics
/// If there is no such step.
#[track_caller]
pub fn step_was_cached(text: &str, title: &str) -> bool {
    let line = text
        .lines()
        .find(|line| line.starts_with('#') && line.contains("] ") && line.contains(title))
        .unwrap_or_else(|| panic!("no step {title:?} in:\n{text}"));
    let number = line.split(' ').next().unwrap_or_default();
    text.lines().any(|line| line == format!("{number} CACHED"))
}
