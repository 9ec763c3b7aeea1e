//! What the micro-benchmarks work on: trees, tables and texts of known size.
//!
//! `cargo bench -p mica-benches` runs them. Whole programs are measured by `cargo xtask bench`.

use mica_archive::{Entry, Kind, Table};
use mica_sys::root::Root;
use tempfile::TempDir;

/// A layer on disk.
pub struct Layer {
    /// Keeps the directory until the benchmark ends.
    pub directory: TempDir,
    /// The directory as a root.
    pub root: Root,
    /// What is in it.
    pub table: Table,
}

/// Makes a layer of so many files of so many bytes, a hundred to a directory.
///
/// # Panics
/// If the directory for temporary files takes no more.
pub fn layer(files: usize, bytes: usize) -> Layer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for number in 0..files {
        let path = directory.path().join(String::from_utf8_lossy(&path(number)).as_ref());
        std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        std::fs::write(path, content(number, bytes)).expect("a file");
    }
    let root = Root::open(directory.path()).expect("our own directory");
    Layer { root, table: table(files, bytes), directory }
}

/// The table of the layer that [`layer`] makes.
///
/// # Panics
/// Never: the paths are valid and each is there once.
pub fn table(files: usize, bytes: usize) -> Table {
    let file = Kind::File { size: bytes as u64, digest: None };
    let mut entries: Vec<Entry> =
        (0..files).map(|number| Entry::new(path(number), file.clone(), 0o644)).collect();
    entries.push(Entry::directory("tree", 0o755));
    entries
        .extend((0..files.div_ceil(100)).map(|number| Entry::directory(format!("tree/{number:05}"), 0o755)));
    Table::from_entries(entries).expect("valid paths, each once")
}

fn path(number: usize) -> Vec<u8> {
    format!("tree/{:05}/{number:07}.txt", number / 100).into_bytes()
}

/// Text that compresses about as well as programs do: words in an order without a pattern.
pub fn content(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (state >> 33) % 4096;
        out.extend_from_slice(&(word * word * word).to_le_bytes()[..5]);
        out.extend_from_slice(b"\0e ");
    }
    out.truncate(bytes);
    out
}

/// A Dockerfile of so many stages of eight instructions each.
pub fn dockerfile(stages: usize) -> String {
    let mut text = String::from("# syntax=docker/dockerfile:1\nARG VERSION=1\n");
    for stage in 0..stages {
        text.push_str(&format!(
            "FROM debian:${{VERSION}} AS stage{stage}\nENV A=\"value with ${{VERSION:-none}}\" B='x'\nWORKDIR /src\n\
             COPY --chown=1000:1000 --chmod=755 one two/ /destination/\n\
             RUN --mount=type=cache,target=/var/cache/apt apt-get update && \\\n    apt-get install -y \\\n\
             # a comment\n    build-essential\nRUN <<EOF\nset -e\nmake $A\nEOF\n\
             HEALTHCHECK --interval=5s CMD [\"curl\", \"-f\", \"http://localhost/\"]\nCMD [\"run\", \"--all\"]\n"
        ));
    }
    text
}
