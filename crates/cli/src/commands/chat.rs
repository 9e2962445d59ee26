//! `narthex chat`: a conversation in the terminal.

use super::{
    generate::{Sampling, request, stream},
    shelf,
};
use crate::{flags::ModelRef, output, style::Style};
use clap::Args;
use narthex_base::{Error, Message, Result, Role};
use narthex_infer::{Engine, EngineOptions};
use narthex_shelf::{LoadedModel, Purpose};
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
    // Said before the first question, not after it.
    model.chat_prompt(&[Message::new(Role::User, "")])?;
    let engine = Engine::start(model.decoder.clone(), EngineOptions::default());
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
        let ids = fit(&model, &mut messages, opening.len(), args.sampling.max_tokens, style)?;
        let answer = stream(&model, &engine, request(&model, ids, &args.sampling, turn), output::stream)?;
        outln!();
        if output::is_lost() {
            return Ok(());
        }
        if interactive {
            noteln!("{}", style.dim(&answer.summary()));
        }
        messages.push(Message::new(Role::Assistant, answer.text));
        turn += 1;
    }
}

/// The prompt of the conversation; its oldest turns are forgotten until an answer fits.
fn fit(
    model: &LoadedModel,
    messages: &mut Vec<Message>,
    opening: usize,
    max_tokens: usize,
    style: Style,
) -> Result<Vec<u32>> {
    let context = model.decoder.config().context;
    let room = max_tokens.min(context / 2);
    loop {
        let ids = model.chat_prompt(messages)?;
        if ids.len() + room <= context {
            return Ok(ids);
        }
        if messages.len() <= opening + 1 {
            return if ids.len() < context { Ok(ids) } else { Err(too_long(ids.len(), context)) };
        }
        style.warning("the conversation is longer than the model's context: its oldest turn is forgotten");
        messages.drain(opening..(opening + 2).min(messages.len() - 1));
    }
}

fn too_long(tokens: usize, context: usize) -> Error {
    Error::input(format!("this message is too long: it has {tokens} tokens, but the model's context holds {context}"))
        .help("say it in fewer words")
}
