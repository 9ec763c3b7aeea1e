//! `mica registry import`: the folder of another registry becomes one of `mica registry serve`.

use std::path::PathBuf;
use std::time::Duration;

use mica_api::Error;
use mica_registry::{Check, import_distribution};

use super::registry_serve::duration;
use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Take over the folder of another registry: tags, manifests, blobs; the old folder stays as it is
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The folder: what distribution's configuration calls `rootdirectory`
    source: PathBuf,
    /// What it is the folder of
    #[arg(long, value_name = "KIND", default_value = "distribution", value_parser = ["distribution"])]
    from: String,
    /// Put everything in this folder (default: `mica-registry` beside the store)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Believe that each blob is what its name says, instead of reading it
    #[arg(long)]
    trust: bool,
    /// Keep what no manifest needs for this long
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    grace: Duration,
}

impl Verb for ImportArgs {
    const USAGE: &'static str = "[OPTIONS] DIR";

    fn run(self, cx: &Cx) -> Outcome {
        let data = self.data.clone().unwrap_or_else(|| cx.environment.default_registry());
        let data = std::path::absolute(&data).unwrap_or(data);
        let check = if self.trust { Check::Trust } else { Check::Read };
        let skipped = |what: &str| cx.warn(&format!("skipped: {what}"));
        let imported = import_distribution(&self.source, &data, check, self.grace, &skipped)
            .map_err(|error| Error::from_fault(&error))?;
        cx.out.line(&format!(
            "{} repositories, {} tags, {} manifests, {} blobs, {} skipped",
            imported.repositories, imported.tags, imported.manifests, imported.blobs, imported.skipped
        ))?;
        Ok(Status(u8::from(imported.skipped > 0)))
    }
}
