//! The socket on which a running container's own process answers other processes.
//!
//! Only that process can do some things: it has the mounts, and in rootless mode it is in a user namespace of its own,
//! in which no other process has any rights. A connection asks one thing with one byte, and gets one byte back.
//!
//! | asks | answer |
//! |---|---|
//! | `r` | `.` and a descriptor of the root file system |
//! | `k` | `.` when SIGKILL has been sent |
//! | `p` | `.` when all processes are stopped; they go on when the connection is closed |

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mica_runtime::Running;
use mica_runtime::cgroup::Frozen;
use mica_sys::root::Root;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// Name of the socket in a container's directory.
const SOCKET: &str = "control";
/// How long the other side may take to ask; it does so at once.
const PATIENCE: Duration = Duration::from_millis(200);
const DONE: u8 = b'.';

/// What another process may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Request {
    Root = b'r',
    Kill = b'k',
    Pause = b'p',
}

/// The side of the running container.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    /// Who stopped the container; it goes on when all of them are gone.
    pauses: Vec<(UnixStream, Frozen)>,
}

impl Control {
    /// Listens in a container's directory.
    pub(super) fn listen(directory: &Path) -> io::Result<Self> {
        // Left over from a process that was killed.
        let _ = std::fs::remove_file(directory.join(SOCKET));
        let (_open, path) = short_path(directory)?;
        let listener = UnixListener::bind(&path)?;
        // The directory is ours alone; a socket says so for itself.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, pauses: Vec::new() })
    }

    /// What to poll for input.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd())
            .chain(self.pauses.iter().map(|(connection, _)| connection.as_fd()))
    }

    /// Does what has been asked for. What goes wrong is the other side's to notice.
    pub(super) fn serve(&mut self, running: &Running, root: &Root) {
        self.pauses.retain(|(connection, _)| !is_closed(connection));
        while let Ok((connection, _)) = self.listener.accept() {
            // The other side sees a closed connection if this fails.
            let _ = self.answer(connection, running, root);
        }
    }

    fn answer(&mut self, mut connection: UnixStream, running: &Running, root: &Root) -> io::Result<()> {
        connection.set_nonblocking(false)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        match byte[0] {
            byte if byte == Request::Root as u8 => send_descriptor(&connection, root.as_fd()),
            byte if byte == Request::Kill as u8 => {
                running.kill(rustix::process::Signal::KILL.as_raw())?;
                connection.write_all(&[DONE])
            }
            byte if byte == Request::Pause as u8 => {
                let frozen = running.freeze()?;
                connection.write_all(&[DONE])?;
                connection.set_nonblocking(true)?;
                self.pauses.push((connection, frozen));
                Ok(())
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// The other side says nothing more, so whatever can be read is its end.
fn is_closed(mut connection: &UnixStream) -> bool {
    !matches!(connection.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A container's socket by a path that is short enough for a socket address, however deep the store is.
fn short_path(directory: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let open = std::fs::File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()));
    Ok((open, path))
}

fn ask(directory: &Path, request: Request) -> io::Result<UnixStream> {
    let (_open, path) = short_path(directory)?;
    let mut connection = UnixStream::connect(path)?;
    connection.write_all(&[request as u8])?;
    Ok(connection)
}

/// The root file system of a running container, as its own process has it mounted.
pub(super) fn root(directory: &Path) -> io::Result<Root> {
    receive_descriptor(&ask(directory, Request::Root)?).map(Root::from_fd)
}

/// Has a running container killed.
pub(super) fn kill(directory: &Path) -> io::Result<()> {
    ask(directory, Request::Kill)?.read_exact(&mut [0])
}

/// Stops all processes of a container until the result is dropped.
pub(super) fn pause(directory: &Path) -> io::Result<UnixStream> {
    let mut connection = ask(directory, Request::Pause)?;
    connection.read_exact(&mut [0])?;
    Ok(connection)
}

fn send_descriptor(connection: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    debug_assert!(fits, "the space is for one descriptor");
    rustix::net::sendmsg(connection, &[IoSlice::new(&[DONE])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_descriptor(connection: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(connection, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)
    })?;
    let mut rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    rights.next().and_then(|mut rights| rights.next()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_goes_through_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"inside").unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        send_descriptor(&here, Root::open(directory.path()).unwrap().as_fd()).unwrap();
        let root = Root::from_fd(receive_descriptor(&there).unwrap());
        assert_eq!(root.read(b"file", 100).unwrap(), b"inside");
    }

    #[test]
    fn nobody_answers_for_a_container_that_does_not_run() {
        let directory = tempfile::tempdir().unwrap();
        assert!(root(directory.path()).is_err());
    }
}
