//! `mica container prune`: remove containers that do not run.

use mica_api::{ContainerFilter, Error, PruneContainers};

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
use crate::values::filter::Filter;
use crate::values::moment;

use super::confirm;

/// Remove containers that do not run
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerPruneArgs {
    /// Only containers for which this holds: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn container_filter(filter: &Filter, cx: &Cx) -> Result<ContainerFilter, Error> {
    let (key, value) = filter.label();
    Ok(match filter.name.as_str() {
        "label" => ContainerFilter::Label(key, value),
        "label!" => ContainerFilter::NotLabel(key, value),
        "until" => ContainerFilter::Until(
            moment::parse(&filter.value, cx.now, cx.zone())
                .ok_or_else(|| filter.invalid("not a time or a duration"))?,
        ),
        _ => return Err(filter.unknown()),
    })
}

impl Verb for ContainerPruneArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let filters: Result<Vec<_>, Error> =
            self.filter.iter().map(|filter| container_filter(filter, cx)).collect();
        let request = PruneContainers { filters: filters? };
        if !self.force && !confirm::confirm(cx, "WARNING! This will remove all stopped containers.")? {
            return Ok(Status::default());
        }
        let report = cx.engine()?.prune_containers(request, &cx.cancel)?;
        cx.out.text(&confirm::report(&report))?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn what_was_removed_is_listed() {
        golden("container-prune", &Bench::new().run(&["container", "prune", "-f"]).text());
    }

    #[test]
    fn filters_are_translated() {
        let bench = Bench::new();
        let filters = ["--filter", "until=1h", "--filter", "label!=keep"];
        bench.run(&[&["container", "prune", "-f"], &filters[..]].concat());
        golden("container-prune-calls", &bench.calls());
        golden("container-prune-bad", &Bench::new().run(&["container", "prune", "--filter", "x=y"]).text());
    }
}
