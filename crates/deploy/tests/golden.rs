//! What is rendered, file by file. `UPDATE_GOLDEN=1 cargo test -p narthex-deploy` writes it anew.

use narthex_deploy::{Bundle, DeployOptions, Place, Target, render};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn bundle() -> Bundle {
    Bundle {
        name: "bard".into(),
        digest: "4e37c34814cc".repeat(6)[..64].into(),
        licenses: vec!["LicenseRef-OpenMDW-1.1".into()],
        weights_bytes: 500_000_000,
        kv_bytes_per_token: 24_576,
        context: 1024,
    }
}

fn registry() -> Place {
    Place::Registry(format!("registry.example/org/bard@sha256:{}", "0f".repeat(32)))
}

fn check(folder: &str, target: Target, options: &DeployOptions) {
    let files = render(target, &bundle(), options).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        _ = fs::remove_dir_all(&golden);
        fs::create_dir_all(&golden).unwrap();
        for file in &files {
            fs::write(golden.join(&file.path), &file.text).unwrap();
        }
    }
    let mut there: Vec<PathBuf> = fs::read_dir(&golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    there.sort();
    let mut made: Vec<PathBuf> = files.iter().map(|file| golden.join(&file.path)).collect();
    made.sort();
    assert_eq!(there, made);
    for file in files {
        assert_eq!(fs::read_to_string(golden.join(&file.path)).unwrap(), file.text, "{folder}/{}", file.path);
    }
}

#[test]
fn targets() {
    let image = Some("registry.example/narthex:0.1.0".to_string());
    let here = DeployOptions::new("bard", Place::Folder("/srv/models/bard".into()));
    let there = DeployOptions { image: image.clone(), ..DeployOptions::new("bard", registry()) };
    check("systemd", Target::Systemd, &here);
    check(
        "systemd-registry",
        Target::Systemd,
        &DeployOptions { keys: false, ..DeployOptions::new("bard", registry()) },
    );
    check("compose", Target::Compose, &DeployOptions { image: image.clone(), ..here.clone() });
    check("compose-registry", Target::Compose, &DeployOptions { keys: false, ..there.clone() });
    check("kubernetes", Target::Kubernetes, &there);
    let all = DeployOptions {
        replicas: 3,
        context: Some(512),
        kubernetes_minor: 30,
        registry_secret: Some("registry".into()),
        endpoint_picker: Some("epp:9002".into()),
        autoscale_prometheus: Some("http://prometheus.monitoring:9090".into()),
        service_monitor: true,
        ..there.clone()
    };
    check("kubernetes-all", Target::Kubernetes, &all);
    check("kserve", Target::Kserve, &there);
    check("mpijob", Target::Mpijob, &DeployOptions { project: Some("/data/bard".into()), replicas: 4, ..there });
    check("slurm", Target::Slurm, &DeployOptions { project: Some("/shared/bard".into()), replicas: 4, ..here });
}

#[test]
fn what_is_missing_is_named() {
    let here = DeployOptions::new("bard", Place::Folder("/srv/bard".into()));
    let there = DeployOptions::new("bard", registry());
    let image = Some("registry.example/narthex:0.1.0".to_string());
    for (target, options, flag) in [
        (Target::Compose, here.clone(), "--image REGISTRY"),
        (Target::Kubernetes, there.clone(), "--image REGISTRY"),
        (Target::Kubernetes, DeployOptions { image: image.clone(), ..here.clone() }, "narthex push"),
        (Target::Kserve, DeployOptions { image: image.clone(), ..here }, "narthex push"),
        (Target::Mpijob, DeployOptions { image: image.clone(), ..there.clone() }, "--project-dir"),
        (Target::Kubernetes, DeployOptions { image, endpoint_picker: Some("epp:x".into()), ..there }, "epp:9002"),
    ] {
        let error = render(target, &bundle(), &options).unwrap_err();
        assert!(error.help_text().is_some_and(|help| help.contains(flag)), "{}: {error}", target.name());
    }
}

#[test]
fn targets_have_names() {
    for target in Target::ALL {
        assert_eq!(Target::of(target.name()), Some(target));
        assert!(target.next(&DeployOptions::new("bard", registry())).contains("DIR"));
    }
    assert_eq!(Target::of("nomad"), None);
}
