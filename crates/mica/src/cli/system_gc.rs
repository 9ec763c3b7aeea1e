//! `mica system gc`: free what nothing needs. Names and cache records stay.

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
use crate::format::units;

/// Free disk space that nothing needs; names and build cache stay
#[derive(Debug, clap::Args)]
pub(crate) struct GcArgs {}

impl Verb for GcArgs {
    const USAGE: &'static str = "";

    fn run(self, cx: &Cx) -> Outcome {
        let report = cx.engine()?.collect(&cx.cancel, &cx.err)?;
        cx.out.line(&format!("Total reclaimed space: {}", units::size4(report.freed_bytes)))?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn the_freed_space_is_shown() {
        golden("system-gc", &Bench::new().run(&["system", "gc"]).text());
    }
}
