//! `--annotation`, and `annotation.KEY=VALUE` of outputs (build.md 6.6).

use mica_api::{Annotation, AnnotationTarget, Class, Error};
use mica_oci::Platform;

fn invalid(text: &str, why: impl Into<String>) -> Error {
    Error::new(Class::Invalid, format!("invalid annotation {text:?}")).why(why)
}

/// `[type[platform],…:]key=value`: one annotation for each type named, the manifest if none is.
///
/// # Errors
/// No value, no key, a type or platform that is none.
pub(super) fn parse(text: &str) -> Result<Vec<Annotation>, Error> {
    let (name, value) = text.split_once('=').ok_or_else(|| invalid(text, "expected key=value"))?;
    let (types, key) = name.split_once(':').unwrap_or(("manifest", name));
    if key.is_empty() {
        return Err(invalid(text, "the key is empty"));
    }
    types
        .split(',')
        .map(|kind| {
            let (target, platform) = target(kind).map_err(|why| invalid(text, why))?;
            Ok(Annotation { target, platform, key: key.to_owned(), value: value.to_owned() })
        })
        .collect()
}

/// `annotation[-TYPE][[PLATFORM]].KEY` of an output; `None`: the key is something else.
///
/// # Errors
/// The type or platform is none.
pub(super) fn of_output(name: &str, value: &str) -> Result<Option<Annotation>, Error> {
    let Some(rest) = name.strip_prefix("annotation") else { return Ok(None) };
    // a platform may have a dot: windows/amd64:10.0
    let dot = rest.find("].").map(|at| at + 1).or_else(|| rest.find('.'));
    let Some((kind, key)) = dot.map(|at| (&rest[..at], &rest[at + 1..])) else { return Ok(None) };
    let kind = match kind.strip_prefix('-') {
        Some(kind) => kind.to_owned(),
        None => format!("manifest{kind}"),
    };
    let (target, platform) = target(&kind).map_err(|why| invalid(name, why))?;
    if key.is_empty() {
        return Err(invalid(name, "the key is empty"));
    }
    Ok(Some(Annotation { target, platform, key: key.to_owned(), value: value.to_owned() }))
}

fn target(text: &str) -> Result<(AnnotationTarget, Option<Platform>), String> {
    let (kind, platform) = match text.split_once('[') {
        None => (text, None),
        Some((kind, platform)) => {
            let platform =
                platform.strip_suffix(']').ok_or_else(|| format!("{text:?} has no closing bracket"))?;
            (kind, Some(platform.parse().map_err(|error: mica_oci::PlatformError| error.to_string())?))
        }
    };
    let target = match kind {
        "manifest" => AnnotationTarget::Manifest,
        "manifest-descriptor" => AnnotationTarget::ManifestDescriptor,
        "index" => AnnotationTarget::Index,
        "index-descriptor" => AnnotationTarget::IndexDescriptor,
        other => return Err(format!("unknown annotation type {other:?}")),
    };
    if platform.is_some() && matches!(target, AnnotationTarget::Index | AnnotationTarget::IndexDescriptor) {
        return Err(format!("{kind} cannot have a platform"));
    }
    Ok((target, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_platforms_come_before_the_key() {
        let one = &parse("a.b=c=d").unwrap()[0];
        assert_eq!(
            (one.target, one.key.as_str(), one.value.as_str()),
            (AnnotationTarget::Manifest, "a.b", "c=d")
        );
        let two = parse("manifest[linux/arm64],manifest-descriptor:k=v").unwrap();
        assert_eq!(two[0].platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!(two[1].target, AnnotationTarget::ManifestDescriptor);
        assert_eq!(parse("manifest:org:key=v").unwrap()[0].key, "org:key");
        let wrong = [
            "key",
            "=v",
            "manifest:=v",
            "org:key=v",
            "nope,index:k=v",
            "index[linux/amd64]:k=v",
            "manifest[linux:k=v",
        ];
        for text in wrong {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn outputs_have_them_as_keys() {
        let of = |name: &str| of_output(name, "v").unwrap();
        assert_eq!(of("name"), None);
        assert_eq!(of("annotation.a.b").unwrap().key, "a.b");
        assert_eq!(of("annotation-index.k").unwrap().target, AnnotationTarget::Index);
        let on_platform = of("annotation-manifest-descriptor[linux/amd64].k").unwrap();
        assert_eq!(
            (on_platform.target, on_platform.key.as_str()),
            (AnnotationTarget::ManifestDescriptor, "k")
        );
        assert!(of("annotation[linux/arm64].k").unwrap().platform.is_some());
        assert!(of_output("annotation-nope.k", "v").is_err());
    }
}
