//! The tools of one server: asked for page by page, each as it was when it was given out, or not at all.

use super::{
    link::{Link, Trouble},
    remote::{RemoteTool, definition},
};
use crate::schema::beginning;
use narthex_agent::{Effect, Tool, ToolDefinition};
use narthex_base::{Digest, Error, Result};
use rmcp::model::PaginatedRequestParams;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Bytes of the name of a tool that is left out.
const SHOWN_BYTES_MAX: usize = 128;

/// The tools of a server.
pub(super) struct Shelf {
    pub link: Arc<Link>,
    state: Mutex<State>,
    /// How many of the server's announcements of changes were heeded.
    heeded: AtomicU64,
    this: Weak<Shelf>,
}

#[derive(Default)]
struct State {
    tools: Vec<Arc<dyn Tool>>,
    left_out: Vec<(String, String)>,
    /// Of each tool that was ever given out, what it was, and how it is told that it is that no more.
    given_out: Vec<(String, Digest, Weak<AtomicBool>)>,
}

impl Shelf {
    pub fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { link, state: Mutex::default(), heeded: AtomicU64::new(0), this: this.clone() })
    }

    pub fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.state().tools.clone()
    }

    pub fn left_out(&self) -> Vec<(String, String)> {
        self.state().left_out.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn failed(&self, what: &str, trouble: &Trouble) -> Error {
        Error::input(format!("the MCP server `{}` gave no {what}", self.link.dial.spec.name)).cause(trouble)
    }

    /// Asks for the tools again if the server said that they changed.
    async fn heed(&self) -> Result<()> {
        let said = *self.link.dial.ears.changes().borrow();
        if said > self.heeded.load(Ordering::Acquire) { self.refresh().await } else { Ok(()) }
    }

    /// Asks for the tools.
    pub async fn refresh(&self) -> Result<()> {
        // Read before the list is asked for: what is said meanwhile is heeded the next time.
        let said = *self.link.dial.ears.changes().borrow();
        let named = self.list().await?;
        let (fresh, left_out) = self.usable(&named);
        let mut state = self.state();
        let before = std::mem::take(&mut state.tools);
        state.given_out.retain(|(name, digest, stale)| {
            let Some(stale) = stale.upgrade() else { return false };
            let same = fresh.iter().any(|definition| definition.name == *name && definition.digest() == *digest);
            stale.fetch_or(!same, Ordering::AcqRel);
            same
        });
        for definition in fresh {
            if let Some(tool) = before.iter().find(|tool| *tool.definition() == definition) {
                state.tools.push(tool.clone());
                continue;
            }
            let (name, digest) = (definition.name.clone(), definition.digest());
            let tool = RemoteTool::new(self.link.clone(), definition, self.freshen());
            state.given_out.push((name, digest, Arc::downgrade(&tool.stale())));
            state.tools.push(Arc::new(tool));
        }
        state.left_out = left_out;
        self.heeded.fetch_max(said, Ordering::AcqRel);
        Ok(())
    }

    /// What a tool does before it is called.
    fn freshen(&self) -> super::remote::Freshen {
        let this = self.this.clone();
        Arc::new(move || {
            let this = this.clone();
            Box::pin(async move {
                match this.upgrade() {
                    Some(shelf) => shelf.heed().await.map_err(|error| error.what().to_string()),
                    // Whoever holds only the tool hears of no change, and asked for none.
                    None => Ok(()),
                }
            })
        })
    }

    /// Those that can be used, and the others with why not.
    fn usable(&self, named: &[rmcp::model::Tool]) -> (Vec<ToolDefinition>, Vec<(String, String)>) {
        let dial = &self.link.dial;
        let (mut fresh, mut left_out): (Vec<ToolDefinition>, Vec<(String, String)>) = (vec![], vec![]);
        for tool in named {
            let effect = dial.spec.effects.get(tool.name.as_ref()).copied().unwrap_or(Effect::Reaches);
            let shown = beginning(&tool.name, SHOWN_BYTES_MAX).to_string();
            match definition(&dial.spec.name, tool, effect, &dial.limits) {
                Ok(definition) if fresh.iter().any(|known| known.name == definition.name) => {
                    left_out.push((shown, "another one has its name".into()));
                }
                Ok(definition) => fresh.push(definition),
                Err(why) => left_out.push((shown, why)),
            }
        }
        (fresh, left_out)
    }

    async fn list(&self) -> Result<Vec<rmcp::model::Tool>> {
        let (dial, mut tools, mut cursor) = (&self.link.dial, vec![], None);
        let (limits, name) = (&dial.limits, &dial.spec.name);
        for _ in 0..limits.pages_max {
            let asked = self.link.ask(limits.page_s, |peer| {
                let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
                async move { peer.list_tools(Some(params)).await }
            });
            let page = asked.await.map_err(|trouble| self.failed("list of tools", &trouble))?;
            tools.extend(page.tools);
            if tools.len() > limits.tools_max {
                let what = format!("the MCP server `{name}` names more than {} tools", limits.tools_max);
                return Err(Error::input(what).help("raise the limit `tools_max` for it, or leave it out"));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        let what = format!("the MCP server `{name}` names its tools on more than {} pages", limits.pages_max);
        Err(Error::input(what).help("its list may have no end: ask whoever runs it"))
    }
}
