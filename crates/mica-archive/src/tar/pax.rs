//! PAX extended headers: `"%d %s=%s\n"` records.

/// Prefix of the keyword of an extended attribute; the value is raw bytes.
pub(crate) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Records being collected for writing.
#[derive(Default)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(crate) fn add(&mut self, keyword: &[u8], value: &[u8]) {
        self.0.push((keyword.to_vec(), value.to_vec()));
    }

    /// Returns the records as bytes, sorted by keyword.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.sort();
        let mut out = Vec::new();
        for (keyword, value) in &self.0 {
            // The length counts its own digits: grow the guess until it holds.
            let rest = keyword.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            out.extend_from_slice(format!("{length} ").as_bytes());
            out.extend_from_slice(keyword);
            out.push(b'=');
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out
    }
}

/// Splits records; `None` where the bytes are malformed. A value may hold anything, newlines too.
pub(crate) fn records(mut bytes: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let record = take_record(&mut bytes);
        if record.is_none() {
            bytes = &[];
        }
        Some(record)
    })
}

fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let digits = bytes.iter().take(10).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..digits])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    *bytes = rest;
    let (keyword, value) = (&body[..equals], &body[equals + 1..]);
    (!keyword.is_empty() && !keyword.contains(&0)).then_some((keyword, value))
}

/// Reads an unsigned decimal number; nothing but digits.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads a PAX time: optional sign, seconds, optional fraction. Rounds down to nanoseconds.
pub(crate) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
    }
    if !negative {
        return Some((seconds, nanoseconds));
    }
    if nanoseconds == 0 {
        return Some((-seconds, 0));
    }
    Some(((-seconds).checked_sub(1)?, 1_000_000_000 - nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_counts_its_own_digits() {
        for length in 0..2000 {
            let mut written = Records::default();
            written.add(b"k", &vec![b'v'; length]);
            let bytes = written.finish();
            let parsed: Vec<_> = records(&bytes).map(Option::unwrap).collect();
            assert_eq!(parsed, [(&b"k"[..], &vec![b'v'; length][..])]);
        }
    }

    #[test]
    fn a_value_may_contain_newlines_and_equal_signs() {
        let mut written = Records::default();
        written.add(b"SCHILY.xattr.user.a", b"x\n12 path=evil\n\0");
        let bytes = written.finish();
        assert_eq!(records(&bytes).count(), 1);
        assert_eq!(records(&bytes).next().unwrap().unwrap().1, b"x\n12 path=evil\n\0");
    }

    #[test]
    fn malformed_records_end_the_list() {
        for bytes in
            [&b"5 a=b"[..], b"99 a=b\n", b"-6 a=b\n", b"6a=b\n", b"3 \n", b"5 ab\n", b"5 =b\n", b"0 a=b\n"]
        {
            assert_eq!(records(bytes).collect::<Vec<_>>(), [None], "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_round_down() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-12.5"), Some((-13, 500_000_000)));
        assert_eq!(time(b"-12"), Some((-12, 0)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        for bad in [&b""[..], b"nan", b"1e9", b"--1", b"1.-5", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }
}
