//! `mica search`: repositories of a registry (build.md Y18).

use mica_api::{Class, Error};
use mica_engine::SearchResult;
use serde_json::{Value, json};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::listing::{Column, Format, Listing};
use crate::format::table;

/// Search docker.io, or another registry that can be searched
#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// Only what fits: stars=N, is-official=true|false
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Print with a Go template, or as `table`, `table TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// At most so many, up to 100
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: u32,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    /// What to look for; `HOST/TERM` for another registry
    #[arg(value_name = "TERM")]
    term: String,
}

const COLUMNS: &[Column] =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];

/// One `--filter`.
enum Condition {
    Stars(u64),
    Official(bool),
}

impl Condition {
    fn parse(text: &str) -> Result<Self, Failure> {
        let invalid = || Failure::new(Class::Invalid, format!("invalid filter '{text}'"));
        match text.split_once('=') {
            Some(("stars", number)) => number.parse().map(Self::Stars).map_err(|_| invalid()),
            Some(("is-official", value)) => value.parse().map(Self::Official).map_err(|_| invalid()),
            _ => Err(invalid()),
        }
    }

    fn holds(&self, found: &SearchResult) -> bool {
        match self {
            Self::Stars(least) => found.stars >= *least,
            Self::Official(wanted) => found.official == *wanted,
        }
    }
}

impl SearchArgs {
    fn row(&self, found: &SearchResult) -> Value {
        let description = found.description.replace(['\n', '\r'], " ");
        json!({
            "Name": found.name,
            "Description": if self.no_trunc { description } else { table::ellipsis(&description, 45) },
            "StarCount": found.stars.to_string(),
            "IsOfficial": if found.official { "[OK]" } else { "" },
        })
    }
}

impl Verb for SearchArgs {
    const USAGE: &'static str = "[OPTIONS] TERM";
    const FOREIGN: &'static [Foreign] = &[];

    fn run(self, cx: &Cx) -> Outcome {
        if !(1..=100).contains(&self.limit) {
            let text = format!("limit {} is outside the range of [1, 100]", self.limit);
            return Err(Failure::new(Class::Invalid, text));
        }
        let conditions: Vec<Condition> =
            self.filter.iter().map(|text| Condition::parse(text)).collect::<Result<_, _>>()?;
        let mut found = cx.registries().search(&self.term, self.limit, &cx.cancel).map_err(Error::from)?;
        found.retain(|found| conditions.iter().all(|condition| condition.holds(found)));
        let rows = found.iter().map(|found| self.row(found)).collect();
        let default = &["Name", "Description", "StarCount", "IsOfficial"];
        let format = Format::new(self.format.as_deref(), false, None);
        cx.out.text(&Listing { columns: COLUMNS, default, quiet: "Name", raw: "", rows }.render(&format)?)?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn limits_and_filters_are_checked_before_anybody_is_asked() {
        let text = |arguments: &[&str]| Bench::new().run(&[&["search"], arguments].concat()).stderr;
        assert!(text(&["--limit", "0", "x"]).contains("outside the range of [1, 100]"));
        assert!(text(&["-f", "colour=red", "x"]).contains("invalid filter 'colour=red'"));
    }
}
