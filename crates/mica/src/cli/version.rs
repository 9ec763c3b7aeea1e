//! `mica version`: versions of this program and what it speaks.

use mica_api::VersionInfo;
use serde_json::json;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Show version information
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Verb for VersionArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let version = cx.engine()?.version()?;
        let text = match self.format.as_deref().filter(|format| !format.is_empty()) {
            None => describe(&version),
            Some(format) => super::info::by_template(&both_sides(&version), format)?,
        };
        cx.out.text(&text)?;
        Ok(Status::default())
    }
}

/// Client and server are one program, but scripts ask for either.
fn both_sides(version: &VersionInfo) -> serde_json::Value {
    let mut client = json!({
        "Version": version.version,
        "ApiVersion": version.api_version,
        "DefaultAPIVersion": version.api_version,
        "GitCommit": version.git_commit,
        "Os": version.os,
        "Arch": version.arch,
    });
    let mut server = client.clone();
    client["Context"] = json!("default");
    server["APIVersion"] = json!(version.api_version);
    server["MinAPIVersion"] = json!(version.api_version);
    client["APIVersion"] = json!(version.api_version);
    json!({"Client": client, "Server": server})
}

fn describe(version: &VersionInfo) -> String {
    let side = |name: &str| {
        format!(
            "{name}\n Version:           {}\n API version:       {}\n Git commit:        {}\n OS/Arch:           {}/{}\n",
            version.version, version.api_version, version.git_commit, version.os, version.arch
        )
    };
    format!("{}\n{}", side("Client: mica"), side("Server: mica, in process"))
}

/// Show version information of the builder
#[derive(Debug, clap::Args)]
pub(crate) struct BuildxVersionArgs {}

impl Verb for BuildxVersionArgs {
    const USAGE: &'static str = "";

    fn run(self, cx: &Cx) -> Outcome {
        cx.out.line(&format!("github.com/docker/buildx (mica) {}", env!("CARGO_PKG_VERSION")))?;
        Ok(Status::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn both_sides_have_a_version() {
        golden("version", &Bench::new().run(&["version"]).text());
        let template = "{{.Server.Version}} {{.Client.Os}}/{{.Client.Arch}}";
        golden("version-template", &Bench::new().run(&["version", "-f", template]).text());
    }
}
