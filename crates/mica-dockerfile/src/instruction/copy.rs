//! COPY and ADD (3.3, 3.4; heredocs P31-P33).

use crate::ast::{AddCopy, Heredoc};
use crate::error::ParseErrorKind;
use crate::expand;
use crate::flags::{Flags, Known, Takes};
use crate::heredoc;
use crate::statement::Statement;
use crate::words::{json_strings, split_blanks};

const COPY_FLAGS: [Known; 6] = [
    ("from", Takes::Text),
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Boolean),
    ("parents", Takes::Boolean),
    ("exclude", Takes::List),
];

const ADD_FLAGS: [Known; 7] = [
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Boolean),
    ("keep-git-dir", Takes::Boolean),
    ("checksum", Takes::Text),
    ("unpack", Takes::Boolean),
    ("exclude", Takes::List),
];

pub(super) fn copy(statement: &Statement) -> Result<AddCopy, ParseErrorKind> {
    let copy = add_copy("COPY", statement, &COPY_FLAGS)?;
    if let Some(from) = &copy.from {
        let unset = |_: &str| None;
        if expand::word(from, &unset, statement.escape)?.text != *from {
            return Err(ParseErrorKind::VariableInFrom);
        }
    }
    Ok(copy)
}

pub(super) fn add(statement: &Statement) -> Result<AddCopy, ParseErrorKind> {
    add_copy("ADD", statement, &ADD_FLAGS)
}

fn add_copy(
    command: &'static str,
    statement: &Statement,
    known: &[Known],
) -> Result<AddCopy, ParseErrorKind> {
    let (words, is_json) = match json_strings(&statement.rest)? {
        Some(words) => (words, true),
        None => (split_blanks(&statement.rest), false),
    };
    let Some((destination, words)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(ParseErrorKind::NoDestination(command));
    };
    let flags = Flags::parse(&statement.flags, known)?;
    if !is_json && heredoc::token(destination).is_some() {
        return Err(ParseErrorKind::HeredocDestination { command });
    }
    let (sources, heredocs) =
        if is_json { (words.to_vec(), Vec::new()) } else { sources(words, &statement.heredocs) };
    Ok(AddCopy {
        sources,
        destination: destination.clone(),
        heredocs,
        from: flags.non_empty("from"),
        chown: flags.non_empty("chown"),
        chmod: flags.non_empty("chmod"),
        link: flags.boolean("link") == Some(true),
        parents: flags.boolean("parents") == Some(true),
        exclude: flags.list("exclude"),
        keep_git_dir: flags.boolean("keep-git-dir"),
        checksum: flags.non_empty("checksum"),
        unpack: flags.boolean("unpack"),
    })
}

/// Parts ordinary sources and heredocs. Of two heredocs with one name the last body wins (P33).
fn sources(words: &[String], bodies: &[Heredoc]) -> (Vec<String>, Vec<Heredoc>) {
    let mut sources = Vec::new();
    let mut heredocs = Vec::new();
    for word in words {
        match heredoc::token(word) {
            None => sources.push(word.clone()),
            Some(token) => {
                let body = bodies.iter().rfind(|heredoc| heredoc.name == token.name);
                let body = body.map(|heredoc| heredoc.body.clone()).unwrap_or_default();
                heredocs.push(Heredoc { body, ..token });
            }
        }
    }
    (sources, heredocs)
}
