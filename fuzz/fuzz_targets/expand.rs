//! Any text as a word to expand: no panic, and plain text stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mica_dockerfile::{chmod::Chmod, check_stop_signal, expand, ports::Ports};

fuzz_target!(|text: &str| {
    let environment = |name: &str| match name.len() {
        1 => Some("a/b.c*d\\e".to_owned()),
        2 => Some(String::new()),
        _ => None,
    };
    for escape in ['\\', '`'] {
        let expanded = expand::word(text, &environment, escape);
        if !text.contains(['$', '\'', '"', escape]) {
            assert_eq!(expanded.expect("plain text expands").text, text);
        }
        let _ = expand::words(text, &environment, escape);
        let _ = expand::raw_word(text, &environment, escape);
    }
    let _ = check_stop_signal(text);
    if let Ok(ports) = Ports::parse(text) {
        assert!(ports.keys().next().is_some());
    }
    if let Ok(chmod) = Chmod::parse(text) {
        assert!(chmod.apply(0o644, false) <= 0o7777);
    }
});
