//! HTTP/1.1 by hand, so that requests can be as wrong as a test wants them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    address: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status; 0 if there was no answer.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Ask {
    pub(super) fn new(address: &str, method: &str, path: &str) -> Self {
        let (address, method, path) = (address.to_owned(), method.to_owned(), path.to_owned());
        Self { address, method, path, headers: Vec::new(), body: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The body, with its length.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Some(bytes.into());
        self
    }

    /// Sends it on a connection of its own and reads the answer.
    ///
    /// # Panics
    /// If nobody listens.
    #[track_caller]
    pub fn send(&self) -> Reply {
        let mut stream = self.connect();
        // A server that refuses early does not read everything.
        let _refused = stream
            .write_all(&self.head())
            .and_then(|()| stream.write_all(self.body.as_deref().unwrap_or_default()));
        read_reply(&stream, self.method == "HEAD")
    }

    /// Connects without sending anything.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the registry listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    /// The head as it is sent.
    pub fn head(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.path, self.address);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
            text.push_str("Connection: close\r\n");
        }
        let sized = self.headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        let length = self.body.as_ref().map(Vec::len).or((self.method != "GET").then_some(0));
        if let Some(length) = length.filter(|_| !sized) {
            text.push_str(&format!("Content-Length: {length}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Reads one answer; status 0 if the connection ends before it.
pub fn read_reply(stream: &TcpStream, is_head: bool) -> Reply {
    let mut reader = BufReader::new(stream);
    let mut reply = Reply { status: 0, headers: Vec::new(), body: Vec::new() };
    let mut line = String::new();
    loop {
        line.clear();
        if !matches!(reader.read_line(&mut line), Ok(length) if length > 0) {
            return reply;
        }
        let text = line.trim_end();
        if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
            reply.status = rest.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        } else if let Some((name, value)) = text.split_once(':') {
            reply.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        } else if text.is_empty() && reply.status == 100 {
            reply = Reply { status: 0, headers: Vec::new(), body: Vec::new() };
        } else if text.is_empty() {
            break;
        }
    }
    if is_head || matches!(reply.status, 204 | 304) {
        return reply;
    }
    let length = reply.get("content-length").and_then(|text| text.parse::<u64>().ok());
    let chunked = reply.get("transfer-encoding").is_some();
    let read = match length {
        Some(length) => reader.take(length).read_to_end(&mut reply.body),
        None if chunked => Ok(read_chunks(&mut reader, &mut reply.body)),
        None => reader.read_to_end(&mut reply.body),
    };
    // What was cut shows in the length of the body.
    let _cut = read;
    reply
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> usize {
    loop {
        let mut line = String::new();
        let length = match reader.read_line(&mut line) {
            Ok(_) => u64::from_str_radix(line.trim(), 16).unwrap_or(0),
            Err(_) => 0,
        };
        if length == 0 {
            return body.len();
        }
        let mut chunk = Vec::new();
        if reader.take(length + 2).read_to_end(&mut chunk).is_err() {
            return body.len();
        }
        chunk.truncate(usize::try_from(length).unwrap_or_default());
        body.extend(chunk);
    }
}

impl Reply {
    /// A header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, or null.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The first code of an error.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Demands a status.
    ///
    /// # Panics
    /// With the whole answer.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }
}
