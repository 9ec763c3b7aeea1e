//! JSON as only one reader can understand it (security.md row 21): no object has a key twice, at any depth.
//!
//! Readers differ in whether the first or the last of two equal keys counts, so a document with both could be one image
//! for who checks it and another for who runs it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads JSON; a key that is there twice is an error, deep nesting too (`serde_json`'s limit of 128).
///
/// # Errors
/// Those of `serde_json`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Unambiguous.deserialize(&mut reader)?;
    serde_json::from_slice(bytes)
}

/// Walks a value and keeps nothing of it.
struct Unambiguous;

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys: HashSet<String> = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(Self)?;
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            keys.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            let error = from_slice::<Value>(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("the key \"a\" is there twice"), "{error}");
        }
        assert!(from_slice::<Value>(br#"{"a":{"a":[1,null,1.5,true,"a"]},"A":-1}"#).is_ok());
    }

    #[test]
    fn depth_is_limited() {
        let text = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(from_slice::<Value>(text.as_bytes()).is_err());
    }
}
