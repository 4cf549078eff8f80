//! What a pod tells on its metrics port, read through the apiserver.

use anyhow::Context;
use kube::Client;

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
        let page = client.request_text(request).await;
        Ok(Self(page.with_context(|| format!("metrics of pod {pod}"))?))
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
