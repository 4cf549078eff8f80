//! Least privilege: each account may do what it was seen to do in all of these tests, and no
//! more. Runs when the others have.

use std::path::Path;

use sluice_e2e::{faults::clusters, files, helm, rights};

#[test]
fn the_accounts_may_do_what_they_were_seen_to_do_and_no_more() {
    let rendered = helm::render(&[]).unwrap();
    let granted = rights::granted(&helm::parse(&rendered));
    let logs: Vec<String> = clusters::all()
        .iter()
        .flat_map(|path| audit_logs(path))
        .collect();
    let asked = logs
        .iter()
        .flat_map(|log| log.lines())
        .flat_map(rights::asked);
    let findings = rights::compare(&granted, asked);
    assert!(
        findings.unused.is_empty(),
        "nothing that the tests make happen needs this: take it from the chart, or add a test of what needs it\n{:#?}",
        findings.unused
    );
    assert!(
        findings.refused.is_empty(),
        "refused since the clusters came up (`cargo xtask cluster down --name test-faults-1` and so on begins anew)\n{:#?}",
        findings.refused
    );
}

/// What the apiserver of a cluster has noted of its requests.
fn audit_logs(kubeconfig: &Path) -> Vec<String> {
    let logs = files::below(&kubeconfig.with_file_name("logs"), "log");
    let is_audit = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("audit"))
    };
    let audits = logs.iter().filter(|path| is_audit(path));
    audits
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}
