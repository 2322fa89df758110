//! Keys and values in 8 bits: how far that takes answers from those with keys and values as the device stores numbers,
//! and what it saves.

use crate::drift::{Drift, Over, drift};
use crate::support::devices::with_kernels;
use flamant::{Device, Inspection, KvDtype, Options};

fn assert_close(device: Device, prompts: usize, most: f64) {
    let Drift { positions, divergence, largest, others } = drift(
        [KvDtype::Auto, KvDtype::Int8].map(|kv| Options::default().device(device).kv_dtype(kv)),
        Over::Prompt,
        prompts,
    );
    let (divergence, same) = (divergence / positions as f64, 1.0 - others as f64 / positions as f64);
    println!("{device}: {positions} positions, KL {divergence:.2e}, largest {largest:.3}, same token {same:.4}");
    assert!(divergence < most && same > 0.99, "{device}: KL {divergence}, same token {same}, largest {largest}");
}

/// The figures stand in docs/kv-cache.md, of more prompts.
#[test]
fn answers_stay_close_on_the_processor() {
    assert_close(Device::Cpu, 12, 1.5e-4);
}

/// Where what codes stand for is rounded to bf16.
#[test]
fn answers_stay_close_in_kernels() {
    with_kernels().into_iter().for_each(|device| assert_close(device, 2, 3e-4));
}

/// An image of four tiles in Llama-3.2-11B, and a token of it: 101 pages of 64 rows, 8 layers; 32 layers.
#[test]
fn pages_take_half_the_bytes() {
    let memory = Inspection::preset("llama-3.2-11b-vision").unwrap().memory[0];
    assert_eq!((memory.image, memory.image_int8), (211_812_352, 107_560_960));
    assert_eq!((memory.token, memory.token_int8), (131_072, 66_560));
    let card = 80_000_000_000;
    let [plain, int8] = [KvDtype::Auto, KvDtype::Int8].map(|kv_dtype| memory.fits(card, kv_dtype).unwrap());
    assert!(plain.iter().zip(int8).all(|(&plain, int8)| int8 * 100 > plain * 196));
}
