//! Layer bytes: hashing a layer into its diff ID, writing its tar, applying it, compressing it.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mica_archive::compress::{Compression, Decompressor, GZIP_LEVEL, compress};
use mica_archive::{
    ApplyOptions, Limits, NEVER, OverlayFlavour, OwnerPolicy, TarFormat, apply, finalize, write_tar,
};
use mica_benches::{content, layer};
use mica_sys::root::Root;

fn main() {
    divan::main();
}

/// Files and bytes of each: many small ones, and few large ones.
const SHAPES: [(usize, usize); 2] = [(5_000, 2_000), (10, 4_000_000)];

#[divan::bench(args = SHAPES)]
fn finalize_a_layer(bencher: Bencher<'_, '_>, (files, bytes): (usize, usize)) {
    let layer = layer(files, bytes);
    bencher
        .counter(BytesCount::new(files * bytes))
        .with_inputs(|| layer.table.clone())
        .bench_values(|table| finalize(table, &layer.root, NEVER).unwrap());
}

#[divan::bench(args = SHAPES)]
fn write_a_tar(bencher: Bencher<'_, '_>, (files, bytes): (usize, usize)) {
    let layer = layer(files, bytes);
    bencher
        .counter(BytesCount::new(files * bytes))
        .bench(|| write_tar(&layer.table, &layer.root, &mut std::io::sink(), TarFormat::default(), NEVER));
}

#[divan::bench(args = SHAPES)]
fn apply_a_tar(bencher: Bencher<'_, '_>, (files, bytes): (usize, usize)) {
    let layer = layer(files, bytes);
    let mut tar = Vec::new();
    write_tar(&layer.table, &layer.root, &mut tar, TarFormat::default(), NEVER).unwrap();
    let options = ApplyOptions {
        limits: Limits::default(),
        owners: OwnerPolicy::Ledger,
        devices: false,
        overlay: OverlayFlavour::None,
        keep_recipe: false,
        parent: None,
    };
    bencher.counter(BytesCount::new(files * bytes)).with_inputs(|| tempfile::tempdir().unwrap()).bench_refs(
        |directory| {
            let root = Root::open(directory.path()).unwrap();
            apply(&tar[..], &root, &options, NEVER).unwrap()
        },
    );
}

/// What layers are compressed with on their way out.
#[derive(Debug, Clone, Copy)]
enum Form {
    Gzip,
    Zstd,
}

impl Form {
    fn compression(self) -> Compression {
        match self {
            Self::Gzip => Compression::Gzip { level: GZIP_LEVEL },
            Self::Zstd => Compression::Zstd { level: 3 },
        }
    }
}

#[divan::bench(args = [(Form::Gzip, 1), (Form::Gzip, 2), (Form::Zstd, 1), (Form::Zstd, 2)])]
fn compress_bytes(bencher: Bencher<'_, '_>, (form, threads): (Form, usize)) {
    let bytes = content(1, 32 << 20);
    bencher.counter(BytesCount::new(bytes.len())).bench(|| {
        compress(&mut &bytes[..], &mut std::io::sink(), form.compression(), black_box(threads)).unwrap()
    });
}

#[divan::bench(args = [Form::Gzip, Form::Zstd])]
fn decompress_bytes(bencher: Bencher<'_, '_>, form: Form) {
    let bytes = content(1, 32 << 20);
    let mut compressed = Vec::new();
    compress(&mut &bytes[..], &mut compressed, form.compression(), 2).unwrap();
    bencher.counter(BytesCount::new(bytes.len())).bench(|| {
        let mut reader = Decompressor::detect(std::io::Cursor::new(compressed.clone())).unwrap();
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap()
    });
}
