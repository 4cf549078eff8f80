//! Nothing that the operator writes shows a key, a token, or a Secret of an application, and none
//! of its roles has panicked. Runs when the others have, and reads their logs too.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use sluice_e2e::{
    faults::{clusters, scene::in_git, stage::metrics},
    files,
    leaks::{Secrets, is_alarm},
    world,
};

use crate::ground::{Ground, steps};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_operator_writes_shows_a_key_a_token_or_a_secret_of_an_application() {
    let ground = Ground::new("leaks", steps("60s")).await;
    let mut secrets = Secrets::default();
    let password = secrets.plant("the application's password");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"},
        "stringData": {"password": password},
    });
    ground.scene.apply(&secret).await.unwrap();
    let mut v2 = in_git("v2");
    v2["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{
        "name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "password"}},
    }]);
    ground.scene.bring(&v2).await.unwrap();
    ground.phase("Observing").await;
    ground.scene.candidate_fails(50);
    ground.ended("RolledBack").await;

    for token in &ground.scene.tokens {
        secrets.add_token("a proxy's token", token);
    }
    for (path, text) in written("kubeconfig") {
        let config: Value = serde_json::from_str(&text).unwrap();
        let token = config["users"][0]["user"]["token"].as_str().unwrap();
        secrets.add_token(&format!("the token of {path}"), token);
    }
    let mut texts = written("log");
    for kubeconfig in clusters::all() {
        let client = world::client(kubeconfig).await.unwrap();
        let keys = world::private_keys(&client).await.unwrap();
        assert_eq!(keys.len(), 3, "the root's and both roles'");
        for (of, pem) in keys {
            secrets.add_key(&of, &pem).unwrap();
        }
        texts.extend(world::readable(&client).await.unwrap());
    }
    for (role, process) in [
        ("controller", &ground.controller.process),
        ("serving", ground.serving()),
    ] {
        texts.push((
            format!("/metrics of {role}"),
            metrics(process).await.unwrap(),
        ));
    }
    for place in [
        "controller-0.log",
        "serving.log",
        "ca.log",
        "Event ",
        "MeshRollout ",
        "ConfigMap ",
    ] {
        assert!(
            texts.iter().any(|(of, _)| of.contains(place)),
            "no {place} was read"
        );
    }
    let shown: BTreeSet<String> = texts
        .iter()
        .flat_map(|(place, text)| secrets.shown_by(place, text.as_bytes()))
        .collect();
    assert!(shown.is_empty(), "{shown:#?}");
    ground.close().await;
}

#[test]
fn no_role_has_panicked_or_come_to_what_it_asks_people_to_report() {
    let logs = written("log");
    assert!(logs.len() > 3, "the roles' logs are read: {}", logs.len());
    let wrong: Vec<&str> = logs
        .iter()
        .flat_map(|(_, text)| text.lines().filter(|line| is_alarm(line)))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

/// The files that this suite and the operator's processes in it have written.
fn written(extension: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/faults");
    let files = files::below(&folder, extension).into_iter();
    files
        .map(|path| {
            let text = std::fs::read(&path).unwrap();
            (
                path.display().to_string(),
                String::from_utf8_lossy(&text).into_owned(),
            )
        })
        .collect()
}
