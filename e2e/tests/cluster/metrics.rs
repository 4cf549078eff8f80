//! Istio's metrics under Istio's names, as its dashboards look for them.

use kube::ResourceExt;

use crate::{
    demo::{self, NAMESPACE, Traffic},
    figures::Figures,
    node,
    place::{is, is_going, pods},
};

/// What every request is told by: istio.io/latest/docs/reference/config/metrics.
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
    "request_protocol",
    "response_code",
    "response_flags",
    "grpc_response_status",
    "connection_security_policy",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_counts_requests_as_istio_does_at_both_ends() {
    let client = node::client().await;
    demo::settled(&client).await;
    Traffic::start(100).await.end().await;
    let frontends = pods(&client, NAMESPACE, "app=frontend").await.unwrap();
    let frontends: Vec<_> = frontends
        .iter()
        .filter(|pod| is(pod, "Ready") && !is_going(pod))
        .collect();
    assert!(!frontends.is_empty());
    for pod in frontends {
        let figures = Figures::of(&client, NAMESPACE, &pod.name_any(), 15020)
            .await
            .unwrap();
        let taken = [
            ("reporter", "destination"),
            ("destination_workload", "frontend"),
        ];
        let passed_on = [
            ("reporter", "source"),
            ("source_workload", "frontend"),
            ("destination_workload", "backend"),
            ("destination_service", "backend.demo.svc.cluster.local"),
            ("destination_service_name", "backend"),
        ];
        for labels in [taken.as_slice(), passed_on.as_slice()] {
            let series: Vec<&str> = figures.series("istio_requests_total", labels).collect();
            assert!(!series.is_empty(), "{} has no {labels:?}", pod.name_any());
            for line in series {
                let missing: Vec<_> = LABELS
                    .iter()
                    .filter(|label| !line.contains(&format!("{label}=\"")))
                    .collect();
                assert!(missing.is_empty(), "{line} lacks {missing:?}");
            }
            assert!(figures.sum("istio_requests_total", labels) > 0.0);
            let timed = figures.sum("istio_request_duration_milliseconds_count", labels);
            assert!(timed > 0.0, "durations of {labels:?}");
        }
    }
}
