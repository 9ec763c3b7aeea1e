use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl Environment for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).map(|&value| value.to_owned())
    }
}

fn environment() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("HOME", "/root"),
        ("EMPTY", ""),
        ("P", "a/b.c.d"),
        ("STARS", "x*y*z"),
        ("LIST", " one  two "),
        ("LINES", "a\nb"),
        ("öl", "oil"),
    ])
}

fn expanded(text: &str) -> String {
    match word(text, &environment(), '\\') {
        Ok(expanded) => expanded.text,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn refused(text: &str) -> String {
    match word(text, &environment(), '\\') {
        Ok(expanded) => panic!("{text} became {:?}", expanded.text),
        Err(error) => error.to_string(),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(expanded(text), *expected, "{text}");
    }
}

#[test]
fn v4_names_are_letters_digits_or_one_special_character() {
    check(&[
        ("$HOME", "/root"),
        ("${HOME}x", "/rootx"),
        ("$HOME/x", "/root/x"),
        ("$HOMEx", ""),
        ("$öl", "oil"),
        ("a$1b", "ab"),
        ("a$12b", "ab"),
        ("a$0b", "ab"),
        ("[$@$*$#$?$-$!]", "[]"),
        ("a$$HOME", "aHOME"),
        ("${@}${12}${1:-w}", "w"),
    ]);
}

#[test]
fn v5_other_dollars_are_literal() {
    check(&[
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$ x", "$ x"),
        ("\\$HOME", "$HOME"),
        ("\\${HOME}", "${HOME}"),
    ]);
    assert_eq!(word("`$HOME", &environment(), '`').unwrap().text, "$HOME");
    assert_eq!(word("\\$HOME", &environment(), '`').unwrap().text, "\\/root");
}

#[test]
fn v6_modifiers_see_unset_and_empty() {
    check(&[
        ("${U:-w}${U-w}", "ww"),
        ("${EMPTY:-w}[${EMPTY-w}]", "w[]"),
        ("${HOME:-w}${HOME-w}", "/root/root"),
        ("[${U:+w}${U+w}]", "[]"),
        ("[${EMPTY:+w}]${EMPTY+w}", "[]w"),
        ("${HOME:+w}${HOME+w}", "ww"),
        ("${HOME:?m}${HOME?m}[${EMPTY?m}]", "/root/root[]"),
        ("${U:-}", ""),
        ("${U:-$HOME}", "/root"),
        ("${U:-${V:-${HOME}}}/x", "/root/x"),
        ("${U:-a b}", "a b"),
        ("${U:-{x}", "{x"),
        ("${U:-x}}", "x}"),
        ("${U:-\"}\"}", "}"),
        ("${U:-\\}}", "}"),
    ]);
}

#[test]
fn v6_required_variables_say_what_is_missing() {
    assert_eq!(refused("${U?}"), "failed to process \"${U?}\": U: is not allowed to be unset");
    assert!(refused("${EMPTY:?}").ends_with("EMPTY: is not allowed to be empty"));
    assert!(refused("${U:?need $HOME}").ends_with("U: need /root"));
    assert!(refused("${EMPTY:?need it}").ends_with("EMPTY: need it"));
}

#[test]
fn v6_prefixes_and_suffixes_are_removed_shortest_or_longest() {
    check(&[
        ("${P%.*} ${P%%.*} ${P#*/} ${P##*.}", "a/b.c a/b b.c.d d"),
        ("${P#x} ${P%x}", "a/b.c.d a/b.c.d"),
        ("${P#?} ${P%?}", "/b.c.d a/b.c."),
        ("[${P##*}][${P%%*}]", "[][]"),
        ("${P#*}", "a/b.c.d"),
        ("${P#} ${P%%}", "a/b.c.d a/b.c.d"),
        ("${STARS#x\\*} ${STARS%%\\**}", "y*z x"),
        ("${HOME#$HOME}", ""),
        ("[${U#x}]", "[]"),
        ("${HOME%[ot]}", "/root"),
        ("${LINES#a?}", "a\nb"),
        ("${LINES%?b}", "a\nb"),
    ]);
}

#[test]
fn v6_matches_are_replaced_once_or_everywhere() {
    check(&[
        ("${P/b/X} ${P//./-}", "a/X.c.d a/b-c-d"),
        ("${P//[.]/-}", "a/b.c.d"),
        ("${P/./}", "a/bc.d"),
        ("${P/\\//:} ${P//\\//:}", "a:b.c.d a:b.c.d"),
        ("${P/x/y}", "a/b.c.d"),
        ("${P/*/y} ${P//*/y}", "y y"),
        ("${P/b*d/y}", "a/y"),
        ("${P//?/y}", "yyyyyyy"),
        ("${STARS//\\*/+}", "x+y+z"),
        ("${P/b/$HOME}", "a//root.c.d"),
        ("${HOME///-}", "-/-r-o-o-t-"),
        ("${HOME//o/oo}", "/roooot"),
        ("[${U/x/y}]", "[]"),
        ("${P/b/\\/}", "a/\\/.c.d"),
    ]);
}

#[test]
fn v7_other_escapes_in_patterns_are_refused() {
    assert!(refused("${P#\\q}").contains("invalid escape '\\q'"));
    assert!(refused("${P/\\d/x}").contains("invalid escape '\\d'"));
    check(&[("${STARS#x\\*y} ${P#\\}}", "*z a/b.c.d")]);
}

#[test]
fn v8_errors_name_the_word_and_the_reason() {
    let cases = [
        ("${A:=b}", "unsupported modifier (:=) in substitution"),
        ("${A^}", "unsupported modifier (^) in substitution"),
        ("${A,}", "unsupported modifier (,) in substitution"),
        ("${A@Q}", "unsupported modifier (@) in substitution"),
        ("${A:0}", "unsupported modifier (:0) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{a}", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${A", "syntax error: missing '}'"),
        ("${A:", "syntax error: missing '}'"),
        ("${A:-b", "syntax error: missing '}'"),
        ("${A:-${B}", "syntax error: missing '}'"),
        ("${A/b}", "syntax error: missing '/' in ${}"),
        ("${A//b}", "syntax error: missing '/' in ${}"),
        ("${A/b/c", "syntax error: missing '}'"),
    ];
    for (text, gist) in cases {
        assert_eq!(refused(text), format!("failed to process {text:?}: {gist}"));
    }
}

#[test]
fn v9_quotes_and_escapes_disappear() {
    check(&[
        ("'$HOME \"x\" \\n'", "$HOME \"x\" \\n"),
        ("\"$HOME 'x' \\n \\\" \\$ \\\\\"", "/root 'x' \\n \" $ \\"),
        ("a'b'\"c\"d", "abcd"),
        ("a\\b\\ c\\\\d", "ab c\\d"),
        ("x\\", "x"),
        ("''", ""),
        ("\"${U:-\"in quotes\"}\"", "in quotes"),
    ]);
    assert!(refused("\"a").ends_with("unexpected end of statement while looking for matching double-quote"));
    assert!(refused("a'b").ends_with("unexpected end of statement while looking for matching single-quote"));
    assert!(refused("\"a\\\"").ends_with("matching double-quote"));
}

#[test]
fn v10_what_was_looked_at_is_reported() {
    let result = word("$HOME ${U:-$V} $U '$W'", &environment(), '\\').unwrap();
    assert_eq!(result.text, "/root   $W");
    assert_eq!(result.used, ["HOME"]);
    assert_eq!(result.unset, ["V", "U"]);
}

#[test]
fn words_are_split_after_expansion() {
    let split = |text| words(text, &environment(), '\\').unwrap();
    assert_eq!(split("80 81"), ["80", "81"]);
    assert_eq!(split("a$LIST"), ["a", "one", "two"]);
    assert_eq!(split("a\"$LIST\"b c"), ["a one  two b", "c"]);
    assert_eq!(split("a\\ b 'c d'"), ["a b", "c d"]);
    assert_eq!(split("$EMPTY ''"), [""; 0]);
}

#[test]
fn heredoc_bodies_keep_quotes_and_lose_escapes() {
    let body = |text| raw_word(text, &environment(), '\\').unwrap().text;
    assert_eq!(body("it's \"$HOME\" \\$HOME \\n\n"), "it's \"/root\" $HOME n\n");
    assert_eq!(body("[$U][$$][${U:-d}]\n<<x"), "[][][d]\n<<x");
}

#[test]
fn deep_nesting_is_refused_without_a_deep_stack() {
    let nested = |depth: usize| format!("{}x{}", "${A:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expanded(&nested(MAX_DEPTH)), "x");
    assert!(refused(&nested(MAX_DEPTH + 1)).contains("nested deeper than 100"));
    assert!(refused(&"${A:-".repeat(20_000)).contains("nested deeper than 100"));
    assert!(refused(&"\"${A:-".repeat(20_000)).contains("nested deeper than 100"));
}

#[test]
fn results_that_explode_are_refused() {
    let large = |_: &str| Some("x".repeat(MAX_BYTES / 2));
    assert!(word("$A$A", &large, '\\').is_ok());
    let error = word("$A$A$A", &large, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLarge);
    let error = word("${A//x/yyyy}", &large, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLarge);
    let error = word(&format!("${{A#{}}}", "?*".repeat(1000)), &large, '\\').unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::PatternTooExpensive);
}

proptest! {
    #[test]
    fn text_without_special_characters_is_unchanged(text in "[^$'\"\\\\]*") {
        prop_assert_eq!(word(&text, &environment(), '\\').unwrap().text, text);
    }

    #[test]
    fn nothing_makes_it_panic(text in any::<String>(), escape in prop_oneof![Just('\\'), Just('`')]) {
        let _ = word(&text, &environment(), escape);
        let _ = words(&text, &environment(), escape);
        let _ = raw_word(&text, &environment(), escape);
    }

    #[test]
    fn nothing_that_looks_like_a_substitution_makes_it_panic(
        text in "([$][{]?|[PU]|HOME|[:/#%?*+}'\"\\\\-]|é){0,40}"
    ) {
        let _ = word(&text, &environment(), '\\');
        let _ = words(&text, &environment(), '\\');
    }

    #[test]
    fn removing_what_matches_leaves_the_other_end(value in "[ab]{0,12}", pattern in "[ab*?]{0,6}") {
        let env = |_: &str| Some(value.clone());
        for operator in ["#", "##"] {
            let text = format!("${{V{operator}{pattern}}}");
            prop_assert!(value.ends_with(&word(&text, &env, '\\').unwrap().text));
        }
        for operator in ["%", "%%"] {
            let text = format!("${{V{operator}{pattern}}}");
            prop_assert!(value.starts_with(&word(&text, &env, '\\').unwrap().text));
        }
    }
}
