//! /etc/hosts and /etc/resolv.conf of RUN steps (build.md R6).

use std::fmt::Write as _;

/// `/etc/hosts`: loopback under the step's own name, then `--add-host` in order.
pub(super) fn hosts_file(hostname: &str, extra: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        // steps are on the host's network: the host is where they are themselves
        let address = if address == "host-gateway" { "127.0.0.1" } else { address };
        // writing to a String cannot fail
        let _ = writeln!(text, "{address}\t{name}");
    }
    text.into_bytes()
}

/// `/etc/resolv.conf`: the host's, because steps are on the host's network until networks exist.
pub(super) fn resolv_conf() -> Vec<u8> {
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_knows_its_own_name_and_the_hosts_added() {
        let extra = [("db", "10.0.0.1"), ("host", "host-gateway")].map(|(n, a)| (n.to_owned(), a.to_owned()));
        let text = hosts_file("buildkitsandbox", &extra);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n127.0.0.1\thost\n"
        );
    }
}
