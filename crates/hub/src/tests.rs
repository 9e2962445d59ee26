//! Whole fetches against the server in `fake.rs`, and what goes wrong on the way.

use super::{
    Fetched, Hub, HubSettings, Listing, RepoSpec, Selected,
    fake::{COMMIT, FakeFile, FakeHub, Faults, git, sha256},
    http::{JSON_BYTES_MAX, REDIRECTS_MAX},
    select,
};
use narthex_base::{Error, ErrorKind, Event, Observer, Result};
use narthex_remote::TRIES_MAX;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Large enough for several blocks.
const WEIGHTS: usize = 900_000;

fn weights() -> Vec<u8> {
    (0..WEIGHTS).map(|i| (i * 7 % 251) as u8).collect()
}

fn files() -> Vec<FakeFile> {
    vec![
        ("README.md".into(), b"---\nlicense: mit\n---\n# A\n".to_vec(), false),
        ("config.json".into(), b"{}".to_vec(), false),
        ("1_Pooling/config.json".into(), b"{ }".to_vec(), false),
        ("empty.txt".into(), vec![], false),
        ("model.safetensors".into(), weights(), true),
        ("tf_model.h5".into(), b"other".to_vec(), true),
    ]
}

fn settings(folder: &Path, hub: &FakeHub) -> HubSettings {
    HubSettings {
        endpoint: hub.url.clone(),
        token: Some("hf_secret".into()),
        offline: false,
        hub_cache: Some(folder.join("hf")),
        downloads: folder.join("own"),
        certificates: None,
        backoff: Duration::from_millis(1),
    }
}

/// List, choose, fetch; the folder with the files.
fn pull(settings: HubSettings, name: &str, observer: Observer) -> Result<(PathBuf, Fetched, Listing)> {
    let spec = RepoSpec::parse(name)?;
    let hub = Hub::new(settings)?;
    let listing = hub.list(&spec, observer)?;
    let chosen = select(spec.kind, &listing.files, &[])?;
    let mut download = hub.download(&listing, &chosen)?;
    download.fetch(&chosen.small, observer)?;
    download.fetch(&chosen.large, observer)?;
    let (folder, fetched) = (download.folder.clone(), download.fetched().clone());
    drop(download);
    Ok((folder, fetched, listing))
}

fn pull_default(folder: &Path, hub: &FakeHub) -> Result<(PathBuf, Fetched, Listing)> {
    pull(settings(folder, hub), "hf:org/name", Observer::silent())
}

#[test]
fn a_whole_model_with_digests_and_the_token_for_the_hub_alone() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), Faults::default()));
    let (at, fetched, listing) = pull_default(folder.path(), &hub).unwrap();
    assert_eq!(listing.origin(), format!("hf:org/name@{COMMIT}"));
    assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read(at.join("1_Pooling/config.json")).unwrap(), b"{ }");
    assert_eq!(fs::read(at.join("empty.txt")).unwrap(), b"");
    assert!(!at.join("tf_model.h5").exists());
    assert_eq!(fetched.checksums["model.safetensors"].to_string(), format!("sha256:{}", sha256(&weights())));
    assert_eq!(fetched.checksums["config.json"].to_string(), format!("git-sha1:{}", git(b"{}")));
    assert_eq!(fetched.network_bytes, (WEIGHTS + 5 + "---\nlicense: mit\n---\n# A\n".len()) as u64);
    for request in hub.requests() {
        let expected = (request.host == "hub").then_some("Bearer hf_secret");
        assert_eq!(request.authorization.as_deref(), expected, "{request:?}");
    }
    assert!(hub.requests().iter().any(|request| request.host == "storage"));
    assert!(!folder.path().join("hf").exists(), "Hugging Face's cache is not made");
    // Again: everything is here and is only checked.
    let count = hub.requests().len();
    let (_, again, _) = pull_default(folder.path(), &hub).unwrap();
    assert_eq!((again.network_bytes, hub.requests().len()), (0, count + 1));
}

#[test]
fn a_cut_connection_is_resumed_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults { cut: Some((300_000, 2)), ..Faults::default() };
    let hub = FakeHub::start("models/org/name", files(), faults);
    let (at, fetched, _) = pull_default(folder.path(), &hub).unwrap();
    assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = hub.requests().into_iter().filter(|r| r.host == "storage").map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some("bytes=300000-".into()), Some("bytes=600000-".into())]);
    assert!(fetched.network_bytes < WEIGHTS as u64 + 1000, "nothing came twice");
}

#[test]
fn a_server_that_ignores_ranges_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults { cut: Some((300_000, 1)), whole: true, ..Faults::default() };
    let hub = FakeHub::start("models/org/name", files(), faults);
    let (at, ..) = pull_default(folder.path(), &hub).unwrap();
    assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn an_interrupt_leaves_a_part_that_the_next_call_goes_on_with() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), Faults::default()));
    hub.now(Faults { cut: Some((400_000, usize::MAX)), ..Faults::default() });
    let interrupt = AtomicBool::new(false);
    // Ctrl-C comes while the weights come.
    let emit = |event: Event| {
        if let Event::Progress { detail, .. } = event
            && detail == "empty.txt"
        {
            interrupt.store(true, Ordering::Relaxed);
        }
    };
    let settings_ = settings(folder.path(), &hub);
    let error = pull(settings_.clone(), "hf:org/name", Observer::new(&emit, &interrupt)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    // A connection that always breaks off without bringing anything new ends after a named number of tries.
    hub.now(Faults { cut: Some((0, usize::MAX)), ..Faults::default() });
    let error = pull_default(folder.path(), &hub).unwrap_err();
    assert!(error.to_string().contains(&format!("{TRIES_MAX} tries in a row")), "{error}");
    hub.now(Faults { cut: Some((400_000, 1)), ..Faults::default() });
    let interrupt = AtomicBool::new(false);
    let emit = |event: Event| {
        if let Event::Progress { detail, done, .. } = event
            && detail == "model.safetensors"
            && done > 200
        {
            interrupt.store(true, Ordering::Relaxed);
        }
    };
    // Whether the event came in time or not, what is there is a beginning of the file.
    let _ = pull(settings_, "hf:org/name", Observer::new(&emit, &interrupt));
    hub.now(Faults::default());
    let (at, ..) = pull_default(folder.path(), &hub).unwrap();
    assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn a_wrong_digest_is_refused_and_the_file_removed() {
    for changed in ["model.safetensors", "config.json"] {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults { changed: Some(changed.into()), ..Faults::default() };
        let hub = FakeHub::start("models/org/name", files(), faults);
        let error = pull_default(folder.path(), &hub).unwrap_err();
        assert!(error.what().contains(&format!("`{changed}` did not arrive")), "{error}");
        let repository = folder.path().join("own/models--org--name");
        assert_eq!(fs::read_dir(repository.join("parts")).unwrap().count(), 0);
        assert!(!repository.join(COMMIT).join(changed).exists());
        hub.now(Faults::default());
        pull_default(folder.path(), &hub).unwrap();
    }
}

/// An error of a pull under these faults, and how the repository was called.
fn check_refused(name: &str, faults: Faults, token: bool, parts: &[&str]) -> Error {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), faults));
    let settings = HubSettings { token: token.then(|| "hf_secret".into()), ..settings(folder.path(), &hub) };
    let error = pull(settings, name, Observer::silent()).unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(!text.contains("hf_secret") && !text.contains("signature"), "{text}");
    error
}

#[test]
fn refusals_say_what_to_do() {
    let name = "hf:org/name";
    let gated = || Faults { gated: true, ..Faults::default() };
    check_refused(name, gated(), false, &["is gated", "accept its licence at http://127", "/org/name", "HF_TOKEN"]);
    check_refused(
        "hf:org/nme",
        Faults::default(),
        false,
        &["no hf:org/nme", "did you mean `hf:org/name`?", "HF_TOKEN"],
    );
    check_refused("hf:org/name@v2", Faults::default(), true, &["no revision `v2`", "did you mean `hf:org/name@v1`?"]);
    let limited = |times, after: &str| Faults { limited: Some((times, after.into())), ..Faults::default() };
    check_refused(name, limited(1, "4000"), true, &["429", "wait for 4000 s"]);
    check_refused(name, limited(99, "0"), true, &["429", &format!("{TRIES_MAX} tries")]);
    let circle = Faults { circle: true, ..Faults::default() };
    check_refused(name, circle, true, &[&format!("redirects more than {REDIRECTS_MAX} times")]);
    let longer = Faults { longer: true, ..Faults::default() };
    check_refused(name, longer, true, &["contradicts itself"]);
    let nameless = Faults { nameless: true, ..Faults::default() };
    check_refused(name, nameless, true, &["names no digest"]);
    let listing = |text: String| Faults { listing: Some(text), ..Faults::default() };
    check_refused(name, listing(" ".repeat(JSON_BYTES_MAX as usize + 1)), true, &["longer than 16 MB"]);
    check_refused(name, listing("<html>".into()), true, &["does not answer as the Hub's API does"]);
    let file = |path: &str| {
        listing(format!(r#"{{"id":"org/name","sha":"{COMMIT}","siblings":[{{"rfilename":"{path}","size":1}}]}}"#))
    };
    for path in ["../../.bashrc", "/etc/passwd", "a/../../b", "a\\\\..\\\\b", "a\\u0000b"] {
        check_refused(name, file(path), true, &["whose name is not taken"]);
    }
    check_refused(name, file("model.safetensors"), true, &["contradicts itself about `model.safetensors`"]);
    check_refused(name, file("gone.safetensors"), true, &["has no file `gone.safetensors`"]);
}

#[test]
fn a_limit_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults { limited: Some((2, "1".into())), ..Faults::default() };
    let hub = FakeHub::start("models/org/name", files(), faults);
    let begun = Instant::now();
    pull_default(folder.path(), &hub).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "Retry-After is honoured");
}

#[test]
fn nobody_there() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), Faults::default()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with = |endpoint: String| HubSettings { endpoint, ..settings(folder.path(), &hub) };
    let error = pull(with(format!("http://{closed}")), "hf:org/name", Observer::silent()).unwrap_err();
    assert!(error.what().contains("cannot be reached"), "{error}");
    for endpoint in ["huggingface.co", "ftp://x", "http://", "https://user:pass@host", "https://host/?a=b"] {
        let error = Hub::new(with(endpoint.into())).err().unwrap();
        assert!(error.what().contains("HF_ENDPOINT is no address"), "{endpoint}: {error}");
    }
    // A token does not go over an open line, except on this machine.
    let open = Hub::new(with("http://mirror.example".into())).unwrap();
    assert!(open.warnings()[0].contains("not encrypted"));
    assert!(Hub::new(with("http://[::1]:80".into())).unwrap().warnings().is_empty());
}

/// Hugging Face's cache of the model, as its own tools make it.
fn make_cache(folder: &Path) {
    let repository = folder.join("hf/models--org--name");
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in ["blobs", "refs"] {
        fs::create_dir_all(repository.join(folder)).unwrap();
    }
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for (path, bytes, large) in files() {
        let digest = if large { sha256(&bytes) } else { git(&bytes) };
        fs::write(repository.join("blobs").join(&digest), bytes).unwrap();
        let link = snapshot.join(&path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(2 + path.matches('/').count());
        symlink(format!("{up}blobs/{digest}"), link).unwrap();
    }
}

/// Path, content and time of everything in a folder.
fn state(folder: &Path) -> Vec<(PathBuf, Option<std::time::SystemTime>)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push((entry.path(), entry.metadata().unwrap().modified().ok()));
        if entry.file_type().unwrap().is_dir() {
            found.extend(state(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn the_cache_of_hugging_face_is_read_and_not_written() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), Faults::default()));
    make_cache(folder.path());
    let before = state(&folder.path().join("hf"));
    let (at, fetched, _) = pull_default(folder.path(), &hub).unwrap();
    assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), weights());
    assert_eq!((fetched.network_bytes, hub.requests().len()), (0, 1), "only the list was asked for");
    assert_eq!(state(&folder.path().join("hf")), before);
    // What is damaged there is fetched.
    fs::remove_dir_all(folder.path().join("own")).unwrap();
    let blob = folder.path().join("hf/models--org--name/blobs").join(sha256(&weights()));
    let mut bytes = weights();
    bytes[5] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    let warnings = Mutex::new(vec![]);
    let never = AtomicBool::new(false);
    let emit = |event: Event| {
        if let Event::Warning { message, .. } = event {
            warnings.lock().unwrap().push(message);
        }
    };
    let (at, fetched, _) = pull(settings(folder.path(), &hub), "hf:org/name", Observer::new(&emit, &never)).unwrap();
    assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fetched.network_bytes, WEIGHTS as u64);
    assert!(warnings.lock().unwrap()[0].contains("damaged"));
    assert_eq!(fs::read(&blob).unwrap(), bytes, "the cache is left as it is");
}

#[test]
fn offline_the_caches_are_all_there_is() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), Faults::default()));
    let offline = || HubSettings { offline: true, ..settings(folder.path(), &hub) };
    let refused = |name: &str, part: &str| {
        let error = pull(offline(), name, Observer::silent()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("HF_HUB_OFFLINE"), "{error}");
    };
    refused("hf:org/name", "not in Hugging Face's cache");
    make_cache(folder.path());
    for name in ["hf:org/name".to_string(), format!("hf:org/name@{COMMIT}")] {
        let (at, fetched, listing) = pull(offline(), &name, Observer::silent()).unwrap();
        assert_eq!((listing.commit.as_str(), fetched.network_bytes), (COMMIT, 0));
        assert_eq!(fs::read(at.join("1_Pooling/config.json")).unwrap(), b"{ }");
        assert_eq!(fetched.checksums.len(), 5);
        fs::remove_dir_all(folder.path().join("own")).unwrap();
    }
    refused("hf:org/name@v1", "it knows: 0123");
    refused("hf:org/other", "models--org--other");
    // A link that leads out of the cache is no file of it.
    let secret = folder.path().join("secret.json");
    fs::write(&secret, "{}").unwrap();
    symlink(&secret, folder.path().join("hf/models--org--name/snapshots").join(COMMIT).join("stolen.json")).unwrap();
    let (at, ..) = pull(offline(), "hf:org/name", Observer::silent()).unwrap();
    assert!(!at.join("stolen.json").exists());
    fs::remove_dir_all(folder.path().join("own")).unwrap();
    let blob = folder.path().join("hf/models--org--name/blobs").join(git(b"{}"));
    fs::write(blob, "[]").unwrap();
    refused("hf:org/name", "`config.json` in Hugging Face's cache is damaged");
    assert!(hub.requests().is_empty(), "nothing was asked of the network");
}

#[test]
fn what_another_choice_left_is_not_taken_along() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), FakeHub::start("models/org/name", files(), Faults::default()));
    let (at, ..) = pull_default(folder.path(), &hub).unwrap();
    symlink("/etc", at.join("link")).unwrap();
    let client = Hub::new(settings(folder.path(), &hub)).unwrap();
    let listing = client.list(&RepoSpec::parse("hf:org/name").unwrap(), Observer::silent()).unwrap();
    let chosen = Selected { small: vec![listing.files[0].clone()], ..Selected::default() };
    let download = client.download(&listing, &chosen).unwrap();
    assert!(!at.join("model.safetensors").exists() && !at.join("link").exists());
    let error = client.download(&listing, &chosen).err().unwrap();
    assert!(error.what().contains("another process"), "{error}");
    download.remove().unwrap();
    assert!(!at.exists());
}
