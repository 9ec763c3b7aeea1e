//! `mica completion`: completion scripts for shells.

use clap::Command;
use clap_complete::Shell;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
use crate::verbs::{Item, Node, ROOT};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  $ mica completion bash > ~/.local/share/bash-completion/completions/mica
  $ mica completion zsh > \"${fpath[1]}/_mica\"
  $ mica completion fish > ~/.config/fish/completions/mica.fish")]
pub(crate) struct CompletionArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Verb for CompletionArgs {
    const USAGE: &'static str = "bash|zsh|fish";

    fn run(self, cx: &Cx) -> Outcome {
        // The only place that needs the definition of every command at once.
        let name: &'static str = if cx.program == "docker" { "docker" } else { "mica" };
        let mut root = with_items(Command::new(name), ROOT);
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut root, name, &mut script);
        cx.out.bytes(&script)?;
        Ok(Status::default())
    }
}

fn with_items(command: Command, items: &[Item]) -> Command {
    items.iter().fold(command, |command, item| {
        let sub = match &item.node {
            Node::Verb(entry) => {
                (entry.command)().name(item.name).disable_help_flag(has_short_h(&(entry.command)()))
            }
            Node::Group { about, items } => with_items(Command::new(item.name).about(*about), items),
        };
        command.subcommand(sub.visible_aliases(item.aliases.iter().copied()))
    })
}

fn has_short_h(command: &Command) -> bool {
    command.get_arguments().any(|arg| arg.get_short() == Some('h'))
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn scripts_know_commands_and_flags() {
        for shell in ["bash", "zsh", "fish"] {
            let script = Bench::new().run(&["completion", shell]).stdout;
            assert!(script.contains("build-arg") && script.contains("prune"), "{shell}");
        }
    }
}
