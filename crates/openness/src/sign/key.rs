//! Keys on the curves P-256 and P-384, read from PEM text, and what they do: sign bytes and check
//! signatures. Knows no bundles and no folders, and reads no files: a path is for messages only.

use base64::{Engine, engine::general_purpose::STANDARD};
use narthex_base::{Error, Result};
use p256::{
    ecdsa::signature::{Signer, Verifier},
    elliptic_curve::zeroize::Zeroizing,
    pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding},
};
use std::path::Path;

/// The longest PEM text that is looked at.
const MAX_PEM_BYTES: usize = 1 << 20;

/// Makes a key that can sign.
const NEW_KEY: &str = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem";

/// A private key that signs: ECDSA with SHA-256 on P-256, or with SHA-384 on P-384. Signing is
/// deterministic (RFC 6979). Its `Debug` form does not show the secret.
#[derive(Clone, Debug)]
pub struct SigningKey(Private);

#[derive(Clone, Debug)]
enum Private {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

/// A public key that checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey(Public);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Public {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
}

impl SigningKey {
    /// The key in a PEM text: SEC1 (`EC PRIVATE KEY`) or PKCS#8 (`PRIVATE KEY`). `file` is where the text
    /// is from.
    ///
    /// # Errors
    /// If there is no such key in the text, if it is encrypted or damaged, or if it is on another curve.
    pub fn from_pem(text: &str, file: &Path) -> Result<Self> {
        let refused = |why: &str| Error::input("cannot use this private key").at(file.display(), None).cause(why);
        let blocks = blocks(text, file)?;
        // `openssl ecparam -genkey` writes the name of the curve in front of the key, which names it too.
        let Some(block) = blocks.iter().find(|block| block.label != "EC PARAMETERS") else {
            return Err(refused("no PEM block with a key is in it").help(NEW_KEY));
        };
        if block.label == "ENCRYPTED PRIVATE KEY" || block.body.contains("Proc-Type:") {
            let shown = file.display();
            return Err(refused("it is encrypted, and Narthex asks for no passphrase")
                .help(format!("openssl pkey -in {shown} -out {shown}.plain.pem")));
        }
        let is_sec1 = match block.label {
            "EC PRIVATE KEY" => true,
            "PRIVATE KEY" => false,
            "PUBLIC KEY" => return Err(refused("it is a public key; signing takes the private one")),
            other => return Err(refused(&format!("a `{other}` block is no key on P-256 or P-384")).help(NEW_KEY)),
        };
        let der = block.der().map_err(|why| refused(&why))?;
        Self::from_der(&der, is_sec1)
            .ok_or_else(|| refused("it is damaged, or on another curve than P-256 and P-384").help(NEW_KEY))
    }

    /// Both curves are tried: the key itself says which it is on.
    fn from_der(der: &[u8], is_sec1: bool) -> Option<Self> {
        let (p256, p384) = if is_sec1 {
            (p256::SecretKey::from_sec1_der(der).ok(), p384::SecretKey::from_sec1_der(der).ok())
        } else {
            (p256::SecretKey::from_pkcs8_der(der).ok(), p384::SecretKey::from_pkcs8_der(der).ok())
        };
        let p256 = p256.map(|key| Private::P256(key.into()));
        p256.or_else(|| p384.map(|key| Private::P384(key.into()))).map(Self)
    }

    /// The public key that belongs to it.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(match &self.0 {
            Private::P256(key) => Public::P256(*key.verifying_key()),
            Private::P384(key) => Public::P384(*key.verifying_key()),
        })
    }

    /// The signature of these bytes, in ASN.1 DER.
    pub(super) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(bytes);
                signature.to_der().as_bytes().to_vec()
            }
            Private::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign(bytes);
                signature.to_der().as_bytes().to_vec()
            }
        }
    }
}

impl VerifyingKey {
    /// The key in a PEM text (`PUBLIC KEY`). `file` is where the text is from.
    ///
    /// # Errors
    /// If there is no such key in the text, if it is damaged, or if it is on another curve.
    pub fn from_pem(text: &str, file: &Path) -> Result<Self> {
        let refused = |why: &str| Error::input("cannot use this public key").at(file.display(), None).cause(why);
        let blocks = blocks(text, file)?;
        let Some(block) = blocks.iter().find(|block| block.label == "PUBLIC KEY") else {
            if blocks.iter().any(|block| block.label.ends_with("PRIVATE KEY")) {
                return Err(refused("it is a private key; whoever checks needs the public one only")
                    .help(format!("openssl pkey -in {} -pubout -out public.pem", file.display())));
            }
            return Err(refused("no `PUBLIC KEY` block is in it"));
        };
        let der = block.der().map_err(|why| refused(&why))?;
        let p256 = p256::PublicKey::from_public_key_der(&der).ok().map(|key| Public::P256(key.into()));
        p256.or_else(|| p384::PublicKey::from_public_key_der(&der).ok().map(|key| Public::P384(key.into())))
            .map(Self)
            .ok_or_else(|| refused("it is damaged, or on another curve than P-256 and P-384"))
    }

    /// The key as PEM text, always in the same form: `PUBLIC KEY`, uncompressed, lines of 64 characters.
    pub fn to_pem(&self) -> String {
        match &self.0 {
            Public::P256(key) => key.to_public_key_pem(LineEnding::LF),
            Public::P384(key) => key.to_public_key_pem(LineEnding::LF),
        }
        .expect("a key that was read can be written")
    }

    /// What a signature names its key by: the SHA-256 of [`Self::to_pem`] in lower-case hexadecimal digits.
    pub fn hint(&self) -> String {
        super::sha256_hex(self.to_pem().as_bytes())
    }

    /// Whether this signature (ASN.1 DER) of these bytes is from this key.
    pub(super) fn fits(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Public::P256(key) => {
                p256::ecdsa::Signature::from_der(signature).is_ok_and(|signature| key.verify(bytes, &signature).is_ok())
            }
            Public::P384(key) => {
                p384::ecdsa::Signature::from_der(signature).is_ok_and(|signature| key.verify(bytes, &signature).is_ok())
            }
        }
    }
}

/// One block of a PEM text. The crates' own reader takes a text of a single block in strict form;
/// people's files begin with comments, hold two blocks, or come from Windows.
struct Block<'a> {
    label: &'a str,
    body: &'a str,
}

impl Block<'_> {
    /// The bytes in it.
    fn der(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let body: Zeroizing<String> = Zeroizing::new(self.body.split_ascii_whitespace().collect());
        STANDARD.decode(body.as_bytes()).map(Zeroizing::new).map_err(|error| format!("its base64 is damaged: {error}"))
    }
}

/// All blocks of a PEM text, in order.
fn blocks<'a>(text: &'a str, file: &Path) -> Result<Vec<Block<'a>>> {
    const BEGIN: &str = "-----BEGIN ";
    const DASHES: &str = "-----";
    let refused = |why: &str| Error::input("cannot read the key").at(file.display(), None).cause(why);
    if text.len() > MAX_PEM_BYTES {
        return Err(refused(&format!("it is larger than {MAX_PEM_BYTES} bytes, which no key is")));
    }
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find(BEGIN) {
        rest = &rest[start + BEGIN.len()..];
        let Some((label, after)) = rest.split_once(DASHES) else { break };
        let end = format!("{DASHES}END {label}{DASHES}");
        let Some((body, after)) = after.split_once(&end) else {
            return Err(refused(&format!("the line `{end}` is missing")));
        };
        found.push(Block { label, body });
        rest = after;
    }
    Ok(found)
}
