//! Operations of small files, called at a local server; and what a file, a model or a server could try.

use super::*;
use crate::listener::{Listener, answer};
use narthex_agent::Content;
use serde_json::{Map, Value};
use std::{fs, io::Write};

const FILE: &str = r##"
openapi: 3.0.3
servers: [{url: "https://{region}.example.org/v1", variables: {region: {default: eu}}}]
paths:
  /pets:
    parameters: [{name: limit, in: query, schema: {type: integer}}]
    get:
      operationId: listPets
      summary: Lists pets
      parameters:
        - {$ref: "#/components/parameters/limit"}
        - {name: tags, in: query, schema: {type: array, items: {type: string}}}
        - {name: ids, in: query, explode: false, schema: {type: array}}
        - {name: filter, in: query, style: deepObject, schema: {type: object}}
        - {name: "page[size]", in: query, schema: {type: integer}}
        - {name: where, in: query, content: {application/json: {schema: {type: object}}}}
        - {name: X-Trace, in: header, schema: {type: string}}
        - {name: Authorization, in: header, required: true, schema: {type: string}}
        - {name: x-api-key, in: header, schema: {type: string}}
        - {name: Host, in: header, schema: {type: string}}
        - {name: session, in: cookie, schema: {type: string}}
      responses: {200: {description: fine}}
    post:
      operationId: addPet
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Pet"}}}}
  /pets/{id}/{name}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string}}
      - {name: name, in: path, required: true, schema: {type: array}}
      - {name: id, in: query, schema: {type: string}}
    get: {description: one}
    delete: {operationId: "pet delete!"}
  /odd:
    get: {operationId: needsCookie, parameters: [{name: s, in: cookie, required: true}]}
    put: {operationId: sendsForm, requestBody: {required: true, content: {multipart/form-data: {}}}}
    post: {operationId: remote, requestBody: {content: {application/json: {schema: {$ref: "http://evil.example/s.json"}}}}}
    patch: {operationId: matrix, parameters: [{name: m, in: query, style: matrix}]}
  /odd/{a}:
    get: {operationId: placeless}
components:
  parameters: {limit: {name: limit, in: query, description: how many, schema: {type: integer, maximum: 50}}}
  schemas: {Pet: {type: object, properties: {name: {type: string}, friend: {$ref: "#/components/schemas/Pet"}}}}
"##;

fn settings(folder: &tempfile::TempDir, server: &str, more: &str) -> OpenApiTool {
    let file = folder.path().join("api.yaml");
    fs::write(&file, FILE).unwrap();
    let host = server.trim_start_matches("http://").split('/').next().unwrap();
    let text =
        format!("file = {file:?}\nserver = \"{server}\"\nallow_hosts = [\"{host}\"]\nresult_bytes_max = 200\n{more}");
    toml::from_str(&text).unwrap()
}

const GOOD: &str = "operations = [\"*\", \"!needsCookie\", \"!sendsForm\", \"!remote\", \"!matrix\", \"!placeless\"]";

async fn called(tools: &[Arc<dyn Tool>], operation: &str, arguments: &Value) -> Outcome {
    let tool = tools.iter().find(|tool| tool.definition().name == format!("api.{operation}")).unwrap();
    let arguments = arguments.as_object().unwrap().clone();
    let call = Call { id: "1".into(), run: "1".into(), tenant: "t".into(), arguments };
    tool.call(call, Arc::new(|_, _, _| {})).await
}

fn text(result: &ToolResult) -> &str {
    match &result.content[..] {
        [Content::Text { text }] => text,
        _ => panic!("one text: {result:?}"),
    }
}

#[tokio::test]
async fn values_go_where_they_belong() {
    let server = Listener::saying("200 OK", "content-type: application/json\r\n", "{\"a\": 1}");
    let folder = tempfile::tempdir().unwrap();
    let tools = openapi("api", &settings(&folder, &server.url("/v1/"), GOOD)).unwrap();
    for (operation, arguments, expected) in [
        ("listPets", json!({}), Ok("GET /v1/pets HTTP/1.1")),
        ("listPets", json!({"limit": 5, "tags": ["a b", "&c"]}), Ok("GET /v1/pets?limit=5&tags=a+b&tags=%26c HTTP")),
        ("listPets", json!({"ids": [1, 2], "filter": {"x": "1"}}), Ok("GET /v1/pets?ids=1%2C2&filter%5Bx%5D=1 HTTP")),
        ("listPets", json!({"page_size": 3}), Ok("GET /v1/pets?page%5Bsize%5D=3 HTTP")),
        ("listPets", json!({"where": {"a": [1]}}), Ok("where=%7B%22a%22%3A%5B1%5D%7D HTTP")),
        ("listPets", json!({"X-Trace": "t1"}), Ok("x-trace: t1\r\n")),
        ("listPets", json!({"X-Trace": "t1\r\nx-evil: 1"}), Err("cannot stand in a header")),
        ("listPets", json!({"Authorization": "x"}), Err("no argument `Authorization`")),
        ("listPets", json!({"Host": "evil.example"}), Err("no argument `Host`")),
        ("listPets", json!({"session": "x"}), Err("no argument `session`")),
        ("listPets", json!({"limit": {"a": 1}, "tags": [[1]]}), Err("a string, a number")),
        ("listPets", json!({"X-Trace": "x".repeat(5000)}), Err("more than 4000 bytes")),
        ("addPet", json!({"body": {"name": "Rex"}}), Ok("\r\n\r\n{\"name\":\"Rex\"}")),
        ("addPet", json!({"body": {"name": "x".repeat(1 << 20)}}), Err("the body has more than")),
        ("get_pets_id_name", json!({"id": "a/b?c#d", "name": ["x", "y"]}), Ok("GET /v1/pets/a%2Fb%3Fc%23d/x%2Cy HTTP")),
        ("get_pets_id_name", json!({"id": "%2e%2e", "name": ["x"]}), Ok("GET /v1/pets/%252e%252e/x HTTP")),
        ("get_pets_id_name", json!({"id": "{name}", "name": ["x"]}), Ok("GET /v1/pets/%7Bname%7D/x HTTP")),
        ("get_pets_id_name", json!({"id": "..", "name": ["x"]}), Err("would be another path")),
        ("get_pets_id_name", json!({"id": ".", "name": ["x"]}), Err("would be another path")),
        ("get_pets_id_name", json!({"id": "", "name": ["x"]}), Err("is empty")),
        ("get_pets_id_name", json!({"name": ["x"]}), Err("`id` is missing")),
        ("get_pets_id_name", json!({"id": "\\..\\", "name": ["x"]}), Ok("GET /v1/pets/%5C..%5C/x HTTP")),
        ("pet_delete", json!({"id": "1", "name": ["x"], "query_id": "2"}), Ok("DELETE /v1/pets/1/x?id=2 HTTP")),
    ] {
        let before = server.connects();
        let shown: String = arguments.to_string().chars().take(80).collect();
        match (called(&tools, operation, &arguments).await, expected) {
            (Ok(result), Ok(part)) => {
                assert_eq!((text(&result), &result.structured), ("{\"a\": 1}", &Some(json!({"a": 1}))), "{shown}");
                let request = server.requests().pop().unwrap();
                assert!(request.contains(part), "{shown}: {request}");
            }
            (Err(failure), Err(part)) => {
                assert!(failure.harmless && failure.message.contains(part), "{shown}: {failure:?}");
                assert_eq!(server.connects(), before, "{shown}");
            }
            (outcome, _) => panic!("{shown}: {outcome:?}"),
        }
    }
}

#[test]
fn operations_become_tools() {
    let folder = tempfile::tempdir().unwrap();
    let make = |more: &str| openapi("api", &settings(&folder, "http://127.0.0.1:9/v1", more));
    let tools = make(&format!("effect = \"reads\"\n{GOOD}")).unwrap();
    let told: Vec<_> = tools.iter().map(|tool| (tool.definition().name.as_str(), tool.definition().effect)).collect();
    let reaches = Effect::Reaches;
    let expected = [
        ("api.listPets", Effect::Reads),
        ("api.addPet", reaches),
        ("api.get_pets_id_name", Effect::Reads),
        ("api.pet_delete", reaches),
    ];
    assert_eq!(told, expected);
    assert_eq!(make(&format!("effect = \"writes\"\n{GOOD}")).unwrap()[1].definition().effect, Effect::Writes);
    assert_eq!(make(GOOD).unwrap()[0].definition().effect, reaches);
    let list = tools[0].definition();
    assert_eq!(list.description, "Lists pets");
    // The operation's own parameter wins over the path's, and what is ours is no argument.
    assert_eq!(
        list.input_schema["properties"]["limit"],
        json!({"type": "integer", "maximum": 50, "description": "how many"})
    );
    let names: Vec<&String> = list.input_schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["limit", "tags", "ids", "filter", "page_size", "where", "X-Trace", "x-api-key"]);
    assert_eq!(
        tools[1].definition().input_schema["$defs"]["Pet"]["properties"]["friend"],
        json!({"$ref": "#/$defs/Pet"})
    );
    assert_eq!(tools[2].definition().input_schema["required"], json!(["id", "name"]));
    for (more, part) in [
        ("operations = [\"needsCookie\"]", "in a cookie"),
        ("operations = [\"sendsForm\"]", "is not JSON"),
        ("operations = [\"remote\"]", "leads out of the file"),
        ("operations = [\"matrix\"]", "style `matrix`"),
        ("operations = [\"placeless\"]", "place without a parameter"),
        ("operations = [\"listPet\"]", "did you mean `listPets`?"),
        ("operations = [\"!*\"]", "0 operations are chosen"),
        ("operations = [\"[\"]", "wrong pattern"),
        ("wall_ms = 0", "`wall_ms`"),
        ("auth = { env = \"NO_SUCH_VARIABLE\" }", "`NO_SUCH_VARIABLE` is not set"),
        ("auth = { env = \"PATH\", header = \"a b\" }", "not the name of a header"),
    ] {
        let error = make(more).err().unwrap();
        assert!(error.to_string().contains(part) && error.what().contains("`api`"), "{more}: {error}");
    }
    let many: Map<String, Value> = (0..100).map(|path| (format!("/{path}"), json!({"get": {}}))).collect();
    fs::write(folder.path().join("many.json"), json!({"openapi": "3.1.0", "paths": many}).to_string()).unwrap();
    let many = OpenApiTool { file: folder.path().join("many.json"), ..settings(&folder, "http://127.0.0.1:9", "") };
    assert!(openapi("api", &many).err().unwrap().to_string().contains("100 operations are chosen"));
}

#[test]
fn servers_are_judged() {
    let folder = tempfile::tempdir().unwrap();
    let base = settings(&folder, "http://127.0.0.1:9", "operations = [\"listPets\"]");
    let auth = Some(OpenApiAuth { header: header(), env: "PATH".into(), prefix: prefix() });
    for (server, allow_hosts, auth, part) in [
        (None, vec![], None, ""),
        (None, vec![], auth.clone(), "server = \"https://eu.example.org/v1\""),
        (Some("https://example.org/v1"), vec![], auth.clone(), ""),
        (Some("http://example.org/v1"), vec![], auth.clone(), "would travel readable"),
        (Some("http://example.org/v1"), vec!["not-example.org"], auth.clone(), "would travel readable"),
        (Some("http://localhost:8000"), vec!["localhost:8000"], auth.clone(), ""),
        (Some("http://127.0.0.1"), vec![], None, "of this machine"),
        (Some("http://localhost:8000"), vec![], None, "allow_hosts = [\"localhost:8000\"]"),
        (Some("https://me:pw@example.org"), vec![], None, "user name"),
        (Some("https://example.org?a=b"), vec![], None, "without a query"),
        (Some("ftp://example.org"), vec![], None, "not a URL of http"),
        (Some("/v1"), vec![], None, "not a URL"),
    ] {
        let allow_hosts = allow_hosts.into_iter().map(String::from).collect();
        let settings = OpenApiTool { server: server.map(Into::into), allow_hosts, auth, ..base.clone() };
        match openapi("api", &settings) {
            Ok(_) => assert_eq!(part, "", "{server:?}"),
            Err(error) => assert!(!part.is_empty() && error.to_string().contains(part), "{server:?}: {error}"),
        }
    }
}

/// The tools, as if the variable were set: a test cannot set one beside others that read them.
fn with_secret(settings: &OpenApiTool) -> Vec<Arc<dyn Tool>> {
    tools("api", settings, Some("s3cret-t0ken".into())).unwrap()
}

#[tokio::test]
async fn secrets_go_to_the_server_alone() {
    let folder = tempfile::tempdir().unwrap();
    let other = Listener::saying("200 OK", "", "caught");
    let auth = "auth = { env = \"UNUSED\", header = \"X-Api-Key\", prefix = \"Key \" }\noperations = [\"*Pet*\"]";
    // A server that repeats what it was sent, sends us elsewhere, or refuses.
    for (path, expected) in [
        ("echo", Ok((false, "x-api-key: Key [secret]"))),
        ("refuse", Ok((true, "status 403"))),
        ("away", Err("none of the hosts")),
    ] {
        let location = format!("location: http://other.example/{}\r\n", other.address.port());
        let server = Listener::at("127.0.0.1:0", move |request, stream| {
            let whole = match request.split(['/', ' ']).nth(2) {
                Some("echo") => answer("200 OK", "content-type: text/plain\r\n", request),
                Some("away") => answer("302 Found", &location, ""),
                _ => answer("403 Forbidden", "content-type: text/plain\r\n", &format!("bad key {request}")),
            };
            drop(stream.write_all(whole.as_bytes()));
        });
        let tools = with_secret(&settings(&folder, &server.url(&format!("/{path}")), auth));
        assert!(!tools.iter().any(|tool| format!("{:?}", tool.definition()).to_lowercase().contains("x-api-key")));
        let outcome = called(&tools, "listPets", &json!({})).await;
        assert!(server.requests()[0].contains("x-api-key: Key s3cret-t0ken\r\n"), "{:?}", server.requests());
        assert!(!format!("{outcome:?}").contains("s3cret"), "{path}: {outcome:?}");
        match (outcome, expected) {
            (Ok(result), Ok((is_error, part))) => {
                assert!(result.is_error == is_error && text(&result).contains(part), "{path}: {result:?}");
            }
            (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{path}: {failure:?}"),
            (outcome, _) => panic!("{path}: {outcome:?}"),
        }
        // What a model gives cannot take the header's place.
        assert!(called(&tools, "listPets", &json!({"x-api-key": "mine"})).await.unwrap_err().harmless);
    }
    assert_eq!(other.connects(), 0);
}

#[tokio::test]
async fn answers_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let json_type = "content-type: application/problem+json\r\n";
    let bomb = format!("{}{}", "[".repeat(90_000), "]".repeat(90_000));
    for (status, head, body, is_error, part, structured) in [
        ("200 OK", json_type, "{\"a\":1}", false, "{\"a\":1}", Some(json!({"a": 1}))),
        ("200 OK", json_type, "{broken", false, "{broken", None),
        ("200 OK", json_type, &bomb, false, "[cut: ", None),
        ("200 OK", "content-type: text/plain\r\n", "x", false, "x", None),
        ("200 OK", "content-type: image/png\r\n", "x", false, "[1 bytes of `image/png`]", None),
        ("204 No Content", "", "", false, "204 No Content, without a body", None),
        ("404 Not Found", json_type, "{\"why\":\"none\"}", true, "status 404 Not Found\n{\"why\":\"none\"}", None),
        ("500 Internal Server Error", "", "", true, "status 500", None),
    ] {
        let server = Listener::saying(status, head, body);
        let tools = openapi("api", &settings(&folder, &server.url(""), GOOD)).unwrap();
        let result = called(&tools, "listPets", &json!({})).await.unwrap();
        assert!(
            result.is_error == is_error && text(&result).contains(part) && text(&result).len() < 400,
            "{status}: {result:?}"
        );
        assert_eq!(result.structured, structured, "{status}");
    }
    let endless = Listener::at("127.0.0.1:0", |_, stream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n["));
        while stream.write_all(&b"1,".repeat(30_000)).is_ok() {}
    });
    let tools = openapi("api", &settings(&folder, &endless.url(""), GOOD)).unwrap();
    let result = called(&tools, "listPets", &json!({})).await.unwrap();
    assert!(text(&result).contains("longer than what is read of one") && result.structured.is_none(), "{result:?}");
}

#[tokio::test]
async fn calls_have_a_key_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = Listener::saying("200 OK", "", "x");
    let settings = settings(&folder, &server.url(""), &format!("idempotency_header = \"Idempotency-Key\"\n{GOOD}"));
    let tools = openapi("api", &settings).unwrap();
    let keys = |request: &String| request.lines().find(|line| line.starts_with("idempotency-key: ")).map(String::from);
    for (operation, arguments) in
        [("addPet", json!({"body": {}})), ("addPet", json!({"body": {}})), ("listPets", json!({}))]
    {
        called(&tools, operation, &arguments).await.unwrap();
    }
    let keys: Vec<_> = server.requests().iter().map(keys).collect();
    assert!(keys[0].as_ref().is_some_and(|key| key.len() == "idempotency-key: ".len() + 64) && keys[0] == keys[1]);
    assert_eq!(keys[2], None);
    let odd = OpenApiTool { idempotency_header: Some("a b".into()), ..settings };
    assert!(openapi("api", &odd).err().unwrap().to_string().contains("not the name of a header"));
}
