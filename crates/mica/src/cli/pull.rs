//! `mica pull`: images from a registry.

use mica_api::{Class, Engine, Error, Ignore, PullImage};
use mica_oci::{Platform, Reference};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::output::Out;
use crate::progress::TransferDisplay;

/// Fetch an image from a registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Names without a registry belong to docker.io. Layers that are here already are not fetched again,
and an interrupted pull goes on where it stopped. Credentials are those of `mica login`, docker or
podman.

Examples:
  mica pull alpine                           docker.io/library/alpine:latest
  mica pull ghcr.io/owner/app:1.2
  mica pull --platform linux/arm64 alpine    for another machine
  mica pull -a localhost:5000/app            every tag")]
pub(crate) struct PullArgs {
    /// Fetch all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// For this platform instead of this machine's
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

impl Verb for PullArgs {
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG|@DIGEST]";
    const FOREIGN: &'static [Foreign] =
        &[Foreign::idle_switch("disable-content-trust", "signatures of Notary v1 are not looked at")];

    fn run(self, cx: &Cx) -> Outcome {
        let reference = parsed(&self.name)?;
        let platform = super::run::platform(self.platform, &cx.environment)?;
        let tagged = reference.tag().is_some() || reference.digest().is_some();
        if self.all_tags && tagged {
            return Err(Failure::new(Class::Invalid, "tag can't be used with --all-tags/-a"));
        }
        let engine = cx.engine()?;
        if !self.all_tags {
            if !tagged && !self.quiet {
                cx.out.line("Using default tag: latest")?;
            }
            pull_one(cx, engine, (reference.clone().or_latest(), platform), self.quiet)?;
            cx.out.line(&reference.or_latest().to_string())?;
            return Ok(Status::default());
        }
        for tag in engine.remote_tags(&reference, &cx.cancel)? {
            pull_one(cx, engine, (reference.with_tag(tag), platform.clone()), self.quiet)?;
        }
        cx.out.line(&reference.to_string())?;
        Ok(Status::default())
    }
}

fn pull_one(
    cx: &Cx,
    engine: &dyn Engine,
    (reference, platform): (Reference, Option<Platform>),
    quiet: bool,
) -> Result<(), Failure> {
    let request = PullImage { reference, platform };
    if quiet {
        engine.pull(request, &cx.cancel, &Ignore)?;
        return Ok(());
    }
    pull_to(&cx.out, cx, engine, request)
}

/// Pulls and tells it on `out`, as docker does.
///
/// # Errors
/// The engine's.
pub(in crate::cli) fn pull_to(
    out: &Out,
    cx: &Cx,
    engine: &dyn Engine,
    request: PullImage,
) -> Result<(), Failure> {
    let name = request.reference.familiar();
    let display = TransferDisplay::new(out, &cx.err);
    let pulled = engine.pull(request, &cx.cancel, &display)?;
    let status = if pulled.is_newer { "Downloaded newer image for" } else { "Image is up to date for" };
    out.text(&format!("Digest: {}\nStatus: {status} {name}\n", pulled.target.digest))
}

/// A reference as `pull` and `push` take it.
///
/// # Errors
/// docker's `invalid reference format`.
pub(in crate::cli) fn parsed(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error: mica_oci::ReferenceError| {
        Error::new(Class::Invalid, error.to_string()).why(format!("{name:?} is no name of an image")).into()
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn a_pull_speaks_as_docker_does() {
        let bench = Bench::new();
        golden("pull", &bench.run(&["pull", "alpine"]).text());
        golden("pull-calls", &bench.calls());
        golden("pull-quiet", &Bench::new().run(&["pull", "-q", "alpine:3"]).text());
        golden("pull-all-tags", &Bench::new().run(&["pull", "-a", "alpine"]).text());
        golden("pull-all-tags-of-a-tag", &Bench::new().run(&["pull", "-a", "alpine:3"]).text());
        golden("pull-invalid", &Bench::new().run(&["pull", "Alpine"]).text());
    }
}
