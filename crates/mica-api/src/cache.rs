//! The build cache as people see it: its parts, which of them are meant, how much may stay.

use crate::Timestamp;

/// One part of the build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Identity: 25 characters.
    pub id: String,
    /// Identities of the results it builds on.
    pub parents: Vec<String>,
    /// What made it: the vertex's name.
    pub description: String,
    /// `regular`, `source.git.checkout`, `source.local`, `exec.cachemount`, `internal`.
    pub kind: String,
    /// Bytes it adds to what it builds on.
    pub size_bytes: u64,
    /// The part of them that images or containers have too.
    pub shared_bytes: u64,
    /// The part of them that removing everything would free now.
    pub reclaimable_bytes: u64,
    /// Whether the whole result belongs to an image or container too.
    pub shared: bool,
    /// Whether it is a directory that steps go on writing to.
    pub mutable: bool,
    /// Whether something running uses it.
    pub in_use: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last of use.
    pub last_used: Option<Timestamp>,
    /// How often.
    pub usage_count: u64,
}

/// `builder prune`.
#[derive(Debug, Clone, Default)]
pub struct PruneCache {
    /// What images and containers share goes too; freeing nothing now, but their next build is a full one.
    pub all: bool,
    /// Only what passes.
    pub filter: CacheFilter,
    /// How much may stay.
    pub limits: CacheLimits,
}

/// How much build cache may stay; without any limit nothing does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheLimits {
    /// This much may always stay.
    pub reserved_bytes: Option<u64>,
    /// No more than this.
    pub max_used_bytes: Option<u64>,
    /// So little that this much of the disk is free.
    pub min_free_bytes: Option<u64>,
}

impl CacheLimits {
    /// How many bytes may stay of `used_bytes`, on a disk with `free_bytes`; `None` if nothing has to.
    pub fn keep_bytes(&self, used_bytes: u64, free_bytes: u64) -> Option<u64> {
        if *self == Self::default() {
            return None;
        }
        let only_reserved = self.max_used_bytes.is_none() && self.min_free_bytes.is_none();
        let mut keep = if only_reserved { 0 } else { self.max_used_bytes.unwrap_or(u64::MAX) };
        let missing = self.min_free_bytes.unwrap_or(0).saturating_sub(free_bytes);
        if missing > 0 {
            keep = keep.min(used_bytes.saturating_sub(missing));
        }
        Some(keep.max(self.reserved_bytes.unwrap_or(0)))
    }
}

/// Which parts of the cache are meant: those for which everything holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// Not used since.
    pub unused_since: Option<Timestamp>,
    /// Further conditions.
    pub conditions: Vec<CacheCondition>,
}

/// A condition on one part of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheCondition {
    /// On a text.
    Text(CacheText, TextTest),
    /// On a truth.
    Flag(CacheFlag, bool),
}

/// A text to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheText {
    /// The identity.
    Id,
    /// The identities of the parents, separated by `;`.
    Parents,
    /// The description.
    Description,
    /// The type.
    Kind,
}

/// A truth to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFlag {
    /// Something running uses it.
    InUse,
    /// Steps go on writing to it.
    Mutable,
    /// An image or container has it too.
    Shared,
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// Equal.
    Is(String),
    /// Not equal.
    IsNot(String),
    /// Contained; `^` at the beginning and `$` at the end anchor it.
    Like(String),
}

impl CacheFilter {
    /// Whether this part is meant.
    pub fn matches(&self, entry: &CacheEntry) -> bool {
        let used_since = |time| entry.last_used.is_some_and(|used: Timestamp| used.0 > time);
        !self.unused_since.is_some_and(|time| used_since(time.0))
            && self.conditions.iter().all(|condition| condition.matches(entry))
    }
}

impl CacheCondition {
    fn matches(&self, entry: &CacheEntry) -> bool {
        match self {
            Self::Flag(flag, wanted) => {
                let found = match flag {
                    CacheFlag::InUse => entry.in_use,
                    CacheFlag::Mutable => entry.mutable,
                    CacheFlag::Shared => entry.shared,
                };
                found == *wanted
            }
            Self::Text(CacheText::Id, test) => test.passes(&entry.id),
            Self::Text(CacheText::Parents, test) => test.passes(&entry.parents.join(";")),
            Self::Text(CacheText::Description, test) => test.passes(&entry.description),
            Self::Text(CacheText::Kind, test) => test.passes(&entry.kind),
        }
    }
}

impl TextTest {
    fn passes(&self, text: &str) -> bool {
        match self {
            Self::Is(wanted) => text == wanted,
            Self::IsNot(unwanted) => text != unwanted,
            Self::Like(pattern) => {
                let (from_start, pattern) = match pattern.strip_prefix('^') {
                    Some(rest) => (true, rest),
                    None => (false, pattern.as_str()),
                };
                match (from_start, pattern.strip_suffix('$')) {
                    (true, Some(whole)) => text == whole,
                    (false, Some(end)) => text.ends_with(end),
                    (true, None) => text.starts_with(pattern),
                    (false, None) => text.contains(pattern),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> CacheEntry {
        CacheEntry {
            id: "abc123".to_owned(),
            parents: vec!["p1".to_owned(), "p2".to_owned()],
            description: "RUN make".to_owned(),
            kind: "regular".to_owned(),
            size_bytes: 10,
            shared_bytes: 0,
            reclaimable_bytes: 10,
            shared: false,
            mutable: false,
            in_use: false,
            created: Timestamp(5),
            last_used: Some(Timestamp(10)),
            usage_count: 1,
        }
    }

    fn passes(condition: CacheCondition) -> bool {
        CacheFilter { unused_since: None, conditions: vec![condition] }.matches(&entry())
    }

    #[test]
    fn patterns_are_contained_unless_anchored() {
        for (pattern, expected) in
            [("c1", true), ("^abc", true), ("^c1", false), ("23$", true), ("12$", false), ("^abc123$", true)]
        {
            let condition = CacheCondition::Text(CacheText::Id, TextTest::Like(pattern.to_owned()));
            assert_eq!(passes(condition), expected, "{pattern}");
        }
    }

    #[test]
    fn texts_and_truths_are_compared() {
        let is = |text, value: &str| passes(CacheCondition::Text(text, TextTest::Is(value.to_owned())));
        assert!(is(CacheText::Kind, "regular") && is(CacheText::Parents, "p1;p2"));
        assert!(!is(CacheText::Description, "RUN"));
        assert!(!passes(CacheCondition::Text(CacheText::Kind, TextTest::IsNot("regular".to_owned()))));
        assert!(passes(CacheCondition::Flag(CacheFlag::Shared, false)));
        assert!(!passes(CacheCondition::Flag(CacheFlag::Mutable, true)));
    }

    #[test]
    fn what_was_used_since_is_not_meant() {
        let meant = |time| {
            CacheFilter { unused_since: Some(Timestamp(time)), conditions: Vec::new() }.matches(&entry())
        };
        assert!(meant(10) && meant(11));
        assert!(!meant(9));
    }

    #[test]
    fn limits_say_how_much_may_stay() {
        let limits = |reserved_bytes, max_used_bytes, min_free_bytes| CacheLimits {
            reserved_bytes,
            max_used_bytes,
            min_free_bytes,
        };
        assert_eq!(CacheLimits::default().keep_bytes(100, 0), None);
        assert_eq!(limits(Some(40), None, None).keep_bytes(100, 0), Some(40));
        assert_eq!(limits(None, Some(60), None).keep_bytes(100, 0), Some(60));
        assert_eq!(limits(None, None, Some(30)).keep_bytes(100, 10), Some(80));
        assert_eq!(limits(None, None, Some(30)).keep_bytes(100, 50), Some(u64::MAX), "enough is free");
        assert_eq!(limits(Some(90), Some(60), Some(30)).keep_bytes(100, 10), Some(90));
    }
}
