//! Keys and values in 8 bits.

use flamant::probe::KvDtype;

use super::{Case, Family, Order, Seen, Size, causal, copied_page, forked_few, gated, grouped, heads, masked};

impl Case {
    /// With keys and values in 8 bits.
    pub fn int8(mut self) -> Case {
        self.name = format!("int8/{}", self.name);
        self.kv_dtype = KvDtype::Int8;
        self
    }

    /// With numbers that 8 bits hold exactly, in heads of this width.
    pub fn of_codes(mut self, head_width: usize) -> Case {
        self.name += "/codes";
        self.codes = Some(head_width);
        self
    }
}

/// A head of a row as multiples of 1/32, the largest of which is 127/32: in 8 bits its scale is 1/32.
pub fn make_codes(head: &mut [f32]) {
    head.iter_mut().for_each(|value| *value = (*value * 32.0).round().clamp(-127.0, 127.0) / 32.0);
    if head.iter().all(|value| value.is_finite()) {
        head[0] = 127.0 / 32.0;
    }
}

/// Keys and values in 8 bits, in kernels of every form and width.
pub fn small() -> Vec<Case> {
    use Size::Small;
    let chunks: &[&[(usize, u32)]] = &[&[(0, 66), (1, 3), (2, 17)], &[(2, 1), (1, 1), (0, 1)]];
    let decodes: &[&[(usize, u32)]] = &[&[(0, 1), (1, 1), (2, 1), (3, 1)], &[(2, 16), (0, 3), (1, 1)]];
    let filled = [130, 63, 5, 64];
    let cases = vec![
        causal(Small, "prefill", heads(2, 16), Order::Alibi, &[7], &[&[(0, 5)]]),
        causal(Small, "prefill", heads(2, 80), Order::Rotary(20), &[0], &[&[(0, 19)]]),
        causal(Small, "chunks", heads(3, 48), Order::Alibi, &[0, 9, 0], chunks),
        causal(Small, "chunks", heads(1, 80), Order::None, &[0, 9, 0], chunks),
        causal(Small, "decode", grouped(8, 1, 64), Order::Alibi, &filled, decodes),
        causal(Small, "decode", heads(1, 96), Order::None, &filled, decodes),
        causal(Small, "decode", heads(2, 128), Order::Alibi, &filled, decodes),
        forked_few(grouped(12, 4, 80), Order::Alibi, true),
        copied_page(Small, heads(2, 48)),
        masked(Small, heads(1, 64), &[65; 3], &Seen::Mixed.list(70, 3), false),
        masked(Small, grouped(6, 2, 48), &[330, 200, 65], &Seen::Neighbours.list(7, 3), true),
        masked(Small, heads(1, 128), &[130, 64], &Seen::Interleaved.list(20, 2), false),
        gated(Small, Family::Idefics, 112, heads(2, 96), &[66; 3], &Seen::Mixed.list(7, 3)),
        gated(Small, Family::Llama, 112, grouped(6, 2, 32), &[66; 3], &Seen::Last.list(2, 3)),
    ];
    cases.into_iter().map(Case::int8).collect()
}
