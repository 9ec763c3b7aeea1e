//! `mica image prune`: remove unused images (build.md Y17).

use mica_api::{Error, PruneImages};

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
use crate::values::filter::Filter;

use super::confirm;

/// Remove unused images
#[derive(Debug, clap::Args)]
pub(crate) struct ImagePruneArgs {
    /// Remove all images without a container, not only untagged ones
    #[arg(short, long)]
    all: bool,
    /// Only images for which this holds: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Verb for ImagePruneArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let filters: Result<Vec<_>, Error> =
            self.filter.iter().map(|filter| super::images::image_filter(filter, cx)).collect();
        let request = PruneImages { all: self.all, filters: filters? };
        let warning = match self.all {
            true => "WARNING! This will remove all images without at least one container associated to them.",
            false => "WARNING! This will remove all dangling images.",
        };
        if !self.force && !confirm::confirm(cx, warning)? {
            return Ok(Status::default());
        }
        let report = cx.engine()?.prune_images(request, &cx.cancel, &cx.err)?;
        cx.out.text(&confirm::report(&report))?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn what_was_removed_is_listed() {
        golden("image-prune", &Bench::new().run(&["image", "prune", "-af"]).text());
    }
}
