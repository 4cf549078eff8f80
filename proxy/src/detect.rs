//! What a connection speaks, told by its first bytes.

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything else.
    Raw,
    /// More bytes are needed.
    Unsure,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods after which a blank settles it (RFC 9110, 5789, 4918).
const METHODS: [&[u8]; 15] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
];

/// Longest method of another name.
const MAX_METHOD: usize = 24;

/// Longest request line that is waited for, with a method that is not known.
pub const MAX_LINE: usize = 4096;

/// Judges the first bytes of a client. An unknown method needs the whole request line.
#[must_use]
pub fn judge(bytes: &[u8]) -> Verdict {
    if starts(bytes, PREFACE) {
        return if bytes.len() >= PREFACE.len() {
            Verdict::Http2
        } else {
            Verdict::Unsure
        };
    }
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Verdict::Http1;
    }
    let method = bytes.iter().take_while(|b| is_method(**b)).count();
    if method > MAX_METHOD || method == 0 && !bytes.is_empty() {
        return Verdict::Raw;
    }
    match bytes.get(method) {
        None => return Verdict::Unsure,
        Some(b' ') => {}
        Some(_) => return Verdict::Raw,
    }
    match bytes.iter().position(|b| *b == b'\n') {
        Some(end) if is_request_line(&bytes[..end]) => Verdict::Http1,
        None if bytes.len() < MAX_LINE && bytes.iter().all(|b| is_printable(*b)) => Verdict::Unsure,
        _ => Verdict::Raw,
    }
}

/// Whether one is the beginning of the other.
fn starts(bytes: &[u8], whole: &[u8]) -> bool {
    let common = bytes.len().min(whole.len());
    common > 0 && bytes[..common] == whole[..common]
}

fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

fn is_printable(byte: u8) -> bool {
    byte == b'\r' || (0x20..0x7f).contains(&byte)
}

fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_known_by_its_request_line_and_http2_by_its_preface() {
        for (bytes, verdict) in [
            (&b"GET / HTTP/1.1\r\n"[..], Verdict::Http1),
            (b"GET ", Verdict::Http1),
            (b"PATCH /x", Verdict::Http1),
            (b"REPORT /x HTTP/1.1\r\n", Verdict::Http1),
            (b"M-SEARCH * HTTP/1.0\n", Verdict::Http1),
            (b"REPORT /x SPDY/1.1\r\n", Verdict::Raw),
            (PREFACE, Verdict::Http2),
            (b"PRI * HTTP/1.1\r\n", Verdict::Http1),
            (b"EHLO mail.example\r\n", Verdict::Raw),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Raw),
            (b"\x16\x03\x01", Verdict::Raw),
            (b"get / HTTP/1.1\r\n", Verdict::Raw),
            (b"QUIT\r\n", Verdict::Raw),
            (b"USER \x01", Verdict::Raw),
        ] {
            assert_eq!(judge(bytes), verdict, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_beginning_of_http_is_unsure_and_never_raw() {
        for line in [
            &b"GET / HTTP/1.1\r\n"[..],
            PREFACE,
            b"REPORT /x HTTP/1.1\r\n",
        ] {
            for length in 0..line.len() {
                assert_ne!(judge(&line[..length]), Verdict::Raw, "{length}");
            }
        }
    }

    #[test]
    fn an_endless_first_line_of_an_unknown_method_is_raw_in_the_end() {
        let mut bytes = b"SUBSCRIBE ".to_vec();
        bytes.resize(MAX_LINE, b'a');
        assert_eq!(judge(&bytes), Verdict::Raw);
    }
}
