//! The envelope of a signature: a Sigstore bundle (v0.3) that holds an in-toto statement in DSSE form,
//! read as strictly as the official verifier reads it. Knows keys and statements, no folders.

use super::key::{SigningKey, VerifyingKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// The only media type that the official verifier takes for signatures by a key.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What the signed bytes are.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The only form of statement there is.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The digest that a subject must have.
const SUBJECT_DIGEST: &str = "sha256";

/// A bundle as written and as read. Fields stand in the order of the official file; `alias` because the
/// official reader takes both spellings. A bundle has no room for fields of our own.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bundle {
    #[serde(alias = "media_type")]
    media_type: String,
    #[serde(alias = "verification_material")]
    verification_material: Material,
    #[serde(alias = "message_signature", skip_serializing_if = "Option::is_none")]
    message_signature: Option<Value>,
    #[serde(alias = "dsse_envelope")]
    dsse_envelope: Option<Envelope>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(alias = "public_key")]
    public_key: Option<KeyName>,
    #[serde(alias = "x509_certificate_chain", skip_serializing_if = "Option::is_none")]
    x509_certificate_chain: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Value>,
    #[serde(default, alias = "tlog_entries")]
    tlog_entries: Vec<Value>,
    #[serde(alias = "timestamp_verification_data", skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

/// Which key signed. Version 1.0 of the official signer wrote the key itself here, which proves nothing:
/// it is read past.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyName {
    hint: Option<String>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "taken, so that it is no unknown field")]
    raw_bytes: Option<Value>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "taken, so that it is no unknown field")]
    key_details: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    #[serde(alias = "payload_type")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    keyid: Option<String>,
}

/// An in-toto statement. Unknown fields are passed over, as its specification asks.
#[derive(Serialize, Deserialize)]
struct InToto {
    #[serde(rename = "_type")]
    form: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

/// A statement whose signature and form were checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is about.
    pub subject_name: String,
    /// The SHA-256 of what it is about, in lower-case hexadecimal digits.
    pub subject_sha256: String,
    /// What it says.
    pub predicate: Value,
}

/// The bundle of a signed statement about one subject, as a value that can be written.
pub(super) fn sign(subject: &Statement, predicate_type: &str, key: &SigningKey) -> impl Serialize + use<> {
    let statement = InToto {
        form: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: subject.subject_name.clone(),
            digest: BTreeMap::from([(SUBJECT_DIGEST.into(), subject.subject_sha256.clone())]),
        }],
        predicate_type: predicate_type.into(),
        predicate: subject.predicate.clone(),
    };
    let payload = serde_json::to_vec(&statement).expect("a value of our own types serializes");
    let sig = STANDARD.encode(key.sign(&signed_bytes(&payload)));
    Bundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material {
            public_key: Some(KeyName { hint: Some(key.verifying_key().hint()), raw_bytes: None, key_details: None }),
            x509_certificate_chain: None,
            certificate: None,
            tlog_entries: vec![],
            timestamp_verification_data: None,
        },
        message_signature: None,
        dsse_envelope: Some(Envelope {
            payload: STANDARD.encode(&payload),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![Signature { sig, keyid: Some(String::new()) }],
        }),
    }
}

/// Whether a text is a bundle at all.
pub(super) fn is_bundle(text: &str) -> bool {
    serde_json::from_str::<Bundle>(text).is_ok()
}

/// The statement in a bundle, after all checks in the order of the official verifier: form, key,
/// signature, then what was signed.
pub(super) fn verify(text: &str, file: &Path, key: &VerifyingKey, predicate_type: &str) -> Result<Statement> {
    let bundle: Bundle = serde_json::from_str(text)
        .map_err(|error| Error::input("this is not a Sigstore bundle").at(file.display(), error.line()).cause(error))?;
    let envelope = key_envelope(bundle, key).map_err(|error| error.at(file.display(), None))?;
    let statement = open(&envelope, key).map_err(|error| error.at(file.display(), None))?;
    checked(statement, predicate_type).map_err(|error| error.at(file.display(), None))
}

/// The envelope of a bundle that this key is said to have signed.
fn key_envelope(bundle: Bundle, key: &VerifyingKey) -> Result<Envelope> {
    let material = bundle.verification_material;
    if bundle.media_type != MEDIA_TYPE {
        return Err(Error::input(format!("the bundle has the media type `{}`", bundle.media_type))
            .cause(format!("only `{MEDIA_TYPE}` is known")));
    }
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(Error::input("this was signed with a certificate, not with a key")
            .help("check it with the official tool: `model_signing verify certificate --help`"));
    }
    let Some(named) = material.public_key else {
        return Err(Error::input("the bundle does not say which key signed it")
            .cause("`verificationMaterial` has no `publicKey`"));
    };
    let (Some(envelope), None) = (bundle.dsse_envelope, bundle.message_signature) else {
        return Err(Error::input("the bundle holds no statement").cause("it must have `dsseEnvelope`, and that alone"));
    };
    // Older signatures have no hint. It is a help for messages only: the signature itself decides.
    let hint = named.hint.unwrap_or_default();
    if !hint.is_empty() && hint != key.hint() {
        return Err(Error::input("the signature was made with another key")
            .cause(format!("the key that signed has the fingerprint {}", shown(&hint)))
            .cause(format!("the key given has the fingerprint {}", key.hint()))
            .help("give the public key of whoever signed; `sha256sum public.pem` shows a key's fingerprint"));
    }
    Ok(envelope)
}

/// What an envelope holds, if its signature is from this key.
fn open(envelope: &Envelope, key: &VerifyingKey) -> Result<InToto> {
    // The official verifier looks at the first signature only. More of them prove nothing to whoever has one key.
    let Some(signature) = envelope.signatures.first() else {
        return Err(Error::input("the bundle holds no signature").cause("`signatures` is empty"));
    };
    let payload = decoded("payload", &envelope.payload)?;
    if !key.fits(&signed_bytes(&payload), &decoded("sig", &signature.sig)?) {
        return Err(Error::input("the signature is wrong")
            .cause("this key did not sign what the bundle holds: the bundle was changed, or another key signed it"));
    }
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(Error::input(format!("the bundle holds `{}`", shown(&envelope.payload_type)))
            .cause(format!("only `{PAYLOAD_TYPE}` is known")));
    }
    serde_json::from_slice(&payload)
        .map_err(|error| Error::input("what was signed is no in-toto statement").cause(error))
}

/// A statement of the type that is asked for, about one subject.
fn checked(statement: InToto, predicate_type: &str) -> Result<Statement> {
    if statement.form != STATEMENT_TYPE {
        return Err(Error::input(format!("what was signed has the type `{}`", shown(&statement.form)))
            .cause(format!("only `{STATEMENT_TYPE}` is known")));
    }
    if statement.predicate_type != predicate_type {
        return Err(Error::input(format!("what was signed is a `{}`", shown(&statement.predicate_type)))
            .cause(format!("a `{predicate_type}` was asked for")));
    }
    let count = statement.subject.len();
    let mut subjects = statement.subject.into_iter();
    let (Some(mut subject), None) = (subjects.next(), subjects.next()) else {
        return Err(Error::input(format!("the statement is about {count} subjects")).cause("it must be about one"));
    };
    let digest = subject.digest.remove(SUBJECT_DIGEST).unwrap_or_default();
    if digest.len() != 64 || !digest.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::input("the statement's subject has no proper digest")
            .cause(format!("`{SUBJECT_DIGEST}` must be 64 lower-case hexadecimal digits")));
    }
    Ok(Statement { subject_name: subject.name, subject_sha256: digest, predicate: statement.predicate })
}

/// The bytes that are signed, in DSSE's pre-authentication encoding. The payload's type in it is the one
/// we know, not the one that an envelope claims.
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The bytes of a field in base64.
fn decoded(field: &str, text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|error| Error::input(format!("`{field}` is not base64")).cause(error))
}

/// A text from elsewhere, such that it can do nothing to a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
