//! Signatures of agent cards: JSON Web Signatures (RFC 7515) by ES256 over the card's canonical JSON (RFC 8785), as
//! section 8.4 of the specification has them. Knows keys and JSON, not what a card says.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use narthex_base::{Digest, Error, Result};
use p256::{
    ecdsa::{
        Signature,
        signature::{Signer, Verifier},
    },
    pkcs8::{DecodePrivateKey, DecodePublicKey},
};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The only algorithm that we sign with and accept: the header's word for it is compared, never obeyed.
const ALGORITHM: &str = "ES256";

/// The most signatures of a card that are looked at.
const SIGNATURES_MAX: usize = 16;

/// Makes a key that can sign.
const NEW_KEY: &str = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem";

/// A private key on P-256 that signs cards. Its `Debug` form does not show the secret.
#[derive(Clone, Debug)]
pub struct CardSigner {
    key: p256::ecdsa::SigningKey,
    id: String,
}

/// A public key on P-256 that cards are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardKey {
    key: p256::ecdsa::VerifyingKey,
    id: String,
}

impl CardSigner {
    /// The key in a PEM text: SEC1 (`EC PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`). `file` is where the text is from.
    ///
    /// # Errors
    /// If there is no such key in the text, or it is on another curve than P-256.
    pub fn from_pem(text: &str, file: &Path) -> Result<Self> {
        let text = block(text, "PRIVATE KEY");
        let secret = p256::SecretKey::from_sec1_pem(&text).or_else(|_| p256::SecretKey::from_pkcs8_pem(&text));
        let secret = secret.map_err(|_| {
            Error::input("cannot sign agent cards with this key")
                .at(file.display(), None)
                .cause("it is no unencrypted private key on P-256 in PEM form")
                .help(NEW_KEY)
        })?;
        let key = p256::ecdsa::SigningKey::from(secret);
        let id = key_id(key.verifying_key());
        Ok(Self { key, id })
    }

    /// The public key that belongs to it.
    pub fn card_key(&self) -> CardKey {
        CardKey { key: *self.key.verifying_key(), id: self.id.clone() }
    }

    /// The same card with one signature more. `keys_url` is where the public key is published.
    pub(crate) fn sign(&self, card: &mut Value, keys_url: &str) {
        let header = json!({"alg": ALGORITHM, "typ": "JOSE", "kid": self.id, "jku": keys_url});
        let protected = URL_SAFE_NO_PAD.encode(header.to_string());
        let signature: Signature = self.key.sign(signed_text(&protected, &payload(card)).as_bytes());
        let signature = json!({"protected": protected, "signature": URL_SAFE_NO_PAD.encode(signature.to_bytes())});
        if let Some(signatures) = card.get_mut("signatures").and_then(Value::as_array_mut) {
            signatures.push(signature);
        } else if let Some(card) = card.as_object_mut() {
            card.insert("signatures".into(), json!([signature]));
        }
    }
}

impl CardKey {
    /// The key in a PEM text (`PUBLIC KEY`). `file` is where the text is from.
    ///
    /// # Errors
    /// If there is no such key in the text, or it is on another curve than P-256.
    pub fn from_pem(text: &str, file: &Path) -> Result<Self> {
        let key = p256::PublicKey::from_public_key_pem(&block(text, "PUBLIC KEY")).map_err(|_| {
            Error::input("cannot check agent cards with this key")
                .at(file.display(), None)
                .cause("it is no public key on P-256 in PEM form")
                .help("openssl pkey -in key.pem -pubout -out public.pem")
        })?;
        let key = p256::ecdsa::VerifyingKey::from(key);
        Ok(Self { id: key_id(&key), key })
    }

    /// What signatures name it by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As a JSON Web Key (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        let point = self.key.to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "alg": ALGORITHM, "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
    }

    /// Whether one of the card's signatures is from this key.
    pub(crate) fn fits(&self, card: &Value) -> bool {
        let signatures = card.get("signatures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // What a default stands for may have been written or left out: either is the same card.
        let payloads = [payload(card), payload(&without_empty(card))];
        signatures.iter().take(SIGNATURES_MAX).any(|signature| {
            let text = |key: &str| signature.get(key).and_then(Value::as_str);
            let (Some(protected), Some(bytes)) = (text("protected"), text("signature")) else { return false };
            let Some(header) = decoded(protected).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()) else {
                return false;
            };
            let is_plain = header.get("alg").and_then(Value::as_str) == Some(ALGORITHM) && header.get("crit").is_none();
            let Some(bytes) = decoded(bytes).and_then(|bytes| Signature::from_slice(&bytes).ok()) else { return false };
            is_plain
                && payloads
                    .iter()
                    .any(|payload| self.key.verify(signed_text(protected, payload).as_bytes(), &bytes).is_ok())
        })
    }
}

/// The block of a PEM text whose label ends so, alone: `openssl ecparam` writes another in front of it.
fn block(text: &str, label: &str) -> String {
    let lines = text.lines().map(str::trim);
    let mut taken = String::new();
    for line in lines.skip_while(|line| !(line.starts_with("-----BEGIN ") && line.ends_with(&format!("{label}-----"))))
    {
        taken.push_str(line);
        taken.push('\n');
        if line.starts_with("-----END ") {
            break;
        }
    }
    taken
}

/// The same key has the same id everywhere.
fn key_id(key: &p256::ecdsa::VerifyingKey) -> String {
    Digest::of(key.to_sec1_point(true).as_bytes()).short()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// The canonical JSON of a card without its signatures, in base64.
fn payload(card: &Value) -> String {
    let mut card = card.clone();
    if let Some(card) = card.as_object_mut() {
        card.remove("signatures");
    }
    // It fails on nothing that was parsed as JSON.
    URL_SAFE_NO_PAD.encode(serde_json_canonicalizer::to_vec(&card).unwrap_or_default())
}

fn signed_text(protected: &str, payload: &str) -> String {
    format!("{protected}.{payload}")
}

/// Without empty texts, lists and objects, which in Protocol Buffers are as good as absent.
fn without_empty(value: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(key, value)| (key.clone(), without_empty(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC1: &str = include_str!("../tests/keys/key.pem");
    const PKCS8: &str = include_str!("../tests/keys/key-pkcs8.pem");
    const PUBLIC: &str = include_str!("../tests/keys/public.pem");
    const OTHER: &str = include_str!("../tests/keys/other-public.pem");

    fn signed() -> Value {
        let mut card = json!({"name": "bard", "version": "1", "skills": [], "capabilities": {"streaming": true},
            "description": "sings \u{e9}\u{1d11e} \"loud\""});
        let signer = CardSigner::from_pem(SEC1, Path::new("key.pem")).unwrap();
        signer.sign(&mut card, "https://example.com/keys.json");
        card
    }

    /// Changes a signed card and checks it with the right key.
    fn check(change: impl Fn(&mut Value), expected: bool) {
        let key = CardKey::from_pem(PUBLIC, Path::new("public.pem")).unwrap();
        let mut card = signed();
        change(&mut card);
        assert_eq!(key.fits(&card), expected, "{card}");
    }

    #[test]
    fn a_signature_is_of_all_that_a_card_says() {
        check(|_| {}, true);
        check(|card| card["name"] = json!("bart"), false);
        check(|card| card["url"] = json!("https://evil.example/"), false);
        check(|card| _ = card.as_object_mut().unwrap().remove("description"), false);
        // The order of keys and other signatures say nothing.
        check(|card| *card = serde_json::from_str(&serde_json_canonicalizer::to_string(card).unwrap()).unwrap(), true);
        check(|card| card["signatures"].as_array_mut().unwrap().insert(0, json!({"protected": "e30"})), true);
        check(|card| card["signatures"] = json!([]), false);
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "HS256"}),
            json!({}),
            json!({"alg": "ES256", "crit": ["b64"], "b64": false}),
        ] {
            let protected = URL_SAFE_NO_PAD.encode(header.to_string());
            check(|card| card["signatures"][0]["protected"] = json!(protected), false);
        }
        for signature in ["", "AAAA", "!"] {
            check(|card| card["signatures"][0]["signature"] = json!(signature), false);
        }
        assert!(!CardKey::from_pem(OTHER, Path::new("o")).unwrap().fits(&signed()), "another key");
    }

    #[test]
    fn defaults_may_be_written_or_left_out() {
        let signer = CardSigner::from_pem(PKCS8, Path::new("key.pem")).unwrap();
        let mut card = json!({"name": "bard", "capabilities": {"streaming": false}});
        signer.sign(&mut card, "");
        card["skills"] = json!([]);
        card["capabilities"]["extensions"] = json!([]);
        assert!(signer.card_key().fits(&card));
        card["capabilities"]["streaming"] = json!(true);
        assert!(!signer.card_key().fits(&card));
    }

    #[test]
    fn keys_are_read_in_the_forms_that_openssl_writes() {
        let (sec1, pkcs8) = (CardSigner::from_pem(SEC1, Path::new("a")), CardSigner::from_pem(PKCS8, Path::new("b")));
        let public = CardKey::from_pem(PUBLIC, Path::new("c")).unwrap();
        assert_eq!((sec1.unwrap().card_key(), pkcs8.unwrap().card_key()), (public.clone(), public.clone()));
        let jwk = public.jwk();
        assert_eq!((jwk["x"].as_str().unwrap().len(), jwk["y"].as_str().unwrap().len()), (43, 43));
        for wrong in ["", PUBLIC, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(CardSigner::from_pem(wrong, Path::new("a")).is_err());
        }
        assert!(CardKey::from_pem(SEC1, Path::new("a")).is_err());
    }
}
