//! Bytes as JSON strings, fast: a container may print as much as it likes.

/// What is written after a backslash for each byte; 0 for bytes that stand for themselves.
const ESCAPES: [u8; 256] = escapes();

const fn escapes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[0x08] = b'b';
    table[0x0c] = b'f';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends bytes as the inside of a JSON string. What is not UTF-8 becomes U+FFFD, as with docker.
pub(super) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        push_text(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Copies runs of bytes that need no escape whole.
fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
            out.extend_from_slice(&[b'0', b'0', digits[0], digits[1]]);
        }
        copied = at + 1;
    }
    out.extend_from_slice(&text[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_or_is_replaced() {
        let all: Vec<u8> = (0..=255).chain("ä€😀\u{2028}".bytes()).chain(0..=255).collect();
        let mut json = vec![b'"'];
        push(&mut json, &all);
        json.push(b'"');
        let back: String = serde_json::from_slice(&json).unwrap();
        assert_eq!(back, String::from_utf8_lossy(&all));
        assert_eq!(json, serde_json::to_vec(&back).unwrap());
    }
}
