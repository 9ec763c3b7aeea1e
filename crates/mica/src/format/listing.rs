//! Lists of objects in every form `--format` knows: table, raw, json, template.

use serde_json::{Map, Value};

use super::table;
use super::template::{self, FormatError};

/// A field of a row and its heading in tables.
pub(crate) type Column = (&'static str, &'static str);

/// Rows, and how they are shown when nothing else is asked for.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    /// All fields with their headings.
    pub columns: &'a [Column],
    /// Fields of the default table, in order.
    pub default: &'a [&'a str],
    /// Field of `-q`.
    pub quiet: &'a str,
    /// What `raw` stands for: a line for each field. Lists without it take the word for a template, as docker does.
    pub raw: &'a str,
    /// One object per row.
    pub rows: Vec<Value>,
}

/// What `--format` and `-q` ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Format {
    /// The text of `--format`; empty is the default table.
    pub template: String,
    /// `-q`.
    pub quiet: bool,
}

impl Format {
    /// The choice of a command line; `fallback` is the one of `config.json`.
    pub(crate) fn new(template: Option<&str>, quiet: bool, fallback: Option<&str>) -> Self {
        let fallback = fallback.filter(|_| !quiet).unwrap_or_default();
        Self { template: template.unwrap_or(fallback).to_owned(), quiet }
    }
}

impl Listing<'_> {
    /// The whole output.
    ///
    /// # Errors
    /// [`FormatError`] if the template cannot be used.
    pub(crate) fn render(&self, format: &Format) -> Result<String, FormatError> {
        let template = template::unescape(&format.template);
        match template.as_str() {
            "" | "table" if format.quiet => self.lines(&format!("{{{{.{}}}}}", self.quiet)),
            "" | "table" => self.table(&self.default_template()),
            "json" => self.lines("{{json .}}"),
            "raw" if !self.raw.is_empty() && format.quiet => self.lines(self.raw_quiet()),
            "raw" if !self.raw.is_empty() => self.lines(self.raw),
            other => match other.strip_prefix("table ") {
                Some(template) => self.table(template.trim_start()),
                None => self.lines(other),
            },
        }
    }

    fn default_template(&self) -> String {
        let cells: Vec<String> = self.default.iter().map(|field| format!("{{{{.{field}}}}}")).collect();
        cells.join("\t")
    }

    /// One line per row.
    fn lines(&self, template: &str) -> Result<String, FormatError> {
        template::check(template)?;
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(&template::render(template, &sorted(row))?);
            out.push('\n');
        }
        Ok(out)
    }

    /// The headings are what the template makes of an object that holds them.
    fn table(&self, template: &str) -> Result<String, FormatError> {
        let mut headings: Map<String, Value> = self
            .columns
            .iter()
            .map(|(field, heading)| ((*field).to_owned(), Value::from(*heading)))
            .collect();
        headings.insert(template::LABELS.to_owned(), Value::Object(Map::new()));
        let mut text = template::render(template, &Value::Object(headings))?;
        text.push('\n');
        text.push_str(&self.lines(template)?);
        Ok(table::align(&text))
    }

    /// The one line of `raw` that is about the field of `-q`.
    fn raw_quiet(&self) -> &str {
        let field = format!("{{{{.{}}}}}", self.quiet);
        self.raw.lines().find(|line| line.ends_with(&field)).unwrap_or(self.raw)
    }
}

/// Go marshals the fields of a row from a map: sorted by name.
fn sorted(row: &Value) -> Value {
    let Value::Object(fields) = row else { return row.clone() };
    let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    Value::Object(fields.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listing() -> Listing<'static> {
        Listing {
            columns: &[("ID", "IMAGE ID"), ("Tag", "TAG"), ("CreatedAt", "CREATED AT")],
            default: &["Tag", "ID"],
            quiet: "ID",
            raw: "tag: {{.Tag}}\nimage_id: {{.ID}}\n",
            rows: vec![json!({"Tag": "latest", "ID": "0123456789ab", "CreatedAt": "now"})],
        }
    }

    fn show(template: &str, quiet: bool) -> String {
        listing().render(&Format { template: template.to_owned(), quiet }).unwrap()
    }

    #[test]
    fn every_form_has_dockers_shape() {
        assert_eq!(show("", false), "TAG       IMAGE ID\nlatest    0123456789ab\n");
        assert_eq!(show("", true), "0123456789ab\n");
        assert_eq!(
            show("table {{.ID}}\\t{{.CreatedAt}}", false),
            "IMAGE ID       CREATED AT\n0123456789ab   now\n"
        );
        assert_eq!(show("{{.ID}}:{{.Tag}}", false), "0123456789ab:latest\n");
        assert_eq!(
            show("json", false),
            "{\"CreatedAt\":\"now\",\"ID\":\"0123456789ab\",\"Tag\":\"latest\"}\n"
        );
        assert_eq!(show("raw", false), "tag: latest\nimage_id: 0123456789ab\n\n");
        assert_eq!(show("raw", true), "image_id: 0123456789ab\n");
        let without = Listing { raw: "", ..listing() };
        assert_eq!(without.render(&Format { template: "raw".into(), quiet: false }).unwrap(), "raw\n");
    }

    #[test]
    fn a_broken_template_is_an_error_even_without_rows() {
        let empty = Listing { rows: Vec::new(), ..listing() };
        assert!(empty.render(&Format { template: "{{.ID".to_owned(), quiet: false }).is_err());
    }
}
