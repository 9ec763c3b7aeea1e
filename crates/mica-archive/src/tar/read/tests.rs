//! Streams on which readers disagree, and every way to say "sparse".

use std::io::Read;

use proptest::prelude::*;

use super::*;
use crate::testing::TarBytes;

type Listing = Result<Vec<(String, u64)>, TarError>;

fn list(tar: &[u8]) -> Listing {
    let mut reader = TarReader::new(tar, Limits::default());
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        members.push((String::from_utf8_lossy(&member.name).into_owned(), member.size));
    }
    Ok(members)
}

/// The content of the first member, holes filled.
fn content(tar: &[u8]) -> Vec<u8> {
    let mut reader = TarReader::new(tar, Limits::default());
    let member = reader.next_member().unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(member.size).unwrap()];
    while let Some(data) = reader.data().unwrap() {
        let offset = usize::try_from(data.offset).unwrap();
        bytes[offset..offset + data.bytes.len()].copy_from_slice(data.bytes);
    }
    assert_eq!(reader.next_member().unwrap(), None);
    bytes
}

/// A tar inside a tar, as content that a confused reader would take for members.
fn smuggled() -> Vec<u8> {
    TarBytes::default().file("smuggled", b"evil").0
}

#[test]
fn the_pax_size_wins_for_data_and_for_the_next_header() {
    let inner = smuggled();
    let size = inner.len().to_string();
    let tar =
        TarBytes::default().pax(&[(b"size", size.as_bytes())]).header(b"a", b'0', 0, |_| {}).data(&inner);
    let tar = tar.file("b", b"").end();
    assert_eq!(list(&tar).unwrap(), [("a".into(), inner.len() as u64), ("b".into(), 0)]);
}

#[test]
fn a_pax_size_does_not_touch_the_long_name_between() {
    let inner = smuggled();
    let size = inner.len().to_string();
    let tar = TarBytes::default()
        .pax(&[(b"size", size.as_bytes())])
        .header(b"././@LongLink", b'L', 5, |_| {})
        .data(b"long\0")
        .header(b"a", b'0', 0, |_| {})
        .data(&inner)
        .end();
    assert_eq!(list(&tar).unwrap(), [("long".into(), inner.len() as u64)]);
}

#[test]
fn links_and_directories_have_no_data_whatever_they_say() {
    for type_flag in [b'1', b'2', b'3', b'5', b'6'] {
        let tar = TarBytes::default().header(b"a", type_flag, 512, |_| {}).file("b", b"").end();
        let names: Vec<_> = list(&tar).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}

#[test]
fn global_headers_name_nothing() {
    let mut records = pax::Records::default();
    records.add(b"path", b"smuggled");
    records.add(b"comment", b"99999");
    let bytes = records.finish();
    let tar =
        TarBytes::default().header(b"g", b'g', bytes.len() as u64, |_| {}).data(&bytes).file("a", b"1").end();
    assert_eq!(list(&tar).unwrap(), [("a".into(), 1)]);
}

#[test]
fn what_readers_read_differently_is_refused() {
    let malformed = |tar: TarBytes| assert!(matches!(list(&tar.end()), Err(TarError::Malformed(_))));
    malformed(TarBytes::default().pax(&[(b"path", b"x")]).pax(&[(b"path", b"y")]).file("a", b""));
    let two_names = TarBytes::default().pax(&[(b"path", b"x")]).header(b"l", b'L', 2, |_| {}).data(b"y\0");
    malformed(two_names.file("a", b""));
    malformed(TarBytes::default().header(b"x", b'x', 8, |_| {}).data(b"9 path=x").file("a", b""));
    malformed(TarBytes::default().pax(&[(b"size", b"-1")]).file("a", b""));
    malformed(TarBytes::default().pax(&[(b"size", b"18446744073709551615")]).file("a", b""));
    let mut global = pax::Records::default();
    global.add(b"size", b"512");
    let global = global.finish();
    let header = TarBytes::default().header(b"g", b'g', global.len() as u64, |_| {}).data(&global);
    malformed(header.file("a", b"").file("b", b""));
    malformed(TarBytes::default().pax(&[(b"path", b"a\0b")]).file("a", b""));
    malformed(TarBytes::default().pax(&[(b"mtime", b"nan")]).file("a", b""));
    malformed(TarBytes::default().pax(&[(b"uid", b"4294967295")]).file("a", b""));
    malformed(TarBytes::default().header(b"a", b'0', 0, |block| block[field::UID].fill(0xff)));
    malformed(TarBytes::default().header(b"a", b'0', 0, |block| block[field::MODE].fill(b'9')));
    malformed(TarBytes(vec![0; 512]).file("a", b""));
}

#[test]
fn cut_streams_are_errors_and_a_missing_end_is_none() {
    let whole = TarBytes::default().file("a", &[1; 700]).0;
    assert_eq!(list(&whole).unwrap(), [("a".into(), 700)]);
    for length in [1, 511, 513, 1000, whole.len() - 1] {
        assert!(matches!(list(&whole[..length]), Err(TarError::Truncated)), "{length}");
    }
    let headers_only = TarBytes::default().pax(&[(b"path", b"x")]).0;
    assert!(matches!(list(&headers_only), Err(TarError::Truncated)));
}

#[test]
fn a_wrong_checksum_is_an_error() {
    let mut tar = TarBytes::default().file("a", b"").end();
    tar[0] = b'b';
    assert!(matches!(list(&tar), Err(TarError::Malformed("header checksum"))));
}

#[test]
fn unknown_members_are_named() {
    let tar = TarBytes::default().header(b"a", b'M', 0, |_| {}).end();
    assert!(matches!(list(&tar), Err(TarError::Unsupported(b'M'))));
}

#[test]
fn numbers_in_base_256_and_names_that_are_no_text() {
    let tar = TarBytes::default()
        .header(b"\xff\xfe", b'0', 0, |block| {
            block[field::MTIME].fill(0xff);
            block[field::UID].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x20, 0, 0]);
        })
        .end();
    let member = TarReader::new(tar.as_slice(), Limits::default()).next_member().unwrap().unwrap();
    assert_eq!(member.name, b"\xff\xfe");
    assert_eq!(member.mtime, Timestamp { seconds: -1, nanoseconds: 0 });
    assert_eq!(member.uid, 0x20_0000);
}

#[test]
fn every_kind_of_sparse_map_is_understood() {
    let expected = [&[0; 4][..], b"abcd", &[0; 8], b"efgh", &[0; 4]].concat();
    let zero: [(&[u8], &[u8]); 4] = [
        (b"GNU.sparse.major", b"0"),
        (b"GNU.sparse.minor", b"1"),
        (b"GNU.sparse.size", b"24"),
        (b"GNU.sparse.map", b"4,4,16,4"),
    ];
    assert_eq!(content(&TarBytes::default().pax(&zero).file("a", b"abcdefgh").end()), expected);

    let one: [(&[u8], &[u8]); 4] = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"24"),
        (b"GNU.sparse.name", b"a"),
    ];
    let mut data = b"2\n4\n4\n16\n4\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcdefgh");
    assert_eq!(content(&TarBytes::default().pax(&one).file("GNUSparseFile.0/a", &data).end()), expected);

    // 0.0 repeats its keywords, in order, which a sorted list of records cannot.
    let mut records = b"22 GNU.sparse.size=24\n26 GNU.sparse.numblocks=2\n".to_vec();
    for (offset, line) in [("4", "23 GNU.sparse.offset="), ("16", "24 GNU.sparse.offset=")] {
        records.extend_from_slice(format!("{line}{offset}\n25 GNU.sparse.numbytes=4\n").as_bytes());
    }
    let tar = TarBytes::default().header(b"x", b'x', records.len() as u64, |_| {}).data(&records);
    assert_eq!(content(&tar.file("a", b"abcdefgh").end()), expected);

    let old = TarBytes::default().header(b"a", b'S', 8, |block| {
        block[field::MAGIC].copy_from_slice(header::GNU_MAGIC);
        for (slot, value) in [(386, 4), (398, 4), (410, 16), (422, 4), (483, 24)] {
            block[slot..slot + 11].copy_from_slice(format!("{value:011o}").as_bytes());
        }
    });
    assert_eq!(content(&old.data(b"abcdefgh").end()), expected);
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    for map in ["4,4,2,4", "4,4,23,4", "4,4", "4,4,16,40", "18446744073709551615,8", "4"] {
        let records: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", b"24"), (b"GNU.sparse.map", map.as_bytes())];
        let tar = TarBytes::default().pax(&records).file("a", b"abcdefgh").end();
        assert!(matches!(list(&tar), Err(TarError::Malformed("sparse map"))), "{map}");
    }
    let map = vec!["1,0"; 70_000].join(",");
    let records: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", b"24"), (b"GNU.sparse.map", map.as_bytes())];
    assert!(matches!(list(&TarBytes::default().pax(&records).file("a", b"").end()), Err(TarError::Limit(_))));
}

/// Gives one byte at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

#[test]
fn the_size_of_reads_changes_nothing() {
    let tar = TarBytes::default().pax(&[(b"path", b"long")]).file("a", &[7; 1500]).file("b", b"x").end();
    let mut reader = TarReader::new(io::BufReader::with_capacity(1, Dribble(&tar)), Limits::default());
    let mut names = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        names.push(member.name);
    }
    assert_eq!(names, [b"long".to_vec(), b"b".to_vec()]);
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(blocks in proptest::collection::vec(any::<[u8; 32]>(), 0..80)) {
        let _ = list(&blocks.concat());
    }

    #[test]
    fn headers_with_right_checksums_and_wrong_fields_never_panic(
        fields in proptest::collection::vec((0usize..512, any::<u8>()), 0..60),
        type_flag in prop::sample::select(b"0123456LKxgS7\0".to_vec()),
        rest in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        let tar = TarBytes::default().header(b"name", type_flag, 512, |block| {
            for (at, value) in fields {
                block[at] = value;
            }
        });
        let _ = list(&tar.data(&rest).end());
    }
}
