//! What a pod tells on its metrics port, read through the apiserver.

use std::time::Duration;

use anyhow::Context;
use kube::Client;

/// The longest that a page takes.
const ANSWER: Duration = Duration::from_secs(3);

/// A page of metrics in the text format.
pub struct Figures(String);

impl Figures {
    /// Asks a pod.
    pub async fn of(
        client: &Client,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> anyhow::Result<Self> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new())?;
        // A pod that does not run is asked again and again by the client itself.
        let page = tokio::time::timeout(ANSWER, client.request_text(request)).await;
        let page = page.with_context(|| format!("pod {pod} tells no metrics"))?;
        Ok(Self(page.with_context(|| format!("metrics of pod {pod}"))?))
    }

    /// The whole page.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The series of that name which have all these labels, each as it stands in the page.
    pub fn series<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a str> {
        let has = move |line: &&str| {
            let labelled = labels
                .iter()
                .all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")));
            let rest = line.strip_prefix(name);
            labelled && rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        self.0.lines().filter(has)
    }

    /// The sum of these series.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values = self
            .series(name, labels)
            .filter_map(|line| line.rsplit_once(' '));
        values
            .map(|(_, value)| value.parse::<f64>().unwrap_or_default())
            .sum()
    }
}
