//! The `#!` line of a script.

/// How much of a file the kernel looks at (`BINPRM_BUF_SIZE`).
pub(crate) const HEAD_BYTES: usize = 256;

/// A `#!` line, read as the kernel does (`fs/binfmt_script.c`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The program named after `#!`, without a trailing carriage return.
    pub interpreter: Vec<u8>,
    /// The one argument: everything after the interpreter, blanks trimmed.
    pub argument: Option<Vec<u8>>,
    /// The line ends with a carriage return, which the kernel takes for a part of the last word.
    pub carriage_return: bool,
}

impl Script {
    /// Reads the first bytes of a file; `None` if they are not a usable `#!` line.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let head = head.get(..HEAD_BYTES).unwrap_or(head);
        let rest = head.strip_prefix(b"#!")?;
        let line_end = rest.iter().position(|byte| matches!(byte, b'\n' | 0));
        let line = rest.get(..line_end.unwrap_or(rest.len()))?;
        let (line, carriage_return) = match line.strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (line, false),
        };
        let line = trim(line);
        let end = line.iter().position(|byte| blank(*byte));
        if end.is_none() && line_end.is_none() && head.len() == HEAD_BYTES {
            // The name of the interpreter does not end within what the kernel reads: it refuses.
            return None;
        }
        let (interpreter, argument) = line.split_at(end.unwrap_or(line.len()));
        let argument = trim(argument);
        (!interpreter.is_empty()).then(|| Self {
            interpreter: interpreter.to_vec(),
            argument: (!argument.is_empty()).then(|| argument.to_vec()),
            carriage_return,
        })
    }

    /// The program that `#!/usr/bin/env NAME` (also `env -S NAME …`, `env A=b NAME`) starts.
    pub(crate) fn through_env(&self) -> Option<&[u8]> {
        if self.interpreter.rsplit(|byte| *byte == b'/').next() != Some(b"env") {
            return None;
        }
        let argument = self.argument.as_deref()?;
        let words = argument.split(|byte| blank(*byte)).filter(|word| !word.is_empty());
        words
            .map(|word| word.strip_prefix(b"-S").unwrap_or(word))
            .find(|word| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'='))
    }
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && blank(*last)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &[u8]) -> (Vec<u8>, Option<Vec<u8>>, bool) {
        let script = Script::parse(head).unwrap();
        (script.interpreter, script.argument, script.carriage_return)
    }

    #[test]
    fn interpreter_and_argument_are_split_once() {
        assert_eq!(parsed(b"#!/bin/sh\n"), (b"/bin/sh".to_vec(), None, false));
        assert_eq!(
            parsed(b"#! \t/bin/sh -e  -u \nx"),
            (b"/bin/sh".to_vec(), Some(b"-e  -u".to_vec()), false)
        );
        assert_eq!(parsed(b"#!/bin/sh"), (b"/bin/sh".to_vec(), None, false));
    }

    #[test]
    fn a_carriage_return_is_noticed_and_kept_out_of_the_name() {
        assert_eq!(parsed(b"#!/bin/sh\r\necho\r\n"), (b"/bin/sh".to_vec(), None, true));
        assert_eq!(
            parsed(b"#!/usr/bin/env bash\r\n"),
            (b"/usr/bin/env".to_vec(), Some(b"bash".to_vec()), true)
        );
    }

    #[test]
    fn what_is_no_script_is_none() {
        for head in [&b"echo hi\n"[..], b"#!\n", b"#!   \n", b"", b"#", b"\xef\xbb\xbf#!/bin/sh\n"] {
            assert_eq!(Script::parse(head), None);
        }
        let long = [&b"#!/"[..], &[b'x'; 300]].concat();
        assert_eq!(Script::parse(&long), None);
    }

    #[test]
    fn env_names_the_program_it_will_start() {
        let env = |line: &[u8]| Script::parse(line).unwrap().through_env().map(<[u8]>::to_vec);
        assert_eq!(env(b"#!/usr/bin/env python3\n"), Some(b"python3".to_vec()));
        assert_eq!(env(b"#!/usr/bin/env -S deno run --allow-net\n"), Some(b"deno".to_vec()));
        assert_eq!(env(b"#!/usr/bin/env -S A=b -i deno\n"), Some(b"deno".to_vec()));
        assert_eq!(env(b"#!/bin/sh env\n"), None);
        assert_eq!(env(b"#!/usr/bin/env\n"), None);
    }
}
