//! The rules of build.md on whole files; the number of the rule begins the name of its test.

mod errors;
mod grammar;
mod heredocs;
mod lines;
mod presentation;

use crate::{AddCopy, Dockerfile, Instruction, Run, parse};

/// Parses what must parse.
fn parsed(text: &str) -> Dockerfile {
    match parse(text.as_bytes()) {
        Ok(dockerfile) => dockerfile,
        Err(error) => panic!("{text}\n{error}"),
    }
}

/// Returns why a text is refused.
fn refused(text: &str) -> String {
    match parse(text.as_bytes()) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

/// Returns the instructions after `FROM B`.
fn instructions(text: &str) -> Vec<Instruction> {
    let dockerfile = parsed(&format!("FROM B\n{text}"));
    dockerfile.stages[0].commands.iter().map(|command| command.instruction.clone()).collect()
}

/// Returns the only instruction after `FROM B`.
fn instruction(text: &str) -> Instruction {
    let [instruction] = <[Instruction; 1]>::try_from(instructions(text)).expect("one instruction");
    instruction
}

/// Returns why an instruction after `FROM B` is refused.
fn refused_instruction(text: &str) -> String {
    refused(&format!("FROM B\n{text}"))
}

fn run(text: &str) -> Run {
    match instruction(text) {
        Instruction::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn copy(text: &str) -> AddCopy {
    match instruction(text) {
        Instruction::Copy(copy) | Instruction::Add(copy) => copy,
        other => panic!("{other:?}"),
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
