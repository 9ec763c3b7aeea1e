//! Rules that need nothing but the text; they see every stage.

use mica_dockerfile::{ArgItem, Dockerfile, Instruction, Origin, Stage};

use super::Findings;

/// Names that a stage can have, but that mean something else in most places.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Looks at a file.
pub(crate) fn whole_file(findings: &mut Findings, dockerfile: &Dockerfile) {
    for warning in &dockerfile.warnings {
        findings.report(warning.rule, warning.location, warning.message.clone());
    }
    for arg in &dockerfile.global_args {
        description(findings, &arg.origin, "ARG", &names(&arg.items));
    }
    for stage in &dockerfile.stages {
        from(findings, stage);
        let name: Vec<&str> = stage.name.as_deref().into_iter().collect();
        description(findings, &stage.origin, "FROM", &name);
        for command in &stage.commands {
            match &command.instruction {
                Instruction::Maintainer(_) => {
                    let message = "Maintainer instruction is deprecated in favor of using label";
                    findings.report("MaintainerDeprecated", command.origin.location, message.to_owned());
                }
                Instruction::Arg(items) => description(findings, &command.origin, "ARG", &names(items)),
                _ => {}
            }
        }
    }
    stage_names(findings, dockerfile);
    casing(findings, dockerfile);
    for stage in &dockerfile.stages {
        platform(findings, stage);
    }
}

/// The words of FROM. The comment above it may skip these rules, and only these.
fn from(findings: &mut Findings, stage: &Stage) {
    let skipped = stage.origin.check_options().unwrap_or_default().skip;
    let at = stage.origin.location;
    let mut report = |rule, message| {
        if !skipped.contains(rule) {
            findings.report(rule, at, message);
        }
    };
    if let Some(name) = stage.written_name.as_deref().filter(|name| *name != name.to_lowercase()) {
        report("StageNameCasing", format!("Stage name '{name}' should be lowercase"));
    }
    if let Some(word) = &stage.as_keyword {
        let keyword = &stage.origin.keyword;
        let both = |case: fn(&str) -> String| *keyword == case(keyword) && *word == case(word);
        if !both(str::to_uppercase) && !both(str::to_lowercase) {
            report("FromAsCasing", format!("'{word}' and '{keyword}' keywords' casing do not match"));
        }
    }
}

fn names(items: &[ArgItem]) -> Vec<&str> {
    items.iter().map(|item| item.name.as_str()).collect()
}

/// The last comment above ARG and FROM describes what is declared there (L3), if it begins with its name.
fn description(findings: &mut Findings, origin: &Origin, instruction: &str, names: &[&str]) {
    let Some(comment) = origin.comments.last() else { return };
    let example = match names {
        [] => return,
        [name] => name,
        _ => "<arg_key>",
    };
    if !comment.split(' ').next().is_some_and(|word| names.contains(&word)) {
        let message =
            format!("Comment for {instruction} should follow the format: `# {example} <description>`");
        findings.report("InvalidDefinitionDescription", origin.location, message);
    }
}

fn stage_names(findings: &mut Findings, dockerfile: &Dockerfile) {
    let mut known: Vec<&str> = Vec::new();
    for stage in &dockerfile.stages {
        let Some(name) = stage.name.as_deref() else { continue };
        let at = stage.origin.location;
        if known.contains(&name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            findings.report("DuplicateStageName", at, message);
        }
        if RESERVED.contains(&name) {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            findings.report("ReservedStageName", at, message);
        }
        known.push(name);
    }
}

/// Keywords should all be in upper case, or all in lower case: as most of them are.
fn casing(findings: &mut Findings, dockerfile: &Dockerfile) {
    let origins = || {
        dockerfile.stages.iter().flat_map(|stage| {
            let commands = stage.commands.iter().map(|command| &command.origin);
            std::iter::once(&stage.origin).chain(commands)
        })
    };
    let is_lower = |word: &str| word == word.to_lowercase();
    let is_upper = |word: &str| word == word.to_uppercase();
    let lower = origins().filter(|origin| is_lower(&origin.keyword)).count();
    let upper = origins().filter(|origin| is_upper(&origin.keyword)).count();
    let (fits, majority): (&dyn Fn(&str) -> bool, _) =
        if lower > upper { (&is_lower, "lowercase") } else { (&is_upper, "uppercase") };
    for origin in origins().filter(|origin| !fits(&origin.keyword)) {
        let message = format!(
            "Command '{}' should match the case of the command majority ({majority})",
            origin.keyword
        );
        findings.report("ConsistentInstructionCasing", origin.location, message);
    }
}

fn platform(findings: &mut Findings, stage: &Stage) {
    let Some(platform) = stage.platform.as_deref().filter(|platform| !platform.is_empty()) else { return };
    let at = stage.origin.location;
    if let "$TARGETPLATFORM" | "${TARGETPLATFORM}" = platform {
        let message = format!(
            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        );
        findings.report("RedundantTargetPlatform", at, message);
    } else if !platform.contains('$') && !is_named_after(stage, platform) {
        let message = format!("FROM --platform flag should not use constant value {platform:?}");
        findings.report("FromPlatformFlagConstDisallowed", at, message);
    }
}

/// A stage `build-amd64` says itself that it is for one platform.
fn is_named_after(stage: &Stage, platform: &str) -> bool {
    let name = stage.name.as_deref().unwrap_or_default();
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    [os, architecture].iter().any(|part| !part.is_empty() && name.contains(part))
}
