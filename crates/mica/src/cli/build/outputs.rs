//! `--output`: where a result goes (build.md 6.5).

use std::path::Path;

use mica_api::{
    Annotation, Class, Compression, Destination, Error, ImageForm, ImageLayout, Output, RegistryPush,
};
use mica_oci::Reference;

use crate::context::Cx;
use crate::failure::{Failure, io_failure};
use crate::values::keyed;

use super::annotations;

/// All outputs, and the names that they give to the stored image.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// Where results go.
    pub outputs: Vec<Output>,
    /// `type=image,name=…`.
    pub names: Vec<Reference>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::Invalid, message)
}

/// The flags that say where results go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    /// `--output`.
    pub texts: &'a [String],
    /// `--load`.
    pub load: bool,
    /// `--push`.
    pub push: bool,
    /// `--annotation`.
    pub annotations: &'a [Annotation],
    /// `--allow=buildx.local.delete`.
    pub allow_delete: bool,
}

/// Reads every `--output`. Without one, or with `--load`, the result is stored.
///
/// # Errors
/// An output makes no sense, comes later, or would go to a terminal.
pub(super) fn all(given: &Given<'_>, cx: &Cx, here: &Path) -> Result<Outputs, Failure> {
    let Given { texts, load, push, annotations, allow_delete } = *given;
    let mut all = Outputs::default();
    for text in texts {
        let spec = Spec { allow_delete, ..Spec::parse(text)? };
        spec.check_keys(text)?;
        let (outputs, names) = spec.outputs(text, cx, here)?;
        all.outputs.extend(outputs);
        all.names.extend(names);
    }
    let stored = all.outputs.iter().any(|output| matches!(output, Output::Store { .. }));
    let pushed = all.outputs.iter().any(|output| matches!(output, Output::Registry { .. }));
    if texts.is_empty() || ((load || (push && !pushed)) && !stored) {
        all.outputs.push(Output::Store { form: ImageForm::default() });
    }
    if push && !pushed {
        let form = all.outputs.iter().find_map(|output| match output {
            Output::Store { form } => Some(form.clone()),
            _ => None,
        });
        all.outputs.push(Output::Registry { push: RegistryPush::default(), form: form.unwrap_or_default() });
    }
    for output in &mut all.outputs {
        if let Output::Store { form } | Output::Archive { form, .. } | Output::Registry { form, .. } = output
        {
            // what is said of this output alone wins
            form.annotations.splice(0..0, annotations.iter().cloned());
        }
    }
    Ok(all)
}

/// An output as written.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    kind: String,
    fields: Vec<(String, String)>,
    /// Whether files may be removed outside the current directory.
    allow_delete: bool,
}

impl Spec {
    /// `DIR`, `-` or `type=T,key=value,…` (build.md X1).
    fn parse(text: &str) -> Result<Self, Error> {
        let destination = |kind: &str, dest: &str| Self {
            kind: kind.to_owned(),
            fields: vec![("dest".to_owned(), dest.to_owned())],
            allow_delete: false,
        };
        let pairs = keyed::pairs(text).map_err(|why| invalid(format!("invalid output {text:?}")).why(why))?;
        if text == "-" {
            return Ok(destination("tar", "-"));
        }
        if pairs.len() == 1 && !text.starts_with("type=") {
            return Ok(destination("local", text));
        }
        let mut spec = Self { kind: String::new(), fields: Vec::new(), allow_delete: false };
        for (key, value) in pairs {
            let value = value
                .ok_or_else(|| invalid(format!("invalid value {key}")).why(format!("in --output {text}")))?;
            match key.as_str() {
                "type" => spec.kind = value,
                _ => spec.fields.push((key, value)),
            }
        }
        match spec.kind.as_str() {
            "" => Err(invalid("type is required for output").why(format!("in --output {text}"))),
            _ => Ok(spec),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A key that changes nothing here may be given; one that would is refused, never ignored.
    fn check_keys(&self, text: &str) -> Result<(), Error> {
        for (key, value) in &self.fields {
            let known = match (self.kind.as_str(), key.as_str()) {
                ("oci" | "docker" | "local" | "tar", "dest") | ("image" | "oci" | "docker", "name") => true,
                ("registry", "name") | ("image" | "registry", "push" | "push-by-digest") => true,
                ("image" | "registry", "registry.insecure") => is_false(value),
                ("image", "store" | "unpack") => !is_false(value),
                ("registry", "store" | "unpack") => true,
                ("oci" | "docker", "tar" | "compression" | "compression-level" | "force-compression") => true,
                ("image" | "registry" | "oci" | "docker", "oci-mediatypes" | "rewrite-timestamp") => true,
                ("image" | "registry", "compression" | "compression-level" | "force-compression") => true,
                ("image" | "registry" | "oci" | "docker", name) if name.starts_with("annotation") => true,
                ("local", "mode" | "platform-split") => true,
                ("tar", "platform-split") => is_false(value),
                _ => false,
            };
            if !known {
                let problem = format!("{key}={value} is not supported yet for outputs of type {}", self.kind);
                return Err(Error::new(Class::Unsupported, problem).why(format!("in --output {text}")));
            }
        }
        Ok(())
    }

    /// What it means, and the names that it gives to the stored image.
    fn outputs(&self, text: &str, cx: &Cx, here: &Path) -> Result<(Vec<Output>, Vec<Reference>), Failure> {
        if !matches!(self.kind.as_str(), "image" | "registry") {
            let (output, names) = self.output(cx, here)?;
            return Ok((vec![output], names));
        }
        // layers are compressed when they leave; what makes no sense is refused now
        let compression = compression(&|key| self.get(key))?;
        let form = self.form()?;
        let is = |key: &str| self.get(key).is_some_and(|value| !is_false(value));
        let by_digest = is("push-by-digest");
        if !by_digest && !is("push") && self.kind == "image" {
            return Ok((vec![Output::Store { form }], self.names()?));
        }
        let force_compression = is("force-compression");
        let push = RegistryPush { compression, force_compression, by_digest: Vec::new() };
        if by_digest {
            let push = RegistryPush { by_digest: self.untagged(text)?, ..push };
            return Ok((vec![Output::Registry { push, form }], Vec::new()));
        }
        let stored = Output::Store { form: form.clone() };
        Ok((vec![stored, Output::Registry { push, form }], self.names()?))
    }

    /// Names of repositories alone.
    fn untagged(&self, text: &str) -> Result<Vec<Reference>, Error> {
        let names = self.get("name").unwrap_or_default().split(',').filter(|name| !name.is_empty());
        let names = names.map(|name| {
            let reference: Reference =
                name.parse().map_err(|error| invalid(format!("invalid name {name:?}: {error}")))?;
            match reference.tag() {
                Some(_) => Err(invalid(format!("can't push tagged ref {reference} by digest"))),
                None => Ok(reference),
            }
        });
        let names = names.collect::<Result<Vec<Reference>, Error>>()?;
        match names.is_empty() {
            true => Err(invalid("name is required to push by digest").why(format!("in --output {text}"))),
            false => Ok(names),
        }
    }

    fn output(&self, cx: &Cx, here: &Path) -> Result<(Output, Vec<Reference>), Failure> {
        let dest = self.get("dest");
        match self.kind.as_str() {
            "docker" if dest.is_none() => Ok((Output::Store { form: self.form()? }, self.names()?)),
            "oci" | "docker" => {
                let layout = if self.kind == "oci" { ImageLayout::Oci } else { ImageLayout::Docker };
                let destination = self.destination(cx, here)?;
                let archive = Output::Archive {
                    layout,
                    destination,
                    names: self.names()?,
                    compression: compression(&|key| self.get(key))?,
                    form: self.form()?,
                };
                Ok((archive, Vec::new()))
            }
            "local" => match dest {
                None | Some("") => Err(invalid("dest is required for local output").into()),
                Some("-") => {
                    Err(invalid("dest cannot be stdout for local output").hint("type=tar,dest=-").into())
                }
                Some(dest) => {
                    let directory = here.join(dest);
                    let mirror = self.mirror(&directory, here)?;
                    Ok((
                        Output::Local { directory, mirror, platform_split: self.platform_split() },
                        Vec::new(),
                    ))
                }
            },
            "tar" => Ok((Output::Tar { destination: self.destination(cx, here)? }, Vec::new())),
            "cacheonly" => Ok((Output::CacheOnly, Vec::new())),
            other => Err(invalid(format!("exporter {other:?} could not be found"))
                .hint("types are image, registry, oci, docker, local, tar, cacheonly")
                .into()),
        }
    }

    fn form(&self) -> Result<ImageForm, Error> {
        let switch = |key: &str, default: bool| match self.get(key) {
            None => Ok(default),
            Some(value) => truth(value).ok_or_else(|| {
                invalid(format!("non-bool value specified for {key}")).why(format!("{value:?}"))
            }),
        };
        let (oci, rewrite_timestamp) = (switch("oci-mediatypes", true)?, switch("rewrite-timestamp", false)?);
        if rewrite_timestamp && switch("unpack", false)? {
            return Err(invalid("exporter option \"rewrite-timestamp\" conflicts with \"unpack\""));
        }
        let annotations =
            self.fields.iter().filter_map(|(key, value)| annotations::of_output(key, value).transpose());
        let annotations = annotations.collect::<Result<Vec<Annotation>, Error>>()?;
        Ok(ImageForm { docker_media_types: !oci, rewrite_timestamp, annotations })
    }

    /// `mode=delete` removes what is there: only below the current directory, unless it is allowed elsewhere.
    fn mirror(&self, directory: &Path, here: &Path) -> Result<bool, Error> {
        match self.get("mode") {
            None | Some("" | "copy") => Ok(false),
            Some("delete") => {
                let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
                if real(directory).starts_with(real(here)) || self.allow_delete {
                    return Ok(true);
                }
                Err(Error::new(
                    Class::Denied,
                    format!("mode=delete outside the current directory: {}", directory.display()),
                )
                .why("it would remove what is there already")
                .hint("--allow=buildx.local.delete"))
            }
            Some(other) => {
                Err(invalid(format!("invalid mode {other:?} of a local output")).hint("copy or delete"))
            }
        }
    }

    fn platform_split(&self) -> bool {
        self.get("platform-split").is_some_and(|value| !is_false(value))
    }

    fn names(&self) -> Result<Vec<Reference>, Error> {
        let names = self.get("name").unwrap_or_default().split(',').filter(|name| !name.is_empty());
        names
            .map(|name| {
                let reference: Result<Reference, _> = name.parse();
                reference
                    .map(Reference::or_latest)
                    .map_err(|error| invalid(format!("invalid tag {name:?}: {error}")))
            })
            .collect()
    }

    /// A file, a directory with `tar=false`, or standard output unless that is a terminal.
    fn destination(&self, cx: &Cx, here: &Path) -> Result<Destination, Failure> {
        let directory = self.get("tar").is_some_and(is_false);
        match self.get("dest") {
            Some(dest) if dest != "-" && !dest.is_empty() => match directory {
                true => Ok(Destination::Directory(here.join(dest))),
                false if here.join(dest).is_dir() => {
                    Err(invalid(format!("destination {dest} is a directory"))
                        .hint("dest=FILE, or tar=false")
                        .into())
                }
                false => Ok(Destination::File(here.join(dest))),
            },
            _ if directory => {
                Err(invalid(format!("dest is required for {} output with tar=false", self.kind)).into())
            }
            _ if cx.out.is_terminal() => Err(invalid(format!(
                "dest file is required for {} exporter. refusing to write to console",
                self.kind
            ))
            .into()),
            _ => crate::output::stdout_fd()
                .map(Destination::Stream)
                .map_err(|error| io_failure("cannot write to standard output", &error)),
        }
    }
}

/// `compression` and `compression-level` among the keys of an output or a cache.
///
/// # Errors
/// No such compression, no such level.
pub(super) fn compression<'s>(get: &dyn Fn(&str) -> Option<&'s str>) -> Result<Compression, Error> {
    let level =
        |max: u32| match get("compression-level") {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(level) if level <= max => Ok(Some(level)),
                _ => Err(invalid(format!("invalid compression level {text}"))
                    .why(format!("levels are 0 to {max}"))),
            },
        };
    match get("compression") {
        None if get("compression-level").is_some() => Ok(Compression::Gzip(level(9)?)),
        None => Ok(Compression::Default),
        Some("uncompressed") => Ok(Compression::Uncompressed),
        Some("gzip") => Ok(Compression::Gzip(level(9)?)),
        Some("zstd") => Ok(Compression::Zstd(level(22)?)),
        Some("estargz") => Err(Error::new(Class::Unsupported, "compression=estargz is not supported yet")),
        Some(other) => Err(invalid(format!("unsupported compression type {other}"))),
    }
}

/// A boolean as Go spells them; a key without a value says yes.
fn truth(value: &str) -> Option<bool> {
    match value {
        "" | "true" | "1" | "t" | "TRUE" | "T" | "True" => Some(true),
        _ => is_false(value).then_some(false),
    }
}

/// Whether a value says no.
pub(super) fn is_false(value: &str) -> bool {
    matches!(value, "false" | "0" | "f" | "FALSE" | "F" | "False")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn parse(texts: &[&str], load: bool) -> Result<Outputs, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        all(
            &Given { texts: &texts, load, push: false, annotations: &[], allow_delete: false },
            &Bench::new().context(),
            Path::new("/here"),
        )
        .map_err(|failure| failure.text())
    }

    fn one(text: &str) -> Output {
        parse(&[text], false).unwrap().outputs.remove(0)
    }

    fn problem(text: &str) -> String {
        parse(&[text], false).unwrap_err()
    }

    #[test]
    fn short_forms_are_local_and_tar() {
        assert!(
            matches!(one("out"), Output::Local { directory, mirror: false, .. } if directory == Path::new("/here/out"))
        );
        assert!(matches!(one("-"), Output::Tar { destination: Destination::Stream(_), .. }));
        assert!(problem("a=b,c=d").contains("type is required for output"));
    }

    #[test]
    fn archives_have_a_layout_and_a_compression() {
        let archive = one("type=oci,dest=x.tar,compression=zstd,compression-level=19,\"name=a,b:1\"");
        let Output::Archive { layout, destination: Destination::File(path), names, compression, .. } =
            archive
        else {
            panic!("not an archive in a file")
        };
        assert_eq!((layout, path.as_path()), (ImageLayout::Oci, Path::new("/here/x.tar")));
        assert_eq!((names.len(), compression), (2, Compression::Zstd(Some(19))));
        assert!(matches!(one("type=docker"), Output::Store { .. }));
        let directory = one("type=oci,dest=d,tar=false");
        assert!(matches!(directory, Output::Archive { destination: Destination::Directory(_), .. }));
        assert!(
            problem("type=oci,dest=x,compression=gzip,compression-level=10").contains("levels are 0 to 9")
        );
    }

    #[test]
    fn the_store_is_the_default_and_load_adds_it() {
        assert!(matches!(parse(&[], false).unwrap().outputs.as_slice(), [Output::Store { .. }]));
        let both = parse(&["type=tar,dest=x"], true).unwrap().outputs;
        assert!(matches!(both.as_slice(), [Output::Tar { .. }, Output::Store { .. }]));
        assert_eq!(parse(&["type=image,name=a"], true).unwrap().names.len(), 1);
        assert!(matches!(one("type=cacheonly"), Output::CacheOnly));
    }

    #[test]
    fn what_is_pushed_is_stored_unless_it_has_no_name() {
        let outputs = parse(&["type=registry,name=r/a:1,compression=zstd"], false).unwrap();
        let [Output::Store { .. }, Output::Registry { push, .. }] = outputs.outputs.as_slice() else {
            panic!("{outputs:?}")
        };
        assert_eq!((push.compression, outputs.names.len()), (Compression::Zstd(None), 1));
        let by_digest = one("type=image,push-by-digest=true,name=r/a");
        assert!(matches!(by_digest, Output::Registry { push, .. } if push.by_digest.len() == 1));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        assert!(problem("type=image,push=true,registry.insecure=true").contains("registry.insecure=true"));
        assert!(problem("type=registry,push-by-digest=true,name=a:1").contains("can't push tagged ref"));
        assert!(problem("type=registry,push-by-digest=true").contains("name is required"));
        assert!(problem("type=oci,dest=x,colour=red").contains("colour=red is not supported yet"));
        assert!(problem("type=oci,dest=x,annotation-nope.a=b").contains("unknown annotation type \"nope\""));
        assert!(problem("type=nope").contains("could not be found"));
        assert!(problem("type=local").contains("dest is required"));
        assert!(parse(&["type=image,push=false,oci-mediatypes=true"], false).is_ok());
        let no_truth = parse(&["type=image,oci-mediatypes=maybe"], false).unwrap_err();
        assert!(no_truth.contains("non-bool value specified for oci-mediatypes"), "{no_truth}");
    }
}
