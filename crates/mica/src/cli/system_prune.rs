//! `mica system prune`: remove everything unused.

use mica_api::SystemPrune;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::{Foreign, Verb};

use super::confirm;

/// Remove everything unused: ended containers, untagged images, build cache
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Remove all unused images, not only untagged ones
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes that no container uses, too
    #[arg(long)]
    volumes: bool,
}

impl PruneArgs {
    fn warning(&self) -> String {
        let images = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        let cache = if self.all { "all build cache" } else { "unused build cache" };
        let volumes = match self.volumes {
            true => "  - all anonymous volumes not used by at least one container\n",
            false => "",
        };
        format!(
            "WARNING! This will remove:\n  - all stopped containers\n{volumes}  - {images}\n  - {cache}\n"
        )
    }
}

impl Verb for PruneArgs {
    const USAGE: &'static str = "[OPTIONS]";
    const FOREIGN: &'static [Foreign] = &[Foreign::refused(
        "filter",
        "everything unused is removed; `image prune` and `builder prune` have filters",
    )];

    fn run(self, cx: &Cx) -> Outcome {
        if !self.force && !confirm::confirm(cx, &self.warning())? {
            return Ok(Status::default());
        }
        let request = SystemPrune { all: self.all, volumes: self.volumes };
        let report = cx.engine()?.prune_system(request, &cx.cancel, &cx.err)?;
        cx.out.text(&confirm::report(&report))?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn what_was_removed_is_listed() {
        golden("system-prune", &Bench::new().run(&["system", "prune", "-f"]).text());
        golden("system-prune-volumes", &Bench::new().run(&["system", "prune", "-f", "--volumes"]).text());
    }
}
