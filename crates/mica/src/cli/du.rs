//! `mica buildx du`: the build cache, record by record.

use mica_api::CacheEntry;
use serde_json::json;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::listing::{Column, Format, Listing};
use crate::format::{human, table, units};

/// Show how much disk space the build cache uses
#[derive(Debug, clap::Args)]
pub(crate) struct DuArgs {
    /// Print with a Go template, or as `table`, `table TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show what made each record
    #[arg(long)]
    verbose: bool,
}

const COLUMNS: &[Column] = &[
    ("ID", "ID"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("LastAccessed", "LAST ACCESSED"),
    ("Type", "CACHE TYPE"),
    ("CreatedSince", "CREATED"),
    ("Usage", "USAGE"),
    ("Shared", "SHARED"),
    ("Description", "DESCRIPTION"),
];

/// The records as `system df -v` and `du` list them.
pub(super) fn listing(entries: &[CacheEntry], cx: &Cx) -> Listing<'static> {
    let rows = entries.iter().map(|entry| {
        json!({
            "ID": entry.id,
            "Reclaimable": !entry.in_use,
            "Size": units::size4(entry.size_bytes) + if entry.shared { "*" } else { "" },
            "LastAccessed": entry.last_used.map(|at| human::ago(at, cx.now)).unwrap_or_default(),
            "Type": entry.kind,
            "CreatedSince": human::ago(entry.created, cx.now),
            "Usage": entry.usage_count.to_string(),
            "Shared": entry.shared,
            "Description": table::ellipsis(&entry.description, 60),
        })
    });
    Listing {
        columns: COLUMNS,
        default: &["ID", "Type", "Size", "CreatedSince", "LastAccessed", "Usage", "Shared"],
        quiet: "ID",
        rows: rows.collect(),
    }
}

/// buildx's summary under its table.
fn totals(entries: &[CacheEntry]) -> String {
    let sum = |keep: fn(&&CacheEntry) -> bool| {
        entries.iter().filter(keep).map(|entry| entry.size_bytes).sum::<u64>()
    };
    let mut text = String::new();
    if entries.iter().any(|entry| entry.shared) {
        text.push_str(&format!(
            "Shared:\t{}\nPrivate:\t{}\n",
            units::size4(sum(|e| e.shared)),
            units::size4(sum(|e| !e.shared))
        ));
    }
    text.push_str(&format!(
        "Reclaimable:\t{}\nTotal:\t{}\n",
        units::size4(sum(|e| !e.in_use)),
        units::size4(sum(|_| true))
    ));
    table::align(&text)
}

impl Verb for DuArgs {
    const USAGE: &'static str = "[OPTIONS]";
    const FOREIGN: &'static [Foreign] = &[
        Foreign::refused("filter", "the whole cache is listed"),
        Foreign::refused("builder", "there is one builder, this machine"),
    ];

    fn run(self, cx: &Cx) -> Outcome {
        let entries = cx.engine()?.disk_usage()?.cache_entries;
        let mut listing = listing(&entries, cx);
        listing.default = match self.verbose {
            true => &["ID", "Reclaimable", "Size", "LastAccessed", "Description"],
            false => &["ID", "Reclaimable", "Size", "LastAccessed"],
        };
        cx.out.text(&listing.render(&Format::new(self.format.as_deref(), false, None))?)?;
        if self.format.is_none() {
            cx.out.text(&totals(&entries))?;
        }
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn records_are_listed_with_totals() {
        golden("du", &Bench::new().run(&["buildx", "du"]).text());
        golden("du-verbose", &Bench::new().run(&["builder", "du", "--verbose"]).text());
    }
}
