//! `inspect`: a container as docker's JSON.

use mica_api::{ContainerDetails, ContainerState, Result, Timestamp};
use serde_json::{Map, Value, json};

use super::list::{Container, image_id, network_name};
use super::spec::Spec;
use super::volumes::Mounted;
use super::{log, options};
use crate::LocalEngine;
use crate::times::rfc3339;

/// docker's text for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// docker's default size of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

/// `inspect`.
pub(crate) fn inspect(engine: &LocalEngine, query: &str) -> Result<ContainerDetails> {
    let container = Container::find(engine, query)?;
    let json = document(engine, &container);
    Ok(ContainerDetails { id: container.record.id.to_string(), name: container.record.name, json })
}

fn document(engine: &LocalEngine, container: &Container) -> Value {
    let Container { record, spec, .. } = container;
    let directory = engine.store().state().container(&record.id);
    let argv = spec.argv();
    json!({
        "Id": record.id.as_str(),
        "Created": rfc3339(record.created),
        "Path": argv.first(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state(container),
        "Image": image_id(container).to_string(),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": log::path(&directory, record.id.as_str()),
        "Name": format!("/{}", record.name),
        "RestartCount": 0,
        "Driver": engine.store().flavour().driver.to_string(),
        "Platform": spec.platform.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config(spec),
        "GraphDriver": {"Name": engine.store().flavour().driver.to_string(), "Data": {"UpperDir": directory.join("fs"), "WorkDir": directory.join("work"), "MergedDir": directory.join("merged")}},
        "Mounts": spec.volumes.iter().map(mount).collect::<Vec<_>>(),
        "Config": config(spec),
        "NetworkSettings": {"Ports": {}, "Networks": {network_name(spec.network): {"IPAddress": "", "Gateway": ""}}},
    })
}

fn state(container: &Container) -> Value {
    let truth = container.state.truth();
    let process = container.state.process();
    let time = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), |time| rfc3339(time.0));
    json!({
        "Status": match truth {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
            ContainerState::Dead => "dead",
        },
        "Running": truth == ContainerState::Running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": false,
        "Dead": truth == ContainerState::Dead,
        "Pid": process.map_or(0, |process| process.pid),
        "ExitCode": container.state.shown_exit_code().unwrap_or_default(),
        "Error": container.state.error,
        "StartedAt": time(container.state.started),
        "FinishedAt": time(container.state.finished),
    })
}

fn host_config(spec: &Spec) -> Value {
    let binds: Vec<String> = spec.volumes.iter().filter_map(bind).collect();
    let tmpfs: Map<String, Value> =
        spec.tmpfs.iter().map(|(path, options)| (path.clone(), options.clone().into())).collect();
    let hosts: Vec<String> =
        spec.extra_hosts.iter().map(|(host, address)| format!("{host}:{address}")).collect();
    json!({
        "Binds": if binds.is_empty() { Value::Null } else { binds.into() },
        "ContainerIDFile": spec.cid_file.as_deref().unwrap_or("".as_ref()),
        "LogConfig": {"Type": "json-file", "Config": {}},
        "NetworkMode": network_name(spec.network),
        "PortBindings": {},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": spec.remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "CapAdd": or_null(&spec.cap_add),
        "CapDrop": or_null(&spec.cap_drop),
        "CgroupnsMode": "private",
        "Dns": [], "DnsOptions": [], "DnsSearch": [],
        "ExtraHosts": or_null(&hosts),
        "GroupAdd": or_null(&spec.groups),
        "IpcMode": "private",
        "PidMode": "",
        "Privileged": spec.privileged,
        "PublishAllPorts": false,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": or_null(&spec.security_opt),
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": spec.shm_bytes.unwrap_or(SHM_BYTES),
        "Tmpfs": tmpfs,
        "Runtime": spec.runtime.as_ref().map_or("mica".into(), |path| path.display().to_string()),
        "PidsLimit": spec.pids_limit,
        "Ulimits": spec.ulimits.iter().filter_map(|text| options::ulimit(text).ok()).map(|limit| json!({
            "Name": limit.name,
            "Hard": limit.hard.map_or(-1, u64::cast_signed),
            "Soft": limit.soft.map_or(-1, u64::cast_signed),
        })).collect::<Vec<_>>(),
        "Memory": 0, "NanoCpus": 0, "CpuShares": 0,
    })
}

fn or_null(texts: &[String]) -> Value {
    if texts.is_empty() { Value::Null } else { texts.into() }
}

/// A mount as `-v` asked for it. Volumes that the image wants are nobody's words.
fn bind(mount: &Mounted) -> Option<String> {
    let mode = if mount.read_only { ":ro" } else { "" };
    let source = mount.volume.clone().unwrap_or_else(|| mount.source.display().to_string());
    mount.asked_for.then(|| format!("{source}:{}{mode}", mount.target))
}

fn mount(mount: &Mounted) -> Value {
    let mode = if mount.read_only { "ro" } else { "" };
    match &mount.volume {
        Some(name) => json!({
            "Type": "volume",
            "Name": name,
            "Source": mount.source,
            "Destination": mount.target,
            "Driver": "local",
            "Mode": mode,
            "RW": !mount.read_only,
            "Propagation": "",
        }),
        None => json!({
            "Type": "bind",
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": mode,
            "RW": !mount.read_only,
            "Propagation": "rprivate",
        }),
    }
}

/// `Config`: the image's config as the container has it, and what only containers have.
fn config(spec: &Spec) -> Value {
    let process = &spec.process;
    let mut config = json!({
        "Hostname": spec.hostname,
        "Domainname": "",
        "User": process.user,
        "AttachStdin": spec.interactive,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": spec.terminal,
        "OpenStdin": spec.interactive,
        "StdinOnce": spec.interactive,
        "Env": process.env,
        "Cmd": or_null(&process.cmd),
        "Image": spec.image,
        "Volumes": process.volumes,
        "WorkingDir": process.working_dir,
        "Entrypoint": or_null(&process.entrypoint),
        "OnBuild": null,
        "Labels": process.labels,
    });
    let optional = [
        ("StopSignal", json!(process.stop_signal), process.stop_signal.is_empty()),
        ("ExposedPorts", json!(process.exposed_ports), process.exposed_ports.is_none()),
        ("Healthcheck", json!(process.healthcheck), process.healthcheck.is_none()),
        ("Shell", json!(process.shell), process.shell.is_empty()),
    ];
    for (key, value, empty) in optional {
        if !empty {
            config[key] = value;
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use mica_api::RunRequest;

    use super::super::spec::tests::spec;
    use super::*;

    #[test]
    fn what_was_asked_for_is_shown_under_dockers_keys() {
        let mounted = |volume: Option<&str>, asked_for| Mounted {
            volume: volume.map(str::to_owned),
            source: PathBuf::from("/src"),
            target: "/dst".into(),
            read_only: true,
            copies: volume.is_some(),
            asked_for,
        };
        let request = RunRequest {
            image: "app".into(),
            cap_add: vec!["SYS_TIME".into()],
            ulimits: vec!["nofile=1:2".into()],
            stop_signal: Some("INT".into()),
            ..RunRequest::default()
        };
        let mut spec = spec(request).unwrap();
        spec.volumes = vec![mounted(None, true), mounted(Some("data"), true), mounted(Some("0123"), false)];
        let host = host_config(&spec);
        assert_eq!(host["Binds"], json!(["/src:/dst:ro", "data:/dst:ro"]));
        assert_eq!(mount(&spec.volumes[2])["Name"], "0123");
        assert_eq!(host["CapAdd"], json!(["SYS_TIME"]));
        assert_eq!(host["CapDrop"], Value::Null);
        assert_eq!(host["Ulimits"][0], json!({"Name": "nofile", "Soft": 1, "Hard": 2}));
        let config = config(&spec);
        assert_eq!(config["Image"], "app");
        assert_eq!(config["StopSignal"], "INT");
        assert_eq!(config["Entrypoint"], json!(["/entry"]));
        assert!(config.get("Healthcheck").is_none());
    }
}
