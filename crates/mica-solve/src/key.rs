//! Cache keys: blake3 over length-prefixed fields, so that no two lists of fields collide by concatenation.

use std::fmt;

use serde::Serialize;

/// Identity of a result. Internal to mica: never leaves the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Wraps the bytes of a stored key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lower-case hex; safe as a file name.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", &self.hex()[..16])
    }
}

/// Version of everything that is hashed: raise it when a meaning changes, and old records are never hit again.
const VERSION: u64 = 1;

/// Builds a key field by field.
#[derive(Debug, Clone)]
pub struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// Starts a key of a kind; keys of different kinds never meet.
    pub fn new(kind: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.number(VERSION);
        hasher.text(kind);
        hasher
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Adds another key.
    pub fn key(&mut self, key: &CacheKey) {
        self.0.update(&key.0);
    }

    /// Adds a value by its JSON.
    pub fn json(&mut self, value: &impl Serialize) {
        let text = serde_json::to_vec(value).expect("operations have only string keys");
        self.bytes(&text);
    }

    /// Ends the key.
    pub fn finish(self) -> CacheKey {
        CacheKey(*self.0.finalize().as_bytes())
    }
}
