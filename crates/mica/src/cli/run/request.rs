//! From the flags of `run` to its request.

use std::path::{Path, PathBuf};

use mica_api::{Class, Error, NetworkMode, RunRequest, VolumeMount};
use mica_oci::Platform;

use crate::context::Cx;
use crate::environment::Environment;
use crate::failure::{Failure, io_failure};
use crate::values::keyed;

use super::RunArgs;
use super::mounts::{self, Mount};

/// Path and options of a `--tmpfs`.
type Tmpfs = (String, String);

impl RunArgs {
    /// The request, with everything that only the client knows resolved.
    pub(super) fn request(mut self, cx: &Cx) -> Result<RunRequest, Failure> {
        let here =
            std::env::current_dir().map_err(|error| io_failure("cannot find this directory", &error))?;
        let mut words = std::mem::take(&mut self.words).into_iter();
        let (volumes, tmpfs) = self.mounts(&here)?;
        Ok(RunRequest {
            image: words.next().unwrap_or_default(),
            command: words.collect(),
            env: self.environment(cx)?,
            labels: self.labels()?,
            network: network(self.network.as_deref())?,
            platform: platform(self.platform.take(), &cx.environment)?,
            volumes,
            tmpfs,
            entrypoint: self.entrypoint,
            name: self.name,
            remove: self.rm,
            interactive: self.interactive,
            terminal: self.tty,
            workdir: self.workdir,
            user: self.user,
            read_only: self.read_only,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            security_opt: self.security_opt,
            privileged: self.privileged,
            pids_limit: self.pids_limit,
            runtime: self.runtime,
            hostname: self.hostname,
            extra_hosts: self.add_host,
            groups: self.group_add,
            shm_bytes: self.shm_size,
            ulimits: self.ulimit,
            stop_signal: self.stop_signal,
            cid_file: self.cidfile,
        })
    }

    /// Proxies of `config.json`, then `--env-file`, then `-e`; later ones win.
    fn environment(&self, cx: &Cx) -> Result<Vec<String>, Failure> {
        let mut env: Vec<String> = cx
            .config()
            .proxy_variables()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for file in &self.env_file {
            for line in lines(file)? {
                env.extend(resolved(&line, &cx.environment));
            }
        }
        env.extend(self.env.iter().filter_map(|text| resolved(text, &cx.environment)));
        Ok(env)
    }

    fn labels(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut labels = Vec::new();
        for file in &self.label_file {
            labels.extend(lines(file)?.iter().map(|line| keyed::label(line)));
        }
        labels.extend(self.label.iter().map(|text| keyed::label(text)));
        Ok(labels)
    }

    fn mounts(&self, here: &Path) -> Result<(Vec<VolumeMount>, Vec<Tmpfs>), Error> {
        let volumes: Result<Vec<_>, _> = self.volume.iter().map(|text| mounts::volume(text, here)).collect();
        let tmpfs: Result<Vec<_>, _> = self.tmpfs.iter().map(|text| mounts::tmpfs(text)).collect();
        let (mut volumes, mut tmpfs) = (volumes?, tmpfs?);
        for text in &self.mount {
            match mounts::mount(text, here)? {
                Mount::Volume(mount) => volumes.push(mount),
                Mount::Tmpfs(target, options) => tmpfs.push((target, options)),
            }
        }
        let mut targets: Vec<&str> = volumes.iter().map(|mount| mount.target.as_str()).collect();
        targets.extend(tmpfs.iter().map(|(target, _)| target.as_str()));
        targets.sort_unstable();
        if let Some(twice) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::new(Class::Invalid, format!("Duplicate mount point: {}", twice[0])));
        }
        Ok((volumes, tmpfs))
    }
}

fn resolved(text: &str, environment: &Environment) -> Option<String> {
    keyed::from_environment(text, environment).map(|(name, value)| format!("{name}={value}"))
}

fn lines(file: &PathBuf) -> Result<Vec<String>, Failure> {
    let shown = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| io_failure(format!("cannot read {shown}"), &error))?;
    keyed::lines_of_file(&text, &shown).map_err(|message| Failure::new(Class::Invalid, message))
}

fn network(text: Option<&str>) -> Result<NetworkMode, Error> {
    match text {
        None | Some("default") => Ok(NetworkMode::Default),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some(other) => Err(Error::new(Class::Unsupported, format!("network {other} is not supported yet"))
            .why("this version knows the networks none and host")
            .hint("--network host")),
    }
}

/// `--platform`, or `DOCKER_DEFAULT_PLATFORM`.
pub(in crate::cli) fn platform(
    given: Option<Platform>,
    environment: &Environment,
) -> Result<Option<Platform>, Error> {
    if given.is_some() {
        return Ok(given);
    }
    let Some(text) = environment.nonempty("DOCKER_DEFAULT_PLATFORM") else { return Ok(None) };
    let parsed: Result<Platform, _> = text.parse();
    parsed.map(Some).map_err(|error| {
        Error::new(Class::Invalid, error.to_string()).why("it is the value of DOCKER_DEFAULT_PLATFORM")
    })
}
