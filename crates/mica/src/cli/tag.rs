//! `mica tag`: give an image another name.

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// Image to name: name or ID
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// New name; the tag is `latest` if none is given
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Verb for TagArgs {
    const USAGE: &'static str = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]";

    fn run(self, cx: &Cx) -> Outcome {
        cx.engine()?.tag(&self.source, &self.target)?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn tagging_is_silent_and_needs_two_names() {
        let bench = Bench::new();
        assert_eq!(bench.run(&["tag", "app", "app:2"]).text(), "exit 0\n");
        assert_eq!(bench.calls(), "tag app app:2\n");
        golden("tag-arguments", &Bench::new().run(&["tag", "app"]).text());
    }
}
