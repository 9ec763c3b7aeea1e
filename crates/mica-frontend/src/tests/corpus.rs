//! The Dockerfiles of the differential corpus: those that have to convert do, the others say why in words that the
//! reference's error contains.

use std::path::{Path, PathBuf};

use mica_oci::{Digest, Platform};
use mica_solve::{Op, SourceOp};
use serde_json::Value;

use super::support::{amd64, base};
use crate::{
    ConvertError, ConvertRequest, Converted, NamedContext, ResolveError, ResolvedBase, Resolver, convert,
};

/// Cases that fail before anything runs, and a word of their errors.
const REFUSED: &[(&str, &str)] = &[
    ("052-modifier-escapes", "missing"),
    ("211-target-number", "could not be found"),
    ("256-run-insecure-denied", "security.insecure is not allowed"),
    ("351-err-unknown-instruction-2", "unknown instruction: COPPY (did you mean COPY?)"),
    ("354-err-no-from", "no build stage"),
    ("357-err-from-two-args", "FROM requires either one or three arguments"),
    ("360-err-blank-base", "should not be blank"),
    ("363-err-bad-ref-2", "must be lowercase"),
    ("366-err-copy-flag", "unknown flag: --chwon"),
    ("369-err-bool-flag", "expecting boolean value for flag --link"),
    ("375-err-circular", "circular dependency detected on stage: a"),
    ("378-err-target", "target stage \"bulider\" could not be found (did you mean builder?)"),
    ("381-err-env-one", "ENV must have two arguments"),
    ("384-err-env-blank", "ENV names can not be blank"),
    ("387-err-healthcheck-interval", "interval"),
    ("390-err-healthcheck-none-args", "NONE takes no arguments"),
    ("393-err-stopsignal", "invalid signal: SIGBOGUS"),
    ("396-err-required-var", "need a V"),
    ("399-err-unclosed-brace", "missing '}'"),
    ("402-err-dup-directive", "only one escape parser directive can be used"),
    ("405-err-mount-root", "invalid mount target \"/\""),
    ("408-err-mount-mode", "mode not allowed"),
    ("411-err-run-flag", "unknown flag: --mont (did you mean mount?)"),
    ("414-err-add-checksum-local", "checksum requires"),
    ("417-err-copy-from-index", "invalid stage index 7"),
    ("433-err-entrypoint-json", "strings only"),
    ("436-err-secret-args", "one of source, target required"),
    ("451-err-arm-run-mismatch", "nostage"),
];

struct Corpus {
    contexts: Vec<String>,
}

impl Resolver for Corpus {
    fn named_context(&self, name: &str, _: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        let known = self.contexts.iter().any(|context| context == name);
        Ok(known.then(|| NamedContext::Local { name: name.to_owned() }))
    }

    fn image(&self, reference: &str, _: &Platform) -> Result<ResolvedBase, ResolveError> {
        if !reference.starts_with("127.0.0.1:5001/") {
            return Err(ResolveError::new(format!("{reference}: not found")));
        }
        let manifest = Digest::of(reference.as_bytes());
        Ok(ResolvedBase { reference: reference.to_owned(), manifest, config: base(), layers_count: 2 })
    }

    fn time(&self, _: &SourceOp) -> Result<Option<i64>, ResolveError> {
        Ok(Some(7))
    }
}

fn cases() -> Option<PathBuf> {
    let accept = std::env::var_os("MICA_ACCEPT")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/accept"), PathBuf::from);
    let cases = accept.join("diff/cases");
    cases.is_dir().then_some(cases)
}

/// A case that has a Dockerfile of its own.
struct Case {
    name: String,
    dockerfile: Vec<u8>,
    arguments: Value,
}

fn read(folder: &Path) -> Option<Case> {
    let arguments: Value = serde_json::from_slice(&std::fs::read(folder.join("args.json")).unwrap()).unwrap();
    let file = match arguments["dockerfile"].as_str() {
        None => "Dockerfile",
        Some("-") => arguments["stdin"].as_str().unwrap(),
        Some(file) => file,
    };
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    // commits of repositories that the corpus makes
    let dockerfile = text.replace("@git:v1@", "0a1b2c3d").replace("@git:v2@", "4e5f6a7b").into_bytes();
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    Some(Case { name, dockerfile, arguments })
}

fn build_args(arguments: &Value) -> Vec<(String, Option<String>)> {
    let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    match &arguments["build_args"] {
        Value::Object(map) => map.iter().map(|(name, value)| pair(name, value.as_str().unwrap())).collect(),
        Value::Array(list) => {
            let split = |entry: &Value| {
                entry.as_str().unwrap().split_once('=').map(|(name, value)| pair(name, value))
            };
            list.iter().filter_map(split).collect()
        }
        _ => Vec::new(),
    }
}

fn converted(case: &Case) -> Result<Converted, ConvertError> {
    let args = build_args(&case.arguments);
    let contexts = case.arguments["build_contexts"].as_object();
    let contexts = contexts.map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let platform = case.arguments["platforms"][0].as_str().map_or_else(amd64, |text| text.parse().unwrap());
    let request = ConvertRequest {
        target: case.arguments["target"].as_str(),
        build_args: &args,
        platform,
        build_platform: amd64(),
        ..ConvertRequest::new(&case.dockerfile)
    };
    convert(&request, &Corpus { contexts })
}

/// One layer per history entry that says so: what sits on top of each other from the base to the target.
fn layers(image: &Converted) -> usize {
    let mut count = 0;
    let mut next = image.target;
    while let Some(id) = next {
        let vertex = image.graph.vertex(id);
        next = match &vertex.op {
            Op::Source(_) => return count + 2,
            Op::Merge if vertex.inputs.len() == 1 => None,
            Op::File(file) if file.base == mica_solve::Input::Scratch => None,
            Op::Merge | Op::Exec(_) | Op::File(_) => vertex.inputs.first().copied(),
        };
        count += 1;
    }
    count
}

#[test]
fn the_corpus_converts_or_is_refused_for_the_right_reason() {
    let Some(cases) = cases() else {
        eprintln!("SKIP: no differential corpus; set MICA_ACCEPT to the folder that has diff/cases");
        return;
    };
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut wrong = Vec::new();
    for case in folders.iter().filter_map(|folder| read(folder)) {
        let refused = REFUSED.iter().find(|(name, _)| *name == case.name);
        match (converted(&case), refused) {
            (Err(error), Some((_, text))) if error.to_string().contains(text) => {}
            (Err(error), _) => wrong.push(format!("{}: {error}", case.name)),
            (Ok(_), Some((_, text))) => wrong.push(format!("{}: converted, not {text}", case.name)),
            (Ok(image), None) => {
                let told = image.config.history().iter().filter(|entry| !entry.empty_layer).count();
                if told != layers(&image) {
                    wrong.push(format!("{}: {told} layers told of, {} made", case.name, layers(&image)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
