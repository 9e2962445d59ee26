//! Makes knowledge of a folder and asks it many questions in all three ways: `ask FOLDER OUT QUESTIONS [ENDPOINT]
//! [SIZE]`. A question a line; ENDPOINT is an OpenAI-compatible `…/v1/embeddings`. For each question and mode a line
//! of JSON: `{"mode", "question", "found": [[file, passage, score], …]}`, the best 200.

use narthex_base::{
    Error, Result,
    config::{KnowledgeStep, OneOrMany, SearchMode, SearchSettings, SplitSettings, SplitUnit},
};
use narthex_knowledge::{
    Characters, Embed, EmbedKind, InProcess, Knowledge, Making, Progress, SearchOptions, Source, build,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// An encoder behind an endpoint.
struct Endpoint {
    url: String,
    width: usize,
}

impl Endpoint {
    fn new(url: String) -> Result<Self> {
        let mut endpoint = Self { url, width: 0 };
        endpoint.width = endpoint.embed(&["a"], EmbedKind::Query)?[0].len();
        Ok(endpoint)
    }
}

impl Embed for Endpoint {
    fn identity(&self) -> String {
        self.url.clone()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn embed(&self, texts: &[&str], _: EmbedKind) -> Result<Vec<Vec<f32>>> {
        let fail = |error: ureq::Error| Error::input("the endpoint gives no vectors").cause(error);
        let request = json!({"model": "encoder", "input": texts, "truncate_prompt_tokens": 256});
        let mut answer = ureq::post(&self.url).send_json(request).map_err(fail)?;
        let answer: Value = answer.body_mut().with_config().limit(1 << 30).read_json().map_err(fail)?;
        let vector = |row: &Value| serde_json::from_value(row["embedding"].clone());
        let rows = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter().map(vector).collect::<Result<_, _>>().map_err(|error| Error::input("no vector").cause(error))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, out, questions, more @ ..] = &arguments[..] else {
        return Err(Error::usage("give FOLDER OUT QUESTIONS [ENDPOINT] [SIZE]"));
    };
    let embed = match more.first().filter(|url| url.starts_with("http")) {
        Some(url) => Some(Endpoint::new(url.clone())?),
        None => None,
    };
    let embed = embed.as_ref().map(|embed| embed as &dyn Embed);
    let size = more.get(1).and_then(|size| size.parse().ok()).unwrap_or(100_000);
    let settings = KnowledgeStep {
        split: SplitSettings { unit: SplitUnit::Characters, size, overlap: 0 },
        ..KnowledgeStep::new(OneOrMany::One("in".into()))
    };
    let out = Path::new(out);
    if !out.join("knowledge.json").exists() {
        let source = Source {
            name: folder.clone(),
            files: files_in(Path::new(folder))?,
            license: None,
            notices: vec![],
            origin: None,
        };
        let sources = [source];
        let (measure, load) = (&Characters, &InProcess);
        let making = Making { settings: &settings, sources: &sources, measure, embed, load, previous: None };
        let begin = Instant::now();
        let report = build(&making, out, &|progress| {
            if let Progress::Warning(warning) = progress {
                eprintln!("{warning}");
            }
            Ok(())
        })?;
        let (passages, seconds) = (report.card.passages, begin.elapsed().as_secs_f64());
        eprintln!("{passages} passages, {} embedded, in {seconds:.1} s", report.embedded);
    }
    let knowledge = Knowledge::open(out)?;
    let questions = std::fs::read_to_string(questions).map_err(|error| Error::io("cannot read", questions, error))?;
    for (mode, name) in [(SearchMode::Words, "words"), (SearchMode::Vectors, "vectors"), (SearchMode::Hybrid, "hybrid")]
    {
        if embed.is_none() && mode != SearchMode::Words {
            continue;
        }
        for question in questions.lines() {
            let settings = SearchSettings { mode, limit: 200, candidates: 200 };
            let found = knowledge.search(question, &SearchOptions { settings, files: vec![], embed, rerank: None })?;
            let found: Vec<Value> =
                found.iter().map(|found| json!([found.passage.file, found.passage.id, found.score])).collect();
            println!("{}", json!({"mode": name, "question": question, "found": found}));
        }
    }
    Ok(())
}

/// The files of a folder, as they are cited.
fn files_in(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let fail = |error| Error::io("cannot read", folder, error);
    let named = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.map_err(fail)?;
        Ok((entry.path(), entry.file_name().to_string_lossy().into_owned()))
    };
    std::fs::read_dir(folder).map_err(fail)?.map(named).collect()
}
