//! What the name of a member means in a layer.

use super::ApplyError;
use crate::limits::{LimitExceeded, Limits};
use crate::path;
use crate::tar::{AUFS_PREFIX, OPAQUE_MARKER, TarError, WHITEOUT_PREFIX};

/// Where a member belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this path; empty for the root.
    Path(Vec<u8>),
    /// It hides this path of the layers below.
    Whiteout(Vec<u8>),
    /// It hides the lower content of this directory.
    Opaque(Vec<u8>),
    /// AUFS's own bookkeeping, which old engines left in layers.
    Ignored,
}

/// Returns a member's name as a path: leading slashes, `.` and empty components mean nothing, `..` is refused.
///
/// Refused rather than clamped: no tool that writes layers produces it, and `a/../b` means different files to
/// different readers when `a` is a link.
pub(crate) fn clean(name: &[u8], limits: &Limits) -> Result<Vec<u8>, ApplyError> {
    if name.split(|&byte| byte == b'/').any(|component| component == b"..") {
        return Err(bad(name, "it climbs out of its directory"));
    }
    clean_rooted(name, limits)
}

/// Returns a member's name as a path in the destination: `..` ends there. What `ADD` unpacks is made by people, and
/// the reference contains such names instead of refusing them.
pub(crate) fn clean_rooted(name: &[u8], limits: &Limits) -> Result<Vec<u8>, ApplyError> {
    let mut clean: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => {
                clean.truncate(clean.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        if component.contains(&0) {
            return Err(bad(name, "it contains a NUL"));
        }
        let length = component.strip_prefix(WHITEOUT_PREFIX).unwrap_or(component).len() as u64;
        LimitExceeded::check("length of a path component", length, limits.component_bytes)
            .map_err(TarError::from)?;
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    Ok(clean)
}

/// Says where the member called `name` belongs (security.md row 7).
pub(crate) fn place(name: &[u8], limits: &Limits) -> Result<Place, ApplyError> {
    let clean = clean(name, limits)?;
    let last = path::file_name(&clean);
    let parent = path::parent(&clean).unwrap_or_default();
    if path::components(&clean)
        .any(|component| component.starts_with(AUFS_PREFIX) && component != OPAQUE_MARKER)
    {
        return Ok(Place::Ignored);
    }
    if path::components(parent).any(|component| component.starts_with(WHITEOUT_PREFIX)) {
        return Err(bad(name, "it is below a whiteout"));
    }
    let place = match last.strip_prefix(WHITEOUT_PREFIX) {
        _ if last == OPAQUE_MARKER => Place::Opaque(parent.to_vec()),
        Some(hidden) if path::is_normal_component(hidden) => Place::Whiteout(path::join(parent, hidden)),
        Some(_) => return Err(bad(name, "it is a whiteout of no file")),
        None => Place::Path(clean),
    };
    match &place {
        Place::Path(path) | Place::Whiteout(path) | Place::Opaque(path) => {
            LimitExceeded::check("length of a path", path.len() as u64, limits.path_bytes)
                .map_err(TarError::from)?;
        }
        Place::Ignored => {}
    }
    Ok(place)
}

fn bad(name: &[u8], why: &'static str) -> ApplyError {
    ApplyError::Name { name: path::show(name), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(name: &str) -> Place {
        place(name.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn every_spelling_of_a_path_is_the_same_path() {
        for name in ["a/b", "/a/b", "./a/b/", "//a/.//b", "a/b/."] {
            assert_eq!(placed(name), Place::Path(b"a/b".to_vec()), "{name}");
        }
        for name in ["", ".", "./", "/", "//."] {
            assert_eq!(placed(name), Place::Path(Vec::new()), "{name}");
        }
    }

    #[test]
    fn markers_are_told_apart() {
        assert_eq!(placed("d/.wh.x"), Place::Whiteout(b"d/x".to_vec()));
        assert_eq!(placed("d/.wh..wh..opq"), Place::Opaque(b"d".to_vec()));
        assert_eq!(placed(".wh..wh..opq"), Place::Opaque(Vec::new()));
        assert_eq!(placed(".wh..wh.plnk/123.4"), Place::Ignored);
        assert_eq!(placed("d/.wh..hidden"), Place::Whiteout(b"d/.hidden".to_vec()));
    }

    #[test]
    fn names_that_climb_or_hide_nothing_are_refused() {
        for name in ["../a", "a/../b", "..", ".wh.", ".wh..", ".wh...", "a/.wh..", ".wh.a/b"] {
            assert!(place(name.as_bytes(), &Limits::default()).is_err(), "{name}");
        }
    }

    #[test]
    fn long_names_are_refused_and_their_whiteouts_are_not_longer_than_them() {
        let limits = Limits::default();
        assert!(place("x".repeat(256).as_bytes(), &limits).is_err());
        assert!(place(format!(".wh.{}", "x".repeat(255)).as_bytes(), &limits).is_ok());
        assert!(place("x/".repeat(2049).as_bytes(), &limits).is_err());
    }
}
