//! Rules about what FROM names, once its variables have values.

use mica_dockerfile::Dockerfile;
use mica_oci::{Platform, Reference};

use super::Findings;
use crate::arguments::Variables;
use crate::plan::Planned;
use crate::text;

/// A base should be one even if nobody gives a build argument. Without values, which an error in a default can be the
/// reason of, there is nothing to look at.
pub(crate) fn default_bases(findings: &mut Findings, dockerfile: &Dockerfile, defaults: Option<&Variables>) {
    let Some(defaults) = defaults else { return };
    for stage in &dockerfile.stages {
        let Ok(base) = text::word(&stage.base, defaults, dockerfile.escape) else { continue };
        if base.parse::<Reference>().is_err() {
            let message =
                format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
            findings.report("InvalidDefaultArgInFrom", stage.origin.location, message);
        }
    }
}

/// An image that is for one platform only is used whatever was asked for (F7).
pub(crate) fn base_platform(
    findings: &mut Findings,
    planned: &Planned<'_>,
    expected: &Platform,
    actual: &Platform,
) {
    let (expected, actual) = (expected.normalised(), actual.normalised());
    if (&expected.os, &expected.architecture) != (&actual.os, &actual.architecture) {
        let message = format!(
            "Base image {} was pulled with platform \"{actual}\", expected \"{expected}\" for current build",
            planned.base_name
        );
        findings.report("InvalidBaseImagePlatform", planned.stage.origin.location, message);
    }
}
