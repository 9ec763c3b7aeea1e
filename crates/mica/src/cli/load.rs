//! `mica load`: images from an archive (build.md Y13).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use mica_api::{Class, Error, Ignore, LoadImages, LoadedImage};
use mica_oci::Platform;

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::Verb;

/// Load images from an archive
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Read this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Only this platform of an image with several
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print nothing but what was loaded
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for LoadArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let input = archive_input(cx, self.input)?;
        let request = LoadImages { input, platform: self.platform };
        let loaded = cx.engine()?.load(request, &cx.cancel, &Ignore)?;
        for image in &loaded {
            cx.out.text(&line(image))?;
        }
        Ok(Status::default())
    }
}

fn line(image: &LoadedImage) -> String {
    match image {
        LoadedImage::Named { name, replaced: None } => format!("Loaded image: {name}\n"),
        LoadedImage::Named { name, replaced: Some(old) } => format!(
            "The image {name} already exists, renaming the old one with ID {old} to empty string\n\
             Loaded image: {name}\n"
        ),
        LoadedImage::Unnamed(id) => format!("Loaded image ID: {id}\n"),
    }
}

/// A file, or standard input unless that is a terminal. `-` is standard input too.
fn archive_input(cx: &Cx, input: Option<PathBuf>) -> Result<OwnedFd, Failure> {
    match input.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            let file = File::open(&path);
            let file = file.map_err(|error| io_failure(format!("cannot open {}", path.display()), &error))?;
            Ok(file.into())
        }
        None if cx.stdin_is_terminal => {
            Err(Error::new(Class::Invalid, "requested load from stdin, but stdin is empty")
                .hint("-i FILE")
                .into())
        }
        None => crate::output::stdin_fd().map_err(|error| io_failure("cannot read standard input", &error)),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn what_was_loaded_is_printed() {
        golden("load", &Bench::new().run(&["load", "-i", "/dev/null"]).text());
        golden("load-missing-file", &Bench::new().run(&["load", "-i", "/nonexistent"]).text());
    }
}
