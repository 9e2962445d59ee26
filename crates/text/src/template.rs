//! Chat templates, rendered as transformers renders them; and chats as token ids with the mask of
//! what is trained. Knows messages and one template, but no model.

use crate::{
    config::TokenizerConfig,
    python::{Raised, raise_exception, strftime, tojson},
    tokenizer::Tokenizer,
};
use minijinja::{Environment, Value, syntax::SyntaxConfig};
use narthex_base::{Error, Message, MessageContent, Result, Role, ToolCall};
use serde_json::{Value as Json, json};
use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Our default template: `<|im_start|>role`, the content, `<|im_end|>`.
pub const CHATML: &str = "\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}";

/// Steps a template may take: enough for many thousands of messages, and over in seconds.
const TEMPLATE_FUEL: u64 = 10_000_000;
const NAME: &str = "chat template";

/// The time that `strftime_now` sees: seconds since 1970-01-01 UTC.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A model's chat template. Cheap to clone; usable from many threads.
#[derive(Clone)]
pub struct ChatTemplate(Arc<Inner>);

struct Inner {
    environment: Environment<'static>,
    source: String,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// A template in Jinja, with the `bos_token` and `eos_token` it may name. `strftime_now` tells
    /// the time in UTC.
    ///
    /// # Errors
    /// If the template's syntax is wrong.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self::with_clock(source, bos, eos, Arc::new(now))
    }

    /// The same with a clock of the caller's choice.
    ///
    /// # Errors
    /// If the template's syntax is wrong.
    pub fn with_clock(source: &str, bos: Option<&str>, eos: Option<&str>, clock: Clock) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(TEMPLATE_FUEL));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failed(&error))?);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| strftime(&format, clock()));
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(|error| failed(&error))?;
        let (bos, eos) = (bos.map(str::to_string), eos.map(str::to_string));
        Ok(Self(Arc::new(Inner { environment, source: source.to_string(), bos, eos })))
    }

    /// The default template of a tokenizer's configuration, if it has one.
    ///
    /// # Errors
    /// If the template's syntax is wrong.
    pub fn from_config(config: &TokenizerConfig) -> Result<Option<Self>> {
        let (bos, eos) = (config.bos_token.as_deref(), config.eos_token.as_deref());
        config.chat_template.as_deref().map(|source| Self::new(source, bos, eos)).transpose()
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The chat as the model reads it; `add_generation_prompt` adds what comes before the
    /// assistant's answer.
    ///
    /// # Errors
    /// If the template refuses the messages (`raise_exception`), fails, or takes too long.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut context = vec![
            ("messages", Value::from_iter(messages.iter().map(as_template_value))),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        context.extend(self.0.bos.as_deref().map(|token| ("bos_token", Value::from(token))));
        context.extend(self.0.eos.as_deref().map(|token| ("eos_token", Value::from(token))));
        let template = self.0.environment.get_template(NAME).map_err(|error| failed(&error))?;
        template.render(Value::from_pairs(context)).map_err(|error| failed(&error))
    }

    /// The token ids of a chat, and for each whether it is trained: the assistant's content and
    /// the end-of-turn token right after it, but no white space after that.
    ///
    /// # Errors
    /// If the template fails, or if it changes what it wrote before when a message is added, so
    /// that the assistant's part can't be told.
    pub fn encode_chat(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<(Vec<u32>, Vec<bool>)> {
        let whole = self.render(messages, false)?;
        let spans = self.assistant_spans(messages, &whole)?;
        let encoded = tokenizer.encode_with_offsets(&whole)?;
        let trained =
            |at: &Range<usize>| spans.iter().any(|span| span.start <= at.start && at.end <= span.end && !at.is_empty());
        let mask = encoded.iter().map(|(_, at)| trained(at)).collect();
        Ok((encoded.into_iter().map(|(id, _)| id).collect(), mask))
    }

    /// Which bytes of the rendered chat the assistant wrote, end-of-turn token included.
    fn assistant_spans(&self, messages: &[Message], whole: &str) -> Result<Vec<Range<usize>>> {
        let mut spans = Vec::new();
        for (i, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
            let prompt = self.render(&messages[..i], true)?;
            let through =
                if i + 1 == messages.len() { whole.to_string() } else { self.render(&messages[..=i], false)? };
            let Some(turn) = through.strip_prefix(&prompt) else {
                return Err(cannot_tell(i, "the prompt before the answer is not how the finished chat begins"));
            };
            let span = prompt.len()..prompt.len() + answer_len(turn, &message.text());
            if whole.get(..span.end) != through.get(..span.end) {
                return Err(cannot_tell(i, "later messages change how earlier ones are written"));
            }
            spans.push(span);
        }
        Ok(spans)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatTemplate({:?})", self.0.source)
    }
}

/// A message as transformers hands it to a template: with the keys that it has, arguments of calls as objects.
fn as_template_value(message: &Message) -> Value {
    let content = match &message.content {
        MessageContent::Text(text) => Value::from(text.as_str()),
        MessageContent::Parts(parts) => from_json(&json!(parts)),
        MessageContent::Nothing => Value::from(()),
    };
    let mut keys = vec![("role", Value::from(message.role.as_str())), ("content", content)];
    if !message.tool_calls.is_empty() {
        keys.push(("tool_calls", Value::from_iter(message.tool_calls.iter().map(call_as_template_value))));
    }
    for (key, text) in [("tool_call_id", &message.tool_call_id), ("name", &message.name)] {
        keys.extend(text.as_deref().map(|text| (key, Value::from(text))));
    }
    Value::from_pairs(keys)
}

fn call_as_template_value(call: &ToolCall) -> Value {
    let written = call.function.arguments.as_str();
    // What a model wrote need not be JSON; templates that print it as it is get it so.
    let arguments = match serde_json::from_str::<Json>(written) {
        Ok(object @ Json::Object(_)) => from_json(&object),
        _ => Value::from(written),
    };
    let function = [("name", Value::from(call.function.name.as_str())), ("arguments", arguments)];
    let (id, kind) = (Value::from(call.id.as_str()), from_json(&json!(call.kind)));
    Value::from_pairs([("id", id), ("type", kind), ("function", Value::from_pairs(function))])
}

/// JSON as templates see it, keys in their order.
fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => Value::from(whole),
            (_, Some(whole)) => Value::from(whole),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::from_iter(list.iter().map(from_json)),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), from_json(value)))),
    }
}

/// Bytes of content and end-of-turn token at the start of a rendered turn.
fn answer_len(turn: &str, content: &str) -> usize {
    let kept = content.trim();
    let content_end = match turn.starts_with(content) {
        true => content.len(),
        false => turn.find(kept).map_or(0, |start| start + kept.len()),
    };
    content_end + turn[content_end..].trim_end().len()
}

fn cannot_tell(index: usize, cause: &str) -> Error {
    Error::input(format!("the chat template does not show which tokens the assistant wrote (message {})", index + 1))
        .cause(cause)
        .help("train with another template, for instance the default one (ChatML)")
}

/// What went wrong in a template, with the template's own words where it raised them.
fn failed(error: &minijinja::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return Error::input(format!("the chat template refuses these messages: {message}"));
        }
        source = inner.source();
    }
    let report = match error.kind() {
        minijinja::ErrorKind::SyntaxError => Error::input("the chat template has a syntax error"),
        minijinja::ErrorKind::OutOfFuel => {
            Error::input(format!("the chat template takes more than {TEMPLATE_FUEL} steps"))
                .help("send fewer messages, or mend the template's loop")
        }
        _ => Error::input("the chat template failed"),
    };
    let detail = error.detail().map_or_else(|| error.to_string(), str::to_string);
    match error.line() {
        Some(_) => report.at(NAME, error.line()).cause(detail),
        None => report.cause(detail),
    }
}

/// `{% generation %}…{% endgeneration %}` mark the assistant's part for transformers' own mask;
/// here they become blocks that always render, with the same white space control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match generation_tag(rest) {
            Some((tag, len)) => {
                out.push_str(&tag);
                rest = &rest[len..];
            }
            None => {
                out.push_str("{%");
                rest = &rest[2..];
            }
        }
    }
    out + rest
}

/// The replacement for a tag at the start of `text`, and the length of the tag.
fn generation_tag(text: &str) -> Option<(String, usize)> {
    let inner = &text[2..2 + text[2..].find("%}")?];
    let (open, word) = match inner.strip_prefix(['-', '+']) {
        Some(word) => (&inner[..1], word),
        None => ("", inner),
    };
    let (close, word) = match word.strip_suffix(['-', '+']) {
        Some(word) => (&inner[inner.len() - 1..], word),
        None => ("", word),
    };
    let tag = match word.trim() {
        "generation" => "if true",
        "endgeneration" => "endif",
        _ => return None,
    };
    Some((format!("{{%{open} {tag} {close}%}}"), inner.len() + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{SPECIAL, trained};

    fn chat(turns: &[(&str, &str)]) -> Vec<Message> {
        let role = |name: &str| match name {
            "s" => Role::System,
            "u" => Role::User,
            _ => Role::Assistant,
        };
        turns.iter().map(|(name, content)| Message::new(role(name), *content)).collect()
    }

    fn check(source: &str, expected: &str) {
        let template = ChatTemplate::with_clock(source, Some("<s>"), Some("</s>"), Arc::new(|| 1_722_000_000)).unwrap();
        assert_eq!(template.render(&chat(&[("s", "be"), ("u", "hi")]), true).unwrap(), expected, "{source}");
    }

    #[test]
    fn renders_as_transformers_does() {
        // Each expected text is what jinja2 3.1.6 gives with the settings, filters and extensions of
        // transformers' `apply_chat_template`.
        check(
            "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }};{% endfor %}",
            "<s>system:be;user:hi;",
        );
        check(
            "{% for m in messages %}\n  {% if loop.first %}\n  {{ m.content }}\n  {% endif %}\n{% endfor %}\nx",
            "  be\nx",
        );
        check(
            "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
            "hi",
        );
        check("{{ messages[0]['content'].strip().upper() ~ messages[1:]|length }}", "BE1");
        check("{{ messages | tojson }}", r#"[{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]"#);
        check(
            "{{ {'a': [1, 2.0, none, true], 'é': '<&>\"\\n'} | tojson }}",
            r#"{"a": [1, 2.0, null, true], "é": "<&>\"\n"}"#,
        );
        check("{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=true) }}", "{\n  \"a\": [],\n  \"b\": 1\n}");
        check("{{ 'é🦀' | tojson(ensure_ascii=true) }}", r#""\u00e9\ud83e\udd80""#);
        check("{{ tools is none }}{{ documents }}{{ nothing }}{{ nothing is defined }}", "TrueNoneFalse");
        check("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024");
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "2",
        );
        check("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[-1].content) }}", "[hi]");
        check("{%- if add_generation_prompt -%} \n A \n {%- endif -%}\n", "A");
        check("{{ messages[0].content.split('b') }}{{ 'hi' in messages[1].content }}", "['', 'e']True");
        check("a\n{%- generation %}\nb\n{% endgeneration -%}\n c", "ab\nc");
        check("{% generation %}{{ 'x' }}{%endgeneration%}", "x");
    }

    #[test]
    fn calls_and_parts_come_as_transformers_passes_them() {
        let messages: Vec<Message> = serde_json::from_str(
            r#"[{"role": "user", "content": [{"type": "text", "text": "1 + 2"}, {"type": "image_url", "image_url": {"url": "u"}}]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"b\": 2, \"a\": 1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{\"b\""}}]},
                {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}]"#,
        )
        .unwrap();
        let render = |source: &str| ChatTemplate::new(source, None, None).unwrap().render(&messages, false).unwrap();
        assert_eq!(
            render("{{ messages | tojson }}"),
            r#"[{"role": "user", "content": [{"type": "text", "text": "1 + 2"}, {"type": "image_url", "image_url": {"url": "u"}}]}, "#
                .to_string()
                + r#"{"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "#
                + r#""function": {"name": "add", "arguments": {"b": 2, "a": 1}}}, {"id": "c2", "type": "function", "#
                + r#""function": {"name": "add", "arguments": "{\"b\""}}]}, "#
                + r#"{"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}]"#
        );
        assert_eq!(
            render(
                "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.a }}{% else %}-{% endif %}{% endfor %}"
            ),
            "-1-"
        );
    }

    #[test]
    fn chatml() {
        let template = ChatTemplate::new(CHATML, None, None).unwrap();
        let messages = chat(&[("s", "be brief"), ("u", "hi\n")]);
        let expected = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi\n<|im_end|>\n";
        assert_eq!(template.render(&messages, false).unwrap(), expected);
        assert_eq!(template.render(&messages, true).unwrap(), format!("{expected}<|im_start|>assistant\n"));
        assert_eq!(template.render(&[], false).unwrap(), "");
    }

    #[test]
    fn failures_are_told() {
        let render = |source: &str| {
            let template = ChatTemplate::new(source, None, None)?;
            template.render(&chat(&[("u", "hi")]), false)
        };
        for (source, expected) in [
            ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
            ("{% macro f() %}{{ raise_exception('deep') }}{% endmacro %}{{ f() }}", "refuses these messages: deep"),
            ("\n{% if %}", "chat template:2"),
            ("{{ messages[0].nothing.more }}", "chat template:1"),
            ("{{ strftime_now('%Q') }}", "%Q"),
            ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "steps"),
            ("{{ nothing | tojson }}", "not JSON serializable"),
        ] {
            let error = render(source).unwrap_err().to_string();
            assert!(error.contains(expected), "{source}: {error}");
        }
    }

    /// The trained part of each chat, as text.
    fn trained_text(source: &str, turns: &[(&str, &str)]) -> String {
        let (template, tokenizer) = (ChatTemplate::new(source, Some(""), Some(SPECIAL[0])).unwrap(), trained());
        let (ids, mask) = template.encode_chat(&tokenizer, &chat(turns)).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), template.render(&chat(turns), false).unwrap());
        let kept: Vec<u32> = ids.iter().zip(&mask).filter(|(_, kept)| **kept).map(|(id, _)| *id).collect();
        tokenizer.decode(&kept, false).unwrap()
    }

    #[test]
    fn only_the_assistant_is_trained() {
        let turns = [("s", "be"), ("u", "the cat"), ("a", "sat"), ("u", "sat"), ("a", "naïve mats")];
        assert_eq!(trained_text(CHATML, &turns), "sat<|im_end|>naïve mats<|im_end|>");
        assert_eq!(trained_text(CHATML, &turns[..2]), "");
        assert_eq!(trained_text(CHATML, &[("a", "")]), "<|im_end|>");
        assert_eq!(trained_text(CHATML, &[("u", "x"), ("a", "line\n")]), "line\n<|im_end|>");
        assert_eq!(trained_text(CHATML, &[("u", "x"), ("a", "a <|im_end|> b")]), "a <|im_end|> b<|im_end|>");
        let trimming = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}{{ eos_token }}\n{% endfor %}\
                        {% if add_generation_prompt %}assistant:{% endif %}";
        assert_eq!(trained_text(trimming, &[("u", "x"), ("a", " y ")]), " y<|endoftext|>");
    }

    #[test]
    fn trimmed_offsets_do_not_matter() {
        let mut json: serde_json::Value = serde_json::from_str(&trained().to_json().unwrap()).unwrap();
        json["post_processor"] = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let trimming = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        let template = ChatTemplate::new(CHATML, None, None).unwrap();
        let messages = chat(&[("u", "the cat"), ("a", "the  cat sat")]);
        assert_eq!(
            template.encode_chat(&trimming, &messages).unwrap(),
            template.encode_chat(&trained(), &messages).unwrap()
        );
    }

    #[test]
    fn templates_that_rewrite_the_past_are_refused() {
        for (source, turns) in [
            ("{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}", &[("u", "x"), ("a", "y")][..]),
            (
                "{% for m in messages %}{% if loop.last or m.role != 'assistant' %}{{ m.content }}{% endif %};{% endfor %}",
                &[("u", "x"), ("a", "y"), ("u", "z")],
            ),
        ] {
            let template = ChatTemplate::new(source, None, None).unwrap();
            let error = template.encode_chat(&trained(), &chat(turns)).unwrap_err();
            assert!(error.what().contains("does not show"), "{error}");
        }
    }
}
