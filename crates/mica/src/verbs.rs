//! The tree of commands, and how a command line finds its way through it.

use crate::cli;
use crate::flags::Entry;

/// One name in the tree.
#[derive(Debug)]
pub(crate) struct Item {
    /// The name.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What it is.
    pub node: Node,
}

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Node {
    /// A command.
    Verb(Entry),
    /// A group of commands: `image`.
    Group {
        /// One line.
        about: &'static str,
        /// Its commands.
        items: &'static [Item],
    },
}

/// Where a command line leads.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// No words at all.
    Nothing,
    /// `help …`.
    Help(Vec<&'a str>),
    /// A group without a command.
    Group {
        /// Its name.
        path: String,
        /// The group.
        group: &'static Item,
    },
    /// A command; the number of words of `path` are taken.
    Verb {
        /// As typed: `image ls`.
        path: String,
        /// The command.
        entry: &'static Entry,
    },
    /// A command of docker that does not exist here yet.
    Later(String),
    /// Nothing of that name.
    Unknown {
        /// The group it was looked for in; empty for none.
        group: String,
        /// The name.
        word: &'a str,
        /// The nearest name that exists.
        suggestion: Option<String>,
    },
}

const fn verb<V: crate::flags::Verb>(name: &'static str, aliases: &'static [&'static str]) -> Item {
    Item { name, aliases, node: Node::Verb(Entry::of::<V>()) }
}

const fn group(name: &'static str, about: &'static str, items: &'static [Item]) -> Item {
    Item { name, aliases: &[], node: Node::Group { about, items } }
}

/// All commands.
pub(crate) const ROOT: &[Item] = &[
    verb::<cli::build::BuildArgs>("build", &[]),
    verb::<cli::run::RunArgs>("run", &[]),
    verb::<cli::images::ImagesArgs>("images", &[]),
    verb::<cli::ps::PsArgs>("ps", &[]),
    verb::<cli::pack::PackArgs>("pack", &[]),
    verb::<cli::commit::CommitArgs>("commit", &[]),
    verb::<cli::completion::CompletionArgs>("completion", &[]),
    verb::<cli::cp::CpArgs>("cp", &[]),
    verb::<cli::diff::DiffArgs>("diff", &[]),
    verb::<cli::export::ExportArgs>("export", &[]),
    verb::<cli::history::HistoryArgs>("history", &[]),
    verb::<cli::import::ImportArgs>("import", &[]),
    verb::<cli::info::InfoArgs>("info", &[]),
    verb::<cli::inspect::InspectArgs>("inspect", &[]),
    verb::<cli::load::LoadArgs>("load", &[]),
    verb::<cli::login::LoginArgs>("login", &[]),
    verb::<cli::login::LogoutArgs>("logout", &[]),
    verb::<cli::logs::LogsArgs>("logs", &[]),
    verb::<cli::pull::PullArgs>("pull", &[]),
    verb::<cli::push::PushArgs>("push", &[]),
    verb::<cli::rm::RmArgs>("rm", &[]),
    verb::<cli::rmi::RmiArgs>("rmi", &[]),
    verb::<cli::save::SaveArgs>("save", &[]),
    verb::<cli::search::SearchArgs>("search", &[]),
    verb::<cli::tag::TagArgs>("tag", &[]),
    verb::<cli::version::VersionArgs>("version", &[]),
    group("builder", "Manage builds", BUILDER),
    group("buildx", "Build with BuildKit's options", BUILDX),
    group("container", "Manage containers", CONTAINER),
    group("image", "Manage images", IMAGE),
    group("manifest", "Put images of several platforms under one name", MANIFEST),
    group("registry", "Serve a registry, and see how others are reached", REGISTRY),
    group("system", "Manage the store", SYSTEM),
];

const IMAGE: &[Item] = &[
    verb::<cli::build::BuildArgs>("build", &[]),
    verb::<cli::history::HistoryArgs>("history", &[]),
    verb::<cli::import::ImportArgs>("import", &[]),
    verb::<cli::inspect::ImageInspectArgs>("inspect", &[]),
    verb::<cli::load::LoadArgs>("load", &[]),
    verb::<cli::images::ImagesArgs>("ls", &["list"]),
    verb::<cli::image_prune::ImagePruneArgs>("prune", &[]),
    verb::<cli::pull::PullArgs>("pull", &[]),
    verb::<cli::push::PushArgs>("push", &[]),
    verb::<cli::rmi::RmiArgs>("rm", &["remove"]),
    verb::<cli::save::SaveArgs>("save", &[]),
    verb::<cli::tag::TagArgs>("tag", &[]),
];

const CONTAINER: &[Item] = &[
    verb::<cli::commit::CommitArgs>("commit", &[]),
    verb::<cli::cp::CpArgs>("cp", &[]),
    verb::<cli::diff::DiffArgs>("diff", &[]),
    verb::<cli::export::ExportArgs>("export", &[]),
    verb::<cli::inspect::ContainerInspectArgs>("inspect", &[]),
    verb::<cli::logs::LogsArgs>("logs", &[]),
    verb::<cli::ps::PsArgs>("ls", &["list", "ps"]),
    verb::<cli::container_prune::ContainerPruneArgs>("prune", &[]),
    verb::<cli::rm::RmArgs>("rm", &["remove"]),
    verb::<cli::run::RunArgs>("run", &[]),
];

const MANIFEST: &[Item] = &[
    verb::<cli::manifest::AnnotateArgs>("annotate", &[]),
    verb::<cli::manifest::CreateArgs>("create", &[]),
    verb::<cli::manifest::InspectArgs>("inspect", &[]),
    verb::<cli::manifest::PushArgs>("push", &[]),
    verb::<cli::manifest::RmArgs>("rm", &[]),
];

const REGISTRY: &[Item] = &[
    verb::<cli::registry_explain::ExplainArgs>("explain", &[]),
    verb::<cli::registry_import::ImportArgs>("import", &[]),
    verb::<cli::registry_serve::ServeArgs>("serve", &[]),
];

const SYSTEM: &[Item] = &[
    verb::<cli::system_check::CheckArgs>("check", &[]),
    verb::<cli::system_df::DfArgs>("df", &[]),
    verb::<cli::system_gc::GcArgs>("gc", &[]),
    verb::<cli::info::InfoArgs>("info", &[]),
    verb::<cli::system_prune::PruneArgs>("prune", &[]),
];

const BUILDER: &[Item] = &[
    verb::<cli::build::BuildArgs>("build", &["b"]),
    verb::<cli::du::DuArgs>("du", &[]),
    verb::<cli::builder_prune::BuilderPruneArgs>("prune", &[]),
    verb::<cli::version::BuildxVersionArgs>("version", &[]),
];

const BUILDX: &[Item] = BUILDER;

/// Commands of docker that come later, or need networks, volumes, registries and other engines.
const LATER: &[&str] = &[
    "attach",
    "bake",
    "checkpoint",
    "compose",
    "config",
    "context",
    "create",
    "events",
    "exec",
    "imagetools",
    "kill",
    "ls",
    "network",
    "node",
    "pause",
    "plugin",
    "port",
    "prune",
    "rename",
    "restart",
    "secret",
    "service",
    "stack",
    "start",
    "stats",
    "stop",
    "swarm",
    "top",
    "trust",
    "unpause",
    "update",
    "use",
    "volume",
    "wait",
];

/// Follows words through the tree.
pub(crate) fn find<'a>(words: &[&'a str]) -> Found<'a> {
    let Some((word, rest)) = words.split_first() else { return Found::Nothing };
    if *word == "help" {
        return Found::Help(rest.to_vec());
    }
    descend(ROOT, "", word, rest)
}

fn descend<'a>(items: &'static [Item], above: &str, word: &'a str, rest: &[&'a str]) -> Found<'a> {
    let path = format!("{above} {word}").trim_start().to_owned();
    let Some(item) = items.iter().find(|item| item.name == word || item.aliases.contains(&word)) else {
        return match LATER.contains(&word) {
            true => Found::Later(path),
            false => Found::Unknown { group: above.to_owned(), word, suggestion: suggest(items, word) },
        };
    };
    match (&item.node, rest.split_first()) {
        (Node::Verb(entry), _) => Found::Verb { path, entry },
        (Node::Group { .. }, None | Some((&("--help" | "-h" | "help"), _))) => {
            Found::Group { path, group: item }
        }
        (Node::Group { items, .. }, Some((next, rest))) => descend(items, &path, next, rest),
    }
}

/// The name that a mistyped word probably means.
pub(crate) fn suggest(items: &[Item], word: &str) -> Option<String> {
    let names = items.iter().map(|item| (distance(item.name, word), item.name));
    let (edits, name) = names.min()?;
    let close = edits <= 2 && edits < word.chars().count();
    (close || (word.len() > 1 && name.starts_with(word))).then(|| name.to_owned())
}

/// Edits between two words; a swap of neighbours is one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                rows[i][j] = i + j;
                continue;
            }
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_to_commands() {
        assert!(matches!(find(&["image", "list", "-a"]), Found::Verb { path, .. } if path == "image list"));
        assert!(matches!(find(&["image"]), Found::Group { path, .. } if path == "image"));
        assert!(matches!(find(&["help", "build"]), Found::Help(words) if words == ["build"]));
        assert!(matches!(find(&["exec", "x"]), Found::Later(path) if path == "exec"));
        assert!(matches!(find(&[]), Found::Nothing));
    }

    #[test]
    fn mistyped_commands_get_a_suggestion() {
        assert_eq!(suggest(ROOT, "biuld").as_deref(), Some("build"));
        assert_eq!(suggest(ROOT, "image s").as_deref(), Some("images"));
        assert_eq!(suggest(ROOT, "zzzzzz"), None);
        assert!(matches!(
            find(&["image", "lss"]),
            Found::Unknown { group, suggestion: Some(name), .. } if group == "image" && name == "ls"
        ));
    }

    #[test]
    fn every_manual_has_a_golden() {
        fn check(items: &[Item], above: &[&str]) {
            for item in items {
                let path = [above, &[item.name]].concat();
                let shown = crate::testing::Bench::new().run(&[path.as_slice(), &["--help"]].concat());
                crate::testing::golden(&format!("help/{}", path.join("-")), &shown.text());
                if let Node::Group { items, .. } = &item.node {
                    check(items, &path);
                }
            }
        }
        check(ROOT, &[]);
        let ways: &[(&str, &[&str])] = &[
            ("first", &[]),
            ("all", &["help", "--all"]),
            ("unknown", &["biuld"]),
            ("later", &["exec", "x"]),
        ];
        for (name, words) in ways {
            let shown = crate::testing::Bench::new().run(words);
            crate::testing::golden(&format!("help/_{name}"), &shown.text());
        }
    }

    #[test]
    fn every_command_is_a_valid_clap_command() {
        fn check(items: &[Item]) {
            for item in items {
                match &item.node {
                    Node::Verb(entry) => entry.debug_assert(),
                    Node::Group { items, .. } => check(items),
                }
            }
        }
        check(ROOT);
    }
}
