//! `run --pull`: the image is fetched before the container is made, as docker's client does it.

use mica_api::{Class, Engine, Ignore, PullImage};
use mica_oci::{Platform, Reference};

use crate::cli::pull::pull_to;
use crate::context::Cx;
use crate::failure::Failure;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PullPolicy {
    /// Every time.
    Always,
    /// If it is not here.
    Missing,
    /// Never.
    Never,
}

/// Pulls the image of a container if the policy says so. What is said goes to standard error: standard output belongs
/// to the program.
///
/// # Errors
/// The engine's: the image cannot be had.
pub(super) fn as_needed(
    cx: &Cx,
    engine: &dyn Engine,
    (image, platform): (&str, Option<&Platform>),
    (policy, quiet): (PullPolicy, bool),
) -> Result<(), Failure> {
    let is_missing = || match engine.image(image) {
        Err(error) if error.class == Class::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Ok(false),
    };
    let wanted = match policy {
        PullPolicy::Always => true,
        PullPolicy::Missing => is_missing()?,
        PullPolicy::Never => false,
    };
    // what is no name of an image is the engine's to refuse
    let Some(reference) = image.parse::<Reference>().ok().filter(|_| wanted) else { return Ok(()) };
    let reference = reference.or_latest();
    if policy == PullPolicy::Missing && !quiet {
        cx.warn(&format!("Unable to find image '{}' locally", reference.familiar()));
    }
    let request = PullImage { reference, platform: platform.cloned() };
    match quiet {
        true => engine.pull(request, &cx.cancel, &Ignore).map(drop).map_err(Failure::from),
        false => pull_to(&cx.err, cx, engine, request),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn a_missing_image_is_pulled_and_that_is_told_on_standard_error() {
        let bench = Bench::new();
        golden("run-pull-missing", &bench.run(&["run", "nope"]).text());
        golden("run-pull-always", &Bench::new().run(&["run", "--pull", "always", "app"]).text());
        golden("run-pull-never", &Bench::new().run(&["run", "--pull=never", "nope"]).text());
        assert_eq!(Bench::new().run(&["run", "--pull", "sometimes", "app"]).status, 125);
    }
}
