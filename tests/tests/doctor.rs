//! Why a program does not start: the sentence and the exit code.

use mica_testkit::{Mica, peer};
use mica_tests::{Build, holds, with_base};

/// Builds an image with files prepared by a script of the shell.
fn image(mica: &Mica, prepare: &str) {
    let build = Build::new(mica, "FROM base\nCOPY . /t/\n").prepare(prepare);
    build.option("-t", "sick").run().success();
}

#[track_caller]
fn diagnosis(mica: &Mica, program: &str, code: i32, parts: &[&str]) {
    let output = mica.run(["run", "--rm", "sick", program]).exits(code);
    holds(&output.stderr_text(), parts);
    let built = Build::new(mica, format!("FROM sick\nRUN [\"{program}\"]\n")).run().exits(1);
    holds(&built.stderr_text(), &parts[..1]);
}

#[test]
fn scripts_are_diagnosed() {
    let Some(mica) = with_base() else { return };
    image(
        &mica,
        "printf '#!/bin/sh\\r\\necho hi\\r\\n' > crlf; printf '#!/bin/sh\\n' > nox; printf '#!/usr/bin/python9\\n' > nointerp; \
         printf 'echo hi\\n' > noshebang; mkdir dir; chmod 755 crlf nointerp noshebang",
    );
    diagnosis(&mica, "/t/crlf", 127, &["/bin/sh\\r", "CRLF"]);
    diagnosis(&mica, "/t/nox", 126, &["permission denied", "not executable"]);
    diagnosis(&mica, "/t/nointerp", 127, &["/usr/bin/python9"]);
    diagnosis(&mica, "/t/noshebang", 126, &["exec format error"]);
    diagnosis(&mica, "/t/dir", 126, &["is a directory"]);
    diagnosis(&mica, "/t/nosuch", 127, &["/t/nosuch", "does not exist"]);
    diagnosis(&mica, "nosuch", 127, &["executable file not found in $PATH"]);
}

#[test]
fn a_dynamic_program_without_its_interpreter_names_it() {
    let Some(mica) = with_base() else { return };
    image(&mica, "cp -L /bin/ls ls");
    let interpreter =
        if cfg!(target_arch = "aarch64") { "ld-linux-aarch64.so.1" } else { "ld-linux-x86-64.so.2" };
    diagnosis(&mica, "/t/ls", 127, &[interpreter, "mica pack"]);
}

#[test]
fn a_missing_library_is_named() {
    let Some(mica) = with_base() else { return };
    let Some(ldd) = peer::need("ldd") else { return };
    let listed = std::process::Command::new(ldd).arg("/bin/ls").output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let interpreter = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|word| word.starts_with("/lib"));
    let Some(interpreter) = interpreter else { return mica_testkit::skip("/bin/ls is static") };
    let dockerfile = format!("FROM base\nCOPY ls /t/ls\nCOPY ld {interpreter}\n");
    let build = Build::new(&mica, dockerfile).prepare(&format!("cp -L /bin/ls ls; cp -L {interpreter} ld"));
    build.option("-t", "sick").run().success();
    let output = mica.run(["run", "--rm", "sick", "/t/ls"]).exits(127);
    holds(&output.stderr_text(), &[".so", "shared librar"]);
}

#[test]
fn another_architecture_is_named() {
    let Some(mica) = with_base() else { return };
    // Only the header counts: the machine type at offset 18 is changed to one few machines emulate (riscv64, 243).
    image(
        &mica,
        "cp -L /usr/bin/busybox alien; printf '\\363\\000' | dd of=alien bs=1 seek=18 conv=notrunc 2>/dev/null",
    );
    let output = mica.run(["run", "--rm", "sick", "/t/alien"]);
    assert!([126, 127].contains(&output.code()), "{}", output.stderr_text());
    holds(&output.stderr_text(), &["riscv64"]);
}

#[test]
fn a_build_warns_about_a_command_that_cannot_start() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM base\nCOPY ls /t/ls\nCMD [\"/t/ls\"]\n").prepare("cp -L /bin/ls ls");
    let output = build.run().success();
    holds(&output.stderr_text(), &["/t/ls", "ld-linux"]);
    let missing = Build::new(&mica, "FROM base\nENTRYPOINT [\"/no/such\"]\n").run().success();
    holds(&missing.stderr_text(), &["/no/such"]);
    let fine = Build::new(&mica, "FROM base\nCMD [\"/bin/sh\"]\n").run().success();
    assert!(!fine.stderr_text().to_lowercase().contains("warn"), "{}", fine.stderr_text());
}
