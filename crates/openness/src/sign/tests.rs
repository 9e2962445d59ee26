//! Signatures against those of the official tool (see `tests/fixtures/signing/README.md`), and against
//! everything that can be wrong with them.

use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

const SLSA: &str = "https://slsa.dev/provenance/v1";

/// The root digest that the official tool gave to the fixture's model.
const MODEL_DIGEST: &str = "de2ff2af8d3093dc3b40fe9b2137bfeccb41f7de7efa6b39553d341ae70419f6";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap()
}

fn private(name: &str) -> SigningKey {
    SigningKey::from_pem(&text(name), Path::new(name)).unwrap()
}

fn public(name: &str) -> VerifyingKey {
    VerifyingKey::from_pem(&text(name), Path::new(name)).unwrap()
}

/// A folder `model` as in the fixtures, and beside it room for `model.sig`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for name in [".hidden", "config.json", "empty.txt", "tokenizer/v1/merges.txt", "weights.bin"] {
            place.write(name, &fs::read(fixture("model").join(name)).unwrap());
        }
        place
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn signature(&self) -> PathBuf {
        self.0.path().join("model.sig")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.model().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.model().join(name)).unwrap();
    }

    fn sign(&self, ignore: &[PathBuf]) -> Result<SignedFolder> {
        sign_folder(&self.model(), "model", &private("key.pem"), &self.signature(), ignore)
    }

    fn verify(&self) -> Result<SignedFolder> {
        verify_folder(&self.model(), &self.signature(), &public("public.pem"))
    }

    fn causes(&self) -> Vec<String> {
        self.verify().unwrap_err().causes().to_vec()
    }

    /// Signs this payload as it is, past all our own checks.
    fn sign_payload(&self, payload: &Value) {
        let payload = payload.to_string();
        let signed = format!("DSSEv1 28 application/vnd.in-toto+json {} {payload}", payload.len());
        let mut bundle: Value = serde_json::from_str(&text("model-p256.sig")).unwrap();
        bundle["dsseEnvelope"]["payload"] = STANDARD.encode(&payload).into();
        bundle["dsseEnvelope"]["signatures"][0]["sig"] =
            STANDARD.encode(private("key.pem").sign(signed.as_bytes())).into();
        fs::write(self.signature(), bundle.to_string()).unwrap();
    }
}

/// The statement that a signature holds.
fn payload(signature: &str) -> Value {
    let bundle: Value = serde_json::from_str(signature).unwrap();
    serde_json::from_slice(&STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap()).unwrap()
}

fn all_of(error: &Error) -> String {
    format!("{error} {}", error.causes().join(" "))
}

#[test]
fn signatures_of_the_official_tool_verify() {
    for (signature, key) in [("model-p256.sig", "public.pem"), ("model-p384.sig", "public-p384.pem")] {
        let signed = verify_folder(&fixture("model"), &fixture(signature), &public(key)).unwrap();
        assert_eq!(signed, SignedFolder { files: 5, digest: MODEL_DIGEST.into(), bytes: 3027 }, "{signature}");
    }
}

#[test]
fn what_is_signed_verifies_and_says_the_same_as_the_official_tool() {
    for (key, public_key, official) in [
        ("key.pem", "public.pem", "model-p256.sig"),
        ("key-pkcs8.pem", "public.pem", "model-p256.sig"),
        ("key-p384.pem", "public-p384.pem", "model-p384.sig"),
        ("key-p384-pkcs8.pem", "public-p384.pem", "model-p384.sig"),
    ] {
        let place = Place::new();
        let signed = sign_folder(&place.model(), "model", &private(key), &place.signature(), &[]).unwrap();
        assert_eq!(signed.digest, MODEL_DIGEST);
        assert_eq!(verify_folder(&place.model(), &place.signature(), &public(public_key)).unwrap(), signed);

        let (ours, theirs) = (fs::read_to_string(place.signature()).unwrap(), text(official));
        // Up to the payload, the files have the same bytes.
        let head = |bundle: &str| bundle.split_once("\"payload\"").unwrap().0.to_string();
        assert_eq!(head(&ours), head(&theirs));
        assert!(ours.contains(r#","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":""#));
        assert!(ours.ends_with(r#"","keyid":""}]}}"#));
        let mut theirs = payload(&theirs);
        theirs["predicate"]["serialization"]["ignore_paths"] =
            json!([".git", ".gitattributes", ".github", ".gitignore"]);
        assert_eq!(payload(&ours), theirs);
    }
}

#[test]
fn the_same_key_and_folder_give_the_same_bytes() {
    let place = Place::new();
    place.sign(&["weights.bin".into(), "config.json".into()]).unwrap();
    let first = fs::read(place.signature()).unwrap();
    place.sign(&["config.json".into(), "./weights.bin".into(), "config.json".into()]).unwrap();
    assert_eq!(fs::read(place.signature()).unwrap(), first);
}

#[test]
fn every_kind_of_tampering_is_named() {
    let place = Place::new();
    place.sign(&[]).unwrap();
    place.write("config.json", b"{\"layers\": 1000}");
    place.write("new.txt", b"");
    place.write("tokenizer/.gitignore", b"only those at the top are left out");
    place.remove("weights.bin");
    place.remove(".hidden");
    let error = place.verify().unwrap_err();
    assert!(error.what().ends_with("model is not what was signed"), "{error}");
    assert_eq!(
        error.causes(),
        [
            "changed: config.json",
            "added: new.txt",
            "added: tokenizer/.gitignore",
            "removed: .hidden",
            "removed: weights.bin"
        ]
    );
}

#[test]
fn a_long_list_of_changes_is_cut() {
    let place = Place::new();
    place.sign(&[]).unwrap();
    (0..MAX_NAMED).for_each(|number| place.write(&format!("{number:02}"), b""));
    assert_eq!(place.causes().len(), MAX_NAMED);
    place.write("a\nb", b"");
    place.remove("weights.bin");
    let causes = place.causes();
    assert_eq!((causes.len(), causes[MAX_NAMED].as_str()), (MAX_NAMED + 1, "and 2 more"));
    (1..MAX_NAMED).for_each(|number| place.remove(&format!("{number:02}")));
    assert_eq!(place.causes(), ["added: 00", "added: a\\nb", "removed: weights.bin"]);
}

#[test]
fn empty_folders_and_the_name_of_the_folder_do_not_matter() {
    let place = Place::new();
    place.sign(&[]).unwrap();
    fs::create_dir_all(place.model().join("empty/empty")).unwrap();
    let other = place.0.path().join("other");
    fs::rename(place.model(), &other).unwrap();
    verify_folder(&other, &place.signature(), &public("public.pem")).unwrap();
    let slash = PathBuf::from(format!("{}/./", other.display()));
    verify_folder(&slash, &place.signature(), &public("public.pem")).unwrap();
}

#[test]
fn no_files_and_a_single_file_can_be_signed() {
    let place = Place::new();
    let (single, empty) = (place.model().join("weights.bin"), place.0.path().join("nothing"));
    fs::create_dir(&empty).unwrap();
    for (path, files, name) in [(&single, 1, "."), (&empty, 0, "")] {
        let signed = sign_folder(path, "it", &private("key.pem"), &place.signature(), &[]).unwrap();
        assert_eq!(signed.files, files);
        assert_eq!(verify_folder(path, &place.signature(), &public("public.pem")).unwrap(), signed);
        let resources = payload(&fs::read_to_string(place.signature()).unwrap())["predicate"]["resources"].clone();
        assert_eq!(resources.as_array().unwrap().len(), files);
        assert_eq!(resources[0]["name"].as_str().unwrap_or_default(), name);
    }
}

#[test]
fn files_are_sorted_part_by_part() {
    let place = Place(tempfile::tempdir().unwrap());
    // The order in which the official tool signs these.
    let order =
        ["\u{1}x", "<x>", "Z", "a/B", "a/b", "a b", "a\"q", "a-b", "a.txt", "c:d", "é", "\u{ffee}", "\u{10000}"];
    order.iter().rev().for_each(|name| place.write(name, name.as_bytes()));
    place.sign(&[]).unwrap();
    let signed = payload(&fs::read_to_string(place.signature()).unwrap());
    let names: Vec<&str> = signed["predicate"]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, order);
    place.verify().unwrap();
}

#[test]
fn what_is_left_out_is_not_looked_at() {
    let place = Place::new();
    for name in [".git/HEAD", ".github/x", ".gitignore", ".gitattributes", "cache/a", "cache-not/a"] {
        place.write(name, b"");
    }
    let inside = place.model().join("model.sig");
    let absolute = place.model().join("config.json");
    let ignore = ["./cache/".into(), absolute, "not-there".into()];
    let signed = sign_folder(&place.model(), "model", &private("key.pem"), &inside, &ignore).unwrap();
    assert_eq!(signed.files, 5);
    let paths = payload(&fs::read_to_string(&inside).unwrap())["predicate"]["serialization"]["ignore_paths"].clone();
    let expected =
        [".git", ".gitattributes", ".github", ".gitignore", "cache", "config.json", "model.sig", "not-there"];
    assert_eq!(paths, json!(expected));

    for name in [".git/HEAD", ".gitignore", "cache/b", "config.json", "not-there/c"] {
        place.write(name, b"changed");
    }
    let key = public("public.pem");
    verify_folder(&place.model(), &inside, &key).unwrap();
    // A copy of the signature elsewhere, while the first still lies in the folder.
    fs::copy(&inside, place.signature()).unwrap();
    place.verify().unwrap();
    // A new name inside the folder: the one that is checked is always left out, the old one is recorded.
    let renamed = place.model().join("renamed.sig");
    fs::rename(&inside, &renamed).unwrap();
    verify_folder(&place.model(), &renamed, &key).unwrap();
    assert_eq!(place.causes(), ["added: renamed.sig"]);
    // Signed again in its place, the old signature is no part of the new one.
    sign_folder(&place.model(), "model", &private("key.pem"), &renamed, &["cache".into()]).unwrap();
    verify_folder(&place.model(), &renamed, &key).unwrap();
}

#[test]
fn what_cannot_be_left_out_is_refused() {
    let place = Place::new();
    for (path, why) in [
        (PathBuf::from("../x"), "no plain UTF-8 path inside"),
        (PathBuf::from("."), "the whole folder"),
        (place.model(), "the whole folder"),
        (place.0.path().join("outside"), "outside the folder"),
    ] {
        let error = place.sign(std::slice::from_ref(&path)).unwrap_err();
        assert!(error.causes()[0].contains(why), "{}: {error}", path.display());
    }
    assert!(!place.signature().exists());
}

#[test]
fn a_signature_replaces_signatures_only() {
    let place = Place::new();
    let weights = place.model().join("weights.bin");
    let before = fs::read(&weights).unwrap();
    let error = sign_folder(&place.model(), "model", &private("key.pem"), &weights, &[]).unwrap_err();
    assert!(error.what().ends_with("weights.bin is there, and is no signature"), "{error}");
    assert_eq!(fs::read(&weights).unwrap(), before);
    place.sign(&[]).unwrap();
    place.write("new.txt", b"");
    place.sign(&[]).unwrap();
    place.verify().unwrap();
    // Nothing half made is left.
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 2);
    let nowhere = place.0.path().join("nowhere/model.sig");
    assert!(sign_folder(&place.model(), "model", &private("key.pem"), &nowhere, &[]).is_err());
}

#[cfg(unix)]
#[test]
fn links_and_special_files_are_refused_wherever_they_are() {
    use std::os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener};
    let place = Place::new();
    place.sign(&[]).unwrap();
    for name in ["link", ".git/link", "tokenizer/v1/broken"] {
        let link = place.model().join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink("config.json", &link).unwrap();
        for error in [place.sign(&[]).unwrap_err(), place.verify().unwrap_err()] {
            assert!(error.what().ends_with(&format!("{name} cannot be signed")), "{error}");
            assert!(error.causes()[0].contains("symbolic link"), "{error}");
        }
        fs::remove_file(link).unwrap();
    }
    let link = place.0.path().join("link");
    symlink(place.model(), &link).unwrap();
    for form in ["", "/", "/."] {
        let link = PathBuf::from(format!("{}{form}", link.display()));
        assert!(verify_folder(&link, &place.signature(), &public("public.pem")).is_err());
    }
    let socket = place.model().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(place.causes()[0].contains("neither a file nor a folder"));
    drop(listener);
    fs::remove_file(socket).unwrap();

    for (name, why) in [(&b"\xff"[..], "not UTF-8"), (b"a\\b", "backslash")] {
        let path = place.model().join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, b"").unwrap();
        let error = place.sign(&[]).unwrap_err();
        assert!(error.causes()[0].contains(why), "{error}");
        fs::remove_file(path).unwrap();
    }
    fs::create_dir(place.model().join(".git/objects")).unwrap();
    fs::write(place.model().join(".git/objects").join(std::ffi::OsStr::from_bytes(b"\xff")), b"").unwrap();
    place.sign(&[]).unwrap();
    place.verify().unwrap();
}

#[test]
fn another_key_is_refused_by_its_fingerprint_and_without_one() {
    let place = Place::new();
    place.sign(&[]).unwrap();
    let other = public("public-p384.pem");
    let error = verify_folder(&place.model(), &place.signature(), &other).unwrap_err();
    assert_eq!(error.what(), "the signature was made with another key");
    assert!(error.causes()[1].ends_with(&other.hint()));
    let mut bundle: Value = serde_json::from_str(&fs::read_to_string(place.signature()).unwrap()).unwrap();
    for hint in [Value::Null, json!("")] {
        bundle["verificationMaterial"]["publicKey"]["hint"] = hint;
        fs::write(place.signature(), bundle.to_string()).unwrap();
        place.verify().unwrap();
        let error = verify_folder(&place.model(), &place.signature(), &other).unwrap_err();
        assert_eq!(error.what(), "the signature is wrong");
    }
}

#[test]
fn malformed_bundles_are_refused_in_words() {
    let (bundle, material, key, dsse) =
        ("", "/verificationMaterial", "/verificationMaterial/publicKey", "/dsseEnvelope");
    let signature = "/dsseEnvelope/signatures/0";
    // Where, which field, its value (none: taken away), and what the error must hold.
    let cases: [(&str, &str, Option<Value>, &str); 23] = [
        (bundle, "x", Some(json!(1)), "unknown field `x`"),
        (material, "x", Some(json!(1)), "unknown field `x`"),
        (key, "x", Some(json!(1)), "unknown field `x`"),
        (dsse, "x", Some(json!(1)), "unknown field `x`"),
        (signature, "x", Some(json!(1)), "unknown field `x`"),
        (bundle, "mediaType", Some(json!("text/plain")), "the media type `text/plain`"),
        (bundle, "mediaType", Some(json!("application/vnd.dev.sigstore.bundle+json;version=0.3")), "the media type"),
        (bundle, "mediaType", None, "missing field `mediaType`"),
        (bundle, "verificationMaterial", None, "missing field `verificationMaterial`"),
        (bundle, "dsseEnvelope", None, "holds no statement"),
        (bundle, "messageSignature", Some(json!({})), "holds no statement"),
        (material, "publicKey", None, "does not say which key"),
        (material, "certificate", Some(json!({"rawBytes": "AA=="})), "with a certificate"),
        (key, "hint", Some(json!("E6F4")), "another key"),
        (dsse, "payload", None, "missing field `payload`"),
        (dsse, "payload", Some(json!("e30")), "`payload` is not base64"),
        (dsse, "payload", Some(json!("e30=")), "the signature is wrong"),
        (dsse, "payloadType", Some(json!("text/plain")), "holds `text/plain`"),
        (dsse, "payloadType", None, "missing field `payloadType`"),
        (dsse, "signatures", Some(json!([])), "holds no signature"),
        (signature, "sig", Some(json!("-_")), "`sig` is not base64"),
        (signature, "sig", Some(json!("MEUC")), "the signature is wrong"),
        (signature, "keyid", Some(json!(1)), "invalid type"),
    ];
    for (place, field, value, expected) in cases {
        let mut bundle: Value = serde_json::from_str(&text("model-p256.sig")).unwrap();
        let fields = bundle.pointer_mut(place).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => fields.insert(field.into(), value),
            None => fields.remove(field),
        };
        let verify = |text: &str| bundle::verify(text, Path::new("m.sig"), &public("public.pem"), FOLDER_PREDICATE);
        let error = verify(&bundle.to_string()).unwrap_err();
        assert!(all_of(&error).contains(expected), "{place}/{field}: {error}");
        assert!(error.place().unwrap().starts_with("m.sig"), "{error}");
    }
}

#[test]
fn other_spellings_of_a_good_bundle_are_taken() {
    let good = text("model-p256.sig");
    let mut old: Value = serde_json::from_str(&good).unwrap();
    old["verificationMaterial"] = json!({"publicKey": {"rawBytes": "AA==", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}});
    let mut second: Value = serde_json::from_str(&good).unwrap();
    second["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(json!({"sig": "AA=="}));
    second["dsseEnvelope"]["signatures"][0].as_object_mut().unwrap().remove("keyid");
    let snake = good.replace("payloadType", "payload_type").replace("mediaType", "media_type");
    for bundle in [old.to_string(), format!("{second:#}\n"), snake] {
        let key = public("public.pem");
        bundle::verify(&bundle, Path::new("m.sig"), &key, FOLDER_PREDICATE).unwrap();
    }
    for bundle in ["".into(), "{}".into(), "[]".into(), format!("\u{feff}{good}"), format!("{good}x")] {
        let error = bundle::verify(&bundle, Path::new("m.sig"), &public("public.pem"), FOLDER_PREDICATE).unwrap_err();
        assert_eq!(error.what(), "this is not a Sigstore bundle");
    }
}

#[test]
fn signed_nonsense_is_refused_in_words() {
    let place = Place::new();
    let (resource, whole) = ("/predicate/resources/0", "");
    let cases = [
        (whole, "_type", json!("x"), "the type `x`"),
        (whole, "predicateType", json!("https://model_signing/Digests/v0.1"), "Digests/v0.1"),
        (whole, "subject", json!([]), "about 0 subjects"),
        (whole, "subject", json!([{"name": "a", "digest": {}}, {"name": "b", "digest": {}}]), "about 2 subjects"),
        (whole, "subject", json!([{"name": "a", "digest": {"sha256": MODEL_DIGEST.to_uppercase()}}]), "lower-case"),
        (whole, "subject", json!([{"name": "a", "digest": {"sha256": "00".repeat(32)}}]), "the digest of the whole"),
        (whole, "predicate", json!({}), "missing field `serialization`"),
        ("/predicate/serialization", "method", json!("shards"), "the method is `shards`"),
        ("/predicate/serialization", "allow_symlinks", Value::Null, "invalid type"),
        (resource, "algorithm", json!("blake3"), "the digest is `blake3`"),
        (resource, "digest", json!("00"), "not 64 hexadecimal digits: .hidden"),
        (resource, "name", json!("../up"), "`..`: ../up"),
        (resource, "name", json!("a/../b"), "`..`: a/../b"),
        (resource, "name", json!("/etc/passwd"), "absolute: /etc/passwd"),
        (resource, "name", json!("a//b"), "empty, `.` or `..`: a//b"),
        (resource, "name", json!("./a"), "empty, `.` or `..`: ./a"),
        (resource, "name", json!(""), "empty, `.` or `..`"),
        (resource, "name", json!("a\\b"), "backslash"),
        (resource, "name", json!("config.json"), "listed twice: config.json"),
    ];
    for (at, field, value, expected) in cases {
        let mut statement = payload(&text("model-p256.sig"));
        statement.pointer_mut(at).unwrap()[field] = value;
        place.sign_payload(&statement);
        let error = place.verify().unwrap_err();
        assert!(all_of(&error).contains(expected), "{at}/{field}: {error}");
        assert!(error.place().is_some(), "{error}");
    }
}

#[test]
fn what_the_official_verifier_takes_is_taken() {
    let place = Place::new();
    let good = payload(&text("model-p256.sig"));
    let mut upper = good.clone();
    let digest = upper["predicate"]["resources"][0]["digest"].as_str().unwrap().to_uppercase();
    upper["predicate"]["resources"][0]["digest"] = digest.into();
    let mut more = good.clone();
    more["x"] = json!(1);
    more["predicate"]["x"] = json!(1);
    more["predicate"]["serialization"]["x"] = json!(1);
    more["subject"][0]["digest"]["blake3"] = json!("00");
    let mut fewer = good.clone();
    fewer["predicate"]["serialization"].as_object_mut().unwrap().remove("ignore_paths");
    let mut outside = good.clone();
    outside["predicate"]["serialization"]["ignore_paths"] =
        json!(["../weights.bin", "/weights.bin", "a/../weights.bin"]);
    for statement in [upper, more, fewer, outside] {
        place.sign_payload(&statement);
        place.verify().unwrap();
    }
    // Signed, and yet left out: the official verifier calls it missing.
    let mut both = good.clone();
    both["predicate"]["serialization"]["ignore_paths"] = json!(["tokenizer/"]);
    place.sign_payload(&both);
    assert_eq!(place.causes(), ["not looked at, for its path is always left out: tokenizer/v1/merges.txt"]);
}

#[test]
fn fingerprints_are_those_of_the_official_tool() {
    for (key, public_key, signature) in
        [("key.pem", "public.pem", "model-p256.sig"), ("key-p384.pem", "public-p384.pem", "model-p384.sig")]
    {
        let bundle: Value = serde_json::from_str(&text(signature)).unwrap();
        assert_eq!(json!(public(public_key).hint()), bundle["verificationMaterial"]["publicKey"]["hint"]);
        assert_eq!(private(key).verifying_key(), public(public_key));
        assert_eq!(public(public_key).to_pem(), text(public_key));
    }
    // The key of `public.pem` in other clothes: compressed, and with a comment and the line ends of Windows.
    let compressed = "-----BEGIN PUBLIC KEY-----\nMDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgAD5Id5+0tqvBz4Pxepl6iviaR3jsV0\n\
        BzmbQz2bZXJLzww=\n-----END PUBLIC KEY-----\n";
    let windows = format!("my key\n{}", text("public.pem")).replace('\n', "\r\n");
    for text in [compressed, &windows] {
        assert_eq!(VerifyingKey::from_pem(text, Path::new("public.pem")).unwrap(), public("public.pem"));
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_in_words() {
    let sec1 = text("key.pem");
    let with_parameters =
        format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{sec1}");
    let key = SigningKey::from_pem(&with_parameters, Path::new("key.pem")).unwrap();
    assert_eq!(key.verifying_key(), public("public.pem"));
    assert_eq!(format!("{key:?}"), "SigningKey(P256(SigningKey { .. }))");

    let koblitz = "-----BEGIN EC PRIVATE KEY-----\nMHQCAQEEILem+KNf5HmXODAZk5OmKbYtprRfl41YpjsNRJDF9JOyoAcGBSuBBAAK\n\
        oUQDQgAEcAb+FXaEuJCyCdD7zhx7JRhuH8K7n4g8Pg7HpWzqU8/Vwsq9Q2DNNZAk\nksIZa5emPScDv0bQgKBMscWjds3ZDQ==\n\
        -----END EC PRIVATE KEY-----\n";
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,EA\n\nzLX=\n\
        -----END EC PRIVATE KEY-----\n";
    let new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let help = "openssl pkey -in key.pem -out key.pem.plain.pem";
    for (text, expected) in [
        (old, help),
        (new, help),
        (koblitz, "another curve"),
        (&text("key-p521.pem"), "another curve"),
        (&text("public.pem"), "it is a public key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIHs\n-----END RSA PRIVATE KEY-----\n", "`RSA PRIVATE KEY`"),
        ("-----BEGIN PRIVATE KEY-----\nM!\n-----END PRIVATE KEY-----\n", "base64"),
        ("-----BEGIN PRIVATE KEY-----\nMIHs\n-----END PRIVATE KEY-----\n", "damaged"),
        (&sec1[..80], "`-----END EC PRIVATE KEY-----` is missing"),
        ("", "no PEM block"),
        (&"x".repeat((1 << 20) + 1), "larger than"),
    ] {
        let error = SigningKey::from_pem(text, Path::new("key.pem")).unwrap_err();
        assert!(all_of(&error).contains(expected), "{expected}: {error}");
        assert_eq!(error.place().unwrap(), "key.pem");
    }
    for (text, expected) in [
        (sec1.as_str(), "openssl pkey -in key.pem -pubout -out public.pem"),
        (&text("public-p521.pem"), "another curve"),
        ("-----BEGIN PUBLIC KEY-----\nMIHs\n-----END PUBLIC KEY-----\n", "damaged"),
        ("", "no `PUBLIC KEY` block"),
    ] {
        let error = VerifyingKey::from_pem(text, Path::new("key.pem")).unwrap_err();
        assert!(all_of(&error).contains(expected), "{expected}: {error}");
    }
}

#[test]
fn statements_come_back_as_they_were_signed() {
    let file = Path::new("s.json");
    let theirs = verify_statement(&text("provenance.sigstore.json"), file, &public("public.pem"), SLSA).unwrap();
    assert_eq!((theirs.subject_name.as_str(), theirs.subject_sha256.as_str()), ("model", MODEL_DIGEST));
    assert_eq!(theirs.predicate["buildDefinition"]["externalParameters"]["recipe"], "linear");
    for (key, public_key) in [("key.pem", "public.pem"), ("key-p384.pem", "public-p384.pem")] {
        let bundle = sign_statement("model", MODEL_DIGEST, SLSA, &theirs.predicate, &private(key)).to_string();
        assert!(bundle.starts_with("{\"mediaType\":"), "{bundle}");
        assert_eq!(verify_statement(&bundle, file, &public(public_key), SLSA).unwrap(), theirs);
        let error = verify_statement(&bundle, file, &public(public_key), FOLDER_PREDICATE).unwrap_err();
        assert!(error.what().contains(SLSA), "{error}");
    }
    // A statement is no signature of a folder, nor the other way round.
    let error = verify_folder(&fixture("model"), &fixture("provenance.sigstore.json"), &public("public.pem"));
    assert!(error.unwrap_err().what().contains(SLSA));
    assert!(verify_statement(&text("model-p256.sig"), file, &public("public.pem"), SLSA).is_err());
    let bundle = sign_statement("model", "abc", SLSA, &json!({}), &private("key.pem")).to_string();
    assert!(verify_statement(&bundle, file, &public("public.pem"), SLSA).is_err());
}
