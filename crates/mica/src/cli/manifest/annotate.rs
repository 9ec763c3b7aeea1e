//! `mica manifest annotate`: another platform for a manifest of a list.

use mica_api::{Class, Error};
use mica_oci::Platform;

use super::{lists, named};
use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Say for which platform a manifest of a list is
#[derive(Debug, clap::Args)]
pub(crate) struct AnnotateArgs {
    /// Processor
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// System
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Features of the system
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Version of the system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Variant of the processor
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: String,
    /// The image as it was given to `manifest create`
    #[arg(value_name = "MANIFEST")]
    manifest: String,
}

/// The systems and processors that Go knows, as far as images are made for them.
const KNOWN: [(&str, &[&str]); 4] = [
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
            "ppc64le", "riscv64", "s390x",
        ],
    ),
    ("windows", &["386", "amd64", "arm", "arm64"]),
    ("darwin", &["amd64", "arm64"]),
    ("freebsd", &["386", "amd64", "arm", "arm64", "riscv64"]),
];

impl Verb for AnnotateArgs {
    const USAGE: &'static str = "[OPTIONS] LIST MANIFEST";

    fn run(self, cx: &Cx) -> Outcome {
        let (list, reference, lists) = (named(&self.list)?, named(&self.manifest)?, lists(cx));
        let items = lists.items(&list).map_err(super::failed)?.unwrap_or_default();
        let found = items.into_iter().find(|item| item.reference == reference.to_string());
        let mut item = found.ok_or_else(|| {
            let text =
                format!("manifest for image {} does not exist in {}", reference.familiar(), list.familiar());
            Error::new(Class::NotFound, text)
        })?;
        let before = item.descriptor.platform.take().unwrap_or_else(Platform::host);
        let mut platform = before;
        if let Some(os) = &self.os {
            platform.os.clone_from(os);
        }
        if let Some(arch) = &self.arch {
            platform.architecture.clone_from(arch);
        }
        if self.variant.is_some() {
            platform.variant.clone_from(&self.variant);
        }
        if self.os_version.is_some() {
            platform.os_version.clone_from(&self.os_version);
        }
        if !self.os_features.is_empty() {
            platform.os_features.clone_from(&self.os_features);
        }
        let (os, arch) = (platform.os.as_str(), platform.architecture.as_str());
        if !KNOWN.iter().any(|(known, archs)| *known == os && archs.contains(&arch)) {
            let text = format!("manifest entry for image has unsupported os/arch combination: {os}/{arch}");
            return Err(Error::new(Class::Invalid, text).into());
        }
        item.descriptor.platform = Some(platform);
        lists.put(&list, &reference, &item).map_err(super::failed)?;
        Ok(Status::default())
    }
}
