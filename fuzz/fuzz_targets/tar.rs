//! Any bytes as a layer: reading never panics, and what is read fits the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mica_archive::Limits;
use mica_archive::tar::TarReader;

/// Size of a header, and where its checksum is.
const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // Checksums would stop nearly every change of a header: try with right ones too.
    let mut repaired = bytes.to_vec();
    repaired.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")).for_each(repair);
    read(&repaired);
});

fn repair(block: &mut [u8]) {
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn read(bytes: &[u8]) {
    let limits = Limits { layer_bytes: 1 << 24, entries: 1000, ..Limits::default() };
    let mut reader = TarReader::new(bytes, limits);
    while let Ok(Some(member)) = reader.next_member() {
        assert!(member.size <= 1 << 24);
        assert!(member.mode <= 0o7777 && member.uid != u32::MAX && member.gid != u32::MAX);
        assert!(member.mtime.nanoseconds < 1_000_000_000);
    }
}
