//! Stopping all processes of a container for a moment (`commit --pause`, `pause`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a cgroup may take to freeze.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

/// A frozen container; thawed when dropped or by [`Frozen::thaw`].
#[derive(Debug)]
pub struct Frozen {
    means: Means,
}

#[derive(Debug)]
enum Means {
    V1(PathBuf),
    V2(PathBuf),
    /// Without a cgroup: each process was stopped by a signal.
    Signals {
        pid: i32,
    },
    Thawed,
}

/// Freezes a container by its cgroup directories, or else every process in the pid namespace of `pid`.
pub fn freeze(pid: i32, cgroups: &[PathBuf]) -> io::Result<Frozen> {
    for path in cgroups {
        if path.join("cgroup.freeze").exists() {
            let frozen = Frozen { means: Means::V2(path.clone()) };
            fs::write(path.join("cgroup.freeze"), "1")?;
            wait_until(|| Ok(fs::read_to_string(path.join("cgroup.events"))?.contains("frozen 1")))?;
            return Ok(frozen);
        }
        if path.join("freezer.state").exists() {
            let frozen = Frozen { means: Means::V1(path.clone()) };
            fs::write(path.join("freezer.state"), "FROZEN")?;
            wait_until(|| Ok(fs::read_to_string(path.join("freezer.state"))?.trim() == "FROZEN"))?;
            return Ok(frozen);
        }
    }
    let frozen = Frozen { means: Means::Signals { pid } };
    // A process stopped late may have forked meanwhile: until a round finds nobody new.
    let mut stopped = Vec::new();
    loop {
        let members = namespace_members(pid)?;
        let new: Vec<i32> = members.into_iter().filter(|member| !stopped.contains(member)).collect();
        if new.is_empty() {
            return Ok(frozen);
        }
        for member in new {
            signal(member, rustix::process::Signal::STOP)?;
            stopped.push(member);
        }
    }
}

impl Frozen {
    /// Lets the processes go on.
    pub fn thaw(mut self) -> io::Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.means, Means::Thawed) {
            Means::V1(path) => fs::write(path.join("freezer.state"), "THAWED"),
            Means::V2(path) => fs::write(path.join("cgroup.freeze"), "0"),
            Means::Signals { pid } => {
                for member in namespace_members(pid)? {
                    signal(member, rustix::process::Signal::CONT)?;
                }
                Ok(())
            }
            Means::Thawed => Ok(()),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Nobody to tell; whoever cares calls `thaw`.
        let _ = self.undo();
    }
}

fn wait_until(done: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    while !done()? {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn signal(pid: i32, signal: rustix::process::Signal) -> io::Result<()> {
    match mica_sys::process::signal(pid, signal.as_raw()) {
        // It has ended meanwhile.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Returns the processes in the pid namespace of a process.
fn namespace_members(pid: i32) -> io::Result<Vec<i32>> {
    let namespace = |pid: i32| fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/pid"));
    let wanted = namespace(pid)?;
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(member) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that is gone, or not ours to look at, is not in our container.
        if namespace(member).is_ok_and(|found| found == wanted) {
            members.push(member);
        }
    }
    Ok(members)
}
