//! Broken images, each with its exact sentence, its way out and its exit code.

use super::*;
use crate::testing::{ElfFile, MemoryFiles, cache_file};

const GLIBC: &str = "/lib64/ld-linux-x86-64.so.2";

fn dynamic() -> ElfFile {
    ElfFile::new("amd64").interpreter(GLIBC)
}

/// What is wrong with starting `argv0` as a user.
fn diagnosed(files: &MemoryFiles, argv0: &str, uid: u32) -> Option<Diagnosis> {
    let attempt = Attempt {
        argv0: argv0.as_bytes(),
        path: b"/usr/local/bin:/bin",
        library_path: b"",
        working_directory: b"/work",
        identity: Identity { uid, gids: vec![uid] },
        host: Machine::from_architecture("amd64").unwrap(),
        has_emulator: &|machine| machine.architecture() == Some("riscv64"),
        no_exec: false,
    };
    diagnose(files, &attempt)
}

/// Checks sentence, exit code and advice.
#[track_caller]
fn says(files: &MemoryFiles, argv0: &str, uid: u32, sentence: &str, exit_code: u8, advice: &str) {
    let diagnosis = diagnosed(files, argv0, uid).expect("a diagnosis");
    assert_eq!(diagnosis.to_string(), sentence);
    assert_eq!(diagnosis.exit_code(), exit_code);
    assert_eq!(diagnosis.advice().as_deref(), Some(advice));
}

#[test]
fn a_program_that_should_start_has_no_diagnosis() {
    let files = MemoryFiles::new()
        .file(GLIBC, &ElfFile::new("amd64").build())
        .file("/lib/x86_64-linux-gnu/libc.so.6", &ElfFile::new("amd64").build())
        .file("/bin/sh", &dynamic().needed("libc.so.6").build())
        .file("/bin/script", b"#!/bin/sh\n")
        .file("/bin/env", b"#!/bin/sh\n")
        .file("/work/by-env", b"#!/bin/env sh\n")
        .file("/bin/emulated", &ElfFile::new("riscv64").build());
    for name in ["sh", "script", "/bin/sh", "./by-env", "emulated"] {
        assert_eq!(diagnosed(&files, name, 1000), None, "{name}");
    }
}

#[test]
fn a_name_that_is_nowhere_in_path() {
    says(
        &MemoryFiles::new(),
        "curl",
        0,
        "there is no program curl in PATH (/usr/local/bin:/bin)",
        127,
        "install curl, copy it into the image, or name it with its whole path",
    );
}

#[test]
fn a_whole_command_line_given_as_a_name() {
    says(
        &MemoryFiles::new(),
        "nginx -g daemon",
        0,
        "there is no program nginx -g daemon in PATH (/usr/local/bin:/bin)",
        127,
        "the exec form takes every word by itself: [\"nginx\", \"-g\", \"daemon\"]",
    );
}

#[test]
fn a_word_that_only_shells_know() {
    says(
        &MemoryFiles::new(),
        "cd",
        0,
        "there is no program cd in PATH (/usr/local/bin:/bin)",
        127,
        "cd is built into shells: use the shell form, or sh -c '…'",
    );
}

#[test]
fn an_image_without_a_shell() {
    says(
        &MemoryFiles::new(),
        "/bin/sh",
        0,
        "/bin/sh does not exist in the image",
        127,
        "the image has no such shell: use the exec form ([\"program\", \"argument\"]), /bin/sh if it is there, \
         or a base image with a shell",
    );
}

#[test]
fn a_path_that_does_not_exist() {
    says(
        &MemoryFiles::new(),
        "./run",
        0,
        "/work/./run does not exist in the image",
        127,
        "COPY run into the image, or check how its path is spelled",
    );
}

#[test]
fn a_link_to_something_that_was_not_copied() {
    says(
        &MemoryFiles::new().link("/bin/java", "/usr/lib/jvm/bin/java"),
        "/bin/java",
        0,
        "/bin/java is a link to /usr/lib/jvm/bin/java, which does not exist in the image",
        127,
        "copy /usr/lib/jvm/bin/java as well, or the file instead of the link",
    );
}

#[test]
fn a_directory() {
    let files = MemoryFiles::new().directory("/app");
    says(&files, "/app", 0, "/app is a directory", 126, "name a program inside /app");
}

#[test]
fn a_file_nobody_may_execute() {
    says(
        &MemoryFiles::new().file("/app/run.sh", b"#!/bin/sh\n").mode("/app/run.sh", 0o644),
        "/app/run.sh",
        0,
        "/app/run.sh is not executable (mode 0644)",
        126,
        "COPY --chmod=755, or RUN chmod +x /app/run.sh",
    );
}

#[test]
fn a_file_only_its_owner_may_execute() {
    says(
        &MemoryFiles::new().file("/app/run", &ElfFile::new("amd64").build()).mode("/app/run", 0o700),
        "/app/run",
        1000,
        "/app/run is not executable for user 1000 (mode 0700)",
        126,
        "COPY --chmod=755 or --chown, or RUN chmod a+rx /app/run",
    );
}

#[test]
fn a_program_in_roots_home_and_another_user() {
    says(
        &MemoryFiles::new().file("/root/bin/run", &ElfFile::new("amd64").build()).mode("/root", 0o700),
        "/root/bin/run",
        1000,
        "user 1000 cannot reach /root/bin/run: /root does not let it in (mode 0700)",
        126,
        "put it where every user may go (/usr/local/bin, /app), or RUN chmod a+x /root (user 1000)",
    );
}

#[test]
fn a_dynamic_program_in_an_empty_image() {
    says(
        &MemoryFiles::new().file("/hello", &dynamic().needed("libc.so.6").build()),
        "/hello",
        0,
        "/hello exists, but the loader it needs, /lib64/ld-linux-x86-64.so.2, is not in the image",
        127,
        "link it statically (gcc -static, CGO_ENABLED=0, the Rust target *-linux-musl), or take its loader \
         and libraries along: mica pack /hello",
    );
}

#[test]
fn a_glibc_program_on_alpine() {
    says(
        &MemoryFiles::new()
            .file("/app/run", &dynamic().build())
            .file("/lib/ld-musl-x86_64.so.1", &ElfFile::new("amd64").build()),
        "/app/run",
        0,
        "/app/run exists, but the loader it needs, /lib64/ld-linux-x86-64.so.2, is not in the image \
         (it was built for glibc, the image has musl)",
        127,
        "build it in a stage from the same base, link it statically, use a glibc base (debian, ubuntu), \
         or apk add gcompat",
    );
}

#[test]
fn a_library_that_is_not_installed() {
    says(
        &MemoryFiles::new()
            .file(GLIBC, &ElfFile::new("amd64").build())
            .file("/usr/lib/libcurl.so.4", &ElfFile::new("amd64").needed("libssl.so.3").build())
            .file("/app/run", &dynamic().needed("libcurl.so.4").build()),
        "/app/run",
        0,
        "/app/run needs the library libssl.so.3 (for /usr/lib/libcurl.so.4), which the loader does not find",
        127,
        "install the package that has libssl.so.3, copy it from the stage that built the program, or link \
         statically",
    );
}

#[test]
fn a_library_that_ldconfig_has_not_seen() {
    says(
        &MemoryFiles::new()
            .file(GLIBC, &ElfFile::new("amd64").build())
            .file("/etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n")
            .file("/etc/ld.so.conf.d/libc.conf", b"/usr/local/lib\n")
            .file("/etc/ld.so.cache", &cache_file(&[]))
            .file("/usr/local/lib/libmine.so.1", &ElfFile::new("amd64").build())
            .file("/app/run", &dynamic().needed("libmine.so.1").build()),
        "/app/run",
        0,
        "/app/run needs the library libmine.so.1, which the loader does not find",
        127,
        "it is at /usr/local/lib/libmine.so.1, but not in /etc/ld.so.cache: RUN ldconfig",
    );
}

#[test]
fn a_program_for_another_processor() {
    says(
        &MemoryFiles::new().file("/app/run", &ElfFile::new("arm64").build()),
        "/app/run",
        0,
        "/app/run is built for arm64, this machine is amd64",
        126,
        "build for amd64 (--platform linux/amd64), or register an emulator for arm64 (qemu-user-static and \
         binfmt_misc)",
    );
}

#[test]
fn a_shell_for_another_processor_under_a_script() {
    let files = MemoryFiles::new()
        .file("/bin/sh", &ElfFile::new("arm64").build())
        .file("/app/run.sh", b"#!/bin/sh\n");
    let diagnosis = diagnosed(&files, "/app/run.sh", 0).unwrap();
    assert_eq!(diagnosis.to_string(), "/bin/sh is built for arm64, this machine is amd64");
}

#[test]
fn a_script_whose_interpreter_is_elsewhere() {
    says(
        &MemoryFiles::new()
            .file("/usr/local/bin/python3", &ElfFile::new("amd64").build())
            .file("/app/run.py", b"#!/usr/bin/python3\n"),
        "/app/run.py",
        0,
        "the script /app/run.py is run by /usr/bin/python3, which is not in the image",
        127,
        "it is at /usr/local/bin/python3: change the #! line",
    );
}

#[test]
fn a_script_for_bash_on_alpine() {
    says(
        &MemoryFiles::new().file("/app/run.sh", b"#!/bin/bash\n"),
        "/app/run.sh",
        0,
        "the script /app/run.sh is run by /bin/bash, which is not in the image",
        127,
        "install bash, or start the script with a program that is there (/bin/sh)",
    );
}

#[test]
fn a_script_through_env_whose_program_is_missing() {
    says(
        &MemoryFiles::new()
            .file("/usr/bin/env", &ElfFile::new("amd64").build())
            .file("/app/run.js", b"#!/usr/bin/env node\n"),
        "/app/run.js",
        0,
        "the script /app/run.js is run by node, which is not in the image",
        127,
        "install node, or start the script with a program that is there (/bin/sh)",
    );
}

#[test]
fn a_script_saved_on_windows() {
    says(
        &MemoryFiles::new()
            .file("/bin/sh", &ElfFile::new("amd64").build())
            .file("/entrypoint.sh", b"#!/bin/sh\r\necho hi\r\n"),
        "/entrypoint.sh",
        0,
        "the script /entrypoint.sh has Windows line endings (CRLF): its #! line asks for \"/bin/sh\\r\"",
        127,
        "RUN sed -i 's/\\r$//' /entrypoint.sh, or dos2unix; in git: `*.sh text eol=lf` in .gitattributes",
    );
}

#[test]
fn a_script_without_a_first_line() {
    says(
        &MemoryFiles::new().file("/run.sh", b"echo hi\n"),
        "/run.sh",
        0,
        "/run.sh is a text file that does not start with a #! line",
        126,
        "make #!/bin/sh its first line, or start it with: sh /run.sh",
    );
}

#[test]
fn a_script_behind_a_byte_order_mark() {
    says(
        &MemoryFiles::new().file("/run.sh", b"\xef\xbb\xbf#!/bin/sh\n"),
        "/run.sh",
        0,
        "/run.sh is a script whose #! is hidden behind a byte order mark",
        126,
        "save it as UTF-8 without a byte order mark",
    );
}

#[test]
fn an_empty_file() {
    says(
        &MemoryFiles::new().file("/run", b""),
        "/run",
        0,
        "/run is an empty file",
        126,
        "check the step that writes it: a failed download leaves an empty file",
    );
}

#[test]
fn a_program_for_another_system() {
    says(
        &MemoryFiles::new().file("/run", b"\xcf\xfa\xed\xfe\x07\0\0\x01"),
        "/run",
        0,
        "/run is a program for macOS, or a Java class",
        126,
        "build it for Linux, best in a stage of the same Dockerfile",
    );
}

#[test]
fn a_program_that_was_cut_short() {
    let whole = dynamic().build();
    says(
        &MemoryFiles::new().file("/run", &whole[..100]),
        "/run",
        0,
        "/run is a damaged program (program headers)",
        126,
        "check how the file got there: a download may have been cut short",
    );
}

#[test]
fn a_mount_that_forbids_execution() {
    let files = MemoryFiles::new().file("/mnt/run", &ElfFile::new("amd64").build());
    let attempt = Attempt {
        argv0: b"/mnt/run",
        path: b"",
        library_path: b"",
        working_directory: b"/",
        identity: Identity { uid: 0, gids: vec![0] },
        host: Machine::from_architecture("amd64").unwrap(),
        has_emulator: &|_| false,
        no_exec: true,
    };
    let diagnosis = diagnose(&files, &attempt).unwrap();
    assert_eq!(diagnosis.to_string(), "/mnt/run is on a mount that forbids execution (noexec)");
    assert_eq!(diagnosis.exit_code(), 126);
}
