//! `mica images`: list images (build.md Y14).

use mica_api::{Class, Error, ImageFilter, ImageSummary, ListImages, Timestamp};
use serde_json::{Value, json};

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
use crate::format::listing::{Column, Format, Listing};
use crate::format::{human, units};
use crate::values::filter::Filter;
use crate::values::moment;

use super::images_tree;

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct ImagesArgs {
    /// Show untagged images too
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only images for which this holds: dangling=BOOL, label=KEY[=VALUE], label!=KEY[=VALUE], before=IMAGE,
    /// since=IMAGE, until=TIME, reference=GLOB
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Print with a Go template, or as `table`, `table TEMPLATE`, `json` or `raw`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print only image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show the view that terminals get: names, disk usage, which images are in use
    #[arg(long)]
    tree: bool,
    /// Only this repository, or this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

impl ImagesArgs {
    fn request(&self, cx: &Cx) -> Result<ListImages, Error> {
        let filters: Result<Vec<_>, _> = self.filter.iter().map(|filter| image_filter(filter, cx)).collect();
        let named = |template: &str| template.contains("SharedSize") || template.contains("UniqueSize");
        let sizes = self.wants_tree(cx) || self.format.as_deref().is_some_and(named);
        Ok(ListImages { repository: self.repository.clone(), all: self.all, filters: filters?, sizes })
    }

    /// On a terminal docker 29 shows another view, unless something asks for the table.
    fn wants_tree(&self, cx: &Cx) -> bool {
        let plain = self.format.is_none() && !self.quiet && !self.no_trunc && !self.digests;
        self.tree || (plain && cx.out.is_terminal() && cx.config().images_format.is_none())
    }
}

/// A `--filter` of images.
pub(crate) fn image_filter(filter: &Filter, cx: &Cx) -> Result<ImageFilter, Error> {
    Ok(match filter.name.as_str() {
        "dangling" => ImageFilter::Dangling(filter.truth()?),
        "label" => {
            let (key, value) = filter.label();
            ImageFilter::Label(key, value)
        }
        "label!" => {
            let (key, value) = filter.label();
            ImageFilter::NotLabel(key, value)
        }
        "since" => ImageFilter::Since(filter.value.clone()),
        "before" => ImageFilter::Before(filter.value.clone()),
        "until" => ImageFilter::Until(
            moment::parse(&filter.value, cx.now, cx.zone())
                .ok_or_else(|| filter.invalid("not a time or a duration"))?,
        ),
        "reference" => ImageFilter::Reference(filter.value.clone()),
        _ => return Err(filter.unknown()),
    })
}

const COLUMNS: &[Column] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// `--format raw`.
const RAW: &str = "repository: {{.Repository}}
tag: {{.Tag}}
image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}
";
/// …with `--digests`.
const RAW_DIGESTS: &str = "repository: {{.Repository}}
tag: {{.Tag}}
digest: {{.Digest}}
image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}
";

impl Verb for ImagesArgs {
    const USAGE: &'static str = "[OPTIONS] [REPOSITORY[:TAG]]";

    fn run(self, cx: &Cx) -> Outcome {
        if self.tree && (self.quiet || self.no_trunc || self.digests || self.format.is_some()) {
            return Err(Error::new(Class::Invalid, "--tree cannot be combined with another format").into());
        }
        let request = self.request(cx)?;
        let images = cx.engine()?.images(request)?;
        if self.wants_tree(cx) {
            cx.out.text(&images_tree::render(&images))?;
            return Ok(Status::default());
        }
        let format = Format::new(self.format.as_deref(), self.quiet, cx.config().images_format.as_deref());
        let default: &[&str] = match self.digests {
            true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
            false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
        };
        let rows = images.iter().map(|image| row(image, self.no_trunc, cx)).collect();
        let raw = if self.digests { RAW_DIGESTS } else { RAW };
        cx.out.text(&Listing { columns: COLUMNS, default, quiet: "ID", raw, rows }.render(&format)?)?;
        Ok(Status::default())
    }
}

/// An image as docker's formatter shows it.
pub(crate) fn row(image: &ImageSummary, no_trunc: bool, cx: &Cx) -> Value {
    let none = || "<none>".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "N/A".to_owned(), units::size3);
    json!({
        "ID": if no_trunc { image.id.to_string() } else { image.id.short().to_owned() },
        "Repository": image.repository.clone().unwrap_or_else(none),
        "Tag": image.tag.clone().unwrap_or_else(none),
        "Digest": image.digest.to_string(),
        "CreatedSince": created_since(image.created_here, cx.now),
        "CreatedAt": human::go_string(image.created_here, cx.zone()),
        "Size": units::size3(image.size_bytes),
        "Containers": image.containers.to_string(),
        "SharedSize": size(image.shared_bytes),
        "UniqueSize": size(image.unique_bytes),
    })
}

/// Times at or before 1970 stand for "unknown".
fn created_since(created: Timestamp, now: Timestamp) -> String {
    if created.0 <= 0 { "N/A".to_owned() } else { human::ago(created, now) }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn the_table_is_dockers() {
        golden("images", &Bench::new().run(&["images"]).text());
        golden("images-digests", &Bench::new().run(&["images", "--digests"]).text());
        golden("images-no-trunc", &Bench::new().run(&["image", "ls", "--no-trunc"]).text());
    }

    #[test]
    fn scripts_get_ids_templates_and_json() {
        golden("images-quiet", &Bench::new().run(&["images", "-q"]).text());
        golden("images-json", &Bench::new().run(&["images", "--format", "json"]).text());
        golden("images-raw", &Bench::new().run(&["images", "--digests", "--format", "raw"]).text());
        let template = "table {{.Repository}}\\t{{.SharedSize}}\\t{{.UniqueSize}}";
        golden("images-template", &Bench::new().run(&["images", "--format", template]).text());
    }

    #[test]
    fn a_terminal_gets_the_view_of_docker_29() {
        golden("images-terminal", &Bench::new().on_terminal().run(&["images"]).text());
        golden("images-tree", &Bench::new().run(&["images", "--tree"]).text());
    }

    #[test]
    fn filters_are_translated() {
        let bench = Bench::new();
        let run =
            bench.run(&["images", "-a", "-f", "dangling=true", "-f", "label=a=b", "-f", "until=1h", "app"]);
        assert_eq!(run.status, 0, "{}", run.stderr);
        golden("images-filters", &bench.calls());
    }

    #[test]
    fn mistakes_are_told_in_dockers_words() {
        golden("images-bad-filter", &Bench::new().run(&["images", "-f", "x"]).text());
        golden("images-unknown-filter", &Bench::new().run(&["images", "-f", "x=y"]).text());
        golden("images-unknown-flag", &Bench::new().run(&["images", "--fromat", "json"]).text());
        golden("images-too-many", &Bench::new().run(&["images", "a", "b"]).text());
        golden("images-bad-template", &Bench::new().run(&["images", "--format", "{{.ID"]).text());
    }
}
