//! `--add-host`, `--ulimit`: values that `build` and `run` share (build.md O5).

use std::net::IpAddr;

/// `host:ip` or `host=ip`; an IPv6 address may be in brackets; `host-gateway` stands for the host.
///
/// # Errors
/// docker's words for a text that is none.
pub(crate) fn add_host(text: &str) -> Result<(String, String), String> {
    let (name, address) = match text.split_once('=') {
        Some(pair) => pair,
        None => text.split_once(':').ok_or_else(|| format!("bad format for add-host: {text:?}"))?,
    };
    if name.is_empty() {
        return Err(format!("bad format for add-host: {text:?}"));
    }
    if address == "host-gateway" {
        return Ok((name.to_owned(), address.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match bare.parse::<IpAddr>() {
        Ok(_) => Ok((name.to_owned(), bare.to_owned())),
        Err(_) => Err(format!("invalid IP address in add-host: {address:?}")),
    }
}

const LIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; -1 is no limit.
///
/// # Errors
/// go-units' words for a text that is none.
pub(crate) fn ulimit(text: &str) -> Result<String, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, values) = text.split_once('=').ok_or_else(invalid)?;
    if !LIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_separated_by_colon_or_equals() {
        let pair = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(add_host("a:1.2.3.4"), pair("a", "1.2.3.4"));
        assert_eq!(add_host("a=[::1]"), pair("a", "::1"));
        assert_eq!(add_host("a:::1"), pair("a", "::1"));
        assert_eq!(add_host("a:host-gateway"), pair("a", "host-gateway"));
        assert_eq!(add_host("a:nope").unwrap_err(), "invalid IP address in add-host: \"nope\"");
        assert_eq!(add_host("foo").unwrap_err(), "bad format for add-host: \"foo\"");
    }

    #[test]
    fn ulimits_are_checked() {
        assert_eq!(ulimit("nofile=1024:2048"), Ok("nofile=1024:2048".to_owned()));
        assert_eq!(
            ulimit("nofile=3:2").unwrap_err().split(':').next(),
            Some("ulimit soft limit must be less than or equal to hard limit")
        );
        assert_eq!(ulimit("x=1").unwrap_err(), "invalid ulimit type: x");
    }
}
