//! Every Dockerfile of the differential corpus: those that fail to parse in the reference fail here, with
//! the words expected of them, and all others parse.
//!
//! The corpus is found at `$MICA_ACCEPT`, or at `shared/accept` beside the workspace.

use std::path::{Path, PathBuf};

/// The cases that fail while parsing, and part of their error; the other failures come later in a build.
const PARSE_FAILURES: [(&str, &str); 12] = [
    ("351", "unknown instruction: COPPY (did you mean COPY?)"),
    ("354", "no build stage"),
    ("357", "one or three arguments"),
    ("366", "unknown flag: --chwon"),
    ("369", "boolean"),
    ("381", "ENV must have two arguments"),
    ("384", "blank"),
    ("387", "missing unit"),
    ("390", "NONE takes no arguments"),
    ("402", "only one escape"),
    ("411", "unknown flag: --mont (did you mean mount?)"),
    ("433", "strings only"),
];

fn corpus() -> PathBuf {
    match std::env::var_os("MICA_ACCEPT") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/accept"),
    }
}

#[test]
fn the_corpus_parses_except_where_the_reference_refuses_it() {
    let cases = corpus().join("diff/cases");
    let Ok(entries) = std::fs::read_dir(&cases) else {
        eprintln!("SKIP: no corpus at {}", cases.display());
        return;
    };
    let mut seen = 0;
    for entry in entries {
        let directory = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(directory.join("Dockerfile")) else { continue };
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let expected = PARSE_FAILURES.iter().find(|(number, _)| name.starts_with(number));
        match (mica_dockerfile::parse(&bytes), expected) {
            (Ok(_), None) => {}
            (Err(error), Some((_, words))) => assert!(error.to_string().contains(words), "{name}: {error}"),
            (Ok(_), Some(_)) => panic!("{name}: parsed"),
            (Err(error), None) => panic!("{name}: {error}"),
        }
        seen += 1;
    }
    assert!(seen > 0, "no Dockerfile in {}", cases.display());
}
