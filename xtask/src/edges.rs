//! Who uses whom: the workspace's dependencies compared with `crates/edges.toml`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::run::{Outcome, cargo, read};

const FILE: &str = "crates/edges.toml";
const TESTKIT: &str = "mica-testkit";

/// The rules of the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    order: Vec<String>,
    allowed: BTreeMap<String, BTreeSet<String>>,
    tools: BTreeMap<String, BTreeSet<String>>,
}

/// One dependency inside the workspace.
#[derive(Debug, PartialEq, Eq)]
struct Edge {
    from: String,
    to: String,
    dev: bool,
}

/// Checks every edge, and that the rules themselves make sense.
pub(crate) fn run() -> Outcome {
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let rules = Rules::parse(&text)?;
    let metadata = read(&mut cargo(&["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let (packages, edges) = workspace(&metadata);
    let complaints = complaints(&rules, &packages, &edges);
    if complaints.is_empty() {
        println!("{} crates, {} edges, all allowed", packages.len(), edges.len());
        return Ok(());
    }
    Err(complaints.join("\n"))
}

/// The crates of the workspace and the edges between them.
fn workspace(metadata: &Value) -> (BTreeSet<String>, Vec<Edge>) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let names: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let mut edges = Vec::new();
    for package in &packages {
        for dependency in list(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            if names.contains(&to) {
                let dev = dependency["kind"] == "dev";
                edges.push(Edge { from: text(&package["name"]), to, dev });
            }
        }
    }
    (names, edges)
}

fn complaints(rules: &Rules, packages: &BTreeSet<String>, edges: &[Edge]) -> Vec<String> {
    let mut out = Vec::new();
    let place = |name: &str| rules.order.iter().position(|listed| listed == name);
    for (from, targets) in &rules.allowed {
        for to in targets {
            if place(from) >= place(to) {
                out.push(format!("{FILE} allows {from} -> {to}, which does not point down"));
            }
        }
    }
    for name in packages {
        let listed = rules.allowed.contains_key(name) && place(name).is_some();
        if !listed && !rules.tools.contains_key(name) {
            out.push(format!("{FILE} does not know the crate {name}"));
        }
    }
    for Edge { from, to, dev } in edges {
        let testing = *dev && to == TESTKIT;
        let listed = rules.allowed.get(from).or(rules.tools.get(from));
        if !testing && !listed.is_some_and(|targets| targets.contains(to)) {
            out.push(format!("{from} uses {to}, which {FILE} does not allow"));
        }
    }
    out
}

impl Rules {
    /// Reads the little TOML that the file uses: lists of strings, and two tables of them.
    fn parse(text: &str) -> Outcome<Self> {
        let mut rules = Self::default();
        let mut table = String::new();
        let mut statement = String::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if statement.is_empty() && line.starts_with('[') {
                table = line.trim_matches(['[', ']']).to_owned();
                continue;
            }
            statement.push_str(line);
            if !statement.ends_with(']') {
                continue;
            }
            let (name, list) = statement.split_once('=').ok_or(format!("{FILE}: {statement}"))?;
            let items = list.trim().trim_matches(['[', ']']).split(',');
            let items: Vec<String> = items
                .map(|item| item.trim().trim_matches('"').to_owned())
                .filter(|item| !item.is_empty())
                .collect();
            let name = name.trim().to_owned();
            match table.as_str() {
                "" if name == "order" => rules.order = items,
                "allowed" => drop(rules.allowed.insert(name, items.into_iter().collect())),
                "tools" => drop(rules.tools.insert(name, items.into_iter().collect())),
                _ => return Err(format!("{FILE}: nobody reads {name} in [{table}]")),
            }
            statement.clear();
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "order = [\n  \"top\", # first\n  \"bottom\",\n]\n[allowed]\ntop = [\"bottom\"]\nbottom = []\n[tools]\nxtask = []\n";

    fn edge(from: &str, to: &str, dev: bool) -> Edge {
        Edge { from: from.into(), to: to.into(), dev }
    }

    fn said(edges: &[Edge]) -> Vec<String> {
        let packages = ["top", "bottom", "xtask"].map(String::from).into();
        complaints(&Rules::parse(RULES).unwrap(), &packages, edges)
    }

    #[test]
    fn allowed_edges_pass_and_others_are_named() {
        assert_eq!(
            said(&[edge("top", "bottom", false), edge("bottom", TESTKIT, true)]),
            Vec::<String>::new()
        );
        let wrong = said(&[edge("bottom", "top", true), edge("bottom", TESTKIT, false)]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(wrong[0], "bottom uses top, which crates/edges.toml does not allow");
    }

    #[test]
    fn a_rule_that_points_up_is_refused() {
        let rules = Rules::parse(&RULES.replace("bottom = []", "bottom = [\"top\"]")).unwrap();
        let packages = ["top", "bottom", "xtask"].map(String::from).into();
        assert_eq!(
            complaints(&rules, &packages, &[]),
            ["crates/edges.toml allows bottom -> top, which does not point down"]
        );
    }

    #[test]
    fn an_unknown_crate_is_named() {
        let packages = ["top", "bottom", "xtask", "new"].map(String::from).into();
        assert_eq!(
            complaints(&Rules::parse(RULES).unwrap(), &packages, &[]),
            ["crates/edges.toml does not know the crate new"]
        );
    }
}
