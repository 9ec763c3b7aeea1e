//! `mica build`: an image from a Dockerfile (build.md 6.4, 6.5, 6.8).

mod annotations;
mod caches;
mod foreign;
mod metadata;
mod outputs;
mod permissions;
mod request;
mod resources;
mod sources;

use std::path::{Path, PathBuf};

use mica_api::{BuildReply, BuildRequest, Class, Error, Output};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::{Foreign, Verb};
use crate::format::units;
use crate::progress::{self, Display, Mode};
use crate::values::hosts;

/// Build an image from a Dockerfile
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Build an image from a Dockerfile and the files next to it.

PATH is the build context: the directory whose files COPY and ADD may read, less what its .dockerignore leaves out. \
With `-` the context is a tar on standard input, or, if that is text, a Dockerfile without context. It may also be a \
tar file, a URL of either, or a git repository: https://HOST/REPO.git#REF:DIRECTORY, git@HOST:REPO, DIRECTORY#REF. The \
Dockerfile is PATH/Dockerfile unless -f says otherwise; a relative -f starts at the current directory.

The result goes to the local store. --output sends it elsewhere: type=local (files in a directory), type=tar, \
type=oci and type=docker (archives), type=cacheonly (nowhere). `-o DIR` is type=local, `-o -` is type=tar to standard \
output.

Steps whose inputs have not changed are taken from the cache; --cache-to and --cache-from carry it to other machines. Progress goes to standard error; with -q only the \
image ID is printed, on standard output.",
    after_long_help = "\
Examples:
  Build this directory and name the result:
    $ mica build -t app:1 .

  Another Dockerfile, one stage of it, an argument:
    $ mica build -f docker/Dockerfile.prod --target server --build-arg VERSION=1.2 .

  Use a secret without leaving it in the image (RUN --mount=type=secret,id=token):
    $ mica build --secret id=token,env=TOKEN -t app .

  Only the files of the result:
    $ mica build -o ./dist .

  A context from elsewhere:
    $ git archive HEAD | mica build -t app -"
)]
pub(crate) struct BuildArgs {
    /// Add a line to /etc/hosts of RUN
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Allow what needs a permission: network.host, security.insecure, buildx.local.delete
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        long,
        value_name = "ANNOTATION",
        help = "Note on the image: [manifest|manifest-descriptor[PLATFORM]:]KEY=VALUE"
    )]
    annotation: Vec<String>,
    /// Set an ARG; a name alone takes its value from here
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Another context, for FROM and COPY --from: a directory, a URL, docker-image://NAME or oci-layout://DIR
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<String>,
    /// Use a cache from elsewhere: type=registry,ref=NAME or type=local,src=DIR[,tag=TAG]
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Write a cache: type=registry,ref=NAME[,mode=max], type=local,dest=DIR[,mode=max] or type=inline
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Make the cgroups of RUN in this one
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
    /// Show the whole text of warnings
    #[arg(short = 'D', long)]
    debug: bool,
    /// Dockerfile; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Write the image ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Label the image
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Keep the result in the local store (the default; for use with --output)
    #[arg(long)]
    load: bool,
    /// Write what came out as JSON to this file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Network of RUN: default, none or host
    #[arg(long, alias = "net", value_name = "MODE")]
    network: Option<String>,
    /// Run every step, whatever the cache has
    #[arg(long)]
    no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Where the result goes: DIR, -, or type=image|registry|oci|docker|local|tar|cacheonly[,dest=PATH]
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Platform of the image: linux/arm64
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    platform: Vec<String>,
    /// How progress is shown: auto, plain, tty, quiet, rawjson
    #[arg(long, value_name = "MODE")]
    progress: Option<String>,
    /// Ask the registries of base images for newer ones, although the images are here
    #[arg(long)]
    pull: bool,
    /// Send the result to the registry of its name (as --output type=registry)
    #[arg(long)]
    push: bool,
    /// Print nothing but the image ID
    #[arg(short, long)]
    quiet: bool,
    /// Limit what a RUN uses: memory=SIZE, memory-swap=, cpu-shares=, cpu-period=, cpu-quota=, cpuset-cpus=, cpuset-mems=
    #[arg(long, value_name = "NAME=VALUE")]
    resource: Vec<String>,
    /// Run RUN steps with this OCI runtime: runc, crun or a path
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<PathBuf>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Size of /dev/shm for RUN: 64m
    #[arg(long, value_name = "BYTES", value_parser = units::parse_binary)]
    shm_size: Option<u64>,
    /// SSH agent for RUN --mount=type=ssh: default or ID[=SOCKET]
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    /// Name for the image; repeat it for several
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Stage to build; the last one if not given
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Limit a resource of RUN
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = hosts::ulimit)]
    ulimit: Vec<String>,
    /// Build context: a directory, a URL, a repository, or `-` for standard input
    #[arg(value_name = "PATH")]
    context: String,
}

impl Verb for BuildArgs {
    const USAGE: &'static str = "[OPTIONS] PATH | URL | -";
    const FOREIGN: &'static [Foreign] = foreign::FLAGS;

    fn run(self, cx: &Cx) -> Outcome {
        let mode = self.mode(cx)?;
        let iidfile = self.iidfile.clone();
        let (quiet, metadata_file) = (self.quiet, self.metadata_file.clone());
        let debug = self.debug || cx.globals.debug;
        let here =
            std::env::current_dir().map_err(|error| io_failure("cannot find this directory", &error))?;
        let request = self.request(cx, &here)?;
        if let Some(file) = &iidfile {
            prepare_iidfile(file, &request)?;
        }
        let reply = build(cx, (mode, debug), request)?;
        if let Some(file) = &metadata_file {
            metadata::write(file, &reply)?;
        }
        let id = reply.image_id.map(|id| id.to_string());
        if let (Some(file), Some(id)) = (&iidfile, &id) {
            std::fs::write(file, id).map_err(|error| {
                io_failure(format!("cannot write the image ID to {}", file.display()), &error)
            })?;
        }
        if let (true, Some(id)) = (quiet, &id) {
            cx.out.line(id)?;
        }
        Ok(Status::default())
    }
}

impl BuildArgs {
    /// `--progress`, then `BUILDKIT_PROGRESS`, then `auto`.
    fn mode(&self, cx: &Cx) -> Result<Mode, Failure> {
        let word = self
            .progress
            .as_deref()
            .or_else(|| cx.environment.nonempty("BUILDKIT_PROGRESS"))
            .unwrap_or("auto");
        let mode = Mode::choose(word, cx.err.is_terminal(), &cx.environment);
        let mode =
            mode.ok_or_else(|| Failure::new(Class::Invalid, format!("invalid progress mode {word}")))?;
        if !self.quiet {
            return Ok(mode);
        }
        match self.progress.as_deref() {
            None | Some("auto" | "quiet" | "none") => Ok(Mode::Quiet),
            Some(other) => Err(Failure::new(
                Class::Invalid,
                format!("progress={other} and quiet cannot be used together"),
            )),
        }
    }
}

/// A build that fails must not leave the ID of an earlier one (build.md X9).
fn prepare_iidfile(file: &Path, request: &BuildRequest) -> Result<(), Failure> {
    let without_image = |output: &Output| matches!(output, Output::Local { .. } | Output::Tar { .. });
    if !request.outputs.is_empty() && request.outputs.iter().all(without_image) {
        return Err(Error::new(Class::Invalid, "cannot use --iidfile with a local or tar output")
            .why("these outputs have no image ID")
            .into());
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_failure(format!("removing image ID file {}", file.display()), &error))
        }
        _ => Ok(()),
    }
}

fn build(cx: &Cx, (mode, debug): (Mode, bool), request: BuildRequest) -> Result<BuildReply, Failure> {
    let engine = cx.engine()?;
    let display = Display::start(mode, cx.err.clone(), &cx.environment, &cx.cancel);
    let result = engine.build(request, &cx.cancel, &display);
    let summary = display.finish();
    if summary.reader_is_gone {
        return Err(Failure::ReaderGone);
    }
    let shown = matches!(mode, Mode::Plain | Mode::Tty);
    let tells_failures = match &result {
        // what failed without stopping the build: the import of a cache
        Ok(_) => shown,
        // An engine that gathered the logs itself has put them into the excerpt.
        Err(error) => {
            let excerpt = error.excerpt.as_deref().unwrap_or_default();
            error.class != Class::Cancelled && !excerpt.starts_with("------")
        }
    };
    if tells_failures {
        cx.err.bytes(summary.failures.as_bytes())?;
    }
    if shown {
        cx.err.text(&progress::warnings(&summary.warnings, &cx.program, debug))?;
    }
    result.map_err(|error| Failure::Build(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn a_build_in_plain_mode_prints_progress_and_warnings() {
        golden("build", &Bench::new().run(&["build", "-t", "app", "/"]).text());
        golden("build-tty", &Bench::new().on_terminal().run(&["build", "--progress", "plain", "/"]).text());
    }

    #[test]
    fn quiet_prints_only_the_id() {
        golden("build-quiet", &Bench::new().run(&["buildx", "build", "-q", "/"]).text());
        golden("build-quiet-tty", &Bench::new().run(&["build", "-q", "--progress", "tty", "/"]).text());
    }

    #[test]
    fn failures_show_logs_excerpt_and_why() {
        golden("build-failure", &Bench::new().run(&["build", "--build-arg", "FAIL=1", "/"]).text());
        golden(
            "build-failure-quiet",
            &Bench::new().run(&["build", "-q", "--build-arg", "FAIL=1", "/"]).text(),
        );
        golden("build-cancelled", &Bench::new().run(&["build", "--build-arg", "CANCEL=1", "/"]).text());
    }

    #[test]
    fn flags_that_are_not_there_are_refused_by_name() {
        golden("build-push", &Bench::new().run(&["build", "--push", "/"]).text());
        golden("build-provenance", &Bench::new().run(&["build", "--provenance=true", "/"]).text());
        golden("build-provenance-off", &Bench::new().run(&["build", "-q", "--provenance=false", "/"]).text());
        golden("build-legacy", &Bench::new().run(&["build", "-q", "--rm", "--memory", "1g", "/"]).text());
    }

    #[test]
    fn the_image_id_file_has_no_newline_and_is_never_stale() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("iid");
        let name = file.to_str().unwrap();
        assert_eq!(Bench::new().run(&["build", "-q", "--iidfile", name, "/"]).status, 0);
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("sha256:"));
        assert_eq!(std::fs::read_to_string(&file).unwrap().len(), 71);
        assert_eq!(
            Bench::new().run(&["build", "-q", "--iidfile", name, "--build-arg", "FAIL=1", "/"]).status,
            1
        );
        assert!(!file.exists());
        golden(
            "build-iidfile-local",
            &Bench::new().run(&["build", "--iidfile", name, "-o", "/tmp/x", "/"]).text(),
        );
    }

    #[test]
    fn the_manual_has_examples() {
        golden("build-help", &Bench::new().run(&["build", "--help"]).text());
    }
}
