//! External OCI runtimes: `crun`, `runc`, `youki`, or any program that takes `run --bundle DIR ID`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use mica_sys::root::{MountpointKind, Root};

use crate::bundle::write_bundle;
use crate::error::RuntimeError;
use crate::plan::{MountSource, Plan};
use crate::stubs::Stubs;

/// A runtime in the foreground; it passes signals on and exits as the container does.
#[derive(Debug)]
pub(crate) struct External {
    program: PathBuf,
    child: Child,
    bundle: PathBuf,
    stubs: Stubs,
}

impl External {
    /// Starts the runtime; returns its pid, to which signals may be sent.
    pub(crate) fn start(
        plan: &Plan,
        program: &Path,
        [stdin, stdout, stderr]: [OwnedFd; 3],
    ) -> Result<(Self, i32), RuntimeError> {
        if plan.terminal {
            let text = format!("{} cannot be given a terminal by mica: leave out --tty", program.display());
            return Err(RuntimeError::Unsupported(text));
        }
        // Beside the root file system: on the same private run directory, and as short-lived.
        let bundle = plan.rootfs.with_file_name(format!("bundle-{}", plan.id));
        let failed = |source| RuntimeError::Bundle { path: bundle.clone(), source };
        write_bundle(plan, &bundle)?;
        let stubs = mountpoints(plan).map_err(failed)?;
        let child = Command::new(program)
            .arg("--root")
            .arg(bundle.join("state"))
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&plan.id)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|source| RuntimeError::External { path: program.to_owned(), source })?;
        let pid = child.id().cast_signed();
        Ok((Self { program: program.to_owned(), child, bundle, stubs }, pid))
    }

    /// Waits for the runtime and cleans up; returns the container's exit code.
    pub(crate) fn wait(&mut self) -> Result<i32, RuntimeError> {
        let status = self.child.wait();
        let status =
            status.map_err(|source| RuntimeError::External { path: self.program.clone(), source })?;
        self.clear();
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    fn clear(&mut self) {
        // Cleanup goes on whatever happens; what is left is in the run directory.
        self.stubs.remove();
        let _ = fs::remove_dir_all(&self.bundle);
    }
}

impl Drop for External {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The runtime passes no KILL on, but TERM; its container dies with it or by it.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.clear();
        }
    }
}

/// Makes the mountpoints the runtime would make and leave behind.
fn mountpoints(plan: &Plan) -> std::io::Result<Stubs> {
    let root = Root::open(&plan.rootfs)?;
    let mut stubs = Stubs::default();
    for name in ["proc", "dev", "sys"] {
        stubs.ensure(&root, name.as_bytes(), MountpointKind::Directory)?;
    }
    let files = [("etc/hosts", &plan.hosts_file), ("etc/resolv.conf", &plan.resolv_conf)];
    for (target, _) in files.iter().filter(|(_, content)| content.is_some()) {
        stubs.ensure(&root, target.as_bytes(), MountpointKind::File)?;
    }
    for mount in &plan.mounts {
        let file = match &mount.source {
            MountSource::Bind { host, sub: None, .. } => !host.is_dir(),
            MountSource::Bind { host, sub: Some(sub), .. } => Root::open(host)?.open_file(sub).is_ok(),
            MountSource::Tmpfs { .. } => false,
            MountSource::File { .. } => true,
        };
        let kind = if file { MountpointKind::File } else { MountpointKind::Directory };
        stubs.ensure(&root, &mount.target, kind)?;
    }
    Ok(stubs)
}
