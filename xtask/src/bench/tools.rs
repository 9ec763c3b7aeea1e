//! The tools that are compared, each with a store of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::measure::{Cost, high_water_mib, peak_mib, seconds};
use crate::run::{Outcome, command, find, is_root, must, write};

/// One build.
pub(crate) struct Build<'a> {
    pub(crate) context: &'a Path,
    pub(crate) cache: bool,
    pub(crate) output: Output,
}

/// What becomes of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// It stays where the tool keeps results: mica's and Buildah's are images, BuildKit's is a cache entry.
    Cached,
    /// An image in the tool's own store.
    Image,
    /// An OCI archive is written too; mica is given these options with it, peers write theirs.
    Archive(&'static str),
}

/// A tool and its state.
pub(crate) struct Tool {
    kind: Kind,
    folder: PathBuf,
    /// Counts the stores, so that a new one is empty.
    store: usize,
}

enum Kind {
    Mica { binary: PathBuf },
    BuildKit { daemon: PathBuf, client: PathBuf, running: Option<Child> },
    Buildah { binary: PathBuf },
    Podman { binary: PathBuf },
}

/// mica, and the peers found.
pub(crate) fn all(folder: &Path, mica: PathBuf) -> Outcome<Vec<Tool>> {
    let mut kinds = vec![Kind::Mica { binary: mica }];
    if is_root() {
        if let (Some(daemon), Some(client)) = (find("buildkitd"), find("buildctl")) {
            kinds.push(Kind::BuildKit { daemon, client, running: None });
        }
        kinds.extend(find("buildah").map(|binary| Kind::Buildah { binary }));
        kinds.extend(find("podman").map(|binary| Kind::Podman { binary }));
    } else {
        eprintln!("SKIPPED all peers: they are measured as root");
    }
    // On machines without CAP_SYS_RESOURCE the default limits of podman and buildah cannot be set.
    write(
        &folder.join("containers.conf"),
        "[containers]\ndefault_ulimits = []\n[engine]\nruntime = \"runc\"\n",
    )?;
    let mut tools = Vec::new();
    for kind in kinds {
        let mut tool = Tool { kind, folder: folder.to_owned(), store: 0 };
        tool.renew()?;
        tools.push(tool);
    }
    for peer in ["BuildKit", "buildah", "podman"] {
        if !tools.iter().any(|tool| tool.name() == peer) {
            eprintln!("SKIPPED {peer}: not found (`cargo xtask peers` gets it)");
        }
    }
    Ok(tools)
}

impl Tool {
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Mica { .. } => "mica",
            Kind::BuildKit { .. } => "BuildKit",
            Kind::Buildah { .. } => "buildah",
            Kind::Podman { .. } => "podman",
        }
    }

    /// podman builds by buildah, which takes part itself.
    pub(crate) fn builds(&self) -> bool {
        !matches!(self.kind, Kind::Podman { .. })
    }

    /// Tools that solve a graph.
    pub(crate) fn solves_graphs(&self) -> bool {
        matches!(self.kind, Kind::Mica { .. } | Kind::BuildKit { .. })
    }

    /// BuildKit and buildah have no command to run an image.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.kind, Kind::Mica { .. } | Kind::Podman { .. })
    }

    fn root(&self) -> PathBuf {
        self.folder.join(format!("{}-{}", self.name(), self.store))
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name()))
    }

    /// Starts over with an empty store.
    pub(crate) fn renew(&mut self) -> Outcome {
        self.stop();
        let old = self.root();
        // Left behind, it only takes space until the end.
        let _ = std::fs::remove_dir_all(&old);
        self.store += 1;
        let root = self.root();
        std::fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
        self.start()
    }

    /// A daemon is started and waited for; the others have none.
    fn start(&mut self) -> Outcome {
        let (root, log) = (self.root(), self.log());
        let Kind::BuildKit { daemon, client, running } = &mut self.kind else { return Ok(()) };
        let log = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(&*daemon);
        command
            .args([
                "--oci-worker-binary=runc",
                "--containerd-worker=false",
                "--oci-worker-net",
                "host",
                "--root",
            ])
            .arg(&root)
            .args(["--addr", &address(&root)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        *running = Some(command.spawn().map_err(|error| format!("buildkitd: {error}"))?);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            let mut workers = Command::new(&*client);
            workers
                .args(["--addr", &address(&root), "debug", "workers"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if workers.status().is_ok_and(|status| status.success()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("buildkitd does not answer".into())
    }

    fn stop(&mut self) {
        let Kind::BuildKit { running, .. } = &mut self.kind else { return };
        let Some(mut child) = running.take() else { return };
        // A polite end, so that it removes its mounts; then whatever it takes.
        let _ = must(&mut command("kill", &[&child.id().to_string()]));
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(5) && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Seconds of a build.
    pub(crate) fn build(&self, build: &Build<'_>) -> Outcome<Cost> {
        seconds(self.build_commands(build), self.daemon(), &self.log())
    }

    /// The process that does the work for the commands.
    fn daemon(&self) -> Option<u32> {
        let Kind::BuildKit { running, .. } = &self.kind else { return None };
        running.as_ref().map(Child::id)
    }

    /// The most memory a build needs in one process, in MiB; with BuildKit that is the daemon.
    pub(crate) fn build_memory(&self, build: &Build<'_>) -> Outcome<Cost> {
        let client = peak_mib(self.build_commands(build), &self.log())?;
        let daemon = self.daemon().and_then(high_water_mib).unwrap_or(0.0);
        Ok(Cost { value: client.max(daemon), processor: None })
    }

    /// Seconds of `true` in a container of the image that was built.
    pub(crate) fn run_true(&self) -> Outcome<Cost> {
        let arguments = ["run", "--rm", "--network", "host", "bench", "true"];
        let command = match &self.kind {
            Kind::Mica { binary } => self.mica(binary, &arguments),
            Kind::Podman { binary } => self.containers(binary, &arguments),
            Kind::BuildKit { .. } | Kind::Buildah { .. } => return Err("it does not run images".into()),
        };
        seconds(vec![command], None, &self.log())
    }

    fn build_commands(&self, build: &Build<'_>) -> Vec<Command> {
        let archive = self.root().join("archive.tar");
        let archive = archive.to_string_lossy();
        let context = build.context.to_string_lossy();
        let output = format!("type=oci,dest={archive}");
        let mut arguments = vec!["build"];
        match &self.kind {
            Kind::Mica { binary } => {
                arguments.extend(["--network", "host", "--progress", "plain", "--tag", "bench"]);
                arguments.extend((!build.cache).then_some("--no-cache"));
                let options = if let Output::Archive(options) = build.output { options } else { "" };
                let output = format!("{output}{options}");
                if matches!(build.output, Output::Archive(_)) {
                    arguments.extend(["--output", &output]);
                }
                arguments.push(&context);
                vec![self.mica(binary, &arguments)]
            }
            Kind::BuildKit { client, .. } => {
                let (local, dockerfile) = (format!("context={context}"), format!("dockerfile={context}"));
                arguments.extend(["--progress", "plain", "--frontend", "dockerfile.v0"]);
                arguments.extend(["--local", &local, "--local", &dockerfile]);
                arguments.extend((!build.cache).then_some("--no-cache"));
                match build.output {
                    Output::Cached => {}
                    Output::Image => arguments.extend(["--output", "type=image,name=bench"]),
                    Output::Archive(_) => arguments.extend(["--output", &output]),
                }
                let mut command = Command::new(client);
                command.args(["--addr", &address(&self.root())]).args(arguments);
                vec![command]
            }
            Kind::Buildah { binary } | Kind::Podman { binary } => {
                arguments.extend(["--layers", "--network", "host", "--tag", "bench"]);
                arguments.extend((!build.cache).then_some("--no-cache"));
                arguments.push(&context);
                let mut commands = vec![self.containers(binary, &arguments)];
                if matches!(build.output, Output::Archive(_)) {
                    let archive = format!("oci-archive:{archive}");
                    commands.push(self.containers(binary, &["push", "bench", &archive]));
                }
                commands
            }
        }
    }

    fn mica(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = command(binary, arguments);
        command.env("MICA_ROOT", self.root());
        command
    }

    /// A command of the containers/storage family.
    fn containers(&self, binary: &Path, arguments: &[&str]) -> Command {
        let root = self.root();
        let mut command = Command::new(binary);
        command.arg("--root").arg(root.join("storage")).arg("--runroot").arg(root.join("run"));
        command.args(["--storage-driver", "overlay"]).args(arguments);
        command.env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env("BUILDAH_ISOLATION", "oci");
        command
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.stop();
    }
}

fn address(root: &Path) -> String {
    format!("unix://{}", root.join("socket").display())
}
