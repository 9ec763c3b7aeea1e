//! From what was asked for to what the runtime does.

use mica_api::{Class, Error, NetworkMode, Result};
use mica_runtime::{MountSource, Network, Plan, PlanMount, resolve_user};
use mica_snapshot::Active;

use super::spec::Spec;
use super::{environment, options};
use crate::LocalEngine;

/// How many processes a container may have unless asked otherwise.
const DEFAULT_PIDS: i64 = 2048;

/// Refuses options that make no sense, before anything is made.
///
/// # Errors
/// docker's words for the option.
pub(super) fn check(spec: &Spec) -> Result<()> {
    options::signal(&spec.process.stop_signal)?;
    options::security(&spec.security_opt)?;
    options::capabilities(&spec.cap_add, &spec.cap_drop)?;
    spec.tmpfs.iter().try_for_each(|(path, text)| options::tmpfs(path, text).map(drop))?;
    spec.ulimits.iter().try_for_each(|text| options::ulimit(text).map(drop))
}

/// The plan of a container over its mounted root file system.
///
/// # Errors
/// No such user or group in the image; a bind mount's source that cannot be made.
pub(super) fn plan(engine: &LocalEngine, id: &str, spec: &Spec, root: &Active) -> Result<Plan> {
    let security = options::security(&spec.security_opt)?;
    let mut plan = Plan::new(id, root.path(), spec.argv());
    plan.read_only = spec.read_only;
    plan.env = environment::of_process(spec);
    plan.cwd = match spec.process.working_dir.as_str() {
        "" => "/".to_owned(),
        directory => directory.to_owned(),
    };
    plan.user = resolve_user(root.root(), &spec.process.user, &spec.groups)
        .map_err(|error| Error::new(Class::Invalid, error.to_string()))?;
    plan.hostname.clone_from(&spec.hostname);
    plan.terminal = spec.terminal;
    plan.mounts = mounts(spec)?;
    plan.network = match spec.network {
        NetworkMode::None => Network::None,
        NetworkMode::Default | NetworkMode::Host => Network::Host,
    };
    plan.capabilities = options::capabilities(&spec.cap_add, &spec.cap_drop)?;
    plan.seccomp = security.seccomp;
    plan.no_new_privileges = security.no_new_privileges;
    plan.insecure = spec.privileged;
    plan.limits.pids = Some(spec.pids_limit.unwrap_or(DEFAULT_PIDS)).filter(|limit| *limit > 0);
    plan.limits.best_effort = spec.pids_limit.is_none();
    plan.hosts_file = Some(environment::hosts_file(spec));
    plan.resolv_conf = Some(environment::resolv_conf());
    if let Some(bytes) = spec.shm_bytes {
        plan.shm_size_bytes = bytes;
    }
    plan.ulimits = spec.ulimits.iter().map(|text| options::ulimit(text)).collect::<Result<_>>()?;
    plan.ids = engine.workshop.ids;
    Ok(plan)
}

/// `/etc/hostname`, then what was asked for: outer paths before inner ones, so that none hides another.
fn mounts(spec: &Spec) -> Result<Vec<PlanMount>> {
    let hostname = PlanMount {
        target: b"/etc/hostname".to_vec(),
        source: MountSource::File {
            content: format!("{}\n", spec.hostname).into_bytes(),
            mode: 0o644,
            uid: 0,
            gid: 0,
        },
        read_only: true,
        nosuid: true,
        noexec: true,
    };
    let mut mounts = vec![hostname];
    for (path, text) in &spec.tmpfs {
        mounts.push(options::tmpfs(path, text)?);
    }
    for volume in &spec.volumes {
        mounts.push(options::bind(volume)?);
    }
    mounts.sort_by_key(|mount| {
        mount.target.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).count()
    });
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use mica_api::RunRequest;

    use super::super::spec::tests::spec;
    use super::*;

    #[test]
    fn outer_mounts_come_before_inner_ones() {
        let request = RunRequest {
            tmpfs: vec![("/a/b/c".into(), String::new()), ("/a".into(), String::new())],
            ..RunRequest::default()
        };
        let targets: Vec<Vec<u8>> =
            mounts(&spec(request).unwrap()).unwrap().into_iter().map(|mount| mount.target).collect();
        assert_eq!(targets, [b"/a".to_vec(), b"/etc/hostname".to_vec(), b"/a/b/c".to_vec()]);
    }

    #[test]
    fn options_that_make_no_sense_are_refused_early() {
        let request = RunRequest { cap_add: vec!["NOPE".into()], ..RunRequest::default() };
        assert!(check(&spec(request).unwrap()).is_err());
    }
}
