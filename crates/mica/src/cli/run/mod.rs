//! `mica run`: a program in a new container.

mod foreign;
mod mounts;
mod pull;
mod request;

use pull::PullPolicy;
pub(super) use request::platform;

use std::path::PathBuf;

use mica_api::{Class, Error, RunIo};
use mica_oci::Platform;

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status};
use crate::flags::{Foreign, Verb};
use crate::format::units;
use crate::output;
use crate::values::hosts;

/// Run a program in a new container of an image
#[derive(Debug, clap::Args)]
#[command(
    long_about = "\
Run a program in a new container of an image, in the foreground.

The container gets its own file system (the image, and a layer for what it changes), process ids, host name and IPC. \
Words after the image replace the image's CMD; flags after the image belong to the program. The exit code is the \
program's: 128+N if signal N ended it, 125 if mica failed, 126 if the program cannot be invoked, 127 if it is not \
found.",
    after_long_help = "\
Examples:
  A shell in a container that is gone afterwards:
    $ mica run --rm -it alpine sh

  A build tool on the files of this directory, without network:
    $ mica run --rm -v \"$PWD:/src\" -w /src --network none golang:1 go build ./...

  A program that may change nothing but /tmp:
    $ mica run --rm --read-only --tmpfs /tmp app

  Variables from here and from a file:
    $ mica run --rm -e HOME -e MODE=test --env-file ./env app"
)]
pub(crate) struct RunArgs {
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:IP", value_parser = hosts::add_host)]
    add_host: Vec<(String, String)>,
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Write the container's ID to this file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Start this program instead of the image's ENTRYPOINT
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Set an environment variable; a name alone takes its value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the environment variables of this file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Add groups to the program
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Label the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Label the container from this file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// `--mount`, its grammar in the help.
    #[arg(
        long,
        value_name = "MOUNT",
        help = "Mount something: type=volume,source=NAME,target=DIR[,readonly], type=bind,source=DIR,target=DIR[,readonly] or type=tmpfs,target=DIR[,tmpfs-size=BYTES]"
    )]
    mount: Vec<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Network: none (only loopback) or host
    #[arg(long, alias = "net", value_name = "MODE")]
    network: Option<String>,
    /// How many processes there may be at once; -1 is no limit
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// Platform of the image: linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Give the program all privileges mica has
    #[arg(long)]
    privileged: bool,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing", hide_possible_values = true)]
    pull: PullPolicy,
    /// Print nothing about pulling
    #[arg(short, long)]
    quiet: bool,
    /// Do not let the program change its root file system
    #[arg(long)]
    read_only: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Run with this OCI runtime: runc, crun or a path
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<PathBuf>,
    /// Security option: seccomp=FILE, no-new-privileges, apparmor=PROFILE
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Size of /dev/shm: 64m
    #[arg(long, value_name = "BYTES", value_parser = units::parse_binary)]
    shm_size: Option<u64>,
    /// Signal that asks the program to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Mount a tmpfs
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Limit a resource
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = hosts::ulimit)]
    ulimit: Vec<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Mount a directory or file of this machine
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<String>,
    /// Start in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Image, and what to run in it
    #[arg(value_name = "IMAGE", trailing_var_arg = true)]
    words: Vec<String>,
}

impl Verb for RunArgs {
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    const FOREIGN: &'static [Foreign] = foreign::FLAGS;

    fn run(self, cx: &Cx) -> Outcome {
        let (policy, quiet) = (self.pull, self.quiet);
        let request = self.request(cx).map_err(as_run)?;
        if request.terminal && request.interactive && !cx.stdin_is_terminal {
            // the client's own refusal, as docker's: 1, not the engine's 125
            return Err(Error::new(Class::Invalid, "the input device is not a TTY")
                .hint("leave out -t")
                .into());
        }
        let io = io(request.interactive || request.terminal).map_err(|error| {
            as_run(crate::failure::io_failure("cannot hand standard streams to the container", &error))
        })?;
        // The engine passes signals on to the program.
        let engine = cx.engine_with_signals().map_err(as_run)?;
        let order = (request.image.as_str(), request.platform.as_ref());
        pull::as_needed(cx, engine, order, (policy, quiet)).map_err(as_run)?;
        match engine.run(request, io, &cx.cancel, &cx.err) {
            Ok(exit) => Ok(Status(exit.code)),
            Err(error) => Err(Failure::Run(Box::new(error))),
        }
    }
}

fn as_run(failure: Failure) -> Failure {
    match failure {
        Failure::Engine(error) => Failure::Run(error),
        other => other,
    }
}

fn io(stdin: bool) -> std::io::Result<RunIo> {
    Ok(RunIo {
        stdin: if stdin { Some(output::stdin_fd()?) } else { None },
        stdout: output::stdout_fd()?,
        stderr: output::stderr_fd()?,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn the_exit_code_is_the_programs() {
        let bench = Bench::new();
        assert_eq!(bench.run(&["run", "--rm", "app", "sh", "-c", "exit 7"]).status, 7);
        golden("run-calls", &bench.calls());
        assert_eq!(Bench::new().run(&["run", "nope"]).status, 125);
        assert_eq!(Bench::new().run(&["run", "app", "not-found"]).status, 127);
        assert_eq!(Bench::new().run(&["run", "app", "not-invocable"]).status, 126);
    }

    #[test]
    fn flags_after_the_image_belong_to_the_program() {
        let bench = Bench::new();
        assert_eq!(bench.run(&["run", "-it=false", "--rm", "app", "ls", "--rm", "-la"]).text(), "exit 0\n");
        assert!(bench.calls().contains(r#"command: ["ls", "--rm", "-la"]"#), "{}", bench.calls());
        let attached = Bench::new();
        assert_eq!(attached.run(&["run", "-eA=b", "-w/tmp", "-u", "-1", "app", "-x"]).text(), "exit 0\n");
        assert!(attached.calls().contains(r#"command: ["-x"]"#), "{}", attached.calls());
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        golden("run-detach", &Bench::new().run(&["run", "-d", "app"]).text());
        golden("run-publish", &Bench::new().run(&["run", "-p", "80:80", "app"]).text());
        golden("run-memory", &Bench::new().run(&["run", "--network", "mynet", "app"]).text());
        golden("run-no-image", &Bench::new().run(&["run", "--rm"]).text());
        golden("run-tty", &Bench::new().run(&["run", "-it", "app"]).text());
    }

    #[test]
    fn the_manual_explains_exit_codes_and_has_examples() {
        golden("run-help", &Bench::new().run(&["run", "--help"]).text());
    }
}
