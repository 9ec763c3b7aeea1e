//! External OCI runtimes: `crun`, `runc`, `youki`, or any program that takes `run --bundle DIR ID`.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use mica_sys::root::{MountpointKind, Root};
use rustix::fs::FileType;

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
        // In memory: the plan's files may be secrets. Gone with our mount namespace, whatever happens to us.
        make_in_memory(&bundle).map_err(failed)?;
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
        let _ = mica_sys::mount::detach(&self.bundle);
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

/// Makes a directory that only we may enter, and whose files are never on a disk.
fn make_in_memory(directory: &Path) -> std::io::Result<()> {
    fs::create_dir(directory)?;
    let tmpfs = mica_sys::mount::tmpfs(None, 0o700)?;
    mica_sys::mount::attach_path(std::os::fd::AsFd::as_fd(&tmpfs), directory)
}

/// Runtimes make device links by path while the host is still in sight: through a link of the image they would be made
/// on the host (seen with runc 1.1.5).
fn refuse_other_than_directory(root: &Root, name: &str) -> std::io::Result<()> {
    match root.lstat(name.as_bytes()) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
        Ok(_) => {
            Err(std::io::Error::other(format!("the image has something else than a directory at /{name}")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the mountpoints the runtime would make and leave behind.
fn mountpoints(plan: &Plan) -> std::io::Result<Stubs> {
    let root = Root::open(&plan.rootfs)?;
    let mut stubs = Stubs::default();
    for name in ["proc", "dev", "sys"] {
        refuse_other_than_directory(&root, name)?;
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
