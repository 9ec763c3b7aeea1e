//! Where a build takes things from besides its context: named contexts, secrets, SSH agents (build.md O2 to O4).

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use mica_api::{Class, Error, NamedContext, Secret, SecretValue, SshAgent};
use mica_oci::Reference;

use crate::environment::Environment;
use crate::values::keyed;

/// BuildKit's limit.
const MAX_SECRET_BYTES: u64 = 500 * 1024;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::Invalid, message)
}

/// Whether a text names something that has to be fetched: a URL or a git repository.
pub(super) fn is_remote(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/", "file://"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

/// `name=VALUE`.
///
/// # Errors
/// The name or the value makes no sense, or comes later.
pub(super) fn named_context(text: &str, here: &Path) -> Result<(String, NamedContext), Error> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| invalid(format!("invalid context value: {text}, expected key=value")))?;
    let plain = name.split("::").next().unwrap_or_default();
    if plain != "scratch" && plain.parse::<Reference>().is_err() {
        return Err(invalid(format!("invalid context name {name}")));
    }
    let unsupported = |what: &str| {
        Error::new(Class::Unsupported, format!("build context {name}={value} is not supported yet"))
            .why(format!("{what} come later"))
    };
    let context = if let Some(image) = value.strip_prefix("docker-image://") {
        let reference: Reference = image
            .parse()
            .map_err(|error| invalid(format!("invalid build context {name}: {image}: {error}")))?;
        NamedContext::Image(reference.or_latest())
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        oci_layout(layout, here)?
    } else if is_remote(value) {
        NamedContext::Remote(value.to_owned())
    } else if value.starts_with("target:") {
        return Err(unsupported("targets of bake files"));
    } else {
        let path = here.join(value);
        if !path.is_dir() {
            return Err(Error::new(Class::NotFound, format!("failed to get build context {name}"))
                .why(format!("{} is not a directory", path.display())));
        }
        NamedContext::Directory(path)
    };
    Ok((name.to_owned(), context))
}

/// `path[:tag|@digest]`.
fn oci_layout(text: &str, here: &Path) -> Result<NamedContext, Error> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let digest =
            digest.parse().map_err(|error| invalid(format!("invalid oci-layout {text}: {error}")))?;
        return Ok(NamedContext::OciLayout { path: here.join(path), tag: None, digest: Some(digest) });
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => {
            Ok(NamedContext::OciLayout { path: here.join(path), tag: Some(tag.to_owned()), digest: None })
        }
        _ => Ok(NamedContext::OciLayout { path: here.join(text), tag: None, digest: None }),
    }
}

/// `id=I[,src=FILE][,env=NAME][,type=file|env]`; with neither, the variable named I, else the file named I.
///
/// # Errors
/// BuildKit's words for what makes no sense, is missing or too big.
pub(super) fn secret(text: &str, environment: &Environment, here: &Path) -> Result<Secret, Error> {
    let pairs = keyed::pairs(text).map_err(|why| invalid(format!("invalid secret {text:?}")).why(why))?;
    let (mut id, mut kind, mut file, mut variable) = (None, None, None, None);
    for (key, value) in pairs {
        let Some(value) = value else {
            return Err(
                invalid(format!("invalid field '{key}' must be a key=value pair")).hint("--secret id=NAME")
            );
        };
        match key.as_str() {
            "id" => id = Some(value),
            "type" if matches!(value.as_str(), "file" | "env") => kind = Some(value),
            "type" => return Err(invalid(format!("unsupported secret type {value:?}"))),
            "source" | "src" => file = Some(value),
            "env" => variable = Some(value),
            _ => return Err(invalid(format!("unexpected key '{key}' in '{key}={value}'"))),
        }
    }
    let id = id.ok_or_else(|| invalid("secret missing ID").hint("--secret id=NAME"))?;
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let by_name = file.is_none() && variable.is_none();
    if by_name && kind.as_deref() != Some("file") && environment.get(&id).is_some() {
        variable = Some(id.clone());
    }
    let value = match variable {
        Some(name) => SecretValue::Bytes(environment.get(&name).unwrap_or_default().as_bytes().to_vec()),
        None => SecretValue::File(secret_file(&here.join(file.as_deref().unwrap_or(&id)))?),
    };
    Ok(Secret { id, value })
}

fn secret_file(path: &Path) -> Result<PathBuf, Error> {
    let meta = path.metadata().map_err(|error| {
        Error::new(Class::of_io(&error), format!("failed to stat {}", path.display())).why(error.to_string())
    })?;
    if meta.len() > MAX_SECRET_BYTES {
        return Err(invalid(format!("secret {} too big. max size 500KB", path.display())));
    }
    Ok(path.to_owned())
}

/// `default`, `ID` or `ID=SOCKET`; without a socket it is the one of `SSH_AUTH_SOCK`.
///
/// # Errors
/// There is no socket, or keys are given instead.
pub(super) fn ssh(text: &str, environment: &Environment) -> Result<SshAgent, Error> {
    let (id, path) = text.split_once('=').unwrap_or((text, ""));
    let path = match path {
        "" => environment.nonempty("SSH_AUTH_SOCK").ok_or_else(|| {
            invalid("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
                .hint("eval $(ssh-agent); ssh-add")
        })?,
        given => given,
    };
    let socket = PathBuf::from(path);
    match socket.metadata() {
        Ok(meta) if meta.file_type().is_socket() => Ok(SshAgent { id: id.to_owned(), socket }),
        Ok(_) => Err(Error::new(Class::Unsupported, format!("--ssh {text}: keys are not supported yet"))
            .why(format!("{path} is not the socket of an agent"))
            .hint(format!("ssh-add {path}"))),
        Err(error) => {
            Err(Error::new(Class::of_io(&error), format!("failed to stat {path}")).why(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, environment: &Environment) -> String {
        match secret(text, environment, Path::new("/etc")) {
            Ok(Secret { id, value: SecretValue::Bytes(bytes) }) => {
                format!("{id}={}", String::from_utf8_lossy(&bytes))
            }
            Ok(Secret { id, value: SecretValue::File(path) }) => format!("{id}@{}", path.display()),
            Err(error) => error.message,
        }
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let environment = Environment::of(&[("TOKEN", "t"), ("passwd", "v")]);
        let value = |text: &str| value(text, &environment);
        assert_eq!(value("id=x,env=TOKEN"), "x=t");
        assert_eq!(value("id=TOKEN"), "TOKEN=t");
        assert_eq!(value("id=x,type=env,src=TOKEN"), "x=t");
        assert_eq!(value("id=x,src=hosts"), "x@/etc/hosts");
        assert_eq!(value("id=passwd"), "passwd=v");
        assert_eq!(value("id=passwd,type=file"), "passwd@/etc/passwd");
        assert_eq!(value("id=group"), "group@/etc/group");
        assert_eq!(value("src=x"), "secret missing ID");
        assert_eq!(value("x"), "invalid field 'x' must be a key=value pair");
        assert_eq!(value("id=x,foo=1"), "unexpected key 'foo' in 'foo=1'");
    }

    #[test]
    fn named_contexts_have_forms() {
        let parse = |text: &str| named_context(text, Path::new("/")).map(|(_, context)| context);
        assert_eq!(parse("a=/etc").unwrap(), NamedContext::Directory("/etc".into()));
        assert_eq!(
            parse("alpine:3=docker-image://b").unwrap(),
            NamedContext::Image("b:latest".parse().unwrap())
        );
        let layout = NamedContext::OciLayout { path: "/l/x".into(), tag: Some("1".to_owned()), digest: None };
        assert_eq!(parse("a=oci-layout:///l/x:1").unwrap(), layout);
        assert_eq!(parse("A=/etc").unwrap_err().message, "invalid context name A");
        assert_eq!(parse("a=https://x").unwrap(), NamedContext::Remote("https://x".to_owned()));
        assert_eq!(parse("a=target:x").unwrap_err().class, Class::Unsupported);
        assert_eq!(parse("a=/nonexistent").unwrap_err().class, Class::NotFound);
        assert!(parse("a").unwrap_err().message.contains("expected key=value"));
    }

    #[test]
    fn ssh_needs_an_agent() {
        let none = Environment::default();
        assert!(ssh("default", &none).unwrap_err().message.contains("SSH_AUTH_SOCK"));
        assert_eq!(ssh("x=/etc/hosts", &none).unwrap_err().class, Class::Unsupported);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let environment = Environment::of(&[("SSH_AUTH_SOCK", path.to_str().unwrap())]);
        assert_eq!(
            ssh("default", &environment).unwrap(),
            SshAgent { id: "default".to_owned(), socket: path }
        );
    }
}
