//! `mica export`: a container's files as a tar.

use std::path::PathBuf;

use mica_api::{Destination, ExportContainer};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;

/// Export a container's file system as a tar archive
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container: name or ID
    container: String,
}

impl Verb for ExportArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    fn run(self, cx: &Cx) -> Outcome {
        let destination = super::save::archive_destination(cx, self.output, "export")?;
        let streamed = matches!(destination, Destination::Stream(_));
        let request = ExportContainer { container: self.container, destination };
        let done = cx.engine()?.export(request, &cx.cancel);
        done.map_err(|error| if streamed { Failure::of_stream(error) } else { error.into() })?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn tars_do_not_go_to_a_terminal() {
        golden("export-terminal", &Bench::new().on_terminal().run(&["export", "web"]).text());
        assert_eq!(Bench::new().run(&["export", "-o", "x.tar", "web"]).status, 0);
    }
}
