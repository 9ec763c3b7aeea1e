//! Registries that a test serves itself, and what is pushed to them.

mod content;
mod http;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mica_testkit::{Mica, TempDir, peer, temp_dir};
use rustix::process::{Pid, Signal, kill_process};

pub use self::content::{Image, digest, location, sha512, with};
pub use self::http::{Ask, Reply, read_reply};

use crate::until;

/// A registry on a free port of the loopback; killed when dropped.
pub struct Registry {
    child: Child,
    address: String,
    folder: Folder,
    options: Vec<String>,
}

/// Where a registry keeps its data, its configuration and its log.
struct Folder {
    mica: Mica,
    own: TempDir,
    data: PathBuf,
}

impl Registry {
    /// `mica registry serve` with an empty folder.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn mica(options: &[&str]) -> Self {
        let own = temp_dir();
        let data = own.path().join("data");
        Self::mica_at(own, data, options)
    }

    /// The same with its data elsewhere: on a disk of its own.
    #[track_caller]
    pub fn mica_on(data: &Path, options: &[&str]) -> Self {
        Self::mica_at(temp_dir(), data.to_owned(), options)
    }

    #[track_caller]
    fn mica_at(own: TempDir, data: PathBuf, options: &[&str]) -> Self {
        let folder = Folder { mica: Mica::new(), own, data };
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (child, address) = serve(&folder, "127.0.0.1:0", &options);
        Self { child, address, folder, options }
    }

    /// The reference registry with deletions on; `None`, and a skip, if it is not there.
    #[track_caller]
    pub fn distribution() -> Option<Self> {
        let program = peer::need("registry")?;
        let own = temp_dir();
        let data = own.path().join("data");
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let config = own.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n",
            data.display()
        );
        std::fs::write(&config, text).expect("a configuration");
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let registry =
            Self { child, address, folder: Folder { mica: Mica::new(), own, data }, options: Vec::new() };
        until("the registry answers", || std::net::TcpStream::connect(&registry.address).is_ok());
        Some(registry)
    }

    /// `127.0.0.1:<port>`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder it serves.
    pub fn data(&self) -> &Path {
        &self.folder.data
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.own.path().join("log")).unwrap_or_default()
    }

    /// A request to it.
    pub fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(&self.address, method, path)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and starts it again on the same port.
    #[track_caller]
    pub fn crash(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("our own child");
        self.start_again();
    }

    /// Starts it again after it has ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        let (child, address) = serve(&self.folder, &self.address, &self.options);
        (self.child, self.address) = (child, address);
    }

    /// The same with other options.
    #[track_caller]
    pub fn start_again_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self.start_again();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        // It may have ended by itself.
        let _ended = kill_process(pid, signal);
    }

    /// Waits for its end; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("our own child").code()
    }

    /// Another command on the same folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.folder.mica.command(arguments)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[track_caller]
fn serve(folder: &Folder, address: &str, options: &[String]) -> (Child, String) {
    let path = folder.own.path().join("log");
    let log = File::create(&path).expect("a log");
    let errors = log.try_clone().expect("a descriptor");
    let mut command = folder.mica.command(["registry", "serve", "--addr", address, "--data"]);
    let mut child =
        command.arg(&folder.data).args(options).stdout(log).stderr(errors).spawn().expect("mica starts");
    let mut found = None;
    until("the registry says where it is", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let ended = child.try_wait().expect("our own child");
        assert!(ended.is_none(), "the registry has ended:\n{text}");
        found = text.lines().find_map(|line| {
            let (_, rest) = line.strip_prefix("serving ")?.split_once("://")?;
            Some(rest.split([',', ' ']).next()?.to_owned())
        });
        found.is_some()
    });
    (child, found.expect("it has been found"))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    listener.local_addr().expect("it has an address").port()
}
