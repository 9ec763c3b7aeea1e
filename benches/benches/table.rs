//! Layer tables: every look-up of a build goes through them.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mica_archive::{Table, View};
use mica_benches::table;

fn main() {
    divan::main();
}

const SIZES: [usize; 2] = [500, 50_000];

#[divan::bench(args = SIZES)]
fn encode(bencher: Bencher<'_, '_>, files: usize) {
    let table = table(files, 100);
    bencher.counter(ItemsCount::new(files)).bench(|| table.encode());
}

#[divan::bench(args = SIZES)]
fn decode(bencher: Bencher<'_, '_>, files: usize) {
    let bytes = table(files, 100).encode();
    bencher.counter(ItemsCount::new(files)).bench(|| Table::decode(black_box(&bytes)).unwrap());
}

#[divan::bench(args = SIZES)]
fn get(bencher: Bencher<'_, '_>, files: usize) {
    let table = table(files, 100);
    bencher.bench(|| table.get(black_box(b"tree/00003/0000300.txt")).is_some());
}

#[divan::bench(args = [1, 10, 100])]
fn walk_a_stack(bencher: Bencher<'_, '_>, layers: usize) {
    let tables = std::iter::repeat_with(|| Arc::new(table(2_000, 100))).take(layers);
    let view = View::stack(tables);
    bencher.counter(ItemsCount::new(2_000_usize)).bench(|| view.walk(black_box(b"")).count());
}
