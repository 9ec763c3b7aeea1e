//! Help: five commands for newcomers, all of them on request, and the manual of each.

use crate::flags::Entry;
use crate::verbs::{Item, Node, ROOT};

/// What is shown when nothing is asked.
const FIRST: &[(&str, &str)] = &[
    ("build -t NAME .", "Build an image from the Dockerfile in this directory"),
    ("run NAME", "Run a program in a container of an image"),
    ("images", "List images"),
    ("ps -a", "List containers"),
    ("pack ls -t NAME", "Make an image from programs of this machine, without a Dockerfile"),
];

/// The help of a bare `mica`.
pub(crate) fn first_steps(program: &str) -> String {
    let mut text = format!("Usage:  {program} [OPTIONS] COMMAND\n\nContainer images without a daemon\n\n");
    for (example, about) in FIRST {
        text.push_str(&format!("  {:<24} {about}\n", format!("{program} {example}")));
    }
    text.push_str(&format!(
        "\n`{program} help --all` lists everything, `{program} COMMAND --help` explains one command.\n"
    ));
    text
}

/// The help of `--help` and `help --all`.
pub(crate) fn everything(program: &str) -> String {
    let mut text = format!("Usage:  {program} [OPTIONS] COMMAND\n\nContainer images without a daemon\n");
    text.push_str("\nCommands:\n");
    text.push_str(&lines(ROOT.iter().filter(|item| matches!(item.node, Node::Verb(_)))));
    text.push_str("\nManagement Commands:\n");
    text.push_str(&lines(ROOT.iter().filter(|item| matches!(item.node, Node::Group { .. }))));
    text.push_str(GLOBAL_OPTIONS);
    text.push_str(&format!("\nRun '{program} COMMAND --help' for more information on a command.\n"));
    text
}

const GLOBAL_OPTIONS: &str = "
Global Options:
      --root DIR           Where images, containers and the build cache are kept
                           [env: MICA_ROOT]
      --config DIR         Directory of docker's config.json [env: DOCKER_CONFIG]
  -c, --context NAME       Accepted for docker's sake; only `default` works
  -D, --debug              Show more of what happens
  -H, --host SOCKET        Accepted for docker's sake; a local socket is not used
  -l, --log-level LEVEL    Accepted for docker's sake
  -v, --version            Print the version
";

/// The flags before the verb.
pub(crate) fn global_flags() -> impl Iterator<Item = String> {
    GLOBAL_OPTIONS.split_whitespace().filter(|word| word.starts_with("--")).map(str::to_owned)
}

/// The help of a group: `mica image`.
pub(crate) fn of_group(program: &str, path: &str, group: &Item) -> String {
    let Node::Group { about, items } = &group.node else { return String::new() };
    let list = lines(items.iter());
    format!(
        "Usage:  {program} {path} COMMAND\n\n{about}\n\nCommands:\n{list}\nRun '{program} {path} COMMAND --help' for \
         more information on a command.\n"
    )
}

fn lines<'a>(items: impl Iterator<Item = &'a Item>) -> String {
    items.map(|item| format!("  {:<12}{}\n", item.name, about(item))).collect()
}

/// One line about a command or a group.
pub(crate) fn about(item: &Item) -> String {
    match &item.node {
        Node::Verb(entry) => (entry.command)().get_about().map(ToString::to_string).unwrap_or_default(),
        Node::Group { about, .. } => (*about).to_owned(),
    }
}

/// The manual of a command; `path` is how it was called: `docker image ls`.
pub(crate) fn of_verb(entry: &Entry, path: &str) -> String {
    let mut command = (entry.command)()
        .disable_help_flag(true)
        .override_usage(format!("{path} {}", entry.usage))
        .help_template("Usage:  {usage}\n\n{about}\n\nOptions:\n{options}{after-help}\n");
    let text = command.render_long_help().to_string();
    let program = path.split(' ').next().unwrap_or("mica");
    let text = if program == "mica" { text } else { text.replace("`mica ", &format!("`{program} ")) };
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}
