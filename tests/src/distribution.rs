//! A registry of other people's making: distribution, on the loopback.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::{TempDir, peer, temp_dir};

/// Who may enter a registry with users.
pub const REGISTRY_USER: &str = "tester";
/// The password, with the character that basic authentication splits at.
pub const REGISTRY_PASSWORD: &str = "se:cret";
/// `REGISTRY_PASSWORD` by bcrypt.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuWqeDdmk0qhXLYvA33lbC9M700ynI2Oa\n";

/// A registry that lives as long as the value.
pub struct Distribution {
    process: Child,
    directory: TempDir,
    address: String,
}

impl Distribution {
    /// Starts one that everybody may use; `None`, told as a skip, if distribution is not here.
    pub fn open() -> Option<Self> {
        Self::start("")
    }

    /// Starts one that knows [`REGISTRY_USER`] alone.
    pub fn with_users() -> Option<Self> {
        Self::start("auth: {htpasswd: {realm: test, path: HTPASSWD}}\n")
    }

    fn start(more: &str) -> Option<Self> {
        let program = peer::need("registry")?;
        let directory = temp_dir();
        let folder = directory.path();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let address = format!("127.0.0.1:{port}");
        let users = folder.join("htpasswd");
        std::fs::write(&users, HTPASSWD).expect("room");
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, \
             delete: {{enabled: true}}}}\nhttp: {{addr: {address}, secret: x}}\n{}",
            folder.join("data").display(),
            more.replace("HTPASSWD", &users.display().to_string())
        );
        std::fs::write(folder.join("config.yml"), config).expect("room");
        let log = File::create(folder.join("log")).expect("room");
        let process = Command::new(program)
            .args(["serve", "config.yml"])
            .current_dir(folder)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let registry = Self { process, directory, address };
        let begun = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// A name in it: `127.0.0.1:5000/a/b:1`.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it keeps its files.
    pub fn data(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// The requests it had since the last time: `GET /v2/a/manifests/1 200`.
    pub fn requests(&self) -> Vec<String> {
        let path = self.directory.path().join("log");
        // lines are written after their answers
        std::thread::sleep(Duration::from_millis(100));
        let text = take(&path);
        text.lines().filter_map(request).collect()
    }
}

/// Reads a log and empties it; its writer appends.
fn take(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("the log");
    File::options().write(true).truncate(true).open(path).expect("the log");
    String::from_utf8_lossy(&bytes).replace('\0', "")
}

/// The request of a line in Apache's format.
fn request(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" \"")?;
    let (asked, rest) = rest.split_once("\" ")?;
    let asked = asked.strip_suffix(" HTTP/1.1")?;
    Some(format!("{asked} {}", rest.split(' ').next()?))
}

impl Drop for Distribution {
    fn drop(&mut self) {
        // one that has ended by itself failed the test already
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
