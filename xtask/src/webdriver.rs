//! A small client of the W3C WebDriver protocol (<https://www.w3.org/TR/webdriver2/>) that starts
//! chromedriver and one headless Chromium. Knows browsers, not our page.

use serde_json::{Value, json};
use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use ureq::{Agent, http};

/// How long a single command to the browser may take.
const COMMAND_S: u64 = 60;
/// Pause between two looks at something that is awaited.
const POLL_MS: u64 = 30;
/// The key under which the protocol hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. Dropping it closes the browser and its driver.
pub struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
    profile: PathBuf,
}

/// An element of the page.
pub struct Element(String);

impl Browser {
    /// Starts chromedriver (from `CHROMEDRIVER` or the path) and Chromium (at `binary`, or where
    /// chromedriver finds it) with an empty profile.
    pub fn start(binary: Option<&str>) -> Result<Self, String> {
        let profile = env::temp_dir().join(format!("narthex-page-test-{}", std::process::id()));
        fs::create_dir_all(&profile).map_err(|error| format!("error: cannot make {}: {error}", profile.display()))?;
        let (driver, port) = start_driver()?;
        let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(COMMAND_S)));
        let agent: Agent = config.http_status_as_error(false).build().into();
        let mut browser = Self { driver, agent, session: format!("http://127.0.0.1:{port}/session"), profile };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", browser.profile.display()),
        ];
        let mut options = json!({"args": arguments});
        if let Some(binary) = binary {
            options["binary"] = binary.into();
        }
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let session = browser.post("", &capabilities)?;
        let id = session["sessionId"].as_str().ok_or("error: chromedriver gave no session")?;
        browser.session = format!("{}/{id}", browser.session);
        Ok(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        value(self.agent.post(&url).send_json(body), path)
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        value(self.agent.get(format!("{}{path}", self.session)).call(), path)
    }

    /// Opens a page and waits until it has loaded.
    pub fn open(&self, url: &str) -> Result<(), String> {
        self.post("/url", &json!({"url": url})).map(drop)
    }

    /// The first element that fits, if any.
    pub fn find(&self, selector: &str) -> Result<Element, String> {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}))?;
        let id = found[ELEMENT].as_str().ok_or_else(|| format!("no element for {selector}"))?;
        Ok(Element(id.to_string()))
    }

    /// Clicks as a person would: the element must be visible and not covered.
    pub fn click(&self, selector: &str) -> Result<(), String> {
        let element = self.find(selector)?;
        self.post(&format!("/element/{}/click", element.0), &json!({})).map(drop)
    }

    /// Types keys; U+E000 and up are special keys as the protocol numbers them.
    pub fn keys(&self, selector: &str, keys: &str) -> Result<(), String> {
        let element = self.find(selector)?;
        self.post(&format!("/element/{}/value", element.0), &json!({"text": keys})).map(drop)
    }

    /// Empties a field.
    pub fn clear(&self, selector: &str) -> Result<(), String> {
        let element = self.find(selector)?;
        self.post(&format!("/element/{}/clear", element.0), &json!({})).map(drop)
    }

    /// Whether a person sees the element.
    pub fn is_visible(&self, selector: &str) -> Result<bool, String> {
        let script = "const element = document.querySelector(arguments[0]); return element?.checkVisibility() ?? false";
        Ok(self.script(script, json!([selector]))?.as_bool().unwrap_or(false))
    }

    /// The visible text of the last element that fits; empty if there is none.
    pub fn text(&self, selector: &str) -> Result<String, String> {
        let script = "return [...document.querySelectorAll(arguments[0])].at(-1)?.innerText ?? ''";
        Ok(self.script(script, json!([selector]))?.as_str().unwrap_or_default().to_string())
    }

    /// How many elements fit.
    pub fn count(&self, selector: &str) -> Result<u64, String> {
        let count = self.script("return document.querySelectorAll(arguments[0]).length", json!([selector]))?;
        Ok(count.as_u64().unwrap_or(0))
    }

    /// Runs a script in the page and gives what it returns.
    pub fn script(&self, script: &str, arguments: Value) -> Result<Value, String> {
        self.post("/execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// The log entries of one kind (`browser` or `performance`) since the last call.
    pub fn log(&self, kind: &str) -> Result<Vec<Value>, String> {
        let entries = self.post("/se/log", &json!({"type": kind}))?;
        Ok(entries.as_array().cloned().unwrap_or_default())
    }

    /// A command of Chrome's own protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    pub fn devtools(&self, command: &str, parameters: Value) -> Result<Value, String> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// Writes a picture of the window as PNG.
    pub fn screenshot(&self, path: &Path) -> Result<(), String> {
        let picture = self.get("/screenshot")?;
        let bytes = decode_base64(picture.as_str().unwrap_or_default());
        fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Waits until `ready` holds; the error tells what was awaited.
    pub fn wait(
        &self,
        what: &str,
        limit_s: u64,
        mut ready: impl FnMut(&Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let start = Instant::now();
        while !ready(self)? {
            if start.elapsed() > Duration::from_secs(limit_s) {
                return Err(format!("waited {limit_s} s for {what}"));
            }
            thread::sleep(Duration::from_millis(POLL_MS));
        }
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = self.agent.delete(&self.session).call();
        _ = self.driver.kill();
        _ = self.driver.wait();
        _ = fs::remove_dir_all(&self.profile);
    }
}

/// Starts chromedriver on a free port and gives that port.
fn start_driver() -> Result<(Child, u16), String> {
    let program = env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".into());
    let mut command = Command::new(&program);
    command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
    let mut driver = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!(
            "error: cannot find {program}\n help: apt-get install -y chromium chromium-driver, or set CHROMEDRIVER to its path"
        ),
        _ => format!("error: cannot start {program}\ncause: {error}"),
    })?;
    let output = driver.stdout.take().ok_or("error: chromedriver has no output")?;
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        // "ChromeDriver was started successfully on port 34567."
        let port = line.split_once("on port ").map(|(_, rest)| rest.trim_end_matches('.'));
        if let Some(port) = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0) {
            return Ok((driver, port));
        }
    }
    _ = driver.wait();
    Err(format!("error: {program} ended without telling its port"))
}

fn value(response: Result<http::Response<ureq::Body>, ureq::Error>, path: &str) -> Result<Value, String> {
    let mut response = response.map_err(|error| format!("chromedriver does not answer to {path}: {error}"))?;
    // Performance logs are larger than the usual limit.
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string();
    let text = text.map_err(|error| format!("cannot read chromedriver's answer to {path}: {error}"))?;
    let mut answer: Value =
        serde_json::from_str(&text).map_err(|error| format!("chromedriver's answer to {path}: {error}"))?;
    match answer["value"]["error"].as_str() {
        Some(error) => {
            let message = answer["value"]["message"].as_str().unwrap_or_default();
            Err(format!("{error}: {}", message.lines().next().unwrap_or_default()))
        }
        None => Ok(answer["value"].take()),
    }
}

/// Bytes of standard base64 (RFC 4648), other characters skipped.
fn decode_base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for character in text.bytes() {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64() {
        for (text, bytes) in [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("+/8=", b"\xfb\xff")]
        {
            assert_eq!(super::decode_base64(text), bytes, "{text}");
        }
    }
}
