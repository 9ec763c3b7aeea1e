//! `mica ps`: list containers.

use std::collections::HashMap;

use mica_api::{Class, ContainerState, ContainerSummary, Error, ListContainers, ListImages};
use mica_oci::Digest;
use serde_json::{Map, Value, json};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::Verb;
use crate::format::listing::{Column, Format, Listing};
use crate::format::template::LABELS;
use crate::format::{human, table, units};
use crate::values::filter::Filter;

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Only containers for which this holds: name=TEXT, status=STATE, ancestor=IMAGE, label=KEY[=VALUE], id=PREFIX,
    /// exited=CODE, before=CONTAINER, since=CONTAINER, volume=NAME, network=NAME
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Print with a Go template, or as `table`, `table TEMPLATE`, `json` or `raw`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show the last N containers, running or not
    #[arg(short = 'n', long, default_value_t = -1, value_name = "N", hide_default_value = true)]
    last: i64,
    /// Show the last container, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Print only container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show how much containers changed
    #[arg(short, long)]
    size: bool,
}

const COLUMNS: &[Column] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Platform", "PLATFORM"),
];

impl PsArgs {
    /// How many at most, and whether ended ones count: `-n`, `-l` and a filter by state imply `-a`.
    fn scope(&self) -> (bool, Option<usize>) {
        let last = if self.latest { 1 } else { self.last };
        let limit = usize::try_from(last).ok().filter(|n| *n > 0);
        let by_state = self.filter.iter().any(|filter| matches!(filter.name.as_str(), "status" | "exited"));
        (self.all || limit.is_some() || by_state, limit)
    }

    /// Sizes are only asked for when shown: they cost a walk through the files of each container.
    fn shows_sizes(&self, cx: &Cx) -> bool {
        let format = self.format.as_deref().or(cx.config().ps_format.as_deref());
        !self.quiet && (self.size || format.is_some_and(|template| template.contains(".Size")))
    }

    /// Bytes of each image, for "virtual" sizes.
    fn image_sizes(&self, cx: &Cx) -> Result<HashMap<Digest, u64>, Failure> {
        if !self.shows_sizes(cx) {
            return Ok(HashMap::new());
        }
        let images = cx.engine()?.images(ListImages { all: true, ..ListImages::default() })?;
        Ok(images.into_iter().map(|image| (image.id, image.size_bytes)).collect())
    }

    fn row(&self, container: &ContainerSummary, images: &HashMap<Digest, u64>, cx: &Cx) -> Value {
        let own_bytes = container.size_bytes.unwrap_or_default();
        let virtual_bytes = own_bytes + images.get(&container.image_id).copied().unwrap_or_default();
        let labels: Map<String, Value> =
            container.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let label_list: Vec<String> =
            container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let command =
            if self.no_trunc { container.command.clone() } else { table::ellipsis(&container.command, 20) };
        let mounts: Vec<String> = match self.no_trunc {
            true => container.mounts.clone(),
            false => container.mounts.iter().map(|mount| table::ellipsis(mount, 15)).collect(),
        };
        json!({
            "ID": if self.no_trunc { container.id.as_str() } else { short(&container.id) },
            "Image": container.image,
            "Command": format!("\"{command}\""),
            "CreatedAt": human::go_string(container.created, cx.zone()),
            "RunningFor": human::ago(container.created, cx.now),
            "Ports": "",
            "State": state(container.state),
            "Status": status(container, cx),
            "Names": container.name,
            "Size": match virtual_bytes {
                0 => units::size3(own_bytes),
                bytes => format!("{} (virtual {})", units::size3(own_bytes), units::size3(bytes)),
            },
            "Labels": label_list.join(","),
            "Mounts": mounts.join(","),
            "Networks": container.networks.join(","),
            "LocalVolumes": container.volumes.to_string(),
            "Platform": Value::Null,
            LABELS: labels,
        })
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Dead => "dead",
    }
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`.
fn status(container: &ContainerSummary, cx: &Cx) -> String {
    match container.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Dead => "Dead".to_owned(),
        ContainerState::Running => {
            let since = container.started.unwrap_or(container.created);
            format!("Up {}", human::duration(cx.now.seconds() - since.seconds()))
        }
        ContainerState::Exited => {
            let since = container.finished.unwrap_or(container.created);
            format!("Exited ({}) {}", container.exit_code.unwrap_or_default(), human::ago(since, cx.now))
        }
    }
}

/// Filters of one name are alternatives, except labels, which must all hold.
fn keep(container: &ContainerSummary, filters: &[Filter], all: &[ContainerSummary]) -> Result<bool, Error> {
    for filter in filters {
        let holds = if filter.name == "label" {
            matches(container, filter, all)?
        } else {
            let mut any = false;
            for alternative in filters.iter().filter(|other| other.name == filter.name) {
                any |= matches(container, alternative, all)?;
            }
            any
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The container that a filter names.
fn named<'a>(filter: &Filter, all: &'a [ContainerSummary]) -> Result<&'a ContainerSummary, Error> {
    let value = filter.value.strip_prefix('/').unwrap_or(&filter.value);
    all.iter()
        .find(|container| container.name == value || (!value.is_empty() && container.id.starts_with(value)))
        .ok_or_else(|| Error::new(Class::NotFound, format!("No such container: {value}")))
}

/// Refuses what no container could tell us, as there may be none.
fn check(filter: &Filter) -> Result<(), Error> {
    match filter.name.as_str() {
        "id" | "name" | "ancestor" | "label" | "before" | "since" | "volume" | "network" => Ok(()),
        "exited" => exit_code(filter).map(drop),
        "status" => match filter.value.as_str() {
            "created" | "running" | "exited" | "dead" | "paused" | "restarting" | "removing" => Ok(()),
            _ => Err(filter.invalid("states are created, running, exited, dead")),
        },
        "publish" | "expose" | "health" | "isolation" | "is-task" => {
            Err(Error::new(Class::Unsupported, format!("filter '{}' is not supported yet", filter.name)))
        }
        _ => Err(filter.unknown()),
    }
}

fn exit_code(filter: &Filter) -> Result<u8, Error> {
    filter.value.parse().map_err(|_| filter.invalid("not an exit code"))
}

fn matches(container: &ContainerSummary, filter: &Filter, all: &[ContainerSummary]) -> Result<bool, Error> {
    let value = filter.value.as_str();
    Ok(match filter.name.as_str() {
        "id" => container.id.starts_with(value),
        "name" => name_matches(&container.name, value),
        "ancestor" => {
            let image = container.image.as_str();
            image == value
                || image.split(':').next() == Some(value)
                || container.image_id.to_string() == value
                || container.image_id.hex().starts_with(value)
        }
        "label" => {
            let (key, wanted) = filter.label();
            container
                .labels
                .iter()
                .any(|(name, text)| *name == key && wanted.as_ref().is_none_or(|w| w == text))
        }
        "exited" => {
            container.state == ContainerState::Exited && container.exit_code == Some(exit_code(filter)?)
        }
        "status" => state(container.state) == value,
        "before" => container.created < named(filter, all)?.created,
        "since" => container.created > named(filter, all)?.created,
        "volume" => container.mounts.iter().any(|mount| mount == value),
        "network" => container.networks.iter().any(|network| network == value),
        _ => return check(filter).map(|()| false),
    })
}

/// docker matches names as regular expressions; mica knows the anchors and plain text, which is what people write.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (start, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    match (start, rest.strip_suffix('$')) {
        (true, Some(text)) => name == text,
        (true, None) => name.starts_with(rest),
        (false, Some(text)) => name.ends_with(text),
        (false, None) => name.contains(rest),
    }
}

impl PsArgs {
    /// The containers to show, newest first.
    fn chosen(&self, cx: &Cx) -> Result<Vec<ContainerSummary>, Failure> {
        self.filter.iter().try_for_each(check)?;
        let (all, limit) = self.scope();
        // A filter may name a container that is not shown itself.
        let by_age = self.filter.iter().any(|filter| matches!(filter.name.as_str(), "before" | "since"));
        let request = ListContainers { all: all || by_age, sizes: self.shows_sizes(cx) };
        let containers = cx.engine()?.containers(request)?;
        let mut chosen = Vec::new();
        for container in &containers {
            let in_scope = all || container.state == ContainerState::Running;
            if in_scope && keep(container, &self.filter, &containers)? {
                chosen.push(container.clone());
            }
        }
        chosen.truncate(limit.unwrap_or(usize::MAX));
        Ok(chosen)
    }
}

/// `--format raw`.
const RAW: &str = "container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state:{{- pad .State 1 0}}
status:{{- pad .Status 1 0}}
names: {{.Names}}
labels:{{- pad .Labels 1 0}}
ports:{{- pad .Ports 1 0}}
";

impl Verb for PsArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let containers = self.chosen(cx)?;
        let images = self.image_sizes(cx)?;
        let rows = containers.iter().map(|container| self.row(container, &images, cx)).collect();
        let mut default = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
        if self.size {
            default.push("Size");
        }
        let format = Format::new(self.format.as_deref(), self.quiet, cx.config().ps_format.as_deref());
        let raw = if self.size { format!("{RAW}size: {{{{.Size}}}}\n") } else { RAW.to_owned() };
        let listing = Listing { columns: COLUMNS, default: &default, quiet: "ID", raw: &raw, rows };
        cx.out.text(&listing.render(&format)?)?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, golden};

    #[test]
    fn running_containers_are_shown_and_others_on_request() {
        golden("ps", &Bench::new().run(&["ps"]).text());
        golden("ps-all", &Bench::new().run(&["ps", "-a"]).text());
        golden("ps-size", &Bench::new().run(&["ps", "-as", "--no-trunc"]).text());
        golden("ps-quiet", &Bench::new().run(&["ps", "-aq"]).text());
        golden("ps-raw", &Bench::new().run(&["ps", "-as", "--format", "raw"]).text());
        golden("ps-last", &Bench::new().run(&["ps", "-n", "1", "-q"]).text());
    }

    #[test]
    fn scripts_get_templates_and_json() {
        golden("ps-json", &Bench::new().run(&["ps", "--format", "json"]).text());
        let template = "{{.Names}}={{.Label \"tier\"}} {{.State}}";
        golden("ps-template", &Bench::new().run(&["container", "ls", "-a", "--format", template]).text());
    }

    #[test]
    fn filters_of_one_name_are_alternatives() {
        let ids =
            |args: &[&str]| Bench::new().run(&[&["ps", "--format", "{{.Names}}"], args].concat()).stdout;
        assert_eq!(ids(&["-f", "status=exited"]), "job\n");
        assert_eq!(ids(&["-a", "-f", "name=we", "-f", "name=^job$"]), "web\njob\n");
        assert_eq!(ids(&["-a", "-f", "label=tier=front", "-f", "ancestor=app"]), "web\n");
        assert_eq!(ids(&["-a", "-f", "exited=3"]), "job\n");
        assert_eq!(ids(&["-f", "id=0"]), "");
        assert_eq!(ids(&["-a", "-f", "since=job"]), "web\n");
        assert_eq!(ids(&["-a", "-f", "before=web", "-f", "volume=data"]), "job\n");
        assert_eq!(ids(&["-f", "before=web"]), "");
        golden("ps-bad-status", &Bench::new().run(&["ps", "-f", "status=x"]).text());
    }

    #[test]
    fn names_match_by_substring_and_anchors() {
        assert!(
            name_matches("web1", "web") && name_matches("web1", "^web") && !name_matches("web1", "^web$")
        );
        assert!(name_matches("web", "^/web$") && name_matches("aweb", "web$"));
    }
}
