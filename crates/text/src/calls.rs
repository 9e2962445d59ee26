//! How models write calls of tools. One file a syntax: what it reads out of an answer, piece by piece, and the
//! grammar (llguidance's Lark) that lets a model write nothing else. Knows no HTTP, no engine and no tokenizer beyond
//! which markers it has as tokens.

mod deepseek_v3;
mod function_gemma;
mod gemma;
mod gemma4;
mod generic;
mod glm4;
mod granite;
mod hermes;
mod input;
mod json;
mod kimi_k2;
mod lark;
mod literal_grammar;
mod llama3_json;
mod members;
mod minimax_m2;
mod mistral;
mod object;
mod phi4;
mod python;
mod pythonic;
mod qwen3_coder;
mod tagged;
#[cfg(test)]
mod trial;
mod typed;

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// JSON Schema of its arguments, `{}` if there is none.
    pub parameters: serde_json::Value,
    /// The request wants arguments to follow the schema. A grammar holds every tool to its schema: the caller decides
    /// by this whether there is a grammar, or passes `{}` as the schema of a tool that isn't strict.
    pub strict: bool,
}

/// A part of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Text for the user.
    Text(String),
    /// A call begins.
    Call {
        /// The tool's name as the model wrote it.
        name: String,
        /// The call's id if the model wrote one.
        id: Option<String>,
    },
    /// Arguments of the latest call; they add up to a JSON object.
    Arguments(String),
}

/// What a grammar must let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// 0: text, then calls if the model likes. 1: nothing but calls, one at least.
    pub least: usize,
    /// More than one call is allowed.
    pub parallel: bool,
}

/// The token that a marker is in the tokenizer's vocabulary, if it is one added token.
pub type TokenOf<'a> = &'a dyn Fn(&str) -> Option<u32>;

/// How a family of models writes calls.
pub trait CallSyntax: Sync + Send {
    /// Our name for it.
    fn name(&self) -> &'static str;

    /// Other names, as in vLLM's `--tool-call-parser`.
    fn other_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// A chat template with this source asks for this syntax.
    fn fits(&self, template: &str) -> bool;

    /// Texts that open, separate and close, and that tokenizers may have as added tokens. Where one has, only the token
    /// counts.
    fn markers(&self) -> &'static [&'static str];

    /// Reads one answer. `sure`: it follows [`CallSyntax::grammar`].
    fn reader(&self, tools: &[Tool], token: TokenOf<'_>, sure: bool) -> Box<dyn CallReader>;

    /// Lark text. There must be a tool.
    fn grammar(&self, tools: &[Tool], wanted: Wanted, token: TokenOf<'_>) -> String;

    /// An id for a call to which the model gave none.
    fn new_id(&self, random: u64) -> String {
        format!("call_{}", letters(random, 24))
    }
}

/// Turns an answer into text and calls. How it is cut into pieces never changes what comes out in the end.
///
/// White space between calls, after the last and right before one is dropped. What turns out to be no call comes
/// back as text, as the model wrote it.
pub trait CallReader: Send {
    /// Ordinary text.
    fn text(&mut self, text: &str) -> Vec<Seen>;

    /// One added token, by its spelling. Those that are no markers are dropped.
    fn token(&mut self, token: &str) -> Vec<Seen>;

    /// The answer is over.
    fn finish(&mut self) -> Vec<Seen>;
}

/// In the order in which a template is tried: what only one family writes comes first.
static SYNTAXES: &[&dyn CallSyntax] = &[
    &gemma4::Gemma4,
    &function_gemma::FunctionGemma,
    &kimi_k2::KimiK2,
    &deepseek_v3::V31,
    &deepseek_v3::V3,
    &minimax_m2::MinimaxM2,
    &qwen3_coder::Qwen3Coder,
    &glm4::Glm4,
    &mistral::Mistral,
    &pythonic::LFM2,
    &pythonic::OLMO3,
    &pythonic::LLAMA4,
    &pythonic::BARE,
    &phi4::Phi4,
    &granite::Granite,
    &hermes::Hermes,
    &llama3_json::Llama3Json,
    &generic::Generic,
];

/// The syntax of this name, ours or vLLM's.
pub fn by_name(name: &str) -> Option<&'static dyn CallSyntax> {
    SYNTAXES.iter().find(|syntax| syntax.name() == name || syntax.other_names().contains(&name)).copied()
}

/// Our names.
pub fn names() -> impl Iterator<Item = &'static str> {
    SYNTAXES.iter().map(|syntax| syntax.name())
}

/// The syntax that a chat template asks for. `None`: it ignores tools or we don't know its syntax, so list the tools
/// in a system message and take `by_name("json")`.
pub fn of_template(source: &str) -> Option<&'static dyn CallSyntax> {
    SYNTAXES.iter().find(|syntax| syntax.fits(source)).copied()
}

/// Letters and digits made from a random number.
fn letters(random: u64, count: usize) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut state = random;
    let mut next = || {
        // SplitMix64: spreads one number over as many letters as are asked for.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        char::from(LETTERS[((mixed ^ (mixed >> 31)) % 62) as usize])
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_syntax() {
        let mut known: Vec<&str> = names().collect();
        assert_eq!(known.len(), 18);
        known.extend(SYNTAXES.iter().flat_map(|syntax| syntax.other_names()));
        for name in &known {
            assert_eq!(known.iter().filter(|other| other == &name).count(), 1, "{name}");
            assert!(by_name(name).is_some(), "{name}");
        }
        for (name, ours) in [
            ("hermes", "hermes"),
            ("granite4", "hermes"),
            ("qwen3_xml", "qwen3_coder"),
            ("phi4_mini_json", "phi4"),
            ("glm45", "glm4"),
            ("functiongemma", "function_gemma"),
        ] {
            assert_eq!(by_name(name).map(|syntax| syntax.name()), Some(ours));
        }
        assert!(by_name("no_such").is_none());
    }

    #[test]
    fn templates_lead_to_their_syntax() {
        // What tells each family, as its templates have it.
        for (template, name) in [
            ("<tool_call>\\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\\n</tool_call>", "hermes"),
            ("<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\n", "qwen3_coder"),
            (
                "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and",
                "llama3_json",
            ),
            (
                "{{- '<|header_start|>' }}'<|python_start|>' {\"name\": function name, \"parameters\": dictionary of",
                "llama3_json",
            ),
            ("'<|python_start|>' + message.content", "llama4_pythonic"),
            ("Example Format: [func_name1(params_name1=params_value1, params_name2=params_value2...),", "pythonic"),
            ("in the format of [func_name1(params_name1=params_value1, params_name2", "pythonic"),
            ("respond with a pythonic function call wrapped in <function_calls></function_calls> XML tags", "olmo3"),
            ("\"<|tool_call_start|>[\" + (tool_calls_ns.tool_calls | join(\", \")) + \"]<|tool_call_end|>\"", "lfm2"),
            ("\"List of tools: <|tool_list_start|>[\"", "lfm2"),
            ("ns.system_prompt + (\"\\n\" if ns.system_prompt else \"\") + \"List of tools: [\"", "lfm2"),
            ("{{ '[TOOL_CALLS]' + message['content']|string + eos_token }}", "mistral"),
            ("respond with <|tool_call|> followed by a JSON list of tools used.", "granite"),
            ("functools[{\"name\": [function name], \"arguments\": [function arguments as JSON]}, ...]", "phi4"),
            ("'<|tool|>' + message['tools'] + '<|/tool|>'", "phi4"),
            ("'<|tool|>' '<|/tool|>' '<|tool_call|>' + (tool_call['function'] | tojson) + '<|/tool_call|>'", "phi4"),
            ("'<start_function_call>call:' + function['name'] + '{'", "function_gemma"),
            ("'<|tool_call>call:' + function['name'] + '{'", "gemma4"),
            ("'<｜tool▁call▁begin｜>'+ tool['function']['name'] + '<｜tool▁sep｜>'", "deepseek_v31"),
            ("'<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + '\\n' + '```json' + '\\n'", "deepseek_v3"),
            (
                "<|tool_calls_section_begin|><|tool_call_begin|>{{ formatted_id }}<|tool_call_argument_begin|>",
                "kimi_k2",
            ),
            ("<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>", "glm4"),
            ("{%- set toolcall_begin_token = '<minimax:tool_call>' -%}", "minimax_m2"),
        ] {
            assert_eq!(of_template(template).map(|syntax| syntax.name()), Some(name), "{template}");
        }
        for template in [
            "{{ '<|im_start|>' + message['role'] }}",
            "<TOOLCALL>[",
            "<seed:tool_call>",
            "",
            "within <tool_call></tool_call> XML tags. <tool_calls>[{\"name\": <function-name-1>, \"arguments\": <args-dict-1>}]",
            "{%- set toolcall_begin_token = ns_token ~ '<tool_call>' -%} {%- set _args = tool_call.arguments -%}",
            "ONLY reply in the following format:\n<{start_tag}={function_name}>{parameters}{end_tag}\n<function=x> '<|python_tag|>'",
        ] {
            assert!(of_template(template).is_none(), "{template}");
        }
    }

    #[test]
    fn ids_are_of_the_random_number() {
        let syntax = by_name("hermes").unwrap();
        let id = syntax.new_id(5);
        assert!(id.strip_prefix("call_").is_some_and(|id| id.len() == 24), "{id}");
        assert_eq!(id, syntax.new_id(5));
        assert_ne!(id, syntax.new_id(6));
    }
}
