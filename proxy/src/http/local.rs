//! Answers made here, each with its reason.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{headers::REFUSED, response::ResponseBody};

/// Envoy's response flags, for those who debug.
const FLAGS: HeaderName = HeaderName::from_static("x-sluice-response-flags");

/// `grpc-status` UNAVAILABLE.
const GRPC_UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

/// Why there is no answer of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No route for the destination.
    NoRoute,
    /// No arm has endpoints.
    NoEndpoint,
    /// None of those tried could be reached.
    Unreachable,
    /// The connection broke before there was an answer.
    Broken,
}

impl Reason {
    /// Envoy's flag.
    pub const fn flags(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoEndpoint => "UH",
            Self::Unreachable => "UF",
            Self::Broken => "UC",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NoRoute => {
                "sluice: no route: the destination is no port of a Service that this proxy knows"
            }
            Self::NoEndpoint => "sluice: no endpoint of the destination is ready",
            Self::Unreachable => "sluice: no endpoint of the destination could be reached",
            Self::Broken => "sluice: the connection to the endpoint broke before it answered",
        }
    }
}

/// 503 with the reason; for gRPC as a gRPC status.
pub fn unavailable(reason: Reason, grpc: bool) -> Response<ResponseBody> {
    if grpc {
        let mut response = Response::new(ResponseBody::empty());
        let message = HeaderValue::from_static(reason.text());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert("grpc-status", GRPC_UNAVAILABLE);
        headers.insert("grpc-message", message);
        return signed(response, reason.flags());
    }
    signed(
        text(StatusCode::SERVICE_UNAVAILABLE, reason.text()),
        reason.flags(),
    )
}

/// The application behind this proxy cannot be reached, nothing was handed to it.
pub fn refused() -> Response<ResponseBody> {
    let mut response = unavailable(Reason::Unreachable, false);
    response
        .headers_mut()
        .insert(REFUSED, HeaderValue::from_static("1"));
    response
}

/// 400 with what is wrong.
pub fn bad_request(why: &'static str) -> Response<ResponseBody> {
    signed(text(StatusCode::BAD_REQUEST, why), "DPE")
}

fn text(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Local(Some(text.into())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn signed(mut response: Response<ResponseBody>, flags: &'static str) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("sluice"));
    headers.insert(FLAGS, HeaderValue::from_static(flags));
    response
}
