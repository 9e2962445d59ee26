//! The chat page in headless Chromium: what a person does with it, step by step, against a running
//! server with any model. Knows the page's test ids and the server's API.

use crate::webdriver::Browser;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

const USAGE: &str = "\
usage: cargo xtask page-test [--url URL] [--serve COMMAND] [--api-key KEY] [--binary PATH] [--screenshot PATH]

  --url URL          the server (http://127.0.0.1:8000)
  --serve COMMAND    starts the server first, and ends it in the end
  --api-key KEY      the key that the server asks for
  --binary PATH      Chromium, if chromedriver does not find it by itself
  --screenshot PATH  writes PATH (png), and beside it the same dark (-dark) and narrow (-narrow)";

/// How long a model may take to load.
const START_S: u64 = 120;
/// How long an answer may take.
const ANSWER_S: u64 = 120;
/// How long the page may take to react.
const REACT_S: u64 = 10;
/// How long the panel takes to slide away, and a little more.
const PANEL_MS: u64 = 400;
/// Longer than the page waits before it reads the server's figures again.
const FIGURES_MS: u64 = 3000;
/// Answers that may end by themselves before one lives long enough to be stopped.
const STOP_ATTEMPTS: usize = 8;
/// Clicks on Stop as soon as an answer has any text.
const STOP_AT_FIRST_TEXT: &str = "const watch = new MutationObserver(() => {
    if (!document.querySelector('.message.streaming .text')?.textContent) return;
    watch.disconnect();
    document.getElementById('stop').click();
}); watch.observe(document.getElementById('messages'), {characterData: true, childList: true, subtree: true})";

// Special keys of the WebDriver protocol.
const ENTER: &str = "\u{e007}";
const SHIFT: &str = "\u{e008}";
const RELEASE: &str = "\u{e000}";
const ARROW_LEFT: &str = "\u{e012}";

struct Options {
    url: String,
    serve: Option<String>,
    key: Option<String>,
    binary: Option<String>,
    screenshot: Option<PathBuf>,
}

/// Runs all checks; an error if one failed.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let Some(options) = read(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let _server = options.serve.as_deref().map(Server::start).transpose()?;
    wait_for_health(&options.url)?;
    let page = Page { browser: Browser::start(options.binary.as_deref())?, options };
    let checks: [(&str, Check); 14] = [
        ("opens, with key if asked, and shows the model", Page::opens),
        ("all controls have names", Page::controls_have_names),
        ("Shift+Enter starts a line, Enter sends", Page::keys_send),
        ("text arrives in pieces", Page::streams),
        ("tokens and tokens/s are shown", Page::shows_figures),
        ("figures of the server are shown, and read only then", Page::shows_serving),
        ("markup stays text", Page::markup_stays_text),
        ("Stop ends a long answer", Page::stops),
        ("settings change the request and are kept", Page::changes_settings),
        ("lineage and licences are shown", Page::shows_lineage),
        ("an error is shown in place, and can be retried", Page::shows_errors),
        ("new chat clears the conversation", Page::starts_anew),
        ("no errors on the console", Page::console_is_clean),
        ("no request to anyone else", Page::stays_at_home),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        match check(&page) {
            Ok(()) => println!("ok    {name}"),
            Err(error) => {
                failed += 1;
                println!("FAIL  {name}: {error}");
            }
        }
    }
    println!("{} passed, {failed} failed", checks.len() - failed);
    if failed == 0 { Ok(()) } else { Err(format!("error: {failed} checks of the page failed")) }
}

fn read(arguments: &[String]) -> Result<Option<Options>, String> {
    let url = "http://127.0.0.1:8000".to_string();
    let mut options = Options { url, serve: None, key: None, binary: None, screenshot: None };
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let mut value = || arguments.next().cloned().ok_or(format!("error: {name} needs a value\n{USAGE}"));
        match name.as_str() {
            "--url" => options.url = value()?.trim_end_matches('/').to_string(),
            "--serve" => options.serve = Some(value()?),
            "--api-key" => options.key = Some(value()?),
            "--binary" => options.binary = Some(value()?),
            "--screenshot" => options.screenshot = Some(value()?.into()),
            _ => return Err(format!("error: unknown option {name}\n{USAGE}")),
        }
    }
    Ok(Some(options))
}

/// A server that this test started. It ends with all its children.
struct Server(Child);

impl Server {
    fn start(command: &str) -> Result<Self, String> {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell.spawn().map(Server).map_err(|error| format!("error: cannot start `{command}`\ncause: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child leads a process group of its own, so that this reaches what the shell started.
        _ = Command::new("kill").args(["-TERM", "--", &format!("-{}", self.0.id())]).status();
        _ = self.0.wait();
    }
}

fn wait_for_health(url: &str) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let error = match ureq::get(format!("{url}/health")).call() {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if start.elapsed() > Duration::from_secs(START_S) {
            return Err(format!(
                "error: nothing answers at {url}/health\ncause: {error}\n help: start `narthex serve`, or pass --serve"
            ));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

type Check = fn(&Page) -> Result<(), String>;

struct Page {
    browser: Browser,
    options: Options,
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// The selector of a test id.
fn id(name: &str) -> String {
    format!("[data-testid=\"{name}\"]")
}

impl Page {
    /// What the server answers to a GET.
    fn api(&self, path: &str) -> Result<Value, String> {
        let mut request = ureq::get(format!("{}{path}", self.options.url));
        if let Some(key) = &self.options.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let answer = request.call().map_err(|error| format!("{path}: {error}"))?.body_mut().read_json();
        answer.map_err(|error| format!("{path}: {error}"))
    }

    fn send(&self, text: &str) -> Result<(), String> {
        self.browser.keys(&id("input"), &format!("{text}{ENTER}"))
    }

    fn is_answering(&self) -> Result<bool, String> {
        self.browser.is_visible(&id("stop"))
    }

    fn wait_for_end(&self) -> Result<(), String> {
        self.browser.wait("the end of the answer", ANSWER_S, |_| Ok(!self.is_answering()?))
    }

    /// The number of tokens under the last answer.
    fn tokens(&self) -> Result<u64, String> {
        let figures = self.browser.text(&id("figures"))?;
        let number = figures.split(' ').next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("no number of tokens in `{figures}`"))
    }

    fn opens(&self) -> Result<(), String> {
        self.browser.open(&format!("{}/", self.options.url))?;
        if let Some(key) = &self.options.key {
            self.browser.wait("the field for the key", REACT_S, |browser| browser.is_visible(&id("key-form")))?;
            self.browser.keys(&id("api-key"), "not-the-key")?;
            self.browser.click(&id("use-key"))?;
            self.browser
                .wait("the refusal of a wrong key", REACT_S, |browser| Ok(!browser.text("#key-error")?.is_empty()))?;
            self.browser.clear(&id("api-key"))?;
            self.browser.keys(&id("api-key"), key)?;
            self.browser.click(&id("use-key"))?;
        }
        let model = self.api("/v1/models")?["data"][0]["id"].as_str().unwrap_or_default().to_string();
        self.browser.wait("the model's name", REACT_S, |browser| Ok(browser.text(&id("model-name"))? == model))?;
        let class = self.api("/v1/provenance")?["openness"]["class_name"].as_str().unwrap_or_default().to_string();
        self.browser
            .wait("the openness class", REACT_S, |browser| Ok(browser.text(&id("openness"))?.contains(&class)))?;
        let license = self.api("/v1/provenance")?["license"].as_str().unwrap_or_default().replace("LicenseRef-", "");
        self.browser.wait("the licence", REACT_S, |browser| Ok(browser.text(&id("license"))?.contains(&license)))?;
        ensure(!self.browser.is_visible(&id("key-form"))?, || "the field for a key is still there".into())
    }

    fn controls_have_names(&self) -> Result<(), String> {
        let script = "return [...document.querySelectorAll('button, input, textarea, summary')]
            .filter((element) => !(element.labels?.length || element.ariaLabel || element.textContent.trim()))
            .map((element) => element.outerHTML)";
        let nameless = self.browser.script(script, serde_json::json!([]))?;
        ensure(nameless.as_array().is_some_and(Vec::is_empty), || format!("without a name: {nameless}"))?;
        let focus = self.browser.script("return document.activeElement.id", serde_json::json!([]))?;
        ensure(focus == "input", || format!("the focus is on {focus}, not on the message field"))
    }

    fn keys_send(&self) -> Result<(), String> {
        // Counts how often the text of answers grows from here on.
        let script = "window.growth = 0; new MutationObserver((changes) => { window.growth += changes.length })
            .observe(document.getElementById('messages'), {characterData: true, subtree: true})";
        self.browser.script(script, serde_json::json!([]))?;
        self.browser.keys(&id("input"), &format!("Who are you,{SHIFT}{ENTER}{RELEASE}and what do you want?"))?;
        ensure(self.browser.count(&id("message"))? == 0, || "Shift+Enter sent the message".into())?;
        self.browser.keys(&id("input"), ENTER)?;
        self.browser.wait("the message", REACT_S, |browser| Ok(browser.count(&id("user-text"))? == 1))?;
        let text = self.browser.text(&id("user-text"))?;
        ensure(text == "Who are you,\nand what do you want?", || format!("the message became `{text}`"))
    }

    fn streams(&self) -> Result<(), String> {
        self.browser.wait("the beginning of the answer", ANSWER_S, |browser| {
            Ok(!browser.text(&id("assistant-text"))?.is_empty())
        })?;
        self.wait_for_end()?;
        let growth = self.browser.script("return window.growth", serde_json::json!([]))?;
        let tokens = self.tokens()?;
        ensure(growth.as_u64() >= Some(2) || tokens < 2, || format!("{tokens} tokens came in {growth} pieces"))
    }

    fn shows_figures(&self) -> Result<(), String> {
        let figures = self.browser.text(&id("figures"))?;
        let tokens = self.tokens()?;
        ensure(tokens > 0 && (figures.contains(" tokens/s") || tokens == 1), || format!("the figures are `{figures}`"))
    }

    fn shows_serving(&self) -> Result<(), String> {
        let reads = self.metrics_reads()?;
        ensure(reads == 0, || format!("{reads} reads of the figures while nobody saw them"))?;
        self.browser.click("#serving summary")?;
        self.wait_for_figure("running", REACT_S)?;
        self.send("What else?")?;
        self.wait_for_figure("first-token-p50", ANSWER_S)?;
        self.browser.wait("tokens that were generated", REACT_S, |browser| {
            let decode = browser.text(&id("serving-decode"))?;
            Ok(decode.ends_with(" tokens/s") && decode != "0 tokens/s")
        })?;
        self.wait_for_figure("prefill", REACT_S)?;
        self.wait_for_end()?;
        let shown = self.browser.text("#serving")?;
        let odd = ["NaN", "Infinity", "undefined", "null"].iter().any(|word| shown.contains(word));
        ensure(!odd && self.browser.text("#serving-problem")?.is_empty(), || format!("the figures are `{shown}`"))?;
        self.browser.click("#serving summary")?;
        thread::sleep(Duration::from_millis(PANEL_MS));
        let reads = self.metrics_reads()?;
        thread::sleep(Duration::from_millis(FIGURES_MS));
        ensure(self.metrics_reads()? == reads, || "the figures are still read after the section was closed".into())
    }

    fn wait_for_figure(&self, name: &str, limit_s: u64) -> Result<(), String> {
        let selector = id(&format!("serving-{name}"));
        self.browser.wait(&format!("the figure {name}"), limit_s, |browser| {
            let text = browser.text(&selector)?;
            Ok(!text.is_empty() && text != "—")
        })
    }

    /// How often the page has read the server's figures.
    fn metrics_reads(&self) -> Result<u64, String> {
        let script = "return performance.getEntriesByType('resource')
            .filter((entry) => new URL(entry.name).pathname === '/metrics').length";
        Ok(self.browser.script(script, serde_json::json!([]))?.as_u64().unwrap_or(0))
    }

    fn markup_stays_text(&self) -> Result<(), String> {
        let markup = "<img src=x onerror=\"window.pwned = 1\"><b>bold</b>";
        self.send(markup)?;
        self.browser.wait("the message", REACT_S, |browser| Ok(browser.text(&id("user-text"))? == markup))?;
        self.wait_for_end()?;
        let elements = self.browser.count("#messages .text *")?;
        let pwned = self.browser.script("return window.pwned ?? 0", serde_json::json!([]))?;
        ensure(elements == 0 && pwned == 0, || format!("{elements} elements inside messages"))
    }

    fn stops(&self) -> Result<(), String> {
        for attempt in 1..=STOP_ATTEMPTS {
            // A small model may answer faster than a test can click, so the page clicks at the first text.
            self.browser.script(STOP_AT_FIRST_TEXT, serde_json::json!([]))?;
            self.send(&format!("Tell me a long story, number {attempt}"))?;
            self.wait_for_end()?;
            if self.browser.text(&id("figures"))?.contains("stopped") {
                let text = self.browser.text(&id("assistant-text"))?;
                thread::sleep(Duration::from_millis(500));
                return ensure(self.browser.text(&id("assistant-text"))? == text, || "the answer went on".into());
            }
        }
        Err(format!("{STOP_ATTEMPTS} answers ended before they could be stopped"))
    }

    fn changes_settings(&self) -> Result<(), String> {
        self.browser.keys(&id("temperature"), ARROW_LEFT)?;
        let shown = self.browser.text("#temperature-value")?;
        ensure(shown == "0.95", || format!("the temperature reads `{shown}`"))?;
        self.browser.keys(&id("max-tokens"), "3")?;
        self.browser.keys(&id("seed"), "7")?;
        self.browser.click("#api summary")?;
        let curl = self.browser.text(&id("curl"))?;
        for part in ["curl http", "\"temperature\": 0.95", "\"max_tokens\": 3", "\"seed\": 7"] {
            ensure(curl.contains(part), || format!("no `{part}` in the curl example {curl}"))?;
        }
        self.browser.click("#api summary")?;
        self.send("Be brief")?;
        self.wait_for_end()?;
        let tokens = self.tokens()?;
        ensure(tokens <= 3, || format!("{tokens} tokens, but at most 3 were asked for"))?;
        let kept = self.browser.script("return localStorage.getItem('narthex-settings')", serde_json::json!([]))?;
        ensure(kept.as_str().is_some_and(|kept| kept.contains("0.95")), || format!("kept: {kept}"))
    }

    fn shows_lineage(&self) -> Result<(), String> {
        self.browser.click("#lineage summary")?;
        self.browser.wait("the lineage", REACT_S, |browser| browser.is_visible(&id("lineage-node")))?;
        let shown = self.browser.text(&id("lineage-tree"))?;
        let mut nodes = vec![self.api("/v1/provenance")?["lineage"].take()];
        let mut count = 0;
        while let Some(mut node) = nodes.pop() {
            count += 1;
            for field in ["name", "license"] {
                let word = node[field].as_str().unwrap_or("licence undeclared").replace("LicenseRef-", "");
                ensure(shown.contains(&word), || format!("no `{word}` in the lineage: {shown}"))?;
            }
            nodes.extend(node["parents"].as_array_mut().map(std::mem::take).unwrap_or_default());
        }
        ensure(self.browser.count(&id("lineage-node"))? == count, || format!("the lineage should have {count} nodes"))?;
        self.screenshots()
    }

    /// The page as it stands: light, dark, and on a small screen.
    fn screenshots(&self) -> Result<(), String> {
        let Some(path) = &self.options.screenshot else { return Ok(()) };
        let dark = serde_json::json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        let narrow = serde_json::json!({"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": true});
        self.browser.screenshot(path)?;
        self.browser.devtools("Emulation.setEmulatedMedia", dark)?;
        self.browser.screenshot(&beside(path, "-dark"))?;
        self.browser.devtools("Emulation.setEmulatedMedia", serde_json::json!({"features": []}))?;
        self.browser.devtools("Emulation.setDeviceMetricsOverride", narrow)?;
        thread::sleep(Duration::from_millis(PANEL_MS));
        self.browser.screenshot(&beside(path, "-narrow"))?;
        self.browser.devtools("Emulation.clearDeviceMetricsOverride", serde_json::json!({})).map(drop)
    }

    fn shows_errors(&self) -> Result<(), String> {
        self.browser.clear(&id("max-tokens"))?;
        self.browser.keys(&id("max-tokens"), "-1")?;
        self.send("This can't be asked")?;
        self.browser.wait("the error", REACT_S, |browser| browser.is_visible(&id("error")))?;
        let error = self.browser.text(&id("error-text"))?;
        ensure(error.contains("max_tokens"), || format!("the error reads `{error}`"))?;
        self.browser.clear(&id("max-tokens"))?;
        self.browser.keys(&id("max-tokens"), "5")?;
        let answers = self.browser.count(&id("assistant-text"))?;
        self.browser.click(&id("retry"))?;
        self.wait_for_end()?;
        ensure(self.browser.count(&id("error"))? == 0, || "the error is still there".into())?;
        let after = self.browser.count(&id("assistant-text"))?;
        ensure(after == answers + 1, || format!("{answers} answers before, {after} after trying again"))
    }

    fn starts_anew(&self) -> Result<(), String> {
        self.browser.click(&id("new-chat"))?;
        ensure(self.browser.count(&id("message"))? == 0, || "messages are left".into())?;
        self.browser.click(&id("reset"))?;
        let shown = self.browser.text("#temperature-value")?;
        ensure(shown == "model's own", || format!("after a reset, the temperature reads `{shown}`"))
    }

    /// All that may stand there are the refusals that this test provoked.
    fn console_is_clean(&self) -> Result<(), String> {
        let provoked = |message: &str| {
            message.contains("completions") && message.contains("status of 400")
                || self.options.key.is_some() && message.contains("status of 401")
        };
        let entries = self.browser.log("browser")?;
        let messages = entries.iter().filter_map(|entry| entry["message"].as_str());
        let unexpected: Vec<&str> = messages.filter(|message| !provoked(message)).collect();
        ensure(unexpected.is_empty(), || unexpected.join("; "))
    }

    fn stays_at_home(&self) -> Result<(), String> {
        let mut own = 0;
        for entry in self.browser.log("performance")? {
            let message: Value =
                serde_json::from_str(entry["message"].as_str().unwrap_or_default()).unwrap_or_default();
            if message["message"]["method"] != "Network.requestWillBeSent" {
                continue;
            }
            let url = message["message"]["params"]["request"]["url"].as_str().unwrap_or_default();
            let document = message["message"]["params"]["documentURL"].as_str().unwrap_or_default();
            if document.starts_with("chrome:") {
                continue; // the browser's own empty tab, before the page was opened
            }
            ensure(url.starts_with(&format!("{}/", self.options.url)), || format!("a request went to {url}"))?;
            own += 1;
        }
        ensure(own >= 5, || format!("the log has only {own} requests"))
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}{suffix}.png"))
}
