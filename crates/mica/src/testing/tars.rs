//! The tars that the fake engine gives and takes.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use tar_core::builder::EntryBuilder;
use tar_core::parse::{ParseEvent, Parser};
use tar_core::{EntryType, HEADER_SIZE};

/// Writes a tar of `data/`, `data/file`, `data/link`.
pub(crate) fn write(output: OwnedFd) {
    let mut out = File::from(output);
    let mut member = |name: &str, kind: EntryType, data: &[u8]| {
        let mut entry = EntryBuilder::new_gnu();
        entry.path(name).entry_type(kind);
        if kind == EntryType::Symlink {
            entry.link_name("file");
        }
        entry.mode(0o755).unwrap().mtime(1_700_000_000).unwrap().size(data.len() as u64).unwrap();
        out.write_all(&entry.finish_bytes()).unwrap();
        out.write_all(data).unwrap();
        out.write_all(&vec![0; data.len().next_multiple_of(HEADER_SIZE) - data.len()]).unwrap();
    };
    member("data/", EntryType::Directory, b"");
    member("data/file", EntryType::Regular, b"content");
    member("data/link", EntryType::Symlink, b"");
    out.write_all(&[0; 2 * HEADER_SIZE]).unwrap();
}

/// The members of a tar: name, kind, size, owner.
pub(crate) fn members(tar: &[u8]) -> Vec<String> {
    let mut parser = Parser::with_defaults();
    let (mut rest, mut members) = (tar, Vec::new());
    while let ParseEvent::Entry { consumed, entry } = parser.parse(rest).unwrap() {
        members.push(format!("{} {:?} {}", entry.path_lossy(), entry.entry_type, entry.size));
        let data = usize::try_from(entry.size).unwrap().next_multiple_of(HEADER_SIZE);
        rest = &rest[consumed + data..];
    }
    members
}
