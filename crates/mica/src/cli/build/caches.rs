//! `--cache-from` and `--cache-to` (build.md 6.3).

use std::path::Path;

use mica_api::{CacheDestination, CacheFrom, CacheTo, Class, Error};

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
            // bare references
            spec.kind = "registry".to_owned();
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
            "registry" | "gha" | "s3" | "azblob" => {
                Error::new(Class::Unsupported, format!("caches of type {} are not supported yet", self.kind))
                    .why(format!("in {} {}", self.flag, self.text))
                    .hint("type=local keeps a cache in a directory")
            }
            other => invalid(format!("unknown cache type {other:?}")).hint("types are local and inline"),
        }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::Invalid, message)
}

/// One `--cache-from`.
///
/// # Errors
/// It makes no sense, or its type comes later.
pub(super) fn from(text: &str, here: &Path) -> Result<CacheFrom, Error> {
    let spec = Spec::parse("--cache-from", text)?;
    if spec.kind != "local" {
        return Err(spec.unsupported());
    }
    spec.only(&["src", "tag", "digest"])?;
    let digest = spec
        .get("digest")
        .map(|text| text.parse().map_err(|error| invalid(format!("invalid digest {text}: {error}"))));
    Ok(CacheFrom {
        directory: here.join(spec.required("src")?),
        tag: spec.get("tag").unwrap_or(TAG).to_owned(),
        digest: digest.transpose()?,
    })
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
        let source = from("type=local,src=c,tag=x", here).unwrap();
        assert_eq!((source.directory.as_path(), source.tag.as_str()), (Path::new("/here/c"), "x"));
        let target = to("type=local,dest=/c,mode=max,compression=zstd,ignore-error=true", here).unwrap();
        assert!(target.max && target.ignore_error && target.image_manifest);
        let older = to("type=local,dest=/c,image-manifest=false,oci-mediatypes=false", here).unwrap();
        assert!(!older.oci_media_types && !older.image_manifest);
        assert_eq!(to("type=inline", here).unwrap().destination, CacheDestination::Inline);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let here = Path::new("/");
        let problem = |text: &str| to(text, here).unwrap_err().to_string();
        assert!(problem("dest=x").contains("type required for \"dest=x\""));
        assert!(problem("type=local").contains("dest is required"));
        assert!(problem("type=local,dest=x,moed=max").contains("unknown key \"moed\""));
        assert!(problem("type=nope,a=b").contains("unknown cache type \"nope\""));
        assert!(problem("user/app:cache").contains("type registry are not supported yet"));
        assert!(problem("type=local,dest=x,mode=mid").contains("invalid cache mode"));
    }
}
