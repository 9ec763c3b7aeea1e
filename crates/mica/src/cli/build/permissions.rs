//! `--allow` and build arguments that speak to the builder (build.md O6, V20).

use mica_api::{Class, Entitlements, Error};

/// What may delete files of an output directory; it needs no grant of the engine.
pub(super) const DELETE: &str = "buildx.local.delete";

/// Whether one value of `--allow` is one.
///
/// # Errors
/// There is no such entitlement, or nothing here that it would allow.
pub(super) fn check(text: &str) -> Result<(), String> {
    match text {
        DELETE | "network.host" | "security.insecure" => Ok(()),
        _ if text == "device" || text.starts_with("device=") => {
            Err("devices are not supported yet".to_owned())
        }
        _ => Err(format!("unknown entitlement {text}")),
    }
}

/// What is allowed. `--network host` allows it to single steps too, as buildx has it.
pub(super) fn entitlements(allowed: &[String], network: Option<&str>) -> Entitlements {
    let has = |name: &str| allowed.iter().any(|allowed| allowed == name);
    Entitlements {
        host_network: has("network.host") || network == Some("host"),
        insecure: has("security.insecure"),
    }
}

/// Control arguments that ask for what mica does not have (V20). The others work, or are about what is refused
/// elsewhere (`BUILDKIT_SBOM_SCAN_*` without an SBOM).
///
/// # Errors
/// One of them is used.
pub(super) fn refuse_controls(build_args: &[(String, String)]) -> Result<(), Error> {
    for (name, value) in build_args {
        let off = matches!(value.as_str(), "" | "0" | "false" | "disabled=true");
        let why = match name.as_str() {
            "BUILDKIT_MULTI_PLATFORM" if !off => "an index for one platform comes with builds for several",
            _ if name.starts_with("BUILDKIT_ATTEST_") && !off => "attestations come with registries",
            _ => continue,
        };
        let message = format!("--build-arg {name} is not supported yet");
        return Err(Error::new(Class::Unsupported, message).why(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_known_by_name() {
        assert_eq!(check("network.host"), Ok(()));
        assert!(check("device=x").unwrap_err().contains("devices"));
        assert_eq!(check("network").unwrap_err(), "unknown entitlement network");
        let granted = entitlements(&["security.insecure".to_owned()], Some("host"));
        assert_eq!(granted, Entitlements { host_network: true, insecure: true });
        assert_eq!(entitlements(&[DELETE.to_owned()], None), Entitlements::default());
    }

    #[test]
    fn control_arguments_work_or_are_refused() {
        let refused = |name: &str, value: &str| refuse_controls(&[(name.to_owned(), value.to_owned())]);
        for (name, value) in [("BUILDKIT_MULTI_PLATFORM", "1"), ("BUILDKIT_ATTEST_SBOM", "")] {
            assert_eq!(refused(name, value).is_err(), value == "1", "{name}={value}");
        }
        assert!(refused("BUILDKIT_DOCKERFILE_CHECK", "skip=all").is_ok());
        for name in ["BUILDKIT_SYNTAX", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_SBOM_SCAN_STAGE", "OWN"] {
            assert!(refused(name, "1").is_ok());
        }
    }
}
