//! What the redirect leaves alone, as Istio's annotations say it.

use k8s_openapi::api::core::v1::Pod;

/// Whether an item of an annotation's list can be read.
type IsItem = fn(&str) -> bool;

/// Annotation, what it becomes for `sluice-proxy init`, and how its items look.
const ANNOTATIONS: [(&str, &str, IsItem); 3] = [
    (
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "SLUICE_EXCLUDE_INBOUND_PORTS",
        is_port,
    ),
    (
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "SLUICE_EXCLUDE_OUTBOUND_PORTS",
        is_port,
    ),
    (
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "SLUICE_EXCLUDE_OUTBOUND_RANGES",
        is_range,
    ),
];

/// What the redirect leaves alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Environment of `init`.
    pub env: Vec<(&'static str, String)>,
    /// Annotations that could not be read and were left out, each as a sentence.
    pub unread: Vec<String>,
}

impl Exclusions {
    /// What the pod's annotations say. One item that cannot be read leaves its annotation out:
    /// with it the pod could never start.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let mut exclusions = Self::default();
        let Some(annotations) = &pod.metadata.annotations else {
            return exclusions;
        };
        for (annotation, name, is_item) in ANNOTATIONS {
            let Some(text) = annotations.get(annotation) else {
                continue;
            };
            let items: Vec<_> = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .collect();
            match items.iter().find(|item| !is_item(item)) {
                Some(item) => exclusions.unread.push(format!(
                    "annotation {annotation} is left out: cannot read `{item}`"
                )),
                None if items.is_empty() => {}
                None => exclusions.env.push((name, items.join(","))),
            }
        }
        exclusions
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// An address with a prefix length.
fn is_range(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|length| length <= most)
}
