//! Containers with a real busybox, from the outside: no test harness, because this binary is also the
//! executor's helper.

mod suite;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == mica_runtime::HIDDEN_COMMAND) {
        std::process::exit(mica_runtime::run_hidden());
    }
    suite::main(&args);
}
