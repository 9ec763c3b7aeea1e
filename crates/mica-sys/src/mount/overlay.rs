//! Overlay mounts, in the two ways in which kernels take their directories.
//!
//! Linux 6.8 takes lower directories one by one (`lowerdir+`). Before that they are one string of mount(2), which has to
//! fit into a page with everything else, and in which `:`, `,` and `\` mean something. So no path is written into it:
//! the directories are opened, and named `fd/<number>` relative to `/proc/thread-self`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::thread::UnshareFlags;

use super::{Context, MountAttr, MountError, detach, open_tree_clone_path};

/// What mount(2) reads of its options: a page, with the final NUL. 4096 is the smallest page there is.
const OPTIONS_BYTES: usize = 4096;

/// The directories of an overlay mount.
#[derive(Debug, Clone)]
pub struct OverlaySpec<'a> {
    /// Lower directories, topmost first; at least one.
    pub lowers: &'a [&'a Path],
    /// Upper and work directory; without them the mount is read-only.
    pub upper: Option<(&'a Path, &'a Path)>,
    /// Keep overlay's own attributes in `user.overlay.*` (needed inside a user namespace).
    pub userxattr: bool,
    /// Skip all syncing of the upper directory: its content is worthless after a crash.
    pub volatile: bool,
    /// An empty directory; [`OverlayCall::OneString`] mounts there for a moment.
    pub scratch: &'a Path,
    /// How to tell the kernel.
    pub call: OverlayCall,
}

/// How the kernel is told of the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayCall {
    /// `fsconfig(2)` with `lowerdir+`: Linux 6.8; up to 500 lower directories, which is the limit of overlayfs.
    OneByOne,
    /// `mount(2)` with one string: some 400 lower directories fit, fewer when many files are open.
    OneString,
}

impl OverlayCall {
    /// Returns the best one that this kernel has; asked once.
    pub fn supported() -> Self {
        static KNOWN: OnceLock<OverlayCall> = OnceLock::new();
        *KNOWN.get_or_init(|| {
            let Ok(context) = Context::open("overlay") else { return Self::OneByOne };
            // ENOENT: the option was understood. A newer kernel without it answers EINVAL, and one before 6.5 takes
            // any option and complains when it mounts.
            match rustix::mount::fsconfig_set_string(&context.fd, "lowerdir+", "/proc/self/fd/-1") {
                Err(Errno::NOENT) => Self::OneByOne,
                _ => Self::OneString,
            }
        })
    }
}

/// Makes a detached overlay mount.
///
/// `index`, `metacopy` and `redirect_dir` are off: the upper directory must be understandable without
/// the mount that filled it. Drop the descriptor before unmounting, or the mount is busy.
pub fn overlay(spec: &OverlaySpec<'_>) -> Result<OwnedFd, MountError> {
    match spec.call {
        OverlayCall::OneByOne => one_by_one(spec),
        OverlayCall::OneString => one_string(spec),
    }
}

/// Everything but the directories: `name=value`, or `name`.
fn options(spec: &OverlaySpec<'_>) -> Vec<&'static str> {
    let mut options = Vec::new();
    if spec.upper.is_some() {
        options.push("index=off");
        if spec.volatile {
            options.push("volatile");
        }
    }
    if spec.userxattr {
        // userxattr forbids redirect_dir and metacopy by itself, and refuses to be told so.
        options.push("userxattr");
    } else {
        options.extend(["metacopy=off", "redirect_dir=nofollow"]);
    }
    options
}

fn one_by_one(spec: &OverlaySpec<'_>) -> Result<OwnedFd, MountError> {
    let context = Context::open("overlay")?;
    context.set("source", "mica")?;
    for lower in spec.lowers {
        context.set_path("lowerdir+", lower)?;
    }
    if let Some((upper, work)) = spec.upper {
        context.set_path("upperdir", upper)?;
        context.set_path("workdir", work)?;
    }
    for option in options(spec) {
        match option.split_once('=') {
            Some((key, value)) => context.set(key, value)?,
            None => context.flag(option)?,
        }
    }
    context.mount(MountAttr::default())
}

/// On a thread of its own, because it changes the working directory.
fn one_string(spec: &OverlaySpec<'_>) -> Result<OwnedFd, MountError> {
    std::thread::scope(|scope| {
        let mounter = std::thread::Builder::new().spawn_scoped(scope, || mount_from_proc(spec));
        let mounter = mounter.map_err(|source| failed("thread", source))?;
        mounter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// mount(2) cannot make detached mounts: it mounts somewhere, and a clone of that is handed out.
fn mount_from_proc(spec: &OverlaySpec<'_>) -> Result<OwnedFd, MountError> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|error| failed(&format!("directory {}", path.display()), error.into()))
    };
    let lowers = spec.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let upper = spec.upper.map(|(upper, work)| Ok((open(upper)?, open(work)?))).transpose()?;
    let named = |fd: &OwnedFd| format!("fd/{}", fd.as_raw_fd());
    let mut text = format!("lowerdir={}", lowers.iter().map(named).collect::<Vec<_>>().join(":"));
    if let Some((upper, work)) = &upper {
        text.push_str(&format!(",upperdir={},workdir={}", named(upper), named(work)));
    }
    for option in options(spec) {
        text.push(',');
        text.push_str(option);
    }
    if text.len() >= OPTIONS_BYTES {
        return Err(MountError {
            explanation: format!(
                "{} layers do not fit into the page that Linux before 6.8 reads",
                lowers.len()
            ),
            ..failed("options", Errno::TOOBIG.into())
        });
    }
    let text = CString::new(text).map_err(|error| failed("options", error.into()))?;
    crate::namespace::unshare(UnshareFlags::FS).map_err(|source| failed("unshare", source))?;
    rustix::process::chdir(c"/proc/thread-self").map_err(|error| failed("chdir", error.into()))?;
    rustix::mount::mount(c"mica", spec.scratch, c"overlay", MountFlags::empty(), &*text)
        .map_err(|error| failed("mount", error.into()))?;
    let clone = open_tree_clone_path(spec.scratch, false).map_err(|source| failed("open_tree", source));
    detach(spec.scratch).map_err(|source| failed("unmount", source))?;
    clone
}

fn failed(step: &str, source: io::Error) -> MountError {
    MountError { file_system: "overlay".into(), step: step.into(), explanation: String::new(), source }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::mount::set_attr;
    use crate::root::Root;

    #[test]
    fn an_overlay_is_made_detached_and_read_by_descriptor() {
        for call in [OverlayCall::OneByOne, OverlayCall::OneString] {
            detached_and_read(call);
        }
    }

    fn detached_and_read(call: OverlayCall) {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIP: needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (low, high, upper, work) = (path("a:low"), path("b,high"), path("c=upper"), path("work"));
        std::fs::write(low.join("a"), "low").unwrap();
        std::fs::write(high.join("a"), "high").unwrap();
        let lowers = [high.as_path(), low.as_path()];
        let upper_and_work = Some((upper.as_path(), work.as_path()));
        let scratch = path("scratch");
        let spec = OverlaySpec {
            lowers: &lowers,
            upper: upper_and_work,
            userxattr: false,
            volatile: true,
            scratch: &scratch,
            call,
        };
        let root = Root::from_fd(overlay(&spec).unwrap());
        assert_eq!(root.read(b"a", 10).unwrap(), b"high");
        root.create_file(b"b", 0o644).unwrap();
        assert!(upper.join("b").exists());
        set_attr(root.as_fd(), MountAttr { read_only: true, ..MountAttr::default() }, false).unwrap();
        assert_eq!(root.create_file(b"c", 0o644).unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing is left mounted there");
    }

    #[test]
    fn too_many_layers_for_one_page_are_said() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("SKIP: needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let lowers = vec![directory.path(); 900];
        let spec = OverlaySpec {
            lowers: &lowers,
            upper: None,
            userxattr: false,
            volatile: true,
            scratch: directory.path(),
            call: OverlayCall::OneString,
        };
        let text = overlay(&spec).unwrap_err().to_string();
        assert_eq!(
            text,
            "cannot mount overlay: options: 900 layers do not fit into the page that Linux before 6.8 reads"
        );
    }
}
