//! The keys of a mount, collected in any order and then checked against its type.

use super::{Attributes, MountError, MountFlag, MountType, Sharing};
use crate::directive::go_bool;
use crate::expand::ExpandError;
use crate::suggest::DidYouMean;

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Keys read so far. Type-specific keys must come after `type`, as in the reference.
#[derive(Default)]
pub(super) struct Fields {
    kind: MountType,
    from: String,
    source: String,
    target: String,
    id: String,
    read_only: Option<bool>,
    size_bytes: Option<u64>,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    attributes: Attributes,
}

impl Fields {
    /// Reads one `key=value`, or `key` alone where that means true.
    pub(super) fn read(
        &mut self,
        field: &str,
        expand: &mut impl FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<(), MountError> {
        let Some((key, value)) = field.split_once('=') else { return self.bare(field) };
        let key = key.to_lowercase();
        if key == "from" {
            check_from(value)?;
            self.from = value.to_owned();
            return Ok(());
        }
        let value = expand(value)?;
        self.assign(&key, value, field)
    }

    fn bare(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            key @ "required" => {
                self.only_for(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = true;
            }
            _ => return Err(MountError::NotKeyValue(field.to_owned())),
        }
        Ok(())
    }

    fn assign(&mut self, key: &str, value: String, field: &str) -> Result<(), MountError> {
        match key {
            "type" => self.kind = mount_type(value)?,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "id" => self.id = value,
            "env" => self.env = Some(value),
            "readonly" | "ro" => self.read_only = Some(boolean(key, value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(key, value)?),
            "required" => {
                self.only_for(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = boolean(key, value)?;
            }
            "size" => {
                self.only_for(key, &[MountType::Tmpfs])?;
                let Some(bytes) = human_bytes(&value) else {
                    return Err(MountError::InvalidValue { key: key.to_owned(), value });
                };
                self.size_bytes = Some(bytes);
            }
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.attributes.mode = Some(number("mode", 8, value)?),
            "uid" => self.attributes.uid = Some(number("uid", 10, value)?),
            "gid" => self.attributes.gid = Some(number("gid", 10, value)?),
            _ => {
                let suggestion = DidYouMean::among(key, KEYS);
                let (key, field) = (key.to_owned(), field.to_owned());
                return Err(MountError::UnexpectedKey { key, field, suggestion });
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountType]) -> Result<(), MountError> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(MountError::KeyOfOtherType { key: key.to_owned(), kind: self.kind })
    }

    /// Checks that the keys go with the type.
    pub(super) fn check(&self) -> Result<(), MountError> {
        let kind = self.kind;
        if matches!(kind, MountType::Bind | MountType::Tmpfs) {
            let Attributes { mode, uid, gid } = self.attributes;
            for (key, value) in [("mode", mode), ("uid", uid), ("gid", gid)] {
                if value.is_some() {
                    return Err(MountError::AttributeNotAllowed { key, kind });
                }
            }
        }
        if kind == MountType::Secret {
            self.check_secret()?;
        }
        if self.sharing.is_some() && kind != MountType::Cache {
            return Err(MountError::SharingNotAllowed(kind));
        }
        if kind == MountType::Ssh && !self.source.is_empty() {
            return Err(MountError::SshSource);
        }
        Ok(())
    }

    fn check_secret(&self) -> Result<(), MountError> {
        if !self.from.is_empty() {
            return Err(MountError::SecretFrom);
        }
        if self.sharing.is_some() {
            return Err(MountError::SecretSharing);
        }
        match (self.source.is_empty(), self.id.is_empty()) {
            (true, true) if self.target.is_empty() => Err(MountError::SecretNameless),
            (false, false) => Err(MountError::SecretSourceAndId),
            _ => Ok(()),
        }
    }

    /// Builds the mount; [`Fields::check`] comes first.
    pub(super) fn into_mount(self) -> Result<MountFlag, MountError> {
        let from = Some(self.from).filter(|from| !from.is_empty());
        let (target, source, attributes) = (self.target, self.source, self.attributes);
        Ok(match self.kind {
            MountType::Bind => {
                MountFlag::Bind { target, from, source, read_only: self.read_only.unwrap_or(true) }
            }
            MountType::Cache => MountFlag::Cache {
                id: if self.id.is_empty() { clean(&target) } else { self.id },
                target,
                from,
                source,
                sharing: self.sharing.unwrap_or_default(),
                read_only: self.read_only.unwrap_or(false),
                attributes,
            },
            MountType::Tmpfs => {
                MountFlag::Tmpfs { target, size_bytes: self.size_bytes.filter(|&size| size > 0) }
            }
            MountType::Secret => {
                let named = if source.is_empty() { self.id } else { source };
                let id = if named.is_empty() { base_name(&target).to_owned() } else { named };
                let target = secret_target(target, &id, self.env.is_some());
                MountFlag::Secret { id, target, env: self.env, required: self.required, attributes }
            }
            MountType::Ssh => MountFlag::Ssh {
                id: if self.id.is_empty() { "default".to_owned() } else { self.id },
                target: Some(target).filter(|target| !target.is_empty()),
                required: self.required,
                attributes,
            },
        })
    }
}

/// Returns where a secret's file goes (M5); nowhere if only a variable was asked for. A relative target is relative to
/// the working directory, as in BuildKit 0.26 (M1 says `/`).
fn secret_target(target: String, id: &str, has_variable: bool) -> Option<String> {
    match (target.is_empty(), has_variable) {
        (false, _) => Some(target),
        (true, true) => None,
        (true, false) => Some(format!("/run/secrets/{}", base_name(id))),
    }
}

/// `from` may not hold a variable; a dollar at the very end is none.
pub(super) fn check_from(value: &str) -> Result<(), MountError> {
    match value.find('$') {
        Some(at) if at + 1 < value.len() => Err(MountError::VariableInFrom),
        _ => Ok(()),
    }
}

fn mount_type(value: String) -> Result<MountType, MountError> {
    Ok(match value.to_lowercase().as_str() {
        "bind" => MountType::Bind,
        "cache" => MountType::Cache,
        "tmpfs" => MountType::Tmpfs,
        "secret" => MountType::Secret,
        "ssh" => MountType::Ssh,
        _ => {
            let suggestion = DidYouMean::among(&value, TYPES);
            return Err(MountError::UnsupportedType { value, suggestion });
        }
    })
}

fn sharing(value: String) -> Result<Sharing, MountError> {
    Ok(match value.to_lowercase().as_str() {
        "shared" => Sharing::Shared,
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => {
            let suggestion = DidYouMean::among(&value, SHARINGS);
            return Err(MountError::UnsupportedSharing { value, suggestion });
        }
    })
}

fn boolean(key: &str, value: String) -> Result<bool, MountError> {
    go_bool(&value).ok_or_else(|| MountError::InvalidValue { key: key.to_owned(), value })
}

fn number(key: &'static str, radix: u32, value: String) -> Result<u32, MountError> {
    match u32::from_str_radix(&value, radix) {
        Ok(number) if !value.starts_with('+') => Ok(number),
        _ => Err(MountError::InvalidNumber { key, value }),
    }
}

/// Reads `64m`, `1.5GiB`, `1024`: binary multiples.
fn human_bytes(text: &str) -> Option<u64> {
    let length = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(length);
    let number: f64 = number.parse().ok()?;
    let shift = match unit.trim_start().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let bytes = number * (1u64 << shift) as f64;
    (bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// Go's `path.Base`.
fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Go's `path.Clean` of a path that need not be absolute.
fn clean(path: &str) -> String {
    crate::ignore::clean(path)
}
