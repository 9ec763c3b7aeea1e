//! Findings about a Dockerfile (build.md L4): what works, and is most likely not meant.
//!
//! Two kinds. What the text alone shows is found in the whole file ([`file`]); what needs values is found while stages
//! are converted ([`stage`]), and so only in those that are needed.

mod file;
mod from;
mod stage;

use mica_dockerfile::{CheckOptions, Dockerfile, Location, Warning, parse_check_options};

use crate::{ConvertError, ConvertRequest, Problem};

pub(crate) use file::whole_file;
pub(crate) use from::{base_platform, default_bases};
pub(crate) use stage::{Seen, copied, exposed};

/// The argument whose options are put over those of the file (P11).
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// Rules that have to be asked for.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

/// What was found, and what is not to be told.
#[derive(Debug)]
pub(crate) struct Findings {
    options: CheckOptions,
    found: Vec<Warning>,
}

impl Findings {
    /// None yet. The parser's own are asked for by [`whole_file`].
    ///
    /// # Errors
    /// The build argument has options that are none.
    pub(crate) fn new(request: &ConvertRequest<'_>, dockerfile: &Dockerfile) -> Result<Self, ConvertError> {
        let of_file = dockerfile.directives.check.clone().unwrap_or_default();
        let argument = request.build_args.iter().rfind(|(name, _)| name == CHECK);
        let options = match argument.and_then(|(_, value)| value.as_deref()) {
            Some(text) => {
                let over = parse_check_options(text).map_err(|error| Problem::Check(error).nowhere())?;
                of_file.merged_with(over)
            }
            None => of_file,
        };
        Ok(Self { options, found: Vec::new() })
    }

    /// Notes a finding, unless its rule is skipped or waits to be asked for.
    pub(crate) fn report(&mut self, rule: &'static str, location: Location, message: String) {
        let asked_for = !EXPERIMENTAL.contains(&rule) || self.options.experimental.contains(rule);
        if asked_for && !self.options.skip.contains(rule) {
            self.found.push(Warning { rule, message, location });
        }
    }

    /// All findings, and the error that they are if they are to fail the build (P12).
    pub(crate) fn finish(self) -> (Vec<Warning>, Option<String>) {
        let mut rules: Vec<&'static str> = self.found.iter().map(|warning| warning.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let fails = self.options.error == Some(true) && !rules.is_empty();
        (self.found, fails.then(|| format!("lint violation found for rules: {}", rules.join(", "))))
    }
}
