//! `mica diff`: what a container changed.

use mica_api::ChangeKind;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// List what a container changed: A added, C changed, D deleted
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Container: name or ID
    container: String,
}

impl Verb for DiffArgs {
    const USAGE: &'static str = "CONTAINER";

    fn run(self, cx: &Cx) -> Outcome {
        let changes = cx.engine()?.changes(&self.container)?;
        let mut out = Vec::new();
        for change in changes {
            out.push(match change.kind {
                ChangeKind::Added => b'A',
                ChangeKind::Changed => b'C',
                ChangeKind::Deleted => b'D',
            });
            out.push(b' ');
            out.extend(&change.path);
            out.push(b'\n');
        }
        match cx.out.is_terminal() {
            true => cx.out.text(&String::from_utf8_lossy(&out))?,
            // Programs that read names want their bytes.
            false => cx.out.bytes(&out)?,
        }
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn changes_have_a_letter() {
        golden("diff", &Bench::new().run(&["diff", "web"]).text());
    }
}
