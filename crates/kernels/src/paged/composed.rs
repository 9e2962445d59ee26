//! Paged attention composed of Burn's operations: for other devices, and to hold the kernel against. Keys and values
//! are gathered sequence by sequence.

use super::{Call, Content, KV_BLOCK, KvLayer, KvShape, PagedSequence};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::softmax};
use narthex_base::config::Precision;

/// Keys and values `[positions, K D]` of all blocks.
pub(super) fn pool(shape: &KvShape, device: &Device, dtype: DType) -> Box<[Tensor<2>; 2]> {
    let size = [shape.blocks * KV_BLOCK, shape.kv_heads * shape.head_width];
    Box::new([0, 1].map(|_| Tensor::zeros(size, (device, dtype))))
}

pub(super) fn attend(qkv: Tensor<2>, table: Tensor<2>, call: &Call) -> Tensor<2> {
    let Call { layer: KvLayer { shape, .. }, batch, heads: h, scores } = call;
    let KvShape { kv_heads: k, head_width: d, precision, int8, .. } = *shape;
    let (device, dtype) = (qkv.device(), qkv.dtype());
    let round = |x: Tensor<2>| match precision {
        Precision::F32 => x,
        Precision::Bf16 => x.cast(DType::BF16).cast(dtype),
    };
    let part = |first: usize, heads: usize| qkv.clone().narrow(1, first * d, heads * d);
    let scale = scores.scale(d);
    let q = round(crate::operators::rotary::reference(part(0, *h), table.clone()) * scale);
    // What 8 bits keep, in the tensors' own type.
    let quantized = |x: Tensor<2>| {
        let [n, width] = x.dims();
        let heads = x.reshape([n * k, d]);
        let scale = (heads.clone().abs().max_dim(1) / 127.0).clamp_min(f64::from(f32::MIN_POSITIVE));
        ((heads / scale.clone()).round() * scale).reshape([n, width])
    };
    let store = |x: Tensor<2>| if int8 { quantized(x) } else { round(x) };
    let new_keys = store(crate::operators::rotary::reference(part(*h, k), table));
    let new_values = store(part(h + k, k));
    let mut content = call.layer.lock();
    let Content::Tensors(pool) = &mut *content else { panic!("the pool of the CPU's kernels") };
    let [mut keys, mut values] = *pool.take().unwrap_or_else(|| self::pool(shape, &device, dtype));
    let slot_of =
        |blocks: &[u32], position: usize| blocks[position / KV_BLOCK] as usize * KV_BLOCK + position % KV_BLOCK;
    for PagedSequence { rows, first_position, blocks } in &batch.sequences {
        let blocks = &batch.tables[blocks.clone()];
        let mut done = 0;
        while done < rows.len() {
            // The positions that lie in one block lie side by side.
            let position = first_position + done;
            let count = (KV_BLOCK - position % KV_BLOCK).min(rows.len() - done);
            let slot = slot_of(blocks, position);
            let from = rows.start + done;
            let place = [slot..slot + count, 0..k * d];
            keys = keys.slice_assign(place.clone(), new_keys.clone().narrow(0, from, count));
            values = values.slice_assign(place, new_values.clone().narrow(0, from, count));
            done += count;
        }
    }
    let outputs = batch.sequences.iter().map(|PagedSequence { rows, first_position, blocks }| {
        let (n, seen) = (rows.len(), first_position + rows.len());
        let slots: Vec<i64> = (0..seen).map(|p| slot_of(&batch.tables[blocks.clone()], p) as i64).collect();
        let slots = Tensor::<1, Int>::from_data(TensorData::new(slots, [seen]), &device);
        let gather = |all: &Tensor<2>| all.clone().select(0, slots.clone()).reshape([seen, k, d]).swap_dims(0, 1);
        let (keys, values) = (gather(&keys), gather(&values));
        // The heads of a group are rows of one matrix: keys and values are never repeated.
        let g = h / k;
        let q = q.clone().narrow(0, rows.start, n).reshape([n, k, g, d]).swap_dims(0, 1).reshape([k, n * g, d]);
        let hidden: Vec<f32> = (0..n * seen)
            .map(|i| {
                let (row, key) = (first_position + i / seen, i % seen);
                let sees = key <= row && key >= scores.start(row);
                if sees { 0.0 } else { f32::NEG_INFINITY }
            })
            .collect();
        let hidden = Tensor::<2>::from_data(TensorData::new(hidden, [n, seen]), &device).cast(dtype);
        let hidden = hidden.reshape([1, n, 1, seen]).repeat_dim(2, g).reshape([1, n * g, seen]);
        let products = q.matmul(keys.swap_dims(1, 2));
        let products = match scores.softcap {
            Some(cap) => (products / cap).tanh() * cap,
            None => products,
        };
        let weights = softmax(products + hidden, 2);
        weights.matmul(values).reshape([k, n, g, d]).swap_dims(0, 1).reshape([n, h * d])
    });
    let output = Tensor::cat(outputs.collect(), 0);
    *pool = Some(Box::new([keys, values]));
    output
}
