//! Whole preparations on small files made here.

mod broken;
mod curated;

use crate::*;
use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder},
        datatypes::{DataType, Field, Fields},
    },
    parquet::arrow::ArrowWriter,
};
use narthex_base::{Conversation, ErrorKind, Message, Observer, Result, Role};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let content = content.as_ref();
        let packed = match name.rsplit_once('.').unwrap().1 {
            "gz" => {
                let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            "zst" => zstd::stream::encode_all(content, 1).unwrap(),
            _ => content.to_vec(),
        };
        std::fs::write(self.path(name), packed).unwrap();
        self.path(name)
    }

    fn parquet(&self, name: &str, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        self.path(name)
    }

    fn out(&self) -> PathBuf {
        self.path("out")
    }

    fn prepare(&self, spec: &PrepareSpec) -> Result<Statistics> {
        prepare(spec, &self.out(), Observer::silent())
    }

    fn texts(&self, name: &str) -> Vec<String> {
        read_texts(&self.out().join(name)).unwrap().collect::<Result<_>>().unwrap()
    }

    fn chats(&self) -> Vec<Conversation> {
        read_chats(&self.out().join("train.parquet")).unwrap().collect::<Result<_>>().unwrap()
    }

    /// Writes bytes as they are.
    fn raw(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.out().with_file_name(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn messages(&self) -> Vec<Vec<Message>> {
        self.chats().into_iter().map(|chat| chat.messages).collect()
    }
}

fn source(name: &str, files: &[PathBuf], rows: TextRows) -> SourceSpec {
    let format = Format::of_path(&files[0]).unwrap();
    SourceSpec { quotes: None, name: name.into(), files: files.to_vec(), format, rows, columns: BTreeMap::new() }
}

/// Nothing normalised, deduplicated or split; no broken rows allowed.
fn plain(source: SourceSpec, transform: Option<&str>) -> PrepareSpec {
    PrepareSpec {
        source: vec![source],
        transform: transform.map(str::to_string),
        output: DataOutput::Documents,
        normalize: Normalize::None,
        filters: Vec::new(),
        filter: FilterSettings::default(),
        near_duplicates: None,
        deduplicate: false,
        split: Split { by: SplitBy::Position, validation_fraction: 0.0, seed: 0 },
        max_bad_rows: 0,
    }
}

fn poem(lines: usize) -> String {
    (0..lines).map(|i| format!("line {i} é {}\n", "x".repeat(i * 7 % 40))).collect()
}

#[test]
fn a_file_is_cut_at_a_line_end_and_nothing_is_lost() {
    let folder = Folder::new();
    let text = poem(1000);
    let mut spec = plain(source("poem", &[folder.write("poem.txt", &text)], TextRows::File), None);
    spec.split.validation_fraction = 0.1;
    let statistics = folder.prepare(&spec).unwrap();
    let (train, validation) = (folder.texts("train.parquet"), folder.texts("validation.parquet"));
    assert_eq!((train.len(), validation.len()), (1, 1));
    assert!(train[0].ends_with('\n'));
    assert_eq!(train.concat() + &validation.concat(), text);
    let border = text.len() as u64 - (text.len() as f64 * 0.1).round() as u64;
    assert!(statistics.train_bytes.abs_diff(border) < 60, "the line end nearest the border is chosen");
    assert_eq!((statistics.rows_read, statistics.documents, statistics.bytes), (1, 1, text.len() as u64));
    assert_eq!(statistics.train_bytes + statistics.validation_bytes, statistics.bytes);
    let written: Statistics =
        serde_json::from_slice(&std::fs::read(folder.out().join("statistics.json")).unwrap()).unwrap();
    assert_eq!(written, statistics);
    assert_eq!(statistics.figures()["train_documents"], 1.0);
    let names: BTreeSet<String> = std::fs::read_dir(folder.out())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_string())
        .collect();
    assert_eq!(names, ["statistics.json", "train.parquet", "validation.parquet"].map(String::from).into());
}

#[test]
fn two_runs_write_the_same_bytes() {
    let folder = Folder::new();
    let files: Vec<PathBuf> = (0..3).map(|i| folder.write(&format!("{i}.txt"), poem(500 + i))).collect();
    for (rows, by) in
        [(TextRows::File, SplitBy::Position), (TextRows::Line, SplitBy::Hash), (TextRows::Line, SplitBy::Position)]
    {
        let mut spec = plain(source("poem", &files, rows), None);
        spec.split = Split { by, validation_fraction: 0.2, seed: 3 };
        spec.deduplicate = true;
        let read = |name: &str| std::fs::read(folder.out().join(name)).unwrap();
        let mut runs = (0..2).map(|_| {
            folder.prepare(&spec).unwrap();
            ["train.parquet", "validation.parquet", "statistics.json"].map(read)
        });
        assert!(runs.next() == runs.next(), "{rows:?} {by:?}");
    }
}

#[test]
fn whole_documents_keep_their_order_on_both_sides() {
    let folder = Folder::new();
    let text: String = (0..50).map(|i| format!("Speaker {i}:\nwords\n\n")).collect();
    let mut spec = plain(source("play", &[folder.write("play.txt", &text)], TextRows::Paragraph), None);
    spec.split.validation_fraction = 0.25;
    folder.prepare(&spec).unwrap();
    let (train, validation) = (folder.texts("train.parquet"), folder.texts("validation.parquet"));
    let all: Vec<String> = train.iter().chain(&validation).cloned().collect();
    assert_eq!(all, (0..50).map(|i| format!("Speaker {i}:\nwords")).collect::<Vec<_>>());
    assert!((12..=13).contains(&validation.len()), "{}", validation.len());
}

#[test]
fn several_files_are_cut_only_at_the_border() {
    let folder = Folder::new();
    let files: Vec<PathBuf> = (0..4).map(|i| folder.write(&format!("{i}.txt"), poem(100 + i))).collect();
    let mut spec = plain(source("poems", &files, TextRows::File), None);
    spec.split.validation_fraction = 0.4;
    folder.prepare(&spec).unwrap();
    let (train, validation) = (folder.texts("train.parquet"), folder.texts("validation.parquet"));
    assert_eq!((train.len(), validation.len()), (3, 2));
    assert_eq!(train.concat() + &validation.concat(), (0..4).map(|i| poem(100 + i)).collect::<String>());
}

#[test]
fn dialogues_from_neighbouring_paragraphs() {
    let folder = Folder::new();
    let play = folder.write("play.txt", "A:\nhi\n\n\nB:\nho\n \nC:\r\nhum\r\n");
    let sql = "select text as user, lead(text) over (order by row) as assistant from source";
    let mut spec = plain(source("play", &[play], TextRows::Paragraph), Some(sql));
    spec.output = DataOutput::Chat;
    let statistics = folder.prepare(&spec).unwrap();
    let pair = |a: &str, b: &str| vec![Message::new(Role::User, a), Message::new(Role::Assistant, b)];
    assert_eq!(folder.messages(), [pair("A:\nhi", "B:\nho"), pair("B:\nho", "C:\nhum")]);
    assert_eq!((statistics.rows_read, statistics.documents, statistics.empty_removed), (3, 2, 1));
    assert_eq!(statistics.reasons["empty"], 1);
    assert_eq!(statistics.bytes, 2 * 5 + 5 + 6);
    assert!(read_texts(&folder.out().join("train.parquet")).err().unwrap().to_string().contains("no column `text`"));
}

#[test]
fn every_format_gives_the_same_documents() {
    let folder = Folder::new();
    let texts = ["first", "with \"quotes\", commas", "é 日本"];
    let jsonl: String = texts.iter().map(|text| format!("{}\n", serde_json::json!({"n": 1, "text": text}))).collect();
    // In TSV a quotation mark is a letter.
    let unquoted: String =
        std::iter::once("n\ttext\n".to_string()).chain(texts.iter().map(|text| format!("1\t{text}\n"))).collect();
    let quoted = |separator: char| {
        let rows = texts.iter().map(|text| format!("1{separator}\"{}\"\n", text.replace('"', "\"\"")));
        format!("n{separator}text\n{}", rows.collect::<String>())
    };
    let mut files = Vec::new();
    for ending in ["", ".gz", ".zst"] {
        files.push(folder.write(&format!("a.txt{ending}"), texts.join("\n")));
        files.push(folder.write(&format!("a.jsonl{ending}"), format!("\n{jsonl}\n")));
        files.push(folder.write(&format!("a.csv{ending}"), quoted(',')));
        files.push(folder.write(&format!("a.tsv{ending}"), unquoted.clone()));
        // With a byte order mark.
        files.push(folder.write(&format!("b.csv{ending}"), format!("\u{feff}{}", quoted(','))));
        files.push(folder.write(&format!("b.txt{ending}"), format!("\u{feff}{}", texts.join("\r\n"))));
    }
    let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    files.push(folder.parquet("a.parquet", vec![("n", Arc::new(Int64Array::from(vec![1, 2, 3]))), ("text", column)]));
    for file in files {
        for transform in
            [None, Some("select text from source"), Some("select text from data where row >= 0 order by row")]
        {
            let spec = plain(source("data", std::slice::from_ref(&file), TextRows::Line), transform);
            let statistics = folder.prepare(&spec).unwrap();
            assert_eq!(folder.texts("train.parquet"), texts, "{}", file.display());
            assert_eq!((statistics.rows_read, statistics.documents), (3, 3));
            assert!(!folder.out().join("validation.parquet").exists());
        }
    }
}

#[test]
fn rows_are_numbered_over_all_files_and_batches() {
    let folder = Folder::new();
    let files: Vec<PathBuf> = (0..3).map(|i| folder.write(&format!("{i}.txt"), "x\n".repeat(9000))).collect();
    let spec = plain(source("data", &files, TextRows::Line), Some("select cast(row as varchar) as text from source"));
    folder.prepare(&spec).unwrap();
    assert_eq!(folder.texts("train.parquet"), (0..27_000).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn columns_are_mapped_and_typed() {
    let folder = Folder::new();
    let jsonl = r#"{"body": "a", "score": 2, "ok": true, "tags": ["x"]}
{"body": "b", "score": 0.5, "ok": true, "tags": null, "late": "z"}
{"body": "c", "score": 3, "ok": false, "tags": {"k": 1}}
"#;
    let mut from = source("data", &[folder.write("a.jsonl", jsonl)], TextRows::File);
    from.columns = [("text".into(), "body".into()), ("mark".into(), "score".into())].into();
    for (sql, expected) in [
        ("select text from source", vec!["a", "b", "c"]),
        ("select text from source where mark > 1.5", vec!["a", "c"]),
        ("select text from source where ok and mark > 1", vec!["a"]),
        (
            "select coalesce(tags, 'none') || coalesce(late, '') as text from source",
            vec!["[\"x\"]", "nonez", "{\"k\":1}"],
        ),
        (
            "select upper(a.text) as text from source a join data b on a.row = b.row order by a.row desc",
            vec!["C", "B", "A"],
        ),
        ("select text from source order by row limit 2", vec!["a", "b"]),
    ] {
        let spec = plain(from.clone(), Some(sql));
        folder.prepare(&spec).unwrap();
        assert_eq!(folder.texts("train.parquet"), expected, "{sql}");
    }
    let mut wrong = plain(from, None);
    wrong.source[0].columns.insert("x".into(), "scor".into());
    let error = folder.prepare(&wrong).unwrap_err().to_string();
    assert!(error.contains("a.jsonl:1: it has no `scor`"), "{error}");
    let mut table = source("data", &[folder.write("a.csv", "body,score\nx,1\n")], TextRows::File);
    table.columns.insert("text".into(), "boddy".into());
    let error = folder.prepare(&plain(table, None)).unwrap_err().to_string();
    assert!(error.contains("a.csv:1") && error.contains("did you mean `body`?"), "{error}");
    let error = folder.prepare(&plain(source("d", &[folder.write("b.csv", "row,text\n1,a\n")], TextRows::File), None));
    assert!(error.unwrap_err().to_string().contains("columns = { other_name = \"row\" }"));
}

#[test]
fn several_sources_keep_their_order() {
    let folder = Folder::new();
    let lines = |from: usize| (from..from + 20_000).map(|i| format!("{i}\n")).collect::<String>();
    let (a, b) = (folder.write("a.txt", lines(0)), folder.write("b.txt", lines(20_000)));
    let expected: Vec<String> = (0..40_000).map(|i| i.to_string()).collect();
    for transform in [
        None,
        Some("select text from a union all select text from b"),
        Some(
            "select text || '' as text from (select text from a union all select text from b) where text <> '' limit 40000",
        ),
        Some("select text from (select text from a union all select text from b) group by text"),
    ] {
        let mut spec = plain(source("a", std::slice::from_ref(&a), TextRows::Line), transform);
        spec.source.push(source("b", std::slice::from_ref(&b), TextRows::Line));
        folder.prepare(&spec).unwrap();
        assert!(folder.texts("train.parquet") == expected, "{transform:?}");
    }
    let mut same = plain(source("a", &[a], TextRows::Line), None);
    same.source.push(source("a", &[b], TextRows::Line));
    assert!(folder.prepare(&same).unwrap_err().what().contains("two sources are named `a`"));
}

#[test]
fn normalised_then_distinct() {
    let folder = Folder::new();
    let jsonl =
        ["a\\r\\nb", "a\\nb", "e\\u0301", "\\u00e9", " \\n", "ﬁ"].map(|text| format!("{{\"text\": \"{text}\"}}\n"));
    let mut spec = plain(source("data", &[folder.write("a.jsonl", jsonl.concat() + "{}\n")], TextRows::File), None);
    spec.deduplicate = true;
    for (normalize, expected) in [
        (Normalize::None, &["a\nb", "e\u{301}", "é", "ﬁ"][..]),
        (Normalize::Nfc, &["a\nb", "é", "ﬁ"]),
        (Normalize::Nfkc, &["a\nb", "é", "fi"]),
    ] {
        spec.normalize = normalize;
        let statistics = folder.prepare(&spec).unwrap();
        assert_eq!(folder.texts("train.parquet"), expected);
        assert_eq!(statistics.empty_removed, 2);
        assert_eq!(statistics.duplicates_removed, 5 - expected.len() as u64);
        assert_eq!(statistics.figures()["removed: duplicate"], statistics.duplicates_removed as f64);
        assert_eq!(statistics.rows_read, 7);
    }
}

#[test]
fn hash_split_does_not_depend_on_other_documents() {
    let folder = Folder::new();
    let sides = |texts: &[String], seed| {
        let mut spec = plain(source("data", &[folder.write("a.txt", texts.join("\n"))], TextRows::Line), None);
        spec.split = Split { by: SplitBy::Hash, validation_fraction: 0.3, seed };
        folder.prepare(&spec).unwrap();
        (folder.texts("train.parquet"), folder.texts("validation.parquet"))
    };
    let texts: Vec<String> = (0..200).map(|i| format!("document {i}")).collect();
    let (train, validation) = sides(&texts, 1);
    assert_eq!(train.len() + validation.len(), 200);
    assert!((35..90).contains(&validation.len()), "{}", validation.len());
    let reversed: Vec<String> = texts.iter().rev().skip(50).cloned().collect();
    let (_, fewer) = sides(&reversed, 1);
    let kept: BTreeSet<&String> = validation.iter().filter(|text| reversed.contains(text)).collect();
    assert_eq!(fewer.iter().collect::<BTreeSet<_>>(), kept);
    assert_ne!(sides(&texts, 2).1, validation);
}

#[test]
fn chats_in_every_form() {
    let folder = Folder::new();
    let turn = |role, content: &str| Message::new(role, content);
    let expected = vec![
        vec![turn(Role::System, "be"), turn(Role::User, "q1"), turn(Role::Assistant, "a1")],
        vec![turn(Role::User, "q2"), turn(Role::Assistant, "a2")],
    ];
    let jsonl: String = expected.iter().map(|chat| format!("{}\n", serde_json::json!({ "messages": chat }))).collect();
    let text: String = expected
        .iter()
        .map(|c| format!("{}\n", serde_json::json!({ "messages": serde_json::to_string(c).unwrap() })))
        .collect();
    let csv = "question,answer,system\nq1,a1,be\nq2,a2,\n,a3,\n";
    let fields =
        Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)]);
    let mut list = ListBuilder::new(StructBuilder::from_fields(fields, 4));
    for chat in &expected {
        for message in chat {
            for (i, value) in [message.role.as_str(), &message.text()].into_iter().enumerate() {
                list.values().field_builder::<StringBuilder>(i).unwrap().append_value(value);
            }
            list.values().append(true);
        }
        list.append(true);
    }
    let parquet = folder.parquet("a.parquet", vec![("messages", Arc::new(list.finish()))]);
    for file in [folder.write("a.jsonl", jsonl), folder.write("b.jsonl", text), folder.write("a.csv", csv), parquet] {
        let mut spec = plain(source("data", std::slice::from_ref(&file), TextRows::File), None);
        spec.output = DataOutput::Chat;
        if spec.source[0].format == Format::Csv {
            spec.source[0].columns = [("user".into(), "question".into()), ("assistant".into(), "answer".into())].into();
        }
        let statistics = folder.prepare(&spec).unwrap();
        assert_eq!(folder.messages(), expected, "{}", file.display());
        assert_eq!((statistics.documents, statistics.bytes), (2, 2 + 4 * 2));
    }
}

/// What a conversation says beside its texts is kept: tools, calls, reasoning, what is not to be learnt.
#[test]
fn conversations_are_kept_whole() {
    let folder = Folder::new();
    let tools = serde_json::json!([{"type": "function", "function": {"name": "clock"}}]);
    let messages = serde_json::json!([
        {"role": "user", "content": "when"},
        {"role": "assistant", "content": "", "reasoning_content": "r", "tool_calls":
            [{"id": "c", "type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}]},
        {"role": "tool", "content": "1", "tool_call_id": "c", "name": "clock"},
        {"role": "assistant", "content": "one", "weight": 0}]);
    let line = serde_json::json!({"messages": messages, "tools": tools, "id": 3});
    let as_text = serde_json::json!({"messages": messages.to_string(), "tools": tools.to_string(), "id": 4});
    let short = serde_json::json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": null, "id": 5});
    let file = folder.write("a.jsonl", format!("{line}\n{as_text}\n{short}\n"));
    let mut spec = plain(source("data", std::slice::from_ref(&file), TextRows::File), None);
    spec.output = DataOutput::Chat;
    spec.deduplicate = false;
    folder.prepare(&spec).unwrap();
    let chats = folder.chats();
    assert_eq!((chats.len(), &chats[0]), (3, &chats[1]));
    assert_eq!((chats[0].tools.as_slice(), chats[2].tools.len()), (tools.as_array().unwrap().as_slice(), 0));
    let [_, call, result, quiet] = &chats[0].messages[..] else { panic!("{chats:?}") };
    assert_eq!(call.tool_calls[0].function.arguments, r#"{"zone":"UTC"}"#);
    assert_eq!(
        (call.others["reasoning_content"].as_str(), result.name.as_deref(), quiet.train),
        (Some("r"), Some("clock"), false)
    );
}

/// 5,574 messages, as csv.QUOTE_NONE of Python 3.12 reads them: a field that begins with a quotation mark ends at the
/// tab.
#[test]
fn a_quotation_mark_in_tsv_is_a_letter_unless_asked() {
    let folder = Folder::new();
    let text = "label\ttext\na\tone\nb\t\"two starts with a quote\nc\tthree\nd\tfour ends here\"\n";
    let file = folder.write("a.tsv", text);
    let mut spec = plain(source("data", std::slice::from_ref(&file), TextRows::File), None);
    folder.prepare(&spec).unwrap();
    assert_eq!(folder.texts("train.parquet"), ["one", "\"two starts with a quote", "three", "four ends here\""]);
    spec.source[0].quotes = Some(true);
    folder.prepare(&spec).unwrap();
    assert_eq!(folder.texts("train.parquet"), ["one", "two starts with a quote\nc\tthree\nd\tfour ends here"]);
}

/// Whole numbers stay as they are written, whatever else their column holds.
#[test]
fn whole_numbers_beyond_doubles_are_exact() {
    let folder = Folder::new();
    let big = "9007199254740993";
    for (other, expected) in
        [("1.5", vec![big, "1.5"]), ("18446744073709551615", vec![big, "18446744073709551615"]), ("7", vec![big, "7"])]
    {
        let file = folder.write("a.jsonl", format!("{{\"n\": {big}}}\n{{\"n\": {other}}}\n"));
        let transform = "select cast(n as varchar) as text from data order by row";
        let spec = plain(source("data", std::slice::from_ref(&file), TextRows::File), Some(transform));
        folder.prepare(&spec).unwrap();
        assert_eq!(folder.texts("train.parquet"), expected, "{other}");
    }
}

/// As gzip 1.12 and Python's gzip read them; `zstd --long=31` made the window.
#[test]
fn compressed_files_as_others_read_them() {
    let folder = Folder::new();
    let gz = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for (bytes, expected) in [
        ([gz("one\n"), gz("two\n")].concat(), vec!["one", "two"]),
        ([gz("one\n"), vec![0; 1000]].concat(), vec!["one"]),
        ([gz("one\n"), b"garbage".to_vec()].concat(), vec!["one"]),
    ] {
        let file = folder.raw("a.txt.gz", bytes);
        folder.prepare(&plain(source("data", std::slice::from_ref(&file), TextRows::Line), None)).unwrap();
        assert_eq!(folder.texts("train.parquet"), expected);
    }
    let cut = folder.raw("b.txt.gz", &gz("one\ntwo\nthree\n")[..20]);
    let error = folder.prepare(&plain(source("data", std::slice::from_ref(&cut), TextRows::Line), None)).unwrap_err();
    assert!(error.what().contains("cut off or damaged"), "{error}");
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.long_distance_matching(true).unwrap();
    std::io::Write::write_all(&mut encoder, b"wide\n").unwrap();
    let file = folder.raw("a.txt.zst", encoder.finish().unwrap());
    folder.prepare(&plain(source("data", std::slice::from_ref(&file), TextRows::Line), None)).unwrap();
    assert_eq!(folder.texts("train.parquet"), ["wide"]);
}

/// As pandas names them, but for the name.
#[test]
fn columns_without_a_name_get_one() {
    let folder = Folder::new();
    let file = folder.write("a.csv", ",text,\n0,one,\n1,two,\n");
    let transform = "select text || column_1 || column_3 as text from data";
    folder.prepare(&plain(source("data", std::slice::from_ref(&file), TextRows::File), Some(transform))).unwrap();
    assert_eq!(folder.texts("train.parquet"), ["one0", "two1"]);
}

#[test]
fn a_source_is_shown_as_it_was_understood() {
    let folder = Folder::new();
    let lines = "{\"text\": \"a\", \"n\": 1, \"list\": [1, {\"x\": null}]}\nbroken\n{\"text\": \"b\", \"n\": 2.5}\n";
    let file = folder.write("a.jsonl", lines);
    let found = preview(&source("data", &[file], TextRows::File), 1, Observer::silent()).unwrap();
    let columns: Vec<(&str, &str)> = found.columns.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    assert_eq!(columns, [("text", "text"), ("n", "number"), ("list", "text")]);
    assert_eq!((found.count, found.bad, found.rows.len()), (2, 1, 1));
    assert_eq!(serde_json::to_string(&found.rows[0]).unwrap(), r#"{"text":"a","n":1.0,"list":"[1,{\"x\":null}]"}"#);
    assert!(found.bad_examples[0].contains("a.jsonl:2"), "{:?}", found.bad_examples);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let folder = Folder::new();
    let file = folder.write("a.txt", "x\n".repeat(50_000));
    let interrupt = AtomicBool::new(false);
    // The user interrupts at the first progress that is shown.
    let emit = |_| interrupt.store(true, std::sync::atomic::Ordering::Relaxed);
    for transform in [None, Some("select text, row_number() over (order by text) from source")] {
        interrupt.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut spec = plain(source("data", std::slice::from_ref(&file), TextRows::Line), transform);
        spec.split.validation_fraction = 0.5;
        let error = prepare(&spec, &folder.out(), Observer::new(&emit, &interrupt).for_step("text")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert!(std::fs::read_dir(folder.out()).unwrap().next().is_none());
    }
}

#[test]
fn readers_can_go_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let folder = Folder::new();
    folder.prepare(&plain(source("data", &[folder.write("a.txt", "x")], TextRows::File), None)).unwrap();
    is_send(&read_texts(&folder.out().join("train.parquet")).unwrap());
    let error = read_chats(&folder.out().join("train.parquet")).err().unwrap().to_string();
    assert!(error.contains("no column `messages`"), "{error}");
    assert!(read_texts(Path::new("/nowhere.parquet")).err().unwrap().to_string().contains("/nowhere.parquet"));
}
