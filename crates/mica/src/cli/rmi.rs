//! `mica rmi`: remove names, and images that no name is left for.

use mica_api::{Class, RemoveImage, RemovedImage};

use crate::context::Cx;
use crate::failure::{Outcome, error_text};
use crate::flags::{Foreign, Verb};

/// Remove one or more images
#[derive(Debug, clap::Args)]
pub(crate) struct RmiArgs {
    /// Remove images although several names or a container use them
    #[arg(short, long)]
    force: bool,
    /// Images: names or IDs
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for RmiArgs {
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";
    const FOREIGN: &'static [Foreign] = &[
        Foreign::idle_switch("no-prune", "layers that nothing needs are removed by the garbage collection"),
        Foreign::refused("platform", "images of several platforms come with multi-platform builds"),
    ];

    fn run(self, cx: &Cx) -> Outcome {
        cx.for_each(&self.images, |engine, image| {
            let removed = engine.remove_image(RemoveImage { query: image.to_owned(), force: self.force });
            if let Err(error) = &removed
                && self.force
                && error.class == Class::NotFound
            {
                // told, as docker does, but scripts that remove what may be there are not stopped by it
                return cx.err.text(&error_text(error));
            }
            for line in removed? {
                cx.out.line(&match line {
                    RemovedImage::Untagged(name) => format!("Untagged: {name}"),
                    RemovedImage::Deleted(digest) => format!("Deleted: {digest}"),
                })?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn a_missing_image_does_not_stop_the_others() {
        golden("rmi", &Bench::new().run(&["rmi", "nope", "app"]).text());
        golden("rmi-force", &Bench::new().run(&["rmi", "-f", "nope"]).text());
        golden("rmi-arguments", &Bench::new().run(&["rmi"]).text());
    }
}
