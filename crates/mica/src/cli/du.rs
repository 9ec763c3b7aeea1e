//! `mica buildx du`: the build cache, part by part.

use mica_api::{CacheEntry, Class};
use serde_json::json;

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::listing::{Column, Format, Listing};
use crate::format::{human, units};
use crate::values::cache_filter;
use crate::values::filter::Filter;

/// Show how much disk space the build cache uses
#[derive(Debug, clap::Args)]
pub(crate) struct DuArgs {
    /// Only what this holds for: type=regular, id=, description~=, until=24h, mutable=, inuse=, shared=, private=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Print with a Go template, or as `table`, `table TEMPLATE`, `pretty` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show everything about each part
    #[arg(long)]
    verbose: bool,
}

const COLUMNS: &[Column] = &[
    ("CreatedAt", "CREATED AT"),
    ("Description", "DESCRIPTION"),
    ("ID", "ID"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Mutable", "MUTABLE"),
    ("Parents", "PARENTS"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Type", "TYPE"),
    ("UsageCount", "USAGE COUNT"),
];

/// How the list is shown.
enum Shape {
    /// A table with marks, or a block per part, and the totals.
    Table,
    Pretty,
    /// As the template says.
    Template(String),
}

impl DuArgs {
    fn shape(&self) -> Result<Shape, Failure> {
        match self.format.as_deref().filter(|format| !format.is_empty()) {
            Some(_) if self.verbose => {
                Err(Failure::new(Class::Invalid, "--format and --verbose cannot be used together"))
            }
            None if self.verbose => Ok(Shape::Pretty),
            None | Some("table") => Ok(Shape::Table),
            Some("pretty") => Ok(Shape::Pretty),
            Some(template) => Ok(Shape::Template(template.to_owned())),
        }
    }
}

/// What the rows are for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Stars after what steps write to, and after what images share.
    Table,
    Template,
    /// No parents are `null`, as Go writes an empty list.
    Json,
}

fn listing(entries: &[CacheEntry], purpose: Rows, cx: &Cx) -> Listing<'static> {
    let star = |text: &str, condition: bool| match purpose == Rows::Table && condition {
        true => format!("{text}*"),
        false => text.to_owned(),
    };
    let rows = entries.iter().map(|entry| {
        json!({
            "CreatedAt": human::go_string_nanos(entry.created, cx.zone()),
            "Description": entry.description,
            "ID": star(&entry.id, entry.mutable),
            "LastUsedAt": last_used(entry, cx),
            "Mutable": entry.mutable,
            "Parents": (purpose != Rows::Json || !entry.parents.is_empty()).then_some(&entry.parents),
            "Reclaimable": !entry.in_use,
            "Shared": entry.shared,
            "Size": star(&units::size4(entry.size_bytes), entry.shared),
            "Type": entry.kind,
            "UsageCount": entry.usage_count,
        })
    });
    Listing {
        columns: COLUMNS,
        default: &["ID", "Reclaimable", "Size", "LastUsedAt"],
        quiet: "ID",
        raw: "",
        rows: rows.collect(),
    }
}

fn last_used(entry: &CacheEntry, cx: &Cx) -> String {
    entry.last_used.map(|at| human::ago(at, cx.now)).unwrap_or_default()
}

/// A block of all facts about a part, as `du --verbose` and `prune --verbose` print it.
pub(super) fn block(entry: &CacheEntry, gap: &dyn Fn(&str) -> String, cx: &Cx) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{}{value}\n", gap(name)));
    line("ID:", &entry.id);
    if !entry.parents.is_empty() {
        line("Parents:", "");
        for parent in &entry.parents {
            line("", &format!(" - {parent}"));
        }
    }
    line("Created at:", &human::go_string_nanos(entry.created, cx.zone()));
    line("Mutable:", &entry.mutable.to_string());
    line("Reclaimable:", &(!entry.in_use).to_string());
    line("Shared:", &entry.shared.to_string());
    line("Size:", &units::size4(entry.size_bytes));
    if !entry.description.is_empty() {
        line("Description:", &entry.description);
    }
    line("Usage count:", &entry.usage_count.to_string());
    if entry.last_used.is_some() {
        line("Last used:", &last_used(entry, cx));
    }
    line("Type:", &entry.kind);
    text.push('\n');
    text
}

/// Names padded as `du --verbose` does.
fn spaces(name: &str) -> String {
    match name {
        "" | "Parents:" => name.to_owned(),
        _ => format!("{name:<14}"),
    }
}

/// buildx's summary under its table. Shared is what images and containers need as well; what is private and not in
/// use is what `prune --all` frees.
fn totals(entries: &[CacheEntry]) -> String {
    let sum = |bytes: fn(&CacheEntry) -> u64| units::size4(entries.iter().map(bytes).sum());
    let mut text = String::new();
    if entries.iter().any(|entry| entry.shared_bytes > 0) {
        let (shared, private) = (sum(|e| e.shared_bytes), sum(|e| e.size_bytes - e.shared_bytes));
        text.push_str(&format!("Shared:\t\t{shared}\nPrivate:\t{private}\n"));
    }
    let (reclaimable, total) = (sum(|e| e.reclaimable_bytes), sum(|e| e.size_bytes));
    text.push_str(&format!("Reclaimable:\t{reclaimable}\nTotal:\t\t{total}\n"));
    text
}

impl Verb for DuArgs {
    const USAGE: &'static str = "[OPTIONS]";
    const FOREIGN: &'static [Foreign] = &[Foreign::refused("builder", "there is one builder, this machine")];

    fn run(self, cx: &Cx) -> Outcome {
        let shape = self.shape()?;
        let filter = cache_filter::parse(&self.filter, cx.now, cx.zone())?;
        let mut entries = cx.engine()?.build_cache()?;
        entries.retain(|entry| filter.matches(entry));
        entries.sort_by(|a, b| (a.size_bytes, &a.id).cmp(&(b.size_bytes, &b.id)));
        let text = match &shape {
            Shape::Table => listing(&entries, Rows::Table, cx).render(&Format::default())?,
            Shape::Pretty => entries.iter().map(|entry| block(entry, &spaces, cx)).collect(),
            Shape::Template(template) => {
                let rows = if template == "json" { Rows::Json } else { Rows::Template };
                listing(&entries, rows, cx).render(&Format::new(Some(template), false, None))?
            }
        };
        cx.out.text(&text)?;
        // Totals of a part would look like totals of all.
        if self.filter.is_empty() && !matches!(shape, Shape::Template(_)) {
            cx.out.text(&totals(&entries))?;
        }
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    fn du(args: &[&str]) -> String {
        Bench::new().run(&[&["buildx", "du"], args].concat()).text()
    }

    #[test]
    fn records_are_listed_with_totals() {
        golden("du", &du(&[]));
        golden("du-verbose", &Bench::new().run(&["builder", "du", "--verbose"]).text());
    }

    #[test]
    fn every_format_has_buildx_s_fields() {
        golden("du-json", &du(&["--format", "json"]));
        golden("du-template", &du(&["--format", "table {{.ID}}\t{{.Type}}\t{{.Size}}\t{{.Parents}}"]));
        golden("du-format-verbose", &du(&["--format", "json", "--verbose"]));
    }

    #[test]
    fn a_filter_leaves_the_totals_out() {
        golden("du-filter", &du(&["--filter", "type=exec.cachemount"]));
        golden("du-filter-unknown", &du(&["--filter", "color=red"]));
    }
}
