//! `--cache-from` and `--cache-to` (build.md 6.3).

use std::path::Path;

use mica_api::{CacheDestination, CacheFrom, CacheTo, Class, Error};
use mica_oci::Reference;

use super::outputs::{compression, is_false};
use crate::values::keyed;

/// The entry of a layout that is meant without a tag.
const TAG: &str = "latest";

/// A cache as written.
struct Spec<'a> {
    flag: &'a str,
    text: &'a str,
    kind: String,
    fields: Vec<(String, String)>,
}

impl<'a> Spec<'a> {
    fn parse(flag: &'a str, text: &'a str) -> Result<Self, Error> {
        let pairs = keyed::pairs(text).map_err(|why| invalid(format!("invalid {flag} {text:?}")).why(why))?;
        let mut spec = Self { flag, text, kind: String::new(), fields: Vec::new() };
        if pairs.iter().all(|(_, value)| value.is_none()) {
            // bare references, which are no keys: tags have a case
            spec.kind = "registry".to_owned();
            spec.fields = text.split(',').map(|name| ("ref".to_owned(), name.to_owned())).collect();
            return Ok(spec);
        }
        for (key, value) in pairs {
            let value = value
                .ok_or_else(|| invalid(format!("invalid value {key}")).why(format!("in {flag} {text}")))?;
            match key.as_str() {
                "type" => spec.kind = value,
                _ => spec.fields.push((key, value)),
            }
        }
        if spec.kind.is_empty() {
            return Err(invalid(format!("type required for {text:?}")));
        }
        Ok(spec)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn required(&self, key: &str) -> Result<&str, Error> {
        let given = self.get(key).filter(|value| !value.is_empty());
        given.ok_or_else(|| {
            invalid(format!("{key} is required for {} cache of type {}", self.flag, self.kind))
        })
    }

    /// A key that nobody reads is a typing error.
    fn only(&self, known: &[&str]) -> Result<(), Error> {
        match self.fields.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(invalid(format!("unknown key {key:?} of a cache of type {}", self.kind))
                .why(format!("in {} {}", self.flag, self.text))
                .hint(format!("known are {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    fn switch(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |value| !is_false(value))
    }

    fn unsupported(&self) -> Error {
        match self.kind.as_str() {
            "gha" | "s3" | "azblob" => {
                Error::new(Class::Unsupported, format!("caches of type {} are not supported yet", self.kind))
                    .why(format!("in {} {}", self.flag, self.text))
                    .hint("type=registry keeps a cache in a registry, type=local in a directory")
            }
            other => {
                invalid(format!("unknown cache type {other:?}")).hint("types are registry, local and inline")
            }
        }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::Invalid, message)
}

/// One `--cache-from`; bare references may be several.
///
/// # Errors
/// It makes no sense, or its type comes later.
pub(super) fn from(text: &str, here: &Path) -> Result<Vec<CacheFrom>, Error> {
    let spec = Spec::parse("--cache-from", text)?;
    match spec.kind.as_str() {
        "local" => {
            spec.only(&["src", "tag", "digest"])?;
            let digest = spec
                .get("digest")
                .map(|text| text.parse().map_err(|error| invalid(format!("invalid digest {text}: {error}"))));
            let directory = here.join(spec.required("src")?);
            let tag = spec.get("tag").unwrap_or(TAG).to_owned();
            Ok(vec![CacheFrom::Local { directory, tag, digest: digest.transpose()? }])
        }
        "registry" => {
            spec.only(&["ref"])?;
            spec.required("ref")?;
            spec.fields.iter().map(|(_, name)| reference(name).map(CacheFrom::Registry)).collect()
        }
        _ => Err(spec.unsupported()),
    }
}

fn reference(name: &str) -> Result<Reference, Error> {
    let parsed: Result<Reference, _> = name.parse();
    parsed
        .map(Reference::or_latest)
        .map_err(|error| invalid(format!("invalid cache reference {name:?}: {error}")))
}

/// One `--cache-to`.
///
/// # Errors
/// It makes no sense, or its type comes later.
pub(super) fn to(text: &str, here: &Path) -> Result<CacheTo, Error> {
    const FORM: [&str; 7] = [
        "mode",
        "compression",
        "compression-level",
        "force-compression",
        "oci-mediatypes",
        "image-manifest",
        "ignore-error",
    ];
    let spec = Spec::parse("--cache-to", text)?;
    let destination = match spec.kind.as_str() {
        "local" => {
            spec.only(&[&FORM[..], &["dest", "tag", "reset"]].concat())?;
            CacheDestination::Local {
                directory: here.join(spec.required("dest")?),
                tag: spec.get("tag").unwrap_or(TAG).to_owned(),
                reset: spec.switch("reset", false),
            }
        }
        "registry" => {
            spec.only(&[&FORM[..], &["ref"]].concat())?;
            CacheDestination::Registry(reference(spec.required("ref")?)?)
        }
        "inline" => {
            spec.only(&[])?;
            CacheDestination::Inline
        }
        _ => return Err(spec.unsupported()),
    };
    let max = match spec.get("mode") {
        None | Some("" | "min") => false,
        Some("max") => true,
        Some(other) => {
            return Err(invalid(format!("invalid cache mode {other:?}")).hint("mode=min or mode=max"));
        }
    };
    let oci_media_types = spec.switch("oci-mediatypes", true);
    let image_manifest = spec.switch("image-manifest", oci_media_types);
    if image_manifest && !oci_media_types {
        return Err(invalid("cache manifests as images need OCI media types").hint("image-manifest=false"));
    }
    Ok(CacheTo {
        destination,
        max,
        compression: compression(&|key| spec.get(key))?,
        oci_media_types,
        image_manifest,
        ignore_error: spec.switch("ignore-error", false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_tags_and_digests() {
        let here = Path::new("/here");
        let source = from("type=local,src=c,tag=x", here).unwrap().remove(0);
        let expected = CacheFrom::Local { directory: "/here/c".into(), tag: "x".into(), digest: None };
        assert_eq!(source, expected);
        let target = to("type=local,dest=/c,mode=max,compression=zstd,ignore-error=true", here).unwrap();
        assert!(target.max && target.ignore_error && target.image_manifest);
        let older = to("type=local,dest=/c,image-manifest=false,oci-mediatypes=false", here).unwrap();
        assert!(!older.oci_media_types && !older.image_manifest);
        assert_eq!(to("type=inline", here).unwrap().destination, CacheDestination::Inline);
    }

    #[test]
    fn a_bare_name_is_one_in_a_registry() {
        let here = Path::new("/");
        let name = |text: &str| text.parse().unwrap();
        let names = vec![CacheFrom::Registry(name("a:latest")), CacheFrom::Registry(name("r:5000/b:C"))];
        assert_eq!(from("a,r:5000/b:C", here).unwrap(), names);
        let to = to("type=registry,ref=r:5000/b:c,mode=max", here).unwrap();
        assert_eq!((to.destination, to.max), (CacheDestination::Registry(name("r:5000/b:c")), true));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let here = Path::new("/");
        let problem = |text: &str| to(text, here).unwrap_err().to_string();
        assert!(problem("dest=x").contains("type required for \"dest=x\""));
        assert!(problem("type=local").contains("dest is required"));
        assert!(problem("type=local,dest=x,moed=max").contains("unknown key \"moed\""));
        assert!(problem("type=nope,a=b").contains("unknown cache type \"nope\""));
        assert!(problem("type=registry").contains("ref is required"));
        assert!(problem("user/App:cache").contains("invalid cache reference"));
        assert!(problem("type=gha").contains("type gha are not supported yet"));
        assert!(problem("type=local,dest=x,mode=mid").contains("invalid cache mode"));
    }
}
