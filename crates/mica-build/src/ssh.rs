//! The agent socket of `RUN --mount=type=ssh`: a socket of this step alone, forwarded to the caller's agent.
//!
//! The step never sees the caller's own socket (security.md row 60), and the mode and owner of the mount are those
//! that the Dockerfile asks for (M6).

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often the listener looks whether the step has ended.
const POLL: Duration = Duration::from_millis(20);

/// A listening socket; ends with the step.
pub(crate) struct AgentProxy {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl AgentProxy {
    /// Listens at `path` and forwards every connection to `agent`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn listen(path: &Path, agent: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, agent) = (stop.clone(), agent.to_owned());
        let thread = thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&listener, &agent, &stopped))?;
        Ok(Self { path: path.to_owned(), stop, thread: Some(thread) })
    }
}

impl Drop for AgentProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic of the proxy must not become one of the build
            let _ = thread.join();
        }
        // the workspace goes away with the step anyway
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(listener: &UnixListener, agent: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => forward(client, agent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(POLL),
            Err(_) => return,
        }
    }
}

/// Two threads per connection; they end when either side closes.
fn forward(client: UnixStream, agent: &Path) {
    let Ok(server) = UnixStream::connect(agent) else { return };
    let (Ok(()), Ok(client_writer), Ok(server_reader)) =
        (client.set_nonblocking(false), client.try_clone(), server.try_clone())
    else {
        return;
    };
    // without a thread the connection closes, which the program inside is told
    let there = thread::Builder::new().spawn(move || pump(client, server));
    if there.is_ok() {
        let _ = thread::Builder::new().spawn(move || pump(server_reader, client_writer));
    }
}

fn pump(mut from: UnixStream, mut to: UnixStream) {
    // either side closing is the normal end of an agent connection
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
