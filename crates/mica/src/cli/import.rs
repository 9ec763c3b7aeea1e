//! `mica import`: an image from a root file system tar.

use std::fs::File;

use mica_api::{Class, Error, ImportImage};
use mica_oci::{Platform, Reference};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::Verb;

/// Make an image from a tar of a root file system
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// Apply a Dockerfile instruction to the image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Message for the image's history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// What the image is for; this machine if not given
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Tar, compressed or not; `-` is standard input
    #[arg(value_name = "FILE|-")]
    source: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Verb for ImportArgs {
    const USAGE: &'static str = "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]";

    fn run(self, cx: &Cx) -> Outcome {
        let name = self.name.as_deref().map(reference).transpose()?;
        let input = match self.source.as_str() {
            "-" => {
                crate::output::stdin_fd().map_err(|error| io_failure("cannot read standard input", &error))?
            }
            url if url.contains("://") => {
                return Err(Error::new(
                    Class::Unsupported,
                    format!("cannot import {url}: URLs are not supported yet"),
                )
                .hint(format!("curl -L {url} | {} import -", cx.program))
                .into());
            }
            path => {
                File::open(path).map_err(|error| io_failure(format!("cannot open {path}"), &error))?.into()
            }
        };
        let request =
            ImportImage { input, name, message: self.message, changes: self.change, platform: self.platform };
        let id = cx.engine()?.import(request, &cx.cancel)?;
        cx.out.line(&id)?;
        Ok(Status::default())
    }
}

/// A name for an image; without a tag it is `latest`.
pub(super) fn reference(text: &str) -> Result<Reference, Failure> {
    let reference: Result<Reference, _> = text.parse();
    reference
        .map(Reference::or_latest)
        .map_err(|error| Failure::new(Class::Invalid, format!("invalid reference {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn the_id_is_printed() {
        let bench = Bench::new();
        golden("import", &bench.run(&["import", "-c", "CMD ls", "-m", "hi", "/dev/null", "new"]).text());
        golden("import-calls", &bench.calls());
        golden("import-url", &Bench::new().run(&["import", "https://example.org/x.tar"]).text());
        golden("import-name", &Bench::new().run(&["import", "/dev/null", "New"]).text());
    }
}
