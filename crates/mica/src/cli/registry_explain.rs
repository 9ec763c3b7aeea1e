//! `mica registry explain`: how a registry would be reached, and what decided it.

use mica_api::{Class, Error};
use mica_engine::Explanation;
use mica_oci::Reference;

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Show how a registry is reached: mirrors, TLS, credentials, and which files say so
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A registry, or an image of one
    #[arg(value_name = "HOST|NAME")]
    name: String,
}

impl Verb for ExplainArgs {
    const USAGE: &'static str = "HOST|NAME";

    fn run(self, cx: &Cx) -> Outcome {
        let reference = reference(&self.name).ok_or_else(|| {
            Error::new(Class::Invalid, format!("{:?} is neither a registry nor an image", self.name))
        })?;
        let registries = cx.registries();
        let explained = registries.explain(&reference, &cx.cancel).map_err(Error::from)?;
        for remark in registries.take_remarks() {
            cx.warn(&format!("WARNING: {remark}"));
        }
        cx.out.text(&text(&explained))?;
        Ok(Status::default())
    }
}

/// What looks like a host is one; else it is an image.
fn reference(name: &str) -> Option<Reference> {
    let host = mica_engine::server_name(name);
    let is_host = !name.trim_start_matches("https://").trim_start_matches("http://").contains('/')
        && (host.contains('.') || host.contains(':') || host == "localhost");
    match is_host {
        true => format!("{host}/REPOSITORY").to_lowercase().parse().ok(),
        false => name.parse().ok(),
    }
}

fn text(explained: &Explanation) -> String {
    let mut text = String::new();
    for (index, server) in explained.servers.iter().enumerate() {
        let credential = server.credential.as_deref().unwrap_or("none: anonymous");
        text.push_str(&format!(
            "{}. {}\n   {}\n   transport:   {}\n   credentials: {credential}\n",
            index + 1,
            server.url,
            server.role,
            server.transport
        ));
        for reason in &server.reasons {
            text.push_str(&format!("   because:     {reason}\n"));
        }
    }
    let files: Vec<String> =
        explained.credential_files.iter().map(|path| path.display().to_string()).collect();
    let files = if files.is_empty() { "none".to_owned() } else { files.join(", ") };
    text.push_str(&format!("files with credentials: {files}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_images_are_told_apart() {
        let name = |text: &str| reference(text).map(|found| found.name());
        assert_eq!(name("ghcr.io").as_deref(), Some("ghcr.io/repository"));
        assert_eq!(name("https://reg:5000").as_deref(), Some("reg:5000/repository"));
        assert_eq!(name("alpine").as_deref(), Some("docker.io/library/alpine"));
        assert_eq!(name("ghcr.io/a/b").as_deref(), Some("ghcr.io/a/b"));
        assert_eq!(name("A B"), None);
    }
}
