//! What a collection removes: a pure function of census and request, so that `system df` can ask it too.

use mica_oci::Digest;

use super::census::{Census, ImageRow, RecordRow};
use super::{GcRequest, PruneCache, PruneImages};
use crate::LayerId;

/// What goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) images: Vec<Digest>,
    pub(super) records: Vec<i64>,
    pub(super) layers: Vec<LayerId>,
    pub(super) blobs: Vec<Digest>,
    /// What the layers and blobs take on disk.
    pub(super) freed_bytes: u64,
}

/// How many still hold each layer and blob.
struct Holders {
    layers: Vec<usize>,
    blobs: Vec<usize>,
}

impl Plan {
    pub(super) fn new(census: &Census, request: &GcRequest) -> Self {
        let mut plan = Self::default();
        let mut holders = Holders::of_leases_and_containers(census);
        for image in &census.images {
            if gives_up_image(request, image) {
                plan.images.push(image.target.clone());
            } else {
                holders.add_image(image);
            }
        }
        plan.records = prune_records(census, request.cache.as_ref(), &mut holders);
        for (layer, holders) in census.layers.iter().zip(&holders.layers) {
            if *holders == 0 || !layer.is_usable {
                plan.layers.push(layer.id);
                plan.freed_bytes += layer.bytes;
            }
        }
        for (blob, holders) in census.blobs.iter().zip(&holders.blobs) {
            if *holders == 0 || !blob.is_usable {
                plan.blobs.push(blob.id.clone());
                plan.freed_bytes += blob.bytes;
            }
        }
        plan
    }
}

impl Holders {
    fn of_leases_and_containers(census: &Census) -> Self {
        let mut holders = Self { layers: vec![0; census.layers.len()], blobs: vec![0; census.blobs.len()] };
        for layer in census.leased_layers.iter().chain(&census.container_layers) {
            holders.layers[*layer] += 1;
        }
        for blob in &census.leased_blobs {
            holders.blobs[*blob] += 1;
        }
        holders
    }

    fn add_image(&mut self, image: &ImageRow) {
        for layer in &image.layers {
            self.layers[*layer] += 1;
        }
        for blob in &image.blobs {
            self.blobs[*blob] += 1;
        }
    }
}

fn gives_up_image(request: &GcRequest, image: &ImageRow) -> bool {
    let qualifies = match request.images {
        PruneImages::None => false,
        PruneImages::Dangling => !image.is_named && image.containers == 0,
        PruneImages::Unused => image.containers == 0,
    };
    qualifies && request.only_images.as_ref().is_none_or(|only| only.contains(&image.target))
}

/// Chooses the records that go, least recently used first, and adds those that stay to `holders`.
fn prune_records(census: &Census, policy: Option<&PruneCache>, holders: &mut Holders) -> Vec<i64> {
    let held_otherwise: Vec<bool> = holders.layers.iter().map(|holders| *holders > 0).collect();
    let usable = |record: &&RecordRow| {
        record.is_usable && record.layers.iter().all(|layer| census.layers[*layer].is_usable)
    };
    for record in census.records.iter().filter(usable) {
        for layer in &record.layers {
            holders.layers[*layer] += 1;
        }
    }
    let mut cache_bytes: u64 = census
        .layers
        .iter()
        .enumerate()
        .filter(|(position, _)| !held_otherwise[*position] && holders.layers[*position] > 0)
        .map(|(_, layer)| layer.bytes)
        .sum();
    let mut gone: Vec<i64> =
        census.records.iter().filter(|record| !usable(record)).map(|record| record.record).collect();
    let Some(policy) = policy else { return gone };
    for record in census.records.iter().filter(usable).filter(|record| qualifies(policy, record)) {
        if policy.keep_bytes.is_some_and(|keep| cache_bytes <= keep) {
            break;
        }
        gone.push(record.record);
        for layer in &record.layers {
            holders.layers[*layer] -= 1;
            if holders.layers[*layer] == 0 {
                cache_bytes -= census.layers[*layer].bytes;
            }
        }
    }
    gone
}

fn qualifies(policy: &PruneCache, record: &RecordRow) -> bool {
    policy.unused_since.is_none_or(|time| record.last_used < time)
        && policy.only.as_ref().is_none_or(|only| only.contains(&record.record))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mica_oci::ImageId;

    use super::super::census::Item;
    use super::*;

    /// Layers of 1, 2, 4, … bytes; images and records name them by position.
    fn census(layers: usize, images: &[(&str, bool, u64, &[usize])], records: &[(i64, &[usize])]) -> Census {
        let layers =
            (0..layers).map(|n| Item { id: LayerId::random(), bytes: 1 << n, is_usable: true }).collect();
        let images = images.iter().map(|(name, is_named, containers, layers)| ImageRow {
            target: Digest::of(name.as_bytes()),
            image_id: ImageId(Digest::of(name.as_bytes())),
            is_named: *is_named,
            containers: *containers,
            layers: layers.iter().copied().collect(),
            blobs: BTreeSet::new(),
        });
        let records = records.iter().map(|(record, layers)| RecordRow {
            record: *record,
            last_used: *record,
            layers: layers.iter().copied().collect(),
            is_usable: true,
        });
        Census { layers, images: images.collect(), records: records.collect(), ..Census::default() }
    }

    #[test]
    fn shared_layers_survive_the_removal_of_one_image() {
        let census = census(3, &[("old", false, 0, &[0, 1]), ("new", true, 0, &[0, 2])], &[]);
        let request = GcRequest { images: PruneImages::Dangling, ..GcRequest::default() };
        let plan = Plan::new(&census, &request);
        assert_eq!((plan.images.len(), plan.freed_bytes), (1, 2));
    }

    #[test]
    fn an_image_with_a_container_is_never_pruned() {
        let census = census(1, &[("used", false, 1, &[0])], &[]);
        let request = GcRequest { images: PruneImages::Unused, ..GcRequest::default() };
        assert_eq!(Plan::new(&census, &request), Plan::default());
    }

    #[test]
    fn a_budget_removes_the_least_recently_used_records_until_it_fits() {
        let census = census(4, &[("image", true, 0, &[3])], &[(1, &[0]), (2, &[0, 1]), (3, &[2, 3])]);
        let policy = PruneCache { keep_bytes: Some(4), ..PruneCache::default() };
        let request = GcRequest { cache: Some(policy), ..GcRequest::default() };
        let plan = Plan::new(&census, &request);
        assert_eq!(plan.records, [1, 2]);
        assert_eq!(plan.freed_bytes, 1 + 2);
    }

    #[test]
    fn a_live_lease_keeps_its_layers_without_any_name() {
        let mut census = census(2, &[], &[]);
        census.leased_layers.insert(1);
        assert_eq!(Plan::new(&census, &GcRequest::default()).freed_bytes, 1);
    }

    #[test]
    fn what_a_crash_left_unsynced_goes_with_the_records_that_name_it() {
        let mut census = census(2, &[], &[(1, &[0]), (2, &[0, 1])]);
        census.layers[1].is_usable = false;
        let plan = Plan::new(&census, &GcRequest::default());
        assert_eq!((plan.records.as_slice(), plan.freed_bytes), ([2].as_slice(), 2));
    }
}
