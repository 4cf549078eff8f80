//! The root, its leafs and their renewal, as the ca role uses them.
#![allow(clippy::unwrap_used)]

use sluice_identity::{
    Authority, LEAF_LIFETIME, Names, Plan, PrivateKey, create_root, inspect_pem, plan_leaf,
    plan_root, spiffe_id,
};

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;

fn authority() -> Authority {
    let root = create_root("cluster.local", NOW).unwrap();
    Authority::load(&root.cert_pem, &root.key).unwrap()
}

fn names() -> Names {
    Names {
        dns: vec!["sluice-serving.sluice-system.svc".into()],
        spiffe_id: spiffe_id("cluster.local", "sluice-system", "sluice-serving"),
    }
}

#[test]
fn a_leaf_carries_its_names_and_its_roots_key_id() {
    let authority = authority();
    let leaf = authority.issue(&names(), NOW, LEAF_LIFETIME).unwrap();
    let facts = inspect_pem(&leaf.cert_pem).unwrap();
    assert_eq!(facts.dns, names().dns);
    assert_eq!(
        facts.spiffe_id.as_deref(),
        Some("spiffe://cluster.local/ns/sluice-system/sa/sluice-serving")
    );
    assert!(!facts.is_ca);
    assert!(facts.authority_key_id.is_some());
    assert_eq!(facts.authority_key_id, authority.facts().subject_key_id);
    assert_eq!(facts.not_after, NOW + LEAF_LIFETIME);
    assert!(facts.not_before < NOW, "clocks differ");
}

#[test]
fn two_leafs_differ_in_key_and_serial() {
    let authority = authority();
    let one = authority.issue(&names(), NOW, HOUR).unwrap();
    let two = authority.issue(&names(), NOW, HOUR).unwrap();
    let (one, two) = (
        inspect_pem(&one.cert_pem).unwrap(),
        inspect_pem(&two.cert_pem).unwrap(),
    );
    assert_ne!(one.public_key, two.public_key);
    assert_ne!(one.serial, two.serial);
}

#[test]
fn a_leaf_never_outlives_its_root() {
    let authority = authority();
    let end = authority.facts().not_after;
    let leaf = authority
        .issue(&names(), end - HOUR, LEAF_LIFETIME)
        .unwrap();
    assert_eq!(inspect_pem(&leaf.cert_pem).unwrap().not_after, end);
    assert!(authority.issue(&names(), end + 1, LEAF_LIFETIME).is_err());
}

#[test]
fn a_key_of_another_root_is_refused() {
    let one = create_root("cluster.local", NOW).unwrap();
    let two = create_root("cluster.local", NOW).unwrap();
    assert!(Authority::load(&one.cert_pem, &two.key).is_err());
    assert!(Authority::load("nonsense", &one.key).is_err());
    let leaf = authority().issue(&names(), NOW, HOUR).unwrap();
    assert!(
        Authority::load(&leaf.cert_pem, &leaf.key).is_err(),
        "a leaf is no root"
    );
    assert!(Authority::load(&one.cert_pem, &PrivateKey::from_pem("nonsense".into())).is_err());
}

#[test]
fn hostile_bytes_are_an_error_and_no_panic() {
    assert!(inspect_pem("").is_err());
    assert!(inspect_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    assert!(sluice_identity::inspect_der(&[0x30, 0x82, 0xff, 0xff]).is_err());
}

#[test]
fn an_absurd_clock_is_an_error_and_no_panic() {
    assert!(create_root("cluster.local", i64::MAX).is_err());
    assert!(create_root("cluster.local", i64::MIN).is_err());
    assert!(create_root("cluster.local", 0).is_ok());
}

#[test]
fn a_leaf_is_renewed_at_half_life_and_not_before() {
    let authority = authority();
    let leaf = authority.issue(&names(), NOW, 24 * HOUR).unwrap();
    let facts = inspect_pem(&leaf.cert_pem).unwrap();
    let plan = |now| plan_leaf(now, Some(&facts), authority.facts(), &names());
    let Plan::Keep { until } = plan(NOW) else {
        panic!("a new leaf is kept")
    };
    assert!((11 * HOUR..=12 * HOUR).contains(&(until - NOW)));
    assert_eq!(plan(until - 1), Plan::Keep { until });
    assert!(matches!(plan(until), Plan::Renew { .. }));
    assert!(
        matches!(plan(NOW - HOUR), Plan::Renew { .. }),
        "made in the future"
    );
}

#[test]
fn a_leaf_of_another_root_or_of_other_names_is_renewed_at_once() {
    let (old, new) = (authority(), authority());
    let leaf = inspect_pem(&old.issue(&names(), NOW, HOUR).unwrap().cert_pem).unwrap();
    assert!(matches!(
        plan_leaf(NOW, Some(&leaf), new.facts(), &names()),
        Plan::Renew { .. }
    ));
    let mut other = names();
    other
        .dns
        .push("sluice-serving.sluice-system.svc.cluster.local".into());
    assert!(matches!(
        plan_leaf(NOW, Some(&leaf), old.facts(), &other),
        Plan::Renew { .. }
    ));
    assert!(matches!(
        plan_leaf(NOW, None, old.facts(), &names()),
        Plan::Renew { .. }
    ));
}

#[test]
fn the_root_is_kept_for_its_whole_life() {
    let authority = authority();
    let end = authority.facts().not_after;
    assert_eq!(
        plan_root(NOW, Some(authority.facts())),
        Plan::Keep { until: end }
    );
    assert!(matches!(
        plan_root(end, Some(authority.facts())),
        Plan::Renew { .. }
    ));
    assert!(matches!(plan_root(NOW, None), Plan::Renew { .. }));
}
