//! Inputs that are broken, damaged, forbidden or impossible: what is said, and that nothing is left behind.

use super::*;

/// The examples of a preparation that allows ten broken rows, then the failure of one that allows none.
fn broken(name: &str, content: &[u8], rows: TextRows) -> (Statistics, Vec<String>, String) {
    let folder = Folder::new();
    let mut spec = plain(source("data", &[folder.write(name, content)], rows), None);
    let error = folder.prepare(&spec).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(std::fs::read_dir(folder.out()).unwrap().next().is_none(), "a failure leaves nothing behind");
    spec.max_bad_rows = 10;
    let statistics = folder.prepare(&spec).unwrap();
    (statistics, folder.texts("train.parquet"), error.to_string())
}

#[test]
fn broken_rows_are_counted_and_shown() {
    type Case<'a> = (&'a str, &'a [u8], TextRows, &'a [&'a str], &'a [&'a str]);
    let long = [&b"good\n"[..], &vec![b'x'; (64 << 20) + 1], b"\ngood2\n"].concat();
    let cases: [Case; 6] = [
        (
            "a.jsonl",
            b"{\"text\": \"good\"}\n{\"text\": \n[1]\n{\"text\": 3}\n{\"text\": \"\xff\"}\n{\"text\": \"\\ud800\"}\n{\"text\": \"good2\"}",
            TextRows::File,
            &[":2: invalid JSON", ":3: a JSON object is expected, not an array", ":4: `text` is a number, not a string", ":5: not UTF-8 at byte 11", ":6: invalid JSON"],
            &["good", "good2"],
        ),
        (
            "a.csv",
            b"id,text\n1,good\n2\n3,\"a\nb\",c\n4,\xff\n5,good2\n",
            TextRows::File,
            &[":3: it has 1 fields, but the header has 2", ":4: it has 3 fields", ":6: `text` is not UTF-8"],
            &["good", "good2"],
        ),
        ("a.txt", b"good\n\xff\xfe\ngood2\n", TextRows::Line, &[":2: not UTF-8 at byte 1"], &["good", "good2"]),
        ("a.txt.gz", b"good\n\nx\ny\xc3(\nz\n\ngood2", TextRows::Paragraph, &[":4: not UTF-8 at byte 2"], &["good", "good2"]),
        ("long.txt", &long, TextRows::Line, &[":2: the line exceeds 64 MiB"], &["good", "good2"]),
        ("a.tsv", b"id\ttext\n1\tgood\n1\t2\t3\n2\tgood2\n", TextRows::File, &[":3: it has 3 fields"], &["good", "good2"]),
    ];
    for (name, content, rows, examples, kept) in cases {
        let (statistics, texts, error) = broken(name, content, rows);
        assert_eq!(statistics.bad_row_examples.len(), examples.len(), "{:?}", statistics.bad_row_examples);
        for (found, expected) in statistics.bad_row_examples.iter().zip(examples) {
            assert!(found.contains(&format!("{name}{expected}")), "{found} / {expected}");
            assert!(error.contains(found), "{error}");
        }
        assert_eq!(statistics.bad_rows, examples.len() as u64);
        assert_eq!(statistics.rows_read, statistics.bad_rows + kept.len() as u64);
        assert_eq!(statistics.reasons.values().sum::<u64>(), statistics.bad_rows);
        assert_eq!(texts, kept);
        assert!(error.contains(&format!("set `max_bad_rows = {}` or more", examples.len())), "{error}");
    }
}

/// Rows that no conversation can be made of are looked for in the files, over all of them, where no transform lies
/// between.
#[test]
fn broken_conversations_are_named_by_file_and_line() {
    let folder = Folder::new();
    let good =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}";
    let bad = "{\"messages\": [{\"role\": \"nobody\", \"content\": \"a\"}]}";
    let files = [
        folder.write("a.jsonl", format!("{good}\n\n{good}\n")),
        folder.write("b.jsonl", format!("{good}\n{{\n\n{bad}\n{good}\n{bad}\n")),
    ];
    let mut spec = PrepareSpec { output: DataOutput::Chat, ..plain(source("data", &files, TextRows::File), None) };
    spec.max_bad_rows = 3;
    let found = folder.prepare(&spec).unwrap().bad_row_examples;
    let places: Vec<bool> =
        found.iter().zip(["b.jsonl:2", "b.jsonl:4", "b.jsonl:6"]).map(|(a, b)| a.contains(b)).collect();
    assert_eq!(places, [true; 3], "{found:?}");
    spec.transform = Some("select messages from source".into());
    let found = folder.prepare(&spec).unwrap().bad_row_examples;
    assert!(found[1].contains("row 4 of the transform's result"), "{found:?}");
}

#[test]
fn files_that_are_not_text_are_broken_rows_too() {
    let folder = Folder::new();
    let files = [folder.write("a.txt", b"a\nb\n\xff"), folder.write("b.txt", "good")];
    let mut spec = plain(source("data", &files, TextRows::File), None);
    spec.max_bad_rows = 1;
    let statistics = folder.prepare(&spec).unwrap();
    assert!(statistics.bad_row_examples[0].contains("a.txt:3: the file is not UTF-8"));
    assert_eq!(folder.texts("train.parquet"), ["good"]);
}

#[test]
fn damaged_files_are_named() {
    let folder = Folder::new();
    // Text that does not compress well, so that a cut falls inside it.
    let noise: String = (0..20_000u64).map(|i| format!("{:x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let texts: ArrayRef = Arc::new(StringArray::from(noise.lines().collect::<Vec<_>>()));
    let parquet = folder.parquet("a.parquet", vec![("text", texts)]);
    let (gz, zst) = (folder.write("a.txt.gz", &noise), folder.write("b.jsonl.zst", &noise));
    for path in [&parquet, &gz, &zst] {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
        let spec = plain(source("data", std::slice::from_ref(path), TextRows::File), None);
        let error = folder.prepare(&spec).unwrap_err().to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains("cut off or damaged") && error.contains(name), "{error}");
    }
    let not_gzip = folder.path("c.txt.gz");
    std::fs::write(&not_gzip, "plain text").unwrap();
    let error = folder.prepare(&plain(source("data", &[not_gzip], TextRows::File), None)).unwrap_err().to_string();
    assert!(error.contains("c.txt.gz") && error.contains("gzip -t"), "{error}");
    let missing = source("data", &[folder.path("none.txt")], TextRows::File);
    let error = folder.prepare(&plain(missing, None)).unwrap_err().to_string();
    assert!(error.contains("none.txt"), "{error}");
    assert!(read_texts(&parquet).err().unwrap().to_string().contains("a.parquet"));
}

#[test]
fn tables_with_wrong_headers_are_refused() {
    for (content, expected) in [
        ("a,a\n1,2\n", "the column `a` appears twice"),
        ("a,\n1,2\n", "column_2: text"),
        ("", "the source `data` is empty"),
        ("body\nx\n", "columns = { text = \"NAME\" }"),
    ] {
        let folder = Folder::new();
        let spec = plain(source("data", &[folder.write("a.csv", content)], TextRows::File), None);
        let error = folder.prepare(&spec).unwrap_err().to_string();
        assert!(error.contains(expected), "{content:?}: {error}");
    }
}

#[test]
fn a_quote_that_never_closes_is_found() {
    let folder = Folder::new();
    let content = format!("text\ngood\n\"open\n{}", "0123456789abcde\n".repeat((65 << 20) / 16));
    let spec = plain(source("data", &[folder.write("a.csv", content)], TextRows::File), None);
    let error = folder.prepare(&spec).unwrap_err().to_string();
    assert!(error.contains("a record is longer than 64 MiB") && error.contains("a.csv:3"), "{error}");
}

#[test]
fn only_select_is_allowed() {
    let folder = Folder::new();
    let file = folder.write("a.txt", "one\ntwo\n");
    let secret = folder.write("secret.csv", "text\nhidden\n");
    let secret = secret.to_str().unwrap();
    for (sql, expected) in [
        ("create table t as select text from source", "only be a SELECT"),
        ("drop table source", "only be a SELECT"),
        ("insert into source values ('x', 1)", "only be a SELECT"),
        (&format!("copy source to '{}'", folder.path("copied.csv").display()), "the query"),
        (&format!("create external table t stored as csv location '{secret}'"), "the query"),
        (&format!("select text from '{secret}'"), "can't be run"),
        (&format!("select text from read_csv('{secret}')"), "can't be run"),
        ("set datafusion.execution.target_partitions = 4", "only be a SELECT"),
        ("explain select text from source", "no column `text`"),
        ("select text from source; select text from source", "can't be run"),
        ("select uuid() as text from source", "gives other rows each time"),
        ("select txt from source", "these tables can be queried: data (text: text, row: integer), also named source"),
        ("select from", "can't be run"),
        ("select row as text from source", "cast(text as varchar)"),
        ("select text as body from source", "it has body"),
        ("select cast(text as bigint) || '' as text from source", "can't be run"),
    ] {
        let spec = plain(source("data", std::slice::from_ref(&file), TextRows::Line), Some(sql));
        let error = folder.prepare(&spec).unwrap_err().to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
    assert!(!folder.path("copied.csv").exists());
}

#[test]
fn wrong_chats_are_told() {
    let folder = Folder::new();
    let bad =
        folder.write("a.jsonl", "{\"messages\": [{\"role\": \"bot\", \"content\": \"x\"}]}\n{\"messages\": \"[\"}\n");
    let mut spec = plain(source("data", &[bad], TextRows::File), None);
    spec.output = DataOutput::Chat;
    let error = folder.prepare(&spec).unwrap_err().to_string();
    assert!(error.contains("2 broken rows") && error.contains("the role `bot`"), "{error}");
    let mut spec = plain(source("data", &[folder.write("a.txt", "x")], TextRows::File), None);
    spec.output = DataOutput::Chat;
    let error = folder.prepare(&spec).unwrap_err().to_string();
    assert!(error.contains("no column `messages`, or `user` and `assistant`"), "{error}");
    spec.transform = Some("select text as user from source".into());
    let error = folder.prepare(&spec).unwrap_err().to_string();
    assert!(error.contains("no column `assistant`"), "{error}");
    spec.transform = Some("select row as messages from source".into());
    let error = folder.prepare(&spec).unwrap_err().to_string();
    assert!(error.contains("it must be JSON text"), "{error}");
}

#[test]
fn impossible_splits_are_told() {
    let folder = Folder::new();
    let mut spec = plain(source("data", &[folder.write("a.txt", "one line")], TextRows::File), None);
    for (fraction, by, expected) in [
        (1.0, SplitBy::Position, "not between 0 and 1"),
        (-0.1, SplitBy::Hash, "not between 0 and 1"),
        (f64::NAN, SplitBy::Hash, "not between 0 and 1"),
        (0.1, SplitBy::Position, "no document is left for validation"),
        (0.9, SplitBy::Position, "no document is left for training"),
    ] {
        spec.split = Split { by, validation_fraction: fraction, seed: 0 };
        let error = folder.prepare(&spec).unwrap_err();
        assert!(error.what().contains(expected), "{fraction}: {error}");
    }
    let empty = plain(source("data", &[folder.write("b.txt", " \n")], TextRows::File), None);
    assert!(folder.prepare(&empty).unwrap_err().what().contains("no document is left"));
}
