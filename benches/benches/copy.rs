//! COPY of many small files: made anew, through a path and past a mount, and shared with what an earlier run left.

use std::sync::Arc;

use divan::Bencher;
use mica_api::Cancel;
use mica_archive::{DiffOptions, NEVER, OwnerLedger, View, diff_views, finalize};
use mica_benches::layer;
use mica_build::context::LocalContext;
use mica_build::fileop::{FileOptions, Kin, SourceTree, run};
use mica_build::select::Tree;
use mica_solve::{CopyAction, FileAction, FileOp, Input};
use mica_sys::root::Root;

const FILES: usize = 2_000;
const BYTES: usize = 200;

fn main() {
    divan::main();
}

/// How a file gets to its place.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Mount,
    Beneath,
    Shared,
}

fn copy_of_everything() -> FileOp {
    let action = CopyAction::new(Input::Vertex(0), "tree", "/app");
    FileOp { base: Input::Scratch, actions: vec![FileAction::Copy(action)] }
}

#[divan::bench(args = [Way::Mount, Way::Beneath, Way::Shared], sample_count = 20)]
fn copy_files(bencher: Bencher<'_, '_>, way: Way) {
    let source = layer(FILES, BYTES);
    let context = LocalContext::open(source.directory.path(), None, None).unwrap();
    // As when the key of the step was made.
    let files: Vec<Vec<u8>> = source.table.entries().iter().map(|entry| entry.path.clone()).collect();
    let files: Vec<Vec<u8>> = files.into_iter().filter(|path| path.ends_with(b".txt")).collect();
    context.digests(&files).unwrap();
    let (op, cancel) = (copy_of_everything(), Cancel::new());
    let single_id = !rustix::process::geteuid().is_root();
    let copy = |to: &Root, beneath: bool, kin: Option<&Kin>| {
        let beneath = beneath.then_some(to);
        let options = FileOptions { beneath, kin, ..FileOptions::new(single_id, &cancel) };
        run(&op, to, &|_| SourceTree::local(&context, "context"), &options).unwrap()
    };
    let earlier = tempfile::tempdir().unwrap();
    let earlier_root = Root::open(earlier.path()).unwrap();
    copy(&earlier_root, true, None);
    let found = diff_views(&View::empty(), &earlier_root, &OwnerLedger::new(), &DiffOptions::default());
    let table = finalize(found.unwrap().table, &earlier_root, NEVER).unwrap().table;
    let kin = Kin::new(Arc::new(table), earlier_root).unwrap();
    bencher.with_inputs(|| tempfile::tempdir().unwrap()).bench_refs(|directory| {
        let root = Root::open(directory.path()).unwrap();
        let outcome = copy(&root, way != Way::Mount, (way == Way::Shared).then_some(&kin));
        assert_eq!(outcome.shared.len(), if way == Way::Shared { FILES } else { 0 });
    });
}
