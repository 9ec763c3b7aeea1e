//! Findings, as the reference tells them (build.md L4).

use super::support::{Fake, request};
use crate::{ConvertRequest, convert};

/// `Rule line` of everything found.
fn found(dockerfile: &str) -> Vec<String> {
    let image = convert(&request(dockerfile), &Fake::new()).unwrap();
    image.warnings.iter().map(|warning| format!("{} {}", warning.rule, warning.location.start)).collect()
}

fn messages(dockerfile: &str) -> Vec<String> {
    let image = convert(&request(dockerfile), &Fake::new()).unwrap();
    image.warnings.into_iter().map(|warning| warning.message).collect()
}

#[test]
fn the_whole_file_is_looked_at_in_the_reference_s_order() {
    let file = "FROM --platform=$TARGETPLATFORM scratch as B1\nMAINTAINER me\nworkdir /a\nRun echo hi \\\n\n  there\n\
        FROM --platform=linux/amd64 scratch AS b1\nFROM scratch AS context\n\
        FROM --platform=linux/amd64 scratch AS x-amd64\nCOPY a /\n";
    assert_eq!(
        found(file),
        [
            "NoEmptyContinuation 6",
            "StageNameCasing 1",
            "FromAsCasing 1",
            "MaintainerDeprecated 2",
            "DuplicateStageName 7",
            "ReservedStageName 8",
            "ConsistentInstructionCasing 3",
            "ConsistentInstructionCasing 4",
            "RedundantTargetPlatform 1",
            "FromPlatformFlagConstDisallowed 7",
        ]
    );
}

#[test]
fn rules_about_values_see_only_stages_that_are_needed() {
    assert!(found("FROM scratch\nENV a b\nCMD x\nFROM scratch AS last\nCOPY a /\n").is_empty());
    let file = "FROM scratch AS a\nENV a b\nLABEL c d\nENV MY_TOKEN=1 PUBLIC_KEY=2 AUTHOR=3\nARG my_secret\n\
        WORKDIR rel\nWORKDIR more\nCMD x\nCMD y\nHEALTHCHECK CMD a\nHEALTHCHECK CMD b\n\
        FROM a\nWORKDIR still\nSHELL [\"/x\"]\nENTRYPOINT z\n";
    assert_eq!(
        found(file),
        [
            "LegacyKeyValueFormat 2",
            "LegacyKeyValueFormat 3",
            "SecretsUsedInArgOrEnv 4",
            "SecretsUsedInArgOrEnv 5",
            "WorkdirRelativePath 6",
            "JSONArgsRecommended 8",
            "MultipleInstructionsDisallowed 8",
            "JSONArgsRecommended 9",
            "MultipleInstructionsDisallowed 10",
        ]
    );
}

#[test]
fn variables_that_nobody_set_are_named_word_by_word() {
    let file =
        "FROM scratch\nARG NOVAL\nENV PATHS=$PATHH X=${U:-y}\nCOPY $NOVAL $NOPE ${NOPE}b /x\nRUN echo $ANY\n";
    assert_eq!(
        messages(file),
        [
            "Usage of undefined variable '$PATHH' (did you mean $PATH?)",
            "Usage of undefined variable '$U'",
            "Usage of undefined variable '$NOPE'",
            "Usage of undefined variable '$NOPE'",
        ]
    );
}

#[test]
fn words_of_from_have_to_be_declared_and_to_make_sense_without_build_arguments() {
    let file = "ARG NONE\nARG UPPER=UP\nARG BASE=scratch\nFROM ${BAES:-base}\nFROM base${NONE} AS Next\n\
        FROM ${UPPER} AS up\nFROM $BASE\n";
    let arguments = [("UPPER".to_owned(), Some("base".to_owned()))];
    let image = convert(&ConvertRequest { build_args: &arguments, ..request(file) }, &Fake::new()).unwrap();
    let told: Vec<_> = image.warnings.into_iter().map(|warning| warning.message).collect();
    assert_eq!(
        told,
        [
            "Stage name 'Next' should be lowercase",
            "Default value for ARG ${UPPER} results in empty or invalid base image name",
            "FROM argument 'BAES' is not declared (did you mean BASE?)",
        ]
    );
    let wrong = convert(&request("FROM --platform=$TARGETPLAFORM base\n"), &Fake::new()).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "empty platform value from expression $TARGETPLAFORM (did you mean TARGETPLATFORM?)"
    );
    assert_eq!(wrong.warnings[0].rule, "UndefinedArgInFrom");
}

#[test]
fn a_base_for_another_platform_is_told() {
    let arm = Fake::new().image("arm", mica_oci::ImageConfig::scratch(&"linux/arm64".parse().unwrap()));
    let wanted = ConvertRequest { platform: "linux/amd64".parse().unwrap(), ..request("FROM arm\n") };
    let warnings = convert(&wanted, &arm).unwrap().warnings;
    assert_eq!(
        warnings[0].message,
        "Base image arm was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build"
    );
    let wanted = ConvertRequest { platform: "linux/arm64/v8".parse().unwrap(), ..request("FROM arm\n") };
    assert!(convert(&wanted, &arm).unwrap().warnings.is_empty());
}

#[test]
fn words_of_expose_are_told_as_they_are_sorted() {
    let file = "FROM scratch\nARG P=UDP\nEXPOSE 90/$P 80 [::1]:5:5/TCP 80:81\n";
    assert_eq!(
        messages(file),
        [
            "EXPOSE instruction should not define an IP address or host-port mapping, found '80:81'",
            "Defined protocol '90/UDP' in EXPOSE instruction should be lowercase",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:5:5/TCP'",
            "Defined protocol '[::1]:5:5/TCP' in EXPOSE instruction should be lowercase",
        ]
    );
}

#[test]
fn sources_that_the_context_leaves_out_are_told() {
    let file = "FROM scratch AS a\nCOPY /a.txt d/../b.md *.txt d http.txt /x/\nADD a.txt https://h/a.txt /\n\
        COPY <<a.txt /\nx\na.txt\nFROM a\nCOPY --from=a a.txt /\n";
    let told = |patterns: &[u8]| {
        let ignored = mica_dockerfile::ignore::Patterns::parse(patterns).unwrap();
        let request = ConvertRequest { ignored: Some(&ignored), ..request(file) };
        let warnings = convert(&request, &Fake::new()).unwrap().warnings;
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    let excluded = |what: &str| format!("Attempting to {what} that is excluded by .dockerignore");
    assert_eq!(
        told(b"a.txt\n*.md\nd/x\n"),
        [
            excluded("COPY file \"/a.txt\""),
            excluded("COPY file \"d/../b.md\""),
            excluded("ADD file \"a.txt\"")
        ]
    );
    assert!(told(b"*\n!a.txt\n").is_empty());
}

#[test]
fn descriptions_have_a_form_for_those_who_ask() {
    let file = "# b the name\nARG a=1 b\n# nothing\nFROM scratch AS x\n# odd\nARG q\n# one\n\nARG z\n";
    assert!(found(file).is_empty());
    let experimental = format!("# check=experimental=all\n{file}");
    assert_eq!(
        messages(&experimental),
        [
            "Comment for FROM should follow the format: `# x <description>`",
            "Comment for ARG should follow the format: `# q <description>`",
            "Comment for ARG should follow the format: `# z <description>`",
        ]
    );
}

#[test]
fn findings_are_told_although_the_conversion_fails() {
    let error = super::support::error("from scratch\nenv a b\ncmd x\nuser ${Y:?no}\n");
    let told: Vec<_> = error.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "\"env key=value\" should be used instead of legacy \"env key value\" format",
            "JSON arguments recommended for cmd to prevent unintended behavior related to OS signals",
        ]
    );
    let error = super::support::error("FROM scratch\nSTOPSIGNAL $NOPE\n");
    assert_eq!(error.warnings[0].message, "Usage of undefined variable '$NOPE'");
}

#[test]
fn rules_are_skipped_by_file_comment_and_argument() {
    let file = "FROM scratch AS A\nMAINTAINER q\nCMD x\n";
    assert_eq!(found(file).len(), 3);
    assert_eq!(
        found(&format!("# check=skip=jsonargsrecommended,StageNameCasing\n{file}")),
        ["MaintainerDeprecated 3"]
    );
    assert!(found(&format!("# check=skip=all\n{file}")).is_empty());
    // a comment counts above FROM, for the words of FROM
    let above = "FROM scratch\n# check=skip=StageNameCasing\nFROM scratch AS A\n# check=skip=MaintainerDeprecated\nMAINTAINER q\n";
    assert_eq!(found(above), ["MaintainerDeprecated 5"]);
    let arguments = [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), Some("skip=all".to_owned()))];
    let over = ConvertRequest { build_args: &arguments, ..request(file) };
    assert!(convert(&over, &Fake::new()).unwrap().warnings.is_empty());
    let arguments = [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), Some("nope=1".to_owned()))];
    let wrong = ConvertRequest { build_args: &arguments, ..request(file) };
    assert!(convert(&wrong, &Fake::new()).is_err());
}

#[test]
fn findings_fail_a_build_that_wants_it() {
    let strict = |rest: &str| {
        let file = format!("# check=error=true\n{rest}");
        convert(&request(&file), &Fake::new()).unwrap().violation
    };
    assert_eq!(strict("FROM scratch\nCOPY a /\n"), None);
    let violation = strict("FROM scratch\nMAINTAINER x\nWORKDIR rel\nWORKDIR /a\n").unwrap();
    assert_eq!(violation, "lint violation found for rules: MaintainerDeprecated, WorkdirRelativePath");
}
