//! `mica history`: what made an image (build.md Y15).

use mica_api::{HistoryEntry, Timestamp};
use serde_json::{Value, json};

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::listing::{Column, Format, Listing};
use crate::format::{human, table, units};

/// Show the history of an image
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Print with a Go template, or as `table`, `table TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print sizes and dates for people (`--human=false`: bytes and RFC 3339)
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL", hide_possible_values = true)]
    human: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Print only image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Image: name or ID
    image: String,
}

const COLUMNS: &[Column] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// 2000-01-01: docker shows nothing older, because reproducible builds write such times.
const OLDEST_SHOWN: Timestamp = Timestamp(946_684_800_000_000_000);

impl HistoryArgs {
    fn row(&self, entry: &HistoryEntry, cx: &Cx) -> Value {
        let id = match &entry.id {
            None => "<missing>".to_owned(),
            Some(id) if self.no_trunc => id.to_string(),
            Some(id) => id.short().to_owned(),
        };
        let created = entry.created.as_deref().and_then(human::parse_rfc3339).filter(|at| *at > OLDEST_SHOWN);
        let created_at = created.map_or_else(|| "N/A".to_owned(), |at| human::rfc3339(at, cx.zone()));
        let since = match created {
            Some(at) if self.human => human::ago(at, cx.now),
            _ => created_at.clone(),
        };
        let created_by = entry.created_by.replace('\t', " ");
        json!({
            "ID": id,
            "CreatedSince": since,
            "CreatedAt": created_at,
            "CreatedBy": if self.no_trunc { created_by } else { table::ellipsis(&created_by, 45) },
            "Size": if self.human { units::size3(entry.size_bytes) } else { entry.size_bytes.to_string() },
            "Comment": entry.comment,
        })
    }
}

impl Verb for HistoryArgs {
    const USAGE: &'static str = "[OPTIONS] IMAGE";
    const FOREIGN: &'static [Foreign] =
        &[Foreign::refused("platform", "images of several platforms come with multi-platform builds")];

    fn run(self, cx: &Cx) -> Outcome {
        let entries = cx.engine()?.history(&self.image)?;
        let default: &[&str] = match self.human {
            true => &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
            false => &["ID", "CreatedAt", "CreatedBy", "Size", "Comment"],
        };
        let rows = entries.iter().map(|entry| self.row(entry, cx)).collect();
        let format = Format::new(self.format.as_deref(), self.quiet, None);
        cx.out.text(&Listing { columns: COLUMNS, default, quiet: "ID", raw: "", rows }.render(&format)?)?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn history_is_dockers() {
        golden("history", &Bench::new().run(&["history", "app"]).text());
        golden(
            "history-no-trunc",
            &Bench::new().run(&["image", "history", "--no-trunc", "--human=false", "app"]).text(),
        );
        golden("history-quiet", &Bench::new().run(&["history", "-q", "app"]).text());
        golden("history-json", &Bench::new().run(&["history", "--format", "json", "app"]).text());
        golden("history-arguments", &Bench::new().run(&["history"]).text());
    }
}
