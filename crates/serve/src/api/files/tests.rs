//! Files sent, listed, read and deleted, over a folder of their own.

use super::*;
use crate::{
    batches::{FilesOptions, Store},
    testing_files::{Server, form, send},
};
use std::fs;

const PATH: &str = "/v1/files";

/// Names of files, in the order of a list.
fn names(list: &Value) -> String {
    list["data"].as_array().unwrap().iter().map(|file| file["filename"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_file_is_kept_shown_read_and_deleted() {
    let mut server = Server::new(|_| {});
    let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|n| (n % 251) as u8).collect();
    let (kind, body) = form(&[("file", Some("../ünicode name.bin"), &bytes), ("purpose", None, b"user_data")]);
    let mut file = server.send("POST", PATH, &kind, body).await.json(200);
    let id = file["id"].as_str().unwrap().to_string();
    let path = format!("{PATH}/{id}");
    let shown = file.clone();
    assert!(id.starts_with("file-") && file["created_at"].take().as_u64() > Some(1_700_000_000));
    let expected = json!({
        "id": id, "object": "file", "bytes": bytes.len(), "created_at": null, "expires_at": null,
        "filename": "../ünicode name.bin", "purpose": "user_data", "status": "processed",
    });
    assert_eq!(file, expected);
    for restart in [false, true] {
        if restart {
            server.stop();
            server.start();
        }
        assert_eq!(server.get(&path).await.json(200), shown);
        let list = json!({"object": "list", "data": [shown], "first_id": id, "last_id": id, "has_more": false});
        assert_eq!(server.get(PATH).await.json(200), list);
        let content = server.get(&format!("{path}/content")).await;
        assert!(content.status == 200 && content.body == bytes, "{}", content.body.len());
        let header = |name: &str| content.headers[name].to_str().unwrap().to_string();
        assert_eq!(header("content-length"), bytes.len().to_string());
        assert_eq!(header("content-type"), "application/octet-stream");
        assert_eq!(
            (header("content-disposition"), header("x-content-type-options")),
            ("attachment".into(), "nosniff".into())
        );
        assert_eq!(server.names("files"), [format!("{id}.data"), format!("{id}.json")]);
        assert_eq!(server.store().bytes(), bytes.len() as u64);
    }
    let gone = server.send("DELETE", &path, "", "").await.json(200);
    assert_eq!(gone, json!({"id": id, "object": "file", "deleted": true}));
    assert_eq!((server.names("files"), server.store().bytes()), (vec![], 0));
    for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/content"))] {
        let error = server.send(method, &path, "", "").await.error();
        assert_eq!(error, format!("404 id not_found: there is no file `{id}`"));
    }
    let none = json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false});
    assert_eq!(server.get(PATH).await.json(200), none);
}

#[tokio::test]
async fn forms_that_are_wrong_name_the_field_and_leave_nothing() {
    let server = Server::new(|options| options.file_bytes_max = 400_000);
    let (batch, file) = (("purpose", None, &b"batch"[..]), ("file", Some("a"), &b"text"[..]));
    let purpose = |text: &'static str| ("purpose", None, text.as_bytes());
    let anchor = |text: &'static str| ("expires_after[anchor]", None, text.as_bytes());
    let seconds = |text: &'static str| ("expires_after[seconds]", None, text.as_bytes());
    let (long, large) = ("n".repeat(1025), vec![b'x'; 400_001]);
    let span = "`expires_after[seconds]` must be a whole number from 3600 to 2592000";
    for (fields, expected) in [
        (vec![], "400 purpose missing_required_parameter: the field `purpose` is missing"),
        (vec![file], "400 purpose missing_required_parameter: the field `purpose` is missing"),
        (vec![batch], "400 file missing_required_parameter: the field `file` is missing"),
        (
            vec![file, purpose("fine-tune")],
            "400 purpose unsupported_purpose: this server keeps no files for `fine-tune`: `purpose` must be \
             `batch` or `user_data`",
        ),
        (vec![purpose("evals"), file], "400 purpose unsupported_purpose: "),
        (vec![purpose("assistants"), file], "400 purpose unsupported_purpose: "),
        (vec![purpose("vision"), file], "400 purpose unsupported_purpose: "),
        (vec![purpose("batch_output"), file], "400 purpose invalid_purpose: `purpose` must be `batch` or"),
        (vec![purpose(""), file], "400 purpose invalid_purpose: "),
        (vec![("purpose", None, b"\xff"), file], "400 purpose -: `purpose` must be UTF-8"),
        (vec![("purpose", None, &large), file], "400 purpose -: `purpose` must have at most 1024 bytes"),
        (vec![batch, batch, file], "400 purpose -: the field `purpose` stands in the form twice"),
        (vec![file, batch, file], "400 file -: the field `file` stands in the form twice"),
        (vec![batch, ("file", None, b"text")], "400 file -: `file` must be a file with a name, not a text"),
        (vec![batch, ("file", Some(""), b"text")], "400 file -: `file` must be a file with a name"),
        (vec![batch, ("file", Some(&long), b"text")], "400 file -: the name of `file` must have at most 1024"),
        (vec![batch, file, ("colour", None, b"red")], "400 colour unknown_parameter: unknown field `colour`"),
        (
            vec![batch, file, seconds("3600")],
            "400 expires_after[anchor] missing_required_parameter: the field `expires_after[anchor]`",
        ),
        (vec![batch, file, anchor("created_at")], "400 expires_after[seconds] missing_required_parameter: "),
        (
            vec![batch, file, anchor("now"), seconds("3600")],
            "400 expires_after[anchor] -: `expires_after[anchor]` must be `created_at`",
        ),
        (vec![file, batch, seconds("3599")], &format!("400 expires_after[seconds] -: {span}")),
        (vec![file, batch, seconds("2592001")], &format!("400 expires_after[seconds] -: {span}")),
        (vec![file, batch, seconds("-1")], &format!("400 expires_after[seconds] -: {span}")),
        (vec![file, batch, seconds("1e4")], &format!("400 expires_after[seconds] -: {span}")),
        (
            vec![batch, ("file", Some("a"), &large)],
            "413 file file_too_large: the file is too large: this server takes at most 400000 bytes",
        ),
    ] {
        let (kind, body) = form(&fields);
        let error = server.send("POST", PATH, &kind, body).await.error();
        assert!(error.starts_with(expected), "{error}, not {expected}");
        assert_eq!((server.names("files"), server.store().bytes()), (vec![], 0), "{expected}");
    }
    // Forms that are none.
    let (kind, body) = form(&[batch, file]);
    let broken = body[..body.len() - 20].to_vec();
    for (kind, body, expected) in [
        (kind.as_str(), broken, "400 - -: cannot read the form: "),
        (kind.as_str(), b"nonsense".to_vec(), "400 - -: cannot read the form: "),
        (kind.as_str(), vec![], "400 - -: cannot read the form: "),
        ("application/json", b"{}".to_vec(), "415 - unsupported_media_type: a file is sent as a form"),
        ("multipart/form-data", body, "415 - unsupported_media_type: "),
        ("", vec![], "415 - unsupported_media_type: "),
    ] {
        let error = server.send("POST", PATH, kind, body).await.error();
        assert!(error.starts_with(expected), "{error}, not {expected}");
        assert_eq!((server.names("files"), server.store().bytes()), (vec![], 0), "{expected}");
    }
}

#[tokio::test]
async fn limits_count_all_files() {
    let server = Server::new(|options| {
        options.file_bytes_max = 60;
        options.bytes_max = 100;
        options.files_max = 3;
    });
    let send = async |bytes: usize| {
        let (kind, body) = form(&[("purpose", None, b"user_data"), ("file", Some("a"), &vec![b'x'; bytes])]);
        server.send("POST", PATH, &kind, body).await
    };
    for (bytes, expected) in [
        (61, "413 file file_too_large: the file is too large: this server takes at most 60 bytes"),
        (100 << 10, "413 file file_too_large: "),
        (60, ""),
        (41, "413 - files_full: this server keeps at most 100 bytes in all files together: delete some first"),
        (40, ""),
        (1, "413 - files_full: this server keeps at most 100 bytes"),
        (0, ""),
        (0, "413 - files_full: this server keeps at most 3 files: delete some first"),
    ] {
        let reply = send(bytes).await;
        match expected {
            "" => assert_eq!(reply.json(200)["bytes"], bytes),
            _ => assert!(reply.error().starts_with(expected), "{}, not {expected}", reply.error()),
        }
    }
    // What is deleted, or whose time is over, makes room.
    let ids = server.get(PATH).await.json(200);
    let id = |index: usize| ids["data"][index]["id"].as_str().unwrap().to_string();
    server.send("DELETE", &format!("{PATH}/{}", id(0)), "", "").await.json(200);
    server.store().age(&id(1));
    assert_eq!(send(40).await.json(200)["bytes"], 40);
    assert_eq!(server.store().bytes(), 100);
}

/// A client that goes away in the midst of a file leaves nothing.
#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::new(|_| {});
    let (kind, body) = form(&[("purpose", None, b"batch"), ("file", Some("a"), &vec![b'x'; 2 * PIECE])]);
    let half = body[..body.len() / 2].to_vec();
    let broken = stream::iter([Ok(half.clone()), Err(std::io::Error::other("gone"))]);
    let error = server.send("POST", PATH, &kind, Body::from_stream(broken)).await.error();
    assert!(error.starts_with("400 - -: cannot read the form"), "{error}");
    assert_eq!((server.names("files"), server.store().bytes()), (vec![], 0));
    // One that says nothing more, and whose connection is then dropped.
    let pieces = [half[..half.len() / 2].to_vec(), half[half.len() / 2..].to_vec()];
    let silent = futures::StreamExt::chain(stream::iter(pieces.map(Ok::<_, std::io::Error>)), stream::pending());
    let sent = server.send("POST", PATH, &kind, Body::from_stream(silent));
    let over = tokio::time::timeout(std::time::Duration::from_millis(300), sent).await;
    assert!(over.is_err());
    crate::testing_files::until("nothing stays", || server.names("files").is_empty() && server.store().bytes() == 0)
        .await;
}

#[tokio::test]
async fn lists_have_pages() {
    let server = Server::new(|_| {});
    let mut ids = std::collections::HashMap::new();
    for (name, purpose) in [("a", "batch"), ("b", "user_data"), ("c", "batch"), ("d", "batch"), ("e", "user_data")] {
        ids.insert(name, server.upload(name, purpose, name).await);
    }
    server.send("DELETE", &format!("{PATH}/{}", ids["d"]), "", "").await.json(200);
    for (query, after, expected, more) in [
        ("", "", "ecba", false),
        ("?limit=4", "", "ecba", false),
        ("?limit=3", "", "ecb", true),
        ("?limit=2&order=desc", "c", "ba", false),
        ("?order=asc", "", "abce", false),
        ("?order=asc&limit=2", "b", "ce", false),
        ("?order=asc&limit=1", "b", "c", true),
        ("?purpose=batch", "", "ca", false),
        ("?purpose=batch&limit=1", "", "c", true),
        ("?purpose=batch&order=asc", "b", "c", false),
        ("?purpose=fine-tune", "", "", false),
        ("?limit=&order=&purpose=&after=", "", "ecba", false),
        // It was there when the page before was read.
        ("?order=asc", "d", "e", false),
    ] {
        let after = if after.is_empty() { String::new() } else { format!("&after={}", ids[after]) };
        let list = server.get(&format!("{PATH}{query}{after}")).await.json(200);
        assert_eq!((names(&list), &list["has_more"]), (expected.into(), &json!(more)), "{query}{after}");
        let ends = [
            list["data"][0]["id"].clone(),
            list["data"].as_array().unwrap().last().map_or(Value::Null, |file| file["id"].clone()),
        ];
        assert_eq!([list["first_id"].clone(), list["last_id"].clone()], ends);
    }
    for (query, expected) in [
        ("?limit=0", "400 limit -: `limit` must be a whole number from 1 to 10000"),
        ("?limit=10001", "400 limit -: "),
        ("?limit=-1", "400 limit -: "),
        ("?limit=many", "400 limit -: "),
        ("?order=up", "400 order -: `order` must be `asc` or `desc`"),
        ("?after=file-nobody", "400 after -: `after` names no file: there is no `file-nobody`"),
        ("?after=../../x", "400 after -: "),
    ] {
        let error = server.get(&format!("{PATH}{query}")).await.error();
        assert!(error.starts_with(expected), "{error}, not {expected}");
    }
}

#[tokio::test]
async fn only_names_of_files_reach_the_disk() {
    let server = Server::new(|_| {});
    let id = server.upload("a", "user_data", "text").await;
    fs::write(server.folder.path().join("kept/files/secret"), "secret").unwrap();
    fs::write(server.folder.path().join("kept/files/file-x.data"), "secret").unwrap();
    let long = "file-".to_string() + &"0".repeat(5000);
    for wrong in [
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "secret",
        "file-x",
        "file-..%2fsecret",
        "..%5csecret",
        "lock",
        "%00",
        &format!("{id}%00"),
        &format!("{id}.json"),
        &format!("{id}%2f..%2f{id}"),
        &format!(".%2f{id}"),
        &id.to_uppercase(),
        &id.replace("file-", "batch_"),
        &long,
    ] {
        for (method, end) in [("GET", ""), ("GET", "/content"), ("DELETE", "")] {
            let error = server.send(method, &format!("{PATH}/{wrong}{end}"), "", "").await.error();
            assert!(error.starts_with("404 id not_found: there is no file `") && error.len() < 130, "{error}");
        }
    }
    let error = server.get(&format!("{PATH}/%ff")).await.error();
    assert!(error.starts_with("400 - -: cannot read the URL: "), "{error}");
    assert_eq!(fs::read_to_string(server.folder.path().join("kept/files/secret")).unwrap(), "secret");
    server.get(&format!("{PATH}/{id}")).await.json(200);
}

#[tokio::test]
async fn files_whose_time_is_over_are_gone() {
    let server = Server::new(|_| {});
    let expires = async |purpose: &str, seconds: &str| {
        let mut fields = vec![("purpose", None, purpose.as_bytes()), ("file", Some("a"), &b"text"[..])];
        if !seconds.is_empty() {
            fields.insert(0, ("expires_after[anchor]", None, b"created_at"));
            fields.push(("expires_after[seconds]", None, seconds.as_bytes()));
        }
        let (kind, body) = form(&fields);
        let file = server.send("POST", PATH, &kind, body).await.json(200);
        let stays = file["expires_at"].as_u64().map(|end| end - file["created_at"].as_u64().unwrap());
        (file["id"].as_str().unwrap().to_string(), stays)
    };
    for (purpose, seconds, expected) in [
        ("batch", "", Some(2_592_000)),
        ("user_data", "", None),
        ("batch", "3600", Some(3600)),
        ("user_data", "2592000", Some(2_592_000)),
    ] {
        let (id, stays) = expires(purpose, seconds).await;
        assert_eq!(stays, expected);
        server.store().age(&id);
        for end in ["", "/content"] {
            let error = server.get(&format!("{PATH}/{id}{end}")).await.error();
            assert!(error.starts_with("404 id not_found"), "{error}");
        }
        assert_eq!(server.names("files"), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_what_is_not_ours_stays() {
    let mut server = Server::new(|_| {});
    let id = server.upload("a", "user_data", "text").await;
    server.stop();
    let other = crate::testing_files::names(&server.folder.path().join("kept"));
    assert_eq!(other, ["batches", "files", "lock"]);
    let zeros = "0".repeat(32);
    let names = ["part", "data", "json.tmp", "strange"].map(|end| format!("file-{zeros}.{end}"));
    for name in names.iter().chain([&"notes.txt".to_string(), &"file-.data".into()]) {
        fs::write(server.folder.path().join("kept/files").join(name), "x").unwrap();
    }
    server.start();
    assert_eq!(
        server.names("files"),
        ["file-.data".to_string(), format!("{id}.data"), format!("{id}.json"), "notes.txt".into()]
    );
    // A record without its data is no file.
    server.stop();
    fs::remove_file(server.path("files", &id, "data")).unwrap();
    server.start();
    assert_eq!(server.get(PATH).await.json(200)["data"], json!([]));
    assert_eq!(server.names("files"), ["file-.data", "notes.txt"]);
    // A record that cannot be read is named, not lost.
    server.stop();
    fs::write(server.path("files", &id, "json"), "{").unwrap();
    let error = Store::open(FilesOptions::new(server.folder.path().join("kept"))).err().unwrap();
    assert!(error.to_string().contains(&format!("{id}.json")), "{error}");
}

#[tokio::test]
async fn a_folder_has_one_server_and_without_one_there_are_no_files() {
    let server = Server::new(|_| {});
    let error = Store::open(server.store().options().clone()).err().unwrap();
    assert!(error.to_string().contains("another server uses this folder"), "{error}");
    let router = crate::router::files_routes::<FilesState>(&FilesState(None)).with_state(FilesState(None));
    let expected =
        "501 - files_not_enabled: this server keeps no files and no batches: start it with `--files-dir DIR`";
    let (kind, body) = form(&[("purpose", None, b"batch"), ("file", Some("a"), b"text")]);
    for (method, path, kind, body) in [
        ("POST", "/v1/files", kind.as_str(), body),
        ("GET", "/v1/files", "", vec![]),
        ("GET", "/v1/files/a", "", vec![]),
        ("GET", "/v1/files/a/content", "", vec![]),
        ("DELETE", "/v1/files/a", "", vec![]),
        ("POST", "/v1/batches", "application/json", b"{}".to_vec()),
        ("GET", "/v1/batches", "", vec![]),
        ("GET", "/v1/batches/a", "", vec![]),
        ("POST", "/v1/batches/a/cancel", "", vec![]),
    ] {
        assert_eq!(send(&router, method, path, kind, body).await.error(), expected, "{method} {path}");
    }
}
