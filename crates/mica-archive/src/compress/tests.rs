use std::process::{Command, Stdio};

use super::*;

fn sample() -> Vec<u8> {
    (0..3_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 27) as u8 + b'a').collect()
}

fn pack(bytes: &[u8], compression: Compression, threads: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let count = compress(&mut { bytes }, &mut out, compression, threads).unwrap();
    assert_eq!(count, out.len() as u64);
    out
}

fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Decompressor::detect(bytes)?.read_to_end(&mut out)?;
    Ok(out)
}

/// Pipes bytes through a program; `None` if it is not installed.
fn through(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut arguments = program.split(' ');
    let mut command = Command::new(arguments.next()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIP: {program} is not installed");
        return None;
    };
    let mut stdin = child.stdin.take()?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program}");
    Some(output.stdout)
}

#[test]
fn every_compression_comes_back_and_threads_do_not_show() {
    for bytes in [Vec::new(), vec![1], vec![0; MEMBER_BYTES], sample()] {
        for compression in [
            Compression::None,
            Compression::Gzip { level: GZIP_LEVEL },
            Compression::Zstd { level: ZSTD_LEVEL },
        ] {
            let packed = pack(&bytes, compression, 1);
            assert_eq!(packed, pack(&bytes, compression, 3), "{compression:?}");
            assert!(unpack(&packed).unwrap() == bytes, "{compression:?}");
        }
    }
}

#[test]
fn other_programs_read_what_we_write() {
    let bytes = sample();
    for (program, compression) in
        [("gzip -dc", Compression::Gzip { level: GZIP_LEVEL }), ("zstd -dcq", Compression::Zstd { level: 3 })]
    {
        if let Some(out) = through(program, &pack(&bytes, compression, 2)) {
            assert!(out == bytes, "{program}");
        }
    }
}

#[test]
fn we_read_what_other_programs_write_also_in_several_streams() {
    let bytes = sample();
    for program in
        ["gzip -c", "zstd -cq", "bzip2 -c", "xz -c -0", "xz -c -0 --check=sha256", "xz -c -0 --check=crc32"]
    {
        let Some(packed) = through(program, &bytes) else { continue };
        assert!(unpack(&packed).unwrap() == bytes, "{program}");
        assert!(
            unpack(&[&packed[..], &packed].concat()).unwrap() == [&bytes[..], &bytes].concat(),
            "{program} twice"
        );
        assert!(unpack(&packed[..packed.len() / 2]).is_err(), "{program} cut");
        let mut damaged = packed;
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        assert!(unpack(&damaged).is_err(), "{program} damaged");
    }
}

#[test]
fn short_and_plain_streams_are_passed_through() {
    for bytes in [&b""[..], b"x", b"\x1f", b"BZ", b"plain text"] {
        assert_eq!(unpack(bytes).unwrap(), bytes);
    }
}

#[test]
fn a_bomb_ends_with_a_limit() {
    let packed = pack(&vec![0; 8 << 20], Compression::Zstd { level: 19 }, 1);
    let limits = Limits { ratio_from_bytes: 1 << 20, ratio: 100, ..Limits::default() };
    let (format, mut reader) = decompress(packed.as_slice(), &limits).unwrap();
    assert_eq!(format, Format::Zstd);
    let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
    assert_eq!(error.downcast::<LimitExceeded>().unwrap().what, "compression ratio of the layer");
    let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
    let (_, mut reader) = decompress(packed.as_slice(), &limits).unwrap();
    assert!(io::copy(&mut reader, &mut io::sink()).is_err());
}
