//! The stage of the container: namespaces, mounts, cgroup; and clearing it afterwards.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use mica_sys::namespace;
use mica_sys::process::{ExecArguments, FilterInstruction};
use mica_sys::root::Root;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::mounts::Tree;
use super::{Step, StepError, kernel, mounts};
use crate::capability;
use crate::cgroup::ContainerCgroup;
use crate::plan::{DEFAULT_PATH, Ids, Network, Plan, Seccomp};
use crate::seccomp;
use crate::stubs::Stubs;

/// What is made for one container and has to be taken away again.
pub(super) struct Scene {
    /// The caller's mount namespace, to which we return.
    host_mounts: OwnedFd,
    /// Root of the container's tree, once there is one.
    pub(super) root: Option<Root>,
    pub(super) stubs: Stubs,
    pub(super) cgroup: ContainerCgroup,
    pub(super) notices: Vec<String>,
    /// See [`Plan::keeps_standard_directories`].
    pub(super) keeps_standard_directories: bool,
}

/// All that the new process needs, computed before it exists.
pub(super) struct Launch {
    pub(super) arguments: ExecArguments,
    pub(super) candidates: Vec<CString>,
    pub(super) filter: Option<Vec<FilterInstruction>>,
    pub(super) capabilities: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Option<Vec<u32>>,
    pub(super) tree: Tree,
    pub(super) terminal: Option<Terminal>,
}

/// A terminal made in the container's own devpts.
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

impl Scene {
    pub(super) fn new() -> Result<Self, StepError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let host_mounts = rustix::fs::openat(CWD, "/proc/self/ns/mnt", flags, Mode::empty())
            .step("open the caller's mount namespace")?;
        let (stubs, cgroup) = (Stubs::default(), ContainerCgroup::default());
        Ok(Self {
            host_mounts,
            root: None,
            stubs,
            cgroup,
            notices: Vec::new(),
            keeps_standard_directories: false,
        })
    }

    /// Makes all that can be made before there is a process in the new pid namespace.
    pub(super) fn build(&mut self, plan: &Plan) -> Result<Launch, StepError> {
        self.keeps_standard_directories = plan.keeps_standard_directories;
        // Whatever reads the host comes before the host is out of sight.
        let filter = filter(plan)?;
        self.cgroup = ContainerCgroup::create(&plan.id, &plan.limits, &mut self.notices);
        let mut flags =
            UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        flags.set(UnshareFlags::NEWNET, plan.network == Network::None);
        namespace::unshare(flags).step("make new namespaces")?;
        mica_sys::mount::make_private_recursive().step("make mounts private")?;
        if plan.network == Network::None {
            mica_sys::network::loopback_up().step("bring up the loopback device")?;
        }
        rustix::system::sethostname(plan.hostname.as_bytes()).step("set the host name")?;
        let (tree, terminal) = mounts::build(plan, self)?;
        self.launch(plan, filter, tree, terminal)
    }

    fn launch(
        &mut self,
        plan: &Plan,
        filter: Option<Vec<FilterInstruction>>,
        tree: Tree,
        terminal: Option<Terminal>,
    ) -> Result<Launch, StepError> {
        let arguments = ExecArguments::new(&plan.args, &environment(plan)).step("use the arguments")?;
        let held = rustix::thread::capabilities(None).step("read our capabilities")?.permitted.bits();
        let wanted = if plan.insecure { held } else { capability::mask(&plan.capabilities) };
        let (mut uid, mut gid) = (plan.user.uid, plan.user.gid);
        let mut groups = Some(plan.user.groups.clone());
        if plan.ids == crate::plan::Ids::Single {
            if (uid, gid) != (0, 0) {
                let notice = format!("there is a single id here: running as 0:0 instead of {uid}:{gid}");
                self.notices.push(notice);
            }
            // setgroups is denied in such a namespace, and there is nothing to set.
            (uid, gid, groups) = (0, 0, None);
        }
        let candidates = candidates(plan)?;
        let capabilities = wanted & held;
        Ok(Launch { arguments, candidates, filter, capabilities, uid, gid, groups, tree, terminal })
    }

    /// Takes away what was made. Failures are not the container's: it has ended as it has.
    pub(super) fn clear(&mut self) {
        if let Some(root) = self.root.take() {
            // Mountpoints are removed through this mount, and it may have been made read-only.
            let _ = mica_sys::mount::clear_read_only(root.as_fd());
        }
        // The container's mounts go with its namespace, which we are the last to leave; only then are
        // the mountpoints free.
        let returned = namespace::enter_mount_namespace(self.host_mounts.as_fd());
        if returned.is_ok() {
            self.stubs.remove();
        }
        self.cgroup.remove();
    }
}

/// Compiles the system call filter. Without one where one is asked for nothing runs.
fn filter(plan: &Plan) -> Result<Option<Vec<FilterInstruction>>, StepError> {
    if plan.insecure {
        return Ok(None);
    }
    match &plan.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(seccomp::default_filter(&plan.capabilities))),
        Seccomp::Profile(path) => {
            let step = || format!("read the seccomp profile {}", path.display());
            let text = std::fs::read(path).step(step())?;
            let filter = seccomp::profile_filter(&text, &plan.capabilities);
            filter.map(Some).map_err(|error| StepError::new(step(), error.to_string()))
        }
    }
}

/// What is left for the first process of the pid namespace: proc (which shows the namespace of whoever
/// mounts it), the working directory, which may be in it, and the change of root.
pub(super) fn complete(plan: &Plan, tree: &Tree, notices: &mut Vec<String>) -> Result<OwnedFd, StepError> {
    kernel::mount_proc(plan, tree, notices)?;
    let cwd = working_directory(&tree.root, plan)?;
    if plan.read_only {
        let attr = mica_sys::mount::MountAttr { read_only: true, ..Default::default() };
        mica_sys::mount::set_attr(tree.root.as_fd(), attr, false)
            .step("make the root file system read-only")?;
    }
    mica_sys::mount::pivot_into(tree.root.as_fd()).step("change to the root file system")?;
    Ok(cwd)
}

/// Opens the working directory without magic links: no descriptor of ours can be entered through
/// `/proc/self/fd` (CVE-2024-21626).
///
/// What is missing is made for the user of the process, as BuildKit and runc make it.
fn working_directory(root: &Root, plan: &Plan) -> Result<OwnedFd, StepError> {
    let cwd = &plan.cwd;
    let step = || format!("enter the working directory {cwd}");
    for made in root.create_dirs(cwd.as_bytes(), 0o755).step(step())? {
        if plan.ids != Ids::Single {
            root.set_owner(&made, plan.user.uid, plan.user.gid).step(step())?;
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    root.open_at(cwd.as_bytes(), flags, Mode::empty()).step(step())
}

fn environment(plan: &Plan) -> Vec<String> {
    let mut env = plan.env.clone();
    if plan.variable("HOME").is_none() {
        env.push(format!("HOME={}", plan.user.home));
    }
    if plan.terminal && plan.variable("TERM").is_none() {
        env.push("TERM=xterm".into());
    }
    env
}

/// Returns the files to try, in order: the program itself, or its name in each directory of `PATH`.
fn candidates(plan: &Plan) -> Result<Vec<CString>, StepError> {
    let Some(program) = plan.args.first() else {
        return Err(StepError::new("run an empty command", "no program is named"));
    };
    let paths: Vec<String> = if program.contains('/') || program.is_empty() {
        vec![program.clone()]
    } else {
        let directories = plan.variable("PATH").unwrap_or(DEFAULT_PATH).split(':');
        // An empty element is the working directory; unlike execvp, docker does not search it.
        directories.filter(|directory| directory.starts_with('/')).map(|d| format!("{d}/{program}")).collect()
    };
    let paths = paths.into_iter().map(CString::new).collect::<Result<_, _>>();
    paths.map_err(|error| StepError::new("use the program name", error.to_string()))
}

/// Opens the other end of a terminal from the container's devpts. It has its size before anything runs in it: a program
/// that asks once, at its start, must not be told nothing.
pub(super) fn open_terminal(pts: &Root, size: Option<(u16, u16)>) -> Result<Terminal, StepError> {
    use rustix::pty::OpenptFlags;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let master = pts.open_at(b"ptmx", flags, Mode::empty()).step("open a terminal")?;
    rustix::pty::unlockpt(&master).step("unlock the terminal")?;
    if let Some((rows, columns)) = size {
        crate::tty::resize(master.as_fd(), rows, columns).step("tell the terminal its size")?;
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    // By the master's own descriptor, never by a name (CVE-2025-52565).
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).step("open the terminal's other end")?;
    Ok(Terminal { master, slave })
}

/// Keeps a file's bytes: written through a descriptor, read by the container through a mount.
pub(super) fn write_file(root: &Root, name: &str, content: &[u8], mode: u32) -> Result<OwnedFd, StepError> {
    let step = || "write a file for the container".to_owned();
    let mut file: File = root.create_file(name.as_bytes(), mode).step(step())?;
    std::io::Write::write_all(&mut file, content).step(step())?;
    Ok(file.into())
}
