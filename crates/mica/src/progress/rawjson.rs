//! Progress as JSON: one object per event, BuildKit's status stream (build.md S6).

use mica_api::{Event, LogStream, StatusUpdate, Timestamp, VertexUpdate};
use serde_json::{Map, Value, json};

use super::display::{Phase, Renderer};
use super::trace::Trace;
use crate::format::{human, template};

/// The JSON renderer.
#[derive(Debug, Default)]
pub(crate) struct RawJson(String);

impl Renderer for RawJson {
    fn event(&mut self, event: &Event) {
        let object = match event {
            Event::Vertex(update) => json!({"vertexes": [vertex(update)]}),
            Event::Status(update) => json!({"statuses": [status(update)]}),
            Event::Log { vertex, stream, data, at } => json!({"logs": [{
                "vertex": vertex,
                "stream": match stream { LogStream::Stdout => 1, LogStream::Stderr => 2 },
                "data": base64(data),
                "timestamp": human::rfc3339_short_nanos(*at),
            }]}),
            Event::Warning { title, message, line, .. } => {
                json!({"warnings": [warning(title, message, *line)]})
            }
            // BuildKit's stream has no remarks; a warning without a vertex is nearest.
            Event::Notice(text) => json!({"warnings": [warning("Notice", text, None)]}),
            _ => return,
        };
        self.0.push_str(&template::go_json(&object));
        self.0.push('\n');
    }

    fn frame(&mut self, _: &mut Trace, _: Timestamp, _: Phase) -> String {
        std::mem::take(&mut self.0)
    }
}

fn vertex(update: &VertexUpdate) -> Value {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("digest", json!(update.digest));
    if !update.inputs.is_empty() {
        put("inputs", json!(update.inputs));
    }
    put("name", json!(update.name));
    if let Some(at) = update.started {
        put("started", json!(human::rfc3339_short_nanos(at)));
    }
    if let Some(at) = update.completed {
        put("completed", json!(human::rfc3339_short_nanos(at)));
    }
    if update.cached {
        put("cached", json!(true));
    }
    if let Some(error) = &update.error {
        put("error", json!(error));
    }
    Value::Object(fields)
}

fn status(update: &StatusUpdate) -> Value {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("id", json!(update.id));
    put("vertex", json!(update.vertex));
    put("current", json!(update.current));
    if update.total != 0 {
        put("total", json!(update.total));
    }
    put("timestamp", json!(human::rfc3339_short_nanos(update.at)));
    if let Some(at) = update.started {
        put("started", json!(human::rfc3339_short_nanos(at)));
    }
    if let Some(at) = update.completed {
        put("completed", json!(human::rfc3339_short_nanos(at)));
    }
    Value::Object(fields)
}

/// Go's field names; `short` and `detail` are bytes there, so base64 here.
fn warning(title: &str, message: &str, line: Option<u32>) -> Value {
    let mut object = json!({"level": 1, "short": base64(format!("{title}: {message}").as_bytes())});
    if let Some(line) = line {
        object["range"] = json!([{"start": {"line": line}, "end": {"line": line}}]);
    }
    object
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * position) & 63) as usize];
            out.push(if position <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{golden, recorded};

    #[test]
    fn every_event_is_one_object() {
        golden("progress-rawjson", &recorded::replay(&mut RawJson::default(), &recorded::success()));
    }

    #[test]
    fn base64_is_padded() {
        assert_eq!(
            ["", "f", "fo", "foo", "foobar"].map(|s| base64(s.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]
        );
    }
}
