//! `mica inspect`: everything about images and containers, as JSON or by template.

use mica_api::{Class, Engine, Error, ListContainers, ListImages};
use serde_json::{Value, json};

use crate::context::Cx;
use crate::failure::{Failure, Outcome, Status, error_text};
use crate::flags::{Foreign, Verb};
use crate::format::{defaults, template};

/// Show everything about images and containers, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show the size of containers
    #[arg(short, long)]
    size: bool,
    /// Look only for this: image or container
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Names or IDs
    #[arg(value_name = "NAME|ID")]
    names: Vec<String>,
}

impl Verb for InspectArgs {
    const USAGE: &'static str = "[OPTIONS] NAME|ID [NAME|ID...]";

    fn run(self, cx: &Cx) -> Outcome {
        let kind = match self.kind.as_deref() {
            None => Kind::Any,
            Some("image") => Kind::Image,
            Some("container") => Kind::Container,
            Some(
                other @ ("network" | "volume" | "plugin" | "node" | "service" | "task" | "secret" | "config"),
            ) => {
                return Err(
                    Error::new(Class::Unsupported, format!("there are no objects of type {other}")).into()
                );
            }
            Some(other) => {
                return Err(Failure::new(Class::Invalid, format!("unknown type: {other:?}")));
            }
        };
        inspect(cx, kind, self.size, self.format.as_deref(), &self.names)
    }
}

/// Show everything about one or more images, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct ImageInspectArgs {
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Images: names or IDs
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

impl Verb for ImageInspectArgs {
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";
    const FOREIGN: &'static [Foreign] =
        &[Foreign::refused("platform", "images of several platforms come with multi-platform builds")];

    fn run(self, cx: &Cx) -> Outcome {
        inspect(cx, Kind::Image, false, self.format.as_deref(), &self.images)
    }
}

/// Show everything about one or more containers, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerInspectArgs {
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show the size of containers
    #[arg(short, long)]
    size: bool,
    /// Containers: names or IDs
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for ContainerInspectArgs {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    fn run(self, cx: &Cx) -> Outcome {
        inspect(cx, Kind::Container, self.size, self.format.as_deref(), &self.containers)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Image,
    Container,
}

/// What was found is printed even if some names were not, and then the exit code is 1.
fn inspect(cx: &Cx, kind: Kind, size: bool, format: Option<&str>, names: &[String]) -> Outcome {
    let format = format.filter(|text| !text.is_empty());
    if let Some(template) = format {
        template::check(template).map_err(|error| Failure::Template(error.to_string()))?;
    }
    let engine = cx.engine()?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match look_up(engine, kind, size, name) {
            Ok(object) => found.push(object),
            Err(error) => missing.push(error),
        }
    }
    if format.is_some_and(asks_for_shares) {
        add_shares(engine, &mut found)?;
    }
    cx.out.text(&render(&found, format)?)?;
    for error in &missing {
        cx.err.text(&error_text(error))?;
    }
    Ok(Status(u8::from(!missing.is_empty())))
}

fn look_up(engine: &dyn Engine, kind: Kind, size: bool, name: &str) -> Result<Value, Error> {
    match kind {
        Kind::Image => image(engine, name),
        Kind::Container => container(engine, name, size),
        Kind::Any => match container(engine, name, size) {
            Err(error) if error.class == Class::NotFound => match image(engine, name) {
                Err(error) if error.class == Class::NotFound => {
                    Err(Error::new(Class::NotFound, format!("No such object: {name}")))
                }
                other => other,
            },
            other => other,
        },
    }
}

fn image(engine: &dyn Engine, name: &str) -> Result<Value, Error> {
    let details = engine.image(name)?;
    serde_json::to_value(details).map_err(|error| {
        Error::new(Class::Internal, format!("cannot show image {name}")).why(error.to_string())
    })
}

/// Whether a template wants what images share, which costs a pass over the layers of all of them.
fn asks_for_shares(template: &str) -> bool {
    template.contains("SharedSize") || template.contains("UniqueSize")
}

/// Adds the bytes that images share with others, and those they do not: for templates only, since docker's JSON has no
/// such keys.
fn add_shares(engine: &dyn Engine, objects: &mut [Value]) -> Result<(), Error> {
    let images = engine.images(ListImages { all: true, sizes: true, ..ListImages::default() })?;
    for object in objects {
        let id = object["Id"].as_str().unwrap_or_default();
        let found = images.iter().find(|image| image.id.to_string() == id);
        if let (Some(image), Some(fields)) = (found, object.as_object_mut()) {
            let shares = json!({"SharedSize": image.shared_bytes, "UniqueSize": image.unique_bytes});
            fields.insert(template::DEFAULTS.to_owned(), shares);
        }
    }
    Ok(())
}

/// With `--size`, the two keys that docker adds.
fn container(engine: &dyn Engine, name: &str, size: bool) -> Result<Value, Error> {
    let details = engine.container(name)?;
    let mut json = details.json;
    if size && let Some(fields) = json.as_object_mut() {
        let own = engine
            .containers(ListContainers { all: true, sizes: true })?
            .into_iter()
            .find(|row| row.id == details.id)
            .and_then(|row| row.size_bytes);
        fields.insert("SizeRw".to_owned(), json!(own.unwrap_or_default()));
        let image = fields.get("Image").and_then(Value::as_str).and_then(|id| engine.image(id).ok());
        fields.insert(
            "SizeRootFs".to_owned(),
            json!(own.unwrap_or_default() + image.map_or(0, |image| image.size)),
        );
    }
    Ok(json)
}

fn render(objects: &[Value], format: Option<&str>) -> Result<String, Failure> {
    match format {
        None if objects.is_empty() => Ok("[]\n".to_owned()),
        None => Ok(indented(&Value::from(objects.to_vec())) + "\n"),
        Some("json") => Ok(template::go_json(&Value::from(objects.to_vec())) + "\n"),
        Some(template) => {
            let mut text = String::new();
            for object in objects {
                text.push_str(&template::render(template, &defaults::added_to(object))?);
                text.push('\n');
            }
            Ok(text)
        }
    }
}

/// docker indents by four spaces and does not escape here.
fn indented(value: &Value) -> String {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("a JSON value is serialisable, and memory takes all bytes");
    String::from_utf8(bytes).expect("serde_json writes UTF-8")
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn objects_are_shown_as_json() {
        golden("inspect-image", &Bench::new().run(&["inspect", "app"]).text());
        golden("inspect-container", &Bench::new().run(&["inspect", "-s", "web"]).text());
    }

    #[test]
    fn templates_reach_every_key() {
        let template =
            "{{.Id}} {{.Config.Cmd}} {{json .Config}} {{.Config.User}} {{index .Config.Labels \"a\"}}";
        golden("inspect-template", &Bench::new().run(&["image", "inspect", "-f", template, "app"]).text());
        let shares = "{{.SharedSize}} {{.UniqueSize}} {{.ID}} {{.Descriptor.MediaType}}";
        golden("inspect-shares", &Bench::new().run(&["image", "inspect", "-f", shares, "app"]).text());
        golden("inspect-missing-key", &Bench::new().run(&["inspect", "-f", "{{.Nope}}", "app"]).text());
    }

    #[test]
    fn templates_may_ask_for_what_is_empty_and_broken_ones_are_told_by_docker_s_exit_code() {
        let absent = "{{.Variant}}|{{.OsVersion}}|{{json .Config.Volumes}}|{{.Config.OnBuild}}";
        golden("inspect-absent", &Bench::new().run(&["inspect", "-f", absent, "app"]).text());
        let absent = "{{.State.Health}}|{{json .Config.Volumes}}|{{.State.Status}}";
        golden("inspect-absent-container", &Bench::new().run(&["inspect", "-f", absent, "web"]).text());
        assert_eq!(Bench::new().run(&["inspect", "-f", "{{if}}", "app"]).status, 64);
    }

    #[test]
    fn what_is_missing_is_told_after_what_is_there() {
        golden("inspect-missing", &Bench::new().run(&["inspect", "-f", "{{.Id}}", "nope", "app"]).text());
        golden("inspect-type", &Bench::new().run(&["inspect", "--type", "container", "app"]).text());
        golden("inspect-bad-type", &Bench::new().run(&["inspect", "--type", "x", "app"]).text());
    }
}
