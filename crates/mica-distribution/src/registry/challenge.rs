//! `WWW-Authenticate`: what a registry wants to see.

use std::collections::BTreeMap;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where tokens come from.
        realm: String,
        /// Whom they are for.
        service: Option<String>,
        /// What this request needs.
        scope: Option<String>,
    },
}

/// Reads all challenges of a header; what cannot be read is left out.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (parameters, next) = parameters(after);
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" => {
                if let Some(realm) = parameters.get("realm") {
                    let get = |name: &str| parameters.get(name).filter(|text| !text.is_empty()).cloned();
                    found.push(Challenge::Bearer {
                        realm: realm.clone(),
                        service: get("service"),
                        scope: get("scope"),
                    });
                }
            }
            _ => {}
        }
        if next.len() >= rest.len() {
            break;
        }
        rest = next;
    }
    found
}

/// `name="value", …` up to the next scheme, and what follows.
fn parameters(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let Some(at) = rest.find('=') else { return (found, "") };
        let name = &rest[..at];
        if name.contains(' ') {
            // `Basic realm="x"`: the next challenge
            return (found, rest);
        }
        let (value, after) = value(&rest[at + 1..]);
        found.insert(name.trim().to_ascii_lowercase(), value);
        rest = after;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_quotes_and_several_in_a_row() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let bearer = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(parse(header), std::slice::from_ref(&bearer));
        assert_eq!(parse(&format!("Basic realm=\"x\", {header}")), [Challenge::Basic, bearer]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        assert_eq!(parse("Bearer service=\"x\""), []);
        assert_eq!(parse("Negotiate"), []);
    }

    #[test]
    fn broken_headers_end() {
        for text in ["Bearer realm=\"", "Bearer =", "=", "Bearer realm=\"a\\", ",,,=,\"", "Bearer ,"] {
            parse(text);
        }
    }
}
