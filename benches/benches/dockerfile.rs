//! Dockerfiles: text to syntax tree, and the expansion of words.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mica_benches::dockerfile;
use mica_dockerfile::{expand, parse};

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 10, 100])]
fn parse_stages(bencher: Bencher<'_, '_>, stages: usize) {
    let text = dockerfile(stages);
    bencher.counter(BytesCount::new(text.len())).bench(|| parse(black_box(text.as_bytes())).unwrap());
}

#[divan::bench(args = ["plain/path/to/file", "$A", "${A:-default}/\"${B}\"/'$C'", "${A#*/}-${B//a/b}"])]
fn expand_a_word(bencher: Bencher<'_, '_>, word: &str) {
    let environment = |name: &str| (name != "C").then(|| format!("value/of/{name}"));
    bencher.bench(|| expand::word(black_box(word), &environment, '\\'));
}
