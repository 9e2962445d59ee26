//! What an engine may take, as flags and as its options. The names are vLLM's where it has them. Knows no model.

use crate::flags::ThreadsFlag;
use clap::{Args, ValueEnum};
use narthex_base::{Error, Result};
use narthex_infer::{EngineOptions, Policy};
use narthex_shelf::{SpeculativeConfig, kv_cache_bytes};
use narthex_text::calls;

/// What the engine may take; the names are vLLM's where it has them.
#[derive(Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineLimits {
    /// Tokens that prompt and answer may have together; what the model can hold by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// Sequences that run at once
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_seqs: u32,
    /// Tokens that one step computes, of all sequences together; prompts get a sixth of it while most sequences
    /// generate
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_batched_tokens: u32,
    /// Tokens of one prompt in a step: longer ones come in pieces, so that others get in between
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub long_prefill_token_threshold: u32,
    /// Requests that wait at most; further ones get 503 and a Retry-After
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_num_waiting: u32,
    /// The share of the memory available at the start that keys and values may take
    #[arg(long, default_value_t = 0.25, value_name = "SHARE", conflicts_with = "kv_cache_memory_bytes")]
    pub kv_cache_memory_share: f64,
    /// The bytes that keys and values may take: a number, or one with K, M or G
    #[arg(long, value_name = "BYTES", value_parser = memory_bytes)]
    pub kv_cache_memory_bytes: Option<usize>,
    /// How keys and values are stored: as the model computes, or as 8-bit integers with scales in half the bytes of
    /// bf16
    #[arg(long, value_enum, default_value = "auto")]
    pub kv_cache_dtype: KvCacheDtype,
    /// Compute every prompt from its beginning, whatever earlier ones began with
    #[arg(long)]
    pub no_enable_prefix_caching: bool,
    /// Who goes first
    #[arg(long, value_enum, default_value = "fcfs")]
    pub scheduling_policy: SchedulingPolicy,
    /// Guess tokens ahead and check several in one step, from the text itself:
    /// `{"method":"ngram","num_speculative_tokens":5}` (also `prompt_lookup_max`, 4, and `prompt_lookup_min`, 2), or
    /// by a smaller model: `{"model":"REF","num_speculative_tokens":3}`. Answers stay the same
    #[arg(long, value_name = "JSON", value_parser = SpeculativeConfig::parse)]
    pub speculative_config: Option<SpeculativeConfig>,
    #[command(flatten)]
    pub threads: ThreadsFlag,
    /// Keep each of those threads on a processor of its own
    #[arg(long)]
    pub pin_threads: bool,
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvCacheDtype {
    /// As the model computes: bfloat16 or float32
    Auto,
    /// 8-bit integers, with a scale for each position and head
    Int8,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchedulingPolicy {
    /// In the order of arrival
    Fcfs,
    /// Lower numbers of the request's `priority` first, then in the order of arrival
    Priority,
}

impl EngineLimits {
    /// The options that these flags mean.
    ///
    /// # Errors
    /// If they contradict each other.
    pub fn options(&self) -> Result<EngineOptions> {
        if !(self.kv_cache_memory_share > 0.0 && self.kv_cache_memory_share <= 0.95) {
            return Err(Error::usage(format!(
                "`--kv-cache-memory-share {}` is not a share",
                self.kv_cache_memory_share
            ))
            .help("a number above 0 and up to 0.95: the machine needs memory for other things too"));
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            return Err(Error::usage(format!(
                "`--max-num-batched-tokens {}` is less than `--max-num-seqs {}`",
                self.max_num_batched_tokens, self.max_num_seqs
            ))
            .help("every sequence that runs gets a token in every step: raise the former or lower the latter"));
        }
        Ok(EngineOptions {
            sequences_max: self.max_num_seqs as usize,
            waiting_max: self.max_num_waiting as usize,
            step_tokens_max: self.max_num_batched_tokens as usize,
            chunk_tokens_max: self.long_prefill_token_threshold as usize,
            kv_cache_bytes: self.kv_cache_memory_bytes.unwrap_or_else(|| kv_cache_bytes(self.kv_cache_memory_share)),
            context_max: self.max_model_len.map_or(usize::MAX, |len| len as usize),
            kv_cache_int8: self.kv_cache_dtype == KvCacheDtype::Int8,
            prefix_cache: !self.no_enable_prefix_caching,
            policy: match self.scheduling_policy {
                SchedulingPolicy::Fcfs => Policy::Fcfs,
                SchedulingPolicy::Priority => Policy::Priority,
            },
            threads: self.threads.threads.map_or(0, |threads| threads as usize),
            pinned: self.pin_threads,
            // A draft model is loaded with the model.
            speculation: None,
        })
    }
}

/// A number of bytes, with a unit of 1024 or not.
pub(super) fn memory_bytes(text: &str) -> Result<usize, String> {
    let unit = |suffix: &str, shift: u32| text.strip_suffix(suffix).map(|number| (number, shift));
    let (number, shift) = unit("K", 10).or(unit("M", 20)).or(unit("G", 30)).unwrap_or((text, 0));
    let bytes = number.trim().parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "a whole number, or one with K, M or G, such as 512M".to_string())
}

/// A way of writing calls of tools that there is.
pub(super) fn tool_call_parser(name: &str) -> Result<String, String> {
    match calls::by_name(name) {
        Some(syntax) => Ok(syntax.name().into()),
        None => Err(format!("there are: {}", calls::names().collect::<Vec<_>>().join(", "))),
    }
}
