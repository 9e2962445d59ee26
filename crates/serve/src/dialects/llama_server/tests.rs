//! llama-server's endpoints in and out, without a server.

use super::*;
use crate::dialects::Spent;
use std::time::Duration;

/// One token a byte, and 256 in front of a prompt.
struct Bytes;

impl Tokens for Bytes {
    fn ids(&self, text: &str, begins: bool) -> Result<Vec<u32>, ApiError> {
        Ok(begins.then_some(256).into_iter().chain(text.bytes().map(u32::from)).collect())
    }

    fn text(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&ids.iter().flat_map(|id| self.bytes(*id)).collect::<Vec<u8>>()).into_owned()
    }

    fn bytes(&self, id: u32) -> Vec<u8> {
        u8::try_from(id).map_or_else(|_| format!("<{id}>").into_bytes(), |byte| vec![byte])
    }
}

fn defaults() -> Defaults {
    Defaults {
        model: "m".into(),
        context: 64,
        temperature: 0.75,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn joined(base: Value, more: Value) -> Value {
    let mut whole = map(base);
    whole.extend(map(more));
    Value::Object(whole)
}

fn reading(more: Value) -> Reading {
    let body = joined(json!({"prompt": "p"}), more);
    read(map(body), &defaults(), &Bytes).unwrap_or_else(|error| panic!("{}", crate::testing::object_of(&error)))
}

fn check(more: Value, expected: Value, settings: Value, ignored: &[&str]) {
    let reading = reading(more.clone());
    let base = json!({"model": "m", "prompt": "p", "max_tokens": 2_147_483_647});
    assert_eq!(Value::Object(reading.request), joined(base, expected), "{more}");
    assert_eq!(reading.answering.ignored().names(), ignored, "{more}");
    let shown = reading.answering.whole(&Value::Null, &Bytes, &Spent::default())["generation_settings"].take();
    assert_eq!(shown, joined(Value::Object(defaults().settings()), settings), "{more}");
}

fn check_error(outcome: Result<Reading, ApiError>, expected: &str) {
    let error = match outcome {
        Ok(reading) => panic!("{expected}: {}", Value::Object(reading.request)),
        Err(error) => crate::testing::object_of(&error)["error"].take(),
    };
    let shown = format!("{} {}", error["param"].as_str().unwrap_or("-"), error["code"].as_str().unwrap_or("-"));
    assert_eq!(shown, expected, "{error}");
}

#[test]
fn prompts_in_all_their_forms() {
    for (prompt, expected) in [
        (json!("ab"), json!("ab")),
        (json!([97, 98]), json!([97, 98])),
        (json!(["ab"]), json!("ab")),
        (json!(["a", "b"]), json!(["a", "b"])),
        (json!([1, "ab", 2, "c"]), json!([1, 97, 98, 2, 99])),
        (json!(["a", 2]), json!([256, 97, 2])),
        (json!([[1, 2], [3]]), json!([[1, 2], [3]])),
        (json!(["a", [3, "b"]]), json!([[256, 97], [3, 98]])),
        (json!({"prompt_string": "a"}), json!("a")),
        (json!([{"prompt_string": "a", "multimodal_data": []}, "b"]), json!(["a", "b"])),
    ] {
        assert_eq!(reading(json!({"prompt": prompt})).request["prompt"], expected, "{prompt}");
    }
    for (prompt, expected) in [
        (json!(null), "prompt missing_required_parameter"),
        (json!([]), "prompt -"),
        (json!(5), "prompt -"),
        (json!([-1]), "prompt -"),
        (json!([1, [2]]), "prompt -"),
        (json!([[1.5]]), "prompt -"),
        (json!({}), "prompt.prompt_string missing_required_parameter"),
        (json!({"prompt_string": "a", "multimodal_data": ["x"]}), "prompt.multimodal_data unsupported_parameter"),
    ] {
        check_error(read(map(json!({"prompt": prompt})), &defaults(), &Bytes), expected);
    }
}

#[test]
fn settings_become_fields_and_are_shown() {
    check(json!({}), json!({}), json!({}), &[]);
    let alike = json!({"top_p": 0.9, "min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": 0.25, "seed": 7});
    check(alike.clone(), alike.clone(), alike, &[]);
    let length = json!({"n_predict": 8, "max_tokens": 8});
    check(json!({"n_predict": 8, "max_tokens": 3}), json!({"max_tokens": 8}), length, &[]);
    check(json!({"max_tokens": 0}), json!({"max_tokens": 0}), json!({"n_predict": 0, "max_tokens": 0}), &[]);
    check(json!({"n_predict": -1, "seed": -1, "stop": []}), json!({}), json!({}), &[]);
    check(json!({"n_predict": -2, "seed": 4_294_967_295_u32, "stop": [""]}), json!({}), json!({}), &[]);
    check(json!({"temperature": -1}), json!({"temperature": 0.0}), json!({"temperature": -1.0}), &[]);
    check(json!({"top_k": 0}), json!({"top_k": -1}), json!({"top_k": 0}), &[]);
    check(json!({"top_k": 40}), json!({"top_k": 40}), json!({"top_k": 40}), &[]);
    check(json!({"repeat_penalty": 1.5}), json!({"repetition_penalty": 1.5}), json!({"repeat_penalty": 1.5}), &[]);
    check(json!({"stop": ["a", ""]}), json!({"stop": ["a"]}), json!({"stop": ["a"]}), &[]);
    check(json!({"ignore_eos": true}), json!({"ignore_eos": true}), json!({"ignore_eos": true}), &[]);
    let probabilities = json!({"logprobs": 3, "return_tokens_as_token_ids": true});
    check(json!({"n_probs": 3}), probabilities, json!({"n_probs": 3}), &[]);
    check(json!({"n_probs": 0}), json!({}), json!({}), &[]);
    check(json!({"return_tokens": true}), json!({"return_token_ids": true}), json!({}), &[]);
    check(
        json!({"stream": true, "stream_options": {"include_usage": false}}),
        json!({"stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true}),
        json!({"stream": true}),
        &[],
    );
    // What is off is off, and what only says how a server works changes no answer.
    check(
        json!({
            "typical_p": 1.0, "mirostat": 0, "mirostat_tau": 5.0, "xtc_probability": 0, "dry_multiplier": 0.0,
            "dry_sequence_breakers": ["\n"], "t_max_predict_ms": 0, "lora": [], "cache_prompt": true, "id_slot": -1,
            "samplers": ["top_k"], "x": 1,
        }),
        json!({}),
        json!({}),
        &["cache_prompt", "id_slot", "samplers", "x"],
    );
}

#[test]
fn biases_in_all_their_forms() {
    let shown = |pairs: Value| json!({"logit_bias": pairs});
    for (bias, ours, settings) in [
        (json!([[5, 1.5]]), json!({"5": 1.5}), json!([{"token": 5, "bias": 1.5}])),
        (
            json!({"5": 2, "ab": -1}),
            json!({"5": 2, "97": -1, "98": -1}),
            json!([
                {"token": 5, "bias": 2}, {"token": 97, "bias": -1}, {"token": 98, "bias": -1},
            ]),
        ),
        (
            json!([["a", false], [7, 1e9]]),
            json!({"97": -100.0, "7": 100.0}),
            json!([
                {"token": 97, "bias": -100.0}, {"token": 7, "bias": 100.0},
            ]),
        ),
    ] {
        check(json!({"logit_bias": bias}), json!({"logit_bias": ours}), shown(settings), &[]);
    }
    check(json!({"logit_bias": []}), json!({}), json!({}), &[]);
    for bias in [json!("x"), json!([5]), json!([[5]]), json!([[5, true]]), json!({"5": "x"}), json!([[null, 1]])] {
        check_error(read(map(json!({"prompt": "p", "logit_bias": bias})), &defaults(), &Bytes), "logit_bias -");
    }
}

#[test]
fn grammars_and_schemas() {
    let grammar = json!({"grammar": "root ::= \"a\""});
    check(grammar.clone(), json!({"structured_outputs": grammar}), grammar, &[]);
    let schema = json!({"type": "object"});
    let ours = json!({"structured_outputs": {"json": schema}});
    check(json!({"json_schema": schema, "grammar": ""}), ours, json!({"json_schema": schema}), &[]);
}

#[test]
fn refusals_name_the_field() {
    for (more, expected) in [
        (json!({"mirostat": 2}), "mirostat unsupported_parameter"),
        (json!({"typical_p": 0.5}), "typical_p unsupported_parameter"),
        (json!({"post_sampling_probs": true}), "post_sampling_probs unsupported_parameter"),
        (json!({"lora": [{"id": 0, "scale": 1}]}), "lora unsupported_parameter"),
        (json!({"grammar_lazy": true}), "grammar_lazy unsupported_parameter"),
        (json!({"json_schema": 5}), "json_schema -"),
        (json!({"json_schema": {}, "grammar": "x"}), "grammar -"),
        (json!({"n_predict": "x"}), "n_predict -"),
        (json!({"stop": [5]}), "stop -"),
        (json!({"temperature": "x"}), "temperature -"),
        (json!({"response_fields": [5]}), "response_fields -"),
        (json!({"n_cmpl": 0}), "n_cmpl -"),
    ] {
        check_error(read(map(joined(json!({"prompt": "p"}), more)), &defaults(), &Bytes), expected);
    }
}

fn spent() -> Spent {
    let time = Duration::from_millis;
    Spent { total: time(30), load: time(0), prompt: time(10), answer: time(20) }
}

fn completion(choices: Value) -> Value {
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}});
    json!({"choices": choices, "usage": usage})
}

fn check_answer(more: Value, choice: Value, expected: Value) {
    let base = |stream: bool| {
        json!({
            "index": 0, "content": "", "tokens": [], "id_slot": 0, "stop": true, "model": "m", "tokens_predicted": 4,
            "tokens_evaluated": 5, "prompt": "p", "has_new_line": false, "truncated": false, "stop_type": "eos",
            "stopping_word": "", "tokens_cached": 3,
            "generation_settings": joined(Value::Object(defaults().settings()), json!({"stream": stream})),
            "timings": {
                "cache_n": 3, "prompt_n": 2, "prompt_ms": 10.0, "prompt_per_token_ms": 5.0, "prompt_per_second": 200.0,
                "predicted_n": 4, "predicted_ms": 20.0, "predicted_per_token_ms": 5.0, "predicted_per_second": 200.0,
            },
        })
    };
    let completion = completion(json!([choice]));
    let whole = reading(more.clone()).answering.whole(&completion, &Bytes, &spent());
    assert_eq!(whole, joined(base(false), expected.clone()));
    // The same letter by letter.
    let mut answering = reading(joined(more, json!({"stream": true}))).answering;
    let mut sum = String::new();
    let mut ids: Vec<Value> = vec![];
    for letter in choice["text"].as_str().unwrap().chars() {
        let id = u32::from(letter);
        let chunk = json!({"choices": [{"index": 0, "text": letter, "token_ids": [id], "finish_reason": null}]});
        for event in answering.piece(&chunk, &Bytes) {
            assert_eq!((event.name, &event.data["stop"]), (None, &json!(false)));
            sum += event.data["content"].as_str().unwrap();
            ids.extend(event.data["tokens"].as_array().unwrap().clone());
        }
    }
    let end = json!({"text": "", "finish_reason": choice["finish_reason"], "stop_reason": choice["stop_reason"]});
    assert!(answering.piece(&json!({"choices": [end]}), &Bytes).is_empty());
    assert!(answering.piece(&json!({"choices": [], "usage": completion["usage"]}), &Bytes).is_empty());
    let last = answering.end(&spent());
    assert_eq!((json!(sum), ids.len()), (whole["content"].clone(), sum.len()));
    let expected = joined(expected, json!({"content": "", "tokens": []}));
    assert_eq!(last.into_iter().map(|event| event.data).collect::<Vec<_>>(), [joined(base(true), expected)]);
}

#[test]
fn answers_are_the_same_whole_and_streamed() {
    let said = |text: &str| json!({"content": text, "has_new_line": text.contains('\n')});
    check_answer(json!({}), json!({"index": 0, "text": "abc", "finish_reason": "stop"}), said("abc"));
    let cut = json!({"index": 0, "text": "a\nc", "finish_reason": "length"});
    check_answer(json!({}), cut, joined(said("a\nc"), json!({"stop_type": "limit"})));
    let word = json!({"index": 0, "text": "a", "finish_reason": "stop", "stop_reason": "END"});
    check_answer(json!({}), word, joined(said("a"), json!({"stop_type": "word", "stopping_word": "END"})));
    let ids = json!({"index": 0, "text": "ab", "token_ids": [97, 98], "finish_reason": "stop"});
    check_answer(json!({"return_tokens": true}), ids, joined(said("ab"), json!({"tokens": [97, 98]})));
}

#[test]
fn several_answers_are_a_list() {
    let answering = reading(json!({"prompt": ["ab", [99]], "n_cmpl": 2})).answering;
    let choice =
        |index: usize| json!({"index": index, "text": index.to_string(), "token_ids": [48], "finish_reason": "stop"});
    let whole = answering.whole(&completion(json!([choice(0), choice(1), choice(2), choice(3)])), &Bytes, &spent());
    let seen: Vec<Value> = whole
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            json!([one["index"], one["content"], one["prompt"], one["tokens_evaluated"], one["tokens_predicted"]])
        })
        .collect();
    assert_eq!(
        json!(seen),
        json!([[0, "0", "ab", 3, 1], [1, "1", "ab", 3, 1], [2, "2", "c", 1, 1], [3, "3", "c", 1, 1]])
    );
    let mut answering = reading(json!({"prompt": ["a", "b"], "stream": true})).answering;
    let chunk = json!({"choices": [{"index": 1, "text": "x"}, {"index": 9, "text": "y"}]});
    let events = answering.piece(&chunk, &Bytes);
    assert_eq!(events.len(), 1);
    let expected = json!({"index": 1, "content": "x", "tokens": [], "stop": false, "tokens_predicted": 0});
    assert_eq!((&events[0].data, answering.end(&spent()).len()), (&expected, 2));
    let broken = answering.broken(&json!({"message": "no"}));
    assert_eq!(broken[0].data, json!({"error": {"code": 500, "message": "no", "type": "server_error"}}));
}

#[test]
fn only_the_fields_that_were_asked_for() {
    let names = json!(["content", "generation_settings/n_predict", "prompt", "nothing", "content/x"]);
    let answering = reading(json!({"response_fields": names, "n_predict": 3})).answering;
    let whole = answering.whole(&completion(json!([{"text": "a", "finish_reason": "stop"}])), &Bytes, &spent());
    assert_eq!(whole, json!({"content": "a", "generation_settings/n_predict": 3, "prompt": "p"}));
}

#[test]
fn probabilities_of_tokens() {
    let logprobs = json!({
        "tokens": ["token_id:97", "token_id:195"], "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"token_id:97": -0.5, "token_id:300": -2.0}, {"x": -1.0}], "text_offset": [0, 1],
    });
    let token = |id: Value, token: &str, bytes: Value, logprob: f64| {
        json!({
            "id": id, "token": token, "bytes": bytes, "logprob": logprob,
        })
    };
    let first = json!([token(json!(97), "a", json!([97]), -0.5), token(json!(300), "<300>", json!(b"<300>"), -2.0)]);
    let second = json!([token(json!(null), "x", json!([120]), -1.0)]);
    let expected = json!([
        joined(token(json!(97), "a", json!([97]), -0.5), json!({"top_logprobs": first})),
        joined(token(json!(195), "", json!([195]), -1.0), json!({"top_logprobs": second})),
    ]);
    let choice = json!({"index": 0, "text": "a", "logprobs": logprobs, "finish_reason": "length"});
    let whole = reading(json!({"n_probs": 2})).answering.whole(&completion(json!([choice])), &Bytes, &spent());
    assert_eq!(whole["completion_probabilities"], expected);
    let mut answering = reading(json!({"n_probs": 2, "stream": true})).answering;
    let events = answering.piece(&completion(json!([choice])), &Bytes);
    assert_eq!(events[0].data["completion_probabilities"], expected);
    assert_eq!(answering.end(&spent())[0].data.get("completion_probabilities"), None);
}

#[test]
fn infilling_builds_a_prompt() {
    let fim = |repository| Fim { prefix: 300, suffix: 301, middle: 302, repository };
    let infill = |more: Value, fim: Option<&Fim>| {
        let body = joined(json!({"input_prefix": "a", "input_suffix": "b"}), more);
        read_infill(map(body), fim, &defaults(), &Bytes)
    };
    let extra = json!({"input_extra": [{"filename": "f", "text": "t"}, {"text": "u"}], "prompt": "c"});
    for (more, repository, expected) in [
        (json!({}), None, "<256><300>a<301>b<302>"),
        (json!({"prompt": "c"}), Some((303, 304)), "<256><300>a<301>b<302>c"),
        (extra.clone(), None, "<256>t\nu\n<300>a<301>b<302>c"),
        (extra, Some((303, 304)), "<256><303>myproject\n<304>f\nt\n<304>tmp\nu\n<304>filename\n<300>a<301>b<302>c"),
    ] {
        let reading = infill(joined(more, json!({"n_predict": 3})), Some(&fim(repository))).unwrap();
        let ids: Vec<u32> = serde_json::from_value(reading.request["prompt"].clone()).unwrap();
        assert_eq!((Bytes.text(&ids).as_str(), &reading.request["max_tokens"]), (expected, &json!(3)));
    }
    check_error(infill(json!({}), None), "- unsupported_parameter");
    check_error(infill(json!({"input_suffix": null}), Some(&fim(None))), "input_suffix missing_required_parameter");
    for extra in [json!({}), json!({"filename": "ok"}), json!({"filename": 123, "text": "abc"}), json!({"text": 4})] {
        check_error(infill(json!({"input_extra": [extra]}), Some(&fim(None))), "input_extra -");
    }
    check_error(infill(json!({"input_extra": {}}), Some(&fim(None))), "input_extra -");
}

#[test]
fn smaller_endpoints() {
    let check = |body: Value, expected: Value| {
        let request = read_tokenize(map(body.clone()), &Bytes).unwrap();
        assert_eq!(tokenized(&request, &Bytes)["tokens"], expected, "{body}");
    };
    check(json!({"content": "ab"}), json!([97, 98]));
    check(json!({"content": "ab", "add_special": true}), json!([256, 97, 98]));
    check(json!({"content": [7, "a"], "parse_special": true}), json!([7, 97]));
    let pieces = json!([{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 161, "piece": [161]}]);
    check(json!({"content": "aá", "with_pieces": true}), pieces);
    for body in [json!({}), json!({"content": 5}), json!({"content": "a", "parse_special": false})] {
        assert!(read_tokenize(map(body.clone()), &Bytes).is_err(), "{body}");
    }
    assert_eq!(apply_template("a"), json!({"prompt": "a"}));
    let facts = Props {
        slots: 2,
        model_path: "x.gguf".into(),
        chat_template: "t".into(),
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        build: "narthex 0.1".into(),
    };
    let shown = props(&facts, &defaults());
    let settings = &shown["default_generation_settings"];
    assert_eq!((&settings["n_ctx"], &settings["params"]["temperature"]), (&json!(64), &json!(0.75)));
    assert_eq!((&shown["total_slots"], &shown["model_path"]), (&json!(2), &json!("x.gguf")));
    let shown = slots(&[Slot { is_processing: true, written: 3 }, Slot::default()], 64);
    assert_eq!((&shown[0]["next_token"][0]["n_decoded"], &shown[1]["is_processing"]), (&json!(3), &json!(false)));
    for (status, kind) in [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (501, "not_supported_error"),
        (503, "unavailable_error"),
        (500, "server_error"),
    ] {
        let expected = json!({"error": {"code": status, "message": "no", "type": kind}});
        assert_eq!(error(status, &json!({"error": {"message": "no"}})), expected);
    }
}
