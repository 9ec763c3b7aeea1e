//! `mica completion`: completion scripts for shells. They ask the hidden `mica __complete`, so that they know images and
//! containers, and never are older than the program.

use clap::ValueEnum;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Print a completion script for a shell.

It completes commands, flags, images and containers. Names come from the store as it is at that moment.",
    after_long_help = "\
Examples:
  $ mica completion bash > ~/.local/share/bash-completion/completions/mica
  $ mica completion zsh > \"${fpath[1]}/_mica\"
  $ mica completion fish > ~/.config/fish/completions/mica.fish"
)]
pub(crate) struct CompletionArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// The script, with `PROGRAM` for the name.
    fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("completion/mica.bash"),
            Self::Zsh => include_str!("completion/mica.zsh"),
            Self::Fish => include_str!("completion/mica.fish"),
        }
    }
}

impl Verb for CompletionArgs {
    const USAGE: &'static str = "bash|zsh|fish";

    fn run(self, cx: &Cx) -> Outcome {
        cx.out.text(&self.shell.script().replace("PROGRAM", &cx.program))?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn each_shell_has_a_script() {
        for shell in ["bash", "zsh", "fish"] {
            golden(&format!("completion-{shell}"), &Bench::new().run(&["completion", shell]).text());
        }
        golden("completion-unknown", &Bench::new().run(&["completion", "tcsh"]).text());
    }
}
