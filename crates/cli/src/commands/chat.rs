//! `narthex chat`: a conversation in the terminal.

use super::{
    generate::{Sampling, request, summary},
    shelf_of,
};
use crate::{flags::ModelRef, output, style::Style};
use clap::Args;
use narthex_answer::TextModel;
use narthex_base::{Error, Message, Result, Role};
use narthex_infer::{Engine, EngineOptions};
use narthex_shelf::Purpose;
use rustyline::{DefaultEditor, error::ReadlineError};
use std::io::{BufRead, IsTerminal};

/// The arguments of `narthex chat`.
#[derive(Args)]
pub struct Chat {
    #[command(flatten)]
    pub model: ModelRef,
    /// Instructions that come before the conversation
    #[arg(long)]
    pub system: Option<String>,
    #[command(flatten)]
    pub sampling: Sampling,
}

pub fn run(args: &Chat, style: Style) -> Result<()> {
    let opened = shelf_of(&args.model).model(&args.model.reference, Purpose::Own)?.permitted()?;
    let model = opened.generator(args.model.opening.dtype.form())?;
    model.notes.iter().for_each(|note| style.warning(note));
    let answering = model.answering(Engine::start(model.decoder.clone(), EngineOptions::default())?);
    // Said before the first question, not after it.
    answering.render(&[Message::new(Role::User, "")], true)?;
    let license = model.provenance.license.as_ref().map(|license| format!(", {license}")).unwrap_or_default();
    let mut input = Input::open()?;
    let interactive = matches!(input, Input::Terminal(_));
    if interactive {
        noteln!("{}", style.dim(&format!("{}{license}; {COMMANDS}", model.name)));
    }
    let opening: Vec<Message> = args.system.iter().map(|text| Message::new(Role::System, text)).collect();
    let mut messages = opening.clone();
    let mut turn = 0;
    loop {
        let Some(line) = input.next()? else { return Ok(()) };
        match line.trim() {
            "" => continue,
            "/quit" | "/exit" | "/bye" => return Ok(()),
            "/help" | "/?" => {
                noteln!("{}", style.dim(COMMANDS));
                continue;
            }
            "/new" => {
                messages = opening.clone();
                continue;
            }
            // A path is no command.
            unknown if interactive && unknown.starts_with('/') && !unknown[1..].contains(['/', ' ']) => {
                noteln!("{}", style.dim(&format!("there is no command `{unknown}`: {COMMANDS}")));
                continue;
            }
            text => messages.push(Message::new(Role::User, text)),
        }
        let ids = prompt(&answering, &mut messages, opening.len(), args.sampling.max_tokens, style)?;
        let told = answering.tell(request(&answering, ids, &args.sampling, turn), output::stream)?;
        outln!();
        if output::is_lost() {
            return Ok(());
        }
        if interactive {
            noteln!("{}", style.dim(&summary(&told)));
        }
        messages.push(Message::new(Role::Assistant, told.text));
        turn += 1;
    }
}

/// What is no message.
const COMMANDS: &str = "/new starts over, /quit or Ctrl-D ends, /help says this";

/// Where messages come from.
enum Input {
    /// A line that can be edited, with those before it at the arrow keys.
    Terminal(Box<DefaultEditor>),
    /// A file or another program, a line each.
    Stream,
}

impl Input {
    fn open() -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Stream);
        }
        let editor = DefaultEditor::new();
        editor.map(|editor| Self::Terminal(Box::new(editor))).map_err(cannot_read)
    }

    /// The next message; none at the end.
    fn next(&mut self) -> Result<Option<String>> {
        match self {
            Self::Stream => {
                let mut line = String::new();
                let read = std::io::stdin().lock().read_line(&mut line);
                let bytes = read.map_err(|error| Error::io("cannot read", "stdin", error))?;
                Ok((bytes > 0).then_some(line))
            }
            Self::Terminal(editor) => match editor.readline("> ") {
                Ok(line) => {
                    // A history that is full or refuses a line is no reason to stop.
                    _ = editor.add_history_entry(&line);
                    Ok(Some(line))
                }
                // As in a shell: the line is given up, the conversation is not.
                Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
                Err(ReadlineError::Eof) => Ok(None),
                Err(error) => Err(cannot_read(error)),
            },
        }
    }
}

fn cannot_read(error: ReadlineError) -> Error {
    Error::input("cannot read from the terminal").cause(error)
}

/// The prompt of the conversation; its oldest turns are forgotten until an answer fits.
fn prompt(
    model: &TextModel,
    messages: &mut Vec<Message>,
    opening: usize,
    tokens_max: usize,
    style: Style,
) -> Result<Vec<u32>> {
    let room = tokens_max.min(model.engine.context() / 2);
    let (ids, forgotten) = model.shortened_chat_prompt(messages, opening, room)?;
    if forgotten > 0 {
        style.warning("the conversation is longer than the model's context: its oldest turns are forgotten");
    }
    Ok(ids)
}
