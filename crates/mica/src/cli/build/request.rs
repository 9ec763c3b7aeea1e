//! From the flags of `build` to its request.

use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};

use mica_api::{
    Annotation, BuildContext, BuildRequest, CacheDestination, CacheTo, Class, DockerfileSource, Error,
    NoCache,
};
use mica_engine::is_tar;
use mica_oci::{Platform, Reference};

use crate::context::Cx;
use crate::environment::Environment;
use crate::failure::{Failure, io_failure};
use crate::values::{hosts, keyed};

use super::{BuildArgs, annotations, caches, outputs, permissions, resources, sources};

impl BuildArgs {
    /// The request, with everything that only the client knows resolved.
    pub(super) fn request(self, cx: &Cx, here: &Path) -> Result<BuildRequest, Failure> {
        let environment = &cx.environment;
        let mut tags = self.tags()?;
        self.check_words()?;
        let annotations: Vec<Vec<Annotation>> = collect_all(&self.annotation, &annotations::parse)?;
        let given = outputs::Given {
            texts: &self.output,
            load: self.load,
            push: self.push,
            annotations: &annotations.concat(),
            allow_delete: self.allow.iter().any(|entitlement| entitlement == permissions::DELETE),
        };
        let outputs = outputs::all(&given, cx, here)?;
        tags.extend(outputs.names);
        let build_args = build_args(&self.build_arg, cx.config().proxy_variables(), environment);
        permissions::refuse_controls(&build_args)?;
        let context = context(&self.context, self.file.as_deref(), here)?;
        let collect = |texts: &[String], parse: &dyn Fn(&str) -> Result<_, Error>| {
            texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, Error>>()
        };
        Ok(BuildRequest {
            dockerfile: dockerfile(self.file.as_deref(), &context, here)?,
            context,
            tags,
            platform: platform(&self.platform, environment)?,
            build_args,
            named_contexts: collect(&self.build_context, &|text| sources::named_context(text, here))?,
            secrets: self
                .secret
                .iter()
                .map(|text| sources::secret(text, environment, here))
                .collect::<Result<_, _>>()?,
            ssh: self.ssh.iter().map(|text| sources::ssh(text, environment)).collect::<Result<_, _>>()?,
            no_cache: no_cache(self.no_cache, self.no_cache_filter)?,
            cache_from: collect_all(&self.cache_from, &|text| caches::from(text, here))?.concat(),
            cache_to: cache_to(&self.cache_to, &self.build_arg, here)?,
            labels: self.label.iter().map(|text| keyed::label(text)).collect(),
            entitlements: permissions::entitlements(&self.allow, self.network.as_deref()),
            cgroup_parent: self.cgroup_parent.filter(|parent| !parent.is_empty()),
            resources: resources::parse(&self.resource)?,
            log_limits: resources::log_limits(environment),
            pull: self.pull,
            network: self.network,
            extra_hosts: collect_all(&self.add_host, &extra_host)?,
            shm_bytes: self.shm_size,
            ulimits: self.ulimit,
            outputs: outputs.outputs,
            runtime: self.runtime,
            target: self.target.filter(|target| !target.is_empty()),
        })
    }

    /// Refuses words that mean nothing wherever they are used.
    fn check_words(&self) -> Result<(), Error> {
        let invalid = |message| Error::new(Class::Invalid, message);
        self.allow.iter().try_for_each(|word| permissions::check(word)).map_err(invalid)?;
        self.build_arg.iter().chain(&self.label).try_for_each(|pair| keyed::check_key(pair)).map_err(invalid)
    }

    fn tags(&self) -> Result<Vec<Reference>, Error> {
        self.tag
            .iter()
            .map(|text| {
                let reference: Result<Reference, _> = text.parse();
                reference
                    .map(Reference::or_latest)
                    .map_err(|error| Error::new(Class::Invalid, format!("invalid tag {text:?}: {error}")))
            })
            .collect()
    }
}

fn collect_all<T>(texts: &[String], parse: &dyn Fn(&str) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    texts.iter().map(|text| parse(text)).collect()
}

/// One `--add-host`, refused in buildx's words.
fn extra_host(text: &str) -> Result<(String, String), Error> {
    hosts::add_host(text).map_err(|why| Error::new(Class::Invalid, format!("invalid host {text}")).why(why))
}

/// `--cache-to`, and the build argument that means `type=inline` (V20).
fn cache_to(texts: &[String], build_args: &[String], here: &Path) -> Result<Vec<CacheTo>, Error> {
    let mut all = collect_all(texts, &|text| caches::to(text, here))?;
    let is_inline = |cache: &CacheTo| cache.destination == CacheDestination::Inline;
    let asks = |arg: &String| {
        let value = arg.strip_prefix("BUILDKIT_INLINE_CACHE=");
        value.is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    };
    if build_args.iter().any(asks) && !all.iter().any(is_inline) {
        all.push(caches::to("type=inline", here)?);
    }
    Ok(all)
}

fn no_cache(all: bool, stages: Vec<String>) -> Result<NoCache, Error> {
    match (all, stages.is_empty()) {
        (true, false) => {
            let problem = "--no-cache and --no-cache-filter cannot currently be used together";
            Err(Error::new(Class::Invalid, problem))
        }
        (true, true) => Ok(NoCache::All),
        (false, true) => Ok(NoCache::Off),
        (false, false) => Ok(NoCache::Stages(stages)),
    }
}

/// A directory or standard input (build.md O1).
fn context(text: &str, file: Option<&str>, here: &Path) -> Result<BuildContext, Failure> {
    if text == "-" {
        if file == Some("-") {
            let message = "invalid argument: can't use stdin for both build context and dockerfile";
            return Err(Failure::new(Class::Invalid, message));
        }
        let stdin = crate::output::stdin_fd();
        return Ok(BuildContext::Stream(
            stdin.map_err(|error| io_failure("cannot read standard input", &error))?,
        ));
    }
    if sources::is_remote(text) {
        return Ok(BuildContext::Remote(text.to_owned()));
    }
    let path = here.join(text);
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Ok(BuildContext::Directory(path)),
        Ok(_) => archive(&path, text),
        Err(error) => local_repository(text, here).map(BuildContext::Remote).ok_or_else(|| {
            Error::new(Class::NotFound, format!("unable to prepare context: path {text:?} not found"))
                .why(error.to_string())
                .into()
        }),
    }
}

/// A tar file is what a stream with its bytes would be.
fn archive(path: &Path, text: &str) -> Result<BuildContext, Failure> {
    let open = || -> io::Result<Option<std::fs::File>> {
        // a pipe would wait for somebody to write
        if !path.metadata()?.is_file() {
            return Ok(None);
        }
        let mut file = std::fs::File::open(path)?;
        let is_tar = is_tar(&mut file)?;
        file.rewind()?;
        Ok(is_tar.then_some(file))
    };
    match open().map_err(|error| io_failure("cannot read the build context", &error))? {
        Some(file) => Ok(BuildContext::Stream(file.into())),
        None => Err(Error::new(
            Class::Invalid,
            format!("unable to prepare context: path {text:?} is not a directory"),
        )
        .hint("the Dockerfile is named by -f; the last argument is the directory that COPY reads")
        .into()),
    }
}

/// `DIRECTORY#ref:subdir`: a repository on this machine.
fn local_repository(text: &str, here: &Path) -> Option<String> {
    let (directory, fragment) = text.split_once('#')?;
    let directory = here.join(directory).canonicalize().ok()?;
    (directory.is_dir()).then(|| format!("file://{}#{fragment}", directory.display()))
}

/// Relative paths start at the current directory, or inside a context that is a stream.
fn dockerfile(file: Option<&str>, context: &BuildContext, here: &Path) -> Result<DockerfileSource, Failure> {
    match (file, context) {
        (None | Some(""), _) => Ok(DockerfileSource::Default),
        (Some("-"), _) => {
            let stdin = crate::output::stdin_fd();
            Ok(DockerfileSource::Stream(
                stdin.map_err(|error| io_failure("cannot read standard input", &error))?,
            ))
        }
        (Some(url), _) if sources::is_remote(url) => Ok(DockerfileSource::Remote(url.to_owned())),
        (Some(path), BuildContext::Stream(_) | BuildContext::Remote(_)) => {
            Ok(DockerfileSource::Path(PathBuf::from(path)))
        }
        (Some(path), BuildContext::Directory(_)) => Ok(DockerfileSource::Path(here.join(path))),
    }
}

/// One platform for now; `local` is this machine (build.md O7).
fn platform(given: &[String], environment: &Environment) -> Result<Option<Platform>, Error> {
    let parse = |text: &str| match text {
        "local" => Ok(Platform::host()),
        other => other
            .parse()
            .map_err(|error: mica_oci::PlatformError| Error::new(Class::Invalid, error.to_string())),
    };
    let given: Result<Vec<Platform>, Error> =
        given.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(parse).collect();
    let mut given = given?;
    given.dedup();
    match given.as_slice() {
        [] => crate::cli::run::platform(None, environment),
        [one] => Ok(Some(one.clone())),
        [_, ..] => Err(Error::new(Class::Unsupported, "a build for several platforms is not supported yet")
            .why(format!("--platform names {}", given.len()))
            .hint("build them one by one")),
    }
}

/// `--build-arg` wins over `SOURCE_DATE_EPOCH` of the environment, and that over proxies of `config.json`.
fn build_args(
    given: &[String],
    proxies: Vec<(String, String)>,
    environment: &Environment,
) -> Vec<(String, String)> {
    let names: Vec<&str> = given.iter().map(|text| text.split('=').next().unwrap_or_default()).collect();
    let epoch = environment.nonempty("SOURCE_DATE_EPOCH");
    let defaults =
        proxies.into_iter().chain(epoch.map(|value| ("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())));
    let mut args: Vec<(String, String)> =
        defaults.filter(|(name, _)| !names.contains(&name.as_str())).collect();
    args.extend(given.iter().filter_map(|text| keyed::from_environment(text, environment)));
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(args: &[(String, String)]) -> Vec<String> {
        args.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn build_args_take_values_of_the_environment_and_win_over_defaults() {
        let environment = Environment::of(&[("SET", "1"), ("SOURCE_DATE_EPOCH", "7")]);
        let given = ["SET", "UNSET", "http_proxy=mine"].map(str::to_owned);
        let proxies =
            vec![("HTTP_PROXY".to_owned(), "p".to_owned()), ("http_proxy".to_owned(), "p".to_owned())];
        assert_eq!(
            pairs(&build_args(&given, proxies, &environment)),
            ["HTTP_PROXY=p", "SOURCE_DATE_EPOCH=7", "SET=1", "http_proxy=mine"]
        );
        let epoch = ["SOURCE_DATE_EPOCH=8".to_owned()];
        assert_eq!(pairs(&build_args(&epoch, Vec::new(), &environment)), ["SOURCE_DATE_EPOCH=8"]);
    }

    #[test]
    fn contexts_are_directories_urls_and_repositories() {
        let here = Path::new("/");
        assert!(
            matches!(context("etc", None, here), Ok(BuildContext::Directory(path)) if path == Path::new("/etc"))
        );
        let remote = |text: &str| matches!(context(text, None, here), Ok(BuildContext::Remote(_)));
        assert!(remote("https://example.org/x.git#v1:dir") && remote("git@h:x") && remote("github.com/a/b"));
        let local = context("etc#main", None, here);
        assert!(matches!(local, Ok(BuildContext::Remote(url)) if url == "file:///etc#main"));
        assert!(context("etc/passwd", None, here).unwrap_err().text().contains("is not a directory"));
        assert!(context("nope", None, here).unwrap_err().text().contains("path \"nope\" not found"));
        assert!(context("-", Some("-"), here).unwrap_err().text().contains("can't use stdin for both"));
    }

    #[test]
    fn dockerfiles_are_found_from_the_current_directory() {
        let directory = BuildContext::Directory("/ctx".into());
        let path = dockerfile(Some("a/Dockerfile"), &directory, Path::new("/here"));
        assert!(matches!(path, Ok(DockerfileSource::Path(path)) if path == Path::new("/here/a/Dockerfile")));
        assert!(matches!(dockerfile(None, &directory, Path::new("/")), Ok(DockerfileSource::Default)));
    }

    #[test]
    fn one_platform_is_built() {
        let none = Environment::default();
        let amd64 = Some(Platform::new("linux", "amd64", None));
        assert_eq!(platform(&["linux/amd64".to_owned()], &none).unwrap(), amd64);
        assert_eq!(
            platform(&[], &Environment::of(&[("DOCKER_DEFAULT_PLATFORM", "linux/amd64")])).unwrap(),
            amd64
        );
        assert_eq!(platform(&["local".to_owned()], &none).unwrap(), Some(Platform::host()));
        let two = ["linux/amd64", "linux/arm64"].map(str::to_owned);
        assert_eq!(platform(&two, &none).unwrap_err().class, Class::Unsupported);
    }
}
