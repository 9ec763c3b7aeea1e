//! `mica registry serve`: a registry over a folder, until a signal ends it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mica_api::{Class, Error, Fault, Timestamp};
use mica_registry::{
    Access, AccessLine, Observer, Passwords, ProxyRule, Quota, QuotaRule, Registry, Rule, Settings, Tls,
    Webhook,
};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, io_failure};
use crate::flags::Verb;
use crate::format::units::parse_binary;
use crate::output::Out;
use crate::signals::Watch;
use crate::values::moment::go_duration;

/// Transfers that are still going on this long after a signal are cut.
const DRAIN: Duration = Duration::from_secs(30);
/// Uploads without a byte for this long are removed.
const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// Serve a registry (OCI distribution 1.1) from a folder
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Listen here; any address but this machine's own needs --htpasswd, --allow or --insecure-open
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    addr: String,
    /// Keep everything in this folder (default: `mica-registry` beside the store)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Users and bcrypt hashes, as `htpasswd -B` writes them; read again when it changes
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Who may do what: `alice=pull,push:team/**`, `anonymous=pull`, `users=all` (repeatable)
    #[arg(long, value_name = "WHO=RIGHTS[:REPOSITORIES]")]
    allow: Vec<Rule>,
    /// Speak TLS with this certificate chain (PEM); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Ask clients for tokens, which this registry gives out for passwords, instead of passwords
    #[arg(long)]
    tokens: bool,
    /// What clients reach this registry under, if a proxy changes that
    #[arg(long, value_name = "URL", value_parser = front)]
    url: Option<String>,
    /// Let everybody who reaches the address push and delete
    #[arg(long)]
    insecure_open: bool,
    /// Refuse every deletion
    #[arg(long)]
    no_delete: bool,
    /// Keep what no manifest needs for this long
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    grace: Duration,
    /// Store no more than this (`50GB`), or so much in each repository of a pattern (`team/*=5GB`, repeatable)
    #[arg(long, value_name = "[REPOSITORIES=]SIZE", value_parser = limit)]
    quota: Vec<Limit>,
    /// Remove manifests this long after their last tag has gone (default: never)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expire_untagged: Option<Duration>,
    /// Cache another registry below a prefix (`docker.io=https://registry-1.docker.io`), or as a whole (repeatable)
    #[arg(long, value_name = "[PREFIX=]URL")]
    proxy: Vec<String>,
    /// Tell this URL of every push and deletion, in docker's event format; kept until it has answered
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Sign events with what is in this file (`X-Hub-Signature-256`)
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_secret: Option<PathBuf>,
    /// Print a line per request: text, json or none
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json", "none"])]
    log: String,
}

impl Verb for ServeArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let data = self.data.clone().unwrap_or_else(|| cx.environment.default_registry());
        let data = std::path::absolute(&data).unwrap_or(data);
        let address = resolve(&self.addr)?;
        let access = self.access(address)?;
        let open = access.is_open();
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        let settings = Settings {
            data: data.clone(),
            address,
            access,
            tls: self.tls()?,
            tokens: self.tokens,
            url: self.url.clone(),
            deletes: !self.no_delete,
            grace: self.grace,
            quota: self.quota(),
            untagged: self.expire_untagged,
            webhook: self.webhook()?,
            proxies: self.proxy.iter().map(|text| proxy(text)).collect(),
            upload_age: UPLOAD_AGE,
            drain: DRAIN,
        };
        let log = Arc::new(Log { out: cx.out.clone(), err: cx.err.clone(), format: self.log });
        // Before any thread of the registry, so that all of them leave signals to the one that reads them.
        let (sender, receiver) = std::sync::mpsc::channel();
        let watch = Watch::start_with(move || {
            // The registry has ended by itself.
            let _gone = sender.send(());
        });
        raise_descriptor_limit();
        let registry = Registry::bind(settings, log).map_err(|error| failure(&error))?;
        cx.out.line(&started(&data, scheme, registry.address(), open))?;
        let stopper = registry.stopper();
        std::thread::spawn(move || {
            while receiver.recv().is_ok() {
                stopper.stop();
            }
        });
        registry.serve().map_err(|error| failure(&error))?;
        drop(watch);
        Ok(Status::default())
    }
}

/// One `--quota`.
#[derive(Debug, Clone)]
enum Limit {
    Total(u64),
    Each(QuotaRule),
}

/// A prefix has no colon, and what comes before a URL's first one is no prefix.
fn proxy(text: &str) -> ProxyRule {
    match text.split_once('=').filter(|(prefix, _)| !prefix.contains(':')) {
        Some((prefix, url)) => ProxyRule { prefix: prefix.to_owned(), url: url.to_owned() },
        None => ProxyRule { prefix: String::new(), url: text.to_owned() },
    }
}

fn limit(text: &str) -> Result<Limit, String> {
    let size = |text: &str| parse_binary(text).map_err(|error| error.to_string());
    match text.rsplit_once('=') {
        None => size(text).map(Limit::Total),
        Some((repositories, text)) => {
            Ok(Limit::Each(QuotaRule { repositories: repositories.to_owned(), bytes: size(text)? }))
        }
    }
}

impl ServeArgs {
    fn quota(&self) -> Quota {
        let mut quota = Quota::default();
        for limit in &self.quota {
            match limit {
                Limit::Total(bytes) => quota.total_bytes = Some(*bytes),
                Limit::Each(rule) => quota.repositories.push(rule.clone()),
            }
        }
        quota
    }

    fn webhook(&self) -> Result<Option<Webhook>, Failure> {
        let Some(url) = self.webhook.clone() else { return Ok(None) };
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path);
            bytes.map_err(|error| io_failure(format!("cannot read {}", path.display()), &error))
        };
        let secret = self.webhook_secret.as_ref().map(read).transpose()?;
        Ok(Some(Webhook { url, secret: secret.map(|bytes| bytes.trim_ascii().to_vec()) }))
    }

    fn tls(&self) -> Result<Option<Tls>, Failure> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        Tls::read(certificate, key).map(Some).map_err(|error| failure(&error))
    }

    fn access(&self, address: SocketAddr) -> Result<Access, Failure> {
        let access = match &self.htpasswd {
            Some(path) => {
                let passwords = Passwords::read(path).map_err(|error| failure(&error))?;
                Access::with_passwords(passwords, self.allow.clone())
            }
            None if self.allow.is_empty() => Access::open(),
            None => Access::without_passwords(self.allow.clone()),
        };
        if access.is_open() && !address.ip().is_loopback() && !self.insecure_open {
            let refused = Error::new(Class::Denied, format!("{address} can be reached from other machines"))
                .why("without --htpasswd or --allow, everybody could push and delete")
                .hint("--htpasswd FILE, or --allow anonymous=pull, or --insecure-open");
            return Err(refused.into());
        }
        Ok(access)
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = go_duration(text).and_then(|value| u64::try_from(value).ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| "not a duration like 1h30m".to_owned())
}

fn front(text: &str) -> Result<String, String> {
    let is_web = text.starts_with("http://") || text.starts_with("https://");
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if is_web && is_plain {
        Ok(text.to_owned())
    } else {
        Err("not a URL like https://registry.example.org".to_owned())
    }
}

/// As many connections as the system allows: its default is meant for programs that open files.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the registry has fewer connections.
    let _fewer = setrlimit(Resource::Nofile, limit);
}

/// `host:port`, or `:port` for every address of this machine.
fn resolve(text: &str) -> Result<SocketAddr, Failure> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let invalid = |why: String| {
        Failure::from(
            Error::new(Class::Invalid, format!("cannot listen on {text}"))
                .why(why)
                .hint("--addr 127.0.0.1:5000"),
        )
    };
    let mut found = full.to_socket_addrs().map_err(|error| invalid(error.to_string()))?;
    found.next().ok_or_else(|| invalid("the name has no address".to_owned()))
}

fn failure(error: &dyn Fault) -> Failure {
    Error::from_fault(error).into()
}

fn started(data: &Path, scheme: &str, address: SocketAddr, open: bool) -> String {
    let who = if open { ", open to everybody who reaches it" } else { "" };
    format!("serving {} on {scheme}://{address}{who}", data.display())
}

/// Prints what the registry tells.
struct Log {
    out: Out,
    err: Out,
    format: String,
}

impl Observer for Log {
    fn accessed(&self, line: &AccessLine) {
        let text = match self.format.as_str() {
            "none" => return,
            "json" => json_line(line, Timestamp::now()),
            _ => text_line(line, Timestamp::now()),
        };
        // A log that nobody takes does not keep the registry from serving.
        let _unheard = self.out.line(&text);
    }

    fn notice(&self, text: &str) {
        let _unheard = self.err.line(&format!("mica registry: {text}"));
    }
}

fn moment(now: Timestamp) -> String {
    let milliseconds = jiff::Timestamp::from_millisecond(now.0 / 1_000_000);
    milliseconds.map(|time| format!("{time:.3}")).unwrap_or_default()
}

fn text_line(line: &AccessLine, now: Timestamp) -> String {
    let mut text = format!(
        "{} {} {} \"{} {}\" {} {} {:.1}ms {}",
        moment(now),
        line.remote,
        line.user.as_deref().unwrap_or("-"),
        line.method,
        line.target,
        line.status,
        line.sent_bytes,
        line.took.as_secs_f64() * 1000.0,
        line.request_id,
    );
    for word in [line.code, line.cause.as_deref()].into_iter().flatten() {
        text.push(' ');
        text.push_str(word);
    }
    text
}

fn json_line(line: &AccessLine, now: Timestamp) -> String {
    serde_json::json!({
        "time": moment(now),
        "remote": line.remote,
        "user": line.user,
        "method": line.method,
        "target": line.target,
        "status": line.status,
        "code": line.code,
        "cause": line.cause,
        "sentBytes": line.sent_bytes,
        "milliseconds": line.took.as_secs_f64() * 1000.0,
        "requestId": line.request_id,
        "userAgent": line.agent,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, golden};

    #[test]
    fn an_open_registry_stays_on_this_machine() {
        golden("registry-serve-open", &Bench::new().run(&["registry", "serve", "--addr", ":0"]).text());
    }

    #[test]
    fn addresses_may_leave_the_host_out() {
        assert_eq!(resolve(":5000").unwrap(), "0.0.0.0:5000".parse().unwrap());
        assert_eq!(resolve("[::1]:5000").unwrap(), "[::1]:5000".parse().unwrap());
        assert!(resolve("5000").is_err());
    }

    #[test]
    fn a_request_is_a_line() {
        let line = AccessLine {
            remote: [127, 0, 0, 1].into(),
            user: None,
            method: "GET".to_owned(),
            target: "/v2/a/manifests/x".to_owned(),
            status: 404,
            code: Some("MANIFEST_UNKNOWN"),
            cause: None,
            sent_bytes: 120,
            took: Duration::from_micros(1500),
            request_id: "1-2".to_owned(),
            agent: Some("crane".to_owned()),
        };
        let now = Timestamp(1_700_000_000_000_000_000);
        assert!(
            text_line(&line, now)
                .ends_with("127.0.0.1 - \"GET /v2/a/manifests/x\" 404 120 1.5ms 1-2 MANIFEST_UNKNOWN")
        );
        let json: serde_json::Value = serde_json::from_str(&json_line(&line, now)).unwrap();
        assert_eq!((&json["status"], &json["remote"]), (&404.into(), &"127.0.0.1".into()));
    }
}
