//! State that a client carries for us between two turns: sealed to the user, the tool and the arguments, and for a
//! while only. What comes back is a stranger's input until it is opened here. Knows no request.

use narthex_base::Digest;
use rmcp::model::{RequestStateCodec, SealOptions};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Bytes of sealed state that are looked at.
const SEALED_BYTES_MAX: usize = 256 << 10;

/// Seals and opens.
pub(crate) struct Seals(RequestStateCodec);

/// What is sealed. The SDK's own lapse reads the machine's clock, which no test can set.
#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    /// Milliseconds since 1970 from which on it is refused.
    until_ms: Option<u64>,
    held: T,
}

/// What sealed state is good for, and nothing else.
pub(crate) struct Purpose(String);

impl Purpose {
    /// For going on with this call of this user.
    pub fn call(tenant: &str, kind: &str, name: &str, arguments: &Value) -> Self {
        // Written as JSON, so that no name can run into the next.
        Self(serde_json::json!([kind, tenant, name, Digest::of(canonical(arguments).as_bytes())]).to_string())
    }

    /// For naming a run of this user.
    pub fn task(tenant: &str) -> Self {
        Self(serde_json::json!(["task", tenant]).to_string())
    }
}

impl Seals {
    /// With a secret of the server; its type says that it is long enough. State that another secret sealed is refused.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(RequestStateCodec::new_unchecked(secret.to_vec()))
    }

    /// Seals a value for a purpose; until then, in milliseconds since 1970, or for good.
    pub fn seal<T: Serialize>(&self, held: &T, purpose: &Purpose, until_ms: Option<u64>) -> Result<String, String> {
        let options = SealOptions::new().associated_data(purpose.0.as_bytes());
        self.0.seal_json_with(&Sealed { until_ms, held }, &options).map_err(|error| error.to_string())
    }

    /// Opens what was sealed for this purpose.
    ///
    /// # Errors
    /// If it was changed, has lapsed, or was sealed for another user, tool or other arguments; which, it does not say.
    pub fn open<T: DeserializeOwned>(&self, sealed: &str, purpose: &Purpose, now_ms: u64) -> Result<T, String> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(format!("the state is longer than {SEALED_BYTES_MAX} bytes"));
        }
        let opened: Option<Sealed<T>> = self.0.open_json_with(sealed, purpose.0.as_bytes()).ok();
        opened
            .filter(|sealed| sealed.until_ms.is_none_or(|until_ms| now_ms < until_ms))
            .map(|sealed| sealed.held)
            .ok_or_else(|| {
                "the state is not one that this server gave for this call, or it has lapsed: call again without it"
                    .into()
            })
    }
}

/// A value with the keys of its objects in order: the same arguments are the same text, however they are written.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort();
                Value::Object(names.into_iter().map(|name| (name.clone(), sorted(&fields[name]))).collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sealed_state_is_good_for_one_call_only() {
        let seals = Seals::new(&[7; 32]);
        let purpose = || Purpose::call("ann", "tools/call", "mail.send", &json!({"to": "bob", "n": 1}));
        let sealed = seals.seal(&json!({"run": "r1"}), &purpose(), Some(1000)).unwrap();
        let check = |seals: &Seals, sealed: &str, purpose: Purpose, expected: bool| {
            let opened = seals.open::<Value>(sealed, &purpose, 999);
            assert_eq!(opened.is_ok(), expected, "{sealed} for {}: {opened:?}", purpose.0);
        };
        check(&seals, &sealed, purpose(), true);
        // The same arguments in another order.
        check(&seals, &sealed, Purpose::call("ann", "tools/call", "mail.send", &json!({"n": 1, "to": "bob"})), true);
        check(&seals, &sealed, Purpose::call("eve", "tools/call", "mail.send", &json!({"to": "bob", "n": 1})), false);
        check(&seals, &sealed, Purpose::call("ann", "tools/call", "mail.read", &json!({"to": "bob", "n": 1})), false);
        check(&seals, &sealed, Purpose::call("ann", "tools/call", "mail.send", &json!({"to": "bob", "n": 2})), false);
        check(&seals, &sealed, Purpose::call("ann", "prompts/get", "mail.send", &json!({"to": "bob", "n": 1})), false);
        check(&seals, &sealed, Purpose::task("ann"), false);
        check(&Seals::new(&[8; 32]), &sealed, purpose(), false);
        check(&seals, "", purpose(), false);
        check(&seals, &format!("{sealed}x"), purpose(), false);
        check(&seals, &"x".repeat(SEALED_BYTES_MAX + 1), purpose(), false);
        for place in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            check(&seals, &String::from_utf8(bytes).unwrap(), purpose(), false);
        }
        assert!(seals.open::<Value>(&sealed, &purpose(), 1000).is_err(), "it has lapsed");
        let for_good = seals.seal(&json!({"run": "r1"}), &purpose(), None).unwrap();
        assert!(seals.open::<Value>(&for_good, &purpose(), u64::MAX).is_ok());
    }
}
