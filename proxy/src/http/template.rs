//! The head of a request, from which each attempt gets its own.

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    body::RequestBody,
    headers::{REQUEST_ID, strip_hop, upgrade},
};
use crate::{coin::Coin, upstream::Protocol};

/// What is sent to an endpoint, whatever protocol it speaks.
#[derive(Debug)]
pub struct Template {
    method: Method,
    authority: Option<Authority>,
    path: PathAndQuery,
    headers: HeaderMap,
    upgrades: bool,
}

impl Template {
    /// Takes the head of a client's request: hop-by-hop headers go, the target becomes one
    /// authority and one path, a request id is made where there is none.
    ///
    /// # Errors
    /// What is wrong with the request, for the client.
    pub fn new(mut parts: Parts, coin: &Coin) -> Result<Self, &'static str> {
        let mut hosts = parts.headers.get_all(HOST).iter();
        let host = hosts.next().map(HeaderValue::as_bytes);
        if hosts.next().is_some() {
            return Err("more than one Host header");
        }
        let authority = match (parts.uri.authority(), host) {
            // Absolute form, and HTTP/2: the Host header has no say (RFC 9112, 3.2.2).
            (Some(authority), _) => Some(authority.clone()),
            (None, Some(b"")) => None,
            (None, Some(host)) => {
                Some(Authority::try_from(host).map_err(|_| "a Host header that is no host")?)
            }
            (None, None) if parts.version == Version::HTTP_11 => return Err("no Host header"),
            (None, None) => None,
        };
        let protocol = upgrade(&parts.headers).filter(|_| parts.version == Version::HTTP_11);
        let upgrades = protocol.is_some() || parts.method == Method::CONNECT;
        strip_hop(&mut parts.headers, protocol);
        if !parts.headers.contains_key(REQUEST_ID)
            && let Ok(id) = HeaderValue::from_str(&coin.request_id())
        {
            parts.headers.insert(REQUEST_ID, id);
        }
        let path = parts.uri.path_and_query().cloned();
        Ok(Self {
            method: parts.method,
            authority,
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: parts.headers,
            upgrades,
        })
    }

    /// Headers that every attempt has.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Whether the connection may become another protocol's.
    pub fn upgrades(&self) -> bool {
        self.upgrades
    }

    /// Whether an answer of this status makes it so.
    pub fn is_agreed(&self, status: StatusCode) -> bool {
        let connected = self.method == Method::CONNECT && status.is_success();
        self.upgrades && (connected || status == StatusCode::SWITCHING_PROTOCOLS)
    }

    /// Whether sending it twice does no more than sending it once (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.method.is_idempotent() && !self.upgrades
    }

    /// One attempt.
    pub fn request(&self, protocol: Protocol, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        match protocol {
            Protocol::Http1 => {
                *request.uri_mut() = self.origin_form();
                if let Some(authority) = &self.authority
                    && let Ok(host) = HeaderValue::from_str(authority.as_str())
                {
                    request.headers_mut().insert(HOST, host);
                }
            }
            Protocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = self.absolute_form();
                request.headers_mut().remove(HOST);
            }
        }
        request
    }

    fn origin_form(&self) -> Uri {
        if self.method == Method::CONNECT
            && let Some(authority) = &self.authority
        {
            return Uri::from(authority.clone());
        }
        Uri::from(self.path.clone())
    }

    fn absolute_form(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        let nobody = || Authority::from_static("localhost");
        parts.authority = Some(self.authority.clone().unwrap_or_else(nobody));
        parts.path_and_query = Some(self.path.clone());
        Uri::from_parts(parts).unwrap_or_else(|_| self.origin_form())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::body::Source;

    fn template(request: http::request::Builder) -> Result<Template, &'static str> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Template::new(parts, &Coin::seeded(1))
    }

    fn sent(template: &Template, protocol: Protocol) -> Request<RequestBody> {
        template.request(protocol, Source::default().attempt())
    }

    #[test]
    fn the_target_is_said_in_the_form_of_the_protocol() {
        let absolute = Request::get("http://cart:80/x?y=1").header("host", "other");
        let template = template(absolute).unwrap();
        let http1 = sent(&template, Protocol::Http1);
        assert_eq!(http1.uri(), "/x?y=1");
        assert_eq!(http1.headers()["host"], "cart:80");
        let http2 = sent(&template, Protocol::Http2);
        assert_eq!(http2.uri(), "http://cart:80/x?y=1");
        assert!(!http2.headers().contains_key("host"));
    }

    #[test]
    fn a_request_without_one_clear_host_is_refused() {
        assert_eq!(template(Request::get("/")).unwrap_err(), "no Host header");
        let two = Request::get("/").header("host", "a").header("host", "b");
        assert_eq!(template(two).unwrap_err(), "more than one Host header");
        assert!(template(Request::get("/").header("host", "a b")).is_err());
        let old = Request::get("/").version(Version::HTTP_10);
        assert!(template(old).is_ok(), "HTTP/1.0 needs none");
    }

    #[test]
    fn a_request_id_is_made_only_where_there_is_none() {
        let made = template(Request::get("/").header("host", "a")).unwrap();
        assert_eq!(made.headers[REQUEST_ID].len(), 36);
        let given = Request::get("/")
            .header("host", "a")
            .header(REQUEST_ID, "7");
        assert_eq!(template(given).unwrap().headers[REQUEST_ID], "7");
    }

    #[test]
    fn an_asterisk_and_an_authority_stay_what_they_are() {
        let options = Request::options("*").header("host", "a");
        assert_eq!(
            sent(&template(options).unwrap(), Protocol::Http1).uri(),
            "*"
        );
        let connect = Request::connect("db:5432").header("host", "db:5432");
        let connect = template(connect).unwrap();
        assert!(connect.upgrades());
        assert_eq!(sent(&connect, Protocol::Http1).uri(), "db:5432");
    }
}
