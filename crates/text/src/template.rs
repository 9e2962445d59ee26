//! Chat templates, rendered as transformers renders them; and chats as token ids with the mask of
//! what is trained. Knows messages and one template, but no model.

use crate::{
    config::TokenizerConfig,
    messages::{as_template_value, extended, from_json},
    python::{self, Raised},
    repr,
    tokenizer::Tokenizer,
};
use minijinja::{Environment, Value, syntax::SyntaxConfig};
use narthex_base::{Conversation, Error, Message, Result, Role};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
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

/// The name of tools in templates that tell between those called in tags and those called in code.
const XML_TOOLS: &str = "xml_tools";
/// The name by which a template's parts in `{% generation %}` know that their borders are to be marked.
const MARKING: &str = "narthex_marks_generation";
/// Marks where such a part begins and ends: no characters of any text.
const MARKS: [char; 2] = ['\u{10fffe}', '\u{10ffff}'];

/// The time that `strftime_now` sees: seconds since 1970-01-01 UTC.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// All that a template can be told.
#[derive(Clone, Copy, Default)]
pub struct ChatInput<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// The tools that the model may call, as the OpenAI API describes them.
    pub tools: &'a [Json],
    /// Documents that the answer may draw on.
    pub documents: &'a [Json],
    /// Whether the assistant's answer comes next.
    pub add_generation_prompt: bool,
    /// What else the template knows (`enable_thinking`); none of the names above.
    pub others: Option<&'a serde_json::Map<String, Json>>,
}

/// Token ids, and for each whether it is trained.
pub type MaskedIds = (Vec<u32>, Vec<bool>);

/// A model's chat template. Cheap to clone; usable from many threads.
#[derive(Clone)]
pub struct ChatTemplate(Arc<Inner>);

struct Inner {
    environment: Environment<'static>,
    source: String,
    /// The special tokens that it may name.
    tokens: BTreeMap<String, String>,
    /// Whether it says itself, in `{% generation %}`, what the assistant wrote.
    marks: bool,
}

impl ChatTemplate {
    /// A template in Jinja, with the `bos_token` and `eos_token` it may name. `strftime_now` tells
    /// the time in UTC.
    ///
    /// # Errors
    /// If the template's syntax is wrong.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let named = [("bos_token", bos), ("eos_token", eos)];
        let tokens = named.into_iter().filter_map(|(name, token)| Some((name.to_string(), token?.to_string())));
        Self::with_clock(source, tokens.collect(), Arc::new(now))
    }

    /// The same with all special tokens that it may name, and a clock of the caller's choice.
    ///
    /// # Errors
    /// If the template's syntax is wrong.
    pub fn with_clock(source: &str, tokens: BTreeMap<String, String>, clock: Clock) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(|state, value, method, args| {
            python::unknown_method(state, value, method, args)
        });
        environment.set_formatter(repr::format);
        environment.set_fuel(Some(TEMPLATE_FUEL));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failed(&error))?);
        python::add_to(&mut environment);
        environment.add_function("strftime_now", move |format: String| python::strftime(&format, clock()));
        environment.add_filter("narthex_generation", |state: &minijinja::State, body: String| {
            let marked = state.lookup(MARKING).is_some_and(|marking| marking.is_true());
            if marked { format!("{}{body}{}", MARKS[0], MARKS[1]) } else { body }
        });
        // Jinja2 reads all line ends as one.
        let read = source.replace("\r\n", "\n").replace('\r', "\n");
        let (read, marks) = with_generation_blocks(&read);
        environment.add_template_owned(NAME, read).map_err(|error| failed(&error))?;
        Ok(Self(Arc::new(Inner { environment, source: source.to_string(), tokens, marks })))
    }

    /// The default template of a tokenizer's configuration, if it has one.
    ///
    /// # Errors
    /// If the template's syntax is wrong.
    pub fn from_config(config: &TokenizerConfig) -> Result<Option<Self>> {
        let template = |source: &str| Self::with_clock(source, config.special_tokens(), Arc::new(now));
        config.chat_template.as_deref().map(template).transpose()
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
        self.rendered(messages, &[], add_generation_prompt, false)
    }

    /// The same with all that a template can be told.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_input(&self, input: &ChatInput) -> Result<String> {
        self.rendered_input(input, false)
    }

    /// The same up to where the text of the last message ends, so that the model goes on with it. White space at that
    /// end stays where the template keeps it.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and if there is no message, its text is empty, or the template changes it.
    pub fn render_unfinished(&self, input: &ChatInput) -> Result<String> {
        let changed = || Error::input("the chat template changes the last message: it cannot be continued");
        let (last, before) = input.messages.split_last().ok_or_else(|| Error::input("no message can be continued"))?;
        // Searching for the text itself would find it in the mark behind it, or where it was said before. The space
        // tells whether the template trims.
        let mark = format!("{} ", MARKS[0]);
        let (marked, kept) = extended(last, &mark).ok_or_else(changed)?;
        let messages = [before, &[marked]].concat();
        let mut text = self.render_input(&ChatInput { messages: &messages, ..*input })?;
        let end = text.rfind(MARKS[0]).filter(|end| text[..*end].trim_end().ends_with(&kept)).ok_or_else(changed)?;
        let trims = !text[end..].starts_with(&mark);
        text.truncate(end);
        if trims {
            text.truncate(text.trim_end().len());
        }
        Ok(text)
    }

    /// The same with the tools that the model may call.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with_tools(
        &self,
        messages: &[Message],
        tools: &[Json],
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.rendered(messages, tools, add_generation_prompt, false)
    }

    fn rendered(
        &self,
        messages: &[Message],
        tools: &[Json],
        add_generation_prompt: bool,
        mark: bool,
    ) -> Result<String> {
        self.rendered_input(&ChatInput { messages, tools, add_generation_prompt, ..ChatInput::default() }, mark)
    }

    fn rendered_input(&self, input: &ChatInput, mark: bool) -> Result<String> {
        let ChatInput { messages, tools, documents, add_generation_prompt, others } = input;
        let list = |list: &[Json]| match list.is_empty() {
            true => Value::from(()),
            false => Value::from_iter(list.iter().map(from_json)),
        };
        let mut context: Vec<(&str, Value)> =
            others.iter().flat_map(|map| map.iter().map(|(name, value)| (name.as_str(), from_json(value)))).collect();
        context.extend([
            ("messages", Value::from_iter(messages.iter().map(as_template_value))),
            ("tools", list(tools)),
            ("documents", list(documents)),
            ("add_generation_prompt", Value::from(*add_generation_prompt)),
            (MARKING, Value::from(mark)),
        ]);
        // SmolLM3 knows tools by another name, which requests don't have.
        let chosen = |(name, _): &(&str, Value)| [XML_TOOLS, "python_tools"].contains(name);
        if self.0.source.contains(XML_TOOLS) && !context.iter().any(chosen) {
            context.push((XML_TOOLS, list(tools)));
        }
        context.extend(self.0.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))));
        let template = self.0.environment.get_template(NAME).map_err(|error| failed(&error))?;
        template.render(Value::from_pairs(context)).map_err(|error| failed(&error))
    }

    /// The token ids of a conversation, and for each whether it is trained: what the assistant wrote, reasoning and
    /// calls of tools included, and the end-of-turn token right after it, but no white space after that. Where the
    /// template says itself what the assistant wrote (`{% generation %}`), that counts.
    ///
    /// Usually one document. Where the template writes earlier turns otherwise once later ones follow (it takes their
    /// reasoning out, for instance), each answer is a document of its own: what the model will have read when it
    /// answers, and the answer.
    ///
    /// # Errors
    /// If the template fails.
    pub fn encode_chat(&self, tokenizer: &Tokenizer, chat: &Conversation) -> Result<Vec<MaskedIds>> {
        let whole = self.whole(chat, chat.messages.len())?;
        let answers = chat.messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant);
        let answers: Vec<(usize, bool)> = answers.map(|(at, message)| (at, message.train)).collect();
        if self.0.marks && whole.spans.len() == answers.len() {
            let kept = whole.spans.iter().zip(&answers).filter(|(_, (_, train))| *train);
            return Ok(vec![masked(
                tokenizer,
                &whole.text,
                &kept.map(|(span, _)| span.clone()).collect::<Vec<_>>(),
                false,
            )?]);
        }
        let turns = answers.iter().filter(|(_, train)| *train).map(|(at, _)| self.turn(chat, *at));
        let turns = turns.collect::<Result<Vec<Turn>>>()?;
        if turns.iter().all(|turn| whole.text.get(..turn.end()) == turn.text.get(..turn.end())) {
            let merged = turns.iter().any(|turn| turn.parts_within);
            let spans: Vec<Range<usize>> = turns.into_iter().flat_map(|turn| turn.spans).collect();
            return Ok(vec![masked(tokenizer, &whole.text, &spans, merged)?]);
        }
        turns.into_iter().map(|turn| masked(tokenizer, &turn.text, &turn.spans, turn.parts_within)).collect()
    }

    /// The first messages, and what of them is in `{% generation %}`.
    fn whole(&self, chat: &Conversation, messages: usize) -> Result<Turn> {
        let marked = self.rendered(&chat.messages[..messages], &chat.tools, false, self.0.marks)?;
        let (mut text, mut spans, mut open) = (String::with_capacity(marked.len()), Vec::new(), None);
        for c in marked.chars() {
            match MARKS.iter().position(|mark| *mark == c) {
                Some(0) => open = Some(text.len()),
                Some(_) => spans.extend(open.take().map(|start| start..text.len())),
                None => text.push(c),
            }
        }
        Ok(Turn { text, spans, parts_within: false })
    }

    /// A conversation up to an assistant's message, and what of it the assistant wrote there.
    fn turn(&self, chat: &Conversation, at: usize) -> Result<Turn> {
        let Turn { text, spans, .. } = self.whole(chat, at + 1)?;
        let before = &chat.messages[..at];
        let prompt = self.rendered(before, &chat.tools, true, false)?;
        let common = common_prefix(&text, &prompt);
        if self.0.marks {
            let own = spans.into_iter().filter(|span| span.end > common).collect();
            return Ok(Turn { text, spans: own, parts_within: false });
        }
        let content = chat.messages[at].text();
        let ignores_flag = prompt == self.rendered(before, &chat.tools, false, false)?;
        // A template that writes no beginning of an answer: the beginning ends where any answer begins.
        let start = match ignores_flag {
            false => common,
            true => match self.beginning(chat, at)?.filter(|beginning| text.starts_with(beginning)) {
                Some(beginning) => beginning.len().max(common),
                None => common,
            },
        };
        let end = start + answer_len(&text[start..], &content);
        let spans = std::iter::once(start..end).collect();
        Ok(Turn { parts_within: start == common && common < prompt.len(), spans, text })
    }

    /// What stands before any answer there.
    fn beginning(&self, chat: &Conversation, at: usize) -> Result<Option<String>> {
        let any = MARKS[0].to_string();
        let messages = [&chat.messages[..at], &[Message::new(Role::Assistant, any.as_str())]].concat();
        let text = self.rendered(&messages, &chat.tools, false, false)?;
        Ok(text.find(&any).map(|at| text[..at].to_string()))
    }
}

/// A rendered conversation, and what in it is trained.
struct Turn {
    text: String,
    spans: Vec<Range<usize>>,
    /// Whether a span begins where two renderings part, which may be within a token: the token then counts.
    parts_within: bool,
}

impl Turn {
    fn end(&self) -> usize {
        self.spans.last().map_or(0, |span| span.end)
    }
}

/// The bytes that both begin with, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
}

fn masked(tokenizer: &Tokenizer, text: &str, spans: &[Range<usize>], parts_within: bool) -> Result<MaskedIds> {
    let encoded = tokenizer.encode_with_offsets(text)?;
    let begins =
        |span: &Range<usize>, at: &Range<usize>| span.start <= at.start || (parts_within && span.start < at.end);
    let trained = |at: &Range<usize>| spans.iter().any(|span| begins(span, at) && at.end <= span.end && !at.is_empty());
    let mut mask: Vec<bool> = encoded.iter().map(|(_, at)| trained(at)).collect();
    // Where a turn has no end of its own, what begins the next one ends it (GLM's `<|user|>`).
    let is_added = |at: usize| tokenizer.is_added(encoded[at].0);
    for at in 1..mask.len() {
        mask[at] |= mask[at - 1] && !is_added(at - 1) && is_added(at);
    }
    Ok((encoded.into_iter().map(|(id, _)| id).collect(), mask))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatTemplate({:?})", self.0.source)
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

/// `{% generation %}…{% endgeneration %}` mark the assistant's part; here they become blocks of a filter, with the same
/// white space control. Also whether there are any.
fn with_generation_blocks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut any) = (source, false);
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match generation_tag(rest) {
            Some((tag, len)) => {
                any = true;
                out.push_str(&tag);
                rest = &rest[len..];
            }
            None => {
                out.push_str("{%");
                rest = &rest[2..];
            }
        }
    }
    (out + rest, any)
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
        "generation" => "filter narthex_generation",
        "endgeneration" => "endfilter",
        _ => return None,
    };
    Some((format!("{{%{open} {tag} {close}%}}"), inner.len() + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{SPECIAL, trained};
    use serde_json::json;

    fn chat(turns: &[(&str, &str)]) -> Vec<Message> {
        let role = |name: &str| match name {
            "s" => Role::System,
            "u" => Role::User,
            _ => Role::Assistant,
        };
        turns.iter().map(|(name, content)| Message::new(role(name), *content)).collect()
    }

    fn tokens() -> BTreeMap<String, String> {
        [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.into(), token.into())).into()
    }

    fn check(source: &str, expected: &str) {
        let template = ChatTemplate::with_clock(source, tokens(), Arc::new(|| 1_722_000_000)).unwrap();
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
                + r#"{"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "#
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

    /// The trained parts of each document, as text.
    fn trained_texts(source: &str, chat: &Conversation) -> Vec<String> {
        let (template, tokenizer) = (ChatTemplate::new(source, Some(""), Some(SPECIAL[0])).unwrap(), trained());
        let documents = template.encode_chat(&tokenizer, chat).unwrap();
        let kept = |(ids, mask): MaskedIds| -> Vec<u32> {
            ids.into_iter().zip(mask).filter(|(_, kept)| *kept).map(|(id, _)| id).collect()
        };
        documents.into_iter().map(|document| tokenizer.decode(&kept(document), false).unwrap()).collect()
    }

    /// The same of a chat that is one document.
    fn trained_text(source: &str, turns: &[(&str, &str)]) -> String {
        let [text] = &trained_texts(source, &chat(turns).into())[..] else { panic!("one document") };
        text.clone()
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
        // A template that ignores add_generation_prompt: the header is no answer.
        let ignoring = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
        assert_eq!(trained_text(ignoring, &[("u", "x"), ("a", "y"), ("u", "x"), ("a", "z")]), "y<|im_end|>z<|im_end|>");
        // One that says itself what counts: the empty thought before the answer does not.
        let saying = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n\
                      {%- generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n\
                      {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        assert_eq!(trained_text(saying, &[("u", "x"), ("a", "y"), ("u", "x"), ("a", "z")]), "y<|im_end|>z<|im_end|>");
        // What is not to be learnt.
        for source in [CHATML, ignoring, saying] {
            let mut quiet = chat(&[("u", "x"), ("a", "bad"), ("u", "x"), ("a", "z")]);
            quiet[1].train = false;
            assert_eq!(trained_texts(source, &quiet.into()), ["z<|im_end|>"], "{source}");
        }
    }

    #[test]
    fn calls_and_reasoning_are_trained() {
        let source = "{% if tools %}{{ tools[0].function.name }};{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n\
            {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}\
            {% for c in m.tool_calls %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n\
            {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let chat: Conversation = serde_json::from_str(
            r#"{"tools": [{"type": "function", "function": {"name": "clock"}}], "messages": [{"role": "user", "content": "x"},
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "UTC"}}}]},
                {"role": "tool", "content": "1"}, {"role": "assistant", "content": "y", "reasoning_content": "r"}]}"#,
        )
        .unwrap();
        let expected = "<call>clock {\"zone\": \"UTC\"}</call><|im_end|><think>r</think>y<|im_end|>";
        assert_eq!(trained_texts(source, &chat), [expected]);
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert!(template.render_with_tools(&chat.messages, &chat.tools, false).unwrap().starts_with("clock;"));
    }

    #[test]
    fn templates_that_rewrite_the_past_give_a_document_for_each_answer() {
        // As Qwen3's: only the last answer keeps its thoughts.
        let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>\
            {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let chat: Conversation = chat(&[("u", "x"), ("a", "y"), ("u", "x"), ("a", "z")]).into();
        assert_eq!(trained_texts(source, &chat), ["<think></think>y<|im_end|>", "<think></think>z<|im_end|>"]);
        let (template, tokenizer) = (ChatTemplate::new(source, None, None).unwrap(), trained());
        let (ids, _) = &template.encode_chat(&tokenizer, &chat).unwrap()[1];
        let text = tokenizer.decode(ids, false).unwrap();
        assert_eq!(text, template.render(&chat.messages, false).unwrap(), "the last is the whole conversation");
    }

    #[test]
    fn turns_without_an_end_end_with_the_beginning_of_the_next() {
        // As GLM's: the model stops by naming who speaks next.
        let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}\
            {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        assert_eq!(trained_text(source, &[("u", "x"), ("a", "y"), ("u", "x"), ("a", "z")]), "y<|im_start|>z");
    }

    #[test]
    fn prompts_that_are_not_how_the_chat_begins_part_where_they_differ() {
        // As DeepSeek-R1's: the prompt opens a thought that a finished answer does not have.
        let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n\
            {% endfor %}{% if add_generation_prompt %}assistant: <think>\n{% endif %}";
        assert_eq!(trained_text(source, &[("u", "x"), ("a", "y")]), "y<|endoftext|>");
    }

    #[test]
    fn what_cannot_go_on_is_refused() {
        let parts: Message = serde_json::from_str(
            r#"{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"},
                {"type": "image_url", "image_url": {"url": "data:x"}}]}"#,
        )
        .unwrap();
        let silent: Message = serde_json::from_str(r#"{"role": "assistant", "content": null}"#).unwrap();
        let each_part = "{% for m in messages %}{% for p in m.content %}{{ p.text }}|{% endfor %}{% endfor %}";
        for (source, messages, expected) in [
            (
                CHATML,
                chat(&[("u", "x"), ("a", "im")]),
                Some("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nim"),
            ),
            (each_part, vec![parts], Some("a|b")),
            ("{{ messages[-1].content | trim }}!", chat(&[("a", " x\n ")]), Some("x")),
            (CHATML, vec![], None),
            (CHATML, chat(&[("u", "x"), ("a", "")]), None),
            (CHATML, vec![silent], None),
            ("{{ messages[0].content }}", chat(&[("u", "x"), ("a", "y")]), None),
            ("{{ messages[-1].content | upper }}", chat(&[("a", "y")]), None),
        ] {
            let template = ChatTemplate::new(source, None, None).unwrap();
            let found = template.render_unfinished(&ChatInput { messages: &messages, ..ChatInput::default() });
            assert_eq!(found.ok().as_deref(), expected, "{source}");
        }
    }

    #[test]
    fn tools_go_under_the_name_that_a_template_knows() {
        // As SmolLM3's.
        let tools = [json!({"name": "f"})];
        let source =
            "{% for t in xml_tools %}{{ t.name }}{% endfor %}{% for t in python_tools %}:{{ t.name }}{% endfor %}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        for (others, expected) in [
            (json!({}), "f"),
            (json!({"xml_tools": [{"name": "g"}]}), "g"),
            (json!({"python_tools": [{"name": "g"}]}), ":g"),
        ] {
            let input = ChatInput { tools: &tools, others: others.as_object(), ..ChatInput::default() };
            assert_eq!(template.render_input(&input).unwrap(), expected, "{others}");
        }
    }

    #[test]
    fn trimmed_offsets_do_not_matter() {
        let mut json: serde_json::Value = serde_json::from_str(&trained().to_json().unwrap()).unwrap();
        json["post_processor"] = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let trimming = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        let template = ChatTemplate::new(CHATML, None, None).unwrap();
        let chat: Conversation = chat(&[("u", "the cat"), ("a", "the  cat sat")]).into();
        assert_eq!(template.encode_chat(&trimming, &chat).unwrap(), template.encode_chat(&trained(), &chat).unwrap());
    }

    #[test]
    fn line_ends_and_special_tokens_are_those_of_jinja2() {
        let tokens = [("pad_token", "<pad>"), ("image_token", "<img>")].map(|(n, t)| (n.to_string(), t.to_string()));
        let template =
            ChatTemplate::with_clock("a\r\n{{ pad_token }}\r{{ image_token }}", tokens.into(), Arc::new(|| 0)).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "a\n<pad>\n<img>");
    }
}
