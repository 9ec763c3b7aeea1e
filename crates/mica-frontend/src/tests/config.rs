//! Instructions that change the config: goldens of history and config JSON (build.md 3.5, 5.1, 5.2).

use super::support::{Fake, base, build, build_with, refused};

#[test]
fn every_config_instruction_writes_the_references_history_and_config() {
    let image = build(concat!(
        "FROM base\n",
        "ENV A=b C=\"d e\"\n",
        "LABEL x=y q=r s='t'\n",
        "EXPOSE 80 443/UDP\n",
        "VOLUME /v1 /v2\n",
        "USER 1000\n",
        "STOPSIGNAL SIGTERM\n",
        "SHELL [\"/bin/bash\", \"-c\"]\n",
        "CMD echo $A\n",
        "HEALTHCHECK --interval=5s CMD true\n",
        "MAINTAINER x\n",
        "ONBUILD RUN $A\n",
        "ARG FOO=1\n",
        "RUN [\"/bin/true\", \"x\"]\n",
    ));
    assert_eq!(
        image.new_history(),
        [
            "(ENV A=b C=d e)",
            "(LABEL x=y q=r s=t)",
            "(EXPOSE [443/udp 80/tcp])",
            "(VOLUME [/v1 /v2])",
            "(USER 1000)",
            "(STOPSIGNAL SIGTERM)",
            "(SHELL [/bin/bash -c])",
            r#"(CMD ["/bin/bash" "-c" "echo $A"])"#,
            "(HEALTHCHECK {Test:[CMD-SHELL true] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0})",
            "(MAINTAINER x)",
            "(ARG FOO=1)",
            "RUN |1 FOO=1 /bin/true x # buildkit",
        ]
    );
    assert_eq!(
        image.config_json(),
        concat!(
            r#"{"User":"1000","ExposedPorts":{"443/udp":{},"80/tcp":{}},"Env":["PATH=/bin","A=b","C=d e"],"#,
            r#""Cmd":["/bin/bash","-c","echo $A"],"Volumes":{"/v1":{},"/v2":{}},"#,
            r#""Labels":{"q":"r","s":"t","x":"y"},"StopSignal":"SIGTERM","ArgsEscaped":true,"#,
            r#""Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000},"OnBuild":["RUN $A"],"#,
            r#""Shell":["/bin/bash","-c"]}"#
        )
    );
    assert_eq!(image.config.author.as_deref(), Some("x"));
}

#[test]
fn an_entrypoint_clears_an_inherited_cmd_and_keeps_one_of_the_same_stage() {
    assert_eq!(
        build("FROM base\nENTRYPOINT [\"e\"]\n").config_json(),
        r#"{"Env":["PATH=/bin"],"Entrypoint":["e"]}"#
    );
    let image = build("FROM base\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n");
    assert_eq!(
        (&image.config.config.cmd[..], &image.config.config.entrypoint[..]),
        (&["c".to_owned()][..], &["e".to_owned()][..])
    );
    let image = build("FROM base AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT exec top\n");
    assert_eq!(image.config.config.cmd, Vec::<String>::new());
    assert_eq!(image.config.config.entrypoint, ["/bin/sh", "-c", "exec top"]);
}

#[test]
fn empty_commands_are_what_they_were_written_as() {
    assert_eq!(build("FROM base\nCMD []\n").new_history(), ["(CMD [])"]);
    assert_eq!(build("FROM base\nCMD\n").config.config.cmd, ["/bin/sh", "-c", ""]);
    assert_eq!(build("FROM base\nCMD ['a']\n").config.config.cmd, ["/bin/sh", "-c", "['a']"]);
}

#[test]
fn health_checks_can_be_turned_off() {
    let image = build("FROM base\nHEALTHCHECK none\n");
    assert_eq!(image.config_json(), r#"{"Env":["PATH=/bin"],"Cmd":["sh"],"Healthcheck":{"Test":["NONE"]}}"#);
    let image = build("FROM base\nHEALTHCHECK --retries=3 CMD [\"a\", \"b\"]\n");
    assert!(image.config_json().contains(r#""Healthcheck":{"Test":["CMD","a","b"],"Retries":3}"#));
}

#[test]
fn ports_are_sorted_as_words_and_ranges_spelled_out() {
    let image = build("FROM base\nENV P=\"8-10 80\"\nEXPOSE $P 443/UDP\n");
    assert_eq!(image.new_history()[1], "(EXPOSE [443/udp 8/tcp 9/tcp 10/tcp 80/tcp])");
    refused("FROM base\nEXPOSE abc\n", 2, "invalid containerPort: abc");
    refused("FROM base\nEXPOSE 80/foo\n", 2, "invalid proto: foo");
}

#[test]
fn volumes_and_signals_are_checked_after_expansion() {
    refused("FROM base\nVOLUME $NONE\n", 2, "VOLUME specified can not be an empty string");
    refused("FROM base\nENV S=0\nSTOPSIGNAL $S\n", 3, "invalid signal: 0");
    assert_eq!(build("FROM base\nENV S=hup\nSTOPSIGNAL $S\n").config.config.stop_signal, "hup");
}

#[test]
fn a_user_may_become_empty() {
    let mut config = base();
    config.config.user = "u".to_owned();
    let image = build_with("FROM with-user\nUSER $NONE\n", &Fake::new().image("with-user", config));
    assert_eq!((image.config.config.user.as_str(), image.new_history()[0].as_str()), ("", "(USER )"));
}

#[test]
fn the_shell_of_the_base_applies() {
    let mut config = base();
    config.config.shell = vec!["/sh".to_owned(), "-x".to_owned()];
    let image =
        build_with("FROM shelled\nRUN a\nCMD b\nHEALTHCHECK CMD c\n", &Fake::new().image("shelled", config));
    assert_eq!(image.exec().args, ["/sh", "-x", "a"]);
    assert_eq!(image.config.config.cmd, ["/sh", "-x", "b"]);
    assert_eq!(image.config.config.healthcheck.unwrap().test, ["CMD-SHELL", "c"]);
}

#[test]
fn expansion_errors_name_the_word_and_the_line() {
    refused("FROM base\nLABEL x=${A\n", 2, "missing '}'");
    refused("FROM base\n\nENV a=${A:=b}\n", 3, "unsupported modifier (:=) in substitution");
    refused("FROM base\nARG V\nLABEL x=\"${V:?need a V}\"\n", 3, "need a V");
}

#[test]
fn the_expansion_matrix_of_the_specification_holds() {
    let image = build(
        "FROM base\nENV P=a/b.c.d\nLABEL a=${P%.*} b=${P%%.*} c=${P#*/} d=${P/b/X} e=${P//[.]/-} f=${U:-x} g=${U+y}\n",
    );
    let labels: Vec<&str> = image.config.config.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["a/b.c", "a/b", "b.c.d", "a/X.c.d", "a/b.c.d", "x", ""]);
}

#[test]
fn crlf_and_a_byte_order_mark_change_nothing() {
    let text = "FROM base\nENV A=b \\\n  C=d\nRUN echo a \\\n# comment\n  && echo b\n";
    let (unix, dos) = (build(text), build(&format!("\u{feff}{}", text.replace('\n', "\r\n"))));
    assert_eq!((&unix.config, unix.execs().len()), (&dos.config, dos.execs().len()));
}
