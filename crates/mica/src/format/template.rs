//! Go templates for `--format`, with docker's functions (build.md Y16).
//!
//! Data is JSON with docker's keys; `.Foo` is a look-up. `json` prints objects with their keys in the order they were
//! given, as Go prints a struct, though a template's maps are sorted: containers remember what they were made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value as Tmpl};
use serde_json::Value;

/// Containers of a template by address, and the JSON they were made from.
type Origins = Arc<HashMap<usize, Value>>;

/// Why a template could not be used.
#[derive(Debug, thiserror::Error)]
#[error("template parsing error: {0}")]
pub(crate) struct FormatError(TemplateError);

/// Renders one object.
///
/// # Errors
/// [`FormatError`] if the template is malformed or asks for a key that is not there.
pub(crate) fn render(template: &str, data: &Value) -> Result<String, FormatError> {
    let mut origins = HashMap::new();
    let root = convert(data, &mut origins);
    let template = Template::new("")
        .missing_key(MissingKey::Error)
        .funcs(functions(&Arc::new(origins)))
        .parse(&unescape(template))
        .map_err(FormatError)?;
    template.execute_to_string(&root).map_err(FormatError)
}

/// Whether a template is well-formed.
///
/// # Errors
/// [`FormatError`] if it is not.
pub(crate) fn check(template: &str) -> Result<(), FormatError> {
    let functions = functions(&Origins::default());
    Template::new("").funcs(functions).parse(&unescape(template)).map(drop).map_err(FormatError)
}

/// A tab and a newline may be written `\t` and `\n`; a method with an argument becomes a call, which is how this
/// engine reaches functions inside data: `.Label "x"`.
fn unescape(template: &str) -> String {
    template.replace("\\t", "\t").replace("\\n", "\n").replace(".Label \"", "call .Label \"")
}

fn convert(value: &Value, origins: &mut HashMap<usize, Value>) -> Tmpl {
    match value {
        Value::Null => Tmpl::Nil,
        Value::Bool(b) => Tmpl::Bool(*b),
        Value::Number(n) => number(n),
        Value::String(s) => Tmpl::String(s.as_str().into()),
        Value::Array(items) => {
            let list: Arc<[Tmpl]> = items.iter().map(|item| convert(item, origins)).collect();
            origins.insert(Arc::as_ptr(&list).cast::<()>() as usize, value.clone());
            Tmpl::List(list)
        }
        Value::Object(fields) => {
            let mut map: BTreeMap<Arc<str>, Tmpl> =
                fields.iter().map(|(key, field)| (key.as_str().into(), convert(field, origins))).collect();
            if let Some(labels) = fields.get(LABELS).and_then(Value::as_object) {
                map.insert("Label".into(), label_function(labels));
            }
            for (key, default) in fields.get(DEFAULTS).and_then(Value::as_object).into_iter().flatten() {
                map.entry(key.as_str().into()).or_insert_with(|| convert(default, origins));
            }
            let mut shown = fields.clone();
            for hidden in [LABELS, DEFAULTS] {
                map.remove(hidden);
                shown.shift_remove(hidden);
            }
            let map = Arc::new(map);
            origins.insert(Arc::as_ptr(&map) as usize, Value::Object(shown));
            Tmpl::Map(map)
        }
    }
}

/// The key under which rows carry their labels for `.Label "x"`; it is not shown.
pub(crate) const LABELS: &str = "\u{0}labels";
/// The key under which objects carry what templates get for keys that are not there; it is not shown.
pub(crate) const DEFAULTS: &str = "\u{0}defaults";

fn label_function(labels: &serde_json::Map<String, Value>) -> Tmpl {
    let labels = labels.clone();
    Tmpl::Function(Arc::new(move |args: &[Tmpl]| {
        let found = args.first().and_then(Tmpl::as_str).and_then(|name| labels.get(name));
        Ok(Tmpl::String(found.and_then(Value::as_str).unwrap_or_default().into()))
    }))
}

fn number(n: &serde_json::Number) -> Tmpl {
    match (n.as_i64(), n.as_u64()) {
        (Some(signed), _) => Tmpl::Int(signed),
        (None, Some(unsigned)) => Tmpl::Uint(unsigned),
        (None, None) => Tmpl::Float(n.as_f64().unwrap_or_default()),
    }
}

fn functions(origins: &Origins) -> gotmpl::FuncMap {
    let mut map = gotmpl::FuncMap::new();
    let origins = Arc::clone(origins);
    map.insert(
        "json".into(),
        Arc::new(move |args: &[Tmpl]| Ok(text(go_json(&to_json(first(args), &origins))))),
    );
    map.insert(
        "split".into(),
        Arc::new(|args: &[Tmpl]| {
            let parts: Arc<[Tmpl]> = match string(args, 1).as_str() {
                "" => string(args, 0).chars().map(|c| text(c.to_string())).collect(),
                separator => string(args, 0).split(separator).map(|part| text(part.to_owned())).collect(),
            };
            Ok(Tmpl::List(parts))
        }),
    );
    map.insert(
        "join".into(),
        Arc::new(|args: &[Tmpl]| {
            let Tmpl::List(parts) = first(args) else { return Ok(text(first(args).to_string())) };
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            Ok(text(parts.join(&string(args, 1))))
        }),
    );
    map.insert("title".into(), Arc::new(|args: &[Tmpl]| Ok(text(title(&string(args, 0))))));
    map.insert("lower".into(), Arc::new(|args: &[Tmpl]| Ok(text(string(args, 0).to_lowercase()))));
    map.insert("upper".into(), Arc::new(|args: &[Tmpl]| Ok(text(string(args, 0).to_uppercase()))));
    map.insert(
        "pad".into(),
        Arc::new(|args: &[Tmpl]| {
            let spaces = |index: usize| " ".repeat(count(args, index));
            match string(args, 0) {
                empty if empty.is_empty() => Ok(text(empty)),
                padded => Ok(text(format!("{}{padded}{}", spaces(1), spaces(2)))),
            }
        }),
    );
    map.insert(
        "truncate".into(),
        Arc::new(|args: &[Tmpl]| Ok(text(string(args, 0).chars().take(count(args, 1)).collect()))),
    );
    map
}

fn first(args: &[Tmpl]) -> &Tmpl {
    args.first().unwrap_or(&Tmpl::Nil)
}

fn text(text: String) -> Tmpl {
    Tmpl::String(text.into())
}

fn string(args: &[Tmpl], index: usize) -> String {
    args.get(index).map(ToString::to_string).unwrap_or_default()
}

fn count(args: &[Tmpl], index: usize) -> usize {
    args.get(index).and_then(Tmpl::as_int).and_then(|n| usize::try_from(n).ok()).unwrap_or_default()
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let upper = start && c.is_alphabetic();
            start = !c.is_alphanumeric() && c != '_' && c != '\'';
            if upper { c.to_uppercase().next().unwrap_or(c) } else { c }
        })
        .collect()
}

fn to_json(value: &Tmpl, origins: &Origins) -> Value {
    let origin = |address: usize| origins.get(&address).cloned();
    match value {
        Tmpl::Bool(b) => Value::Bool(*b),
        Tmpl::Int(n) => (*n).into(),
        Tmpl::Uint(n) => (*n).into(),
        Tmpl::Float(n) => (*n).into(),
        Tmpl::String(s) => Value::String(s.to_string()),
        Tmpl::List(list) => origin(Arc::as_ptr(list).cast::<()>() as usize)
            .unwrap_or_else(|| list.iter().map(|item| to_json(item, origins)).collect()),
        Tmpl::Map(map) => origin(Arc::as_ptr(map) as usize).unwrap_or_else(|| {
            Value::Object(map.iter().map(|(key, item)| (key.to_string(), to_json(item, origins))).collect())
        }),
        _ => Value::Null,
    }
}

/// JSON as Go's encoder writes it: `<`, `>`, `&` and the two line separators are escaped.
pub(crate) fn go_json(value: &Value) -> String {
    go_escapes(&value.to_string())
}

/// Escapes in JSON text what Go's encoder escapes. Outside strings JSON has none of these characters.
pub(crate) fn go_escapes(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn show(template: &str, data: Value) -> String {
        render(template, &data).unwrap()
    }

    #[test]
    fn dockers_functions_work() {
        let data = json!({"Name": "a/b", "List": ["x", "y"], "N": 3});
        assert_eq!(
            show("{{upper .Name}} {{lower \"AB\"}} {{title \"hello world\"}}", data.clone()),
            "A/B ab Hello World"
        );
        assert_eq!(show("{{join .List \",\"}}", data.clone()), "x,y");
        assert_eq!(show("{{range split .Name \"/\"}}[{{.}}]{{end}}", data.clone()), "[a][b]");
        assert_eq!(show("{{pad .Name 1 2}}|{{truncate .Name 2}}|{{println .N}}", data), " a/b  |a/|3\n");
    }

    #[test]
    fn json_keeps_the_order_of_keys_and_escapes_like_go() {
        let data = json!({"Config": {"b": 1, "a": "<&>"}, "L": [2, 1]});
        assert_eq!(show("{{json .Config}} {{json .L}}", data), r#"{"b":1,"a":"\u003c\u0026\u003e"} [2,1]"#);
        assert_eq!(show("{{json .}}", json!({"z": null, "a": 1})), r#"{"z":null,"a":1}"#);
    }

    #[test]
    fn labels_are_asked_for_by_name() {
        let data = json!({"Names": "n", LABELS: {"a.b": "c"}});
        assert_eq!(show("{{.Label \"a.b\"}}", data.clone()), "c");
        assert_eq!(show("{{json .}}", data), r#"{"Names":"n"}"#);
    }

    #[test]
    fn escapes_of_tab_and_newline_are_interpreted() {
        assert_eq!(show("a\\tb\\n", Value::Null), "a\tb\n");
    }

    #[test]
    fn missing_keys_and_broken_templates_are_errors() {
        assert!(render("{{.Nope}}", &json!({})).is_err());
        assert!(check("{{.X").unwrap_err().to_string().starts_with("template parsing error: "));
        assert!(render("{{nope .X}}", &json!({"X": 1})).is_err());
    }
}
