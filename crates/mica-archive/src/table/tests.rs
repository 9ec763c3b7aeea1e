use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::ContentDigest;

/// Entries that only share a small set of names, so that prefixes and conflicts are common.
pub(crate) fn arbitrary_entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof!["[a-c]{1,2}", "[a-z.\\-]{1,3}x", "\\PC{1,8}n"];
    let path = vec(name, 1..4).prop_map(|parts| parts.join("/").into_bytes());
    let kind = prop_oneof![
        (any::<u64>(), any::<Option<[u8; 32]>>())
            .prop_map(|(size, digest)| Kind::File { size, digest: digest.map(ContentDigest) }),
        any::<bool>().prop_map(|opaque| Kind::Directory { opaque }),
        vec(1u8..=255, 1..300).prop_map(|target| Kind::Symlink { target }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        Just(Kind::Fifo),
        Just(Kind::Whiteout),
    ];
    let xattrs = btree_map("user\\.[a-z]{1,8}".prop_map(String::into_bytes), vec(any::<u8>(), 0..20), 0..3);
    let numbers = (0u32..0o10000, any::<u32>(), any::<u32>(), any::<i64>(), 0u32..1_000_000_000);
    (path, kind, numbers, xattrs).prop_map(|(path, kind, (mode, uid, gid, seconds, nanoseconds), xattrs)| {
        Entry { path, kind, mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs }
    })
}

fn arbitrary_table() -> impl Strategy<Value = Table> {
    vec(arbitrary_entry(), 0..40).prop_map(|entries| {
        let unique: std::collections::BTreeMap<_, _> = entries
            .into_iter()
            .filter(|entry| path::is_normal(&entry.path))
            .map(|entry| (entry.path.clone(), entry))
            .collect();
        Table::from_entries(unique.into_values().collect()).unwrap()
    })
}

proptest! {
    #[test]
    fn a_table_survives_encoding(table in arbitrary_table()) {
        prop_assert_eq!(Table::decode(&table.encode()).unwrap(), table);
    }

    #[test]
    fn any_flipped_byte_is_noticed(table in arbitrary_table(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = table.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Table::decode(&bytes).is_err());
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        // A right checksum lets the bytes reach the parser.
        let mut framed = b"micatbl\0\x01\0\0\0".to_vec();
        framed.extend_from_slice(&bytes);
        let checksum = blake3::hash(&framed);
        framed.extend_from_slice(checksum.as_bytes());
        let _ = Table::decode(&framed);
        let _ = Table::decode(&bytes);
    }
}

#[test]
fn a_path_may_not_occur_twice() {
    let entries = vec![Entry::directory("a", 0o755), Entry::whiteout("a")];
    assert_eq!(Table::from_entries(entries), Err(TableError::Order("a".into())));
}

#[test]
fn a_hard_link_needs_an_earlier_file() {
    let link = |path: &str, target: &str| Entry::new(path, Kind::Hardlink { target: target.into() }, 0o644);
    let file = Entry::new("b", Kind::File { size: 0, digest: None }, 0o644);
    assert!(Table::from_entries(vec![file.clone(), link("c", "b")]).is_ok());
    assert!(matches!(Table::from_entries(vec![file.clone(), link("a", "b")]), Err(TableError::Link { .. })));
    assert!(matches!(Table::from_entries(vec![file, link("c", "x")]), Err(TableError::Link { .. })));
}

#[test]
fn a_newer_format_is_named() {
    let mut bytes = Table::default().encode();
    bytes[8] = 9;
    assert_eq!(Table::decode(&bytes), Err(TableError::Format(9)));
    assert_eq!(Table::decode(b"micatb"), Err(TableError::Magic));
}

#[test]
fn children_and_look_ups_work_without_stored_parents() {
    let paths = ["a/b/c", "a/b/d", "a-x", "z"];
    let table =
        Table::from_entries(paths.iter().map(|path| Entry::directory(*path, 0o755)).collect()).unwrap();
    let names: Vec<_> = table.children(b"a/b").map(Entry::name).collect();
    assert_eq!(names, [b"c", b"d"]);
    assert!(table.get(b"a").is_none());
    assert_eq!(table.get(b"z").unwrap().path, b"z");
}
