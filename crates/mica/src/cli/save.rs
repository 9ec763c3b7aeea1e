//! `mica save`: images as an archive (build.md Y12).

use std::path::PathBuf;

use mica_api::{Class, Destination, Error, SaveImages};
use mica_oci::Platform;

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::Verb;

/// Save images to an archive that `load`, docker and OCI tools read
#[derive(Debug, clap::Args)]
pub(crate) struct SaveArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only this platform of an image with several
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Images: names or IDs
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for SaveArgs {
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    fn run(self, cx: &Cx) -> Outcome {
        let destination = archive_destination(cx, self.output, "save")?;
        let streamed = matches!(destination, Destination::Stream(_));
        let request = SaveImages { images: self.images, platform: self.platform, destination };
        let done = cx.engine()?.save(request, &cx.cancel);
        done.map_err(|error| if streamed { Failure::of_stream(error) } else { error.into() })?;
        Ok(Status::default())
    }
}

/// A file, or standard output unless that is a terminal.
pub(super) fn archive_destination(
    cx: &Cx,
    output: Option<PathBuf>,
    verb: &str,
) -> Result<Destination, Failure> {
    match output {
        Some(path) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent {
                Some(parent) if !parent.is_dir() => Err(Error::new(
                    Class::NotFound,
                    format!("invalid output path: directory {:?} does not exist", parent.display()),
                )
                .into()),
                _ if path.is_dir() => Err(Error::new(
                    Class::Invalid,
                    format!("invalid output path: {:?} must be a file", path.display()),
                )
                .into()),
                _ => Ok(Destination::File(path)),
            }
        }
        None if cx.out.is_terminal() => Err(Error::new(
            Class::Invalid,
            format!("cowardly refusing to {verb} to a terminal. Use the -o flag or redirect"),
        )
        .into()),
        None => {
            let stdout = crate::output::stdout_fd();
            Ok(Destination::Stream(
                stdout.map_err(|error| io_failure("cannot write to standard output", &error))?,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn archives_do_not_go_to_a_terminal() {
        golden("save-terminal", &Bench::new().on_terminal().run(&["save", "app"]).text());
    }

    #[test]
    fn the_file_needs_a_directory() {
        golden("save-directory", &Bench::new().run(&["save", "-o", "/nonexistent/x.tar", "app"]).text());
    }

    #[test]
    fn several_images_go_into_one_file() {
        let bench = Bench::new();
        assert_eq!(
            bench.run(&["save", "-o", "x.tar", "app", "other", "--platform", "linux/arm64"]).status,
            0
        );
        golden("save-calls", &bench.calls());
    }
}
