//! Named limits of both ends: sizes, counts and times that nobody on the other side can exceed. Plain data.

/// What a client of ours may make the server do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of a request's body, and of a line on standard input.
    pub body_bytes_max: usize,
    /// Sessions of the older revision that are open at once; further ones are refused with 503.
    pub sessions_max: usize,
    /// Seconds after which a session that nobody uses is closed.
    pub session_idle_s: u64,
    /// Calls, prompts and resources under way at once; further ones are refused.
    pub calls_max: usize,
    /// Seconds that a call of a tool may take.
    pub call_s: u64,
    /// Seconds that a call of an agent may take while a client waits for it. As a task it may take longer.
    pub agent_s: u64,
    /// Seconds within which what a call asks for must be answered: sealed state is refused afterwards.
    pub answer_s: u64,
    /// Times that one call may ask for something.
    pub rounds_max: usize,
    /// Notices of progress, and of the log, of one call that wait to be sent; further ones are dropped.
    pub notices_max: usize,
    /// Entries of a page of a list.
    pub page_size: usize,
    /// Bytes of a result's texts and data; a longer one is cut.
    pub result_bytes_max: usize,
    /// Standing subscriptions to changes, of all clients together.
    pub subscriptions_max: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            sessions_max: 1024,
            session_idle_s: 300,
            calls_max: 256,
            call_s: 600,
            agent_s: 3600,
            answer_s: 900,
            rounds_max: 10,
            notices_max: 256,
            page_size: 100,
            result_bytes_max: 16 << 20,
            subscriptions_max: 1024,
        }
    }
}

/// What a server may make us do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Seconds to connect and agree on a revision; a probe that an older server leaves unanswered takes 10 of them.
    pub connect_s: u64,
    /// Seconds that a call may take, however much the server says meanwhile.
    pub call_s: u64,
    /// Seconds for a page of a list.
    pub page_s: u64,
    /// Bytes of a message; a longer one is not read, and what waits for it fails.
    pub message_bytes_max: usize,
    /// Bytes of all that one stream of events brings.
    pub stream_bytes_max: usize,
    /// Bytes of a result's texts and data that are kept; the rest is cut off, and the cut is told.
    pub result_bytes_max: usize,
    /// Tools of a server; further ones are left out.
    pub tools_max: usize,
    /// Pages of a list.
    pub pages_max: usize,
    /// Bytes of a tool's description.
    pub description_bytes_max: usize,
    /// Bytes of a tool's schema.
    pub schema_bytes_max: usize,
    /// Levels of a tool's schema.
    pub schema_depth_max: usize,
    /// Times that one call may ask us for something.
    pub rounds_max: usize,
    /// Calls of one server under way at once; further ones wait.
    pub calls_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_s: 30,
            call_s: 300,
            page_s: 30,
            message_bytes_max: 16 << 20,
            stream_bytes_max: 64 << 20,
            result_bytes_max: 1 << 20,
            tools_max: 1000,
            pages_max: 100,
            description_bytes_max: 16 << 10,
            schema_bytes_max: 256 << 10,
            schema_depth_max: 64,
            rounds_max: 10,
            calls_max: 16,
        }
    }
}
