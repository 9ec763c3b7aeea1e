//! Files for tests: a tree in memory, ELF files and library caches made to measure.

use std::collections::BTreeMap;

use crate::bytes::Endian;
use crate::files::{FileKind, FileStat, Files};
use crate::machine::Machine;

enum Content {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
}

/// A tree in memory.
pub(crate) struct MemoryFiles {
    entries: BTreeMap<Vec<u8>, (Content, FileStat)>,
}

impl MemoryFiles {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    fn put(mut self, path: &str, content: Content, kind: FileKind, mode: u32) -> Self {
        let mut at = 0;
        while let Some(slash) = path[at + 1..].find('/') {
            at += slash + 1;
            let stat = FileStat { kind: FileKind::Directory, mode: 0o755, uid: 0, gid: 0 };
            self.entries.entry(path.as_bytes()[..at].to_vec()).or_insert((Content::Directory, stat));
        }
        let stat = FileStat { kind, mode, uid: 0, gid: 0 };
        self.entries.insert(path.as_bytes().to_vec(), (content, stat));
        self
    }

    /// An executable file.
    pub(crate) fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.put(path, Content::File(bytes.to_vec()), FileKind::File, 0o755)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.put(path, Content::Link(target.as_bytes().to_vec()), FileKind::Symlink, 0o777)
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.put(path, Content::Directory, FileKind::Directory, 0o755)
    }

    pub(crate) fn mode(mut self, path: &str, mode: u32) -> Self {
        self.entries.get_mut(path.as_bytes()).unwrap().1.mode = mode;
        self
    }
}

impl Files for MemoryFiles {
    fn stat(&self, path: &[u8]) -> Option<FileStat> {
        self.entries.get(path).map(|(_, stat)| *stat)
    }

    fn link(&self, path: &[u8]) -> Option<Vec<u8>> {
        match self.entries.get(path) {
            Some((Content::Link(target), _)) => Some(target.clone()),
            _ => None,
        }
    }

    fn read(&self, path: &[u8], offset_bytes: u64, length_bytes: usize) -> Option<Vec<u8>> {
        let Some((Content::File(bytes), _)) = self.entries.get(path) else { return None };
        let from = usize::try_from(offset_bytes).ok()?.min(bytes.len());
        Some(bytes[from..from.saturating_add(length_bytes).min(bytes.len())].to_vec())
    }

    fn names(&self, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        let prefix = [path, b"/"].concat();
        let below = self.entries.keys().filter_map(|key| key.strip_prefix(&prefix[..]));
        Some(below.filter(|name| !name.contains(&b'/')).map(<[u8]>::to_vec).collect())
    }
}

/// An ELF file with just the headers that matter.
pub(crate) struct ElfFile {
    machine: Machine,
    interpreter: Option<String>,
    entries: Vec<(u64, String)>,
}

impl ElfFile {
    pub(crate) fn new(architecture: &str) -> Self {
        let machine = Machine::from_architecture(architecture).unwrap();
        Self { machine, interpreter: None, entries: Vec::new() }
    }

    pub(crate) fn interpreter(mut self, path: &str) -> Self {
        self.interpreter = Some(path.into());
        self
    }

    fn entry(mut self, tag: u64, text: &str) -> Self {
        self.entries.push((tag, text.into()));
        self
    }

    pub(crate) fn needed(self, name: &str) -> Self {
        self.entry(1, name)
    }

    pub(crate) fn soname(self, name: &str) -> Self {
        self.entry(14, name)
    }

    pub(crate) fn rpath(self, list: &str) -> Self {
        self.entry(15, list)
    }

    pub(crate) fn runpath(self, list: &str) -> Self {
        self.entry(29, list)
    }

    fn number(&self, value: u64, bytes: usize) -> Vec<u8> {
        match self.machine.endian {
            Endian::Little => value.to_le_bytes()[..bytes].to_vec(),
            Endian::Big => value.to_be_bytes()[8 - bytes..].to_vec(),
        }
    }

    /// Header, program headers, interpreter, dynamic section and strings, one after the other.
    pub(crate) fn build(&self) -> Vec<u8> {
        let wide = self.machine.bits == 64;
        let (word, header_bytes, segment_bytes) = if wide { (8, 64, 56) } else { (4, 52, 32) };
        // The strings are loaded at an address that is not their offset.
        let (base, segments) = (0x10000_u64, 3);
        let interpreter = self.interpreter.as_ref().map(|path| format!("{path}\0")).unwrap_or_default();
        let interpreter_at = header_bytes + segments * segment_bytes;
        let dynamic_at = interpreter_at + interpreter.len();
        let dynamic_bytes = (self.entries.len() + 3) * 2 * word;
        let strings_at = dynamic_at + dynamic_bytes;
        let mut strings = vec![0];
        let mut dynamic = Vec::new();
        let mut pair = |tag: u64, value: u64| {
            dynamic.extend([self.number(tag, word), self.number(value, word)].concat());
        };
        for (tag, text) in &self.entries {
            pair(*tag, strings.len() as u64);
            strings.extend(text.bytes().chain([0]));
        }
        pair(5, base + strings_at as u64);
        pair(10, strings.len() as u64);
        pair(0, 0);
        let total = strings_at + strings.len();
        let segment = |kind: u64, at: usize, length: usize| {
            let (at, length) = (at as u64, length as u64);
            let w = |value| self.number(value, word);
            let kind = self.number(kind, 4);
            let flags = self.number(4, 4);
            let rest = [w(at), w(base + at), w(base + at), w(length), w(length)].concat();
            if wide { [kind, flags, rest, w(8)].concat() } else { [kind, rest, flags, w(8)].concat() }
        };
        let interpreter_kind = if self.interpreter.is_some() { 3 } else { 0 };
        let mut out = b"\x7fELF".to_vec();
        out.extend([u8::from(wide) + 1, if self.machine.endian == Endian::Big { 2 } else { 1 }, 1]);
        out.resize(16, 0);
        out.extend([self.number(3, 2), self.number(self.machine.number.into(), 2)].concat());
        out.extend(
            [self.number(1, 4), self.number(0, word), self.number(header_bytes as u64, word)].concat(),
        );
        out.extend([self.number(0, word), self.number(0, 4), self.number(header_bytes as u64, 2)].concat());
        out.extend([self.number(segment_bytes as u64, 2), self.number(segments as u64, 2)].concat());
        out.resize(header_bytes, 0);
        out.extend(segment(1, 0, total));
        out.extend(segment(interpreter_kind, interpreter_at, interpreter.len()));
        out.extend(segment(2, dynamic_at, dynamic_bytes));
        out.extend(interpreter.bytes());
        out.extend(dynamic);
        out.extend(strings);
        out
    }
}

/// An `ld.so.cache` of (name, path, hwcap).
pub(crate) fn cache_file(entries: &[(&str, &str, u64)]) -> Vec<u8> {
    let strings_at = 48 + 24 * entries.len();
    let (mut table, mut strings) = (Vec::new(), Vec::new());
    for (name, path, hwcap) in entries {
        table.extend(0x0303_u32.to_le_bytes());
        for text in [name, path] {
            table.extend(u32::try_from(strings_at + strings.len()).unwrap().to_le_bytes());
            strings.extend(text.bytes().chain([0]));
        }
        table.extend(0_u32.to_le_bytes());
        table.extend(hwcap.to_le_bytes());
    }
    let mut out = b"glibc-ld.so.cache1.1".to_vec();
    out.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    out.extend(u32::try_from(strings.len()).unwrap().to_le_bytes());
    out.push(2);
    out.resize(48, 0);
    [out, table, strings].concat()
}
