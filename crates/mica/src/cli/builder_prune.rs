//! `mica builder prune`: remove build cache.

use mica_api::{CacheEntry, CacheLimits, PruneCache};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::{human, units};
use crate::values::cache_filter;
use crate::values::filter::Filter;

use super::{confirm, du};

/// Remove build cache
#[derive(Debug, clap::Args)]
pub(crate) struct BuilderPruneArgs {
    /// Remove results that images have too, not only what the cache alone keeps
    #[arg(short, long)]
    all: bool,
    /// Only what this holds for: until=24h, id=, description~=, type=, mutable=, inuse=, shared=, private=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Keep no more than this, the most recently used: 10gb
    #[arg(long, value_name = "BYTES", value_parser = units::parse_binary)]
    max_used_space: Option<u64>,
    /// Remove until this much of the disk is free, but not more
    #[arg(long, value_name = "BYTES", value_parser = units::parse_binary)]
    min_free_space: Option<u64>,
    /// Always keep this much, the most recently used
    #[arg(long, alias = "keep-storage", value_name = "BYTES", value_parser = units::parse_binary)]
    reserved_space: Option<u64>,
    /// Show everything about what was removed
    #[arg(long)]
    verbose: bool,
}

impl BuilderPruneArgs {
    fn request(&self, cx: &Cx) -> Result<PruneCache, Failure> {
        Ok(PruneCache {
            all: self.all,
            filter: cache_filter::parse(&self.filter, cx.now, cx.zone())?,
            limits: CacheLimits {
                reserved_bytes: self.reserved_space,
                max_used_bytes: self.max_used_space,
                min_free_bytes: self.min_free_space,
            },
        })
    }
}

/// buildx's table of what was removed; it aligns the headings with the first row only, and with tabs.
fn table(entries: &[CacheEntry], cx: &Cx) -> String {
    let mut text = String::new();
    for (position, entry) in entries.iter().enumerate() {
        let mut gap = "\t";
        if position == 0 {
            text.push_str("ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED\n");
            gap = "\t\t";
        }
        let id = format!("{}{}", entry.id, if entry.mutable { "*" } else { "" });
        let size = format!("{}{}", units::size4(entry.size_bytes), if entry.shared { "*" } else { "" });
        let used = entry.last_used.map(|at| human::ago(at, cx.now)).unwrap_or_default();
        text.push_str(&format!("{id:<40}\t{:<5}{gap}{size:<10}\t{used}\n", !entry.in_use));
    }
    text
}

/// Names followed by as many tabs as align the values.
fn tabs(name: &str) -> String {
    match name {
        "" | "Parents:" => name.to_owned(),
        _ if name.len() < 8 => format!("{name}\t\t"),
        _ => format!("{name}\t"),
    }
}

impl Verb for BuilderPruneArgs {
    const USAGE: &'static str = "[OPTIONS]";
    const FOREIGN: &'static [Foreign] = &[Foreign::refused("builder", "there is one builder, this machine")];

    fn run(self, cx: &Cx) -> Outcome {
        let request = self.request(cx)?;
        let warning = match self.all {
            true => "WARNING! This will remove all build cache. ",
            false => "WARNING! This will remove all dangling build cache. ",
        };
        if !self.force && !confirm::ask(cx, warning)? {
            return Ok(Status::default());
        }
        let report = cx.engine()?.prune_cache(request, &cx.cancel, &cx.err)?;
        let text: String = match self.verbose {
            true => report.cache.iter().map(|entry| du::block(entry, &tabs, cx)).collect(),
            false => table(&report.cache, cx),
        };
        cx.out.text(&format!("{text}Total:\t{}\n", units::size4(report.freed_bytes)))?;
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

    #[test]
    fn every_limit_and_filter_reaches_the_engine() {
        let bench = Bench::new();
        bench.run(&["buildx", "prune", "-f", "--max-used-space", "1gb", "--min-free-space", "2gb"]);
        bench.run(&["buildx", "prune", "-f", "--filter", "type=exec.cachemount", "--filter", "id=abc"]);
        golden("builder-prune-limits", &bench.calls());
    }

    #[test]
    fn everything_about_what_went_is_shown_on_demand() {
        golden("builder-prune-verbose", &Bench::new().run(&["builder", "prune", "-f", "--verbose"]).text());
    }

    #[test]
    fn the_question_is_asked_in_buildx_s_words() {
        let bench = Bench::new();
        let asked =
            [&["builder", "prune"][..], &["buildx", "prune", "-a"]].map(|args| bench.run(args).text());
        golden("builder-prune-question", &asked.concat());
        assert_eq!(bench.calls(), "", "no answer is no");
    }
}
