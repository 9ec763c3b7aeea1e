//! Ranges of bytes as clients write them: `Range` of a download, `Content-Range` of an upload.
//!
//! Foreign text: nothing here panics, and no number is used before it was compared with a length.

/// What a `Range` header asks of something with a known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranged {
    /// Everything: no range, several, or one of another unit (RFC 9110 lets a server ignore those).
    Whole,
    /// These bytes; `length` is not 0.
    Part { start: u64, length: u64 },
    /// Nothing that exists.
    Unsatisfiable,
}

/// Reads a `Range` header.
pub(crate) fn requested(header: &str, total: u64) -> Ranged {
    let Some(set) = header.trim().strip_prefix("bytes=") else { return Ranged::Whole };
    if set.contains(',') {
        return Ranged::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Ranged::Unsatisfiable };
    let (first, last) = (first.trim(), last.trim());
    match (first.is_empty(), last.is_empty()) {
        (true, true) => Ranged::Unsatisfiable,
        (true, false) => match number(last) {
            Some(suffix) if suffix > 0 && total > 0 => {
                let length = suffix.min(total);
                Ranged::Part { start: total - length, length }
            }
            _ => Ranged::Unsatisfiable,
        },
        (false, _) => {
            let end = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), end) {
                (Some(start), Some(end)) if start <= end && start < total => {
                    Ranged::Part { start, length: end.min(total - 1) - start + 1 }
                }
                _ => Ranged::Unsatisfiable,
            }
        }
    }
}

/// Where a chunk of an upload belongs: first byte, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

/// Reads the `Content-Range` of a chunk: `<first>-<last>`, as the distribution specification writes it; `bytes ` before
/// and `/<total>` after it are accepted, because some clients follow RFC 9110.
pub(crate) fn chunk(header: &str) -> Option<Chunk> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (start, last) = (number(first)?, number(last)?);
    let length = last.checked_sub(start)?.checked_add(1)?;
    Some(Chunk { start, length })
}

/// Digits only: `u64::from_str` would take a sign. What does not fit a file offset is no number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits.then(|| text.parse().ok())??;
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_mean_what_rfc_9110_says() {
        let part = |start, length| Ranged::Part { start, length };
        for (header, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=500-1499", part(500, 1000)),
            ("bytes=500-", part(500, 1500)),
            ("bytes=-500", part(1500, 500)),
            ("bytes=-5000", part(0, 2000)),
            ("bytes=1000-5000", part(1000, 1000)),
            ("bytes=500-0", Ranged::Unsatisfiable),
            ("bytes=2000-", Ranged::Unsatisfiable),
            ("bytes=-0", Ranged::Unsatisfiable),
            ("bytes=-", Ranged::Unsatisfiable),
            ("bytes=x", Ranged::Unsatisfiable),
            ("bytes=0-1,5-6", Ranged::Whole),
            ("lines=0-1", Ranged::Whole),
        ] {
            assert_eq!(requested(header, 2000), expected, "{header}");
        }
        assert_eq!(requested("bytes=0-", 0), Ranged::Unsatisfiable);
        assert_eq!(requested("bytes=-1", 0), Ranged::Unsatisfiable);
    }

    #[test]
    fn chunks_are_numbers_and_nothing_else() {
        assert_eq!(chunk("0-9"), Some(Chunk { start: 0, length: 10 }));
        assert_eq!(chunk("bytes 5-9/*"), Some(Chunk { start: 5, length: 5 }));
        for text in
            ["", "-", "5-4", "+1-2", "a-b", "0-9223372036854775808", "0-18446744073709551615", "1", "0-1-2"]
        {
            assert_eq!(chunk(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_range_leaves_the_blob(header in "(bytes=)?[0-9,\\- ]{0,24}", total in 0_u64..5000) {
            if let Ranged::Part { start, length } = requested(&header, total) {
                prop_assert!(length > 0 && start + length <= total);
            }
        }

        #[test]
        fn any_text_is_an_answer(header in "\\PC{0,40}", total: u64) {
            let _answer = (requested(&header, total), chunk(&header));
        }
    }
}
