//! Any bytes as a Dockerfile: no panic, and locations lie within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mica_dockerfile::{Instruction, detect_syntax, excerpt, mounts, parse, parse_instruction};

fuzz_target!(|bytes: &[u8]| {
    let _ = detect_syntax(bytes);
    match parse(bytes) {
        Ok(dockerfile) => {
            let lines = dockerfile.source.lines().count() as u32;
            for command in dockerfile.stages.iter().flat_map(|stage| &stage.commands) {
                let location = command.origin.location;
                assert!(1 <= location.start && location.start <= location.end && location.end <= lines);
                assert!(!excerpt::frame("Dockerfile", &dockerfile.source, location).is_empty());
                match &command.instruction {
                    Instruction::Run(run) => {
                        let _ = run.script();
                        for mount in &run.mounts {
                            let _ = mounts::parse_mount(mount, |value| Ok(value.to_owned()));
                        }
                    }
                    Instruction::Onbuild(onbuild) => drop(parse_instruction(&onbuild.text, dockerfile.escape)),
                    _ => {}
                }
            }
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
});
