//! What docker's structs have though the JSON leaves it out, or though mica has nothing to say about it: templates may
//! ask for it, as they may of docker, and get what Go has for a field that nobody set.

use serde_json::{Value, json};

use super::template;

/// An object with what its templates may ask for besides.
pub(crate) fn added_to(object: &Value) -> Value {
    let mut object = object.clone();
    add(&mut object, "/Config", config());
    if object.get("RootFS").is_some() {
        add(&mut object, "", json!({"Variant": "", "OsVersion": ""}));
    }
    add(&mut object, "/State", json!({"Health": null}));
    add(&mut object, "/HostConfig", host_config());
    add(&mut object, "/NetworkSettings", network_settings());
    object
}

fn add(object: &mut Value, place: &str, defaults: Value) {
    let Some(fields) = object.pointer_mut(place).and_then(Value::as_object_mut) else { return };
    let known = fields.entry(template::DEFAULTS).or_insert_with(|| json!({}));
    if let (Some(known), Value::Object(defaults)) = (known.as_object_mut(), defaults) {
        known.extend(defaults);
    }
}

fn config() -> Value {
    json!({
        "User": "", "WorkingDir": "", "StopSignal": "", "Env": [], "Cmd": [], "Entrypoint": [], "OnBuild": [],
        "Shell": [], "Labels": {}, "ExposedPorts": {}, "Volumes": {}, "Healthcheck": null, "ArgsEscaped": false,
        // of containers, but docker's images had them too
        "Hostname": "", "Domainname": "", "Image": "", "Tty": false, "OpenStdin": false, "StdinOnce": false,
        "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
    })
}

fn host_config() -> Value {
    json!({
        "Cgroup": "", "CgroupParent": "", "ConsoleSize": [], "CpuCount": 0, "CpuPercent": 0, "CpuPeriod": 0,
        "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "",
        "BlkioWeight": 0, "Devices": [], "DeviceCgroupRules": [], "DeviceRequests": [], "Isolation": "",
        "Links": [], "MaskedPaths": [], "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": null,
        "OomKillDisable": null, "OomScoreAdj": 0, "ReadonlyPaths": [],
    })
}

fn network_settings() -> Value {
    json!({
        "Bridge": "", "SandboxID": "", "SandboxKey": "", "HairpinMode": false, "EndpointID": "", "Gateway": "",
        "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
        "MacAddress": "", "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(template: &str, object: &Value) -> String {
        template::render(template, &added_to(object)).unwrap()
    }

    #[test]
    fn what_is_not_there_is_what_go_has_for_it() {
        let container = json!({
            "State": {"Status": "running"}, "HostConfig": {"Memory": 5}, "NetworkSettings": {"Ports": {}},
        });
        let template = "{{.State.Health}}|{{.HostConfig.Memory}}|{{.HostConfig.CpuQuota}}|{{json .HostConfig.Devices}}|\
            {{.NetworkSettings.IPAddress}}|{{.NetworkSettings.Ports}}";
        assert_eq!(show(template, &container), "<no value>|5|0|null||map[]");
        assert_eq!(show("[{{.Variant}}]", &json!({"RootFS": {}})), "[]");
        assert_eq!(show("{{json .State}}", &container), r#"{"Status":"running"}"#);
    }
}
