//! Cache keys of operations (build.md 6.2): what is part of a key, and what deliberately is not.
//!
//! Two keys per vertex. The *definition key* is made of the definition keys of the inputs and can be computed before
//! anything runs. The *content key* has, in place of every source whose files are copied or mounted read-only, the
//! digest of just the files selected; so a step is a hit when those are the same, whatever made them (K3, K8).

use mica_oci::Digest;
use mica_solve::{CacheKey, CopyAction, ExecMount, ExecOp, FileAction, FileOp, KeyHasher, MountKind};

/// Which of the two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// From definitions alone.
    Definition,
    /// With the content of selected files.
    Content,
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Content => "content",
        }
    }
}

/// What an operation takes from one of its inputs, as part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// An empty root.
    Nothing,
    /// The whole input, by its own key.
    Whole(CacheKey),
    /// Selected files, by their content.
    Selected([u8; 32]),
}

impl Part {
    fn add(self, hasher: &mut KeyHasher) {
        match self {
            Self::Nothing => hasher.number(0),
            Self::Whole(key) => {
                hasher.number(1);
                hasher.key(&key);
            }
            Self::Selected(digest) => {
                hasher.number(2);
                hasher.bytes(&digest);
            }
        }
    }
}

/// The key of an image: the manifest of the chosen platform, so that a name that moves to the same image is a hit (K1).
pub(crate) fn image(manifest: &Digest) -> CacheKey {
    let mut hasher = KeyHasher::new("image");
    hasher.text(&manifest.to_string());
    hasher.finish()
}

/// The key of RUN; `mounts` has one part per bind or cache mount, in order (K2, K3).
pub(crate) fn exec(kind: KeyKind, op: &ExecOp, root: Part, mounts: &[Part]) -> CacheKey {
    let mut hasher = KeyHasher::new(kind.name());
    hasher.text("exec");
    root.add(&mut hasher);
    hasher.json(&(&op.args, &op.env, &op.cwd, &op.user, &op.hostname, op.network));
    hasher.json(&(op.security, &op.cgroup_parent));
    let hosts: Vec<&str> = op.extra_hosts.iter().map(|(name, _)| name.as_str()).collect();
    hasher.json(&(hosts, &op.secret_env, op.shm_bytes, &op.ulimits, &op.platform));
    let mut parts = mounts.iter();
    for mount in &op.mounts {
        mount_key(&mut hasher, mount);
        if matches!(mount.kind, MountKind::Bind { .. } | MountKind::Cache { .. }) {
            parts.next().copied().unwrap_or(Part::Nothing).add(&mut hasher);
        }
    }
    hasher.finish()
}

/// Of a cache mount only whether its id is the default one counts; of a secret the id; of agents the id (K2).
fn mount_key(hasher: &mut KeyHasher, mount: &ExecMount) {
    hasher.json(&(&mount.target, mount.read_only));
    match &mount.kind {
        MountKind::Bind { source, .. } => hasher.json(&("bind", source)),
        MountKind::Cache { custom_id, source, mode, uid, gid, .. } => {
            hasher.json(&("cache", custom_id, source, mode, uid, gid));
        }
        MountKind::Tmpfs { size_bytes } => hasher.json(&("tmpfs", size_bytes)),
        MountKind::Secret { id, mode, uid, gid, required } => {
            hasher.json(&("secret", id, mode, uid, gid, required));
        }
        MountKind::Ssh { id, mode, uid, gid, required } => {
            hasher.json(&("ssh", id, mode, uid, gid, required))
        }
    }
}

/// The key of COPY, ADD, WORKDIR; `sources` has one part per copy action, in order (K4).
pub(crate) fn file(kind: KeyKind, op: &FileOp, base: Part, sources: &[Part]) -> CacheKey {
    let mut hasher = KeyHasher::new(kind.name());
    hasher.text("file");
    base.add(&mut hasher);
    let mut parts = sources.iter();
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => {
                let part = parts.next().copied().unwrap_or(Part::Nothing);
                copy_key(&mut hasher, copy, part);
            }
            FileAction::MakeDirectory(_) | FileAction::MakeFile(_) => hasher.json(action),
        }
    }
    hasher.finish()
}

/// A selection stands for the source path itself but for its base name, which decides the name written.
fn copy_key(hasher: &mut KeyHasher, copy: &CopyAction, part: Part) {
    let source = match part {
        Part::Selected(_) if !copy.parents => base_name(&copy.source),
        _ => copy.source.as_str(),
    };
    hasher.json(&(source, copy.source.ends_with('/'), &copy.destination, &copy.owner, &copy.mode));
    hasher.json(&(copy.unpack, copy.parents, &copy.exclude, copy.link, copy.created_seconds));
    part.add(hasher);
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The key of stacked inputs.
pub(crate) fn merge(kind: KeyKind, inputs: &[Part]) -> CacheKey {
    let mut hasher = KeyHasher::new(kind.name());
    hasher.text("merge");
    for input in inputs {
        input.add(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::Platform;
    use mica_solve::{CacheSharing, Input, NetworkMode, SecurityMode};

    fn run(mounts: Vec<ExecMount>) -> ExecOp {
        ExecOp {
            root: Input::Scratch,
            args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: String::new(),
            hostname: "buildkitsandbox".into(),
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            cgroup_parent: None,
            mounts,
            extra_hosts: Vec::new(),
            secret_env: Vec::new(),
            proxy_env: Vec::new(),
            shm_bytes: None,
            ulimits: Vec::new(),
            platform: Platform::new("linux", "amd64", None),
        }
    }

    fn key(op: &ExecOp) -> CacheKey {
        exec(KeyKind::Definition, op, Part::Nothing, &[])
    }

    fn cache(id: &str, custom_id: bool, sharing: CacheSharing) -> ExecMount {
        let kind = MountKind::Cache {
            id: id.into(),
            custom_id,
            sharing,
            from: Input::Scratch,
            source: "/".into(),
            mode: None,
            uid: 0,
            gid: 0,
        };
        ExecMount { target: "/c".into(), kind, read_only: false }
    }

    #[test]
    fn proxies_and_host_addresses_are_not_in_the_key_but_host_names_are() {
        let plain = run(Vec::new());
        let proxied = ExecOp { proxy_env: vec!["http_proxy=p".into()], ..plain.clone() };
        assert_eq!(key(&plain), key(&proxied));
        let host = |name: &str, address: &str| ExecOp {
            extra_hosts: vec![(name.into(), address.into())],
            ..plain.clone()
        };
        assert_eq!(key(&host("a", "1.2.3.4")), key(&host("a", "5.6.7.8")));
        assert_ne!(key(&host("a", "1.2.3.4")), key(&host("b", "1.2.3.4")));
    }

    #[test]
    fn rights_and_the_cgroup_are_in_the_key() {
        let plain = run(Vec::new());
        assert_ne!(key(&plain), key(&ExecOp { security: SecurityMode::Insecure, ..plain.clone() }));
        assert_ne!(key(&plain), key(&ExecOp { cgroup_parent: Some("/x".into()), ..plain.clone() }));
    }

    #[test]
    fn one_custom_cache_id_is_as_good_as_another_but_not_as_the_default() {
        let custom = key(&run(vec![cache("x", true, CacheSharing::Shared)]));
        assert_eq!(custom, key(&run(vec![cache("y", true, CacheSharing::Locked)])));
        assert_ne!(custom, key(&run(vec![cache("/c", false, CacheSharing::Shared)])));
    }

    #[test]
    fn a_copy_of_equal_content_under_the_same_base_name_is_a_hit() {
        let copy = |source: &str| FileOp {
            base: Input::Scratch,
            actions: vec![FileAction::Copy(CopyAction::new(Input::Vertex(0), source, "/x"))],
        };
        let key =
            |source: &str| file(KeyKind::Content, &copy(source), Part::Nothing, &[Part::Selected([7; 32])]);
        assert_eq!(key("/a/f"), key("/b/f"));
        assert_ne!(key("/a/f"), key("/a/g"));
    }
}
