//! The Dockerfile language, case by case: small files, and what has to come out of them.

use mica_testkit::Mica;
use mica_tests::{Build, holds, with_base};
use serde_json::json;

/// Demands that each Dockerfile is refused with this gist; all may name the files `a` and `d/b`.
#[track_caller]
fn refused(mica: &Mica, cases: &[(&str, &str)]) {
    for (dockerfile, gist) in cases {
        Build::new(mica, dockerfile).file("a", "a").file("d/b", "b").fails(gist);
    }
}

#[test]
fn directives_end_with_the_first_line_that_is_none() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, "# c\n# escape=`\nFROM base\nRUN echo a \\\n  b > /f\n").succeeds();
    assert_eq!(built.tree().text("/f"), "a b\n");
}

#[test]
fn a_backtick_may_be_the_escape_character() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "# escape=`\nFROM base\nRUN echo 'c:\\x' `\n  b > /f\n";
    let built = Build::new(&mica, dockerfile).succeeds();
    assert_eq!(built.tree().text("/f"), "c:\\x b\n");
    assert_eq!(built.history().len(), 1);
}

#[test]
fn continued_lines_are_joined_with_nothing_between() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN ech\\\no hi>/f\nRUN echo a >/g \\\n# comment\n  && echo b >>/g\n";
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert_eq!((tree.text("/f").as_str(), tree.text("/g").as_str()), ("hi\n", "a\nb\n"));
}

#[test]
fn line_ends_and_byte_order_mark_do_not_matter() {
    let Some(mica) = with_base() else { return };
    let text = "FROM base\nENV A=1 \\\n  B=2\nRUN echo $A$B > /f\nCMD [\"/bin/sh\"]\n";
    let plain = Build::new(&mica, text).id();
    let crlf = Build::new(&mica, format!("\u{feff}{}", text.replace('\n', "\r\n"))).id();
    assert_eq!(plain, crlf);
}

#[test]
fn files_that_are_no_dockerfiles_are_refused() {
    let Some(mica) = with_base() else { return };
    let long = format!("FROM base\nRUN echo {}\n", "x".repeat(70_000));
    refused(
        &mica,
        &[
            ("# escape=\\\n# escape=\\\nFROM base\n", "only one escape parser directive can be used"),
            ("# escape=x\nFROM base\n", "invalid escape token 'x' does not match"),
            (&long, "dockerfile line greater than max allowed size of 65535"),
            (
                "FROM base\nRNU x\n",
                "dockerfile parse error on line 2: unknown instruction: RNU (did you mean RUN?)",
            ),
            ("", "the Dockerfile cannot be empty"),
            ("# only a comment\n\n", "file with no instructions"),
            ("ARG A=1\n", "dockerfile contains no stages to build"),
            ("RUN true\n", "no build stage in current context"),
            ("FROM base\nCMD [1]\n", "arrays must be comprised of strings only"),
            ("FROM base\nCOPY --form=x a b\n", "unknown flag: --form (did you mean from?)"),
            ("FROM base\nCOPY --chown=1 --chown=2 a b\n", "duplicate flag specified: --chown"),
            ("FROM base\nCOPY --chown a b\n", "missing a value on flag: --chown"),
            ("FROM base\nCOPY --link=3 a b\n", "expecting boolean value for flag --link, not: 3"),
            ("FROM base\nRUN <<EOF\ntrue\n", "unterminated heredoc"),
            ("FROM base\nCOPY a <<EOF\nEOF\n", "COPY cannot accept a heredoc as a destination"),
            ("FROM base\nCOPY a\n", "COPY requires at least two arguments, but only one was provided"),
            (
                "FROM base\nCOPY \"a b\" /y/\n",
                "unexpected end of statement while looking for matching double-quote",
            ),
            ("FROM base\nENV A\n", "ENV must have two arguments"),
            ("FROM base\nENV =x\n", "ENV names can not be blank"),
            (
                "FROM base\nENV A=1 B\n",
                "Syntax error - can't find = in \"B\". Must be of the form: name=value",
            ),
            ("FROM base AS\n", "FROM requires either one or three arguments"),
            ("FROM base AS 1a\n", "invalid name for build stage: \"1a\""),
            ("FROM base\nCOPY --from=$X a /\n", "variable expansion is not supported for --from"),
            ("FROM base\nSHELL /bin/sh\n", "SHELL requires the arguments to be in JSON form"),
            ("FROM base\nVOLUME []\n", "VOLUME requires at least one argument"),
            ("FROM base\nSTOPSIGNAL 0\n", "invalid signal: 0"),
            ("FROM base\nEXPOSE abc\n", "invalid containerPort: abc"),
            ("FROM base\nEXPOSE 80/foo\n", "invalid proto: foo"),
        ],
    );
}

#[test]
fn a_missing_dockerfile_is_named() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM base\n").prepare("rm Dockerfile");
    build.fails("failed to read dockerfile: open Dockerfile: no such file or directory");
    let lower = Build::new(&mica, "").prepare("rm Dockerfile; echo 'FROM base' > dockerfile");
    lower.succeeds();
}

#[test]
fn what_is_no_json_array_is_a_shell_command() {
    let Some(mica) = with_base() else { return };
    let config = Build::new(&mica, "FROM base\nCMD ['a']\n").succeeds().config();
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "['a']"]));
}

#[test]
fn a_heredoc_is_a_script() {
    let Some(mica) = with_base() else { return };
    let dockerfile =
        "FROM base\nRUN <<EOF\nfalse\necho ok>/f\nEOF\nRUN cat <<A >/x && cat <<B >/y\na $HOME\nA\nb\nB\n";
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert_eq!(tree.text("/f"), "ok\n");
    assert_eq!((tree.text("/x").as_str(), tree.text("/y").as_str()), ("a /root\n", "b\n"));
}

#[test]
fn a_heredoc_with_an_interpreter_is_a_program() {
    let Some(mica) = with_base() else { return };
    let failed = Build::new(&mica, "FROM base\nRUN <<E\n#!/bin/sh -e\nfalse\ntrue\nE\n").run().exits(1);
    holds(&failed.stderr_text(), &["process \"/bin/sh -c /dev/pipes/E\" did not complete successfully"]);
    let tree = Build::new(&mica, "FROM base\nRUN <<E\n#!/bin/sh -e\necho $0 > /f\nE\n").succeeds().tree();
    assert_eq!(tree.text("/f"), "/dev/pipes/E\n");
    assert!(!tree.has("/dev/pipes"));
}

#[test]
fn heredocs_are_copied_as_files() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nENV X=1\n",
        "COPY <<-EOF /tabs\n\t\ta\n\t b\n\tEOF\n",
        "COPY <<'EOF' /quoted\n$X\nEOF\n",
        "COPY <<EOF /expanded\n$X \"$Y\" \\$X\nEOF\n",
        "COPY <<a <<b /d/\n1\na\n2\nb\n",
    );
    let tree = Build::new(&mica, dockerfile).succeeds().tree();
    assert_eq!(tree.text("/tabs"), "a\n b\n");
    assert_eq!(tree.text("/quoted"), "$X\n");
    assert_eq!(tree.text("/expanded"), "1 \"\" $X\n");
    assert_eq!((tree.text("/d/a").as_str(), tree.text("/d/b").as_str()), ("1\n", "2\n"));
    assert_eq!((tree.mode("/d/a"), tree.owner("/d/b")), (0o644, (0, 0)));
}

#[test]
fn words_of_one_env_see_the_environment_before_it() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nENV A=1\nENV A=2 B=$A\nENV K a  b\n";
    let built = Build::new(&mica, dockerfile).succeeds();
    let env = built.config()["Env"].clone();
    let env: Vec<&str> = env.as_array().unwrap().iter().filter_map(|text| text.as_str()).collect();
    assert_eq!(env[env.len() - 3..], ["A=2", "B=1", "K=a  b"]);
}

#[test]
fn expansion_has_the_shell_s_modifiers() {
    let Some(mica) = with_base() else { return };
    let cases = [
        ("${P%.*}", "a/b.c"),
        ("${P%%.*}", "a/b"),
        ("${P#*/}", "b.c.d"),
        ("${P##*.}", "d"),
        ("${P/b/X}", "a/X.c.d"),
        ("${P//./-}", "a/b-c-d"),
        ("${P//[.]/-}", "a/b.c.d"),
        ("${U:-x}", "x"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${E:+y}", ""),
        ("${E+y}", "y"),
        ("${P:+y}", "y"),
        ("${U:-${P#*/}}", "b.c.d"),
        ("a\\$P", "a$P"),
        ("'$P'", "$P"),
        ("\"$U|$P\"", "|a/b.c.d"),
        ("a$", "a$"),
    ];
    let labels: String =
        cases.iter().enumerate().map(|(i, (text, _))| format!("LABEL l{i}={text}\n")).collect();
    let config = Build::new(&mica, format!("FROM base\nENV P=a/b.c.d E=\n{labels}")).succeeds().config();
    for (i, (text, value)) in cases.iter().enumerate() {
        assert_eq!(config["Labels"][format!("l{i}")], json!(value), "{text}");
    }
}

#[test]
fn bad_expansions_are_explained() {
    let Some(mica) = with_base() else { return };
    refused(
        &mica,
        &[
            ("FROM base\nENV X=${U:?msg}\n", "msg"),
            ("FROM base\nENV X=${U?}\n", "U: is not allowed to be unset"),
            ("FROM base\nENV X=${A:=b}\n", "unsupported modifier (:=) in substitution"),
            ("FROM base\nENV X=${}\n", "syntax error: bad substitution"),
            ("FROM base\nENV X=${A\n", "syntax error: missing '}'"),
            ("FROM base\nENV X='a\n", "unexpected end of statement while looking for matching single-quote"),
            ("ARG X\nFROM ${X}\n", "base name (${X}) should not be blank"),
        ],
    );
}

#[test]
fn the_last_of_arg_and_env_wins_for_run() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nENV A=2\nARG A\nRUN echo $A > /f\n";
    let built = Build::new(&mica, dockerfile).option("--build-arg", "A=9").succeeds();
    assert_eq!(built.tree().text("/f"), "9\n");
    assert!(built.config()["Env"].as_array().unwrap().contains(&json!("A=2")));
}

#[test]
fn global_arguments_are_seen_after_a_declaration() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "ARG V=1\nFROM base\nRUN echo [$V] > /f\nARG V\nRUN echo [$V] >> /f\n";
    assert_eq!(Build::new(&mica, dockerfile).succeeds().tree().text("/f"), "[]\n[1]\n");
}

#[test]
fn stages_inherit_arguments_of_their_base_stage() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base AS a\nARG X=1\nFROM a\nRUN echo $X > /f\n";
    let built = Build::new(&mica, dockerfile).succeeds();
    assert_eq!(built.tree().text("/f"), "1\n");
    assert_eq!(built.history().last().unwrap(), "RUN |1 X=1 /bin/sh -c echo $X > /f # buildkit");
}

#[test]
fn arguments_in_scope_are_part_of_the_key_of_run() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN echo before\nARG A\nRUN echo after\n";
    Build::new(&mica, dockerfile).option("--build-arg", "A=1").succeeds();
    let built = Build::new(&mica, dockerfile).option("--build-arg", "A=2").succeeds();
    assert!(built.cached("RUN echo before"));
    assert!(!built.cached("RUN echo after"));
}

#[test]
fn proxies_are_in_the_environment_and_nowhere_else() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nRUN echo $http_proxy $HTTP_PROXY > /f\n";
    let built = Build::new(&mica, dockerfile).option("--build-arg", "http_proxy=p").succeeds();
    assert_eq!(built.tree().text("/f"), "p p\n");
    assert!(!built.stored_config().to_string().contains("PROXY=p"));
    assert!(!built.history().concat().contains("=p"));
    let other = Build::new(&mica, dockerfile).option("--build-arg", "http_proxy=q").succeeds();
    assert!(other.cached("RUN echo"));
}

#[test]
fn platform_arguments_describe_the_target() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM --platform=$BUILDPLATFORM base AS build\n",
        "ARG TARGETARCH TARGETPLATFORM TARGETSTAGE\nRUN echo $TARGETARCH $TARGETPLATFORM $TARGETSTAGE > /f\n",
        "FROM scratch\nCOPY --from=build /f /f\n",
    );
    let built = Build::new(&mica, dockerfile).option("--platform", "linux/arm64").succeeds();
    assert_eq!(built.tree().text("/f"), "arm64 linux/arm64 default\n");
    assert_eq!(built.stored_config()["architecture"], json!("arm64"));
    assert_eq!(built.stored_config().get("variant"), None);
}

#[test]
fn workdir_is_a_layer_of_the_user_s() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nUSER 5\nWORKDIR a\nWORKDIR b\nWORKDIR /\n";
    let built = Build::new(&mica, dockerfile).succeeds();
    assert_eq!(built.tree().owner("/a/b"), (5, 5));
    assert_eq!(built.config()["WorkingDir"], json!("/"));
    let plain = Build::new(&mica, "FROM base\nUSER 5\nWORKDIR a\nWORKDIR b\n").succeeds();
    assert_eq!(plain.config()["WorkingDir"], json!("/a/b"));
    let config = plain.stored_config();
    let entries = config["history"].as_array().unwrap();
    assert_eq!(plain.history(), ["USER 5", "WORKDIR /a", "WORKDIR /a/b"]);
    let layers = entries.iter().filter(|entry| entry["empty_layer"] != json!(true)).count();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
}

#[test]
fn ports_are_sorted_and_ranges_expanded() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, "FROM base\nEXPOSE 80 443/UDP 90-92\n").succeeds();
    let expected = json!({"443/udp": {}, "80/tcp": {}, "90/tcp": {}, "91/tcp": {}, "92/tcp": {}});
    assert_eq!(built.config()["ExposedPorts"], expected);
    assert_eq!(built.history(), ["EXPOSE [443/udp 80/tcp 90/tcp 91/tcp 92/tcp]"]);
}

#[test]
fn an_entrypoint_clears_an_inherited_command() {
    let Some(mica) = with_base() else { return };
    let cleared = "FROM base AS a\nCMD x\nFROM a\nENTRYPOINT [\"e\"]\n";
    let config = Build::new(&mica, cleared).succeeds().config();
    assert_eq!((&config["Entrypoint"], config["Cmd"].is_null()), (&json!(["e"]), true));
    let kept = "FROM base AS a\nCMD x\nFROM a\nCMD [\"y\"]\nENTRYPOINT [\"e\"]\n";
    let config = Build::new(&mica, kept).succeeds().config();
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["e"]), &json!(["y"])));
}

#[test]
fn triggers_run_first_in_a_child() {
    let Some(mica) = with_base() else { return };
    let parent = "FROM base\nONBUILD COPY a /a\nONBUILD RUN cp /a /b\n";
    let built = Build::new(&mica, parent).option("-t", "parent").succeeds();
    assert_eq!(built.config()["OnBuild"], json!(["COPY a /a", "RUN cp /a /b"]));
    let child = Build::new(&mica, "FROM parent\nRUN cat /b > /c\n").file("a", "hello\n").succeeds();
    assert_eq!(child.tree().text("/c"), "hello\n");
    assert!(child.config()["OnBuild"].is_null());
    assert!(!child.history().concat().contains("ONBUILD"));
    refused(
        &mica,
        &[
            ("FROM base\nONBUILD ONBUILD RUN x\n", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("FROM base\nONBUILD FROM base\n", "FROM isn't allowed as an ONBUILD trigger"),
        ],
    );
}

#[test]
fn health_checks_are_kept_in_nanoseconds() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM base\nHEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD true\n";
    let built = Build::new(&mica, dockerfile).succeeds();
    let expected = json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000u64, "Timeout": 60_000_000_000u64, "Retries": 2});
    assert_eq!(built.config()["Healthcheck"], expected);
    assert_eq!(
        built.history(),
        [
            "HEALTHCHECK {Test:[CMD-SHELL true] Interval:5s Timeout:1m0s StartPeriod:0s StartInterval:0s Retries:2}"
        ]
    );
    let none = Build::new(&mica, "FROM base\nHEALTHCHECK NONE\n").succeeds();
    assert_eq!(none.config()["Healthcheck"], json!({"Test": ["NONE"]}));
    refused(
        &mica,
        &[
            ("FROM base\nHEALTHCHECK --interval=1us CMD x\n", "cannot be less than 1ms"),
            ("FROM base\nHEALTHCHECK --retries=-1 CMD x\n", "--retries cannot be negative (-1)"),
            ("FROM base\nHEALTHCHECK FOO\n", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
            ("FROM base\nHEALTHCHECK CMD\n", "Missing command after HEALTHCHECK CMD"),
        ],
    );
}

#[test]
fn writes_below_a_volume_are_kept() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, "FROM base\nVOLUME /v\nRUN mkdir /v; echo x > /v/f\n").succeeds();
    assert_eq!(built.tree().text("/v/f"), "x\n");
    assert_eq!(built.config()["Volumes"], json!({"/v": {}}));
}

#[test]
fn the_rest_of_the_configuration_is_written_as_given() {
    let Some(mica) = with_base() else { return };
    let dockerfile = concat!(
        "FROM base\nMAINTAINER ann\nLABEL x=y q=\"r s\"\nUSER ann:wheel\nSTOPSIGNAL term\n",
        "SHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT echo $FOO\nCMD [\"a\", \"b\"]\nARG FOO=1\n",
    );
    let built = Build::new(&mica, dockerfile).succeeds();
    let config = built.config();
    assert_eq!(config["Labels"], json!({"x": "y", "q": "r s"}));
    assert_eq!((&config["User"], &config["StopSignal"]), (&json!("ann:wheel"), &json!("term")));
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-ec", "echo $FOO"]));
    assert_eq!(built.stored_config()["author"], json!("ann"));
    assert_eq!(
        built.history(),
        [
            "MAINTAINER ann",
            "LABEL x=y q=r s",
            "USER ann:wheel",
            "STOPSIGNAL term",
            "SHELL [/bin/sh -ec]",
            "ENTRYPOINT [\"/bin/sh\" \"-ec\" \"echo $FOO\"]",
            "CMD [\"a\" \"b\"]",
            "ARG FOO=1",
        ]
    );
}

#[test]
fn stages_nobody_needs_are_left_out() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM nosuch:1 AS x\nRUN false\nFROM base AS y\nRUN false\nFROM base\nRUN true\n";
    Build::new(&mica, dockerfile).succeeds();
    let target = "FROM base AS One\nRUN echo 1 > /f\nFROM base\nRUN false\n";
    let tree = Build::new(&mica, target).option("--target", "one").succeeds().tree();
    assert_eq!(tree.text("/f"), "1\n");
    Build::new(&mica, target).option("--target", "onee").fails("target stage \"onee\" could not be found");
    Build::new(&mica, "FROM nosuch:1\n").fails("nosuch:1");
}

#[test]
fn an_empty_image_can_be_built() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, "FROM scratch\nCMD [\"x\"]\n").succeeds();
    let config = built.config();
    assert_eq!(config["Env"], json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]));
    assert_eq!(config["WorkingDir"], json!("/"));
}

#[test]
fn ignore_files_decide_what_copy_sees() {
    let Some(mica) = with_base() else { return };
    let all = "mkdir -p d/e src/deep .git; touch a b.o d/x d/e/t d/t src/m.c src/m.o src/deep/n.o src/deep/n.c t .git/c";
    let cases: &[(&str, &[&str])] = &[
        (
            "",
            &[
                ".dockerignore",
                ".git/c",
                "Dockerfile",
                "a",
                "b.o",
                "d/e/t",
                "d/t",
                "d/x",
                "src/deep/n.c",
                "src/deep/n.o",
                "src/m.c",
                "src/m.o",
                "t",
            ],
        ),
        ("*\n!d/x\n", &["d/x"]),
        ("*\n!src\nsrc/*.o\n", &["src/deep/n.c", "src/deep/n.o", "src/m.c"]),
        ("**/t\n.*\nDockerfile\nsrc\n", &["a", "b.o", "d/x"]),
        ("*\n!d\nd/e/\n", &["d/t", "d/x"]),
        ("*\n#!a\n #b\n!a\n", &["a"]),
        ("*\n! t\n!/b.o\n", &["b.o", "t"]),
        ("*\n!src/**/*.c\n", &["src/deep/n.c", "src/m.c"]),
        ("*\n!src\nsrc/[m-n].?\n", &["src/deep/n.c", "src/deep/n.o"]),
    ];
    for (ignore, expected) in cases {
        let build =
            Build::new(&mica, "FROM scratch\nCOPY . /c/\n").prepare(all).file(".dockerignore", ignore);
        assert_eq!(build.succeeds().tree().files("/c"), *expected, "{ignore:?}");
    }
    let own = Build::new(&mica, "FROM scratch\nCOPY . /c/\n").prepare(all);
    let own = own.file(".dockerignore", "a").file("Dockerfile.dockerignore", "*\n!a");
    assert_eq!(own.succeeds().tree().files("/c"), ["a"]);
    let lone = Build::new(&mica, "FROM scratch\nCOPY . /c/\n").file(".dockerignore", "!\n");
    lone.fails("illegal exclusion pattern: \"!\"");
    let hidden = Build::new(&mica, "FROM scratch\nCOPY a /\n").file(".dockerignore", "a\n").file("a", "");
    hidden.fails("\"/a\": not found");
}

#[test]
fn equal_layers_are_mounted_once() {
    let Some(mica) = with_base() else { return };
    let dockerfile = "FROM scratch\nCOPY a /\nCOPY a /\n";
    let tree = Build::new(&mica, dockerfile).file("a", "1").succeeds().tree();
    assert_eq!(tree.files("/"), ["a"]);
    let built = Build::new(&mica, "FROM base\nRUN true\nRUN echo 1\nRUN echo 2\n").succeeds();
    let config = built.stored_config();
    let layers = config["rootfs"]["diff_ids"].as_array().unwrap();
    // 1024 zero bytes: the tar of a step that changes nothing.
    let nothing = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(layers[layers.len() - 3..], [nothing, nothing, nothing]);
    built.tree();
}
