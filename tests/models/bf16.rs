//! Products in bf16 on the processor: how far they take answers from those in f32.

use crate::drift::{Drift, Over, drift};
use flamant::{Dtype, Options};

#[test]
fn answers_in_bf16_stay_close_to_those_in_f32() {
    let options = [Dtype::F32, Dtype::Bf16].map(|dtype| Options::default().dtype(Some(dtype)));
    let Drift { positions, divergence, largest, others } = drift(options, Over::Answer, 52);
    let (divergence, same) = (divergence / positions as f64, 1.0 - others as f64 / positions as f64);
    println!("{positions} positions, KL {divergence:.2e}, largest {largest:.3}, same token {same:.4}");
    assert!(divergence > 0.0, "nothing was rounded");
    assert!(divergence < 2e-5 && same > 0.99, "KL {divergence}, same token {same}, largest {largest}");
}
