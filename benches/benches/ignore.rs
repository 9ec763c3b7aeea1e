//! `.dockerignore`: asked for every file of a context, so a no-op build waits for it.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mica_dockerfile::ignore::Patterns;

fn main() {
    divan::main();
}

const SIMPLE: &str = "node_modules\ntarget\n*.log\n";
const USUAL: &str = "# usual\n**/.git\n**/*.pyc\nnode_modules\n!node_modules/keep\nbuild/*\n!build/keep/**\n\
                     docs/**/draft-*\n.env*\nDockerfile\n**/__pycache__\ncoverage\n*.md\n!README.md\n";

#[divan::bench(args = ["simple", "usual"])]
fn match_ten_thousand_paths(bencher: Bencher<'_, '_>, name: &str) {
    let text = if name == "simple" { SIMPLE } else { USUAL };
    let patterns = Patterns::parse(text.as_bytes()).unwrap();
    let paths: Vec<String> =
        (0..10_000).map(|number| format!("src/{}/part{}/file{number}.rs", number % 20, number % 7)).collect();
    bencher
        .counter(ItemsCount::new(paths.len()))
        .bench(|| paths.iter().filter(|path| patterns.matches(black_box(path))).count());
}
