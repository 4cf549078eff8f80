//! `crds/yaml` and the chart's CRDs are what the types say. `UPDATE=1` writes them anew.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use sluice_crds::yaml;

#[test]
fn the_yaml_files_are_what_the_types_say() {
    check("crds/yaml", &files(to_yaml));
}

/// Helm never upgrades what is in its folder `crds`, so ours are templates. They stay when the
/// chart goes, since with a CRD all of its objects go.
#[test]
fn the_charts_crds_are_what_the_types_say() {
    let template = |crd: &CustomResourceDefinition| {
        let mut crd = crd.clone();
        crd.metadata.annotations = Some(BTreeMap::from([(
            "helm.sh/resource-policy".to_owned(),
            "keep".to_owned(),
        )]));
        let yaml = to_yaml(&crd);
        assert!(!yaml.contains("{{"), "Helm would read it as an action");
        format!("{{{{- if .Values.crds.install }}}}\n{yaml}{{{{- end }}}}\n")
    };
    check("charts/sluice/templates/crds", &files(template));
}

#[test]
fn the_yaml_reads_back_as_the_same_crd() {
    for crd in yaml::all() {
        let back: CustomResourceDefinition = serde_saphyr::from_str(&to_yaml(&crd)).unwrap();
        assert_eq!(back, crd);
    }
}

fn to_yaml(crd: &CustomResourceDefinition) -> String {
    serde_saphyr::to_string(crd).unwrap()
}

fn files(content: impl Fn(&CustomResourceDefinition) -> String) -> BTreeMap<String, String> {
    yaml::all()
        .iter()
        .map(|crd| (format!("{}.yaml", crd.spec.names.plural), content(crd)))
        .collect()
}

fn check(folder: &str, wanted: &BTreeMap<String, String>) {
    let path = workspace().join(folder);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&path).unwrap();
        for (name, content) in wanted {
            fs::write(path.join(name), content).unwrap();
        }
    }
    let advice = format!("run `UPDATE=1 cargo test -p sluice-crds` to write {folder} anew");
    let present: BTreeSet<String> = fs::read_dir(&path)
        .expect(&advice)
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(present, wanted.keys().cloned().collect(), "{advice}");
    for (name, content) in wanted {
        let file = fs::read_to_string(path.join(name)).unwrap();
        assert!(file == *content, "{folder}/{name} is out of date: {advice}");
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}
