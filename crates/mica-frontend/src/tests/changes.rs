//! `commit --change` (Y11).

use mica_oci::ImageConfig;

use super::support::base;
use crate::{change_config, change_configs};

#[test]
fn changes_are_instructions() {
    let mut config = base();
    for change in [
        "ENV A=$PATH",
        "CMD a b",
        "LABEL l=v",
        "EXPOSE 80",
        "VOLUME /v",
        "USER u",
        "workdir sub",
        "STOPSIGNAL 9",
        "ONBUILD RUN x",
        "HEALTHCHECK NONE",
    ] {
        change_config(&mut config, change).unwrap_or_else(|error| panic!("{change}: {error}"));
    }
    assert_eq!(
        serde_json::to_string(&config.config).unwrap(),
        concat!(
            r#"{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=/bin"],"Cmd":["/bin/sh","-c","a b"],"#,
            r#""Volumes":{"/v":{}},"WorkingDir":"/sub","Labels":{"l":"v"},"StopSignal":"9","#,
            r#""Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN x"]}"#
        )
    );
    assert_eq!(config.history, base().history);
}

#[test]
fn an_entrypoint_clears_a_cmd_unless_a_change_before_it_set_that() {
    let mut config = base();
    change_configs(&mut config, ["CMD [\"c\"]", "ENTRYPOINT [\"e\"]"]).unwrap();
    assert_eq!(config.config.cmd, ["c"]);
    change_config(&mut config, "ENTRYPOINT [\"f\"]").unwrap();
    assert!(config.config.cmd.is_empty());
}

#[test]
fn other_instructions_are_not_changes_and_a_refused_list_changes_nothing() {
    let mut config = ImageConfig::default();
    for (change, text) in [
        ("RUN x", "RUN is not a valid change command"),
        ("COPY a b", "COPY is not a valid change command"),
        ("MAINTAINER x", "MAINTAINER is not a valid change command"),
        ("NONSENSE x", "unknown instruction: NONSENSE"),
        ("EXPOSE abc", "invalid containerPort: abc"),
    ] {
        let error = change_configs(&mut config, ["USER u", change]).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(config, ImageConfig::default());
}
