//! All that is made of one Service, as it goes over the wire.

use sluice_xds::Kind;

use crate::{
    CANDIDATE, ROUTE,
    fixtures::service,
    look::{self, render},
    split_cart,
};

#[test]
fn one_service_under_a_split() {
    let mut world = split_cart(10);
    let ports = service("cart").vip("10.96.0.1").port("http", 80);
    world.apply_service(
        &ports
            .port("web", 81)
            .port("grpc", 82)
            .port("tcp-db", 83)
            .build(),
    );
    let names = [
        (Kind::Listener, "outbound/10.96.0.1:80"),
        (Kind::Listener, "outbound/10.96.0.1:81"),
        (Kind::Listener, "outbound/10.96.0.1:83"),
        (Kind::Route, ROUTE),
        (Kind::Cluster, CANDIDATE),
        (Kind::Cluster, "outbound|82||cart.shop.svc.cluster.local"),
        (Kind::Endpoints, CANDIDATE),
    ];
    let rendered = names.map(|(kind, name)| {
        let resource = look::get(&world, kind, name).unwrap();
        format!("# {kind} {name}\n{}\n", render(kind, &resource))
    });
    insta::assert_snapshot!(rendered.join("\n"));
}
