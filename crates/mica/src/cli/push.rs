//! `mica push`: images to a registry.

use mica_api::{Class, Engine, Error, Event, EventSink, Ignore, ListImages, PushImage};
use mica_oci::{Platform, Reference};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::progress::TransferDisplay;

use super::pull::parsed;

/// Send an image to a registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The name says where to: give an image the name of its repository with `mica tag`. What came from a
registry leaves as it came, with the same digest; layers that the registry has are not sent.

Examples:
  mica tag app ghcr.io/owner/app:1 && mica push ghcr.io/owner/app:1
  mica push -a localhost:5000/app            every tag that is here")]
pub(crate) struct PushArgs {
    /// Send all tags of the repository that are here
    #[arg(short, long)]
    all_tags: bool,
    /// Only this platform of an image with several
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Verb for PushArgs {
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG]";
    const FOREIGN: &'static [Foreign] =
        &[Foreign::idle_switch("disable-content-trust", "signatures of Notary v1 are not made")];

    fn run(self, cx: &Cx) -> Outcome {
        let reference = parsed(&self.name)?;
        if reference.digest().is_some() {
            return Err(Failure::new(Class::Invalid, "cannot push a digest reference"));
        }
        if self.all_tags && reference.tag().is_some() {
            return Err(Failure::new(Class::Invalid, "tag can't be used with --all-tags/-a"));
        }
        let engine = cx.engine()?;
        let names = match self.all_tags {
            true => tags_here(engine, &reference)?,
            false => vec![reference.clone().or_latest()],
        };
        if !self.quiet {
            if reference.tag().is_none() && !self.all_tags {
                cx.out.line("Using default tag: latest")?;
            }
            cx.out.line(&format!("The push refers to repository [{}]", reference.name()))?;
        }
        let display = TransferDisplay::new(&cx.out, &cx.err);
        let events: &dyn EventSink = if self.quiet { &Ignore } else { &display };
        for name in names {
            let tag = name.tag().map(ToString::to_string).unwrap_or_default();
            let request = PushImage { reference: name, platform: self.platform.clone() };
            let pushed = engine.push(request, &cx.cancel, events)?;
            if let Some(index) = pushed.instead_of {
                events.event(Event::Notice(format!(
                    "Not all multiplatform-content is present and only what is here was pushed\n{index} -> {}",
                    pushed.target.digest
                )));
            }
            if !self.quiet {
                let (digest, size) = (&pushed.target.digest, pushed.target.size);
                cx.out.line(&format!("{tag}: digest: {digest} size: {size}"))?;
            }
        }
        if self.quiet {
            cx.out.line(&reference.or_latest().to_string())?;
        }
        Ok(Status::default())
    }
}

/// The names of a repository's images here.
fn tags_here(engine: &dyn Engine, repository: &Reference) -> Result<Vec<Reference>, Failure> {
    let name = repository.familiar_name();
    let listed = engine.images(ListImages { repository: Some(name.clone()), ..ListImages::default() })?;
    let mut names: Vec<Reference> = listed
        .into_iter()
        .filter(|image| image.repository.as_deref() == Some(&name))
        .filter_map(|image| Some(repository.with_tag(image.tag?.parse().ok()?)))
        .collect();
    names.sort();
    if names.is_empty() {
        let text = format!("An image does not exist locally with the tag: {name}");
        return Err(Error::new(Class::NotFound, text).into());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn a_push_speaks_as_docker_does() {
        let bench = Bench::new();
        golden("push", &bench.run(&["push", "app"]).text());
        golden("push-calls", &bench.calls());
        golden("push-quiet", &Bench::new().run(&["push", "-q", "app:latest"]).text());
        golden("push-all-tags", &Bench::new().run(&["push", "-a", "app"]).text());
        golden("push-digest", &Bench::new().run(&["push", &format!("app@sha256:{}", "0".repeat(64))]).text());
    }
}
