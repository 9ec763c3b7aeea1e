//! What a collection removes: a pure function of census and request, so that `system df` can ask it too.

use std::collections::{BTreeMap, BTreeSet};

use mica_oci::Digest;

use super::census::{Census, ImageRow, Item, RecordRow, makers};
use super::loose::Loose;
use super::{CacheItem, GcRequest, PruneCache, PruneImages, PrunedCache};
use crate::LayerId;

/// What goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) images: Vec<Digest>,
    /// Records whose layers a crash took.
    pub(super) unusable: Vec<i64>,
    /// Parts of the build cache, least recently used first.
    pub(super) cache: Vec<PrunedCache>,
    pub(super) layers: Vec<LayerId>,
    pub(super) blobs: Vec<Digest>,
    /// What the layers and blobs take on disk.
    pub(super) freed_bytes: u64,
    /// What the parts of the build cache take that are no layers.
    pub(super) loose_bytes: u64,
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
        plan.unusable = unusable_records(census);
        let gone = choose_cache(census, request.cache.as_ref(), &mut holders);
        plan.loose_bytes = gone.iter().filter_map(|part| part.loose()).map(|loose| loose.bytes).sum();
        plan.cache = pruned(census, &gone, &holders);
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

fn unusable_records(census: &Census) -> Vec<i64> {
    let usable: BTreeSet<i64> = census.usable_records().map(|record| record.record).collect();
    let all = census.records.iter().map(|record| record.record);
    all.filter(|record| !usable.contains(record)).collect()
}

/// A part of the build cache that may go.
#[derive(Clone, Copy)]
enum Part<'a> {
    Record(&'a RecordRow),
    Loose(&'a Loose),
}

impl<'a> Part<'a> {
    fn item(self) -> CacheItem {
        match self {
            Self::Record(record) => CacheItem::Record(record.record),
            Self::Loose(loose) => loose.item.clone(),
        }
    }

    fn last_used(self) -> i64 {
        match self {
            Self::Record(record) => record.last_used,
            Self::Loose(loose) => loose.last_used,
        }
    }

    fn record(self) -> Option<&'a RecordRow> {
        match self {
            Self::Record(record) => Some(record),
            Self::Loose(_) => None,
        }
    }

    fn loose(self) -> Option<&'a Loose> {
        match self {
            Self::Record(_) => None,
            Self::Loose(loose) => Some(loose),
        }
    }
}

/// Chooses what goes, least recently used first, and adds the records that stay to `holders`.
fn choose_cache<'a>(census: &'a Census, policy: Option<&PruneCache>, holders: &mut Holders) -> Vec<Part<'a>> {
    let held_otherwise: Vec<bool> = holders.layers.iter().map(|holders| *holders > 0).collect();
    for layer in census.usable_records().flat_map(|record| &record.layers) {
        holders.layers[*layer] += 1;
    }
    let Some(policy) = policy else { return Vec::new() };
    let only_cached =
        |(position, _): &(usize, &Item<LayerId>)| !held_otherwise[*position] && holders.layers[*position] > 0;
    let layers: u64 =
        census.layers.iter().enumerate().filter(only_cached).map(|(_, layer)| layer.bytes).sum();
    let mut cache_bytes = layers + census.loose.iter().map(|loose| loose.bytes).sum::<u64>();
    let keep_bytes = policy.limits.keep_bytes(cache_bytes, census.free_bytes);
    let shared = census.shared_layers();
    let records = census.usable_records().map(Part::Record);
    let mut parts: Vec<Part<'_>> = records.chain(census.loose.iter().map(Part::Loose)).collect();
    parts.retain(|part| qualifies(policy, *part, census, &shared));
    parts.sort_by_key(|part| part.last_used());
    let mut gone = Vec::new();
    for part in parts {
        if keep_bytes.is_some_and(|keep| cache_bytes <= keep) {
            break;
        }
        gone.push(part);
        cache_bytes -= part.loose().map_or(0, |loose| loose.bytes);
        for layer in part.record().iter().flat_map(|record| &record.layers) {
            holders.layers[*layer] -= 1;
            if holders.layers[*layer] == 0 {
                cache_bytes -= census.layers[*layer].bytes;
            }
        }
    }
    gone
}

fn qualifies(policy: &PruneCache, part: Part<'_>, census: &Census, shared: &BTreeSet<usize>) -> bool {
    let is_free = match part {
        Part::Record(record) => {
            !record.is_within(&census.leased_layers) && (policy.shared || !record.is_within(shared))
        }
        Part::Loose(loose) => !loose.in_use,
    };
    is_free
        && policy.unused_since.is_none_or(|time| part.last_used() < time)
        && policy.only.as_ref().is_none_or(|only| only.contains(&part.item()))
}

/// What goes with what it frees: each layer that nobody holds any more counts for the record that made it.
fn pruned(census: &Census, gone: &[Part<'_>], holders: &Holders) -> Vec<PrunedCache> {
    let records: Vec<&RecordRow> = gone.iter().filter_map(|part| part.record()).collect();
    let mut freed = BTreeMap::new();
    for (layer, maker) in makers(&records, &BTreeSet::new(), census.layers.len()).into_iter().enumerate() {
        if let Some(maker) = maker.filter(|_| holders.layers[layer] == 0) {
            *freed.entry(records[maker].record).or_insert(0) += census.layers[layer].bytes;
        }
    }
    let entry = |part: &Part<'_>| PrunedCache {
        item: part.item(),
        freed_bytes: match part {
            Part::Record(record) => freed.get(&record.record).copied().unwrap_or(0),
            Part::Loose(loose) => loose.bytes,
        },
    };
    gone.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use mica_api::CacheLimits;
    use mica_oci::ImageId;

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
            top: layers.last().copied(),
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
        let limits = CacheLimits { max_used_bytes: Some(4), ..CacheLimits::default() };
        let plan = Plan::new(&census, &prune(PruneCache { limits, ..PruneCache::default() }));
        assert_eq!(freed(&plan), [(1, 1), (2, 2)]);
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
        assert_eq!((plan.unusable.as_slice(), plan.freed_bytes), ([2].as_slice(), 2));
    }

    fn prune(cache: PruneCache) -> GcRequest {
        GcRequest { cache: Some(cache), ..GcRequest::default() }
    }

    /// Records that go, with what they free.
    fn freed(plan: &Plan) -> Vec<(i64, u64)> {
        let record = |pruned: &PrunedCache| match pruned.item {
            CacheItem::Record(record) => Some((record, pruned.freed_bytes)),
            CacheItem::Mount(_) | CacheItem::Context(_) => None,
        };
        plan.cache.iter().filter_map(record).collect()
    }

    fn mount(id: &str, last_used: i64, bytes: u64, in_use: bool) -> Loose {
        let item = CacheItem::Mount(id.to_owned());
        Loose { item, path: id.into(), bytes, created: 0, last_used, in_use }
    }

    #[test]
    fn results_of_images_go_only_when_everything_is_given_up() {
        let census = census(3, &[("image", true, 0, &[0, 1])], &[(1, &[0]), (2, &[0, 1]), (3, &[0, 2])]);
        assert_eq!(freed(&Plan::new(&census, &prune(PruneCache::default()))), [(3, 4)]);
        let all = Plan::new(&census, &prune(PruneCache::everything()));
        assert_eq!(freed(&all), [(1, 0), (2, 0), (3, 4)]);
        assert_eq!(all.freed_bytes, 4);
    }

    #[test]
    fn a_result_that_a_running_process_holds_stays() {
        let mut census = census(2, &[], &[(1, &[0]), (2, &[0, 1])]);
        census.leased_layers.insert(0);
        assert_eq!(freed(&Plan::new(&census, &prune(PruneCache::everything()))), [(2, 2)]);
    }

    #[test]
    fn a_layer_counts_for_the_record_that_made_it_whatever_goes_first() {
        let mut census = census(2, &[], &[(1, &[0]), (2, &[0, 1])]);
        assert_eq!(freed(&Plan::new(&census, &prune(PruneCache::everything()))), [(1, 1), (2, 2)]);
        census.records.reverse();
        assert_eq!(freed(&Plan::new(&census, &prune(PruneCache::everything()))), [(1, 1), (2, 2)]);
        let only = Some([CacheItem::Record(1)].into());
        let plan = Plan::new(&census, &prune(PruneCache { only, ..PruneCache::everything() }));
        assert_eq!((freed(&plan), plan.freed_bytes), (vec![(1, 0)], 0), "the other one still has the layer");
    }

    #[test]
    fn mounts_and_records_go_in_the_order_of_their_use() {
        let mut census = census(3, &[], &[(10, &[0]), (30, &[1])]);
        census.loose =
            vec![mount("old", 5, 100, false), mount("used", 6, 100, true), mount("new", 20, 100, false)];
        let limits = CacheLimits { max_used_bytes: Some(210), ..CacheLimits::default() };
        let plan = Plan::new(&census, &prune(PruneCache { limits, ..PruneCache::default() }));
        assert_eq!(plan.cache.iter().map(|pruned| &pruned.item).collect::<Vec<_>>(), [&census.loose[0].item]);
        assert_eq!(plan.loose_bytes, 100);
        let plan = Plan::new(&census, &prune(PruneCache::everything()));
        let items: Vec<CacheItem> = plan.cache.into_iter().map(|pruned| pruned.item).collect();
        let (old, new) = (census.loose[0].item.clone(), census.loose[2].item.clone());
        assert_eq!(items, [old, CacheItem::Record(10), new, CacheItem::Record(30)]);
    }

    #[test]
    fn enough_is_freed_for_the_rest_of_the_disk() {
        let mut census = census(3, &[], &[(1, &[0]), (2, &[1]), (3, &[2])]);
        census.free_bytes = 8;
        let limits = CacheLimits { min_free_bytes: Some(10), ..CacheLimits::default() };
        assert_eq!(
            freed(&Plan::new(&census, &prune(PruneCache { limits, ..PruneCache::default() }))),
            [(1, 1), (2, 2)]
        );
        census.free_bytes = 10;
        let plan = Plan::new(&census, &prune(PruneCache { limits, ..PruneCache::default() }));
        assert!(plan.cache.is_empty(), "enough is free");
    }
}
