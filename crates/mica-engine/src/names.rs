//! Random container names of docker's form: an adjective and the name of somebody worth knowing.

const ADJECTIVES: &[&str] = &[
    "agile", "amber", "ample", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "cheery", "clever", "cosy", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "elated",
    "fair", "fond", "frank", "gentle", "glad", "golden", "grand", "hardy", "hopeful", "humble", "jolly",
    "keen", "kind", "lively", "loyal", "lucid", "merry", "mellow", "modest", "neat", "nimble", "noble",
    "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready", "robust", "rosy",
    "serene", "sharp", "silent", "sincere", "smart", "snug", "sober", "solid", "spry", "stoic", "sunny",
    "swift", "tender", "tidy", "trusty", "upbeat", "vivid", "warm", "wise", "witty", "young", "zesty",
];

const PEOPLE: &[&str] = &[
    "abel",
    "agnesi",
    "babbage",
    "bell",
    "bernoulli",
    "bohr",
    "boole",
    "bose",
    "brahe",
    "cannon",
    "cantor",
    "cayley",
    "cerf",
    "church",
    "codd",
    "conway",
    "curie",
    "dalton",
    "darwin",
    "dijkstra",
    "dirac",
    "einstein",
    "engelbart",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fibonacci",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goldberg",
    "goodall",
    "hamilton",
    "hawking",
    "hertz",
    "hilbert",
    "hopper",
    "hypatia",
    "hoare",
    "jemison",
    "kepler",
    "kernighan",
    "knuth",
    "kovalevskaya",
    "lamport",
    "leibniz",
    "liskov",
    "lovelace",
    "maxwell",
    "mccarthy",
    "meitner",
    "mendel",
    "mendeleev",
    "minsky",
    "moore",
    "napier",
    "neumann",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "ritchie",
    "sagan",
    "shannon",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wiles",
    "wozniak",
    "yalow",
];

/// A name made of two random numbers; `attempt` above 0 appends a digit, as docker does when names run out.
pub(crate) fn from_random(first: u64, second: u64, attempt: u32) -> String {
    let adjective = ADJECTIVES[(first % ADJECTIVES.len() as u64) as usize];
    let person = PEOPLE[(second % PEOPLE.len() as u64) as usize];
    match attempt {
        0 => format!("{adjective}_{person}"),
        _ => format!("{adjective}_{person}{}", attempt % 10),
    }
}

/// Whether a text may name a container.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_valid_names() {
        for number in 0..500 {
            assert!(is_valid(&from_random(number, number * 7, (number % 3) as u32)));
        }
    }

    #[test]
    fn names_that_could_be_options_or_paths_are_refused() {
        for name in ["", "a", "-rm", "a/b", "../x", "a b", "_x"] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
