//! Attempts to get out of a folder, and honest work in it.

use super::*;
use narthex_agent::{Call, Content};
use serde_json::json;
use std::{fs, os::unix::fs::symlink, path::Path};

/// A folder with a neighbour that nobody may see.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for path in ["root/src", "root/.git", "root-next", "outside"] {
        fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    for (path, text) in [
        ("a.txt", "one\ntwo\nthree\n"),
        ("src/main.rs", "fn main() {}\n// two\n"),
        (".env", "KEY=s3cret\n"),
        (".git/config", "s3cret\n"),
        ("binary", "a\0b"),
        ("long", &"x".repeat(500)),
        ("../outside/secret", "s3cret\n"),
        ("../root-next/secret", "s3cret\n"),
    ] {
        fs::write(root.join(path), text).unwrap();
    }
    fs::write(root.join("latin1"), b"\xe9").unwrap();
    symlink("../outside", root.join("way-out")).unwrap();
    symlink("/etc/passwd", root.join("passwd")).unwrap();
    symlink("src", root.join("inner")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    folder
}

fn settings(folder: &Path, more: &str) -> FilesTool {
    let text = format!(
        "folder = {:?}\nwrite = true\nresult_bytes_max = 200\nfile_bytes_max = 2000\n{more}",
        folder.join("root")
    );
    toml::from_str(&text).unwrap()
}

async fn called(settings: &FilesTool, operation: &str, arguments: Value) -> Result<String, ToolFailure> {
    let tools = files("f", settings).unwrap();
    let tool = tools.iter().find(|tool| tool.definition().name == format!("f.{operation}")).unwrap();
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let call = Call { id: "1".into(), run: "1".into(), tenant: "t".into(), arguments };
    let result = tool.call(call, Arc::new(|_, _, _| {})).await?;
    let [Content::Text { text }] = &result.content[..] else { panic!("one text: {result:?}") };
    Ok(text.clone())
}

#[tokio::test]
async fn nothing_leads_out() {
    let folder = project();
    let settings = settings(folder.path(), "");
    let absolute = folder.path().join("outside/secret").display().to_string();
    for (path, part) in [
        ("../outside/secret", "stay below"),
        ("src/../../outside/secret", "stay below"),
        ("src/..", "stay below"),
        ("./..", "stay below"),
        ("../root-next/secret", "stay below"),
        (&absolute, "begins with `/`"),
        ("//etc/passwd", "begins with `/`"),
        ("way-out/secret", "symbolic link"),
        ("passwd", "symbolic link"),
        ("inner/main.rs", "symbolic link"),
        ("magic/etc/passwd", "symbolic link"),
        ("a.txt/x", "not a folder"),
        ("a\0b", "stay below"),
        (".env", "hidden"),
        (".git/config", "hidden"),
        ("src/.narthex-part-1-1", "hidden"),
        (&"a/".repeat(40), "folders"),
        (&"a".repeat(2000), "bytes"),
    ] {
        for (operation, mut arguments) in [
            ("list", json!({})),
            ("read", json!({})),
            ("search", json!({"pattern": "s3cret"})),
            ("write", json!({"content": "x"})),
            ("edit", json!({"old": "s3cret", "new": "x"})),
        ] {
            arguments["path"] = path.into();
            match called(&settings, operation, arguments).await {
                Err(failure) => {
                    let is_named = failure.message.contains(part) || failure.message.contains("is no file");
                    assert!(is_named && failure.message.len() < 3000, "{operation} {path:?}: {failure:?}");
                }
                Ok(text) => panic!("{operation} {path:?}: {text}"),
            }
        }
    }
    for path in ["outside/secret", "root-next/secret", "root/.env"] {
        assert!(fs::read_to_string(folder.path().join(path)).unwrap().contains("s3cret"), "{path}");
    }
    // What is hidden is not found by looking either, and links are not followed.
    for (operation, arguments) in [("search", json!({"pattern": "s3cret"})), ("list", json!({"depth": 8}))] {
        let text = called(&settings, operation, arguments).await.unwrap();
        assert!(!text.contains("s3cret") && !text.contains(".env") && !text.contains("way-out/"), "{text}");
    }
}

#[tokio::test]
async fn a_folder_swapped_for_a_link_leads_nowhere() {
    let folder = project();
    let root = folder.path().join("root");
    fs::create_dir(root.join("swap")).unwrap();
    fs::write(root.join("swap/secret"), "harmless\n").unwrap();
    symlink("../outside", root.join("other")).unwrap();
    let settings = settings(folder.path(), "");
    let (stop, is_stopped) = std::sync::mpsc::channel::<()>();
    let swapped = root.clone();
    // As fast as it can: the folder and the link change places in one step, again and again.
    let swapper = std::thread::spawn(move || {
        let mut swaps = 0;
        while is_stopped.try_recv().is_err() {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let (from, to) = (swapped.join("swap"), swapped.join("other"));
            rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags).unwrap();
            swaps += 1;
        }
        swaps
    });
    let (mut read, mut refused) = (0, 0);
    for round in 0..300 {
        match called(&settings, "read", json!({"path": "swap/secret"})).await {
            Ok(text) => {
                assert_eq!(text, "harmless\n", "round {round}");
                read += 1;
            }
            Err(_) => refused += 1,
        }
        drop(called(&settings, "write", json!({"path": format!("swap/new/{round}"), "content": "x"})).await);
    }
    stop.send(()).unwrap();
    assert!(swapper.join().unwrap() > 0 && read + refused == 300);
    let mut outside: Vec<_> =
        fs::read_dir(folder.path().join("outside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    outside.sort();
    assert_eq!(outside, ["secret"], "nothing was written outside");
}

#[tokio::test]
async fn files_are_read_and_found() {
    let folder = project();
    let settings = settings(folder.path(), "");
    for (operation, arguments, expected) in [
        ("read", json!({"path": "a.txt"}), Ok("one\ntwo\nthree\n")),
        ("read", json!({"path": "./src//main.rs"}), Ok("fn main() {}\n// two\n")),
        (
            "read",
            json!({"path": "a.txt", "from_line": 2, "lines": 1}),
            Ok("two\n[lines 2 to 2 of 3; read on with `from_line` = 3]"),
        ),
        ("read", json!({"path": "a.txt", "from_line": 3}), Ok("three\n")),
        ("read", json!({"path": "a.txt", "from_line": 4}), Err("has 3 lines")),
        ("read", json!({"path": "a.txt", "from_line": 0}), Err("whole number")),
        ("read", json!({"path": "long"}), Ok("[cut: 300 bytes more; of this line; find what you need with a search]")),
        ("read", json!({"path": "binary"}), Err("no UTF-8 text")),
        ("read", json!({"path": "latin1"}), Err("no UTF-8 text")),
        ("read", json!({"path": "pipe"}), Err("no file")),
        ("read", json!({"path": "src"}), Err("list it instead")),
        ("read", json!({"path": "none"}), Err("list the folder")),
        ("read", json!({}), Err("`path` must be given")),
        ("list", json!({}), Ok("a.txt (14 bytes)\nbinary (3 bytes)\ninner (a link or device")),
        ("list", json!({"path": "src"}), Ok("src/main.rs (20 bytes)")),
        ("list", json!({"path": "a.txt"}), Err("not a folder")),
        ("list", json!({"depth": 99}), Err("whole number")),
        ("search", json!({"pattern": "^t"}), Ok("a.txt:2: two\na.txt:3: three")),
        ("search", json!({"pattern": "two", "files": "*.rs"}), Ok("src/main.rs:2: // two")),
        ("search", json!({"pattern": "two", "files": "src/*"}), Ok("src/main.rs:2: // two")),
        ("search", json!({"pattern": "two", "path": "src"}), Ok("src/main.rs:2: // two")),
        ("search", json!({"pattern": "ONE", "path": "a.txt"}), Ok("nothing found in 1 files")),
        ("search", json!({"pattern": "(?i)ONE", "path": "a.txt"}), Ok("a.txt:1: one")),
        ("search", json!({"pattern": "("}), Err("not a regular expression")),
        ("search", json!({"pattern": "(a{1000}){1000}"}), Err("not a regular expression")),
        ("search", json!({"pattern": "x", "path": "binary"}), Err("no UTF-8 text")),
        ("search", json!({"pattern": "x", "files": "["}), Err("not a pattern")),
    ] {
        let outcome = called(&settings, operation, arguments.clone()).await;
        match (&outcome, expected) {
            (Ok(text), Ok(part)) => assert!(text.contains(part), "{operation} {arguments}: {text}"),
            (Err(failure), Err(part)) => {
                assert!(failure.message.contains(part), "{operation} {arguments}: {failure:?}")
            }
            _ => panic!("{operation} {arguments}: {outcome:?}"),
        }
    }
    // Large ones are told apart and named.
    fs::write(folder.path().join("root/large"), "x".repeat(2001)).unwrap();
    let failure = called(&settings, "read", json!({"path": "large"})).await.unwrap_err();
    assert!(failure.message.contains("larger than 2000 bytes"), "{failure:?}");
    let found = called(&settings, "search", json!({"pattern": "zzz"})).await.unwrap();
    assert!(found.contains("[3 files are no text or too large]"), "{found}");
    let hidden = called(&settings_hidden(folder.path()), "read", json!({"path": ".env"})).await.unwrap();
    assert!(hidden.contains("s3cret"));
}

#[tokio::test]
async fn what_is_excluded_is_not_there() {
    let folder = project();
    let settings = settings(folder.path(), "exclude = [\"src/**\", \"**/*.txt\"]");
    for (operation, arguments) in [
        ("read", json!({"path": "src/main.rs"})),
        ("read", json!({"path": "./src//main.rs"})),
        ("read", json!({"path": "a.txt"})),
        ("write", json!({"path": "src/new.rs", "content": "x"})),
        ("edit", json!({"path": "src/main.rs", "old": "two", "new": "2"})),
    ] {
        let failure = called(&settings, operation, arguments.clone()).await.unwrap_err();
        assert!(failure.message.contains("is not for this tool"), "{arguments}: {failure:?}");
    }
    let found = called(&settings, "search", json!({"pattern": "fn main"})).await.unwrap();
    assert!(!found.contains("main.rs:"), "{found}");
    let listed = called(&settings, "list", json!({"depth": 3})).await.unwrap();
    assert!(!listed.contains("main.rs") && !listed.contains("a.txt"), "{listed}");
    let wrong = FilesTool { exclude: vec!["[".into()], ..settings };
    assert!(files("f", &wrong).err().unwrap().to_string().contains("cannot be made"));
}

fn settings_hidden(folder: &Path) -> FilesTool {
    settings(folder, "hidden = true")
}

#[tokio::test]
async fn files_are_written_whole() {
    use std::os::unix::fs::PermissionsExt;
    let folder = project();
    let root = folder.path().join("root");
    let settings = settings(folder.path(), "");
    fs::set_permissions(root.join("a.txt"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(root.join("twice"), "aaa\nb\n").unwrap();
    for (operation, arguments, file, expected) in [
        ("write", json!({"path": "new/deep/b.txt", "content": "é\n"}), "new/deep/b.txt", Ok("é\n")),
        ("write", json!({"path": "a.txt", "content": "one\ntwo\nthree\n"}), "a.txt", Ok("one\ntwo\nthree\n")),
        ("edit", json!({"path": "a.txt", "old": "two\n", "new": "2\n"}), "a.txt", Ok("one\n2\nthree\n")),
        ("edit", json!({"path": "a.txt", "old": "two", "new": "2"}), "a.txt", Err("is not in")),
        ("edit", json!({"path": "twice", "old": "aa", "new": "2"}), "twice", Err("more than once")),
        ("edit", json!({"path": "twice", "old": "", "new": "2"}), "twice", Err("empty")),
        ("edit", json!({"path": "twice", "old": "b", "new": "x".repeat(3000)}), "twice", Err("2000 is the most")),
        ("edit", json!({"path": "binary", "old": "a", "new": "b"}), "binary", Err("no UTF-8 text")),
        ("edit", json!({"path": "none", "old": "a", "new": "b"}), "a.txt", Err("is not there")),
        ("write", json!({"path": "src", "content": "x"}), "src/main.rs", Err("is no file")),
        ("write", json!({"path": ".", "content": "x"}), "a.txt", Err("the folder itself")),
        ("write", json!({"path": "inner", "content": "x"}), "src/main.rs", Err("is no file")),
        ("write", json!({"path": "inner/main.rs", "content": "x"}), "src/main.rs", Err("symbolic link")),
        ("write", json!({"path": "way-out/new/x", "content": "x"}), "a.txt", Err("symbolic link")),
        ("write", json!({"path": "a.txt/x", "content": "x"}), "a.txt", Err("not a folder")),
        ("write", json!({"path": "x", "content": "a\0"}), "a.txt", Err("code 0")),
        ("write", json!({"path": "x", "content": "x".repeat(3000)}), "a.txt", Err("2000 is the most")),
        ("write", json!({"path": ".git/hooks/pre-commit", "content": "x"}), ".git/config", Err("hidden")),
        ("write", json!({"path": "x"}), "a.txt", Err("`content` must be given")),
    ] {
        let before = fs::read(root.join(file)).ok();
        match (called(&settings, operation, arguments.clone()).await, expected) {
            (Ok(_), Ok(text)) => assert_eq!(fs::read_to_string(root.join(file)).unwrap(), text, "{arguments}"),
            (Err(failure), Err(part)) => {
                assert!(failure.message.contains(part), "{operation} {arguments}: {failure:?}");
                assert_eq!(fs::read(root.join(file)).ok(), before, "{arguments}");
            }
            (outcome, _) => panic!("{operation} {arguments}: {outcome:?}"),
        }
    }
    assert_eq!(fs::metadata(root.join("a.txt")).unwrap().permissions().mode() & 0o777, 0o750);
    assert!(!folder.path().join("outside/new").exists());
    let left = fs::read_dir(&root)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("part"));
    assert_eq!(left.count(), 0);
}

#[test]
fn tools_and_settings() {
    let folder = project();
    let names = |settings: &FilesTool| {
        let tools = files("f", settings).unwrap();
        tools.iter().map(|tool| (tool.definition().name.clone(), tool.definition().effect)).collect::<Vec<_>>()
    };
    let reads = ["list", "read", "search"].map(|name| (format!("f.{name}"), Effect::Reads));
    let writes = ["write", "edit"].map(|name| (format!("f.{name}"), Effect::Writes));
    assert_eq!(names(&settings(folder.path(), "")), [&reads[..], &writes].concat());
    let read_only = FilesTool { write: false, ..settings(folder.path(), "") };
    assert_eq!(names(&read_only), reads);
    for (settings, part) in [
        (FilesTool { folder: "/none".into(), ..read_only.clone() }, "cannot be made"),
        (FilesTool { folder: folder.path().join("root/a.txt"), ..read_only.clone() }, "cannot be made"),
        (FilesTool { file_bytes_max: 0, ..read_only.clone() }, "file_bytes_max"),
        (FilesTool { result_bytes_max: 1, ..read_only }, "result_bytes_max"),
    ] {
        let error = files("f", &settings).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(toml::from_str::<FilesTool>("folder = \"x\"\nroot = 1").is_err());
}
