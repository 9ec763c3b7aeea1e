//! `--filter` of `builder prune` and `buildx du`.

use mica_api::{CacheCondition, CacheFilter, CacheFlag, CacheText, Class, Error, TextTest, Timestamp};

use super::filter::Filter;
use super::moment;

const KINDS: [&str; 6] =
    ["regular", "source.local", "source.git.checkout", "exec.cachemount", "frontend", "internal"];
/// What would mean more in a regular expression than it means here.
const SPECIAL: [char; 11] = ['*', '+', '?', '[', ']', '(', ')', '{', '}', '|', '\\'];

/// Reads all filters of a command line.
///
/// # Errors
/// A filter that is not known, given twice, or has a value that makes no sense; in buildx's words where it has some.
pub(crate) fn parse(
    filters: &[Filter],
    now: Timestamp,
    zone: &jiff::tz::TimeZone,
) -> Result<CacheFilter, Error> {
    let mut parsed = CacheFilter::default();
    let mut age: Option<&str> = None;
    for (position, filter) in filters.iter().enumerate() {
        let name = filter.name.as_str();
        if filters[..position].iter().any(|earlier| earlier.name == filter.name) {
            return Err(Error::new(Class::Invalid, "filters expect only one value")
                .why(format!("{name} is given twice")));
        }
        if !matches!(name, "until" | "unused-for" | "last-used") {
            parsed.conditions.push(condition(filter)?);
            continue;
        }
        if let Some(earlier) = age.replace(name) {
            return Err(Error::new(Class::Invalid, format!("conflicting filters {earlier:?} and {name:?}")));
        }
        let at = moment::parse(&filter.value, now, zone).ok_or_else(|| {
            Error::new(Class::Invalid, format!("{name:?} filter expects a duration (e.g., '24h')"))
                .why(format!("invalid duration {:?}", filter.value))
        })?;
        parsed.unused_since = Some(at);
    }
    Ok(parsed)
}

fn condition(filter: &Filter) -> Result<CacheCondition, Error> {
    let flag = |flag, wanted: bool| Ok(CacheCondition::Flag(flag, filter.truth()? == wanted));
    match filter.name.as_str() {
        "inuse" => return flag(CacheFlag::InUse, true),
        "mutable" => return flag(CacheFlag::Mutable, true),
        "immutable" => return flag(CacheFlag::Mutable, false),
        "shared" => return flag(CacheFlag::Shared, true),
        "private" => return flag(CacheFlag::Shared, false),
        _ => {}
    }
    let (name, operator) = match filter.name.strip_suffix(['~', '!']) {
        Some(name) => (name, &filter.name[name.len()..]),
        None => (filter.name.as_str(), ""),
    };
    let text = match name {
        "id" => CacheText::Id,
        "parents" | "parent" => CacheText::Parents,
        "description" => CacheText::Description,
        "type" => CacheText::Kind,
        _ => return Err(filter.unknown()),
    };
    let value = filter.value.clone();
    let test = match operator {
        "!" => TextTest::IsNot(value),
        // buildx asks for identities by a part of them.
        "" if text != CacheText::Id => TextTest::Is(value),
        _ => TextTest::Like(like(filter)?),
    };
    match &test {
        TextTest::Is(kind) | TextTest::IsNot(kind)
            if text == CacheText::Kind && !KINDS.contains(&kind.as_str()) =>
        {
            Err(filter.invalid(format!("types are {}", KINDS.join(", "))))
        }
        _ => Ok(CacheCondition::Text(text, test)),
    }
}

/// A pattern, refused if it is more of a regular expression than we understand.
fn like(filter: &Filter) -> Result<String, Error> {
    match filter.value.contains(SPECIAL) {
        true => Err(filter.invalid("a part of the text is expected; only ^ and $ are special")),
        false => Ok(filter.value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn read(filters: &[&str]) -> Result<CacheFilter, String> {
        let filters: Vec<Filter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        parse(&filters, NOW, &jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())
    }

    fn one(filter: &str) -> CacheCondition {
        read(&[filter]).unwrap().conditions.remove(0)
    }

    #[test]
    fn texts_are_compared_as_buildx_compares_them() {
        let is = |text, value: &str| CacheCondition::Text(text, TextTest::Is(value.to_owned()));
        let like = |text, value: &str| CacheCondition::Text(text, TextTest::Like(value.to_owned()));
        assert_eq!(one("type=exec.cachemount"), is(CacheText::Kind, "exec.cachemount"));
        assert_eq!(one("description=RUN x"), is(CacheText::Description, "RUN x"));
        assert_eq!(one("description~=^RUN"), like(CacheText::Description, "^RUN"));
        assert_eq!(one("id=abc"), like(CacheText::Id, "abc"));
        assert_eq!(one("id~=abc"), like(CacheText::Id, "abc"));
        assert_eq!(
            one("type!=regular"),
            CacheCondition::Text(CacheText::Kind, TextTest::IsNot("regular".to_owned()))
        );
    }

    #[test]
    fn truths_have_opposites() {
        assert_eq!(one("mutable=true"), CacheCondition::Flag(CacheFlag::Mutable, true));
        assert_eq!(one("immutable=1"), CacheCondition::Flag(CacheFlag::Mutable, false));
        assert_eq!(one("private=true"), CacheCondition::Flag(CacheFlag::Shared, false));
        assert_eq!(one("shared=false"), CacheCondition::Flag(CacheFlag::Shared, false));
        assert_eq!(one("inuse=true"), CacheCondition::Flag(CacheFlag::InUse, true));
    }

    #[test]
    fn ages_count_back_from_now() {
        for name in ["until", "unused-for", "last-used"] {
            let filter = read(&[&format!("{name}=24h")]).unwrap();
            assert_eq!(filter.unused_since, Some(Timestamp(NOW.0 - 86_400_000_000_000)), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (filters, message) in [
            (&["until=24x"][..], "\"until\" filter expects a duration (e.g., '24h')"),
            (&["until=24h", "unused-for=3h"], "conflicting filters \"until\" and \"unused-for\""),
            (&["type=regular", "type=internal"], "filters expect only one value"),
            (&["type=layer"], "invalid filter 'type=layer'"),
            (&["color=red"], "invalid filter 'color'"),
            (&["mutable=perhaps"], "invalid filter 'mutable=perhaps'"),
            (&["description~=RUN.*"], "invalid filter 'description~=RUN.*'"),
        ] {
            let refused = read(filters).unwrap_err();
            assert!(refused.starts_with(message), "{refused}");
        }
    }
}
