//! `mica info`: facts about the engine and its store.

use mica_api::{Class, Error, SystemInfo};
use serde_json::Value;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;
use crate::format::template;

/// Show facts about the engine and its store
#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Verb for InfoArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let info = cx.engine()?.info()?;
        let text = match self.format.as_deref().filter(|format| !format.is_empty()) {
            None => describe(&info, &cx.program),
            Some(format) => by_template(&info, format)?,
        };
        cx.out.text(&text)?;
        Ok(Status::default())
    }
}

/// One object by `json` or a template.
pub(super) fn by_template<T: serde::Serialize>(
    object: &T,
    format: &str,
) -> Result<String, crate::failure::Failure> {
    let value: Value = serde_json::to_value(object)
        .map_err(|error| Error::new(Class::Internal, "cannot show this as JSON").why(error.to_string()))?;
    let template = if format == "json" { "{{json .}}" } else { format };
    Ok(template::render(template, &value)? + "\n")
}

fn describe(info: &SystemInfo, program: &str) -> String {
    let mut text =
        format!("Client:\n Version:    {}\n Context:    default\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    let mut line =
        |indent: &str, name: &str, value: String| text.push_str(&format!("{indent}{name}: {value}\n"));
    line(" ", "Containers", info.containers.to_string());
    line("  ", "Running", info.containers_running.to_string());
    line("  ", "Paused", info.containers_paused.to_string());
    line("  ", "Stopped", info.containers_stopped.to_string());
    line(" ", "Images", info.images.to_string());
    line(" ", "Server Version", info.server_version.clone());
    line(" ", "Storage Driver", info.driver.clone());
    for (name, value) in &info.driver_status {
        line("  ", name, value.clone());
    }
    line(" ", "Cgroup Version", info.cgroup_version.clone());
    line(" ", "Default Runtime", info.default_runtime.clone());
    if !info.security_options.is_empty() {
        text.push_str(" Security Options:\n");
        info.security_options.iter().for_each(|option| text.push_str(&format!("  {option}\n")));
    }
    let mut line = |name: &str, value: String| text.push_str(&format!(" {name}: {value}\n"));
    line("Kernel Version", info.kernel_version.clone());
    line("Operating System", info.operating_system.clone());
    line("OSType", info.os_type.clone());
    line("Architecture", info.architecture.clone());
    line("CPUs", info.ncpu.to_string());
    line("Total Memory", binary(info.mem_total));
    line("Name", info.name.clone());
    line("ID", info.id.clone());
    line(if program == "docker" { "Docker Root Dir" } else { "Root Dir" }, info.docker_root_dir.clone());
    for warning in &info.warnings {
        text.push_str(&format!("\nWARNING: {warning}"));
    }
    if info.warnings.is_empty() { text } else { text + "\n" }
}

/// Memory, as docker prints it: `15.62GiB`.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut index = 0;
    while value >= 1024.0 && index < UNITS.len() - 1 {
        value /= 1024.0;
        index += 1;
    }
    let decimals = if index == 0 {
        0
    } else if value < 10.0 {
        3
    } else if value < 100.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, golden};

    #[test]
    fn facts_are_shown_in_dockers_layout() {
        golden("info", &Bench::new().run(&["info"]).text());
        golden("info-template", &Bench::new().run(&["info", "-f", "{{.DockerRootDir}} {{.NCPU}}"]).text());
        golden("info-json", &Bench::new().run(&["system", "info", "-f", "json"]).text());
    }

    #[test]
    fn memory_is_binary() {
        assert_eq!(binary(16_772_939_776), "15.62GiB");
        assert_eq!(binary(512), "512B");
    }
}
