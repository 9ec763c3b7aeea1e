//! Any bytes as a layer table or recipe: decoding never panics, and what decodes encodes to the same table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mica_archive::{Recipe, Table};

fuzz_target!(|bytes: &[u8]| {
    let _ = Recipe::decode(bytes);
    // The checksum would stop nearly every input: try with the right one too.
    let mut framed = b"micatbl\0\x01\0\0\0".to_vec();
    framed.extend_from_slice(bytes);
    let checksum = blake3::hash(&framed);
    framed.extend_from_slice(checksum.as_bytes());
    for candidate in [bytes, &framed] {
        if let Ok(table) = Table::decode(candidate) {
            assert_eq!(Table::decode(&table.encode()).as_ref(), Ok(&table));
        }
    }
});
