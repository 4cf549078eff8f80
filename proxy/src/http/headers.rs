//! Which headers belong to one hop and are not passed on (RFC 9110, 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
};

/// The far proxy says with it that it could not hand the request to its application, so that it
/// may be sent elsewhere. Never passed on to a client.
pub const REFUSED: HeaderName = HeaderName::from_static("x-sluice-refused");

/// Id of a request over all its hops.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Addresses of the clients, nearest last.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is always of one hop.
const HOP: [HeaderName; 6] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a Connection header cannot take away: framing, target, and what is no hop's.
const PINNED: [HeaderName; 4] = [HOST, CONTENT_LENGTH, PROXY_AUTHENTICATE, REQUEST_ID];

/// Removes what belongs to this hop. `TE: trailers` is said again, and so is the upgrade that
/// the caller takes part in.
pub fn strip_hop(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let trailers = lists(headers, &TE, "trailers");
    let listed: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !PINNED.contains(name))
        .collect();
    for name in listed.iter().chain(&HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// The protocol that the message asks, or agrees, to change to.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = lists(headers, &CONNECTION, "upgrade");
    headers.get(UPGRADE).filter(|_| wanted).cloned()
}

/// Whether the message is gRPC. Not so gRPC-Web, which has its status in the body.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The gRPC status in headers or trailers.
pub fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Adds the peer behind the addresses that are there.
pub fn append_forwarded(headers: &mut HeaderMap, peer: std::net::IpAddr) {
    let before: Vec<_> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let value = match before.is_empty() {
        true => peer.to_string(),
        false => format!("{}, {peer}", before.join(", ")),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| {
        t.split(';')
            .next()
            .unwrap_or(t)
            .trim()
            .eq_ignore_ascii_case(token)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    fn stripped(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = headers(pairs);
        strip_hop(&mut headers, None);
        headers
    }

    #[test]
    fn what_connection_lists_stays_behind_but_never_host_or_length() {
        let left = stripped(&[
            ("connection", "close, X-Private, host"),
            ("connection", "content-length,, bad name"),
            ("x-private", "1"),
            ("x-public", "2"),
            ("host", "cart"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ]);
        let expected = headers(&[("x-public", "2"), ("host", "cart"), ("content-length", "3")]);
        assert_eq!(left, expected);
    }

    #[test]
    fn of_te_only_trailers_is_passed_on() {
        assert!(stripped(&[("te", "gzip;q=0.5")]).is_empty());
        let left = stripped(&[("te", "gzip, trailers;q=1"), ("connection", "te")]);
        assert_eq!(left, headers(&[("te", "trailers")]));
    }

    #[test]
    fn an_upgrade_counts_only_when_connection_lists_it() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(upgrade(&asked).unwrap(), "websocket");
        assert_eq!(upgrade(&headers(&[("upgrade", "websocket")])), None);
        assert_eq!(upgrade(&headers(&[("connection", "upgrade")])), None);
    }

    #[test]
    fn the_peer_is_appended_to_the_addresses_before_it() {
        let mut chain = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
        ]);
        append_forwarded(&mut chain, [3, 3, 3, 3].into());
        let values: Vec<_> = chain.get_all(FORWARDED_FOR).iter().collect();
        assert_eq!(values, ["1.1.1.1, 2.2.2.2, 3.3.3.3"]);
    }
}
