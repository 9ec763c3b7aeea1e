//! Environment variables and the files that tell a container who and where it is.

use std::fmt::Write as _;

use mica_api::NetworkMode;

use super::spec::Spec;

/// The variables recorded with a container: the request's, then those of the image that it does not set.
pub(super) fn recorded(request: &[String], image: &[String]) -> Vec<String> {
    let mut env = request.to_vec();
    env.extend(image.iter().filter(|entry| !request.iter().any(|set| name(set) == name(entry))).cloned());
    env
}

/// The variables of the process: docker's own first, the recorded ones over them.
pub(super) fn of_process(spec: &Spec) -> Vec<String> {
    let mut env = vec![mica_oci::DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", spec.hostname)];
    if spec.terminal {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &spec.process.env {
        let known = env.iter().position(|known| name(known) == name(entry));
        match (known, entry.contains('=')) {
            (Some(index), true) => env[index].clone_from(entry),
            // `-e NAME` of a variable that the caller does not have takes the default away.
            (Some(index), false) => {
                env.remove(index);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

fn name(entry: &str) -> &str {
    entry.split('=').next().unwrap_or_default()
}

/// `/etc/hosts`: docker's lines, `--add-host`, and the container's own name. On the host's network it is the host's
/// file.
pub(super) fn hosts_file(spec: &Spec) -> Vec<u8> {
    let mut text = match spec.network {
        NetworkMode::Host => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        NetworkMode::Default | NetworkMode::None => "127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             ff00::0\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n"
            .to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (host, address) in &spec.extra_hosts {
        // The host is this machine: there is no other network yet.
        let address = if address == "host-gateway" { "127.0.0.1" } else { address };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}\t{host}");
    }
    if spec.network != NetworkMode::Host {
        let _ = writeln!(text, "127.0.0.1\t{}", spec.hostname);
    }
    text.into_bytes()
}

/// `/etc/resolv.conf`: the host's, because containers are on its network or on none.
pub(super) fn resolv_conf() -> Vec<u8> {
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mica_api::RunRequest;

    use super::super::spec::tests::spec;
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_request_comes_first_and_wins() {
        let env = recorded(&strings(&["A=1", "B=2"]), &strings(&["PATH=/bin", "A=image"]));
        assert_eq!(env, ["A=1", "B=2", "PATH=/bin"]);
    }

    #[test]
    fn a_process_knows_its_path_host_and_terminal() {
        let request =
            RunRequest { env: strings(&["X=1", "TERM=dumb"]), terminal: true, ..RunRequest::default() };
        let env = of_process(&spec(request).unwrap());
        assert_eq!(env, ["PATH=/bin", "HOSTNAME=0123456789ab", "TERM=dumb", "X=1", "A=image"]);
    }

    #[test]
    fn a_name_alone_takes_a_default_away() {
        let request = RunRequest { env: strings(&["HOSTNAME"]), ..RunRequest::default() };
        assert!(!of_process(&spec(request).unwrap()).iter().any(|entry| entry.starts_with("HOSTNAME")));
    }

    #[test]
    fn added_hosts_come_before_the_containers_own_name() {
        let request =
            RunRequest { extra_hosts: vec![("db".into(), "10.0.0.1".into())], ..RunRequest::default() };
        let text = String::from_utf8(hosts_file(&spec(request).unwrap())).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.1\tdb\n127.0.0.1\t0123456789ab\n"), "{text}");
    }
}
