//! Names of docker's fields: its templates reach Go structs, whose fields are not always named as in its JSON.
//!
//! docker runs a template on the struct first and on the JSON object if that fails, so both names work: `.Id` and `.ID`,
//! `.Descriptor.Digest` and `.Descriptor.digest`.

/// Who named the keys of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// docker: fields of a struct.
    Fields,
    /// Users: a map, of which only the keys themselves are names.
    Users,
}

/// Who names the keys of what is under `key`.
pub(crate) fn keys_of(key: &str) -> Keys {
    match key {
        "Annotations" | "annotations" | "Data" | "DriverOpts" | "ExposedPorts" | "Labels" | "Networks"
        | "Options" | "PortBindings" | "Ports" | "StorageOpt" | "Sysctls" | "Tmpfs" | "Volumes" => {
            Keys::Users
        }
        _ => Keys::Fields,
    }
}

/// Words that Go writes in capitals in the names of fields.
const INITIALISMS: &[(&str, &str)] = &[
    ("Cpu", "CPU"),
    ("Cpus", "CPUs"),
    ("Dns", "DNS"),
    ("Id", "ID"),
    ("Os", "OS"),
    ("Url", "URL"),
    ("Urls", "URLs"),
];

/// Other names that a field of this JSON key may have: capitalised, and with initialisms as Go writes them.
pub(crate) fn fields_of(key: &str) -> Vec<String> {
    let words = words(key);
    let plain: String = words.concat();
    let upper: String = words.iter().map(|word| initialism(word)).collect();
    let mut names = vec![plain, upper];
    names.dedup();
    names.retain(|name| name != key && !name.is_empty());
    names
}

fn initialism(word: &str) -> &str {
    INITIALISMS.iter().find(|(plain, _)| *plain == word).map_or(word, |(_, upper)| *upper)
}

/// The words of `mediaType`, `NanoCpus`, `os.version`, each capitalised.
fn words(key: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut starts = true;
    for c in key.chars() {
        if c == '.' || c == '_' || c == '-' {
            starts = true;
            continue;
        }
        match words.last_mut() {
            Some(word) if !starts && !c.is_uppercase() => word.push(c),
            _ => words.push(if starts { c.to_uppercase().collect() } else { c.to_string() }),
        }
        starts = false;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keys_have_gos_names() {
        let names = |key: &str| fields_of(key).join(" ");
        assert_eq!(names("Id"), "ID");
        assert_eq!(names("digest"), "Digest");
        assert_eq!(names("mediaType"), "MediaType");
        assert_eq!(names("urls"), "Urls URLs");
        assert_eq!(names("NanoCpus"), "NanoCPUs");
        assert_eq!(names("os.version"), "OsVersion OSVersion");
        assert_eq!(names("RepoTags"), "");
        assert_eq!(names("RootFS"), "");
        assert_eq!(names("IPAddress"), "");
    }
}
