//! Any bytes as a layer: reading never panics, and what is read fits the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mica_archive::Limits;
use mica_archive::tar::TarReader;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { layer_bytes: 1 << 24, entries: 1000, ..Limits::default() };
    let mut reader = TarReader::new(bytes, limits);
    while let Ok(Some(member)) = reader.next_member() {
        assert!(member.size <= 1 << 24);
        assert!(member.mode <= 0o7777 && member.uid != u32::MAX && member.gid != u32::MAX);
        assert!(member.mtime.nanoseconds < 1_000_000_000);
    }
});
