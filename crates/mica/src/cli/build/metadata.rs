//! `--metadata-file`: what came out, for other programs (build.md X10).

use std::io::Write as _;
use std::path::Path;

use mica_api::BuildReply;
use mica_oci::Reference;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, io_failure};

/// Writes the file at once: it is complete, or what it was before.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(file: &Path, reply: &BuildReply) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&describe(reply)).unwrap_or_default();
    let failed =
        |error: std::io::Error| io_failure(format!("cannot write metadata to {}", file.display()), &error);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = file.with_file_name(format!(".{name}.mica-{}", std::process::id()));
    let written = std::fs::File::create(&temporary)
        .and_then(|mut out| out.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, file));
    if written.is_err() {
        // the first error counts
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

fn describe(reply: &BuildReply) -> Value {
    let mut all = Map::new();
    // builder, node and build, as buildx names them
    all.insert("buildx.build.ref".to_owned(), format!("default/default/{}", reply.build_id).into());
    if let (Some(manifest), Some(config)) = (&reply.manifest, &reply.image_id) {
        all.insert("containerimage.config.digest".to_owned(), config.to_string().into());
        all.insert("containerimage.descriptor".to_owned(), json!(manifest));
        all.insert("containerimage.digest".to_owned(), manifest.digest.to_string().into());
    }
    if !reply.names.is_empty() {
        let names: Vec<String> = reply.names.iter().map(Reference::to_string).collect();
        all.insert("image.name".to_owned(), names.join(",").into());
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::{Descriptor, Digest, media_type};

    #[test]
    fn images_have_digests_and_names_and_files_have_none() {
        let reply = BuildReply {
            image_id: Some(Digest::of(b"config")),
            manifest: Some(Descriptor::of(media_type::OCI_MANIFEST, b"manifest")),
            build_id: "id".into(),
            names: vec!["a".parse::<Reference>().unwrap().or_latest(), "b:1".parse().unwrap()],
        };
        let all = describe(&reply);
        assert_eq!(all["buildx.build.ref"], "default/default/id");
        assert_eq!(all["containerimage.digest"], all["containerimage.descriptor"]["digest"]);
        assert_eq!(all["containerimage.config.digest"], Digest::of(b"config").to_string());
        assert_eq!(all["image.name"], "docker.io/library/a:latest,docker.io/library/b:1");
        let files = BuildReply { image_id: None, manifest: None, build_id: "id".into(), names: Vec::new() };
        assert_eq!(describe(&files).as_object().unwrap().len(), 1);
    }
}
