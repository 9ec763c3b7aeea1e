//! The mica binary as a user runs it.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::output::Output;
use crate::{TempDir, User, temp_dir};

/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The binary with a store, a home and a configuration of its own, all gone when dropped.
pub struct Mica {
    binary: PathBuf,
    directory: TempDir,
    root: PathBuf,
    working_directory: PathBuf,
    user: Option<User>,
    environment: Vec<(OsString, OsString)>,
}

impl Mica {
    /// The binary with an empty store, run as the user who runs the test.
    ///
    /// # Panics
    /// If the binary has not been built.
    #[track_caller]
    pub fn new() -> Self {
        let directory = temp_dir();
        for name in ["home", "work", "run"] {
            std::fs::create_dir(directory.path().join(name)).expect("an empty directory");
        }
        let [working_directory, root] = ["work", "root"].map(|name| directory.path().join(name));
        Self { binary: binary(), directory, root, working_directory, user: None, environment: Vec::new() }
    }

    /// The same as another user; the test has to run as root.
    ///
    /// # Panics
    /// If the test may not give files away.
    #[track_caller]
    pub fn as_user(user: &User) -> Self {
        let mut mica = Self::new();
        let directory = mica.directory.path();
        let own = ["home", "work", "run"].map(|name| directory.join(name));
        for path in own.iter().map(PathBuf::as_path).chain([directory]) {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).expect("root may give files away");
        }
        // Built below a home that others may not enter, the binary itself has to move. Another program
        // copies it: were it open for writing here, a child forked by another test meanwhile would have
        // it open too, and it could not be started (ETXTBSY).
        let copy = directory.join("mica");
        let copied = Command::new("cp").arg(&mica.binary).arg(&copy).status();
        assert!(copied.is_ok_and(|status| status.success()), "room for a copy of the binary");
        mica.binary = copy;
        mica.user = Some(user.clone());
        mica
    }

    /// Sets a variable for all commands.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Puts the store elsewhere, for example on a disk of its own.
    #[must_use]
    pub fn root_at(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        self
    }

    /// Another process's view: same binary and store, other working directory.
    #[must_use]
    pub fn working_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.working_directory = path.into();
        self
    }

    /// Where the store is (`MICA_ROOT`); it exists after the first command.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// An empty directory of the user's, the default working directory.
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Writes a file below [`Mica::work`], its directories too, owned by the user.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let file = self.work().join(path);
        let folder = file.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("the folder");
        std::fs::write(&file, bytes).expect("the file");
        if let Some(user) = &self.user {
            for path in file.ancestors().take_while(|path| *path != self.directory.path()) {
                std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                    .expect("root may give files away");
            }
        }
        file
    }

    /// A command that has not been started: no input, a small environment, its own process group.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command_under(&[], arguments)
    }

    /// The same, started by another program with arguments of its own: strace, prlimit.
    pub fn command_under<S: AsRef<OsStr>>(
        &self,
        wrapper: &[&str],
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        match wrapper {
            [] => self.command_of(&self.binary, arguments),
            [program, options @ ..] => {
                let options = options.iter().map(OsString::from).chain([self.binary.clone().into()]);
                let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
                self.command_of(Path::new(program), options.chain(arguments))
            }
        }
    }

    fn command_of<S: AsRef<OsStr>>(&self, program: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        let directory = self.directory.path();
        command
            .args(arguments)
            .current_dir(&self.working_directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", directory.join("home"))
            .env("DOCKER_CONFIG", directory.join("home/.docker"))
            .env("XDG_RUNTIME_DIR", directory.join("run"))
            .env("MICA_ROOT", self.root())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(user) = &self.user {
            command.env("USER", &user.name).uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.spawn(arguments).wait()
    }

    /// Runs another program to its end, as the user and in the environment that mica gets: one that starts mica.
    #[track_caller]
    pub fn run_program<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Output {
        Running::start(&mut self.command_of(program, arguments), None).wait()
    }

    /// Runs a command that reads `input`.
    #[track_caller]
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: impl Into<Vec<u8>>,
    ) -> Output {
        let mut command = self.command(arguments);
        Running::start(command.stdin(Stdio::piped()), Some(input.into())).wait()
    }

    /// Runs a command, started by another program, to its end.
    #[track_caller]
    pub fn run_under<S: AsRef<OsStr>>(
        &self,
        wrapper: &[&str],
        arguments: impl IntoIterator<Item = S>,
    ) -> Output {
        Running::start(&mut self.command_under(wrapper, arguments), None).wait()
    }

    /// Starts a command.
    #[track_caller]
    pub fn spawn<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        Running::start(&mut self.command(arguments), None)
    }
}

impl Default for Mica {
    fn default() -> Self {
        Self::new()
    }
}

/// `MICA_BIN`, or `mica` in the folder of the profile the test was built with.
#[track_caller]
fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("MICA_BIN") {
        return binary.into();
    }
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe().expect("a test is a file");
    let profile = test.ancestors().nth(2).expect("a test is in <profile>/deps");
    let binary = profile.join("mica");
    assert!(binary.exists(), "no {}: `cargo build -p mica` first, or set MICA_BIN", binary.display());
    binary
}

/// A command that has been started; killed with its whole process group if dropped.
pub struct Running {
    child: Child,
    command: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    finished: bool,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command, input: Option<Vec<u8>>) -> Self {
        let shown = shown(command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{shown}` does not start: {error}"));
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A command may end without having read everything.
            std::thread::spawn(move || stdin.write_all(&input).ok());
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Self { child, command: shown, stdout, stderr, finished: false }
    }

    /// The process's ID, which is its group's too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(self.pid(), signal);
    }

    /// Kills the process group, as a power cut would, and waits.
    #[track_caller]
    pub fn kill(mut self) -> Output {
        self.kill_group();
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If that takes more than five minutes.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let started = Instant::now();
        let mut pause = Duration::from_micros(200);
        while self.is_running() {
            if started.elapsed() > PATIENCE {
                self.kill_group();
                let output = self.finish();
                panic!("`{}` hangs\n{}{}", output.command, output.stdout_text(), output.stderr_text());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        self.finish()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn kill_group(&self) {
        // The group may have ended meanwhile.
        let _ = kill_process_group(self.pid(), Signal::KILL);
    }

    #[track_caller]
    fn finish(&mut self) -> Output {
        let status = self.child.wait().expect("our own child");
        self.finished = true;
        let join = |reader: Option<JoinHandle<Vec<u8>>>| {
            reader.map(|reader| reader.join().expect("a reader does not panic")).unwrap_or_default()
        };
        let (stdout, stderr) = (join(self.stdout.take()), join(self.stderr.take()));
        Output { status, stdout, stderr, command: self.command.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            self.kill_group();
            // Nothing can be done about a child that cannot be waited for.
            let _ = self.child.wait();
        }
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what the test gets to see.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(command.process_group(0), None)
    }

    #[test]
    fn status_and_both_streams_are_kept() {
        let output = shell("echo out; echo err >&2; exit 3").wait().exits(3).complains("err");
        assert_eq!(output.line(), "out");
    }

    #[test]
    fn a_kill_takes_the_whole_group() {
        let running = shell("sleep 100 & echo started; wait");
        std::thread::sleep(Duration::from_millis(100));
        // Returns only when the background process, which holds the pipe too, is gone.
        let output = running.kill();
        assert_eq!((output.code(), output.line().as_str()), (137, "started"));
    }
}
