//! Globs over image names, as `images REPOSITORY` and `--filter reference=` have them.

use mica_oci::Reference;

/// Whether a pattern means this image: matched against the repository, or, when it has a tag, against both; in docker's
/// short and in the full form.
pub(crate) fn matches_reference(pattern: &str, name: &Reference) -> bool {
    let tag = name.tag().map(ToString::to_string).unwrap_or_default();
    [name.familiar_name(), name.name()].iter().any(|repository| {
        matches(pattern.as_bytes(), repository.as_bytes())
            || matches(pattern.as_bytes(), format!("{repository}:{tag}").as_bytes())
    })
}

/// `*` and `?` do not match a slash; everything else is literal.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            let run = text.iter().take_while(|byte| **byte != b'/').count();
            (0..=run).any(|taken| matches(&pattern[1..], &text[taken..]))
        }
        (Some(b'?'), Some(byte)) if *byte != b'/' => matches(&pattern[1..], &text[1..]),
        (Some(expected), Some(byte)) if expected == byte => matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_repositories_with_and_without_tags() {
        let name: Reference = "user/app:1.2".parse().unwrap();
        for pattern in ["user/app", "user/*", "*/app", "user/app:1.*", "user/app:?.2", "docker.io/user/app"] {
            assert!(matches_reference(pattern, &name), "{pattern}");
        }
        for pattern in ["app", "*", "user", "user/app:2", "user/ap"] {
            assert!(!matches_reference(pattern, &name), "{pattern}");
        }
    }
}
