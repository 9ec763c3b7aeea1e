//! `-v`, `--mount`, `--tmpfs`: what is mounted into a container.

use std::path::{Path, PathBuf};

use mica_api::{Class, Error, VolumeMount, VolumeSource};

use crate::format::units;
use crate::values::keyed;

/// A `--mount`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// A directory or file of the host, or a volume.
    Volume(VolumeMount),
    /// Memory: path and options.
    Tmpfs(String, String),
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::Invalid, message)
}

/// `SOURCE:TARGET[:OPTIONS]`, or `TARGET` for an anonymous volume. A source with a slash is a path of the host, which is
/// made if it does not exist, as docker makes it; one without is the name of a volume.
///
/// # Errors
/// Texts that make no sense, and options that come later.
pub(super) fn volume(text: &str, here: &Path) -> Result<VolumeMount, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(invalid(format!("invalid volume specification: '{text}'"))),
    };
    if source.is_some_and(str::is_empty) || target.is_empty() {
        return Err(invalid(format!("invalid spec: {text}: empty section between colons")));
    }
    check_target(target, text)?;
    let source = match source {
        None => VolumeSource::Anonymous,
        Some(path) if path.starts_with(['/', '.', '~']) => VolumeSource::Host(absolute(path, here)),
        Some(name) => VolumeSource::Named(name.to_owned()),
    };
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "rw" => read_only = false,
            "nocopy" if !matches!(source, VolumeSource::Host(_)) => no_copy = true,
            // SELinux labels and consistency hints mean nothing here; docker ignores them where they do not apply.
            "z" | "Z" | "cached" | "delegated" | "consistent" | "rprivate" | "private" => {}
            "shared" | "slave" | "rshared" | "rslave" | "U" | "nocopy" => {
                return Err(Error::new(
                    Class::Unsupported,
                    format!("volume option {option:?} is not supported yet"),
                )
                .why(format!("in {text}")));
            }
            _ => {
                return Err(invalid(format!(
                    "invalid volume specification: '{text}': invalid mode: {options}"
                )));
            }
        }
    }
    Ok(VolumeMount { source, target: target.to_owned(), read_only, no_copy })
}

fn absolute(source: &str, here: &Path) -> PathBuf {
    let joined = here.join(source);
    std::path::absolute(&joined).unwrap_or(joined)
}

fn check_target(target: &str, text: &str) -> Result<(), Error> {
    match target {
        "/" => Err(invalid(format!("invalid specification: {text}: destination can't be '/'"))),
        path if path.starts_with('/') => Ok(()),
        path => Err(invalid(format!("invalid mount path: '{path}' mount path must be absolute"))
            .why(format!("in {text}"))),
    }
}

/// `DIR[:OPTIONS]`.
///
/// # Errors
/// The directory is not absolute.
pub(super) fn tmpfs(text: &str) -> Result<(String, String), Error> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    check_target(target, text)?;
    Ok((target.to_owned(), options.to_owned()))
}

/// `type=volume[,source=NAME],target=…`, `type=bind,source=…,target=…` or `type=tmpfs,target=…`.
///
/// # Errors
/// docker's words for other types, other keys and missing ones.
pub(super) fn mount(text: &str, here: &Path) -> Result<Mount, Error> {
    let pairs = keyed::pairs(text).map_err(|why| invalid(format!("invalid mount {text:?}")).why(why))?;
    let mut fields = Fields::default();
    for (key, value) in &pairs {
        fields.set(key, value.as_deref(), text)?;
    }
    let target =
        fields.target.ok_or_else(|| invalid("target is required").why(format!("in --mount {text}")))?;
    check_target(&target, text)?;
    match fields.kind.as_str() {
        "bind" => {
            let source = fields
                .source
                .ok_or_else(|| invalid("source is required").why(format!("in --mount {text}")))?;
            let source = absolute(&source, here);
            // Unlike -v, --mount makes nothing (docker's difference between the two).
            if !source.exists() {
                return Err(invalid(format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    source.display()
                )));
            }
            let source = VolumeSource::Host(source);
            Ok(Mount::Volume(VolumeMount { source, target, read_only: fields.read_only, no_copy: true }))
        }
        "volume" => {
            let source = fields.source.map_or(VolumeSource::Anonymous, VolumeSource::Named);
            let (read_only, no_copy) = (fields.read_only, fields.no_copy);
            Ok(Mount::Volume(VolumeMount { source, target, read_only, no_copy }))
        }
        "tmpfs" => {
            if fields.read_only {
                fields.tmpfs.push("ro".to_owned());
            }
            Ok(Mount::Tmpfs(target, fields.tmpfs.join(",")))
        }
        "image" | "npipe" | "cluster" => Err(Error::new(
            Class::Unsupported,
            format!("mounts of type {:?} are not supported yet", fields.kind),
        )
        .hint("type=bind, type=volume or type=tmpfs")),
        other => {
            Err(invalid(format!("invalid mount type: {other:?}"))
                .hint("type=bind, type=volume or type=tmpfs"))
        }
    }
}

/// The keys of a `--mount`. docker's default type is a volume.
struct Fields {
    kind: String,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    no_copy: bool,
    tmpfs: Vec<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            kind: "volume".to_owned(),
            source: None,
            target: None,
            read_only: false,
            no_copy: false,
            tmpfs: Vec::new(),
        }
    }
}

impl Fields {
    fn set(&mut self, key: &str, value: Option<&str>, text: &str) -> Result<(), Error> {
        let needed =
            || value.ok_or_else(|| invalid(format!("invalid field '{key}' must be a key=value pair")));
        match key {
            "type" => self.kind = needed()?.to_lowercase(),
            "source" | "src" => self.source = Some(needed()?.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(needed()?.to_owned()),
            "readonly" | "ro" => self.read_only = !matches!(value, Some("false" | "0")),
            "consistency" => {}
            "volume-nocopy" => self.no_copy = !matches!(value, Some("false" | "0")),
            "tmpfs-size" => {
                let bytes = units::parse_binary(needed()?).map_err(|error| invalid(error.to_string()))?;
                self.tmpfs.push(format!("size={bytes}"));
            }
            "tmpfs-mode" => self.tmpfs.push(format!("mode={}", needed()?)),
            "bind-propagation" if matches!(needed()?, "rprivate" | "private") => {}
            "bind-propagation" | "bind-nonrecursive" | "bind-recursive" | "volume-opt" | "volume-driver"
            | "volume-label" | "volume-subpath" | "image-subpath" => {
                return Err(Error::new(
                    Class::Unsupported,
                    format!("mount option '{key}' is not supported yet"),
                )
                .why(format!("in --mount {text}")));
            }
            _ => return Err(invalid(format!("unexpected key '{key}' in '{text}'"))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(source: VolumeSource, target: &str, read_only: bool, no_copy: bool) -> VolumeMount {
        VolumeMount { source, target: target.to_owned(), read_only, no_copy }
    }

    fn bind(source: &str, target: &str, read_only: bool) -> VolumeMount {
        mounted(VolumeSource::Host(source.into()), target, read_only, false)
    }

    #[test]
    fn a_source_with_a_slash_is_a_path_and_one_without_a_volume() {
        let here = Path::new("/here");
        assert_eq!(volume("/a:/b", here).unwrap(), bind("/a", "/b", false));
        assert_eq!(volume("./a:/b:ro,z", here).unwrap(), bind("/here/a", "/b", true));
        let named = || VolumeSource::Named("data".to_owned());
        assert_eq!(volume("data:/b", here).unwrap(), mounted(named(), "/b", false, false));
        assert_eq!(volume("data:/b:ro,nocopy", here).unwrap(), mounted(named(), "/b", true, true));
        assert_eq!(volume("/b", here).unwrap(), mounted(VolumeSource::Anonymous, "/b", false, false));
        assert!(volume("/a:/b:nocopy", here).unwrap_err().message.contains("not supported yet"));
        assert!(volume("data:", here).unwrap_err().message.contains("empty section"));
        assert!(volume("/a:b", here).unwrap_err().message.contains("must be absolute"));
        assert!(volume("/a:/", here).unwrap_err().message.contains("destination can't be '/'"));
        assert!(volume("/a:/b:nope", here).unwrap_err().message.contains("invalid mode: nope"));
    }

    #[test]
    fn mounts_have_keys() {
        let here = Path::new("/");
        assert_eq!(
            mount("type=bind,src=/,dst=/host,readonly", here).unwrap(),
            Mount::Volume(mounted(VolumeSource::Host("/".into()), "/host", true, true))
        );
        assert_eq!(
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777", here).unwrap(),
            Mount::Tmpfs("/t".to_owned(), "size=1048576,mode=1777".to_owned())
        );
        assert!(
            mount("type=bind,src=/nonexistent,dst=/x", here).unwrap_err().message.contains("does not exist")
        );
        assert!(mount("type=bind,src=/", here).unwrap_err().message.contains("target is required"));
        let named = VolumeSource::Named("v".to_owned());
        assert_eq!(mount("src=v,dst=/x", here).unwrap(), Mount::Volume(mounted(named, "/x", false, false)));
        assert!(mount("type=image,src=v,dst=/x", here).unwrap_err().message.contains("\"image\""));
        assert!(mount("type=bind,foo=1,dst=/x", here).unwrap_err().message.contains("unexpected key 'foo'"));
    }
}
