//! Installs what the tests compare with. Safe to run again; says loudly what it could not get.
//!
//! Distribution packages need root and apt; what is written in Go is built from the module proxy into
//! `MICA_PEERS_BIN`. Nothing here is a dependency of mica, and nothing of it is committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, command, find, is_root, must, peers_bin, read, target};

/// A Debian package and a program by which to tell that it is there.
const PACKAGES: [(&str, &str); 23] = [
    ("runc", "runc"),
    ("crun", "crun"),
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("buildah", "buildah"),
    ("netavark", "/usr/lib/podman/netavark"),
    ("uidmap", "newuidmap"),
    ("passt", "pasta"),
    ("busybox-static", "busybox"),
    ("zstd", "zstd"),
    ("xz-utils", "xz"),
    ("bzip2", "bzip2"),
    ("jq", "jq"),
    ("curl", "curl"),
    ("git", "git"),
    ("python3", "python3"),
    ("strace", "strace"),
    ("libcap2-bin", "setcap"),
    ("attr", "setfattr"),
    ("musl-tools", "musl-gcc"),
    ("mmdebstrap", "mmdebstrap"),
    ("e2fsprogs", "mkfs.ext4"),
    ("iproute2", "ip"),
];

/// Programs built by Go: module, version, package below the module, name, linker flags.
struct GoProgram {
    module: &'static str,
    version: &'static str,
    package: &'static str,
    name: &'static str,
    flags: &'static str,
}

const GO_PROGRAMS: [GoProgram; 6] = [
    go("github.com/moby/buildkit", "v0.26.2", "/cmd/buildkitd", "buildkitd", ""),
    go("github.com/moby/buildkit", "v0.26.2", "/cmd/buildctl", "buildctl", ""),
    go(
        "github.com/docker/buildx",
        "v0.30.1",
        "/cmd/buildx",
        "docker-buildx",
        "-X github.com/docker/buildx/version.Version=v0.30.1",
    ),
    go("github.com/distribution/distribution/v3", "v3.1.2", "/cmd/registry", "registry", ""),
    go("github.com/google/go-containerregistry", "v0.22.1", "/cmd/crane", "crane", ""),
    go("github.com/regclient/regclient", "v0.11.7", "/cmd/regctl", "regctl", ""),
];

const fn go(
    module: &'static str,
    version: &'static str,
    package: &'static str,
    name: &'static str,
    flags: &'static str,
) -> GoProgram {
    GoProgram { module, version, package, name, flags }
}

/// The Go that is taken from the module proxy where the machine has none, or one too old.
const GO_TOOLCHAIN: &str = "go1.26.0";
/// Older ones cannot fetch the Go that a module asks for.
const OLDEST_GO: (u32, u32) = (1, 21);

/// The users that rootless tests run as, and whether they get subordinate ids.
const USERS: [(&str, bool); 2] = [("mica-subids", true), ("mica-plain", false)];

/// Gets everything it can, and ends with what it could not.
pub(crate) fn run() -> Outcome {
    let mut missing = Vec::new();
    packages(&mut missing);
    go_programs(&mut missing);
    users(&mut missing);
    debian_root(&mut missing);
    println!("peers in {}", peers_bin().display());
    for what in &missing {
        println!("MISSING: {what}");
    }
    // Tests that need what is missing skip themselves aloud: no reason to stop here.
    println!("{} missing", missing.len());
    Ok(())
}

fn absent() -> Vec<&'static str> {
    let there = |program: &str| {
        find(program).is_some() || Path::new(program).is_absolute() && Path::new(program).exists()
    };
    PACKAGES.iter().filter(|(_, program)| !there(program)).map(|(package, _)| *package).collect()
}

fn packages(missing: &mut Vec<String>) {
    let wanted = absent();
    if wanted.is_empty() {
        return;
    }
    if !is_root() || find("apt-get").is_none() {
        missing.extend(wanted.iter().map(|package| format!("package {package} (needs root and apt-get)")));
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut command = command("apt-get", arguments);
        must(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = |packages: &[&str]| {
        apt(&[&["install", "--yes", "--quiet", "--no-install-recommends"], packages].concat())
    };
    let all = apt(&["update", "--quiet"]).and_then(|()| install(&wanted));
    if all.is_err() {
        // One package that the distribution does not have must not keep the others away.
        for package in &wanted {
            if let Err(message) = install(&[package]) {
                eprintln!("{message}");
            }
        }
    }
    missing.extend(absent().iter().map(|package| format!("package {package}")));
}

fn go_programs(missing: &mut Vec<String>) {
    let wanted: Vec<&GoProgram> =
        GO_PROGRAMS.iter().filter(|program| !peers_bin().join(program.name).exists()).collect();
    // A machine may have them elsewhere; distribution's registry shares its name with others, so not that.
    let wanted: Vec<&GoProgram> = wanted
        .into_iter()
        .filter(|program| program.name == "registry" || find(program.name).is_none())
        .collect();
    if wanted.is_empty() {
        return;
    }
    let compiler = match ensure_go() {
        Ok(compiler) => compiler,
        Err(message) => {
            eprintln!("{message}");
            missing.extend(wanted.iter().map(|program| format!("{}: no Go to build it with", program.name)));
            return;
        }
    };
    for program in wanted {
        if let Err(message) = build(&compiler, program) {
            eprintln!("{message}");
            missing.push(format!("{}: its build failed, see above", program.name));
        }
    }
}

/// A Go that is new enough: the machine's, or one from the module proxy.
fn ensure_go() -> Outcome<PathBuf> {
    let fetched = target().join("peers/go/bin/go");
    let candidates = find("go").into_iter().chain([fetched.clone()]);
    for candidate in candidates {
        let version = read(&mut command(&candidate, &["version"])).unwrap_or_default();
        if go_version(&version).is_some_and(|version| version >= OLDEST_GO) {
            return Ok(candidate);
        }
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(format!("no Go for {other}")),
    };
    let proxies = std::env::var("GOPROXY").unwrap_or_default();
    let proxy = proxies.split([',', '|']).find(|proxy| proxy.starts_with("http"));
    let proxy = proxy.unwrap_or("https://proxy.golang.org").trim_end_matches('/');
    let version = format!("v0.0.1-{GO_TOOLCHAIN}.linux-{architecture}");
    let url = format!("{proxy}/golang.org/toolchain/@v/{version}.zip");
    let folder = target().join("peers");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let fetch = "curl -fsSL -o go.zip \"$1\" && rm -rf go golang.org && python3 -m zipfile -e go.zip . && \
                 mv \"golang.org/toolchain@$2\" go && chmod -R u+rwX,+x go/bin go/pkg/tool && rm go.zip";
    must(command("sh", &["-c", fetch, "sh", &url, &version]).current_dir(&folder))?;
    Ok(fetched)
}

/// `go version go1.26.0 linux/amd64`
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(' ').nth(2)?.strip_prefix("go")?.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()?;
    Some((major, minor))
}

/// Builds in a throw-away module: modules with `replace` lines refuse `go install module@version`.
fn build(compiler: &Path, program: &GoProgram) -> Outcome {
    let name = program.module.replace('/', "-");
    let module = target().join("peers/modules").join(name);
    std::fs::create_dir_all(&module).map_err(|error| format!("{}: {error}", module.display()))?;
    let go = |arguments: &[&str]| -> Command {
        let mut command = command(compiler, arguments);
        command.current_dir(&module).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
        // `find` has put the compiler's own folder nowhere: Go starts itself again for newer toolchains.
        command.env("GOTOOLCHAIN", "auto");
        command
    };
    if !module.join("go.mod").exists() {
        must(&mut go(&["mod", "init", "peers"]))?;
    }
    let wanted = format!("{}@{}", program.module, program.version);
    must(&mut go(&["get", &wanted]))?;
    let output = peers_bin().join(program.name);
    let output = std::path::absolute(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    let package = format!("{}{}", program.module, program.package);
    must(&mut go(&["build", "-ldflags", program.flags, "-o", &output.to_string_lossy(), &package]))
}

fn users(missing: &mut Vec<String>) {
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for (name, subordinate_ids) in USERS {
        if known.lines().any(|line| line.split(':').next() == Some(name)) {
            continue;
        }
        let outcome = if is_root() { add_user(name, subordinate_ids) } else { Err("needs root".into()) };
        if let Err(message) = outcome {
            missing.push(format!("test user {name}: {message}"));
        }
    }
}

fn add_user(name: &str, subordinate_ids: bool) -> Outcome {
    must(&mut command("useradd", &["--create-home", "--shell", "/bin/sh", name]))?;
    let ranges = |flag: &str| {
        let text = std::fs::read_to_string(if flag == "uids" { "/etc/subuid" } else { "/etc/subgid" });
        let text = text.unwrap_or_default();
        text.lines().filter(|line| line.split(':').next() == Some(name)).map(range).collect::<Vec<_>>()
    };
    for flag in ["uids", "gids"] {
        let there = ranges(flag);
        if subordinate_ids && there.is_empty() {
            must(&mut command("usermod", &[&format!("--add-sub{flag}"), "700000-765535", name]))?;
        }
        if !subordinate_ids {
            // Some distributions give ranges to every new user.
            for range in there {
                must(&mut command("usermod", &[&format!("--del-sub{flag}"), &range, name]))?;
            }
        }
    }
    Ok(())
}

/// `name:first:count` as usermod wants it.
fn range(line: &str) -> String {
    let mut numbers = line.split(':').skip(1).map(|number| number.parse::<u64>().unwrap_or(0));
    let (first, count) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(1));
    format!("{first}-{}", first + count.saturating_sub(1))
}

/// A Debian root file system, the base image of tests and benchmarks.
fn debian_root(missing: &mut Vec<String>) {
    if crate::run::debian_tar().is_some() {
        return;
    }
    if !is_root() || find("mmdebstrap").is_none() {
        missing.push("debian.tar: needs root and mmdebstrap".into());
        return;
    }
    let tar = target().join("peers/debian.tar");
    let partial = target().join("peers/partial.tar");
    let shown = partial.to_string_lossy();
    let made = must(&mut command("mmdebstrap", &["--variant=minbase", "bookworm", &shown])).and_then(|()| {
        std::fs::rename(&partial, &tar).map_err(|error| format!("{}: {error}", tar.display()))
    });
    if let Err(message) = made {
        eprintln!("{message}");
        missing.push("debian.tar: mmdebstrap failed, see above".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(go_version("go version go1.19rc1 linux/amd64"), Some((1, 19)));
        assert_eq!(go_version("command not found"), None);
    }

    #[test]
    fn subordinate_ranges_are_written_for_usermod() {
        assert_eq!(range("ann:100000:65536"), "100000-165535");
    }
}
