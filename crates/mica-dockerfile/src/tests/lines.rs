use super::*;
use crate::ast::{RuleSet, ShellOrExec};
use crate::{Location, MAX_FILE_BYTES, MAX_LINE_BYTES, detect_syntax, parse_check_options};

fn shell(text: &str) -> String {
    match run(text).command {
        ShellOrExec::Shell(line) => line,
        other => panic!("{other:?}"),
    }
}

#[test]
fn p2_crlf_and_bom_make_no_difference() {
    let unix = parsed("# escape=`\nFROM B\nRUN a `\n  b\n");
    let dos = parsed("\u{feff}# escape=`\r\nFROM B\r\nRUN a `\r\n  b\r\n");
    assert_eq!(unix.stages, dos.stages);
    assert_eq!((unix.escape, dos.escape), ('`', '`'));
    assert!(dos.source.starts_with('#'));
}

#[test]
fn p3_a_physical_line_has_a_limit_and_a_logical_one_has_none() {
    let fits = format!("RUN {}", "x".repeat(MAX_LINE_BYTES - 4));
    assert_eq!(shell(&fits).len(), MAX_LINE_BYTES - 4);
    let error = refused_instruction(&format!("{fits}x"));
    assert_eq!(
        error,
        "dockerfile parse error on line 2: dockerfile line greater than max allowed size of 65535"
    );
    let long = format!("RUN {}x", format!("{}\\\n", "x".repeat(60_000)).repeat(3));
    assert_eq!(shell(&long).len(), 180_001);
}

#[test]
fn p3_a_file_has_a_limit() {
    let file = format!("FROM B\n{}", "# x\n".repeat(MAX_FILE_BYTES / 4));
    assert!(refused(&file).contains("dockerfile greater than max allowed size"));
}

#[test]
fn p4_files_without_a_stage_say_what_is_missing() {
    assert_eq!(refused(""), "the Dockerfile cannot be empty");
    assert_eq!(refused("\n# x\n \n"), "file with no instructions");
    assert_eq!(refused("ARG A\n"), "dockerfile contains no stages to build");
    assert!(refused("RUN x\nFROM B\n").ends_with("no build stage in current context"));
    assert!(refused("ARG A\nENV a=b\nFROM B\n").ends_with("no build stage in current context"));
}

#[test]
fn p5_leading_blanks_go_and_those_of_continuations_stay() {
    assert_eq!(shell("  \tRUN a \\\n    b"), "a     b");
}

#[test]
fn p6_directives_are_lenient_about_blanks_and_case() {
    assert_eq!(parsed("#EsCaPe=`  \nFROM B\n").escape, '`');
    assert_eq!(parsed("  #  escape  =  `\nFROM B\n").escape, '`');
    let directives = parsed("# Syntax = docker/dockerfile:1 x\n# check=skip=A\nFROM B\n").directives;
    assert_eq!(directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(directives.check.unwrap().skip, RuleSet::Named(strings(&["A"])));
}

#[test]
fn p7_anything_else_ends_the_directives() {
    for above in ["# c", "", "# key=value", "#", "# escape", "FROM A"] {
        assert_eq!(parsed(&format!("{above}\n# escape=`\nFROM B\n")).escape, '\\', "{above}");
    }
    assert_eq!(parsed("# syntax=x\n# escape=`\nFROM B\n").escape, '`');
}

#[test]
fn p8_a_directive_may_be_given_once() {
    let error = refused("# escape=\\\n# escape=\\\nFROM B\n");
    assert_eq!(error, "dockerfile parse error on line 2: only one escape parser directive can be used");
    assert!(refused("# check=skip=A\n# CHECK=skip=B\nFROM B").contains("only one check parser directive"));
    parsed("# escape=\\\n\n# escape=\\\nFROM B\n");
}

#[test]
fn p9_the_escape_character_is_one_of_two() {
    assert!(refused("# escape=x\nFROM B\n").contains("invalid escape token 'x' does not match ` or \\"));
    assert!(refused("# escape=``\nFROM B\n").contains("invalid escape token '``'"));
    let dockerfile = parsed("# escape=`\nFROM B\nRUN echo C:\\x\\ a `\nb\n");
    assert_eq!(dockerfile.stages[0].commands[0].origin.original, "RUN echo C:\\x\\ a b");
}

#[test]
fn p10_the_frontend_is_found_in_every_spelling() {
    let cases = [
        ("# syntax=a/b:1 x\nFROM B", Some("a/b:1")),
        ("#!/usr/bin/env x\n# syntax=a\n", Some("a")),
        ("// syntax = a\nanything", Some("a")),
        ("{\"syntax\": \"a b\"}", Some("a b")),
        ("{\"syntax\": 1}", None),
        ("FROM B\n# syntax=a", None),
        ("\u{feff}# syntax=a", Some("a")),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(detect_syntax(text.as_bytes()).as_deref(), expected, "{text}");
    }
}

#[test]
fn p11_check_options_are_read_and_merged() {
    let file = parse_check_options(" skip=A, B ; error = true").unwrap();
    assert_eq!(file.skip, RuleSet::Named(strings(&["A", "B"])));
    assert_eq!(file.error, Some(true));
    assert_eq!(file.experimental, RuleSet::Unset);
    let merged = file.merged_with(parse_check_options("skip=C;experimental=all").unwrap());
    assert_eq!(merged.skip, RuleSet::Named(strings(&["A", "B", "C"])));
    assert!(merged.skip.contains("a") && !merged.skip.contains("D"));
    assert_eq!((merged.error, merged.experimental), (Some(true), RuleSet::All));
    assert!(parse_check_options("").unwrap() == crate::CheckOptions::default());
}

#[test]
fn p11_unknown_check_options_are_refused() {
    assert_eq!(parse_check_options("foo=1").unwrap_err().to_string(), "invalid check option \"foo\"");
    assert_eq!(parse_check_options("skip").unwrap_err().to_string(), "invalid check option \"skip\"");
    assert!(parse_check_options("error=maybe").is_err());
    assert!(
        refused("# check=foo=1\nFROM B\n")
            .starts_with("dockerfile parse error on line 1: invalid check option")
    );
}

#[test]
fn p11_comments_above_an_instruction_belong_to_it() {
    let dockerfile = parsed("# a\n#\n# check=skip=Rule\n# fin the result\n\nFROM B AS fin\nRUN x\n");
    let origin = &dockerfile.stages[0].origin;
    assert_eq!(origin.comments, ["check=skip=Rule", "fin the result"]);
    assert!(origin.check_options().unwrap().skip.contains("Rule"));
    assert_eq!(origin.description_of("fin"), Some("the result"));
    assert_eq!(dockerfile.stages[0].commands[0].origin.comments, [""; 0]);
}

#[test]
fn p13_comments_inside_continuations_vanish() {
    assert_eq!(shell("RUN echo a \\\n# c\n   # d \\\n  && echo b"), "echo a   && echo b");
    assert_eq!(shell("RUN echo # x"), "echo # x");
}

#[test]
fn p14_lines_are_joined_with_nothing_between() {
    assert_eq!(shell("RUN ech\\\no hi"), "echo hi");
    assert_eq!(shell("RUN a\\ \t\nb"), "ab");
    assert_eq!(shell("RUN a \\\\\nRUN b\n".split_once("\nRUN").unwrap().0), "a \\\\");
    assert_eq!(shell("RUN a \\"), "a");
    assert_eq!(shell("RUN a \\\n"), "a");
}

#[test]
fn p15_blank_lines_in_continuations_are_reported() {
    let dockerfile = parsed("FROM B\nRUN a \\\n\n \\\n  b\nRUN c\n");
    assert_eq!(dockerfile.stages[0].commands.len(), 2);
    let [warning] = dockerfile.warnings.as_slice() else { panic!("one warning") };
    assert_eq!(warning.rule, "NoEmptyContinuation");
    assert_eq!(warning.message, "Empty continuation line");
    assert_eq!(warning.location, Location { start: 5, end: 5 });
}

#[test]
fn p24_locations_span_all_lines_of_an_instruction() {
    let dockerfile = parsed("\nFROM B\nRUN a \\\n# c\n b\nRUN <<E\nx\nE\n\nCMD x");
    let locations: Vec<_> =
        dockerfile.stages[0].commands.iter().map(|command| command.origin.location).collect();
    assert_eq!(locations, [(3, 5), (6, 8), (10, 10)].map(|(start, end)| Location { start, end }));
    assert_eq!(dockerfile.stages[0].origin.location, Location { start: 2, end: 2 });
}

#[test]
fn titles_are_the_logical_line() {
    let dockerfile = parsed("FROM B\n  run  --network=none a \\\n# c\n   b  \nCOPY  x   y\n");
    let titles: Vec<_> = dockerfile.stages[0].commands.iter().map(|c| c.origin.original.as_str()).collect();
    assert_eq!(titles, ["run  --network=none a    b", "COPY  x   y"]);
    assert_eq!(dockerfile.stages[0].commands[0].origin.keyword, "run");
}

#[test]
fn foreign_bytes_are_welcome_in_comments_only() {
    assert!(parse(b"# caf\xe9\nFROM B\nRUN a \\\n# \xff\nb\n").is_ok());
    let error = parse(b"FROM B\nRUN caf\xe9\n").unwrap_err().to_string();
    assert_eq!(error, "dockerfile parse error on line 2: instruction is not valid UTF-8");
    assert!(parse(b"FROM B\nRUN <<E\n\xff\nE\n").is_err());
}
