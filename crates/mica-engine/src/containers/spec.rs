//! What was asked for: recorded when a container is made, never changed, shown by `inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mica_api::{Class, Error, NetworkMode, Result, RunRequest};
use mica_oci::{ContainerConfig, Digest, Platform};
use serde::{Deserialize, Serialize};

use super::environment;
use super::volumes::Mounted;

/// A container as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The image as the user wrote it.
    pub(super) image: String,
    /// The manifest of the platform.
    pub(super) manifest: Digest,
    pub(super) platform: Platform,
    /// What the image says, overridden by the request.
    pub(super) process: ContainerConfig,
    pub(super) hostname: String,
    pub(super) interactive: bool,
    pub(super) terminal: bool,
    pub(super) remove: bool,
    pub(super) read_only: bool,
    pub(super) privileged: bool,
    pub(super) network: NetworkMode,
    /// Filled when the volumes are there: a request that makes no sense makes none.
    pub(super) volumes: Vec<Mounted>,
    pub(super) tmpfs: Vec<(String, String)>,
    pub(super) cap_add: Vec<String>,
    pub(super) cap_drop: Vec<String>,
    pub(super) security_opt: Vec<String>,
    pub(super) pids_limit: Option<i64>,
    pub(super) extra_hosts: Vec<(String, String)>,
    pub(super) groups: Vec<String>,
    pub(super) shm_bytes: Option<u64>,
    pub(super) ulimits: Vec<String>,
    pub(super) runtime: Option<PathBuf>,
    pub(super) cid_file: Option<PathBuf>,
}

/// The image a container is made of.
pub(super) struct Base<'a> {
    pub(super) manifest: Digest,
    pub(super) platform: Platform,
    pub(super) config: &'a ContainerConfig,
}

impl Spec {
    /// Brings a request and an image together.
    ///
    /// # Errors
    /// docker's words for a request without a command or with a relative working directory.
    pub(super) fn new(request: RunRequest, base: Base<'_>, default_hostname: &str) -> Result<Self> {
        let process = merged(&request, base.config)?;
        let hostname = match (request.hostname, request.network) {
            (Some(name), _) => name,
            (None, NetworkMode::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            (None, _) => default_hostname.to_owned(),
        };
        Ok(Self {
            image: request.image,
            manifest: base.manifest,
            platform: base.platform,
            process,
            hostname,
            interactive: request.interactive,
            terminal: request.terminal,
            remove: request.remove,
            read_only: request.read_only,
            privileged: request.privileged,
            network: request.network,
            volumes: Vec::new(),
            tmpfs: request.tmpfs,
            cap_add: request.cap_add,
            cap_drop: request.cap_drop,
            security_opt: request.security_opt,
            pids_limit: request.pids_limit,
            extra_hosts: request.extra_hosts,
            groups: request.groups,
            shm_bytes: request.shm_bytes,
            ulimits: request.ulimits,
            runtime: request.runtime,
            cid_file: request.cid_file,
        })
    }

    /// Program and arguments.
    pub(super) fn argv(&self) -> Vec<String> {
        [self.process.entrypoint.as_slice(), &self.process.cmd].concat()
    }

    /// argv as one line, as docker's `ps` has it: words with spaces in quotes.
    pub(super) fn command_line(&self) -> String {
        let mut words = self.argv().into_iter();
        let mut line = words.next().unwrap_or_default();
        for word in words {
            line.push(' ');
            line.push_str(&if word.contains(' ') { format!("'{word}'") } else { word });
        }
        line
    }
}

/// docker's merge of a request over an image's config.
fn merged(request: &RunRequest, image: &ContainerConfig) -> Result<ContainerConfig> {
    let (entrypoint, cmd) = command(request, image);
    if entrypoint.is_empty() && cmd.is_empty() {
        let why = match &request.entrypoint {
            Some(_) => format!("--entrypoint stands for both ENTRYPOINT and CMD of image {}", request.image),
            None => format!("image {} has neither ENTRYPOINT nor CMD", request.image),
        };
        return Err(Error::new(Class::Invalid, "no command specified")
            .why(why)
            .hint(format!("name a program: mica run {} PROGRAM", request.image)));
    }
    let mut labels: BTreeMap<String, String> = image.labels.clone();
    labels.extend(request.labels.iter().cloned());
    Ok(ContainerConfig {
        user: request.user.clone().unwrap_or_else(|| image.user.clone()),
        env: environment::recorded(&request.env, &image.env),
        entrypoint,
        cmd,
        working_dir: working_directory(request.workdir.as_deref(), &image.working_dir)?,
        labels,
        stop_signal: request.stop_signal.clone().unwrap_or_else(|| image.stop_signal.clone()),
        // Triggers are for builds from the image, not for containers.
        on_build: Vec::new(),
        ..image.clone()
    })
}

/// A new entrypoint also drops the image's words, because they were meant for the old one.
fn command(request: &RunRequest, image: &ContainerConfig) -> (Vec<String>, Vec<String>) {
    match &request.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), request.command.clone()),
        Some(program) => (vec![program.clone()], request.command.clone()),
        None if request.command.is_empty() => (image.entrypoint.clone(), image.cmd.clone()),
        None => (image.entrypoint.clone(), request.command.clone()),
    }
}

/// Nothing stays nothing, so that `commit` writes into no image what nobody asked for.
fn working_directory(asked: Option<&str>, image: &str) -> Result<String> {
    match asked.filter(|path| !path.is_empty()).unwrap_or(image) {
        "" => Ok(String::new()),
        path if path.starts_with('/') => Ok(cleaned(path)),
        path => Err(Error::new(
            Class::Invalid,
            format!("the working directory '{path}' is invalid, it needs to be an absolute path"),
        )),
    }
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(super) fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn image() -> ContainerConfig {
        ContainerConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["PATH=/bin".into(), "A=image".into()],
            working_dir: "/srv".into(),
            ..ContainerConfig::default()
        }
    }

    pub(in super::super) fn spec(request: RunRequest) -> Result<Spec> {
        let base = Base {
            manifest: Digest::of(b"m"),
            platform: Platform::new("linux", "amd64", None),
            config: &image(),
        };
        Spec::new(request, base, "0123456789ab")
    }

    fn argv(entrypoint: Option<&str>, command: &[&str]) -> Vec<String> {
        let request = RunRequest {
            entrypoint: entrypoint.map(str::to_owned),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..RunRequest::default()
        };
        spec(request).unwrap().argv()
    }

    #[test]
    fn words_replace_cmd_and_a_new_entrypoint_drops_it() {
        assert_eq!(argv(None, &[]), ["/entry", "default"]);
        assert_eq!(argv(None, &["x", "y"]), ["/entry", "x", "y"]);
        assert_eq!(argv(Some("sh"), &[]), ["sh"]);
        assert_eq!(argv(Some("sh"), &["-c", "id"]), ["sh", "-c", "id"]);
        assert_eq!(argv(Some(""), &["ls"]), ["ls"]);
    }

    #[test]
    fn nothing_to_run_is_refused() {
        let error =
            spec(RunRequest { entrypoint: Some(String::new()), ..RunRequest::default() }).unwrap_err();
        assert_eq!(error.message, "no command specified");
        assert!(error.why.unwrap().starts_with("--entrypoint stands for both ENTRYPOINT and CMD"));
    }

    #[test]
    fn the_working_directory_is_absolute_and_clean() {
        let at = |workdir: &str| spec(RunRequest { workdir: Some(workdir.into()), ..RunRequest::default() });
        assert_eq!(at("/a//b/../c/").unwrap().process.working_dir, "/a/c");
        assert_eq!(spec(RunRequest::default()).unwrap().process.working_dir, "/srv");
        assert_eq!(at("").unwrap().process.working_dir, "/srv");
        assert_eq!(
            at("rel").unwrap_err().message,
            "the working directory 'rel' is invalid, it needs to be an absolute path"
        );
    }

    #[test]
    fn words_with_spaces_are_quoted_in_the_command_line() {
        let request = RunRequest { command: vec!["-c".into(), "echo a".into()], ..RunRequest::default() };
        assert_eq!(spec(request).unwrap().command_line(), "/entry -c 'echo a'");
    }

    #[test]
    fn a_spec_survives_being_recorded() {
        let spec = spec(RunRequest { user: Some("1:2".into()), ..RunRequest::default() }).unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }
}
