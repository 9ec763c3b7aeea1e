use std::time::Duration;

use super::*;
use crate::ast::{ArgItem, Healthcheck, KeyValue, NetworkMode, Onbuild, SecurityMode, ShellOrExec};
use crate::{expand, parse_instruction};

fn shell(text: &str) -> ShellOrExec {
    ShellOrExec::Shell(text.to_owned())
}

fn exec(words: &[&str]) -> ShellOrExec {
    ShellOrExec::Exec(strings(words))
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: false }
}

#[test]
fn p16_keywords_ignore_case_and_end_at_any_blank() {
    assert_eq!(instruction("rUn\tx"), instruction("RUN x"));
    assert_eq!(instruction("RUN\x0b\x0cx"), instruction("RUN x"));
    assert_eq!(instruction("run x").name(), "RUN");
}

#[test]
fn p17_flags_end_at_the_first_other_word_or_at_two_dashes() {
    let copied = copy("COPY --link   --chown=a b --from=c d");
    assert!(copied.link);
    assert_eq!((copied.chown.as_deref(), copied.from), (Some("a"), None));
    assert_eq!(copied.sources, strings(&["b", "--from=c"]));
    assert_eq!(copy("COPY --link -- --link d").sources, strings(&["--link"]));
    assert_eq!(run("RUN -- x").command, shell("x"));
    assert_eq!(instruction("ENV -- A=b"), instruction("ENV A=b"));
    assert_eq!(run("RUN -x --network=host").command, shell("-x --network=host"));
}

#[test]
fn p17_quotes_and_escapes_keep_a_flag_together() {
    assert_eq!(run("RUN --mount=type=bind,\"source=a b\" x").mounts, ["type=bind,source=a b"]);
    assert_eq!(run("RUN --mount=source=a\\ b,'target=/é c' x").mounts, ["source=a b,target=/é c"]);
    assert_eq!(copy("COPY --chown='a \"b' c d").chown.as_deref(), Some("a \"b"));
}

#[test]
fn p18_flags_are_typed() {
    let parsed = run("RUN --network=none --security=insecure --mount=target=/a --mount=target=/b x");
    assert_eq!(parsed.network, Some(NetworkMode::None));
    assert_eq!(parsed.security, Some(SecurityMode::Insecure));
    assert_eq!(parsed.mounts, ["target=/a", "target=/b"]);
    let added = copy("ADD --keep-git-dir --unpack=false --checksum=sha256:x --exclude=a --exclude=!b s d");
    assert_eq!((added.keep_git_dir, added.unpack), (Some(true), Some(false)));
    assert_eq!(added.checksum.as_deref(), Some("sha256:x"));
    assert_eq!(added.exclude, strings(&["a", "!b"]));
    let copied = copy("COPY --parents --link=FALSE --chmod=u+x --from= s d");
    assert_eq!((copied.parents, copied.link, copied.from), (true, false, None));
    assert_eq!((copied.chmod.as_deref(), copied.unpack), (Some("u+x"), None));
}

#[test]
fn p20_json_needs_the_whole_rest() {
    assert_eq!(run("RUN [\"a\", \"b \\u00e9\"]  ").command, exec(&["a", "b é"]));
    assert_eq!(run("RUN [\"a\"] x").command, shell("[\"a\"] x"));
    assert_eq!(run("RUN ['a']").command, shell("['a']"));
    assert_eq!(run("RUN [\"a]").command, shell("[\"a]"));
    assert_eq!(run("RUN [ \"$(x)\" = y ]").command, shell("[ \"$(x)\" = y ]"));
    assert_eq!(instruction("CMD ['a']"), Instruction::Cmd(shell("['a']")));
    assert_eq!(instruction("CMD []"), Instruction::Cmd(exec(&[])));
    assert_eq!(instruction("CMD"), Instruction::Cmd(shell("")));
    assert_eq!(instruction("ENTRYPOINT [\"e\",\n").name(), "ENTRYPOINT");
}

#[test]
fn p21_quotes_do_not_protect_blanks_in_copy() {
    let split = copy("COPY \"a b\" /y/");
    assert_eq!(split.sources, strings(&["\"a", "b\""]));
    let error = expand::word(&split.sources[0], &|_: &str| None, '\\').unwrap_err().to_string();
    let expected =
        "failed to process \"\\\"a\": unexpected end of statement while looking for matching double-quote";
    assert_eq!(error, expected);
    let json = copy("COPY [\"a b\", \"/y/\"]");
    assert_eq!((json.sources, json.destination.as_str()), (strings(&["a b"]), "/y/"));
}

#[test]
fn p22_words_of_env_keep_their_quotes() {
    let expected = [pair("A", "\"b c\"'d e'f"), pair("B", "x\\ y"), pair("C", ""), pair("D", "e=f")];
    assert_eq!(instruction("ENV A=\"b c\"'d e'f   B=x\\ y C= D=e=f"), Instruction::Env(expected.to_vec()));
    let quoted = [pair("\"a b\"", "'c'")];
    assert_eq!(instruction("LABEL \"a b\"='c'"), Instruction::Label(quoted.to_vec()));
    assert_eq!(instruction("ENV A=b\\"), Instruction::Env(vec![pair("A", "b")]));
    assert_eq!(instruction("ENV A='\\' B=c"), Instruction::Env(vec![pair("A", "'\\'"), pair("B", "c")]));
}

#[test]
fn p23_the_legacy_form_keeps_inner_blanks() {
    let legacy = |key: &str, value: &str| KeyValue { legacy: true, ..pair(key, value) };
    assert_eq!(instruction("ENV K a  b"), Instruction::Env(vec![legacy("K", "a  b")]));
    assert_eq!(instruction("LABEL K \t a=b"), Instruction::Label(vec![legacy("K", "a=b")]));
}

#[test]
fn args_are_names_with_or_without_default() {
    let item = |name: &str, default: Option<&str>| ArgItem {
        name: name.to_owned(),
        default: default.map(str::to_owned),
    };
    let expected = vec![item("A", None), item("B", Some("\"x y\"")), item("C", Some(""))];
    assert_eq!(instruction("ARG A B=\"x y\" C="), Instruction::Arg(expected));
    let dockerfile = parsed("arg V=1\nFROM B:$V\nARG V\n");
    assert_eq!(dockerfile.global_args[0].items, [item("V", Some("1"))]);
    assert_eq!(dockerfile.stages[0].base, "B:$V");
}

#[test]
fn f1_from_names_base_platform_and_stage() {
    let dockerfile = parsed("FROM --platform=$BUILDPLATFORM B As Build-1\nFROM --platform= build-1\n");
    let [first, second] = dockerfile.stages.as_slice() else { panic!("two stages") };
    assert_eq!(first.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!((first.name.as_deref(), first.written_name.as_deref()), (Some("build-1"), Some("Build-1")));
    assert_eq!(first.as_keyword.as_deref(), Some("As"));
    assert_eq!(
        (second.base.as_str(), second.platform.as_deref(), &second.name),
        ("build-1", Some(""), &None)
    );
}

#[test]
fn i4_exposed_words_are_sorted() {
    assert_eq!(
        instruction("EXPOSE 80 443/UDP 90-92"),
        Instruction::Expose(strings(&["443/UDP", "80", "90-92"]))
    );
}

#[test]
fn i5_volumes_are_json_or_words() {
    assert_eq!(instruction("VOLUME [\"/a b\", \" /c \"]"), Instruction::Volume(strings(&["/a b", "/c"])));
    assert_eq!(instruction("VOLUME /a [\"/b\"]"), Instruction::Volume(strings(&["/a", "[\"/b\"]"])));
}

#[test]
fn the_rest_of_some_instructions_is_one_string() {
    assert_eq!(instruction("USER a b"), Instruction::User("a b".to_owned()));
    assert_eq!(instruction("WORKDIR \"/a b\" "), Instruction::Workdir("\"/a b\"".to_owned()));
    assert_eq!(instruction("STOPSIGNAL $S"), Instruction::StopSignal("$S".to_owned()));
    assert_eq!(instruction("MAINTAINER A <a@b>"), Instruction::Maintainer("A <a@b>".to_owned()));
    assert_eq!(instruction("SHELL [\"a\", \"-c\"]"), Instruction::Shell(strings(&["a", "-c"])));
}

#[test]
fn i13_health_checks_have_durations() {
    assert_eq!(instruction("HEALTHCHECK none"), Instruction::Healthcheck(Healthcheck::Disabled));
    let expected = Healthcheck::Command {
        command: shell("x  y"),
        interval: Some(Duration::from_secs(90)),
        timeout: None,
        start_period: None,
        start_interval: Some(Duration::from_millis(1)),
        retries: Some(3),
    };
    let text = "HEALTHCHECK --interval=1m30s --timeout=0s --start-interval=1ms --retries=3 cmd x  y";
    assert_eq!(instruction(text), Instruction::Healthcheck(expected));
    let Instruction::Healthcheck(Healthcheck::Command { command, .. }) =
        instruction("HEALTHCHECK CMD [\"a\"]")
    else {
        panic!("not a command");
    };
    assert_eq!(command, exec(&["a"]));
}

#[test]
fn i14_triggers_are_kept_as_text() {
    let text = |text: &str| Instruction::Onbuild(Onbuild { text: text.to_owned() });
    assert_eq!(instruction("OnBuild   RUN a \\\n  b"), text("RUN a   b"));
    assert_eq!(instruction("ONBUILD COPY one"), text("COPY one"));
    assert_eq!(instruction("ONBUILD RUN <<E\nx\nE"), text("RUN <<E\nx\nE"));
}

#[test]
fn i14_triggers_parse_when_they_fire() {
    let command = parse_instruction("COPY <<E /f\n$HOME\nE", '\\').unwrap();
    let Instruction::Copy(copy) = command.instruction else { panic!("not a COPY") };
    assert_eq!(copy.heredocs[0].body, "$HOME\n");
    assert_eq!(command.origin.original, "COPY <<E /f");
    assert!(parse_instruction("COPY one", '\\').is_err());
    assert!(parse_instruction("RUN a\nRUN b", '\\').is_err());
    assert!(parse_instruction("", '\\').is_err());
    assert!(parse_instruction("FROM x", '\\').unwrap_err().to_string().contains("FROM isn't allowed"));
    assert!(parse_instruction("# escape=`\nCMD x", '\\').is_ok());
}
