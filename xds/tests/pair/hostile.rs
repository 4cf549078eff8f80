//! Ends that do not keep to the protocol.

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use sluice_xds::{ClientSession, Kind, Limits, ProtocolError, ServerSession};

use crate::harness::Table;

fn subscribe(names: impl IntoIterator<Item = String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: Kind::Cluster.type_url(),
        resource_names_subscribe: names.into_iter().collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

#[test]
fn too_many_names_end_the_stream_and_unsubscribed_ones_do_not_count() {
    let mut server = ServerSession::new(Limits { names: 3 });
    let three = || (0..3).map(|n| n.to_string());
    server.handle_request(subscribe(three())).unwrap();
    server.handle_request(subscribe(three())).unwrap();
    let mut swap = subscribe(["3".to_owned()]);
    swap.resource_names_unsubscribe = vec!["0".to_owned(), "0".to_owned(), "?".to_owned()];
    server.handle_request(swap).unwrap();
    assert_eq!(
        server.handle_request(subscribe(["4".to_owned()])),
        Err(ProtocolError::TooManyNames(3))
    );
}

#[test]
fn a_wildcard_is_refused() {
    for names in [vec![], vec!["*".to_owned()]] {
        let mut server = ServerSession::new(Limits::default());
        assert_eq!(
            server.handle_request(subscribe(names)),
            Err(ProtocolError::Wildcard(Kind::Cluster))
        );
    }
}

#[test]
fn a_name_no_resource_can_have_is_refused() {
    let mut server = ServerSession::new(Limits::default());
    assert_eq!(
        server.handle_request(subscribe(["x".repeat(321)])),
        Err(ProtocolError::NameTooLong(321))
    );
}

#[test]
fn an_unknown_type_is_refused_by_both_ends() {
    let mut server = ServerSession::new(Limits::default());
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/nothing".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let error = server.handle_request(request).unwrap_err();
    assert!(matches!(error, ProtocolError::UnknownType(_)), "{error}");
    let mut client = ClientSession::new(Default::default());
    assert!(
        client
            .handle_response(DeltaDiscoveryResponse::default())
            .is_err()
    );
}

#[test]
fn a_nonce_that_was_never_sent_means_nothing() {
    let mut server = ServerSession::new(Limits::default());
    let mut request = subscribe(["a".to_owned()]);
    request.response_nonce = "17".to_owned();
    server.handle_request(request).unwrap();
    assert!(server.poll(&Table::default()).is_some());
}

#[test]
fn a_client_ignores_resources_it_did_not_ask_for() {
    let mut client = ClientSession::new(Default::default());
    let response = DeltaDiscoveryResponse {
        type_url: Kind::Cluster.type_url(),
        removed_resources: vec!["a".to_owned()],
        nonce: "1".to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    let update = client.handle_response(response).unwrap();
    assert!(update.events.is_empty());
}
