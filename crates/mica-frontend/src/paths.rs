//! Slash paths as Dockerfiles mean them: cleaned, rooted, with or without a memory of the trailing slash.

/// Go's `path.Clean` of an absolute path: no `//`, `.`, `..`; `..` stops at the root.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `path` seen from `directory`, cleaned.
pub(crate) fn join(directory: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{directory}/{path}")) }
}

/// The destination of a COPY (C2): cleaned, a trailing slash kept; `.` and nothing mean the working directory *as a
/// directory*.
pub(crate) fn destination(workdir: &str, path: &str) -> String {
    keep_slash(
        join(workdir, path),
        path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/."),
    )
}

/// The source of a COPY (C2): rooted and cleaned, a trailing slash kept.
pub(crate) fn source(path: &str) -> String {
    keep_slash(clean(path), path.ends_with('/') || path.ends_with("/."))
}

/// The source of a COPY with `--parents`: like [`source`], but the first `/./`, the pivot, stays where it is (C17).
pub(crate) fn source_with_pivot(path: &str) -> String {
    match path.split_once("/./") {
        Some((above, below)) if clean(below) != "/" => {
            let above = clean(above);
            format!("{}/.{}", above.trim_end_matches('/'), source(below))
        }
        _ => source(path),
    }
}

fn keep_slash(mut path: String, slash: bool) -> String {
    if slash && !path.ends_with('/') {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_relative_to_the_working_directory_and_remember_the_slash() {
        for (path, expected) in [
            (".", "/w/x/"),
            ("./", "/w/x/"),
            ("", "/w/x/"),
            ("n", "/w/x/n"),
            ("n/", "/w/x/n/"),
            ("n/.", "/w/x/n/"),
            ("../n", "/w/n"),
            ("..", "/w"),
            ("n8/./n9/../n10", "/w/x/n8/n10"),
            ("/../../n12", "/n12"),
            ("//a//b/", "/a/b/"),
            ("/", "/"),
        ] {
            assert_eq!(destination("/w/x", path), expected, "{path:?}");
        }
    }

    #[test]
    fn sources_cannot_leave_the_root() {
        for (path, expected) in [
            ("../../etc/passwd", "/etc/passwd"),
            (".", "/"),
            ("a/", "/a/"),
            ("/a/./b", "/a/b"),
            ("d*/[a-z]?", "/d*/[a-z]?"),
        ] {
            assert_eq!(source(path), expected, "{path:?}");
        }
    }

    #[test]
    fn the_pivot_of_parents_survives_cleaning() {
        for (path, expected) in [
            ("x/./y/z", "/x/./y/z"),
            ("x/..//q/./y/z/", "/q/./y/z/"),
            ("./a/e.txt", "/a/e.txt"),
            ("/./a", "/./a"),
            ("x/./.", "/x/"),
            (".", "/"),
        ] {
            assert_eq!(source_with_pivot(path), expected, "{path:?}");
        }
    }
}
