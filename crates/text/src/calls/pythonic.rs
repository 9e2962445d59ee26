//! Calls written as Python's, in four forms: `[f(a=1), g()]` as what the whole answer is (Llama 3.2, ToolACE); the
//! same between markers (LFM2) or with markers that may be missing (Llama 4); one call a line between tags (Olmo 3).

use super::{
    CallReader, CallSyntax, TokenOf, Tool, Wanted,
    input::{Broken, Input, Read, Symbol, Waiting},
    lark::{Lark, arguments, quoted},
    literal_grammar::{Dialect, Values},
    object::read_rest,
    python::read_call,
};

const PYTHON: Dialect = Dialect {
    argument: ["=", ", "],
    member: [": ", ", "],
    words: [&["True"], &["False"], &["None"]],
    bare_keys: false,
    sorted: false,
    quote: None,
};

/// Olmo 3's template writes JSON's words.
static OLMO: Dialect = Dialect { words: [&["True", "true"], &["False", "false"], &["None", "null"]], ..PYTHON };

static LIST: Dialect = PYTHON;

/// One of the forms.
pub(super) struct Pythonic {
    name: &'static str,
    others: &'static [&'static str],
    /// What tells a template, each of them.
    signs: &'static [&'static str],
    /// The markers around the calls; none: calls are what the whole answer is.
    markers: &'static [&'static str],
    /// Calls may begin the answer without a marker.
    bare: bool,
    /// The calls stand in brackets; else one on each line.
    list: bool,
}

pub(super) static BARE: Pythonic =
    Pythonic { name: "pythonic", others: &[], signs: &["[func_name1("], markers: &[], bare: true, list: true };

pub(super) static LLAMA4: Pythonic = Pythonic {
    name: "llama4_pythonic",
    others: &[],
    signs: &["<|python_start|>"],
    markers: &["<|python_start|>", "<|python_end|>"],
    bare: true,
    list: true,
};

pub(super) static OLMO3: Pythonic = Pythonic {
    name: "olmo3",
    others: &[],
    signs: &["<function_calls>"],
    markers: &["<function_calls>", "</function_calls>"],
    bare: false,
    list: false,
};

pub(super) static LFM2: Pythonic = Pythonic {
    name: "lfm2",
    others: &[],
    // LFM2's first templates and LFM2.5's only list the tools.
    signs: &["<|tool_call_start|>", "<|tool_list_start|>", "\"List of tools: [\""],
    markers: &["<|tool_call_start|>", "<|tool_call_end|>"],
    bare: false,
    list: true,
};

impl CallSyntax for Pythonic {
    fn name(&self) -> &'static str {
        self.name
    }

    fn other_names(&self) -> &'static [&'static str] {
        self.others
    }

    fn fits(&self, template: &str) -> bool {
        self.signs.iter().any(|sign| template.contains(sign)) && !template.contains(super::llama3_json::ASKED)
    }

    fn markers(&self) -> &'static [&'static str] {
        self.markers
    }

    fn reader(&self, _: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader> {
        let (bare, list, markers) = (self.bare, self.list, self.markers);
        // A grammar leaves text free in which the marker stands as letters.
        let marked = !(sure && bare && markers.first().is_none_or(|open| token(open).is_none()));
        Waiting::reader(markers, token, sure, move |input| async move {
            if bare {
                input.space().await;
                if input.peek().await == Some(Symbol::Char('[')) {
                    let calls = read_all(&input).await;
                    input.settle(calls);
                }
            }
            let ([open, close], true) = (markers, marked) else {
                input.text_until(&[]).await;
                return;
            };
            while input.text_until(&[*open]).await.is_some() {
                let calls = if list { read_marked(&input, close).await } else { read_lines(&input, close).await };
                input.settle(calls);
            }
        })
    }

    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String {
        let mut lark = Lark::new(token);
        let mut values = Values::new(&mut lark, if self.list { &LIST } else { &OLMO });
        let calls: Vec<String> = tools
            .iter()
            .map(|tool| {
                let rule = values.arguments(&arguments(tool));
                format!("{} {rule} \")\"", quoted(&format!("{}(", tool.name)))
            })
            .collect();
        lark.rule("call", &calls.join(" | "));
        let again = |space: &str| if wanted.parallel { format!(" ({} call)*", quoted(space)) } else { String::new() };
        if self.list {
            lark.rule("list", &format!("\"[\" call{} \"]\"", again(", ")));
        } else {
            lark.rule("list", &format!("call{}", again("\n")));
        }
        let [open, close] = self.markers else {
            return lark.at_start('[', "list", None, wanted);
        };
        if self.bare {
            let marked = lark.is_token(open).then(|| format!("{} list {}", lark.mark(open), lark.mark(close)));
            return lark.at_start('[', "list", marked, wanted);
        }
        let body = match (self.list, lark.is_token(close)) {
            (true, _) => format!("list {}", lark.mark(close)),
            (false, true) => format!("\"\\n\"? list \"\\n\"? {}", lark.mark(close)),
            (false, false) => {
                format!("\"\\n\"? list ({} | {})", quoted(close), quoted(&format!("\n{close}")))
            }
        };
        lark.rule("body", &body);
        lark.marked(open, "body", None, wanted)
    }
}

/// Reads a list in brackets.
async fn read_list(input: &Input) -> Read<()> {
    input.space().await;
    input.literal("[").await?;
    input.space().await;
    if input.peek().await == Some(Symbol::Char('{')) {
        // Some templates show LFM2 its own calls so.
        return read_rest(input).await;
    }
    loop {
        input.space().await;
        read_call(input).await?;
        input.space().await;
        let more = input.maybe(",").await;
        input.space().await;
        if input.maybe("]").await {
            return Ok(());
        }
        if !more {
            return Err(Broken);
        }
    }
}

/// Reads a list that nothing may follow.
async fn read_all(input: &Input) -> Read<()> {
    read_list(input).await?;
    input.end().await
}

/// Reads a list and its closing marker.
async fn read_marked(input: &Input, close: &'static str) -> Read<()> {
    read_list(input).await?;
    input.close(close).await
}

/// Reads calls with white space or commas between, and the closing marker.
async fn read_lines(input: &Input, close: &'static str) -> Read<()> {
    input.space().await;
    loop {
        read_call(input).await?;
        input.space().await;
        if input.maybe(",").await {
            input.space().await;
        }
        if input.maybe(close).await || input.peek().await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::trial::{check, check_grammar, check_grammar_with};

    const PEOPLE: &str = "register_user(name='John Doe', age=37, address={'city': 'San Francisco', 'state': 'CA'}, \
                          role=None, passed_test=True, aliases=['John', 'Johnny'])";
    const PERSON: &str = "register_user{\"name\":\"John Doe\",\"age\":37,\"address\":{\"city\":\"San Francisco\",\
                          \"state\":\"CA\"},\"role\":null,\"passed_test\":true,\"aliases\":[\"John\",\"Johnny\"]}";

    #[test]
    fn reads_a_bare_list() {
        for (answer, seen) in [
            ("[f(a=1, b=\"x\"), g()]".to_string(), "f{\"a\":1,\"b\":\"x\"}|g{}".to_string()),
            (format!("\n[{PEOPLE}]\n"), PERSON.to_string()),
            (
                "[get_weather(city='Martha\\'s Vineyard', metric='\\\"cool units\\\"')]".into(),
                "get_weather{\"city\":\"Martha's Vineyard\",\"metric\":\"\\\"cool units\\\"\"}".into(),
            ),
            ("[f(a={}, b=[])]".into(), "f{\"a\":{},\"b\":[]}".into()),
            ("[ f( a = -1.5 , b = ')](' , ) , ]".into(), "f{\"a\":-1.5,\"b\":\")](\"}".into()),
            ("[a.b(x=null, y=true)]".into(), "a.b{\"x\":null,\"y\":true}".into()),
        ] {
            check(&BARE, &answer, &seen);
        }
        for answer in [
            "How can I help you?",
            "[1] says so.",
            "[f(1)]",
            "[f(a=b)]",
            "[f(a=1)] and more",
            "[f(a=1), g(b=]",
            "[f(a=1)",
            "[f(a=1e999)]",
            "[]",
            "[f]",
            "[f(a=\"x)]",
            "f(a=1)",
            "x [f(a=1)]",
        ] {
            check(&BARE, answer, answer);
        }
    }

    #[test]
    fn reads_marked_calls() {
        for (syntax, answer, seen) in [
            (&LLAMA4, "«<|python_start|>»[f(a=1), g()]«<|python_end|>»", "f{\"a\":1}|g{}"),
            (&LLAMA4, "[f(a=1)]", "f{\"a\":1}"),
            (&LLAMA4, "«<|python_start|>»print(1)«<|python_end|>»", "<|python_start|>print(1)<|python_end|>"),
            (&LFM2, "Sure. «<|tool_call_start|>»[f(a='é')]«<|tool_call_end|>»Done.", "Sure.|f{\"a\":\"é\"}|Done."),
            (&LFM2, "«<|tool_call_start|>»[f(a='é')]", "f{\"a\":\"é\"}"),
            (&LFM2, "«<|tool_call_start|>»[f(a='é')", "<|tool_call_start|>[f(a='é')"),
            (&LFM2, "«<|tool_call_start|>»[]«<|tool_call_end|>»", "<|tool_call_start|>[]<|tool_call_end|>"),
            (&LFM2, "[f(a=1)]", "[f(a=1)]"),
            (&LFM2, "«<|tool_call_start|>»[{\"name\": \"f\", \"arguments\": {}}]«<|tool_call_end|>»", "f{}"),
            (
                &LFM2,
                "«<|tool_call_start|>»[f(t='a\nb', month=07)]«<|tool_call_end|>»",
                "f{\"t\":\"a\\nb\",\"month\":7}",
            ),
            (&OLMO3, "<function_calls>f(a=1)\ng()\n</function_calls>", "f{\"a\":1}|g{}"),
            (&OLMO3, "«<function_calls>»\nf(a=1), g()«</function_calls>»", "f{\"a\":1}|g{}"),
            (&OLMO3, "«<function_calls>»f(x=1])«</function_calls>»", "<function_calls>f(x=1])</function_calls>"),
            (&OLMO3, "«<function_calls>»«</function_calls>»", "<function_calls></function_calls>"),
        ] {
            let tokens = if answer.contains('«') { None } else { Some(&[][..]) };
            crate::calls::trial::check_with(syntax, tokens, answer, seen);
        }
    }

    #[test]
    fn grammar() {
        let right = [
            "get_weather(city=\"Köln\", days=3)",
            "get_weather(city='x', unit='celsius', tags=[\"a\", 'b'])",
            "ping()",
        ];
        let wrong = [
            "pong()",
            "get_weather()",
            "get_weather(city=5)",
            "get_weather(city='x', days='3')",
            "get_weather(city='x', unit='kelvin')",
            "get_weather(city='x', days=3, )",
            "ping(a=1)",
        ];
        let wrap = |calls: &[&str], open: &str, close: &str| -> Vec<String> {
            calls.iter().map(|call| format!("{open}{call}{close}")).collect()
        };
        for (syntax, open, close) in [
            (&BARE, "[", "]"),
            (&LLAMA4, "«<|python_start|>»[", "]«<|python_end|>»"),
            (&LFM2, "«<|tool_call_start|>»[", "]«<|tool_call_end|>»"),
            (&OLMO3, "«<function_calls>»", "«</function_calls>»"),
        ] {
            let (mut right, wrong) = (wrap(&right, open, close), wrap(&wrong, open, close));
            let comma = if syntax.list { ", " } else { "\n" };
            right.push(format!("{open}ping(){comma}ping(){close}"));
            if !syntax.list {
                right.push(format!("{open}\ndeep(note=null, on=true){close}"));
                right.push(format!("{open}deep(note=None, on=False)\n{close}"));
            }
            let right: Vec<&str> = right.iter().map(String::as_str).collect();
            let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
            check_grammar(syntax, &right, &wrong);
            if !syntax.bare {
                check_grammar_with(syntax, &[], &right, &wrong);
            }
        }
        check_grammar_with(
            &OLMO3,
            &[],
            &["<function_calls>ping()\nping()</function_calls>", "<function_calls>\nping()\n</function_calls>"],
            &["<function_calls>pong()</function_calls>"],
        );
        check_grammar_with(&LLAMA4, &[], &["[ping(), ping()]"], &["[pong()]"]);
    }
}
