//! Blobs that arrive in parts.

mod support;

use std::io::Read as _;
use std::sync::Arc;

use mica_oci::Descriptor;
use mica_store::{CommitError, Feed, Lease, Partial, Store};

fn blob() -> (Vec<u8>, Descriptor) {
    let bytes = b"some bytes that arrive in parts".to_vec();
    let descriptor = Descriptor::of("", &bytes);
    (bytes, descriptor)
}

fn open<'a>(store: &Store, descriptor: &Descriptor, lease: &'a Lease) -> Partial<'a> {
    store.partial(descriptor, lease, &|| false).unwrap().expect("it is not complete")
}

#[test]
fn an_interrupted_blob_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let store = support::open(directory.path());
    let (bytes, descriptor) = blob();
    let lease = store.lease().unwrap();
    open(&store, &descriptor, &lease).append(&bytes[..10]).unwrap();
    let mut again = open(&store, &descriptor, &lease);
    assert_eq!((again.received_bytes(), again.is_inherited()), (10, true));
    again.append(&bytes[10..]).unwrap();
    again.commit().unwrap();
    assert_eq!(store.read_blob(&descriptor.digest, 100).unwrap(), bytes);
    assert!(store.partial(&descriptor, &lease, &|| false).unwrap().is_none());
    assert_eq!(std::fs::read_dir(store.state().partials()).unwrap().count(), 0);
}

#[test]
fn a_poisoned_part_does_not_spoil_the_next_transfer() {
    let directory = tempfile::tempdir().unwrap();
    let store = support::open(directory.path());
    let (bytes, descriptor) = blob();
    let lease = store.lease().unwrap();
    let mut wrong = open(&store, &descriptor, &lease);
    wrong.append(&vec![b'x'; bytes.len()]).unwrap();
    assert!(matches!(wrong.commit(), Err(CommitError::DigestMismatch { .. })));
    let mut honest = open(&store, &descriptor, &lease);
    assert_eq!(honest.received_bytes(), 0);
    honest.append(&bytes).unwrap();
    assert!(honest.append(b"x").is_err(), "one byte too many");
    honest.commit().unwrap();
}

#[test]
fn a_reader_follows_and_learns_of_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = support::open(directory.path());
    let (bytes, descriptor) = blob();
    let lease = store.lease().unwrap();
    let feed = Arc::new(Feed::default());
    let mut reader = feed.reader();
    let follower = std::thread::spawn(move || {
        let mut read = Vec::new();
        reader.read_to_end(&mut read).map(|_| read)
    });
    let mut partial = open(&store, &descriptor, &lease);
    partial.feed(&feed).unwrap();
    partial.append(&bytes[..5]).unwrap();
    partial.append(&bytes[5..]).unwrap();
    partial.commit().unwrap();
    assert_eq!(follower.join().unwrap().unwrap(), bytes);

    let broken = Arc::new(Feed::default());
    broken.end(false);
    assert!(broken.reader().read_to_end(&mut Vec::new()).is_err());
}
