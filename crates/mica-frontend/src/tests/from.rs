//! FROM, targets, stages, contexts, ONBUILD (build.md 3.1, I14).

use mica_oci::{ImageConfig, Platform};
use mica_solve::{FileAction, Op, SourceOp};

use super::support::{Fake, amd64, base, build, build_with, error, refused, request};
use crate::{ConvertRequest, convert};

#[test]
fn a_base_keeps_history_and_loses_its_time() {
    let image = build("FROM base\nLABEL a=b\n");
    assert_eq!(image.names(), ["[1/1] FROM docker.io/library/base:latest"]);
    assert_eq!(image.config.history().len(), 4);
    assert_eq!((image.base_layers, image.new_history()), (2, vec!["(LABEL a=b)".to_owned()]));
    assert_eq!(build("FROM base\n").config.created.as_deref(), Some(super::support::TIME));
}

#[test]
fn scratch_and_nothing_is_an_empty_image() {
    let image = build("FROM scratch\n");
    assert!(image.target.is_none() && image.graph.is_empty());
    assert_eq!(image.config, ImageConfig::scratch(&amd64()));
    assert_eq!((image.config.created, image.config.history), (None, None));
}

#[test]
fn scratch_ignores_a_platform() {
    let image = build("FROM --platform=linux/arm64 scratch\nCOPY a /\n");
    assert_eq!(image.config.platform(), amd64());
}

#[test]
fn a_platform_chooses_the_manifest_and_becomes_the_stages() {
    let fake = Fake::new();
    let image = build_with("ARG P=arm64\nFROM --platform=linux/$P base\nRUN x\n", &fake);
    assert_eq!(*fake.asked.borrow(), ["docker.io/library/base:latest linux/arm64"]);
    assert_eq!(image.exec().platform, Platform::new("linux", "arm64", None));
    let plain = build("FROM --platform= base\nRUN x\n");
    assert_eq!(plain.exec().platform, amd64());
}

#[test]
fn the_config_says_what_was_asked_for_only_if_it_was_asked_for() {
    let mut arm = base();
    arm.set_platform(&Platform::new("linux", "arm", Some("v7")));
    let fake = Fake::new().image("arm", arm);
    let built = |explicit_platform| {
        let request = ConvertRequest { explicit_platform, ..request("FROM arm\n") };
        convert(&request, &fake).unwrap().config.platform().to_string()
    };
    assert_eq!((built(false).as_str(), built(true).as_str()), ("linux/arm/v7", "linux/amd64"));
}

#[test]
fn bases_and_platforms_that_expand_to_nothing_are_refused() {
    refused("ARG X=\nFROM ${X}\n", 2, "base name (${X}) should not be blank");
    refused("FROM base\nFROM --platform=$NOPE base\n", 2, "empty platform value from expression $NOPE");
    refused("FROM --platform=a/b/c/d base\n", 1, "failed to parse platform a/b/c/d");
}

#[test]
fn stage_names_are_compared_as_written_in_from() {
    let image = build("FROM base AS Foo\nRUN x\nFROM foo\nRUN y\n");
    assert_eq!(image.execs().len(), 2);
    refused("FROM base AS Foo\nFROM Foo\n", 2, "invalid reference format: repository name");
}

#[test]
fn a_later_reference_to_a_duplicate_name_gets_the_latest_earlier_stage() {
    let image = build(
        "FROM base AS same\nRUN 1\nFROM base AS same\nRUN 2\nFROM scratch\nCOPY --from=same /v /v\nFROM base AS same\n",
    );
    assert_eq!(image.names().len(), 1, "the last stage needs none of the others");
    let dockerfile =
        "FROM base AS same\nRUN 1\nFROM base AS same\nRUN 2\nFROM scratch\nCOPY --from=same /v /v\n";
    assert_eq!(build(dockerfile).exec().args[2], "2");
}

#[test]
fn unused_stages_are_not_resolved() {
    let fake = Fake::new();
    build_with("FROM nosuch AS unused\nRUN false\nCOPY --from=nothing /a /b\nFROM base\n", &fake);
    assert_eq!(*fake.asked.borrow(), ["docker.io/library/base:latest linux/amd64"]);
}

#[test]
fn a_missing_base_names_itself_and_suggests_a_stage() {
    refused("FROM base AS builder\nFROM bulider\n", 2, "bulider: not found (did you mean builder?)");
    refused("FROM alpin\n", 1, "alpin: not found (did you mean alpine?)");
}

#[test]
fn targets_are_names_in_any_case_and_never_numbers() {
    let dockerfile = "FROM base AS builder\nRUN a\nFROM builder\nRUN b\n";
    let target =
        |target| convert(&ConvertRequest { target: Some(target), ..request(dockerfile) }, &Fake::new());
    assert_eq!(target("Builder").unwrap().execs().len(), 1);
    let text = |name| target(name).unwrap_err().to_string();
    assert_eq!(text("bulider"), "target stage \"bulider\" could not be found (did you mean builder?)");
    assert_eq!(text("0"), "target stage \"0\" could not be found");
}

#[test]
fn stages_that_need_each_other_are_refused() {
    let text =
        error("FROM base AS a\nCOPY --from=b /x /x\nFROM base AS b\nCOPY --from=a /x /x\n").to_string();
    assert_eq!(text, "circular dependency detected on stage: a");
    refused("FROM base\nCOPY --from=0 /x /x\n", 1, "circular dependency detected on stage: stage-0");
    refused("FROM base AS a\nRUN --mount=from=a,target=/m x\n", 1, "circular dependency");
}

#[test]
fn a_very_long_chain_of_stages_is_no_problem() {
    let mut dockerfile = String::from("FROM base AS s0\n");
    for index in 1..20_000 {
        dockerfile.push_str(&format!("FROM s{} AS s{index}\n", index - 1));
    }
    assert_eq!(build(&dockerfile).names().len(), 1);
}

#[test]
fn steps_are_counted_per_stage_and_named_after_it() {
    let dockerfile =
        "FROM base AS build\nWORKDIR /w\nRUN make\nFROM build\nENV A=$A\nCOPY <<EOF $A/\nx\nEOF\n";
    assert_eq!(
        build(dockerfile).names(),
        [
            "[build 1/3] FROM docker.io/library/base:latest",
            "[build 2/3] WORKDIR /w",
            "[build 3/3] RUN make",
            "[stage-1 1/1] COPY <<EOF /",
        ]
    );
    assert_eq!(build("FROM base\nrun  x\n").names()[1], "[2/2] RUN  x");
}

#[test]
fn several_platforms_show_in_the_titles() {
    let platform = Platform::new("linux", "arm64", None);
    let dockerfile = "FROM --platform=$BUILDPLATFORM base\nARG TARGETPLATFORM\nRUN x\n";
    let request = ConvertRequest { platform, multi_platform: true, ..request(dockerfile) };
    assert_eq!(
        convert(&request, &Fake::new()).unwrap().names(),
        ["[linux/amd64 1/2] FROM docker.io/library/base:latest", "[linux/amd64->arm64 2/2] RUN x"]
    );
}

#[test]
fn equal_steps_of_two_stages_are_one_vertex() {
    let image = build(
        "FROM base AS a\nRUN x\nFROM base AS b\nRUN x\nFROM scratch\nCOPY --from=a /f /\nCOPY --from=b /f /g\n",
    );
    assert_eq!(image.execs().len(), 1);
}

#[test]
fn named_contexts_replace_images_and_whole_stages() {
    let fake = Fake::new().image_context("base", base()).image_context("tool", base()).local_context("dir");
    let image = build_with(
        "FROM base AS other\nRUN other\nFROM base AS tool\nRUN skipped\nFROM tool\nRUN x\n",
        &fake,
    );
    assert!(fake.asked.borrow().is_empty());
    assert_eq!(image.names(), ["[context tool] example.org/context:1", "[stage-2 1/1] RUN x"]);
    let image = build_with("FROM base\nCOPY --from=dir /a /b\n", &fake);
    assert!(image.names().contains(&"[context dir] load from client"));
}

#[test]
fn a_context_for_one_platform_comes_before_one_for_all() {
    let mut other = base();
    other.config.user = "other".to_owned();
    let fake = Fake::new().image_context("base", other).image_context("base::linux/amd64", base());
    assert_eq!(build_with("FROM base:latest\n", &fake).config.config.user, "");
}

#[test]
fn a_directory_as_base_is_one_layer() {
    let fake = Fake::new().local_context("tree");
    let image = build_with("FROM tree\nRUN x\n", &fake);
    assert_eq!(image.names(), ["[context tree] load from client", "[1/2] FROM tree", "[2/2] RUN x"]);
    assert_eq!(image.config.history().iter().filter(|entry| !entry.empty_layer).count(), 2);
    assert!(
        image.config.history().iter().all(|entry| entry.created.as_deref() == Some("1970-01-01T00:00:00Z"))
    );
    assert_eq!(image.config.config.working_dir, "/");
}

#[test]
fn bases_without_path_get_one() {
    let mut bare = base();
    bare.config.env = vec!["A=b".to_owned()];
    let image = build_with("FROM bare\nRUN x\n", &Fake::new().image("bare", bare));
    assert_eq!(image.config.config.env, ["A=b", mica_oci::DEFAULT_PATH]);
    assert_eq!(image.exec().env, image.config.config.env);
}

#[test]
fn keys_of_other_tools_stay_with_the_base() {
    let text = r#"{"architecture":"amd64","os":"linux","config":{"Hostname":"h","ExposedPorts":{},"Volumes":{}},
        "container":"x","moby.buildkit.cache.v0":"e30=","history":[{"created_by":"a","v1":1}],"rootfs":{"type":"layers"}}"#;
    let image =
        build_with("FROM foreign\n", &Fake::new().image("foreign", serde_json::from_str(text).unwrap()));
    assert_eq!(
        String::from_utf8(image.config.to_bytes()).unwrap(),
        concat!(
            r#"{"architecture":"amd64","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},"#,
            r#""created":null,"history":[{"created_by":"a"}],"os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#
        )
    );
}

#[test]
fn an_image_that_does_not_say_its_platform_gets_the_one_asked_for() {
    let mut config = base();
    (config.os, config.architecture) = (String::new(), String::new());
    let image = build_with("FROM silent\n", &Fake::new().image("silent", config));
    assert_eq!(image.config.platform(), amd64());
}

#[test]
fn an_image_without_layers_is_scratch_with_a_config() {
    let mut empty = ImageConfig::default();
    empty.set_platform(&amd64());
    empty.config.user = "u".to_owned();
    let image = build_with("FROM empty\n", &Fake::new().image("empty", empty));
    assert_eq!((image.target, image.config.config.user.as_str()), (None, "u"));
}

#[test]
fn triggers_of_an_image_run_first_and_disappear() {
    let mut config = base();
    config.config.on_build =
        vec!["ENV F=1".to_owned(), "COPY --from=made /m /m".to_owned(), "RUN echo $F".to_owned()];
    let fake = Fake::new().image("onbuild", config);
    let image = build_with("FROM base AS made\nRUN make\nFROM onbuild\nRUN after\n", &fake);
    assert_eq!(
        image.names(),
        [
            "[made 1/2] FROM docker.io/library/base:latest",
            "[made 2/2] RUN make",
            "[stage-1 1/4] FROM docker.io/library/onbuild:latest",
            "[stage-1 2/4] ONBUILD COPY --from=made /m /m",
            "[stage-1 3/4] ONBUILD RUN echo 1",
            "[stage-1 4/4] RUN after",
        ]
    );
    assert_eq!(image.config.config.on_build, Vec::<String>::new());
    assert_eq!(image.new_history()[..2], ["(ENV F=1)", "COPY /m /m # buildkit"]);
}

#[test]
fn triggers_of_a_stage_fire_in_its_children_and_not_in_their_children() {
    let image = build("FROM base AS a\nONBUILD RUN t\nFROM a AS b\nRUN own\nFROM b\n");
    let args: Vec<&str> = image.execs().iter().map(|exec| exec.args[2].as_str()).collect();
    assert_eq!(args, ["t", "own"]);
    let request = ConvertRequest { target: Some("a"), ..request("FROM base AS a\nONBUILD RUN t\n") };
    let image = convert(&request, &Fake::new()).unwrap();
    assert_eq!(
        (image.config.config.on_build, image.config.history.unwrap().len()),
        (vec!["RUN t".to_owned()], 3)
    );
}

#[test]
fn a_broken_trigger_is_blamed_on_from() {
    let mut config = base();
    config.config.on_build = vec!["COPY onlyone".to_owned()];
    let fake = Fake::new().image("onbuild", config);
    let error = convert(&request("ARG A\nFROM onbuild\n"), &fake).unwrap_err();
    assert_eq!(error.location.unwrap().start, 2, "{error}");
    assert!(error.to_string().contains("at least two arguments"), "{error}");
}

#[test]
fn labels_of_the_command_line_override_and_leave_no_history() {
    let labels = [("a".to_owned(), "cli".to_owned()), ("c".to_owned(), "d".to_owned())];
    let request = ConvertRequest { labels: &labels, ..request("FROM base\nLABEL a=b\n") };
    let image = convert(&request, &Fake::new()).unwrap();
    assert_eq!(image.config_json(), r#"{"Env":["PATH=/bin"],"Cmd":["sh"],"Labels":{"a":"cli","c":"d"}}"#);
    assert_eq!(image.new_history(), ["(LABEL a=b)"]);
}

#[test]
fn only_our_own_frontend_is_accepted() {
    for syntax in
        ["docker/dockerfile:1", "docker.io/docker/dockerfile-upstream:master", "docker/dockerfile@sha256:0"]
    {
        build(&format!("# syntax={syntax}\nFROM base\n"));
    }
    refused("# syntax=example.org/x\nFROM base\n", 0, "custom frontends are not supported");
    refused(
        "# syntax=localhost:5000/docker/dockerfile\nFROM base\n",
        0,
        "custom frontends are not supported",
    );
}

#[test]
fn the_image_source_is_keyed_by_its_manifest() {
    let image = build("FROM base\n");
    let Op::Source(SourceOp::Image { manifest, platform, .. }) = &image.vertices()[0].op else {
        panic!("an image")
    };
    assert_eq!((manifest, platform), (&mica_oci::Digest::of(b"docker.io/library/base:latest"), &amd64()));
}

#[test]
fn parse_errors_keep_their_lines() {
    refused(
        "FROM base\nRUNN x\n",
        2,
        "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)",
    );
    refused("", 0, "the Dockerfile cannot be empty");
}

#[test]
fn no_cache_spares_workdir_and_other_stages() {
    let dockerfile = "FROM base AS a\nRUN a\nFROM a AS b\nWORKDIR /w\nCOPY x /\nRUN b\n";
    let ignoring = |no_cache| {
        let image = convert(&ConvertRequest { no_cache, ..request(dockerfile) }, &Fake::new()).unwrap();
        image.vertices().into_iter().filter(|v| v.ignore_cache).map(|v| v.name.clone()).collect::<Vec<_>>()
    };
    let stages = ["B".to_owned()];
    assert!(ignoring(crate::NoCache::Off).is_empty());
    assert_eq!(ignoring(crate::NoCache::All), ["[a 2/2] RUN a", "[b 2/3] COPY x /", "[b 3/3] RUN b"]);
    assert_eq!(ignoring(crate::NoCache::Stages(&stages)), ["[b 2/3] COPY x /", "[b 3/3] RUN b"]);
}

#[test]
fn workdir_is_a_directory_of_the_user_and_a_layer_unless_it_is_the_root() {
    let image = build(
        "FROM base\nUSER 5\nWORKDIR a\nWORKDIR b/../c/\nWORKDIR /\nWORKDIR $NONE\nWORKDIR /x//y/\nRUN z\n",
    );
    assert_eq!(
        image.new_history()[1..6],
        ["WORKDIR /a", "WORKDIR /a/c", "(WORKDIR /)", "(WORKDIR /)", "WORKDIR /x//y/"]
    );
    let FileAction::MakeDirectory(made) = image.actions()[0] else { panic!("a directory") };
    assert_eq!((made.path.as_str(), made.mode, made.owner.is_some()), ("/a", 0o755, true));
    assert_eq!((image.config.config.working_dir.as_str(), image.exec().cwd.as_str()), ("/x//y/", "/x/y"));
}
