//! Training speed of candle (f32, CPU) on the benchmark's Llama shapes: the same model and step as ../pytorch.py.
//!
//!     cargo run --release -- --shape llama-10m --steps 5
//!
//! With --repeat it prints "ready" after the warm-up and runs N steps more for each line on stdin.
//! Linux only: the peak RSS is read from /proc.

use std::io::BufRead;
use std::time::Instant;

use candle_core::{D, Device, Result, Tensor, Var, bail};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops, rotary_emb};

const HEAD_WIDTH: usize = 64;
const EPSILON: f32 = 1e-6;
const THETA: f64 = 10000.0;
const WARM_UP: usize = 3;

struct Shape {
    name: &'static str,
    vocab: usize,
    width: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    tied: bool,
    batch: usize,
    length: usize,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "llama-10m",
        vocab: 256,
        width: 384,
        ffn: 1024,
        layers: 6,
        heads: 6,
        kv_heads: 6,
        tied: false,
        batch: 8,
        length: 256,
    },
    Shape {
        name: "llama-100m",
        vocab: 32000,
        width: 768,
        ffn: 2048,
        layers: 12,
        heads: 12,
        kv_heads: 4,
        tied: true,
        batch: 4,
        length: 512,
    },
];

/// Makes the weights and remembers them for the optimizer.
struct Maker {
    variables: Vec<Var>,
    sine: bool,
}

impl Maker {
    fn keep(&mut self, variable: Var) -> Tensor {
        let tensor = variable.as_tensor().clone();
        self.variables.push(variable);
        tensor
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Result<Tensor> {
        let variable = if self.sine {
            let values = (1..=rows * columns).map(|i| (0.02 * (i as f64).sin()) as f32).collect();
            Var::from_vec::<_, f32>(values, (rows, columns), &Device::Cpu)?
        } else {
            Var::randn(0f32, 0.02, (rows, columns), &Device::Cpu)?
        };
        Ok(self.keep(variable))
    }

    fn norm(&mut self, width: usize) -> Result<Tensor> {
        let variable = Var::from_vec(vec![1f32; width], width, &Device::Cpu)?;
        Ok(self.keep(variable))
    }
}

struct Block {
    attention_norm: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    ffn_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

impl Block {
    fn new(shape: &Shape, make: &mut Maker) -> Result<Self> {
        let &Shape { width, ffn, heads, kv_heads, .. } = shape;
        Ok(Self {
            attention_norm: make.norm(width)?,
            query: make.matrix(heads * HEAD_WIDTH, width)?,
            key: make.matrix(kv_heads * HEAD_WIDTH, width)?,
            value: make.matrix(kv_heads * HEAD_WIDTH, width)?,
            output: make.matrix(width, heads * HEAD_WIDTH)?,
            ffn_norm: make.norm(width)?,
            gate: make.matrix(ffn, width)?,
            up: make.matrix(ffn, width)?,
            down: make.matrix(width, ffn)?,
        })
    }

    /// `x` is (batch * length, width): plain matrices are what candle multiplies fastest.
    fn forward(&self, x: &Tensor, model: &Model) -> Result<Tensor> {
        let &Shape { batch, length, heads, kv_heads, .. } = model.shape;
        let normed = ops::rms_norm_slow(x, &self.attention_norm, EPSILON)?; // the fast one has no backward
        let split = |weight, heads| -> Result<Tensor> {
            linear(&normed, weight)?.reshape((batch, length, heads, HEAD_WIDTH))?.transpose(1, 2)?.contiguous()
        };
        let rotate = |x: &Tensor| rotary_emb::rope_slow(x, &model.cosine, &model.sine);
        let query = rotate(&split(&self.query, heads)?)?;
        let key = rotate(&split(&self.key, kv_heads)?)?;
        let value = split(&self.value, kv_heads)?;
        // Query heads that share a key head stand in one matrix under each other, so no key is copied.
        let grouped = (batch, kv_heads, heads / kv_heads * length, HEAD_WIDTH);
        let query = (query * (HEAD_WIDTH as f64).powf(-0.5))?.reshape(grouped)?;
        let scores = query.matmul(&key.t()?)?.broadcast_add(&model.mask)?;
        let mixed = softmax(&scores)?.matmul(&value)?.reshape((batch, heads, length, HEAD_WIDTH))?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch * length, heads * HEAD_WIDTH))?;
        let x = (x + linear(&mixed, &self.output)?)?;
        let normed = ops::rms_norm_slow(&x, &self.ffn_norm, EPSILON)?;
        let gated = (linear(&normed, &self.gate)?.silu()? * linear(&normed, &self.up)?)?;
        &x + linear(&gated, &self.down)?
    }
}

fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.t()?)
}

/// As candle_nn's, but without a backward pass through the maximum, which cancels out.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let powers = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    (normalizer - shifted.gather(&targets.unsqueeze(1)?, 1)?)?.mean_all()
}

struct Model {
    shape: &'static Shape,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    unembedding: Tensor,
    cosine: Tensor,
    sine: Tensor,
    mask: Tensor,
}

impl Model {
    fn new(shape: &'static Shape, make: &mut Maker) -> Result<Self> {
        let &Shape { vocab, width, layers, heads, kv_heads, tied, length, .. } = shape;
        let embedding = make.matrix(vocab, width)?;
        let blocks = (0..layers).map(|_| Block::new(shape, make)).collect::<Result<_>>()?;
        let norm = make.norm(width)?;
        let unembedding = if tied { embedding.clone() } else { make.matrix(vocab, width)? };
        let frequency = |i| THETA.powf(-2.0 * i as f64 / HEAD_WIDTH as f64) as f32;
        let frequencies = Tensor::from_iter((0..HEAD_WIDTH / 2).map(frequency), &Device::Cpu)?;
        let positions = Tensor::from_iter((0..length).map(|position| position as f32), &Device::Cpu)?;
        let angles = positions.unsqueeze(1)?.broadcast_mul(&frequencies)?;
        let (cosine, sine) = (angles.cos()?, angles.sin()?);
        let rows = heads / kv_heads * length;
        let hidden = (0..rows * length).map(|i| if i % length > i / length % length { f32::NEG_INFINITY } else { 0.0 });
        let mask = Tensor::from_iter(hidden, &Device::Cpu)?.reshape((rows, length))?;
        Ok(Self { shape, embedding, blocks, norm, unembedding, cosine, sine, mask })
    }

    fn loss(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let mut x = self.embedding.index_select(ids, 0)?;
        for block in &self.blocks {
            x = block.forward(&x, self)?;
        }
        let logits = linear(&ops::rms_norm_slow(&x, &self.norm, EPSILON)?, &self.unembedding)?;
        cross_entropy(&logits, targets)
    }
}

/// The same random ids as pytorch.py draws.
struct Batches {
    shape: &'static Shape,
    state: u64,
}

impl Batches {
    fn draw(&mut self) -> Result<(Tensor, Tensor)> {
        let &Shape { vocab, batch, length, .. } = self.shape;
        let mut next = || {
            self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.state >> 33) as u32 % vocab as u32
        };
        let ids: Vec<u32> = (0..batch * (length + 1)).map(|_| next()).collect();
        let side = |from: usize| {
            let ids = ids.chunks(length + 1).flat_map(|row| &row[from..from + length]).copied();
            Tensor::from_iter(ids.collect::<Vec<_>>(), &Device::Cpu)
        };
        Ok((side(0)?, side(1)?))
    }
}

/// Gives free memory back, as other engines run next: of 5.2 GB that llama-100m kept, 1.2 are left.
fn rest() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's function takes any pad and locks what it works on.
        unsafe { malloc_trim(0) };
    }
}

struct Trainer {
    model: Model,
    variables: Vec<Var>,
    optimizer: AdamW,
    batches: Batches,
    losses: bool,
}

impl Trainer {
    fn step(&mut self) -> Result<(f64, f32)> {
        let (ids, targets) = self.batches.draw()?;
        let begin = Instant::now();
        let loss = self.model.loss(&ids, &targets)?;
        let mut gradients = loss.backward()?;
        let mut sum = 0.0;
        for variable in &self.variables {
            let Some(gradient) = gradients.get(variable) else { bail!("a weight has no gradient") };
            sum += gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
        }
        let norm = f64::from(sum).sqrt();
        let scale = 1.0 / (norm + 1e-6);
        if scale < 1.0 {
            for variable in &self.variables {
                let gradient = gradients.remove(variable).expect("seen above");
                gradients.insert(variable, (gradient * scale)?);
            }
        }
        self.optimizer.step(&gradients)?;
        drop(gradients);
        let seconds = begin.elapsed().as_secs_f64();
        let loss = loss.to_scalar::<f32>()?;
        if !loss.is_finite() {
            bail!("the loss is {loss}");
        }
        if self.losses {
            eprintln!("loss {loss:.6}, gradient norm {norm:.6}");
        }
        Ok((seconds, loss))
    }

    fn report(&mut self, steps: usize, threads: usize) -> Result<()> {
        let mut times = Vec::new();
        let mut last = 0.0;
        for _ in 0..steps {
            let (seconds, loss) = self.step()?;
            times.push(seconds);
            last = loss;
        }
        rest();
        times.sort_by(f64::total_cmp);
        let median = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
        let &Shape { name, batch, length, .. } = self.model.shape;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let peak = peak.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0 / 1e6;
        println!(
            "{{\"engine\": \"candle\", \"version\": \"{}\", \"mode\": \"{}\", \"precision\": \"f32\", \
             \"shape\": \"{name}\", \"threads\": {threads}, \"tokens_per_second\": {:.1}, \"step_ms\": {:.2}, \
             \"peak_rss_mb\": {peak:.1}, \"loss\": {last:.6}}}",
            env!("CANDLE_VERSION"),
            if cfg!(feature = "mkl") {
                "mkl"
            } else if cfg!(feature = "avx512") {
                "avx512"
            } else {
                "default"
            },
            (batch * length) as f64 / median,
            median * 1000.0,
        );
        Ok(())
    }
}

fn main() -> Result<()> {
    let (mut shape, mut steps, mut threads) = ("llama-10m".to_string(), 5, 0);
    let (mut repeat, mut losses, mut sine) = (false, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--shape" => shape = value(),
            "--steps" => steps = value().parse().map_err(candle_core::Error::wrap)?,
            "--threads" => threads = value().parse().map_err(candle_core::Error::wrap)?,
            "--init" => sine = value() == "sine",
            "--precision" if value() == "f32" => {}
            "--repeat" => repeat = true,
            "--losses" => losses = true,
            other => bail!("can't use {other} (the only precision is f32)"),
        }
    }
    if threads == 0 {
        threads = std::thread::available_parallelism()?.get();
    }
    // SAFETY: no other thread runs yet. Candle reads its number of threads from here and nowhere else.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    let Some(shape) = SHAPES.iter().find(|known| known.name == shape) else { bail!("no shape {shape}") };

    let mut make = Maker { variables: Vec::new(), sine };
    let model = Model::new(shape, &mut make)?;
    let variables = make.variables;
    let settings = ParamsAdamW { lr: 3e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let optimizer = AdamW::new(variables.clone(), settings)?;
    let mut trainer = Trainer { model, variables, optimizer, batches: Batches { shape, state: 42 }, losses };
    for _ in 0..WARM_UP {
        trainer.step()?;
    }
    if !repeat {
        return trainer.report(steps, threads);
    }
    rest();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        trainer.report(steps, threads)?;
    }
    Ok(())
}
