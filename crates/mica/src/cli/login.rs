//! `mica login` and `mica logout`: who we are to a registry (build.md Y19).

use std::io::{BufRead as _, Read as _};
use std::os::fd::AsFd as _;

use mica_api::{Class, Error};
use mica_engine::{Credential, Kept, RegistryError, forget_credential, keep_credential, server_name};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::Verb;

/// The registry of names without one.
const HUB: &str = "docker.io";
/// The longest password that is read.
const PASSWORD_LIMIT_BYTES: u64 = 1 << 20;

/// Remember who you are to a registry
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The credentials are tried first, and then kept where docker keeps them: with the credential
helper that its config.json names, else in that file, which only you can read.

Examples:
  mica login ghcr.io                         asks for user and password
  pass show registry | mica login -u me --password-stdin registry.example:5000
  aws ecr get-login-password | mica login -u AWS --password-stdin ID.dkr.ecr.REGION.amazonaws.com")]
pub(crate) struct LoginArgs {
    /// Password or token; others on this machine may see it
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// User
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// The registry (docker.io if none is given)
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for LoginArgs {
    const USAGE: &'static str = "[OPTIONS] [SERVER]";

    fn run(self, cx: &Cx) -> Outcome {
        let server = self.server.as_deref().map_or_else(|| HUB.to_owned(), server_name);
        let (user, password) = self.credential(cx, &server)?;
        let credential = Credential::Basic { user, password };
        let registries = cx.registries();
        let tried = registries.try_credential(&server, credential.clone(), &cx.cancel);
        for remark in registries.take_remarks() {
            cx.warn(&format!("WARNING: {remark}"));
        }
        tried.map_err(refused)?;
        let kept = keep_credential(&cx.registry_settings(), &server, &credential, &cx.cancel);
        if let Kept::File(path) = kept.map_err(failed)? {
            cx.warn(&format!("WARNING! Your credentials are stored unencrypted in '{}'.", path.display()));
        }
        cx.out.line("Login Succeeded")?;
        Ok(Status::default())
    }
}

impl LoginArgs {
    fn credential(self, cx: &Cx, server: &str) -> Result<(String, String), Failure> {
        let invalid = |text: &str| Failure::new(Class::Invalid, text);
        let from_stdin = self.password_stdin || self.password.as_deref() == Some("-");
        if self.password_stdin && self.password.is_some() {
            return Err(invalid("conflicting options: cannot specify both --password and --password-stdin"));
        }
        if from_stdin {
            let Some(user) = self.username.filter(|user| !user.is_empty()) else {
                return Err(invalid("the --password-stdin option requires --username to be set"));
            };
            return Ok((user, password_from_stdin()?));
        }
        if self.password.is_some() {
            cx.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        let asks = self.username.is_none() || self.password.is_none();
        if asks && !cx.stdin_is_terminal {
            return Err(Error::new(
                Class::Invalid,
                "Cannot perform an interactive login from a non TTY device",
            )
            .hint(format!("mica login -u USER --password-stdin {server} < FILE"))
            .into());
        }
        let user = match self.username {
            Some(user) => user,
            None => asked(cx, &format!("Username for {server}: "), Echo::On)?,
        };
        let password = match self.password {
            Some(password) => password,
            None => asked(cx, "Password: ", Echo::Off)?,
        };
        match user.is_empty() || password.is_empty() {
            true => Err(invalid("a login needs a user and a password")),
            false => Ok((user, password)),
        }
    }
}

/// All of standard input without its last line end.
fn password_from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(PASSWORD_LIMIT_BYTES).read_to_string(&mut text);
    read.map_err(|error| io_failure("cannot read the password", &error))?;
    let password = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    match password.is_empty() {
        true => Err(Failure::new(Class::Invalid, "the password on standard input is empty")),
        false => Ok(password.to_owned()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

/// Asks on the terminal.
fn asked(cx: &Cx, question: &str, echo: Echo) -> Result<String, Failure> {
    cx.out.text(question)?;
    let stdin = std::io::stdin();
    let failed = |error: rustix::io::Errno| io_failure("cannot read from the terminal", &error.into());
    let before = tcgetattr(stdin.as_fd()).map_err(failed)?;
    if echo == Echo::Off {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &quiet).map_err(failed)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if echo == Echo::Off {
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &before).map_err(failed)?;
        // the line end that was not shown
        cx.out.line("")?;
    }
    read.map_err(|error| io_failure("cannot read from the terminal", &error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Forget who you are to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The registry (docker.io if none is given)
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Verb for LogoutArgs {
    const USAGE: &'static str = "[SERVER]";

    fn run(self, cx: &Cx) -> Outcome {
        let server = self.server.as_deref().map_or_else(|| HUB.to_owned(), server_name);
        let key = mica_engine::credential_key(&server);
        cx.out.line(&format!("Removing login credentials for {key}"))?;
        forget_credential(&cx.registry_settings(), &server, &cx.cancel).map_err(failed)?;
        Ok(Status::default())
    }
}

fn failed(error: RegistryError) -> Failure {
    Error::from(error).into()
}

/// A refused login needs no advice to log in.
fn refused(error: RegistryError) -> Failure {
    let is_refusal = matches!(error.status(), Some(401 | 403));
    let mut error = Error::from(error);
    if is_refusal {
        error.hint =
            Some("check user and password; many registries want a token instead of the password".to_owned());
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn a_login_says_what_it_needs() {
        golden("login-not-a-terminal", &Bench::new().run(&["login", "r.example"]).text());
        golden("login-stdin-without-user", &Bench::new().run(&["login", "--password-stdin"]).text());
        golden("login-both", &Bench::new().run(&["login", "-u", "a", "-p", "b", "--password-stdin"]).text());
    }
}
