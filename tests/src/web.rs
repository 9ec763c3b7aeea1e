//! A web server of the test's own: answers from a table, remembers what it was asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What is answered at one path.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200 with these headers; 304 if the request's `If-None-Match` or `If-Modified-Since` is one of them.
    File {
        /// The body.
        body: Vec<u8>,
        /// Names and values.
        headers: Vec<(&'static str, String)>,
    },
    /// 200 for whoever shows something, else 401 and the wish for a user and a password.
    Guarded {
        /// The body.
        body: Vec<u8>,
        /// Names and values.
        headers: Vec<(&'static str, String)>,
    },
    /// A redirect.
    Redirect(String),
    /// A status without a body.
    Status(u16),
    /// Headers of an answer whose body never comes.
    Silence,
}

/// A server on the loopback that lives as long as the value.
pub struct Web {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    folder: Mutex<Option<PathBuf>>,
    log: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Web {
    /// Starts a server that knows nothing yet.
    ///
    /// # Panics
    /// Without a loopback.
    #[track_caller]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
        let address = listener.local_addr().expect("it has an address").to_string();
        let shared = Arc::<Shared>::default();
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = served.clone();
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers a path from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        locked(&self.shared.answers).insert(path.to_owned(), answer);
    }

    /// Answers a path with a file.
    pub fn file(&self, path: &str, body: impl AsRef<[u8]>, headers: &[(&'static str, &str)]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.answer(path, Answer::File { body: body.as_ref().to_vec(), headers });
    }

    /// Answers every other path with the file of that name in a directory.
    pub fn folder(&self, folder: impl Into<PathBuf>) {
        *locked(&self.shared.folder) = Some(folder.into());
    }

    /// What was asked and answered since the last time, as `GET /path 200`, and what was shown with it: `GET /path 200
    /// Bearer x`.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.log))
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut conditions = Vec::new();
    let mut shown = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("if-none-match") || name.eq_ignore_ascii_case("if-modified-since") {
            conditions.push(value.trim().to_owned());
        }
        if name.eq_ignore_ascii_case("authorization") {
            shown = format!(" {}", value.trim());
        }
    }
    let target = request.split(' ').nth(1).unwrap_or("/").to_owned();
    let answer = locked(&shared.answers).get(&target).cloned().or_else(|| from_folder(shared, &target));
    let mut out = stream;
    let answer = match answer.unwrap_or(Answer::Status(404)) {
        Answer::Guarded { .. } if shown.is_empty() => {
            let challenge = "WWW-Authenticate: Basic realm=\"x\"";
            write!(out, "HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 0\r\n{challenge}\r\n\r\n")?;
            locked(&shared.log).push(format!("GET {target} 401"));
            return Ok(());
        }
        Answer::Guarded { body, headers } => Answer::File { body, headers },
        other => other,
    };
    let status = match answer {
        Answer::File { headers, .. } if headers.iter().any(|(_, value)| conditions.contains(value)) => {
            write!(out, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n")?;
            304
        }
        Answer::File { body, headers } => {
            write!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
            for (name, value) in headers {
                write!(out, "{name}: {value}\r\n")?;
            }
            out.write_all(b"\r\n")?;
            out.write_all(&body)?;
            200
        }
        Answer::Guarded { .. } => unreachable!("became a file above"),
        Answer::Redirect(to) => {
            write!(
                out,
                "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n"
            )?;
            302
        }
        Answer::Status(status) => {
            write!(out, "HTTP/1.1 {status} Whatever\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
            status
        }
        Answer::Silence => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")?;
            locked(&shared.log).push(format!("GET {target} silence"));
            // until the client gives up
            let mut rest = String::new();
            reader.read_line(&mut rest)?;
            return Ok(());
        }
    };
    locked(&shared.log).push(format!("GET {target} {status}{shown}"));
    Ok(())
}

fn from_folder(shared: &Shared, target: &str) -> Option<Answer> {
    let folder = locked(&shared.folder).clone()?;
    let path = target.split('?').next().unwrap_or_default();
    let body = std::fs::read(folder.join(path.trim_start_matches('/'))).ok()?;
    Some(Answer::File { body, headers: Vec::new() })
}
