use proptest::prelude::*;

use super::*;
use crate::parse_instruction;

/// Each text after `FROM B`, and what its error must contain.
fn check(cases: &[(&str, &str)]) {
    for (text, gist) in cases {
        let error = refused_instruction(text);
        assert!(error.starts_with("dockerfile parse error on line 2: "), "{text}: {error}");
        assert!(error.contains(gist), "{text}: {error}");
    }
}

#[test]
fn p16_unknown_instructions_come_with_a_suggestion() {
    check(&[
        ("RNU x", "unknown instruction: RNU (did you mean RUN?)"),
        ("coppy a b", "unknown instruction: coppy (did you mean copy?)"),
        ("FOOBAR x", "unknown instruction: FOOBAR"),
    ]);
    assert!(!refused_instruction("FOOBAR x").contains("did you mean"));
}

#[test]
fn p19_flag_errors() {
    check(&[
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("RUN --mont=target=/x a", "unknown flag: --mont (did you mean mount?)"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --exclude a b", "missing a value on flag: --exclude"),
        ("COPY --link=3 a b", "expecting boolean value for flag --link, not: 3"),
        ("COPY --checksum=x a b", "unknown flag: --checksum"),
        ("COPY --keep-git-dir a b", "unknown flag: --keep-git-dir"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("ADD --parents a b", "unknown flag: --parents"),
        ("CMD --foo", "unknown flag: --foo"),
    ]);
    assert!(refused("FROM --plat=x B").contains("unknown flag: --plat"));
}

#[test]
fn p20_json_must_hold_strings() {
    for text in [
        "CMD [1]",
        "RUN [\"a\", null]",
        "COPY [\"a\", 1]",
        "VOLUME [[]]",
        "HEALTHCHECK CMD [1]",
        "SHELL [{}]",
    ] {
        check(&[(text, "when using JSON array syntax, arrays must be comprised of strings only")]);
    }
    check(&[("ONBUILD CMD [1]", "arrays must be comprised of strings only")]);
}

#[test]
fn p23_name_value_errors() {
    check(&[
        ("ENV ONLYKEY", "ENV must have two arguments"),
        ("LABEL ONLYKEY", "LABEL must have two arguments"),
        ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("ARG =x", "ARG names can not be blank"),
        ("ENV", "ENV requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
    ]);
}

#[test]
fn argument_counts_are_checked() {
    let nowhere =
        "requires at least two arguments, but only one was provided. Destination could not be determined";
    check(&[
        ("COPY a", nowhere),
        ("COPY", nowhere),
        ("ADD [\"a\"]", nowhere),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
    ]);
}

#[test]
fn f1_from_errors() {
    for text in ["FROM", "FROM B x", "FROM B xs y", "FROM B AS x y"] {
        assert!(refused(text).contains("FROM requires either one or three arguments"), "{text}");
    }
    for name in ["1a", "a/b", "-a", "ä"] {
        let expected =
            format!("invalid name for build stage: {name:?}, name can't start with a number or contain");
        assert!(refused(&format!("FROM B AS {name}")).contains(&expected), "{name}");
    }
}

#[test]
fn v3_variables_are_refused_in_from_of_copy_and_mounts() {
    check(&[
        (
            "COPY --from=$X a b",
            "variable expansion is not supported for --from, define a new stage with FROM",
        ),
        (
            "RUN --mount=from=$X,target=/x a",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
    ]);
    assert_eq!(copy("COPY --from=x$ a b").from.as_deref(), Some("x$"));
}

#[test]
fn r11_run_flag_errors() {
    check(&[
        ("RUN --network=foo a", "invalid network mode \"foo\""),
        ("RUN --security=foo a", "security \"foo\" is not valid"),
        ("RUN --device=a b", "device feature is only supported in Dockerfile frontend 1.14.0-labs or later"),
    ]);
}

#[test]
fn i13_health_check_errors() {
    check(&[
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK foo x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=500us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --start-period=-1s CMD x", "Interval \"start-period\" cannot be less than 1ms"),
        ("HEALTHCHECK --interval=5 CMD x", "missing unit in duration"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD x", "\"x\" is not a number"),
    ]);
}

#[test]
fn i14_trigger_errors() {
    check(&[
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD onbuild RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD maintainer x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD RUN <<E\nx", "unterminated heredoc"),
    ]);
}

#[test]
fn errors_do_not_carry_control_characters() {
    let error = refused_instruction("F\x1b[31m\u{9b}x y");
    assert!(error.contains("F\\u{1b}[31m\\u{9b}x"), "{error}");
}

#[test]
fn hostile_files_are_refused_or_read_quickly() {
    let _ = parse(&vec![0; 1 << 20]);
    let _ = parse("RUN <<A ".repeat(8000).as_bytes());
    let _ = parse(format!("FROM B\nRUN {}\n", "<<A ".repeat(10_000)).as_bytes());
    let _ = parse(format!("FROM B\nONBUILD {}\n", "ONBUILD ".repeat(8000)).as_bytes());
    let _ = parse(format!("FROM B\nCMD {}\n", "[".repeat(60_000)).as_bytes());
    let _ = parse(format!("FROM B\n{}", "\\\n".repeat(1 << 20)).as_bytes());
    let _ = parse(format!("FROM B\nENV A={}\n", "${A:-".repeat(10_000)).as_bytes());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_text_like_a_dockerfile_makes_it_panic(
        text in "((FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|ARG|# escape=`|--mount=|<<-?E|E|\\[\"a\"\\]|[a'\"$\\\\`= \t])+\n){0,8}"
    ) {
        if let Ok(dockerfile) = parse(text.as_bytes()) {
            for command in dockerfile.stages.iter().flat_map(|stage| &stage.commands) {
                let lines = text.lines().count() as u32;
                prop_assert!(command.origin.location.start <= command.origin.location.end);
                prop_assert!(command.origin.location.end <= lines);
            }
        }
        let _ = parse_instruction(&text, '`');
    }
}
