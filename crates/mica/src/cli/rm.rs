//! `mica rm`: remove containers.

use mica_api::{Class, RemoveContainer};

use crate::context::Cx;
use crate::failure::{Outcome, error_text};
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
            let removed =
                engine.remove_container(RemoveContainer { container: container.to_owned(), force, volumes });
            match removed {
                // told, as docker does, but scripts that remove what may be there are not stopped by it
                Err(error) if force && error.class == Class::NotFound => cx.err.text(&error_text(&error)),
                other => {
                    other?;
                    cx.out.line(container)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn names_are_echoed_as_they_were_given() {
        golden("rm-absent", &Bench::new().run(&["rm", "web", "nope"]).text());
        golden("rm", &Bench::new().run(&["rm", "-f", "-v", "web", "nope"]).text());
    }
}
