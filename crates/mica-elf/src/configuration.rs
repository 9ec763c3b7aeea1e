//! The text files that tell where libraries are: `ld.so.conf` for ldconfig, `ld-musl-*.path` for musl.

use std::collections::BTreeSet;

use crate::files::Files;
use crate::path::{join, parent, walk, walk_to_file};

const FILE_BYTES: usize = 256 * 1024;
/// How many files an `ld.so.conf` may include, nested ones counted.
const INCLUDES: usize = 256;

/// The directories that `/etc/ld.so.conf` lists, in order, `include` lines (with `*` and `?`) followed.
///
/// glibc's loader never reads this file: ldconfig does, and writes the cache that the loader reads.
pub(crate) fn ld_so_conf(files: &dyn Files) -> Vec<Vec<u8>> {
    let mut reader = LdSoConf { files, directories: Vec::new(), seen: BTreeSet::new() };
    reader.file(b"/etc/ld.so.conf");
    reader.directories
}

struct LdSoConf<'a> {
    files: &'a dyn Files,
    directories: Vec<Vec<u8>>,
    seen: BTreeSet<Vec<u8>>,
}

impl LdSoConf<'_> {
    fn file(&mut self, path: &[u8]) {
        let Some(real) = walk_to_file(self.files, path).map(|walked| walked.path) else { return };
        if self.seen.len() == INCLUDES || !self.seen.insert(real.clone()) {
            return;
        }
        let text = self.files.read(&real, 0, FILE_BYTES).unwrap_or_default();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            match line.strip_prefix(b"include") {
                Some(patterns) if patterns.first().is_some_and(u8::is_ascii_whitespace) => {
                    for pattern in words(patterns) {
                        self.include(&join(parent(path), pattern));
                    }
                }
                _ => self.directories.extend(
                    line.split(|byte| matches!(byte, b':' | b',' | b' ' | b'\t'))
                        .filter(|directory| directory.starts_with(b"/"))
                        // ldconfig's "DIR=TYPE", long obsolete.
                        .filter_map(|directory| directory.split(|byte| *byte == b'=').next())
                        .map(<[u8]>::to_vec),
                ),
            }
        }
    }

    /// Wildcards are honoured in the last component, where distributions use them.
    fn include(&mut self, pattern: &[u8]) {
        let directory = parent(pattern).to_vec();
        let name_pattern = pattern.get(directory.len() + 1..).unwrap_or_default();
        if !name_pattern.iter().any(|byte| matches!(byte, b'*' | b'?')) {
            return self.file(pattern);
        }
        let Some(walked) = walk(self.files, &directory) else { return };
        let mut names = self.files.names(&walked.path).unwrap_or_default();
        names.sort();
        for name in names {
            if !name.starts_with(b".") && matches_pattern(name_pattern, &name) {
                self.file(&join(&directory, &name));
            }
        }
    }
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Whether `name` is what `pattern` (with `*` and `?`) describes; linear but for one step back.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(same) if same == byte => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((star_p, star_n)) => {
                    star = Some((star_p, star_n + 1));
                    (p, n) = (star_p + 1, star_n + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// musl's directories for one architecture: `/etc/ld-musl-<architecture>.path` if it is there.
pub(crate) fn musl_path(files: &dyn Files, architecture: &[u8]) -> Option<Vec<Vec<u8>>> {
    let file = walk_to_file(files, &[b"/etc/ld-musl-", architecture, b".path"].concat())?;
    let text = files.read(&file.path, 0, FILE_BYTES)?;
    let directories = text.split(|byte| matches!(byte, b':' | b'\n'));
    Some(directories.filter(|directory| directory.starts_with(b"/")).map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFiles;

    fn shown(directories: Vec<Vec<u8>>) -> Vec<String> {
        directories.into_iter().map(|directory| String::from_utf8(directory).unwrap()).collect()
    }

    #[test]
    fn included_files_are_read_in_the_order_of_their_names() {
        let files = MemoryFiles::new()
            .file("/etc/ld.so.conf", b"# all\ninclude /etc/ld.so.conf.d/*.conf\n/opt/last # end\n")
            .file("/etc/ld.so.conf.d/b.conf", b"/usr/lib/b\n\t/usr/lib/c:/usr/lib/d\ninclude ../ld.so.conf\n")
            .file("/etc/ld.so.conf.d/a.conf", b"/usr/lib/a\n")
            .file("/etc/ld.so.conf.d/a.conf.bak", b"/wrong\n");
        assert_eq!(
            shown(ld_so_conf(&files)),
            ["/usr/lib/a", "/usr/lib/b", "/usr/lib/c", "/usr/lib/d", "/opt/last"]
        );
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let files = MemoryFiles::new().file("/etc/ld.so.conf", b"include ld.so.conf\ninclude *\n/x\n");
        assert_eq!(shown(ld_so_conf(&files)), ["/x"]);
    }

    #[test]
    fn wildcards_match_as_in_a_shell() {
        let matches = |pattern: &str, name: &str| matches_pattern(pattern.as_bytes(), name.as_bytes());
        assert!(matches("*.conf", "x.conf") && matches("*", "") && matches("a?c*", "abcd"));
        assert!(matches("*a*b", "xaab") && !matches("*.conf", "x.conf.bak") && !matches("?", ""));
    }

    #[test]
    fn musl_reads_lines_and_colons() {
        let files = MemoryFiles::new().file("/etc/ld-musl-x86_64.path", b"/a:/b\n/c\n");
        assert_eq!(shown(musl_path(&files, b"x86_64").unwrap()), ["/a", "/b", "/c"]);
        assert_eq!(musl_path(&files, b"aarch64"), None);
    }
}
