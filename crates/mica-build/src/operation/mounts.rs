//! `RUN --mount`: what each kind shows (build.md M1-M7). Everything opened here lives as long as the step.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;

use mica_api::{Class, Error, SecretValue};
use mica_oci::Digest;
use mica_runtime::{MountSource, PlanMount};
use mica_snapshot::{Active, Mounted};
use mica_solve::{CacheSharing, ExecMount, ExecOp, FileOp, Input, MountKind, SecretEnv, Vertex};
use mica_store::{CacheMount, Sharing};

use super::files::in_step;
use super::{Operations, Stacks};
use crate::fileop::{self, FileOptions, SourceTree};
use crate::lookup::{input_vertex, local_name, mounted};
use crate::ssh::AgentProxy;

/// The most bytes a secret may have (M5).
const SECRET_LIMIT_BYTES: u64 = 500 << 10;

/// Mode of a cache mount's directory that was given none (M4).
const CACHE_MODE: u32 = 0o755;

/// What the mounts of one step keep open. Fields are dropped when the step has ended.
#[derive(Default)]
pub(super) struct StepMounts {
    /// For the plan, parents before what is below them, else in listing order.
    pub(super) mounts: Vec<PlanMount>,
    /// `NAME=value` of secrets given as variables, and SSH_AUTH_SOCK.
    pub(super) env: Vec<String>,
    views: Vec<Mounted>,
    throw_away: Vec<Active>,
    caches: Vec<CacheMount>,
    agents: Vec<AgentProxy>,
}

impl Operations<'_> {
    /// Opens all mounts of a step. `locked` cache mounts are taken last, sorted by id, so that two steps cannot wait for
    /// each other.
    pub(super) fn open_mounts(
        &self,
        vertex: &Vertex,
        op: &ExecOp,
        stacks: &Stacks<'_>,
    ) -> Result<StepMounts, Error> {
        let mut opened = StepMounts::default();
        let mut slots: Vec<Option<PlanMount>> = vec![None; op.mounts.len()];
        let mut order: Vec<usize> = (0..op.mounts.len()).collect();
        order.sort_by_key(|index| lock_order(&op.mounts[*index]));
        for index in order {
            slots[index] = self.open_mount(vertex, &op.mounts[index], stacks, &mut opened)?;
        }
        opened.mounts = slots.into_iter().flatten().collect();
        // A mount over the parent of another one would hide it (M7).
        let depth = |path: &[u8]| path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count();
        opened.mounts.sort_by_key(|mount| depth(&mount.target));
        for secret in &op.secret_env {
            opened.env.push(self.secret_variable(secret)?);
        }
        Ok(opened)
    }

    fn open_mount(
        &self,
        vertex: &Vertex,
        mount: &ExecMount,
        stacks: &Stacks<'_>,
        opened: &mut StepMounts,
    ) -> Result<Option<PlanMount>, Error> {
        let source = match &mount.kind {
            MountKind::Bind { from, source } => self.bind(vertex, mount, (*from, source), stacks, opened)?,
            MountKind::Cache { .. } => self.cache(vertex, &mount.kind, stacks, opened)?,
            MountKind::Tmpfs { size_bytes } => MountSource::Tmpfs { size_bytes: *size_bytes, mode: None },
            MountKind::Secret { id, mode, uid, gid, required } => match self.secret(id, *required)? {
                Some(content) => MountSource::File { content, mode: *mode, uid: *uid, gid: *gid },
                None => return Ok(None),
            },
            MountKind::Ssh { id, mode, required, .. } => {
                opened.env_agent(&mount.target);
                match self.agent(id, *mode, *required, opened)? {
                    Some(host) => MountSource::Bind { host, sub: None, recursive: false },
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(PlanMount {
            target: mount.target.clone().into_bytes(),
            source,
            read_only: mount.read_only,
            nosuid: matches!(mount.kind, MountKind::Secret { .. }),
            noexec: false,
        }))
    }

    /// M3: read-only as it is; writable as a copy that is thrown away.
    fn bind(
        &self,
        vertex: &Vertex,
        mount: &ExecMount,
        (from, source): (Input, &str),
        stacks: &Stacks<'_>,
        opened: &mut StepMounts,
    ) -> Result<MountSource, Error> {
        let sub = Some(source.trim_start_matches('/').as_bytes().to_vec()).filter(|path| !path.is_empty());
        let workspace = self.workspace()?;
        if let Some(name) = local_name(self.graph, vertex, from) {
            let host = self.copy_of_context(name, source, &workspace)?;
            return Ok(MountSource::Bind { host, sub: None, recursive: false });
        }
        let dirs = self.directories(&self.stack(vertex, from, stacks)?)?;
        let host = if mount.read_only {
            let view = self.workshop.driver.view(&workspace, &dirs)?;
            let host = view.path().to_owned();
            opened.views.push(view);
            host
        } else {
            let active = self.workshop.driver.prepare(&workspace, &dirs)?;
            let host = active.path().to_owned();
            opened.throw_away.push(active);
            host
        };
        Ok(MountSource::Bind { host, sub, recursive: false })
    }

    /// The selected part of a local context as files of the step's own: what `.dockerignore` excludes must not show, and
    /// the step must not write to the user's directory.
    fn copy_of_context(
        &self,
        name: &str,
        source: &str,
        workspace: &std::path::Path,
    ) -> Result<PathBuf, Error> {
        let context = self.contexts.get(name).expect("the frontend names only contexts it was told of");
        let directory = workspace.join("context");
        DirBuilder::new().mode(0o755).create(&directory).map_err(|error| refused(&directory, &error))?;
        let root = mica_sys::root::Root::open(&directory).map_err(|error| refused(&directory, &error))?;
        let mut action = mounted(Input::Vertex(0), source);
        action.destination = "/mounted".to_owned();
        let op = FileOp { base: Input::Scratch, actions: vec![mica_solve::FileAction::Copy(action)] };
        let options = FileOptions::new(self.workshop.is_single_id(), self.cancel);
        fileop::run(&op, &root, &|_| SourceTree::local(context, name), &options)
            .map_err(|error| in_step(&error))?;
        Ok(directory.join("mounted"))
    }

    /// M4: a directory of the store, filled on creation. What begins differently is another cache, also by the same id.
    fn cache(
        &self,
        vertex: &Vertex,
        kind: &MountKind,
        stacks: &Stacks<'_>,
        opened: &mut StepMounts,
    ) -> Result<MountSource, Error> {
        let MountKind::Cache { id, sharing, from, source, mode, uid, gid, .. } = kind else {
            return Err(Error::new(Class::Internal, "not a cache mount"));
        };
        let sharing = match sharing {
            CacheSharing::Shared => Sharing::Shared,
            CacheSharing::Private => Sharing::Private,
            CacheSharing::Locked => Sharing::Locked,
        };
        let cancelled = || self.cancel.is_cancelled();
        let mut id = id.clone();
        if input_vertex(vertex, *from).is_some() {
            id = format!("{id} from {}", self.origin(vertex, (*from, source), stacks)?);
        }
        if (*mode, *uid, *gid) != (None, 0, 0) {
            id = format!("{id} of {uid}:{gid} {:o}", mode.unwrap_or(CACHE_MODE));
        }
        let mount = self.workshop.store.cache_mount(&id, sharing, &cancelled)?;
        if mount.is_new() {
            self.fill_cache(vertex, (*from, source), mount.path(), stacks)?;
            let mode = Permissions::from_mode(mode.unwrap_or(CACHE_MODE));
            std::fs::set_permissions(mount.path(), mode).map_err(|error| refused(mount.path(), &error))?;
            if !self.workshop.is_single_id() {
                std::os::unix::fs::chown(mount.path(), Some(*uid), Some(*gid))
                    .map_err(|error| refused(mount.path(), &error))?;
            }
        }
        let host = mount.path().to_owned();
        opened.caches.push(mount);
        Ok(MountSource::Bind { host, sub: None, recursive: false })
    }

    /// What tells initial contents of cache mounts apart: the context's name, or the layers, and the path in them.
    fn origin(
        &self,
        vertex: &Vertex,
        (from, source): (Input, &str),
        stacks: &Stacks<'_>,
    ) -> Result<String, Error> {
        if let Some(name) = local_name(self.graph, vertex, from) {
            return Ok(format!("{name}:{source}"));
        }
        let mut layers = String::new();
        for layer in self.stack(vertex, from, stacks)? {
            if let Some(record) = self.workshop.store.layer(layer.stored()?)? {
                layers.push_str(&record.diff_id.to_string());
            }
        }
        Ok(format!("{}:{source}", Digest::of(layers.as_bytes())))
    }

    /// Copies the initial content of a cache mount.
    fn fill_cache(
        &self,
        vertex: &Vertex,
        (from, source): (Input, &str),
        directory: &std::path::Path,
        stacks: &Stacks<'_>,
    ) -> Result<(), Error> {
        if input_vertex(vertex, from).is_none() {
            return Ok(());
        }
        let root = mica_sys::root::Root::open(directory).map_err(|error| refused(directory, &error))?;
        let mut action = mounted(from, source);
        "/".clone_into(&mut action.destination);
        let op = FileOp { base: Input::Scratch, actions: vec![mica_solve::FileAction::Copy(action)] };
        let options = FileOptions::new(self.workshop.is_single_id(), self.cancel);
        let outcome = match local_name(self.graph, vertex, from) {
            Some(name) => {
                let context =
                    self.contexts.get(name).expect("the frontend names only contexts it was told of");
                fileop::run(&op, &root, &|_| SourceTree::local(context, name), &options)
            }
            None => {
                let view = self.view(vertex, from, stacks)?;
                let dirs = self.directories(&self.stack(vertex, from, stacks)?)?;
                let mounted = self.workshop.driver.view(&self.workspace()?, &dirs)?;
                fileop::run(&op, &root, &|_| SourceTree::snapshot(&view, mounted.root()), &options)
            }
        };
        outcome.map(|_| ()).map_err(|error| in_step(&error))
    }

    /// The value of a secret; `None` if it was not given and need not be.
    fn secret(&self, id: &str, required: bool) -> Result<Option<Vec<u8>>, Error> {
        let Some(secret) = self.secrets.iter().rfind(|secret| secret.id == id) else {
            return if required {
                Err(Error::new(Class::Build, format!("secret {id}: not found"))
                    .hint(format!("pass it with --secret id={id},src=FILE or --secret id={id},env=NAME")))
            } else {
                Ok(None)
            };
        };
        let bytes = match &secret.value {
            SecretValue::Bytes(bytes) => bytes.clone(),
            SecretValue::File(path) => std::fs::read(path).map_err(|error| {
                Error::new(Class::of_io(&error), format!("cannot read secret {id} from {}", path.display()))
                    .why(error.to_string())
            })?,
        };
        if bytes.len() as u64 > SECRET_LIMIT_BYTES {
            return Err(Error::new(Class::Build, format!("invalid secret size {}", bytes.len()))
                .why(format!("the limit is {SECRET_LIMIT_BYTES} bytes")));
        }
        Ok(Some(bytes))
    }

    fn secret_variable(&self, secret: &SecretEnv) -> Result<String, Error> {
        // One that is not there and need not be is an empty variable.
        let value = self.secret(&secret.id, secret.required)?.unwrap_or_default();
        Ok(format!("{}={}", secret.name, String::from_utf8_lossy(&value)))
    }

    /// A socket of the step's own; `None` if no agent was forwarded and none is required (M6).
    fn agent(
        &self,
        id: &str,
        mode: u32,
        required: bool,
        opened: &mut StepMounts,
    ) -> Result<Option<PathBuf>, Error> {
        let Some(agent) = self.agents.iter().rfind(|agent| agent.id == id) else {
            return if required {
                Err(Error::new(Class::Build, format!("unset ssh forward key {id}"))
                    .hint(format!("pass it with --ssh {id} (an agent must run: SSH_AUTH_SOCK)")))
            } else {
                Ok(None)
            };
        };
        let path = self.workspace()?.join("agent");
        let proxy = AgentProxy::listen(&path, &agent.socket).map_err(|error| refused(&path, &error))?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(|error| refused(&path, &error))?;
        opened.agents.push(proxy);
        Ok(Some(path))
    }
}

impl StepMounts {
    /// The first agent mount is the one that programs find (M6).
    fn env_agent(&mut self, target: &str) {
        if !self.env.iter().any(|entry| entry.starts_with("SSH_AUTH_SOCK=")) {
            self.env.push(format!("SSH_AUTH_SOCK={target}"));
        }
    }
}

/// Everything else first, then locked caches by id.
fn lock_order(mount: &ExecMount) -> (bool, String) {
    match &mount.kind {
        MountKind::Cache { id, sharing: CacheSharing::Locked, .. } => (true, id.clone()),
        _ => (false, String::new()),
    }
}

fn refused(path: &std::path::Path, error: &std::io::Error) -> Error {
    Error::new(Class::of_io(error), format!("cannot prepare {}", path.display())).why(error.to_string())
}
