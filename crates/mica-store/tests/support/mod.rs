//! What the tests of the store share: small layers and images, and child processes in roles.
#![allow(dead_code, reason = "every test binary uses another part of this")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use mica_archive::{ContentDigest, Entry, Kind, Table};
use mica_oci::{Descriptor, DiffId, Digest, ImageId, Reference, media_type};
use mica_store::{
    DriverKind, Flavour, IdMap, ImageContents, LayerId, LayerRecord, Lease, ManifestLayers, StagedLayer,
    Store,
};

/// Says which role a re-executed test binary plays.
const ROLE: &str = "MICA_STORE_TEST_ROLE";
/// The store a child works on.
const ROOT: &str = "MICA_STORE_TEST_ROOT";

pub(crate) fn flavour() -> Flavour {
    Flavour { driver: DriverKind::Copy, owner_uid: rustix::process::getuid().as_raw(), id_map: IdMap::Host }
}

pub(crate) fn open(root: &Path) -> Store {
    Store::open(root, &flavour()).unwrap()
}

pub(crate) fn name(text: &str) -> Reference {
    text.parse::<Reference>().unwrap().or_latest()
}

/// Adds a layer with one directory and one file of this content.
pub(crate) fn layer(store: &Store, lease: &Lease, content: &str) -> LayerRecord {
    try_layer(store, lease, content).unwrap()
}

pub(crate) fn try_layer(
    store: &Store,
    lease: &Lease,
    content: &str,
) -> Result<LayerRecord, Box<dyn std::error::Error>> {
    let directory = lease.workspace()?;
    let root = directory.join("fs");
    fs::create_dir_all(root.join("etc"))?;
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("etc/file"), content)?;
    fs::set_permissions(root.join("etc/file"), fs::Permissions::from_mode(0o644))?;
    let table = Arc::new(table(content));
    let diff_id = DiffId(Digest::of(content.as_bytes()));
    let staged =
        StagedLayer { directory: &directory, id: LayerId::random(), diff_id, tar_bytes: 3072, table };
    Ok(store.adopt_layer(staged, lease)?)
}

fn table(content: &str) -> Table {
    let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let entry = |path: &str, kind, mode| Entry {
        path: path.into(),
        kind,
        mode,
        uid: owner.0,
        gid: owner.1,
        mtime: Default::default(),
        xattrs: BTreeMap::new(),
    };
    let digest = Some(ContentDigest::of(content.as_bytes()));
    Table::from_entries(vec![
        entry("etc", Kind::Directory { opaque: false }, 0o755),
        entry("etc/file", Kind::File { size: content.len() as u64, digest }, 0o644),
    ])
    .unwrap()
}

/// An image made of one config and these layers; not yet published.
pub(crate) struct Image {
    pub(crate) target: Descriptor,
    pub(crate) contents: ImageContents,
}

pub(crate) fn image(store: &Store, lease: &Lease, title: &str, layers: &[&LayerRecord]) -> Image {
    try_image(store, lease, title, layers).unwrap()
}

pub(crate) fn try_image(
    store: &Store,
    lease: &Lease,
    title: &str,
    layers: &[&LayerRecord],
) -> Result<Image, Box<dyn std::error::Error>> {
    let config = store.put_blob(format!("config {title}").as_bytes(), lease)?;
    let bytes =
        format!("manifest {title} {:?}", layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>());
    let manifest = store.put_blob(bytes.as_bytes(), lease)?;
    let layers = layers.iter().map(|layer| layer.id).collect();
    let contents = ImageContents {
        image_id: ImageId(config.clone()),
        blobs: vec![manifest.clone(), config],
        manifests: vec![ManifestLayers { manifest, layers }],
    };
    Ok(Image { target: Descriptor::of(media_type::OCI_MANIFEST, bytes.as_bytes()), contents })
}

/// Publishes an image with one layer of this content under a name.
pub(crate) fn publish(store: &Store, tag: &str, content: &str) -> Image {
    try_publish(store, tag, content).unwrap()
}

pub(crate) fn try_publish(
    store: &Store,
    tag: &str,
    content: &str,
) -> Result<Image, Box<dyn std::error::Error>> {
    let lease = store.lease()?;
    let layer = try_layer(store, &lease, content)?;
    let image = try_image(store, &lease, content, &[&layer])?;
    store.publish(&[name(tag)], &image.target, &image.contents, &lease)?;
    Ok(image)
}

/// Everything an image promises is there: config, manifest, layer table and the file.
pub(crate) fn assert_complete(store: &Store, target: &Digest) {
    let contents = store.image_contents(target).unwrap().unwrap();
    for blob in &contents.blobs {
        store.read_blob(blob, 1 << 20).unwrap();
    }
    for layer in contents.manifests.iter().flat_map(|manifest| &manifest.layers) {
        let record = store.layer(*layer).unwrap().unwrap();
        assert_eq!(store.table(*layer).unwrap().len(), 2);
        let content = fs::read(store.state().layer_fs(*layer).join("etc/file")).unwrap();
        assert_eq!(DiffId(Digest::of(&content)), record.diff_id);
    }
}

/// Starts this test binary again to run the test `test` in a role; the test must call [`role`] first.
pub(crate) fn spawn(test: &str, role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .envs(role_environment(role, root))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What makes a child play a role on a store.
pub(crate) fn role_environment(role: &str, root: &Path) -> [(&'static str, OsString); 2] {
    [(ROLE, role.into()), (ROOT, root.into())]
}

/// The role of this process and the store to play it on; `None` in the parent.
pub(crate) fn role() -> Option<(String, Store)> {
    let role = std::env::var(ROLE).ok()?;
    let root = std::env::var_os(ROOT).unwrap();
    Some((role, open(Path::new(&root))))
}

/// Every path below a directory, relative, sorted.
pub(crate) fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}
