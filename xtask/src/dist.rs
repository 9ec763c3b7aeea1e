//! Static binaries: one file to copy to any Linux.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, cargo, command, find, must, read, target};

const X86_64: &str = "x86_64-unknown-linux-musl";
const AARCH64: &str = "aarch64-unknown-linux-musl";

/// Builds `dist/mica-x86_64` and `dist/mica-aarch64`.
pub(crate) fn run() -> Outcome {
    for triple in [X86_64, AARCH64] {
        ensure_target(triple)?;
    }
    must(&mut x86_64()?)?;
    must(&mut aarch64()?)?;
    for triple in [X86_64, AARCH64] {
        let built = target().join(triple).join("release/mica");
        let name = format!("dist/mica-{}", triple.split('-').next().unwrap_or(triple));
        std::fs::create_dir_all("dist").map_err(|error| format!("dist: {error}"))?;
        let size = std::fs::copy(&built, &name).map_err(|error| format!("{}: {error}", built.display()))?;
        must_be_static(Path::new(&name))?;
        println!("{name}  {:.1} MB", size as f64 / 1e6);
    }
    Ok(())
}

/// Installs Rust's standard library for a target, unless it is there.
fn ensure_target(triple: &str) -> Outcome {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let root = read(&mut command(rustc, &["--print", "sysroot"]))?;
    if Path::new(root.trim()).join("lib/rustlib").join(triple).join("lib").is_dir() {
        return Ok(());
    }
    must(&mut command("rustup", &["target", "add", triple]))
}

/// musl's own compiler wrapper where there is one; on other machines zig does both.
fn x86_64() -> Outcome<Command> {
    if std::env::consts::ARCH == "x86_64" && find("musl-gcc").is_some() {
        let mut build = cargo(&["build", "--release", "--package", "mica", "--target", X86_64]);
        build.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
        return Ok(build);
    }
    with_zig(X86_64)
}

fn aarch64() -> Outcome<Command> {
    with_zig(AARCH64)
}

/// A build in which zig, as PyPI has it, compiles the C parts and links.
fn with_zig(triple: &str) -> Outcome<Command> {
    let environment = ensure_zig()?;
    let mut build = cargo(&["zigbuild", "--release", "--package", "mica", "--target", triple]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(environment.join("bin")).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).map_err(|error| format!("PATH: {error}"))?;
    build.env("PATH", path).env("CARGO_ZIGBUILD_PYTHON_PATH", environment.join("bin/python3"));
    Ok(build)
}

/// A virtual environment with zig and cargo-zigbuild in the target folder.
fn ensure_zig() -> Outcome<PathBuf> {
    let environment = target().join("peers/zig");
    if environment.join("bin/cargo-zigbuild").exists() {
        return Ok(environment);
    }
    let shown = environment.to_string_lossy().into_owned();
    must(&mut command("python3", &["-m", "venv", &shown]))?;
    must(&mut command(environment.join("bin/pip"), &["install", "--quiet", "ziglang", "cargo-zigbuild"]))?;
    Ok(environment)
}

/// A dynamic binary would start here and nowhere else: asks the ELF file for an interpreter.
fn must_be_static(path: &Path) -> Outcome {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // Both loaders' paths are in the file only if it asks for them: mica itself never names them whole.
    for loader in [
        &b"/lib64/ld-linux-x86-64.so.2\0"[..],
        b"/lib/ld-musl-x86_64.so.1\0",
        b"/lib/ld-linux-aarch64.so.1\0",
    ] {
        if bytes.windows(loader.len()).any(|window| window == loader) {
            let loader = String::from_utf8_lossy(loader.strip_suffix(b"\0").unwrap_or(loader));
            return Err(format!("{} is not static: it asks for {loader}", path.display()));
        }
    }
    Ok(())
}
