//! Component by component look-up, for kernels without `openat2` and for [`super::Root::resolve`].
//!
//! Each component is opened `O_PATH | O_NOFOLLOW` relative to the descriptor of the one before. The
//! descriptors of all ancestors stay open, so `..` goes to the directory we came from and not to
//! where a rename has moved it.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Links followed before a look-up is taken for a loop; the kernel's own number.
const MAX_LINKS: u32 = 40;

/// What a walk does with a component that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The walk fails with `ENOENT`.
    Fail,
    /// A directory with this mode is made.
    CreateDirectory(u32),
}

/// Called before something missing is made, with its parent, its name and its path in the root.
pub type Observer<'a> = &'a mut dyn FnMut(BorrowedFd<'_>, &[u8], &[u8]) -> io::Result<()>;

/// Where a walk stands.
pub(super) struct Walk<'a> {
    /// The root and below it the directories passed, with their names.
    stack: Vec<(OwnedFd, Vec<u8>)>,
    todo: VecDeque<Vec<u8>>,
    links: u32,
    /// Paths of directories made on the way, outermost first.
    pub(super) created: Vec<Vec<u8>>,
    /// The last component, if missing, is made a file instead of a directory.
    pub(super) file_at_end: bool,
    pub(super) observer: Option<Observer<'a>>,
}

impl Walk<'_> {
    pub(super) fn new(root: BorrowedFd<'_>, rel: &[u8]) -> io::Result<Self> {
        if rel.contains(&0) {
            return Err(Errno::INVAL.into());
        }
        let root = root.try_clone_to_owned()?;
        let mut walk = Self {
            stack: vec![(root, Vec::new())],
            todo: VecDeque::new(),
            links: 0,
            created: Vec::new(),
            file_at_end: false,
            observer: None,
        };
        walk.push_front(rel);
        Ok(walk)
    }

    fn push_front(&mut self, path: &[u8]) {
        for component in path.split(|&byte| byte == b'/').rev() {
            if !matches!(component, b"" | b".") {
                self.todo.push_front(component.to_vec());
            }
        }
    }

    fn current(&self) -> BorrowedFd<'_> {
        self.stack.last().expect("the root is never popped").0.as_fd()
    }

    /// Returns the path from the root to where the walk stands.
    pub(super) fn path(&self) -> Vec<u8> {
        let names: Vec<&[u8]> = self.stack[1..].iter().map(|(_, name)| name.as_slice()).collect();
        names.join(&b'/')
    }

    /// Follows a link: the rest of the way starts with its target.
    fn follow(&mut self, target: &[u8]) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.first() == Some(&b'/') {
            self.stack.truncate(1);
        }
        self.push_front(target);
        Ok(())
    }

    /// Goes through all components but the last; returns the last, or `None` if the path ended in
    /// `..` or was empty.
    fn advance(&mut self, missing: Missing) -> io::Result<Option<Vec<u8>>> {
        while let Some(name) = self.todo.pop_front() {
            if name == b".." {
                if self.stack.len() > 1 {
                    self.stack.pop();
                }
            } else if self.todo.is_empty() {
                return Ok(Some(name));
            } else {
                self.enter(name, missing)?;
            }
        }
        Ok(None)
    }

    /// Goes into one component; a link is followed, a file is `ENOTDIR` unless it is the last.
    fn enter(&mut self, name: Vec<u8>, missing: Missing) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let c_name = c_name(&name)?;
        let entry = match rustix::fs::openat(self.current(), &*c_name, flags, Mode::empty()) {
            Err(Errno::NOENT) => match missing {
                Missing::Fail => return Err(Errno::NOENT.into()),
                Missing::CreateDirectory(mode) => return self.create(name, mode),
            },
            other => other?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&entry, c"", Vec::new())?;
                self.follow(target.to_bytes())
            }
            FileType::Directory => {
                self.stack.push((entry, name));
                Ok(())
            }
            _ if self.todo.is_empty() && (missing == Missing::Fail || self.file_at_end) => {
                self.stack.push((entry, name));
                Ok(())
            }
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    fn create(&mut self, name: Vec<u8>, mode: u32) -> io::Result<()> {
        let parent = self.stack.last().expect("the root is never popped").0.try_clone()?;
        let mut path = self.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        if let Some(observer) = &mut self.observer {
            observer(parent.as_fd(), &name, &path)?;
        }
        let made = if self.todo.is_empty() && self.file_at_end {
            super::create::make_file(parent.as_fd(), &name, mode)
        } else {
            super::create::make_directory(parent.as_fd(), &name, mode)
        };
        match made {
            Ok(entry) => {
                self.stack.push((entry, name));
                self.created.push(path);
                Ok(())
            }
            // Somebody else was faster: take theirs.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.enter(name, Missing::Fail),
            Err(error) => Err(error),
        }
    }

    /// Goes to the end, the last component included.
    pub(super) fn finish(&mut self, missing: Missing) -> io::Result<()> {
        while let Some(name) = self.advance(missing)? {
            self.enter(name, missing)?;
        }
        Ok(())
    }
}

fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::Error::from(Errno::INVAL))
}

/// The component walk with the meaning of [`super::Root::open_at`].
pub(super) fn open(root: BorrowedFd<'_>, rel: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let mut walk = Walk::new(root, rel)?;
    let exclusive = flags.contains(OFlags::CREATE | OFlags::EXCL);
    let keep_link = flags.contains(OFlags::NOFOLLOW) || exclusive;
    for _ in 0..super::RACE_RETRIES {
        let Some(name) = walk.advance(Missing::Fail)? else {
            return Ok(rustix::fs::openat(walk.current(), c".", flags, mode)?);
        };
        let c_name = c_name(&name)?;
        if !keep_link {
            match rustix::fs::readlinkat(walk.current(), &*c_name, Vec::new()) {
                Ok(target) => {
                    walk.follow(target.to_bytes())?;
                    continue;
                }
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::openat(walk.current(), &*c_name, flags | OFlags::NOFOLLOW, mode) {
            // It became a link between the two calls: look again.
            Err(Errno::LOOP) if !keep_link => walk.todo.push_front(name),
            Ok(entry) if !keep_link && is_link(entry.as_fd())? => walk.todo.push_front(name),
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// `O_PATH | O_NOFOLLOW` opens links instead of failing.
fn is_link(entry: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::statat(entry, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// The component walk with the meaning of [`super::Root::resolve`].
pub(super) fn resolve(root: BorrowedFd<'_>, rel: &[u8]) -> io::Result<Vec<u8>> {
    let mut walk = Walk::new(root, rel)?;
    walk.finish(Missing::Fail)?;
    Ok(walk.path())
}
