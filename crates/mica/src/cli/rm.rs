//! `mica rm`: remove containers.

use mica_api::RemoveContainer;

use crate::context::Cx;
use crate::failure::Outcome;
use crate::flags::{Foreign, Verb};

/// Remove one or more containers
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Kill running containers first
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes of the containers too
    #[arg(short, long)]
    volumes: bool,
    /// Containers: names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for RmArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const FOREIGN: &'static [Foreign] =
        &[Foreign::refused_switch("link", "there are no container links").short('l')];

    fn run(self, cx: &Cx) -> Outcome {
        cx.for_each(&self.containers, |engine, container| {
            let (force, volumes) = (self.force, self.volumes);
            engine.remove_container(RemoveContainer { container: container.to_owned(), force, volumes })?;
            cx.out.line(container)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn names_are_echoed_as_they_were_given() {
        golden("rm", &Bench::new().run(&["rm", "-f", "-v", "web", "nope"]).text());
    }
}
