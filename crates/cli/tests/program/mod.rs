//! The binary, called as a user calls it. Each test uses a part of this.
#![allow(dead_code)]

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub fn narthex(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narthex"));
    command
        .current_dir(folder)
        .args(args)
        .env_remove("NARTHEX_SET")
        .env_remove("OPENLINEAGE_URL")
        .env("XDG_CONFIG_HOME", folder.join("no-config"));
    command
}

pub fn output(folder: &Path, args: &[&str]) -> Output {
    narthex(folder, args).output().unwrap()
}

/// Runs a command that must succeed; gives its stdout.
pub fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = output(folder, args);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "narthex {args:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// Runs a command that must fail with this code; gives its stderr.
pub fn fail(folder: &Path, args: &[&str], code: i32) -> String {
    let output = output(folder, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "narthex {args:?}\n{stderr}");
    stderr
}

/// Lines to learn from: `3 and 4 make 7`.
pub fn sums(folder: &Path) {
    let lines: Vec<String> = (0..120).map(|i| format!("{} and {} make {}", i % 12, i / 12, i % 12 + i / 12)).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("lines.txt"), lines.join("\n")).unwrap();
}

/// Waits until a run has written the checkpoint of a step.
pub fn until_checkpoint(mut run: Child, folder: &Path, step: u64) -> Child {
    let deadline = Instant::now() + Duration::from_secs(120);
    let name = format!("checkpoint-{step}");
    loop {
        let work = fs::read_dir(folder.join(".narthex/work")).into_iter().flatten().flatten();
        let mut found = work.flat_map(|step| fs::read_dir(step.path())).flatten().flatten();
        if found.any(|entry| entry.file_name() == *name) {
            return run;
        }
        assert!(run.try_wait().unwrap().is_none(), "the run ended before it was interrupted");
        assert!(Instant::now() < deadline, "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The digest that a name points to.
pub fn digest(folder: &Path, name: &str) -> String {
    let shown: serde_json::Value = serde_json::from_str(&succeed(folder, &["show", name, "--json"])).unwrap();
    shown["digest"].as_str().unwrap().to_string()
}

/// The tiny BERT of the goldens in sentence-transformers' layout.
pub fn tiny_encoder(at: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/encoder-bert");
    fs::create_dir_all(at.join("1_Pooling")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(name), at.join(name)).unwrap();
    }
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "dog", "ran"];
    let vocabulary: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    });
    let modules = json!([
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
    ]);
    let prompts = json!({"prompts": {"query": "the "}, "default_prompt_name": null});
    for (name, text) in [
        ("tokenizer.json", tokenizer.to_string()),
        ("modules.json", modules.to_string()),
        ("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true}).to_string()),
        ("config_sentence_transformers.json", prompts.to_string()),
        ("sentence_bert_config.json", json!({"max_seq_length": 12}).to_string()),
        ("README.md", "---\nlicense: apache-2.0\n---\n# Tiny\n".into()),
    ] {
        fs::write(at.join(name), text).unwrap();
    }
}

/// A server that runs until it is dropped.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Serves a model until it is dropped.
    pub fn start(folder: &Path, model: &str) -> (Self, String) {
        Self::start_with(folder, &[model])
    }

    /// Serves what these arguments say until it is dropped.
    pub fn start_with(folder: &Path, arguments: &[&str]) -> (Self, String) {
        Self::of(narthex(folder, &[&["serve", "--port", "0"], arguments].concat()))
    }

    /// The server that a command starts.
    pub fn of(mut server: Command) -> (Self, String) {
        let mut server = Server(server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("chat page")?.1.trim().trim_end_matches('/').to_string()))
            .expect("the server says where it listens");
        // Kept open: who cannot say what it does not go on.
        std::thread::spawn(move || lines.count());
        (server, address)
    }
}

/// What a server answers to a path.
pub fn get(address: &str, path: &str) -> String {
    ureq::get(format!("{address}{path}")).call().unwrap().body_mut().read_to_string().unwrap()
}

pub fn post(address: String, body: &Value) -> Value {
    ureq::post(address).send_json(body).unwrap().body_mut().read_json().unwrap()
}

/// A server that speaks OpenAI's chat API, streamed: `answer` says what the assistant says to a request.
pub fn chat_server(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer_one(stream, &answer)));
    format!("http://{address}/v1")
}

fn answer_one(mut stream: TcpStream, answer: &dyn Fn(&Value) -> Value) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let delta = answer(&serde_json::from_slice(&body).unwrap());
    let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]});
    let text = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close";
    let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
}

/// What an assistant says who calls a tool.
pub fn calls(name: &str, arguments: Value) -> Value {
    let function = json!({"name": name, "arguments": arguments.to_string()});
    json!({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}]})
}

/// A server of agents that runs until it is dropped.
pub struct Desk {
    child: Child,
    /// Where it answers, without a slash at the end.
    pub address: String,
}

impl Desk {
    /// Serves the agents of a project, with these arguments more.
    pub fn open(folder: &Path, more: &[&str]) -> Self {
        let args = [&["agent", "serve", "--port", "0"], more].concat();
        let mut child = narthex(folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = lines.by_ref().map_while(Result::ok);
        let address = told.find_map(|line| Some(line.split_once("page")?.1.trim().trim_end_matches('/').to_string()));
        std::thread::spawn(move || lines.count());
        Self { child, address: address.unwrap() }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
