use proptest::prelude::*;

use super::*;

fn patterns(text: &str) -> Patterns {
    Patterns::parse(text.as_bytes()).unwrap()
}

/// Whether one pattern excludes one path.
fn excludes(pattern: &str, path: &str) -> bool {
    Patterns::from_lines(&[pattern.to_owned()]).unwrap().matches(path)
}

fn kept<'a>(text: &str, paths: &[&'a str]) -> Vec<&'a str> {
    let patterns = patterns(text);
    paths.iter().copied().filter(|path| !patterns.matches(path)).collect()
}

#[test]
fn d2_lines_are_brought_into_shape() {
    let file = "\u{feff}/a\r\n# not a pattern\n #b\n  c  \n./d//e/../f\n! /g \n\n!  g/h\nx\n";
    let paths = ["a", "# not a pattern", "#b", "c", "d/f", "d/e", "g", "g/h", "x"];
    assert_eq!(kept(file, &paths), ["# not a pattern", "d/e", "g", "g/h"]);
}

#[test]
fn d2_malformed_patterns_are_refused() {
    for text in ["!", "a\n!\n", "! ", "!/"] {
        let error = Patterns::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "illegal exclusion pattern: \"!\"", "{text:?}");
    }
    for text in ["[", "a[", "[^", "[^bc", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[z-a]", "\\"] {
        let error = Patterns::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "syntax error in pattern", "{text:?}");
    }
}

#[test]
fn d2_the_root_and_what_is_above_cannot_be_excluded() {
    let paths = ["a", "a/b"];
    assert_eq!(kept(".\n./\n..\n../a\n/\n", &paths), paths);
}

#[test]
fn d3_wildcards_stay_within_a_component() {
    let cases = [
        ("*", "a", true),
        ("*.o", "x.o", true),
        ("*.o", "d/x.o", false),
        ("d/*.o", "d/x.o", true),
        ("d/*.o", "d/e/x.o", false),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("a?c", "aéc", true),
        ("[a-c]x", "bx", true),
        ("[a-c]x", "dx", false),
        ("[^a-c]x", "dx", true),
        ("[\\]a]", "]", true),
        ("[α-ω]", "λ", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a.b", "axb", false),
        ("a(b)|{c}$+", "a(b)|{c}$+", true),
        ("x", "d/x", false),
        ("X", "x", false),
        ("a*b*c", "axbxbxc", true),
        ("a*b*c", "axbxbx", false),
    ];
    for (pattern, path, expected) in cases {
        assert_eq!(excludes(pattern, path), expected, "{pattern} on {path}");
    }
}

#[test]
fn d3_double_stars_cross_components() {
    let cases = [
        ("**", "a", true),
        ("**", "a/b/c", true),
        ("**/x", "x", true),
        ("**/x", "a/b/x", true),
        ("**/x", "a/bx", false),
        ("**x", "a/bx", true),
        ("**x", "xa", false),
        ("a/**", "a", false),
        ("a/**", "a/b", true),
        ("a/**", "a/b/c", true),
        ("a/**/z", "a/z", true),
        ("a/**/z", "a/b/c/z", true),
        ("a/**/z", "az", false),
        ("**/*.go", "a/b/c.go", true),
        ("**/**/*.go", "c.go", true),
        ("a**/*.go", "a/c.go", true),
        ("a**/*.go", "a/b/c.go", true),
        ("**/d/*", "a/d/f", true),
        ("**/d/*", "d/e/f", true),
    ];
    for (pattern, path, expected) in cases {
        assert_eq!(excludes(pattern, path), expected, "{pattern} on {path}");
    }
}

#[test]
fn d4_the_last_pattern_that_matches_decides() {
    let paths = ["src/a.c", "src/a.o", "src/d/b.o", "doc/x", "Makefile"];
    assert_eq!(kept("*\n!src\nsrc/*.o\n", &paths), ["src/a.c", "src/d/b.o"]);
    assert_eq!(kept("!doc\ndoc\n", &paths), ["src/a.c", "src/a.o", "src/d/b.o", "Makefile"]);
}

#[test]
fn d4_a_directory_takes_what_is_below_with_it() {
    let paths = ["a", "a/b", "a/b/c", "a/d", "ab"];
    assert_eq!(kept("a", &paths), ["ab"]);
    assert_eq!(kept("a/", &paths), ["ab"]);
    assert_eq!(kept("a\n!a/b\n", &paths), ["a/b", "a/b/c", "ab"]);
    assert_eq!(kept("a\n!a/b\na/b/c\n", &paths), ["a/b", "ab"]);
    assert_eq!(kept("a/*\n!a/d\n", &paths), ["a", "a/d", "ab"]);
    assert_eq!(kept("**\n!**/d\n", &paths), ["a/d"]);
}

#[test]
fn d4_walkers_learn_where_negations_can_match() {
    let negated = patterns("*\n!src/**/*.c\n!doc/index.md\n");
    assert!(negated.could_reinclude_below("src"));
    assert!(negated.could_reinclude_below("src/any/where"));
    assert!(negated.could_reinclude_below("doc"));
    assert!(negated.could_reinclude_below(""));
    assert!(!negated.could_reinclude_below("doc/deeper"));
    assert!(!negated.could_reinclude_below("target"));
    assert!(!negated.could_reinclude_below("sr"));
    assert!(!patterns("*\n").could_reinclude_below(""));
    assert!(patterns("*\n!**/x\n").could_reinclude_below("a/b"));
}

#[test]
fn d6_an_empty_file_excludes_nothing() {
    assert!(patterns("").is_empty());
    assert_eq!(kept("\n \n# x\n", &[".git", "a"]), [".git", "a"]);
}

#[test]
fn exclude_flags_know_no_comments_and_keep_their_slash() {
    assert!(excludes("#x", "#x"));
    assert!(!excludes("/x", "x"));
    assert!(excludes(" x ", "x"));
}

#[test]
fn hostile_patterns_do_not_backtrack() {
    let pattern = format!("{}b", "*a**/".repeat(200));
    assert!(!excludes(&pattern, &"a".repeat(4000)));
}

#[test]
fn paths_are_cleaned_like_go_does() {
    let cases = [
        ("", "."),
        (".", "."),
        ("a/./b//c/", "a/b/c"),
        ("a/../..", ".."),
        ("../../a", "../../a"),
        ("/..", "/"),
        ("/a/../b", "/b"),
    ];
    for (path, expected) in cases {
        assert_eq!(clean(path), expected, "{path}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(file in any::<Vec<u8>>(), path in any::<String>()) {
        if let Ok(patterns) = Patterns::parse(&file) {
            patterns.matches(&path);
            patterns.could_reinclude_below(&path);
        }
    }

    #[test]
    fn what_is_below_an_excluded_path_is_excluded(
        pattern in "[ab*?/]{1,8}", path in "[ab](/[ab]){0,3}", below in "[ab]"
    ) {
        if excludes(&pattern, &path) {
            let inside = format!("{path}/{below}");
            prop_assert!(excludes(&pattern, &inside));
        }
    }

    #[test]
    fn a_negation_that_matches_below_was_foreseen(
        pattern in "[ab*?/]{1,8}", directory in "[ab](/[ab]){0,2}", below in "[ab](/[ab]){0,1}"
    ) {
        let path = format!("{directory}/{below}");
        if excludes(&pattern, &path) && !excludes(&pattern, &directory) {
            let negation = Patterns::from_lines(&[format!("!{pattern}")]).unwrap();
            prop_assert!(negation.could_reinclude_below(&directory));
        }
    }
}
