//! Small static programs that tests run, compiled when they are needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mica_testkit::{Mica, Output, peer, skip, temp_dir};

/// Compiles a program of `tests/probe` (by its name without `.c`); a counted skip if there is no compiler.
///
/// # Panics
/// If it does not compile.
#[track_caller]
pub fn compile(name: &str) -> Option<PathBuf> {
    static FOLDER: OnceLock<mica_testkit::TempDir> = OnceLock::new();
    let Some(compiler) = peer::find("cc") else {
        skip("no cc");
        return None;
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("probe").join(name).with_extension("c");
    let folder = FOLDER.get_or_init(temp_dir).path();
    // Tests run at the same time: each gets a file of its own, renamed when it is whole.
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-");
    let (part, program) = (folder.join(format!("{name}{thread}")), folder.join(name));
    if !program.exists() {
        let flags = ["-static", "-O1", "-w", "-o"];
        let compiled = Command::new(compiler).args(flags).arg(&part).arg(source).output().expect("cc starts");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        std::fs::rename(&part, &program).expect("our own folder");
    }
    Some(program)
}

/// Runs a command to its end; also says how much memory it had at most, in KiB. `None` is a counted skip.
///
/// # Panics
/// If nothing was measured.
#[track_caller]
pub fn measured(mica: &Mica, arguments: &[&str]) -> Option<(Output, u64)> {
    let launcher = compile("measure")?;
    let report = mica.write("peak", "");
    let plain = mica.command(arguments);
    let mut words = vec![report.as_os_str(), plain.get_program()];
    words.extend(plain.get_args());
    let output = mica.run_program(&launcher, words);
    let text = std::fs::read_to_string(&report).expect("our own file");
    Some((output, text.trim().parse().expect("a number of KiB")))
}
