//! `mica commit`: an image of a container's changes (build.md Y11).

use mica_api::CommitContainer;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Make an image of a container's changes
#[derive(Debug, clap::Args)]
pub(crate) struct CommitArgs {
    /// Author: "Ada Lovelace <ada@example.org>"
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// Apply a Dockerfile instruction to the image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Message for the image's history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Stop the container meanwhile (the default)
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL", hide_possible_values = true)]
    pause: bool,
    /// Do not stop the container meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Container: name or ID
    container: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Verb for CommitArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]";

    fn run(self, cx: &Cx) -> Outcome {
        let request = CommitContainer {
            name: self.name.as_deref().map(super::import::reference).transpose()?,
            container: self.container,
            author: self.author,
            message: self.message,
            changes: self.change,
            pause: self.pause && !self.no_pause,
        };
        let id = cx.engine()?.commit(request, &cx.cancel)?;
        cx.out.line(&id)?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn the_container_is_paused_unless_told_otherwise() {
        let bench = Bench::new();
        golden(
            "commit",
            &bench.run(&["commit", "-a", "me", "-m", "first", "-c", "CMD ls", "web", "new:1"]).text(),
        );
        bench.run(&["commit", "--pause=false", "web"]);
        bench.run(&["commit", "--no-pause", "web"]);
        golden("commit-calls", &bench.calls());
    }
}
