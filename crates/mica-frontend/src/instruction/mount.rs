//! `RUN --mount` (M1-M7).

use mica_dockerfile::Run;
use mica_dockerfile::expand::{self, ExpandError};
use mica_dockerfile::mounts::{self, Attributes, MountFlag, Sharing};
use mica_solve::{CacheSharing, ExecMount, Input, MountKind, SecretEnv};

use crate::stage::{Inputs, StageConverter};
use crate::{Problem, paths, plan};

/// Mode of secrets (M5).
const SECRET_MODE: u32 = 0o400;
/// Mode of agent sockets (M6).
const SOCKET_MODE: u32 = 0o600;

/// The mounts of one RUN.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// In listing order (M7).
    pub(super) list: Vec<ExecMount>,
    /// Secrets that are variables.
    pub(super) secret_env: Vec<SecretEnv>,
    /// The first agent socket.
    pub(super) ssh_socket: Option<String>,
    ssh_count: usize,
}

impl StageConverter<'_, '_> {
    /// Adds the mounts of an instruction.
    pub(super) fn run_mounts(
        &mut self,
        run: &Run,
        inputs: &mut Inputs,
        mounts: &mut Mounts,
    ) -> Result<(), Problem> {
        for text in &run.mounts {
            let (variables, escape) = (&self.state.variables, self.shared.dockerfile.escape);
            let expand = |value: &str| -> Result<String, ExpandError> {
                Ok(expand::word(value, variables, escape)?.text)
            };
            let flag = mounts::parse_mount(text, expand)?;
            self.run_mount(flag, inputs, mounts)?;
        }
        Ok(())
    }

    fn run_mount(
        &mut self,
        flag: MountFlag,
        inputs: &mut Inputs,
        mounts: &mut Mounts,
    ) -> Result<(), Problem> {
        match flag {
            MountFlag::Bind { target, from, source, read_only } => {
                let from = match &from {
                    Some(from) => self.mount_from(from, &target, inputs)?,
                    None => inputs.add(Some(self.shared.main_context())),
                };
                let kind = MountKind::Bind { from, source: paths::clean(&source) };
                self.push(mounts, &target, kind, read_only)
            }
            MountFlag::Cache { target, id, from, source, sharing, read_only, attributes } => {
                let kind = MountKind::Cache {
                    custom_id: id != default_cache_id(&target),
                    id: self.cache_id(id),
                    sharing: cache_sharing(sharing),
                    from: from.map_or(Ok(Input::Scratch), |from| self.mount_from(&from, &target, inputs))?,
                    source: paths::clean(&source),
                    mode: attributes.mode,
                    uid: attributes.uid.unwrap_or(0),
                    gid: attributes.gid.unwrap_or(0),
                };
                self.push(mounts, &target, kind, read_only)
            }
            MountFlag::Tmpfs { target, size_bytes } => {
                self.push(mounts, &target, MountKind::Tmpfs { size_bytes }, false)
            }
            MountFlag::Secret { id, target, env, required, attributes } => {
                if let Some(name) = env {
                    mounts.secret_env.push(SecretEnv { id: id.clone(), name, required });
                }
                let Some(target) = target else { return Ok(()) };
                let (mode, uid, gid) = file_attributes(attributes, SECRET_MODE);
                self.push(mounts, &target, MountKind::Secret { id, mode, uid, gid, required }, true)
            }
            MountFlag::Ssh { id, target, required, attributes } => {
                let target =
                    target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{}", mounts.ssh_count));
                mounts.ssh_count += 1;
                let (mode, uid, gid) = file_attributes(attributes, SOCKET_MODE);
                self.push(mounts, &target, MountKind::Ssh { id, mode, uid, gid, required }, true)?;
                let socket = mounts.list.last().map(|mount| mount.target.clone());
                mounts.ssh_socket = mounts.ssh_socket.take().or(socket);
                Ok(())
            }
        }
    }

    fn push(
        &self,
        mounts: &mut Mounts,
        target: &str,
        kind: MountKind,
        read_only: bool,
    ) -> Result<(), Problem> {
        let target = mounts::target_in(self.state.workdir(), target)?;
        mounts.list.push(ExecMount { target, kind, read_only });
        Ok(())
    }

    /// M4: the id within the name space that the command line chose.
    fn cache_id(&self, id: String) -> String {
        match self.shared.arguments.build("BUILDKIT_CACHE_MOUNT_NS") {
            Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
            _ => id,
        }
    }

    /// The files of a stage, a context or an image.
    fn mount_from(&mut self, from: &str, target: &str, inputs: &mut Inputs) -> Result<Input, Problem> {
        let files = match plan::stage_of(self.shared.dockerfile, from, self.index) {
            Some(stage) => self.shared.finished(stage).ok_or_else(|| Problem::MountFromLater {
                from: from.to_owned(),
                target: target.to_owned(),
            })?,
            None => self.shared.external(from)?,
        };
        Ok(inputs.add(files))
    }
}

fn cache_sharing(sharing: Sharing) -> CacheSharing {
    match sharing {
        Sharing::Shared => CacheSharing::Shared,
        Sharing::Private => CacheSharing::Private,
        Sharing::Locked => CacheSharing::Locked,
    }
}

/// Mode, owner and group of a file that a mount makes.
fn file_attributes(attributes: Attributes, default_mode: u32) -> (u32, u32, u32) {
    (attributes.mode.unwrap_or(default_mode), attributes.uid.unwrap_or(0), attributes.gid.unwrap_or(0))
}

/// The id of a cache that was given none: the clean target.
fn default_cache_id(target: &str) -> String {
    let clean = paths::clean(target);
    if target.starts_with('/') { clean } else { clean.trim_start_matches('/').to_owned() }
}
