//! ARG and ENV (build.md 2.3-2.5).

use mica_oci::Platform;

use super::support::{Fake, amd64, build, build_args, refused, request};
use mica_solve::{GitSource, SourceOp};

use crate::{ConvertRequest, convert};

fn env_of<'c>(env: &'c [String], name: &str) -> Option<&'c str> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_last_definition_wins_but_only_env_reaches_the_config() {
    let image = build_args("FROM base\nENV A=2\nARG A\nRUN x\nLABEL a=$A\n", &[("A", "9")]);
    assert_eq!(env_of(&image.exec().env, "A"), Some("9"));
    assert_eq!(image.config.config.env, ["PATH=/bin", "A=2"]);
    assert_eq!(image.config.config.labels["a"], "9");
    assert_eq!(image.new_history()[2], "RUN |1 A=9 /bin/sh -c x # buildkit");
}

#[test]
fn an_arg_without_value_leaves_an_env_alone() {
    let image = build("FROM base\nENV A=2\nARG A\nRUN x\n");
    assert_eq!(env_of(&image.exec().env, "A"), Some("2"));
    assert_eq!(image.new_history()[1..], ["(ARG A)", "RUN |1 A=2 /bin/sh -c x # buildkit"]);
}

#[test]
fn an_env_after_an_arg_overrides_it_in_history_too() {
    let image = build("FROM base\nARG A=arg\nENV A=env\nRUN x\n");
    assert_eq!(image.new_history()[2], "RUN |1 A=env /bin/sh -c x # buildkit");
}

#[test]
fn global_args_are_unknown_in_stages_until_declared() {
    let image = build("ARG V=1\nFROM base\nRUN echo [$V]\nARG V\nRUN echo [$V]\n");
    assert_eq!(env_of(&image.execs()[0].env, "V"), None);
    assert_eq!(env_of(&image.execs()[1].env, "V"), Some("1"));
    assert_eq!(
        image.new_history(),
        ["RUN /bin/sh -c echo [$V] # buildkit", "(ARG V=1)", "RUN |1 V=1 /bin/sh -c echo [$V] # buildkit"]
    );
}

#[test]
fn a_default_of_the_stage_hides_the_global_value_and_a_build_arg_hides_both() {
    let dockerfile = "ARG G=glob\nFROM base\nARG G=loc\nRUN x\n";
    assert_eq!(env_of(&build(dockerfile).exec().env, "G"), Some("loc"));
    assert_eq!(env_of(&build_args(dockerfile, &[("G", "cli")]).exec().env, "G"), Some("cli"));
}

#[test]
fn stages_inherit_args_and_env_of_stages_only() {
    let image = build("FROM base AS a\nARG X=1\nENV E=2\nFROM a\nRUN x\n");
    assert_eq!(image.exec().env, ["X=1", "PATH=/bin", "E=2"]);
    assert_eq!(image.new_history().last().unwrap(), "RUN |1 X=1 /bin/sh -c x # buildkit");
}

#[test]
fn a_stage_built_from_a_stage_starts_with_the_env_of_its_config() {
    let image = build_args("FROM base AS a\nENV A=2\nARG A\nFROM a\nRUN x\n", &[("A", "9")]);
    assert_eq!(env_of(&image.exec().env, "A"), Some("2"));
}

#[test]
fn several_words_of_one_arg_are_processed_in_order_and_a_redeclared_one_keeps_its_place() {
    let image = build("FROM base\nARG A=1 B=$A\nARG U\nARG A=3\nRUN x\n");
    assert_eq!(
        image.new_history(),
        ["(ARG A=1 B=1)", "(ARG U)", "(ARG A=3)", "RUN |3 A=3 B=1 U= /bin/sh -c x # buildkit"]
    );
}

#[test]
fn all_words_of_one_env_see_the_environment_before_it() {
    let image = build("FROM base\nENV A=1\nENV A=2 B=$A\n");
    assert_eq!(image.config.config.env, ["PATH=/bin", "A=2", "B=1"]);
}

#[test]
fn processes_get_variables_in_the_order_of_their_last_definition_the_config_in_that_of_the_first() {
    let image = build("FROM base\nENV A=1 B=2\nENV A=3\nRUN x\n");
    assert_eq!(image.config.config.env, ["PATH=/bin", "A=3", "B=2"]);
    assert_eq!(image.exec().env, ["PATH=/bin", "B=2", "A=3"]);
}

#[test]
fn a_broken_default_does_not_matter_if_a_build_arg_is_given() {
    let dockerfile = "FROM base\nARG A=${X:?needed}\nRUN x\n";
    refused(dockerfile, 2, "X: needed");
    assert_eq!(env_of(&build_args(dockerfile, &[("A", "1")]).exec().env, "A"), Some("1"));
    let global = "ARG A=${X:?needed}\nFROM base\n";
    refused(global, 1, "X: needed");
    build_args(global, &[("A", "1")]);
}

#[test]
fn predefined_platforms_are_known_to_from_and_to_stages_that_declare_them() {
    let dockerfile =
        "FROM --platform=$BUILDPLATFORM base\nARG TARGETARCH\nARG TARGETVARIANT BUILDARCH\nRUN x\n";
    let fake = Fake::new();
    let request = ConvertRequest { platform: Platform::new("linux", "arm", None), ..request(dockerfile) };
    let image = convert(&request, &fake).unwrap();
    assert_eq!(*fake.asked.borrow(), ["docker.io/library/base:latest linux/amd64"]);
    assert_eq!(image.exec().env, ["PATH=/bin", "TARGETARCH=arm", "TARGETVARIANT=v7", "BUILDARCH=amd64"]);
    assert_eq!(image.exec().platform, amd64());
}

#[test]
fn the_target_stage_is_the_target_else_the_last_stage_else_default() {
    let stage = |dockerfile: &str, target: Option<&str>| {
        let image = convert(&ConvertRequest { target, ..request(dockerfile) }, &Fake::new()).unwrap();
        env_of(&image.exec().env, "TARGETSTAGE").unwrap().to_owned()
    };
    let dockerfile = "FROM base AS a\nARG TARGETSTAGE\nRUN x\nFROM a AS b\n";
    assert_eq!(stage(dockerfile, None), "b");
    assert_eq!(stage(dockerfile, Some("a")), "a");
    assert_eq!(stage("FROM base\nARG TARGETSTAGE\nRUN x\n", None), "default");
}

#[test]
fn proxies_reach_run_in_both_cases_and_nothing_else() {
    let dockerfile = "FROM base\nRUN a\nARG HTTPS_PROXY\nRUN b\n";
    let image = build_args(dockerfile, &[("http_proxy", "p"), ("HTTPS_PROXY", "q")]);
    let [first, second] = image.execs()[..] else { panic!("two RUNs") };
    assert_eq!(first.env, ["PATH=/bin"]);
    assert_eq!(first.proxy_env, ["HTTP_PROXY=p", "http_proxy=p", "HTTPS_PROXY=q", "https_proxy=q"]);
    assert_eq!(second.env, ["PATH=/bin", "HTTPS_PROXY=q"]);
    assert_eq!(second.proxy_env, ["HTTP_PROXY=p", "http_proxy=p", "https_proxy=q"]);
    assert_eq!(
        image.new_history(),
        [
            "RUN /bin/sh -c a # buildkit",
            "(ARG HTTPS_PROXY=q)",
            "RUN |1 HTTPS_PROXY=q /bin/sh -c b # buildkit"
        ]
    );
}

#[test]
fn control_arguments_change_the_step_and_not_its_environment() {
    let image =
        build_args("FROM base\nRUN x\n", &[("BUILDKIT_SANDBOX_HOSTNAME", "box"), ("UNDECLARED", "1")]);
    assert_eq!(
        (image.exec().hostname.as_str(), &image.exec().env[..]),
        ("box", &["PATH=/bin".to_owned()][..])
    );
    let declared = build("FROM base\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x\n");
    assert_eq!(declared.exec().env, ["PATH=/bin"]);
}

#[test]
fn without_an_epoch_new_things_are_as_old_as_time() {
    let image = build("FROM base\nCOPY a /\n");
    let created: Vec<_> =
        image.config.history().iter().map(|entry| entry.created.as_deref().unwrap()).collect();
    assert_eq!(
        created,
        [super::support::TIME, super::support::TIME, super::support::TIME, "1970-01-01T00:00:00Z"]
    );
    assert_eq!(image.config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!((image.copies()[0].created_seconds, image.epoch), (0, None));
}

#[test]
fn an_epoch_is_the_time_of_everything_new_and_a_secret_of_the_builder_until_declared() {
    for dockerfile in
        ["FROM base\nWORKDIR /w\nRUN x\n", "ARG SOURCE_DATE_EPOCH=5\nFROM base\nWORKDIR /w\nRUN x\n"]
    {
        let image = build_args(dockerfile, &[("SOURCE_DATE_EPOCH", "1704164645")]);
        assert_eq!(
            (image.epoch, image.config.created.as_deref()),
            (Some(1_704_164_645), Some("2024-01-02T03:04:05Z"))
        );
        assert_eq!(env_of(&image.exec().env, "SOURCE_DATE_EPOCH"), None);
    }
    let image = build_args("FROM base\nARG SOURCE_DATE_EPOCH\nRUN x\n", &[("SOURCE_DATE_EPOCH", "7")]);
    assert_eq!(env_of(&image.exec().env, "SOURCE_DATE_EPOCH"), Some("7"));
}

#[test]
fn a_global_arg_is_the_default_epoch_and_an_empty_one_turns_it_off() {
    let dockerfile = "ARG SOURCE_DATE_EPOCH=5\nFROM base\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let image = build(dockerfile);
    assert_eq!((image.epoch, env_of(&image.exec().env, "SOURCE_DATE_EPOCH")), (Some(5), Some("5")));
    let image = build_args(dockerfile, &[("SOURCE_DATE_EPOCH", "")]);
    assert_eq!((image.epoch, env_of(&image.exec().env, "SOURCE_DATE_EPOCH")), (None, None));
    let image = build_args(dockerfile, &[("SOURCE_DATE_EPOCH", "context")]);
    assert_eq!(image.epoch, None);
    refused("ARG SOURCE_DATE_EPOCH=nope\nFROM base\n", 0, "invalid SOURCE_DATE_EPOCH: nope");
}

#[test]
fn the_commit_of_a_git_context_is_the_time_without_an_epoch() {
    let git = SourceOp::Git(GitSource::new("https://h/x.git"));
    let plain = ConvertRequest { context_time: Some(1_704_164_645), ..request("FROM base\nRUN x\n") };
    let of_git = ConvertRequest { main_context: Some(git), ..plain.clone() };
    let image = convert(&of_git, &Fake::new()).unwrap();
    assert_eq!((image.epoch, image.config.created.as_deref()), (None, Some("2024-01-02T03:04:05Z")));
    let image = convert(&plain, &Fake::new()).unwrap();
    assert_eq!(image.config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
}
