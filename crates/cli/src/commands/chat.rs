//! `narthex chat`: a conversation in the terminal.

use super::{
    generate::{Sampling, request, summary},
    shelf,
};
use crate::{flags::ModelRef, output, style::Style};
use clap::Args;
use narthex_answer::TextModel;
use narthex_base::{Error, Message, Result, Role};
use narthex_infer::{Engine, EngineOptions};
use narthex_shelf::Purpose;
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
    let opened = shelf(&args.model.project).model(&args.model.reference, Purpose::Own)?.permitted()?;
    let model = opened.generator(args.model.dtype.form())?;
    model.notes.iter().for_each(|note| style.warning(note));
    let answering = model.answering(Engine::start(model.decoder.clone(), EngineOptions::default())?);
    // Said before the first question, not after it.
    answering.render(&[Message::new(Role::User, "")], true)?;
    let license = model.provenance.license.as_ref().map(|license| format!(", {license}")).unwrap_or_default();
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        noteln!("{}", style.dim(&format!("{}{license}; /new starts over, /quit or Ctrl-D ends", model.name)));
    }
    let opening: Vec<Message> = args.system.iter().map(|text| Message::new(Role::System, text)).collect();
    let mut messages = opening.clone();
    let mut turn = 0;
    loop {
        if interactive {
            note!("{}", style.bold("> "));
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).map_err(|error| Error::io("cannot read", "stdin", error))? == 0
        {
            return Ok(());
        }
        match line.trim() {
            "" => continue,
            "/quit" => return Ok(()),
            "/new" => {
                messages = opening.clone();
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
