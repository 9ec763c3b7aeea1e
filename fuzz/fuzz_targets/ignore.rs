//! Any bytes as an ignore file, the first line as a path: no panic; what is below an excluded path can only
//! be kept by a negation that was foreseen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mica_dockerfile::ignore::Patterns;

fuzz_target!(|input: (&str, &[u8])| {
    let (path, file) = input;
    let Ok(patterns) = Patterns::parse(file) else { return };
    if path.is_empty() || path.starts_with('/') || path.ends_with('/') {
        return;
    }
    let below = format!("{path}/x");
    if patterns.matches(path) && !patterns.matches(&below) {
        assert!(patterns.could_reinclude_below(path));
    }
});
