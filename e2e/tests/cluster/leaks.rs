//! Nothing that Sluice writes on the node shows a key, a token, or what passes through a proxy.
//! Runs when the others have, on what they have left behind.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use kube::{Client, ResourceExt};
use sluice_e2e::{
    files,
    leaks::{Secrets, is_alarm},
    world::{self, SYSTEM},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    demo,
    figures::Figures,
    last_good::proxies,
    node::{self, say},
    place::pods,
};

/// Our containers; what an application logs is its own matter.
const OURS: [&str; 6] = [
    "controller",
    "serving",
    "ca",
    "istio-proxy",
    "istio-init",
    "gateway",
];

type Text = (String, Vec<u8>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_sluice_writes_shows_a_key_a_token_or_what_passes_through_a_proxy() {
    let client = node::client().await;
    demo::settled(&client).await;
    let mut secrets = Secrets::default();
    // What is asked well, what the application fails, and what is no HTTP.
    for (path, more) in [
        ("/echo", ""),
        ("/status/503", ""),
        ("/echo", "no header at all\r\n"),
    ] {
        let bearer = secrets.plant("a header Authorization");
        let cookie = secrets.plant("a cookie");
        let query = secrets.plant("a parameter of a query");
        let request = format!(
            "GET {path}?key={query} HTTP/1.1\r\nhost: demo.local\r\nauthorization: Bearer {bearer}\r\n\
             cookie: session={cookie}\r\n{more}connection: close\r\n\r\n"
        );
        let answer = ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
    }
    let keys = world::private_keys(&client).await.unwrap();
    assert_eq!(keys.len(), 3, "the root's and both roles'");
    for (of, pem) in keys {
        secrets.add_key(&of, &pem).unwrap();
    }
    let tokens = volumes("kubernetes.io~projected");
    let tokens = tokens.iter().filter(|(path, _)| path.ends_with("/token"));
    for (path, token) in tokens.clone() {
        secrets.add_token(path, &String::from_utf8_lossy(token));
    }
    assert!(tokens.count() >= 6, "the roles' own and the proxies'");

    let texts = [
        logs(),
        volumes("kubernetes.io~empty-dir"),
        pages(&client).await,
        objects(&client).await,
    ]
    .concat();
    for place in [
        "/controller/",
        "/serving/",
        "/ca/",
        "/istio-proxy/",
        "/gateway/",
        "empty-dir",
        "config_dump",
        "Event ",
    ] {
        assert!(
            texts
                .iter()
                .any(|(of, text)| of.contains(place) && !text.is_empty()),
            "no {place} was read"
        );
    }
    let size: usize = texts.iter().map(|(_, text)| text.len()).sum();
    say(&format!(
        "{} texts, {} KB, looked through for {} forms of secrets",
        texts.len(),
        size / 1024,
        secrets.forms()
    ));
    let shown = texts
        .iter()
        .flat_map(|(place, text)| secrets.shown_by(place, text));
    let shown: BTreeSet<String> = shown.collect();
    assert!(shown.is_empty(), "{shown:#?}");
}

#[tokio::test]
async fn none_of_our_containers_has_panicked_or_come_to_what_it_asks_people_to_report() {
    let logs = logs();
    assert!(logs.len() >= OURS.len(), "{} logs were read", logs.len());
    for (path, text) in logs {
        let text = String::from_utf8_lossy(&text);
        let wrong = text.lines().find(|line| is_alarm(line));
        assert_eq!(wrong, None, "{path}");
    }
}

/// One request through the gateway; the whole answer.
async fn ask(request: &str) -> String {
    let mut stream = TcpStream::connect(node::gateway()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// What our containers have logged, those that have ended too.
fn logs() -> Vec<Text> {
    let mut logs = files::all(&node::folder().join("pod-logs"));
    let container = |path: &Path| {
        let folder = path.parent().and_then(Path::file_name);
        folder.is_some_and(|name| OURS.iter().any(|its| name == *its))
    };
    logs.retain(|path| container(path));
    read(&logs)
}

/// The files of all pods' volumes of this kind.
fn volumes(plugin: &str) -> Vec<Text> {
    let mut volumes = files::all(&node::folder().join("kubelet/pods"));
    volumes.retain(|path| path.components().any(|part| part.as_os_str() == plugin));
    read(&volumes)
}

fn read(paths: &[PathBuf]) -> Vec<Text> {
    let texts = paths.iter().filter_map(|path| {
        // A socket is no text, and what is gone shows nothing.
        let text = std::fs::read(path).ok()?;
        Some((path.display().to_string(), text))
    });
    texts.collect()
}

/// What proxies and roles tell whoever asks them.
async fn pages(client: &Client) -> Vec<Text> {
    let mut pages = Vec::new();
    for proxy in proxies(client).await {
        for (port, path) in [
            (15020, "/metrics"),
            (15000, "/config_dump"),
            (15000, "/clusters"),
            (15000, "/stats"),
        ] {
            let page = proxy.ask(port, &format!("GET {path}")).unwrap();
            pages.push((format!("{path} of {}", proxy.pod), page.into_bytes()));
        }
    }
    for pod in pods(client, SYSTEM, "app.kubernetes.io/name=sluice")
        .await
        .unwrap()
    {
        let name = pod.name_any();
        let figures = Figures::of(client, SYSTEM, &name, 15014).await.unwrap();
        pages.push((
            format!("/metrics of {name}"),
            figures.text().as_bytes().to_vec(),
        ));
    }
    pages
}

async fn objects(client: &Client) -> Vec<Text> {
    let objects = world::readable(client).await.unwrap().into_iter();
    objects
        .map(|(name, json)| (name, json.into_bytes()))
        .collect()
}
