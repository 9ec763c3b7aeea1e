//! `mica system df`: what the store uses, and how much of it could be freed.

use mica_api::{CacheEntry, DiskUsage, ListContainers, ListImages, UsageRow};
use serde_json::{Value, json};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;
use crate::format::listing::{Column, Format, Listing};
use crate::format::{human, units};

use super::images;

/// Show how much disk space is used
#[derive(Debug, clap::Args)]
pub(crate) struct DfArgs {
    /// Print with a Go template, or as `table`, `table TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show every image, container and cache record
    #[arg(short, long)]
    verbose: bool,
}

const COLUMNS: &[Column] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

impl Verb for DfArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let usage = cx.engine()?.disk_usage()?;
        let text = match self.verbose {
            true => verbose(&usage, cx)?,
            false => summary(&usage).render(&Format::new(self.format.as_deref(), false, None))?,
        };
        cx.out.text(&text)?;
        Ok(Status::default())
    }
}

fn summary(usage: &DiskUsage) -> Listing<'static> {
    let rows = vec![
        row("Images", &usage.images),
        row("Containers", &usage.containers),
        row("Local Volumes", &usage.volumes),
        row("Build Cache", &usage.build_cache),
    ];
    Listing {
        columns: COLUMNS,
        default: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
        quiet: "Type",
        raw: "",
        rows,
    }
}

fn row(name: &str, usage: &UsageRow) -> Value {
    let mut reclaimable = units::size4(usage.reclaimable_bytes);
    if let Some(percent) = (usage.reclaimable_bytes * 100).checked_div(usage.size_bytes) {
        reclaimable.push_str(&format!(" ({percent}%)"));
    }
    json!({
        "Type": name,
        "TotalCount": usage.total.to_string(),
        "Active": usage.active.to_string(),
        "Size": units::size4(usage.size_bytes),
        "Reclaimable": reclaimable,
    })
}

fn verbose(usage: &DiskUsage, cx: &Cx) -> Result<String, Failure> {
    let format = Format::default();
    let request = ListImages { all: true, sizes: true, ..ListImages::default() };
    let rows = cx.engine()?.images(request)?.iter().map(|image| images::row(image, false, cx)).collect();
    let images = Listing {
        columns: &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ],
        default: &[
            "Repository",
            "Tag",
            "ID",
            "CreatedSince",
            "Size",
            "SharedSize",
            "UniqueSize",
            "Containers",
        ],
        quiet: "ID",
        raw: "",
        rows,
    };
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        images.render(&format)?,
        containers(cx)?.render(&format)?,
        units::size4(usage.build_cache.size_bytes),
        cache(&usage.cache_entries, cx).render(&format)?,
    ))
}

fn cache(entries: &[CacheEntry], cx: &Cx) -> Listing<'static> {
    let rows = entries.iter().map(|entry| {
        json!({
            "ID": entry.id.get(..12).unwrap_or(&entry.id),
            "CacheType": entry.kind,
            "Size": units::size4(entry.size_bytes),
            "CreatedSince": human::ago(entry.created, cx.now),
            "LastUsedSince": entry.last_used.map(|at| human::ago(at, cx.now)).unwrap_or_default(),
            "UsageCount": entry.usage_count.to_string(),
            "Shared": entry.shared,
        })
    });
    Listing {
        columns: &[
            ("ID", "CACHE ID"),
            ("CacheType", "CACHE TYPE"),
            ("Size", "SIZE"),
            ("CreatedSince", "CREATED"),
            ("LastUsedSince", "LAST USED"),
            ("UsageCount", "USAGE"),
            ("Shared", "SHARED"),
        ],
        default: &["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"],
        quiet: "ID",
        raw: "",
        rows: rows.collect(),
    }
}

fn containers(cx: &Cx) -> Result<Listing<'static>, Failure> {
    let containers = cx.engine()?.containers(ListContainers { all: true, sizes: true })?;
    let rows = containers.iter().map(|container| {
        json!({
            "ID": container.id.get(..12).unwrap_or(&container.id),
            "Image": container.image,
            "Size": units::size3(container.size_bytes.unwrap_or_default()),
            "RunningFor": human::ago(container.created, cx.now),
            "Names": container.name,
        })
    });
    Ok(Listing {
        columns: &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Names", "NAMES"),
        ],
        default: &["ID", "Image", "Size", "RunningFor", "Names"],
        quiet: "ID",
        raw: "",
        rows: rows.collect(),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn usage_is_shown_with_what_could_be_freed() {
        golden("system-df", &Bench::new().run(&["system", "df"]).text());
        golden("system-df-json", &Bench::new().run(&["system", "df", "--format", "json"]).text());
        golden("system-df-verbose", &Bench::new().run(&["system", "df", "-v"]).text());
    }
}
