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
