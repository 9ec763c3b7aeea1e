//! `mica rm`: remove containers.

use crate::context::Cx;
use crate::failure::Outcome;
use crate::flags::{Foreign, Verb};

/// Remove one or more containers
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Kill running containers first
    #[arg(short, long)]
    force: bool,
    /// Containers: names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for RmArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const FOREIGN: &'static [Foreign] = &[
        Foreign::idle_switch("volumes", "there are no anonymous volumes").short('v'),
        Foreign::refused_switch("link", "there are no container links").short('l'),
    ];

    fn run(self, cx: &Cx) -> Outcome {
        cx.for_each(&self.containers, |engine, container| {
            engine.remove_container(container, self.force)?;
            cx.out.line(container)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn names_are_echoed_as_they_were_given() {
        golden("rm", &Bench::new().run(&["rm", "-f", "web", "nope"]).text());
    }
}
