//! `mica builder prune`: remove build cache.

use mica_api::{Class, Error, PruneCache};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::units;
use crate::values::filter::Filter;
use crate::values::moment;

use super::confirm;

/// Remove build cache
#[derive(Debug, clap::Args)]
pub(crate) struct BuilderPruneArgs {
    /// Remove everything that is not in use, not only what no image shares
    #[arg(short, long)]
    all: bool,
    /// Only records for which this holds: until=DURATION
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep this much, the most recently used: 10gb
    #[arg(long, alias = "reserved-space", value_name = "BYTES", value_parser = units::parse_binary)]
    keep_storage: Option<u64>,
}

impl BuilderPruneArgs {
    fn request(&self, cx: &Cx) -> Result<PruneCache, Failure> {
        let mut request = PruneCache { all: self.all, keep_bytes: self.keep_storage, unused_since: None };
        for filter in &self.filter {
            match filter.name.as_str() {
                "until" | "unused-for" => {
                    let at = moment::parse(&filter.value, cx.now, cx.zone());
                    request.unused_since =
                        Some(at.ok_or_else(|| filter.invalid("not a duration or a time"))?);
                }
                "id" | "parent" | "type" | "description" | "inuse" | "shared" | "private" | "mutable"
                | "immutable" => {
                    let message = format!("filter '{}' is not supported yet", filter.name);
                    return Err(Error::new(Class::Unsupported, message).hint("--filter until=24h").into());
                }
                _ => return Err(filter.unknown().into()),
            }
        }
        Ok(request)
    }
}

impl Verb for BuilderPruneArgs {
    const USAGE: &'static str = "[OPTIONS]";
    const FOREIGN: &'static [Foreign] = &[
        Foreign::refused("builder", "there is one builder, this machine"),
        Foreign::refused("max-used-space", "use --keep-storage"),
        Foreign::refused("min-free-space", "use --keep-storage"),
        Foreign::idle_switch("verbose", "what was removed is always listed"),
    ];

    fn run(self, cx: &Cx) -> Outcome {
        let request = self.request(cx)?;
        let warning = match self.all {
            true => "WARNING! This will remove all build cache.",
            false => "WARNING! This will remove all dangling build cache.",
        };
        if !self.force && !confirm::confirm(cx, warning)? {
            return Ok(Status::default());
        }
        let report = cx.engine()?.prune_cache(request, &cx.cancel, &cx.err)?;
        let mut text = String::new();
        if !report.cache_records.is_empty() {
            text.push_str(&format!("ID\n{}\n", report.cache_records.join("\n")));
        }
        text.push_str(&format!("Total:\t{}\n", units::size4(report.freed_bytes)));
        cx.out.text(&text)?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn limits_are_translated_and_the_freed_space_is_shown() {
        let bench = Bench::new();
        let args = ["builder", "prune", "-a", "-f", "--filter", "until=24h", "--keep-storage", "10gb"];
        golden("builder-prune", &bench.run(&args).text());
        golden("builder-prune-calls", &bench.calls());
    }
}
