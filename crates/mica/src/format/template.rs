//! Go templates for `--format`, with docker's functions (build.md Y16).
//!
//! Data is JSON with docker's keys; `.Foo` is a look-up. `json` prints objects with their keys in the order they were
//! given, as Go prints a struct, though a template's maps are sorted: containers remember what they were made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value as Tmpl};
use serde_json::Value;

use super::go_names::{self, Keys};

/// Containers of a template by address, and the JSON they were made from.
type Origins = Arc<HashMap<usize, Value>>;

/// Why a template could not be used, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("template parsing error: {0}")]
pub(crate) struct FormatError(String);

impl From<TemplateError> for FormatError {
    fn from(error: TemplateError) -> Self {
        Self(match error {
            TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
                format!("template: :{line}: {message}")
            }
            TemplateError::UndefinedFunction(name) => {
                format!("template: :1: function {name:?} not defined")
            }
            TemplateError::MissingKey { key } => format!("map has no entry for key {key:?}"),
            TemplateError::Exec(what) => what,
            other => other.to_string(),
        })
    }
}

/// Stands at the end of a template while it is read: the engine takes an `{{end}}` too many for the end of all.
const END: &str = "\u{0}end";

/// Renders one object.
///
/// # Errors
/// [`FormatError`] if the template is malformed or asks for a key that is not there.
pub(crate) fn render(template: &str, data: &Value) -> Result<String, FormatError> {
    let mut origins = HashMap::new();
    let root = convert(data, Keys::Fields, &mut origins);
    let template = Template::new("")
        .missing_key(MissingKey::Error)
        .funcs(functions(&Arc::new(origins)))
        .parse(&(calls(template) + END))?;
    let mut text = template.execute_to_string(&root)?;
    if !text.ends_with(END) {
        return Err(FormatError("template: :1: unexpected {{end}}".to_owned()));
    }
    text.truncate(text.len() - END.len());
    Ok(text)
}

/// Whether a template is well-formed.
///
/// # Errors
/// [`FormatError`] if it is not.
pub(crate) fn check(template: &str) -> Result<(), FormatError> {
    let functions = functions(&Origins::default());
    Template::new("").funcs(functions).parse(&calls(template))?;
    Ok(())
}

/// A method with an argument becomes a call, which is how this engine reaches functions inside data: `.Label "x"`.
fn calls(template: &str) -> String {
    template.replace(".Label \"", "call .Label \"")
}

/// Outside of actions, a tab and a newline may be written `\t` and `\n` in templates of lists; docker's `inspect` has
/// them inside strings only, where they are Go's.
pub(crate) fn unescape(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((text, action)) = rest.split_once("{{") {
        let (action, after) = action.split_once("}}").map_or((action, None), |(a, b)| (a, Some(b)));
        out.push_str(&text.replace("\\t", "\t").replace("\\n", "\n"));
        out.push_str("{{");
        out.push_str(action);
        let Some(after) = after else { return out };
        out.push_str("}}");
        rest = after;
    }
    out.push_str(&rest.replace("\\t", "\t").replace("\\n", "\n"));
    out
}

fn convert(value: &Value, keys: Keys, origins: &mut HashMap<usize, Value>) -> Tmpl {
    match value {
        Value::Null => Tmpl::Nil,
        Value::Bool(b) => Tmpl::Bool(*b),
        Value::Number(n) => number(n),
        Value::String(s) => Tmpl::String(s.as_str().into()),
        Value::Array(items) => {
            let list: Arc<[Tmpl]> = items.iter().map(|item| convert(item, keys, origins)).collect();
            origins.insert(Arc::as_ptr(&list).cast::<()>() as usize, value.clone());
            Tmpl::List(list)
        }
        Value::Object(fields) => {
            let map = Arc::new(members(fields, keys, origins));
            let mut shown = fields.clone();
            for hidden in [LABELS, DEFAULTS] {
                shown.shift_remove(hidden);
            }
            origins.insert(Arc::as_ptr(&map) as usize, Value::Object(shown));
            Tmpl::Map(map)
        }
    }
}

/// What a template finds in an object: its keys, what stands in for keys that are not there, and docker's names of
/// fields, which are not always those of its JSON.
fn members(
    fields: &serde_json::Map<String, Value>,
    keys: Keys,
    origins: &mut HashMap<usize, Value>,
) -> BTreeMap<Arc<str>, Tmpl> {
    let defaults = fields.get(DEFAULTS).and_then(Value::as_object);
    let mut map = BTreeMap::new();
    for (key, field) in fields.iter().filter(|(key, _)| ![LABELS, DEFAULTS].contains(&key.as_str())) {
        map.insert(Arc::from(key.as_str()), convert(field, go_names::keys_of(key), origins));
    }
    for (key, default) in defaults.into_iter().flatten() {
        map.entry(key.as_str().into()).or_insert_with(|| {
            let value = convert(default, go_names::keys_of(key), origins);
            // nil in Go: it prints like an empty one, and is null in JSON
            match &value {
                Tmpl::List(list) => {
                    drop(origins.insert(Arc::as_ptr(list).cast::<()>() as usize, Value::Null))
                }
                Tmpl::Map(map) => drop(origins.insert(Arc::as_ptr(map) as usize, Value::Null)),
                _ => {}
            }
            value
        });
    }
    if let Some(labels) = fields.get(LABELS).and_then(Value::as_object) {
        map.insert("Label".into(), label_function(labels));
    }
    if keys == Keys::Fields {
        let known: Vec<Arc<str>> = map.keys().cloned().collect();
        for key in known {
            for name in go_names::fields_of(&key) {
                if !map.contains_key(name.as_str()) {
                    let value = map[&key].clone();
                    map.insert(name.into(), value);
                }
            }
        }
    }
    map
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
    map.insert("index".into(), Arc::new(index));
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
            let Tmpl::List(parts) = first(args) else {
                let got = first(args);
                return Err(TemplateError::Exec(format!(
                    "wrong type for value; expected []string; got {got}"
                )));
            };
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

/// Go's `index`. What is not in a map of texts is an empty text: docker's labels, variables and the like are such maps.
fn index(args: &[Tmpl]) -> Result<Tmpl, TemplateError> {
    let mut value = first(args).clone();
    for key in args.iter().skip(1) {
        value = match (&value, key) {
            (Tmpl::Map(map), Tmpl::String(name)) => {
                let texts = map.values().all(|value| matches!(value, Tmpl::String(_)));
                let absent = if texts { text(String::new()) } else { Tmpl::Nil };
                map.get(name).cloned().unwrap_or(absent)
            }
            (Tmpl::List(list), at) => {
                let found = at.as_int().and_then(|at| list.get(usize::try_from(at).ok()?)).cloned();
                found.ok_or_else(|| {
                    TemplateError::Exec(format!("error calling index: index out of range: {at}"))
                })?
            }
            (Tmpl::Nil, _) => {
                return Err(TemplateError::Exec("error calling index: index of untyped nil".into()));
            }
            (other, _) => {
                return Err(TemplateError::Exec(format!("error calling index: can't index {other}")));
            }
        };
    }
    Ok(value)
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
    fn what_go_would_have_as_nil_prints_as_empty_and_is_null_in_json() {
        let data = json!({"Config": {"Cmd": [], DEFAULTS: {"Cmd": [], "Labels": {}, "Env": []}}});
        let template = "{{.Config.Env}}{{.Config.Labels}} {{json .Config.Env}} {{json .Config.Labels}}";
        assert_eq!(show(template, data.clone()), "[]map[] null null");
        assert_eq!(show("{{json .Config.Cmd}}{{len .Config.Env}}", data), "[]0");
    }

    #[test]
    fn escapes_of_tab_and_newline_are_interpreted_outside_of_actions() {
        assert_eq!(unescape("a\\tb\\n"), "a\tb\n");
        assert_eq!(unescape("{{.A}}\\t{{join .L \"\\n\"}}\\n{{"), "{{.A}}\t{{join .L \"\\n\"}}\n{{");
    }

    #[test]
    fn fields_are_found_by_dockers_names_and_by_those_of_its_json() {
        let data = json!({
            "Id": "sha256:1", "Descriptor": {"mediaType": "m", "urls": ["u"], "platform": {"os": "linux"}},
            "HostConfig": {"NanoCpus": 2, "Dns": ["d"]}, "Config": {"Labels": {"id": "label"}},
        });
        let names =
            "{{.Id}} {{.ID}} {{.Descriptor.MediaType}} {{.Descriptor.mediaType}} {{.Descriptor.URLs}}";
        assert_eq!(show(names, data.clone()), "sha256:1 sha256:1 m m [u]");
        let more = "{{.Descriptor.Platform.OS}} {{.HostConfig.NanoCPUs}} {{.HostConfig.DNS}}";
        assert_eq!(show(more, data.clone()), "linux 2 [d]");
        // What users named has no other names.
        assert_eq!(
            show("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", data.clone()),
            "id=label;"
        );
        assert!(
            show("{{json .}}", data.clone())
                .starts_with("{\"Id\":\"sha256:1\",\"Descriptor\":{\"mediaType\"")
        );
        assert!(render("{{.id}}", &data).is_err());
    }

    #[test]
    fn the_language_is_gos() {
        let data = json!({
            "Name": "n", "List": ["x", "y"], "N": 3, "Empty": [], "Labels": {"a.b": "c"}, "On": true, "Off": null,
        });
        for (template, expected) in [
            ("{{range .List}}<{{.}}>{{else}}none{{end}}", "<x><y>"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range $i, $e := .List}}{{$i}}{{$e}}{{end}}", "0x1y"),
            ("{{index .Labels \"a.b\"}}{{index .List 1}}{{index .Labels \"no\"}}", "cy"),
            ("{{len .List}} {{len .Labels}} {{len .Name}}", "2 1 1"),
            ("{{printf \"%s-%d-%v-%q-%05.1f\" .Name .N .List .Name 1.25}}", "n-3-[x y]-\"n\"-001.2"),
            ("{{if and .On (eq .N 3) (not .Off)}}yes{{else}}no{{end}}", "yes"),
            ("{{if or .Off (ne .Name \"n\")}}yes{{else if gt .N 2}}more{{else}}no{{end}}", "more"),
            ("{{with .Off}}x{{else}}off{{end}}{{with $x := .Name}}{{$x}}{{end}}", "offn"),
            ("a  {{- .N -}}  b{{/* comment */}}", "a3b"),
            ("{{.List | len | printf \"%02d\"}}", "02"),
            ("{{join .List \"\\n\"}}|{{println \"a\" 1}}{{print 1 2}}", "x\ny|a 1\n1 2"),
            ("{{range split \"a:b\" \":\"}}{{title .}}{{end}}{{upper \"u\"}}{{lower \"L\"}}", "ABUl"),
            ("{{json .Name}}{{json .N}}{{json .Off}}{{json .Labels}}", "\"n\"3null{\"a.b\":\"c\"}"),
            ("{{slice .Name 0 1}}{{html \"<\"}}{{urlquery \"a b\"}}{{js \"'\"}}", "n&lt;a+b\\'"),
            ("{{$n := 1}}{{$n = 2}}{{$n}}{{le 1 2}}{{lt 2 1}}{{ge 2 2}}", "2truefalsetrue"),
            ("{{define \"t\"}}[{{.}}]{{end}}{{template \"t\" .N}}", "[3]"),
            ("{{range .List}}{{if eq . \"y\"}}{{break}}{{end}}{{.}}{{end}}", "x"),
        ] {
            let shown = render(template, &data).map_err(|error| error.to_string());
            assert_eq!(shown.as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn missing_keys_and_broken_templates_are_errors() {
        assert!(render("{{.Nope}}", &json!({})).is_err());
        let words = |template: &str| render(template, &json!({"X": 1})).unwrap_err().to_string();
        assert!(check("{{.X").unwrap_err().to_string().starts_with("template parsing error: template: :1: "));
        assert_eq!(words("{{.X}}{{end}}y"), "template parsing error: template: :1: unexpected {{end}}");
        assert_eq!(words("{{.Y}}"), "template parsing error: map has no entry for key \"Y\"");
        assert_eq!(
            words("{{nope .X}}"),
            "template parsing error: template: :1: function \"nope\" not defined"
        );
        assert_eq!(
            words("{{\",\" | join .X}}"),
            "template parsing error: wrong type for value; expected []string; got 1"
        );
    }
}
