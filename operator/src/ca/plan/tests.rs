#![allow(clippy::unwrap_used)]

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, WebhookClientConfig};

use super::*;

const NOW: Seconds = 1_800_000_000;
const DAY: Seconds = 86_400;

fn config() -> Config {
    Config {
        namespace: "sluice-system".into(),
        trust_domain: "cluster.local".into(),
        leaf_lifetime: DAY,
    }
}

/// A cluster in which every write succeeds.
fn carry_out(seen: &mut Seen, plan: Plan) {
    for write in plan.writes.into_iter().chain(plan.elsewhere) {
        match write {
            Write::Create(secret) | Write::Replace(secret) => {
                let name = secret.name_any();
                let secret = Some(Arc::new(*secret));
                match seen
                    .leafs
                    .iter_mut()
                    .find(|(role, _)| secret_of(role) == name)
                {
                    Some((_, leaf)) => *leaf = secret,
                    None => seen.root = secret,
                }
            }
            Write::RootTo(namespace, map) => {
                let pem = map["data"]["ca.crt"].as_str().unwrap().to_owned();
                seen.roots.insert(namespace, pem);
            }
            Write::BundleTo(name, patch) => {
                let hook = seen
                    .webhooks
                    .iter_mut()
                    .find(|hook| hook.name_any() == name)
                    .unwrap();
                for (index, one) in Arc::make_mut(hook)
                    .webhooks
                    .as_mut()
                    .unwrap()
                    .iter_mut()
                    .enumerate()
                {
                    let bundle = &patch["webhooks"][index];
                    assert_eq!(bundle["name"], one.name);
                    one.client_config.ca_bundle =
                        serde_json::from_value(bundle["clientConfig"]["caBundle"].clone()).unwrap();
                }
            }
        }
    }
}

fn empty() -> Seen {
    let hook = MutatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some("sluice-hold".into()),
            ..ObjectMeta::default()
        },
        webhooks: Some(vec![MutatingWebhook {
            name: "hold.sluice.dev".into(),
            client_config: WebhookClientConfig::default(),
            ..MutatingWebhook::default()
        }]),
    };
    Seen {
        leafs: super::super::ROLES.map(|role| (role, None)).to_vec(),
        namespaces: ["bookinfo".to_owned()].into(),
        webhooks: vec![Arc::new(hook)],
        ..Seen::default()
    }
}

fn settled() -> Seen {
    let mut seen = empty();
    for _ in 0..2 {
        let writes = plan(NOW, &config(), &seen).unwrap();
        carry_out(&mut seen, writes);
    }
    seen
}

#[test]
fn the_root_comes_first_and_alone_so_that_only_one_replicas_root_signs() {
    let plan = plan(NOW, &config(), &empty()).unwrap();
    assert_eq!(plan.writes.len(), 1);
    assert!(matches!(&plan.writes[0], Write::Create(secret) if secret.name_any() == ROOT_SECRET));
}

#[test]
fn two_rounds_bring_everything_about_and_the_third_writes_nothing() {
    let seen = settled();
    let idle = plan(NOW, &config(), &seen).unwrap();
    assert!(idle.writes.is_empty() && idle.elsewhere.is_empty());
    assert!(idle.next > NOW + 11 * 3600 && idle.next <= NOW + 12 * 3600);
    let root = text(seen.root.as_deref().unwrap(), "tls.crt").unwrap();
    assert_eq!(seen.roots["bookinfo"], root);
    assert_eq!(seen.roots["sluice-system"], root);
    let leaf = text(seen.leafs[0].1.as_deref().unwrap(), "tls.crt").unwrap();
    let leaf = inspect_pem(&leaf).unwrap();
    assert_eq!(leaf.dns[0], "sluice-serving.sluice-system.svc");
    assert_eq!(
        leaf.spiffe_id.unwrap(),
        "spiffe://cluster.local/ns/sluice-system/sa/sluice-serving"
    );
}

#[test]
fn what_is_made_is_what_tls_takes() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let seen = settled();
    let certs = crate::tls::Certs::from_secret(seen.leafs[1].1.as_deref().unwrap()).unwrap();
    assert_eq!(
        certs.spiffe_id(),
        "spiffe://cluster.local/ns/sluice-system/sa/sluice-controller"
    );
}

#[test]
fn a_leaf_is_replaced_in_the_version_read_at_half_life() {
    let mut seen = settled();
    let (_, leaf) = &mut seen.leafs[0];
    Arc::make_mut(leaf.as_mut().unwrap())
        .metadata
        .resource_version = Some("7".into());
    let later = plan(NOW + DAY / 2, &config(), &seen).unwrap();
    assert_eq!(later.writes.len(), 2);
    let Write::Replace(secret) = &later.writes[0] else {
        panic!("must be replaced")
    };
    assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"));
}

#[test]
fn a_namespace_that_joins_and_a_bundle_that_was_overwritten_are_mended() {
    let mut seen = settled();
    seen.namespaces.insert("shop".into());
    seen.roots
        .insert("bookinfo".into(), "something else".into());
    let hook = Arc::make_mut(&mut seen.webhooks[0]);
    hook.webhooks.as_mut().unwrap()[0].client_config.ca_bundle = None;
    let plan = plan(NOW, &config(), &seen).unwrap();
    let targets: Vec<_> = plan
        .writes
        .iter()
        .chain(&plan.elsewhere)
        .map(|write| match write {
            Write::RootTo(name, _) | Write::BundleTo(name, _) => name.as_str(),
            Write::Create(_) | Write::Replace(_) => panic!("no Secret is written"),
        })
        .collect();
    assert_eq!(targets, ["sluice-hold", "bookinfo", "shop"]);
}

#[test]
fn a_root_that_cannot_be_read_is_reported_and_never_replaced() {
    let mut seen = settled();
    let root = Arc::make_mut(seen.root.as_mut().unwrap());
    root.data
        .as_mut()
        .unwrap()
        .insert("tls.key".into(), ByteString(b"garbage".to_vec()));
    assert!(plan(NOW, &config(), &seen).is_err());
    let root = Arc::make_mut(seen.root.as_mut().unwrap());
    root.data.as_mut().unwrap().remove("tls.crt");
    assert!(plan(NOW, &config(), &seen).is_err());
}

#[test]
fn another_root_makes_all_leafs_and_bundles_new() {
    let mut seen = settled();
    let other = settled();
    seen.root = other.root;
    let plan = plan(NOW, &config(), &seen).unwrap();
    assert_eq!(
        plan.writes.len(),
        4,
        "two leafs, our namespace, one webhook"
    );
    assert_eq!(plan.elsewhere.len(), 1);
}
